//! The decisions of a journal in the order in which they were made.
//!
//! Knows: blocks, which overlap. Must not know: what is done with a decision.

use super::block::unpack;
use super::codec::Decoder;
use super::file::{Trouble, table};
use super::search::coverage;
use super::{Coverage, JournalError, image};
use crate::{Decision, DecisionId, StepTable};
use rusqlite::{Connection, Error};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Decisions from the oldest to the newest, as the journal was when this was made. Nothing is locked, made or
/// written.
pub struct OldestFirst {
    path: PathBuf,
    connection: Connection,
    range: (DecisionId, Option<DecisionId>),
    blocks: VecDeque<Block>,
    tables: HashMap<i64, Option<Arc<StepTable>>>,
    /// The decisions of the blocks that were opened.
    open: BinaryHeap<ById>,
    covered: Coverage,
    total: u64,
    damaged: u64,
}

struct Block {
    id: i64,
    first: u64,
    config: i64,
}

/// The smallest identifier comes first out of a heap.
struct ById(Box<Decision>);

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ById {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.id.cmp(&self.0.id)
    }
}

impl OldestFirst {
    /// Those of a file not before `since`, and before `until`.
    ///
    /// # Errors
    /// The file can't be read, or is not a journal.
    pub fn open(
        path: &Path,
        since: DecisionId,
        until: Option<DecisionId>,
    ) -> Result<OldestFirst, JournalError> {
        let connection = image::open(path)?;
        let of = |error: Error| Trouble::of(path, &error).error(path);
        let last = until.map_or(i64::MAX, |until| until.number().cast_signed());
        let mut all = OldestFirst {
            path: path.to_owned(),
            covered: coverage(&connection).map_err(of)?,
            connection,
            range: (since, until),
            blocks: VecDeque::new(),
            tables: HashMap::new(),
            open: BinaryHeap::new(),
            total: 0,
            damaged: 0,
        };
        all.find_blocks(since.number().cast_signed(), last).map_err(of)?;
        Ok(all)
    }

    fn find_blocks(&mut self, since: i64, until: i64) -> Result<(), Error> {
        let blocks =
            "SELECT id, first, config, count FROM block WHERE last >= ?1 AND first < ?2 ORDER BY first";
        let mut statement = self.connection.prepare(blocks)?;
        let mut rows = statement.query((since, until))?;
        while let Some(row) = rows.next()? {
            let first = row.get::<_, i64>(1)?.cast_unsigned();
            self.blocks.push_back(Block { id: row.get(0)?, first, config: row.get(2)? });
            self.total += u64::try_from(row.get::<_, i64>(3)?).unwrap_or_default();
        }
        Ok(())
    }

    /// What the file holds, and what is missing.
    pub fn covered(&self) -> Coverage {
        self.covered
    }

    /// How many decisions there are, about: blocks may begin before and end after.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Blocks that were damaged so far, whose decisions are missing.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Opens the blocks with decisions that may come next.
    fn open_blocks(&mut self) -> Result<(), Error> {
        while let Some(block) = self.blocks.front() {
            if self.open.peek().is_some_and(|next| next.0.id.number() < block.first) {
                break;
            }
            let (id, config) = (block.id, block.config);
            self.blocks.pop_front();
            if !self.tables.contains_key(&config) {
                self.tables.insert(config, table(&self.connection, config)?);
            }
            let get = "SELECT data FROM block WHERE id = ?1";
            let data: Vec<u8> = self.connection.prepare_cached(get)?.query_row([id], |row| row.get(0))?;
            let (Ok(bytes), Some(Some(table))) = (unpack(&data), self.tables.get(&config)) else {
                self.damaged += 1;
                continue;
            };
            let (since, until) = self.range;
            for decision in Decoder::new(&bytes, table) {
                let Ok(decision) = decision else {
                    self.damaged += 1;
                    break;
                };
                if decision.id >= since && until.is_none_or(|until| decision.id < until) {
                    self.open.push(ById(Box::new(decision)));
                }
            }
        }
        Ok(())
    }
}

impl Iterator for OldestFirst {
    type Item = Result<Box<Decision>, JournalError>;
    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.open_blocks() {
            self.blocks.clear();
            self.open.clear();
            return Some(Err(Trouble::of(&self.path, &error).error(&self.path)));
        }
        self.open.pop().map(|next| Ok(next.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use super::*;
    use crate::Outcome;
    use std::time::Duration;

    #[test]
    fn decisions_of_all_blocks_come_in_their_order() {
        let bench = Bench::new();
        let journal = bench.open();
        let outcome = |number| if number % 5 == 0 { Outcome::Reject } else { Outcome::Pass };
        let sent: Vec<_> =
            (0..1300).map(|number| bench.send(&journal, "a@example.org", outcome(number))).collect();
        assert!(journal.close(Duration::from_secs(120)));
        let read = |since, until| {
            let all = OldestFirst::open(&bench.settings.file, since, until).unwrap();
            assert!(all.total() >= 500 && all.damaged() == 0);
            all.map(|decision| decision.unwrap().id).collect::<Vec<_>>()
        };
        assert_eq!(read(DecisionId::from_number(0), None), sent);
        assert_eq!(read(sent[100], Some(sent[650])), sent[100..650]);
    }
}
