//! Until when a call to a backend may take.
//!
//! Knows: time. Must not know: any protocol.

use std::time::Duration;
use tokio::time::Instant;

/// The end of a call that has a time limit of its own inside a request that has one.
pub fn call_deadline(request: Instant, limit: Duration) -> Instant {
    request.min(Instant::now() + limit)
}
