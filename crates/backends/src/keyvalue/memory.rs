//! A store in this process: expiring, and bounded by the number of its values and by their bytes.
//!
//! Time is the monotonic clock, so a jump of the system's clock neither keeps nor loses a value. When the
//! store is full, a new value replaces what has expired, or else what would expire first; so a lock, which
//! lives shortly, goes before a ticket.
//!
//! A large store is divided, so that requests seldom wait for one another, and never for one table of all
//! values that grows. Each part has its share of the bounds.
//!
//! Knows: time. Must not know: what the values are for.

mod scan;

use super::{Lock, Locked, lock_name, parse_number};
use crate::Throttle;
use crate::messages;
use crate::{BackendError, Call, Failure};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a `<Connection>` of module Memory says.
#[derive(Clone, Debug, PartialEq)]
pub struct MemorySettings {
    /// Maximum number of values; beyond it those that expire first are evicted.
    pub max_entries: u64,
    /// How much memory they may take, with what the store itself needs for them.
    pub max_bytes: usize,
}

/// Longer lifetimes are this one: ten years, which a clock can still add up.
const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86400);

/// Maximum number of expired values that a write removes. More than one, so that they become fewer; few, so
/// that no write waits for a crowd that expires at once.
const SWEPT_PER_WRITE: usize = 4;

/// What the tables need for a value besides its bytes and those of its key, about: measured with 200,000.
const ENTRY_BYTES: usize = 256;

/// Maximum number of parts of a store.
const MAX_PARTS: usize = 16;

/// Minimum number of values and bytes that a part has room for: with few, those that expire first in it would
/// often not be those of the store.
const MIN_PART: (usize, usize) = (4096, 2 << 20);

/// Values in this process.
pub struct Memory {
    name: Arc<str>,
    bounds: Bounds,
    parts: Box<[Mutex<Entries>]>,
    hasher: RandomState,
    /// When it was made.
    begun: Instant,
    /// How much later it is here than it is, in milliseconds.
    ahead: AtomicU64,
    /// When it was last said that the store is full.
    full: Throttle,
}

/// What a part may hold.
#[derive(Clone, Copy)]
struct Bounds {
    entries: usize,
    bytes: usize,
}

/// What [`Memory::update`] puts in place of a value: the new one and its lifetime, or nothing.
pub type Change = Option<(Vec<u8>, Duration)>;

impl Memory {
    /// An empty store.
    pub fn new(name: &str, settings: MemorySettings) -> Memory {
        let max_entries = usize::try_from(settings.max_entries).unwrap_or(usize::MAX).max(1);
        let max_bytes = settings.max_bytes;
        let parts = (max_entries / MIN_PART.0).min(max_bytes / MIN_PART.1).clamp(1, MAX_PARTS);
        Memory {
            name: name.into(),
            bounds: Bounds { entries: max_entries / parts, bytes: max_bytes / parts },
            parts: (0..parts).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            begun: Instant::now(),
            ahead: AtomicU64::new(0),
            full: Throttle::default(),
        }
    }

    /// The name of the connection.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of values, those included that have expired and were not removed yet.
    pub fn entries(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner));
        parts.map(|part| part.by_key.len()).sum()
    }

    /// Removes all values.
    pub fn clear(&self) {
        for part in &self.parts {
            // What is removed is freed when the lock is free again.
            let _old = std::mem::take(&mut *part.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Sets how far time here is ahead of the clock: for a replay, in which days take seconds.
    pub fn set_ahead(&self, ahead: Duration) {
        self.ahead.store(u64::try_from(ahead.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn now(&self) -> Instant {
        let ahead = Duration::from_millis(self.ahead.load(Ordering::Relaxed));
        Instant::now() + ahead.min(MAX_LIFETIME)
    }

    /// Changes a value as one step: what `change` makes of it and for how long it lives, and its result.
    /// `None` forgets the key. Others wait meanwhile, so `change` should be short.
    pub fn update<T>(&self, key: &[u8], change: impl FnOnce(Option<&[u8]>) -> (Change, T)) -> T {
        let now = self.now();
        let mut entries = self.entries_of(key);
        let (change, result) = change(entries.get(key, now));
        match change {
            Some((value, lifetime)) => self.put(&mut entries, key, &value, lifetime, now),
            None => entries.remove(key),
        }
        result
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8], _call: Call<'_>) -> Result<Option<Vec<u8>>, BackendError> {
        Ok(self.entries_of(key).get(key, self.now()).map(<[u8]>::to_vec))
    }

    /// Sets a value, whatever there was, for a time.
    pub async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        _call: Call<'_>,
    ) -> Result<(), BackendError> {
        self.put(&mut self.entries_of(key), key, value, lifetime, self.now());
        Ok(())
    }

    /// Sets a value unless there is one: whether it did.
    pub async fn add(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        _call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let now = self.now();
        let mut entries = self.entries_of(key);
        let free = entries.get(key, now).is_none();
        if free {
            self.put(&mut entries, key, value, lifetime, now);
        }
        Ok(free)
    }

    /// Removes a key. Returns whether it existed.
    pub async fn delete(&self, key: &[u8], _call: Call<'_>) -> Result<bool, BackendError> {
        let mut entries = self.entries_of(key);
        let found = entries.get(key, self.now()).is_some();
        entries.remove(key);
        Ok(found)
    }

    /// Adds one to a number, which begins at nothing and lives for this time from now on. An error if the
    /// value is not a number.
    pub async fn increment(
        &self,
        key: &[u8],
        lifetime: Duration,
        _call: Call<'_>,
    ) -> Result<u64, BackendError> {
        let now = self.now();
        let mut entries = self.entries_of(key);
        let before = match entries.get(key, now) {
            Some(value) => parse_number(value).map_err(|message| self.refused(message))?,
            None => 0,
        };
        let number = before.saturating_add(1);
        self.put(&mut entries, key, number.to_string().as_bytes(), lifetime, now);
        Ok(number)
    }

    /// Locks `key` for `owner`, for `lifetime` unless that is renewed, and reads it.
    pub async fn lock(
        &self,
        key: &[u8],
        owner: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<Locked, BackendError> {
        let (lock, now) = (lock_name(key), self.now());
        let is_free = {
            let mut entries = self.entries_of(&lock);
            let is_free = entries.get(&lock, now).is_none_or(|holder| holder == owner);
            if is_free {
                self.put(&mut entries, &lock, owner, lifetime, now);
            }
            is_free
        };
        if is_free { Ok(Locked::ours(self.get(key, call).await?)) } else { Ok(Locked::Theirs) }
    }

    /// Keeps a lock for `lifetime` from now on, if it still is this owner's: whether it was.
    pub async fn renew(
        &self,
        key: &[u8],
        owner: &[u8],
        lifetime: Duration,
        _call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let (lock, now) = (lock_name(key), self.now());
        let mut entries = self.entries_of(&lock);
        let is_ours = entries.get(&lock, now) == Some(owner);
        if is_ours {
            self.put(&mut entries, &lock, owner, lifetime, now);
        }
        Ok(is_ours)
    }

    /// Sets what a lock protects and gives the lock back, if it still is its owner's: whether it was.
    pub async fn set_and_unlock(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        lock: Lock<'_>,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        // The lock goes last, since others read the value under it.
        let is_ours = self.get(&lock_name(key), call).await?.as_deref() == Some(lock.owner);
        if is_ours {
            self.set(key, value, lifetime, call).await?;
            self.unlock(key, lock.owner, call).await?;
        }
        Ok(is_ours)
    }

    /// Gives a lock back, if it still is this owner's: whether it was.
    pub async fn unlock(&self, key: &[u8], owner: &[u8], _call: Call<'_>) -> Result<bool, BackendError> {
        let lock = lock_name(key);
        let mut entries = self.entries_of(&lock);
        let is_ours = entries.get(&lock, self.now()) == Some(owner);
        if is_ours {
            entries.remove(&lock);
        }
        Ok(is_ours)
    }

    /// Puts a value in its place, and says in the log when that takes the place of others.
    fn put(&self, entries: &mut Entries, key: &[u8], value: &[u8], lifetime: Duration, now: Instant) {
        if entries.put(key, value, lifetime, now, self.bounds) > 0 && self.full.is_due() {
            messages::store_full(&self.name);
        }
    }

    fn refused(&self, message: String) -> BackendError {
        BackendError { connection: self.name.clone(), failure: Failure::Refused(message) }
    }

    /// The part where a key is.
    fn entries_of(&self, key: &[u8]) -> MutexGuard<'_, Entries> {
        let count = self.parts.len();
        let place = match count {
            1 => 0,
            _ => usize::try_from(self.hasher.hash_one(key) >> 32).unwrap_or_default() % count,
        };
        self.parts[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The values of a part, and the order in which they expire.
#[derive(Default)]
struct Entries {
    by_key: HashMap<Arc<[u8]>, Entry>,
    by_expiry: BTreeSet<(Instant, Arc<[u8]>)>,
    /// What they need.
    bytes: usize,
}

struct Entry {
    value: Box<[u8]>,
    expires: Instant,
}

fn size_of_entry(key: &[u8], value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY_BYTES
}

impl Entries {
    fn get(&self, key: &[u8], now: Instant) -> Option<&[u8]> {
        self.by_key.get(key).filter(|entry| entry.expires > now).map(|entry| &*entry.value)
    }

    /// Stores a value. Returns how many others were evicted before they expired. One that is larger than
    /// all that may be there is not kept, and counts as gone.
    fn put(&mut self, key: &[u8], value: &[u8], lifetime: Duration, now: Instant, bounds: Bounds) -> usize {
        self.sweep(now);
        self.remove(key);
        let size = size_of_entry(key, value);
        if size > bounds.bytes {
            return 1;
        }
        let mut evicted = 0;
        while self.by_key.len() >= bounds.entries || self.bytes + size > bounds.bytes {
            match self.remove_first() {
                Some(expires) => evicted += usize::from(expires > now),
                None => break,
            }
        }
        let expires = now + lifetime.min(MAX_LIFETIME);
        let key: Arc<[u8]> = key.into();
        self.by_expiry.insert((expires, key.clone()));
        self.by_key.insert(key, Entry { value: value.into(), expires });
        self.bytes += size;
        evicted
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((key, entry)) = self.by_key.remove_entry(key) {
            self.bytes -= size_of_entry(&key, &entry.value);
            self.by_expiry.remove(&(entry.expires, key));
        }
    }

    /// Removes what expires first: when that is.
    fn remove_first(&mut self) -> Option<Instant> {
        let (expires, key) = self.by_expiry.pop_first()?;
        if let Some(entry) = self.by_key.remove(&key) {
            self.bytes -= size_of_entry(&key, &entry.value);
        }
        Some(expires)
    }

    /// Removes a few of those that have expired.
    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEPT_PER_WRITE {
            if self.by_expiry.first().is_none_or(|(expires, _)| *expires > now) {
                break;
            }
            self.remove_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn memory(max_entries: u64) -> Memory {
        Memory::new("memory", MemorySettings { max_entries, max_bytes: 1 << 20 })
    }

    fn soon() -> Call<'static> {
        Call::within(Duration::from_secs(1))
    }

    #[tokio::test(start_paused = true)]
    async fn values_expire() {
        let memory = memory(10);
        memory.set(b"a", b"1", MINUTE, soon()).await.unwrap();
        tokio::time::advance(Duration::from_secs(59)).await;
        assert_eq!(memory.get(b"a", soon()).await.unwrap(), Some(b"1".to_vec()));
        assert!(!memory.add(b"a", b"2", MINUTE, soon()).await.unwrap());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(memory.get(b"a", soon()).await.unwrap(), None);
        assert!(!memory.delete(b"a", soon()).await.unwrap());
        memory.set(b"a", b"1", Duration::MAX, soon()).await.unwrap();
        assert_eq!(memory.increment(b"a", MINUTE, soon()).await.unwrap(), 2);
        tokio::time::advance(MINUTE).await;
        assert_eq!(memory.increment(b"a", MINUTE, soon()).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_store_drops_what_expires_first() {
        let memory = memory(3);
        for (key, seconds) in [(b"a", 30), (b"b", 10), (b"c", 20), (b"d", 40)] {
            memory.set(key, b"x", Duration::from_secs(seconds), soon()).await.unwrap();
        }
        assert_eq!(memory.get(b"b", soon()).await.unwrap(), None);
        // One that is there already takes nobody's place.
        memory.set(b"c", b"y", Duration::from_secs(50), soon()).await.unwrap();
        assert!(memory.get(b"a", soon()).await.unwrap().is_some());
        tokio::time::advance(Duration::from_secs(35)).await;
        memory.set(b"e", b"x", Duration::from_secs(1), soon()).await.unwrap();
        for key in [b"c", b"d", b"e"] {
            assert!(memory.get(key, soon()).await.unwrap().is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_expired_is_swept_by_writes() {
        let memory = memory(1000);
        for number in 0..100 {
            memory.set(format!("{number}").as_bytes(), b"x", MINUTE, soon()).await.unwrap();
        }
        tokio::time::advance(MINUTE).await;
        for number in 100..150 {
            memory.set(format!("{number}").as_bytes(), b"x", MINUTE, soon()).await.unwrap();
        }
        let entries = memory.entries_of(b"");
        assert_eq!((entries.by_key.len(), entries.by_expiry.len()), (50, 50));
    }

    #[tokio::test(start_paused = true)]
    async fn an_update_is_one_step() {
        let memory = memory(10);
        let put = |text: &str| Some((text.as_bytes().to_vec(), MINUTE));
        assert!(memory.update(b"k", |old| (put("1"), old.is_none())));
        assert_eq!(memory.update(b"k", |old| (put("2"), old.map(<[u8]>::to_vec))), Some(b"1".to_vec()));
        assert_eq!(memory.get(b"k", soon()).await.unwrap(), Some(b"2".to_vec()));
        memory.update(b"k", |_| (None, ()));
        assert_eq!(memory.get(b"k", soon()).await.unwrap(), None);
        memory.set(b"word", b"many", MINUTE, soon()).await.unwrap();
        let error = memory.increment(b"word", MINUTE, soon()).await.unwrap_err();
        assert_eq!(error.to_string(), "connection memory: the value is not a number");
    }

    #[tokio::test(start_paused = true)]
    async fn only_its_owner_gives_a_lock_back() {
        let memory = memory(10);
        memory.set(b"k", b"v", MINUTE, soon()).await.unwrap();
        let half = MINUTE / 2;
        let ours = Locked::ours(Some(b"v".to_vec()));
        assert_eq!(memory.lock(b"k", b"me", half, soon()).await.unwrap(), ours);
        assert_eq!(memory.lock(b"k", b"you", half, soon()).await.unwrap(), Locked::Theirs);
        assert!(!memory.unlock(b"k", b"you", soon()).await.unwrap());
        assert!(!memory.renew(b"k", b"you", MINUTE, soon()).await.unwrap());
        assert!(memory.renew(b"k", b"me", MINUTE, soon()).await.unwrap());
        tokio::time::advance(half).await;
        assert_eq!(memory.lock(b"k", b"you", half, soon()).await.unwrap(), Locked::Theirs);
        assert!(memory.unlock(b"k", b"me", soon()).await.unwrap());
        assert_eq!(memory.lock(b"none", b"you", half, soon()).await.unwrap(), Locked::ours(None));
        tokio::time::advance(half).await;
        assert!(!memory.renew(b"none", b"you", half, soon()).await.unwrap());
        assert!(!memory.unlock(b"none", b"you", soon()).await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn values_are_bounded_by_their_bytes() {
        // As many parts as there are, and one.
        for (megabytes, parts) in [(40, MAX_PARTS), (1, 1)] {
            let max_bytes = megabytes << 20;
            let memory = Memory::new("memory", MemorySettings { max_entries: 1_000_000, max_bytes });
            assert_eq!(memory.parts.len(), parts);
            let key = |n: u64| format!("{n},{}", "x".repeat(1_900));
            let count = 2 * u64::try_from(max_bytes).unwrap() / 2_100;
            for n in 0..count {
                let lifetime = MINUTE + Duration::from_secs(n);
                memory.set(key(n).as_bytes(), b"1", lifetime, soon()).await.unwrap();
            }
            let held = memory.parts.iter().map(|part| part.lock().unwrap());
            let (bytes, entries) = held.fold((0, 0), |(bytes, entries), part| {
                let sizes = part.by_key.iter().map(|(key, entry)| size_of_entry(key, &entry.value));
                assert_eq!((part.bytes, part.by_key.len()), (sizes.sum(), part.by_expiry.len()));
                (bytes + part.bytes, entries + part.by_key.len())
            });
            assert!(bytes <= max_bytes && bytes > max_bytes * 9 / 10, "{bytes} bytes");
            assert!(entries as u64 <= count / 2 + 1, "{entries} values");
            assert!(memory.get(key(count - 1).as_bytes(), soon()).await.unwrap().is_some());
            assert!(memory.get(key(0).as_bytes(), soon()).await.unwrap().is_none(), "it expires first");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_room_at_all_is_not_kept_and_harms_nobody() {
        let memory = memory(10);
        memory.set(b"a", b"1", MINUTE, soon()).await.unwrap();
        memory.set(b"b", b"1", MINUTE, soon()).await.unwrap();
        memory.set(b"a", &vec![b'x'; 1 << 20], MINUTE, soon()).await.unwrap();
        assert_eq!(memory.get(b"a", soon()).await.unwrap(), None);
        assert_eq!(memory.get(b"b", soon()).await.unwrap(), Some(b"1".to_vec()));
        memory.delete(b"b", soon()).await.unwrap();
        assert_eq!(memory.entries_of(b"b").bytes, 0);
    }
}
