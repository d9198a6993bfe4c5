//! How a call to a backend fails.
//!
//! Knows: the kinds of failure. Must not know: what follows from them, any protocol.

use std::sync::Arc;

/// Why a call to a connection of the configuration failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("connection {connection}: {failure}")]
pub struct BackendError {
    /// The name of its block.
    pub connection: Arc<str>,
    /// What happened.
    pub failure: Failure,
}

/// Why a call has no answer, by whether that holds for others too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The server is down for everybody, and this is why.
    Down(String),
    /// This call failed; the next one may work.
    Failed(Failure),
}

/// How a call fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The backend can't be reached, or could not a moment ago.
    #[error("down: {0}")]
    Down(Arc<str>),
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// It answered with an error.
    #[error("{0}")]
    Refused(String),
    /// It answered that there is no such table, or not the unique key that a statement counts on; whoever
    /// keeps the table makes it and tries again.
    #[error("{0}")]
    NoTable(String),
    /// It can't hold, compare or convert a value that came with the request. With another value the same
    /// call works.
    #[error("{0}")]
    BadValue(String),
    /// It answered that its user has no right to do this.
    #[error("{0}")]
    Denied(String),
    /// It was not asked, since that would change something and only an explanation is wanted: what would have
    /// been done.
    #[error("not done for an explanation: {0}")]
    NotDone(String),
}
