//! Redis: a server, one found by sentinels, or a cluster.
//!
//! Knows: Redis. Must not know: what the values are for.

#![allow(unused_variables, dead_code)]
use super::Locked;
use crate::world::backend::{BackendError, Breaker, Secret};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a `<Connection>` of module Redis says.
#[derive(Clone, Debug, PartialEq)]
pub struct RedisSettings {
    /// Where it is.
    pub server: RedisServer,
    /// The user of an access control list, if any.
    pub user: Option<String>,
    /// The password, if it wants one.
    pub password: Option<Secret>,
    /// The number of the database.
    pub db: i64,
    /// How long one call may take.
    pub timeout: Duration,
    /// Whether the connection is encrypted, and the server's certificate verified.
    pub tls: bool,
    /// Certificates of authorities to trust, in PEM, beside those of the system.
    pub tls_ca: Option<String>,
}

/// Where a Redis is.
#[derive(Clone, Debug, PartialEq)]
pub enum RedisServer {
    /// `host:port`.
    Tcp(String),
    /// The path of a socket.
    Unix(String),
    /// The master of a service, which these sentinels (`host:port`) know.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<String>,
        /// The name of the service.
        service: String,
    },
    /// A cluster that one of these nodes (`host:port`) knows.
    Cluster(Vec<String>),
}

/// A Redis.
pub struct Redis {
    settings: RedisSettings,
    breaker: Arc<Breaker>,
}

impl Redis {
    /// A Redis; nothing is opened yet.
    pub fn new(name: &str, settings: RedisSettings) -> Result<Redis, String> {
        Ok(Redis { settings, breaker: Breaker::new(name) })
    }
    /// The name of the connection.
    pub fn name(&self) -> &str {
        self.breaker.connection()
    }
    /// Whether it answers. For the log at the start.
    pub async fn ping(&self, deadline: Instant) -> Result<(), BackendError> {
        Ok(())
    }
    /// Runs a script (Lua), all keys of which have to be on one node: its reply as a list of texts.
    pub async fn eval(
        &self,
        script: &str,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
        deadline: Instant,
    ) -> Result<Vec<Vec<u8>>, BackendError> {
        Err(self.breaker.error(crate::world::backend::Failure::TimedOut))
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8], deadline: Instant) -> Result<Option<Vec<u8>>, BackendError> {
        Err(self.breaker.error(crate::world::backend::Failure::TimedOut))
    }
    /// Sets a value, whatever there was, for a time.
    pub async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        Err(self.breaker.error(crate::world::backend::Failure::TimedOut))
    }
    /// Sets a value unless there is one: whether it did.
    pub async fn add(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<bool, BackendError> {
        Err(self.breaker.error(crate::world::backend::Failure::TimedOut))
    }
    /// Forgets a key: whether there was one.
    pub async fn delete(&self, key: &[u8], deadline: Instant) -> Result<bool, BackendError> {
        Err(self.breaker.error(crate::world::backend::Failure::TimedOut))
    }
    /// Adds one to a number.
    pub async fn increment(
        &self,
        key: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<u64, BackendError> {
        Err(self.breaker.error(crate::world::backend::Failure::TimedOut))
    }
    /// Locks and reads.
    pub async fn lock(
        &self,
        lock: &[u8],
        owner: &[u8],
        lifetime: Duration,
        key: &[u8],
        deadline: Instant,
    ) -> Result<Locked, BackendError> {
        Err(self.breaker.error(crate::world::backend::Failure::TimedOut))
    }
    /// Gives a lock back.
    pub async fn unlock(&self, lock: &[u8], owner: &[u8], deadline: Instant) -> Result<bool, BackendError> {
        Err(self.breaker.error(crate::world::backend::Failure::TimedOut))
    }
}
