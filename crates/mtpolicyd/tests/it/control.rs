//! The control socket and the commands that use it: who may do what, what they print, what can't harm them.
//!
//! Knows: the commands, their exit codes, HTTP as bytes. Must not know: the daemon's code.

use crate::support::daemon::{Daemon, KilledById, OK, PROGRAM, Site, errors_of, output_of, run, signal};
use crate::support::{PATIENCE, eventually, is_root_or_leaves_out};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};

/// What names the socket of a test.
const CONTROL: &str = "<Control>\n  socket = \"$DIR/control.sock\"\n</Control>\n";

/// A daemon that always answers `OK`, with a control socket.
fn configuration() -> String {
    format!("{CONTROL}{OK}")
}

/// Runs a command that finds the daemon by its configuration file.
fn command(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg("-c").arg(site.config());
    run(&mut command, b"")
}

/// The same as another user.
fn command_as(site: &Site, (user, group, groups): (&str, &str, &str), arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", group]);
    match groups {
        "" => command.arg("--clear-groups"),
        groups => command.args(["--groups", groups]),
    };
    // By its open file: the folders above it need not be open to other users.
    let program = fs::File::open(PROGRAM).expect("the program is there");
    command.arg("/proc/self/fd/0").args(arguments).arg("--socket").arg(site.path("control.sock"));
    command.stdin(program).output().expect("there is a setpriv")
}

/// Its exit code, what it printed, and what it said.
fn outcome(output: &Output) -> (i32, String, String) {
    (output.status.code().expect("it has ended by itself"), output_of(output), errors_of(output))
}

/// One line, and exit code 2.
#[track_caller]
fn fails(output: &Output, words: &str) {
    let (code, printed, said) = outcome(output);
    assert_eq!((code, printed.as_str(), said.lines().count()), (2, "", 1), "{said}");
    assert!(said.contains(words), "{said}");
}

/// What comes back for some bytes, up to the end of the connection.
fn raw(site: &Site, bytes: &[u8]) -> String {
    let (mut stream, mut answer) = (connect(site), Vec::new());
    // A daemon that has said enough may have closed the connection before it has read everything.
    let _ = stream.write_all(bytes).and_then(|()| stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

fn connect(site: &Site) -> UnixStream {
    let stream = UnixStream::connect(site.path("control.sock")).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a socket");
    stream
}

/// The answer to a request by its method and path: its status, and its body.
#[track_caller]
fn http(site: &Site, method: &str, path: &str, body: &str) -> (u16, Value) {
    try_http(site, method, path, body).expect("it is HTTP")
}

/// The same; nothing if the connection is closed instead.
fn try_http(site: &Site, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = raw(site, request.as_bytes());
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok())?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

#[test]
fn status_says_how_the_daemon_is() {
    let daemon = Daemon::start(&configuration());
    let (code, text, _) = outcome(&command(&daemon.site, &["status"]));
    assert_eq!(code, 0);
    let port = format!("127.0.0.1:{}", daemon.site.port);
    for words in ["ready          yes", "mtpolicyd 3.", "incoming", &port, "log level      2"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "a pipe has no colors");
    let (_, json, _) = outcome(&command(&daemon.site, &["status", "--format", "json"]));
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&status["ready"], &status["process"]), (&Value::Bool(true), &daemon.id().into()));
    assert_eq!(status["ports"], serde_json::json!([port]));
    assert_eq!(json.lines().count(), 1);
    let (code, text, _) = outcome(&command(&daemon.site, &["status", "--ready"]));
    assert_eq!((code, text.as_str()), (0, "ready\n"));
    let (code, text, _) = outcome(&command(&daemon.site, &["status", "--color", "always"]));
    assert!(code == 0 && text.contains("\u{1b}[32myes"), "{text}");
}

#[test]
fn a_backend_that_does_not_answer_is_told() {
    let backend = "<Connection store>\n  module = Redis\n  server = \"127.0.0.1:$OTHER\"\n</Connection>\n";
    let daemon = Daemon::start(&format!("{backend}{}", configuration()));
    let (code, text, _) = outcome(&command(&daemon.site, &["status", "--ready"]));
    assert_eq!(code, 1);
    assert!(text.starts_with("not ready\nstore does not answer: "), "{text}");
    let (code, text, _) = outcome(&command(&daemon.site, &["status"]));
    assert!(code == 0 && text.contains("store (Redis) down: "), "{text}");
    daemon.reload(&format!("on_error = defer\n{backend}{}", configuration()));
    let (code, text, _) = outcome(&command(&daemon.site, &["status", "--ready"]));
    assert_eq!((code, text.as_str()), (0, "ready\n"), "it answers requests");
}

#[test]
fn without_a_daemon_there_is_one_line() {
    let site = Site::with(&configuration());
    for arguments in [&["status"][..], &["reload"], &["explain", "9F3KQ-2M7TX"], &["log-level", "4"]] {
        fails(&command(&site, arguments), "control.sock: there is no such socket");
    }
    // One that was killed leaves its socket.
    let mut daemon = site.start();
    daemon.signal("KILL");
    daemon.wait();
    let site = daemon.into_site();
    assert!(site.path("control.sock").exists());
    fails(&command(&site, &["status", "--ready"]), "the daemon is not running");
    // The next one replaces it.
    let daemon = site.start();
    assert_eq!(outcome(&command(&daemon.site, &["status", "--ready"])).0, 0);
    // What answers there is something else.
    let site = Site::with(&configuration());
    let other = std::os::unix::net::UnixListener::bind(site.path("control.sock")).unwrap();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        stream.write_all(b"action=dunno\n\n").unwrap();
    });
    fails(&command(&site, &["status"]), "the connection to the daemon at");
    answers.join().unwrap();
}

#[test]
fn reload_waits_for_what_comes_of_it() {
    let daemon = Daemon::start(&configuration());
    daemon.site.configure(&configuration().replace("\"OK\"", "\"OK again\""));
    let (code, text, said) = outcome(&command(&daemon.site, &["reload"]));
    assert!(code == 0 && text.starts_with("reloaded: configuration "), "{text}{said}");
    assert_eq!(daemon.ask("a=b").action(), "OK again", "it is in use when the command ends");

    daemon.site.configure(&configuration().replace("module =", "modul =").replace("\"OK\"", "\"OK third\""));
    let (code, text, _) = outcome(&command(&daemon.site, &["reload"]));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("did you mean") && text.contains("mtpolicyd.conf:"), "{text}");
    assert!(text.contains("not reloaded: 1 mistake; configuration "), "{text}");
    assert_eq!(daemon.ask("a=b").action(), "OK again");

    // A file that can't be read as a whole still names the socket.
    daemon.site.configure(&configuration().replace("</Plugin>", ""));
    let (code, text, said) = outcome(&command(&daemon.site, &["reload"]));
    assert!(code == 1 && text.contains("not reloaded: "), "{text}{said}");

    // A port that somebody else has is a reason too.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("port = \"127.0.0.1:$PORT, 127.0.0.1:{}\"", taken.local_addr().unwrap().port());
    let text = configuration().replace("port = \"127.0.0.1:$PORT\"", &port);
    let more = OK.replace("$PORT", &taken.local_addr().unwrap().port().to_string());
    let more = more.split_once('\n').expect("it has lines").1.replace("incoming", "more");
    daemon.site.configure(&format!("{text}{more}"));
    let (code, text, _) = outcome(&command(&daemon.site, &["reload"]));
    assert!(code == 1 && text.contains("cannot listen on"), "{text}");
    assert!(daemon.log().contains("reload requested by "), "{}", daemon.log());
    assert_eq!(daemon.ask("a=b").action(), "OK again");
}

#[test]
fn reloads_at_the_same_time_all_end() {
    let daemon = Daemon::start(&configuration());
    std::thread::scope(|scope| {
        let site = &daemon.site;
        let reloads: Vec<_> =
            (0..8).map(|_| scope.spawn(move || http(site, "POST", "/v1/reload", "{}"))).collect();
        for reload in reloads {
            let (status, view) = reload.join().unwrap();
            assert_eq!((status, &view["reloaded"]), (200, &Value::Bool(true)));
        }
    });
}

#[test]
fn the_log_level_falls_back() {
    let daemon = Daemon::start(&configuration());
    let debug =
        || daemon.log().lines().filter(|line| line.contains("debug: ") || line.contains("times: ")).count();
    let (code, text, _) = outcome(&command(&daemon.site, &["log-level", "4"]));
    assert_eq!((code, text.as_str()), (0, "log level 4\n"));
    daemon.ask("a=b").action();
    eventually("it logs more", || (debug() > 0).then_some(()));
    daemon.reload(&configuration());
    let (_, text, _) = outcome(&command(&daemon.site, &["log-level"]));
    assert_eq!(text, "log level 2\n", "a reload sets that of the file");
    let (code, text, _) = outcome(&command(&daemon.site, &["log-level", "3", "--for", "1s"]));
    assert!(code == 0 && text.starts_with("log level 3 until "), "{text}");
    daemon.logged("log level 2 again, as configured");
    let (_, text, _) = outcome(&command(&daemon.site, &["log-level"]));
    assert_eq!(text, "log level 2\n");
    let (code, text, _) = outcome(&command(&daemon.site, &["log-level", "4", "--for", "10m"]));
    assert!(code == 0 && text.starts_with("log level 4 until "), "{text}");
    daemon.reload(&configuration());
    let (_, text, _) = outcome(&command(&daemon.site, &["log-level"]));
    assert!(text.starts_with("log level 4 until "), "its time is not over: {text}");
    fails(&command(&daemon.site, &["log-level", "4", "--for", "30d"]), "seven days at most");
}

#[test]
fn what_somebody_may_depends_on_who_it_is() {
    if !is_root_or_leaves_out("what other users may do at the control socket") {
        return;
    }
    let group = |level: &str| {
        let group = format!("</Control>\n{level}");
        configuration().replace("</Control>\n", &format!("  group = daemon\n{group}"))
    };
    let daemon = Daemon::start(&format!("user = nobody\ngroup = nogroup\n{}", group("")));
    let made = daemon.site.path("control.sock").metadata().unwrap();
    assert_eq!(made.permissions().mode() & 0o777, 0o660);
    let named = |name: &str| nix::unistd::Group::from_name(name).ok().flatten().expect("every Debian has it");
    assert_eq!(made.gid(), named("daemon").gid.as_raw());
    let (stranger, member) = (("bin", "bin", ""), ("bin", "bin", "daemon"));
    let (own_group, same_user) = (("bin", "daemon", ""), ("nobody", "nogroup", ""));
    let site = &daemon.site;
    fails(&command_as(site, stranger, &["status"]), "permission denied; you are bin, group daemon may");
    for who in [member, own_group, same_user] {
        assert_eq!(outcome(&command_as(site, who, &["status", "--ready"])).0, 0, "{who:?}");
        assert_eq!(outcome(&command_as(site, who, &["log-level", "2"])).0, 0, "{who:?}");
    }
    let refusal = "you are bin and have level change, this needs admin";
    fails(&command_as(site, member, &["reload"]), refusal);
    fails(&command_as(site, member, &["decisions", "forget", "--address", "a@example.org"]), refusal);
    fails(&command_as(site, member, &["audit"]), refusal);
    assert_eq!(outcome(&command_as(site, same_user, &["reload"])).0, 0);

    let read = "  group_level = read\n</Control>\n";
    let text = group("").replace("</Control>\n", read);
    daemon.reload(&format!("user = nobody\ngroup = nogroup\n{text}"));
    assert_eq!(outcome(&command_as(site, member, &["status"])).0, 0);
    let refusal = "you are bin and have level read, this needs change";
    fails(&command_as(site, member, &["log-level", "4"]), refusal);
    // Somebody has opened it to everybody: then only members of the group are let in by it.
    fs::set_permissions(site.path("control.sock"), fs::Permissions::from_mode(0o666)).unwrap();
    fails(&command_as(site, stranger, &["status"]), "you are bin; root, the user of the daemon and members");
    assert_eq!(outcome(&command_as(site, own_group, &["status"])).0, 0);
    assert!(daemon.log().contains("log level 2 requested by nobody, until the next reload"));
}

#[test]
fn a_socket_that_can_not_be_made_stops_the_start_only_if_it_is_named() {
    let site = Site::with(&configuration());
    fs::write(site.path("control.sock"), "precious").unwrap();
    let output = site.run(&["-f"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors_of(&output).contains("not a socket is in the way"), "{}", errors_of(&output));
    assert_eq!(fs::read(site.path("control.sock")).unwrap(), b"precious");

    // The same folder as that of the service: nobody has asked for this one.
    site.configure(OK);
    let mut command = site.command(&["-f"]);
    command.env("RUNTIME_DIRECTORY", site.path(""));
    let daemon = site.spawn_command(command);
    daemon.logged("no control socket: cannot listen on");
    daemon.wait_until_it_answers();
    assert_eq!(daemon.ask("a=b").action(), "OK");

    let site = daemon.into_site();
    fs::remove_file(site.path("control.sock")).unwrap();
    let mut command = site.command(&["-f"]);
    command.env("RUNTIME_DIRECTORY", site.path(""));
    let daemon = site.spawn_command(command);
    daemon.wait_until_it_answers();
    assert_eq!(http(&daemon.site, "GET", "/v1/status", "").0, 200);

    let site = daemon.into_site();
    site.configure(&format!("<Control>\n enabled = off\n</Control>\n{OK}"));
    let mut command = site.command(&["-f"]);
    command.env("RUNTIME_DIRECTORY", site.path(""));
    let daemon = site.spawn_command(command);
    daemon.wait_until_it_answers();
    let stale = UnixStream::connect(daemon.site.path("control.sock"));
    assert!(stale.is_err(), "nobody listens there");
}

#[test]
fn odd_requests_get_an_answer() {
    let daemon = Daemon::start(&configuration());
    let site = &daemon.site;
    for (method, path, body, status, words) in [
        ("GET", "/", "", 404, "there is no / here"),
        ("GET", "/v1/status/x", "", 404, "there is no"),
        ("DELETE", "/v1/status", "", 405, "DELETE is not possible here, only GET"),
        ("GET", "/v1/reload", "", 405, "only POST"),
        ("GET", "/v1/status?a=%ff", "", 400, "is not UTF-8"),
        ("GET", "/v1/status?form=a", "", 400, "`form` is not known here"),
        ("POST", "/v1/log-level", "{\"level\": 9}", 400, "9 is not a level from 0 to 4"),
        ("POST", "/v1/log-level", "{\"levle\": 1}", 400, "unknown field `levle`"),
        ("POST", "/v1/log-level", "nonsense", 400, "the body is not what is expected here"),
    ] {
        let (found, answer) = http(site, method, path, body);
        assert_eq!(found, status, "{method} {path}: {answer}");
        let text = answer["error"].as_str().unwrap_or_default();
        assert!(text.contains(words), "{method} {path}: {text}");
    }
    let long = format!("{{\"level\": 1, \"x\": \"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(http(site, "POST", "/v1/log-level", &long).0, 413);
    assert!(raw(site, b"nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));
    let head = format!("GET /v1/status HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert!(raw(site, head.as_bytes()).starts_with("HTTP/1.1 4"));
    assert_eq!(http(site, "GET", "/v1/status", "").0, 200);
    assert_eq!(daemon.ask("a=b").action(), "OK");
}

#[test]
fn connections_that_say_nothing_do_not_keep_others_out() {
    let daemon = Daemon::start(&configuration());
    let silent: Vec<_> = (0..200).map(|_| connect(&daemon.site)).collect();
    let mut half = connect(&daemon.site);
    half.write_all(b"GET /v1/status HTTP/1.1\r\nHost").unwrap();
    for _ in 0..10 {
        assert_eq!(http(&daemon.site, "GET", "/v1/status", "").0, 200);
        assert_eq!(daemon.ask("a=b").action(), "OK");
    }
    assert_eq!(outcome(&command(&daemon.site, &["status", "--ready"])).0, 0);
    drop(silent);
    let mut daemon = daemon;
    assert!(daemon.terminate().success(), "connections that say nothing do not keep it from ending");
    assert!(!daemon.site.path("control.sock").exists());
}

#[test]
fn a_successor_takes_the_socket_over() {
    let mut daemon = Daemon::start(&format!("pid_file = \"$DIR/d.pid\"\n{}", configuration()));
    let before = fs::metadata(daemon.site.path("control.sock")).unwrap().ino();
    signal(daemon.id(), "USR2");
    let process = || {
        let (_, status) = try_http(&daemon.site, "GET", "/v1/status", "")?;
        status["process"].as_u64().filter(|process| *process != u64::from(daemon.id()))
    };
    let new = KilledById(u32::try_from(eventually("the new process answers", process)).unwrap());
    daemon.logged("has taken over the ports");
    assert!(daemon.wait().success());
    assert_eq!(
        fs::metadata(daemon.site.path("control.sock")).unwrap().ino(),
        before,
        "it is the same socket"
    );
    assert_eq!(outcome(&command(&daemon.site, &["reload"])).0, 0);
    signal(new.0, "TERM");
    eventually("the socket goes with it", || (!daemon.site.path("control.sock").exists()).then_some(()));
}

#[test]
fn the_manual_has_every_route() {
    let output = run(Command::new(PROGRAM).args(["manual", "control"]), b"");
    let (code, page, _) = outcome(&output);
    assert_eq!(code, 0);
    for words in ["## GET /v1/status", "## POST /v1/reload", "Level `admin`.", "curl --unix-socket"] {
        assert!(page.contains(words), "{words}: {page}");
    }
}
