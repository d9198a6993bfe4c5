//! SIGHUP: a good file is used from the next request on, a bad one changes nothing.
//!
//! Knows: the configuration file, what the log says of it. Must not know: plugins.

use crate::support::client::Client;
use crate::support::daemon::{Daemon, Site, loopback, read_lossy};
use crate::support::eventually;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A daemon that always answers this.
fn answering(action: &str) -> String {
    format!(
        "port = \"127.0.0.1:$PORT\"\n<VirtualHost $PORT>\n  name = \"incoming\"\n  <Plugin answer>\n    \
         module = \"Action\"\n    action = \"{action}\"\n  </Plugin>\n</VirtualHost>\n"
    )
}

#[test]
fn a_good_file_is_used_and_no_connection_is_dropped() {
    let daemon = Daemon::start(&answering("first"));
    let mut open = daemon.connect();
    assert_eq!(open.ask("a=b").action(), "first");
    let mut half = daemon.connect();
    half.send_raw(b"request=smtpd_access_policy\n").unwrap();
    daemon.reload(&answering("second"));
    assert_eq!(open.ask("a=b").action(), "second");
    half.send_raw(b"\n").unwrap();
    assert_eq!(half.answer().action(), "second");
    assert_eq!(daemon.ask("a=b").action(), "second");
    daemon.logged("reloaded ");
}

#[test]
fn under_load_no_answer_is_lost() {
    const RELOADS: usize = 5;
    let daemon = Daemon::start(&answering("OK 0"));
    let asking = std::sync::atomic::AtomicBool::new(true);
    let answered = std::thread::scope(|scope| {
        let ask = || {
            let mut client = daemon.connect();
            let mut count = 0;
            while asking.load(std::sync::atomic::Ordering::Relaxed) {
                assert!(client.ask("a=b").action().starts_with("OK "));
                count += 1;
            }
            count
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        for n in 1..=RELOADS {
            daemon.reload(&answering(&format!("OK {n}")));
        }
        asking.store(false, std::sync::atomic::Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<usize>>()
    });
    assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
    assert_eq!(daemon.ask("a=b").action(), format!("OK {RELOADS}"));
}

#[test]
fn a_bad_file_changes_nothing_and_is_explained() {
    let mut daemon = Daemon::start(&answering("first"));
    let mut open = daemon.connect();
    assert_eq!(open.ask("a=b").action(), "first");
    daemon.reload(&answering("second").replace("module =", "modul =").replace("name =", "nam ="));
    let config = daemon.site.config().display().to_string();
    let mistake = daemon.logged("Plugin answer needs the option `module`");
    assert!(mistake.contains(&format!("{config}:4:")), "{mistake}");
    let mistake = daemon.logged("needs the option `name`");
    assert!(mistake.contains(&format!("{config}:2:")), "{mistake}");
    daemon.logged("not reloaded: the old configuration stays in use");
    assert_eq!(open.ask("a=b").action(), "first");
    assert_eq!(daemon.ask("a=b").action(), "first");

    daemon.reload(&answering("third"));
    assert_eq!(open.ask("a=b").action(), "third");
    drop(open);
    assert!(daemon.terminate().success());
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let daemon = Daemon::start(&answering("first"));
    fs::remove_file(daemon.site.config()).unwrap();
    daemon.hang_up();
    assert!(daemon.logged("can't be read").contains("No such file"), "{}", daemon.log());
    daemon.logged("not reloaded: the old configuration stays in use");
    assert_eq!(daemon.ask("a=b").action(), "first");

    fs::create_dir(daemon.site.config()).unwrap();
    daemon.hang_up();
    assert_eq!(daemon.ask("a=b").action(), "first");
}

#[test]
fn a_changed_port_is_followed() {
    let daemon = Daemon::start(&answering("first"));
    let (old, new) = (daemon.site.port, daemon.site.other_port);
    let mut open = daemon.connect();
    assert_eq!(open.ask("a=b").action(), "first");
    let both = answering("both").replace("127.0.0.1:$PORT", "127.0.0.1:$PORT, 127.0.0.1:$OTHER")
        + &answering("new").replace("$PORT", "$OTHER").split_off("port = \"127.0.0.1:$OTHER\"\n".len());
    daemon.reload(&both);
    assert_eq!(daemon.connect_to(new).ask("a=b").action(), "new");
    assert_eq!(daemon.connect_to(old).ask("a=b").action(), "both");

    daemon.reload(&answering("new").replace("$PORT", "$OTHER"));
    eventually("the old port is closed", || Client::tcp(loopback(old)).is_err().then_some(()));
    assert_eq!(daemon.connect_to(new).ask("a=b").action(), "new");
}

#[test]
fn an_address_may_grow_and_shrink_on_its_port() {
    let daemon = Daemon::start(&answering("first"));
    daemon.reload(&answering("second").replace("127.0.0.1:$PORT", "*:$PORT"));
    assert_eq!(daemon.ask("a=b").action(), "second");
    daemon.reload(&answering("third"));
    assert_eq!(daemon.ask("a=b").action(), "third");
}

#[test]
fn a_port_that_is_taken_changes_nothing() {
    let daemon = Daemon::start(&answering("first"));
    let _taken = std::net::TcpListener::bind(loopback(daemon.site.other_port)).unwrap();
    let second = answering("second").replace("$PORT", "$OTHER");
    daemon.reload(&second);
    daemon.logged(&format!("not reloaded: cannot listen on 127.0.0.1:{}", daemon.site.other_port));
    assert_eq!(daemon.ask("a=b").action(), "first");
}

#[test]
fn a_changed_user_needs_a_restart() {
    let daemon = Daemon::start(&answering("first"));
    daemon.reload(&format!("user = nobody\ngroup = nogroup\n{}", answering("second")));
    let refusal = daemon.logged("not reloaded");
    assert!(refusal.contains("a changed user and group needs a restart"), "{refusal}");
    assert_eq!(daemon.ask("a=b").action(), "first");
}

/// A daemon that knows a message that it was asked about before.
const REMEMBERING: &str = "\
port = \"127.0.0.1:$PORT\"
<SessionCache>
  module = \"Memory\"
</SessionCache>
<VirtualHost $PORT>
  name = \"incoming\"
  <Plugin known>
    module = \"Condition\"
    key = \"session:seen\"
    match = \"yes\"
    action = \"$KNOWN\"
  </Plugin>
  <Plugin see>
    module = \"SetField\"
    key = \"seen\"
    value = \"yes\"
  </Plugin>
</VirtualHost>
";

#[test]
fn sessions_in_memory_survive() {
    let text = |known: &str| REMEMBERING.replace("$KNOWN", known);
    let daemon = Daemon::start(&text("reject old"));
    assert_eq!(daemon.ask("instance=a.1").action(), "dunno");
    daemon.reload(&text("reject new"));
    assert_eq!(daemon.ask("instance=a.1").action(), "reject new");
    assert_eq!(daemon.ask("instance=a.2").action(), "dunno");
}

#[test]
fn the_connection_to_another_daemon_survives() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counter = accepted.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, Ordering::Relaxed);
            std::thread::spawn(move || {
                let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                for _ in lines.filter(String::is_empty) {
                    (&stream).write_all(b"action=ok\n\n").unwrap();
                }
            });
        }
    });
    let proxy = |timeout: &str| {
        format!(
            "port = \"127.0.0.1:$PORT\"\n<VirtualHost $PORT>\n  name = \"incoming\"\n  <Plugin other>\n    \
             module = \"Proxy\"\n    host = \"{address}\"\n    keepalive = 1\n    timeout = {timeout}\n  \
             </Plugin>\n</VirtualHost>\n"
        )
    };
    let daemon = Daemon::start(&proxy("5"));
    assert_eq!(daemon.ask("a=b").action(), "ok");
    daemon.reload(&proxy("6"));
    assert_eq!(daemon.ask("a=b").action(), "ok");
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
}

#[test]
fn the_log_file_is_opened_again_and_its_level_changes() {
    let text = |level: u8| format!("log_file = \"$DIR/d.log\"\nlog_level = {level}\n{}", answering("OK"));
    let site = Site::with(&text(1));
    let daemon = site.start();
    let (log, moved) = (daemon.site.path("d.log"), daemon.site.path("d.log.1"));
    assert_eq!(daemon.ask("instance=before").action(), "OK");
    let has = |path, words| eventually(words, || read_lossy(path).contains(words).then_some(()));
    has(&log, "instance=before");
    // As logrotate does.
    fs::rename(&log, &moved).unwrap();
    daemon.site.configure(&text(2));
    daemon.signal("HUP");
    eventually("the file is there again", || log.exists().then_some(()));
    assert_eq!(daemon.ask("instance=after").action(), "OK");
    has(&log, "instance=after");
    assert!(!read_lossy(&moved).contains("instance=after"));
    // At level 1 nothing would be said; in which of the files it is said is a matter of milliseconds.
    assert!((read_lossy(&moved) + &read_lossy(&log)).contains("reloaded "));
    fs::rename(&log, &moved).unwrap();
    daemon.signal("USR1");
    eventually("the file is there a third time", || log.exists().then_some(()));
    assert_eq!(daemon.ask("instance=last").action(), "OK");
    has(&log, "instance=last");
}

#[test]
fn a_list_that_is_a_pipe_or_a_device_holds_nothing_up() {
    let text = "port = \"127.0.0.1:$PORT\"\n<VirtualHost $PORT>\n  name = \"incoming\"\n  <Plugin list>\n    \
                module = \"RegexList\"\n    key = \"sender\"\n    file = \"$DIR/list\"\n    \
                action = \"reject\"\n  </Plugin>\n</VirtualHost>\n";
    let site = Site::with(text);
    fs::write(site.path("list"), "^bad\n").unwrap();
    let mut daemon = site.start();
    assert_eq!(daemon.ask("sender=bad@x").action(), "reject");
    fs::remove_file(daemon.site.path("list")).unwrap();
    nix::unistd::mkfifo(&daemon.site.path("list"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    daemon.hang_up();
    daemon.logged("it is not a regular file");
    assert_eq!(daemon.ask("sender=bad@x").action(), "reject");
    for device in ["/dev/zero", "/dev/tty"] {
        daemon.reload(&text.replace("$DIR/list", device));
    }
    assert_eq!(daemon.ask("sender=bad@x").action(), "reject");
    assert!(daemon.terminate().success());
}
