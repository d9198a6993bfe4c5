//! The one thread that changes a SQLite database: many works a transaction, answered once it is committed.
//!
//! Knows: transactions, when a commit may be acknowledged. Must not know: what is asked for, runtimes.

use super::file::{Opened, Place, SqliteError, Standing};
use super::statement;
use crate::Failure;
use crate::messages;
use crate::sql::queue::{Queue, Taken};
use crate::sql::{Durability, Output, Work};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The works of one commit, at most. More would make the first of them wait for little gain: the price of a
/// commit is shared by a hundred already.
const BATCH: usize = 256;

/// How long nobody must have written before the write-ahead log is emptied.
const IDLE: Duration = Duration::from_secs(5);

/// The pause before an impatient file is tried again, where SQLite itself has not waited.
const PAUSE: Duration = Duration::from_millis(5);

/// A work, and who waits for it.
pub(super) struct Job {
    /// What to do.
    pub work: Arc<Work>,
    /// When its caller is gone.
    pub deadline: Instant,
    /// The caller.
    pub reply: oneshot::Sender<Answer>,
}

/// What the caller hears.
pub(super) type Answer = Result<Vec<Output>, Failure>;

/// The thread.
pub(super) struct Writer {
    place: Arc<Place>,
    queue: Arc<Queue<Job>>,
    durability: Durability,
    opened: Option<Opened>,
    /// Whether commits of this connection reach the disk at the moment.
    syncs: Option<bool>,
    /// Whether the log was told that the database can't be used.
    is_down: bool,
}

/// How much is done so that a work that fails harms no other of its batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    /// Nothing: works seldom fail. After one that does, the whole batch is done again with care.
    Little,
    /// Each work has a savepoint of its own.
    Much,
}

/// How a batch went.
enum Tried {
    /// It is committed; the answers in the order of the jobs.
    Committed(Vec<Answer>),
    /// Nothing has happened, since another process has locked the database.
    Locked,
    /// Nothing has happened in the file that is at the path.
    Moved,
    /// Nothing has happened, and nothing may.
    Denied(String),
    /// Nothing has happened.
    Broken(String),
}

impl Writer {
    /// A writer with nothing open.
    pub fn new(place: Arc<Place>, queue: Arc<Queue<Job>>, durability: Durability) -> Writer {
        Writer { place, queue, durability, opened: None, syncs: None, is_down: false }
    }

    /// Serves the queue until it is closed and empty.
    pub fn run(mut self) {
        let mut idle = None;
        loop {
            match self.queue.take(BATCH, idle) {
                Taken::Some(jobs) => {
                    self.serve(jobs);
                    idle = Some(IDLE);
                }
                Taken::Nothing => {
                    self.empty_log();
                    idle = None;
                }
                Taken::End => break,
            }
        }
        self.empty_log();
        self.close();
    }

    fn serve(&mut self, mut jobs: Vec<Job>) {
        let mut has_moved = false;
        loop {
            give_up_late(&mut jobs);
            if jobs.is_empty() {
                return;
            }
            match self.attempt(&jobs) {
                Tried::Committed(answers) => {
                    for (job, answer) in jobs.into_iter().zip(answers) {
                        let _ = job.reply.send(answer);
                    }
                    return self.is_up();
                }
                Tried::Locked => {
                    std::thread::sleep(PAUSE);
                    jobs.extend(self.queue.take_now(BATCH.saturating_sub(jobs.len())));
                }
                Tried::Moved if !has_moved => {
                    has_moved = true;
                    messages::file_replaced(self.place.name());
                    self.close();
                }
                Tried::Moved => return self.fail(jobs, "the file keeps being removed"),
                Tried::Denied(cause) => {
                    // Next time its rights may be others.
                    self.close();
                    for job in jobs {
                        let _ = job.reply.send(Err(Failure::Denied(cause.clone())));
                    }
                    return;
                }
                Tried::Broken(cause) => return self.fail(jobs, &cause),
            }
        }
    }

    /// One transaction with all jobs.
    fn attempt(&mut self, jobs: &[Job]) -> Tried {
        let tried = self.prepare(jobs).and_then(|()| match self.transact(jobs, Care::Little)? {
            Some(answers) => Ok(answers),
            None => Ok(self.transact(jobs, Care::Much)?.unwrap_or_default()),
        });
        match tried {
            Ok(answers) => match self.standing() {
                Standing::Same => Tried::Committed(answers),
                Standing::LogGone | Standing::OtherLog if self.rescue_log() => Tried::Committed(answers),
                Standing::LogGone | Standing::OtherLog => {
                    Tried::Broken("the write-ahead log was removed".to_owned())
                }
                Standing::Gone => Tried::Moved,
            },
            // An error of a file that is gone says nothing about the one that is there.
            Err(_) if self.standing() == Standing::Gone => Tried::Moved,
            Err(SqliteError::Locked) => Tried::Locked,
            Err(SqliteError::Broken(cause)) => Tried::Broken(cause),
            Err(SqliteError::Statement(Failure::Denied(cause))) => Tried::Denied(cause),
            Err(SqliteError::Statement(failure)) => Tried::Broken(failure.to_string()),
        }
    }

    fn standing(&self) -> Standing {
        self.opened.as_ref().map_or(Standing::Same, |opened| self.place.standing(opened))
    }

    /// Opens the file unless it is open, and sets how its commits are written.
    fn prepare(&mut self, jobs: &[Job]) -> Result<(), SqliteError> {
        match self.standing() {
            Standing::Same => {}
            Standing::LogGone | Standing::OtherLog => {
                self.rescue_log();
                self.close();
            }
            Standing::Gone => self.close(),
        }
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => self.place.open()?,
        };
        let opened = self.opened.insert(opened);
        if opened.is_read_only() {
            let cause = "the file or its folder is read-only".to_owned();
            return Err(SqliteError::Statement(Failure::Denied(cause)));
        }
        let syncs = self.durability == Durability::Full && jobs.iter().any(|job| job.work.durable);
        if self.syncs != Some(syncs) {
            let level = if syncs { "FULL" } else { "NORMAL" };
            let set = opened.connection.pragma_update(None, "synchronous", level);
            set.map_err(|error| SqliteError::of(&error))?;
            self.syncs = Some(syncs);
        }
        Ok(())
    }

    /// The answers once they are committed, or `None` if nothing has happened since it needs more care.
    fn transact(&mut self, jobs: &[Job], care: Care) -> Result<Option<Vec<Answer>>, SqliteError> {
        let Some(Opened { connection, .. }) = &self.opened else {
            return Err(SqliteError::Broken("not open".to_owned()));
        };
        let failed = |error: rusqlite::Error| SqliteError::of(&error);
        statement::plain(connection, "BEGIN IMMEDIATE").map_err(failed)?;
        let mut answers = Vec::with_capacity(jobs.len());
        for job in jobs {
            if job.reply.is_closed() {
                answers.push(Err(Failure::TimedOut));
                continue;
            }
            // One statement alone happens all or not at all anyway.
            let is_whole = job.work.statements.len() == 1;
            let done = match care {
                Care::Much if !is_whole => statement::work_or_nothing(connection, &job.work),
                Care::Little | Care::Much => statement::work(connection, &job.work),
            };
            match done.map_err(failed) {
                Ok(outputs) => answers.push(Ok(outputs)),
                Err(SqliteError::Statement(_)) if care == Care::Little && !is_whole => {
                    self.roll_back();
                    return Ok(None);
                }
                Err(SqliteError::Statement(failure)) if !connection.is_autocommit() => {
                    answers.push(Err(failure))
                }
                Err(SqliteError::Statement(failure)) => return Err(SqliteError::Broken(failure.to_string())),
                Err(other) => {
                    self.roll_back();
                    return Err(other);
                }
            }
        }
        // Without a write-ahead log, those who read can hold up a commit.
        let last = jobs.iter().map(|job| job.deadline).max();
        loop {
            match statement::plain(connection, "COMMIT").map_err(failed) {
                Ok(()) => return Ok(Some(answers)),
                Err(SqliteError::Locked) if last.is_some_and(|last| Instant::now() < last) => {}
                Err(other) => {
                    self.roll_back();
                    return Err(other);
                }
            }
        }
    }

    fn roll_back(&self) {
        if let Some(Opened { connection, .. }) = &self.opened
            && !connection.is_autocommit()
        {
            let _ = statement::plain(connection, "ROLLBACK");
        }
    }

    /// Moves what is in a removed write-ahead log to the file, and leaves the connection.
    fn rescue_log(&mut self) -> bool {
        messages::log_removed(self.place.name());
        let rescued = self.opened.as_ref().is_some_and(Opened::rescue_log);
        self.close();
        rescued
    }

    /// Nobody gets an answer; the next batch finds the file opened again.
    fn fail(&mut self, jobs: Vec<Job>, cause: &str) {
        self.close();
        if !std::mem::replace(&mut self.is_down, true) {
            messages::down(self.place.name(), cause);
        }
        for job in jobs {
            let _ = job.reply.send(Err(Failure::Down(cause.into())));
        }
    }

    fn is_up(&mut self) {
        if std::mem::replace(&mut self.is_down, false) {
            messages::back(self.place.name());
        }
    }

    /// Moves the write-ahead log into the file, so that it does not stay large.
    fn empty_log(&self) {
        if let Some(opened) = &self.opened
            && self.place.standing(opened) == Standing::Same
        {
            // If somebody still reads there it is done another time.
            let _ = opened.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }

    fn close(&mut self) {
        self.syncs = None;
        self.opened = None;
    }
}

/// Drops the jobs whose callers are gone.
fn give_up_late(jobs: &mut Vec<Job>) {
    let now = Instant::now();
    jobs.retain(|job| job.deadline > now && !job.reply.is_closed());
}
