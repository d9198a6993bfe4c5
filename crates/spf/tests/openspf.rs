//! The test suite of OpenSPF for RFC 7208, whole: verdicts and explanations.
//!
//! Knows: the suite's format. Must not know: how anything is evaluated.
//!
//! The suite comes from the source distribution of the PyPI package pyspf 2.0.14, as it is there, under the
//! licence beside it.

mod support;

use spf::{MacroText, Request, Settings, Verdict, check};
use std::collections::HashSet;
use support::Zone;
use yaml_rust2::{Yaml, YamlLoader};

const SUITE: &str = include_str!("openspf/rfc7208-tests.yml");

/// How many cases there are. None is left out.
const CASES: usize = 203;

/// What the suite has for a domain that does not explain.
const DEFAULT: &str = "DEFAULT";

struct Case {
    name: String,
    request: Request,
    verdicts: Vec<String>,
    explanation: Option<String>,
}

fn text(node: &Yaml) -> Option<String> {
    node.as_str().map(str::to_owned)
}

/// A scenario's zone and its cases.
fn scenarios() -> Vec<(Zone, Vec<Case>)> {
    let documents = YamlLoader::load_from_str(SUITE).expect("the suite is YAML");
    documents.iter().map(|scenario| (zone(&scenario["zonedata"]), cases(&scenario["tests"]))).collect()
}

fn cases(tests: &Yaml) -> Vec<Case> {
    let tests = tests.as_hash().expect("cases");
    let case = |(name, case): (&Yaml, &Yaml)| {
        let name = text(name).expect("a name");
        let field = |field: &str| text(&case[field]).unwrap_or_else(|| panic!("{name} has no {field}"));
        let client = field("host").parse().expect("an address");
        let (helo, sender) = (field("helo"), field("mailfrom"));
        let request = match sender.is_empty() {
            true => Request::helo(client, &helo),
            false => Request::mail_from(client, &helo, &sender),
        };
        let verdicts = match &case["result"] {
            Yaml::Array(any) => any.iter().filter_map(text).collect(),
            one => vec![text(one).expect("a result")],
        };
        Case { request, verdicts, explanation: text(&case["explanation"]), name }
    };
    tests.iter().map(case).collect()
}

/// Where a name has no TXT records, its SPF records are both, unless the TXT records are said to be `NONE`.
fn zone(data: &Yaml) -> Zone {
    let mut zone = Zone::default();
    for (name, records) in data.as_hash().expect("names") {
        let name = text(name).expect("a name");
        let records = records.as_vec().expect("records");
        let types: HashSet<_> =
            records.iter().filter_map(|record| text(record.as_hash()?.keys().next()?)).collect();
        for record in records {
            match record {
                Yaml::String(word) if word == "TIMEOUT" => zone.add_timeout(&name, None),
                Yaml::Hash(record) => {
                    let (kind, value) = record.iter().next().expect("a record");
                    let kind = kind.as_str().expect("a type");
                    match (kind, value) {
                        (kind, Yaml::String(word)) if word == "TIMEOUT" => {
                            zone.add_timeout(&name, Some(kind))
                        }
                        (_, Yaml::String(word)) if word == "NONE" => {}
                        ("SPF", value) if !types.contains("TXT") => zone.add(&name, "TXT", strings(value)),
                        ("SPF", _) => {}
                        ("TXT", value) => zone.add(&name, "TXT", strings(value)),
                        ("MX", value) => zone.add(&name, "MX", strings(&value[1])),
                        (kind, value) => zone.add(&name, kind, strings(value)),
                    }
                }
                other => panic!("what is {other:?}?"),
            }
        }
    }
    zone
}

/// The bytes of one or several strings; each character is a byte.
fn strings(value: &Yaml) -> Vec<u8> {
    let bytes =
        |text: &str| text.chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect::<Vec<_>>();
    match value {
        Yaml::Array(parts) => parts.iter().flat_map(|part| bytes(part.as_str().expect("text"))).collect(),
        one => bytes(one.as_str().unwrap_or_else(|| panic!("what is {one:?}?"))),
    }
}

/// Lower case of the digits of hexadecimal numbers does not matter; in explanations all case is ignored where
/// there is a colon, which only addresses of IPv6 have there.
fn alike(one: &str, other: &str) -> bool {
    one == other || (one.contains(':') && one.eq_ignore_ascii_case(other)) || escapes_alike(one, other)
}

/// Whether texts are equal but for the case of `%2f`.
fn escapes_alike(one: &str, other: &str) -> bool {
    let fold = |text: &str| {
        let mut hexadecimal = 0;
        let fold = |c: char| {
            let folded = if hexadecimal > 0 { c.to_ascii_lowercase() } else { c };
            hexadecimal = if c == '%' { 2 } else { hexadecimal - i32::from(hexadecimal > 0) };
            folded
        };
        text.chars().map(fold).collect::<String>()
    };
    fold(one) == fold(other)
}

/// What is wrong with a case, if anything.
fn complaint(zone: &Zone, case: &Case, look_ahead: bool) -> Option<String> {
    let settings = Settings { look_ahead, ..Settings::default() };
    let outcome = zone.wait(check(zone, &case.request, &settings));
    if !case.verdicts.contains(&outcome.verdict.to_string()) {
        return Some(format!("{}: {outcome:?} instead of {:?}", case.name, case.verdicts));
    }
    let expected = case.explanation.as_deref()?;
    let default = MacroText::explanation(DEFAULT).expect("text");
    let explanation = match outcome.verdict {
        Verdict::Fail => zone.wait(async {
            match outcome.explanation(zone, &case.request, &settings).await {
                Some(explanation) => Some(explanation),
                None => outcome.default_explanation(&default, zone, &case.request, &settings).await,
            }
        }),
        _ => None,
    };
    let explanation = explanation.unwrap_or_default();
    (!alike(&explanation, expected))
        .then(|| format!("{}: `{explanation}` instead of `{expected}`", case.name))
}

#[test]
fn the_suite_passes_whole() {
    for look_ahead in [false, true] {
        let (mut count, mut explained, mut complaints) = (0, 0, Vec::new());
        for (zone, cases) in scenarios() {
            count += cases.len();
            explained += cases.iter().filter(|case| case.explanation.is_some()).count();
            complaints.extend(cases.iter().filter_map(|case| complaint(&zone, case, look_ahead)));
        }
        assert!(complaints.is_empty(), "{} of {count} fail:\n{}", complaints.len(), complaints.join("\n"));
        assert_eq!((count, explained), (CASES, 22));
    }
}

#[test]
fn a_case_can_fail() {
    let (zone, cases) = scenarios().swap_remove(0);
    let mut case = cases.into_iter().find(|case| case.name == "nolocalpart").expect("it is there");
    assert_eq!(complaint(&zone, &case, true), None);
    case.explanation = Some("Postmaster".to_owned());
    assert!(complaint(&zone, &case, true).is_some());
    case.verdicts = vec!["pass".to_owned()];
    assert!(complaint(&zone, &case, true).is_some_and(|text| text.contains("Fail")));
}
