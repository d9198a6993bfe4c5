//! What has been told, so that each thing is told once when it begins and once when it ends.
//!
//! Knows: kinds, names, time. Must not know: where the state of a thing comes from.

use crate::events::{Event, EventKind, EventState, Events};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// More requests than this in a minute have to be late. It is over when there are half as many.
const LATE_REQUESTS: u64 = 10;
const MINUTE: Duration = Duration::from_mins(1);

/// How long a file has to be newer than what is in use: whoever edits it reloads soon.
pub const UNUSED_FOR: Duration = Duration::from_mins(10);

type Id = (usize, String);

/// What has been told.
#[derive(Default)]
pub struct Edges {
    told: BTreeSet<Id>,
    /// What was looked at in this round.
    seen: BTreeSet<Id>,
    /// How servers were when they were asked last, by their names: whether each was down.
    last: BTreeMap<String, bool>,
}

impl Edges {
    /// Everything is looked at anew.
    pub fn begin_round(&mut self) {
        self.seen.clear();
    }

    /// A thing is like this now: what there is to say and to do about it, or nothing if all is well.
    pub fn see(
        &mut self,
        kind: EventKind,
        name: &str,
        state: Option<(String, String)>,
        well: &str,
        events: &Events,
    ) {
        let id = (kind as usize, name.to_owned());
        match state {
            Some((text, advice)) if !self.told.contains(&id) => {
                events.raise(Event { advice, ..events.event(kind, EventState::Begins, name, text) });
                self.told.insert(id.clone());
            }
            None if self.told.remove(&id) => {
                events.raise(events.event(kind, EventState::Ends, name, well.to_owned()));
            }
            _ => {}
        }
        self.seen.insert(id);
    }

    /// What was not looked at is not there any more.
    pub fn end_round(&mut self, kind: EventKind) {
        let (seen, kind) = (&self.seen, kind as usize);
        self.told.retain(|id| id.0 != kind || seen.contains(id));
    }

    /// Whether it has been told that this has begun.
    pub fn is_told(&self, kind: EventKind, name: &str) -> bool {
        self.told.contains(&(kind as usize, name.to_owned()))
    }

    /// Whether a server is as it was when it was asked before. That goes for the first time as well if it
    /// answers.
    pub fn is_confirmed(&mut self, name: &str, is_down: bool) -> bool {
        // One that is not told of yet is looked at again, but stays where it is.
        self.seen.insert((EventKind::BackendDown as usize, name.to_owned()));
        let before = self.last.insert(name.to_owned(), is_down);
        before.unwrap_or(false) == is_down
    }
}

/// Requests that took longer than they may.
#[derive(Default)]
pub struct LateRequests {
    /// How many there had been when.
    known: VecDeque<(Instant, u64)>,
    is_many: bool,
}

impl LateRequests {
    /// How many there were within a minute, if that is too many; `so_far` is their number.
    pub fn in_the_last_minute(&mut self, so_far: u64, now: Instant) -> Option<u64> {
        while self.known.len() > 1 && self.known[1].0 + MINUTE <= now {
            self.known.pop_front();
        }
        self.known.push_back((now, so_far));
        let before = self.known.front().map_or(so_far, |(_, before)| *before);
        let count = so_far.saturating_sub(before);
        self.is_many = if self.is_many { count > LATE_REQUESTS / 2 } else { count > LATE_REQUESTS };
        self.is_many.then_some(count)
    }
}

/// Decisions that got lost.
#[derive(Default)]
pub struct Losses {
    known: u64,
    last: Option<Instant>,
}

impl Losses {
    /// Whether some got lost within a minute; `so_far` is their number.
    pub fn are_fresh(&mut self, so_far: u64, now: Instant) -> bool {
        if so_far > self.known {
            self.last = Some(now);
        }
        self.known = so_far;
        self.last.is_some_and(|last| now.saturating_duration_since(last) < MINUTE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &Events) -> Vec<String> {
        events.take_all().into_iter().map(|event| format!("{} {}", event.state, event.text)).collect()
    }

    #[test]
    fn a_thing_is_told_once_when_it_begins_and_once_when_it_ends() {
        let (events, mut edges) = (Events::default(), Edges::default());
        let bad = |why: &str| Some((why.to_owned(), String::new()));
        for (state, expected) in [
            (None, &[][..]),
            (bad("bad"), &["begins bad"][..]),
            (bad("worse"), &[][..]),
            (None, &["ends well"][..]),
            (None, &[][..]),
            (bad("again"), &["begins again"][..]),
        ] {
            edges.begin_round();
            edges.see(EventKind::ListQuarantined, "zen", state, "well", &events);
            edges.end_round(EventKind::ListQuarantined);
            assert_eq!(told(&events), expected);
        }
        // A list that is not asked any more is not told of, and later it is a new one.
        edges.begin_round();
        edges.end_round(EventKind::ListQuarantined);
        assert!(!edges.is_told(EventKind::ListQuarantined, "zen") && told(&events).is_empty());
    }

    #[test]
    fn a_server_has_to_be_down_twice() {
        let mut edges = Edges::default();
        let sure = [false, true, false, true, true, false, false].map(|down| edges.is_confirmed("db", down));
        assert_eq!(sure, [true, false, false, false, true, false, true]);
    }

    #[test]
    fn many_late_requests_are_over_when_there_are_half_as_many() {
        let (mut late, start) = (LateRequests::default(), Instant::now());
        let mut seen = Vec::new();
        for (seconds, so_far) in [(0, 5), (2, 15), (4, 16), (30, 16), (61, 16), (66, 22), (90, 22), (127, 22)]
        {
            seen.push(late.in_the_last_minute(so_far, start + Duration::from_secs(seconds)));
        }
        assert_eq!(seen, [None, None, Some(11), Some(11), Some(11), Some(6), Some(6), None]);
    }

    #[test]
    fn losses_are_over_after_a_minute_without_one() {
        let (mut losses, start) = (Losses::default(), Instant::now());
        let seen = [(0, 0), (2, 3), (50, 3), (61, 4), (100, 4), (122, 4)]
            .map(|(seconds, so_far)| losses.are_fresh(so_far, start + Duration::from_secs(seconds)));
        assert_eq!(seen, [false, true, true, true, true, false]);
    }
}
