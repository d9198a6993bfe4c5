//! Connections to one server that are kept for the next call; each does one call at a time, so that a call
//! that is given up takes no other with it.
//!
//! Knows: which connections may be used again. Must not know: any protocol, how long to wait.

use crate::Server;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// How one kind of server is spoken to.
pub trait Client: Send + Sync + 'static {
    /// A connection; dropping it closes it.
    type Connection: Send + 'static;
    /// What is asked. Asking twice does no harm.
    type Question: Sync + ?Sized;
    /// What the server says, a refusal included. The connection can be used again.
    type Answer: Send;
    /// Why there is no answer. The connection is of no use any more.
    type Error: Send;

    /// Opens a connection, which shows that the server answers.
    fn open(&self) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Asks.
    fn ask(
        &self,
        connection: &mut Self::Connection,
        question: &Self::Question,
    ) -> impl Future<Output = Result<Self::Answer, Self::Error>> + Send;

    /// Whether the server had closed the connection, which says nothing about a new one.
    fn is_closed(error: &Self::Error) -> bool;

    /// Whether a connection that was idle is not known to be closed.
    fn is_usable(_connection: &mut Self::Connection) -> bool {
        true
    }

    /// Whether the server answers on a new connection, if opening it does not show that.
    fn answers(&self, _connection: &mut Self::Connection) -> impl Future<Output = bool> + Send {
        std::future::ready(true)
    }
}

/// The bounds of a pool.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// Calls at the same time; others wait.
    pub calls: usize,
    /// Idle connections.
    pub idle: usize,
    /// How long a connection may have been idle: servers and firewalls close such, the latter without a word.
    pub idle_time: Duration,
}

/// Connections to a server.
pub struct Pool<C: Client> {
    client: C,
    limits: PoolLimits,
    /// `None` without a bound.
    permits: Option<Semaphore>,
    /// Since when each is idle; the one used last is at the end.
    idle: Mutex<Vec<(C::Connection, Instant)>>,
}

impl<C: Client> Pool<C> {
    /// Without a connection yet.
    pub fn new(client: C, limits: PoolLimits) -> Pool<C> {
        let permits = (limits.calls <= Semaphore::MAX_PERMITS).then(|| Semaphore::new(limits.calls));
        Pool { client, limits, permits, idle: Mutex::default() }
    }

    /// How the server is spoken to.
    pub fn client(&self) -> &C {
        &self.client
    }

    /// The answer to a question. Where an idle connection turns out to be closed, all are, perhaps since the
    /// server was started again, and the question is asked once more on a new one.
    ///
    /// # Errors
    /// Why there is no answer on a new connection, or why an idle one has broken.
    pub async fn ask(&self, question: &C::Question) -> Result<C::Answer, C::Error> {
        let _permit = self.permit().await;
        if let Some(mut idle) = self.take() {
            match self.client.ask(&mut idle, question).await {
                Err(error) if C::is_closed(&error) => self.clear(),
                Err(error) => return Err(error),
                Ok(answer) => {
                    self.keep(idle);
                    return Ok(answer);
                }
            }
        }
        let mut new = self.client.open().await?;
        let answer = self.client.ask(&mut new, question).await?;
        self.keep(new);
        Ok(answer)
    }

    /// Opens a connection, which is kept.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(&self) -> Result<(), C::Error> {
        let _permit = self.permit().await;
        self.keep(self.client.open().await?);
        Ok(())
    }

    /// Closes all connections that are idle.
    pub fn clear(&self) {
        self.lock().clear();
    }

    async fn permit(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.permits.as_ref()?.acquire().await.ok()
    }

    fn take(&self) -> Option<C::Connection> {
        let mut idle = self.lock();
        while let Some((mut connection, since)) = idle.pop() {
            if since.elapsed() > self.limits.idle_time {
                // The others have been unused for even longer.
                idle.clear();
            } else if C::is_usable(&mut connection) {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: C::Connection) {
        let mut idle = self.lock();
        if idle.len() < self.limits.idle {
            idle.push((connection, Instant::now()));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(C::Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C: Client> Server for Pool<C> {
    async fn answers(&self) -> bool {
        // A server with one place would wait for a question on a connection that is idle.
        self.clear();
        match self.client.open().await {
            Ok(mut connection) => self.client.answers(&mut connection).await,
            Err(_) => false,
        }
    }

    fn timed_out(&self) {
        // The others may have been cut by the same silent firewall.
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Connections have numbers, and those up to `closed` are closed.
    #[derive(Default)]
    struct Numbered {
        opened: AtomicUsize,
        closed: AtomicUsize,
    }

    impl Client for Numbered {
        type Connection = usize;
        type Question = ();
        type Answer = usize;
        type Error = usize;

        async fn open(&self) -> Result<usize, usize> {
            Ok(self.opened.fetch_add(1, Ordering::Relaxed) + 1)
        }

        async fn ask(&self, number: &mut usize, (): &Self::Question) -> Result<usize, usize> {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if *number > self.closed.load(Ordering::Relaxed) { Ok(*number) } else { Err(*number) }
        }

        fn is_closed(_: &usize) -> bool {
            true
        }
    }

    const IDLE_TIME: Duration = Duration::from_secs(60);

    fn pool() -> Pool<Numbered> {
        Pool::new(Numbered::default(), PoolLimits { calls: 2, idle: 1, idle_time: IDLE_TIME })
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_used_again_until_it_is_old_or_closed() {
        let pool = pool();
        assert_eq!((pool.ask(&()).await, pool.ask(&()).await), (Ok(1), Ok(1)));
        tokio::time::sleep(IDLE_TIME * 2).await;
        assert_eq!(pool.ask(&()).await, Ok(2));
        pool.client.closed.store(2, Ordering::Relaxed);
        assert_eq!(pool.ask(&()).await, Ok(3), "the question is asked once more");
        pool.client.closed.store(4, Ordering::Relaxed);
        assert_eq!(pool.ask(&()).await, Err(4), "but only once");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_and_idle_connections_are_bounded() {
        let pool = pool();
        let (first, second, third) = tokio::join!(pool.ask(&()), pool.ask(&()), pool.ask(&()));
        assert_eq!((first, second), (Ok(1), Ok(2)));
        assert!(third.is_ok_and(|number| number <= 2), "it waits for a connection of the others");
        assert_eq!(pool.lock().len(), 1);
    }
}
