//! The spans of time in which is counted.
//!
//! Knows: strftime. Must not know: tables.

use crate::value::Value;
use backends::clock::Clock;
use std::collections::BTreeSet;
use std::time::Duration;

/// How a time is written that names a span: `%Y-%m` for months.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimePattern(String);

/// The longest text of a time: the width of the column.
const MAX_TIME_CHARS: usize = 255;

impl std::fmt::Display for TimePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for TimePattern {
    fn from(pattern: &str) -> TimePattern {
        TimePattern(pattern.to_owned())
    }
}

impl Value for TimePattern {
    const FORM: &'static str = "text with conversions of strftime(3): `%Y-%m`, `%Y-%m-%d`, `%Y-%W`";
    fn parse(text: &str) -> Result<Self, String> {
        let now = Clock::System.format(text).map_err(|why| format!("`{text}` can't be used: {why}"))?;
        if now.chars().count() > MAX_TIME_CHARS {
            return Err(format!("`{text}` gives more than {MAX_TIME_CHARS} characters"));
        }
        Ok(TimePattern(text.to_owned()))
    }
}

impl TimePattern {
    /// The span of now, in local time.
    pub fn now(&self, clock: &Clock) -> String {
        // What was accepted at the start goes on to work: no conversion depends on the day.
        clock.format(&self.0).unwrap_or_default()
    }

    /// How long a text stays the same at least, as far as it matters here.
    fn step(&self, clock: &Clock) -> Step {
        let hour = clock.now() / HOUR * HOUR;
        let at = |seconds| clock.format_at(seconds, &self.0);
        if (1..60).any(|minute| at(hour) != at(hour + 60 * minute)) || at(hour) != at(hour + 1) {
            return Step::Less;
        }
        // By steps of a day a text of midnight to midnight is met once, and by half of that surely.
        let by_hours = (1..24).filter(|n| at(hour + (n - 1) * HOUR) != at(hour + n * HOUR)).count();
        if by_hours <= 1 { Step::HalfDay } else { Step::Hour }
    }

    /// Whether it can be told by the texts how old they are: not if they change within an hour.
    pub fn tells_age(&self) -> bool {
        self.step(&Clock::System) != Step::Less
    }

    /// The texts of the ten years that ended `keep` ago, without those that came again since then.
    ///
    /// Rows with other texts, of another pattern or by another program, are not known here, so they stay.
    pub fn before(&self, clock: &Clock, keep: Duration) -> BTreeSet<String> {
        let step = match self.step(clock) {
            Step::HalfDay => 12 * HOUR,
            Step::Hour => HOUR,
            Step::Less => return BTreeSet::new(),
        };
        let now = clock.now();
        let since = now.saturating_sub(i64::try_from(keep.as_secs()).unwrap_or(i64::MAX));
        let texts = |from: i64, to: i64| {
            let ticks = std::iter::successors(Some(to), move |at| Some(at - step));
            ticks.take_while(move |at| *at >= from).filter_map(|at| clock.format_at(at, &self.0).ok())
        };
        let mut old: BTreeSet<_> = texts(since.saturating_sub(LOOK_BACK), since).collect();
        for text in texts(since, now).chain(clock.format_at(since, &self.0).ok()) {
            old.remove(&text);
        }
        old
    }
}

/// How long a text of a pattern stays the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    HalfDay,
    Hour,
    Less,
}

const HOUR: i64 = 3600;

/// How far back rows are looked for that are too old: ten years, in seconds. The daily task finds them long
/// before.
const LOOK_BACK: i64 = 10 * 365 * 24 * HOUR;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicI64;

    fn before(pattern: &str, days: u64) -> BTreeSet<String> {
        let clock = Clock::Fake(AtomicI64::new(1_764_000_000));
        TimePattern::from(pattern).before(&clock, Duration::from_secs(days * 24 * 3600))
    }

    #[test]
    fn spans_that_are_over_long_enough_are_old() {
        // It is 2025-11-24.
        let months = before("%Y-%m", 60);
        assert!(months.contains("2025-08") && months.contains("2016-01"), "{months:?}");
        assert!(!months.contains("2025-09") && !months.contains("2025-11"), "the 25th of September is kept");
        let days = before("%Y-%m-%d", 2);
        assert!(days.contains("2025-11-21") && !days.contains("2025-11-22"), "{:?}", days.last());
        let hours = before("%Y-%m-%d %H", 1);
        assert!(hours.contains("2025-11-23 15") && !hours.contains("2025-11-23 16"), "{:?}", hours.last());
    }

    #[test]
    fn a_text_that_comes_again_is_not_old() {
        let weekdays = before("%A", 8);
        assert!(weekdays.is_empty(), "{weekdays:?}");
        assert!(before("always", 1).is_empty());
    }

    #[test]
    fn minutes_tell_no_age() {
        assert!(TimePattern::from("%Y-%m").tells_age() && TimePattern::from("%Y-%m-%d %H").tells_age());
        assert!(!TimePattern::from("%H:%M").tells_age() && !TimePattern::from("%s").tells_age());
        assert!(before("%H:%M", 1).is_empty());
    }
}
