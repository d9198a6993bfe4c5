//! What a search gives back, and what it can be told while it runs.
//!
//! Knows: decisions. Must not know: where they are kept.

use crate::{Decision, DecisionId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

/// The decisions of a search.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Newest first, not more than asked for.
    pub decisions: Vec<Arc<Decision>>,
    /// There are more: ask again with [`Found::next`] as `before`.
    pub has_more: bool,
    /// Blocks that are damaged, whose decisions can't be found.
    pub damaged: u64,
    /// What is held.
    pub covered: Coverage,
    /// The search was ended before all was searched: only what is not older than this was.
    pub searched_to: Option<DecisionId>,
}

impl Found {
    /// What to ask for as `before` to go on, if there is more to find or to search.
    pub fn next(&self) -> Option<DecisionId> {
        let last = self.decisions.last().map(|decision| decision.id);
        last.filter(|_| self.has_more).or(self.searched_to)
    }
}

/// What a journal holds, and what is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// From here on every decision is held that was recorded; `None` if nothing is known of it.
    pub from: Option<DecisionId>,
    /// The same for decisions in which something was done about a message, or something failed: they are
    /// kept longer.
    pub acted_from: Option<DecisionId>,
    /// Decisions that were lost since then, as far as was noted.
    pub lost: u64,
}

impl Coverage {
    /// From when each class of blocks is held, and how many decisions were lost since a number.
    pub(super) fn of<E>(
        classes: &BTreeMap<i64, i64>,
        lost: impl FnOnce(i64) -> Result<u64, E>,
    ) -> Result<Coverage, E> {
        let id = |number: i64| DecisionId::from_number(number.cast_unsigned());
        let (from, acted) = (classes.values().max().copied(), classes.get(&1).copied());
        let lost = lost(acted.or(from).unwrap_or_default())?;
        Ok(Coverage { from: from.map(id), acted_from: acted.map(id), lost })
    }

    /// When the journal begins.
    pub fn from_time(&self) -> Option<SystemTime> {
        self.from.map(DecisionId::time)
    }
}

/// How far a search has come, and whether it is still wanted. Shared with the one who waits for it.
#[derive(Debug, Default)]
pub struct Progress {
    /// When the search ends, wherever it is.
    deadline: Option<Instant>,
    cancelled: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// That of a search which ends at this time.
    pub fn until(deadline: Instant) -> Progress {
        Progress { deadline: Some(deadline), ..Progress::default() }
    }

    /// The search ends soon, with what it has found.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Whether it was cancelled, or its time is over.
    pub(super) fn is_over(&self) -> bool {
        self.is_cancelled() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Decisions that were looked at or skipped, and all that may have to be; 0 where few have to be and
    /// nobody has counted them.
    pub fn state(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    pub(super) fn set_total(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    pub(super) fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }
}

/// One line of the list of searches and changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// When.
    pub at: DecisionId,
    /// The user.
    pub who: String,
    /// What was done.
    pub what: String,
}

/// Why the journal can't answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// There is no such file.
    #[error("{0}: there is no journal")]
    Missing(String),
    /// The file is something else.
    #[error("{0}: this is not a journal of mtpolicyd")]
    Foreign(String),
    /// The file was written by a later program.
    #[error("{file}: the journal has format {found}, and this program knows formats up to {known}")]
    Newer {
        /// The file.
        file: String,
        /// The format that it has.
        found: i64,
        /// The latest that is known.
        known: i64,
    },
    /// The file, or a part of it, can't be read.
    #[error("{file}: the journal is damaged ({why})")]
    Damaged {
        /// The file.
        file: String,
        /// Where, or how.
        why: String,
    },
    /// The system refuses, or something else is wrong with the file.
    #[error("{file}: {why}")]
    File {
        /// The file.
        file: String,
        /// What.
        why: String,
    },
    /// The database refuses, or does not answer.
    #[error("{0}")]
    Database(String),
    /// What was asked did not end in time.
    #[error("the journal is busy")]
    Busy,
}

/// What happened to the journal, for the log. Failures and losses are reported at most once a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing can be written; it is tried again each second.
    Unwritable {
        /// Why, with the name of the file.
        why: JournalError,
        /// Decisions that got lost since the last event of this kind.
        lost: u64,
    },
    /// Another daemon gives its decisions the same numbers.
    SameNode {
        /// The number.
        node: u8,
        /// The other one's host.
        host: String,
    },
    /// More decisions came than could be written.
    Lost {
        /// How many, since the last event of this kind.
        lost: u64,
    },
    /// It can be written again.
    Writable {
        /// The file.
        file: String,
        /// Decisions that got lost meanwhile.
        lost: u64,
    },
    /// The file was damaged or removed, and a new one was begun.
    Replaced {
        /// The file, and what was wrong with it.
        why: String,
        /// The new name of the old one, if it is there.
        renamed: Option<String>,
        /// How many decisions it held.
        held: u64,
    },
}

/// How the journal does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The file.
    pub file: String,
    /// Decisions handed over since the start.
    pub sent: u64,
    /// Of these, those that are not in the file yet.
    pub waiting: u64,
    /// Decisions lost since the start.
    pub lost: u64,
    /// Bytes of the file that are in use.
    pub used: u64,
    /// Decisions in the file.
    pub held: u64,
    /// Why nothing can be written, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}
