//! What is counted of one key, and how a request is judged by it. Memory works with it as it stands; the
//! script of Redis and the statements of SQL do the same where the counts are.
//!
//! Each limit holds entries. Those of a window are counted until the window has passed since they were last
//! added to; there are at most 61, since what comes within a part of the window goes into one entry. So in no
//! window of that length more passes than the limit says, and a count is released late by at most a sixtieth
//! of the window; by nothing if the limit is at most 60. A bucket has one entry, out of which a whole number
//! of units runs each millisecond. Negative slots hold what has been said in the log.
//!
//! Knows: numbers and times. Must not know: stores, the log.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// A limit as it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What its entries are found by: a letter, `life`, and what else must be the same.
    pub name: String,
    /// How long an entry matters at most, in milliseconds.
    pub life: i64,
    /// How many units a bucket regains per millisecond; 0 means a window.
    pub leak: i64,
    /// The units of one that is counted.
    pub scale: i64,
    /// The units that there is room for.
    pub capacity: i64,
    /// The length of a part of the window, in milliseconds; 0 is a bucket.
    pub grain: i64,
}

/// What one request wants to pass.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// The limits that hold for it.
    pub rules: &'a [Rule],
    /// How much it counts.
    pub amount: u64,
    /// Whether it passes, and so counts on every limit, where there is no room too.
    pub passes_anyway: bool,
}

/// What came of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Whether there was room on every limit. If so it was counted there; else on none, unless it passes
    /// anyway.
    pub passed: bool,
    /// How each limit stands now.
    pub usage: Vec<Usage>,
    /// What is to be said of which limit, for the first time since long.
    pub notices: Vec<(usize, Fill)>,
}

/// How a limit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What is counted.
    pub count: u64,
    /// How long it takes until the request would pass this limit.
    pub retry_after: Duration,
}

/// How full a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// At least 80 %.
    Nearly,
    /// All of it, or what was asked for is too much.
    Full,
}

impl Fill {
    /// The slot of the entry which remembers that it was said.
    pub const fn slot(self) -> i64 {
        match self {
            Fill::Nearly => -80,
            Fill::Full => -100,
        }
    }
}

/// Something that was counted, or said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The begin of the part of the window; 0 in a bucket; negative for what was said.
    pub slot: i64,
    /// When it was last changed, in milliseconds since the epoch.
    pub seen: i64,
    /// The units.
    pub units: i64,
}

/// The entries of a key, by the names of their rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State(pub(super) BTreeMap<String, Vec<Entry>>);

/// Lua numbers are doubles; integers are exact up to 2^53.
pub const LARGEST: i64 = 1 << 53;

/// Maximum number of buckets of a window.
pub const PARTS: i64 = 60;

/// How many limits of other users to keep per key.
const MAX_OTHERS: usize = 8;

impl Rule {
    /// The units of an amount.
    pub fn cost(&self, amount: u64) -> i64 {
        i64::try_from(amount).unwrap_or(i64::MAX).saturating_mul(self.scale)
    }

    /// The same limit for what passes without room too, of which there may be any number: its parts are as
    /// long as those of a large one.
    #[must_use]
    pub fn unbounded(mut self) -> Rule {
        if self.grain > 0 {
            self.grain = (self.life / PARTS).max(self.grain);
        }
        self
    }

    /// The slot of what is counted now.
    pub fn slot(&self, now: i64) -> i64 {
        if self.grain == 0 { 0 } else { now - now.rem_euclid(self.grain) }
    }

    /// Forgets what no longer counts. What seems to be from the future was noted by a clock that was wrong:
    /// it can't be later than now.
    fn decay(&self, entry: &mut Entry, now: i64) -> bool {
        entry.seen = entry.seen.min(now);
        if self.leak > 0 && entry.slot >= 0 {
            let run_out = (now - entry.seen).saturating_mul(self.leak);
            entry.units = entry.units.saturating_sub(run_out);
            entry.seen = now;
            entry.units > 0
        } else {
            now - entry.seen < self.life
        }
    }

    /// How long until there is room.
    fn retry_after(&self, entries: &[Entry], amount: u64, now: i64) -> i64 {
        let cost = self.cost(amount);
        let mut excess = units(entries).saturating_add(cost).saturating_sub(self.capacity);
        if excess <= 0 {
            return 0;
        }
        if cost > self.capacity {
            return self.life;
        }
        if self.leak > 0 {
            return excess / self.leak + i64::from(excess % self.leak != 0);
        }
        let mut oldest_first: Vec<_> = entries.iter().filter(|entry| entry.slot >= 0).collect();
        oldest_first.sort_unstable_by_key(|entry| entry.seen);
        for entry in oldest_first {
            excess -= entry.units;
            if excess <= 0 {
                return entry.seen + self.life - now;
            }
        }
        self.life
    }
}

fn units(entries: &[Entry]) -> i64 {
    entries.iter().fold(0, |sum: i64, entry| sum.saturating_add(entry.units))
}

impl State {
    /// Adds an entry that a store holds. One that this program has not written is left out.
    pub fn insert(&mut self, rule: &str, entry: Entry) {
        if !(0..=LARGEST).contains(&entry.seen) || !(0..=LARGEST).contains(&entry.units) {
            return;
        }
        match self.0.get_mut(rule) {
            Some(entries) => entries.push(entry),
            None => drop(self.0.insert(rule.to_owned(), vec![entry])),
        }
    }

    /// Lets a request pass if there is room on every limit, and notes what is to be said.
    pub fn take(&mut self, demand: Demand<'_>, now: i64) -> Taken {
        self.decay(demand.rules, now);
        let has_room =
            |rule: &Rule| units(self.entries(rule)).saturating_add(rule.cost(demand.amount)) <= rule.capacity;
        let passed = demand.rules.iter().all(has_room);
        if (passed || demand.passes_anyway) && demand.amount > 0 {
            for rule in demand.rules {
                self.count(rule, rule.slot(now), rule.cost(demand.amount), now);
            }
        }
        let taken = self.judge(demand, now, passed);
        for (n, fill) in &taken.notices {
            self.count(&demand.rules[*n], fill.slot(), 0, now);
        }
        taken
    }

    /// How the limits stand after a request, and what was not said of them yet.
    pub fn judge(&self, demand: Demand<'_>, now: i64, passed: bool) -> Taken {
        let usage = demand.rules.iter().map(|rule| self.usage(rule, demand.amount, now)).collect();
        let due = |(n, rule)| Some((n, self.unsaid(rule, demand.amount, passed)?));
        let notices = demand.rules.iter().enumerate().filter_map(due).collect();
        Taken { passed, usage, notices }
    }

    pub(super) fn usage(&self, rule: &Rule, amount: u64, now: i64) -> Usage {
        let entries = self.entries(rule);
        let used = units(entries);
        let count = used / rule.scale + i64::from(used % rule.scale != 0);
        let retry_after = rule.retry_after(entries, amount, now);
        Usage {
            count: count.unsigned_abs(),
            retry_after: Duration::from_millis(u64::try_from(retry_after).unwrap_or(0)),
        }
    }

    fn unsaid(&self, rule: &Rule, amount: u64, passed: bool) -> Option<Fill> {
        let entries = self.entries(rule);
        let (used, said) =
            (units(entries), |fill: Fill| entries.iter().any(|entry| entry.slot == fill.slot()));
        let too_much = !passed && used.saturating_add(rule.cost(amount)) > rule.capacity;
        if said(Fill::Full) {
            None
        } else if used >= rule.capacity || too_much {
            Some(Fill::Full)
        } else {
            let nearly = used.saturating_mul(5) >= rule.capacity.saturating_mul(4);
            (nearly && !said(Fill::Nearly)).then_some(Fill::Nearly)
        }
    }

    fn entries(&self, rule: &Rule) -> &[Entry] {
        self.0.get(&rule.name).map_or(&[], Vec::as_slice)
    }

    fn count(&mut self, rule: &Rule, slot: i64, units: i64, now: i64) {
        let entries = self.0.entry(rule.name.clone()).or_default();
        match entries.iter_mut().find(|entry| entry.slot == slot) {
            Some(entry) => {
                let units = entry.units.saturating_add(units).min(LARGEST);
                *entry = Entry { slot, seen: now, units };
            }
            None => entries.push(Entry { slot, seen: now, units: units.min(LARGEST) }),
        }
    }

    pub(super) fn decay(&mut self, rules: &[Rule], now: i64) {
        let mut others = 0;
        self.0.retain(|name, entries| {
            match rules.iter().find(|rule| rule.name == *name) {
                Some(rule) => entries.retain_mut(|entry| rule.decay(entry, now)),
                None => {
                    others += 1;
                    let life = life_of(name);
                    entries.retain_mut(|entry| {
                        entry.seen = entry.seen.min(now);
                        others <= MAX_OTHERS && now - entry.seen < life
                    });
                }
            }
            !entries.is_empty()
        });
    }

    /// How long any of it matters.
    pub fn life(&self) -> Duration {
        let longest = self.0.keys().map(|name| life_of(name)).max().unwrap_or(0);
        Duration::from_millis(u64::try_from(longest).unwrap_or(0))
    }

    /// The state that a store holds as text: `NAME=SLOT:SEEN:UNITS,SLOT:SEEN:UNITS NAME=...`. What can't be
    /// read is left out.
    pub fn decode(text: &[u8]) -> State {
        let mut state = State::default();
        for rule in String::from_utf8_lossy(text).split(' ') {
            let Some((name, entries)) = rule.split_once('=') else { continue };
            for entry in entries.split(',').filter_map(Entry::decode) {
                state.insert(name, entry);
            }
        }
        state
    }

    /// The same as text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        for (name, entries) in &self.0 {
            let blank = if text.is_empty() { "" } else { " " };
            let _ = write!(text, "{blank}{name}");
            for (n, Entry { slot, seen, units }) in entries.iter().enumerate() {
                let comma = if n == 0 { '=' } else { ',' };
                let _ = write!(text, "{comma}{slot}:{seen}:{units}");
            }
        }
        text
    }
}

impl Entry {
    fn decode(text: &str) -> Option<Entry> {
        let mut numbers = text.splitn(3, ':').map(|number| number.parse().ok());
        Some(Entry { slot: numbers.next()??, seen: numbers.next()??, units: numbers.next()?? })
    }
}

/// The `life` in the name of a rule.
fn life_of(name: &str) -> i64 {
    let digits = name.get(1..).unwrap_or_default();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or(0).min(LARGEST)
}
