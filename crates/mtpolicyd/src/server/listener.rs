//! One port: accepts connections and starts a conversation for each.
//!
//! Knows: sockets, conversations. Must not know: the protocol, settings.

use super::Shared;
use super::conversation::Conversation;
use super::slots::Slot;
use super::sockets::Listener;
use crate::log::messages::daemon;
use backends::Throttle;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long to wait after a failed accept: out of descriptors, the next try fails as fast, and some will be
/// closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until it is told to stop, or the daemon shuts down.
pub async fn listen(listener: Listener, key: Arc<str>, shared: Arc<Shared>, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = shared.closing.cancelled() => {}
        () = accept_all(&listener, &key, &shared) => {}
    }
}

async fn accept_all(listener: &Listener, key: &Arc<str>, shared: &Arc<Shared>) {
    let complaints = Throttle::default();
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
async fn free_slot(shared: &Shared, complaints: &Throttle) -> Option<Slot> {
    if let Some(slot) = shared.slots.try_take() {
        return Some(slot);
    }
    if complaints.is_due() {
        daemon::connections_full(shared.slots.most());
    }
    shared.slots.take().await
}
