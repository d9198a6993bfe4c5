//! SQLite: a thread that writes and some that read, started when they are first needed.
//!
//! Knows: threads, deadlines. Must not know: what the tables are for.

mod file;
mod reader;
mod statement;
mod writer;

use super::dsn::SqliteSource;
use super::queue::Queue;
use super::server::Kind;
use super::{Durability, Output, Work};
use crate::{Failure, OptionError};
use file::Place;
use reader::{GivenUp, Queries, Query, Running};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};
use writer::{Job, Writer};

/// The jobs that may wait for a thread: more than all connections to the daemon have requests.
const WAITING: usize = 4_096;

/// The threads that read. One serves all queries that come while it is awake; the others are for those that
/// wait behind a slow one, as a query of the administrator's may be.
const READERS: usize = 4;

/// A query that has waited for so long has another reader woken.
const SLOW: Duration = Duration::from_millis(2);

/// A database in a file, or in memory.
pub(super) struct Sqlite {
    place: Arc<Place>,
    durability: Durability,
    jobs: Arc<Queue<Job>>,
    queries: Arc<Queries>,
    threads: Mutex<Threads>,
}

#[derive(Default)]
struct Threads {
    writer: Option<JoinHandle<()>>,
    readers: usize,
}

impl Sqlite {
    /// A database; the file is not touched yet. Never fails.
    pub fn new(source: SqliteSource, name: Arc<str>, durability: Durability) -> Result<Sqlite, OptionError> {
        Ok(Sqlite {
            place: Arc::new(Place::new(source, name)),
            durability,
            jobs: Arc::new(Queue::new(WAITING)),
            queries: Arc::new(Queries::new(WAITING, READERS)),
            threads: Mutex::default(),
        })
    }

    /// Does a work in a transaction, or asks the query that is its only statement.
    pub async fn run_as(
        &self,
        kind: Kind,
        work: Arc<Work>,
        deadline: Instant,
    ) -> Result<Vec<Output>, Failure> {
        if kind == Kind::Query && !self.place.in_memory() {
            match self.read(work.clone(), deadline).await {
                // What is wrong with the file is the writer's matter; it may know how to go on.
                Err(Failure::Down(_)) => {}
                answer => return answer,
            }
        }
        self.write(work, deadline).await
    }

    async fn write(&self, work: Arc<Work>, deadline: Instant) -> Result<Vec<Output>, Failure> {
        self.start_writer()?;
        let (reply, answer) = oneshot::channel();
        let job = Job { work, deadline: deadline.into_std(), reply };
        self.jobs.push(job).map_err(|_| too_many())?;
        heard(timeout_at(deadline, answer).await)
    }

    async fn read(&self, work: Arc<Work>, deadline: Instant) -> Result<Vec<Output>, Failure> {
        self.start_readers()?;
        let (reply, mut answer) = oneshot::channel();
        let running = Running::default();
        let _given_up = GivenUp(running.clone());
        let query = Query { work, deadline: deadline.into_std(), running, reply };
        self.queries.push(query).map_err(|_| too_many())?;
        // Usually one reader serves all: it is cheaper than waking others. This query may be behind a slow
        // one.
        let soon = deadline.min(Instant::now() + SLOW);
        if let Ok(answer) = timeout_at(soon, &mut answer).await {
            return heard(Ok::<_, Elapsed>(answer));
        }
        self.queries.wake_another();
        heard(timeout_at(deadline, answer).await)
    }

    fn start_writer(&self) -> Result<(), Failure> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.writer.is_none() {
            let writer = Writer::new(self.place.clone(), self.jobs.clone(), self.durability);
            threads.writer = Some(start("sqlite-writer", move || writer.run())?);
        }
        Ok(())
    }

    fn start_readers(&self) -> Result<(), Failure> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        while threads.readers < READERS {
            let (place, queries) = (self.place.clone(), self.queries.clone());
            start("sqlite-reader", move || reader::run(&place, &queries))?;
            threads.readers += 1;
        }
        Ok(())
    }
}

impl Drop for Sqlite {
    /// What is queued is still done: its callers are gone, so that is nothing, but a commit on its way ends.
    fn drop(&mut self) {
        self.jobs.close();
        self.queries.close();
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = threads.writer.take() {
            let _ = writer.join();
        }
    }
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
    thread.map_err(|error| Failure::Down(format!("can't start a thread: {error}").into()))
}

fn too_many() -> Failure {
    Failure::Refused(format!("too many waiting (more than {WAITING})"))
}

/// A job that was given up on the other side has lost its sender.
fn heard<T, E>(
    answer: Result<Result<Result<T, Failure>, oneshot::error::RecvError>, E>,
) -> Result<T, Failure> {
    answer.unwrap_or(Ok(Err(Failure::TimedOut))).unwrap_or(Err(Failure::TimedOut))
}

#[cfg(test)]
mod tests;
