//! One server of Redis as the callers see it: a connection that is opened when it is needed, shared, dropped
//! when it fails, and not tried while the server is known to be down.
//!
//! Knows: how to open a connection, when to. Must not know: what is sent over it.

use super::clock::ServerClock;
use super::connection::{Access, Connection};
use super::error::RequestError;
use super::sentinel;
use crate::{BackendError, Breaker, Endpoint, Server};
use std::sync::{Arc, Mutex, PoisonError};

/// Where a server is, or how it is found.
#[derive(Clone)]
pub(super) enum Target {
    /// At this address.
    Address(Endpoint),
    /// Where the sentinels say that the master of this service is.
    Master(sentinel::Service),
}

/// A server.
pub(super) struct Node {
    target: Target,
    access: Access,
    breaker: Arc<Breaker>,
    clock: ServerClock,
    current: Mutex<Option<Connection>>,
    /// Held while a connection is opened, so that callers that come together open one.
    opening: tokio::sync::Mutex<()>,
}

impl Node {
    /// A server, to which no connection is open yet. Its breaker has the name that errors give.
    pub(super) fn new(target: Target, access: Access, breaker: Arc<Breaker>) -> Arc<Node> {
        let (current, opening) = (Mutex::new(None), tokio::sync::Mutex::new(()));
        Arc::new(Node { target, access, breaker, clock: ServerClock::default(), current, opening })
    }

    /// Whether it is known to be down, and since when.
    pub(super) fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// What time it is there.
    pub(super) fn clock(&self) -> &ServerClock {
        &self.clock
    }

    /// Its address, unless that changes.
    pub(super) fn address(&self) -> Option<&Endpoint> {
        match &self.target {
            Target::Address(address) => Some(address),
            Target::Master(_) => None,
        }
    }

    /// The connection for a call. A server that can't be reached is down from then on.
    pub(super) async fn connection(self: &Arc<Self>) -> Result<InUse, RequestError> {
        let in_use = |connection| InUse { node: self.clone(), connection, answered: false };
        self.breaker.check().map_err(RequestError::Known)?;
        if let Some(connection) = self.current() {
            return Ok(in_use(connection));
        }
        let _alone = self.opening.lock().await;
        // Who was first has opened one by now, or found the server dead.
        self.breaker.check().map_err(RequestError::Known)?;
        if let Some(connection) = self.current() {
            return Ok(in_use(connection));
        }
        match self.open().await {
            Ok(connection) => Ok(in_use(connection)),
            Err(RequestError::Down(cause)) => Err(RequestError::Known(self.failed(&cause))),
            Err(other) => Err(other),
        }
    }

    /// The server is down, and is tried until it is back.
    pub(super) fn failed(self: &Arc<Self>, cause: &str) -> BackendError {
        *self.lock() = None;
        self.breaker.failed(cause, self)
    }

    /// The server has let a call wait for too long, and is tried at once.
    pub(super) fn suspect(self: &Arc<Self>) -> BackendError {
        self.breaker.suspect(self)
    }

    async fn open(&self) -> Result<Connection, RequestError> {
        let connection = match &self.target {
            Target::Address(address) => self.access.open(address).await?,
            Target::Master(service) => service.open_master(&self.access).await?,
        };
        *self.lock() = Some(connection.clone());
        Ok(connection)
    }

    /// The connection that is open; one that the server has closed since is noticed here.
    fn current(&self) -> Option<Connection> {
        self.lock().take_if(|connection| connection.is_closed());
        self.lock().clone()
    }

    fn forget(&self, connection: &Connection) {
        self.lock().take_if(|current| current.is(connection));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server for Node {
    /// Tries the server; a connection that works is kept for the next call.
    async fn answers(&self) -> bool {
        self.open().await.is_ok()
    }
}

/// A connection during a call. If the call is given up, the connection is not used again.
pub(super) struct InUse {
    node: Arc<Node>,
    /// The connection.
    pub(super) connection: Connection,
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
            self.node.forget(&self.connection);
        }
    }
}
