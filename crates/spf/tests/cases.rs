//! What the suite of OpenSPF does not ask: qualifiers through includes, prefixes of nothing, limits, lookups.
//!
//! Knows: zones and verdicts. Must not know: how anything is evaluated.

mod support;

use proptest::prelude::*;
use spf::{Limits, Outcome, Request, Settings, Verdict, check};
use support::Zone;

fn mail(client: &str) -> Request {
    Request::mail_from(client.parse().expect("an address"), "helo.test", "joe@d.test")
}

fn outcome(zone: &Zone, client: &str, settings: &Settings) -> Outcome {
    zone.wait(check(zone, &mail(client), settings))
}

/// The verdict about a client, which the look-ahead must not change.
fn verdict_of(lines: &[&str], client: &str) -> Verdict {
    let [with, without] = [true, false].map(|look_ahead| {
        let settings = Settings { look_ahead, ..Settings::default() };
        outcome(&Zone::new(lines), client, &settings)
    });
    assert_eq!(with, without);
    with.verdict
}

fn verdict(lines: &[&str]) -> Verdict {
    verdict_of(lines, "192.0.2.10")
}

#[test]
fn the_outer_qualifier_of_nested_includes_counts() {
    for (qualifier, expected) in
        [("?", Verdict::Neutral), ("~", Verdict::SoftFail), ("-", Verdict::Fail), ("+", Verdict::Pass)]
    {
        let outer = format!("d.test TXT v=spf1 {qualifier}include:b.test -all");
        let zone =
            [&*outer, "b.test TXT v=spf1 include:c.test -all", "c.test TXT v=spf1 ip4:192.0.2.10 -all"];
        assert_eq!(verdict(&zone), expected);
    }
}

#[test]
fn an_included_record_only_says_whether_it_passes() {
    for inner in ["-all", "~all", "?all", "-ip4:192.0.2.10 +all", "a:none.test"] {
        let inner = format!("b.test TXT v=spf1 {inner}");
        assert_eq!(verdict(&["d.test TXT v=spf1 include:b.test ~all", &inner]), Verdict::SoftFail);
    }
    assert_eq!(verdict(&["d.test TXT v=spf1 include:b.test ~all"]), Verdict::PermError);
    assert_eq!(verdict(&["d.test TXT v=spf1 include:b.test ~all", "b.test TXT"]), Verdict::TempError);
}

#[test]
fn a_prefix_of_nothing_holds_all_of_its_kind_only() {
    for (record, ipv4, ipv6) in [
        ("ip4:0.0.0.0/0", Verdict::Pass, Verdict::Fail),
        ("ip6:::/0", Verdict::Fail, Verdict::Pass),
        ("a:h.test/0", Verdict::Pass, Verdict::Fail),
        ("a:h.test//0", Verdict::Fail, Verdict::Pass),
        ("mx:h.test/0//0", Verdict::Pass, Verdict::Pass),
    ] {
        let record = format!("d.test TXT v=spf1 {record} -all");
        let zone = [&*record, "h.test A 198.51.100.1", "h.test AAAA 2001:db8::1", "h.test MX h.test"];
        assert_eq!(verdict_of(&zone, "192.0.2.10"), ipv4, "{record}");
        assert_eq!(verdict_of(&zone, "2001:db8:ffff::1"), ipv6, "{record}");
        assert_eq!(verdict_of(&zone, "::ffff:192.0.2.10"), ipv4, "{record}");
    }
}

#[test]
fn odd_users_are_users() {
    let zone =
        ["d.test TXT v=spf1 exists:%{l}.u.%{d} -all", "a+b.u.d.test A 127.0.0.2", "x\".u.d.test A 127.0.0.2"];
    for (sender, expected) in [
        ("a+b@d.test", Verdict::Pass),
        ("x\"@d.test", Verdict::Pass),
        ("\"x@y\"@d.test", Verdict::Fail),
        ("j\u{f6}rg@d.test", Verdict::Fail),
        ("@d.test", Verdict::Fail),
        ("..@d.test", Verdict::Fail),
        ("joe@\u{fc}.test", Verdict::None),
        ("joe", Verdict::None),
        ("", Verdict::None),
    ] {
        let zone = Zone::new(&zone);
        let request = Request::mail_from([192, 0, 2, 10].into(), "helo.test", sender);
        assert_eq!(zone.wait(check(&zone, &request, &Settings::default())).verdict, expected, "{sender}");
    }
}

#[test]
fn a_user_that_makes_no_name_matches_nothing_and_breaks_nothing() {
    let zone = [
        "d.test TXT v=spf1 exists:%{l}.a.test exists:%{l}.b.test a:%{l}.c.test ip4:192.0.2.10 -all",
        "i.test TXT v=spf1 include:%{l}.i.test ip4:192.0.2.10 -all",
    ];
    let verdict = |sender: &str| {
        let (zone, request) =
            (Zone::new(&zone), Request::mail_from([192, 0, 2, 10].into(), "h.test", sender));
        zone.wait(check(&zone, &request, &Settings::default())).verdict
    };
    for user in ["a..b", ".", "j\u{f6}rg", &"x".repeat(64)] {
        assert_eq!(verdict(&format!("{user}@d.test")), Verdict::Pass, "{user}");
    }
    // These names can be asked for, and there is nothing.
    for user in ["joe", "a b", "a\"b"] {
        assert_eq!(verdict(&format!("{user}@d.test")), Verdict::PermError, "{user}");
    }
    assert_eq!(verdict("j\u{f6}rg@i.test"), Verdict::Pass);
    assert_eq!(verdict("joe@i.test"), Verdict::PermError);
}

#[test]
fn every_limit_can_be_set() {
    let zone = [
        "d.test TXT v=spf1 a:n1.test a:n2.test mx:m.test -all",
        "m.test MX m1.test",
        "m.test MX m2.test",
        "m2.test A 192.0.2.10",
    ];
    let limited =
        |limits| outcome(&Zone::new(&zone), "192.0.2.10", &Settings { limits, ..Settings::default() });
    assert_eq!(limited(Limits::default()).verdict, Verdict::Pass);
    assert_eq!(limited(Limits { terms: 3, names: 2, void_terms: 2 }).verdict, Verdict::Pass);
    for (limits, problem) in [
        (
            Limits { terms: 2, ..Limits::default() },
            "the records have more than 2 terms that ask the name service",
        ),
        (Limits { names: 1, ..Limits::default() }, "m.test has more than 1 MX records"),
        (
            Limits { void_terms: 1, ..Limits::default() },
            "more than 1 terms found nothing in the name service",
        ),
    ] {
        let outcome = limited(limits);
        assert_eq!((outcome.verdict, outcome.problem.as_deref()), (Verdict::PermError, Some(problem)));
    }
}

#[test]
fn an_mx_host_without_an_address_of_the_clients_kind_is_no_void_term() {
    let zone = [
        "d.test TXT v=spf1 mx -all",
        "d.test MX a.test",
        "d.test MX b.test",
        "d.test MX c.test",
        "d.test MX d.test",
        "d.test AAAA 2001:db8::1",
    ];
    assert_eq!(verdict_of(&zone, "2001:db8::2"), Verdict::Fail);
}

#[test]
fn domains_that_take_no_mail_are_no_void_terms() {
    let mut zone = vec!["d.test TXT v=spf1 mx:a.test mx:b.test mx:c.test ip4:192.0.2.10 -all"];
    zone.extend(["a.test MX ", "b.test MX ", "c.test MX "]);
    assert_eq!(verdict(&zone), Verdict::Pass);
    // Hosts that can be asked for and are not there are void, and so are domains without MX records.
    zone[1..].copy_from_slice(&["a.test MX x.test", "b.test MX ", "b.test MX y.test"]);
    assert_eq!(verdict(&zone), Verdict::PermError);
}

#[test]
fn a_long_record_is_a_permanent_error_and_lets_others_run_before() {
    let record = |terms: usize| format!("d.test TXT v=spf1{} -all", " ip4:198.51.100.1".repeat(terms));
    assert_eq!(verdict(&[&record(900)]), Verdict::Fail);
    let zone = Zone::new(&[&record(1_000)]);
    let too_long = outcome(&zone, "192.0.2.10", &Settings::default());
    assert_eq!(too_long.verdict, Verdict::PermError);
    let problem = too_long.problem.unwrap_or_default();
    assert!(problem.starts_with("a record has more than 16384 bytes: `v=spf1 ip4:"), "{problem}");
    for (terms, rounds) in [(50, 0), (500, 1)] {
        let zone = Zone::new(&[&record(terms)]);
        outcome(&zone, "192.0.2.10", &Settings::default());
        assert_eq!(zone.rounds(), rounds, "{terms} terms");
    }
}

#[test]
fn macros_of_a_long_sender_keep_their_meaning() {
    let user = "a.".repeat(700) + "z";
    let short = "a.".repeat(122) + "z.t.test";
    let first = "a.x.test A 127.0.0.2";
    for (record, name) in
        [("exists:%{l}.t.test", &*format!("{short} A 127.0.0.2")), ("exists:%{l1r}.x.test", first)]
    {
        let record = format!("d.test TXT v=spf1 {record} -all");
        let zone = Zone::new(&[&record, name]);
        let request = Request::mail_from([192, 0, 2, 10].into(), "helo.test", &format!("{user}@d.test"));
        let outcome = zone.wait(check(&zone, &request, &Settings::default()));
        assert_eq!(outcome.verdict, Verdict::Pass, "{record}: {:?}", zone.asked());
    }
}

#[test]
fn records_that_include_one_another_end() {
    let zone = ["d.test TXT v=spf1 include:e.test", "e.test TXT v=spf1 redirect=d.test"];
    assert_eq!(verdict(&zone), Verdict::PermError);
    let limits = Limits { terms: usize::MAX, ..Limits::default() };
    let outcome = outcome(
        &Zone::new(&zone),
        "192.0.2.10",
        &Settings { limits, look_ahead: false, ..Settings::default() },
    );
    assert_eq!(outcome.problem.as_deref(), Some("records include one another too often"));
}

/// A zone whose record has ten includes, of which the last has the client.
fn ten_includes() -> Vec<String> {
    let all: String = (0..10).map(|n| format!(" include:i{n}.test")).collect();
    let mut lines = vec![format!("d.test TXT v=spf1{all} -all")];
    lines.extend((0..9).map(|n| format!("i{n}.test TXT v=spf1 ip4:198.51.100.{n} -all")));
    lines.push("i9.test TXT v=spf1 ip4:192.0.2.10 -all".to_owned());
    lines
}

fn round_trips(lines: &[&str], look_ahead: bool) -> (Verdict, usize, usize) {
    let zone = Zone::new(lines).slow();
    let outcome = outcome(&zone, "192.0.2.10", &Settings { look_ahead, ..Settings::default() });
    (outcome.verdict, zone.rounds(), zone.asked().len())
}

#[test]
fn the_lookups_of_a_record_cost_one_round_trip() {
    let lines = ten_includes();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    assert_eq!(round_trips(&lines, true), (Verdict::Pass, 2, 11));
    assert_eq!(round_trips(&lines, false), (Verdict::Pass, 11, 11));
}

#[test]
fn nested_records_cost_a_round_trip_a_level() {
    let lines = [
        "d.test TXT v=spf1 include:a.test include:b.test mx:m.test -all",
        "a.test TXT v=spf1 include:aa.test a:h.test -all",
        "aa.test TXT v=spf1 exists:%{i}.x.test -all",
        "b.test TXT v=spf1 redirect=bb.test",
        "bb.test TXT v=spf1 a:h.test -all",
        "h.test A 198.51.100.9",
        "m.test MX m1.test",
        "m.test MX m2.test",
        "m1.test A 198.51.100.1",
        "m2.test A 192.0.2.10",
    ];
    // The addresses of the hosts come last: they are looked up when it is the turn of `mx`.
    assert_eq!(round_trips(&lines, true).1, 5);
    assert_eq!(round_trips(&lines, false).1, 9);
}

#[test]
fn what_can_not_count_is_not_asked() {
    let asked = |record: &str| {
        let zone = Zone::new(&[record]).slow();
        outcome(&zone, "192.0.2.10", &Settings::default());
        zone.asked()
    };
    assert_eq!(asked("d.test TXT v=spf1 ip4:192.0.2.0/24 include:a.test redirect=b.test").len(), 1);
    assert_eq!(asked("d.test TXT v=spf1 -all include:a.test redirect=b.test").len(), 1);
    assert_eq!(asked("d.test TXT v=spf1 a -foo").len(), 1, "the record has a mistake");
    let many: String = (0..30).map(|n| format!(" a:h{n}.test")).collect();
    assert_eq!(asked(&format!("d.test TXT v=spf1{many}")).len(), 11, "no more than the limit");
}

#[test]
fn the_way_to_a_verdict_is_told() {
    let zone = [
        "d.test TXT v=spf1 include:b.test -all",
        "b.test TXT v=spf1 redirect=c.test",
        "c.test TXT v=spf1 a/24",
        "c.test A 192.0.2.200",
    ];
    let passed = outcome(&Zone::new(&zone), "192.0.2.10", &Settings::default());
    let way = "d.test (include:b.test), b.test (redirect=c.test), c.test (a/24)";
    let told = format!("{way}: 192.0.2.10 may send mail as joe@d.test");
    assert_eq!(passed.describe(&mail("192.0.2.10")), told);
    assert_eq!(passed.mechanism(), Some("include:b.test"));
    let failed = outcome(&Zone::new(&["d.test TXT v=spf1 foo"]), "192.0.2.10", &Settings::default());
    let told = "d.test: there is no such mechanism: `foo`";
    assert_eq!(failed.describe(&mail("192.0.2.10")), told);
}

#[test]
fn a_description_is_short_whatever_others_write() {
    let long = "x".repeat(5000);
    let zone = Zone::new(&[&format!("d.test TXT v=spf1 a:{long}.%{{s}} include:{long}.e.test -all")]);
    let failed = outcome(&zone, "192.0.2.10", &Settings::default());
    assert_eq!(failed.verdict, Verdict::PermError);
    assert!(failed.describe(&mail("192.0.2.10")).len() < 500, "{failed:?}");
    let mut lines: Vec<_> = (0..9).map(|n| format!("i{n}.test TXT v=spf1 include:i{}.test", n + 1)).collect();
    lines.push("i9.test TXT v=spf1 +all".to_owned());
    lines.push("d.test TXT v=spf1 include:i0.test".to_owned());
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let told = outcome(&Zone::new(&lines), "192.0.2.10", &Settings::default()).describe(&mail("192.0.2.10"));
    let way =
        "d.test (include:i0.test), ..., i7.test (include:i8.test), i8.test (include:i9.test), i9.test (+all)";
    assert_eq!(told, format!("{way}: 192.0.2.10 may send mail as joe@d.test"));
}

/// Terms that do something to a client 192.0.2.10 or to the limits, about a few names.
fn term() -> impl Strategy<Value = String> {
    let name =
        prop::sample::select(vec!["d.test", "a.test", "b.test", "c.test", "none.test", "%{d}", "%{l}.test"]);
    let qualifier = prop::sample::select(vec!["", "-", "~", "?"]);
    let kind = prop::sample::select(vec![
        "include:",
        "a:",
        "mx:",
        "exists:",
        "ptr:",
        "redirect=",
        "exp=",
        "foo=",
        "foo:",
    ]);
    let fixed = prop::sample::select(vec![
        "all",
        "ip4:192.0.2.0/24",
        "ip4:198.51.100.0/24",
        "a",
        "mx/24",
        "ptr",
        "-all",
    ]);
    prop_oneof![
        3 => (qualifier, kind, name).prop_map(|(qualifier, kind, name)| match kind {
            "redirect=" | "exp=" | "foo=" => format!("{kind}{name}"),
            _ => format!("{qualifier}{kind}{name}"),
        }),
        1 => fixed.prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn the_look_ahead_changes_no_outcome(
        records in prop::collection::vec(prop::collection::vec(term(), 0..5), 4),
        terms in 0_usize..12,
        slow: bool,
    ) {
        let names = ["d.test", "a.test", "b.test", "c.test"];
        let mut lines: Vec<_> = names.iter().zip(&records)
            .map(|(name, terms)| format!("{name} TXT v=spf1 {}", terms.join(" "))).collect();
        lines.extend(["a.test A 192.0.2.10", "b.test A 198.51.100.1", "c.test MX a.test", "c.test A",
            "10.2.0.192.in-addr.arpa PTR a.test"].map(str::to_owned));
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let limits = Limits { terms, ..Limits::default() };
        let outcomes = [true, false].map(|look_ahead| {
            let zone = if slow { Zone::new(&lines).slow() } else { Zone::new(&lines) };
            outcome(&zone, "192.0.2.10", &Settings { look_ahead, limits, ..Settings::default() })
        });
        prop_assert_eq!(&outcomes[0], &outcomes[1]);
    }

    #[test]
    fn no_text_breaks_the_evaluator(
        terms in
            "( [a-z%{}:/=.0-9~?+ü-]{0,20}\
             | (a|mx|exists:|include:|exp=|ptr:)[%{}slipr0-9./:-]{0,20}){0,6}",
        user in ".{0,20}",
    ) {
        let zone = Zone::new(&[&format!("d.test TXT v=spf1{terms}"), "d.test A 192.0.2.10"]);
        let request = Request::mail_from([192, 0, 2, 10].into(), &user, &format!("{user}@d.test"));
        let settings = Settings::default();
        let outcome = zone.wait(check(&zone, &request, &settings));
        prop_assert!(outcome.describe(&request).chars().count() < 1000);
        zone.wait(outcome.explanation(&zone, &request, &settings));
    }
}
