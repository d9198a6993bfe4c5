//! What one string in the configuration, or in a session, can mean.
//!
//! Knows: text. Must not know: where the text comes from.

use std::fmt::Display;
use std::time::Duration;

/// A type which one string spells: `300`, `on`, `reject`.
pub trait Value: Sized + Clone + Display {
    /// What is written in the manual for a value of this type.
    const FORM: &'static str;
    /// The value, or what is wrong with the text.
    fn parse(text: &str) -> Result<Self, String>;
    /// Whether a value of this type may hold a secret. Lines with such options are not shown where it is not
    /// known what their values mean.
    const MAY_BE_SECRET: bool = false;
    /// Whether the text must not be seen in a log, nor in a file that everybody can read.
    fn is_secret(_text: &str) -> bool {
        false
    }
    /// Whether the text must not be seen in a log: it may hold a secret, or holds one.
    fn is_hidden(text: &str) -> bool {
        Self::is_secret(text)
    }
    /// What a user's setting says; `None` if it can't be read, so that the configured value holds.
    fn of_user(text: &str) -> Option<Self> {
        Self::parse(text).ok()
    }
}

/// Declares an enum whose variants are spelled as words in the configuration.
///
/// `else Variant` says what any other word means in a user's setting: databases of the original hold such
/// words, and it took every one of them for that variant.
macro_rules! words {
    ($(#[$meta:meta])* $vis:vis enum $Name:ident {
        $(#[$first_meta:meta])* $First:ident = $first:literal,
        $($(#[$variant_meta:meta])* $Variant:ident = $word:literal,)*
    } $(else $Other:ident)?) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $Name { $(#[$first_meta])* $First, $($(#[$variant_meta])* $Variant,)* }
        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $Name::$First => $first, $($Name::$Variant => $word,)* })
            }
        }
        impl $crate::value::Value for $Name {
            const FORM: &'static str = concat!("`", $first, "`" $(, ", `", $word, "`")*);
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $first => Ok($Name::$First),
                    $($word => Ok($Name::$Variant),)*
                    other => {
                        let known = [$first $(, $word)*];
                        let nearest = $crate::value::nearest(other, known);
                        let hint = nearest.map(|word| format!("; did you mean `{word}`?"));
                        let hint = hint.unwrap_or_default();
                        Err(format!("`{other}` is not one of {}{hint}", known.join(", ")))
                    }
                }
            }
            $(fn of_user(text: &str) -> Option<Self> {
                Some(Self::parse(text).unwrap_or($Name::$Other))
            })?
        }
    };
}
pub(crate) use words;

/// The known name that a mistyped one is most like, if any is like it at all.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this Jaro-Winkler similarity a suggestion confuses more than it helps.
    const ALIKE: f64 = 0.8;
    let typed = typed.to_lowercase();
    let rated = known.into_iter().map(|name| (strsim::jaro_winkler(&typed, &name.to_lowercase()), name));
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness > ALIKE).map(|(_, name)| name)
}

impl Value for String {
    const FORM: &'static str = "text";
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

words! {
    /// Whether something is done.
    pub enum Switch {
        /// It is done.
        On = "on",
        /// It is left out.
        Off = "off",
    } else On
}

/// A yes or no written the Perl way: `1`, or `0` and nothing for no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flag(pub bool);

impl Display for Flag {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 { "1" } else { "0" })
    }
}
impl Value for Flag {
    const FORM: &'static str = "`0`, `1`";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "1" => Ok(Flag(true)),
            "0" | "" => Ok(Flag(false)),
            other => Err(format!("`{other}` is neither 0 nor 1")),
        }
    }
}

/// A yes or no in words that people write; the original takes anything but `0` and nothing for a yes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth(pub bool);

impl Display for Truth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 { "1" } else { "0" })
    }
}
impl Value for Truth {
    const FORM: &'static str = "`0`, `1`, `yes`, `on`";
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "1" | "yes" | "on" | "true" => Ok(Truth(true)),
            "0" | "" => Ok(Truth(false)),
            "no" | "off" | "false" => Err(format!("`{text}` means yes to the original; write 0 for no")),
            other => Err(format!("`{other}` is neither 0 nor 1")),
        }
    }
}

/// Shows a type as the value in it.
macro_rules! shown_as_inner {
    ($($Type:ident),*) => {$(
        impl Display for $Type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
shown_as_inner!(Integer, Count, Seconds, Span, Limit);

/// A whole number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Integer(pub i64);

impl Value for Integer {
    const FORM: &'static str = "whole number";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Integer).map_err(|_| format!("`{text}` is not a whole number"))
    }
}

/// A number of things; may be 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count(pub u64);

impl Value for Count {
    const FORM: &'static str = "whole number, 0 or more";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Count).map_err(|_| format!("`{text}` is not a whole number of 0 or more"))
    }
}

/// A span of time, written as plain seconds or with a unit: `300`, `5m`, `2h`, `60d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub u64);

impl Seconds {
    /// As the standard library counts it.
    pub fn duration(self) -> Duration {
        Duration::from_secs(self.0)
    }
}
impl Value for Seconds {
    const FORM: &'static str = "seconds, or with a unit: `90`, `5m`, `2h`, `1d`";
    fn parse(text: &str) -> Result<Self, String> {
        /// A hundred years: longer is a slip of the finger, and must not overflow a deadline.
        const LONGEST: u64 = 100 * 365 * 86_400;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "" | "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            other => return Err(format!("`{other}` is not a unit of time; write s, m, h or d")),
        };
        let count: u64 = digits.parse().map_err(|_| format!("`{text}` is not a span of time"))?;
        let seconds = count.checked_mul(unit).filter(|seconds| *seconds <= LONGEST);
        seconds.map(Seconds).ok_or_else(|| format!("`{text}` is longer than a hundred years"))
    }
}

/// A span of time that is not nothing: `0` would mean never or at once, and nobody means that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Seconds);

impl Value for Span {
    const FORM: &'static str = "seconds, at least 1, or with a unit: `90`, `5m`, `2h`, `1d`";
    fn parse(text: &str) -> Result<Self, String> {
        let seconds = Seconds::parse(text)?;
        if seconds.0 == 0 { Err(format!("`{text}` is not a valid time")) } else { Ok(Span(seconds)) }
    }
}

/// A number of things, at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limit(pub u64);

impl Value for Limit {
    const FORM: &'static str = "whole number, 1 or more";
    fn parse(text: &str) -> Result<Self, String> {
        let limit = text.parse().ok().filter(|limit| *limit > 0);
        limit.map(Limit).ok_or_else(|| format!("`{text}` is not a whole number of 1 or more"))
    }
}

/// An amount of memory, in bytes or with a unit: `64M`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

/// The units of sizes, each 1024 times the one before.
const SIZE_UNITS: [char; 3] = ['K', 'M', 'G'];

impl Size {
    /// This many mebibytes.
    pub const fn mebibytes(count: usize) -> Size {
        Size(count << 20)
    }
}
impl Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mut count, mut unit) = (self.0, None);
        for next in SIZE_UNITS {
            if count == 0 || !count.is_multiple_of(1024) {
                break;
            }
            (count, unit) = (count / 1024, Some(next));
        }
        write!(f, "{count}")?;
        unit.map_or(Ok(()), |unit| write!(f, "{unit}"))
    }
}
impl Value for Size {
    const FORM: &'static str = "bytes, at least 1, or with a unit: `512K`, `64M`, `1G`";
    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match text[digits.len()..].to_ascii_uppercase().as_str() {
            "" => 1,
            "K" => 1 << 10,
            "M" => 1 << 20,
            "G" => 1 << 30,
            other => return Err(format!("`{other}` is not a unit of memory; write K, M or G")),
        };
        let bytes = digits.parse::<usize>().ok().and_then(|count| count.checked_mul(unit));
        bytes
            .filter(|bytes| *bytes > 0)
            .map(Size)
            .ok_or_else(|| format!("`{text}` is not an amount of memory"))
    }
}

/// Points for or against a message; higher is worse. Prints as it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    points: f64,
    written: Box<str>,
}

impl Score {
    /// The number that is added.
    pub fn points(&self) -> f64 {
        self.points
    }
}
impl From<f64> for Score {
    fn from(points: f64) -> Score {
        Score { points, written: perl_number(points).into() }
    }
}
impl Display for Score {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.written)
    }
}
impl Value for Score {
    const FORM: &'static str = "number";
    fn parse(text: &str) -> Result<Self, String> {
        let points = number(text).ok_or_else(|| format!("`{text}` is not a number"))?;
        Ok(Score { points, written: text.into() })
    }
    /// Databases pad columns with blanks.
    fn of_user(text: &str) -> Option<Self> {
        Self::parse(text.trim()).ok()
    }
}

/// A number as Perl's type checks accept it: no blanks, no `0x`, no `5.`, no infinity.
fn number(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let mantissa = unsigned.split(['e', 'E']).next()?;
    let starts_well = mantissa.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let ends_well = mantissa.ends_with(|c: char| c.is_ascii_digit());
    text.parse().ok().filter(|n: &f64| starts_well && ends_well && n.is_finite())
}

/// What Perl makes of text where it needs a number: the number in front, else 0.
pub fn numeric_prefix(text: &[u8]) -> f64 {
    let text = text.trim_ascii_start();
    let sign = usize::from(text.first().is_some_and(|b| matches!(b, b'+' | b'-')));
    let digits = |from: usize| text[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = digits(sign);
    let mut end = sign + whole;
    if text.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1);
    }
    if text.get(end).is_some_and(|b| matches!(b, b'e' | b'E')) {
        let after_sign = end + 1 + usize::from(text.get(end + 1).is_some_and(|b| matches!(b, b'+' | b'-')));
        if digits(after_sign.min(text.len())) > 0 {
            end = after_sign + digits(after_sign);
        }
    }
    let word = |word: &[u8]| text[sign..].get(..word.len()).is_some_and(|at| at.eq_ignore_ascii_case(word));
    if word(b"inf") {
        return if text.first() == Some(&b'-') { f64::NEG_INFINITY } else { f64::INFINITY };
    }
    if word(b"nan") {
        return f64::NAN;
    }
    std::str::from_utf8(&text[..end]).ok().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// A number as Perl prints it: fifteen digits, no trailing zeros, an exponent when it is very large or small.
///
/// Perl adds whole numbers as integers while they fit, so those keep all their digits.
pub fn perl_number(number: f64) -> String {
    /// Of `%.15g`, with which Perl prints.
    const DIGITS: usize = 15;
    /// Below it and from -4 on an exponent is written out.
    const POSITIONAL: std::ops::Range<i32> = -4..DIGITS as i32;
    /// What fits into 64 bits with or without a sign.
    const INTEGERS: std::ops::Range<f64> = -9_223_372_036_854_775_808.0..18_446_744_073_709_551_616.0;
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Inf" } else { "-Inf" }.to_owned();
    }
    if number.fract() == 0.0 && INTEGERS.contains(&number) {
        // The sum has no negative zero.
        let is_short = number.abs() < 1e15;
        return if is_short { (number as i64).to_string() } else { (number + 0.0).to_string() };
    }
    // Rust prints the fewest digits that read back as the same number: those, unless they are too many.
    if (1e-4..1e15).contains(&number.abs()) {
        let text = number.to_string();
        // With the point, and perhaps a sign and a zero before it, which are not digits of the number.
        if text.len() <= DIGITS + 1 {
            return text;
        }
    }
    let mut scientific = format!("{number:e}");
    let digits = scientific.bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    let mut rounded = number;
    if digits > DIGITS {
        rounded = format!("{number:.*e}", DIGITS - 1).parse().unwrap_or(number);
        scientific = format!("{rounded:e}");
    }
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse() {
        Ok(exponent) if POSITIONAL.contains(&exponent) => rounded.to_string(),
        Ok(exponent) if exponent < 0 => format!("{mantissa}e-{:02}", -exponent),
        _ => format!("{mantissa}e+{exponent:0>2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_of_1024() {
        for (text, bytes, shown) in
            [("1", 1, "1"), ("64M", 64 << 20, "64M"), ("1024k", 1 << 20, "1M"), ("1500", 1500, "1500")]
        {
            assert_eq!(Size::parse(text), Ok(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), shown);
        }
        for bad in ["", "0", "-1", "M", "1.5M", "1T", "1 M", "99999999999999999G"] {
            assert!(Size::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scores_take_what_perl_takes_for_a_number() {
        for good in ["-1.5e2", "+5", ".5", "0", "1e3", "100000000000000000000", "-7.0"] {
            assert_eq!(Score::parse(good).map(|s| s.to_string()), Ok(good.to_owned()));
        }
        for bad in ["abc", "5 ", " 5", "5.", "", "0x10", "Inf", "nan", "1_0", ".", "-", "1e", "1e999"] {
            assert!(Score::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_print_as_in_perl() {
        let cases = [
            (0.1 + 0.2, "0.3"),
            (7.5, "7.5"),
            (-10.0, "-10"),
            (1e20, "1e+20"),
            (1e14, "100000000000000"),
            (1e15, "1000000000000000"),
            (1e15 + 0.25, "1e+15"),
            (1e21, "1e+21"),
            (-1e19, "-1e+19"),
            (1e308 * 10.0, "Inf"),
            (12_345_678.901_234_568, "12345678.9012346"),
            (0.1 + 0.2 - 0.5, "-0.2"),
            (1e-7, "1e-07"),
            (1.25e-9, "1.25e-09"),
            (0.000_001, "1e-06"),
            (0.000_01, "1e-05"),
            (0.000_1, "0.0001"),
            (1_234_567.891, "1234567.891"),
            (-0.0, "0"),
            (99_999_999_999_999.5, "99999999999999.5"),
        ];
        for (number, text) in cases {
            assert_eq!(perl_number(number), text);
        }
    }

    #[test]
    fn text_counts_as_the_number_it_begins_with() {
        let cases = [
            ("9abc", 9.0),
            ("abc", 0.0),
            ("", 0.0),
            (" 5", 5.0),
            ("0x7ff", 0.0),
            ("1e4", 1e4),
            ("1e", 1.0),
            ("-0.5", -0.5),
            ("1,5", 1.0),
            (".5.5", 0.5),
            ("-inf", f64::NEG_INFINITY),
        ];
        for (text, value) in cases {
            assert_eq!(numeric_prefix(text.as_bytes()), value, "{text}");
        }
    }

    #[test]
    fn spans_of_time_have_units() {
        assert_eq!(Seconds::parse("90"), Ok(Seconds(90)));
        assert_eq!(Seconds::parse("2h"), Ok(Seconds(7_200)));
        for bad in ["abc", "", "-1", "1.5", "5 m", "99999999999999999999", "9999999999d"] {
            assert!(Seconds::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Span::parse("1m"), Ok(Span(Seconds(60))));
        assert!(Span::parse("0").is_err() && Limit::parse("0").is_err());
    }

    #[test]
    fn a_mistyped_word_gets_the_nearest_one() {
        assert_eq!(Switch::parse("onn"), Err("`onn` is not one of on, off; did you mean `on`?".to_owned()));
        assert_eq!(nearest("scroe", ["score", "domain"]), Some("score"));
        assert_eq!(nearest("zzz", ["score", "domain"]), None);
    }
}
