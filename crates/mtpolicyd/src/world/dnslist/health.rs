//! How the DNS lists fare: failures by zone, and which of them are worth a line in the log.
//!
//! Knows: zones and time. Must not know: what an answer means.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a list that does not work is complained about: it fails at each mail, and one line says it.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The failures of all lists. Plugins that ask the same list share its count, and a reload keeps it.
#[derive(Debug, Default)]
pub struct Health(Mutex<BTreeMap<Box<str>, Trouble>>);

#[derive(Debug)]
struct Trouble {
    complained: Instant,
    failures: u64,
}

impl Health {
    /// Counts a failure of a list. If a line in the log is due, the failures since the last one.
    pub(super) fn failed(&self, zone: &str, now: Instant) -> Option<u64> {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(trouble) = troubles.get_mut(zone) else {
            troubles.insert(zone.into(), Trouble { complained: now, failures: 0 });
            return Some(1);
        };
        trouble.failures += 1;
        if now.saturating_duration_since(trouble.complained) < COMPLAINT_INTERVAL {
            return None;
        }
        trouble.complained = now;
        Some(std::mem::take(&mut trouble.failures))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_once_an_hour_and_list() {
        let health = Health::default();
        let start = Instant::now();
        let failed = |zone, minutes: u64| health.failed(zone, start + Duration::from_secs(60 * minutes));
        let hours = [0, 1, 59, 60, 61, 119, 120].map(|minutes| failed("bl.test", minutes));
        assert_eq!(hours, [Some(1), None, None, Some(3), None, None, Some(3)]);
        assert_eq!(failed("other.test", 61), Some(1));
    }
}
