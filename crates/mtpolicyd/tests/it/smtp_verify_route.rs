//! SMTPVerify and the name service: which servers it asks, and what DNSSEC proves; and a real Postfix.
//!
//! Knows: the options of the plugin, the DNS. Must not know: how the plugin asks.

use crate::support::daemon::Site;
use crate::support::fake_dns::{FakeDns, Reply, wire_name};
use crate::support::fake_smtp::{FakeSmtp, Say, friendly};
use crate::support::postfix::{Postfix, postfix_or_leaves_out};
use crate::support::servers::certificates::Certificates;
use backends::dns::{Answer, Association, Exchange, Question, RecordType};
use mtpolicyd::testing::Bench;
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;
use std::sync::Arc;

const ACTIONS: &str = "temp_fail_action = \"defer %MSG%\"\nperm_fail_action = \"reject %MSG%\"\n";

/// A plugin that asks on this port about the sender.
fn bench(port: u16, options: &str) -> Bench {
    Bench::new(&format!(
        "<Plugin v>\nmodule = SMTPVerify\nport = {port}\nhelo_name = us.test\n{ACTIONS}{options}\n</Plugin>"
    ))
    .attribute("recipient", "r@us.test")
}

const OWN: &str = "own_addresses = on\n";

trait Zone {
    fn mx(self, domain: &str, hosts: &[(u16, &str)], is_proved: bool) -> Self;
    fn a(self, host: &str, address: [u8; 4], is_proved: bool) -> Self;
    fn tlsa(self, name: &str, association: Association, is_proved: bool) -> Self;
    fn answer(&mut self, sender: &str) -> String;
}

impl Zone for Bench {
    fn mx(self, domain: &str, hosts: &[(u16, &str)], is_proved: bool) -> Bench {
        let exchange = |&(preference, host): &(u16, &str)| Exchange { preference, host: host.into() };
        let exchanges = Answer::Exchanges(hosts.iter().map(exchange).collect());
        self.answers(Question::new(domain, RecordType::Mx), exchanges, is_proved)
    }

    fn a(self, host: &str, address: [u8; 4], is_proved: bool) -> Bench {
        let addresses = Answer::Addresses(Arc::from([Ipv4Addr::from(address)]));
        self.answers(Question::new(host, RecordType::A), addresses, is_proved)
    }

    fn tlsa(self, name: &str, association: Association, is_proved: bool) -> Bench {
        let associations = Answer::Associations(Arc::from([association]));
        self.answers(Question::new(name, RecordType::Tlsa), associations, is_proved)
    }

    fn answer(&mut self, sender: &str) -> String {
        self.attribute_again("sender", sender).run().unwrap_or_default()
    }
}

#[test]
fn servers_are_asked_in_the_order_of_their_preference() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(server.port(), OWN)
        .mx("x.test", &[(30, "c.test"), (10, "a.test"), (20, "b.test")], false)
        // Nobody listens there, the first has no address at all.
        .a("b.test", [127, 0, 0, 77], false)
        .a("c.test", [127, 0, 0, 1], false);
    assert_eq!(bench.answer("unknown@x.test"), "reject 5.1.1 no such user");
    assert_eq!(server.said()[1..], ["EHLO us.test", "MAIL FROM:<r@us.test>", "RCPT TO:<unknown@x.test>"]);
    let questions = bench.questions();
    assert!(
        questions.starts_with(&["x.test MX".into(), "a.test A".into(), "a.test AAAA".into()]),
        "{questions:?}"
    );
}

#[test]
fn the_next_server_is_asked_only_if_one_does_not_answer() {
    let busy = FakeSmtp::start(|_| Say::Last("554 5.3.2 not now"));
    let mut bench = bench(busy.port(), OWN)
        .mx("x.test", &[(10, "a.test"), (20, "b.test")], false)
        .a("a.test", [127, 0, 0, 1], false)
        .a("b.test", [127, 0, 0, 1], false);
    assert_eq!(bench.answer("a@x.test"), "defer b.test: 5.3.2 not now");
    assert_eq!(busy.count(""), 2);
}

#[test]
fn a_domain_without_mx_records_is_its_own_server() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(server.port(), OWN).a("x.test", [127, 0, 0, 1], false);
    assert_eq!(bench.answer("unknown@x.test"), "reject 5.1.1 no such user");
}

#[test]
fn a_domain_that_takes_no_mail_is_a_permanent_failure() {
    let server = FakeSmtp::start(friendly);
    let mut bench = bench(server.port(), OWN)
        .mx("null.test", &[(0, "")], false)
        .mx("empty.test", &[(10, "nothere.test")], false)
        .dns_fails("down.test");
    for (sender, expected) in [
        ("a@null.test", "reject 5.1.10 null.test takes no mail"),
        ("a@empty.test", "reject 5.1.2 there is no mail server for empty.test"),
        ("a@nothere.test", "reject 5.1.2 there is no mail server for nothere.test"),
        (
            "a@down.test",
            "defer the mail servers of down.test are not known: the name server answered \"Server Failure\"",
        ),
        ("a@[127.0.0.1]", ""),
    ] {
        assert_eq!(bench.answer(sender), expected, "{sender}");
    }
    assert!(server.said().is_empty());
}

/// The score details after a question about somebody at `x.test`.
fn details(bench: &mut Bench, sender: &str) -> String {
    bench.answer(sender);
    bench.session.score_detail("score").unwrap_or_default().to_owned()
}

#[test]
fn an_openpgp_key_counts_if_it_is_proved() {
    let server = FakeSmtp::start(friendly);
    let name = "c93f1e400f26708f98cb19d936620da35eec8f72e57f9eec01c1afd6._openpgpkey.x.test";
    let options = format!("{OWN}check_openpgp = on\nhas_openpgp_score = -3\nno_openpgp_score = 2");
    for (sender, is_proved, expected) in [
        ("hugh@x.test", true, "v-hugh@x.test-openpgp=-3"),
        ("Hugh@x.test", true, "v-Hugh@x.test-openpgp=-3"),
        ("hugh@x.test", false, "v-hugh@x.test-openpgp=2"),
        ("bob@x.test", true, "v-bob@x.test-openpgp=2"),
    ] {
        let keys = Answer::Keys(Arc::from([Box::from(*b"a key")]));
        let question = Question::new(name, RecordType::OpenPgpKey);
        let bench = bench(server.port(), &options).a("x.test", [127, 0, 0, 1], false);
        assert_eq!(details(&mut bench.answers(question, keys, is_proved), sender), expected);
    }
}

/// A Postfix that knows one recipient, and encrypts with this certificate.
fn postfix(certificates: &Certificates) -> Postfix {
    Postfix::start_with(
        "permit_mynetworks",
        &format!(
            "virtual_mailbox_maps = inline:{{known@rcpt.test=inbox/}}\nmessage_size_limit = 10000\n\
             smtpd_tls_security_level = may\nsmtpd_tls_key_file = {}\nsmtpd_tls_cert_file = {}\n\
             smtpd_tls_loglevel = 1\n",
            certificates.key().display(),
            certificates.certificate().display()
        ),
    )
}

/// A certificate as it is on the wire.
fn der(certificate: &std::path::Path) -> Vec<u8> {
    let mut openssl = std::process::Command::new("openssl");
    let output = openssl.args(["x509", "-outform", "DER", "-in"]).arg(certificate).output();
    output.expect("there is an openssl").stdout
}

#[test]
fn postfix_says_whom_it_knows() {
    if !postfix_or_leaves_out("SMTPVerify against Postfix") {
        return;
    }
    let certificates = Certificates::new();
    let postfix = postfix(&certificates);
    let mut bench = bench(postfix.port(), "host = localhost\nhas_starttls_score = -1").a(
        "localhost",
        [127, 0, 0, 1],
        false,
    );
    assert_eq!(bench.answer("known@rcpt.test"), "");
    assert_eq!(bench.session.score_detail("score"), Some("v-known@rcpt.test-starttls=-1"));
    let unknown = bench.answer("unknown@rcpt.test");
    assert!(unknown.starts_with("reject 5.1.1 <unknown@rcpt.test>: Recipient address rejected"), "{unknown}");
    bench.attribute_again("size", "20000");
    assert_eq!(bench.answer("known@rcpt.test"), "reject 5.3.4 Message size exceeds fixed limit");
    assert!(postfix.log().contains("TLS connection established"), "{}", postfix.log());
}

#[test]
fn tlsa_records_count_if_they_are_proved_and_then_hold() {
    if !postfix_or_leaves_out("TLSA records and Postfix") {
        return;
    }
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let postfix = postfix(&certificates);
    let association = |usage, matching, data: &[u8]| {
        let data = if matching == 1 { Sha256::digest(data).to_vec() } else { data.to_vec() };
        Association { usage, selector: 0, matching, data: data.into() }
    };
    let (own, authority) = (der(&certificates.certificate()), der(&certificates.authority()));
    let (others, other_authority) = (der(&others.certificate()), der(&others.authority()));
    let has = "v-unknown@rcpt.test-tlsa=-3";
    let refused = "reject 5.1.1 <unknown@rcpt.test>";
    let mismatch = "defer localhost: TLS: ";
    for (what, record, proofs, expected, details) in [
        ("its certificate", association(3, 1, &own), [true; 3], refused, has),
        ("another certificate", association(3, 1, &others), [true; 3], mismatch, has),
        ("its authority", association(2, 0, &authority), [true; 3], refused, has),
        ("another authority", association(2, 0, &other_authority), [true; 3], mismatch, has),
        ("an unusable record", association(1, 1, &others), [true; 3], refused, has),
        (
            "MX not proved",
            association(3, 1, &others),
            [false, true, true],
            refused,
            "v-unknown@rcpt.test-tlsa=1",
        ),
        (
            "A not proved",
            association(3, 1, &others),
            [true, false, true],
            refused,
            "v-unknown@rcpt.test-tlsa=1",
        ),
        (
            "TLSA not proved",
            association(3, 1, &others),
            [true, true, false],
            refused,
            "v-unknown@rcpt.test-tlsa=1",
        ),
    ] {
        let options = format!("{OWN}check_tlsa = on\nhas_tlsa_score = -3\nno_tlsa_score = 1");
        let name = format!("_{}._tcp.localhost", postfix.port());
        let mut bench = bench(postfix.port(), &options)
            .mx("rcpt.test", &[(10, "localhost")], proofs[0])
            .a("localhost", [127, 0, 0, 1], proofs[1])
            .tlsa(&name, record, proofs[2]);
        let answer = bench.answer("unknown@rcpt.test");
        assert!(answer.starts_with(expected), "{what}: {answer}");
        assert_eq!(bench.session.score_detail("score"), Some(details), "{what}");
    }
}

#[test]
fn tlsa_records_ask_for_encryption() {
    let server = FakeSmtp::start(friendly);
    let name = format!("_{}._tcp.mx.test", server.port());
    let association = Association { usage: 3, selector: 1, matching: 1, data: Box::from([0; 32]) };
    let mut bench = bench(server.port(), &format!("{OWN}check_tlsa = on"))
        .mx("x.test", &[(10, "mx.test")], true)
        .a("mx.test", [127, 0, 0, 1], true)
        .tlsa(&name, association, true);
    let expected = "defer mx.test: it does not encrypt, though its TLSA records ask for it";
    assert_eq!(bench.answer("a@x.test"), expected);
    assert_eq!(server.count("MAIL"), 0);
}

#[test]
fn a_connection_that_is_not_proved_is_not_used_for_who_asks_for_proof() {
    let server = FakeSmtp::start(friendly);
    let name = format!("_{}._tcp.mx.test", server.port());
    let association = Association { usage: 3, selector: 1, matching: 1, data: Box::from([0; 32]) };
    let mut bench = bench(server.port(), &format!("{OWN}check_tlsa = on"))
        .mx("open.test", &[(10, "mx.test")], false)
        .mx("x.test", &[(10, "mx.test")], true)
        .a("mx.test", [127, 0, 0, 1], true)
        .tlsa(&name, association, true);
    assert_eq!(bench.answer("a@open.test"), "");
    let expected = "defer mx.test: it does not encrypt, though its TLSA records ask for it";
    assert_eq!(bench.answer("a@x.test"), expected);
}

#[test]
fn a_domain_whose_first_servers_have_no_address_may_have_others() {
    let hosts = ["1.test", "2.test", "3.test", "4.test", "5.test", "6.test"];
    let hosts: Vec<_> = (1..).zip(hosts).collect();
    let mut bench = bench(25, OWN).mx("x.test", &hosts, false);
    assert_eq!(bench.answer("a@x.test"), "defer the first 5 mail servers of x.test have no address");
}

#[test]
fn a_daemon_believes_a_name_server_of_its_machine() {
    let server = FakeSmtp::start(friendly);
    let tlsa_name = format!("_{}._tcp.mx.test", server.port());
    let name_server = FakeDns::start(move |query| {
        let record = |number: u16, data: Vec<u8>| Reply::Records(vec![(number, data)], 60);
        let proved = |reply| if query.wants_proof { Reply::Proved(Box::new(reply)) } else { reply };
        match (&*query.name, query.record_type) {
            ("x.test", 15) => proved(record(15, [&[0, 10][..], &wire_name("mx.test")].concat())),
            ("mx.test", 1) => proved(record(1, vec![127, 0, 0, 1])),
            (name, 52) if name == tlsa_name => proved(record(52, [&[3, 1, 1][..], &[7; 32]].concat())),
            _ => Reply::NoData(Some(60)),
        }
    });
    let asked = |more: &str| {
        let mut site = Site::new();
        site.replace("$DNS", name_server.address());
        site.replace("$SMTP", server.port());
        site.configure(&format!(
            "port = \"127.0.0.1:$PORT\"\n<Dns>\nservers = \"$DNS\"\n{more}\n</Dns>\n\
             <VirtualHost $PORT>\nname = v\n<Plugin v>\nmodule = SMTPVerify\nport = $SMTP\n\
             {OWN}check_tlsa = on\n{ACTIONS}</Plugin>\n</VirtualHost>"
        ));
        let daemon = site.start();
        let answer = daemon.ask("sender=unknown@x.test\nrecipient=r@us.test\ninstance=1");
        (answer.action().to_owned(), daemon)
    };
    let (answer, _) = asked("");
    assert_eq!(answer, "defer mx.test: it does not encrypt, though its TLSA records ask for it");
    let (answer, daemon) = asked("trust_ad = off");
    assert_eq!(answer, "reject 5.1.1 no such user");
    // Lines are written by another thread.
    daemon.logged("trust_ad");
}
