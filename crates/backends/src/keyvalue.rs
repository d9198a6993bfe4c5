//! Stores of values that expire: this process, memcached, Redis, a table of a database.
//!
//! Knows: keys, values, lifetimes, locks, deadlines. Must not know: what they are for.

use super::sql::Sql;
use crate::{BackendError, Call};
use noted::note;
use pretend::Pretended;
use replayed::Replayed;
use std::sync::Arc;
use std::time::Duration;

#[cfg(not(all(feature = "redis", feature = "memcached")))]
mod absent;
mod keys;
#[cfg(feature = "memcached")]
mod memcached;
mod memory;
mod noted;
mod pretend;
#[cfg(feature = "redis")]
mod redis;
mod replayed;
mod scan;
mod settings;
mod table;

#[cfg(not(feature = "redis"))]
pub use absent::Script;
pub use keys::stand_in;
#[cfg(feature = "memcached")]
pub use memcached::Memcached;
pub use memory::{Change, Memory, MemorySettings};
pub use noted::{note_counted, note_found, note_removal};
#[cfg(feature = "redis")]
pub use redis::{Redis, Script};
pub use scan::{Fields, HashPage, Held, MAX_PAGE, Page, Scan};
pub use settings::{MemcachedSettings, RedisServer, RedisSettings};
pub use table::SqlTable;

/// Servers of memcached, which this build can't ask.
#[cfg(not(feature = "memcached"))]
pub type Memcached = absent::Absent<MemcachedSettings>;

/// A Redis, which this build can't ask.
#[cfg(not(feature = "redis"))]
pub type Redis = absent::Absent<RedisSettings>;

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
    /// Its value: the owner.
    pub owner: &'a [u8],
    /// What was there when it was locked.
    pub version: Version,
    /// The value that was there, for stores that look at the lock only: a lock that has ended does not matter
    /// there as long as nobody has another and the value is still that one.
    pub before: Option<&'a [u8]>,
}

/// What is noted of a call beside the key.
macro_rules! detail {
    (set, $value:expr, $lifetime:expr) => {
        |text: &mut String| noted::detail($value, $lifetime, text)
    };
    (add, $value:expr, $lifetime:expr) => {
        |text: &mut String| noted::detail($value, $lifetime, text)
    };
    ($name:ident $(, $argument:expr)*) => {
        |_: &mut String| Ok(())
    };
}

/// Does the same on whichever store it is. Calls to some need a lot of memory on their way, and are boxed so
/// that a request needs it only where it makes one.
macro_rules! on_each {
    ($store:expr, $call:expr, $name:ident($key:expr $(, $argument:expr)*)) => {{
        let begun = $call.begin();
        // A table is a store here, not also a database.
        let call = $call.noted_in(None);
        let outcome = match $store {
            Store::Memory(store) => store.$name($key $(, $argument)*, call).await,
            Store::Memcached(store) => store.$name($key $(, $argument)*, call).await,
            Store::Redis(store) => Box::pin(store.$name($key $(, $argument)*, call)).await,
            Store::Sql(store) => Box::pin(store.$name($key $(, $argument)*, call)).await,
        };
        note(begun, stringify!($name), $key, detail!($name $(, $argument)*), &outcome);
        outcome
    }};
}

impl Store {
    /// A store in a table of a database.
    pub fn table(sql: Arc<Sql>) -> Store {
        Store::Sql(Arc::new(SqlTable::new(sql)))
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8], call: Call<'_>) -> Result<Option<Vec<u8>>, BackendError> {
        if let Some(pretended) = Pretended::of(self, call) {
            return pretended.get(key).await;
        }
        if let Some(replayed) = Replayed::of(self, call) {
            return replayed.get(key).await;
        }
        on_each!(self, call, get(key))
    }

    /// The same, and which value it is, where the store tells: for
    /// [`delete_unchanged`](Self::delete_unchanged).
    pub async fn get_protected(&self, key: &[u8], call: Call<'_>) -> Result<Protected, BackendError> {
        let Some(store) = self.memcached_in_earnest(call) else {
            let value = self.get(key, call).await?;
            return Ok(Protected { value, version: Version::Unknown });
        };
        let begun = call.begin();
        let (value, version) = match store.get_protected(key, call.noted_in(None)).await {
            Ok(Protected { value, version }) => (Ok(value), version),
            Err(error) => (Err(error), Version::Unknown),
        };
        note(begun, "get", key, |_| Ok(()), &value);
        value.map(|value| Protected { value, version })
    }

    /// Removes a key that has still the value that [`get_protected`](Self::get_protected) has found, where
    /// the store tells them apart; elsewhere any. Whether it was there.
    pub async fn delete_unchanged(
        &self,
        key: &[u8],
        version: Version,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let (Some(store), Version::Unique(version)) = (self.memcached_in_earnest(call), version) else {
            return self.delete(key, call).await;
        };
        let begun = call.begin();
        let outcome = store.delete_unchanged(key, version, call.noted_in(None)).await;
        note(begun, "delete", key, |_| Ok(()), &outcome);
        outcome
    }

    /// The memcached that this is, if it is really asked.
    fn memcached_in_earnest(&self, call: Call<'_>) -> Option<&Memcached> {
        let is_asked = Pretended::of(self, call).is_none() && Replayed::of(self, call).is_none();
        match self {
            Store::Memcached(store) if is_asked => Some(store),
            _ => None,
        }
    }

    /// Sets a value, whatever there was, for a time.
    pub async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        if let Some(pretended) = Pretended::of(self, call) {
            pretended.set(key, value);
            return Ok(());
        }
        if let Some(replayed) = Replayed::of(self, call) {
            return replayed.set(key, value, lifetime).await;
        }
        on_each!(self, call, set(key, value, lifetime))
    }

    /// Sets a value unless there is one: whether it did.
    pub async fn add(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        if let Some(pretended) = Pretended::of(self, call) {
            return pretended.add(key, value).await;
        }
        if let Some(replayed) = Replayed::of(self, call) {
            return replayed.add(key, value, lifetime).await;
        }
        on_each!(self, call, add(key, value, lifetime))
    }

    /// Removes a key. Returns whether it existed.
    pub async fn delete(&self, key: &[u8], call: Call<'_>) -> Result<bool, BackendError> {
        if let Some(pretended) = Pretended::of(self, call) {
            return pretended.delete(key).await;
        }
        if let Some(replayed) = Replayed::of(self, call) {
            return replayed.delete(key).await;
        }
        on_each!(self, call, delete(key))
    }

    /// Adds one to a number, which begins at nothing and lives for this time from now on.
    pub async fn increment(
        &self,
        key: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<u64, BackendError> {
        if let Some(pretended) = Pretended::of(self, call) {
            return pretended.increment(key).await;
        }
        if let Some(replayed) = Replayed::of(self, call) {
            return replayed.increment(key, lifetime).await;
        }
        on_each!(self, call, increment(key, lifetime))
    }

    /// Locks `key` for `owner`, for `lifetime` unless that is renewed, and reads it; in one round trip where
    /// the store can. The lock is a key of its own, `lock_KEY`; in a cluster of Redis `lock_{KEY}`.
    pub async fn lock(
        &self,
        key: &[u8],
        owner: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<Locked, BackendError> {
        if let Some(pretended) = Pretended::of(self, call) {
            return pretended.lock(key).await;
        }
        on_each!(self, call, lock(key, owner, lifetime))
    }

    /// Keeps the lock of `key` for `lifetime` from now on, if it still is its owner's: whether it was.
    pub async fn renew(
        &self,
        key: &[u8],
        owner: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        if Pretended::of(self, call).is_some() {
            return Ok(true);
        }
        on_each!(self, call, renew(key, owner, lifetime))
    }

    /// Sets what a lock protects and gives the lock back, if it still is its owner's: whether it was. If it
    /// is not, nothing is set.
    pub async fn set_and_unlock(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        lock: Lock<'_>,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        if let Some(pretended) = Pretended::of(self, call) {
            pretended.set(key, value);
            return Ok(true);
        }
        on_each!(self, call, set_and_unlock(key, value, lifetime, lock))
    }

    /// Gives the lock of `key` back, if it still is this owner's: whether it was.
    pub async fn unlock(&self, key: &[u8], owner: &[u8], call: Call<'_>) -> Result<bool, BackendError> {
        if Pretended::of(self, call).is_some() {
            return Ok(true);
        }
        on_each!(self, call, unlock(key, owner))
    }

    /// What is under a key, with how long it still lives; `None` if there is nothing.
    pub async fn held(&self, key: &[u8], call: Call<'_>) -> Result<Option<Held>, BackendError> {
        on_each!(self, call, held(key))
    }

    /// A page of what is under keys that begin alike. Fails on memcached, which can't list its keys.
    pub async fn scan(&self, scan: Scan<'_>, call: Call<'_>) -> Result<Page, BackendError> {
        match self {
            Store::Memory(store) => store.scan(scan, call).await,
            Store::Memcached(store) => Err(store.cannot(CANT_LIST)),
            Store::Redis(store) => Box::pin(store.scan(scan, call)).await,
            Store::Sql(store) => Box::pin(store.scan(scan, call)).await,
        }
    }

    /// Whether it can list its keys.
    pub fn can_list(&self) -> bool {
        !matches!(self, Store::Memcached(_))
    }

    /// Whether both are the same store, by the same connection.
    pub fn is_same(&self, other: &Store) -> bool {
        match (self, other) {
            (Store::Memory(one), Store::Memory(other)) => Arc::ptr_eq(one, other),
            (Store::Memcached(one), Store::Memcached(other)) => Arc::ptr_eq(one, other),
            (Store::Redis(one), Store::Redis(other)) => Arc::ptr_eq(one, other),
            (Store::Sql(one), Store::Sql(other)) => Arc::ptr_eq(one.sql(), other.sql()),
            _ => false,
        }
    }

    /// The name of the connection.
    pub fn name(&self) -> &str {
        match self {
            Store::Memory(store) => store.name(),
            Store::Memcached(store) => store.connection(),
            Store::Redis(store) => store.name(),
            Store::Sql(store) => store.sql().name(),
        }
    }

    /// Removes what has expired where the store does not do it by itself: how much.
    pub async fn expire(&self, call: Call<'_>) -> Result<u64, BackendError> {
        match self {
            _ if call.pretence().is_some() => Ok(0),
            Store::Sql(store) => store.expire(call).await,
            Store::Memory(_) | Store::Memcached(_) | Store::Redis(_) => Ok(0),
        }
    }
}

/// Why there is no list of what memcached holds.
const CANT_LIST: &str = "memcached can't list its keys";

/// A counter as a store holds it: decimal, perhaps with the blanks that memcached pads it with.
fn parse_number(value: &[u8]) -> Result<u64, String> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.trim_end_matches(' ').parse().ok())
        .ok_or_else(|| "the value is not a number".to_owned())
}

/// The key of the lock of a key, as the original names it.
fn lock_name(key: &[u8]) -> Vec<u8> {
    [b"lock_", key].concat()
}
