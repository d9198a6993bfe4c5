//! The spans of time in which is counted.
//!
//! Knows: strftime. Must not know: tables.

use crate::value::Value;
use crate::world::clock::Clock;

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
}
