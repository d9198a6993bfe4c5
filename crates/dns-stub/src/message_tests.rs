//! Tests of the reader: what servers send, and what those send who are none.

use super::*;
use crate::answer::Data;

/// A name on the wire.
pub(crate) fn wire(name: &str) -> Vec<u8> {
    Name::parse(name).unwrap().as_wire().to_vec()
}

/// A record.
pub(crate) fn record(owner: &[u8], record_type: RecordType, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    let head = [record_type.0.to_be_bytes(), CLASS_IN.to_be_bytes()].concat();
    [owner, &head, &ttl.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

/// An SOA record that lets "no" hold for some seconds.
pub(crate) fn soa(ttl: u32, minimum: u32) -> Vec<u8> {
    let data = [&[0, 0][..], &[0; 16], &minimum.to_be_bytes()].concat();
    record(&wire("test"), RecordType::SOA, ttl, &data)
}

/// A message that answers a query: its header and question, a code, records of two sections.
pub(crate) fn reply(query: &[u8], code: u8, answers: &[Vec<u8>], authority: &[Vec<u8>]) -> Vec<u8> {
    let end = name::skip(query, HEADER).unwrap() + 4;
    let mut message = query[..end].to_vec();
    message[2] |= FLAG_RESPONSE;
    message[3] = 0x80 | code;
    for (at, records) in [(6, answers), (8, authority), (10, &[])] {
        let count = u16::try_from(records.len()).unwrap();
        message[at..at + 2].copy_from_slice(&count.to_be_bytes());
        message.extend(records.concat());
    }
    message
}

const QUESTION: [u8; 2] = [0xc0, 12];
const MINUTE: Duration = Duration::from_secs(60);

fn query(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut out = Vec::new();
    let options = QueryOptions { edns: true, proof: false };
    let every_other = (0..).map(|letter| letter % 2 == 0);
    write_query(&mut out, 0x1234, &Name::parse(name).unwrap(), record_type, options, every_other);
    out
}

/// What a reply to a question about `a.test` comes to.
fn reading(record_type: RecordType, answers: &[Vec<u8>], authority: &[Vec<u8>]) -> Reading {
    let query = query("a.test", record_type);
    let message = reply(&query, 0, answers, authority);
    read(&message, &query, &Name::parse("a.test").unwrap(), record_type, false)
}

fn answer(reading: Reading) -> Answer {
    match reading {
        Reading::Answer(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// The last bytes of the addresses, and for how long they hold.
fn addresses(answers: &[Vec<u8>]) -> (Vec<u8>, u64) {
    let answer = answer(reading(RecordType::A, answers, &[]));
    let last = |data| match data {
        Data::A(address) => address.octets()[3],
        other => panic!("{other:?}"),
    };
    (answer.records().map(last).collect(), answer.ttl.as_secs())
}

fn a(owner: &[u8], last: u8) -> Vec<u8> {
    record(owner, RecordType::A, 60, &[127, 0, 0, last])
}

fn alias(owner: &str, target: &str, ttl: u32) -> Vec<u8> {
    record(&wire(owner), RecordType::CNAME, ttl, &wire(target))
}

#[test]
fn a_query_has_the_bits_that_it_should() {
    let mut out = Vec::new();
    let options = QueryOptions { edns: true, proof: true };
    write_query(
        &mut out,
        7,
        &Name::parse("a.b").unwrap(),
        RecordType::TLSA,
        options,
        [true, false].into_iter(),
    );
    let question = b"\0\x07\x01\x20\0\x01\0\0\0\0\0\x01\x01A\x01b\0\0\x34\0\x01";
    let opt = [0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0];
    assert_eq!(out, [&question[..], &opt].concat());
    let mut out = Vec::new();
    write_query(
        &mut out,
        7,
        &Name::parse("a").unwrap(),
        RecordType::A,
        QueryOptions::default(),
        [].into_iter(),
    );
    assert_eq!(out, b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01");
}

#[test]
fn aliases_may_stand_in_any_order() {
    assert_eq!(addresses(&[a(&QUESTION, 2), a(&wire("A.TEST"), 3)]), (vec![2, 3], 60));
    let links = [alias("a.test", "b.test", 30), alias("b.test", "C.test", 90), a(&wire("c.test"), 2)];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert_eq!(addresses(&order.map(|place| links[place].clone())), (vec![2], 30), "{order:?}");
    }
    // Records of other names were not asked for, and a name with an alias has nothing else.
    let mixed =
        [a(&wire("x.test"), 9), a(&QUESTION, 9), links[0].clone(), links[1].clone(), links[2].clone()];
    assert_eq!(addresses(&mixed), (vec![2], 30));
    assert_eq!(addresses(&[a(&wire("x.test"), 9)]), (vec![], 0));
}

#[test]
fn a_chain_without_an_end_is_asked_on() {
    let target = |reading| match reading {
        Reading::Alias { target, aliases, ttl } => (target.to_string(), aliases, ttl),
        other => panic!("{other:?}"),
    };
    let links = [alias("b.test", "c.test", 60), alias("a.test", "b.test", 90)];
    assert_eq!(target(reading(RecordType::A, &links, &[])), ("c.test".into(), 2, MINUTE));
    // Here the server says that there is nothing at the end.
    let nothing = answer(reading(RecordType::A, &links, &[soa(300, 300)]));
    assert_eq!((nothing.is_empty(), nothing.ttl), (true, MINUTE));
    // A question for the alias itself gets it.
    let asked = answer(reading(RecordType::CNAME, &links, &[]));
    assert!(matches!(asked.records().next(), Some(Data::Name(name)) if name.to_string() == "b.test"));
}

#[test]
fn chains_have_a_bound() {
    let links = |count: usize| -> Vec<_> {
        (0..count).map(|n| alias(&name(n), &name(n + 1), 60)).chain([a(&wire(&name(count)), 2)]).collect()
    };
    fn name(n: usize) -> String {
        if n == 0 { "a.test".into() } else { format!("c{n}.test") }
    }
    assert_eq!(addresses(&links(MAX_ALIASES)), (vec![2], 60));
    assert_eq!(reading(RecordType::A, &links(MAX_ALIASES + 1), &[]), Reading::EndlessAlias);
    for circle in [
        vec![alias("a.test", "a.test", 60)],
        vec![alias("a.test", "b.test", 60), alias("b.test", "a.test", 60)],
    ] {
        assert_eq!(reading(RecordType::A, &circle, &[]), Reading::EndlessAlias);
    }
}

#[test]
fn a_record_that_can_not_be_read_is_left_out() {
    let with = |record_type, data: &[u8]| record(&QUESTION, record_type, 60, data);
    assert_eq!(addresses(&[with(RecordType::A, &[127, 0, 0]), a(&QUESTION, 2)]), (vec![2], 60));
    // An owner that leads to itself or beyond the end is nobody's.
    let circle = u16::to_be_bytes(0xc000 + 24);
    assert_eq!(addresses(&[a(&circle, 9), a(&[0xff, 0xff], 9), a(&QUESTION, 2)]), (vec![2], 60));
    let texts = [&b""[..], b"\x05abc", b"\x01a\x02bc", b"\0"].map(|data| with(RecordType::TXT, data));
    let answer = answer(reading(RecordType::TXT, &texts, &[]));
    let strings = |data| match data {
        Data::Text(strings) => strings.map(<[u8]>::to_vec).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let good: Vec<_> = answer.records().map(strings).collect();
    assert_eq!(good, [vec![b"a".to_vec(), b"bc".to_vec()], vec![vec![]]]);
    let exchanges =
        [&b"\0"[..], b"\0\x0a", b"\0\x0a\xc0", b"\0\x0a\x01a\0!"].map(|data| with(RecordType::MX, data));
    assert!(matches!(reading(RecordType::MX, &exchanges, &[]), Reading::Answer(answer) if answer.is_empty()));
}

#[test]
fn names_in_records_are_expanded_and_hold_any_byte() {
    let data = [&b"\0\x0a\x13foo:bar/baz.example"[..], &QUESTION].concat();
    let answer = answer(reading(RecordType::MX, &[record(&QUESTION, RecordType::MX, 60, &data)], &[]));
    let Some(Data::Mx { preference: 10, exchange }) = answer.records().next() else { panic!("{answer:?}") };
    let labels: Vec<_> = exchange.labels().collect();
    assert_eq!(labels[0], b"foo:bar/baz.example");
    assert_eq!(labels.len(), 3);
    assert!(labels[1].eq_ignore_ascii_case(b"a"));
}

#[test]
fn every_type_is_read() {
    let one = |record_type, data: &[u8]| {
        answer(reading(record_type, &[record(&QUESTION, record_type, 60, data)], &[]))
    };
    let answer = one(RecordType::AAAA, &[1; 16]);
    assert_eq!(answer.records().next(), Some(Data::Aaaa([1; 16].into())));
    let answer = one(RecordType::TLSA, b"\x03\x01\x01hash");
    let tlsa = Data::Tlsa { usage: 3, selector: 1, matching: 1, data: b"hash" };
    assert_eq!(answer.records().next(), Some(tlsa));
    let answer = one(RecordType::OPENPGPKEY, b"key");
    assert_eq!(answer.records().next(), Some(Data::Other(b"key")));
    let answer = one(RecordType::MX, b"\0\0\0");
    assert!(matches!(answer.records().next(), Some(Data::Mx { exchange, .. }) if exchange.is_root()));
}

#[test]
fn absence_holds_as_long_as_its_soa_says() {
    let query = query("a.test", RecordType::A);
    let name = Name::parse("a.test").unwrap();
    for (code, authority, seconds) in [
        (3, vec![soa(300, 60)], 60),
        (0, vec![soa(30, 60)], 30),
        (3, vec![], 0),
        (0, vec![], 0),
        (0, vec![soa(u32::MAX, 60)], 0),
    ] {
        let message = reply(&query, code, &[], &authority);
        let answer = answer(read(&message, &query, &name, RecordType::A, false));
        assert_eq!((answer.rcode.0, answer.ttl.as_secs()), (code.into(), seconds));
        assert!(answer.is_empty());
    }
    let message = reply(&query, 3, &[a(&QUESTION, 2)], &[]);
    assert!(answer(read(&message, &query, &name, RecordType::A, false)).is_empty(), "it does not exist");
    assert_eq!(addresses(&[record(&QUESTION, RecordType::A, 1 << 31, &[127, 0, 0, 2])]), (vec![2], 0));
}

#[test]
fn only_the_answer_to_the_question_counts() {
    let query = query("a.test", RecordType::A);
    let name = Name::parse("a.test").unwrap();
    let good = reply(&query, 0, &[a(&QUESTION, 2)], &[]);
    let say = |message: &[u8]| read(message, &query, &name, RecordType::A, false);
    assert!(matches!(say(&good), Reading::Answer(_)));
    let changed = |at: usize, value: u8| {
        let mut message = good.clone();
        message[at] = value;
        message
    };
    // The identifier, the flag QR, the operation, the number of questions, a letter, the type, the class.
    for (at, value) in [(0, 9), (2, 1), (2, 0x91), (5, 0), (5, 2), (13, b'b'), (21, 2), (23, 3)] {
        assert_eq!(say(&changed(at, value)), Reading::NotOurs, "byte {at}");
    }
    let other_case = changed(13, query[13] ^ 0x20);
    assert_eq!(say(&other_case), Reading::OtherCase);
    assert!(matches!(read(&other_case, &query, &name, RecordType::A, true), Reading::Answer(_)));
    for end in 0..24 {
        assert_eq!(say(&good[..end]), Reading::NotOurs, "{end} bytes");
    }
    for end in 24..good.len() {
        assert!(matches!(say(&good[..end]), Reading::Malformed(_)), "{end} bytes");
    }
    let mut chaos = a(&QUESTION, 2);
    chaos[5] = 3;
    assert_eq!(addresses(&[chaos]), (vec![], 0));
}

#[test]
fn codes_and_cut_answers_are_told_apart() {
    let query = query("a.test", RecordType::A);
    let name = Name::parse("a.test").unwrap();
    let say = |message: &[u8]| read(message, &query, &name, RecordType::A, false);
    for code in [1, 2, 4, 5, 9] {
        assert_eq!(say(&reply(&query, code, &[a(&QUESTION, 2)], &[])), Reading::Code(Rcode(code.into())));
        let bare = [0x12, 0x34, 0x81, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(say(&bare), Reading::Code(Rcode(code.into())));
    }
    let mut cut = reply(&query, 0, &[a(&QUESTION, 2)], &[]);
    cut[2] |= FLAG_TRUNCATED;
    assert_eq!(say(&cut), Reading::Truncated);
    let mut version = reply(&query, 0, &[], &[]);
    version[11] = 1;
    version.extend(record(&[0], RecordType::OPT, 1 << 24, &[]));
    assert_eq!(say(&version), Reading::Code(Rcode::BADVERS));
}

#[test]
fn equal_records_are_one() {
    assert_eq!(addresses(&[a(&QUESTION, 2), a(&QUESTION, 3), a(&wire("a.test"), 2)]), (vec![2, 3], 60));
}

#[test]
fn answers_have_bounds() {
    let many = |count: usize, record_type, data: &dyn Fn(usize) -> Vec<u8>| {
        let records: Vec<_> = (0..count).map(|n| record(&QUESTION, record_type, 60, &data(n))).collect();
        reading(record_type, &records, &[])
    };
    let count = |reading| answer(reading).records().count();
    let number = |n: usize| u32::try_from(n).unwrap().to_be_bytes().to_vec();
    assert_eq!(count(many(MAX_RECORDS, RecordType::A, &number)), MAX_RECORDS);
    assert_eq!(many(MAX_RECORDS + 1, RecordType::A, &number), Reading::TooLarge);
    let empty = |strings: usize| move |n: usize| [vec![0; strings], vec![4], number(n)].concat();
    assert_eq!(count(many(10, RecordType::TXT, &empty(99))), 10);
    assert_eq!(many(10, RecordType::TXT, &empty(100)), Reading::TooLarge);
    let long = |bytes: usize| move |n: usize| [number(n), vec![0; bytes]].concat();
    let held = answer(many(2, RecordType(99), &long(30_000))).bytes_held();
    assert!(held > 60_000 && held <= MAX_RECORD_BYTES + 64, "{held}");
    // Four bytes and a pointer stand for 255.
    let label = [&[63][..], &[b'x'; 63]].concat();
    let target = [&b"\0\x01"[..], &label, &label, &label, &[0]].concat();
    let pointer = u16::to_be_bytes(0xc000 + 24 + 12 + 2);
    let short = |n: usize| [&number(n)[2..], &pointer].concat();
    let bomb = many(900, RecordType::MX, &|n| if n == 0 { target.clone() } else { short(n) });
    assert!(matches!(bomb, Reading::TooLarge));
}

proptest::proptest! {
    #[test]
    fn no_message_makes_it_panic(tail: Vec<u8>, counts: [u8; 3], flip: usize) {
        let query = query("a.test", RecordType::MX);
        let name = Name::parse("a.test").unwrap();
        let mut message = reply(&query, 0, &[record(&QUESTION, RecordType::MX, 60, &tail)], &[]);
        (message[7], message[9], message[11]) = (counts[0], counts[1], counts[2]);
        message.extend(&tail);
        let at = HEADER + flip % (message.len() - HEADER);
        for message in [&message.clone()[..], { message[at] ^= 0xc1; &message }] {
            for record_type in [RecordType::MX, RecordType::TXT, RecordType::A] {
                if let Reading::Answer(answer) = read(message, &query, &name, record_type, false) {
                    proptest::prop_assert!(answer.bytes_held() <= MAX_RECORD_BYTES + 64);
                    let _ = format!("{:?}", answer.records().collect::<Vec<_>>());
                }
            }
        }
    }
}
