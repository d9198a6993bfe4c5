//! Events as messages, through a real Postfix that asks this very daemon about them.
//!
//! Knows: `check_policy_service`, mailboxes. Must not know: the daemon's code.
//!
//! These tests need root and the Debian package postfix; where one is missing they say so on standard error.

use crate::support::daemon::{Daemon, Site, output_of, run};
use crate::support::eventually;
use crate::support::postfix::{Postfix, postfix_or_leaves_out};
use std::process::Output;

/// A daemon that defers everything, and a receiver behind the Postfix of that port.
fn configuration() -> &'static str {
    "port = \"127.0.0.1:$PORT\"\n<Control>\nsocket = \"$DIR/control.sock\"\n</Control>\n<Notify boss>\n\
     mail = boss@rcpt.test\nfrom = mtpolicyd@rcpt.test\nsmtp = 127.0.0.1:$SMTP\n</Notify>\n\
     <VirtualHost $PORT>\nname = in\n<Plugin no>\nmodule = Action\naction = defer not now\n</Plugin>\n\
     </VirtualHost>\n"
}

fn test(daemon: &Daemon) -> Output {
    run(&mut daemon.site.command_after(&["events", "test", "boss"]), b"")
}

fn site(smtp: u16) -> Site {
    let mut site = Site::new();
    site.replace("$SMTP", smtp);
    site.configure(configuration());
    site
}

#[test]
fn a_message_about_an_event_arrives_though_the_daemon_defers_everything() {
    if !postfix_or_leaves_out("events as messages") {
        return;
    }
    // Postfix has to know the port of the daemon, and the daemon that of Postfix.
    let mut site = Site::new();
    let restrictions = format!(
        "reject_unauth_destination, check_policy_service {{ inet:127.0.0.1:{}, timeout=100s }}",
        site.port
    );
    let postfix = Postfix::start(&restrictions);
    site.replace("$SMTP", postfix.port());
    site.configure(configuration());
    let daemon = site.start();
    let mut client = postfix.connect().expect("it listens");
    let refused = client.send("boss", "from somebody else").expect_err("everything is deferred");
    assert!(refused.is_temporary());
    let output = test(&daemon);
    assert_eq!(output_of(&output), "boss: taken\n", "{}\n{}", daemon.log(), postfix.log());
    let message = eventually("it is delivered", || postfix.mailbox().into_iter().next());
    for line in [
        "From: \"mtpolicyd on ",
        "To: <boss@rcpt.test>",
        "Subject: [mtpolicyd] a test from ",
        "Auto-Submitted: auto-generated",
        "X-Mtpolicyd-Event: test test ",
        "Return-Path: <>",
    ] {
        assert!(message.lines().any(|found| found.starts_with(line)), "{line}: {message}");
    }
    // The exception ends with the connection.
    assert!(client.send("boss", "from somebody else").expect_err("deferred").is_temporary());
    assert_eq!(postfix.mailbox().len(), 1);
}

#[test]
fn a_message_that_is_not_taken_is_reported_and_makes_no_other() {
    if !postfix_or_leaves_out("events as messages that Postfix defers") {
        return;
    }
    let postfix = Postfix::start("defer");
    let daemon = site(postfix.port()).start();
    let output = test(&daemon);
    let said = output_of(&output);
    assert!(said.starts_with("boss: NOT taken: 450 4"), "{said}");
    // A real event is kept and sent again, and nothing comes of that but one line.
    daemon.reload(&daemon.site.fill(configuration()).replace("name = in", "nome = in"));
    daemon.logged("notify boss: an event was not taken, and is sent again: 450 4");
    let list = run(&mut daemon.site.command_after(&["events"]), b"");
    let list = output_of(&list);
    let events: Vec<_> = list.lines().filter(|line| line.contains(" begins  ")).collect();
    assert_eq!(events.len(), 1, "{list}");
    let receiver = list.lines().find(|line| line.starts_with("boss")).unwrap_or_default();
    let columns: Vec<_> = receiver.split_whitespace().take(6).collect();
    assert_eq!(columns, ["boss", "mail", "0", "1", "0", "0"], "{list}");
    assert!(postfix.mailbox().is_empty());
}
