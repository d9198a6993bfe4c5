//! How often the servers of the configuration are called, how long that takes and how it fails.
//!
//! Knows: names of connections, time. Must not know: any protocol, who reads the numbers.

use crate::{BackendError, Failure};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// The bounds of the buckets of times, in microseconds. There is one bucket more, for what is beyond.
pub const BOUNDS: [u64; 13] = [
    100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000,
    20_000_000,
];

/// The kinds of failures, by the numbers that `kind` gives them.
pub const KINDS: [&str; 6] = ["down", "timeout", "refused", "no_table", "bad_value", "denied"];

/// What is counted of one connection.
#[derive(Debug, Default)]
pub struct CallNumbers {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    micros: AtomicU64,
    errors: [AtomicU64; KINDS.len()],
}

/// All of them by the names of their connections. A name keeps its numbers whatever becomes of its server, so
/// that a reload does not set them back; there are as many as the configurations of this process have named.
static ALL: Mutex<BTreeMap<Box<str>, Arc<CallNumbers>>> = Mutex::new(BTreeMap::new());

impl CallNumbers {
    /// The numbers of the connection of that name.
    pub fn of(connection: &str) -> Arc<CallNumbers> {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(connection) {
            Some(known) => known.clone(),
            None => all.entry(connection.into()).or_default().clone(),
        }
    }

    /// Counts a call. The time of one that has found nobody says nothing of the server, so only the failure
    /// is counted; what is not done for an explanation does not count at all.
    pub fn note<T>(&self, begun: Instant, outcome: &Result<T, BackendError>) {
        let failure = outcome.as_ref().err().map(|error| &error.failure);
        if let Some(kind) = failure.and_then(kind) {
            self.errors[kind].fetch_add(1, Ordering::Relaxed);
        }
        if matches!(failure, Some(Failure::Down(_) | Failure::NotDone(_))) {
            return;
        }
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many calls were in each bucket, and the microseconds that they took together.
    pub fn times(&self) -> ([u64; BOUNDS.len() + 1], u64) {
        let load = |bucket: &AtomicU64| bucket.load(Ordering::Relaxed);
        (self.buckets.each_ref().map(load), load(&self.micros))
    }

    /// How many calls have failed, by [`KINDS`].
    pub fn errors(&self) -> [u64; KINDS.len()] {
        self.errors.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// The number of the kind of a failure.
fn kind(failure: &Failure) -> Option<usize> {
    match failure {
        Failure::Down(_) => Some(0),
        Failure::TimedOut => Some(1),
        Failure::Refused(_) => Some(2),
        Failure::NoTable(_) => Some(3),
        Failure::BadValue(_) => Some(4),
        Failure::Denied(_) => Some(5),
        Failure::NotDone(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_name_keeps_its_numbers() {
        let numbers = CallNumbers::of("call-numbers-test");
        let begun = Instant::now();
        tokio::time::advance(Duration::from_millis(2)).await;
        let failed = |failure| Err::<(), _>(BackendError { connection: "x".into(), failure });
        numbers.note(begun, &Ok(()));
        numbers.note(begun, &failed(Failure::TimedOut));
        numbers.note(begun, &failed(Failure::Down("gone".into())));
        numbers.note(begun, &failed(Failure::NotDone(String::new())));
        let again = CallNumbers::of("call-numbers-test");
        let mut expected = [0; BOUNDS.len() + 1];
        expected[3] = 2;
        assert_eq!((again.times(), again.errors()), ((expected, 4_000), [1, 1, 0, 0, 0, 0]));
        assert_eq!(CallNumbers::of("call-numbers-other").errors(), [0; KINDS.len()]);
    }
}
