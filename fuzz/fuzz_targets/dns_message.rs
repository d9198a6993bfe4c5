//! No message of a name server makes the reader panic or keep more than its bounds.
//!
//! The first bytes of the input choose the type of the question; the rest stands behind a good header and
//! question, so that the fuzzer need not find those.

#![no_main]

use dns_stub::message::{MAX_RECORD_BYTES, MAX_RECORDS, QueryOptions, Reading, read, write_query};
use dns_stub::{Name, RecordType, ResolvConf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = ResolvConf::parse(data);
    let Some((&[kind, code, answers, authorities], rest)) = data.split_first_chunk() else { return };
    let types = [1, 5, 12, 15, 16, 28, 33, 52, 61];
    let record_type = RecordType(types[usize::from(kind) % types.len()]);
    let Ok(name) = Name::parse("a.test") else { return };
    let mut query = Vec::new();
    write_query(&mut query, 7, &name, record_type, QueryOptions::default(), std::iter::empty());
    let mut message = query.clone();
    message[2] |= 0x80;
    message[3] = code;
    (message[7], message[9]) = (answers, authorities);
    message.extend_from_slice(rest);
    for message in [&message[..], data] {
        if let Reading::Answer(answer) = read(message, &query, &name, record_type, true) {
            assert!(answer.records().count() <= MAX_RECORDS);
            assert!(format!("{:?}", answer.records().collect::<Vec<_>>()).len() <= 16 * MAX_RECORD_BYTES);
        }
    }
});
