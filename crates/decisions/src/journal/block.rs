//! Blocks: up to 256 decisions, compressed, with a filter and a summary that say what is in them.
//!
//! Knows: their form. Must not know: the file.

use super::Privacy;
use super::bloom::Bloom;
use super::bytes::{Damaged, Reader, put, put_bytes, text};
#[cfg(test)]
use super::codec::Decoder;
use super::codec::Encoder;
use crate::{Decision, Filter, Outcome, StepTable};
use std::sync::Arc;
use std::time::Instant;

/// Decisions in a block, at most.
pub(super) const MAX_DECISIONS: u32 = 256;
/// A block is full when its decisions have this many bytes, before they are compressed.
const FULL_BYTES: usize = 512 << 10;
/// No block has more bytes than these: those of a full one and the largest decision.
const MAX_BYTES: usize = 4 << 20;
/// A decision that takes more memory is not kept; no real one does.
pub(super) const MAX_DECISION_SIZE: usize = 2 << 20;
/// The version of the form of a block's data, its first byte.
const VERSION: u8 = 1;
/// That of a block whose decisions have another one of a shadow behind them.
const VERSION_WITH_SHADOWS: u8 = 2;
/// The first byte, and a CRC-32 of what is behind.
const HEAD: usize = 5;

/// Whether something was done about a message; they are kept in blocks of their own, and longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// It passed.
    Passed = 0,
    /// Something was done, or something failed.
    Acted = 1,
    /// A shadow has decided otherwise. The decision itself is in a block of the other classes too: it was
    /// there before the shadow was asked.
    ShadowDiffers = 2,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Passed, Class::Acted, Class::ShadowDiffers];

    pub fn of(decision: &Decision) -> Class {
        match decision.shadow {
            Some(_) => Class::ShadowDiffers,
            None if decision.is_acted() => Class::Acted,
            None => Class::Passed,
        }
    }

    /// The one with this number in the file.
    pub fn from_number(number: i64) -> Class {
        match number {
            0 => Class::Passed,
            2 => Class::ShadowDiffers,
            _ => Class::Acted,
        }
    }

    /// The form of its blocks.
    fn version(self) -> u8 {
        if self == Class::ShadowDiffers { VERSION_WITH_SHADOWS } else { VERSION }
    }
}

/// A block that is written.
pub(super) struct OpenBlock {
    /// Its row in the file, once it has one.
    pub row: Option<i64>,
    /// The plugins of its decisions.
    pub table: Arc<StepTable>,
    /// What was replaced in its decisions.
    pub privacy: Privacy,
    /// When it was begun.
    pub begun: Instant,
    /// It has something that the file has not.
    pub is_changed: bool,
    /// What that is, as it was sent.
    pub unsaved: Vec<Arc<Decision>>,
    /// Its row in a database, where the writer chooses that.
    token: i64,
    encoder: Encoder,
    filter: Bloom,
    summary: Summary,
    count: u32,
    first: u64,
    last: u64,
}

/// A block as a row of the file.
pub(super) struct Row {
    pub row: Option<i64>,
    pub token: i64,
    /// The decisions that the row has not yet, as they were sent.
    pub unsaved: Vec<Arc<Decision>>,
    pub class: Class,
    pub table: Arc<StepTable>,
    pub privacy: Privacy,
    pub count: u32,
    /// The smallest and the largest identifier.
    pub first: u64,
    pub last: u64,
    pub summary: Vec<u8>,
    pub filter: Vec<u8>,
    pub data: Vec<u8>,
}

impl OpenBlock {
    pub fn new(table: Arc<StepTable>, privacy: Privacy) -> OpenBlock {
        OpenBlock {
            row: None,
            table,
            privacy,
            begun: Instant::now(),
            is_changed: false,
            unsaved: Vec::new(),
            token: 0,
            encoder: Encoder::default(),
            filter: Bloom::default(),
            summary: Summary::default(),
            count: 0,
            first: u64::MAX,
            last: 0,
        }
    }

    /// Begins anew, with the memory that it has.
    pub fn clear(&mut self, table: Arc<StepTable>, privacy: Privacy) {
        self.encoder.clear();
        self.filter.clear();
        self.summary.0.clear();
        (self.row, self.table, self.privacy) = (None, table, privacy);
        (self.begun, self.is_changed, self.count) = (Instant::now(), false, 0);
        (self.first, self.last) = (u64::MAX, 0);
        self.unsaved.clear();
    }

    pub fn add(&mut self, decision: &Decision) {
        self.encoder.add(decision);
        self.filter.add(decision);
        self.summary.add(decision);
        let id = decision.id.number();
        if self.count == 0 {
            self.token = token(id);
        }
        self.count += 1;
        (self.first, self.last) = (self.first.min(id), self.last.max(id));
        self.is_changed = true;
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn count(&self) -> u32 {
        self.count
    }

    pub fn is_full(&self) -> bool {
        self.count >= MAX_DECISIONS || self.encoder.bytes().len() >= FULL_BYTES
    }

    /// What the file gets.
    pub fn row(&self, class: Class) -> Row {
        Row {
            row: self.row,
            token: self.token,
            unsaved: self.unsaved.clone(),
            class,
            table: Arc::clone(&self.table),
            privacy: self.privacy,
            count: self.count,
            first: self.first,
            last: self.last,
            summary: self.summary.to_bytes(),
            filter: self.filter.bytes().to_vec(),
            data: pack(self.encoder.bytes(), class.version()),
        }
    }
}

/// A number that no other block has: the identifier of its first decision, and chance, since two daemons may
/// give the same identifiers.
pub(super) fn token(id: u64) -> i64 {
    /// Bits beside the fifty of an identifier, in a number with a sign.
    const CHANCE: u32 = 13;
    (id << CHANCE | u64::from(rand::random::<u16>()) & ((1 << CHANCE) - 1)).cast_signed()
}

impl Row {
    /// The bytes that it takes in the file, about.
    pub fn size(&self) -> usize {
        // A page is the least.
        self.summary.len() + self.filter.len() + self.data.len() + 4_096
    }
}

/// Compresses the decisions of a block.
fn pack(bytes: &[u8], version: u8) -> Vec<u8> {
    let mut data = Vec::with_capacity(HEAD + 4 + lz4_flex::block::get_maximum_output_size(bytes.len()));
    data.extend_from_slice(&[version, 0, 0, 0, 0]);
    put(&mut data, bytes.len() as u64);
    let start = data.len();
    data.resize(data.capacity(), 0);
    // There is room for the worst case.
    let length = lz4_flex::block::compress_into(bytes, &mut data[start..]).unwrap_or_default();
    data.truncate(start + length);
    let sum = crc32fast::hash(&data[HEAD..]);
    data[1..HEAD].copy_from_slice(&sum.to_le_bytes());
    data
}

/// The bytes of a block's decisions.
pub(super) fn unpack(data: &[u8]) -> Result<Vec<u8>, Damaged> {
    let (head, rest) = data.split_at_checked(HEAD).ok_or(Damaged("it ends too early"))?;
    if !(VERSION..=VERSION_WITH_SHADOWS).contains(&head[0]) {
        return Err(Damaged("its version is unknown"));
    }
    if crc32fast::hash(rest).to_le_bytes() != head[1..] {
        return Err(Damaged("its checksum is wrong"));
    }
    let mut reader = Reader::new(rest);
    let length: usize = reader.small()?;
    if length > MAX_BYTES {
        return Err(Damaged("it is too large"));
    }
    let mut bytes = vec![0; length];
    let read = lz4_flex::block::decompress_into(reader.rest(), &mut bytes);
    match read {
        Ok(read) if read == length => Ok(bytes),
        _ => Err(Damaged("it can't be decompressed")),
    }
}

/// Reads the decisions of a block.
#[cfg(test)]
pub(super) fn decode(data: &[u8], table: &Arc<StepTable>) -> Result<Vec<Decision>, Damaged> {
    Decoder::new(&unpack(data)?, table).collect()
}

/// How many decisions of a block have which host, outcome and step.
#[derive(Default)]
pub(super) struct Summary(Vec<Entry>);

struct Entry {
    host: Arc<str>,
    outcome: Outcome,
    by: Option<u16>,
    count: u32,
}

impl Summary {
    fn add(&mut self, decision: &Decision) {
        let Decision { host, outcome, by, .. } = decision;
        let known = self.0.iter_mut().find(|it| it.outcome == *outcome && it.by == *by && it.host == *host);
        match known {
            Some(entry) => entry.count += 1,
            None => self.0.push(Entry { host: Arc::clone(host), outcome: *outcome, by: *by, count: 1 }),
        }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16 * self.0.len());
        for entry in &self.0 {
            put_bytes(&mut out, entry.host.as_bytes());
            out.push(entry.outcome as u8);
            put(&mut out, entry.by.map_or(0, |by| u64::from(by) + 1));
            put(&mut out, u64::from(entry.count));
        }
        out
    }
}

/// Whether the block of a summary may have a decision that a filter wants, by host, outcome and plugin. One
/// that can't be read may.
pub(super) fn may_match(summary: &[u8], filter: &Filter, table: &StepTable) -> bool {
    if filter.outcome.is_empty() && filter.plugin.is_none() && filter.host.is_none() {
        return true;
    }
    let mut reader = Reader::new(summary);
    while !reader.is_empty() {
        if one_may_match(&mut reader, filter, table).unwrap_or(true) {
            return true;
        }
    }
    false
}

fn one_may_match(reader: &mut Reader<'_>, filter: &Filter, table: &StepTable) -> Result<bool, Damaged> {
    let host = text(reader.bytes()?)?;
    let outcome = Outcome::from_number(reader.byte()?).ok_or(Damaged("an outcome is unknown"))?;
    let by = reader.small::<u32>()?.checked_sub(1).and_then(|by| u16::try_from(by).ok());
    reader.number()?;
    let plugin = filter.plugin.as_deref();
    let is_by = |wanted: &str| {
        by.and_then(|by| table.get(by)).is_some_and(|step| step.path == wanted || step.name == wanted)
    };
    Ok(filter.host.as_deref().is_none_or(|wanted| wanted == host)
        && (filter.outcome.is_empty() || filter.outcome.contains(&outcome))
        && plugin.is_none_or(is_by))
}
