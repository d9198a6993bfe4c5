//! What is known of one DNS list: what it has answered, and how it did in its tests.
//!
//! Knows: answers, rounds of tests. Must not know: who asks, what is logged.

use super::test_points::Tested;
use crate::metrics::{Cells, Word};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

/// A list is quarantined after this many bad rounds of tests in a row: one alone may be an outage of the
/// network.
const BAD_ROUNDS: u32 = 2;

/// What a list has answered, as it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListAnswer {
    /// The name is on it.
    Listed,
    /// It is not.
    Clear,
    /// An address that is an error code.
    Refused,
    /// Nothing in time.
    Timeout,
    /// Nothing, for another reason.
    Error,
    /// What it answers about everybody.
    Ignored,
}

impl ListAnswer {
    /// All of them.
    pub const ALL: [ListAnswer; 6] = [
        ListAnswer::Listed,
        ListAnswer::Clear,
        ListAnswer::Refused,
        ListAnswer::Timeout,
        ListAnswer::Error,
        ListAnswer::Ignored,
    ];

    /// Its name.
    pub fn word(self) -> Word {
        ["listed", "clear", "refused", "timeout", "error", "ignored"][self as usize]
    }
}

/// How a list is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListState {
    /// Nothing is known against it.
    #[default]
    Well,
    /// It does not answer, and nobody waits for it.
    Silent,
    /// It answers its test points with an error code: it refuses this name server.
    Refused,
    /// It does not list what every list has to.
    ListsNothing,
    /// It lists what no list may.
    ListsEverybody,
    /// It has no test points, or the configuration says not to ask for them.
    NotTestable,
}

impl ListState {
    /// All of them.
    pub const ALL: [ListState; 6] = [
        ListState::Well,
        ListState::Silent,
        ListState::Refused,
        ListState::ListsNothing,
        ListState::ListsEverybody,
        ListState::NotTestable,
    ];

    /// Its name, as JSON has it.
    pub fn word(self) -> Word {
        match self {
            ListState::Well => "well",
            ListState::Silent => "silent",
            ListState::Refused => "refused",
            ListState::ListsNothing => "lists-nothing",
            ListState::ListsEverybody => "lists-everybody",
            ListState::NotTestable => "not-testable",
        }
    }

    /// Whether there is something to do about it.
    pub fn is_bad(self) -> bool {
        !matches!(self, ListState::Well | ListState::NotTestable)
    }
}

impl fmt::Display for ListState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word().replace('-', " "))
    }
}

/// What a round of tests has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// How the list is.
    pub state: ListState,
    /// What it answers about names that no list has for the same reason: whoever gets this answer is on no
    /// list.
    pub everybody: Vec<Ipv4Addr>,
}

impl Round {
    /// What these answers mean. A list that is known to have no test points need not list any.
    pub fn of(tests: &[Tested], needs_test_points: bool) -> Round {
        let everybody = everybody(tests);
        let any = |is_it: &dyn Fn(&Tested) -> bool| tests.iter().any(is_it);
        let state = if !everybody.is_empty() || any(&|test| !test.is_listed && test.has_listing()) {
            ListState::ListsEverybody
        } else if any(&|test| test.is_listed && test.is_silent()) {
            ListState::Silent
        } else if !needs_test_points {
            ListState::NotTestable
        } else if any(&Tested::is_refused) {
            ListState::Refused
        } else if any(&|test| test.is_listed && !test.has_listing()) {
            ListState::ListsNothing
        } else {
            ListState::Well
        };
        Round { state, everybody }
    }
}

/// What all answers about names that no list has have in common. A list of countries or of reputations says
/// something else of each, a list of unused networks has some of these names, and one that lets clients in
/// may have 127.0.0.1; what a dead list says, it says of all.
fn everybody(tests: &[Tested]) -> Vec<Ipv4Addr> {
    let mut probes = tests.iter().filter(|test| test.is_probe).map(Tested::listings);
    let Some(first) = probes.next() else { return Vec::new() };
    probes.fold(first.to_vec(), |mut common, listings| {
        common.retain(|address| listings.contains(address));
        common
    })
}

/// What a round of tests has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The list is quarantined from now on.
    Quarantined(ListState),
    /// It is well again; the number of seconds that it was not.
    Well(u64),
}

/// What is known of a list from its tests.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// How it is.
    pub state: ListState,
    /// Whether it has failed two rounds in a row, and no good one has followed.
    pub is_quarantined: bool,
    /// Since when it is in that state.
    pub since: Option<SystemTime>,
    /// When it was tested last.
    pub tested: Option<SystemTime>,
    /// Since when it is quarantined.
    begun: Option<SystemTime>,
    bad_rounds: u32,
    everybody: Vec<Ipv4Addr>,
}

/// What is known of one list. A reload keeps it.
#[derive(Debug, Default)]
pub struct ListRecord {
    answers: Cells<{ ListAnswer::ALL.len() }>,
    /// Whether some of its answers do not count, so that nobody else has to look.
    ignores_some: AtomicBool,
    condition: Mutex<Condition>,
}

impl ListRecord {
    fn lock(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an answer.
    pub fn count(&self, answer: ListAnswer) {
        self.answers.add(answer as usize, 1);
    }

    /// How often it has answered that.
    pub fn answers(&self, answer: ListAnswer) -> u64 {
        self.answers.get(answer as usize)
    }

    /// What is known from its tests.
    pub fn condition(&self) -> Condition {
        self.lock().clone()
    }

    /// Leaves of the answers about a name those that the list does not give about everybody.
    pub fn retain_evidence(&self, listings: &mut Vec<Ipv4Addr>) {
        if self.ignores_some() {
            let condition = self.lock();
            listings.retain(|address| !condition.everybody.contains(address));
        }
    }

    /// Whether there are answers that the list gives about everybody.
    pub fn ignores_some(&self) -> bool {
        self.ignores_some.load(Ordering::Relaxed)
    }

    /// Notes a round of tests.
    pub fn note(&self, round: Round, now: SystemTime) -> Option<Change> {
        let mut condition = self.lock();
        condition.tested = Some(now);
        if round.state != condition.state || condition.since.is_none() {
            condition.since = Some(now);
        }
        condition.state = round.state;
        if round.state.is_bad() {
            condition.bad_rounds = condition.bad_rounds.saturating_add(1);
            if condition.bad_rounds >= BAD_ROUNDS {
                // Silence proves nothing about what was found before.
                if round.state != ListState::Silent {
                    condition.everybody = round.everybody;
                }
                self.ignores_some.store(!condition.everybody.is_empty(), Ordering::Relaxed);
                let is_new = !std::mem::replace(&mut condition.is_quarantined, true);
                condition.begun = if is_new { Some(now) } else { condition.begun };
                return is_new.then_some(Change::Quarantined(round.state));
            }
            return None;
        }
        condition.bad_rounds = 0;
        condition.everybody = Vec::new();
        self.ignores_some.store(false, Ordering::Relaxed);
        let begun = condition.begun.take();
        let seconds = begun.and_then(|begun| now.duration_since(begun).ok()).unwrap_or_default().as_secs();
        std::mem::take(&mut condition.is_quarantined).then_some(Change::Well(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_points::TestAnswer;
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn test(is_listed: bool, is_probe: bool, answer: TestAnswer) -> Tested {
        Tested { label: "x".to_owned(), is_listed, is_probe, answer, took: Duration::ZERO }
    }

    fn listed(last: u8) -> TestAnswer {
        TestAnswer::Listed(vec![Ipv4Addr::new(127, 0, 0, last)])
    }

    fn refused() -> TestAnswer {
        TestAnswer::Refused("127.255.255.254".to_owned())
    }

    fn silence() -> TestAnswer {
        TestAnswer::NoAnswer("no answer in time".to_owned())
    }

    /// The round of a list with these answers about 127.0.0.2, 127.0.0.1 and two other names.
    fn round(point: TestAnswer, others: [TestAnswer; 3]) -> Round {
        let others = others.into_iter().map(|answer| test(false, true, answer));
        let tests: Vec<_> = std::iter::once(test(true, false, point)).chain(others).collect();
        Round::of(&tests, true)
    }

    const CLEAR: [TestAnswer; 3] = [TestAnswer::NotListed, TestAnswer::NotListed, TestAnswer::NotListed];

    #[test]
    fn answers_to_the_test_points_tell_the_state() {
        assert_eq!(round(listed(2), CLEAR).state, ListState::Well);
        assert_eq!(round(TestAnswer::NotListed, CLEAR).state, ListState::ListsNothing);
        assert_eq!(round(refused(), [refused(), refused(), refused()]).state, ListState::Refused);
        assert_eq!(round(silence(), [silence(), silence(), silence()]).state, ListState::Silent);
        let dead = round(listed(2), [listed(2), listed(2), listed(2)]);
        assert_eq!((dead.state, dead.everybody.len()), (ListState::ListsEverybody, 1));
        let untested = Round::of(&[test(true, false, TestAnswer::NotListed)], false);
        assert_eq!(untested.state, ListState::NotTestable);
    }

    #[test]
    fn only_what_is_said_of_all_is_said_of_everybody() {
        // Of countries, of reputations; of unused networks; one that lets the own machine in.
        for others in [
            [listed(4), listed(5), listed(6)],
            [listed(2), listed(2), TestAnswer::NotListed],
            [listed(2), TestAnswer::NotListed, TestAnswer::NotListed],
        ] {
            let round = round(listed(2), others);
            assert_eq!((round.state, round.everybody.len()), (ListState::ListsEverybody, 0));
        }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn two_bad_rounds_quarantine_a_list_and_one_good_round_ends_it() {
        let record = ListRecord::default();
        let dead = || round(listed(2), [listed(2), listed(2), listed(2)]);
        let counts = |record: &ListRecord, last| {
            let mut listings = vec![Ipv4Addr::new(127, 0, 0, last)];
            record.retain_evidence(&mut listings);
            !listings.is_empty()
        };
        assert_eq!(record.note(dead(), at(0)), None);
        assert!(counts(&record, 2), "once is not enough");
        assert_eq!(record.note(dead(), at(10)), Some(Change::Quarantined(ListState::ListsEverybody)));
        assert!(!counts(&record, 2) && counts(&record, 3), "another answer is not said of everybody");
        assert_eq!(record.note(dead(), at(20)), None);
        let silent = || round(silence(), [silence(), silence(), silence()]);
        assert_eq!(record.note(silent(), at(30)), None);
        assert!(!counts(&record, 2), "silence proves nothing");
        assert_eq!(record.note(round(listed(2), CLEAR), at(70)), Some(Change::Well(60)));
        assert!(counts(&record, 2));
        assert_eq!(record.note(silent(), at(80)), None);
        assert_eq!(record.note(round(listed(2), CLEAR), at(90)), None, "one bad round is not worth a line");
    }

    #[test]
    fn what_lists_nothing_or_refuses_keeps_its_other_answers() {
        let record = ListRecord::default();
        let nothing = || round(TestAnswer::NotListed, CLEAR);
        record.note(nothing(), at(0));
        assert_eq!(record.note(nothing(), at(1)), Some(Change::Quarantined(ListState::ListsNothing)));
        let mut listings = vec![Ipv4Addr::new(127, 0, 0, 2)];
        record.retain_evidence(&mut listings);
        assert_eq!(listings.len(), 1, "a private list may have no test points");
        assert!(record.condition().is_quarantined);
    }
}
