//! What one string in the configuration, or in a session, can mean.
//!
//! Knows: text. Must not know: where the text comes from.

mod elsewhere;
mod perl;
mod time;

pub use elsewhere::{has_key_elsewhere, is_key_elsewhere, key_files, resolve};
pub use perl::{numeric_prefix, perl_number};
pub use time::{NonZeroSeconds, Seconds};

use std::fmt::Display;

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
    /// The fields of the session that a value of this type looks at.
    fn session_fields(&self) -> Vec<String> {
        Vec::new()
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

/// A word as a shell reads it back.
pub fn shell_word(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,".contains(&byte);
    if !word.is_empty() && word.bytes().all(is_plain) && !word.starts_with('-') {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
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
shown_as_inner!(Integer, Count, Limit);

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

/// A number of which 0 means that there is none; that is decided when the text is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroIsNone<T>(pub Option<T>);

/// What can be 0.
pub trait Number: Value {
    /// Whether it is.
    fn is_zero(&self) -> bool;
}
impl Number for Count {
    fn is_zero(&self) -> bool {
        self.0 == 0
    }
}
impl Number for Seconds {
    fn is_zero(&self) -> bool {
        *self == Seconds::default()
    }
}
impl Number for Score {
    fn is_zero(&self) -> bool {
        self.points == 0.0
    }
}

impl<T: Number> From<T> for ZeroIsNone<T> {
    fn from(number: T) -> Self {
        ZeroIsNone(Some(number).filter(|number| !number.is_zero()))
    }
}
impl<T: Display> Display for ZeroIsNone<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Some(number) => number.fmt(f),
            None => f.write_str("0"),
        }
    }
}
impl<T: Number> Value for ZeroIsNone<T> {
    const FORM: &'static str = T::FORM;
    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(ZeroIsNone::from)
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
        let points = perl::number(text).ok_or_else(|| format!("`{text}` is not a number"))?;
        Ok(Score { points, written: text.into() })
    }
    /// Databases pad columns with blanks.
    fn of_user(text: &str) -> Option<Self> {
        Self::parse(text.trim()).ok()
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
    fn spans_of_time_have_units() {
        assert_eq!(Seconds::parse("90"), Ok(Seconds::of(90)));
        assert_eq!(Seconds::parse("2h"), Ok(Seconds::of(7_200)));
        for bad in ["abc", "", "-1", "1.5", "5 m", "99999999999999999999", "9999999999d"] {
            assert!(Seconds::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(NonZeroSeconds::parse("1m"), Ok(NonZeroSeconds(Seconds::of(60))));
        assert!(NonZeroSeconds::parse("0").is_err() && Limit::parse("0").is_err());
    }

    #[test]
    fn zero_is_none_of_it() {
        assert_eq!(ZeroIsNone::parse("0"), Ok(ZeroIsNone::<Seconds>(None)));
        assert_eq!(ZeroIsNone::parse("2m"), Ok(ZeroIsNone(Some(Seconds::of(120)))));
        assert_eq!(ZeroIsNone::parse("0.0"), Ok(ZeroIsNone::<Score>(None)));
        assert_eq!(
            ZeroIsNone::<Count>::parse("-1"),
            Err("`-1` is not a whole number of 0 or more".to_owned())
        );
        assert_eq!([Count(0), Count(7)].map(|count| ZeroIsNone::from(count).to_string()), ["0", "7"]);
    }

    #[test]
    fn a_mistyped_word_gets_the_nearest_one() {
        assert_eq!(Switch::parse("onn"), Err("`onn` is not one of on, off; did you mean `on`?".to_owned()));
        assert_eq!(nearest("scroe", ["score", "domain"]), Some("score"));
        assert_eq!(nearest("zzz", ["score", "domain"]), None);
    }
}
