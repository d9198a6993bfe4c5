//! What time it is for a server.
//!
//! A command that waits in the socket of a server that is paused is executed when the server wakes, when
//! nobody wants it any more. So commands that must not be executed then say until when they may, by the
//! server's clock, whose distance from ours its replies show. The clocks of the machines need not agree, and
//! a clock that was set is noticed by the next reply.
//!
//! Knows: time. Must not know: commands.

use super::call::STALE;
use redis::Value;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// What stands for an unknown distance.
const UNKNOWN: i64 = i64::MIN;

/// A reply that took longer says too little of when it was written.
const LONGEST_WAY: Duration = Duration::from_millis(250);

/// From where our own time is counted.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The clock of a server.
pub(super) struct ServerClock {
    /// The server's milliseconds since the epoch less our own milliseconds.
    ahead: AtomicI64,
}

impl Default for ServerClock {
    fn default() -> ServerClock {
        ServerClock { ahead: AtomicI64::new(UNKNOWN) }
    }
}

impl ServerClock {
    /// What its clock will show at this time, or 0 if that is not known.
    pub(super) fn at(&self, time: Instant) -> i64 {
        match self.ahead.load(Ordering::Relaxed) {
            UNKNOWN => 0,
            ahead => ahead.saturating_add(ours(time)),
        }
    }

    /// Takes the server's time from the reply to a command that was sent then: whether the server found it
    /// stale, and did nothing.
    pub(super) fn learn(&self, dated: bool, reply: &Value, sent: Instant) -> bool {
        let Value::Array(parts) = reply else { return false };
        let (true, Some(Value::Int(time))) = (dated, parts.last()) else { return false };
        let is_stale = parts.first() == Some(&Value::Int(STALE));
        // That of sending is never too late, so that nothing is stale before its time.
        if sent.elapsed() <= LONGEST_WAY || is_stale {
            self.ahead.store(time.saturating_sub(ours(sent)), Ordering::Relaxed);
        }
        is_stale
    }
}

fn ours(time: Instant) -> i64 {
    let since = time.saturating_duration_since(*BEGINNING);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(first: i64, time: i64) -> Value {
        Value::Array(vec![Value::Int(first), Value::Nil, Value::Int(time)])
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_is_learned_from_replies_and_learned_again() {
        let clock = ServerClock::default();
        let now = Instant::now();
        assert_eq!(clock.at(now), 0);
        assert!(!clock.learn(false, &reply(STALE, 5), now), "it has no time");
        assert_eq!(clock.at(now), 0);
        assert!(!clock.learn(true, &reply(1, 1_000_000), now));
        assert_eq!(clock.at(now + Duration::from_secs(2)), 1_002_000);
        // One that was long on its way says nothing.
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!clock.learn(true, &reply(1, 7), now));
        assert_eq!(clock.at(now), 1_000_000);
        // The server's clock was set forward by an hour.
        let now = Instant::now();
        assert!(clock.learn(true, &reply(STALE, 4_601_000), now));
        assert_eq!(clock.at(now), 4_601_000);
    }
}
