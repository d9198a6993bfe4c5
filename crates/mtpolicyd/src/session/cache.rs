//! Where sessions wait for the next request of the same mail.
//!
//! Knows: sessions. Must not know: what is in them, plugins, the server.

mod shared;

pub use shared::{SharedLease, SharedOptions, SharedSessions};

use super::Session;
use crate::world::backend::BackendError;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

/// The store of the sessions.
pub enum SessionCache {
    /// Each request has a session of its own.
    None,
    /// Sessions live in this process.
    Memory(MemorySessions),
    /// Sessions live in a store that several daemons may share.
    Shared(Arc<SharedSessions>),
}

/// The longest instance that names a session, in bytes. Those of Postfix have about 40; a longer one comes
/// from somebody else and shall not fill the memory.
const MAX_INSTANCE_BYTES: usize = 250;

/// Sessions by instance; each has a lock, so that the requests of one mail see one another's results in
/// order.
pub struct MemorySessions {
    sessions: Cache<Vec<u8>, Arc<Mutex<Session>>>,
}

/// A session in use. What a request changes is kept, also when the request fails: the retry of Postfix finds
/// it.
#[derive(Debug)]
pub enum Lease {
    /// Kept nowhere, seen by nobody else.
    Private(Session),
    /// Kept, and locked until this is dropped.
    Kept(OwnedMutexGuard<Session>),
    /// Kept in a store once this is dropped, and locked until then.
    Shared(SharedLease),
}

impl Lease {
    /// What is remembered of the mail.
    pub fn session(&mut self) -> &mut Session {
        match self {
            Lease::Private(session) => session,
            Lease::Kept(session) => session,
            Lease::Shared(lease) => lease.session(),
        }
    }
}

/// Why there is no session for a request.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It stayed locked until the deadline, or longer than the cache waits. A private one in its place would
    /// count scores twice.
    #[error("the session is locked by another request of the same mail")]
    Locked,
    /// Where it is kept does not answer, and the cache shall not do without.
    #[error("session cache: {0}")]
    Away(BackendError),
}

impl SessionCache {
    /// Sessions in memory that are forgotten `expire` after their last use; beyond `max_sessions` those
    /// unused for longest go.
    pub fn memory(expire: Duration, max_sessions: u64) -> SessionCache {
        // The default policy keeps what was asked most often, and would refuse every new mail once it is
        // full.
        let policy = EvictionPolicy::lru();
        let sessions =
            Cache::builder().time_to_idle(expire).max_capacity(max_sessions).eviction_policy(policy).build();
        SessionCache::Memory(MemorySessions { sessions })
    }

    /// The session of a mail, as soon as no other request uses it. Without an instance it is a private one:
    /// Postfix sends none before MAIL FROM, and clients must not meet in a session.
    pub async fn open(&self, instance: &[u8], deadline: Instant) -> Result<Lease, OpenError> {
        if instance.is_empty() || instance.len() > MAX_INSTANCE_BYTES {
            return Ok(Lease::Private(Session::default()));
        }
        match self {
            SessionCache::None => Ok(Lease::Private(Session::default())),
            SessionCache::Memory(memory) => {
                let slot = memory.sessions.get_with_by_ref(instance, async { Arc::default() }).await;
                let locked = timeout_at(deadline, slot.lock_owned()).await;
                locked.map(Lease::Kept).map_err(|_| OpenError::Locked)
            }
            SessionCache::Shared(shared) => shared.open(instance, deadline).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    async fn set(cache: &SessionCache, instance: &[u8], field: &str) {
        cache.open(instance, soon()).await.unwrap().session().set(field, "1");
    }

    async fn has(cache: &SessionCache, instance: &[u8], field: &str) -> bool {
        cache.open(instance, soon()).await.unwrap().session().text(field).is_some()
    }

    #[tokio::test]
    async fn requests_of_one_mail_share_a_session() {
        let cache = SessionCache::memory(Duration::from_secs(60), 100);
        set(&cache, b"a", "x").await;
        assert!(has(&cache, b"a", "x").await);
        assert!(!has(&cache, b"b", "x").await);
    }

    #[tokio::test]
    async fn without_an_instance_nothing_is_shared() {
        let cache = SessionCache::memory(Duration::from_secs(60), 100);
        for nobody in [&b""[..], &[b'x'; 251]] {
            set(&cache, nobody, "x").await;
            assert!(!has(&cache, nobody, "x").await);
        }
        set(&SessionCache::None, b"a", "x").await;
        assert!(!has(&SessionCache::None, b"a", "x").await);
    }

    #[tokio::test]
    async fn a_session_is_used_by_one_request_at_a_time() {
        let cache = SessionCache::memory(Duration::from_secs(60), 100);
        let lease = cache.open(b"a", soon()).await.unwrap();
        assert!(matches!(cache.open(b"a", soon()).await, Err(OpenError::Locked)));
        drop(lease);
        assert!(cache.open(b"a", soon()).await.is_ok());
    }

    #[tokio::test]
    async fn sessions_expire_and_are_bounded() {
        let cache = SessionCache::memory(Duration::from_millis(30), 2);
        set(&cache, b"a", "x").await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert!(!has(&cache, b"a", "x").await);
        for instance in 0..50u8 {
            set(&cache, &[b'i', instance], "x").await;
        }
        assert!(has(&cache, &[b'i', 49], "x").await, "the newest one stays");
        let SessionCache::Memory(memory) = &cache else { unreachable!() };
        memory.sessions.run_pending_tasks().await;
        assert!(memory.sessions.entry_count() <= 2);
    }
}
