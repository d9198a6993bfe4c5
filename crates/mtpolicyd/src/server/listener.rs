//! One port: accepts connections and starts a conversation for each.
//!
//! Knows: sockets, conversations. Must not know: the protocol, settings.

use super::Shared;
use super::conversation::Conversation;
use super::slots::Slot;
use super::sockets::Listener;
use super::stream::Stream;
use crate::log::messages::daemon;
use backends::Throttle;
use futures_util::FutureExt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long to wait after a failed accept: out of descriptors, the next try fails as fast, and some will be
/// closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until it is told to stop, or the daemon shuts down. A connection that is there by then is served.
pub async fn listen(listener: Arc<Listener>, key: Arc<str>, shared: Arc<Shared>, stop: CancellationToken) {
    let port = Port { listener, key, shared, complaints: Throttle::default() };
    port.accept_until(&stop).await;
    // What the kernel has accepted already would be reset.
    while let Some(Ok(stream)) = port.listener.accept().now_or_never() {
        let Some(slot) = port.shared.slots.try_take() else { return };
        port.serve(stream, slot);
    }
}

struct Port {
    listener: Arc<Listener>,
    key: Arc<str>,
    shared: Arc<Shared>,
    complaints: Throttle,
}

impl Port {
    /// Serves one connection after the other.
    async fn accept_until(&self, stop: &CancellationToken) {
        let mut stopped = pin!(stop.cancelled());
        let mut closing = pin!(self.shared.closing.cancelled());
        loop {
            let accepted = tokio::select! {
                () = &mut stopped => return,
                () = &mut closing => return,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                // A listener that waits for a client holds no slot: another port may need it.
                Ok(stream) => {
                    let slot = tokio::select! {
                        biased;
                        slot = free_slot(&self.shared, &self.complaints) => slot,
                        () = &mut closing => return,
                    };
                    let Some(slot) = slot else { return };
                    self.serve(stream, slot);
                }
                Err(error) => {
                    if self.complaints.is_due() {
                        daemon::accept_failed(&self.key, error);
                    }
                    tokio::select! {
                        () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                        () = &mut stopped => return,
                        () = &mut closing => return,
                    }
                }
            }
        }
    }

    fn serve(&self, stream: Stream, slot: Slot) {
        let (key, shared) = (self.key.clone(), self.shared.clone());
        self.shared.conversations.spawn(async move {
            Conversation::run(stream, slot, &key, &shared).await;
        });
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
