//! How a backend that is known to be down is left alone until it is back.
//!
//! Knows: time, the log. Must not know: any protocol.

use crate::messages;
use crate::{BackendError, Failure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};

/// How long to wait before a dead backend is tried again. A SQL server has to be in use within two seconds of
/// its return, and a try may itself take `PROBE_LIMIT`.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// The same during the first seconds of an outage, when requests may be waiting for the backend.
const PROBE_AT_FIRST: Duration = Duration::from_millis(100);

/// Length of the beginning of an outage; a backend that is down again before it has worked for as long as
/// that is still in the same outage.
const BEGINNING: Duration = Duration::from_secs(5);

/// How long a try may take.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// How often a call is let through to a dead backend, where a call is the best try there is: whoever makes it
/// may wait without success, as long as a call may take.
const TRIAL_EVERY: Duration = Duration::from_secs(5);

/// A server that can be tried without a request.
pub trait Server: Send + Sync + 'static {
    /// Whether a try proves too little, so that while the server is down one call is let through from time to
    /// time.
    const TRIES_CALLS: bool = false;

    /// Whether it answers. It has a second for it.
    fn answers(&self) -> impl Future<Output = bool> + Send;

    /// A call has taken too long: what it shared with others can't be trusted.
    fn timed_out(&self) {}
}

/// Remembers that a backend is down, so that no request waits for it, and tries it until it is back.
///
/// A backend that has only just failed is perhaps being replaced, and requests may wait for that
/// ([`Breaker::wait`]). How long they do is counted from the beginning of the outage, not for each of them: a
/// backend that stays away delays the messages of its first seconds and no other.
#[derive(Debug)]
pub struct Breaker {
    connection: Arc<str>,
    state: Mutex<State>,
    /// Whether it serves, as far as calls have said: there is nothing to note then.
    serving: AtomicBool,
    /// Wakes those that wait for it.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Why it is down.
    down: Option<Arc<str>>,
    /// Whether a task tries it.
    probing: bool,
    /// When it last answered a call, as far as that is told.
    answered: Option<Instant>,
    /// When a call was last let through to it, or it was found dead.
    tried: Option<Instant>,
    /// Whether it ever served: one that never did is not being replaced.
    served: bool,
    /// Whether a call was not answered in time, and the try that follows has not ended.
    suspected: bool,
    /// When the outage began, the last one or the one that goes on.
    outage: Option<Instant>,
    /// When the outage ended, unless it goes on.
    ended: Option<Instant>,
}

impl Breaker {
    /// A breaker for the connection of that name, which is believed to work.
    pub fn new(connection: &str) -> Arc<Breaker> {
        let (state, serving, changed) = (Mutex::default(), AtomicBool::new(false), Notify::new());
        Arc::new(Breaker { connection: connection.into(), state, serving, changed })
    }

    /// The name of the connection.
    pub fn connection(&self) -> &Arc<str> {
        &self.connection
    }

    /// An error of this connection.
    pub fn error(&self, failure: Failure) -> BackendError {
        BackendError { connection: self.connection.clone(), failure }
    }

    /// Fails at once while the backend is known to be down.
    pub fn check(&self) -> Result<(), BackendError> {
        match &self.lock().down {
            Some(cause) => Err(self.error(Failure::Down(cause.clone()))),
            None => Ok(()),
        }
    }

    /// The same, but for one call from time to time, which finds out what a try can't: for backends that
    /// can't be tried, or may not answer that. If it went well, [`Breaker::answered`] has to be told.
    pub fn admit(&self) -> Result<(), BackendError> {
        let mut state = self.lock();
        let Some(cause) = state.down.clone() else { return Ok(()) };
        if state.tried.is_none_or(|tried| tried.elapsed() < TRIAL_EVERY) {
            return Err(self.error(Failure::Down(cause)));
        }
        state.tried = Some(Instant::now());
        Ok(())
    }

    /// The backend has done what a call wanted, so that it is worth waiting for if it fails. Costs nothing
    /// while it serves.
    pub fn served(&self) {
        if self.serving.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.lock();
        // A reply that was on its way says nothing of a backend that was found dead meanwhile.
        if state.down.is_none() && !state.suspected {
            state.served = true;
            state.end_outage();
            self.serving.store(true, Ordering::Relaxed);
        }
    }

    /// The backend answers, but can't serve just now. For waiting that is an outage like any other.
    pub fn not_serving(&self) {
        self.begin_outage(&mut self.lock());
    }

    /// Until when it makes sense to wait for the backend, if callers wait for `limit` from the beginning of
    /// an outage; `None` if that is over, or it never served.
    pub fn worth_waiting(&self, limit: Duration) -> Option<Instant> {
        let until = self.lock().outage? + limit;
        (until > Instant::now()).then_some(until)
    }

    /// Waits until a backend that is down is back, `limit` has passed since the outage began, or the deadline
    /// has: whether it is back. One that is only suspected has to answer a try first.
    pub async fn wait(&self, limit: Duration, deadline: Instant) -> bool {
        loop {
            let changed = self.changed.notified();
            let until = {
                let state = self.lock();
                if state.down.is_none() && !state.suspected {
                    return true;
                }
                let Some(outage) = state.outage else { return false };
                deadline.min(outage + limit)
            };
            if timeout_at(until, changed).await.is_err() {
                return false;
            }
        }
    }

    /// Waits until something has changed, or until then.
    pub async fn wait_for_change(&self, until: Instant) {
        let _ = timeout_at(until, self.changed.notified()).await;
    }

    /// The backend has answered a call, so it is not dead.
    pub fn answered(&self) {
        let mut state = self.lock();
        state.answered = Some(Instant::now());
        self.revive(&mut state);
    }

    /// A backend that can't be tried has said nothing to a call that began then: it is down if nobody else
    /// had an answer since, until a call that is let through has one.
    pub fn silent(&self, begun: Instant, cause: &str) -> BackendError {
        let mut state = self.lock();
        if state.has_answered_since(begun) {
            return self.error(Failure::TimedOut);
        }
        self.declare_dead(&mut state, cause);
        self.error(Failure::Down(cause.into()))
    }

    /// The backend is down: from now on calls fail at once, until a try finds it back. Says so once.
    pub fn failed(self: &Arc<Self>, cause: &str, server: &Arc<impl Server>) -> BackendError {
        let mut state = self.lock();
        self.declare_dead(&mut state, cause);
        let cause = cause.into();
        state.down = Some(Arc::clone(&cause));
        drop(state);
        self.start_probing(self.pause(), server);
        self.error(Failure::Down(cause))
    }

    /// A call took too long, perhaps for a reason of its own: the backend is tried, and is down if it does
    /// not answer that either.
    pub fn suspect(self: &Arc<Self>, server: &Arc<impl Server>) -> BackendError {
        let mut state = self.lock();
        state.suspected |= state.down.is_none();
        self.begin_outage(&mut state);
        drop(state);
        self.start_probing(Duration::ZERO, server);
        self.error(Failure::TimedOut)
    }

    fn start_probing(self: &Arc<Self>, first: Duration, server: &Arc<impl Server>) {
        if std::mem::replace(&mut self.lock().probing, true) {
            return;
        }
        let (breaker, server) = (self.clone(), Arc::downgrade(server));
        tokio::spawn(async move {
            let mut wait = first;
            loop {
                let since = Instant::now();
                tokio::time::sleep(wait).await;
                wait = breaker.pause();
                // Nobody uses it any more.
                let Some(server) = server.upgrade() else { break breaker.is_dropped() };
                if timeout(PROBE_LIMIT, server.answers()).await == Ok(true) {
                    break breaker.is_back();
                }
                if !breaker.is_dead(since) {
                    // Calls know better.
                    break;
                }
            }
        });
    }

    /// How long to wait before the next try.
    fn pause(&self) -> Duration {
        if self.worth_waiting(BEGINNING).is_some() { PROBE_AT_FIRST } else { PROBE_EVERY }
    }

    fn is_dropped(&self) {
        let mut state = self.lock();
        (state.probing, state.suspected) = (false, false);
        self.changed.notify_waiters();
    }

    fn begin_outage(&self, state: &mut State) {
        self.serving.store(false, Ordering::Relaxed);
        let goes_on = state.ended.is_none_or(|ended| ended.elapsed() < BEGINNING);
        if state.outage.is_none() || !goes_on {
            state.outage = state.served.then(Instant::now);
        }
        state.ended = None;
    }

    fn is_back(&self) {
        let mut state = self.lock();
        state.probing = false;
        self.revive(&mut state);
    }

    /// Whether the try goes on, since nobody had an answer in the meantime.
    fn is_dead(&self, since: Instant) -> bool {
        let mut state = self.lock();
        state.probing = !state.has_answered_since(since);
        if state.probing {
            self.declare_dead(&mut state, "no answer in time");
        } else {
            self.revive(&mut state);
        }
        state.probing
    }

    fn declare_dead(&self, state: &mut State, cause: &str) {
        state.suspected = false;
        self.begin_outage(state);
        if state.down.is_none() {
            messages::down(&self.connection, cause);
            state.down = Some(cause.into());
            state.tried = Some(Instant::now());
        }
    }

    fn revive(&self, state: &mut State) {
        (state.suspected, state.served) = (false, true);
        state.end_outage();
        self.changed.notify_waiters();
        if state.down.take().is_some() {
            messages::back(&self.connection);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end_outage(&mut self) {
        if self.outage.is_some() && self.ended.is_none() {
            self.ended = Some(Instant::now());
        }
    }

    fn has_answered_since(&self, begun: Instant) -> bool {
        self.answered.is_some_and(|answered| answered >= begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Answers as this says.
    struct Fake<F>(F);

    impl<F, A> Server for Fake<F>
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = bool> + Send,
    {
        async fn answers(&self) -> bool {
            (self.0)().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_backend_is_left_alone_until_it_is_back() {
        let breaker = Breaker::new("db");
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let third = Arc::new(Fake(move || {
            let tried = counted.fetch_add(1, Ordering::Relaxed);
            async move { tried >= 2 }
        }));
        let error = breaker.failed("refused", &third);
        assert_eq!(error.to_string(), "connection db: down: refused");
        assert!(breaker.check().is_err());
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert!(breaker.check().is_err());
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(breaker.check().is_ok());
        assert_eq!(tries.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_just_failed_is_waited_for_at_the_beginning_of_an_outage_only() {
        let limit = Duration::from_secs(4);
        let far = || Instant::now() + Duration::from_secs(60);
        let fails_for = |breaker: &Arc<Breaker>, time: Duration| {
            let until = Instant::now() + time;
            let server = Arc::new(Fake(move || async move { Instant::now() >= until }));
            breaker.failed("refused", &server);
            // It is there as long as the test goes on.
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(600)).await;
                drop(server);
            });
        };
        // Who has never worked is not waited for.
        let breaker = Breaker::new("db");
        fails_for(&breaker, Duration::from_secs(1));
        assert!(!breaker.wait(limit, far()).await && breaker.worth_waiting(limit).is_none());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(breaker.check().is_ok());
        breaker.served();
        let begun = Instant::now();
        fails_for(&breaker, Duration::from_secs(2));
        assert!(!breaker.wait(limit, Instant::now() + Duration::from_millis(50)).await, "the deadline");
        assert!(breaker.wait(limit, far()).await);
        assert!(begun.elapsed() <= Duration::from_millis(2200), "{:?}", begun.elapsed());
        // Down again at once: still the same outage, of which two seconds are left.
        breaker.served();
        fails_for(&breaker, Duration::from_secs(60));
        assert!(!breaker.wait(limit, far()).await);
        assert_eq!(begun.elapsed().as_secs(), 4);
        assert!(!breaker.wait(limit, far()).await, "nobody else waits at all");
        assert_eq!(begun.elapsed().as_secs(), 4);
        tokio::time::sleep(Duration::from_secs(90)).await;
        breaker.served();
        tokio::time::sleep(Duration::from_secs(10)).await;
        fails_for(&breaker, Duration::from_secs(3));
        assert!(breaker.wait(limit, far()).await, "another outage");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_was_silent_is_waited_for_until_a_try_has_ended() {
        let limit = Duration::from_secs(4);
        let breaker = Breaker::new("db");
        breaker.served();
        let alive = Arc::new(Fake(|| async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            true
        }));
        breaker.suspect(&alive);
        let begun = Instant::now();
        assert!(breaker.wait(limit, begun + limit).await);
        assert_eq!(begun.elapsed(), Duration::from_millis(300));
        breaker.not_serving();
        assert!(breaker.wait(limit, begun + limit).await, "it answers");
        assert!(breaker.worth_waiting(limit).is_some(), "it may serve again soon");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_call_alone_does_not_make_a_backend_dead() {
        let breaker = Breaker::new("db");
        breaker.suspect(&Arc::new(Fake(|| async { true })));
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(breaker.check().is_ok());
        let silent = Arc::new(Fake(std::future::pending));
        breaker.suspect(&silent);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(breaker.check().unwrap_err().failure, Failure::Down("no answer in time".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_answers_calls_but_no_try_is_not_dead_for_ever() {
        let breaker = Breaker::new("web");
        let never = Arc::new(Fake(std::future::pending));
        breaker.suspect(&never);
        tokio::time::sleep(PROBE_LIMIT / 2).await;
        breaker.answered();
        tokio::time::sleep(PROBE_LIMIT).await;
        assert!(breaker.admit().is_ok(), "somebody had an answer");
        breaker.suspect(&never);
        tokio::time::sleep(PROBE_LIMIT * 2).await;
        assert!(breaker.admit().is_err() && breaker.check().is_err());
        tokio::time::sleep(TRIAL_EVERY).await;
        assert!(breaker.admit().is_ok(), "one is let through");
        assert!(breaker.admit().is_err(), "and no other");
        breaker.answered();
        tokio::time::sleep(PROBE_LIMIT * 10).await;
        assert!(breaker.check().is_ok() && !breaker.lock().probing);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_death_if_nobody_has_an_answer() {
        let breaker = Breaker::new("upstream");
        let begun = Instant::now();
        tokio::time::sleep(PROBE_EVERY).await;
        breaker.answered();
        assert_eq!(breaker.silent(begun, "no answer in time").failure, Failure::TimedOut);
        assert!(breaker.admit().is_ok());
        tokio::time::sleep(PROBE_EVERY).await;
        let begun = Instant::now();
        breaker.silent(begun, "no answer in time");
        for _ in 0..3 {
            assert!(breaker.admit().is_err());
            tokio::time::sleep(TRIAL_EVERY).await;
            assert!(breaker.admit().is_ok());
            breaker.silent(Instant::now(), "no answer in time");
        }
        breaker.answered();
        assert!(breaker.admit().is_ok() && breaker.admit().is_ok());
    }
}
