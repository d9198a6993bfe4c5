//! Text with macros, `%{ir}.%{v}._spf.%{d2}` (RFC 7208, 7.1), as a domain writes it.
//!
//! Knows: the grammar of macros. Must not know: what they stand for in a check.

use crate::error::SyntaxError;
use crate::record::MAX_RECORD_BYTES;
use std::fmt;

/// Maximum number of macros in one text. A name has at most 127 labels, so no honest text needs more.
pub(crate) const MAX_MACROS: usize = 128;

/// What may separate the parts of a macro's value.
const DELIMITERS: &str = ".-+,/_=";

/// What separates them where the macro does not say it.
const DEFAULT_DELIMITER: &str = ".";

/// Text with macros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MacroText {
    pub(crate) parts: Vec<Part>,
    source: Box<str>,
}

/// A piece of such a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It stands for itself.
    Literal(String),
    /// A value of the check stands for it.
    Macro(Macro),
}

/// What stands in `%{...}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Macro {
    /// Which value, in lower case.
    pub letter: char,
    /// Whether the value is escaped as in a URL, for which the letter is a capital.
    pub escaped: bool,
    /// The number of parts to keep, from the right; `None` keeps all.
    pub kept: Option<usize>,
    /// Whether its parts are turned round.
    pub reversed: bool,
    /// What separates its parts, each once.
    pub delimiters: Box<str>,
}

/// Where a text stands, which says what may be in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a record, as a domain.
    Domain,
    /// In a record, after the name of a modifier that nobody knows.
    Modifier,
    /// In the record that explains a failure.
    Explanation,
}

impl MacroText {
    /// The text of an explanation, or what is wrong with it. It is ASCII, and no longer than a record.
    pub fn explanation(text: &str) -> Result<MacroText, SyntaxError> {
        if text.len() > MAX_RECORD_BYTES {
            return Err(SyntaxError::new("a text has more than 16384 bytes", text));
        }
        MacroText::parse(text, Place::Explanation)
    }

    pub(crate) fn parse(text: &str, place: Place) -> Result<MacroText, SyntaxError> {
        let mut parts = Vec::new();
        let mut macros = 0;
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some(body) = rest.strip_prefix("%{") {
                let Some((body, after)) = body.split_once('}') else {
                    return Err(SyntaxError::new("a macro has no end", rest));
                };
                macros += 1;
                if macros > MAX_MACROS {
                    return Err(SyntaxError::new("a text has more than 128 macros", text));
                }
                parts.push(Part::Macro(Macro::parse(body, place)?));
                rest = after;
                continue;
            }
            let (literal, length) = match rest.get(..2) {
                Some("%%") => ("%", 2),
                Some("%_") => (" ", 2),
                Some("%-") => ("%20", 2),
                _ => {
                    let allowed = c.is_ascii_graphic() && c != '%' || c == ' ' && place == Place::Explanation;
                    if !allowed {
                        return Err(SyntaxError::new("this can't stand here", rest));
                    }
                    (&rest[..1], 1)
                }
            };
            match parts.last_mut() {
                Some(Part::Literal(before)) => before.push_str(literal),
                _ => parts.push(Part::Literal(literal.to_owned())),
            }
            rest = &rest[length..];
        }
        Ok(MacroText { parts, source: text.into() })
    }

    /// The text of a domain, which ends in a macro or in a name that can be one of the highest level.
    pub(crate) fn domain(text: &str) -> Result<MacroText, SyntaxError> {
        let parsed = MacroText::parse(text, Place::Domain)?;
        if ends_in_macro(text) || ends_in_top_label(text) {
            Ok(parsed)
        } else {
            Err(SyntaxError::new("this is not a domain", text))
        }
    }

    /// Whether it has a macro with that letter.
    pub(crate) fn has(&self, letter: char) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Macro(found) if found.letter == letter))
    }
}

impl fmt::Display for MacroText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

/// Whether the last thing in a text that could be parsed is a macro.
fn ends_in_macro(text: &str) -> bool {
    let tail = text.rsplit_once('%').map(|(before, tail)| (before.ends_with('%'), tail));
    match tail {
        // The last of `%%`, `%%%%` and so on, but not the text after it.
        Some((true, "")) | Some((_, "_" | "-")) => true,
        Some((_, tail)) => tail.starts_with('{') && tail.find('}') == Some(tail.len() - 1),
        None => false,
    }
}

fn ends_in_top_label(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let Some((_, top)) = text.rsplit_once('.') else { return false };
    let bytes = top.as_bytes();
    let all = |is: fn(&u8) -> bool| bytes.iter().all(is);
    !bytes.is_empty()
        && all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && !all(u8::is_ascii_digit)
        && !top.starts_with('-')
        && !top.ends_with('-')
}

impl Macro {
    /// From what stands between the braces.
    fn parse(body: &str, place: Place) -> Result<Macro, SyntaxError> {
        let error = |what| Err(SyntaxError::new(what, body));
        let mut chars = body.chars();
        let Some(first) = chars.next() else { return error("a macro is empty") };
        let letter = first.to_ascii_lowercase();
        let known = match letter {
            's' | 'l' | 'o' | 'd' | 'i' | 'p' | 'v' | 'h' => true,
            'c' | 'r' | 't' => place != Place::Domain,
            _ => false,
        };
        if !known {
            return error("there is no such macro here");
        }
        let rest = chars.as_str();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = rest.split_at(digits);
        // No value has more parts than fit into the number.
        let kept = (!digits.is_empty()).then(|| digits.parse().unwrap_or(usize::MAX));
        if kept == Some(0) {
            return error("a macro keeps no part of its value");
        }
        let reversed = rest.starts_with(['r', 'R']);
        let rest = if reversed { &rest[1..] } else { rest };
        if !rest.chars().all(|c| DELIMITERS.contains(c)) {
            return error("a macro can't be read");
        }
        // One that stands there a thousand times would be looked for a thousand times in each value.
        let delimiters = match rest {
            "" => DEFAULT_DELIMITER.into(),
            some => DELIMITERS.chars().filter(|c| some.contains(*c)).collect(),
        };
        Ok(Macro { letter, escaped: first.is_ascii_uppercase(), kept, reversed, delimiters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_ends_in_a_name_or_a_macro() {
        for good in
            ["example.org", "example.org.", "%{d}", "a%%", "x.%{i}", "%{d}.org", "a.b-c", "x.1a", "a%_"]
        {
            assert!(MacroText::domain(good).is_ok(), "{good}");
        }
        for bad in ["", "org", "org.", "a.123", "a.-b", "a.b-", "%{d}x", "a.b/24", "a..", "%%a", "%{d}%%.x/"]
        {
            assert!(MacroText::domain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn macros_have_a_grammar() {
        for bad in ["%{}", "%{x}", "%{d", "%{d0}", "%{dr2}", "%{d*}", "%", "%a", "%{ d}", "%{c}", "a b", "ü"]
        {
            assert!(MacroText::parse(bad, Place::Domain).is_err(), "{bad}");
        }
        let text = MacroText::explanation("See %{L12R-+}%_%{c}").unwrap();
        let kept =
            Macro { letter: 'l', escaped: true, kept: Some(12), reversed: true, delimiters: "-+".into() };
        assert_eq!(text.parts[1], Part::Macro(kept));
        assert!(text.has('c') && !text.has('p'));
        let text = MacroText::domain(&format!("%{{s{}}}", "=.=".repeat(1000))).unwrap();
        let Part::Macro(wanted) = &text.parts[0] else { panic!("{text}") };
        assert_eq!(&*wanted.delimiters, ".=");
    }

    #[test]
    fn texts_and_their_macros_are_bounded() {
        assert!(MacroText::domain(&"%{d}".repeat(MAX_MACROS)).is_ok());
        let error = MacroText::domain(&"%{d}".repeat(MAX_MACROS + 1)).unwrap_err().to_string();
        assert!(error.starts_with("a text has more than 128 macros: `%{d}"), "{error}");
        assert!(MacroText::explanation(&"x".repeat(MAX_RECORD_BYTES)).is_ok());
        assert!(MacroText::explanation(&"x".repeat(MAX_RECORD_BYTES + 1)).is_err());
    }
}
