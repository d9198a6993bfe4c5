//! The threads that answer queries of a SQLite database, each with a connection of its own.
//!
//! One of them is awake while queries come, and answers those that wait in one transaction. Such a
//! transaction begins after the last of its queries was asked, so each sees whatever was acknowledged before.
//!
//! Knows: when a connection has to be opened again. Must not know: runtimes, what is asked for.

use super::file::{Opened, Place, SqliteError, Standing};
use super::statement;
use crate::Failure;
use crate::sql::{Output, Work};
use rusqlite::InterruptHandle;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The pause before a locked file is tried again, where SQLite itself has not waited.
const PAUSE: Duration = Duration::from_millis(5);

/// A query, and who waits for it.
pub(super) struct Query {
    /// What to ask: a single statement.
    pub work: Arc<Work>,
    /// When its caller is gone.
    pub deadline: Instant,
    /// What its caller ends it by.
    pub running: Running,
    /// The caller.
    pub reply: oneshot::Sender<Result<Vec<Output>, Failure>>,
}

/// A query that may be at work: dropped by the caller, it is interrupted.
#[derive(Clone, Default)]
pub(super) struct Running(Arc<Mutex<Option<InterruptHandle>>>);

/// Interrupts the query when the caller is gone.
pub(super) struct GivenUp(pub Running);

impl Drop for GivenUp {
    fn drop(&mut self) {
        if let Some(handle) = self.0.lock().as_ref() {
            handle.interrupt();
        }
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Option<InterruptHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The queries that wait, and the readers that sleep until they are called.
pub(super) struct Queries {
    state: Mutex<State>,
    called: Condvar,
    bound: usize,
    readers: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Query>,
    /// Queries taken so far.
    taken: u64,
    /// Readers that are at work or have been called.
    awake: usize,
    /// Calls that no reader has heard yet.
    calls: usize,
    closed: bool,
}

impl Queries {
    /// None yet; at most this many may wait for this many readers.
    pub fn new(bound: usize, readers: usize) -> Queries {
        Queries { state: Mutex::default(), called: Condvar::new(), bound, readers }
    }

    /// Adds one at the end, or gives it back if too many wait. A reader is woken if none is awake.
    pub fn push(&self, query: Query) -> Result<(), Query> {
        let mut state = self.lock();
        if state.closed || state.waiting.len() >= self.bound {
            return Err(query);
        }
        state.waiting.push_back(query);
        if state.awake == 0 {
            self.call(state);
        }
        Ok(())
    }

    /// Wakes one more reader if any query waits.
    pub fn wake_another(&self) {
        let state = self.lock();
        if !state.waiting.is_empty() && state.awake < self.readers {
            self.call(state);
        }
    }

    /// Nothing may be added any more; queries that wait are still answered.
    pub fn close(&self) {
        self.lock().closed = true;
        self.called.notify_all();
    }

    fn call(&self, mut state: MutexGuard<'_, State>) {
        state.awake += 1;
        state.calls += 1;
        drop(state);
        self.called.notify_one();
    }

    /// Sleeps until this reader is called: `false` if there is nothing to do any more.
    fn wait(&self) -> bool {
        let mut state = self.lock();
        loop {
            if state.calls > 0 {
                state.calls -= 1;
                return true;
            }
            if state.closed {
                return false;
            }
            state = self.called.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The first query and the number of the last one that waits with it; `None` if the reader may sleep.
    fn first(&self) -> Option<(Query, u64)> {
        let mut state = self.lock();
        let Some(query) = state.waiting.pop_front() else {
            state.awake -= 1;
            return None;
        };
        state.taken += 1;
        let last = state.taken + state.waiting.len() as u64;
        Some((query, last))
    }

    /// The next query up to that number, unless other readers have taken them.
    fn next(&self, last: u64) -> Option<Query> {
        let mut state = self.lock();
        if state.taken >= last {
            return None;
        }
        state.taken += 1;
        state.waiting.pop_front()
    }

    /// Whether a query up to that number waits.
    fn has_more(&self, last: u64) -> bool {
        self.lock().taken < last
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves the queries until they are closed and none waits.
pub(super) fn run(place: &Place, queries: &Queries) {
    let mut reader = Reader { place, opened: None, shares: false };
    while queries.wait() {
        while let Some((first, last)) = queries.first() {
            let mut next = Some(first);
            while let Some(query) = next {
                reader.serve(query, || queries.has_more(last));
                next = queries.next(last);
            }
            reader.end_sharing();
        }
    }
}

struct Reader<'a> {
    place: &'a Place,
    opened: Option<Opened>,
    /// Whether a transaction for several queries is open.
    shares: bool,
}

impl Reader<'_> {
    fn serve(&mut self, query: Query, has_more: impl Fn() -> bool) {
        while !query.reply.is_closed() && Instant::now() < query.deadline {
            let answer = self.attempt(&query, &has_more);
            if answer.is_err() {
                self.end_sharing();
            }
            let answer = match answer {
                Err(SqliteError::Locked) => {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(SqliteError::Broken(cause)) => {
                    self.opened = None;
                    Err(Failure::Down(cause.into()))
                }
                Err(SqliteError::Statement(failure)) => Err(failure),
                Ok(output) => Ok(vec![output]),
            };
            let _ = query.reply.send(answer);
            return;
        }
    }

    fn attempt(&mut self, query: &Query, has_more: impl Fn() -> bool) -> Result<Output, SqliteError> {
        let failed = |error: rusqlite::Error| SqliteError::of(&error);
        if !self.shares {
            self.open()?;
        }
        let (Some(opened), [statement]) = (&self.opened, query.work.statements.as_slice()) else {
            return Err(SqliteError::Broken("no connection, or not one statement".to_owned()));
        };
        let connection = &opened.connection;
        *query.running.lock() = Some(connection.get_interrupt_handle());
        let output = connection.prepare_cached(&statement.sql).and_then(|prepared| {
            let may_share = statement::only_reads(&prepared) && !opened.is_read_only();
            if self.shares && !may_share {
                statement::plain(connection, "ROLLBACK")?;
                self.shares = false;
            } else if !self.shares && may_share && has_more() {
                statement::plain(connection, "BEGIN")?;
                self.shares = true;
            }
            statement::run(prepared, connection, statement)
        });
        // From here on nobody interrupts what the connection does next.
        *query.running.lock() = None;
        if opened.is_read_only() && self.place.standing(opened) != Standing::Same {
            // Somebody wrote while it was read, perhaps without a lock: what was read may be of two times.
            return Err(SqliteError::Locked);
        }
        if !self.shares && !connection.is_autocommit() {
            // A transaction that the administrator's statement has begun would keep others out.
            let _ = statement::plain(connection, "ROLLBACK");
        }
        output.map_err(failed)
    }

    /// Makes sure that the connection is that of the file at the path.
    fn open(&mut self) -> Result<(), SqliteError> {
        let standing = self.opened.as_ref().map_or(Standing::Same, |opened| self.place.standing(opened));
        // What is in a log that was removed is to be read until the writer has saved it.
        if matches!(standing, Standing::Gone | Standing::OtherLog) {
            self.opened = None;
        }
        if self.opened.is_none() {
            self.opened = Some(self.place.open()?);
        }
        Ok(())
    }

    /// Ends the transaction of several queries, if there is one.
    fn end_sharing(&mut self) {
        if std::mem::replace(&mut self.shares, false)
            && let Some(opened) = &self.opened
            && !opened.connection.is_autocommit()
        {
            let _ = statement::plain(&opened.connection, "ROLLBACK");
        }
    }
}
