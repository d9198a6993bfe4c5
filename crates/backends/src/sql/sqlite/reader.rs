//! The threads that answer queries of a SQLite database, each with a connection of its own.
//!
//! Knows: when a connection has to be opened again. Must not know: transactions, runtimes.

use super::file::{Opened, Place, Standing, Trouble};
use super::statement;
use crate::Failure;
use crate::sql::queue::{Queue, Taken};
use crate::sql::{Row, Statement};
use rusqlite::InterruptHandle;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The pause before a locked file is tried again, where SQLite itself has not waited.
const PAUSE: Duration = Duration::from_millis(5);

/// A query, and who waits for it.
pub(super) struct Query {
    /// What to ask.
    pub statement: Statement,
    /// When its caller is gone.
    pub deadline: Instant,
    /// What its caller ends it by.
    pub running: Running,
    /// The caller.
    pub reply: oneshot::Sender<Result<Vec<Row>, Failure>>,
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

/// Serves the queue until it is closed and empty.
pub(super) fn run(place: &Place, queue: &Queue<Query>) {
    let mut opened = None;
    while let Taken::Some(queries) = queue.take(1, None) {
        for query in queries {
            serve(place, &mut opened, query);
        }
    }
}

fn serve(place: &Place, opened: &mut Option<Opened>, query: Query) {
    while !query.reply.is_closed() && Instant::now() < query.deadline {
        let answer = match attempt(place, opened, &query) {
            Err(Trouble::Locked) => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Err(Trouble::Broken(cause)) => {
                *opened = None;
                Err(Failure::Down(cause.into()))
            }
            Err(Trouble::Statement(failure)) => Err(failure),
            Ok(rows) => Ok(rows),
        };
        let _ = query.reply.send(answer);
        return;
    }
}

fn attempt(place: &Place, opened: &mut Option<Opened>, query: &Query) -> Result<Vec<Row>, Trouble> {
    let standing = opened.as_ref().map_or(Standing::Same, |opened| place.standing(opened));
    // What is in a log that was removed is to be read until the writer has saved it.
    if matches!(standing, Standing::Gone | Standing::OtherLog) {
        *opened = None;
    }
    let fresh = match opened.take() {
        Some(opened) => opened,
        None => place.open()?,
    };
    let opened = &*opened.insert(fresh);
    let connection = &opened.connection;
    *query.running.lock() = Some(connection.get_interrupt_handle());
    let output = statement::statement(connection, &query.statement);
    // From here on nobody interrupts what the connection does next.
    *query.running.lock() = None;
    if opened.is_read_only() && place.standing(opened) != Standing::Same {
        // Somebody wrote while it was read, perhaps without a lock: what was read may be of two times.
        return Err(Trouble::Locked);
    }
    if !connection.is_autocommit() {
        // A transaction that the administrator's statement has begun would keep others out.
        let _ = statement::plain(connection, "ROLLBACK");
    }
    Ok(output.map_err(|error| Trouble::of(&error))?.rows)
}
