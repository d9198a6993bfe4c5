//! Sessions in a store that several daemons share, each locked while a request uses it.
//!
//! Knows: sessions, stores. Must not know: what is in a session, plugins, the server.

use super::{Lease, OpenError};
use crate::log::messages::sessions as messages;
use crate::session::Session;
use backends::keyvalue::{Lock, Locked, Store, Version};
use backends::{BackendError, Failure};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::task::TaskTracker;

/// How sessions in a store are kept and locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedOptions {
    /// How long to keep a session after its last request.
    pub expire: Duration,
    /// The first wait for a session that another request has locked; each further one is longer by as much.
    pub lock_wait: Duration,
    /// The number of waits.
    pub lock_max_retry: u64,
    /// After what time a lock is nobody's any more: that of a daemon that died.
    pub lock_timeout: Duration,
    /// Whether a request goes on with a private session while the store is unreachable.
    pub go_on_without: bool,
}

/// Sessions in a store.
pub struct SharedSessions {
    store: Store,
    options: SharedOptions,
    queues: Queues,
    /// What the locks of this daemon begin with: nobody else has it.
    owner: String,
    /// Locks taken so far.
    locks: AtomicU64,
    /// Requests that had a private session because the store was away, since it was last there.
    without: AtomicU64,
    /// Sessions that are on their way to the store.
    saves: TaskTracker,
}

/// A session in use; dropped, it goes to the store, which the answer does not wait for.
pub struct SharedLease {
    session: Session,
    /// `None` once it is on its way.
    kept: Option<Kept>,
}

/// Where a session in use is kept.
struct Kept {
    sessions: Arc<SharedSessions>,
    instance: Vec<u8>,
    /// Whose lock it is.
    owner: String,
    /// When the lock is nobody's any more.
    until: Instant,
    /// What was there when it was locked.
    version: Version,
    /// The next request of the message in this daemon waits for it.
    _ticket: QueueTicket,
}

impl std::fmt::Debug for SharedLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedLease").field(&self.session).finish()
    }
}

impl SharedSessions {
    /// Sessions in this store. What is on its way there is counted by the tracker.
    pub fn new(store: Store, options: SharedOptions, saves: TaskTracker) -> Arc<SharedSessions> {
        let random = || RandomState::new().build_hasher().finish();
        let owner = format!("{}-{:016x}{:016x}", std::process::id(), random(), random());
        let (locks, without) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(SharedSessions { store, options, queues: Queues::default(), owner, locks, without, saves })
    }

    /// The session of a message, as soon as no other request uses it: one round trip to the store if none
    /// does.
    pub async fn open(self: &Arc<Self>, instance: &[u8], deadline: Instant) -> Result<Lease, OpenError> {
        // Requests of one message in this daemon wake one another; only those of others have to be polled
        // for.
        let ticket = self.queues.enter(instance);
        let ticket = timeout_at(deadline, ticket).await.map_err(|_| OpenError::Locked)?;
        let owner = format!("{}-{}", self.owner, self.locks.fetch_add(1, Ordering::Relaxed));
        match self.lock(instance, &owner, deadline).await {
            Ok(Some((session, version, until))) => {
                self.note_back();
                let (sessions, instance) = (self.clone(), instance.to_owned());
                let kept = Some(Kept { sessions, instance, owner, until, version, _ticket: ticket });
                Ok(Lease::Shared(SharedLease { session, kept }))
            }
            Ok(None) => Err(OpenError::Locked),
            Err(error) => {
                if error.failure == Failure::TimedOut {
                    // Perhaps it is locked, and nobody came to know.
                    let (sessions, instance) = (self.clone(), instance.to_owned());
                    self.saves.spawn(async move { sessions.unlock(&instance, &owner).await });
                }
                if !self.options.go_on_without {
                    return Err(OpenError::Away(error));
                }
                self.without.fetch_add(1, Ordering::Relaxed);
                Ok(Lease::Private(Session::default()))
            }
        }
    }

    /// The session, what the store says of it, and until when it is locked; `None` if it stays locked by
    /// somebody else.
    async fn lock(
        &self,
        instance: &[u8],
        owner: &str,
        deadline: Instant,
    ) -> Result<Option<(Session, Version, Instant)>, BackendError> {
        let lock = lock_name(instance);
        let lifetime = self.options.lock_timeout;
        for retry in 1..=self.options.lock_max_retry.saturating_add(1) {
            let until = Instant::now() + lifetime;
            match self.store.lock(&lock, owner.as_bytes(), lifetime, instance, deadline).await? {
                Locked::Ours(stored) => {
                    let session = stored.value.and_then(|bytes| Session::from_bytes(&bytes));
                    return Ok(Some((session.unwrap_or_default(), stored.version, until)));
                }
                Locked::Theirs => {
                    let wait =
                        self.options.lock_wait.saturating_mul(u32::try_from(retry).unwrap_or(u32::MAX));
                    let next = Instant::now() + wait;
                    if retry > self.options.lock_max_retry || next >= deadline {
                        break;
                    }
                    sleep_until(next).await;
                }
            }
        }
        Ok(None)
    }

    fn note_back(&self) {
        let without = self.without.swap(0, Ordering::Relaxed);
        if without > 0 {
            messages::cache_back(without);
        }
    }

    async fn save(&self, session: &Session, kept: &Kept) {
        if Instant::now() >= kept.until {
            // It may be in use by another request now, whose results would be lost.
            messages::outlived_lock();
            return self.unlock(&kept.instance, &kept.owner).await;
        }
        let (bytes, key) = (session.to_bytes(), lock_name(&kept.instance));
        let lock = Lock { key: &key, owner: kept.owner.as_bytes(), version: kept.version };
        let expire = self.options.expire;
        let saved = self.store.set_and_unlock(&kept.instance, &bytes, expire, lock, kept.until).await;
        match saved {
            Ok(true) => {}
            Ok(false) => messages::lock_lost(),
            Err(error) => {
                messages::not_saved(error);
                self.unlock(&kept.instance, &kept.owner).await;
            }
        }
    }

    /// Gives a lock back that may be ours.
    async fn unlock(&self, instance: &[u8], owner: &str) {
        let deadline = Instant::now() + self.options.lock_timeout;
        if let Err(error) = self.store.unlock(&lock_name(instance), owner.as_bytes(), deadline).await {
            messages::not_unlocked(error);
        }
    }
}

impl SharedLease {
    /// What is remembered of the message.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }
}

impl Drop for SharedLease {
    fn drop(&mut self) {
        if let Some(kept) = self.kept.take() {
            let session = std::mem::take(&mut self.session);
            let saves = kept.sessions.saves.clone();
            saves.spawn(async move { kept.sessions.save(&session, &kept).await });
        }
    }
}

/// The key of the lock, as the original names it.
fn lock_name(instance: &[u8]) -> Vec<u8> {
    [b"lock_", instance].concat()
}

/// The requests of this daemon that want the same session, in the order in which they came.
#[derive(Default)]
struct Queues(Arc<Mutex<HashMap<Vec<u8>, Queue>>>);

/// A queue and its length; the last to leave removes it.
#[derive(Default)]
struct Queue {
    members: usize,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A slot in a queue, whether it is first or not.
struct QueueSlot {
    queues: Arc<Mutex<HashMap<Vec<u8>, Queue>>>,
    instance: Vec<u8>,
}

/// The right of one request to use the session.
struct QueueTicket {
    _guard: OwnedMutexGuard<()>,
    // After the guard, so that the queue is there until its turn is over.
    _slot: QueueSlot,
}

impl Queues {
    async fn enter(&self, instance: &[u8]) -> QueueTicket {
        let turn = {
            let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let queue = queues.entry(instance.to_owned()).or_default();
            queue.members += 1;
            queue.turn.clone()
        };
        let slot = QueueSlot { queues: self.0.clone(), instance: instance.to_owned() };
        QueueTicket { _guard: turn.lock_owned().await, _slot: slot }
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get_mut(&self.instance) {
            queue.members -= 1;
            if queue.members == 0 {
                queues.remove(&self.instance);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backends::keyvalue::{Memory, MemorySettings};

    fn store() -> Store {
        Store::Memory(Arc::new(Memory::new(
            "memory",
            MemorySettings { max_entries: 100, max_bytes: 1 << 20 },
        )))
    }

    fn daemon(store: &Store) -> Arc<SharedSessions> {
        let options = SharedOptions {
            expire: Duration::from_secs(60),
            lock_wait: Duration::from_millis(5),
            lock_max_retry: 4,
            lock_timeout: Duration::from_secs(10),
            go_on_without: true,
        };
        SharedSessions::new(store.clone(), options, TaskTracker::new())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn count(sessions: &Arc<SharedSessions>) -> f64 {
        let mut lease = sessions.open(b"a", soon()).await.unwrap();
        let session = lease.session();
        let seen = session.number("n");
        tokio::time::sleep(Duration::from_millis(1)).await;
        session.set("n", &(seen + 1.0).to_string());
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn daemons_see_one_anothers_results_one_request_at_a_time() {
        let store = store();
        let daemons = [daemon(&store), daemon(&store)];
        let requests = (0..8).map(|n| {
            let daemon = daemons[n % 2].clone();
            tokio::spawn(async move { count(&daemon).await })
        });
        let mut seen = Vec::new();
        for request in requests.collect::<Vec<_>>() {
            seen.push(request.await.unwrap());
        }
        seen.sort_by(f64::total_cmp);
        assert_eq!(seen, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert!(daemons.iter().all(|daemon| daemon.queues.0.lock().unwrap().is_empty()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_stays_ends_the_waiting_and_is_left_alone() {
        let store = store();
        let minute = Duration::from_secs(60);
        assert!(store.add(b"lock_a", b"another", minute, soon()).await.unwrap());
        let sessions = daemon(&store);
        let begun = Instant::now();
        assert!(matches!(sessions.open(b"a", soon()).await, Err(OpenError::Locked)));
        // 5 + 10 + 15 + 20 ms.
        assert!(begun.elapsed() >= Duration::from_millis(50), "{:?}", begun.elapsed());
        assert_eq!(store.get(b"lock_a", soon()).await.unwrap().as_deref(), Some(&b"another"[..]));
        let deadline = Instant::now() + Duration::from_millis(8);
        assert!(matches!(sessions.open(b"a", deadline).await, Err(OpenError::Locked)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_outlived_its_lock_changes_nothing() {
        let store = store();
        let sessions = daemon(&store);
        let mut late = sessions.open(b"a", soon()).await.unwrap();
        late.session().set("who", "late");
        tokio::time::sleep(Duration::from_secs(11)).await;
        let mut next = daemon(&store).open(b"a", soon()).await.unwrap();
        next.session().set("who", "next");
        drop(late);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(store.get(b"lock_a", soon()).await.unwrap().is_some(), "the lock is still the next one's");
        drop(next);
        tokio::time::sleep(Duration::from_millis(10)).await;
        let mut after = sessions.open(b"a", soon()).await.unwrap();
        assert_eq!(after.session().text("who"), Some("next"));
    }
}
