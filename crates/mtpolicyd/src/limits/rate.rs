//! How much may pass in which time: `100/1h, 1000/1d`.
//!
//! Knows: text, whole numbers. Must not know: what the limit is for, where it is counted.

use super::state::{LARGEST, PARTS, Rule};
use crate::value::{Seconds, Value, words};
use std::fmt::Display;

words! {
    /// How a limit looks at time.
    pub enum Algorithm {
        /// So much in any stretch of that length.
        Window = "window",
        /// So much at once, and what was taken comes back steadily.
        Bucket = "bucket",
    }
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    amount: u64,
    /// In milliseconds.
    period: u64,
    burst: Option<u64>,
    written: Box<str>,
}

/// Several limits, each of which has to hold; or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rates(Vec<Rate>);

/// More limits on one thing than anybody can explain; each costs time in every request.
const MAX_RATES: usize = 8;

impl Rates {
    /// Each limit.
    pub fn iter(&self) -> impl Iterator<Item = &Rate> {
        self.0.iter()
    }

    /// The limits as they are counted.
    pub fn rules(&self, algorithm: Algorithm) -> Vec<Rule> {
        self.0.iter().map(|rate| rate.rule(algorithm)).collect()
    }

    /// Whether there is no limit.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of them says how much may come at once.
    pub fn has_burst(&self) -> bool {
        self.0.iter().any(|rate| rate.burst.is_some())
    }
}

impl Rate {
    /// The length of its window in milliseconds.
    pub fn period(&self) -> u64 {
        self.period
    }

    /// How much may be counted at once.
    pub fn most(&self, algorithm: Algorithm) -> u64 {
        match algorithm {
            Algorithm::Window => self.amount,
            Algorithm::Bucket => self.burst.unwrap_or(self.amount),
        }
    }

    /// After how many milliseconds without a request nothing is counted any more.
    pub fn life(&self, algorithm: Algorithm) -> u64 {
        self.rule(algorithm).life.unsigned_abs()
    }

    /// The limit as it is counted.
    fn rule(&self, algorithm: Algorithm) -> Rule {
        let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        match algorithm {
            Algorithm::Window => Rule {
                name: format!("w{}", self.period),
                life: signed(self.period),
                leak: 0,
                scale: 1,
                capacity: signed(self.amount),
                grain: if signed(self.amount) <= PARTS { 1 } else { signed(self.period) / PARTS },
            },
            Algorithm::Bucket => {
                let (leak, scale) = self.steps();
                let capacity = self.burst.unwrap_or(self.amount).saturating_mul(scale);
                // A bucket out of which nothing runs stays as it is for the time that is written.
                let life = capacity.checked_div(leak).map_or(self.period, |life| life.max(self.period));
                Rule {
                    name: format!("b{life}.{leak}.{scale}"),
                    life: signed(life),
                    leak: signed(leak),
                    scale: signed(scale),
                    capacity: signed(capacity),
                    grain: 0,
                }
            }
        }
    }

    /// In whole numbers: `leak` of the bucket's units run out in a millisecond, and one that is counted fills
    /// `scale` of them.
    fn steps(&self) -> (u64, u64) {
        let divisor = greatest_common_divisor(self.amount, self.period);
        (self.amount / divisor, self.period / divisor)
    }

    fn parse(text: &str) -> Result<Rate, String> {
        let form = || format!("`{text}` is not a limit such as 100/1h");
        let (amount, rest) = text.split_once('/').ok_or_else(form)?;
        let rest = rest.trim_start();
        let (period, burst) = match rest.split_once(char::is_whitespace) {
            None => (rest, None),
            Some((period, rest)) => {
                let burst = rest.trim_start().strip_prefix("burst").ok_or_else(form)?;
                (period, Some(parse_amount(burst.trim())?))
            }
        };
        let rate = Rate {
            amount: parse_amount(amount.trim_end())?,
            period: parse_period(period)? * 1000,
            burst,
            // It may come from a database, and goes into an answer.
            written: text.split_whitespace().collect::<Vec<_>>().join(" ").into(),
        };
        let at_once = rate.burst.unwrap_or(0).max(rate.amount).max(1);
        if at_once.checked_mul(rate.steps().1).is_none_or(|units| units > LARGEST.unsigned_abs()) {
            return Err(format!("`{text}` can't be counted exactly; a rounder number can"));
        }
        Ok(rate)
    }
}

fn parse_amount(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" => 1,
        "k" | "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        other => return Err(format!("`{other}` is not one of the units k, M and G")),
    };
    let count: Option<u64> = digits.parse().ok();
    let amount =
        count.and_then(|count| count.checked_mul(unit)).filter(|amount| *amount <= LARGEST.unsigned_abs());
    amount.ok_or_else(|| format!("`{text}` is not a whole number, or too large"))
}

/// In seconds; `h` alone is one hour.
fn parse_period(text: &str) -> Result<u64, String> {
    const WEEK: u64 = 7 * 86_400;
    /// Longer than anybody looks back, and what has to be kept is bounded.
    const LONGEST: u64 = 366 * 86_400;
    let with_count =
        if text.starts_with(|c: char| c.is_ascii_alphabetic()) { format!("1{text}") } else { text.into() };
    let seconds = match with_count.strip_suffix('w') {
        Some(weeks) => weeks.parse().ok().and_then(|weeks: u64| weeks.checked_mul(WEEK)),
        None if with_count.ends_with(|c: char| c.is_ascii_digit()) => {
            return Err(format!("`{text}` has no unit of time; write s, m, h, d or w"));
        }
        None => {
            let time = Seconds::parse(&with_count)?;
            Some(time.whole()).filter(|seconds| Seconds::of(*seconds) == time)
        }
    };
    let allowed = seconds.filter(|seconds| (1..=LONGEST).contains(seconds));
    allowed.ok_or_else(|| format!("`{text}` is not a time from a second to a year"))
}

/// The length of a window in milliseconds, as an administrator names it: `1h`, `hour`.
pub fn parse_window(text: &str) -> Result<u64, String> {
    let unit = match text {
        "second" => "1s",
        "minute" => "1m",
        "hour" => "1h",
        "day" => "1d",
        "week" => "1w",
        other => other,
    };
    parse_period(unit).map(|seconds| seconds * 1000)
}

/// A length in milliseconds as it is written: `1h`.
pub fn window_text(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let units = [("w", 7 * 86_400), ("d", 86_400), ("h", 3_600), ("m", 60)];
    match units.iter().find(|(_, length)| seconds > 0 && seconds.is_multiple_of(*length)) {
        Some((unit, length)) => format!("{}{unit}", seconds / length),
        None => format!("{seconds}s"),
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

impl Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.written)
    }
}

/// What stands for no limit at all.
const NONE: &str = "none";

impl Display for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str(NONE);
        }
        self.0.iter().enumerate().try_for_each(|(n, rate)| {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{rate}")
        })
    }
}

impl Value for Rates {
    const FORM: &'static str = "`NUMBER/TIME` such as `100/1h`, several separated by commas; or `none`";
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == NONE {
            return Ok(Rates::default());
        }
        let rates: Vec<_> = text.split(',').map(|rate| Rate::parse(rate.trim())).collect::<Result<_, _>>()?;
        if rates.len() > MAX_RATES {
            return Err(format!("there are more than {MAX_RATES} limits"));
        }
        let twice =
            rates.iter().enumerate().find(|(n, rate)| rates[..*n].iter().any(|r| r.period == rate.period));
        match twice {
            Some((_, rate)) => Err(format!("`{rate}` is a second limit over the same time")),
            None => Ok(Rates(rates)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers_and_times() {
        let rates = Rates::parse("100/1h,1000 / d , 5M/2w burst\n 1G").unwrap();
        let numbers: Vec<_> =
            rates.iter().map(|rate| (rate.amount, rate.period / 1000, rate.burst)).collect();
        assert_eq!(numbers, [(100, 3600, None), (1000, 86_400, None), (5 << 20, 14 * 86_400, Some(1 << 30))]);
        assert_eq!(rates.to_string(), "100/1h, 1000 / d, 5M/2w burst 1G");
        assert_eq!(Rates::parse("none").unwrap().to_string(), "none");
    }

    #[test]
    fn mistakes_say_what_is_wrong() {
        for (text, why) in [
            ("100", "`100` is not a limit such as 100/1h"),
            ("", "`` is not a limit such as 100/1h"),
            ("a/1h", "`a` is not one of the units k, M and G"),
            ("-1/1h", "`-1` is not a whole number, or too large"),
            ("9X/1h", "`X` is not one of the units k, M and G"),
            ("1/60", "`60` has no unit of time; write s, m, h, d or w"),
            ("1/0s", "`0s` is not a time from a second to a year"),
            ("1/1500ms", "`1500ms` is not a time from a second to a year"),
            ("1/99w", "`99w` is not a time from a second to a year"),
            ("1/1h brust 3", "`1/1h brust 3` is not a limit such as 100/1h"),
            ("1/1h, 2/60m", "`2/60m` is a second limit over the same time"),
            ("9999999999999999/1h", "`9999999999999999` is not a whole number, or too large"),
            ("999999999999999/1w", "`999999999999999/1w` can't be counted exactly; a rounder number can"),
        ] {
            assert_eq!(Rates::parse(text), Err(why.to_owned()), "{text}");
        }
        assert!(Rates::parse(&"1/1s,".repeat(9)).is_err());
    }

    #[test]
    fn a_window_has_a_name() {
        for (name, text, seconds) in
            [("hour", "1h", 3600), ("90m", "90m", 5400), ("7d", "1w", 604_800), ("59s", "59s", 59)]
        {
            assert_eq!(parse_window(name), Ok(seconds * 1000), "{name}");
            assert_eq!(window_text(seconds * 1000), text);
        }
        assert!(parse_window("month").is_err());
    }

    #[test]
    fn a_bucket_is_counted_in_whole_numbers() {
        let rules = Rates::parse("7/1h, 1/1s burst 10, 0/1m").unwrap().rules(Algorithm::Bucket);
        let numbers: Vec<_> =
            rules.iter().map(|rule| (rule.leak, rule.scale, rule.capacity, rule.life)).collect();
        assert_eq!(
            numbers,
            [(7, 3_600_000, 25_200_000, 3_600_000), (1, 1000, 10_000, 10_000), (0, 1, 0, 60_000)]
        );
    }
}
