//! What is said of the journal, and how often.
//!
//! Knows: events, time. Must not know: the file, the log.

use super::{Event, JournalError};
use std::path::Path;
use std::time::{Duration, Instant};

/// Each kind of event is reported at most this often.
const INTERVAL: Duration = Duration::from_secs(60);
/// How often it is reported that two daemons have the same number.
const SAME_INTERVAL: Duration = Duration::from_secs(3_600);
/// Another process may lock the file so long before anything is said.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// What was said, and what was not said yet.
pub(super) struct Reports {
    on_event: Box<dyn Fn(Event) + Send>,
    failing_since: Option<Instant>,
    said_failing: Option<Instant>,
    said_lost: Option<Instant>,
    said_same: Option<Instant>,
    is_told: bool,
    /// All losses of which something was said.
    lost: u64,
}

impl Reports {
    pub fn new(on_event: Box<dyn Fn(Event) + Send>) -> Reports {
        Reports {
            on_event,
            failing_since: None,
            said_failing: None,
            said_lost: None,
            said_same: None,
            is_told: false,
            lost: 0,
        }
    }

    /// Nothing can be written; `lost` are all losses since the start.
    pub fn failing(&mut self, why: &JournalError, lost: u64) {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let is_early = *why == JournalError::Busy && since.elapsed() < LOCK_PATIENCE;
        if !is_early && is_due(self.said_failing) {
            self.said_failing = Some(Instant::now());
            self.is_told = true;
            let lost = self.new_losses(lost);
            (self.on_event)(Event::Unwritable { why: why.clone(), lost });
        }
    }

    /// Something was written.
    pub fn works(&mut self, place: impl FnOnce() -> String, lost: u64) {
        self.failing_since = None;
        if std::mem::take(&mut self.is_told) {
            let lost = self.new_losses(lost);
            (self.on_event)(Event::Writable { file: place(), lost });
        } else if lost > self.lost && is_due(self.said_lost) {
            self.said_lost = Some(Instant::now());
            let lost = self.new_losses(lost);
            (self.on_event)(Event::Lost { lost });
        }
    }

    /// Another daemon gives its decisions the same numbers.
    pub fn same_node(&mut self, node: u8, host: String) {
        if self.said_same.is_none_or(|last| last.elapsed() >= SAME_INTERVAL) {
            self.said_same = Some(Instant::now());
            (self.on_event)(Event::SameNode { node, host });
        }
    }

    /// Another file was begun.
    pub fn replaced(&self, why: &str, renamed: Option<&Path>, held: u64) {
        let renamed = renamed.map(|path| path.display().to_string());
        (self.on_event)(Event::Replaced { why: why.to_owned(), renamed, held });
    }

    fn new_losses(&mut self, lost: u64) -> u64 {
        lost - std::mem::replace(&mut self.lost, lost)
    }
}

fn is_due(last: Option<Instant>) -> bool {
    last.is_none_or(|last| last.elapsed() >= INTERVAL)
}
