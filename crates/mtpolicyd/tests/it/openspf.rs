//! The test suite of OpenSPF for RFC 7208, whole, through the daemon: its zones are on a name server, its
//! cases are requests of Postfix.
//!
//! Knows: the suite's format, answers to Postfix. Must not know: how anything is evaluated.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use yaml_rust2::{Yaml, YamlLoader};

use crate::fake_dns::{FakeDns, Query, Reply, wire_name};
use crate::support::daemon::{Daemon, Site};

/// The suite lies beside the crate that evaluates records.
const SUITE: &str = include_str!("../../../spf/tests/openspf/rfc7208-tests.yml");

/// How many cases there are, and how many of them say what the explanation is. None is left out.
const CASES: usize = 203;
const EXPLAINED: usize = 22;

/// SERVFAIL, which is to the client what silence is, and sooner.
const SERVER_FAILURE: u8 = 2;

/// What the server says, by name and number of the type.
#[derive(Default)]
struct Zone {
    /// The data of records on the wire.
    records: HashMap<(String, u16), Vec<Vec<u8>>>,
    /// Where it fails, unless there are records; without a type, for each.
    failing: HashSet<(String, Option<u16>)>,
}

impl Zone {
    /// A name without TXT records has those of the type SPF as both, unless its TXT records are said to be
    /// `NONE`.
    fn new(data: &Yaml) -> Zone {
        let mut zone = Zone::default();
        for (name, records) in data.as_hash().expect("names") {
            let name = name.as_str().expect("a name").to_ascii_lowercase();
            let records = records.as_vec().expect("records");
            let kinds: HashSet<_> =
                records.iter().filter_map(|record| record.as_hash()?.keys().next()?.as_str()).collect();
            for record in records {
                let Some((kind, value)) = record.as_hash().and_then(|record| record.iter().next()) else {
                    zone.failing.insert((name.clone(), None));
                    continue;
                };
                match (kind.as_str().expect("a type"), value.as_str()) {
                    ("SPF", _) if kinds.contains("TXT") => {}
                    (_, Some("NONE")) | ("SPF", Some("TIMEOUT")) => {}
                    (kind, Some("TIMEOUT")) => {
                        zone.failing.insert((name.clone(), Some(number(kind))));
                    }
                    (kind, _) => zone.add(&name, kind, value),
                }
            }
        }
        zone
    }

    fn add(&mut self, name: &str, kind: &str, value: &Yaml) {
        let text = |value: &Yaml| value.as_str().expect("text").to_owned();
        let data = match kind {
            "A" => text(value).parse::<Ipv4Addr>().expect("an address").octets().to_vec(),
            "AAAA" => text(value).parse::<Ipv6Addr>().expect("an address").octets().to_vec(),
            "MX" => {
                let preference = value[0].as_i64().and_then(|number| u16::try_from(number).ok());
                [&preference.expect("a preference").to_be_bytes()[..], &name_data(&text(&value[1]))].concat()
            }
            "PTR" | "CNAME" => name_data(&text(value)),
            _ => strings(value),
        };
        self.records.entry((name.to_owned(), number(kind))).or_default().push(data);
    }

    fn answer(&self, query: &Query) -> Reply {
        let mut name = query.name.clone();
        for _ in 0..10 {
            let records = |kind| self.records.get(&(name.clone(), kind));
            let fails = |kind| self.failing.contains(&(name.clone(), kind));
            match (records(query.record_type), records(CNAME)) {
                (Some(records), _) => {
                    let records = records.iter().map(|data| (query.record_type, data.clone()));
                    return Reply::Records(records.collect(), 60);
                }
                (None, Some(alias)) => name = name_of(&alias[0]),
                (None, None) if fails(None) || fails(Some(query.record_type)) => {
                    return Reply::Code(SERVER_FAILURE);
                }
                (None, None) => break,
            }
        }
        Reply::NoSuchName(Some(60))
    }
}

const A: u16 = 1;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const MX: u16 = 15;
const TXT: u16 = 16;
const AAAA: u16 = 28;

fn number(kind: &str) -> u16 {
    match kind {
        "A" => A,
        "CNAME" => CNAME,
        "PTR" => PTR,
        "MX" => MX,
        "TXT" | "SPF" => TXT,
        "AAAA" => AAAA,
        other => panic!("what is {other}?"),
    }
}

/// A name on the wire; an empty one is the root.
fn name_data(name: &str) -> Vec<u8> {
    if name.is_empty() { vec![0] } else { wire_name(name) }
}

fn name_of(wire: &[u8]) -> String {
    let (mut labels, mut rest) = (Vec::new(), wire);
    while let [length, tail @ ..] = rest
        && *length > 0
    {
        let (label, tail) = tail.split_at(usize::from(*length));
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        rest = tail;
    }
    labels.join(".")
}

/// The character strings of a record; each character of the suite is a byte.
fn strings(value: &Yaml) -> Vec<u8> {
    let bytes = |text: &str| text.chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect();
    let parts: Vec<Vec<u8>> = match value {
        Yaml::Array(parts) => parts.iter().map(|part| bytes(part.as_str().expect("text"))).collect(),
        one => vec![bytes(one.as_str().expect("text"))],
    };
    let mut data = Vec::new();
    for part in parts {
        let mut chunks: Vec<_> = part.chunks(255).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            data.push(u8::try_from(chunk.len()).expect("a chunk"));
            data.extend(chunk);
        }
    }
    data
}

/// A daemon that asks this server. With the policy context `helo` HELO names are checked, else senders.
fn daemon(server: &FakeDns) -> Daemon {
    let mut site = Site::new();
    site.replace("$DNS", server.address());
    let host = |name: &str, check_helo: &str| {
        format!(
            "<VirtualHost $PORT>\nname = {name}\n<Plugin spf>\nmodule = SPF\ncheck_helo = {check_helo}\n\
             fail_mode = reject\nreject_message = \"%AUTH_EXPL%\"\ndefault_authority_explanation = DEFAULT\n\
             permerror_mode = passive\ntemperror_mode = passive\nheader = Received-SPF\n\
             hostname = mx.example.net\n</Plugin>\n</VirtualHost>\n"
        )
    };
    let hosts = host("sender", "off") + &host("helo", "on");
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\nvhost_by_policy_context = 1\n<Dns>\nservers = \"$DNS\"\n</Dns>\n{hosts}"
    ));
    site.start()
}

/// What is wrong with a case, if anything.
fn complaint(daemon: &Daemon, name: &str, case: &Yaml) -> Option<String> {
    let field = |field: &str| case[field].as_str().unwrap_or_else(|| panic!("{name} has no {field}"));
    let sender = field("mailfrom");
    let context = if sender.is_empty() { "helo" } else { "sender" };
    let answer = daemon.ask(&format!(
        "policy_context={context}\nclient_address={}\nhelo_name={}\nsender={sender}\nrecipient=b@rcpt.test",
        field("host"),
        field("helo"),
    ));
    let answer = answer.action();
    let (verdict, explanation) = match answer.strip_prefix("reject ") {
        Some(explanation) => ("fail", explanation),
        None => {
            let header = answer.strip_prefix("PREPEND Received-SPF: ").unwrap_or(&answer);
            (header.split(' ').next().unwrap_or_default(), "")
        }
    };
    let is_expected = match &case["result"] {
        Yaml::Array(any) => any.iter().any(|one| one.as_str() == Some(verdict)),
        one => one.as_str() == Some(verdict),
    };
    // Digits of hexadecimal numbers may have either case.
    let is_explained = case["explanation"].as_str().is_none_or(|text| text.eq_ignore_ascii_case(explanation));
    (!is_expected || !is_explained).then(|| format!("{name}: `{answer}` instead of {case:?}"))
}

#[test]
fn the_suite_passes_whole_through_the_daemon() {
    let documents = YamlLoader::load_from_str(SUITE).expect("the suite is YAML");
    let (mut count, mut explained, mut complaints) = (0, 0, Vec::new());
    for scenario in &documents {
        let zone = Zone::new(&scenario["zonedata"]);
        let server = FakeDns::start(move |query| zone.answer(query));
        let daemon = daemon(&server);
        for (name, case) in scenario["tests"].as_hash().expect("cases") {
            count += 1;
            explained += usize::from(case["explanation"].as_str().is_some());
            complaints.extend(complaint(&daemon, name.as_str().expect("a name"), case));
        }
    }
    assert!(complaints.is_empty(), "{} of {count} fail:\n{}", complaints.len(), complaints.join("\n"));
    assert_eq!((count, explained), (CASES, EXPLAINED));
}
