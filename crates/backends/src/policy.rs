//! Another policy daemon, asked for its action.
//!
//! Knows: the protocol, whose fault a failure is. Must not know: what an action means.

use crate::replay;
use crate::{BackendError, Breaker, Call, Client, Endpoint, Failure, Pool, PoolLimits, Socket};
use lookups::LookupKind;
use postfix_policy::Request;
use postfix_policy::client::{ClientError, Connection};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Connections kept open at most; each is idle, so this bounds descriptors, not concurrency.
const MAX_IDLE: usize = 32;

/// How long a connection may have been idle.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// Silence for this long says something about the other daemon, where a request has no time for its whole
/// limit. The addresses of a host that has several share it.
const SILENCE: Duration = Duration::from_secs(5);

/// Maximum number of requests in a row to blame for an invalid answer. A sender who knows what the other
/// daemon stumbles over must not get past it; one that stumbles over everything must not stop all messages.
pub const MAX_BLAMED: u32 = 10;

/// A policy daemon. It can't be tried without a request, which might count: while it is down, one request is
/// let through from time to time.
pub struct PolicyServer {
    pool: Pool<Connector>,
    breaker: Arc<Breaker>,
    /// Requests since the last answer that had none; at its bound until there is a first answer.
    blamed: AtomicU32,
}

struct Connector {
    endpoint: Endpoint,
}

impl Client for Connector {
    type Connection = Connection<Socket>;
    type Question = Request;
    type Answer = String;
    type Error = ClientError;

    async fn open(&self) -> Result<Connection<Socket>, ClientError> {
        Ok(Connection::new(Socket::connect(&self.endpoint, SILENCE).await?))
    }

    async fn ask(
        &self,
        connection: &mut Connection<Socket>,
        request: &Request,
    ) -> Result<String, ClientError> {
        let answer = connection.ask(request).await?;
        let action = answer.action().ok_or(ClientError::NoAction)?;
        Ok(String::from_utf8_lossy(action).into_owned())
    }

    fn is_closed(error: &ClientError) -> bool {
        error.is_hang_up()
    }

    fn is_usable(connection: &mut Connection<Socket>) -> bool {
        connection.is_usable()
    }
}

/// What another daemon is asked.
const REQUEST: &str = "the request";

impl PolicyServer {
    /// A daemon, to which connections are kept open between requests or not.
    pub fn new(endpoint: Endpoint, keepalive: bool) -> PolicyServer {
        let breaker = Breaker::new(&endpoint.to_string());
        let idle = if keepalive { MAX_IDLE } else { 0 };
        let limits = PoolLimits { calls: usize::MAX, idle, idle_time: IDLE_TIME };
        PolicyServer { pool: Pool::new(Connector { endpoint }, limits), breaker, blamed: MAX_BLAMED.into() }
    }

    /// The action for a request, within `limit`.
    ///
    /// # Errors
    /// [`Failure::Down`] while the daemon does not answer, and [`Failure::TimedOut`] if others have just had
    /// an answer; [`Failure::BadValue`] if it has answered others and stumbles over this request;
    /// [`Failure::Refused`] if it can't be reached, or has answered nobody yet.
    pub async fn action(
        &self,
        request: &Request,
        limit: Duration,
        call: Call<'_>,
    ) -> Result<String, BackendError> {
        let connection = self.breaker.connection();
        if let Some(replay) = call.replay() {
            let Some(answer) = replay.answer(LookupKind::Policy, connection, REQUEST) else {
                replay.miss(format!("the policy daemon {connection}"));
                return Err(replay::not_asked(connection));
            };
            return replay::failure(connection, &answer).map_or(Ok(answer), Err);
        }
        call.refuse_to_pretend(connection, || format!("ask the policy daemon {connection}"))?;
        let begun = call.begin();
        let action = self.ask(request, limit, call).await;
        let question = || REQUEST.to_owned();
        begun.note_texts(LookupKind::Policy, self.breaker.connection(), question, &action, String::clone);
        action
    }

    async fn ask(&self, request: &Request, limit: Duration, call: Call<'_>) -> Result<String, BackendError> {
        self.breaker.admit()?;
        let begun = Instant::now();
        let failed = |why: String| self.breaker.error(Failure::Refused(why));
        match timeout_at(call.at_most(limit).deadline(), self.pool.ask(request)).await {
            Ok(Ok(action)) => {
                self.breaker.answered();
                self.blamed.store(0, Ordering::Relaxed);
                Ok(action)
            }
            // The system has waited for it without success.
            Ok(Err(ClientError::Io(error)))
                if matches!(error.kind(), ErrorKind::HostUnreachable | ErrorKind::TimedOut) =>
            {
                Err(self.breaker.silent(begun, &error.to_string()))
            }
            Ok(Err(error)) if error.is_about_the_answer() && self.may_blame() => {
                Err(self.breaker.error(Failure::BadValue(error.to_string())))
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) if begun.elapsed() >= limit.min(SILENCE) => {
                Err(self.breaker.silent(begun, "no answer in time"))
            }
            // The rest of the request's time was short, which is not its fault.
            Err(_) => Err(failed("no answer in time".to_owned())),
        }
    }

    /// Whether the request is to blame, since the other daemon has answered others.
    fn may_blame(&self) -> bool {
        let more = |blamed: u32| (blamed < MAX_BLAMED).then_some(blamed + 1);
        self.blamed.try_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}
