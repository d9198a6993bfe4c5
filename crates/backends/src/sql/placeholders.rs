//! `?` for parameters turned into PostgreSQL's `$1`, `$2`, ..., or into values.
//!
//! Knows: where SQL's quotes and comments end. Must not know: what a statement does.

/// The statement with numbered parameters, without a semicolon at its end. A `?` inside quotes or comments is
/// none; `??` is an operator's question mark, as in DBD::Pg.
pub(super) fn numbered(sql: &str) -> String {
    number(sql).0
}

/// The statement with what `value` gives for each parameter, counted from 0, and the number of parameters.
/// Where it gives nothing, the parameter stays.
pub(super) fn filled(sql: &str, value: impl Fn(usize) -> Option<String>) -> (String, usize) {
    replaced(sql, |count| value(count).unwrap_or_else(|| "?".to_owned()))
}

/// The number of parameters of a statement.
pub fn count_parameters(sql: &str) -> usize {
    number(sql).1
}

/// The statement with numbered parameters, and their number.
fn number(sql: &str) -> (String, usize) {
    replaced(sql, |count| format!("${}", count + 1))
}

/// The statement with something else for each parameter, and their number.
fn replaced(sql: &str, parameter: impl Fn(usize) -> String) -> (String, usize) {
    let mut result = String::with_capacity(sql.len() + 8);
    let mut count = 0_usize;
    let mut rest = sql;
    let mut before = ' ';
    let mut end = None;
    while let Some(next) = rest.chars().next() {
        let length = match next {
            '?' if rest.starts_with("??") => 2,
            '\'' => quoted(rest, '\'', is_escape_mark(before, &result)),
            '"' => quoted(rest, '"', false),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest),
            '$' if !is_identifier(before) => dollar_quoted(rest),
            _ => next.len_utf8(),
        };
        let (taken, left) = rest.split_at(length);
        match taken {
            ";" => end = Some(result.len()),
            _ if next.is_whitespace() || taken.starts_with("--") || taken.starts_with("/*") => {}
            _ => end = None,
        }
        match taken {
            "??" => result.push('?'),
            "?" => {
                result.push_str(&parameter(count));
                count += 1;
            }
            other => result.push_str(other),
        }
        before = taken.chars().next_back().unwrap_or(next);
        rest = left;
    }
    if let Some(end) = end {
        result.remove(end);
    }
    (result, count)
}

/// Whether the quote after `E` begins a string in which a backslash escapes.
fn is_escape_mark(before: char, result: &str) -> bool {
    let ahead = result.chars().rev().nth(1);
    matches!(before, 'e' | 'E') && !ahead.is_some_and(is_identifier)
}

fn is_identifier(character: char) -> bool {
    character.is_alphanumeric() || character == '_' || character == '$'
}

/// The length of a quoted text from its first quote on. A doubled quote does not end it, nor does the end of
/// the statement fail here: the server says what is wrong.
fn quoted(text: &str, quote: char, escapes: bool) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if escapes && character == '\\' {
            characters.next();
        } else if character == quote {
            // Two of them mean one in the text.
            if characters.next_if(|(_, next)| *next == quote).is_none() {
                return at + 1;
            }
        }
    }
    text.len()
}

/// The length of a comment, which may hold others.
fn comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of `$tag$...$tag$`, or of the one sign if it is not a quote.
fn dollar_quoted(text: &str) -> usize {
    let Some(close) = text[1..].find('$') else { return 1 };
    let mark = &text[..close + 2];
    let tag = &mark[1..mark.len() - 1];
    if tag.chars().any(|character| !is_identifier(character)) || tag.starts_with(|c: char| c.is_ascii_digit())
    {
        return 1;
    }
    text[mark.len()..].find(mark).map_or(text.len(), |end| mark.len() + end + mark.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_outside_of_quotes_and_comments() {
        let cases = [
            ("SELECT ?, ?", "SELECT $1, $2"),
            ("a = ?AND b=?", "a = $1AND b=$2"),
            ("'?' || ? || 'it''s ?'", "'?' || $1 || 'it''s ?'"),
            (r"'\' || ?", r"'\' || $1"),
            (r"E'\'?' || ?", r"E'\'?' || $1"),
            (r"note'\' || ?", r"note'\' || $1"),
            (r#""a?""b?" = ?"#, r#""a?""b?" = $1"#),
            ("$$ ? $$ ?", "$$ ? $$ $1"),
            ("$a$ ? $$ ? $a$ ?", "$a$ ? $$ ? $a$ $1"),
            ("a$b$ ?", "a$b$ $1"),
            ("$1$ ?", "$1$ $1"),
            ("-- ?\n?", "-- ?\n$1"),
            ("/* ? /* ? */ ? */ ?", "/* ? /* ? */ ? */ $1"),
            ("/*/ ? */ ?", "/*/ ? */ $1"),
            ("data ?? ?", "data ? $1"),
            ("äö = ? -- ü?", "äö = $1 -- ü?"),
            ("'open ?", "'open ?"),
            ("/* open ?", "/* open ?"),
            ("$x$ open ?", "$x$ open ?"),
            ("5 - ? / ? $", "5 - $1 / $2 $"),
            ("SELECT ';', ?; -- ?; ", "SELECT ';', $1 -- ?; "),
            ("SELECT 1; SELECT 2", "SELECT 1; SELECT 2"),
        ];
        for (sql, expected) in cases {
            assert_eq!(numbered(sql), expected, "{sql}");
        }
    }

    #[test]
    fn parameters_are_replaced_by_values() {
        let values = ["'a?'".to_owned(), "NULL".to_owned()];
        let filled = |sql: &str| filled(sql, |n| values.get(n).cloned());
        assert_eq!(filled("x = ? OR '?' = ? -- ?"), ("x = 'a?' OR '?' = NULL -- ?".to_owned(), 2));
        assert_eq!(filled("?, ?, ?"), ("'a?', NULL, ?".to_owned(), 3));
    }

    #[test]
    fn parameters_are_counted() {
        for (sql, count) in [
            ("SELECT 1", 0),
            ("SELECT '?', \"?\" FROM b WHERE c=? -- ?\n AND d=? /* ? */", 2),
            ("SELECT 'it''s ?' WHERE c=?", 1),
            ("SELECT a ?? 'b' WHERE c=?", 1),
            ("SELECT '\u{e9}?", 0),
        ] {
            assert_eq!(count_parameters(sql), count, "{sql}");
        }
    }

    /// Every text of up to four of the signs that matter is left as it is but for its parameters.
    #[test]
    fn nothing_but_parameters_changes() {
        let signs = ["?", "'", "\"", "$", "a", "E", "\\", "--", "/*", "*/", "\n", "é"];
        let mut texts = vec![String::new()];
        for _ in 0..4 {
            texts = texts.iter().flat_map(|text| signs.map(|sign| format!("{text}{sign}"))).collect();
            for text in &texts {
                let numbered = numbered(text);
                let plain = |text: &str| text.replace(['?', '$', '1', '2', '3', '4'], "");
                assert_eq!(plain(&numbered), plain(text));
            }
        }
    }
}
