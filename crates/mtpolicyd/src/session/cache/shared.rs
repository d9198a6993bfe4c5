//! Sessions in a store that several daemons share, each locked while a request uses it.
//!
//! A session that was used here is kept in this process too. While the store is unreachable, that copy
//! stands in for it, so that the results of a message are still those of one message, at least in this
//! daemon.
//!
//! Knows: sessions, stores. Must not know: what is in a session, plugins, the server.

use super::memory::{KeptSession, MemoryOptions, MemorySessions};
use super::renewal::{LEASE, Renewal, Renewals};
use super::{Lease, OpenError};
use crate::log::messages::sessions as messages;
use crate::session::Session;
use crate::value::Size;
use backends::keyvalue::{Lock, Locked, Protected, Store, Version};
use backends::{BackendError, Call, Failure, Throttle};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

/// How sessions in a store are kept and locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedOptions {
    /// How long to keep a session after its last request.
    pub expire: Duration,
    /// The longest wait before asking again for a session that another daemon has locked.
    pub lock_wait: Duration,
    /// How often to wait for as long as that, and longer, before giving up.
    pub lock_max_retry: u64,
    /// How long a request may keep a session locked.
    pub lock_timeout: Duration,
    /// Whether a request goes on with a session of this process while the store is unreachable.
    pub go_on_without: bool,
}

/// The first wait for a session that another daemon has locked; each further one is twice as long. Mostly it
/// is saving the session just then, which takes less than a millisecond.
const FIRST_WAIT: Duration = Duration::from_millis(1);

/// How many sessions are kept here as well, and how much memory they may take.
const COPIES: (u64, Size) = (10_000, Size::mebibytes(8));

/// How long an answer waits for a store that has come back while the session was standing in.
const HAND_IN_LIMIT: Duration = Duration::from_millis(200);

/// The least time of a request that is closed for another one while the store is being replaced: two of them
/// and the second between them are as long as stores are waited for.
const TIME_FOR_TWO: Duration = Duration::from_secs(2);

/// How long before its time is over a call may give up a store that it waits for: it does not begin a pause
/// between two tries that it could not end.
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// The least time that a call to the store has.
const CALL_TIME: Duration = Duration::from_secs(1);

/// How long to wait before a session is saved once more, and for how long to do so: the next request of the
/// message waits for it, until the session stands in.
const SAVE_PAUSE: Duration = Duration::from_millis(50);
const SAVE_LIMIT: Duration = Duration::from_secs(5);

/// Sessions in a store.
pub struct SharedSessions {
    store: Store,
    options: SharedOptions,
    /// The sessions of this process. Its requests wait for one another here and wake one another; only those
    /// of other daemons have to be polled for.
    copies: Arc<MemorySessions>,
    renewals: Arc<Renewals>,
    /// What the locks of this daemon begin with: nobody else has it.
    owner: String,
    /// Locks taken so far.
    locks: AtomicU64,
    /// Requests whose session was that of this process because the store was away.
    without: AtomicU64,
    /// When the number of them was last told.
    told: Throttle,
    /// When a failure of the store was last logged.
    complaints: Throttle,
    /// Sessions that are on their way to the store.
    saves: TaskTracker,
}

/// A session in use; dropped, it goes to the store, which the answer does not wait for.
pub struct SharedLease {
    session: Session,
    /// `None` once it is on its way.
    kept: Option<Origin>,
}

/// A session in use, and how the store has it.
struct Origin {
    sessions: Arc<SharedSessions>,
    copy: KeptSession,
    /// `None` if it stands in for one in a store that is unreachable.
    locked: Option<StoreLock>,
}

/// A session is locked in the store.
struct StoreLock {
    owner: Arc<str>,
    /// What was there when it was locked.
    stored: Protected,
    /// When the request has had it for too long.
    until: Instant,
    _renewal: Renewal,
}

impl StoreLock {
    fn as_lock(&self) -> Lock<'_> {
        let Protected { version, value } = &self.stored;
        Lock { owner: self.owner.as_bytes(), version: *version, before: value.as_deref() }
    }
}

impl std::fmt::Debug for SharedLease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SharedLease").field(&self.session).finish()
    }
}

impl SharedSessions {
    /// The sessions of which there is a copy in this process.
    pub(super) fn copies(&self) -> &MemorySessions {
        &self.copies
    }

    /// Sessions in this store. What is on its way there is counted by the tracker.
    pub fn new(store: Store, options: SharedOptions, saves: TaskTracker) -> Arc<SharedSessions> {
        let random = || RandomState::new().build_hasher().finish();
        let (max_sessions, max_size) = COPIES;
        let copies = MemoryOptions { expire: options.expire, max_sessions, max_size };
        Arc::new(SharedSessions {
            copies: Arc::new(MemorySessions::copies(copies)),
            renewals: Renewals::new(store.clone(), LEASE),
            owner: format!("{}-{:016x}{:016x}", std::process::id(), random(), random()),
            locks: AtomicU64::new(0),
            without: AtomicU64::new(0),
            told: Throttle::default(),
            complaints: Throttle::default(),
            store,
            options,
            saves,
        })
    }

    /// The session of a message, as soon as no other request uses it: one round trip to the store if none
    /// does.
    pub async fn open(self: &Arc<Self>, instance: &[u8], call: Call<'_>) -> Result<Lease, OpenError> {
        let begun = Instant::now();
        let mut copy = self.copies.open(instance, call.deadline()).await?;
        match self.lock(instance, copy.instance(), call).await {
            Ok(Some(locked)) => {
                self.note_back();
                // What the store does not know yet is newer than what it knows.
                if !copy.is_unsaved() {
                    let stored = locked.stored.value.as_deref().and_then(Session::from_bytes);
                    *copy.session() = stored.unwrap_or_default();
                }
                Ok(self.lease(copy, Some(locked)))
            }
            Ok(None) => Err(OpenError::Locked),
            Err(error) if !self.options.go_on_without => Err(OpenError::Away(error)),
            Err(error) if self.is_being_replaced(begun, call.deadline()) => Err(OpenError::Replaced(error)),
            Err(error) => {
                // A connection says itself that it is down.
                let is_told = matches!(error.failure, Failure::Down(_) | Failure::TimedOut);
                if !is_told && self.complaints.is_due() {
                    messages::private_session(error);
                }
                self.without.fetch_add(1, Ordering::Relaxed);
                // Also where the request ends before it has found anything: what is here may stand in again.
                copy.set_unsaved(true);
                Ok(self.lease(copy, None))
            }
        }
    }

    fn lease(self: &Arc<Self>, mut copy: KeptSession, locked: Option<StoreLock>) -> Lease {
        let session = std::mem::take(copy.session());
        Lease::Shared(SharedLease { session, kept: Some(Origin { sessions: self.clone(), copy, locked }) })
    }

    /// Locks a session in the store, as soon as no other daemon has it; `None` if it stays locked.
    async fn lock(
        self: &Arc<Self>,
        instance: &[u8],
        shared: &Arc<[u8]>,
        call: Call<'_>,
    ) -> Result<Option<StoreLock>, BackendError> {
        let deadline = call.deadline();
        let begun = Instant::now();
        let store_until = self.store_until(begun, deadline);
        let give_up = begun + self.longest_wait();
        let mut wait = FIRST_WAIT.min(self.options.lock_wait);
        loop {
            let call_until = store_until.max(Instant::now() + CALL_TIME).min(deadline);
            if let Some(locked) = self.try_lock(instance, shared, call.ending_by(call_until)).await? {
                return Ok(Some(locked));
            }
            let now = Instant::now();
            if now >= give_up || now + wait >= deadline {
                return Ok(None);
            }
            sleep_until(give_up.min(now + wait)).await;
            wait = (wait * 2).min(self.options.lock_wait);
        }
    }

    /// Locks a session in the store unless another daemon has it. After an error nobody knows whether it is
    /// locked, so it is unlocked.
    async fn try_lock(
        self: &Arc<Self>,
        instance: &[u8],
        shared: &Arc<[u8]>,
        call: Call<'_>,
    ) -> Result<Option<StoreLock>, BackendError> {
        let owner = format!("{}-{}", self.owner, self.locks.fetch_add(1, Ordering::Relaxed));
        let owner: Arc<str> = owner.into();
        let taken = Instant::now();
        match self.store.lock(instance, owner.as_bytes(), LEASE, call).await {
            Ok(Locked::Ours(stored)) => {
                let until = taken + self.options.lock_timeout;
                let renewal = self.renewals.keep(shared.clone(), owner.clone(), taken, until);
                Ok(Some(StoreLock { owner, stored, until, _renewal: renewal }))
            }
            Ok(Locked::Theirs) => Ok(None),
            Err(error) => {
                let (sessions, instance) = (self.clone(), shared.clone());
                self.saves.spawn(async move {
                    // If it can't be told, the lock ends by itself.
                    drop(sessions.store.unlock(&instance, owner.as_bytes(), Call::within(LEASE)).await);
                });
                Err(error)
            }
        }
    }

    /// Until when the store is waited for: a little is left for the checks.
    fn store_until(&self, begun: Instant, deadline: Instant) -> Instant {
        begun + deadline.saturating_duration_since(begun) * 9 / 10
    }

    /// Whether the store has been waited for until the time was over. While it is being replaced, other
    /// daemons can't know what is found here, and would find it once more; so Postfix asks again, a second
    /// later and for as long, by when it is known whether the store is back or stays away. That takes time
    /// which a very short one does not have twice.
    fn is_being_replaced(&self, begun: Instant, deadline: Instant) -> bool {
        let time = deadline.saturating_duration_since(begun);
        time >= TIME_FOR_TWO && Instant::now() + LAST_PAUSE >= self.store_until(begun, deadline)
    }

    /// The waits of the original together: each was longer than the one before by the first.
    fn longest_wait(&self) -> Duration {
        let retries = u32::try_from(self.options.lock_max_retry).unwrap_or(u32::MAX);
        let waits = u64::from(retries) * (u64::from(retries) + 1) / 2;
        self.options.lock_wait.saturating_mul(u32::try_from(waits).unwrap_or(u32::MAX))
    }

    fn note_back(&self) {
        if self.without.load(Ordering::Relaxed) > 0 && self.told.is_due() {
            messages::cache_back(self.without.swap(0, Ordering::Relaxed));
        }
    }
}

impl Origin {
    /// Saves the session and gives the lock back.
    async fn save(&mut self) {
        let Some(locked) = self.locked.take() else { return };
        let instance = self.copy.instance().clone();
        if Instant::now() >= locked.until {
            // It may be in use by another request now, whose results would be lost.
            messages::outlived_lock();
            return self.sessions.unlock(&instance, &locked.owner).await;
        }
        let bytes = self.copy.session().to_bytes();
        let mut put = self.sessions.put(&instance, &bytes, &locked).await;
        // A store that was lost on the way may have set it, or not; the answer has gone, so there is time to
        // ask once it is back. Where a version decides, the second try could not be told from another's.
        let give_up = locked.until.min(Instant::now() + SAVE_LIMIT);
        while locked.stored.version == Version::Unknown && is_unsure(&put) {
            let next = Instant::now() + SAVE_PAUSE;
            if next >= give_up {
                break;
            }
            sleep_until(next).await;
            put = self.sessions.put(&instance, &bytes, &locked).await;
        }
        match put {
            Ok(true) => self.copy.set_unsaved(false),
            Ok(false) => {
                messages::lock_lost();
                self.copy.set_unsaved(false);
            }
            Err(error) => {
                messages::not_saved(error);
                self.copy.set_unsaved(true);
                self.sessions.unlock(&instance, &locked.owner).await;
            }
        }
    }
}

/// Whether nobody knows what the store has done.
fn is_unsure(put: &Result<bool, BackendError>) -> bool {
    put.as_ref().is_err_and(|error| matches!(error.failure, Failure::Down(_) | Failure::TimedOut))
}

impl SharedSessions {
    /// Sets the value of a session: whether nobody else has had the session meanwhile.
    async fn put(
        self: &Arc<Self>,
        instance: &Arc<[u8]>,
        bytes: &[u8],
        locked: &StoreLock,
    ) -> Result<bool, BackendError> {
        let (expire, call) = (self.options.expire, Call::until(locked.until));
        let lock = locked.as_lock();
        if self.store.set_and_unlock(instance, bytes, expire, lock, call).await? {
            return Ok(true);
        }
        // The store may have been away for longer than the lock held, and nobody may have come since. Where
        // the store knows which value is there, it has looked at that already.
        if locked.stored.version != Version::Unknown {
            return Ok(false);
        }
        let Some(again) = self.try_lock(instance, instance, call).await? else { return Ok(false) };
        // An earlier try, whose answer was lost, may have set it.
        let is_done = again.stored.value.as_deref() == Some(bytes);
        if is_done || again.stored.value != locked.stored.value {
            self.unlock(instance, &again.owner).await;
            return Ok(is_done);
        }
        self.store.set_and_unlock(instance, bytes, expire, again.as_lock(), call).await
    }

    async fn unlock(&self, instance: &[u8], owner: &str) {
        let call = Call::within(LEASE);
        if let Err(error) = self.store.unlock(instance, owner.as_bytes(), call).await {
            messages::not_unlocked(error);
        }
    }
}

impl SharedLease {
    /// What is remembered of the message.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Hands a session in that has been standing in for one in the store, if the store is there again.
    pub(super) async fn before_answer(&mut self) {
        let Some(kept) = self.kept.as_mut().filter(|kept| kept.locked.is_none()) else { return };
        let (sessions, instance) = (kept.sessions.clone(), kept.copy.instance().clone());
        let call = Call::within(HAND_IN_LIMIT);
        if let Ok(Some(locked)) = sessions.try_lock(&instance, &instance, call).await {
            kept.locked = Some(locked);
            kept.copy.session().clone_from(&self.session);
            kept.save().await;
        }
    }
}

impl Drop for SharedLease {
    fn drop(&mut self) {
        if let Some(mut kept) = self.kept.take() {
            *kept.copy.session() = std::mem::take(&mut self.session);
            let saves = kept.sessions.saves.clone();
            saves.spawn(async move { kept.save().await });
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

    fn soon() -> Call<'static> {
        Call::within(Duration::from_secs(5))
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
        let call = Call::within(Duration::from_millis(8));
        assert!(matches!(sessions.open(b"a", call).await, Err(OpenError::Locked)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_is_renewed_while_it_is_used_and_short_otherwise() {
        let store = store();
        let daemons = [daemon(&store), daemon(&store)];
        let lease = daemons[0].open(b"a", soon()).await.unwrap();
        tokio::time::sleep(LEASE * 4).await;
        assert!(matches!(daemons[1].open(b"a", soon()).await, Err(OpenError::Locked)));
        drop(lease);
        daemons[1].open(b"a", soon()).await.unwrap();
        // One whose daemon is gone.
        let call = soon();
        assert!(matches!(store.lock(b"b", b"gone", LEASE, call).await.unwrap(), Locked::Ours(_)));
        assert!(matches!(daemons[1].open(b"b", soon()).await, Err(OpenError::Locked)));
        tokio::time::sleep(LEASE).await;
        daemons[1].open(b"b", soon()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_the_store_has_lost_matters_only_if_somebody_came() {
        let store = store();
        let sessions = daemon(&store);
        for (others, expected) in [(false, 1.0), (true, 7.0)] {
            let mut lease = sessions.open(b"a", soon()).await.unwrap();
            lease.session().set("n", "1");
            assert!(store.delete(b"lock_a", soon()).await.unwrap());
            if others {
                let mut other = daemon(&store).open(b"a", soon()).await.unwrap();
                other.session().set("n", "7");
                drop(other);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            drop(lease);
            tokio::time::sleep(Duration::from_millis(10)).await;
            let mut after = daemon(&store).open(b"a", soon()).await.unwrap();
            assert_eq!(after.session().number("n"), expected);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_outlived_its_lock_changes_nothing() {
        let store = store();
        let sessions = daemon(&store);
        let mut late = sessions.open(b"a", soon()).await.unwrap();
        late.session().set("who", "late");
        tokio::time::sleep(Duration::from_secs(10) + LEASE).await;
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
