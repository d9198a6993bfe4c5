//! How a backend that is known to be down is left alone until it is back.
//!
//! Knows: time, the log. Must not know: any protocol.

use crate::messages;
use crate::{BackendError, Failure};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long to wait before a dead backend is tried again. A SQL server has to be in use within two seconds of
/// its return, and a try may itself take `PROBE_LIMIT`.
const PROBE_EVERY: Duration = Duration::from_millis(500);

/// How long a try may take.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// How often a call is let through to a dead backend, where a call is the best try there is: whoever makes it
/// may wait without success, as long as a call may take.
const TRIAL_EVERY: Duration = Duration::from_secs(5);

/// What a try has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The backend answers.
    Alive,
    /// It does not.
    Dead,
    /// Nobody uses it any more.
    Dropped,
}

/// Remembers that a backend is down, so that no request waits for it, and tries it until it is back.
#[derive(Debug)]
pub struct Breaker {
    connection: Arc<str>,
    state: Mutex<State>,
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
}

impl Breaker {
    /// A breaker for the connection of that name, which is believed to work.
    pub fn new(connection: &str) -> Arc<Breaker> {
        Arc::new(Breaker { connection: connection.into(), state: Mutex::default() })
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
    pub fn failed<F>(self: &Arc<Self>, cause: &str, probe: impl FnMut() -> F + Send + 'static) -> BackendError
    where
        F: Future<Output = Probe> + Send,
    {
        let mut state = self.lock();
        self.declare_dead(&mut state, cause);
        let cause = cause.into();
        state.down = Some(Arc::clone(&cause));
        drop(state);
        self.start_probing(PROBE_EVERY, probe);
        self.error(Failure::Down(cause))
    }

    /// A call took too long, perhaps for a reason of its own: the backend is tried, and is down if it does
    /// not answer that either.
    pub fn suspect<F>(self: &Arc<Self>, probe: impl FnMut() -> F + Send + 'static) -> BackendError
    where
        F: Future<Output = Probe> + Send,
    {
        self.start_probing(Duration::ZERO, probe);
        self.error(Failure::TimedOut)
    }

    fn start_probing<F>(self: &Arc<Self>, first: Duration, mut probe: impl FnMut() -> F + Send + 'static)
    where
        F: Future<Output = Probe> + Send,
    {
        if std::mem::replace(&mut self.lock().probing, true) {
            return;
        }
        let breaker = self.clone();
        tokio::spawn(async move {
            let mut wait = first;
            loop {
                let since = Instant::now();
                tokio::time::sleep(wait).await;
                wait = PROBE_EVERY;
                match timeout(PROBE_LIMIT, probe()).await.unwrap_or(Probe::Dead) {
                    Probe::Alive => break breaker.is_back(),
                    Probe::Dropped => break breaker.lock().probing = false,
                    Probe::Dead if breaker.is_dead(since) => {}
                    // Calls know better.
                    Probe::Dead => break,
                }
            }
        });
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
        }
        state.probing
    }

    fn declare_dead(&self, state: &mut State, cause: &str) {
        if state.down.is_none() {
            messages::down(&self.connection, cause);
            state.down = Some(cause.into());
            state.tried = Some(Instant::now());
        }
    }

    fn revive(&self, state: &mut State) {
        if state.down.take().is_some() {
            messages::back(&self.connection);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_answered_since(&self, begun: Instant) -> bool {
        self.answered.is_some_and(|answered| answered >= begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_dead_backend_is_left_alone_until_it_is_back() {
        let breaker = Breaker::new("db");
        let tries = Arc::new(AtomicUsize::new(0));
        let counted = tries.clone();
        let error = breaker.failed("refused", move || {
            let tried = counted.fetch_add(1, Ordering::Relaxed);
            async move { if tried < 2 { Probe::Dead } else { Probe::Alive } }
        });
        assert_eq!(error.to_string(), "connection db: down: refused");
        assert!(breaker.check().is_err());
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert!(breaker.check().is_err());
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(breaker.check().is_ok());
        assert_eq!(tries.load(Ordering::Relaxed), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_call_alone_does_not_make_a_backend_dead() {
        let breaker = Breaker::new("db");
        breaker.suspect(|| async { Probe::Alive });
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(breaker.check().is_ok());
        breaker.suspect(|| async { std::future::pending().await });
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(breaker.check().unwrap_err().failure, Failure::Down("no answer in time".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_answers_calls_but_no_try_is_not_dead_for_ever() {
        let breaker = Breaker::new("web");
        let never = || async { std::future::pending().await };
        breaker.suspect(never);
        tokio::time::sleep(PROBE_LIMIT / 2).await;
        breaker.answered();
        tokio::time::sleep(PROBE_LIMIT).await;
        assert!(breaker.admit().is_ok(), "somebody had an answer");
        breaker.suspect(never);
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
