//! The daemon as a process: its command line, its start, its end.
//!
//! Knows: options, exit codes, files that it makes. Must not know: plugins.

use crate::support::client::Client;
use crate::support::daemon::{
    Daemon, KilledById, OK, PROGRAM, Site, errors_of, loopback, output_of, read_lossy, signal,
};
use crate::support::{PATIENCE, eventually, leaves_out};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::Command;

#[test]
fn in_the_foreground_it_logs_to_the_standard_output() {
    let mut daemon = Daemon::start(OK);
    assert_eq!(daemon.ask("instance=a.1").action(), "OK");
    let listens = format!("listens on 127.0.0.1:{}", daemon.site.port);
    assert!(daemon.logged("mtpolicyd ").contains(&listens), "{}", daemon.log());
    let line = daemon.logged("instance=a.1");
    assert!(line.starts_with("incoming: instance=a.1, type=smtpd_access_policy, t="), "{line}");
    let (before, id) = line.split_once(", plugin=ok, result=OK, id=").expect("that is its end");
    assert!(before.ends_with("ms") && id.len() == "9F3KQ-2M7TX".len(), "{line}");
    assert!(daemon.terminate().success());
    daemon.logged("mtpolicyd shutting down");
}

#[test]
fn at_the_end_it_answers_what_is_in_flight() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut site = Site::new();
    site.replace("$UPSTREAM", upstream.local_addr().unwrap());
    site.configure(
        &OK.replace("module = \"Action\"", "module = \"Proxy\"")
            .replace("action = \"OK\"", "host = \"$UPSTREAM\"\n    timeout = 60"),
    );
    let mut daemon = site.start();
    let mut idle = daemon.connect();
    let mut asking = daemon.connect();
    asking.send("instance=a.1");
    let (mut peer, _) = upstream.accept().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(BufReader::new(&peer).lines().map_while(Result::ok).any(|line| line == "instance=a.1"));

    daemon.signal("TERM");
    daemon.logged("finishing requests in flight");
    idle.expect_closed();
    eventually("nobody can connect", || Client::tcp(daemon.address()).is_err().then_some(()));
    peer.write_all(b"action=OK in time\n\n").unwrap();
    assert_eq!(asking.answer().action(), "OK in time");
    asking.expect_closed();
    assert!(daemon.wait().success());
}

#[test]
fn a_signal_that_comes_as_soon_as_the_port_is_open_is_acted_on() {
    let open = || {
        let daemon = Site::with(OK).spawn(&[]);
        eventually("the port is open", || Client::tcp(daemon.address()).is_ok().then_some(()));
        daemon
    };
    assert!(open().terminate().success());
    let reloaded = open();
    reloaded.signal("HUP");
    reloaded.logged("reloaded");
}

#[test]
fn in_the_background_the_parent_ends_when_the_daemon_answers() {
    let site = Site::with(&format!("pid_file = \"$DIR/d.pid\"\nlog_file = \"$DIR/d.log\"\n{OK}"));
    let start = site.run(&[]);
    let pid_file = site.path("d.pid");
    let background = read_lossy(&pid_file).trim().parse().expect("it is complete when the starter returns");
    let _killed = KilledById(background);
    assert!(start.status.success() && !errors_of(&start).contains("mtpolicyd: "), "{}", errors_of(&start));
    assert_eq!(Client::tcp(loopback(site.port)).unwrap().ask("instance=a.1").action(), "OK");
    eventually("the request is logged", || {
        read_lossy(&site.path("d.log")).contains("instance=a.1").then_some(())
    });

    let second = site.run(&[]);
    assert_eq!(second.status.code(), Some(1), "{}", errors_of(&second));
    assert_eq!(read_lossy(&pid_file).trim(), background.to_string());

    signal(background, "TERM");
    eventually("the pid file is removed", || (!pid_file.exists()).then_some(()));
    eventually("it ends", || Client::tcp(loopback(site.port)).is_err().then_some(()));
    assert!(read_lossy(&site.path("d.log")).contains("mtpolicyd shutting down"));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let site = Site::with(OK);
    let _taken = TcpListener::bind(loopback(site.port)).unwrap();
    for arguments in [&["-f"][..], &[]] {
        let output = site.run(arguments);
        assert_eq!(output.status.code(), Some(1));
        let errors = errors_of(&output);
        assert!(errors.contains(&format!("cannot listen on 127.0.0.1:{}", site.port)), "{errors}");
    }
}

#[test]
fn a_unix_socket_has_its_mode_and_goes_at_the_end() {
    let site = Site::with(&format!(
        "{}socket_mode = 0660\n{}",
        OK.replace("127.0.0.1:$PORT", "127.0.0.1:$PORT, $DIR/policy.sock|unix"),
        "<VirtualHost $DIR/policy.sock>\n name = \"local\"\n <Plugin no>\n  module = \"Action\"\n  \
         action = \"reject\"\n </Plugin>\n</VirtualHost>\n"
    ));
    let path = site.path("policy.sock");
    // A file that a daemon before left behind is not an obstacle.
    drop(UnixListener::bind(&path).unwrap());
    let mut daemon = site.start();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
    assert!(path.metadata().unwrap().file_type().is_socket());
    assert_eq!(Client::unix(&path).unwrap().ask("a=b").action(), "reject");
    assert_eq!(daemon.ask("a=b").action(), "OK");
    assert!(daemon.terminate().success());
    assert!(!path.exists());
}

#[test]
fn it_listens_on_ipv6_where_there_is_any() {
    if TcpListener::bind("[::1]:0").is_err() {
        leaves_out("there is no IPv6 here", "that the daemon listens on it");
        return;
    }
    let daemon = Daemon::start(&OK.replace("127.0.0.1:$PORT", "127.0.0.1:$PORT, [::1]:$PORT"));
    let address = format!("[::1]:{}", daemon.site.port).parse().unwrap();
    assert_eq!(Client::tcp(address).unwrap().ask("a=b").action(), "OK");
}

#[test]
fn a_broken_file_is_shown_like_a_compiler_does() {
    let broken = OK.replace("module = \"Action\"", "module = \"Acton\"").replace("name =", "nme =");
    let site = Site::with(&broken);
    let checked: [&[&str]; 4] = [&["-f"], &[], &["-d"], &["-t", "hourly"]];
    for arguments in checked {
        let output = site.run(arguments);
        let errors = errors_of(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        let place = format!("{}:5:14", site.config().display());
        for part in
            [&place, "module = \"Acton\"", "^^^^", "did you mean `Action`?", "needs the option `name`"]
        {
            assert!(errors.contains(part), "{part}: {errors}");
        }
    }
}

#[test]
fn check_says_what_is_wrong() {
    let check = |site: &Site, strict: bool| {
        let mut command = std::process::Command::new(crate::support::daemon::PROGRAM);
        command.arg("check").arg(site.config()).args(strict.then_some("--strict"));
        crate::support::daemon::run(&mut command, b"")
    };
    let good = check(&Site::with(OK), true);
    assert!(good.status.success() && good.stderr.is_empty() && output_of(&good).contains("can be used"));

    let surprising = Site::with(&format!("{OK}max_severs = 5\n"));
    let output = check(&surprising, false);
    assert!(output.status.success() && errors_of(&output).contains("`max_severs`"), "{}", errors_of(&output));
    let output = check(&surprising, true);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty() && errors_of(&output).contains("`max_severs`"));

    assert_eq!(check(&Site::with("port = 1\n"), false).status.code(), Some(1));
    let missing = check(&Site::new(), false);
    assert_eq!(missing.status.code(), Some(1));
    assert!(errors_of(&missing).contains("mtpolicyd.conf"), "{}", errors_of(&missing));
}

#[test]
fn every_mistake_is_said_in_one_run() {
    let site = Site::with(
        "port = \"127.0.0.1:$PORT, 127.0.0.1:$OTHER\"\ndb_dsn = \"dbi:x\"\nlog_level = loud\n\
         <VirtualHost $PORT>\n name = \"a\"\n <Plugin outer>\n  module = Condition\n  key = \"bogus:x\"\n  \
         re_match = \"(\"\n  <Plugin inner>\n   module = RBL\n   score = many\n  </Plugin>\n </Plugin>\n \
         <Plugin nameless>\n  <Plugin inside>\n   module = Nonesuch\n  </Plugin>\n </Plugin>\n \
         <Plugin list>\n  module = RegexList\n  key = \"x:y\"\n  file = \"/nothere\"\n </Plugin>\n\
         </VirtualHost>\n\
         <VirtualHost $PORT>\n name = \"b\"\n</VirtualHost>\n",
    );
    let output = site.run(&["-d"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = errors_of(&output);
    for part in [
        "`db_dsn` of mtpolicyd 1.x",
        "`loud`",
        "`bogus` is not a scope",
        "unmatched (",
        "needs the option `domain`",
        "`many` is not a number",
        "Plugin nameless needs the option `module`",
        "no module `Nonesuch`",
        "`x` is not a scope",
        "can't read `/nothere`",
        "has no plugin",
    ] {
        assert!(errors.contains(part), "{part} is not among:\n{errors}");
    }
    assert!(!errors.contains("has no effect"), "{errors}");
}

#[test]
fn the_command_line_is_that_of_the_original() {
    let site = Site::with(OK);
    let help = site.run(&["-h"]);
    assert!(help.status.success() && output_of(&help).contains("--foreground"));
    for option in ["-d", "--dump_vhosts", "--dump_config"] {
        let dump = site.run(&[option]);
        assert!(dump.status.success() && dump.stderr.is_empty(), "{option}: {}", errors_of(&dump));
        let text = output_of(&dump);
        let host = format!("<VirtualHost \"{}\">", site.port);
        for part in [host.as_str(), "<Plugin \"ok\">", "name = \"incoming\"", "module = \"Action\""] {
            assert!(text.contains(part), "{option}: {text}");
        }
    }
    let cron = site.run(&["-t", "hourly,daily"]);
    assert!(cron.status.success() && cron.stderr.is_empty() && cron.stdout.is_empty());
    let cron = site.run(&["--cron", "hourli"]);
    assert!(
        cron.status.code() == Some(1) && errors_of(&cron).contains("did you mean `hourly`?"),
        "{}",
        errors_of(&cron)
    );
    let bogus = site.run(&["--bogus"]);
    assert_eq!(bogus.status.code(), Some(2));
    assert!(errors_of(&bogus).contains("--bogus"));
}

#[test]
fn the_level_of_the_command_line_wins() {
    let site = Site::with(&format!("log_level = 0\n{OK}"));
    let daemon = site.start_with(&["-l", "4"]);
    assert_eq!(daemon.ask("instance=a.1").action(), "OK");
    daemon.logged("instance=a.1");
}

#[test]
fn the_manual_is_in_the_program() {
    let manual = |arguments: &[&str]| {
        let mut command = std::process::Command::new(crate::support::daemon::PROGRAM);
        crate::support::daemon::run(command.arg("manual").args(arguments), b"")
    };
    let list = output_of(&manual(&[]));
    assert!(
        ["RBL ", "mtpolicyd.conf "].iter().all(|name| list.lines().any(|line| line.starts_with(name))),
        "{list}"
    );
    assert!(list.lines().all(|line| line.split_once("  ").is_some_and(|(_, what)| !what.trim().is_empty())));
    assert!(output_of(&manual(&["rbl"])).starts_with("# RBL\n"));
    assert!(output_of(&manual(&["RBL", "--format", "man"])).starts_with(".TH"));
    let concepts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/concepts.md");
    assert_eq!(output_of(&manual(&["concepts"])), std::fs::read_to_string(concepts).unwrap());
    let concepts = output_of(&manual(&["concepts", "--format", "man"]));
    assert!(concepts.contains("\n.SH \"ONCE PER MESSAGE\"\nA check"), "{concepts}");
    let unknown = manual(&["RBLActoin"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(errors_of(&unknown).contains("did you mean `RBLAction`?"), "{}", errors_of(&unknown));
}

#[test]
fn a_json_log_has_an_object_a_line() {
    let mut daemon = Daemon::start(&format!("log_format = json\nlog_level = 4\n{OK}"));
    let mut client = daemon.connect();
    client.send_raw(b"request=smtpd_access_policy\ninstance=\"x\"\r\x1b\xff\\\n\n").unwrap();
    assert_eq!(client.answer().action(), "OK");
    client.send_raw(b"no attribute\n\n").unwrap();
    client.expect_closed();
    assert!(daemon.terminate().success());
    let lines: Vec<serde_json::Value> =
        daemon.log().lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let request = lines.iter().find(|line| line["event"] == "request").expect("the request is logged");
    assert_eq!(request["plugin"], "ok");
    assert_eq!(request["result"], "OK");
    assert!(request["instance"].as_str().unwrap().starts_with("\"x\""), "{request}");
    assert!(lines.iter().any(|line| line["level"] == "error"), "{lines:?}");
}

#[test]
fn worker_threads_are_as_many_as_the_file_says() {
    let workers = |daemon: &Daemon| {
        let tasks = fs::read_dir(format!("/proc/{}/task", daemon.id())).unwrap();
        // One that ends meanwhile has no name any more.
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let names = tasks.map(|task| name(task.unwrap()));
        names.filter(|name| name.starts_with("tokio-r")).count()
    };
    for count in [1, 3] {
        let daemon = Daemon::start(&format!("worker_threads = {count}\n{OK}"));
        assert_eq!(daemon.ask("a=b").action(), "OK");
        // A thread that has read a file has the same name, and ends after ten seconds without work.
        eventually("as many threads as the file says", || (workers(&daemon) == count).then_some(()));
        daemon.site.configure(&format!("worker_threads = 2\n{OK}"));
        daemon.reload(&format!("worker_threads = 2\nnode = 7\n{OK}"));
        daemon.logged("the changed worker_threads takes effect at the next restart");
        daemon.logged("the changed node takes effect at the next restart");
    }
    for count in [0, 1025] {
        let site = Site::with(&format!("worker_threads = {count}\n{OK}"));
        let refused = Command::new(PROGRAM).arg("check").arg(site.config()).status().unwrap();
        assert!(!refused.success(), "{count}");
    }
}
