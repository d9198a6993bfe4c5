//! The daemon behind a real Postfix: what it answers is what the client sees and what the mailbox holds.
//!
//! Knows: `check_policy_service`, access(5). Must not know: the daemon's code.
//!
//! These tests need root and the Debian package postfix; where one is missing they say so on standard error.

use crate::support::daemon::{Daemon, Site};
use crate::support::eventually;
use crate::support::fake_dns::{FakeDns, Reply};
use crate::support::postfix::{Postfix, Refusal, Smtp, postfix_or_leaves_out};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// Messages of the run in which the daemon is restarted.
const MAILS: usize = 100;

/// Clients that send them at the same time.
const CLIENTS: usize = 5;

/// One virtual host with these plugins.
fn host(plugins: &str) -> String {
    format!("port = 127.0.0.1:$PORT\n<VirtualHost $PORT>\n name = inbound\n{plugins}\n</VirtualHost>\n")
}

/// One virtual host that does `action` about the messages to `user`.
fn by_user(actions: &[(&str, &str)]) -> String {
    let plugin = |(user, action): &(&str, &str)| {
        format!(
            r#"<Plugin {user}>
                module = Condition
                key = recipient
                match = {user}@rcpt.test
                action = "{action}"
            </Plugin>
            "#
        )
    };
    host(&actions.iter().map(plugin).collect::<String>())
}

/// As the README tells administrators to write it.
fn service(port: u16) -> String {
    format!("check_policy_service {{ inet:127.0.0.1:{port}, timeout=10s, default_action=DUNNO }}")
}

/// The daemon with this configuration, and a Postfix that asks it.
fn daemon_and_postfix(config: &str) -> (Daemon, Postfix) {
    let daemon = Daemon::start(config);
    let postfix = Postfix::start(&format!("reject_unauth_destination, {}", service(daemon.site.port)));
    (daemon, postfix)
}

#[track_caller]
fn refusal(client: &mut Smtp, user: &str) -> Refusal {
    client.send(user, "refused").expect_err("the message is refused")
}

#[test]
fn the_client_sees_what_the_daemon_answers() {
    if !postfix_or_leaves_out("what an SMTP client sees of an answer") {
        return;
    }
    let (_daemon, postfix) = daemon_and_postfix(&by_user(&[
        ("reject", "reject no mail for this user"),
        ("coded", "550 5.7.1 not with this code"),
        ("defer", "defer come back later"),
        ("class", "closed_to_strangers"),
        // For Postfix a number alone is a permission: see the next test.
        ("digits", "550"),
    ]));
    let mut client = postfix.connect().unwrap();
    for (user, code, text) in [
        ("reject", 554, "<reject@rcpt.test>: Recipient address rejected: no mail for this user"),
        ("coded", 550, "5.7.1 <coded@rcpt.test>: Recipient address rejected: not with this code"),
        ("defer", 450, "<defer@rcpt.test>: Recipient address rejected: come back later"),
        ("class", 554, "<class@rcpt.test>: Recipient address rejected: Access denied"),
    ] {
        let seen = refusal(&mut client, user);
        assert_eq!(seen.code, code, "{user}: {}", seen.text);
        assert!(seen.text.contains(text), "{user}: {}", seen.text);
    }
    for user in ["digits", "somebody"] {
        client.send(user, &format!("to {user}")).unwrap_or_else(|refusal| panic!("{user}: {refusal:?}"));
        postfix.delivered(&format!("to {user}"));
    }
    assert!(!postfix.log().contains("warning:"), "{}", postfix.log());
}

#[test]
fn a_recipient_is_the_one_that_the_message_would_be_delivered_to() {
    if !postfix_or_leaves_out("forms of addresses that Postfix rewrites") {
        return;
    }
    let (_daemon, postfix) = daemon_and_postfix(&by_user(&[("bob", "reject not to bob")]));
    let mut client = postfix.connect().unwrap();
    for address in ["bob@rcpt.test", "bob%rcpt.test", "rcpt.test!bob", "rcpt.test.!bob", "bob@RCPT.test."] {
        let seen = client.ask(address).expect_err("the recipient is refused");
        assert!(seen.text.contains("not to bob"), "{address}: {}", seen.text);
    }
}

#[test]
fn a_number_alone_does_not_permit_the_mail() {
    if !postfix_or_leaves_out("a number as an action") {
        return;
    }
    let daemon = Daemon::start(&by_user(&[("digits", "550")]));
    // With a permission the last restriction would not be reached.
    let restrictions = format!("reject_unauth_destination, {}, defer", service(daemon.site.port));
    let postfix = Postfix::start(&restrictions);
    let mut client = postfix.connect().unwrap();
    for user in ["digits", "somebody"] {
        let seen = refusal(&mut client, user);
        assert_eq!(seen.code, 450, "{user}: {}", seen.text);
    }
}

#[test]
fn a_header_is_in_the_delivered_mail() {
    if !postfix_or_leaves_out("a header in a delivered mail") {
        return;
    }
    let plugins = "\
        <Plugin helo>
            module = Condition
            key = helo_name
            match = client.test
            score = 7.5
        </Plugin>
        <Plugin header>
            module = AddScoreHeader
        </Plugin>";
    let (_daemon, postfix) = daemon_and_postfix(&host(plugins));
    postfix.connect().unwrap().send("somebody", "marked").unwrap();
    let mail = postfix.delivered("marked");
    assert!(mail.contains("\nX-MtScore: YES score=7.5 [helo=7.5]\n"), "{mail}");
}

#[test]
fn the_result_of_spf_is_in_the_delivered_mail() {
    if !postfix_or_leaves_out("the header of SPF in a delivered mail") {
        return;
    }
    let dns = FakeDns::start(|query| match (query.name.as_str(), query.record_type) {
        ("example.test", 16) => Reply::text("v=spf1 ip4:192.0.2.4 exists:%{l}.users.%{d} -all"),
        ("a b.users.example.test", 1) => Reply::address([127, 0, 0, 2]),
        _ => Reply::NoSuchName(Some(60)),
    });
    let spf =
        host("<Plugin spf>\n module = SPF\n header = Received-SPF\n hostname = mx.rcpt.test\n</Plugin>");
    let cache = "<SessionCache>\n module = Memory\n</SessionCache>";
    let (_daemon, postfix) =
        daemon_and_postfix(&format!("<Dns>\n servers = {}\n</Dns>\n{cache}\n{spf}", dns.address()));
    let mut client = postfix.connect().unwrap();
    client.claim_address("192.0.2.4").unwrap();
    client.send_from("sender@example.test", &["one", "two"], "checked").unwrap();
    let mail = postfix.delivered("checked");
    let header = "Received-SPF: pass receiver=mx.rcpt.test; client-ip=192.0.2.4; \
                  envelope-from=\"sender@example.test\"; helo=\"client.test\"; identity=mailfrom; \
                  mechanism=\"ip4:192.0.2.4\"";
    assert_eq!(mail.matches("Received-SPF:").count(), 1, "{mail}");
    assert!(mail.contains(&format!("\n{header}\n")), "{mail}");

    let mut client = postfix.connect().unwrap();
    client.claim_address("192.0.2.5").unwrap();
    let seen = refusal(&mut client, "somebody");
    assert!(seen.code == 554 && seen.text.contains("192.0.2.5 may not send mail as"), "{}", seen.text);
    client.send_from("\"a b\"@example.test", &["somebody"], "odd user").unwrap();
    let mail = postfix.delivered("odd user");
    // Postfix hands the user over without its quotes.
    assert!(mail.contains("envelope-from=\"a b@example.test\""), "{mail}");
    assert!(mail.contains("mechanism=\"exists:%{l}.users.%{d}\""), "{mail}");
}

/// Two entries of one Postfix with different contexts, and a daemon with one listener, whose key is `key`.
fn two_contexts(site: Site, port: &str, key: &str, postfix: &Postfix) {
    let host = |name: &str, action: &str| {
        format!(
            r#"<VirtualHost {key}>
                name = {name}
                <Plugin a>
                    module = Action
                    action = "{action}"
                </Plugin>
            </VirtualHost>
            "#
        )
    };
    let hosts = host("first", "prepend X-First: seen") + &host("second", "prepend X-Second: seen");
    site.configure(&format!("port = \"{port}\"\nvhost_by_policy_context = 1\n{hosts}"));
    let daemon = site.spawn(&[]);
    daemon.logged("listen");
    postfix.connect().expect("postfix listens").send("somebody", "twice asked").expect("it is accepted");
    let mail = postfix.delivered("twice asked");
    for header in ["\nX-First: seen\n", "\nX-Second: seen\n"] {
        assert_eq!(mail.matches(header).count(), 1, "{mail}\n{}", postfix.log());
    }
}

fn context(endpoint: &str, name: &str) -> String {
    format!("check_policy_service {{ {endpoint}, timeout=10s, default_action=DUNNO, policy_context={name} }}")
}

#[test]
fn two_contexts_share_a_port() {
    if !postfix_or_leaves_out("two policy contexts over TCP") {
        return;
    }
    let site = Site::new();
    let endpoint = format!("inet:127.0.0.1:{}", site.port);
    let postfix =
        Postfix::start(&format!("{}, {}", context(&endpoint, "first"), context(&endpoint, "second")));
    two_contexts(site, "127.0.0.1:$PORT", "$PORT", &postfix);
}

/// The way of the README: the socket lies in the queue's folder, and a confined smtpd names it from there.
#[test]
fn two_contexts_share_a_unix_socket() {
    if !postfix_or_leaves_out("two policy contexts over a UNIX socket") {
        return;
    }
    let endpoint = "unix:mtpolicyd/policy.sock";
    let postfix = Postfix::start(&format!("{}, {}", context(endpoint, "first"), context(endpoint, "second")));
    fs::create_dir(postfix.queue().join("mtpolicyd")).unwrap();
    let socket = postfix.queue().join("mtpolicyd/policy.sock");
    let socket = socket.to_str().unwrap();
    two_contexts(Site::new(), &format!("{socket}|unix"), socket, &postfix);
}

#[test]
fn a_client_on_a_dns_list_is_refused_with_what_the_list_says() {
    if !postfix_or_leaves_out("a DNS list behind Postfix") {
        return;
    }
    let dns = FakeDns::start(|query| match (query.name.as_str(), query.record_type) {
        ("4.2.0.192.list.test", 1) => Reply::address([127, 0, 0, 2]),
        ("4.2.0.192.list.test", 16) => Reply::text("see list.test/192.0.2.4"),
        _ => Reply::NoSuchName(Some(60)),
    });
    let list = host("<Plugin list>\n module = RBL\n domain = list.test\n</Plugin>");
    let (_daemon, postfix) =
        daemon_and_postfix(&format!("<Dns>\n servers = {}\n</Dns>\n{list}", dns.address()));
    let mut listed = postfix.connect().unwrap();
    listed.claim_address("192.0.2.4").unwrap();
    let seen = refusal(&mut listed, "somebody");
    assert_eq!(seen.code, 554, "{}", seen.text);
    let text = "delivery from 192.0.2.4 rejected (\"see list.test/192.0.2.4\")";
    assert!(seen.text.contains(text), "{}", seen.text);

    let mut other = postfix.connect().unwrap();
    other.claim_address("192.0.2.5").unwrap();
    other.send("somebody", "from elsewhere").unwrap();
    postfix.delivered("from elsewhere");
}

/// Sends messages until all are sent, each until it is accepted, and the last ones once the daemon has been
/// replaced. Says how often one was put off.
fn send_share(
    postfix: &Postfix,
    next: &AtomicUsize,
    accepted: &AtomicUsize,
    is_replaced: &AtomicBool,
) -> usize {
    let mut put_off = 0;
    let mut client = postfix.connect().expect("postfix listens");
    loop {
        let number = next.fetch_add(1, Ordering::SeqCst);
        if number >= MAILS {
            return put_off;
        }
        if number >= MAILS * 3 / 4 {
            eventually("another daemon", || is_replaced.load(Ordering::SeqCst).then_some(()));
        }
        while let Err(refusal) = client.send("somebody", &format!("mail {number}")) {
            assert!(refusal.is_temporary(), "mail {number}: {}", refusal.text);
            put_off += 1;
            assert!(put_off < MAILS, "put off again and again: {}", refusal.text);
            thread::sleep(Duration::from_millis(100));
            client = postfix.connect().expect("postfix listens");
        }
        accepted.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_restart_loses_no_mail() {
    if !postfix_or_leaves_out("a restart of the daemon under load") {
        return;
    }
    let config = |word: &str| {
        host(&format!("<Plugin mark>\n module = Action\n action = prepend X-Run: {word}\n</Plugin>"))
    };
    let (mut daemon, postfix) = daemon_and_postfix(&config("first"));
    let (next, accepted, is_replaced) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let (put_off, second) = thread::scope(|scope| {
        let share = || send_share(&postfix, &next, &accepted, &is_replaced);
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(share)).collect();
        eventually("a part of the messages", || (accepted.load(Ordering::SeqCst) >= MAILS / 4).then_some(()));
        assert!(daemon.terminate().success(), "{}", daemon.log());
        let mut site = Site::new();
        site.port = daemon.site.port;
        site.configure(&config("second"));
        let second = site.start();
        is_replaced.store(true, Ordering::SeqCst);
        let put_off: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        (put_off, second)
    });

    let all = || Some(postfix.mailbox()).filter(|mails| mails.len() >= MAILS);
    let mails = eventually("all messages are delivered", all);
    assert_eq!((accepted.load(Ordering::SeqCst), mails.len()), (MAILS, MAILS));
    for number in 0..MAILS {
        postfix.delivered(&format!("mail {number}"));
    }
    // `default_action=DUNNO` takes what nobody decides: no client is put off.
    assert_eq!(put_off, 0, "{}", postfix.log());
    let marked =
        |word: &str| mails.iter().filter(|mail| mail.contains(&format!("\nX-Run: {word}\n"))).count();
    assert!(marked("first") > 0 && marked("second") > 0, "{}\n{}", postfix.log(), second.log());
}
