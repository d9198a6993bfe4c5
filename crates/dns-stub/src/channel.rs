//! A way to a server, a port or a connection, and the questions whose answers are waited for on it.
//!
//! Knows: identifiers, deadlines of single messages. Must not know: what is done about an answer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::flight::Flight;
use crate::name::Name;
use crate::network::Link;
use crate::random::Random;
use crate::server::Server;

/// The number of questions that a port takes, and for how long.
const MAX_USES: u32 = 64;
const MAX_AGE: Duration = Duration::from_secs(10);

/// After this many unexpected messages, a port takes no more questions: somebody is guessing.
const MAX_JUNK: u32 = 16;

/// One port or connection.
pub(crate) struct Channel {
    pub server: Arc<Server>,
    pub link: Link,
    opened: Instant,
    uses: AtomicU32,
    junk: AtomicU32,
    waiting: Mutex<WaitList>,
    /// The task that reads.
    reader: OnceLock<AbortHandle>,
}

/// The questions that wait on a channel.
#[derive(Default)]
struct WaitList {
    queries: Vec<Query>,
    is_closed: bool,
}

/// One message that was sent.
pub(crate) struct Query {
    pub id: u16,
    pub flight: Arc<Flight>,
    /// The name that is asked about; an alias may have led to it.
    pub name: Name,
    /// As it was sent.
    pub message: Arc<[u8]>,
    /// When it is sent again.
    pub resend: Option<Instant>,
    /// When it is given up.
    pub due: Instant,
}

/// What has to be done for a channel now.
#[derive(Default)]
pub(crate) struct Due {
    pub resend: Vec<Arc<[u8]>>,
    pub given_up: Vec<Query>,
    pub is_idle: bool,
}

impl Channel {
    pub fn new(server: Arc<Server>, link: Link, now: Instant) -> Self {
        Self {
            server,
            link,
            opened: now,
            uses: AtomicU32::new(0),
            junk: AtomicU32::new(0),
            waiting: Mutex::default(),
            reader: OnceLock::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, WaitList> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names the task that reads, which ends with the channel.
    pub fn read_by(&self, reader: AbortHandle) {
        if let Err(reader) = self.reader.set(reader) {
            reader.abort();
        }
    }

    /// Whether it takes no more questions.
    pub fn is_spent(&self, now: Instant) -> bool {
        self.uses.load(Ordering::Relaxed) >= MAX_USES
            || self.junk.load(Ordering::Relaxed) >= MAX_JUNK
            || now.saturating_duration_since(self.opened) >= MAX_AGE
    }

    /// Adds questions; `write` makes each into a message with an identifier that none of the others has.
    /// `None` if the channel was closed.
    pub fn wait_for<T>(
        &self,
        questions: &[T],
        random: &Random,
        mut write: impl FnMut(&T, u16) -> Query,
    ) -> Option<Vec<Arc<[u8]>>> {
        let mut messages = Vec::with_capacity(questions.len());
        let mut waiting = self.waiting();
        if waiting.is_closed {
            return None;
        }
        self.uses.fetch_add(u32::try_from(questions.len()).unwrap_or(u32::MAX), Ordering::Relaxed);
        waiting.queries.reserve(questions.len());
        for question in questions {
            let mut id = random.id();
            while waiting.queries.iter().any(|query| query.id == id) {
                id = id.wrapping_add(random.id() | 1);
            }
            let query = write(question, id);
            messages.push(Arc::clone(&query.message));
            waiting.queries.push(query);
        }
        Some(messages)
    }

    /// The question that a message answers by its identifier, and what it says. The question goes on waiting
    /// if `read` says that the message is not an answer.
    pub fn take<T>(&self, message: &[u8], read: impl FnOnce(&Query) -> Option<T>) -> Option<(Query, T)> {
        let id = u16::from_be_bytes(*message.first_chunk()?);
        let mut waiting = self.waiting();
        let place = waiting.queries.iter().position(|query| query.id == id);
        let answer = place.and_then(|place| Some((place, read(&waiting.queries[place])?)));
        let Some((place, answer)) = answer else {
            self.junk.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        Some((waiting.queries.swap_remove(place), answer))
    }

    /// What has to be sent again or given up by now.
    pub fn due(&self, now: Instant) -> Due {
        let mut due = Due::default();
        let mut waiting = self.waiting();
        let mut place = 0;
        while place < waiting.queries.len() {
            let query = &mut waiting.queries[place];
            if query.due <= now {
                due.given_up.push(waiting.queries.swap_remove(place));
                continue;
            }
            if query.resend.is_some_and(|resend| resend <= now) {
                query.resend = None;
                due.resend.push(Arc::clone(&query.message));
            }
            place += 1;
        }
        due.is_idle = waiting.queries.is_empty();
        due
    }

    /// Closes the channel if nobody waits on it; says whether it is closed.
    pub fn close_if_idle(&self) -> bool {
        let mut waiting = self.waiting();
        if !waiting.queries.is_empty() {
            return false;
        }
        waiting.is_closed = true;
        drop(waiting);
        self.stop();
        true
    }

    /// Closes the channel and gives up what waits on it.
    pub fn close(&self) -> Vec<Query> {
        let mut waiting = self.waiting();
        waiting.is_closed = true;
        let queries = std::mem::take(&mut waiting.queries);
        drop(waiting);
        self.stop();
        queries
    }

    /// The number of waiting questions.
    pub fn waits(&self) -> usize {
        self.waiting().queries.len()
    }

    fn stop(&self) {
        if let Some(reader) = self.reader.get() {
            reader.abort();
        }
    }
}
