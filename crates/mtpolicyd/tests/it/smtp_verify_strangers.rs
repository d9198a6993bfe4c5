//! SMTPVerify where strangers choose what is asked: addresses of servers that are nobody's business,
//! addresses in odd forms, servers that refuse us rather than the address.
//!
//! Knows: the options of the plugin, the fake server. Must not know: how the plugin asks.

use crate::support::fake_smtp::{FakeSmtp, Say, friendly};
use backends::dns::{Answer, Exchange, Question, RecordType};
use mtpolicyd::testing::Bench;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const ACTIONS: &str = "temp_fail_action = \"defer %MSG%\"\nperm_fail_action = \"reject %MSG%\"\n";

/// A plugin that asks on this port about the sender.
fn bench(port: u16, options: &str) -> Bench {
    let plugin = format!("module = SMTPVerify\nport = {port}\nhelo_name = us.test\n{ACTIONS}{options}");
    Bench::new(&format!("<Plugin v>\n{plugin}\n</Plugin>")).attribute("recipient", "r@us.test")
}

fn answer(bench: &mut Bench, sender: &str) -> String {
    bench.attribute_again("sender", sender).run().unwrap_or_default()
}

/// Gives a domain one mail server with these addresses.
fn served(bench: Bench, domain: &str, addresses: &[&str]) -> Bench {
    let host = format!("mx.{domain}");
    let exchange = Exchange { preference: 10, host: (*host).into() };
    let bench = bench.answers(
        Question::new(domain, RecordType::Mx),
        Answer::Exchanges([exchange].into_iter().collect()),
        false,
    );
    let addresses: Vec<IpAddr> =
        addresses.iter().map(|address| address.parse().expect("an address")).collect();
    let v4 = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some(*v6),
    });
    let (v4, v6): (Arc<[_]>, Arc<[_]>) = (v4.collect(), v6.collect());
    let bench = bench.answers(Question::new(&host, RecordType::A), Answer::Addresses(v4), false);
    bench.answers(Question::new(&host, RecordType::Aaaa), Answer::Ipv6Addresses(v6), false)
}

#[test]
fn servers_that_nobody_can_have_are_none() {
    let server = FakeSmtp::start(friendly);
    for address in [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "ff02::1",
    ] {
        let mut bench = served(bench(server.port(), ""), "x.test", &[address]);
        let expected = "reject 5.1.2 there is no mail server for x.test";
        assert_eq!(answer(&mut bench, "a@x.test"), expected, "{address}");
    }
    assert!(server.said().is_empty(), "{:?}", server.said());
}

#[test]
fn inner_servers_are_not_asked() {
    let expected = "defer 4.4.1 no mail server of x.test can be asked now";
    for addresses in [
        &["10.66.0.2"][..],
        &["169.254.169.254"],
        &["100.64.0.1"],
        &["192.0.2.1"],
        &["fd00::2"],
        &["fe80::1"],
        &["::ffff:10.66.0.2"],
        &["0.0.0.0", "10.66.0.2"],
    ] {
        // On a port where connecting would show in the answer.
        let mut bench = served(bench(9, "timeout = 3"), "x.test", addresses);
        assert_eq!(answer(&mut bench, "a@x.test"), expected, "{addresses:?}");
    }
}

#[test]
fn a_server_with_a_bogus_address_among_others_is_asked_at_those() {
    let server = FakeSmtp::start(friendly);
    let own = bench(server.port(), "own_addresses = on");
    let mut bench = served(own, "x.test", &["0.0.0.0", "10.66.0.2", "127.0.0.1"]);
    assert_eq!(answer(&mut bench, "unknown@x.test"), "reject 5.1.1 no such user");
}

#[test]
fn domains_that_are_addresses_are_not_asked() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(server.port(), "own_addresses = on");
    for sender in ["a@[127.0.0.1]", "a@127.0.0.1", "a@127.0.0.1.", "a@::1", "a@[IPv6:::1]"] {
        assert_eq!(answer(&mut bench, sender), "", "{sender}");
    }
    assert!(server.said().is_empty());
}

#[test]
fn what_nobody_can_send_mail_to_does_not_pass_unasked() {
    let server = FakeSmtp::start(friendly);
    let mut strict = bench(server.port(), "perm_fail_score = 1");
    for (domain, why) in [
        ("[10.66.0.2]", "the address of a mail server"),
        ("[ipv6:fd00::2]", "the address of a mail server"),
        ("[127.0.0.1]", "the address of a mail server"),
        ("[169.254.169.254]", "the address of a mail server"),
        ("[0.0.0.0]", "the address of a mail server"),
        ("10.66.0.2", "the address of a mail server"),
        ("127.0.0.1", "the address of a mail server"),
        ("::1", "the address of a mail server"),
        ("fd00::2", "the address of a mail server"),
        ("9.9.9.9", "a domain"),
        ("127.1", "a domain"),
        ("171048962", "a domain"),
        ("256.1.1.1", "a domain"),
        ("1.2.3", "a domain"),
        ("[10.66.0.2", "a domain"),
        ("x.test:25", "a domain"),
    ] {
        let expected = format!("reject 5.1.2 {domain} is not {why}");
        assert_eq!(answer(&mut strict, &format!("a@{domain}")), expected);
    }
    assert_eq!(strict.session.number("score"), 16.0);
    let later = "defer servers are not looked for by their address";
    for sender in ["a@[9.9.9.9]", "a@[IPv6:2620:fe::fe]"] {
        assert_eq!(answer(&mut strict, sender), later, "{sender}");
    }
    let mut open = bench(server.port(), "allow_private = on");
    assert_eq!(answer(&mut open, "a@[10.66.0.2]"), later);
    assert!(server.said().is_empty() && strict.questions().is_empty());
}

#[test]
fn a_server_whose_name_is_an_address_is_none() {
    let server = FakeSmtp::start(friendly);
    let exchange = Exchange { preference: 10, host: "127.0.0.1".into() };
    let mut bench = bench(server.port(), "own_addresses = on").answers(
        Question::new("x.test", RecordType::Mx),
        Answer::Exchanges([exchange].into_iter().collect()),
        false,
    );
    assert_eq!(answer(&mut bench, "a@x.test"), "reject 5.1.2 there is no mail server for x.test");
    assert!(server.said().is_empty());
}

#[test]
fn odd_addresses_do_not_pass_unasked() {
    let mut bench = bench(25, "temp_fail_score = 2");
    let long = format!("{}@x.test", "a".repeat(400));
    for sender in ["a>@x.test", "a\u{1}@x.test", "@x.test", "a@", "a@x y", &long] {
        assert_eq!(
            answer(&mut bench, sender),
            "defer the form of the address is not supported",
            "{sender:?}"
        );
    }
    assert_eq!(bench.session.number("score"), 12.0);
    assert_eq!(answer(&mut bench, "nobody"), "");
}

#[test]
fn what_is_said_about_us_is_temporary() {
    for (reply, expected) in [
        ("550 5.1.1 unknown", "reject 5.1.1 unknown"),
        ("550 5.1.10 null MX", "reject 5.1.10 null MX"),
        ("552 5.2.2 full", "reject 5.2.2 full"),
        ("553 5.3.0 unknown", "reject 5.3.0 unknown"),
        ("554 gone", "reject gone"),
        ("550 5.1.7 bad sender", "defer 4.1.7 bad sender"),
        ("550 5.1.8 bad sender domain", "defer 4.1.8 bad sender domain"),
        ("554 5.3.2 closed", "defer 4.3.2 closed"),
        ("550 5.4.5 daily limit", "defer 4.4.5 daily limit"),
        ("504 5.5.2 helo", "defer 4.5.2 helo"),
        ("530 5.7.0 STARTTLS first", "defer 4.7.0 STARTTLS first"),
        ("554 5.7.1 listed", "defer 4.7.1 listed"),
        ("503 order", "defer order"),
        ("530 login", "defer login"),
    ] {
        let server =
            FakeSmtp::start(
                move |line| if line.starts_with("RCPT") { Say::Lines(reply) } else { friendly(line) },
            );
        let mut bench = bench(server.port(), "host = 127.0.0.1");
        assert_eq!(answer(&mut bench, "a@x.test"), expected);
    }
}

#[test]
fn what_strangers_write_is_no_detail_of_a_score() {
    let server = FakeSmtp::start(|line| match line.split(' ').next() {
        Some("RCPT") => Say::Lines("550 5.1.1 no such user"),
        _ => friendly(line),
    });
    let mut bench = Bench::new(&format!(
        "<Plugin v>\nmodule = SMTPVerify\nhost = 127.0.0.1\nport = {}\nperm_fail_score = 3\n</Plugin>\n\
         <Plugin h>\nmodule = AddScoreHeader\nspam_score = 3\n</Plugin>",
        server.port()
    ));
    let header = answer(&mut bench, "a, spf=-99] (b)@x.test");
    assert_eq!(server.count("RCPT TO:<\"a, spf=-99] (b)\"@x.test>"), 1);
    assert_eq!(header, "PREPEND X-MtScore: YES score=3 [v-a%2C%20spf%3D-99%5D%20%28b%29@x.test=3]");
}

#[test]
fn a_host_of_the_configuration_is_found_as_the_system_does_it() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(server.port(), "host = localhost");
    assert_eq!(answer(&mut bench, "unknown@x.test"), "reject 5.1.1 no such user");
    assert!(bench.questions().is_empty());
}

#[test]
fn a_server_that_hangs_up_at_starttls_is_asked_without() {
    for at_starttls in [Say::Close, Say::Last("421 4.7.0 no"), Say::Last("220 go")] {
        let server = FakeSmtp::start(move |line| match line {
            "EHLO us.test" => Say::Lines("250-mx\n250 STARTTLS"),
            "STARTTLS" => at_starttls.clone(),
            line => friendly(line),
        });
        let mut bench = bench(server.port(), "host = 127.0.0.1");
        assert_eq!(answer(&mut bench, "unknown@x.test"), "reject 5.1.1 no such user");
        assert_eq!((server.count(""), server.count("STARTTLS")), (2, 1));
    }
}

#[test]
fn an_own_question_comes_from_no_public_address() {
    let server = FakeSmtp::start(|line| match line {
        "" => Say::Nothing,
        line => friendly(line),
    });
    let mut bench = bench(server.port(), "host = 127.0.0.1\ntimeout = 1").attribute("helo_name", "us.test");
    let late = "defer the mail server does not answer in time";
    assert_eq!(answer(&mut bench, "a@x.test"), late);
    // The question is on its way now.
    bench.attribute_again("client_address", &Ipv4Addr::new(198, 41, 0, 4).to_string());
    assert_eq!(answer(&mut bench, "a@x.test"), late);
    bench.attribute_again("client_address", "10.0.0.1");
    assert_eq!(answer(&mut bench, "a@x.test"), "");
}
