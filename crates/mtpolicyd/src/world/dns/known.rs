//! What servers say, as it is kept: the answer in the records of a message, how long it holds, what it
//! weighs.
//!
//! Knows: the DNS, hickory's records. Must not know: who asks, servers.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError as Said, NetError, NoRecords};
use hickory_resolver::proto::op::{OpCode, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record};
use moka::Expiry;

use super::{Answer, Association, Exchange, Failure, Question, RecordType};

/// The longest that records are believed, whatever their TTL says: a list that corrects a mistake is heard
/// the next day at the latest.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest that "no such name" is believed (RFC 2308 section 5 suggests one to three hours).
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(60 * 60);

/// How long a failure is remembered (RFC 9520 section 3.2: at least 1 s, at most 5 min): the recipients of
/// one mail don't wait for a dead list one after the other, and the sender's next try finds it alive again.
const FAILURE_TTL: Duration = Duration::from_secs(10);

/// The most records an answer may have, and the most strings its TXT records may have together. Whoever has a
/// zone of his own may fill a message of 64 KiB with thousands of empty ones, each of which takes memory.
const MAX_RECORDS: usize = 1_000;

/// The most aliases that lead from a name to its records.
const MAX_ALIASES: usize = 32;

/// The bytes of an answer that take the place of one more in the cache: so its memory is bounded, not only
/// its number of answers, whatever the owner of a zone puts into his records.
const BYTES_PER_PLACE: usize = 1_024;

/// What an answer takes beside its data: the entry of the cache, and each piece of memory of its own.
const ENTRY_BYTES: usize = 256;
const ALLOCATION_BYTES: usize = 32;

/// How much of an error's text is kept, in characters: a log line's worth.
const MAX_CAUSE: usize = 200;

/// An answer and how long it holds.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) answer: Answer,
    ttl: Duration,
}

/// Reads an answer that came. One that contradicts itself is worth nothing: records of a name that does not
/// exist, or an answer to something else than a question.
pub(super) fn read_lookup(name: &Name, record_type: RecordType, lookup: &Lookup) -> Known {
    let about = &lookup.message().metadata;
    match about.response_code {
        _ if about.op_code != OpCode::Query => {
            Known::failed(Failure::Broken("the answer is to another operation".into()))
        }
        ResponseCode::NXDomain => Known { answer: Answer::Nothing, ttl: Duration::ZERO },
        _ => read_answer(name, record_type, lookup.answers()),
    }
}

/// Reads the records at the end of the name's aliases, in whatever order they stand (RFC 1034 section 3.6
/// gives them none). Records of other names were not asked for and don't count. Equal records are one (RFC
/// 2181 section 5).
pub(super) fn read_answer(name: &Name, record_type: RecordType, records: &[Record]) -> Known {
    if records.len() > MAX_RECORDS + MAX_ALIASES {
        return Known::too_long();
    }
    let mut owner = name;
    let mut ttl = MAX_TTL;
    let mut aliases = 0;
    let alias_of = |owner: &Name| {
        records.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if &record.name == owner => Some((&target.0, record.ttl)),
            _ => None,
        })
    };
    while let Some((target, alias_ttl)) = alias_of(owner) {
        aliases += 1;
        if aliases > MAX_ALIASES {
            return Known::failed(Failure::Broken("the name has too many aliases".into()));
        }
        owner = target;
        ttl = ttl.min(Duration::from_secs(alias_ttl.into()));
    }
    let mut found = Vec::new();
    for record in records.iter().filter(|record| &record.name == owner) {
        if record.data.record_type() == record_type.on_the_wire() {
            found.push(&record.data);
            ttl = ttl.min(Duration::from_secs(record.ttl.into()));
        }
    }
    let strings = |data: &&RData| if let RData::TXT(text) = data { text.txt_data.len() } else { 1 };
    if found.iter().map(strings).sum::<usize>().max(found.len()) > MAX_RECORDS {
        return Known::too_long();
    }
    let answer = if found.is_empty() { Answer::Nothing } else { read_data(record_type, &distinct(found)) };
    Known { answer, ttl }
}

/// Each item once, in the order of the first ones.
fn distinct<T: Eq + Hash + Copy>(items: Vec<T>) -> Vec<T> {
    if items.len() < 2 {
        return items;
    }
    let mut seen = HashSet::with_capacity(items.len());
    items.into_iter().filter(|item| seen.insert(*item)).collect()
}

/// The answer that these records are, all of that type.
fn read_data(record_type: RecordType, records: &[&RData]) -> Answer {
    fn all<'r, T>(records: &'r [&RData], read: impl Fn(&'r RData) -> Option<T>) -> Arc<[T]> {
        records.iter().filter_map(|record| read(record)).collect()
    }
    match record_type {
        RecordType::A => Answer::Addresses(all(records, |data| match data {
            RData::A(address) => Some(address.0),
            _ => None,
        })),
        RecordType::Aaaa => Answer::Ipv6Addresses(all(records, |data| match data {
            RData::AAAA(address) => Some(address.0),
            _ => None,
        })),
        RecordType::Mx => Answer::Exchanges(all(records, |data| match data {
            RData::MX(exchange) => {
                Some(Exchange { preference: exchange.preference, host: host_name(&exchange.exchange) })
            }
            _ => None,
        })),
        RecordType::Ptr => Answer::Names(all(records, |data| match data {
            RData::PTR(name) => Some(host_name(&name.0)),
            _ => None,
        })),
        RecordType::Txt => Answer::Texts(all(records, |data| match data {
            RData::TXT(text) => Some(text.txt_data.iter().cloned().collect()),
            _ => None,
        })),
        RecordType::Tlsa => Answer::Associations(all(records, |data| match data {
            RData::TLSA(record) => Some(Association {
                usage: record.cert_usage.into(),
                selector: record.selector.into(),
                matching: record.matching.into(),
                data: record.cert_data.as_slice().into(),
            }),
            _ => None,
        })),
        RecordType::OpenPgpKey => Answer::Keys(all(records, |data| match data {
            RData::OPENPGPKEY(record) => Some(record.public_key.as_slice().into()),
            _ => None,
        })),
    }
}

/// A name as it can be asked for again.
fn host_name(name: &Name) -> Arc<str> {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).into()
}

pub(super) fn read_error(error: &NetError) -> Known {
    match error {
        NetError::Dns(Said::NoRecordsFound(NoRecords { response_code, negative_ttl, .. })) => {
            match response_code {
                // Without an SOA record nothing says how long it holds, and it must not be remembered (RFC
                // 2308).
                ResponseCode::NXDomain | ResponseCode::NoError => Known {
                    answer: Answer::Nothing,
                    ttl: Duration::from_secs(negative_ttl.unwrap_or(0).into()).min(MAX_NEGATIVE_TTL),
                },
                code => Known::failed(Failure::Server(code.to_str())),
            }
        }
        NetError::Dns(Said::ResponseCode(code)) => Known::failed(Failure::Server(code.to_str())),
        NetError::Timeout => Known::failed(Failure::TimedOut),
        other => Known::failed(Failure::Broken(one_line(&other.to_string()).into())),
    }
}

/// The cause of an error for a log line; parts of it may come from the network.
fn one_line(cause: &str) -> String {
    cause.chars().take(MAX_CAUSE).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Known {
    pub(super) fn failed(failure: Failure) -> Self {
        Self { answer: Answer::Failed(failure), ttl: FAILURE_TTL }
    }

    fn too_long() -> Self {
        let why = format!("the answer has more than {MAX_RECORDS} records or strings");
        Self::failed(Failure::Broken(why.into()))
    }

    /// How many places of the cache the answer takes, together with its question.
    pub(super) fn places(&self, question: &Question) -> u32 {
        let bytes = ENTRY_BYTES + question.name.len() + self.answer.bytes();
        u32::try_from(bytes.div_ceil(BYTES_PER_PLACE)).unwrap_or(u32::MAX)
    }
}

impl Answer {
    /// The memory that it holds, roughly.
    fn bytes(&self) -> usize {
        /// A list, and what each of its items holds elsewhere.
        fn list<T>(items: &[T], elsewhere: impl Fn(&T) -> usize) -> usize {
            ALLOCATION_BYTES + size_of_val(items) + items.iter().map(elsewhere).sum::<usize>()
        }
        let bytes = |data: &[u8]| ALLOCATION_BYTES + data.len();
        match self {
            Answer::Addresses(addresses) => list(addresses, |_| 0),
            Answer::Ipv6Addresses(addresses) => list(addresses, |_| 0),
            Answer::Texts(texts) => list(texts, |strings| list(strings, |string| bytes(string))),
            Answer::Exchanges(exchanges) => list(exchanges, |exchange| bytes(exchange.host.as_bytes())),
            Answer::Names(names) => list(names, |name| bytes(name.as_bytes())),
            Answer::Associations(records) => list(records, |record| bytes(&record.data)),
            Answer::Keys(keys) => list(keys, |key| bytes(key)),
            Answer::Nothing | Answer::Failed(_) => 0,
        }
    }
}

/// Entries live as long as their answers hold.
pub(super) struct ByTtl;

impl Expiry<Question, Known> for ByTtl {
    fn expire_after_create(&self, _: &Question, known: &Known, _: Instant) -> Option<Duration> {
        Some(known.ttl)
    }

    fn expire_after_update(
        &self,
        _: &Question,
        known: &Known,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(known.ttl)
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::{A, CNAME, MX, TXT};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn record(owner: &str, data: RData) -> Record {
        Record::from_rdata(name(owner), 60, data)
    }

    fn address(last: u8) -> RData {
        RData::A(A::new(127, 0, 0, last))
    }

    fn alias(target: &str) -> RData {
        RData::CNAME(CNAME(name(target)))
    }

    fn read(records: &[Record]) -> Answer {
        read_answer(&name("a.test."), RecordType::A, records).answer
    }

    fn one(last: u8) -> Answer {
        Answer::Addresses(Arc::from([[127, 0, 0, last].into()]))
    }

    #[test]
    fn records_of_other_names_do_not_count() {
        assert_eq!(read(&[record("b.test.", address(3)), record("A.test.", address(2))]), one(2));
        let chain = [
            record("a.test.", alias("b.test.")),
            record("b.test.", alias("c.test.")),
            record("a.test.", address(3)),
            record("c.test.", address(2)),
        ];
        assert_eq!(read(&chain), one(2));
        assert_eq!(read(&chain[..3]), Answer::Nothing);
    }

    #[test]
    fn records_stand_in_any_order() {
        let chain = [
            record("a.test.", alias("b.test.")),
            record("b.test.", alias("c.test.")),
            record("c.test.", address(2)),
        ];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let records = order.map(|place| chain[place].clone());
            assert_eq!(read(&records), one(2), "{order:?}");
        }
    }

    #[test]
    fn aliases_end() {
        let links = |count: u32| {
            let link = |n: u32| record(&format!("a{n}.test."), alias(&format!("a{}.test.", n + 1)));
            let mut records: Vec<_> = (0..count).map(link).collect();
            records.push(record("a.test.", alias("a0.test.")));
            records.push(record(&format!("a{count}.test."), address(2)));
            read(&records)
        };
        assert_eq!(links(31), one(2));
        let failed = Answer::Failed(Failure::Broken("the name has too many aliases".into()));
        assert_eq!(links(32), failed);
        assert_eq!(read(&[record("a.test.", alias("a.test."))]), failed);
    }

    #[test]
    fn equal_records_are_one() {
        let twice =
            [record("a.test.", address(2)), record("a.test.", address(3)), record("a.test.", address(2))];
        let both = Answer::Addresses(Arc::from([[127, 0, 0, 2].into(), [127, 0, 0, 3].into()]));
        assert_eq!(read(&twice), both);
        let text = |strings: &[&str]| {
            record("a.test.", RData::TXT(TXT::new(strings.iter().map(|text| text.to_string()).collect())))
        };
        let texts = [text(&["v=spf1", " -all"]), text(&["v=spf1 -all"]), text(&["v=spf1", " -all"])];
        let answer = read_answer(&name("a.test."), RecordType::Txt, &texts).answer;
        let Answer::Texts(texts) = answer else { panic!("{answer:?}") };
        assert_eq!(texts.len(), 2, "{texts:?}");
    }

    #[test]
    fn an_answer_has_a_bound() {
        let too_many = |answer: Answer| {
            let Answer::Failed(failure) = answer else { return false };
            failure.to_string() == "the answer has more than 1000 records or strings"
        };
        let exchanges = |count: u16| {
            let exchange = |n| record("a.test.", RData::MX(MX::new(n, name("."))));
            let records: Vec<_> = (0..count).map(exchange).collect();
            read_answer(&name("a.test."), RecordType::Mx, &records).answer
        };
        assert!(matches!(exchanges(1_000), Answer::Exchanges(all) if all.len() == 1_000));
        assert!(too_many(exchanges(1_001)));
        let strings = |records: usize, count: usize| {
            let text = RData::TXT(TXT::from_bytes(vec![b""; count]));
            let records = vec![record("a.test.", text); records];
            read_answer(&name("a.test."), RecordType::Txt, &records).answer
        };
        assert!(matches!(strings(10, 100), Answer::Texts(_)));
        assert!(too_many(strings(1, 1_001)) && too_many(strings(11, 100)));
        assert!(too_many(strings(1_001, 0)), "records without a string count as well");
    }

    #[test]
    fn long_answers_take_more_room() {
        let question = Question::new("a.test", RecordType::A);
        let places = |answer| Known { answer, ttl: MAX_TTL }.places(&question);
        assert_eq!(places(Answer::Nothing), 1);
        assert_eq!(places(one(2)), 1);
        let texts = |string: &[u8], count| Answer::Texts(Arc::from([vec![Box::from(string); count].into()]));
        assert_eq!(places(texts(&[0; 255], 250)), 75);
        // What holds no byte still takes memory.
        assert_eq!(places(texts(b"", 1_000)), 48);
        let exchange = Exchange { preference: 1, host: "".into() };
        assert_eq!(places(Answer::Exchanges(vec![exchange; 1_000].into())), 55);
        let long = Question::new(&"a".repeat(1_000), RecordType::A);
        assert_eq!(Known { answer: Answer::Nothing, ttl: MAX_TTL }.places(&long), 2);
    }

    #[test]
    fn causes_are_one_short_line() {
        let cause = one_line(&format!("a\r\nb\u{9b}{}", "x".repeat(1_000)));
        assert!(cause.starts_with("a  b x") && cause.len() == MAX_CAUSE, "{cause}");
    }
}
