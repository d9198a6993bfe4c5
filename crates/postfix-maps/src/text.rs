//! The logical lines of a table that people write.

use std::borrow::Cow;
use std::iter::{Enumerate, Peekable};
use std::str::Split;

/// A line of a table, with those that continue it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Where it begins, from 1.
    pub number: usize,
    /// The text, without line breaks and blanks at the end.
    pub text: Cow<'a, str>,
}

/// The logical lines of a text, see [`logical_lines`].
#[derive(Clone, Debug)]
pub struct Lines<'a>(Peekable<Enumerate<Split<'a, char>>>);

/// The logical lines of a text: one that begins with a blank continues the one before; empty lines and
/// those that begin with `#` are skipped, wherever they stand. A text that begins with a blank is taken
/// as if it did not.
pub fn logical_lines(text: &str) -> Lines<'_> {
    Lines(text.split('\n').enumerate().peekable())
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let (index, first) = self.0.find(|(_, line)| !is_skipped(line))?;
        let mut text = Cow::Borrowed(first);
        while let Some((_, line)) = self.0.next_if(|(_, line)| is_skipped(line) || line.starts_with(is_blank))
        {
            if !is_skipped(line) {
                text.to_mut().push_str(line);
            }
        }
        match &mut text {
            Cow::Borrowed(text) => *text = text.trim_end_matches(is_blank),
            Cow::Owned(text) => text.truncate(text.trim_end_matches(is_blank).len()),
        }
        Some(Line { number: index + 1, text })
    }
}

/// Whether a physical line says nothing.
fn is_skipped(line: &str) -> bool {
    let begin = line.trim_start_matches(is_blank);
    begin.is_empty() || begin.starts_with('#')
}

/// The key and the value of a line: the key ends at the first blank outside of double quotes, which stay part
/// of it. `None` if one of them is missing.
pub fn key_and_value(line: &str) -> Option<(&str, &str)> {
    let (mut quoted, mut escaped) = (false, false);
    let end = line.find(|c| {
        let ends = is_blank(c) && !quoted && !escaped;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    let (key, value) = line.split_at(end?);
    let value = value.trim_matches(is_blank);
    (!key.is_empty() && !value.is_empty()).then_some((key, value))
}

/// What separates a key from its value.
pub fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\x0b' | '\x0c' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_on_where_they_are_indented() {
        let lines = logical_lines("# a\n\nkey value\n# b\n\n  more\t\n\tand more\r\nother x\n   # c\n");
        let lines: Vec<_> = lines.map(|line| (line.number, line.text.into_owned())).collect();
        let line = |number, text: &str| (number, text.to_owned());
        assert_eq!(lines, [line(3, "key value  more\t\tand more"), line(8, "other x")]);
        assert_eq!(logical_lines("\n \n#x").count(), 0);
        let first = logical_lines("  a b\n").next().map(|line| line.text);
        assert!(matches!(first, Some(Cow::Borrowed("  a b"))), "{first:?}");
    }

    #[test]
    fn a_key_ends_at_a_blank() {
        for (line, pair) in [
            ("a@b  OK now", Some(("a@b", "OK now"))),
            ("\"a b\"@c\tOK", Some(("\"a b\"@c", "OK"))),
            ("a\\ b OK", Some(("a\\ b", "OK"))),
            ("\"a\\\" b\" OK", Some(("\"a\\\" b\"", "OK"))),
            ("alone", None),
            ("alone ", None),
        ] {
            assert_eq!(key_and_value(line), pair, "{line}");
        }
    }
}
