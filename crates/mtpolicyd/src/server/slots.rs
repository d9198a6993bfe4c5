//! The slots for connections, and the bytes that all of them hold: where there is no more, the one that has
//! waited longest goes.
//!
//! Knows: numbers of connections and of bytes. Must not know: sockets, the protocol.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What the buffers of all connections may hold together, beside [`SMALL_BUFFER`] each.
const MAX_BUFFERED_BYTES: usize = 64 << 20;

/// A buffer up to this size is not counted: a request of Postfix has about 800 bytes.
const SMALL_BUFFER: usize = 16 << 10;

/// The slots of a daemon.
pub struct Slots {
    free: Arc<Semaphore>,
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Connections that wait for a whole request, the longest first.
    waiting: BTreeMap<u64, Arc<Seat>>,
    /// Connections that wait for a slot.
    wanted: usize,
    /// Connections that were told to go and are not gone yet.
    leaving: usize,
    /// Bytes of the buffers that are counted.
    bytes: usize,
}

/// What others may do to a connection.
#[derive(Default)]
struct Seat {
    evicted: Notify,
    is_leaving: AtomicBool,
    /// Its part of `State::bytes`; changed with the state locked.
    bytes: AtomicUsize,
}

/// The slot of one connection, free again when this is dropped.
pub struct Slot {
    slots: Arc<Slots>,
    seat: Arc<Seat>,
    waits: Option<u64>,
    _permit: OwnedSemaphorePermit,
}

impl Slots {
    /// Creates this many slots.
    pub fn new(most: usize) -> Arc<Slots> {
        let (free, state) = (Arc::new(Semaphore::new(most)), Mutex::default());
        Arc::new(Slots { free, most, state })
    }

    /// The number.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many are taken.
    pub fn in_use(&self) -> usize {
        self.most - self.free.available_permits()
    }

    /// A slot if one is free.
    pub fn try_take(self: &Arc<Self>) -> Option<Slot> {
        self.free.clone().try_acquire_owned().ok().map(|permit| self.slot(permit))
    }

    /// A slot that is free, or else one as soon as there is one.
    pub async fn take_any(self: &Arc<Self>) -> Option<Slot> {
        match self.try_take() {
            Some(slot) => Some(slot),
            None => self.take().await,
        }
    }

    /// A slot as soon as there is one. The connection that has waited longest for its next request is closed
    /// for it; one whose request is being answered is not.
    pub async fn take(self: &Arc<Self>) -> Option<Slot> {
        let _wanted = Wanted::new(self);
        let permit = self.free.clone().acquire_owned().await;
        permit.ok().map(|permit| self.slot(permit))
    }

    fn slot(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Slot {
        Slot { slots: self.clone(), seat: Arc::default(), waits: None, _permit: permit }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits for a slot.
struct Wanted<'a>(&'a Slots);

impl<'a> Wanted<'a> {
    fn new(slots: &'a Slots) -> Wanted<'a> {
        let mut state = slots.lock();
        state.wanted += 1;
        state.make_room();
        Wanted(slots)
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.lock().wanted -= 1;
    }
}

impl State {
    /// Has as many leave as there are slots wanted, the longest waiting first.
    fn make_room(&mut self) {
        while self.wanted > self.leaving
            && let Some((_, seat)) = self.waiting.pop_first()
        {
            self.evict(&seat);
        }
    }

    fn evict(&mut self, seat: &Seat) {
        seat.is_leaving.store(true, Ordering::Relaxed);
        self.leaving += 1;
        seat.evicted.notify_one();
    }

    fn count(&mut self, seat: &Seat, bytes: usize) {
        let before = seat.bytes.swap(bytes, Ordering::Relaxed);
        self.bytes = self.bytes - before + bytes;
    }
}

impl Slot {
    /// From now on the connection waits for a whole request.
    pub fn begin_to_wait(&mut self) {
        let mut state = self.slots.lock();
        let turn = state.next;
        state.next += 1;
        state.waiting.insert(turn, self.seat.clone());
        state.make_room();
        self.waits = Some(turn);
    }

    /// The request is there.
    pub fn end_waiting(&mut self) {
        if let Some(turn) = self.waits.take() {
            self.slots.lock().waiting.remove(&turn);
        }
    }

    /// Returns once the connection has to go for another one.
    pub async fn evicted(&self) {
        self.eviction().await;
    }

    /// The same for somebody who does not hold the slot.
    pub fn eviction(&self) -> impl Future<Output = ()> + use<> {
        let seat = self.seat.clone();
        async move { seat.evicted.notified().await }
    }

    /// Tells how large the buffer is. If all together are too large, the connections that have waited longest
    /// for the rest of a large request have to go; `false` if this is one of them, or if no other waits.
    pub fn holds(&mut self, bytes: usize) -> bool {
        let counted = if bytes > SMALL_BUFFER { bytes } else { 0 };
        if counted == self.seat.bytes.load(Ordering::Relaxed) {
            return true;
        }
        let mut state = self.slots.lock();
        let state = &mut *state;
        state.count(&self.seat, counted);
        while state.bytes > MAX_BUFFERED_BYTES {
            let large = |seat: &Arc<Seat>| seat.bytes.load(Ordering::Relaxed) > 0;
            let longest = state.waiting.iter().find(|(_, seat)| large(seat)).map(|(turn, _)| *turn);
            let Some(seat) = longest.and_then(|turn| state.waiting.remove(&turn)) else {
                return counted == 0;
            };
            state.count(&seat, 0);
            if Arc::ptr_eq(&seat, &self.seat) {
                return false;
            }
            state.evict(&seat);
        }
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.lock();
        state.count(&self.seat, 0);
        state.leaving -= usize::from(self.seat.is_leaving.load(Ordering::Relaxed));
        if let Some(turn) = self.waits {
            state.waiting.remove(&turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn is_evicted(slot: &Slot) -> bool {
        slot.evicted().now_or_never().is_some()
    }

    #[tokio::test]
    async fn the_one_that_has_waited_longest_goes() {
        let slots = Slots::new(3);
        let mut taken: Vec<_> = (0..3).map(|_| slots.try_take().unwrap()).collect();
        assert!(slots.try_take().is_none());
        taken.iter_mut().for_each(Slot::begin_to_wait);
        // It has asked again since.
        taken[0].end_waiting();
        taken[0].begin_to_wait();
        let another = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take().await.is_some() }
        });
        taken[1].evicted().await;
        assert!(!is_evicted(&taken[0]) && !is_evicted(&taken[2]));
        drop(taken.remove(1));
        assert!(another.await.unwrap());
    }

    #[tokio::test]
    async fn one_that_is_being_answered_does_not() {
        let slots = Slots::new(1);
        let mut only = slots.try_take().unwrap();
        let mut another = tokio::spawn({
            let slots = slots.clone();
            async move { slots.take().await.is_some() }
        });
        // It may run as far as it can.
        tokio::task::yield_now().await;
        assert!((&mut another).now_or_never().is_none());
        assert!(!is_evicted(&only));
        // Now it waits for a request: the slot is wanted.
        only.begin_to_wait();
        only.evicted().await;
        drop(only);
        assert!(another.await.unwrap());
    }

    #[test]
    fn all_buffers_together_have_a_bound() {
        let slots = Slots::new(1000);
        let request = MAX_BUFFERED_BYTES / 64;
        let mut held: Vec<_> = (0..64).map(|_| slots.try_take().unwrap()).collect();
        for slot in &mut held {
            slot.begin_to_wait();
            assert!(slot.holds(request));
        }
        let mut small = slots.try_take().unwrap();
        small.begin_to_wait();
        assert!(small.holds(SMALL_BUFFER), "an ordinary request is never in the way");
        assert!(held.iter().all(|slot| !is_evicted(slot)));
        // The first is being answered, so the second goes for one more.
        held[0].end_waiting();
        let mut more = slots.try_take().unwrap();
        more.begin_to_wait();
        assert!(more.holds(request));
        assert!(is_evicted(&held[1]) && !is_evicted(&held[0]) && !is_evicted(&held[2]));
        assert_eq!(slots.lock().bytes, MAX_BUFFERED_BYTES);
        held.remove(1);
        assert_eq!(slots.lock().bytes, MAX_BUFFERED_BYTES);
        held.iter_mut().for_each(Slot::end_waiting);
        assert!(!more.holds(2 * request), "nobody else waits");
        drop((held, more, small));
        assert_eq!(slots.lock().bytes, 0);
    }
}
