//! What time it is: for tickets, counters and whatever else outlives the process.
//!
//! Knows: the clock of the system and its time zone. Must not know: what it is for.

use crate::Replay;
use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// The wall clock. Deadlines and waits do not look at it, since it jumps.
#[derive(Debug)]
pub enum Clock {
    /// That of the system.
    System,
    /// One that stands still until a test moves it, in seconds since the epoch, in UTC.
    Fake(AtomicI64),
    /// That of a decision that is replayed, in the time zone of the system.
    Replayed(Arc<Replay>),
}

impl Clock {
    /// Seconds since the epoch.
    pub fn now(&self) -> i64 {
        match self {
            Clock::System => Timestamp::now().as_second(),
            Clock::Fake(seconds) => seconds.load(Ordering::Relaxed),
            Clock::Replayed(replay) => replay.now().div_euclid(1000),
        }
    }

    /// Milliseconds since the epoch.
    pub fn now_millis(&self) -> i64 {
        match self {
            Clock::System => Timestamp::now().as_millisecond(),
            Clock::Fake(seconds) => seconds.load(Ordering::Relaxed) * 1000,
            Clock::Replayed(replay) => replay.now(),
        }
    }

    /// The local time as strftime(3) writes it.
    pub fn format(&self, pattern: &str) -> Result<String, String> {
        self.format_at(self.now(), pattern)
    }

    /// The same of another time, in seconds since the epoch.
    pub fn format_at(&self, seconds: i64, pattern: &str) -> Result<String, String> {
        let zone = match self {
            Clock::System | Clock::Replayed(_) => TimeZone::system(),
            Clock::Fake(_) => TimeZone::UTC,
        };
        let time = Timestamp::from_second(seconds).map_err(|error| error.to_string())?;
        strtime::format(pattern, &time.to_zoned_datetime(zone)).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_gives_the_local_time() {
        let clock = Clock::Fake(AtomicI64::new(1_764_000_000));
        assert_eq!(clock.format("%Y-%m"), Ok("2025-11".to_owned()));
        assert!(clock.format("%!").is_err());
        assert!(Clock::System.now() > 1_764_000_000);
    }
}
