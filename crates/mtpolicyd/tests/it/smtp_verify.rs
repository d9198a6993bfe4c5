//! SMTPVerify against a mail server that says whatever a test wants: the dialogue, what a reply means, what
//! is remembered.
//!
//! Knows: the options of the plugin, the fake server. Must not know: how the plugin asks.

use crate::support::daemon::{Daemon, Site};
use crate::support::eventually;
use crate::support::fake_smtp::{FakeSmtp, Say, friendly};
use mtpolicyd::testing::Bench;
use std::thread::sleep;
use std::time::Duration;

const ACTIONS: &str = "temp_fail_action = \"defer %MSG%\"\nperm_fail_action = \"reject %MSG%\"\n";

/// A plugin that asks this server about the recipient.
fn plugin(server: &FakeSmtp, options: &str) -> String {
    format!(
        "<Plugin v>\nmodule = SMTPVerify\nhost = 127.0.0.1\nport = {}\nhelo_name = us.test\n\
         sender_field = sender\nrecipient_field = recipient\n{options}\n</Plugin>",
        server.port()
    )
}

fn bench(server: &FakeSmtp, options: &str) -> Bench {
    Bench::new(&plugin(server, &format!("{ACTIONS}{options}"))).attribute("sender", "a@sender.test")
}

fn answer(bench: &mut Bench, recipient: &str) -> String {
    bench.attribute_again("recipient", recipient).run().unwrap_or_default()
}

#[test]
fn what_the_server_says_about_the_recipient_counts() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(&server, "perm_fail_score = 3\ntemp_fail_score = 1\nno_starttls_score = 5");
    let unknown = Some("v-unknown@x.test-starttls=5, v-unknown@x.test=3");
    for (recipient, expected, detail) in [
        ("good@x.test", "", Some("v-good@x.test-starttls=5")),
        ("unknown@x.test", "reject 5.1.1 no such user", unknown),
        ("full@x.test", "defer 4.2.2 mailbox full", Some("v-full@x.test-starttls=5, v-full@x.test=1")),
        ("unknown@x.test", "reject 5.1.1 no such user", unknown),
        ("unknown@x.test", "reject 5.1.1 no such user", unknown),
        ("nobody", "", None),
        ("", "", None),
    ] {
        assert_eq!(answer(&mut bench, recipient), expected, "{recipient}");
        // What was found about a recipient is that one's.
        assert_eq!(bench.session.score_detail("score"), detail, "{recipient}");
    }
}

#[test]
fn several_recipients_share_a_connection() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(&server, "").attribute("size", "77");
    for recipient in ["a b@x.test", "unknown@x.test"] {
        answer(&mut bench, recipient);
    }
    let dialogue = [
        "",
        "EHLO us.test",
        "MAIL FROM:<a@sender.test> SIZE=77",
        "RCPT TO:<\"a b\"@x.test>",
        "RSET",
        "MAIL FROM:<a@sender.test> SIZE=77",
        "RCPT TO:<unknown@x.test>",
    ];
    assert_eq!(server.said(), dialogue);
    eventually("it says good-bye", || (server.count("QUIT") == 1).then_some(()));
}

#[test]
fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let server = FakeSmtp::start(|line| if line == "RSET" { Say::Close } else { friendly(line) });
    let mut bench = bench(&server, "");
    assert_eq!(
        [answer(&mut bench, "a@x.test"), answer(&mut bench, "unknown@x.test")][1],
        "reject 5.1.1 no such user"
    );
    assert_eq!((server.count(""), server.count("RSET")), (2, 1));
}

#[test]
fn an_old_server_is_greeted_in_the_old_way() {
    let server = FakeSmtp::start(|line| match line {
        "EHLO us.test" => Say::Lines("502 5.5.1 what?"),
        line => friendly(line),
    });
    let mut bench = bench(&server, "sender = \"\"").attribute("size", "77");
    assert_eq!(answer(&mut bench, "a@x.test"), "");
    assert_eq!(server.said()[1..], ["EHLO us.test", "HELO us.test", "MAIL FROM:<>", "RCPT TO:<a@x.test>"]);
}

#[test]
fn what_is_no_answer_about_the_recipient_is_temporary() {
    let cases: [(&str, &str, Say, &str); 13] = [
        ("the greeting", "", Say::Last("554 5.7.1 go away"), "127.0.0.1: 5.7.1 go away"),
        ("a closed connection", "", Say::Close, "127.0.0.1: it closed the connection"),
        ("no SMTP", "", Say::Lines("HTTP/1.1 400 Bad Request"), "127.0.0.1: it does not speak SMTP"),
        ("too much", "", Say::Lines("220 a\n220 b"), "127.0.0.1: it does not speak SMTP"),
        ("a long line", "", Say::Bytes(vec![b'2'; 100_000]), "127.0.0.1: it does not speak SMTP"),
        ("many lines", "", Say::Bytes(b"220-a\r\n".repeat(20_000)), "127.0.0.1: its reply is too long"),
        ("silence", "", Say::Nothing, "the mail server does not answer in time"),
        (
            "a tarpit",
            "",
            Say::Late(Duration::from_secs(5), "220 x"),
            "the mail server does not answer in time",
        ),
        ("a refused hello", "HELO", Say::Lines("550 5.7.1 no"), "127.0.0.1: 5.7.1 no"),
        ("a refused sender", "MAIL", Say::Lines("550 5.7.1 no"), "4.7.1 no"),
        ("an early end", "MAIL", Say::Lines("421 4.3.2 bye"), "127.0.0.1: 4.3.2 bye"),
        ("a late end", "RCPT", Say::Last("421 4.7.0 bye"), "127.0.0.1: 4.7.0 bye"),
        ("greylisting", "RCPT", Say::Lines("450 4.2.0 Greylisted"), "4.2.0 Greylisted"),
    ];
    for (what, command, say, expected) in cases {
        let server = FakeSmtp::start(move |line| match line {
            line if command == "HELO" && line.starts_with("EHLO") => Say::Lines("500 what?"),
            line if line.split(' ').next() == Some(command) => say.clone(),
            line => friendly(line),
        });
        let timeout = if expected.ends_with("in time") { "timeout = 1\n" } else { "" };
        let said = answer(&mut bench(&server, timeout), "a@x.test");
        // What a long line is depends on where it was cut; it is not a reply either way.
        let expected = if what == "a long line" && said.ends_with("too long") {
            "127.0.0.1: its reply is too long"
        } else {
            expected
        };
        assert_eq!(said, format!("defer {expected}"), "{what}");
        let mut quiet = Bench::new(&plugin(&server, &format!("{timeout}no_tlsa_score = 1")));
        assert_eq!(
            quiet.attribute_again("recipient", "a@x.test").run(),
            None,
            "{what} does nothing by default"
        );
    }
}

#[test]
fn a_refused_size_is_about_the_mail() {
    let server = FakeSmtp::start(|line| match line.split_once("SIZE=") {
        Some((_, size)) if size.len() > 3 => Say::Lines("552 5.3.4 too big"),
        _ => friendly(line),
    });
    let mut bench = bench(&server, "");
    for (size, expected, mails) in [
        ("500", "", 1),
        ("400", "", 1),
        ("600", "", 2),
        ("5000", "reject 5.3.4 too big", 3),
        ("6000", "reject 5.3.4 too big", 3),
        ("700", "", 4),
        ("0", "", 4),
    ] {
        bench.attribute_again("size", size);
        assert_eq!(
            (answer(&mut bench, "a@x.test").as_str(), server.count("MAIL")),
            (expected, mails),
            "{size}"
        );
    }
}

#[test]
fn answers_are_remembered_for_whom_they_hold() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(&server, "");
    let mut asked = |sender: &str, recipient: &str| {
        let before = server.count("RCPT");
        bench.attribute_again("sender", sender);
        answer(&mut bench, recipient);
        server.count("RCPT") - before
    };
    for (sender, recipient, times) in [
        ("a@y", "good@x.test", 1),
        ("b@y", "good@X.test", 0),
        ("a@y", "Good@x.test", 1),
        ("a@y", "unwanted@x.test", 1),
        ("a@y", "unwanted@x.test", 0),
        ("b@y", "unwanted@x.test", 1),
        ("", "unwanted@x.test", 1),
        ("a@y", "unknown@x.test", 1),
        ("b@y", "unknown@x.test", 0),
    ] {
        assert_eq!(asked(sender, recipient), times, "{sender} to {recipient}");
    }
}

#[test]
fn failures_are_forgotten_sooner_than_successes() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(&server, "negative_expire = 1\ntemporary_expire = 1");
    for times in 1..=2 {
        for recipient in ["good@x.test", "unknown@x.test", "full@x.test"] {
            answer(&mut bench, recipient);
        }
        assert_eq!(
            ["good", "unknown", "full"].map(|who| server.count(&format!("RCPT TO:<{who}"))),
            [1, times, times]
        );
        sleep(Duration::from_millis(1_500));
    }
}

#[test]
fn a_store_shares_what_is_known() {
    let server = FakeSmtp::start(friendly);
    let folder = tempfile::tempdir().unwrap();
    let store = format!(
        "<Connection s>\nmodule = Sql\ndsn = \"dbi:SQLite:dbname={}/db\"\n</Connection>\n",
        folder.path().display()
    );
    let text = store + &plugin(&server, &format!("{ACTIONS}store = s"));
    let new = || Bench::new(&text).attribute("sender", "a@y");
    let count = || {
        let database = rusqlite::Connection::open(folder.path().join("db")).ok()?;
        database.query_row("SELECT count(*) FROM mtpolicyd_store", [], |row| row.get::<_, i64>(0)).ok()
    };
    for (stored, recipient) in (1..).zip(["unknown@x.test", "unwanted@x.test", "good@x.test"]) {
        // It stores the answer after it has given it, so it has to stay.
        let mut asking = new();
        let first = answer(&mut asking, recipient);
        eventually("the answer is stored", || (count() == Some(stored)).then_some(()));
        assert_eq!(answer(&mut new(), recipient), first);
        assert_eq!(server.count(&format!("RCPT TO:<{recipient}>")), 1);
    }
    // An answer that leaves out what is wanted now is none.
    let more = Bench::new(&text.replace("store = s", "store = s\ncheck_tlsa = on"));
    assert_eq!(answer(&mut more.attribute("sender", "a@y"), "unknown@x.test"), "reject 5.1.1 no such user");
    assert_eq!(server.count("RCPT TO:<unknown@x.test>"), 2);
    // Without its store it asks the server.
    let broken = text.replace(&folder.path().display().to_string(), "/nothere");
    let mut broken = Bench::new(&broken).attribute("sender", "a@y");
    assert_eq!(answer(&mut broken, "unknown@x.test"), "reject 5.1.1 no such user");
    assert_eq!(server.count("RCPT TO:<unknown@x.test>"), 3);
}

#[test]
fn what_is_known_outlives_a_reload() {
    let server = FakeSmtp::start(friendly);
    let asked = |daemon: &Daemon| {
        let question = "sender=a@y\nrecipient=unknown@x.test\ninstance=1";
        (daemon.ask(question).action().to_owned(), server.count("RCPT"))
    };
    let daemon = daemon(&server, ACTIONS);
    assert_eq!(asked(&daemon), ("reject 5.1.1 no such user".to_owned(), 1));
    daemon.reload(&daemon_text(&plugin(&server, "perm_fail_action = hold")));
    assert_eq!(asked(&daemon), ("hold".to_owned(), 1));
    daemon.reload(&daemon_text(&plugin(&server, "perm_fail_action = hold\nstarttls = off")));
    assert_eq!(asked(&daemon), ("hold".to_owned(), 2));
}

#[test]
fn a_full_memory_takes_what_is_new() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(&server, "cache_size = 2");
    for _ in 0..5 {
        for recipient in ["a@x.test", "b@x.test"] {
            answer(&mut bench, recipient);
        }
    }
    for _ in 0..3 {
        answer(&mut bench, "unknown@x.test");
        // It is tidied up a moment later.
        sleep(Duration::from_millis(500));
    }
    assert_eq!((server.count("RCPT TO:<a@"), server.count("RCPT TO:<unknown@")), (1, 1));
}

#[test]
fn a_late_answer_is_there_for_the_next_try() {
    let server = FakeSmtp::start(|line| match line {
        "" => Say::Late(Duration::from_secs(2), "220 x"),
        line => friendly(line),
    });
    let mut bench = bench(&server, "timeout = 1");
    assert_eq!(answer(&mut bench, "unknown@x.test"), "defer the mail server does not answer in time");
    eventually("the answer is there", || (server.count("RCPT") == 1).then_some(()));
    assert_eq!(answer(&mut bench, "unknown@x.test"), "reject 5.1.1 no such user");
    assert_eq!(server.count(""), 1);
}

#[test]
fn a_server_is_not_asked_too_often() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(&server, "max_per_minute = 2");
    for recipient in ["a@x.test", "b@x.test"] {
        assert_eq!(answer(&mut bench, recipient), "", "{recipient}");
    }
    assert_eq!(answer(&mut bench, "unknown@x.test"), "defer too many addresses are being verified");
    assert_eq!(server.count("RCPT"), 2);
}

#[test]
fn a_server_whose_tls_does_not_work_is_asked_without() {
    let server = FakeSmtp::start(|line| match line {
        "EHLO us.test" => Say::Lines("250-mx\n250 STARTTLS"),
        "STARTTLS" => Say::Last("220 2.0.0 go ahead"),
        line => friendly(line),
    });
    let mut bench = bench(&server, "has_starttls_score = -1");
    assert_eq!(answer(&mut bench, "unknown@x.test"), "reject 5.1.1 no such user");
    assert_eq!(bench.session.score_detail("score"), Some("v-unknown@x.test-starttls=-1"));
    eventually("it says good-bye", || (server.count("QUIT") == 1).then_some(()));
    answer(&mut bench, "other@x.test");
    assert_eq!((server.count(""), server.count("STARTTLS")), (3, 1));
    let mut without = self::bench(&server, "starttls = off\nno_starttls_action = hold");
    assert_eq!(answer(&mut without, "other@x.test"), "");
    assert_eq!(server.count("STARTTLS"), 1);
}

#[test]
fn one_who_speaks_before_tls_begins_is_not_believed() {
    let server = FakeSmtp::start(|line| match line {
        "EHLO us.test" => Say::Lines("250-mx\n250 STARTTLS"),
        "STARTTLS" => Say::Lines("220 go ahead\n250 injected"),
        line => friendly(line),
    });
    assert_eq!(answer(&mut bench(&server, ""), "unknown@x.test"), "reject 5.1.1 no such user");
    assert_eq!(server.count("STARTTLS"), 1);
}

#[test]
fn no_starttls_may_have_an_action() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(&server, "no_starttls_action = \"reject unencrypted\"");
    assert_eq!(answer(&mut bench, "good@x.test"), "reject unencrypted");
    assert_eq!(answer(&mut bench, "unknown@x.test"), "reject 5.1.1 no such user");
}

#[test]
fn addresses_in_utf_8_need_a_server_that_takes_them() {
    let server = FakeSmtp::start(|line| match line {
        "EHLO us.test" => Say::Lines("250-mx\n250 SMTPUTF8"),
        line => friendly(line),
    });
    let old = FakeSmtp::start(friendly);
    assert_eq!(answer(&mut bench(&server, ""), "unknown\u{fc}@x.test"), "reject 5.1.1 no such user");
    assert_eq!(server.said()[2], "MAIL FROM:<a@sender.test> SMTPUTF8");
    let expected = "defer 4.6.7 the mail server of x.test takes no addresses in UTF-8";
    assert_eq!(answer(&mut bench(&old, ""), "unknown\u{fc}@x.test"), expected);
    assert_eq!(old.count("MAIL"), 0);
}

#[test]
fn nobody_can_slip_in_a_command() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(&server, "");
    for recipient in ["a@x.test>\rDATA", "a\rDATA@x.test", "a\u{1b}@x.test", "<a@x.test>"] {
        let expected = "defer the form of the address is not supported";
        assert_eq!(answer(&mut bench, recipient), expected, "{recipient:?}");
    }
    bench.attribute_again("sender", "a@y>\rDATA");
    answer(&mut bench, "b@x.test");
    assert_eq!(server.said()[2..], ["MAIL FROM:<>", "RCPT TO:<b@x.test>"]);
}

#[test]
fn our_own_name_spares_nobody_the_question() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(&server, "").attribute("helo_name", "US.test");
    assert_eq!(answer(&mut bench, "unknown@x.test"), "reject 5.1.1 no such user");
}

/// A daemon with this plugin, and an action behind it.
fn daemon(server: &FakeSmtp, options: &str) -> Daemon {
    Site::with(&daemon_text(&plugin(server, options))).start()
}

fn daemon_text(plugin: &str) -> String {
    format!("port = \"127.0.0.1:$PORT\"\n<VirtualHost $PORT>\nname = v\n{plugin}\n</VirtualHost>")
}

#[test]
fn an_address_is_asked_about_once_at_a_time() {
    let server = FakeSmtp::start(|line| match line.split(' ').next() {
        Some("RCPT") => Say::Late(Duration::from_millis(700), "550 5.1.1 no"),
        _ => friendly(line),
    });
    let daemon = daemon(&server, ACTIONS);
    let question = |n: usize| format!("sender=a{n}@y\nrecipient=b@x.test\ninstance={n}");
    let answers: Vec<_> = std::thread::scope(|scope| {
        let daemon = &daemon;
        let asked: Vec<_> =
            (0..10).map(|n| scope.spawn(move || daemon.ask(&question(n)).action().to_owned())).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer == "reject 5.1.1 no"), "{answers:?}");
    assert_eq!((server.count(""), server.count("RCPT")), (1, 1));
}

/// A server that does not say whether it takes an address before it knows whether we take mail from it.
fn gets_its_answer_at_once(client: &'static str) {
    let daemon: std::sync::Arc<std::sync::OnceLock<Daemon>> = std::sync::Arc::default();
    let asked = daemon.clone();
    let server = FakeSmtp::start(move |line| match line.split(' ').next() {
        Some("RCPT") => {
            let back = format!("sender=a@y\nrecipient=b@x.test\n{client}\ninstance=back");
            let answer = asked.get().expect("it runs").ask(&back);
            if answer.action() == "dunno" { Say::Lines("550 5.1.1 no") } else { Say::Lines("450 4.0.0 ?") }
        }
        _ => friendly(line),
    });
    assert!(daemon.set(self::daemon(&server, ACTIONS)).is_ok());
    let question = "sender=a@y\nrecipient=b@x.test\nclient_address=192.0.2.4\ninstance=first";
    assert_eq!(daemon.get().expect("it runs").ask(question).action(), "reject 5.1.1 no");
    assert_eq!(server.count("RCPT"), 1);
}

#[test]
fn a_server_that_asks_back_gets_its_answer_at_once() {
    gets_its_answer_at_once("client_address=127.0.0.1");
}

#[test]
fn so_does_our_own_question_that_comes_back_by_another_address() {
    gets_its_answer_at_once("client_address=192.0.2.9\nhelo_name=US.test");
}

#[test]
fn mistakes_are_found_when_the_file_is_read() {
    let of = |options: &str| format!("<Plugin v>\nmodule = SMTPVerify\n{options}\n</Plugin>");
    for (option, expected) in [
        ("sender = nobody", "3:10 sender: `nobody` is not an address"),
        ("port = 65536", "3:8 port: 65536 is not a port"),
        ("helo_name = \"a b\"", "3:13 helo_name: `a b` is not a name to greet with"),
        ("negative_expire = 0", "3:19 negative_expire: `0` is not a valid time"),
    ] {
        assert_eq!(Bench::mistakes(&of(option)), [expected]);
    }
    let mistakes = Bench::mistakes(&of("store = nowhere\nsender = x\nport = 0"));
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    let mistakes = Bench::mistakes(&of("store = nowhere\nsender = x\nport = 70000"));
    assert_eq!(mistakes.len(), 3, "{mistakes:?}");
    assert!(Bench::warnings(&of(""))[0].contains("has no effect"));
    assert!(!Bench::warnings(&of("perm_fail_action = 77")).is_empty());
}
