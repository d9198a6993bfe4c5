//! A request on its way to a server, and why it may come back without replies.
//!
//! Knows: deadlines. Must not know: sockets, servers.

use super::protocol::{Replies, Request};
use crate::BackendError;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A request on its way.
pub(super) struct Job {
    pub request: Request,
    pub deadline: Instant,
    pub answer: oneshot::Sender<Result<Replies, Fault>>,
    /// The number of connections on which it has waited.
    pub connections: u8,
}

/// Why a request has no replies.
pub(super) enum Fault {
    /// It was not sent, since the server is down; another one may take it.
    Unsent(Request, BackendError),
    /// It may have been done.
    Lost(BackendError),
}
