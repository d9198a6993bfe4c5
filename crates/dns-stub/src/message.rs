//! Messages: a question as it is sent, and what a server's message says about it.
//!
//! Knows: RFC 1035 section 4, RFC 2308, RFC 6891. Must not know: servers, time, the cache.

use std::collections::HashSet;
use std::time::Duration;

use crate::answer::{Answer, Rcode, RecordType};
use crate::name::{self, Name};

/// The size of UDP messages that is announced: it is not cut up on its way (the DNS flag day of 2020).
pub const MAX_UDP_PAYLOAD: u16 = 1_232;

/// Maximum number of records of an answer, and of the strings of its TXT records together. Whoever has a zone
/// may fill a message with thousands of empty ones.
pub const MAX_RECORDS: usize = 1_000;

/// Maximum size of the records of an answer in bytes, names expanded.
pub const MAX_RECORD_BYTES: usize = 65_536;

/// The number of aliases followed. Servers stop earlier.
pub const MAX_ALIASES: usize = 32;

/// Where the questions of a message begin.
pub(crate) const HEADER: usize = 12;

/// The longest question as a message, with EDNS.
pub(crate) const MAX_QUERY: usize = HEADER + name::MAX_NAME + 4 + 11;

const CLASS_IN: u16 = 1;
/// What stands between the name of a record and its data.
const RECORD_HEADER: usize = 10;

const FLAG_RESPONSE: u8 = 0x80;
const OPCODE: u8 = 0x78;
const FLAG_TRUNCATED: u8 = 0x02;
const FLAG_RECURSION_DESIRED: u8 = 0x01;
const FLAG_AUTHENTIC: u8 = 0x20;

/// How a question is asked.
#[derive(Clone, Copy, Default, Debug)]
pub struct QueryOptions {
    /// With EDNS: larger answers over UDP.
    pub edns: bool,
    /// With the flags AD and DO: the server says whether DNSSEC proves the answer.
    pub proof: bool,
}

/// Appends a question as a message. Each bit of `case_bits` is the case of one letter of the name: the server
/// repeats it, so a forged answer has to guess it (draft-vixie-dnsext-dns0x20).
pub fn write_query(
    out: &mut Vec<u8>,
    id: u16,
    name: &Name,
    record_type: RecordType,
    options: QueryOptions,
    mut case_bits: impl Iterator<Item = bool>,
) {
    let authentic = if options.proof { FLAG_AUTHENTIC } else { 0 };
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[FLAG_RECURSION_DESIRED, authentic, 0, 1, 0, 0, 0, 0, 0, options.edns.into()]);
    let start = out.len();
    out.extend_from_slice(name.as_wire());
    for byte in &mut out[start..] {
        // A length is at most 63 and so never a letter.
        if byte.is_ascii_lowercase() && case_bits.next().unwrap_or(false) {
            byte.make_ascii_uppercase();
        }
    }
    out.extend_from_slice(&record_type.0.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    if options.edns {
        let dnssec_ok = if options.proof { 0x80 } else { 0 };
        let [high, low] = MAX_UDP_PAYLOAD.to_be_bytes();
        out.extend_from_slice(&[0, 0, 41, high, low, 0, 0, dnssec_ok, 0, 0, 0]);
    }
}

/// What a message says about a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Records, or that there are none.
    Answer(Answer),
    /// The name is an alias of another one, about which nothing is said.
    Alias {
        /// The name to ask about.
        target: Name,
        /// The number of aliases followed.
        aliases: usize,
        /// How long they hold.
        ttl: Duration,
    },
    /// The server can't or won't answer. It may have left out the question.
    Code(Rcode),
    /// There is more than UDP carries.
    Truncated,
    /// The answer to the question in another case: the server does not keep it.
    OtherCase,
    /// No answer to this question.
    NotOurs,
    /// The name's aliases lead to one another, or there are too many.
    EndlessAlias,
    /// The answer has more records, strings or bytes than it may.
    TooLarge,
    /// The answer can't be read.
    Malformed(&'static str),
}

/// Reads a message as the answer to a query. Over TCP a server that changes the case of the name may do so,
/// since nobody else can answer.
///
/// `query` is the message that was sent; its question may have been about an alias's target, which `name` is.
pub fn read(message: &[u8], query: &[u8], name: &Name, record_type: RecordType, is_tcp: bool) -> Reading {
    let (Some(header), Some(sent)) = (message.first_chunk::<HEADER>(), query.first_chunk::<HEADER>()) else {
        return Reading::NotOurs;
    };
    if header[..2] != sent[..2] || header[2] & (FLAG_RESPONSE | OPCODE) != FLAG_RESPONSE {
        return Reading::NotOurs;
    }
    let count = |at: usize| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let (questions, answers, authorities, additionals) = (count(4), count(6), count(8), count(10));
    let code = Rcode((header[3] & 0x0f).into());
    let end = HEADER + name.as_wire().len() + 4;
    if questions == 0 && answers == 0 && code != Rcode::NOERROR && code != Rcode::NXDOMAIN {
        return Reading::Code(code);
    }
    let (Some(asked), 1) = (message.get(HEADER..end), questions) else { return Reading::NotOurs };
    if query.get(HEADER..end) != Some(asked) {
        match is_same_but_case(asked, name, record_type) {
            false => return Reading::NotOurs,
            true if !is_tcp => return Reading::OtherCase,
            true => {}
        }
    }
    if code != Rcode::NOERROR && code != Rcode::NXDOMAIN {
        return Reading::Code(code);
    }
    if header[2] & FLAG_TRUNCATED != 0 {
        return Reading::Truncated;
    }
    if answers == 0
        && additionals > 0
        && code == Rcode::NOERROR
        && let Some(code) = extended_code(message, end, authorities + additionals)
    {
        return Reading::Code(code);
    }
    read_sections(message, end, [answers, authorities], code, name, record_type)
}

fn is_same_but_case(asked: &[u8], name: &Name, record_type: RecordType) -> bool {
    let (question, tail) = asked.split_at(name.as_wire().len());
    let class_and_type = [record_type.0.to_be_bytes(), CLASS_IN.to_be_bytes()].concat();
    question.eq_ignore_ascii_case(name.as_wire()) && tail == class_and_type
}

/// A record of a message.
#[derive(Clone, Copy)]
struct Record {
    owner: usize,
    record_type: RecordType,
    class: u16,
    ttl: u32,
    data: usize,
    end: usize,
}

/// The record at this place; its owner is not read yet.
fn record_at(message: &[u8], owner: usize) -> Option<Record> {
    let at = name::skip(message, owner)?;
    let fixed: &[u8; RECORD_HEADER] = message.get(at..at + RECORD_HEADER)?.try_into().ok()?;
    let [t1, t2, c1, c2, ttl @ .., l1, l2] = *fixed;
    let data = at + RECORD_HEADER;
    let end = data + usize::from(u16::from_be_bytes([l1, l2]));
    (end <= message.len()).then_some(Record {
        owner,
        record_type: RecordType(u16::from_be_bytes([t1, t2])),
        class: u16::from_be_bytes([c1, c2]),
        ttl: u32::from_be_bytes(ttl),
        data,
        end,
    })
}

/// The code of the options of EDNS, if it is more than the header can say.
fn extended_code(message: &[u8], mut at: usize, records: usize) -> Option<Rcode> {
    for _ in 0..records {
        let record = record_at(message, at)?;
        if record.record_type == RecordType::OPT {
            let high = u16::try_from(record.ttl >> 24).ok()?;
            return (high != 0).then_some(Rcode(high << 4));
        }
        at = record.end;
    }
    None
}

/// Reads the records of the answer, and how long their absence holds.
fn read_sections(
    message: &[u8],
    mut at: usize,
    [answers, authorities]: [usize; 2],
    code: Rcode,
    name: &Name,
    record_type: RecordType,
) -> Reading {
    let mut records = Vec::with_capacity(answers.min(32));
    for _ in 0..answers {
        let Some(record) = record_at(message, at) else { return Reading::Malformed("it ends in a record") };
        at = record.end;
        let is_wanted = record.record_type == record_type || record.record_type == RecordType::CNAME;
        if record.class == CLASS_IN && is_wanted {
            records.push(record);
        }
    }
    if records.len() > MAX_RECORDS + MAX_ALIASES {
        return Reading::TooLarge;
    }
    let chain = match follow(message, &records, name, record_type) {
        Some(chain) => chain,
        None => return Reading::EndlessAlias,
    };
    let is_authentic = message[3] & FLAG_AUTHENTIC != 0;
    let answer =
        |rcode, ttl, records| Reading::Answer(Answer { rcode, is_authentic, ttl, record_type, records });
    // A name that does not exist has no records, whatever else is said.
    let (found, ttl) = match code {
        Rcode::NXDOMAIN => (Vec::new(), chain.ttl),
        _ => match collect(message, &records, &chain, name, record_type) {
            Some(found) => found,
            None => return Reading::TooLarge,
        },
    };
    if !found.is_empty() {
        return answer(code, seconds(ttl), Some(found.into()));
    }
    match (negative_ttl(message, at, authorities), chain.target) {
        (Some(negative), _) => answer(code, seconds(negative.min(chain.ttl)), None),
        (None, Some(target)) if code == Rcode::NOERROR && !chain.has_records => {
            Reading::Alias { target, aliases: chain.aliases, ttl: seconds(chain.ttl) }
        }
        // Nothing says how long it holds, so it must not be remembered (RFC 2308 section 5).
        _ => answer(code, Duration::ZERO, None),
    }
}

fn seconds(ttl: u32) -> Duration {
    Duration::from_secs(ttl.into())
}

/// A lifetime with the highest bit is none (RFC 2181 section 8).
fn sane(ttl: u32) -> u32 {
    if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl }
}

/// Where the aliases of a name lead.
struct Chain {
    /// The last name, if it is another one.
    target: Option<Name>,
    /// The last name.
    owner: Name,
    aliases: usize,
    ttl: u32,
    /// Whether the last name has records of the type, readable or not.
    has_records: bool,
}

/// Follows the aliases, which may stand in any order (RFC 1034 section 3.6.2 has no word about it). `None` if
/// they do not end.
fn follow(message: &[u8], records: &[Record], name: &Name, record_type: RecordType) -> Option<Chain> {
    let owner = name.clone();
    let mut chain = Chain { target: None, owner, aliases: 0, ttl: u32::MAX, has_records: false };
    loop {
        let mut owned = records.iter().filter(|record| is_owned(message, record, &chain.owner, name));
        let is_alias = |record: &&Record| record.record_type == RecordType::CNAME;
        let alias = owned.clone().find(is_alias).filter(|_| record_type != RecordType::CNAME);
        let Some((alias, target)) = alias.and_then(|alias| Some((alias, Name::read(message, alias.data)?)))
        else {
            chain.has_records = owned.any(|record| record.record_type == record_type);
            return Some(chain);
        };
        chain.aliases += 1;
        if chain.aliases > MAX_ALIASES {
            return None;
        }
        chain.ttl = chain.ttl.min(sane(alias.ttl));
        chain.owner = target.clone();
        chain.target = Some(target);
    }
}

fn is_owned(message: &[u8], record: &Record, owner: &Name, name: &Name) -> bool {
    // Nearly every record points to the question.
    if message.get(record.owner..record.owner + 2) == Some(&[0xc0, 12]) {
        return owner == name;
    }
    name::is_name(message, record.owner, owner.as_wire())
}

/// The records at the end of the chain that can be read, each once (RFC 2181 section 5), and how long they
/// hold; `None` if they are too many.
fn collect(
    message: &[u8],
    records: &[Record],
    chain: &Chain,
    name: &Name,
    record_type: RecordType,
) -> Option<(Vec<u8>, u32)> {
    let (mut out, mut places) = (Vec::new(), Vec::new());
    let (mut ttl, mut strings) = (chain.ttl, 0);
    let is_at_end =
        |record: &&Record| record.record_type == record_type && is_owned(message, record, &chain.owner, name);
    for record in records.iter().filter(is_at_end) {
        let start = out.len();
        out.extend_from_slice(&[0, 0]);
        if append_data(message, record, &mut out).is_none() {
            out.truncate(start);
            continue;
        }
        strings += if record_type == RecordType::TXT { count_strings(&out[start + 2..])? } else { 1 };
        if out.len() > MAX_RECORD_BYTES || strings > MAX_RECORDS {
            return None;
        }
        let length = u16::try_from(out.len() - start - 2).ok()?;
        out[start..start + 2].copy_from_slice(&length.to_be_bytes());
        places.push(start..out.len());
        ttl = ttl.min(sane(record.ttl));
    }
    if places.len() > 1 {
        let mut seen = HashSet::with_capacity(places.len());
        let distinct = places.into_iter().filter(|place| seen.insert(&out[place.clone()]));
        out = distinct.flat_map(|place| out[place].iter().copied()).collect();
    }
    Some((out, ttl))
}

/// Appends the data of a record with its name expanded; `None` if it can't be read.
fn append_data(message: &[u8], record: &Record, out: &mut Vec<u8>) -> Option<()> {
    let data = message.get(record.data..record.end)?;
    if let Some(before) = record.record_type.bytes_before_name() {
        out.extend_from_slice(data.get(..before)?);
        return (name::expand(message, record.data + before, out)? == record.end).then_some(());
    }
    let is_good = match record.record_type {
        RecordType::A => data.len() == 4,
        RecordType::AAAA => data.len() == 16,
        RecordType::TLSA => data.len() >= 3,
        RecordType::TXT => count_strings(data).is_some_and(|count| count > 0),
        _ => true,
    };
    is_good.then(|| out.extend_from_slice(data))
}

/// The number of character strings (RFC 1035 section 3.3.14); `None` if they are not well-formed.
fn count_strings(mut data: &[u8]) -> Option<usize> {
    let mut count = 0;
    while let Some((&length, rest)) = data.split_first() {
        data = rest.get(length.into()..)?;
        count += 1;
    }
    Some(count)
}

/// How long "no such records" holds: the lesser of the SOA record's lifetime and its last field.
fn negative_ttl(message: &[u8], mut at: usize, records: usize) -> Option<u32> {
    for _ in 0..records {
        let record = record_at(message, at)?;
        if record.record_type == RecordType::SOA && record.class == CLASS_IN {
            let minimum = message.get(record.data..record.end)?.last_chunk::<4>()?;
            return Some(sane(record.ttl).min(sane(u32::from_be_bytes(*minimum))));
        }
        at = record.end;
    }
    None
}

#[cfg(test)]
#[path = "message_tests.rs"]
pub(crate) mod tests;
