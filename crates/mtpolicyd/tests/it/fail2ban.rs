//! Bans in a real fail2ban.
//!
//! Knows: the daemon, fail2ban and its client. Must not know: the protocol between them.

use crate::support::daemon::{Daemon, Site};
use crate::support::eventually;
use crate::support::servers::{Server, fail2ban};

/// A daemon that bans every client in a jail.
fn daemon(server: &Server, jail: &str, options: &str) -> Daemon {
    let socket = server.path("fail2ban.sock").display().to_string();
    let site = Site::with(&format!(
        "port = \"127.0.0.1:$PORT\"\n<VirtualHost $PORT>\nname = host\n<Plugin ban>\nmodule = Fail2Ban\n\
         socket = \"{socket}\"\njail = {jail}\nlog_level = 0\n{options}\n</Plugin>\n<Plugin end>\n\
         module = Action\naction = end\n</Plugin>\n</VirtualHost>\n"
    ));
    site.start()
}

fn ask(daemon: &Daemon, client: &str) -> String {
    daemon.ask(&format!("protocol_state=RCPT\ninstance={client}\nclient_address={client}")).action()
}

#[test]
fn clients_are_banned_in_the_jail() {
    let server = fail2ban::start(&["postfix", "my-longer-jail"]);
    let daemon = daemon(&server, "my-longer-jail", "");
    for client in ["192.0.2.10", "2001:db8::10", "::ffff:192.0.2.11", "127.0.0.1", "unknown"] {
        assert_eq!(ask(&daemon, client), "end", "{client}\n{}", daemon.log());
    }
    daemon.logged("192.0.2.11 is banned in jail my-longer-jail");
    let mut banned = fail2ban::banned(&server, "my-longer-jail");
    banned.sort_unstable();
    assert_eq!(banned, ["192.0.2.10", "192.0.2.11", "2001:db8::10"]);
    assert!(fail2ban::banned(&server, "postfix").is_empty());
}

#[test]
fn many_at_once_are_all_banned() {
    let server = fail2ban::start(&["postfix"]);
    let daemon = daemon(&server, "postfix", "timeout = 20");
    std::thread::scope(|scope| {
        for host in 1..=40 {
            let daemon = &daemon;
            scope.spawn(move || {
                assert_eq!(ask(daemon, &format!("192.0.2.{host}")), "end", "{}", daemon.log())
            });
        }
    });
    assert_eq!(fail2ban::banned(&server, "postfix").len(), 40, "{}", daemon.log());
}

#[test]
fn a_jail_that_is_not_there_is_an_error() {
    let server = fail2ban::start(&["postfix"]);
    let daemon = daemon(&server, "nosuch", "on_error = defer");
    let answer = ask(&daemon, "192.0.2.10");
    assert!(answer.starts_with("defer"), "{answer}");
    daemon.logged("UnknownJailException: nosuch");
}

#[test]
fn a_fail2ban_that_was_restarted_bans_again() {
    let mut server = fail2ban::start(&["postfix"]);
    let daemon = daemon(&server, "postfix", "on_error = dunno");
    assert_eq!(ask(&daemon, "192.0.2.10"), "end");
    server.stop();
    assert_eq!(ask(&daemon, "192.0.2.11"), "dunno");
    daemon.logged("fail2ban.sock is down");
    server.start();
    // The daemon looks twice a second.
    eventually("it bans again", || (ask(&daemon, "192.0.2.12") == "end").then_some(()));
    assert_eq!(fail2ban::banned(&server, "postfix"), ["192.0.2.12"]);
}

#[test]
fn a_frozen_fail2ban_costs_little_and_bans_later() {
    let server = fail2ban::start(&["postfix"]);
    let daemon = daemon(&server, "postfix", "on_error = dunno");
    server.freeze();
    assert_eq!(ask(&daemon, "192.0.2.10"), "end");
    for host in 11..=40 {
        // Its queue is full soon, which is an error.
        assert!(["end", "dunno"].contains(&&*ask(&daemon, &format!("192.0.2.{host}"))));
    }
    // The lines of requests say how long each has taken; one that waits takes the second of `timeout`.
    daemon.logged("instance=192.0.2.40,");
    let log = daemon.log();
    let times = log.lines().filter_map(|line| line.split_once(", t=")?.1.split_once("ms")?.0.parse().ok());
    let times: Vec<f64> = times.collect();
    assert_eq!(times.len(), 31, "{log}");
    let waited = times.iter().filter(|time| **time >= 1000.0).count();
    assert!(waited < 15, "{waited} of the requests have waited");
    server.thaw();
    let banned = || fail2ban::banned(&server, "postfix").contains(&"192.0.2.10".to_owned());
    eventually("it does what it was told", || banned().then_some(()));
    daemon.logged("replies again");
}
