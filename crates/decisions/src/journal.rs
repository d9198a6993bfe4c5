//! The journal: decisions in a file or a database, written off the path of requests, and their search.
//!
//! A decision is handed to a queue that never waits. A thread puts decisions into blocks of up to 256, which
//! are compressed and have a filter that says which addresses may occur in them, and writes the blocks to a
//! SQLite file, or to a database that several daemons share, each second.
//!
//! Knows: decisions, SQL. Must not know: plugins, sockets, who asks, how events are logged.

mod block;
mod bloom;
mod bytes;
mod codec;
#[cfg(test)]
mod codec_tests;
pub mod contents;
pub mod database;
mod file;
mod found;
mod image;
mod in_file;
mod incident;
mod job;
mod marks;
mod oldest_first;
mod privacy;
mod pseudonym;
mod queue;
mod report;
mod retention;
mod save;
mod search;
#[cfg(test)]
mod search_tests;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use found::{Audit, Coverage, Event, Found, JournalError, Progress, Status};
pub use incident::{Incident, MAX_INCIDENTS};
pub use oldest_first::OldestFirst;
pub use search::JournalFile;
pub use settings::{Privacy, Record, Settings};

use crate::{Decision, DecisionId, Filter};
use queue::{Command, Queue};
use search::{Place, Wanted};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};
use writer::{State, Writer};

/// How long somebody waits until everything about an address is removed.
const FORGET_PATIENCE: Duration = Duration::from_secs(600);
/// How often it is looked whether the writer has ended.
const LOOK: Duration = Duration::from_millis(5);

/// A journal that is written to.
pub struct Journal {
    queue: Arc<Queue>,
    state: Arc<Mutex<State>>,
    settings: Mutex<Settings>,
    /// Only decisions in which something was done are recorded.
    only_acted: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Begins to write, by a thread of its own. What is wrong with the place is an event, and is tried again
    /// each second; so it is made by the user who the process is by then.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn open(settings: Settings, on_event: impl Fn(Event) + Send + 'static) -> std::io::Result<Journal> {
        let (queue, state) = (Arc::<Queue>::default(), Arc::<Mutex<State>>::default());
        let kept = Mutex::new(settings.clone());
        let only_acted = AtomicBool::new(settings.record == Record::Acted);
        let writer = Writer::new(Arc::clone(&queue), Arc::clone(&state), settings, Box::new(on_event));
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(|| writer.run())?;
        Ok(Journal { queue, state, settings: kept, only_acted, thread: Mutex::new(Some(thread)) })
    }

    /// Goes on with other settings.
    pub fn change(&self, settings: Settings) {
        locked(&self.settings).clone_from(&settings);
        self.only_acted.store(settings.record == Record::Acted, Ordering::Relaxed);
        self.queue.command(Command::Settings(settings));
    }

    /// Hands over a decision; false if it got lost, since too many wait. It takes less than a microsecond.
    pub fn send(&self, decision: Arc<Decision>) -> bool {
        if self.only_acted.load(Ordering::Relaxed) && !decision.is_acted() && decision.shadow.is_none() {
            return true;
        }
        self.queue.send(decision)
    }

    /// Looks for decisions, newest first: for `limit` of them that are older than `before`. Blocks while it
    /// reads the file. If it is cancelled, or its time is over, it returns what it has found so far, and from
    /// where to go on. What was sent within the last second is found as it was sent, with names that
    /// `privacy` replaces later.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn search(
        &self,
        filter: &Filter,
        limit: usize,
        before: Option<DecisionId>,
        progress: &Progress,
    ) -> Result<Found, JournalError> {
        // Before the file: what is no longer here then is there.
        let held = self.queue.held();
        let wanted = Wanted { filter, limit, before, progress };
        let found = self.noticing_damage(|place| place.search(held.clone(), &wanted));
        match found {
            // It is made soon.
            Err(JournalError::Missing(_)) => Ok(search::search_held(held, &wanted)),
            Ok(mut found) => {
                found.covered.lost += self.lost_unnoted();
                Ok(found)
            }
            Err(error) => Err(error),
        }
    }

    /// What it holds.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn coverage(&self) -> Result<Coverage, JournalError> {
        match self.noticing_damage(Place::covered) {
            Err(JournalError::Missing(_)) => Ok(Coverage::default()),
            Ok(covered) => Ok(Coverage { lost: covered.lost + self.lost_unnoted(), ..covered }),
            Err(error) => Err(error),
        }
    }

    /// Losses that the file does not know yet.
    fn lost_unnoted(&self) -> u64 {
        self.queue.lost().saturating_sub(self.queue.lost_noted())
    }

    /// The decision with this identifier.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn get(&self, id: DecisionId) -> Result<Option<Arc<Decision>>, JournalError> {
        let held = self.queue.held().into_iter().rev().find(|decision| decision.id == id);
        match held {
            Some(decision) => Ok(Some(decision)),
            None => match self.noticing_damage(|place| place.get(id)) {
                Err(JournalError::Missing(_)) => Ok(None),
                found => found,
            },
        }
    }

    /// Removes every decision in which an address of a mailbox, or a login, occurs: how many it was. Blocks
    /// until all blocks were looked at; a large journal takes minutes. `who` is noted.
    ///
    /// # Errors
    /// The file can't be changed.
    pub fn forget(&self, address: &str, who: &str) -> Result<u64, JournalError> {
        if address.trim().is_empty() {
            return Ok(0);
        }
        let (done, answer) = mpsc::sync_channel(1);
        let (address, who) = (address.to_owned(), who.to_owned());
        self.queue.command(Command::Forget { address, who, done });
        answer.recv_timeout(FORGET_PATIENCE).unwrap_or(Err(JournalError::Busy))
    }

    /// Notes who searched or changed what.
    pub fn audit(&self, who: &str, what: &str) {
        let at = DecisionId::first_at(SystemTime::now());
        self.queue.audit(Audit { at, who: who.to_owned(), what: what.to_owned() });
    }

    /// The latest of these notes, newest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn audits(&self, limit: usize) -> Result<Vec<Audit>, JournalError> {
        let waiting = self.queue.audits();
        let mut audits = match self.noticing_damage(|place| place.audits(limit)) {
            Err(JournalError::Missing(_)) => Vec::new(),
            audits => audits?,
        };
        for audit in waiting {
            if !audits.contains(&audit) {
                audits.insert(0, audit);
            }
        }
        audits.truncate(limit);
        Ok(audits)
    }

    /// Notes something that began or ended.
    pub fn note(&self, incident: Incident) {
        self.queue.note(incident);
    }

    /// The latest of these, newest first.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn incidents(&self, limit: usize) -> Result<Vec<Incident>, JournalError> {
        let waiting = self.queue.incidents();
        let mut incidents = match self.noticing_damage(|place| place.incidents(limit)) {
            Err(JournalError::Missing(_)) => Vec::new(),
            incidents => incidents?,
        };
        for incident in waiting {
            if !incidents.iter().any(|known| known.id == incident.id) {
                incidents.insert(0, incident);
            }
        }
        incidents.truncate(limit);
        Ok(incidents)
    }

    /// How it does.
    pub fn status(&self) -> Status {
        let State { used, held, failure } = locked(&self.state).clone();
        let file = locked(&self.settings).place();
        let (sent, lost, waiting) = (self.queue.sent(), self.queue.lost(), self.queue.len() as u64);
        Status { file, sent, waiting, lost, used, held, failure }
    }

    /// Takes no more, writes what waits and ends; false if that takes longer.
    pub fn close(&self, within: Duration) -> bool {
        let end = Instant::now() + within;
        self.queue.command(Command::End(end));
        let Some(thread) = locked(&self.thread).take() else { return true };
        while !thread.is_finished() && Instant::now() < end {
            thread::sleep(LOOK);
        }
        thread.is_finished() && thread.join().is_ok()
    }

    /// Reads the file; tells the writer of damage, so that it looks whether the file is still usable.
    fn noticing_damage<T>(
        &self,
        read: impl FnOnce(&Place) -> Result<T, JournalError>,
    ) -> Result<T, JournalError> {
        let place = Place::of(&locked(&self.settings));
        let result = read(&place);
        if matches!(result, Err(JournalError::Damaged { .. })) {
            self.queue.command(Command::Suspect);
        }
        result
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
