//! The bytes of a connection, moved by whoever waits for an answer.
//!
//! So an answer costs no other task, which would have to be woken twice for each, and a connection without a
//! call costs nothing.
//!
//! Knows: tokio-postgres. Must not know: statements.

use super::error::Failed;
use crate::sql::Param;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use tokio_postgres::Error;
use tokio_postgres::tls::TlsStream;
use tokio_postgres::{Connection, Socket};

/// Ends when the connection does.
type Moving = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// What moves the bytes of a connection.
pub(super) struct Wire {
    /// None once the connection has ended.
    moving: Option<Moving>,
    /// Why it has ended, where the server has said it while nobody was waiting for an answer.
    end: Option<Error>,
}

impl Wire {
    pub fn new<T: TlsStream + Unpin + Send + 'static>(connection: Connection<Socket, T>) -> Wire {
        Wire { moving: Some(Box::pin(connection)), end: None }
    }

    /// Waits for an answer while the bytes are moved. If the connection ends, so does the waiting.
    pub async fn during<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        poll_fn(|cx| {
            // First it asks, then the question goes its way; what has come back may be the answer.
            let before = answer.as_mut().poll(cx);
            if before.is_ready() {
                return before;
            }
            self.move_on(cx);
            answer.as_mut().poll(cx)
        })
        .await
    }

    /// Whether the connection has not ended, as far as has been heard of it.
    pub fn is_open(&mut self) -> bool {
        self.move_on(&mut Context::from_waker(Waker::noop()));
        self.moving.is_some()
    }

    fn move_on(&mut self, cx: &mut Context<'_>) {
        let Some(moving) = &mut self.moving else { return };
        if let Poll::Ready(end) = moving.as_mut().poll(cx) {
            // Without it, those who wait for answers hear that there will be none.
            self.moving = None;
            self.end = end.err();
        }
    }

    /// What an error means that came of a statement with these parameters.
    pub fn failed(&self, error: &Error, params: &[Param]) -> Failed {
        match &self.end {
            // The library has heard of it before it has sent anything.
            Some(end) if error.is_closed() => Failed::with(end, &[]),
            _ => Failed::with(error, params),
        }
    }
}
