//! What is found again of decisions: in the journal where there is one, else among the last ones in memory.
//!
//! Knows: records of decisions. Must not know: requests, plugins, who asks.

use super::{Recorder, lock};
use crate::log::messages::journal as messages;
use decisions::journal::{JournalError, Progress};
use decisions::{Decision, DecisionId, Filter};
use std::sync::Arc;

/// What a search has found.
pub struct Found {
    /// The newest first.
    pub decisions: Vec<Arc<Decision>>,
    /// There may be more: they are found with this as `before`.
    pub next: Option<DecisionId>,
    /// The time was over before everything was searched; `next` goes on.
    pub is_unfinished: bool,
    /// What was searched.
    pub kept: Kept,
    /// What was not searched, and why: a sentence each.
    pub problems: Vec<String>,
}

/// What is kept of decisions.
#[derive(Default)]
pub struct Kept {
    /// The oldest decision that is kept at all, or the moment from which on all are kept.
    pub begins: Option<DecisionId>,
    /// Decisions since then that could not be kept.
    pub lost: u64,
    /// Why only the last ones in memory are known, although there is a journal.
    pub problem: Option<String>,
}

/// How many decisions were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Of those in the journal.
    pub journal: u64,
    /// Of those in memory, of which many are in the journal too.
    pub memory: u64,
}

impl Recorder {
    /// The decision with this identifier. Blocks while the journal reads its file.
    ///
    /// # Errors
    /// It is not among the last ones, and the journal can't be read.
    pub fn get(&self, id: DecisionId) -> Result<Option<Arc<Decision>>, JournalError> {
        match (self.remembered(id), self.journal.get()) {
            (None, Some(journal)) => journal.get(id),
            (found, _) => Ok(found),
        }
    }

    fn remembered(&self, id: DecisionId) -> Option<Arc<Decision>> {
        let ring = lock(&self.ring);
        let found = ring.decisions.iter().rev().find(|(decision, _)| decision.id == id);
        found.map(|(decision, _)| Arc::clone(decision))
    }

    /// The newest decisions that a filter wants, older than `before`, and at most `limit` of them. Blocks
    /// while the journal reads its file; where it can't, the last decisions are searched, which is one of the
    /// problems of what is found.
    pub fn search(
        &self,
        filter: &Filter,
        before: Option<DecisionId>,
        limit: usize,
        progress: &Progress,
    ) -> Found {
        let found = self.journal.get().map(|journal| journal.search(filter, limit, before, progress));
        match found {
            None => self.search_memory(filter, before, limit),
            Some(Err(error)) => {
                let problem = unreadable(&error);
                let found = self.search_memory(filter, before, limit);
                let kept = Kept { problem: Some(problem.clone()), ..found.kept };
                Found { problems: vec![problem], kept, ..found }
            }
            Some(Ok(found)) => Found {
                next: found.next(),
                is_unfinished: !found.has_more && found.searched_to.is_some(),
                kept: Kept { begins: found.covered.from, lost: found.covered.lost, problem: None },
                problems: damaged(found.damaged),
                decisions: found.decisions,
            },
        }
    }

    fn search_memory(&self, filter: &Filter, before: Option<DecisionId>, limit: usize) -> Found {
        let all: Vec<_> =
            lock(&self.ring).decisions.iter().rev().map(|(decision, _)| Arc::clone(decision)).collect();
        let begins = all.last().map(|decision| decision.id);
        let is_older = |decision: &Arc<Decision>| before.is_none_or(|before| decision.id < before);
        let wanted = all.into_iter().filter(|decision| is_older(decision) && filter.matches(decision));
        let mut decisions: Vec<_> = wanted.take(limit.saturating_add(1)).collect();
        let has_more = decisions.len() > limit;
        decisions.truncate(limit);
        Found {
            next: decisions.last().map(|decision| decision.id).filter(|_| has_more),
            decisions,
            is_unfinished: false,
            kept: Kept { begins, ..Kept::default() },
            problems: Vec::new(),
        }
    }

    /// What is kept. Blocks while the journal reads its file.
    pub fn kept(&self) -> Kept {
        let in_memory = || lock(&self.ring).decisions.front().map(|(decision, _)| decision.id);
        match self.journal.get().map(|journal| journal.coverage()) {
            None => Kept { begins: in_memory(), ..Kept::default() },
            Some(Ok(covered)) => Kept { begins: covered.from, lost: covered.lost, problem: None },
            Some(Err(error)) => {
                Kept { begins: in_memory(), problem: Some(unreadable(&error)), ..Kept::default() }
            }
        }
    }

    /// Removes every decision that names an address or a login, in the journal and in memory. Blocks until
    /// all blocks of the journal were looked at. `who` is noted.
    ///
    /// # Errors
    /// The journal can't be changed; what is in memory is removed then.
    pub fn forget(&self, address: &str, who: &str) -> Result<Forgotten, JournalError> {
        let about = Filter { about: Some(address.to_owned()), ..Filter::default() };
        let mut dropped = Vec::new();
        let mut ring = lock(&self.ring);
        for (decision, size) in std::mem::take(&mut ring.decisions) {
            if about.matches(&decision) {
                ring.bytes -= size;
                dropped.push(decision);
            } else {
                ring.decisions.push_back((decision, size));
            }
        }
        drop(ring);
        let memory = dropped.len() as u64;
        let journal = self.journal.get().map(|journal| journal.forget(address, who)).transpose();
        let forgotten = journal.map(|journal| Forgotten { journal: journal.unwrap_or_default(), memory });
        match &forgotten {
            Ok(Forgotten { journal, memory }) => messages::forgotten(who, *journal, *memory),
            Err(error) => messages::not_forgotten(who, error),
        }
        forgotten
    }
}

fn unreadable(error: &JournalError) -> String {
    format!("the journal can't be read, so only the last decisions in memory are known: {error}")
}

/// What is said of parts of the journal that can't be read.
pub fn damaged(blocks: u64) -> Vec<String> {
    match blocks {
        0 => Vec::new(),
        1 => vec!["a part of the journal is damaged, and its decisions are not found".to_owned()],
        _ => vec![format!("{blocks} parts of the journal are damaged, and their decisions are not found")],
    }
}
