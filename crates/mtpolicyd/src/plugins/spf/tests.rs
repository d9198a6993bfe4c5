//! SPF on the bench.

use crate::session::Session;
use crate::testing::Bench;
use backends::dns::{Answer, Exchange, Question, RecordType};
use std::sync::Arc;

const END: &str = "<Plugin z>\n module = Action\n action = end\n</Plugin>";

/// The plugin with a message from joe@d.test, the domain's record, and a HELO name without one.
fn bench(options: &str, record: &str) -> Bench {
    bench_in_chain(&format!("<Plugin spf>\n module = SPF\n {options}\n</Plugin>\n{END}"), record)
}

fn bench_in_chain(text: &str, record: &str) -> Bench {
    Bench::new(text)
        .text("d.test", record)
        .attribute("client_address", "192.0.2.10")
        .attribute("helo_name", "mail.d.test")
        .attribute("sender", "joe@d.test")
}

fn answer(options: &str, record: &str) -> String {
    bench(options, record).run().unwrap_or_default()
}

#[test]
fn every_mode_does_what_it_says() {
    for (record, option, mode, expected) in [
        ("+all", "pass_mode", "passive", "end"),
        ("+all", "pass_mode", "accept", "dunno"),
        ("+all", "pass_mode", "dunno", "dunno"),
        ("~all", "softfail_mode", "passive", "end"),
        ("~all", "softfail_mode", "accept", "dunno"),
        ("~all", "softfail_mode", "dunno", "dunno"),
        ("~all", "softfail_mode", "reject", "reject SPF validation failed: d.test (~all): 192.0.2.10"),
        ("-all", "fail_mode", "passive", "end"),
        ("-all", "fail_mode", "reject", "reject SPF validation failed: d.test (-all): 192.0.2.10 may not"),
        ("foo", "permerror_mode", "passive", "end"),
        ("foo", "permerror_mode", "dunno", "dunno"),
        ("foo", "permerror_mode", "defer", "defer spf mfrom check failed: d.test: there is no such"),
        ("foo", "permerror_mode", "reject", "reject spf mfrom check failed: d.test: there is no such"),
        ("a:down.test", "temperror_mode", "passive", "end"),
        ("a:down.test", "temperror_mode", "dunno", "dunno"),
        ("a:down.test", "temperror_mode", "defer", "defer spf mfrom check failed: d.test (a:down.test): "),
        ("a:down.test", "temperror_mode", "reject", "reject spf mfrom check failed: d.test (a:down.test): "),
        ("?all", "fail_mode", "reject", "end"),
    ] {
        let mut bench =
            bench(&format!("{option} = {mode}"), &format!("v=spf1 {record}")).dns_fails("down.test");
        let answer = bench.run().unwrap_or_default();
        assert!(answer.starts_with(expected), "{option} = {mode}: {answer}");
    }
}

#[test]
fn a_score_counts_once_a_mail_whichever_result_has_it_first() {
    let scores = "fail_mode = passive\n fail_score = 4\n pass_score = -2\n softfail_score = 1";
    let mut bench = bench(scores, "v=spf1 +all").text("mail.d.test", "v=spf1 -all");
    assert_eq!((bench.run(), bench.run()), (Some("end".into()), Some("end".into())));
    assert_eq!(bench.session.text("score_detail"), Some("spf=4"));
    bench.attribute_again("helo_name", "other.test").run_fresh();
    assert_eq!(bench.session.text("score_detail"), Some("spf=-2"));
}

#[test]
fn a_result_holds_for_all_recipients() {
    let mut bench = bench("reject_message = \"%LOCAL_EXPL% / %AUTH_EXPL%\"", "v=spf1 -all exp=e.d.test")
        .text("e.d.test", "%{i} is none of ours");
    let first = bench.run();
    assert!(first.as_ref().is_some_and(|text| text.ends_with(" / 192.0.2.10 is none of ours")), "{first:?}");
    let asked = bench.questions().len();
    assert_eq!((bench.run(), bench.questions().len()), (first, asked));
    bench.attribute_again("sender", "joe@e.test");
    assert_eq!(bench.run().as_deref(), Some("end"), "another sender is another message");
}

#[test]
fn what_a_domain_says_is_one_line_of_ascii() {
    let said = |text: &str| {
        let bench = bench("reject_message = \"%AUTH_EXPL%\"", "v=spf1 -all exp=e.d.test");
        bench.text("e.d.test", text).run().unwrap_or_default()
    };
    let default = "reject See http://www.d.test/why/id=joe%40d.test;ip=192.0.2.10;r=unknown";
    assert_eq!(said("caf\u{e9}"), default);
    assert_eq!(said("two\nlines"), default);
    assert_eq!(said("%{x}"), default);
    assert_eq!(said(&"long ".repeat(1000)).len(), "reject ".len() + 400);
    let asked = bench("", "v=spf1 -all exp=e.d.test");
    let mut asked = asked.text("e.d.test", "text");
    asked.run();
    assert!(!asked.questions().contains(&"e.d.test TXT".to_owned()), "nothing shows it");
}

#[test]
fn a_mail_without_a_sender_has_its_helo() {
    let mut bench = bench("pass_mode = accept", "v=spf1 +all").text("mail.d.test", "v=spf1 +all");
    bench.attribute_again("sender", "");
    assert_eq!(bench.run().as_deref(), Some("dunno"));
    for options in ["check_helo = off", ""] {
        let mut bench = self::bench(options, "v=spf1 -all");
        bench
            .attribute_again("sender", "")
            .attribute_again("helo_name", if options.is_empty() { "" } else { "d.test" });
        assert_eq!(bench.run().as_deref(), Some("end"));
    }
}

#[test]
fn local_and_listed_clients_are_not_checked() {
    let skipped = |client: &str| {
        let mut bench = bench("whitelist = \"198.51.100.0/24, 192.0.2.7 2001:db8:1::/48\"", "v=spf1 -all");
        bench.attribute_again("client_address", client);
        bench.run().as_deref() == Some("end")
    };
    for client in
        ["127.0.0.1", "127.9.9.9", "::1", "198.51.100.3", "::ffff:192.0.2.7", "2001:db8:1::9", "", "x"]
    {
        assert!(skipped(client), "{client}");
    }
    for client in ["192.0.2.8", "::ffff:192.0.2.8", "2001:db8:2::9"] {
        assert!(!skipped(client), "{client}");
    }
}

#[test]
fn a_forwarder_is_known_by_its_own_record() {
    let options = "whitelist_spf_of = \"f.test, g.test\"\n fail_score = 5";
    let mut bench = bench(options, "v=spf1 -all").text("g.test", "v=spf1 ip4:192.0.2.0/28 -all");
    assert_eq!(bench.run().as_deref(), Some("end"));
    assert_eq!(bench.session.text("score"), None);
    bench.attribute_again("client_address", "192.0.2.99");
    assert!(bench.run_fresh().is_some_and(|answer| answer.starts_with("reject ")));
    let mut bench = self::bench(options, "v=spf1 +all");
    bench.run();
    assert!(!bench.questions().contains(&"g.test TXT".to_owned()), "nothing is held against the client");
}

#[test]
fn a_name_in_helo_has_to_be_true() {
    let accepted = |names: &str, helo: &str, record: Option<&str>, address: &str| {
        let mut bench = bench(&format!("whitelist_helo = \"{names}\"\n check_helo = off"), "v=spf1 -all")
            .listed(helo, address, record.unwrap_or("other"));
        bench.attribute_again("helo_name", helo);
        bench.run().as_deref() == Some("end")
    };
    assert!(accepted("mail.f.test", "Mail.F.test", None, "192.0.2.10"));
    assert!(!accepted("mail.f.test", "mail.f.test", None, "192.0.2.11"));
    assert!(accepted("x.test .f.test", "mail.f.test", Some("v=spf1 ip4:192.0.2.10 -all"), "192.0.2.11"));
    assert!(!accepted(".f.test", "mail.f.test", Some("v=spf1 -all"), "192.0.2.10"));
    assert!(
        !accepted("f.test", "mail.f.test", None, "192.0.2.10"),
        "only with a dot in front it is all below"
    );
    assert!(accepted(".f.test", "f.test", None, "192.0.2.10"));
    assert!(!accepted(".f.test", "notf.test", None, "192.0.2.10"));
}

#[test]
fn a_whitelist_that_can_not_be_looked_up_rejects_nobody() {
    let why = "the whitelists can't be looked up, and without them: d.test (-all): 192.0.2.10 may not send";
    let deferred = format!("defer spf mfrom check failed: {why}");
    let starts = |answer: Option<String>, expected: &str| {
        assert!(answer.as_ref().is_some_and(|answer| answer.starts_with(expected)), "{answer:?}");
    };
    for options in
        ["whitelist_spf_of = \"f.test, down.test\"", "whitelist_helo = down.test\n check_helo = off"]
    {
        let mut bench = bench(options, "v=spf1 -all").dns_fails("down.test").text("f.test", "v=spf1 -all");
        if options.contains("helo") {
            bench.attribute_again("helo_name", "down.test");
        }
        starts(bench.run(), &deferred);
        // Another forwarder, or a sender with nothing against it, need no whitelist.
        let mut bench = self::bench(options, "v=spf1 ip4:192.0.2.10 -all").dns_fails("down.test");
        assert_eq!(bench.run().as_deref(), Some("end"), "{options}");
    }
    let other = "whitelist_spf_of = \"down.test, f.test\"";
    let mut bench = bench(other, "v=spf1 -all").dns_fails("down.test").text("f.test", "v=spf1 +all");
    assert_eq!(bench.run().as_deref(), Some("end"));
    let passive =
        "whitelist_spf_of = down.test\n temperror_mode = passive\n temperror_score = 1\n fail_score = 9";
    let mut bench = self::bench(passive, "v=spf1 -all").dns_fails("down.test");
    assert_eq!((bench.run().as_deref(), bench.session.text("score_detail")), (Some("end"), Some("spf=1")));
}

#[test]
fn a_long_term_is_not_kept_as_a_whole() {
    let record = format!("v=spf1 -exists:{}%{{d}}", "x.".repeat(7_000));
    let name = format!("{}d.test", "x.".repeat(123));
    let mut bench = bench("fail_mode = passive", &record).listed(&name, "127.0.0.2", "");
    bench.run();
    let kept = bench.session.result("spf-mfrom-result").map(str::to_owned);
    assert!(kept.as_ref().is_some_and(|kept| kept.contains("fail") && kept.len() < 2_000), "{kept:?}");
}

#[test]
fn the_header_waits_for_the_end_of_the_chain() {
    let spf = |options: &str| {
        format!(
            "<Plugin spf>\n module = SPF\n header = Received-SPF\n hostname = mx.test\n {options}\n\
             </Plugin>\n"
        )
    };
    let header = "PREPEND Received-SPF: pass receiver=mx.test; client-ip=192.0.2.10; \
                  envelope-from=\"joe@d.test\"; helo=\"mail.d.test\"; identity=mailfrom; mechanism=\"+all\"";
    for (chain, expected) in [
        (spf(""), header),
        (spf("pass_mode = accept"), header),
        (format!("{}{END}", spf("")), "end"),
        (
            format!("{}<Plugin h>\n module = AddScoreHeader\n</Plugin>", spf("")),
            "PREPEND X-MtScore: NO score=0",
        ),
    ] {
        let mut bench = bench_in_chain(&chain, "v=spf1 +all");
        assert_eq!(bench.run().as_deref(), Some(expected));
        let second = bench.run();
        let expected = match expected {
            "end" => Some("end"),
            header_of_score if header_of_score.contains("score") => Some(header),
            _ if chain.contains("accept") => Some("dunno"),
            _ => None,
        };
        assert_eq!(second.as_deref(), expected, "the message has it once");
    }
    let mut bench = bench_in_chain(&spf("fail_mode = reject"), "v=spf1 -all");
    assert!(bench.run().is_some_and(|answer| answer.starts_with("reject ")));
    bench.attribute_again("client_address", "127.0.0.1").session = Session::default();
    assert_eq!(bench.run(), None, "it was not checked");
}

#[test]
fn headers_are_well_formed() {
    let header = |kind: &str, record: &str, sender: &str, helo: &str| {
        let text = format!(
            "<Plugin spf>\n module = SPF\n header = {kind}\n hostname = mx.test\n fail_mode = passive\n \
             permerror_mode = passive\n</Plugin>"
        );
        let mut bench = bench_in_chain(&text, record).text("helo.test", "v=spf1 -all");
        bench.attribute_again("sender", sender).attribute_again("helo_name", helo).run().unwrap_or_default()
    };
    let results = |record, sender, helo| header("Authentication-Results", record, sender, helo);
    assert_eq!(
        results("v=spf1 +all", "joe@d.test", "helo.test"),
        "PREPEND Authentication-Results: mx.test; spf=fail smtp.helo=helo.test; spf=pass smtp.mailfrom=d.test"
    );
    assert_eq!(
        results("", "joe@d.test; x=y", ""),
        "PREPEND Authentication-Results: mx.test; spf=none \
                smtp.mailfrom=\"d.test; x=y\""
    );
    let received = |record, sender, helo| header("Received-SPF", record, sender, helo);
    assert_eq!(
        received("v=spf1 foo", "a\"\\\u{e9}@d.test", "he(lo"),
        "PREPEND Received-SPF: permerror receiver=mx.test; client-ip=192.0.2.10; \
         envelope-from=\"a\\\"\\\\?@d.test\"; helo=\"he(lo\"; identity=mailfrom; \
         problem=\"there is no such mechanism: `foo`\""
    );
    assert_eq!(
        received("", "", "helo.test"),
        "PREPEND Received-SPF: fail receiver=mx.test; client-ip=192.0.2.10; \
         helo=\"helo.test\"; identity=helo; mechanism=\"-all\""
    );
    assert!(received("v=spf1", "@d.test", "").ends_with("mechanism=default"));
    assert!(received("v=spf1", &format!("{}@d.test", "x".repeat(5000)), &"y".repeat(5000)).len() < 900);
}

#[test]
fn mistakes_are_found_at_the_start() {
    let mistakes =
        |options: &str| Bench::mistakes(&format!("<Plugin spf>\n module = SPF\n {options}\n</Plugin>"));
    for (option, mistake) in [
        ("whitelist = \"192.0.2.0/33\"", "`192.0.2.0/33` is neither an address nor a network"),
        ("whitelist_helo = \"a_b\"", "`a_b` is not a domain"),
        ("whitelist_spf_of = \"f..test\"", "`f..test` is not a domain"),
        ("default_authority_explanation = \"100%\"", "this can't stand here: `%`"),
        ("header = \"Received-SPF\"", "header: needs `hostname`"),
        ("hostname = mx\n header = \"X-SPF\"", "`X-SPF` is not one of Received-SPF, Authentication-Results"),
        ("temperror_mode = accept", "`accept` is not one of passive, dunno, defer, reject"),
        ("time_limit = 0", "`0` is not a valid time"),
    ] {
        let found = mistakes(option);
        assert!(found.len() == 1 && found[0].contains(mistake), "{option}: {found:?}");
    }
}

#[test]
fn limits_can_be_set() {
    let hosts: Vec<_> =
        (0..11).map(|n| Exchange { preference: n, host: format!("m{n}.test").into() }).collect();
    let many = |options: &str| {
        let bench = bench(options, "v=spf1 mx a:n1.test a:n2.test -all");
        let hosts = Answer::Exchanges(Arc::from(hosts.clone()));
        bench.answers(Question::new("d.test", RecordType::Mx), hosts, false).run().unwrap_or_default()
    };
    assert!(many("").ends_with("d.test (mx): d.test has more than 10 MX records"));
    assert!(
        many("max_name_lookups_per_term = 11")
            .ends_with("more than 2 terms found nothing in the name service")
    );
    let more = "max_name_lookups_per_term = 11\n max_void_dns_lookups = 3";
    assert!(many(more).starts_with("reject SPF validation failed"));
    let few = "max_dns_interactive_terms = 2\n max_name_lookups_per_term = 11";
    assert!(many(few).ends_with("more than 2 terms that ask the name service"));
}

#[test]
fn both_identities_are_foreseen_and_switched_off() {
    assert_eq!(answer("enabled = off", "v=spf1 -all"), "end");
    let mut bench = bench("enabled = off", "v=spf1 -all");
    bench.run();
    assert!(bench.questions().is_empty());
}

#[test]
fn domains_may_have_other_letters() {
    let mut bench = bench("", "v=spf1 +all").text("xn--bcher-kva.example", "v=spf1 -all");
    bench.attribute_again("sender", "j\u{f6}rg@b\u{fc}cher.example");
    assert!(bench.run().is_some_and(|answer| answer.starts_with("reject ")));
}
