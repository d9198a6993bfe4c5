//! A store that is read but not changed: what a request changes, it finds again, and nobody else does.
//!
//! Knows: stores, pretences. Must not know: what the values are for.

use super::{Locked, Store, parse_number};
use crate::pretence::Pretence;
use crate::{BackendError, Call, Failure};
use std::sync::Arc;

/// The view of one request of a store.
pub(super) struct Pretended<'a> {
    store: &'a Store,
    pretence: &'a Pretence,
    call: Call<'a>,
}

impl<'a> Pretended<'a> {
    /// That of a request that only pretends; `None` for all others.
    pub(super) fn of(store: &'a Store, call: Call<'a>) -> Option<Pretended<'a>> {
        call.pretence().map(|pretence| Pretended { store, pretence, call })
    }

    pub(super) async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        match self.pretence.changed(self.id(), key) {
            Some(value) => Ok(value),
            // Boxed, since the real one asks here whether it is to pretend.
            None => Box::pin(self.store.get(key, self.call.in_earnest())).await,
        }
    }

    pub(super) fn set(&self, key: &[u8], value: &[u8]) {
        self.note("set", key);
        self.pretence.change(self.id(), key, Some(value.to_vec()));
    }

    pub(super) async fn add(&self, key: &[u8], value: &[u8]) -> Result<bool, BackendError> {
        let is_free = self.get(key).await?.is_none();
        if is_free {
            self.set(key, value);
        }
        Ok(is_free)
    }

    pub(super) async fn delete(&self, key: &[u8]) -> Result<bool, BackendError> {
        let existed = self.get(key).await?.is_some();
        if existed {
            self.note("remove", key);
            self.pretence.change(self.id(), key, None);
        }
        Ok(existed)
    }

    pub(super) async fn increment(&self, key: &[u8]) -> Result<u64, BackendError> {
        let before = match self.get(key).await? {
            Some(value) => parse_number(&value).map_err(|why| self.refused(why))?,
            None => 0,
        };
        self.set(key, (before + 1).to_string().as_bytes());
        Ok(before + 1)
    }

    pub(super) async fn lock(&self, key: &[u8]) -> Result<Locked, BackendError> {
        Ok(Locked::ours(self.get(key).await?))
    }

    fn note(&self, what: &str, key: &[u8]) {
        self.pretence.note(format!("{what} {}", String::from_utf8_lossy(key)));
    }

    fn refused(&self, why: String) -> BackendError {
        BackendError { connection: "store".into(), failure: Failure::Refused(why) }
    }

    /// Clones of a store are the same.
    fn id(&self) -> usize {
        match self.store {
            Store::Memory(store) => Arc::as_ptr(store).addr(),
            Store::Memcached(store) => Arc::as_ptr(store).addr(),
            Store::Redis(store) => Arc::as_ptr(store).addr(),
            Store::Sql(store) => Arc::as_ptr(store).addr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyvalue::{Memory, MemorySettings};
    use std::time::Duration;

    #[tokio::test]
    async fn a_pretended_change_is_seen_by_who_made_it_only() {
        let store = Store::Memory(Arc::new(Memory::new(
            "memory",
            MemorySettings { max_entries: 9, max_bytes: 1 << 20 },
        )));
        let (real, hour) = (Call::within(Duration::from_secs(20)), Duration::from_secs(3600));
        store.set(b"a", b"1", hour, real).await.unwrap();
        let pretence = Pretence::default();
        let call = real.pretending(Some(&pretence));
        assert_eq!(store.increment(b"a", hour, call).await.unwrap(), 2);
        assert_eq!(store.increment(b"n", hour, call).await.unwrap(), 1);
        assert!(!store.add(b"n", b"x", hour, call).await.unwrap());
        assert!(store.add(b"b", b"x", hour, call).await.unwrap());
        assert_eq!(store.get(b"b", call).await.unwrap(), Some(b"x".to_vec()));
        assert!(store.delete(b"b", call).await.unwrap());
        assert_eq!(store.get(b"b", call).await.unwrap(), None);
        assert_eq!(store.get(b"a", call).await.unwrap(), Some(b"2".to_vec()));
        assert_eq!(pretence.take(), ["set a", "set n", "set b", "remove b"]);
        assert_eq!(store.get(b"a", real).await.unwrap(), Some(b"1".to_vec()));
        for key in [b"n", b"b"] {
            assert_eq!(store.get(key, real).await.unwrap(), None);
        }
    }
}
