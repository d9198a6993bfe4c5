//! One server of Redis as the callers see it: a connection that is opened when it is needed, shared, dropped
//! when it fails, and not tried while the server is known to be down.
//!
//! Knows: how to open a connection, when to. Must not know: what is sent over it.

use super::link::{Access, Address, Link};
use super::sentinel;
use super::trouble::Trouble;
use crate::{BackendError, Breaker, Probe};
use std::sync::{Arc, Mutex, PoisonError};

/// Where a server is, or how it is found.
#[derive(Clone)]
pub(super) enum Target {
    /// Here.
    Address(Address),
    /// Where the sentinels say that the master of this service is.
    Master(sentinel::Service),
}

/// A server.
pub(super) struct Node {
    target: Target,
    access: Access,
    breaker: Arc<Breaker>,
    current: Mutex<Option<Link>>,
    /// Held while a connection is opened, so that callers that come together open one.
    opening: tokio::sync::Mutex<()>,
}

impl Node {
    /// A server, to which no connection is open yet. Its breaker has the name that errors give.
    pub(super) fn new(target: Target, access: Access, breaker: Arc<Breaker>) -> Arc<Node> {
        let (current, opening) = (Mutex::new(None), tokio::sync::Mutex::new(()));
        Arc::new(Node { target, access, breaker, current, opening })
    }

    /// Its address, unless that changes.
    pub(super) fn address(&self) -> Option<&Address> {
        match &self.target {
            Target::Address(address) => Some(address),
            Target::Master(_) => None,
        }
    }

    /// The connection for a call. A server that can't be reached is down from then on.
    pub(super) async fn use_link(self: &Arc<Self>) -> Result<InUse, Trouble> {
        let in_use = |link| InUse { node: self.clone(), link, answered: false };
        self.breaker.check().map_err(Trouble::Known)?;
        if let Some(link) = self.current() {
            return Ok(in_use(link));
        }
        let _alone = self.opening.lock().await;
        // Who was first has opened one by now, or found the server dead.
        self.breaker.check().map_err(Trouble::Known)?;
        if let Some(link) = self.current() {
            return Ok(in_use(link));
        }
        match self.open().await {
            Ok(link) => Ok(in_use(link)),
            Err(Trouble::Down(cause)) => Err(Trouble::Known(self.failed(&cause))),
            Err(other) => Err(other),
        }
    }

    /// The server is down, and is tried until it is back.
    pub(super) fn failed(self: &Arc<Self>, cause: &str) -> BackendError {
        *self.lock() = None;
        self.breaker.failed(cause, self.probe())
    }

    /// The server has let a call wait for too long, and is tried at once.
    pub(super) fn suspect(self: &Arc<Self>) -> BackendError {
        self.breaker.suspect(self.probe())
    }

    /// Tries the server; a connection that works is kept for the next call.
    fn probe(self: &Arc<Self>) -> impl FnMut() -> ProbeFuture + Send + use<> {
        let node = Arc::downgrade(self);
        move || {
            let node = node.clone();
            Box::pin(async move {
                match node.upgrade() {
                    Some(node) => node.open().await.map_or(Probe::Dead, |_| Probe::Alive),
                    None => Probe::Dropped,
                }
            })
        }
    }

    async fn open(&self) -> Result<Link, Trouble> {
        let link = match &self.target {
            Target::Address(address) => self.access.open(address).await?,
            Target::Master(service) => service.open_master(&self.access).await?,
        };
        *self.lock() = Some(link.clone());
        Ok(link)
    }

    /// The connection that is open; one that the server has closed since is noticed here.
    fn current(&self) -> Option<Link> {
        self.lock().take_if(|link| link.is_closed());
        self.lock().clone()
    }

    fn forget(&self, link: &Link) {
        self.lock().take_if(|current| current.is(link));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Link>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A try.
pub(super) type ProbeFuture = std::pin::Pin<Box<dyn Future<Output = Probe> + Send>>;

/// A connection during a call. If the call is given up, the connection is not used again.
pub(super) struct InUse {
    node: Arc<Node>,
    /// The connection.
    pub(super) link: Link,
    answered: bool,
}

impl InUse {
    /// The call has its replies: the connection is good for others.
    pub(super) fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if !self.answered {
            self.node.forget(&self.link);
        }
    }
}
