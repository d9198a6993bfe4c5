//! Where sessions wait for the next request of the same message.
//!
//! Knows: sessions. Must not know: what is in them, plugins, the server.

mod memory;
mod renewal;
mod shared;

pub use memory::{KeptSession, MemoryOptions, MemorySessions};
pub use shared::{SharedLease, SharedOptions, SharedSessions};

use super::Session;
use backends::{BackendError, Call};
use std::sync::Arc;

/// The store of the sessions.
pub enum SessionCache {
    /// Each request has a session of its own.
    None,
    /// Sessions live in this process.
    Memory(Arc<MemorySessions>),
    /// Sessions live in a store that several daemons may share.
    Shared(Arc<SharedSessions>),
}

/// The longest instance that names a session, in bytes. Those of Postfix have about 40; a longer one comes
/// from somebody else and shall not fill the memory.
const MAX_INSTANCE_BYTES: usize = 250;

/// A session in use. What a request changes is kept, also when the request fails: the retry of Postfix finds
/// it.
#[derive(Debug)]
pub enum Lease {
    /// Kept nowhere, seen by nobody else.
    Private(Session),
    /// Kept, and locked until this is dropped.
    Kept(KeptSession),
    /// Kept in a store once this is dropped, and locked until then.
    Shared(SharedLease),
}

impl Lease {
    /// What is remembered of the message.
    pub fn session(&mut self) -> &mut Session {
        match self {
            Lease::Private(session) => session,
            Lease::Kept(lease) => lease.session(),
            Lease::Shared(lease) => lease.session(),
        }
    }

    /// The request is about to be answered. A session that stood in for one in a store goes there now, if
    /// the store has come back: the next request of the message may go to another daemon.
    pub async fn before_answer(&mut self) {
        if let Lease::Shared(lease) = self {
            lease.before_answer().await;
        }
    }
}

/// Why there is no session for a request.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It stayed locked until the deadline, or longer than the cache waits. A private one in its place would
    /// count scores twice.
    #[error("the session is locked by another request of the same message")]
    Locked,
    /// Where it is kept is being replaced, which takes longer than the request has time.
    #[error("session cache: {0}")]
    Replaced(BackendError),
    /// Where it is kept does not answer, and the cache shall not do without.
    #[error("session cache: {0}")]
    Away(BackendError),
}

impl SessionCache {
    /// The number of sessions in this process; for those in a store, of the copies.
    pub fn kept(&self) -> usize {
        match self {
            SessionCache::None => 0,
            SessionCache::Memory(sessions) => sessions.count(),
            SessionCache::Shared(shared) => shared.copies().count(),
        }
    }

    /// Sessions in memory.
    pub fn memory(options: MemoryOptions) -> SessionCache {
        SessionCache::Memory(Arc::new(MemorySessions::new(options)))
    }

    /// The session of a message, as soon as no other request uses it. Without an instance it is a private
    /// one: Postfix sends none before MAIL FROM, and clients must not meet in a session.
    pub async fn open(&self, instance: &[u8], call: Call<'_>) -> Result<Lease, OpenError> {
        if instance.is_empty() || instance.len() > MAX_INSTANCE_BYTES {
            return Ok(Lease::Private(Session::default()));
        }
        match self {
            SessionCache::None => Ok(Lease::Private(Session::default())),
            SessionCache::Memory(memory) => memory.open(instance, call.deadline()).await.map(Lease::Kept),
            // Boxed: clients of stores take many times the memory that everything else does.
            SessionCache::Shared(shared) => Box::pin(shared.open(instance, call)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Size;
    use std::time::Duration;

    fn memory() -> SessionCache {
        let (expire, max_size) = (Duration::from_secs(60), Size::mebibytes(1));
        SessionCache::memory(MemoryOptions { expire, max_sessions: 100, max_size })
    }

    fn soon() -> Call<'static> {
        Call::within(Duration::from_millis(50))
    }

    #[test]
    fn opening_a_session_is_a_small_future_whatever_the_cache() {
        let cache = memory();
        let size = size_of_val(&cache.open(b"a", soon()));
        assert!(size < 4096, "{size} bytes are moved several times for each request");
    }

    async fn set(cache: &SessionCache, instance: &[u8], field: &str) {
        cache.open(instance, soon()).await.unwrap().session().set(field, "1");
    }

    async fn has(cache: &SessionCache, instance: &[u8], field: &str) -> bool {
        cache.open(instance, soon()).await.unwrap().session().text(field).is_some()
    }

    #[tokio::test]
    async fn requests_of_one_mail_share_a_session() {
        let cache = memory();
        set(&cache, b"a", "x").await;
        assert!(has(&cache, b"a", "x").await);
        assert!(!has(&cache, b"b", "x").await);
    }

    #[tokio::test]
    async fn without_an_instance_nothing_is_shared() {
        let cache = memory();
        for nobody in [&b""[..], &[b'x'; 251]] {
            set(&cache, nobody, "x").await;
            assert!(!has(&cache, nobody, "x").await);
        }
        set(&SessionCache::None, b"a", "x").await;
        assert!(!has(&SessionCache::None, b"a", "x").await);
    }

    #[tokio::test]
    async fn a_session_is_used_by_one_request_at_a_time() {
        let cache = memory();
        let lease = cache.open(b"a", soon()).await.unwrap();
        assert!(matches!(cache.open(b"a", soon()).await, Err(OpenError::Locked)));
        drop(lease);
        assert!(cache.open(b"a", soon()).await.is_ok());
    }
}
