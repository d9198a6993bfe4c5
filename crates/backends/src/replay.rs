//! A world of recorded answers: what a request was told then is told again, and nobody is asked.
//!
//! What was looked up is answered from the notes of the decision. What a store, a counter or a limit holds is
//! answered from them too, as long as nothing has changed it that was not so then, or left a change out; from
//! there on it is simulated in memory.
//!
//! Knows: notes of lookups. Must not know: plugins, decisions, any protocol.

mod quoted;

pub(crate) use quoted::{MAX_SHOWN_BYTES, Part, is_plain, parts, push_part, push_quoted};

use crate::dns::Answer;

use crate::{BackendError, Failure};
use lookups::{LookupKind, Lookups, MAX_TEXT_BYTES};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What an answer that failed begins with in a note.
pub(crate) const FAILED: &str = "failed: ";
/// The same where it is the value of the request that was refused.
pub(crate) const REFUSED_VALUE: &str = "refused the value: ";
/// What stands between the key and the rest of a question to a store.
pub const DETAIL: &str = " | ";
/// Questions that change nothing. All others do.
const READING: [&str; 4] = ["get", "held", "read", "used"];
/// Answers of services that are kept for requests which were answered from a cache.
const MAX_KEPT: usize = 100_000;
/// The same in a process that does not end, where all of them are dropped then.
const MAX_KEPT_ENDLESS: usize = 10_000;
/// Keys of stores that are seen in a process that does not end, until what is simulated begins anew: that
/// bounds it.
const MAX_SEEN: usize = 200_000;
/// Their bytes.
const MAX_SEEN_BYTES: usize = 16 << 20;

/// How far the result of a replayed decision can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Degree {
    /// Every question was asked then, or its answer follows from what was recorded.
    #[default]
    Exact,
    /// Something was counted or kept otherwise than then, and was simulated.
    Simulated,
    /// Something was asked that nobody asked then.
    Unknown,
}

/// What was found out about one replayed decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// How far it can be trusted.
    pub degree: Degree,
    /// What nobody asked then, each once: `bl.example.com`.
    pub unknown: BTreeSet<String>,
    /// What was simulated, by the kind of question: `get`.
    pub simulated: BTreeSet<String>,
}

/// Answers questions with what was recorded. One after the other, decisions are replayed with it; those that
/// are replayed at the same time have one each ([`Replay::beside`]).
#[derive(Default)]
pub struct Replay {
    state: Mutex<State>,
    /// Milliseconds since the epoch.
    begun: AtomicI64,
    /// Milliseconds since then.
    passed: AtomicI64,
    /// What one decision leaves to the next.
    left: Arc<Mutex<Left>>,
    /// It goes on for as long as a daemon does, so that what is left is bounded, and what the name service
    /// said is asked again.
    is_endless: bool,
}

#[derive(Default)]
struct State {
    recorded: Lookups,
    /// Which of them have been told.
    told: Vec<bool>,
    trust: Trust,
    turns: Vec<i64>,
}

#[derive(Default)]
struct Left {
    /// Keys that do not hold what they held then.
    changed: HashSet<Box<str>>,
    /// Hashes of all keys that were asked about, and their bytes.
    seen: HashSet<u64>,
    seen_bytes: usize,
    /// What the name service was asked now, by the question.
    asked: HashMap<String, Answer>,
    /// The last answers of services, by what was asked.
    kept: HashMap<(Box<str>, Vec<u8>), String>,
}

impl Left {
    fn see(&mut self, key: &str) {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        if self.seen.insert(hasher.finish()) {
            self.seen_bytes += key.len();
        }
    }
}

/// A question to a store: `add KEY | VALUE for 60`.
struct StoreQuestion<'a> {
    verb: &'a str,
    key: &'a str,
    detail: &'a str,
}

impl<'a> StoreQuestion<'a> {
    fn read(text: &'a str) -> StoreQuestion<'a> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (key, detail) = rest.rsplit_once(DETAIL).unwrap_or((rest, ""));
        StoreQuestion { verb, key, detail }
    }

    fn is_reading(&self) -> bool {
        READING.contains(&self.verb)
    }
}

impl Replay {
    /// One for a process that does not end.
    pub fn endless() -> Replay {
        Replay { is_endless: true, ..Replay::default() }
    }

    /// One for another decision at the same time: what was changed by one of them is changed for both.
    #[must_use]
    pub fn beside(&self) -> Replay {
        Replay { left: self.left.clone(), is_endless: self.is_endless, ..Replay::default() }
    }

    /// Whether the maximum number of keys of stores was seen, so that what is simulated has to begin anew.
    pub fn is_full(&self) -> bool {
        let left = self.left();
        left.seen.len() >= MAX_SEEN || left.seen_bytes >= MAX_SEEN_BYTES
    }

    /// Forgets what earlier decisions have left: what was recorded holds for all keys again.
    pub fn begin_anew(&self) {
        *self.left() = Left::default();
    }

    /// A decision is about to be replayed, which looked up this then, at this time in milliseconds since the
    /// epoch.
    pub fn begin(&self, lookups: Lookups, at: i64) {
        self.begin_with(lookups, at, Vec::new());
    }

    /// The same, with the time that had passed when it was the turn of each step, in milliseconds.
    pub fn begin_with(&self, lookups: Lookups, at: i64, turns: Vec<i64>) {
        self.begun.store(at, Ordering::Relaxed);
        self.passed.store(0, Ordering::Relaxed);
        let mut state = self.state();
        state.told.clear();
        state.told.resize(lookups.len(), false);
        state.recorded = lookups;
        (state.trust, state.turns) = (Trust::default(), turns);
    }

    /// It is the turn of the step with this number.
    pub fn turn_of(&self, step: u16) {
        if let Some(passed) = self.state().turns.get(usize::from(step)) {
            self.passed.store(*passed, Ordering::Relaxed);
        }
    }

    /// The decision has been replayed: how far it can be trusted. What was changed then and now was not is no
    /// longer what was recorded.
    pub fn end(&self) -> Trust {
        let mut state = self.state();
        let State { recorded, told, .. } = &mut *state;
        for (lookup, _) in recorded.iter().zip(told).filter(|(_, is_told)| !**is_told) {
            let question = StoreQuestion::read(lookup.question);
            if lookup.kind == LookupKind::Store && !question.is_reading() {
                self.left().changed.insert(question.key.into());
            }
        }
        std::mem::take(&mut state.trust)
    }

    /// Something is not known: what, as a person would call it.
    pub fn miss(&self, what: impl Into<String>) {
        let mut state = self.state();
        state.trust.degree = Degree::Unknown;
        state.trust.unknown.insert(what.into());
    }

    /// Something is not as it was, for a reason beside the lookups.
    pub fn simulated(&self, what: &str) {
        self.state().trust.simulate(what);
    }

    /// The recorded answer to a question. If it was asked more often than then, the last one holds.
    pub fn answer(&self, kind: LookupKind, server: &str, question: &str) -> Option<String> {
        let mut state = self.state();
        let State { recorded, told, .. } = &mut *state;
        let asked = cut(question);
        let mut found = None;
        for (lookup, is_told) in recorded.iter().zip(told) {
            if lookup.kind == kind && lookup.question == asked && lookup.server == server {
                let is_next = !std::mem::replace(is_told, true);
                found = Some(lookup.answer);
                if is_next {
                    break;
                }
            }
        }
        // One that was cut can't be read.
        found.filter(|answer| answer.len() + 4 <= MAX_TEXT_BYTES).map(str::to_owned)
    }

    /// The same, where the answers are kept for a time by those who ask: one of an earlier request holds,
    /// if there is none now.
    pub fn kept_answer(
        &self,
        kind: LookupKind,
        server: &str,
        question: &str,
        asked: &[u8],
    ) -> Option<String> {
        let key = (Box::from(server), asked.to_vec());
        match self.answer(kind, server, question) {
            Some(answer) => {
                let mut left = self.left();
                if self.is_endless && left.kept.len() >= MAX_KEPT_ENDLESS {
                    left.kept.clear();
                }
                if left.kept.len() < MAX_KEPT {
                    left.kept.insert(key, answer.clone());
                }
                Some(answer)
            }
            None => self.left().kept.get(&key).cloned(),
        }
    }

    /// The recorded answer to a question to a store, a counter or a limit. `None` if it was not asked then,
    /// or if what is kept is no longer what it was: then it is simulated.
    pub fn stored(&self, question: &str) -> Option<String> {
        let mut state = self.state();
        let question = cut(question);
        let asked = StoreQuestion::read(question);
        let is_reading = asked.is_reading();
        let State { recorded, told, .. } = &mut *state;
        let mut answer = None;
        for (lookup, is_told) in recorded.iter().zip(told) {
            if *is_told || lookup.kind != LookupKind::Store {
                continue;
            }
            let then = StoreQuestion::read(lookup.question);
            let is_same = then.verb == asked.verb && then.key == asked.key;
            if is_same && (!is_reading || then.detail == asked.detail) {
                *is_told = true;
                answer = is_alike(then.detail, asked.detail).then(|| lookup.answer.to_owned());
                break;
            }
        }
        let mut left = self.left();
        if self.is_endless {
            left.see(asked.key);
        }
        let is_known = answer.is_some() && !left.changed.contains(asked.key);
        if is_known {
            return answer;
        }
        if !is_reading {
            left.changed.insert(asked.key.into());
        }
        drop(left);
        state.trust.simulate(asked.verb);
        None
    }

    /// What the name service has answered in an earlier replay.
    pub(crate) fn asked(&self, question: &str) -> Option<Answer> {
        self.left().asked.get(question).cloned()
    }

    /// Notes what the name service has answered.
    pub(crate) fn note_asked(&self, question: String, answer: Answer) {
        if !self.is_endless {
            self.left().asked.insert(question, answer);
        }
    }

    /// What time it was, in milliseconds since the epoch.
    pub fn now(&self) -> i64 {
        self.begun.load(Ordering::Relaxed) + self.passed.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Always locked after the state.
    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl Trust {
    fn simulate(&mut self, what: &str) {
        self.degree = self.degree.max(Degree::Simulated);
        if !self.simulated.contains(what) {
            self.simulated.insert(what.to_owned());
        }
    }
}

/// A question as a notebook keeps it.
fn cut(question: &str) -> &str {
    &question[..question.floor_char_boundary(MAX_TEXT_BYTES.min(question.len()))]
}

/// Whether two details say the same. Times are whole seconds, which another clock may see one later.
fn is_alike(then: &str, now: &str) -> bool {
    let number = |text: &str| text.parse::<i64>().ok();
    then == now
        || then.split(' ').count() == now.split(' ').count()
            && then.split(' ').zip(now.split(' ')).all(|(then, now)| {
                then == now
                    || number(then).zip(number(now)).is_some_and(|(a, b)| a > 1 << 30 && a.abs_diff(b) <= 1)
            })
}

/// The failure that a recorded answer is, if it is one.
pub fn failure(connection: &str, answer: &str) -> Option<BackendError> {
    let of = |failure| BackendError { connection: Arc::from(connection), failure };
    let strip = |text: &str| {
        let named = text.strip_prefix("connection ").and_then(|rest| rest.strip_prefix(connection));
        named.and_then(|rest| rest.strip_prefix(": ")).unwrap_or(text).to_owned()
    };
    if let Some(text) = answer.strip_prefix(REFUSED_VALUE) {
        return Some(of(Failure::BadValue(strip(text))));
    }
    let text = strip(answer.strip_prefix(FAILED)?);
    Some(of(match text.strip_prefix("down: ") {
        Some(why) => Failure::Down(why.into()),
        None if text == Failure::TimedOut.to_string() => Failure::TimedOut,
        None => Failure::Refused(text),
    }))
}

/// A server that can't be asked in a replay, where nobody asked it then.
pub(crate) fn not_asked(connection: &str) -> BackendError {
    let what = format!("ask {connection}, which nobody asked then");
    BackendError { connection: connection.into(), failure: Failure::NotDone(what) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lookups::{Lookup, Origin};

    fn lookups(kind: LookupKind, all: &[(&str, &str)]) -> Lookups {
        let mut lookups = Lookups::default();
        for (question, answer) in all {
            let (server, waited, origin) = ("", 0, Origin::Asked);
            lookups.push(Lookup { kind, server, question, answer, waited, origin });
        }
        lookups
    }

    fn replay(all: &[(&str, &str)]) -> Replay {
        let replay = Replay::default();
        begin(&replay, all);
        replay
    }

    fn begin(replay: &Replay, all: &[(&str, &str)]) {
        replay.begin(lookups(LookupKind::Store, all), 0);
    }

    #[test]
    fn questions_are_answered_in_their_order() {
        let replay = Replay::default();
        let kind = LookupKind::Dns;
        replay.begin(lookups(kind, &[("A a.test", "1"), ("A a.test", "2")]), 0);
        let ask = || replay.answer(kind, "", "A a.test");
        assert_eq!([ask(), ask(), ask()].map(Option::unwrap), ["1", "2", "2"]);
        assert_eq!(replay.answer(kind, "", "A b.test"), None);
        assert_eq!(replay.end(), Trust::default());
    }

    #[test]
    fn a_key_that_was_changed_otherwise_is_simulated_from_then_on() {
        let replay = replay(&[("get a", "nothing"), ("add a | 1900000300 for 60", "yes")]);
        assert_eq!(replay.stored("get a").as_deref(), Some("nothing"));
        // A second more or less is the same.
        assert_eq!(replay.stored("add a | 1900000301 for 60").as_deref(), Some("yes"));
        assert_eq!(replay.end().degree, Degree::Exact);
        begin(&replay, &[("get a", "value 1"), ("add b | 1900000300 for 60", "yes")]);
        assert_eq!(replay.stored("get a").as_deref(), Some("value 1"));
        assert_eq!(replay.stored("add b | 1900000600 for 60"), None);
        assert_eq!(replay.end().degree, Degree::Simulated);
        begin(&replay, &[("get b", "value 1900000300"), ("delete a", "yes")]);
        assert_eq!(replay.stored("get b"), None);
        // What was removed then and is not now differs too.
        replay.end();
        begin(&replay, &[("get a", "nothing")]);
        assert_eq!(replay.stored("get a"), None);
    }

    #[test]
    fn other_limits_are_other_questions_and_nothing_changes() {
        let replay = replay(&[("used t a 2026 | count < 9", "below"), ("count t a 2026 | 1", "done")]);
        assert_eq!(replay.stored("used t a 2026 | count < 5"), None);
        assert_eq!(replay.stored("count t a 2026 | 1").as_deref(), Some("done"));
        assert_eq!(replay.end().degree, Degree::Simulated);
        begin(&replay, &[("used t a 2026 | count < 9", "below")]);
        assert_eq!(replay.stored("used t a 2026 | count < 9").as_deref(), Some("below"));
    }

    #[test]
    fn failures_are_read_back() {
        for failure in [
            Failure::Down("no route".into()),
            Failure::TimedOut,
            Failure::Refused("no".into()),
            Failure::BadValue("odd".into()),
        ] {
            let error = BackendError { connection: "db".into(), failure };
            let begin = if matches!(error.failure, Failure::BadValue(_)) { REFUSED_VALUE } else { FAILED };
            let read = super::failure("db", &format!("{begin}{error}")).unwrap();
            assert_eq!(read.failure, error.failure);
        }
        assert!(super::failure("db", "rows: 1").is_none());
    }

    #[test]
    fn what_differs_is_shared_and_bounded() {
        let (one, other) = (Replay::endless(), Replay::default());
        let beside = one.beside();
        let recorded = |replay: &Replay| begin(replay, &[("get a", "value 1"), ("add a | 1 for 60", "yes")]);
        [&one, &beside, &other].into_iter().for_each(recorded);
        assert_eq!(one.stored("add a | 9 for 60"), None);
        assert_eq!((beside.stored("get a"), other.stored("get a").is_some()), (None, true));
        for key in 1..MAX_SEEN {
            assert!(!one.is_full());
            one.stored(&format!("set {key} | 1 for 60"));
        }
        assert!(one.is_full() && beside.is_full());
        beside.begin_anew();
        assert!(!one.is_full());
        recorded(&one);
        assert_eq!(one.stored("get a").as_deref(), Some("value 1"));
    }

    #[test]
    fn an_answer_that_was_cut_is_not_known() {
        let replay = Replay::default();
        let long = "x".repeat(MAX_TEXT_BYTES);
        replay.begin(lookups(LookupKind::Map, &[("a", &long)]), 0);
        assert_eq!(replay.answer(LookupKind::Map, "", "a"), None);
    }
}
