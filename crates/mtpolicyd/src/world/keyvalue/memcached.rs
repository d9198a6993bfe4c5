//! Servers of memcached.
//!
//! Knows: the text protocol. Must not know: what the values are for.

#![allow(unused_variables, dead_code)]
use super::Locked;
use crate::world::backend::{BackendError, Breaker};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a `<Connection>` of module Memcached says.
#[derive(Clone, Debug, PartialEq)]
pub struct MemcachedSettings {
    /// Addresses `host:port`, or paths of UNIX sockets; with `=weight` where it is not 1.
    pub servers: Vec<String>,
    /// What every key begins with.
    pub namespace: String,
    /// How long one call may take.
    pub timeout: Duration,
}

/// Servers of memcached; a key lives on one of them.
pub struct Memcached {
    settings: MemcachedSettings,
    breaker: Arc<Breaker>,
}

impl Memcached {
    /// The servers; nothing is opened yet.
    pub fn new(name: &str, settings: MemcachedSettings) -> Result<Memcached, String> {
        Ok(Memcached { settings, breaker: Breaker::new(name) })
    }
    /// Whether the servers answer. For the log at the start.
    pub async fn ping(&self, deadline: Instant) -> Result<(), BackendError> {
        Ok(())
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
