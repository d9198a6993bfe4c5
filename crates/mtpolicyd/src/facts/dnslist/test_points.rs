//! The entries that every list has and must not have, which show whether it works (RFC 5782 section 5).
//!
//! Knows: the names of the test points. Must not know: who tests, what follows.

use super::record::{Change, ListState, Round};
use super::{DnsList, Health, ListKind, meaning, push_reversed_nibbles, push_reversed_octets};
use crate::log::messages::lookups;
use backends::dns::{Answer, Dns, Question};
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinSet;

/// A name of which it is known whether it is on the list.
#[derive(Clone, Debug)]
pub struct TestPoint {
    /// The name without the zone.
    pub label: String,
    /// Whether it is on the list.
    pub is_listed: bool,
    /// Whether it is one of the names that no list has, all of them together.
    pub is_probe: bool,
    /// The question about it.
    pub question: Question,
}

/// The first name server of the root: an address that no list of bad clients, of good clients or of unused
/// networks has a reason to list.
const ROOT_SERVER: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);

/// A test point and what the list says about it.
#[derive(Clone, Debug)]
pub struct Tested {
    /// The name without the zone.
    pub label: String,
    /// Whether it has to be listed.
    pub is_listed: bool,
    /// Whether it is one of the names that no list has, all of them together.
    pub is_probe: bool,
    /// What came.
    pub answer: TestAnswer,
    /// How long that took.
    pub took: Duration,
}

impl Tested {
    /// The listings in the answer.
    pub fn listings(&self) -> &[Ipv4Addr] {
        match &self.answer {
            TestAnswer::Listed(listings) => listings,
            _ => &[],
        }
    }

    /// Whether it is listed.
    pub fn has_listing(&self) -> bool {
        !self.listings().is_empty()
    }

    /// Whether the answer is an error code.
    pub fn is_refused(&self) -> bool {
        matches!(self.answer, TestAnswer::Refused(_))
    }

    /// Whether there was none.
    pub fn is_silent(&self) -> bool {
        matches!(self.answer, TestAnswer::NoAnswer(_))
    }

    /// Whether the answer is the right one.
    pub fn is_right(&self) -> bool {
        if self.is_listed { self.has_listing() } else { self.answer == TestAnswer::NotListed }
    }
}

/// What a list says about a test point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestAnswer {
    /// It is on the list; what was answered.
    Listed(Vec<Ipv4Addr>),
    /// It is not.
    NotListed,
    /// An address that is not a listing, with what it means.
    Refused(String),
    /// None in time, or the name service failed.
    NoAnswer(String),
}

impl Display for TestAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TestAnswer::Listed(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(Ipv4Addr::to_string).collect();
                write!(f, "listed ({})", addresses.join(", "))
            }
            TestAnswer::NotListed => f.write_str("not listed"),
            TestAnswer::Refused(why) | TestAnswer::NoAnswer(why) => f.write_str(why),
        }
    }
}

impl DnsList {
    /// What to ask to see whether the list works.
    pub fn test_points(&self) -> Vec<TestPoint> {
        let point = |label: String, is_listed| {
            let question = self.question(label.clone());
            TestPoint { label, is_listed, is_probe: false, question }
        };
        match self.kind {
            ListKind::Domain => vec![point("test".to_owned(), true), point("invalid".to_owned(), false)],
            ListKind::Address => {
                let ipv4 = [(2, true), (1, false)].map(|(last, is_listed)| {
                    let mut name = String::new();
                    push_reversed_octets(&mut name, Ipv4Addr::new(127, 0, 0, last));
                    point(name, is_listed)
                });
                let ipv6 = [(2, true), (1, false)].map(|(last, is_listed)| {
                    let mut name = String::new();
                    let address = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0x7f00, last);
                    push_reversed_nibbles(&mut name, address);
                    point(name, is_listed)
                });
                ipv4.into_iter().chain(ipv6.into_iter().filter(|_| self.ipv6)).collect()
            }
        }
    }

    /// More names that no list has: a list that says of all of them what it says of the points that must not
    /// be listed says it of everybody. No cache has the answers.
    pub fn probes(&self) -> Vec<TestPoint> {
        let number = RandomState::new().hash_one(Instant::now());
        let labels = match self.kind {
            ListKind::Domain => [format!("t{number:x}.invalid"), format!("t{number:x}.example.com")],
            ListKind::Address => {
                let [a, b, c, d, ..] = number.to_be_bytes();
                // Networks that are not in use (RFC 1112 section 4).
                [Ipv4Addr::new(240 | a & 7, b, c, d), ROOT_SERVER].map(|address| {
                    let mut name = String::new();
                    push_reversed_octets(&mut name, address);
                    name
                })
            }
        };
        let probe = |label: String| {
            let question = self.question(label.clone());
            TestPoint { label, is_listed: false, is_probe: true, question }
        };
        labels.into_iter().map(probe).collect()
    }

    /// Asks about all test points and other names at once, and what came of each in that order.
    pub async fn test(&self, dns: &Arc<Dns>, limit: Duration) -> Vec<Tested> {
        let points = self.test_points().into_iter().chain(self.probes());
        // 127.0.0.1 or INVALID is a probe too.
        let first_probe = points.clone().position(|point| !point.is_listed);
        let mut asked = JoinSet::new();
        for (place, point) in points.enumerate() {
            let (list, dns, is_first) = (self.clone(), dns.clone(), Some(place) == first_probe);
            let limit = limit.min(self.time_limit);
            asked.spawn(async move {
                let begun = Instant::now();
                let answer = tokio::time::timeout(limit, dns.lookup(&point.question)).await.ok();
                let TestPoint { label, is_listed, is_probe, .. } = point;
                let (answer, is_probe) = (list.judge_test(answer.as_ref()), is_probe || is_first);
                (place, Tested { label, is_listed, is_probe, answer, took: begun.elapsed() })
            });
        }
        let mut tested = asked.join_all().await;
        tested.sort_by_key(|(place, _)| *place);
        tested.into_iter().map(|(_, tested)| tested).collect()
    }

    /// What a round of tests has come to.
    pub fn round(&self, tests: &[Tested]) -> Round {
        // Those that let clients in have answers of their own for whoever may not ask, and hardly any has
        // test points.
        Round::of(tests, self.allow_list().is_none())
    }

    /// Notes what a round of tests has come to; the log says what that changes.
    pub fn note_round(&self, tests: &[Tested], health: &Health) -> ListState {
        let round = self.round(tests);
        let state = round.state;
        match health.record(&self.zone).note(round, SystemTime::now()) {
            Some(Change::Quarantined(state)) => lookups::list_quarantined(self.label(), state, advice(state)),
            Some(Change::Well(seconds)) => lookups::list_well(self.label(), seconds),
            None => {}
        }
        state
    }

    /// What an answer about a test point means. Return codes don't matter: the test point of a list that is
    /// made of several may be on another one.
    pub fn judge_test(&self, answer: Option<&Answer>) -> TestAnswer {
        match answer {
            None => TestAnswer::NoAnswer("no answer in time".to_owned()),
            Some(Answer::Failed(failure)) => TestAnswer::NoAnswer(failure.to_string()),
            Some(Answer::Addresses(addresses)) => {
                let listings: Vec<_> =
                    addresses.iter().copied().filter(|address| self.is_listing(*address)).collect();
                match addresses.first() {
                    Some(code) if listings.is_empty() => {
                        TestAnswer::Refused(format!("{code}, {}", meaning(*code)))
                    }
                    None => TestAnswer::NotListed,
                    Some(_) => TestAnswer::Listed(listings),
                }
            }
            Some(_) => TestAnswer::NotListed,
        }
    }
}

/// What a state means for messages, and what to do.
fn advice(state: ListState) -> &'static str {
    match state {
        ListState::ListsEverybody => "what it says of everybody no longer counts",
        ListState::ListsNothing => {
            "it may be dead; use `test = off` if it is a private one without test points"
        }
        ListState::Refused => "it lists nobody for this name server; use one of your own, or get an account",
        ListState::Silent => "nobody waits for it",
        ListState::Well | ListState::NotTestable => "nothing to do",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_points_are_those_of_the_rfc() {
        let list = DnsList::new("bl.test", ListKind::Address, None, true);
        let names: Vec<_> =
            list.test_points().iter().map(|p| (p.question.name.to_string(), p.is_listed)).collect();
        let nibbles = |last| format!("{last}.0.0.0.0.0.f.7.f.f.f.f{}.bl.test", ".0".repeat(20));
        let expected = [
            ("2.0.0.127.bl.test".to_owned(), true),
            ("1.0.0.127.bl.test".to_owned(), false),
            (nibbles(2), true),
            (nibbles(1), false),
        ];
        assert_eq!(names, expected);
        let domains = DnsList::new("dbl.test", ListKind::Domain, None, false).test_points();
        assert_eq!(&*domains[0].question.name, "test.dbl.test");
        assert_eq!(&*domains[1].question.name, "invalid.dbl.test");
    }

    #[test]
    fn an_answer_is_judged_without_return_codes() {
        let codes = "127.0.0.10-11".parse().unwrap();
        let list = DnsList::new("bl.test", ListKind::Address, Some(codes), false);
        let judge = |text: &str| {
            let address = text.parse::<Ipv4Addr>().unwrap();
            list.judge_test(Some(&Answer::Addresses([address].into_iter().collect())))
        };
        assert_eq!(judge("127.0.0.2"), TestAnswer::Listed(vec![Ipv4Addr::new(127, 0, 0, 2)]));
        assert!(matches!(judge("127.255.255.254"), TestAnswer::Refused(_)));
        assert!(matches!(judge("203.0.113.7"), TestAnswer::Refused(_)));
        assert!(matches!(list.judge_test(None), TestAnswer::NoAnswer(_)));
    }
}
