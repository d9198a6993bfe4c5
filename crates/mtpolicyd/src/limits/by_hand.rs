//! Counts as an administrator sees and changes them.
//!
//! Knows: entries, the stores that keep them. Must not know: what is counted.

use super::state::{Entry, Fill, LARGEST, Rule, State, Usage};
use super::{Counts, PREFIX, redis};
use backends::keyvalue::{Memory, Page, Scan};
use backends::{BackendError, Call};

/// What a store holds of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLimits {
    /// The key.
    pub key: String,
    /// What is counted; `None` if it can't be read.
    pub state: Option<State>,
}

/// Some of what a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitPage {
    /// The keys.
    pub held: Vec<HeldLimits>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<String>,
}

/// A change of what is counted on one limit.
#[derive(Clone, Debug)]
pub struct Edit {
    /// The limit.
    pub rule: Rule,
    /// How much it is from now on; with 0 nothing of it is remembered, not even what was said.
    pub count: u64,
}

impl Edit {
    /// The entry that takes the place of all others.
    pub(super) fn entry(&self, now: i64) -> Option<Entry> {
        let units = self.rule.cost(self.count).min(LARGEST);
        (units > 0).then(|| Entry { slot: self.rule.slot(now), seen: now, units })
    }
}

impl Counts {
    /// The name of the connection.
    pub fn store(&self) -> &str {
        match self {
            Counts::Memory(memory) => memory.name(),
            Counts::Redis(redis) => redis.name(),
            Counts::Sql(table) => table.store(),
        }
    }

    /// What is counted of a key; `None` if nothing is.
    pub async fn held(
        &self,
        key: &str,
        now: i64,
        call: Call<'_>,
    ) -> Result<Option<HeldLimits>, BackendError> {
        let full = format!("{PREFIX}{key}");
        let held = match self {
            Counts::Memory(memory) => memory.held(full.as_bytes(), call).await?,
            Counts::Redis(redis) => redis.held(full.as_bytes(), call).await?,
            Counts::Sql(table) => return table.held(key, now, call).await,
        };
        Ok(held.map(|held| HeldLimits { key: key.to_owned(), state: read(held.value.as_deref()) }))
    }

    /// Some of the keys that begin so, from a cursor on.
    pub async fn page(
        &self,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
        now: i64,
        call: Call<'_>,
    ) -> Result<LimitPage, BackendError> {
        let full = format!("{PREFIX}{prefix}");
        let scan = Scan { prefix: full.as_bytes(), cursor, limit };
        match self {
            Counts::Memory(memory) => Ok(page_of(memory.scan(scan, call).await?)),
            Counts::Redis(redis) => Ok(page_of(redis.scan(scan, call).await?)),
            Counts::Sql(table) => table.page(prefix, cursor, limit, now, call).await,
        }
    }

    /// Changes what is counted of a key on these limits, as one step.
    pub async fn edit(
        &self,
        key: &str,
        edits: &[Edit],
        now: i64,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        match self {
            Counts::Memory(memory) => edit_in_memory(memory, key, edits, now),
            Counts::Redis(redis) => redis::edit(redis, key, edits, now, call).await?,
            Counts::Sql(table) => table.edit(key, edits, now, call).await?,
        }
        Ok(())
    }

    /// Forgets all that is counted of a key.
    pub async fn forget(&self, key: &str, call: Call<'_>) -> Result<(), BackendError> {
        let full = format!("{PREFIX}{key}");
        match self {
            Counts::Memory(memory) => memory.delete(full.as_bytes(), call).await.map(drop),
            Counts::Redis(redis) => redis.delete(full.as_bytes(), call).await.map(drop),
            Counts::Sql(table) => table.forget(key, call).await,
        }
    }
}

fn edit_in_memory(memory: &Memory, key: &str, edits: &[Edit], now: i64) {
    memory.update(format!("{PREFIX}{key}").as_bytes(), |held| {
        let mut state = held.map(State::decode).unwrap_or_default();
        state.apply(edits, now);
        let life = state.life();
        ((!life.is_zero()).then(|| (state.encode().into_bytes(), life)), ())
    });
}

fn page_of(page: Page) -> LimitPage {
    let held = page.entries.into_iter().filter_map(|held| {
        let key = String::from_utf8_lossy(held.key.strip_prefix(PREFIX.as_bytes())?).into_owned();
        Some(HeldLimits { key, state: read(held.value.as_deref()) })
    });
    LimitPage { held: held.collect(), next: page.next }
}

/// A state that can be read.
fn read(value: Option<&[u8]>) -> Option<State> {
    let state = State::decode(value?);
    (!state.0.is_empty()).then_some(state)
}

impl State {
    /// The names of the limits of which something is held.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// How a limit stands, for a request that counts one.
    pub fn standing(&self, rule: &Rule, now: i64) -> Usage {
        let mut state = self.clone();
        state.decay(std::slice::from_ref(rule), now);
        state.usage(rule, 1, now)
    }

    /// When the log has said that a limit is full, in milliseconds since the epoch.
    pub fn full_since(&self, rule: &Rule, now: i64) -> Option<i64> {
        let mut entries = self.0.get(&rule.name)?.iter();
        let said = entries.find(|entry| entry.slot == Fill::Full.slot())?;
        (now.saturating_sub(said.seen) < rule.life).then_some(said.seen)
    }

    /// Makes changes.
    pub fn apply(&mut self, edits: &[Edit], now: i64) {
        for edit in edits {
            self.0.remove(&edit.rule.name);
            if let Some(entry) = edit.entry(now) {
                self.insert(&edit.rule.name, entry);
            }
        }
    }
}

impl Rule {
    /// The limit that has this name, as far as the name tells: how much it may be is not known.
    pub fn of_name(name: &str) -> Option<Rule> {
        let (kind, numbers) = name.split_at_checked(1)?;
        let numbers: Option<Vec<i64>> = numbers.split('.').map(|number| number.parse().ok()).collect();
        let rule = |life, leak, scale| Rule {
            name: name.to_owned(),
            life,
            leak,
            scale,
            capacity: i64::MAX,
            grain: i64::from(kind == "w"),
        };
        match (kind, &numbers?[..]) {
            ("w", [life]) if *life > 0 => Some(rule(*life, 0, 1)),
            ("b", [life, leak, scale]) if *life > 0 && *leak >= 0 && *scale > 0 => {
                Some(rule(*life, *leak, *scale))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{Algorithm, Demand, Rates};
    use crate::value::Value;

    #[test]
    fn a_limit_is_told_by_its_name() {
        for algorithm in [Algorithm::Window, Algorithm::Bucket] {
            for rule in Rates::parse("7/1h, 100/1m burst 3, 0/1d").unwrap().rules(algorithm) {
                let told = Rule::of_name(&rule.name).unwrap();
                let of = |rule: &Rule| (rule.name.clone(), rule.life, rule.leak, rule.scale);
                assert_eq!(of(&told), of(&rule));
            }
        }
        for odd in ["", "w", "wx", "w0", "w-1", "x1", "b1", "b1.2.0", "w1.2", "ü1"] {
            assert_eq!(Rule::of_name(odd), None, "{odd}");
        }
    }

    #[test]
    fn an_edit_leaves_the_other_limits_alone() {
        let rules = Rates::parse("2/1m, 9/1h").unwrap().rules(Algorithm::Window);
        let (mut state, now) = (State::default(), 1_764_000_000_000);
        let demand = Demand { rules: &rules, amount: 2, passes_anyway: false };
        assert!(state.take(demand, now).passed);
        let one = Demand { amount: 1, ..demand };
        assert!(!state.take(one, now).passed);
        assert_eq!(state.full_since(&rules[0], now), Some(now));
        let standing = state.standing(&rules[0], now + 10_000);
        assert_eq!((standing.count, standing.retry_after.as_secs()), (2, 50));
        state.apply(&[Edit { rule: rules[0].clone(), count: 0 }], now);
        assert_eq!((state.standing(&rules[0], now).count, state.standing(&rules[1], now).count), (0, 2));
        assert_eq!(state.full_since(&rules[0], now), None);
        state.apply(&[Edit { rule: rules[0].clone(), count: 2 }], now);
        assert!(!state.take(one, now).passed);
    }
}
