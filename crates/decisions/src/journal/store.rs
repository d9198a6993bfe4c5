//! What the journal asks of the place where its blocks are, a file or a database.
//!
//! Knows: blocks from outside. Must not know: SQL, when something is written.

use super::block::{Class, Row};
use super::file::{Standing, Trouble};
use super::pseudonym::{Key, Keys};
use super::retention::OpenRows;
use super::{Audit, Coverage, Incident, Privacy, Settings};
use crate::StepTable;
use std::sync::Arc;

/// Which blocks are wanted, by the numbers of their decisions.
#[derive(Clone, Copy)]
pub(super) struct Range {
    /// They end with this number or later.
    pub since: i64,
    /// They begin before this one.
    pub until: i64,
    /// They are of these classes.
    pub classes: (i64, i64),
}

/// What is known of a block without opening it.
pub(super) struct Head {
    pub id: i64,
    pub last: u64,
    pub config: i64,
    pub count: u64,
    pub privacy: Privacy,
    pub summary: Vec<u8>,
    /// Empty where it was not asked for.
    pub filter: Vec<u8>,
}

/// Where the decisions of a block begin.
pub(super) struct Begin {
    pub id: i64,
    pub first: u64,
    pub config: i64,
    pub count: u64,
}

/// A block that may be written again.
pub(super) struct Stored {
    pub id: i64,
    pub class: Class,
    pub config: i64,
    pub count: u64,
    pub privacy: Privacy,
    /// How often others than its writer have changed it.
    pub changes: i64,
    pub data: Vec<u8>,
}

/// What is written beside blocks.
pub(super) struct More<'a> {
    /// Who did what.
    pub audits: &'a [Audit],
    /// What happened, with the names that may be kept.
    pub incidents: &'a [Incident],
    /// Decisions that got lost since the last time.
    pub lost: u64,
}

/// What was written.
#[derive(Default)]
pub(super) struct Saved {
    /// The rows of the blocks, in their order; `None` where somebody else has changed the block meanwhile,
    /// which stays as it is then.
    pub ids: Vec<Option<i64>>,
    /// Decisions that were not there before.
    pub added: u64,
    /// Decisions that were removed to make room.
    pub removed: u64,
}

/// One who reads.
pub(super) trait Read {
    /// Whether everything is read as it was at one moment.
    fn is_of_one_moment(&self) -> bool;

    /// The keys of pseudonyms.
    fn keys(&mut self) -> Result<Keys, Trouble>;

    /// What is held, and what is missing.
    fn coverage(&mut self) -> Result<Coverage, Trouble>;

    /// How many decisions the blocks of a range have.
    fn count(&mut self, range: Range) -> Result<u64, Trouble>;

    /// Some blocks of a range, those that end last first: what comes after the last number and the row of
    /// another. None are left if there are none.
    fn heads(
        &mut self,
        range: Range,
        after: Option<(u64, i64)>,
        has_filter: bool,
    ) -> Result<Vec<Head>, Trouble>;

    /// All blocks of a range, in any order.
    fn begins(&mut self, range: Range) -> Result<Vec<Begin>, Trouble>;

    /// The decisions of a block; `None` if it is gone.
    fn data(&mut self, id: i64) -> Result<Option<Vec<u8>>, Trouble>;

    /// The table of steps with this number.
    fn table(&mut self, config: i64) -> Result<Option<Arc<StepTable>>, Trouble>;

    /// Who did what, newest first.
    fn audits(&mut self, limit: usize) -> Result<Vec<Audit>, Trouble>;

    /// What happened, newest first.
    fn incidents(&mut self, limit: usize) -> Result<Vec<Incident>, Trouble>;
}

/// One who writes.
pub(super) trait Write: Send {
    /// Whether it is still the place that was opened.
    fn standing(&self) -> Standing {
        Standing::Same
    }

    /// Looks for damage.
    fn examine(&mut self) -> Result<(), Trouble> {
        Ok(())
    }

    /// The decisions that are there.
    fn held(&mut self) -> Result<u64, Trouble>;

    /// The same as it is known without looking, where others write too.
    fn held_by_all(&self) -> Option<u64> {
        None
    }

    /// The bytes in use, as far as that is known.
    fn used(&self) -> Option<u64>;

    /// The keys of pseudonyms, after these were added for months that have none.
    fn keys(&mut self, known: &Keys) -> Result<Keys, Trouble>;

    /// The key of a month, which is made if there is none.
    fn key(&mut self, month: i64) -> Result<Key, Trouble>;

    /// Writes blocks and the rest, all or nothing, and makes room for them. `open` are the rows that are
    /// still written.
    fn save(
        &mut self,
        settings: &Settings,
        open: OpenRows,
        rows: &[&Row],
        more: &More<'_>,
    ) -> Result<Saved, Trouble>;

    /// Removes what is too old or too much: how many decisions.
    fn look_after(&mut self, settings: &Settings, open: OpenRows) -> Result<u64, Trouble>;

    /// Some blocks that end before a number and in which not all names were replaced.
    fn named_blocks(&mut self, before: i64, open: OpenRows) -> Result<Vec<i64>, Trouble>;

    /// All blocks.
    fn all_blocks(&mut self) -> Result<Vec<i64>, Trouble>;

    /// Blocks are written again from now on, so that nothing of what they held can be found.
    fn begin_again(&mut self) -> Result<(), Trouble>;

    /// No more are, or what was done since then is undone.
    fn end_again(&mut self, is_good: bool) -> Result<(), Trouble>;

    /// A block; `None` if it is gone.
    fn stored(&mut self, id: i64) -> Result<Option<Stored>, Trouble>;

    /// The table of steps with this number.
    fn table(&mut self, config: i64) -> Result<Option<Arc<StepTable>>, Trouble>;

    /// Writes a block again, or removes it; false if somebody else has changed it meanwhile.
    fn replace(&mut self, stored: &Stored, row: Option<&Row>) -> Result<bool, Trouble>;

    /// Removes the notes about searches that name somebody.
    fn replace_audits(&mut self, is_meant: &dyn Fn(&str) -> bool, instead: &str) -> Result<(), Trouble>;

    /// Removes what happened to somebody of these names, which are in lower case.
    fn forget_incidents(&mut self, names: &[String]) -> Result<(), Trouble>;

    /// All blocks were written again: what is left of the old ones goes. `is_all` is said where somebody
    /// waits for it.
    fn finish_again(&mut self, is_all: bool) -> Result<(), Trouble>;

    /// Another daemon that gives its decisions the same numbers, if one was noticed: the number and its host.
    fn take_same_node(&mut self) -> Option<(u8, String)> {
        None
    }

    /// Nothing is written any more.
    fn end(&mut self) {}
}
