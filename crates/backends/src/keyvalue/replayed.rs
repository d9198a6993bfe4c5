//! A store in a replay: what was recorded of it, and in memory what it would hold by now.
//!
//! Knows: notes of stores. Must not know: what the values are for.

use super::noted::{NOTHING, VALUE, detail, said};
use super::{Memory, Store, parse_number};
use crate::replay::{self, Replay};
use crate::{BackendError, Call};
use std::time::Duration;

/// How long a value lives in memory whose lifetime was not recorded.
const UNKNOWN_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// The view of a replay of a store.
pub(super) struct Replayed<'a> {
    replay: &'a Replay,
    /// What is simulated.
    memory: &'a Memory,
    call: Call<'a>,
}

impl<'a> Replayed<'a> {
    /// That of a request that is replayed; `None` for all others. There only memory is a store.
    pub(super) fn of(store: &'a Store, call: Call<'a>) -> Option<Replayed<'a>> {
        let (Store::Memory(memory), Some(replay)) = (store, call.replay()) else { return None };
        Some(Replayed { replay, memory, call: call.within_another() })
    }

    pub(super) async fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, BackendError> {
        let Some(answer) = self.recorded("get", key, None) else {
            return self.memory.get(key, self.call).await;
        };
        self.fail(&answer)?;
        if answer == NOTHING {
            self.memory.delete(key, self.call).await?;
            return Ok(None);
        }
        let Some(value) = answer.strip_prefix(VALUE) else {
            self.replay.miss(format!("a value of {}", self.memory.name()));
            return Ok(None);
        };
        if self.memory.get(key, self.call).await?.as_deref() != Some(value.as_bytes()) {
            self.memory.set(key, value.as_bytes(), UNKNOWN_LIFETIME, self.call).await?;
        }
        Ok(Some(value.as_bytes().to_vec()))
    }

    pub(super) async fn set(&self, key: &[u8], value: &[u8], lifetime: Duration) -> Result<(), BackendError> {
        if let Some(answer) = self.recorded("set", key, Some((value, lifetime))) {
            self.fail(&answer)?;
        }
        self.memory.set(key, value, lifetime, self.call).await
    }

    pub(super) async fn add(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
    ) -> Result<bool, BackendError> {
        let recorded = self.recorded("add", key, Some((value, lifetime)));
        let Some(answer) = recorded else { return self.memory.add(key, value, lifetime, self.call).await };
        self.fail(&answer)?;
        let is_new = answer == said(true);
        if is_new {
            self.memory.set(key, value, lifetime, self.call).await?;
        }
        Ok(is_new)
    }

    pub(super) async fn delete(&self, key: &[u8]) -> Result<bool, BackendError> {
        let recorded = self.recorded("delete", key, None);
        let existed = self.memory.delete(key, self.call).await?;
        let Some(answer) = recorded else { return Ok(existed) };
        self.fail(&answer)?;
        Ok(answer == said(true))
    }

    pub(super) async fn increment(&self, key: &[u8], lifetime: Duration) -> Result<u64, BackendError> {
        let recorded = self.recorded("increment", key, None);
        let Some(answer) = recorded else { return self.memory.increment(key, lifetime, self.call).await };
        self.fail(&answer)?;
        match parse_number(answer.as_bytes()) {
            Ok(number) => {
                self.memory.set(key, answer.as_bytes(), lifetime, self.call).await?;
                Ok(number)
            }
            Err(_) => self.memory.increment(key, lifetime, self.call).await,
        }
    }

    fn recorded(&self, verb: &str, key: &[u8], set: Option<(&[u8], Duration)>) -> Option<String> {
        let mut question = format!("{verb} {}", String::from_utf8_lossy(key));
        if let Some((value, lifetime)) = set {
            // Writing to a string does not fail.
            let _ = detail(value, lifetime, &mut question);
        }
        self.replay.stored(&question)
    }

    fn fail(&self, answer: &str) -> Result<(), BackendError> {
        replay::failure(self.memory.name(), answer).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyvalue::MemorySettings;
    use lookups::{LookupKind, Notebook};
    use std::sync::Arc;

    const HOUR: Duration = Duration::from_secs(3600);

    fn store() -> Store {
        Store::Memory(Arc::new(Memory::new("m", MemorySettings { max_entries: 9, max_bytes: 1 << 20 })))
    }

    /// What comes of some calls.
    async fn use_it(store: &Store, call: Call<'_>) -> String {
        let first = store.get(b"a", call).await.unwrap();
        let added = store.add(b"a", b"1900000300", HOUR, call).await.unwrap();
        let then = store.get(b"a", call).await.unwrap();
        let count = store.increment(b"n", HOUR, call).await.unwrap();
        let gone = store.delete(b"b", call).await.unwrap();
        format!("{first:?} {added} {then:?} {count} {gone}")
    }

    #[tokio::test]
    async fn what_was_noted_is_found_again_in_an_empty_store() {
        let (real, notes) = (store(), Notebook::default());
        let call = Call::within(HOUR);
        real.set(b"n", b"6", HOUR, call).await.unwrap();
        real.set(b"b", b"x", HOUR, call).await.unwrap();
        let then = use_it(&real, call.noted_in(Some(&notes))).await;
        let lookups = notes.take();
        assert!(lookups.iter().all(|lookup| lookup.kind == LookupKind::Store));
        let (replay, empty) = (Replay::default(), store());
        replay.begin(lookups, 0);
        let replayed = use_it(&empty, call.replaying(Some(&replay))).await;
        assert_eq!(replayed, then);
        assert_eq!(replay.end().degree, replay::Degree::Exact);
        // Nobody asked this then; what is in memory by now answers it.
        assert_eq!(empty.get(b"n", call.replaying(Some(&replay))).await.unwrap(), Some(b"7".to_vec()));
        assert_eq!(replay.end().degree, replay::Degree::Simulated);
    }
}
