//! Counts of a rate limit as an administrator sees and changes them.
//!
//! Knows: counts, the limits of the file. Must not know: who asks.

use super::key::Key;
use crate::facts::World;
use crate::limits::{
    Algorithm, Counts, Edit, HeldLimits, Rates, Rule, State as Counted, parse_window, window_text,
};
use crate::state::{
    Change, Changed, Condition, Count, Entry, Listing, Order, Select, State, StateError, key_bytes, key_text,
};
use backends::Call;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a RateLimit counts.
pub struct HeldCounts {
    pub counts: Arc<Counts>,
    pub plugin: String,
    pub rates: Rates,
    pub algorithm: Algorithm,
    /// Whether every message counts.
    pub is_passive: bool,
    /// Whether users may have limits of their own.
    pub is_for_users: bool,
}

/// A limit with the name of its window.
struct Named {
    name: String,
    rule: Rule,
    /// How much it may be; `None` if that is a user's own matter.
    limit: Option<u64>,
}

impl HeldCounts {
    /// What every key of the plugin begins with.
    fn prefix(&self) -> String {
        format!("{}:", self.plugin)
    }

    fn full(&self, key: &str) -> String {
        format!("{}{}", self.prefix(), Key::of_text(&String::from_utf8_lossy(&key_bytes(key))))
    }

    /// The limits of the file, then others that were counted.
    fn limits(&self, state: &Counted) -> Vec<Named> {
        let rules = self.rates.rules(self.algorithm);
        let of_file = self.rates.iter().zip(rules).map(|(rate, rule)| Named {
            name: window_text(rate.period()),
            limit: u64::try_from(rule.capacity / rule.scale.max(1)).ok(),
            rule: if self.is_passive { rule.unbounded() } else { rule },
        });
        let mut limits: Vec<_> = of_file.collect();
        for rule in state.rules().filter_map(Rule::of_name) {
            if !limits.iter().any(|known| known.rule.name == rule.name) {
                limits.push(Named { name: name_of(&rule), rule, limit: None });
            }
        }
        limits
    }

    fn entry(&self, held: &HeldLimits, now: i64) -> Entry {
        let key = held.key.strip_prefix(&self.prefix()).unwrap_or(&held.key);
        let mut entry = Entry { key: key_text(key.as_bytes()), ..Entry::default() };
        let Some(state) = &held.state else {
            entry.value = Some("(not counts)".to_owned());
            return entry;
        };
        let counts = self.limits(state).into_iter().map(|Named { name, rule, limit }| {
            let usage = state.standing(&rule, now);
            let wait = usage.retry_after;
            let free_in = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            Count {
                name,
                count: usage.count,
                limit,
                free_in: Some(free_in).filter(|free_in| *free_in > 0),
                full_since: state.full_since(&rule, now).map(|since| since / 1000),
            }
        });
        // What was counted long ago does not matter.
        entry.counts = counts.filter(|count| count.limit.is_some() || count.count > 0).collect();
        entry.state =
            if entry.counts.iter().any(Count::is_full) { Condition::Full } else { Condition::Below };
        entry
    }

    /// The limit that a part of a change names.
    fn limit(&self, name: &str, state: &Counted) -> Result<Named, StateError> {
        let limits = self.limits(state);
        let wanted = parse_window(name).map(window_text).unwrap_or_else(|_| name.to_owned());
        let names = limits.iter().map(|limit| limit.name.clone()).collect::<Vec<_>>().join(", ");
        if let Some(found) = limits.into_iter().find(|limit| limit.name == wanted) {
            return Ok(found);
        }
        // A user's own window of which nothing is counted now.
        let of_user = match parse_window(name) {
            Ok(window) if self.algorithm == Algorithm::Window => Rule::of_name(&format!("w{window}")),
            _ => Rule::of_name(name),
        };
        match of_user.filter(|_| self.is_for_users) {
            Some(rule) => Ok(Named { name: wanted, rule, limit: None }),
            None => Err(StateError::Request(format!(
                "plugin {} has no window `{name}`; it has: {names}",
                self.plugin
            ))),
        }
    }

    /// What is changed: the limits with their new counts; `None` if all is forgotten.
    fn edits(&self, change: &Change, state: &Counted) -> Result<Option<Vec<(String, Edit)>>, StateError> {
        let edit = |name: &str, count| -> Result<_, StateError> {
            let Named { name, rule, .. } = self.limit(name, state)?;
            Ok((name, Edit { rule, count }))
        };
        match change {
            Change::Reset { parts } if parts.is_empty() => Ok(None),
            Change::Reset { parts } => {
                parts.iter().map(|part| edit(part, 0)).collect::<Result<_, _>>().map(Some)
            }
            Change::Set { values, lifetime: None } if !values.is_empty() => {
                let value = |(name, value): (&String, &i64)| match u64::try_from(*value) {
                    Ok(count) => edit(name, count),
                    Err(_) => Err(StateError::Request(format!("{name} can't be {value}"))),
                };
                values.iter().map(value).collect::<Result<_, _>>().map(Some)
            }
            Change::Set { .. } => Err(StateError::Request("say what it is to be: `1h=NUMBER`".to_owned())),
            Change::Allow { .. } => Err(StateError::Request("a limit can be reset or set".to_owned())),
        }
    }
}

/// The window of a limit that is not in the file; what is not a window has its own name.
fn name_of(rule: &Rule) -> String {
    match u64::try_from(rule.life) {
        Ok(life) if rule.leak == 0 && rule.name == format!("w{life}") => window_text(life),
        _ => rule.name.clone(),
    }
}

impl State for HeldCounts {
    fn is_complete(&self, select: &Select) -> Result<bool, StateError> {
        select.only(&["over"])?;
        Ok(select.key.is_some())
    }

    async fn look(
        &self,
        select: &Select,
        world: &World,
        call: Call<'_>,
    ) -> Result<Option<Entry>, StateError> {
        let now = world.clock.now_millis();
        let Some(key) = &select.key else { return Ok(None) };
        let held = self.counts.held(&self.full(key), now, call).await?;
        Ok(held.map(|held| self.entry(&held, now)))
    }

    async fn list(
        &self,
        select: &Select,
        cursor: Option<&str>,
        limit: usize,
        world: &World,
        call: Call<'_>,
    ) -> Result<Listing, StateError> {
        let now = world.clock.now_millis();
        let page = self.counts.page(&self.prefix(), cursor, limit, now, call).await?;
        let is_meant = |entry: &Entry| match select.over {
            Some(over) => entry.counts.iter().filter_map(Count::percent).any(|used| used > over),
            // Nothing of it counts any more.
            None => entry.value.is_some() || entry.counts.iter().any(|count| count.count > 0),
        };
        let entries = page.held.iter().map(|held| self.entry(held, now)).filter(is_meant).collect();
        Ok(Listing { entries, next: page.next, notes: Vec::new() })
    }

    async fn change(
        &self,
        select: &Select,
        change: &Change,
        world: &World,
        call: Call<'_>,
    ) -> Result<Option<Changed>, StateError> {
        let now = world.clock.now_millis();
        let Some(key) = &select.key else { return Ok(None) };
        let full = self.full(key);
        let before = self.counts.held(&full, now, call).await?;
        if before.is_none() && matches!(change, Change::Reset { .. }) {
            return Ok(None);
        }
        let is_unreadable = before.as_ref().is_some_and(|held| held.state.is_none());
        let state = before.and_then(|held| held.state).unwrap_or_default();
        let edits = self.edits(change, &state)?;
        // What a set or a reset of everything touches.
        let touched = match &edits {
            None => self.limits(&state),
            Some(edits) => {
                let named = |(name, edit): &(String, Edit)| Named {
                    name: name.clone(),
                    rule: edit.rule.clone(),
                    limit: None,
                };
                edits.iter().map(named).collect()
            }
        };
        let old: BTreeMap<_, _> = touched
            .iter()
            .map(|limit| {
                let count = state.standing(&limit.rule, now).count;
                (limit.name.clone(), i64::try_from(count).unwrap_or(i64::MAX))
            })
            .filter(|(_, count)| edits.is_some() || *count > 0)
            .collect();
        match &edits {
            None => self.counts.forget(&full, call).await?,
            Some(edits) => {
                let edits: Vec<_> = edits.iter().map(|(_, edit)| edit.clone()).collect();
                self.counts.edit(&full, &edits, now, call).await?;
            }
        }
        let was = old.iter().map(|(window, count)| format!("{count} in {window}"));
        let was = match is_unreadable {
            true => "was unreadable".to_owned(),
            false if old.is_empty() => "nothing counted any more".to_owned(),
            false => format!("was {}", was.collect::<Vec<_>>().join(", ")),
        };
        let key = key_text(full.strip_prefix(&self.prefix()).unwrap_or(&full).as_bytes());
        let select = Select { key: Some(key.clone()), ..Select::default() };
        let undo = (!is_unreadable && !old.is_empty()).then(|| {
            let change = Change::Set { values: old, lifetime: None };
            Order { select, change, all: false }
        });
        Ok(Some(Changed { key, done: format!("{}; {was}", change.verb()), undo, ..Changed::default() }))
    }
}
