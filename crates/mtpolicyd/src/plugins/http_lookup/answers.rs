//! Answers of a service that are used again, and questions that several requests share.

use crate::facts::lookup_service::LookupAnswer;
use backends::BackendError;
use moka::Expiry;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much memory the answers of one plugin may take, about: 100,000 short ones.
const MAX_BYTES: u64 = 32 << 20;

/// What the cache itself keeps for an entry, about.
const ENTRY_BYTES: usize = 500;

/// What stands for the values of the attributes that an answer depends on.
pub type Key = [u8; 32];

/// What the service said, and for how long.
#[derive(Clone, Debug)]
pub struct Known {
    /// `None` if it had nothing to say.
    pub answer: Option<Arc<LookupAnswer>>,
    ttl: Duration,
}

impl Known {
    /// An answer that may be used again for so long.
    pub fn new(answer: Option<LookupAnswer>, ttl: Duration) -> Known {
        Known { answer: answer.map(Arc::new), ttl }
    }

    fn weight(&self) -> u32 {
        let size = ENTRY_BYTES + self.answer.as_ref().map_or(0, |answer| answer.size());
        u32::try_from(size).unwrap_or(u32::MAX)
    }
}

/// The answers that are known; a clone knows the same.
#[derive(Clone)]
pub struct Answers(Cache<Key, Known>);

impl Default for Answers {
    fn default() -> Answers {
        let cache = Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(|_, known: &Known| known.weight())
            .expire_after(ByTtl)
            // The default policy would refuse what is new once it is full.
            .eviction_policy(EvictionPolicy::lru());
        Answers(cache.build())
    }
}

impl Answers {
    /// The answer that is known, or what `ask` finds. Of those that ask the same at the same time one does;
    /// if it is given up another takes its place.
    pub async fn get(
        &self,
        key: Key,
        ask: impl Future<Output = Result<Known, BackendError>>,
    ) -> Result<Known, BackendError> {
        self.0.try_get_with(key, ask).await.map_err(|error| BackendError::clone(&error))
    }
}

struct ByTtl;

impl Expiry<Key, Known> for ByTtl {
    fn expire_after_create(&self, _: &Key, known: &Known, _: Instant) -> Option<Duration> {
        Some(known.ttl)
    }

    fn expire_after_update(
        &self,
        _: &Key,
        known: &Known,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(known.ttl)
    }
}
