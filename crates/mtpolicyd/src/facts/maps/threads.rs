//! Threads on which a table is searched: reading files and trying patterns would hold up other requests.
//!
//! Knows: threads, deadlines. Must not know: tables.

use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Maximum number of searches of one table at once. A file that does not answer, on a dead network file
/// system, holds no more threads than this: they are shared by all tables and files.
const MAX_AT_ONCE: usize = 16;

/// The threads of one table.
pub(super) struct Threads(Arc<Semaphore>);

/// Why a search has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It did not end by the deadline.
    TimedOut,
    /// It panicked.
    Failed,
}

impl Threads {
    pub fn new() -> Threads {
        Threads(Arc::new(Semaphore::new(MAX_AT_ONCE)))
    }

    /// Runs a search. One that is given up keeps its place until it ends.
    pub async fn run<T: Send + 'static>(
        &self,
        search: impl FnOnce() -> T + Send + 'static,
        deadline: Instant,
    ) -> Result<T, Lost> {
        let permits = self.0.clone();
        let run = async move {
            let permit = permits.acquire_owned().await.map_err(|_| Lost::Failed)?;
            let searched = tokio::task::spawn_blocking(move || {
                let result = search();
                drop(permit);
                result
            });
            searched.await.map_err(|_| Lost::Failed)
        };
        timeout_at(deadline, run).await.unwrap_or(Err(Lost::TimedOut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn searches_that_hang_hold_few_threads() {
        let threads = Threads::new();
        let begun = Arc::new(AtomicUsize::new(0));
        let mut hung = Vec::new();
        for _ in 0..2 * MAX_AT_ONCE {
            let begun = begun.clone();
            let (end, wait) = mpsc::channel::<()>();
            hung.push(end);
            let search = move || {
                begun.fetch_add(1, Ordering::Relaxed);
                let _ = wait.recv();
            };
            let soon = Instant::now() + Duration::from_millis(5);
            assert_eq!(threads.run(search, soon).await, Err(Lost::TimedOut));
        }
        assert!(begun.load(Ordering::Relaxed) <= MAX_AT_ONCE);
        drop(hung);
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(threads.run(|| 7, later).await, Ok(7), "those that end make place");
        let panicked = threads.run(|| assert!(std::hint::black_box(false)), later).await;
        assert_eq!(panicked, Err(Lost::Failed));
        let all = timeout_at(later, threads.0.acquire_many(MAX_AT_ONCE.try_into().unwrap())).await;
        assert!(all.is_ok(), "none is lost");
    }
}
