//! A server of a database: connections that are kept, each used by one work at a time.
//!
//! Knows: deadlines, which failures leave a connection usable, the breaker. Must not know: any protocol.

mod slots;

use self::slots::{Open, Slot, Slots};
use super::{Output, Work};
use crate::{BackendError, Breaker, Call, CallError, Failure, Guarded, Throttle, messages};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a connection may have been idle and is still believed to work. One that the server closed while
/// nobody looked must not fail a request, and a look costs a round trip.
const TRUSTED: Duration = Duration::from_millis(500);

/// How often a work is done again that the server has undone because others were in its way.
const REPEATS: u32 = 20;

/// How much longer is waited before each time, so that those who were in each other's way part.
const REPEAT_PAUSE: Duration = Duration::from_millis(2);

/// How long works wait for a server that has just gone away: one that is started again after a crash, or in
/// whose place another is put, is back within seconds. It is counted from the beginning of the outage, so
/// that a server that stays away delays the works of its first seconds only.
const RETURN_LIMIT: Duration = Duration::from_secs(10);

/// How long to wait before the next try meanwhile.
const RETURN_PAUSE: Duration = Duration::from_millis(100);

/// How long a kept connection has to answer a try of the breaker's.
const KEPT_LIMIT: Duration = Duration::from_millis(300);

/// How one kind of server is spoken to.
pub(super) trait Driver: Send + Sync + 'static {
    /// A connection. Dropping it closes it.
    type Connection: Send + 'static;

    /// Makes a connection.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, WorkError>> + Send;

    /// Whether the connection is not known to be closed.
    fn is_open(connection: &mut Self::Connection) -> bool;

    /// Whether the server answers on a connection.
    fn ping(connection: &mut Self::Connection) -> impl Future<Output = bool> + Send;

    /// Does a work. What only asks is one statement, outside any transaction.
    fn run(
        &self,
        connection: &mut Self::Connection,
        work: &Work,
        kind: Kind,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Output>, WorkError>> + Send;
}

/// What a work may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only asks, so it can be done twice.
    Query,
    /// It changes something.
    Change,
}

/// Why something failed, by what is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WorkError {
    /// There is no connection to be had.
    Unreachable(String),
    /// The server accepts no more connections than it has, perhaps from this user.
    TooManyConnections(String),
    /// The connection is lost, and perhaps the server. Whether the work was done nobody knows.
    Lost(String),
    /// The connection is lost before anything was done.
    NotStarted(String),
    /// The server does not do such works now, as one that another has taken over from: ask that one. Nothing
    /// was done.
    WrongServer(String),
    /// The server has undone the work since another one was in its way: do it again.
    RolledBack(String),
    /// The server said no. The work was not done, and the connection works.
    Refused(Failure),
}

impl WorkError {
    /// The same, where nothing can have been done yet.
    pub fn before_anything(self) -> WorkError {
        match self {
            WorkError::Lost(cause) => WorkError::NotStarted(cause),
            other => other,
        }
    }

    /// One that a new connection has.
    fn of_connecting(self) -> WorkError {
        match self {
            WorkError::Lost(cause) | WorkError::NotStarted(cause) => WorkError::Unreachable(cause),
            other => other,
        }
    }
}

/// A server and the connections to it.
pub(super) struct Server<D: Driver>(Guarded<Inner<D>>);

struct Inner<D: Driver> {
    driver: D,
    connection: Arc<str>,
    slots: Slots,
    idle: Mutex<Vec<(Open<D::Connection>, Instant)>>,
    complaints: Throttle,
}

impl<D: Driver> Server<D> {
    /// A server; nothing is connected yet. At most `bound` connections are open, apart from a try of the
    /// breaker's.
    pub fn new(driver: D, breaker: Arc<Breaker>, limit: Duration, bound: usize) -> Server<D> {
        let (connection, slots) = (breaker.connection().clone(), Slots::new(bound));
        let (idle, complaints) = (Mutex::default(), Throttle::default());
        let inner = Inner { driver, connection, slots, idle, complaints };
        Server(Guarded::new(breaker, limit, inner))
    }

    /// Does a work.
    pub async fn run(&self, work: &Work, kind: Kind, call: Call<'_>) -> Result<Vec<Output>, BackendError> {
        let (inner, breaker) = (&self.0, self.0.breaker());
        if breaker.check().is_err() {
            // A call that had no more time has found it gone; this one has.
            breaker.wait(RETURN_LIMIT, call.deadline()).await;
        }
        let done = async {
            inner.run_when_back(work, kind, call.deadline(), breaker).await.map_err(|error| match error {
                WorkError::Refused(failure) => CallError::Failed(failure),
                WorkError::RolledBack(cause) | WorkError::WrongServer(cause) => {
                    CallError::Failed(Failure::Refused(cause))
                }
                WorkError::Lost(cause) | WorkError::NotStarted(cause) => {
                    // Connections made before are probably broken too. Whether the server is, the next work
                    // finds out: an administrator may have ended just this connection.
                    inner.idle().clear();
                    CallError::Failed(Failure::Down(cause.into()))
                }
                WorkError::Unreachable(cause) | WorkError::TooManyConnections(cause) => {
                    CallError::Down(cause)
                }
            })
        };
        inner.call(done, call).await
    }
}

impl<D: Driver> Inner<D> {
    /// Does a work, once the server is back if it has just gone. What may have been done is not done again.
    async fn run_when_back(
        &self,
        work: &Work,
        kind: Kind,
        deadline: Instant,
        breaker: &Breaker,
    ) -> Result<Vec<Output>, WorkError> {
        loop {
            let failed = match self.run(work, kind, deadline).await {
                Err(failed @ (WorkError::Unreachable(_) | WorkError::NotStarted(_) | WorkError::Lost(_))) => {
                    failed
                }
                done => {
                    breaker.served();
                    return done;
                }
            };
            let may_be_done = matches!(failed, WorkError::Lost(_)) && kind == Kind::Change;
            breaker.not_serving();
            let until = breaker.worth_waiting(RETURN_LIMIT).map(|until| until.min(deadline));
            let next = Instant::now() + RETURN_PAUSE;
            if may_be_done || until.is_none_or(|until| next >= until) {
                return Err(failed);
            }
            sleep_until(next).await;
        }
    }

    /// A connection is kept only after an answer: if this is dropped on its way, or the connection is lost,
    /// it is closed. One that was kept and turns out dead is replaced once, if nothing was done on it that
    /// must not be done twice; so is one to a server that is the wrong one by now.
    async fn run(&self, work: &Work, kind: Kind, deadline: Instant) -> Result<Vec<Output>, WorkError> {
        let mut slot = self.slots.take().await?;
        let (mut connection, mut was_kept) = self.connection(&mut slot, false).await?;
        let mut may_move = true;
        let mut repeats = 0;
        loop {
            let failed = match self.driver.run(&mut connection.inner, work, kind, deadline).await {
                Err(failed) => failed,
                done => {
                    self.keep(connection);
                    return done;
                }
            };
            let replace = match &failed {
                WorkError::NotStarted(_) => was_kept,
                WorkError::Lost(_) => was_kept && kind == Kind::Query,
                WorkError::WrongServer(_) => std::mem::replace(&mut may_move, false),
                _ => false,
            };
            match failed {
                _ if replace => {
                    // The others lead to the same server.
                    self.idle().clear();
                    drop(connection);
                    (connection, was_kept) = self.connection(&mut slot, true).await?;
                }
                WorkError::RolledBack(_) if repeats < REPEATS => {
                    repeats += 1;
                    tokio::time::sleep(REPEAT_PAUSE * repeats).await;
                }
                WorkError::Refused(_) | WorkError::RolledBack(_) => {
                    self.keep(connection);
                    return Err(failed);
                }
                _ => return Err(failed),
            }
        }
    }

    /// A connection, `new` or not, and whether it was kept from earlier. Where the server accepts no more
    /// than there are, it is one of those, once nobody uses it.
    async fn connection<'a>(
        &'a self,
        slot: &mut Slot<'a>,
        mut new: bool,
    ) -> Result<(Open<D::Connection>, bool), WorkError> {
        loop {
            if let Some(connection) = if new { None } else { self.kept().await } {
                return Ok((connection, true));
            }
            match self.connect().await {
                Err(WorkError::TooManyConnections(cause)) if self.slots.open() > 0 => {
                    if self.complaints.is_due() {
                        messages::no_more_connections(&self.connection, &cause);
                    }
                    slot.change().await?;
                    new = false;
                }
                connection => return Ok((connection.map_err(WorkError::of_connecting)?, false)),
            }
        }
    }

    async fn kept(&self) -> Option<Open<D::Connection>> {
        loop {
            let (mut connection, since) = self.idle().pop()?;
            if D::is_open(&mut connection.inner)
                && (since.elapsed() < TRUSTED || D::ping(&mut connection.inner).await)
            {
                return Some(connection);
            }
        }
    }

    async fn connect(&self) -> Result<Open<D::Connection>, WorkError> {
        let opening = self.slots.opening();
        Ok(opening.done(self.driver.connect().await?))
    }

    fn keep(&self, connection: Open<D::Connection>) {
        let mut idle = self.idle();
        if idle.len() < self.slots.bound() {
            idle.push((connection, Instant::now()));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Open<D::Connection>, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Driver> crate::Server for Inner<D> {
    /// Whether the server answers, asked on a connection that was kept if there is one: there may be none to
    /// be had beside it.
    async fn answers(&self) -> bool {
        let kept = self.idle().pop();
        if let Some((mut connection, _)) = kept {
            if D::is_open(&mut connection.inner)
                && timeout(KEPT_LIMIT, D::ping(&mut connection.inner)).await == Ok(true)
            {
                self.keep(connection);
                return true;
            }
            // The others are probably broken too, and would be in the way of a new one.
            self.idle().clear();
        }
        match self.connect().await {
            Ok(mut connection) => {
                let answers = D::ping(&mut connection.inner).await;
                if answers {
                    self.keep(connection);
                }
                answers
            }
            Err(WorkError::TooManyConnections(_)) => self.slots.open() > 0,
            Err(_) => false,
        }
    }
}

/// A number for a name, the same in every daemon (FNV-1a).
pub(super) fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
