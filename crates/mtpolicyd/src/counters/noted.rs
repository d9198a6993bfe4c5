//! How it is noted what counters hold and what was counted, so that it can be replayed.
//!
//! Knows: counters. Must not know: where they are kept.

use super::{Amounts, Counter, Metric};
use backends::replay::{self, DETAIL};
use backends::{BackendError, Begun, Call};
use lookups::LookupKind;
use std::fmt;

/// A counter as notes name it.
struct Named<'a>(&'a Counter);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counter { table, key, time, .. } = self.0;
        let mut parts = table.id.split('\0');
        let (store, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        write!(f, "{store}/{name} {key} {time}")
    }
}

/// What has been counted?
pub(super) fn read(counter: &Counter, metric: Metric) -> String {
    format!("read {}{DETAIL}{metric}", Named(counter))
}

/// Is there room below a threshold?
pub(super) fn used(counter: &Counter, metric: Metric, threshold: i64) -> String {
    format!("used {}{DETAIL}{metric} < {threshold}", Named(counter))
}

/// Whether there is.
pub(super) fn room(is_below: bool) -> &'static str {
    if is_below { "below" } else { "reached" }
}

/// Notes that a request was counted in these counters. In a replay: what came of it then.
pub(super) fn count(
    begun: Begun<'_>,
    counters: &[Counter],
    amounts: &Amounts,
    outcome: Result<(), BackendError>,
    call: Call<'_>,
) -> Result<(), BackendError> {
    let question = |counter| {
        let [count, recipients, size, sizes] = amounts.all();
        format!("count {}{DETAIL}{count} {recipients} {size} {sizes}", Named(counter))
    };
    if let Some(replay) = call.replay() {
        let recorded = counters.iter().filter_map(|counter| {
            let answer = replay.stored(&question(counter))?;
            replay::failure(store_of(counter), &answer)
        });
        // All are told, so that each is known to be as it was.
        return recorded.collect::<Vec<_>>().into_iter().next().map_or(outcome, Err);
    }
    let mut begun = Some(begun);
    for counter in counters {
        let begun = begun.take().unwrap_or_else(|| call.begin());
        begun.note_texts(LookupKind::Store, "", || question(counter), &outcome, |()| "done".to_owned());
    }
    outcome
}

fn store_of(counter: &Counter) -> &str {
    counter.table.id.split('\0').next().unwrap_or_default()
}

/// What was recorded of a number.
pub(super) fn recorded_number(
    counter: &Counter,
    question: impl FnOnce() -> String,
    call: Call<'_>,
) -> Option<Result<f64, BackendError>> {
    recorded(counter, question, call, |answer| answer.parse().ok())
}

/// What was recorded of the room.
pub(super) fn recorded_room(
    counter: &Counter,
    question: impl FnOnce() -> String,
    call: Call<'_>,
) -> Option<Result<bool, BackendError>> {
    recorded(counter, question, call, |answer| [true, false].into_iter().find(|is| room(*is) == answer))
}

fn recorded<T>(
    counter: &Counter,
    question: impl FnOnce() -> String,
    call: Call<'_>,
    read: impl FnOnce(&str) -> Option<T>,
) -> Option<Result<T, BackendError>> {
    let answer = call.replay()?.stored(&question())?;
    match replay::failure(store_of(counter), &answer) {
        Some(error) => Some(Err(error)),
        None => read(&answer).map(Ok),
    }
}
