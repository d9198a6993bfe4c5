//! How many works are done at the same time: as many as there may be connections, fewer where the server
//! accepts fewer.
//!
//! Knows: counting, time. Must not know: servers, works.

use super::WorkError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

/// How long a slot is left out before it is used again: the server's connections may have been somebody
/// else's.
const LEFT_OUT: Duration = Duration::from_secs(5);

/// How long the last slot waits for connections that are being closed or tried.
const PAUSE: Duration = Duration::from_millis(20);

/// Slots for works, and the connections that are open.
pub(super) struct Slots {
    bound: usize,
    permits: Semaphore,
    open: Arc<AtomicUsize>,
    left_out: Mutex<LeftOut>,
}

/// The slots that are not used now.
struct LeftOut {
    count: usize,
    /// When that last changed.
    since: Instant,
}

/// A slot for one work.
pub(super) struct Slot<'a> {
    slots: &'a Slots,
    /// None only while it is changed.
    permit: Option<SemaphorePermit<'a>>,
}

/// A connection as long as it is open.
pub(super) struct Open<L> {
    pub inner: L,
    _counted: Counted,
}

/// A connection that is being made.
pub(super) struct Opening(Counted);

struct Counted(Arc<AtomicUsize>);

impl Slots {
    /// This number of slots, all of them free.
    pub fn new(bound: usize) -> Slots {
        // The configuration may say more than a semaphore can count.
        let bound = bound.clamp(1, Semaphore::MAX_PERMITS);
        let left_out = Mutex::new(LeftOut { count: 0, since: Instant::now() });
        Slots { bound, permits: Semaphore::new(bound), open: Arc::default(), left_out }
    }

    /// How many there are, with those that are left out.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// How many connections are open or being made.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A slot, once one is free.
    pub async fn take(&self) -> Result<Slot<'_>, WorkError> {
        self.put_back();
        Ok(Slot { slots: self, permit: Some(self.permit().await?) })
    }

    /// Counts a connection that is being made.
    pub fn opening(&self) -> Opening {
        self.open.fetch_add(1, Ordering::Relaxed);
        Opening(Counted(self.open.clone()))
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, WorkError> {
        self.permits.acquire().await.map_err(|error| WorkError::Lost(error.to_string()))
    }

    /// Uses one more slot again, some time after the last change.
    fn put_back(&self) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        if left_out.count > 0 && left_out.since.elapsed() >= LEFT_OUT {
            left_out.count -= 1;
            left_out.since = Instant::now();
            self.permits.add_permits(1);
        }
    }

    /// Uses one slot less from now on, unless it is the last.
    fn leave_out(&self) -> bool {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        let may = left_out.count + 1 < self.bound;
        if may {
            left_out.count += 1;
            left_out.since = Instant::now();
        }
        may
    }
}

impl<'a> Slot<'a> {
    /// There is no connection to be had for this slot: it is left out, and this becomes another one as soon
    /// as that is free, with its connection.
    pub async fn change(&mut self) -> Result<(), WorkError> {
        if self.slots.leave_out() {
            self.permit.take().into_iter().for_each(SemaphorePermit::forget);
            self.permit = Some(self.slots.permit().await?);
        } else {
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl Opening {
    /// It is made.
    pub fn done<L>(self, inner: L) -> Open<L> {
        Open { inner, _counted: self.0 }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn a_place_without_a_connection_is_left_out_for_a_while() {
        let slots = Slots::new(3);
        let (mut first, second) = (slots.take().await.unwrap(), slots.take().await.unwrap());
        first.change().await.unwrap();
        assert!(timeout(PAUSE, slots.take()).await.is_err(), "two are left, and both are taken");
        drop(second);
        drop(slots.take().await.unwrap());
        first.change().await.unwrap();
        // The last one stays.
        first.change().await.unwrap();
        assert!(timeout(PAUSE, slots.take()).await.is_err());
        sleep(LEFT_OUT).await;
        let second = slots.take().await.unwrap();
        assert!(timeout(PAUSE, slots.take()).await.is_err(), "one after the other");
        sleep(LEFT_OUT).await;
        drop((slots.take().await.unwrap(), second, first));
    }

    #[test]
    fn open_connections_are_counted() {
        let slots = Slots::new(3);
        let opening = slots.opening();
        assert_eq!(slots.open(), 1);
        let open = opening.done("connection");
        drop(slots.opening());
        assert_eq!((slots.open(), open.inner), (1, "connection"));
        drop(open);
        assert_eq!(slots.open(), 0);
    }
}
