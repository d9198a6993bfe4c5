//! What a quota compares, as an administrator sees and changes it.
//!
//! Knows: counters, the threshold of the file. Must not know: who asks.

use crate::counters::{Counted, Ledger, Metric, Table, spelled};
use crate::facts::World;
use crate::state::{
    Change, Changed, Condition, Count, Entry, Listing, Order, Select, State, StateError, key_bytes, key_text,
};
use crate::value::Value;
use backends::Call;
use backends::clock::Clock;
use std::collections::BTreeMap;

/// The counters of a Quota.
pub struct HeldCounters {
    pub ledger: Ledger,
    pub table: Table,
    pub field: String,
    pub metric: Metric,
    pub threshold: i64,
}

impl HeldCounters {
    fn period(&self, select: &Select, clock: &Clock) -> String {
        select.period.clone().unwrap_or_else(|| self.ledger.period(clock))
    }

    /// The key that an administrator means, who writes it as a list shows it or as a message does.
    fn key(&self, text: &str) -> String {
        spelled(&self.field, &String::from_utf8_lossy(&key_bytes(text)))
    }

    /// The number that the quota compares comes first.
    fn entry(&self, counted: &Counted, period: &str) -> Entry {
        let mut entry = Entry {
            key: key_text(counted.key.as_bytes()),
            period: Some(period.to_owned()),
            ..Entry::default()
        };
        let Some(numbers) = counted.numbers else {
            entry.value = Some("(not numbers)".to_owned());
            return entry;
        };
        let limit = u64::try_from(self.threshold).unwrap_or(0);
        let mut counts: Vec<_> = Metric::ALL
            .iter()
            .zip(numbers)
            .map(|(metric, number)| Count {
                name: metric.to_string(),
                count: u64::try_from(number).unwrap_or(0),
                limit: (*metric == self.metric).then_some(limit),
                ..Count::default()
            })
            .collect();
        counts.sort_by_key(|count| count.limit.is_none());
        entry.state = if counts.iter().any(Count::is_full) { Condition::Full } else { Condition::Below };
        entry.counts = counts;
        entry
    }
}

/// What a change asks for.
enum Wanted {
    /// Nothing is counted any more.
    Nothing,
    /// These numbers begin again.
    Zero(Vec<Metric>),
    /// These are so much.
    Values(Vec<(Metric, i64)>),
}

fn wanted(change: &Change) -> Result<Wanted, StateError> {
    let metric = |name: &String| Metric::parse(name).map_err(StateError::Request);
    match change {
        Change::Reset { parts } if parts.is_empty() => Ok(Wanted::Nothing),
        Change::Reset { parts } => Ok(Wanted::Zero(parts.iter().map(metric).collect::<Result<_, _>>()?)),
        Change::Set { values, lifetime: None } if !values.is_empty() => {
            let value = |(name, value): (&String, &i64)| match *value {
                0.. => Ok((metric(name)?, *value)),
                value => Err(StateError::Request(format!("{name} can't be {value}"))),
            };
            Ok(Wanted::Values(values.iter().map(value).collect::<Result<_, _>>()?))
        }
        Change::Set { .. } => Err(StateError::Request("say what it is to be: `count=NUMBER`".to_owned())),
        Change::Allow { .. } => Err(StateError::Request("a quota can be reset or set".to_owned())),
    }
}

impl State for HeldCounters {
    fn is_complete(&self, select: &Select) -> Result<bool, StateError> {
        select.only(&["period", "over"])?;
        Ok(select.key.is_some())
    }

    async fn look(
        &self,
        select: &Select,
        world: &World,
        call: Call<'_>,
    ) -> Result<Option<Entry>, StateError> {
        let Some(key) = &select.key else { return Ok(None) };
        let period = self.period(select, &world.clock);
        let row = self.table.row(&self.key(key), &period, call).await?;
        Ok(row.map(|row| self.entry(&row, &period)))
    }

    async fn list(
        &self,
        select: &Select,
        cursor: Option<&str>,
        limit: usize,
        world: &World,
        call: Call<'_>,
    ) -> Result<Listing, StateError> {
        let period = self.period(select, &world.clock);
        let page = self.table.page(&period, cursor, limit, call).await?;
        let is_over = |entry: &Entry| {
            let used = entry.counts.iter().filter_map(Count::percent).max();
            select.over.is_none_or(|over| used.is_some_and(|used| used > over))
        };
        let entries = page.rows.iter().map(|row| self.entry(row, &period)).filter(is_over).collect();
        Ok(Listing { entries, next: page.next, notes: Vec::new() })
    }

    async fn change(
        &self,
        select: &Select,
        change: &Change,
        world: &World,
        call: Call<'_>,
    ) -> Result<Option<Changed>, StateError> {
        let Some(key) = &select.key else { return Ok(None) };
        let (key, period) = (self.key(key), self.period(select, &world.clock));
        let wanted = wanted(change)?;
        let before = self.table.row(&key, &period, call).await?;
        let done = match &wanted {
            Wanted::Nothing if before.is_none() => return Ok(None),
            Wanted::Nothing => {
                self.table.remove(&key, &period, call).await?;
                "reset"
            }
            Wanted::Zero(_) if before.is_none() => return Ok(None),
            Wanted::Zero(metrics) => {
                let values: Vec<_> = metrics.iter().map(|metric| (*metric, 0)).collect();
                self.table.put(&key, &period, &values, call).await?;
                "reset"
            }
            Wanted::Values(values) => {
                self.table.put(&key, &period, values, call).await?;
                "set"
            }
        };
        let touched = |metric: &Metric| match &wanted {
            Wanted::Nothing => true,
            Wanted::Zero(metrics) => metrics.contains(metric),
            Wanted::Values(values) => values.iter().any(|(of, _)| of == metric),
        };
        let (was, undo) = match before.map(|before| before.numbers) {
            None => ("there was nothing".to_owned(), Some(Change::Reset { parts: Vec::new() })),
            Some(None) => ("was unreadable".to_owned(), None),
            Some(Some(numbers)) => {
                let old = Metric::ALL.iter().zip(numbers).filter(|(metric, _)| touched(metric));
                let values: BTreeMap<_, _> =
                    old.map(|(metric, number)| (metric.to_string(), number)).collect();
                let was = values.iter().map(|(name, number)| format!("{name} {number}"));
                let was = format!("was {}", was.collect::<Vec<_>>().join(", "));
                (was, Some(Change::Set { values, lifetime: None }))
            }
        };
        let key = key_text(key.as_bytes());
        let select = Select { key: Some(key.clone()), period: Some(period), ..Select::default() };
        let undo = undo.map(|change| Order { select, change, all: false });
        Ok(Some(Changed { key, done: format!("{done}; {was}"), undo, ..Changed::default() }))
    }
}
