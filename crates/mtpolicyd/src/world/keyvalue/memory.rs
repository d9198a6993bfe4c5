//! A store in this process: expiring and bounded.
//!
//! Knows: time. Must not know: what the values are for.

#![allow(unused_variables, dead_code)]
use super::Locked;
use crate::world::backend::{BackendError, Breaker};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a `<Connection>` of module Memory says.
#[derive(Clone, Debug, PartialEq)]
pub struct MemorySettings {
    /// How many values are kept at most; beyond it those that expire first go.
    pub max_entries: u64,
}

/// Values in this process.
pub struct Memory {
    settings: MemorySettings,
    breaker: Arc<Breaker>,
}

impl Memory {
    /// An empty store.
    pub fn new(name: &str, settings: MemorySettings) -> Memory {
        Memory { settings, breaker: Breaker::new(name) }
    }
    /// Changes a value as one step: what `change` makes of it and for how long it lives, and its result.
    /// `None` forgets the key.
    pub fn update<T>(
        &self,
        key: &[u8],
        change: impl FnOnce(Option<&[u8]>) -> (Option<(Vec<u8>, Duration)>, T),
    ) -> T {
        change(None).1
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
