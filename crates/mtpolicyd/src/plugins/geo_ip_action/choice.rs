//! A list of codes, or all but those: `DE, AT`, `!DE, AT`.
//!
//! Knows: the codes of countries and continents, numbers of networks. Must not know: plugins, sessions.

use crate::facts::geoip::{Code, continents, is_country, suggestion};
use crate::value::{Value, nearest};
use std::fmt::{Display, Write};

/// What a list is made of.
pub trait Choosable: Copy + PartialEq + Display {
    /// What is written in the manual for a list.
    const FORM: &'static str;
    /// What a word means, and what is odd about it.
    fn read(word: &str) -> (Option<Self>, Option<String>);
    /// Whether a list may hold words that mean nothing: those of the original could.
    const MAY_BE_ODD: bool;
}

/// A list.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice<T> {
    inverted: bool,
    chosen: Vec<T>,
    oddities: Vec<String>,
}

impl<T: Choosable> Choice<T> {
    /// Whether what was found is meant; `None` where nothing is known.
    pub fn matches(&self, found: Option<T>, unknown_matches: bool) -> bool {
        found.map_or(unknown_matches, |found| self.chosen.contains(&found) != self.inverted)
    }

    /// What to warn of.
    pub fn oddities(&self) -> &[String] {
        &self.oddities
    }
}

impl<T: Choosable> Display for Choice<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, item) in self.chosen.iter().enumerate() {
            let before = match (n, self.inverted) {
                (0, true) => "!",
                (0, false) => "",
                _ => ",",
            };
            write!(f, "{before}{item}")?;
        }
        Ok(())
    }
}

impl<T: Choosable> Value for Choice<T> {
    const FORM: &'static str = T::FORM;
    fn parse(text: &str) -> Result<Self, String> {
        let (inverted, list) = match text.trim_start().strip_prefix('!') {
            Some(list) => (true, list),
            None => (false, text),
        };
        let mut choice = Choice { inverted, chosen: Vec::new(), oddities: Vec::new() };
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            // `!DE, !AT` can only mean one thing, `DE, !AT` nothing.
            let word = match word.strip_prefix('!') {
                Some(word) if inverted => word.trim(),
                Some(_) => return Err("`!` stands before the first and means all but the list".to_owned()),
                None => word,
            };
            let (item, oddity) = T::read(word);
            choice.chosen.extend(item);
            choice.oddities.extend(oddity);
        }
        // In such a list a slip hits those who were to be spared.
        match choice.oddities.first() {
            Some(oddity) if inverted || !T::MAY_BE_ODD => Err(oddity.clone()),
            _ if choice.chosen.is_empty() && (inverted || !T::MAY_BE_ODD) => {
                Err("the list is empty".to_owned())
            }
            _ => Ok(choice),
        }
    }
}

/// A country.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Country(pub Code);

impl Display for Country {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl Choosable for Country {
    const FORM: &'static str = "codes of countries, separated by commas; `!` before them means all but those";
    const MAY_BE_ODD: bool = true;
    fn read(word: &str) -> (Option<Self>, Option<String>) {
        let code: Option<Code> = word.parse().ok();
        let odd = !code.is_some_and(is_country);
        (code.map(Country), odd.then(|| no_code(word, "a country", suggestion(word))))
    }
}

/// A continent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continent(pub Code);

impl Display for Continent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl Choosable for Continent {
    const FORM: &'static str = "`AF`, `AN`, `AS`, `EU`, `NA`, `OC`, `SA`, separated by commas; `!` before \
                                them means all but those";
    const MAY_BE_ODD: bool = false;
    fn read(word: &str) -> (Option<Self>, Option<String>) {
        let code: Option<Code> = word.parse().ok();
        let code = code.filter(|code| continents().contains(&code.as_str()));
        let known = continents().iter().copied();
        let odd = || no_code(word, "a continent", nearest(word, known));
        (code.map(Continent), code.is_none().then(odd))
    }
}

/// The number of an autonomous system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asn(pub u32);

impl Display for Asn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AS{}", self.0)
    }
}
impl Choosable for Asn {
    const FORM: &'static str =
        "`AS15169` or `15169`, separated by commas; `!` before them means all but those";
    const MAY_BE_ODD: bool = false;
    fn read(word: &str) -> (Option<Self>, Option<String>) {
        let prefix = word.get(..2).filter(|prefix| prefix.eq_ignore_ascii_case("AS"));
        let digits = &word[prefix.map_or(0, str::len)..];
        // Rust would take a plus sign.
        let number = digits.parse().ok().filter(|_| digits.starts_with(|c: char| c.is_ascii_digit()));
        let odd = || format!("`{word}` is not the number of an autonomous system");
        (number.map(Asn), number.is_none().then(odd))
    }
}

fn no_code(word: &str, what: &str, suggestion: Option<&str>) -> String {
    let mut text = format!("`{word}` is not the code of {what}");
    if let Some(code) = suggestion {
        let _ = write!(text, "; did you mean `{code}`?");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn countries(text: &str) -> Choice<Country> {
        Choice::parse(text).unwrap()
    }

    fn country(code: &str) -> Option<Country> {
        code.parse().ok().map(Country)
    }

    #[test]
    fn a_list_holds_some_or_all_but_some() {
        let some = countries(" US, FR,de ,");
        assert_eq!(some.to_string(), "US,FR,DE");
        for (code, expected) in [("US", true), ("DE", true), ("AT", false), ("", false)] {
            assert_eq!(some.matches(country(code), false), expected, "{code}");
        }
        for text in ["!DE,AT", " ! DE , AT", "!DE,!AT"] {
            let others = countries(text);
            assert_eq!(others.to_string(), "!DE,AT");
            for (code, expected) in [("US", true), ("DE", false), ("AT", false), ("", false)] {
                assert_eq!(others.matches(country(code), false), expected, "{text} {code}");
            }
            assert!(others.matches(None, true) && some.matches(None, true));
        }
    }

    #[test]
    fn what_is_no_code_is_noticed_and_refused_where_it_would_hit_others() {
        assert_eq!(countries("DE,UK").oddities(), ["`UK` is not the code of a country; did you mean `GB`?"]);
        assert_eq!(countries("Germany").oddities().len(), 1);
        assert!(countries("").oddities().is_empty() && countries("DE,AT").oddities().is_empty());
        for bad in ["!UK", "!", "!,", "DE,!AT"] {
            assert!(Choice::<Country>::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "XX", "EU,!AS", "Europe"] {
            assert!(Choice::<Continent>::parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "AS", "ASx", "+5", "4294967296", "\u{e9}1", "1 2"] {
            assert!(Choice::<Asn>::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_have_numbers() {
        let networks = Choice::<Asn>::parse("as15169, 13335").unwrap();
        assert_eq!(networks.to_string(), "AS15169,AS13335");
        assert!(networks.matches(Some(Asn(13335)), false) && !networks.matches(Some(Asn(1)), false));
    }
}
