//! What the daemon has been doing: numbers from the decisions that are kept.
//!
//! Knows: records of decisions. Must not know: where they are kept, how numbers are printed.

use super::call::{Answer, Call, Problem, ok};
use super::decisions::{SEARCH_LIMIT, off_the_runtime};
use decisions::journal::Progress;
use decisions::{Decision, DecisionId, Filter, StepOutcome, rfc3339};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// The time that is looked at, where the request names none, in seconds.
const USUAL_SPAN: u64 = 60;
/// The longest.
const MAX_SPAN: u64 = 3600;
/// Decisions that are looked at: those of the busiest second count, older ones less.
const MAX_DECISIONS: usize = 10_000;

/// The most parts into which the time may be divided.
const MAX_SLICES: usize = 240;

/// What was decided in the last time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ActivityView {
    /// The seconds that the numbers are about: fewer than asked for if fewer decisions are kept.
    pub seconds: f64,
    /// Requests in that time.
    pub requests: u64,
    /// Requests that came to each outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Microseconds that half of the requests took at most.
    pub p50_micros: u32,
    /// The same for 99 of 100.
    pub p99_micros: u32,
    /// Requests whose time was over.
    pub late: u64,
    /// The plugins that had a turn, those with most turns first.
    pub plugins: Vec<PluginView>,
    /// The same time in parts of one length, the oldest first, if the request says in how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<SliceView>,
}

/// A part of the time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SliceView {
    /// When it begins, in RFC 3339.
    pub begins: String,
    /// Requests that came to each outcome.
    pub outcomes: BTreeMap<String, u64>,
}

/// What a plugin has been doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PluginView {
    /// Its path.
    pub path: String,
    /// How often it had a turn.
    pub turns: u64,
    /// How often it ended the chain.
    pub stopped: u64,
    /// How often a backend of it failed, or its time was over.
    pub failed: u64,
    /// Microseconds that it took, all turns together.
    pub micros: u64,
}

pub(super) async fn activity(mut call: Call) -> Answer {
    let span = call.query.take_parsed::<u64>("seconds")?.unwrap_or(USUAL_SPAN);
    let slices = call.query.take_parsed::<usize>("slices")?.unwrap_or_default();
    call.query.finish()?;
    if slices > MAX_SLICES {
        return Err(Problem::bad(format!("slices: at most {MAX_SLICES}")));
    }
    if !(1..=MAX_SPAN).contains(&span) {
        return Err(Problem::bad(format!("seconds: from 1 to {MAX_SPAN}")));
    }
    let recorder = call.shared.service.load().recorder().clone();
    let (now, started) = (SystemTime::now(), call.shared.desk.started);
    let view = off_the_runtime(move || {
        let from = now.checked_sub(Duration::from_secs(span)).map_or(started, |from| from.max(started));
        let since = Some(DecisionId::first_at(from));
        let filter = Filter { since, ..Filter::default() };
        let progress = Progress::until(Instant::now() + SEARCH_LIMIT);
        let found = recorder.search(&filter, None, MAX_DECISIONS, &progress);
        // Older ones may have been dropped: then the time begins with the oldest that is there.
        let is_full =
            found.kept.begins.is_none_or(|begins| begins.time() > from) && found.decisions.len() > 1;
        let oldest = found.decisions.last().map_or(from, |oldest| oldest.id.time());
        let begins = if is_full { oldest.max(from) } else { from };
        let view = numbers(&found.decisions, now.duration_since(begins).unwrap_or_default());
        ActivityView { slices: self::slices(&found.decisions, begins, now, slices), ..view }
    });
    ok(&view.await?)
}

/// The decisions of each part of the time.
fn slices(decisions: &[Arc<Decision>], begins: SystemTime, ends: SystemTime, count: usize) -> Vec<SliceView> {
    let Ok(number) = u32::try_from(count) else { return Vec::new() };
    if number == 0 {
        return Vec::new();
    }
    let length = ends.duration_since(begins).unwrap_or_default().max(Duration::from_millis(1)) / number;
    let mut slices: Vec<_> = (0..number)
        .map(|number| SliceView { begins: rfc3339(begins + length * number), ..SliceView::default() })
        .collect();
    for decision in decisions {
        let after = decision.id.time().duration_since(begins).unwrap_or_default();
        let at = usize::try_from(after.as_nanos() / length.as_nanos().max(1)).unwrap_or(count);
        if let Some(slice) = slices.get_mut(at.min(count - 1)) {
            *slice.outcomes.entry(decision.outcome.name().to_owned()).or_default() += 1;
        }
    }
    slices
}

fn numbers(decisions: &[Arc<Decision>], span: Duration) -> ActivityView {
    let mut view = ActivityView { seconds: span.as_secs_f64(), ..ActivityView::default() };
    let mut plugins: BTreeMap<&str, PluginView> = BTreeMap::new();
    for decision in decisions {
        view.requests += 1;
        *view.outcomes.entry(decision.outcome.name().to_owned()).or_default() += 1;
        view.late += u64::from(decision.flags.has(decisions::Flags::LATE));
        for step in &decision.walk.steps {
            let Some(info) = decision.table.get(step.number) else { continue };
            let plugin = plugins.entry(&info.path).or_default();
            plugin.turns += u64::from(step.outcome != StepOutcome::Off);
            plugin.stopped += u64::from(step.outcome == StepOutcome::Stopped);
            let failed = [StepOutcome::Failed, StepOutcome::Skipped, StepOutcome::NotFinished];
            plugin.failed += u64::from(failed.contains(&step.outcome));
            plugin.micros += u64::from(step.took);
        }
    }
    let mut times: Vec<_> = decisions.iter().map(|decision| decision.took).collect();
    times.sort_unstable();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len().saturating_sub(1)));
    (view.p50_micros, view.p99_micros) =
        (at(50).copied().unwrap_or_default(), at(99).copied().unwrap_or_default());
    view.plugins =
        plugins.into_iter().map(|(path, plugin)| PluginView { path: path.to_owned(), ..plugin }).collect();
    view.plugins.sort_by_key(|plugin| std::cmp::Reverse(plugin.turns));
    view
}
