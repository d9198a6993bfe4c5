//! Stores of values that expire: this process, memcached, Redis, a table of a database.
//!
//! Knows: keys, values, lifetimes, locks, deadlines. Must not know: what they are for.

use super::sql::Sql;
use crate::BackendError;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

mod keys;
mod memcached;
mod memory;
mod redis;
mod table;

pub use keys::stand_in;
pub use memcached::{Memcached, MemcachedSettings};
pub use memory::{Change, Memory, MemorySettings};
pub use redis::{Redis, RedisServer, RedisSettings};
pub use table::SqlTable;

/// A store. Cheap to clone: the connection is shared.
#[derive(Clone)]
pub enum Store {
    /// In this process.
    Memory(Arc<Memory>),
    /// Servers of memcached.
    Memcached(Arc<Memcached>),
    /// A server, or several, of Redis.
    Redis(Arc<Redis>),
    /// A table of a database.
    Sql(Arc<SqlTable>),
}

/// What came of trying to lock a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Locked {
    /// It is ours, and this is the value that it protects.
    Ours(Protected),
    /// Somebody else has it.
    Theirs,
}

/// What a lock protects, as it was when it was locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protected {
    /// The value, if there is one that can be read.
    pub value: Option<Vec<u8>>,
    /// What is there.
    pub version: Version,
}

/// Which value is there, for a store that may lose a lock without telling: memcached evicts what it likes,
/// and forgets all when it is started again. What somebody else has saved meanwhile is not overwritten then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// None.
    Absent,
    /// The one with this number.
    Unique(u64),
    /// The store looks at the lock only.
    Unknown,
}

impl Locked {
    /// It is ours, in a store that looks at the lock only.
    fn ours(value: Option<Vec<u8>>) -> Locked {
        Locked::Ours(Protected { value, version: Version::Unknown })
    }
}

/// A lock that somebody has.
#[derive(Clone, Copy, Debug)]
pub struct Lock<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value: the owner.
    pub owner: &'a [u8],
    /// What was there when it was locked.
    pub version: Version,
}

/// Does the same on whichever store it is. Calls to some need a lot of memory on their way, and are boxed so
/// that a request needs it only where it makes one.
macro_rules! on_each {
    ($store:expr, $name:ident($($argument:expr),*)) => {
        match $store {
            Store::Memory(store) => store.$name($($argument),*).await,
            Store::Memcached(store) => store.$name($($argument),*).await,
            Store::Redis(store) => Box::pin(store.$name($($argument),*)).await,
            Store::Sql(store) => Box::pin(store.$name($($argument),*)).await,
        }
    };
}

impl Store {
    /// A store in a table of a database.
    pub fn table(sql: Arc<Sql>) -> Store {
        Store::Sql(Arc::new(SqlTable::new(sql)))
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8], deadline: Instant) -> Result<Option<Vec<u8>>, BackendError> {
        on_each!(self, get(key, deadline))
    }

    /// Sets a value, whatever there was, for a time.
    pub async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        on_each!(self, set(key, value, lifetime, deadline))
    }

    /// Sets a value unless there is one: whether it did.
    pub async fn add(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<bool, BackendError> {
        on_each!(self, add(key, value, lifetime, deadline))
    }

    /// Removes a key. Returns whether it existed.
    pub async fn delete(&self, key: &[u8], deadline: Instant) -> Result<bool, BackendError> {
        on_each!(self, delete(key, deadline))
    }

    /// Adds one to a number, which begins at nothing and lives for this time from now on.
    pub async fn increment(
        &self,
        key: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<u64, BackendError> {
        on_each!(self, increment(key, lifetime, deadline))
    }

    /// Locks `lock` for `owner`, at most for `lifetime`, and reads `key`; in one round trip where the store
    /// can.
    pub async fn lock(
        &self,
        lock: &[u8],
        owner: &[u8],
        lifetime: Duration,
        key: &[u8],
        deadline: Instant,
    ) -> Result<Locked, BackendError> {
        on_each!(self, lock(lock, owner, lifetime, key, deadline))
    }

    /// Sets what a lock protects and gives the lock back, if it still is its owner's: whether it was. If it
    /// is not, nothing is set.
    pub async fn set_and_unlock(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        lock: Lock<'_>,
        deadline: Instant,
    ) -> Result<bool, BackendError> {
        match self {
            Store::Memcached(store) => store.set_and_unlock(key, value, lifetime, lock, deadline).await,
            Store::Redis(store) => Box::pin(store.set_and_unlock(key, value, lifetime, lock, deadline)).await,
            Store::Sql(store) => Box::pin(store.set_and_unlock(key, value, lifetime, lock, deadline)).await,
            Store::Memory(store) => {
                let is_ours = store.get(lock.key, deadline).await?.as_deref() == Some(lock.owner);
                if is_ours {
                    store.set(key, value, lifetime, deadline).await?;
                    store.unlock(lock.key, lock.owner, deadline).await?;
                }
                Ok(is_ours)
            }
        }
    }

    /// Gives a lock back, if it still is this owner's: whether it was.
    pub async fn unlock(&self, lock: &[u8], owner: &[u8], deadline: Instant) -> Result<bool, BackendError> {
        on_each!(self, unlock(lock, owner, deadline))
    }

    /// Removes what has expired where the store does not do it by itself: how much.
    pub async fn expire(&self, deadline: Instant) -> Result<u64, BackendError> {
        match self {
            Store::Sql(store) => store.expire(deadline).await,
            Store::Memory(_) | Store::Memcached(_) | Store::Redis(_) => Ok(0),
        }
    }
}

/// A counter as a store holds it: decimal, perhaps with the blanks that memcached pads it with.
fn parse_number(value: &[u8]) -> Result<u64, String> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.trim_end_matches(' ').parse().ok())
        .ok_or_else(|| "the value is not a number".to_owned())
}
