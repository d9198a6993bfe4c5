//! Where a search has been.
//!
//! Knows: places as numbers. Must not know: what they mean.

use super::Slot;
use crate::program::Program;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// The largest table of bits, in words: 8 MiB. Larger ones are sets, which hold what was reached only.
const TABLE_MAX_WORDS: usize = 1 << 20;

/// The most places that a set holds; further ones are looked at again, up to the limit on steps.
const SET_MAX: usize = 1 << 20;

/// The choices at places of the value that were followed already.
pub(super) enum Visited {
    /// A bit for each.
    Table {
        bits: Vec<u64>,
        width: usize,
    },
    /// The same for each number of what was captured, as long as there is room.
    Tables {
        tables: Vec<Vec<u64>>,
        words: usize,
        width: usize,
        room: usize,
        rest: Reached,
    },
    Set(Reached),
}

/// Those that were reached.
#[derive(Default)]
pub(super) struct Reached(HashSet<u64, BuildHasherDefault<Mixer>>);

impl Visited {
    /// Creates one for this many choices in a value of that length.
    pub(super) fn new(choices: usize, length: usize) -> Visited {
        let (words, width) = size(choices, length);
        if words > TABLE_MAX_WORDS { Visited::few() } else { Visited::Table { bits: vec![0; words], width } }
    }

    /// The same where they depend on what was captured.
    pub(super) fn by_captured(choices: usize, length: usize) -> Visited {
        let (words, width) = size(choices, length);
        Visited::Tables { tables: Vec::new(), words, width, room: TABLE_MAX_WORDS, rest: Reached::default() }
    }

    /// For few places.
    pub(super) fn few() -> Visited {
        Visited::Set(Reached::default())
    }

    /// The size of what is made for each number of what was captured.
    pub(super) fn words(&self) -> u64 {
        if let Visited::Tables { words, .. } = self { *words as u64 } else { 0 }
    }

    /// Whether the choice was not followed before.
    pub(super) fn is_new(&mut self, choice: u32, at: usize, captured: u32) -> bool {
        match self {
            Visited::Table { bits, width } => set_bit(bits, choice as usize * *width + at),
            Visited::Tables { tables, words, width, room, rest } => {
                let number = captured as usize;
                if tables.len() <= number {
                    tables.resize(number + 1, Vec::new());
                }
                let bits = &mut tables[number];
                if bits.is_empty() && *room >= *words {
                    *room -= *words;
                    *bits = vec![0; *words];
                }
                match bits.is_empty() {
                    true => rest.is_new(choice, at, captured),
                    false => set_bit(bits, choice as usize * *width + at),
                }
            }
            Visited::Set(reached) => reached.is_new(choice, at, captured),
        }
    }
}

impl Reached {
    fn is_new(&mut self, choice: u32, at: usize, captured: u32) -> bool {
        // 15 bits, 20 bits and 29 bits: a program is no larger, nor is a value, nor the limit on steps.
        let key = u64::from(choice) << 49 | (at as u64) << 29 | u64::from(captured);
        if self.0.len() >= SET_MAX { !self.0.contains(&key) } else { self.0.insert(key) }
    }
}

/// The words of a table, and the bits of a choice.
fn size(choices: usize, length: usize) -> (usize, usize) {
    let width = length + 1;
    (choices.saturating_mul(width) / 64 + 1, width)
}

/// Whether the bit was not set.
fn set_bit(bits: &mut [u64], place: usize) -> bool {
    let (word, bit) = (&mut bits[place / 64], 1 << (place % 64));
    let is_new = *word & bit == 0;
    *word |= bit;
    is_new
}

/// Numbers for what groups have captured.
#[derive(Default)]
pub(super) struct Captured(HashMap<Box<[Slot]>, u32, BuildHasherDefault<Mixer>>);

impl Captured {
    /// The number.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The number of what the groups have that something refers to.
    pub(super) fn number(&mut self, program: &Program, slots: &[Slot]) -> u32 {
        let referred = slots.iter().zip(&program.is_referred).filter(|(_, is_referred)| **is_referred);
        let slots: Box<[Slot]> = referred.map(|(slot, _)| *slot).collect();
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(slots).or_insert(next)
    }
}

/// Spreads a number over all bits, which is enough for keys that no stranger chooses freely: they are places
/// in a short value, and a search that meets many of them ends at its limit.
#[derive(Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }
    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
