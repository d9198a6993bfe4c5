//! The locks of sessions in use, which are renewed until their requests end.
//!
//! A lock is a short lease, so that the next request of a message does not wait long for a daemon that died.
//! Few requests take longer than a lease, so one task looks after the locks of all.
//!
//! Knows: stores. Must not know: what is in a session.

use backends::Call;
use backends::keyvalue::Store;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a lock holds unless it is renewed: so long a message waits for a daemon that died.
pub(super) const LEASE: Duration = Duration::from_secs(2);

/// The age at which a lock is renewed: a few times before it ends.
const RENEW_AFTER: Duration = Duration::from_millis(500);

/// How often to look for locks of that age.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The locks that this daemon holds in a store.
pub(super) struct Renewals {
    store: Store,
    lease: Duration,
    locks: Mutex<Locks>,
}

#[derive(Default)]
struct Locks {
    held: HashMap<u64, HeldLock>,
    next: u64,
    /// Whether the task runs.
    renewing: bool,
}

#[derive(Clone)]
struct HeldLock {
    instance: Arc<[u8]>,
    owner: Arc<str>,
    /// When it was taken or last renewed.
    renewed: Instant,
    /// When it is left to end.
    until: Instant,
}

/// A lock is renewed until this is dropped.
pub(super) struct Renewal {
    renewals: Arc<Renewals>,
    number: u64,
}

impl Renewals {
    /// No locks yet.
    pub(super) fn new(store: Store, lease: Duration) -> Arc<Renewals> {
        Arc::new(Renewals { store, lease, locks: Mutex::default() })
    }

    /// Renews a lock that was taken then, as long as it is used, but not beyond `until`.
    pub(super) fn keep(
        self: &Arc<Self>,
        instance: Arc<[u8]>,
        owner: Arc<str>,
        taken: Instant,
        until: Instant,
    ) -> Renewal {
        let mut locks = self.locks();
        let number = locks.next;
        locks.next += 1;
        locks.held.insert(number, HeldLock { instance, owner, renewed: taken, until });
        let is_running = std::mem::replace(&mut locks.renewing, true);
        drop(locks);
        if !is_running {
            tokio::spawn(self.clone().run());
        }
        Renewal { renewals: self.clone(), number }
    }

    /// Renews what is old enough, until there is no lock.
    async fn run(self: Arc<Self>) {
        loop {
            sleep(LOOK_EVERY).await;
            let Some(due) = self.due() else { return };
            for (number, lock) in due {
                tokio::spawn(self.clone().renew(number, lock));
            }
        }
    }

    /// The locks to be renewed now; `None` if there is none any more.
    fn due(&self) -> Option<Vec<(u64, HeldLock)>> {
        let mut locks = self.locks();
        if locks.held.is_empty() {
            locks.renewing = false;
            return None;
        }
        let now = Instant::now();
        let is_due = |lock: &HeldLock| now < lock.until && now.duration_since(lock.renewed) >= RENEW_AFTER;
        let due = locks.held.iter().filter(|(_, lock)| is_due(lock));
        Some(due.map(|(number, lock)| (*number, lock.clone())).collect())
    }

    /// What comes of it is found out when the session is saved: a store that is unreachable now may be back
    /// by then.
    async fn renew(self: Arc<Self>, number: u64, lock: HeldLock) {
        let begun = Instant::now();
        let HeldLock { instance, owner, .. } = lock;
        let call = Call::until(begun + self.lease / 2);
        let renewed = self.store.renew(&instance, owner.as_bytes(), self.lease, call).await;
        if let (Ok(true), Some(lock)) = (renewed, self.locks().held.get_mut(&number)) {
            lock.renewed = begun;
        }
    }

    fn locks(&self) -> MutexGuard<'_, Locks> {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Renewal {
    fn drop(&mut self) {
        self.renewals.locks().held.remove(&self.number);
    }
}
