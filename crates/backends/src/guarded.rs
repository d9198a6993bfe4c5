//! One way to ask a server: not while it is known to be down, until a time, and with one kind of failure.
//!
//! Knows: the breaker, time. Must not know: any protocol.

use crate::{BackendError, Breaker, Call, CallError, Failure, Server};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout_at;

/// A server behind its breaker. Clones share both.
pub struct Guarded<S> {
    server: Arc<S>,
    breaker: Arc<Breaker>,
    limit: Duration,
}

impl<S> Clone for Guarded<S> {
    fn clone(&self) -> Self {
        Guarded { server: self.server.clone(), breaker: self.breaker.clone(), limit: self.limit }
    }
}

/// The server itself, past the breaker.
impl<S> Deref for Guarded<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.server
    }
}

impl<S: Server> Guarded<S> {
    /// A server that is believed to work. A call to it may take that long.
    pub fn new(breaker: Arc<Breaker>, limit: Duration, server: S) -> Guarded<S> {
        Guarded { server: Arc::new(server), breaker, limit }
    }

    /// The name of the connection.
    pub fn connection(&self) -> &Arc<str> {
        self.breaker.connection()
    }

    /// What `asked` finds out, unless the server is down. A call that takes too long has the server tried.
    ///
    /// # Errors
    /// [`Failure::Down`] if the server is or was down, [`Failure::TimedOut`], or that of the call.
    pub async fn call<T>(
        &self,
        asked: impl Future<Output = Result<T, CallError>>,
        call: Call<'_>,
    ) -> Result<T, BackendError> {
        if S::TRIES_CALLS {
            self.breaker.admit()?
        } else {
            self.breaker.check()?
        }
        match timeout_at(call.at_most(self.limit).deadline(), asked).await {
            Ok(Ok(answer)) => {
                self.answered();
                Ok(answer)
            }
            Ok(Err(CallError::Failed(failure))) => {
                self.answered();
                Err(self.error(failure))
            }
            Ok(Err(CallError::Down(cause))) => Err(self.failed(&cause)),
            Err(_) => {
                self.server.timed_out();
                Err(self.suspect())
            }
        }
    }

    fn answered(&self) {
        if S::TRIES_CALLS {
            self.breaker.answered();
        }
    }

    /// Who knows whether the server is down, and since when.
    pub fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    /// Fails at once while the server is known to be down.
    pub fn check(&self) -> Result<(), BackendError> {
        self.breaker.check()
    }

    /// An error of this server.
    pub fn error(&self, failure: Failure) -> BackendError {
        self.breaker.error(failure)
    }

    /// The server is down, and is tried until it is back.
    pub fn failed(&self, cause: &str) -> BackendError {
        self.breaker.failed(cause, &self.server)
    }

    /// Somebody has stopped waiting for an answer: the server is tried, and is down if it does not answer.
    pub fn suspect(&self) -> BackendError {
        self.breaker.suspect(&self.server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers no try.
    struct Silent;

    impl Server for Silent {
        async fn answers(&self) -> bool {
            std::future::pending().await
        }
    }

    /// One that takes calls instead.
    struct Counting;

    impl Server for Counting {
        const TRIES_CALLS: bool = true;

        async fn answers(&self) -> bool {
            false
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_too_long_has_the_server_tried() {
        let server = Guarded::new(Breaker::new("s"), SECOND, Silent);
        let call = || Call::within(10 * SECOND);
        assert_eq!(server.call(async { Ok(7) }, call()).await.unwrap(), 7);
        let refused = async { Err::<(), _>(CallError::Failed(Failure::Refused("no".to_owned()))) };
        assert_eq!(server.call(refused, call()).await.unwrap_err().to_string(), "connection s: no");
        let slow = server.call(std::future::pending::<Result<(), _>>(), call()).await;
        assert_eq!(slow.unwrap_err().failure, Failure::TimedOut);
        assert!(server.check().is_ok());
        tokio::time::sleep(2 * SECOND).await;
        let down = server.call(async { Ok(7) }, call()).await;
        assert_eq!(down.unwrap_err().failure, Failure::Down("no answer in time".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_whose_tries_prove_little_is_found_by_a_call() {
        let server = Guarded::new(Breaker::new("s"), SECOND, Counting);
        let call = || Call::within(SECOND);
        let down = async { Err::<(), _>(CallError::Down("refused".to_owned())) };
        assert_eq!(server.call(down, call()).await.unwrap_err().failure, Failure::Down("refused".into()));
        assert!(server.call(async { Ok(()) }, call()).await.is_err());
        tokio::time::sleep(10 * SECOND).await;
        assert!(server.call(async { Ok(()) }, call()).await.is_ok(), "one is let through");
        assert!(server.check().is_ok());
    }
}
