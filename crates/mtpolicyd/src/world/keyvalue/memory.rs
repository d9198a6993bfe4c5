//! A store in this process: expiring and bounded.
//!
//! Time is the monotonic clock, so a jump of the system's clock neither keeps nor loses a value. When the
//! store is full, a new value replaces what has expired, or else what would expire first; so a lock, which
//! lives shortly, goes before a ticket.
//!
//! Knows: time. Must not know: what the values are for.

use super::{Locked, parse_number};
use crate::world::backend::{BackendError, Failure};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What a `<Connection>` of module Memory says.
#[derive(Clone, Debug, PartialEq)]
pub struct MemorySettings {
    /// How many values are kept at most; beyond it those that expire first go.
    pub max_entries: u64,
}

/// Longer lifetimes are this one: ten years, which a clock can still add up.
const MAX_LIFETIME: Duration = Duration::from_secs(10 * 365 * 86400);

/// How many expired values a write removes at most. More than one, so that they become fewer; few, so that no
/// write waits for a crowd that expires at once.
const SWEPT_PER_WRITE: usize = 4;

/// Values in this process.
pub struct Memory {
    name: Arc<str>,
    max_entries: usize,
    entries: Mutex<Entries>,
}

/// What [`Memory::update`] puts in place of a value: the new one and its lifetime, or nothing.
pub type Change = Option<(Vec<u8>, Duration)>;

impl Memory {
    /// An empty store.
    pub fn new(name: &str, settings: MemorySettings) -> Memory {
        let max_entries = usize::try_from(settings.max_entries).unwrap_or(usize::MAX).max(1);
        Memory { name: name.into(), max_entries, entries: Mutex::default() }
    }

    /// Changes a value as one step: what `change` makes of it and for how long it lives, and its result.
    /// `None` forgets the key. Others wait meanwhile, so `change` should be short.
    pub fn update<T>(&self, key: &[u8], change: impl FnOnce(Option<&[u8]>) -> (Change, T)) -> T {
        let now = Instant::now();
        let mut entries = self.lock_entries();
        let (change, result) = change(entries.get(key, now));
        match change {
            Some((value, lifetime)) => entries.put(key, value, lifetime, now, self.max_entries),
            None => entries.remove(key),
        }
        result
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8], _deadline: Instant) -> Result<Option<Vec<u8>>, BackendError> {
        Ok(self.lock_entries().get(key, Instant::now()).map(<[u8]>::to_vec))
    }

    /// Sets a value, whatever there was, for a time.
    pub async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        _deadline: Instant,
    ) -> Result<(), BackendError> {
        let value = value.to_vec();
        self.lock_entries().put(key, value, lifetime, Instant::now(), self.max_entries);
        Ok(())
    }

    /// Sets a value unless there is one: whether it did.
    pub async fn add(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        _deadline: Instant,
    ) -> Result<bool, BackendError> {
        let now = Instant::now();
        let mut entries = self.lock_entries();
        let free = entries.get(key, now).is_none();
        if free {
            entries.put(key, value.to_vec(), lifetime, now, self.max_entries);
        }
        Ok(free)
    }

    /// Forgets a key: whether there was one.
    pub async fn delete(&self, key: &[u8], _deadline: Instant) -> Result<bool, BackendError> {
        let mut entries = self.lock_entries();
        let found = entries.get(key, Instant::now()).is_some();
        entries.remove(key);
        Ok(found)
    }

    /// Adds one to a number, which begins at nothing and lives for this time from now on. An error if the
    /// value is no number.
    pub async fn increment(
        &self,
        key: &[u8],
        lifetime: Duration,
        _deadline: Instant,
    ) -> Result<u64, BackendError> {
        let now = Instant::now();
        let mut entries = self.lock_entries();
        let before = match entries.get(key, now) {
            Some(value) => parse_number(value).map_err(|message| self.refused(message))?,
            None => 0,
        };
        let number = before.saturating_add(1);
        entries.put(key, number.to_string().into_bytes(), lifetime, now, self.max_entries);
        Ok(number)
    }

    /// Locks `lock` for `owner`, at most for `lifetime`, and reads `key`.
    pub async fn lock(
        &self,
        lock: &[u8],
        owner: &[u8],
        lifetime: Duration,
        key: &[u8],
        deadline: Instant,
    ) -> Result<Locked, BackendError> {
        if self.add(lock, owner, lifetime, deadline).await? {
            Ok(Locked::Ours(self.get(key, deadline).await?))
        } else {
            Ok(Locked::Theirs)
        }
    }

    /// Gives a lock back, if it still is this owner's: whether it was.
    pub async fn unlock(&self, lock: &[u8], owner: &[u8], _deadline: Instant) -> Result<bool, BackendError> {
        let mut entries = self.lock_entries();
        let ours = entries.get(lock, Instant::now()) == Some(owner);
        if ours {
            entries.remove(lock);
        }
        Ok(ours)
    }

    fn refused(&self, message: String) -> BackendError {
        BackendError { connection: self.name.clone(), failure: Failure::Refused(message) }
    }

    fn lock_entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The values, and the order in which they expire.
#[derive(Default)]
struct Entries {
    by_key: HashMap<Arc<[u8]>, Entry>,
    by_expiry: BTreeSet<(Instant, Arc<[u8]>)>,
}

struct Entry {
    value: Vec<u8>,
    expires: Instant,
}

impl Entries {
    fn get(&self, key: &[u8], now: Instant) -> Option<&[u8]> {
        self.by_key.get(key).filter(|entry| entry.expires > now).map(|entry| entry.value.as_slice())
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>, lifetime: Duration, now: Instant, max_entries: usize) {
        self.sweep(now);
        let expires = now + lifetime.min(MAX_LIFETIME);
        let key: Arc<[u8]> = match self.by_key.remove_entry(key) {
            Some((key, old)) => {
                let place = (old.expires, key);
                self.by_expiry.remove(&place);
                place.1
            }
            None => key.into(),
        };
        while self.by_key.len() >= max_entries {
            let Some((_, first)) = self.by_expiry.pop_first() else { break };
            self.by_key.remove(&first);
        }
        self.by_expiry.insert((expires, key.clone()));
        self.by_key.insert(key, Entry { value, expires });
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((key, entry)) = self.by_key.remove_entry(key) {
            self.by_expiry.remove(&(entry.expires, key));
        }
    }

    /// Removes a few of those that have expired.
    fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEPT_PER_WRITE {
            match self.by_expiry.first() {
                Some((expires, _)) if *expires <= now => {}
                _ => break,
            }
            if let Some((_, key)) = self.by_expiry.pop_first() {
                self.by_key.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn memory(max_entries: u64) -> Memory {
        Memory::new("memory", MemorySettings { max_entries })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
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
        let entries = memory.lock_entries();
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
        assert_eq!(error.to_string(), "connection memory: the value is no number");
    }

    #[tokio::test(start_paused = true)]
    async fn only_its_owner_gives_a_lock_back() {
        let memory = memory(10);
        memory.set(b"k", b"v", MINUTE, soon()).await.unwrap();
        let ours = memory.lock(b"l", b"me", MINUTE, b"k", soon()).await.unwrap();
        assert_eq!(ours, Locked::Ours(Some(b"v".to_vec())));
        assert_eq!(memory.lock(b"l", b"you", MINUTE, b"k", soon()).await.unwrap(), Locked::Theirs);
        assert!(!memory.unlock(b"l", b"you", soon()).await.unwrap());
        assert!(memory.unlock(b"l", b"me", soon()).await.unwrap());
        assert_eq!(memory.lock(b"l", b"you", MINUTE, b"none", soon()).await.unwrap(), Locked::Ours(None));
        tokio::time::advance(MINUTE).await;
        assert!(!memory.unlock(b"l", b"you", soon()).await.unwrap());
    }
}
