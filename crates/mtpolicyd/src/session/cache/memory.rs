//! Sessions in this process: each is locked while a request uses it, those unused for longest go first.
//!
//! Every use moves a session to the end of a queue, where it leaves its earlier place behind; a place that is
//! not the session's last one is skipped. So a use costs no search, and whoever is first in the queue is the
//! next to expire.
//!
//! Knows: sessions, how much memory they hold. Must not know: what is in a session, plugins, the server.

use super::OpenError;
use crate::log::messages::sessions;
use crate::session::Session;
use crate::value::Size;
use backends::Throttle;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as SessionMutex, OwnedMutexGuard};
use tokio::time::{Instant, timeout_at};

/// How sessions in memory are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryOptions {
    /// How long to keep a session after its last request.
    pub expire: Duration,
    /// Maximum number of sessions kept.
    pub max_sessions: u64,
    /// How much memory they may take, with what the cache itself needs for them.
    pub max_size: Size,
}

/// Sessions by instance.
pub struct MemorySessions {
    expire: Duration,
    /// Whether it is said that there is no room.
    says_full: bool,
    bounds: Bounds,
    parts: Box<[Mutex<Part>]>,
    hasher: RandomState,
    /// When it was last said that there is no room.
    full: Throttle,
}

/// A session in use, which others wait for.
pub struct KeptSession {
    sessions: Arc<MemorySessions>,
    instance: Arc<[u8]>,
    slot: Arc<SessionMutex<Held>>,
    held: OwnedMutexGuard<Held>,
}

/// A session as it is kept here.
#[derive(Default)]
struct Held {
    session: Session,
    /// Whether it belongs to a store that has not got it as it is here.
    unsaved: bool,
}

/// What a part may hold.
#[derive(Clone, Copy)]
struct Bounds {
    sessions: usize,
    bytes: usize,
}

#[derive(Default)]
struct Part {
    slots: HashMap<Arc<[u8]>, Slot>,
    queue: VecDeque<(Arc<[u8]>, u64)>,
    /// What the sessions need.
    bytes: usize,
    uses: u64,
}

struct Slot {
    session: Arc<SessionMutex<Held>>,
    /// When it was last used.
    used: Instant,
    /// Which use that was.
    place: u64,
    bytes: usize,
}

/// Maximum number of parts of the cache, so that requests seldom wait for one another.
const MAX_PARTS: usize = 16;

/// Minimum number of sessions and bytes that a part has room for.
const MIN_PART: (usize, usize) = (1024, 2 << 20);

/// What the tables need for a session besides its fields, about.
const SLOT_BYTES: usize = 320;

/// Maximum number of stale queue entries left alone, besides as many as there are sessions.
const SPARE_PLACES: usize = 64;

impl MemorySessions {
    pub(super) fn new(options: MemoryOptions) -> MemorySessions {
        let sessions = usize::try_from(options.max_sessions).unwrap_or(usize::MAX).max(1);
        let bytes = options.max_size.0;
        let parts = (sessions / MIN_PART.0).min(bytes / MIN_PART.1).clamp(1, MAX_PARTS);
        MemorySessions {
            expire: options.expire,
            says_full: true,
            bounds: Bounds { sessions: sessions / parts, bytes: bytes / parts },
            parts: (0..parts).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            full: Throttle::default(),
        }
    }

    /// Copies of sessions that are in a store. That the oldest of them go is nothing to tell anybody.
    pub(super) fn copies(options: MemoryOptions) -> MemorySessions {
        MemorySessions { says_full: false, ..MemorySessions::new(options) }
    }

    /// The number of sessions, those included that have expired and were not removed yet.
    pub(super) fn count(&self) -> usize {
        let parts = self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner));
        parts.map(|part| part.slots.len()).sum()
    }

    /// The session of a message, as soon as no other request uses it.
    pub(super) async fn open(
        self: &Arc<Self>,
        instance: &[u8],
        deadline: Instant,
    ) -> Result<KeptSession, OpenError> {
        let (instance, slot) = self.slot(instance);
        let held = match slot.clone().try_lock_owned() {
            Ok(held) => held,
            Err(_) => {
                let locked = timeout_at(deadline, slot.clone().lock_owned()).await;
                locked.map_err(|_| OpenError::Locked)?
            }
        };
        Ok(KeptSession { sessions: self.clone(), instance, slot, held })
    }

    /// The place of a message, made if it has none or has expired.
    fn slot(&self, instance: &[u8]) -> (Arc<[u8]>, Arc<SessionMutex<Held>>) {
        let now = Instant::now();
        let mut part = self.part(instance);
        part.expire(now, self.expire);
        let known = part.slots.get(instance).filter(|slot| now.duration_since(slot.used) < self.expire);
        if known.is_none() {
            part.insert(instance.into(), now);
            self.make_room(&mut part);
        }
        let Some(key) = part.slots.get_key_value(instance).map(|(key, _)| key.clone()) else {
            // There is no room for a single one.
            return (instance.into(), Arc::default());
        };
        part.touch(&key, now);
        let session = part.slots.get(&key).map(|slot| slot.session.clone());
        (key, session.unwrap_or_default())
    }

    /// A session was used and may have grown.
    fn settle(&self, instance: &Arc<[u8]>, session: &Arc<SessionMutex<Held>>, size: usize) {
        let mut part = self.part(instance);
        let Some(slot) = part.slots.get_mut(instance) else { return };
        // Another one may have its place, if it was evicted meanwhile.
        if !Arc::ptr_eq(&slot.session, session) {
            return;
        }
        let bytes = instance.len() + size + SLOT_BYTES;
        let before = std::mem::replace(&mut slot.bytes, bytes);
        part.bytes = part.bytes - before + bytes;
        part.touch(instance, Instant::now());
        self.make_room(&mut part);
    }

    fn make_room(&self, part: &mut Part) {
        if part.shrink(self.bounds) && self.says_full && self.full.is_due() {
            sessions::cache_full();
        }
    }

    fn part(&self, instance: &[u8]) -> MutexGuard<'_, Part> {
        let count = self.parts.len();
        let place = match count {
            1 => 0,
            _ => usize::try_from(self.hasher.hash_one(instance) >> 32).unwrap_or_default() % count,
        };
        self.parts[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        let parts = self.parts.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner));
        parts.fold((0, 0), |(count, bytes), part| (count + part.slots.len(), bytes + part.bytes))
    }
}

impl Part {
    fn insert(&mut self, instance: Arc<[u8]>, now: Instant) {
        let bytes = instance.len() + size_of::<Held>() + SLOT_BYTES;
        let slot = Slot { session: Arc::default(), used: now, place: self.uses, bytes };
        self.bytes += bytes;
        if let Some(expired) = self.slots.insert(instance.clone(), slot) {
            self.bytes -= expired.bytes;
        }
        self.queue.push_back((instance, self.uses));
        self.uses += 1;
    }

    fn touch(&mut self, instance: &Arc<[u8]>, now: Instant) {
        let Some(slot) = self.slots.get_mut(instance) else { return };
        (slot.used, slot.place) = (now, self.uses);
        self.queue.push_back((instance.clone(), self.uses));
        self.uses += 1;
        if self.queue.len() > 2 * self.slots.len() + SPARE_PLACES {
            let slots = &self.slots;
            self.queue
                .retain(|(instance, place)| slots.get(instance).is_some_and(|slot| slot.place == *place));
        }
    }

    /// The one that was not used for longest, with nothing before it in the queue.
    fn first(&mut self) -> Option<&Slot> {
        while let Some((instance, place)) = self.queue.front() {
            if self.slots.get(instance).is_some_and(|slot| slot.place == *place) {
                break;
            }
            self.queue.pop_front();
        }
        self.slots.get(&self.queue.front()?.0)
    }

    fn remove_first(&mut self) {
        if let Some((instance, _)) = self.queue.pop_front()
            && let Some(slot) = self.slots.remove(&instance)
        {
            self.bytes -= slot.bytes;
        }
    }

    /// Removes those that have expired.
    fn expire(&mut self, now: Instant, expire: Duration) {
        while self.first().is_some_and(|slot| now.duration_since(slot.used) >= expire) {
            self.remove_first();
        }
    }

    /// Removes those unused for longest until the others fit: whether there were any.
    fn shrink(&mut self, bounds: Bounds) -> bool {
        let mut evicted = false;
        while (self.slots.len() > bounds.sessions || self.bytes > bounds.bytes) && self.first().is_some() {
            self.remove_first();
            evicted = true;
        }
        evicted
    }
}

impl KeptSession {
    /// What is remembered of the message.
    pub fn session(&mut self) -> &mut Session {
        &mut self.held.session
    }

    /// The message.
    pub(super) fn instance(&self) -> &Arc<[u8]> {
        &self.instance
    }

    /// Whether the store that it belongs to has not got it as it is here.
    pub(super) fn is_unsaved(&self) -> bool {
        self.held.unsaved
    }

    /// Notes whether the store has got it.
    pub(super) fn set_unsaved(&mut self, unsaved: bool) {
        self.held.unsaved = unsaved;
    }
}

impl Drop for KeptSession {
    fn drop(&mut self) {
        self.sessions.settle(&self.instance, &self.slot, self.held.session.size());
    }
}

impl std::fmt::Debug for KeptSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("KeptSession").field(&self.held.session).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(expire: u64, max_sessions: u64, max_size: usize) -> Arc<MemorySessions> {
        let (expire, max_size) = (Duration::from_secs(expire), Size(max_size));
        Arc::new(MemorySessions::new(MemoryOptions { expire, max_sessions, max_size }))
    }

    async fn with<T>(
        sessions: &Arc<MemorySessions>,
        instance: &[u8],
        f: impl FnOnce(&mut Session) -> T,
    ) -> T {
        let mut lease = sessions.open(instance, Instant::now() + Duration::from_secs(1)).await.unwrap();
        f(lease.session())
    }

    async fn has(sessions: &Arc<MemorySessions>, instance: &[u8]) -> bool {
        with(sessions, instance, |session| session.result("x").is_some()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_expires_when_it_was_not_used_for_so_long() {
        let sessions = sessions(60, 10, 1 << 20);
        with(&sessions, b"a", |session| session.set("x", "1")).await;
        for _ in 0..3 {
            tokio::time::advance(Duration::from_secs(59)).await;
            assert!(has(&sessions, b"a").await);
        }
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!has(&sessions, b"a").await);
        tokio::time::advance(Duration::from_secs(60)).await;
        has(&sessions, b"b").await;
        assert_eq!(sessions.held().0, 1, "what has expired is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn those_unused_for_longest_go_first() {
        let sessions = sessions(60, 3, 1 << 20);
        for instance in [b"a", b"b", b"c", b"a", b"d"] {
            with(&sessions, instance, |session| session.set("x", "1")).await;
        }
        assert_eq!(sessions.held().0, 3);
        for (instance, there) in [(b"a", true), (b"c", true), (b"d", true), (b"b", false)] {
            assert_eq!(has(&sessions, instance).await, there, "{}", instance[0]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_bounded_by_the_bytes_that_they_have_after_their_request() {
        let bound = 100_000;
        let sessions = sessions(60, 1_000_000, bound);
        for n in 0..1_000u32 {
            let text = "x".repeat(usize::try_from(n % 90).unwrap() * 100);
            with(&sessions, &n.to_le_bytes(), |session| session.set("x", &text)).await;
            let (count, bytes) = sessions.held();
            assert!(bytes <= bound && count <= 200, "{count} sessions of {bytes} bytes");
        }
        assert!(has(&sessions, &999u32.to_le_bytes()).await);
        // One that has room for no other, and none for itself.
        with(&sessions, b"huge", |session| session.set("x", &"x".repeat(bound))).await;
        assert_eq!(sessions.held(), (0, 0));
        assert!(!has(&sessions, b"huge").await);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_evicted_in_use_harms_nobody() {
        let sessions = sessions(60, 1, 1 << 20);
        let soon = Instant::now() + Duration::from_secs(1);
        let mut evicted = sessions.open(b"a", soon).await.unwrap();
        evicted.session().set("x", "1");
        assert!(!has(&sessions, b"b").await);
        let again = sessions.open(b"a", soon).await.unwrap();
        let before = sessions.held();
        drop(evicted);
        assert_eq!(sessions.held(), before);
        drop(again);
        assert!(!has(&sessions, b"a").await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_does_not_grow_with_the_uses() {
        let sessions = sessions(60, 10, 1 << 20);
        for _ in 0..10_000 {
            has(&sessions, b"a").await;
        }
        let part = sessions.parts[0].lock().unwrap();
        assert!(part.queue.len() <= 2 + SPARE_PLACES + 1, "{}", part.queue.len());
    }
}
