//! How many works are done at the same time: as many as there may be connections, fewer where the server
//! accepts fewer.
//!
//! Knows: counting, time. Must not know: servers, works.

use super::Trouble;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};

/// How long a place is left out before it is used again: the server's connections may have been somebody
/// else's.
const LEFT_OUT: Duration = Duration::from_secs(5);

/// How long the last place waits for connections that are being closed or tried.
const PAUSE: Duration = Duration::from_millis(20);

/// Places for works, and the connections that are open.
pub(super) struct Places {
    bound: usize,
    permits: Semaphore,
    open: Arc<AtomicUsize>,
    left_out: Mutex<LeftOut>,
}

/// The places that are not used now.
struct LeftOut {
    count: usize,
    /// When that last changed.
    since: Instant,
}

/// A place for one work.
pub(super) struct Place<'a> {
    places: &'a Places,
    /// None only while it is changed.
    permit: Option<SemaphorePermit<'a>>,
}

/// A connection as long as it is open.
pub(super) struct Open<L> {
    pub link: L,
    _counted: Counted,
}

/// A connection that is being made.
pub(super) struct Opening(Counted);

struct Counted(Arc<AtomicUsize>);

impl Places {
    /// This number of places, all of them free.
    pub fn new(bound: usize) -> Places {
        // The configuration may say more than a semaphore can count.
        let bound = bound.clamp(1, Semaphore::MAX_PERMITS);
        let left_out = Mutex::new(LeftOut { count: 0, since: Instant::now() });
        Places { bound, permits: Semaphore::new(bound), open: Arc::default(), left_out }
    }

    /// How many there are, with those that are left out.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// How many connections are open or being made.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// A place, once one is free.
    pub async fn take(&self) -> Result<Place<'_>, Trouble> {
        self.put_back();
        Ok(Place { places: self, permit: Some(self.permit().await?) })
    }

    /// Counts a connection that is being made.
    pub fn opening(&self) -> Opening {
        self.open.fetch_add(1, Ordering::Relaxed);
        Opening(Counted(self.open.clone()))
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, Trouble> {
        self.permits.acquire().await.map_err(|error| Trouble::Lost(error.to_string()))
    }

    /// Uses one more place again, some time after the last change.
    fn put_back(&self) {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        if left_out.count > 0 && left_out.since.elapsed() >= LEFT_OUT {
            left_out.count -= 1;
            left_out.since = Instant::now();
            self.permits.add_permits(1);
        }
    }

    /// Uses one place less from now on, unless it is the last.
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

impl<'a> Place<'a> {
    /// There is no connection to be had for this place: it is left out, and this becomes another one as soon
    /// as that is free, with its connection.
    pub async fn change(&mut self) -> Result<(), Trouble> {
        if self.places.leave_out() {
            self.permit.take().into_iter().for_each(SemaphorePermit::forget);
            self.permit = Some(self.places.permit().await?);
        } else {
            sleep(PAUSE).await;
        }
        Ok(())
    }
}

impl Opening {
    /// It is made.
    pub fn done<L>(self, link: L) -> Open<L> {
        Open { link, _counted: self.0 }
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
        let places = Places::new(3);
        let (mut first, second) = (places.take().await.unwrap(), places.take().await.unwrap());
        first.change().await.unwrap();
        assert!(timeout(PAUSE, places.take()).await.is_err(), "two are left, and both are taken");
        drop(second);
        drop(places.take().await.unwrap());
        first.change().await.unwrap();
        // The last one stays.
        first.change().await.unwrap();
        assert!(timeout(PAUSE, places.take()).await.is_err());
        sleep(LEFT_OUT).await;
        let second = places.take().await.unwrap();
        assert!(timeout(PAUSE, places.take()).await.is_err(), "one after the other");
        sleep(LEFT_OUT).await;
        drop((places.take().await.unwrap(), second, first));
    }

    #[test]
    fn open_connections_are_counted() {
        let places = Places::new(3);
        let opening = places.opening();
        assert_eq!(places.open(), 1);
        let open = opening.done("link");
        drop(places.opening());
        assert_eq!((places.open(), open.link), (1, "link"));
        drop(open);
        assert_eq!(places.open(), 0);
    }
}
