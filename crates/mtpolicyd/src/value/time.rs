//! Spans of time.
//!
//! Knows: text. Must not know: where the text comes from.

use super::Value;
use std::fmt::Display;
use std::time::Duration;

/// A span of time, written as plain seconds or with a unit: `300`, `200ms`, `5m`, `2h`, `60d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds {
    milliseconds: u64,
}

impl Seconds {
    /// This many seconds.
    pub const fn of(seconds: u64) -> Seconds {
        Seconds { milliseconds: seconds * 1000 }
    }

    /// As the standard library counts it.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.milliseconds)
    }

    /// The number of seconds, the last one of which may be only a part of one: for what is counted in whole
    /// seconds.
    pub fn whole(self) -> u64 {
        self.milliseconds.div_ceil(1000)
    }
}
impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.milliseconds {
            whole if whole.is_multiple_of(1000) => write!(f, "{}", whole / 1000),
            milliseconds => write!(f, "{milliseconds}ms"),
        }
    }
}
impl Value for Seconds {
    const FORM: &'static str = "seconds, or with a unit: `90`, `200ms`, `5m`, `2h`, `1d`";
    fn parse(text: &str) -> Result<Self, String> {
        /// A hundred years: longer is a slip of the finger, and must not overflow a deadline.
        const LONGEST: u64 = 100 * 365 * 86_400_000;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            other => return Err(format!("`{other}` is not a unit of time; write ms, s, m, h or d")),
        };
        let count: u64 = digits.parse().map_err(|_| format!("`{text}` is not a span of time"))?;
        let milliseconds = count.checked_mul(unit).filter(|milliseconds| *milliseconds <= LONGEST);
        let time = milliseconds.map(|milliseconds| Seconds { milliseconds });
        time.ok_or_else(|| format!("`{text}` is longer than a hundred years"))
    }
}

/// A span of time that is not nothing: `0` would mean never or at once, and nobody means that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NonZeroSeconds(pub Seconds);

impl Value for NonZeroSeconds {
    const FORM: &'static str = "seconds, more than 0, or with a unit: `90`, `200ms`, `5m`, `2h`, `1d`";
    fn parse(text: &str) -> Result<Self, String> {
        let seconds = Seconds::parse(text)?;
        if seconds == Seconds::default() {
            Err(format!("`{text}` is not a valid time"))
        } else {
            Ok(NonZeroSeconds(seconds))
        }
    }
}

impl Display for NonZeroSeconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_be_shorter_than_a_second() {
        for (text, milliseconds, shown) in
            [("200ms", 200, "200ms"), ("1500ms", 1500, "1500ms"), ("2000ms", 2000, "2"), ("1m", 60_000, "60")]
        {
            let time = Seconds::parse(text).unwrap();
            assert_eq!(time.duration().as_millis(), milliseconds, "{text}");
            assert_eq!(time.to_string(), shown);
            assert_eq!(time.whole(), u64::try_from(milliseconds.div_ceil(1000)).unwrap());
            assert_eq!(Seconds::parse(shown), Ok(time), "{text}");
        }
        assert!(NonZeroSeconds::parse("0ms").is_err() && Seconds::parse("1.5s").is_err());
    }
}
