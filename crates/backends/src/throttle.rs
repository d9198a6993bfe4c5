//! A line that is true of every request is logged once a minute.
//!
//! Knows: time. Must not know: what is said.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the line is logged at most.
const INTERVAL: Duration = Duration::from_secs(60);

/// When a line was logged last.
#[derive(Debug, Default)]
pub struct Throttle(Mutex<Option<Instant>>);

impl Throttle {
    /// Whether the line may be logged now, which is then counted as done.
    pub fn is_due(&self) -> bool {
        self.is_due_at(Instant::now())
    }

    fn is_due_at(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_once_a_minute() {
        let (throttle, start) = (Throttle::default(), Instant::now());
        let due = [0, 1, 59, 60, 61, 120].map(|s| throttle.is_due_at(start + Duration::from_secs(s)));
        assert_eq!(due, [true, false, false, true, false, true]);
    }
}
