//! A store in a table of a database.
//!
//! Knows: SQL. Must not know: what the values are for.

#![allow(unused_variables, dead_code)]
use super::Locked;
use crate::world::backend::{BackendError, Failure};
use crate::world::sql::Sql;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A table of values.
pub struct SqlTable {
    sql: Arc<Sql>,
}

impl SqlTable {
    /// The table `mtpolicyd_store` of a database, made when it is first used.
    pub fn new(sql: Arc<Sql>) -> SqlTable {
        SqlTable { sql }
    }
    /// Removes what has expired: how much.
    pub async fn expire(&self, deadline: Instant) -> Result<u64, BackendError> {
        Ok(0)
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8], deadline: Instant) -> Result<Option<Vec<u8>>, BackendError> {
        Err(BackendError { connection: self.sql.name().into(), failure: Failure::TimedOut })
    }
    /// Sets a value, whatever there was, for a time.
    pub async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        Err(BackendError { connection: self.sql.name().into(), failure: Failure::TimedOut })
    }
    /// Sets a value unless there is one: whether it did.
    pub async fn add(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<bool, BackendError> {
        Err(BackendError { connection: self.sql.name().into(), failure: Failure::TimedOut })
    }
    /// Forgets a key: whether there was one.
    pub async fn delete(&self, key: &[u8], deadline: Instant) -> Result<bool, BackendError> {
        Err(BackendError { connection: self.sql.name().into(), failure: Failure::TimedOut })
    }
    /// Adds one to a number.
    pub async fn increment(
        &self,
        key: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<u64, BackendError> {
        Err(BackendError { connection: self.sql.name().into(), failure: Failure::TimedOut })
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
        Err(BackendError { connection: self.sql.name().into(), failure: Failure::TimedOut })
    }
    /// Gives a lock back.
    pub async fn unlock(&self, lock: &[u8], owner: &[u8], deadline: Instant) -> Result<bool, BackendError> {
        Err(BackendError { connection: self.sql.name().into(), failure: Failure::TimedOut })
    }
}
