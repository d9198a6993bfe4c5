//! A server of a database: connections that are kept, each used by one work at a time.
//!
//! Knows: deadlines, which failures leave a connection usable, the breaker. Must not know: any protocol.

mod places;

use self::places::{Open, Place, Places};
use super::{Output, Work};
use crate::{BackendError, Breaker, Failure, Probe, Throttle, messages};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// How long a connection may have been idle and is still believed to work. One that the server closed while
/// nobody looked must not fail a request, and a look costs a round trip.
const TRUSTED: Duration = Duration::from_millis(500);

/// How often a work is done again that the server has undone because others were in its way.
const REPEATS: u32 = 20;

/// How much longer is waited before each time, so that those who were in each other's way part.
const REPEAT_PAUSE: Duration = Duration::from_millis(2);

/// How long a kept connection has to answer a try of the breaker's.
const KEPT_LIMIT: Duration = Duration::from_millis(300);

/// How one kind of server is spoken to.
pub(super) trait Driver: Send + Sync + 'static {
    /// A connection. Dropping it closes it.
    type Link: Send + 'static;

    /// Makes a connection.
    fn connect(&self) -> impl Future<Output = Result<Self::Link, Trouble>> + Send;

    /// Whether the connection is not known to be closed.
    fn is_open(link: &Self::Link) -> bool;

    /// Whether the server answers on a connection.
    fn ping(link: &mut Self::Link) -> impl Future<Output = bool> + Send;

    /// Does a work. What only asks is one statement, outside any transaction.
    fn run(
        &self,
        link: &mut Self::Link,
        work: &Work,
        kind: Kind,
        deadline: Instant,
    ) -> impl Future<Output = Result<Vec<Output>, Trouble>> + Send;
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
pub(super) enum Trouble {
    /// There is no connection to be had.
    Unreachable(String),
    /// The server accepts no more connections than it has, perhaps from this user.
    Full(String),
    /// The connection is lost, and perhaps the server. Whether the work was done nobody knows.
    Lost(String),
    /// The connection is lost before anything was done.
    Cut(String),
    /// The server does not do such works now, as one that another has taken over from: ask that one. Nothing
    /// was done.
    Elsewhere(String),
    /// The server has undone the work since another one was in its way: do it again.
    Undone(String),
    /// The server said no. The work was not done, and the connection works.
    Said(Failure),
}

impl Trouble {
    /// The same, where nothing can have been done yet.
    pub fn before_anything(self) -> Trouble {
        match self {
            Trouble::Lost(cause) => Trouble::Cut(cause),
            other => other,
        }
    }

    /// One that a new connection has.
    fn of_connecting(self) -> Trouble {
        match self {
            Trouble::Lost(cause) | Trouble::Cut(cause) => Trouble::Unreachable(cause),
            other => other,
        }
    }
}

/// A server and the connections to it.
pub(super) struct Server<D: Driver>(Arc<Inner<D>>);

struct Inner<D: Driver> {
    driver: D,
    breaker: Arc<Breaker>,
    places: Places,
    idle: Mutex<Vec<(Open<D::Link>, Instant)>>,
    complaints: Throttle,
}

impl<D: Driver> Server<D> {
    /// A server; nothing is connected yet. At most `bound` connections are open, apart from a try of the
    /// breaker's.
    pub fn new(driver: D, breaker: Arc<Breaker>, bound: usize) -> Server<D> {
        let (places, complaints) = (Places::new(bound), Throttle::default());
        Server(Arc::new(Inner { driver, breaker, places, idle: Mutex::default(), complaints }))
    }

    /// Does a work.
    pub async fn run(&self, work: &Work, kind: Kind, deadline: Instant) -> Result<Vec<Output>, BackendError> {
        let inner = &self.0;
        inner.breaker.check()?;
        match timeout_at(deadline, inner.run(work, kind, deadline)).await {
            Ok(Ok(outputs)) => Ok(outputs),
            Ok(Err(Trouble::Said(failure))) => Err(inner.breaker.error(failure)),
            Ok(Err(Trouble::Undone(cause) | Trouble::Elsewhere(cause))) => {
                Err(inner.breaker.error(Failure::Refused(cause)))
            }
            Ok(Err(Trouble::Lost(cause) | Trouble::Cut(cause))) => {
                // Connections made before are probably broken too. Whether the server is, the next work
                // finds out: an administrator may have ended just this connection.
                inner.idle().clear();
                Err(inner.breaker.error(Failure::Down(cause.into())))
            }
            Ok(Err(Trouble::Unreachable(cause) | Trouble::Full(cause))) => {
                Err(inner.breaker.failed(&cause, inner.probe()))
            }
            Err(_) => Err(inner.breaker.suspect(inner.probe())),
        }
    }
}

impl<D: Driver> Inner<D> {
    /// A connection is kept only after an answer: if this is dropped on its way, or the connection is lost,
    /// it is closed. One that was kept and turns out dead is replaced once, if nothing was done on it that
    /// must not be done twice; so is one to a server that is the wrong one by now.
    async fn run(&self, work: &Work, kind: Kind, deadline: Instant) -> Result<Vec<Output>, Trouble> {
        let mut place = self.places.take().await?;
        let (mut link, mut was_kept) = self.link(&mut place, false).await?;
        let mut may_move = true;
        let mut repeats = 0;
        loop {
            let failed = match self.driver.run(&mut link.link, work, kind, deadline).await {
                Err(failed) => failed,
                done => {
                    self.keep(link);
                    return done;
                }
            };
            let replace = match &failed {
                Trouble::Cut(_) => was_kept,
                Trouble::Lost(_) => was_kept && kind == Kind::Query,
                Trouble::Elsewhere(_) => std::mem::replace(&mut may_move, false),
                _ => false,
            };
            match failed {
                _ if replace => {
                    // The others lead to the same place.
                    self.idle().clear();
                    drop(link);
                    (link, was_kept) = self.link(&mut place, true).await?;
                }
                Trouble::Undone(_) if repeats < REPEATS => {
                    repeats += 1;
                    tokio::time::sleep(REPEAT_PAUSE * repeats).await;
                }
                Trouble::Said(_) | Trouble::Undone(_) => {
                    self.keep(link);
                    return Err(failed);
                }
                _ => return Err(failed),
            }
        }
    }

    /// A connection, `new` or not, and whether it was kept from earlier. Where the server accepts no more
    /// than there are, it is one of those, once nobody uses it.
    async fn link<'a>(
        &'a self,
        place: &mut Place<'a>,
        mut new: bool,
    ) -> Result<(Open<D::Link>, bool), Trouble> {
        loop {
            if let Some(link) = if new { None } else { self.kept().await } {
                return Ok((link, true));
            }
            match self.connect().await {
                Err(Trouble::Full(cause)) if self.places.open() > 0 => {
                    if self.complaints.is_due() {
                        messages::no_more_connections(self.breaker.connection(), &cause);
                    }
                    place.change().await?;
                    new = false;
                }
                link => return Ok((link.map_err(Trouble::of_connecting)?, false)),
            }
        }
    }

    async fn kept(&self) -> Option<Open<D::Link>> {
        loop {
            let (mut link, since) = self.idle().pop()?;
            if D::is_open(&link.link) && (since.elapsed() < TRUSTED || D::ping(&mut link.link).await) {
                return Some(link);
            }
        }
    }

    async fn connect(&self) -> Result<Open<D::Link>, Trouble> {
        let opening = self.places.opening();
        Ok(opening.done(self.driver.connect().await?))
    }

    fn keep(&self, link: Open<D::Link>) {
        let mut idle = self.idle();
        if idle.len() < self.places.bound() {
            idle.push((link, Instant::now()));
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Open<D::Link>, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the server answers, asked on a connection that was kept if there is one: there may be none to
    /// be had beside it.
    async fn answers(&self) -> bool {
        let kept = self.idle().pop();
        if let Some((mut link, _)) = kept {
            if D::is_open(&link.link) && timeout(KEPT_LIMIT, D::ping(&mut link.link)).await == Ok(true) {
                self.keep(link);
                return true;
            }
            // The others are probably broken too, and would be in the way of a new one.
            self.idle().clear();
        }
        match self.connect().await {
            Ok(mut link) => {
                let answers = D::ping(&mut link.link).await;
                if answers {
                    self.keep(link);
                }
                answers
            }
            Err(Trouble::Full(_)) => self.places.open() > 0,
            Err(_) => false,
        }
    }

    /// Finds out whether the server is there.
    fn probe(self: &Arc<Self>) -> impl FnMut() -> Pin<Box<dyn Future<Output = Probe> + Send>> + use<D> {
        let server = Arc::downgrade(self);
        move || {
            let server = server.clone();
            Box::pin(async move {
                let Some(server) = server.upgrade() else { return Probe::Dropped };
                if server.answers().await { Probe::Alive } else { Probe::Dead }
            })
        }
    }
}

/// A number for a name, the same in every daemon (FNV-1a).
pub(super) fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
