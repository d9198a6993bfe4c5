//! One port: accepts connections and starts a conversation for each.
//!
//! Knows: sockets, conversations. Must not know: the protocol, settings.

use super::Shared;
use super::conversation::Conversation;
use super::slots::Slot;
use super::sockets::Listener;
use crate::log::messages::daemon;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long to wait after a failed accept: out of descriptors, the next try fails as fast, and some will be
/// closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often the same trouble with accepting is logged.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Accepts until it is told to stop, or the daemon shuts down.
pub async fn listen(listener: Listener, key: Arc<str>, shared: Arc<Shared>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = shared.closing.cancelled() => {}
        () = accept_all(&listener, &key, &shared) => {}
    }
}

async fn accept_all(listener: &Listener, key: &Arc<str>, shared: &Arc<Shared>) {
    let complaints = Complaints::default();
    loop {
        match listener.accept().await {
            // A listener that waits for a client holds no slot: another port may need it.
            Ok(stream) => {
                let Some(slot) = free_slot(shared, &complaints).await else { return };
                let (key, shared) = (key.clone(), shared.clone());
                shared.clone().conversations.spawn(async move {
                    Conversation::run(stream, slot, &key, &shared).await;
                });
            }
            Err(error) => {
                if complaints.is_due() {
                    daemon::accept_failed(key, error);
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A slot for one more connection, when there is one; `None` once the daemon ends.
async fn free_slot(shared: &Shared, complaints: &Complaints) -> Option<Slot> {
    if let Some(slot) = shared.slots.try_take() {
        return Some(slot);
    }
    if complaints.is_due() {
        daemon::connections_full(shared.slots.most());
    }
    shared.slots.take().await
}

/// When trouble was last complained about.
struct Complaints {
    since: Instant,
    /// Seconds from `since`, plus one; 0 is never.
    last: AtomicU64,
}

impl Default for Complaints {
    fn default() -> Complaints {
        Complaints { since: Instant::now(), last: AtomicU64::new(0) }
    }
}

impl Complaints {
    fn is_due(&self) -> bool {
        let now = self.since.elapsed().as_secs() + 1;
        let last = self.last.load(Ordering::Relaxed);
        let due = last == 0 || now - last >= COMPLAINT_INTERVAL.as_secs();
        if due {
            self.last.store(now, Ordering::Relaxed);
        }
        due
    }
}
