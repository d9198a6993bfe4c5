//! What is known of the servers that were asked: how many queries each has now, connections that are kept
//! for a moment, TLS that does not work.
//!
//! Knows: limits, times. Must not know: what is said to a server.

use super::dialogue::Conversation;
use super::findings::Limits;
use crate::OptionError;
use crate::dns::Association;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

/// Maximum number of servers to remember: some hours of a busy site.
const MAX_DESTINATIONS: u64 = 10_000;

/// How long a server is remembered after it was asked; TLS that fails is not tried again for so long.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);

/// Maximum number of servers asked at once, each of which takes a file descriptor; and of those that are slow
/// beside them, so that tarpits do not take the place of all others.
const MAX_PROBES: usize = 100;
const MAX_SLOW: usize = 100;

/// A server that takes longer counts as slow: this is how long a message waits.
const PROMPT: Duration = Duration::from_secs(10);

/// Maximum number of idle connections, of all servers and of one.
const MAX_KEPT: usize = 100;
const MAX_KEPT_OF_ONE: usize = 2;

/// How long a connection is kept for the next recipient of a message, which comes within milliseconds unless
/// something else of its chain is slow.
const KEPT: Duration = Duration::from_secs(5);

/// The span that probes are counted in.
const MINUTE: Duration = Duration::from_secs(60);

/// The conditions under which a connection was opened; it is reused only under the same ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReuseKey {
    /// The name of the server.
    pub host: Arc<str>,
    /// The name that was said.
    pub helo: Arc<str>,
    /// Whether it was to be encrypted if possible.
    pub encrypts: bool,
    /// The TLSA records that its certificate had to be named by.
    pub associations: Vec<Association>,
}

/// An idle connection.
struct IdleConnection {
    conversation: Conversation,
    reuse_key: ReuseKey,
    number: usize,
}

/// All servers.
pub struct Destinations {
    known: Cache<SocketAddr, Arc<Destination>>,
    places: Semaphore,
    slow_places: Semaphore,
    kept: Arc<AtomicUsize>,
}

/// One server, by its address and port: anybody can give it many names, or have others ask it by them.
#[derive(Default)]
pub struct Destination {
    state: Mutex<State>,
    left: Notify,
    all_kept: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    inside: u64,
    /// When the current minute began, and the number of queries in it.
    minute: Option<(Instant, u64)>,
    kept: Vec<IdleConnection>,
    numbered: usize,
    tls_failed: Option<Instant>,
}

/// The right to ask a server; when it is dropped there is room for another.
pub struct Permit<'a> {
    destination: &'a Destination,
    destinations: &'a Destinations,
    place: Option<SemaphorePermit<'a>>,
}

impl Default for Destinations {
    fn default() -> Destinations {
        let known = Cache::builder().max_capacity(MAX_DESTINATIONS).time_to_idle(REMEMBERED);
        // The default policy would refuse what is new once it is full, and nobody would count how often that
        // is asked.
        let known = known.eviction_policy(EvictionPolicy::lru()).build();
        let (places, slow_places) = (Semaphore::new(MAX_PROBES), Semaphore::new(MAX_SLOW));
        Destinations { known, places, slow_places, kept: Arc::default() }
    }
}

impl Destinations {
    /// Whether this build can ask servers: always.
    pub fn check_built() -> Result<(), OptionError> {
        Ok(())
    }

    /// The server at an address.
    pub async fn of(&self, address: SocketAddr) -> Arc<Destination> {
        let new = async { Arc::new(Destination { all_kept: self.kept.clone(), ..Destination::default() }) };
        self.known.get_with(address, new).await
    }

    /// Waits until the server may be asked; `None` if it has been asked too often.
    pub async fn enter<'a>(&'a self, destination: &'a Destination, limits: Limits) -> Option<Permit<'a>> {
        loop {
            let mut left = pin!(destination.left.notified());
            left.as_mut().enable();
            if destination.try_enter(limits, Instant::now())? {
                break;
            }
            left.await;
        }
        Some(Permit { destination, destinations: self, place: None })
    }
}

impl Permit<'_> {
    /// Waits until there is room for one more beside all servers that are being asked.
    pub async fn begin(&mut self) {
        // The semaphore is never closed.
        self.place = self.destinations.places.acquire().await.ok();
    }

    /// Asks. A server that is slow leaves its place to others and goes on in one for slow ones; without such
    /// a place the question is given up: `None`.
    pub async fn ask<T>(mut self, question: impl Future<Output = T>) -> Option<T> {
        let mut question = pin!(question);
        if let Ok(answer) = timeout(PROMPT, question.as_mut()).await {
            return Some(answer);
        }
        self.place = Some(self.destinations.slow_places.try_acquire().ok()?);
        Some(question.await)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.place = None;
        self.destination.lock().inside -= 1;
        self.destination.left.notify_waiters();
    }
}

impl Destination {
    /// Whether there was room; `None` if there is none for the rest of the minute.
    fn try_enter(&self, limits: Limits, now: Instant) -> Option<bool> {
        let mut state = self.lock();
        if state.inside >= limits.at_once {
            return Some(false);
        }
        let (begin, count) = state.minute.filter(|(begin, _)| now - *begin < MINUTE).unwrap_or((now, 0));
        if limits.a_minute.is_some_and(|most| count >= most) {
            return None;
        }
        state.minute = Some((begin, count + 1));
        state.inside += 1;
        Some(true)
    }

    /// Whether TLS has failed here a while ago.
    pub fn is_without_tls(&self) -> bool {
        self.lock().tls_failed.is_some_and(|failed| failed.elapsed() < REMEMBERED)
    }

    /// TLS has failed.
    pub fn tls_fails(&self) {
        self.lock().tls_failed = Some(Instant::now());
    }

    /// An idle connection that was opened under the same conditions.
    pub fn take(&self, reuse_key: &ReuseKey) -> Option<Conversation> {
        let mut state = self.lock();
        let at = state.kept.iter().position(|kept| kept.reuse_key == *reuse_key)?;
        self.all_kept.fetch_sub(1, Ordering::Relaxed);
        Some(state.kept.swap_remove(at).conversation)
    }

    /// Keeps a connection for a moment, if there is room, and says good-bye after it.
    pub fn keep(self: &Arc<Self>, conversation: Conversation, reuse_key: ReuseKey) {
        let kept_before = self.all_kept.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        if kept_before >= MAX_KEPT || state.kept.len() >= MAX_KEPT_OF_ONE {
            self.all_kept.fetch_sub(1, Ordering::Relaxed);
            drop(state);
            tokio::spawn(conversation.close());
            return;
        }
        state.numbered += 1;
        let number = state.numbered;
        state.kept.push(IdleConnection { conversation, reuse_key, number });
        drop(state);
        let destination = self.clone();
        tokio::spawn(async move {
            sleep(KEPT).await;
            if let Some(kept) = destination.take_number(number) {
                kept.conversation.close().await;
            }
        });
    }

    fn take_number(&self, number: usize) -> Option<IdleConnection> {
        let mut state = self.lock();
        let at = state.kept.iter().position(|kept| kept.number == number)?;
        self.all_kept.fetch_sub(1, Ordering::Relaxed);
        Some(state.kept.swap_remove(at))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_comes_too_often_is_sent_away() {
        let destinations = Destinations::default();
        let mx = destinations.of(([192, 0, 2, 1], 25).into()).await;
        assert!(Arc::ptr_eq(&mx, &destinations.of(([192, 0, 2, 1], 25).into()).await));
        let limits = Limits { at_once: 2, a_minute: Some(3) };
        for _ in 0..3 {
            assert!(destinations.enter(&mx, limits).await.is_some());
        }
        assert!(destinations.enter(&mx, limits).await.is_none());
        assert!(destinations.enter(&mx, Limits { a_minute: None, ..limits }).await.is_some());
        sleep(MINUTE).await;
        assert!(destinations.enter(&mx, limits).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn others_wait_for_room() {
        let destinations = Destinations::default();
        let mx = destinations.of(([192, 0, 2, 1], 25).into()).await;
        let limits = Limits { at_once: 2, a_minute: None };
        let first = destinations.enter(&mx, limits).await;
        let _second = destinations.enter(&mx, limits).await;
        let third = async { tokio::time::timeout(KEPT, destinations.enter(&mx, limits)).await };
        assert!(third.await.is_err(), "there is no room");
        let (_, third) = tokio::join!(async { drop(first) }, destinations.enter(&mx, limits));
        assert!(third.is_some());
        drop(third);
        assert_eq!(mx.lock().inside, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn tarpits_leave_room_for_others() {
        let destinations = Arc::new(Destinations::default());
        let limits = Limits { at_once: 1, a_minute: None };
        let tarpits = (0..2 * (MAX_PROBES + MAX_SLOW)).map(|number| {
            let destinations = destinations.clone();
            tokio::spawn(async move {
                let [.., high, low] = number.to_be_bytes();
                let tarpit = destinations.of(([192, 0, high, low], 25).into()).await;
                let mut permit = destinations.enter(&tarpit, limits).await.unwrap();
                permit.begin().await;
                permit.ask(std::future::pending::<()>()).await
            })
        });
        let tarpits: Vec<_> = tarpits.collect();
        sleep(Duration::from_millis(1)).await;
        let mx = destinations.of(([198, 51, 100, 1], 25).into()).await;
        let mut permit = destinations.enter(&mx, limits).await.unwrap();
        let begun = Instant::now();
        permit.begin().await;
        assert_eq!(permit.ask(async { 7 }).await, Some(7));
        assert!(begun.elapsed() <= 4 * PROMPT, "{:?}", begun.elapsed());
        sleep(2 * PROMPT).await;
        let going_on = tarpits.iter().filter(|tarpit| !tarpit.is_finished()).count();
        assert_eq!((going_on, destinations.places.available_permits()), (MAX_SLOW, MAX_PROBES));
        tarpits.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[tokio::test]
    async fn a_new_server_is_remembered_however_many_there_are() {
        let destinations = Destinations::default();
        let address = |number: u64| {
            let [.., a, b, c] = number.to_be_bytes();
            SocketAddr::from(([10, a, b, c], 25))
        };
        for number in (0..4).flat_map(|_| 0..MAX_DESTINATIONS) {
            destinations.of(address(number)).await;
        }
        for number in MAX_DESTINATIONS..MAX_DESTINATIONS + 100 {
            let new = destinations.of(address(number)).await;
            destinations.known.run_pending_tasks().await;
            assert!(Arc::ptr_eq(&new, &destinations.of(address(number)).await), "{number}");
        }
    }
}
