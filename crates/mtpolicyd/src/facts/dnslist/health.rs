//! How the DNS lists fare: failures by zone, which of them are worth a line in the log, and which lists
//! nobody need wait for.
//!
//! Knows: zones and time. Must not know: what an answer means.

use super::record::{Condition, ListRecord, ListState};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often a list that does not work is complained about: it fails at each message, and one line says it.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// For longer than failures are remembered by the name service.
const REMEMBERED: Duration = Duration::from_secs(15);

/// How often a list that does not answer is tried.
const TRIAL_INTERVAL: Duration = Duration::from_secs(5);

/// The failures of all lists. Plugins that ask the same list share its count, and a reload keeps it.
#[derive(Debug, Default)]
pub struct Health {
    troubles: Mutex<BTreeMap<Box<str>, Outage>>,
    /// The number of lists that do not answer. While it is 0, no list has to be looked up.
    silent: AtomicUsize,
    /// What is known of each list, by its zone.
    records: Mutex<BTreeMap<Box<str>, Arc<ListRecord>>>,
}

#[derive(Debug, Default)]
struct Outage {
    /// When a failure is worth a line again; `None` before the first.
    next_complaint: Option<Instant>,
    failures: u64,
    silence: Option<Silence>,
}

/// A list has not answered in time. Until it does, nobody waits for it.
#[derive(Debug)]
struct Silence {
    since: Instant,
    next_trial: Instant,
    /// Whether a trial has failed as well. Before, it may have been one name alone that got no answer,
    /// perhaps one that somebody has chosen for that.
    is_certain: bool,
}

impl Health {
    /// What is known of a list.
    pub fn record(&self, zone: &str) -> Arc<ListRecord> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        match records.get(zone) {
            Some(record) => record.clone(),
            None => records.entry(zone.into()).or_default().clone(),
        }
    }

    /// How a list is, by its tests and by what requests have found.
    pub fn condition(&self, zone: &str) -> Condition {
        let mut condition = self.record(zone).condition();
        if self.is_known_silent(zone) {
            condition.state = ListState::Silent;
        }
        condition
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Outage>> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a failure of a list. If a line in the log is due, the failures since the last one.
    pub(super) fn failed(&self, zone: &str, now: Instant) -> Option<u64> {
        let mut troubles = self.troubles();
        let trouble = troubles.entry(zone.into()).or_default();
        trouble.failures += 1;
        if trouble.next_complaint.is_some_and(|next| now < next) {
            return None;
        }
        trouble.next_complaint = Some(now + COMPLAINT_INTERVAL);
        Some(std::mem::take(&mut trouble.failures))
    }

    /// A question has got no answer in time.
    pub(super) fn timed_out(&self, zone: &str, now: Instant) {
        let mut troubles = self.troubles();
        let silence = &mut troubles.entry(zone.into()).or_default().silence;
        if silence.is_none() {
            *silence = Some(Silence { since: now, next_trial: now, is_certain: false });
            self.silent.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether a list is known not to answer, and whether it is time to try it, which one caller is told.
    pub(super) fn is_silent(&self, zone: &str, now: Instant) -> (bool, bool) {
        if self.all_answer() {
            return (false, false);
        }
        let mut troubles = self.troubles();
        let Some(silence) = troubles.get_mut(zone).and_then(|trouble| trouble.silence.as_mut()) else {
            return (false, false);
        };
        let is_due = silence.next_trial <= now;
        if is_due {
            silence.next_trial = now + TRIAL_INTERVAL;
        }
        (true, is_due)
    }

    /// Whether a list is known not to answer. A lookup that nobody will wait for need not be started.
    pub fn is_known_silent(&self, zone: &str) -> bool {
        !self.all_answer() && self.troubles().get(zone).is_some_and(|trouble| trouble.silence.is_some())
    }

    /// The lists that are known not to answer, by their names without the keys of customers.
    pub fn silent_zones(&self) -> Vec<String> {
        if self.all_answer() {
            return Vec::new();
        }
        let is_silent = |outage: &Outage| outage.silence.as_ref().is_some_and(|it| it.is_certain);
        let troubles = self.troubles();
        let silent = troubles.iter().filter(|(_, outage)| is_silent(outage));
        silent.map(|(zone, _)| backends::dns::without_key(zone)).collect()
    }

    /// What is known against a list: its failures since the log last had a line about them, and for how long
    /// it has not answered, if it does not.
    pub fn report(&self, zone: &str, now: Instant) -> (u64, Option<Duration>) {
        let troubles = self.troubles();
        let Some(trouble) = troubles.get(zone) else { return (0, None) };
        let silence = trouble.silence.as_ref();
        (trouble.failures, silence.map(|silence| now.saturating_duration_since(silence.since)))
    }

    fn all_answer(&self) -> bool {
        self.silent.load(Ordering::Acquire) == 0
    }

    /// Notes what a trial has come to. If the list answers again, for how long it did not.
    pub(super) fn trial_ended(&self, zone: &str, is_answer: bool, now: Instant) -> Option<Duration> {
        let mut troubles = self.troubles();
        let trouble = troubles.get_mut(zone)?;
        let silence = trouble.silence.as_mut()?;
        if !is_answer {
            silence.is_certain = true;
            return None;
        }
        let silence = trouble.silence.take()?;
        self.silent.fetch_sub(1, Ordering::Release);
        if silence.is_certain {
            // The next time that it fails is worth a line again, but not what is remembered of this time.
            trouble.next_complaint = Some(now + REMEMBERED);
        }
        silence.is_certain.then(|| now.saturating_duration_since(silence.since))
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

    #[test]
    fn a_silent_list_is_tried_from_time_to_time_until_it_answers() {
        let health = Health::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(health.is_silent("bl.test", start), (false, false));
        assert_eq!(health.failed("bl.test", start), Some(1));
        health.timed_out("bl.test", start);
        let states = [0, 1, 4, 5, 6, 9, 10].map(|seconds| health.is_silent("bl.test", at(seconds)));
        let (due, not_due) = ((true, true), (true, false));
        assert_eq!(states, [due, not_due, not_due, due, not_due, not_due, due]);
        assert!(health.is_known_silent("bl.test") && !health.is_known_silent("other.test"));
        assert_eq!(health.trial_ended("bl.test", false, at(2)), None);
        health.timed_out("bl.test", at(7));
        assert_eq!(health.failed("bl.test", at(8)), None);
        assert_eq!(health.trial_ended("bl.test", true, at(11)), Some(Duration::from_secs(11)));
        assert_eq!(health.is_silent("bl.test", at(11)), (false, false));
        // It is over, so the next time is said again, with what came before; not what is remembered of it.
        assert_eq!(health.failed("bl.test", at(12)), None);
        assert_eq!(health.failed("bl.test", at(27)), Some(3));
    }

    #[test]
    fn one_name_without_an_answer_is_not_worth_a_line() {
        let health = Health::default();
        let start = Instant::now();
        assert_eq!(health.failed("bl.test", start), Some(1));
        health.timed_out("bl.test", start);
        assert_eq!(health.trial_ended("bl.test", true, start), None);
        assert!(!health.is_known_silent("bl.test"));
        assert_eq!(health.failed("bl.test", start), None, "the line stands for an hour");
    }
}
