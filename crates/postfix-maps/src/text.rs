//! The logical lines of a table that people write.

/// A line of a table, with those that continue it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it begins, from 1.
    pub number: usize,
    /// The text, without line breaks and blanks at the end.
    pub text: String,
}

/// The logical lines of a text: one that begins with a blank continues the one before; empty lines and
/// those that begin with `#` are skipped, wherever they stand. A text that begins with a blank is taken
/// as if it did not.
pub fn logical_lines(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, line) in text.split('\n').enumerate() {
        let begin = line.trim_start_matches(is_blank);
        if begin.is_empty() || begin.starts_with('#') {
            continue;
        }
        match lines.last_mut() {
            Some(last) if begin.len() < line.len() => last.text.push_str(line),
            _ => lines.push(Line { number: index + 1, text: line.to_owned() }),
        }
    }
    for line in &mut lines {
        let end = line.text.trim_end_matches(is_blank).len();
        line.text.truncate(end);
    }
    lines
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
        let lines: Vec<_> = lines.iter().map(|line| (line.number, &*line.text)).collect();
        assert_eq!(lines, [(3, "key value  more\t\tand more"), (8, "other x")]);
        assert_eq!(logical_lines("\n \n#x"), []);
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
