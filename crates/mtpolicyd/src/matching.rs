//! Patterns tried on what a request says, with a bound on the work of a request.
//!
//! What takes little is done at once. What takes more is done on a thread of its own, of which few run at
//! once, so that other requests are not held up by it. The bounds are on steps, not on time: a machine that
//! is busy finds what one that is idle finds.
//!
//! Knows: patterns, threads, deadlines. Must not know: plugins, tables.

use perl_regex::{Budget, MatchError, PatternList};
use std::sync::{Arc, LazyLock};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// What may be done at once, in steps: a tenth of a millisecond or two.
const AT_ONCE_STEPS: u64 = 20_000;

/// What one pattern may take on one value, in steps: tens of milliseconds.
const PATTERN_STEPS: u64 = 5_000_000;

/// What all patterns together may take for one request, in steps: some tenths of a second at most.
const REQUEST_STEPS: u64 = 3 * PATTERN_STEPS;

/// What all patterns together may do at once for one request, in steps: it is done on the threads that serve
/// all connections.
const REQUEST_AT_ONCE_STEPS: u64 = 10 * AT_ONCE_STEPS;

/// Searches that take long: half of the processors are left for everything else.
static LONG_SEARCHES: LazyLock<Semaphore> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Semaphore::new(processors.div_ceil(2))
});

/// Why it is not known whether a pattern matches. A request can cause it by what it holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SearchError {
    /// A pattern took more work than it may.
    #[error(transparent)]
    TooMuch(#[from] MatchError),
    /// There was no time for a search that takes long.
    #[error("patterns that take long on a value of {0} bytes were not tried in time")]
    Late(usize),
}

/// What the patterns may still take for a request.
#[derive(Debug)]
pub struct Matching {
    budget: Budget,
    /// What may still be done at once, in steps.
    at_once: u64,
    /// When the searches on threads end, all together; set by the first of them.
    until: Option<Instant>,
}

impl Default for Matching {
    fn default() -> Matching {
        let budget = Budget::new(REQUEST_STEPS, PATTERN_STEPS);
        Matching { budget, at_once: REQUEST_AT_ONCE_STEPS, until: None }
    }
}

impl Matching {
    /// The place of the first pattern that matches the value.
    pub async fn find(
        &mut self,
        list: &Arc<PatternList>,
        value: &[u8],
        deadline: Instant,
    ) -> Result<Option<usize>, SearchError> {
        if list.is_empty() {
            return Ok(None);
        }
        let steps = list.pass_steps(value.len());
        if let Some(found) = self.search_at_once(value, steps, |value, budget| list.find(value, budget)) {
            return Ok(found?);
        }
        let list = list.clone();
        self.search_on_a_thread(value, deadline, move |value, budget| list.find(value, budget)).await
    }

    /// Searches: at once, if the estimated number of steps is small and turns out to be enough, else on a
    /// thread. So `search` may be called twice.
    pub async fn search<T: Send + 'static>(
        &mut self,
        value: &[u8],
        steps: u64,
        deadline: Instant,
        search: impl Fn(&[u8], &mut Budget) -> Result<T, MatchError> + Send + 'static,
    ) -> Result<T, SearchError> {
        match self.search_at_once(value, steps, &search) {
            Some(found) => Ok(found?),
            None => self.search_on_a_thread(value, deadline, search).await,
        }
    }

    /// What is found with few steps; `None` if they are not enough.
    fn search_at_once<T>(
        &mut self,
        value: &[u8],
        steps: u64,
        search: impl Fn(&[u8], &mut Budget) -> Result<T, MatchError>,
    ) -> Option<Result<T, MatchError>> {
        if steps > AT_ONCE_STEPS {
            return None;
        }
        let mut part = self.budget.part(AT_ONCE_STEPS.min(self.at_once));
        let before = part.left();
        let found = search(value, &mut part);
        let spent = before - part.left();
        self.budget.spend(spent);
        self.at_once = self.at_once.saturating_sub(spent);
        (found.is_ok() || self.budget.left() == 0).then_some(found)
    }

    async fn search_on_a_thread<T: Send + 'static>(
        &mut self,
        value: &[u8],
        deadline: Instant,
        search: impl Fn(&[u8], &mut Budget) -> Result<T, MatchError> + Send + 'static,
    ) -> Result<T, SearchError> {
        let until = self.end_of_searches(deadline);
        if Instant::now() >= until {
            return Err(self.give_up(value).await);
        }
        let (owned, mut budget) = (value.to_vec(), self.budget);
        let on_a_thread = async move {
            let permit = LONG_SEARCHES.acquire().await.ok()?;
            let searched = tokio::task::spawn_blocking(move || {
                let found = search(&owned, &mut budget);
                drop(permit);
                (found, budget)
            });
            searched.await.ok()
        };
        let Some((found, budget)) = timeout_at(until, on_a_thread).await.ok().flatten() else {
            return Err(self.give_up(value).await);
        };
        self.budget = budget;
        Ok(found?)
    }

    /// All searches that take long have half of the time that is left at the first of them, so that the
    /// plugins behind have the other half.
    fn end_of_searches(&mut self, deadline: Instant) -> Instant {
        let half = || {
            let now = Instant::now();
            now + deadline.saturating_duration_since(now) / 2
        };
        (*self.until.get_or_insert_with(half)).min(deadline)
    }

    /// What was begun goes on though nobody waits for it, so it counts. The task yields, so that the deadline
    /// of the request is looked at.
    async fn give_up(&mut self, value: &[u8]) -> SearchError {
        self.budget.spend(PATTERN_STEPS.min(self.budget.left()));
        tokio::task::yield_now().await;
        SearchError::Late(value.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use perl_regex::Pattern;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn list(patterns: &[&str]) -> Arc<PatternList> {
        Arc::new(PatternList::new(patterns.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect()))
    }

    /// Takes work in proportion to the cube of an odd number of letters.
    const HEAVY: &str = r"^(a+)(a+)\1\2!$";

    #[tokio::test]
    async fn what_takes_long_does_not_hold_up_others() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = std::sync::Mutex::new(wait);
        // The second time it waits for what another task does, on the same thread of the runtime as this one.
        let search = move |value: &[u8], budget: &mut Budget| {
            if budget.left() <= AT_ONCE_STEPS {
                return Pattern::new(HEAVY).unwrap().is_match(value, &mut Budget::new(0, 0));
            }
            Ok(wait.lock().unwrap().recv_timeout(Duration::from_secs(30)).is_ok())
        };
        let mut matching = Matching::default();
        let other = async { go.send(()).unwrap() };
        let (found, ()) = tokio::join!(matching.search(b"aaa!", 1, later(), search), other);
        assert_eq!(found, Ok(true));
    }

    #[tokio::test]
    async fn all_patterns_of_a_request_share_a_bound() {
        let (value, heavy) = ("a".repeat(2_001) + "!", list(&[HEAVY]));
        let mut matching = Matching::default();
        for _ in 0..3 {
            let failed = matching.find(&heavy, value.as_bytes(), later()).await;
            assert!(matches!(failed, Err(SearchError::TooMuch(_))), "{failed:?}");
        }
        assert_eq!(matching.budget.left(), 0);
        assert!(matching.find(&heavy, value.as_bytes(), later()).await.is_err());
        let cheap = matching.find(&list(&["x", "!$"]), value.as_bytes(), later()).await;
        assert_eq!(cheap, Ok(Some(1)), "what takes no steps is found in any case");
    }

    #[tokio::test(start_paused = true)]
    async fn searches_that_wait_leave_half_of_the_time() {
        let all = u32::try_from(LONG_SEARCHES.available_permits()).unwrap();
        let held = LONG_SEARCHES.acquire_many(all).await.unwrap();
        let value = "a".repeat(2_001) + "!";
        let (begun, mut matching) = (Instant::now(), Matching::default());
        let (half, deadline) = (begun + Duration::from_secs(10), begun + Duration::from_secs(20));
        for _ in 0..3 {
            let found = matching.find(&list(&[HEAVY]), value.as_bytes(), deadline).await;
            assert!(found.is_err(), "{found:?}");
        }
        drop(held);
        assert_eq!((matching.until, Instant::now()), (Some(half), half), "the plugins behind have the rest");
    }

    #[tokio::test]
    async fn little_is_done_at_once_for_one_request() {
        let at_once = Arc::new(AtomicU64::new(0));
        let (value, counter) = ("a".repeat(31) + "!", at_once.clone());
        let search = move |value: &[u8], budget: &mut Budget| {
            let before = budget.left();
            let found = Pattern::new(HEAVY).unwrap().is_match(value, budget);
            if before <= AT_ONCE_STEPS {
                counter.fetch_add(before - budget.left(), Ordering::Relaxed);
            }
            found
        };
        let mut matching = Matching::default();
        for _ in 0..200 {
            assert_eq!(matching.search(value.as_bytes(), 1, later(), search.clone()).await, Ok(false));
        }
        let spent = REQUEST_STEPS - matching.budget.left();
        assert!(spent > 2 * REQUEST_AT_ONCE_STEPS, "the work is too little to show anything: {spent}");
        assert_eq!(at_once.load(Ordering::Relaxed), REQUEST_AT_ONCE_STEPS);
        let cheap = matching.find(&list(&["x", "!$"]), value.as_bytes(), later()).await;
        assert_eq!(cheap, Ok(Some(1)), "what takes no steps is found in any case");
    }

    #[tokio::test]
    async fn a_search_that_waits_in_vain_ends_by_the_deadline() {
        let all = u32::try_from(LONG_SEARCHES.available_permits()).unwrap();
        let held = LONG_SEARCHES.acquire_many(all).await.unwrap();
        let (value, soon) = ("a".repeat(2_001) + "!", Instant::now() + Duration::from_millis(5));
        let found = Matching::default().find(&list(&[HEAVY]), value.as_bytes(), soon).await;
        drop(held);
        assert_eq!(found, Err(SearchError::Late(2_002)));
    }
}
