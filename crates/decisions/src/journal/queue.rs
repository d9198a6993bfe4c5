//! What waits to be written: bounded, and seen by searches.
//!
//! Knows: decisions, what is asked of the writer. Must not know: the file.

use super::block::MAX_DECISION_SIZE;
use super::{Audit, Incident, JournalError, Settings};
use crate::Decision;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// Decisions that wait, at most.
pub(super) const MAX_WAITING: usize = 4_096;
/// Bytes of decisions that wait, at most.
pub(super) const MAX_WAITING_BYTES: usize = 8 << 20;
/// Lines of who did what that wait; of more the oldest are dropped.
const MAX_AUDITS: usize = 1_000;
/// The same of events.
const MAX_INCIDENTS: usize = 256;
/// The writer is woken when this many wait; before, it wakes by itself.
const WAKE_AT: usize = 512;
/// The same in bytes.
const WAKE_AT_BYTES: usize = 1 << 20;

/// What is asked of the writer beside decisions.
pub(super) enum Command {
    /// Other settings.
    Settings(Settings),
    /// Remove what names an address: how many decisions it was.
    Forget { address: String, who: String, done: mpsc::SyncSender<Result<u64, JournalError>> },
    /// A reader found the file damaged.
    Suspect,
    /// Write what waits, and end, by then.
    End(Instant),
}

/// What waits.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    lost: AtomicU64,
    lost_noted: AtomicU64,
    sent: AtomicU64,
}

#[derive(Default)]
struct Inner {
    /// Not seen by the writer yet, each with its size.
    waiting: VecDeque<(usize, Arc<Decision>)>,
    /// Taken by the writer, and not yet in the file.
    unsaved: Vec<Arc<Decision>>,
    bytes: usize,
    unsaved_bytes: usize,
    commands: VecDeque<Command>,
    /// Who did what, not in the file yet.
    audits: VecDeque<Audit>,
    /// What happened, not in the file yet.
    incidents: VecDeque<Incident>,
    is_closed: bool,
}

impl Queue {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a decision, if there is room; never waits for the writer.
    pub fn send(&self, decision: Arc<Decision>) -> bool {
        let size = decision.size();
        let mut inner = self.inner();
        let held = inner.waiting.len() + inner.unsaved.len();
        let held_bytes = inner.bytes + inner.unsaved_bytes;
        self.sent.fetch_add(1, Ordering::Relaxed);
        if inner.is_closed
            || held >= MAX_WAITING
            || held_bytes + size > MAX_WAITING_BYTES
            || size > MAX_DECISION_SIZE
        {
            drop(inner);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        inner.waiting.push_back((size, decision));
        inner.bytes += size;
        let is_much = inner.waiting.len() == WAKE_AT
            || inner.bytes >= WAKE_AT_BYTES && inner.bytes - size < WAKE_AT_BYTES;
        drop(inner);
        if is_much {
            self.wake.notify_one();
        }
        true
    }

    /// Asks the writer for something.
    pub fn command(&self, command: Command) {
        self.inner().commands.push_back(command);
        self.wake.notify_one();
    }

    /// Notes who did what.
    pub fn audit(&self, audit: Audit) {
        let mut inner = self.inner();
        if inner.audits.len() >= MAX_AUDITS {
            inner.audits.pop_front();
        }
        inner.audits.push_back(audit);
    }

    /// Who did what, not in the file yet, oldest first.
    pub fn audits(&self) -> Vec<Audit> {
        self.inner().audits.iter().cloned().collect()
    }

    /// These, the oldest, are in the file.
    pub fn audits_saved(&self, saved: &[Audit]) {
        let mut inner = self.inner();
        for audit in saved {
            if inner.audits.front() == Some(audit) {
                inner.audits.pop_front();
            }
        }
    }

    /// Notes what happened.
    pub fn note(&self, incident: Incident) {
        let mut inner = self.inner();
        if inner.incidents.len() >= MAX_INCIDENTS {
            inner.incidents.pop_front();
        }
        inner.incidents.push_back(incident);
    }

    /// What happened, not in the file yet, oldest first.
    pub fn incidents(&self) -> Vec<Incident> {
        self.inner().incidents.iter().cloned().collect()
    }

    /// These, the oldest, are in the file.
    pub fn incidents_saved(&self, saved: &[Incident]) {
        let mut inner = self.inner();
        for incident in saved {
            if inner.incidents.front().is_some_and(|first| first.id == incident.id) {
                inner.incidents.pop_front();
            }
        }
    }

    /// Drops what happened to somebody and is not in the file yet.
    pub fn forget_incidents(&self, name: &str) {
        self.inner().incidents.retain(|incident| !incident.names(name));
    }

    /// Waits until much waits that can be written, something is asked, or the time is over.
    pub fn wait(&self, time: Duration, can_write: bool) {
        let is_idle = |inner: &mut Inner| {
            let is_much = inner.waiting.len() >= WAKE_AT || inner.bytes >= WAKE_AT_BYTES;
            inner.commands.is_empty() && !(is_much && can_write)
        };
        let inner = self.inner();
        drop(self.wake.wait_timeout_while(inner, time, is_idle));
    }

    /// What is asked of the writer.
    pub fn commands(&self) -> VecDeque<Command> {
        std::mem::take(&mut self.inner().commands)
    }

    /// Takes the oldest that wait. Searches find them until [`Queue::saved`].
    pub fn take(&self, most: usize) -> Vec<Arc<Decision>> {
        let mut inner = self.inner();
        let count = most.min(inner.waiting.len());
        let mut bytes = 0;
        let taken = inner.waiting.drain(..count).map(|(size, decision)| {
            bytes += size;
            decision
        });
        let taken: Vec<_> = taken.collect();
        inner.bytes -= bytes;
        inner.unsaved_bytes += bytes;
        inner.unsaved.extend(taken.iter().cloned());
        taken
    }

    /// All that were taken are in the file.
    pub fn saved(&self) {
        let mut inner = self.inner();
        let unsaved = std::mem::take(&mut inner.unsaved);
        inner.unsaved_bytes = 0;
        drop(inner);
        // Taking them apart takes time, and nobody waits for it.
        drop(unsaved);
    }

    /// What is not in the file yet, oldest first.
    pub fn held(&self) -> Vec<Arc<Decision>> {
        let inner = self.inner();
        inner.unsaved.iter().chain(inner.waiting.iter().map(|(_, decision)| decision)).cloned().collect()
    }

    /// How many are not in the file yet.
    pub fn len(&self) -> usize {
        let inner = self.inner();
        inner.waiting.len() + inner.unsaved.len()
    }

    /// Whether everything is in the file.
    pub fn is_empty(&self) -> bool {
        let inner = self.inner();
        let decisions = inner.waiting.len() + inner.unsaved.len();
        decisions == 0 && inner.audits.is_empty() && inner.incidents.is_empty()
    }

    /// Takes no more; what waits is lost.
    pub fn close(&self) {
        let mut inner = self.inner();
        inner.is_closed = true;
        let left = inner.waiting.len() + inner.unsaved.len();
        inner.waiting.clear();
        inner.unsaved.clear();
        inner.commands.clear();
        drop(inner);
        self.add_lost(left as u64);
    }

    /// Decisions that got lost otherwise.
    pub fn add_lost(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    /// How many of these the file has.
    pub fn lost_noted(&self) -> u64 {
        self.lost_noted.load(Ordering::Relaxed)
    }

    /// The file has this many of the losses more.
    pub fn note_lost(&self, count: u64) {
        self.lost_noted.fetch_add(count, Ordering::Relaxed);
    }

    /// How many got lost since the start.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// How many were sent since the start.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}
