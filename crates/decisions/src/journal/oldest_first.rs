//! The decisions of a journal in the order in which they were made.
//!
//! Knows: blocks, which overlap. Must not know: what is done with a decision.

use super::block::unpack;
use super::codec::Decoder;
use super::database::Database;
use super::file::Trouble;
use super::in_file::FileReader;
use super::store::{Begin, Range, Read};
use super::{Coverage, JournalError, database, image};
use crate::{Decision, DecisionId, StepTable};
use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Decisions from the oldest to the newest, as the journal was when this was made. Nothing is locked, made or
/// written.
pub struct OldestFirst {
    path: PathBuf,
    reader: Box<dyn Read>,
    range: (DecisionId, Option<DecisionId>),
    blocks: VecDeque<Begin>,
    tables: HashMap<i64, Option<Arc<StepTable>>>,
    /// The decisions of the blocks that were opened.
    open: BinaryHeap<ById>,
    covered: Coverage,
    total: u64,
    damaged: u64,
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
        let reader = FileReader::of(image::open(path)?, path);
        OldestFirst::of(path, Box::new(reader), since, until)
    }

    /// Those that are kept in a database.
    ///
    /// # Errors
    /// It can't be read.
    pub fn of_database(
        database: Arc<dyn Database>,
        since: DecisionId,
        until: Option<DecisionId>,
    ) -> Result<OldestFirst, JournalError> {
        OldestFirst::of(Path::new(""), database::reader(database)?, since, until)
    }

    fn of(
        path: &Path,
        mut reader: Box<dyn Read>,
        since: DecisionId,
        until: Option<DecisionId>,
    ) -> Result<OldestFirst, JournalError> {
        let of = |trouble: Trouble| trouble.error(path);
        let last = until.map_or(i64::MAX, |until| until.number().cast_signed());
        let range = Range { since: since.number().cast_signed(), until: last, classes: (0, 1) };
        let covered = reader.coverage().map_err(of)?;
        let mut blocks = reader.begins(range).map_err(of)?;
        blocks.sort_by_key(|block| block.first);
        Ok(OldestFirst {
            path: path.to_owned(),
            covered,
            reader,
            range: (since, until),
            total: blocks.iter().map(|block| block.count).sum(),
            blocks: blocks.into(),
            tables: HashMap::new(),
            open: BinaryHeap::new(),
            damaged: 0,
        })
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
    fn open_blocks(&mut self) -> Result<(), Trouble> {
        while let Some(block) = self.blocks.front() {
            if self.open.peek().is_some_and(|next| next.0.id.number() < block.first) {
                break;
            }
            let (id, config) = (block.id, block.config);
            self.blocks.pop_front();
            if !self.tables.contains_key(&config) {
                self.tables.insert(config, self.reader.table(config)?);
            }
            // It may have been removed meanwhile.
            let Some(data) = self.reader.data(id)? else { continue };
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
        if let Err(trouble) = self.open_blocks() {
            self.blocks.clear();
            self.open.clear();
            return Some(Err(trouble.error(&self.path)));
        }
        let next = self.open.pop()?;
        // One that was written twice, since nobody knew whether the database had it.
        while self.open.peek().is_some_and(|again| *again == next) {
            self.open.pop();
        }
        Some(Ok(next.0))
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
