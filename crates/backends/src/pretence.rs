//! Calls that only pretend: what would be changed is noted, and nothing is.
//!
//! Knows: keys, values, texts. Must not know: any protocol.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// A store, by its address in memory, and a key there; with the value that it would hold.
type Changes = BTreeMap<(usize, Vec<u8>), Option<Vec<u8>>>;

/// What would have been done outside, for an explanation: the changes to stores, so that the same request
/// finds them again, and of everything else what it would have been.
#[derive(Default)]
pub struct Pretence {
    changes: Mutex<Changes>,
    would: Mutex<Vec<String>>,
}

impl Pretence {
    /// Notes what would have been done: `ban 192.0.2.1 in jail postfix`.
    pub fn note(&self, what: impl Into<String>) {
        self.would.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    /// What would have been done, in order.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.would.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What a key of a store would hold by now: `None` if nothing would have changed it, `Some(None)` if it
    /// would be gone. The store is told by its address in memory.
    pub(crate) fn changed(&self, store: usize, key: &[u8]) -> Option<Option<Vec<u8>>> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.get(&(store, key.to_vec())).cloned()
    }

    /// What a key of a store would hold from now on.
    pub(crate) fn change(&self, store: usize, key: &[u8], value: Option<Vec<u8>>) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.insert((store, key.to_vec()), value);
    }
}
