//! The contents of a block outside of a journal: for whoever tries what bytes can do to their reader.
//!
//! Knows: the form of a block's contents. Must not know: how it is compressed, where it is kept.

use super::codec::{Decoder, Encoder};
use crate::{Decision, StepTable};
use std::sync::Arc;

/// The bytes of some decisions in one block, before they are compressed.
pub fn encode(decisions: &[Decision]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    decisions.iter().for_each(|decision| encoder.add(decision));
    encoder.bytes().to_vec()
}

/// The decisions that such bytes are, whose steps are those of a table.
///
/// # Errors
/// What is wrong with the bytes, in a few words.
pub fn decode(bytes: &[u8], table: &Arc<StepTable>) -> Result<Vec<Decision>, String> {
    Decoder::new(bytes, table).collect::<Result<_, _>>().map_err(|damaged| damaged.to_string())
}
