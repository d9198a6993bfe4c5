//! Who has used most or all of a limit, so that it is told once, and once that it is over.
//!
//! Knows: keys, shares of a limit, time. Must not know: how anything is counted, plugins.

use super::{Event, EventKind, EventState, Events};
use crate::value::shell_word;
use backends::clock::Clock;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys that are remembered; of one more the first is forgotten.
const MAX_HELD: usize = 10_000;

/// Below this many per cent it is over. Between that and 80 nothing is told, so that nobody who sends at
/// about the limit is told of again and again.
const OVER_PERCENT: u64 = 70;

/// How much of a limit is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fill {
    /// At least 80 %.
    Near,
    /// All of it.
    Reached,
}

/// Which command shows and resets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// `mtpolicyd limits`.
    Limits,
    /// `mtpolicyd quota`.
    Quota,
}

/// How much somebody has used of a limit.
#[derive(Clone, Copy, Debug)]
pub struct LimitUse<'a> {
    /// Whose command it is.
    pub kind: LimitKind,
    /// The plugin.
    pub plugin: &'a str,
    /// Whose limit it is.
    pub key: &'a str,
    /// The limit: `100/1h`.
    pub limit: &'a str,
    /// How much was counted, with what is counted: `80 messages`. Empty if nobody knows.
    pub count: &'a str,
}

/// Until when it is so without another request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// This time, in milliseconds since 1970.
    Time(i64),
    /// The time is written otherwise than this, by this pattern of strftime(3).
    Period {
        /// The pattern.
        pattern: String,
        /// What it gives as long as nothing is over.
        text: String,
    },
}

impl Until {
    fn is_over(&self, clock: &Clock) -> bool {
        match self {
            Until::Time(time) => clock.now_millis() >= *time,
            Until::Period { pattern, text } => clock.format(pattern).is_ok_and(|now| now != *text),
        }
    }
}

/// Plugin, key and limit.
type Id = (String, String, String);

struct Held {
    fill: Fill,
    kind: LimitKind,
    until: Until,
}

/// What is remembered.
#[derive(Default)]
pub(super) struct Limits {
    held: Mutex<BTreeMap<Id, Held>>,
    /// How many there are.
    count: AtomicUsize,
}

/// A limit that is over.
pub(super) struct Ended(Id, LimitKind);

impl Ended {
    /// Of whom it is told.
    pub fn as_use(&self) -> LimitUse<'_> {
        let Ended((plugin, key, limit), kind) = self;
        LimitUse { kind: *kind, plugin, key, limit, count: "" }
    }
}

impl Limits {
    /// Whether there is anything to remember.
    pub fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Remembers it: whether that is new, and so to be told.
    pub fn fill(&self, fill: Fill, used: &LimitUse<'_>, until: impl FnOnce() -> Until) -> bool {
        let mut all = self.lock();
        let held = Held { fill, kind: used.kind, until: until() };
        let is_new = match all.get_mut(&used.id()) {
            Some(known) => {
                let is_more = known.fill < fill;
                known.fill = known.fill.max(fill);
                known.until = held.until;
                is_more
            }
            None => {
                if all.len() >= MAX_HELD {
                    all.pop_first();
                }
                all.insert(used.id(), held);
                true
            }
        };
        self.count.store(all.len(), Ordering::Relaxed);
        is_new
    }

    /// How much is used now: what is over by that.
    pub fn stands(&self, percent: u64, used: &LimitUse<'_>, until: impl FnOnce() -> Until) -> Option<Fill> {
        if !self.is_any() {
            return None;
        }
        let mut all = self.lock();
        let held = all.get_mut(&used.id())?;
        if percent >= OVER_PERCENT {
            held.until = until();
            return None;
        }
        let fill = held.fill;
        all.remove(&used.id());
        self.count.store(all.len(), Ordering::Relaxed);
        Some(fill)
    }

    /// Takes those whose time is over.
    pub fn take_over(&self, clock: &Clock) -> Vec<(Fill, Ended)> {
        if !self.is_any() {
            return Vec::new();
        }
        let mut all = self.lock();
        let over = all.iter().filter(|(_, held)| held.until.is_over(clock));
        let over: Vec<_> = over.map(|(id, held)| (held.fill, Ended(id.clone(), held.kind))).collect();
        over.iter().for_each(|(_, Ended(id, _))| drop(all.remove(id)));
        self.count.store(all.len(), Ordering::Relaxed);
        over
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Id, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LimitUse<'_> {
    fn id(&self) -> Id {
        (self.plugin.to_owned(), self.key.to_owned(), self.limit.to_owned())
    }

    /// The event that it begins.
    pub(super) fn begins(&self, fill: Fill, events: &Events) -> Event {
        let LimitUse { plugin, key, limit, count, .. } = self;
        let counted = if count.is_empty() { String::new() } else { format!(": {count}") };
        let text = match fill {
            Fill::Near => format!("{plugin}: {key} is at 80 % of {limit}{counted}"),
            Fill::Reached => format!("{plugin}: {key} has used up {limit}{counted}"),
        };
        let show = format!("`{}` shows it", self.command("show"));
        let advice = match fill {
            Fill::Near => format!("{show}."),
            Fill::Reached => {
                let reset = self.command("reset");
                format!("The account may have been stolen. {show}; `{reset}` lets it send again.")
            }
        };
        Event { advice, ..self.event(fill, EventState::Begins, text, events) }
    }

    /// The event that it is over.
    pub(super) fn ends(&self, fill: Fill, events: &Events) -> Event {
        let LimitUse { plugin, key, limit, .. } = self;
        let text = format!("{plugin}: {key} is below {limit} again");
        self.event(fill, EventState::Ends, text, events)
    }

    fn event(&self, fill: Fill, state: EventState, text: String, events: &Events) -> Event {
        let kind = match fill {
            Fill::Near => EventKind::LimitNear,
            Fill::Reached => EventKind::LimitReached,
        };
        Event { key: self.key.to_owned(), ..events.event(kind, state, self.plugin, text) }
    }

    fn command(&self, what: &str) -> String {
        let command = match self.kind {
            LimitKind::Limits => "limits",
            LimitKind::Quota => "quota",
        };
        // What begins with a dash is not an option there.
        let dashes =
            if [self.plugin, self.key].iter().any(|word| word.starts_with('-')) { "-- " } else { "" };
        let (plugin, key) = (shell_word(self.plugin), shell_word(self.key));
        format!("mtpolicyd {command} {what} {dashes}{plugin} {key}")
    }
}
