//! Whether a database refuses a statement because of a value in it: then it works with other values.
//!
//! A server rarely says so by the code alone: a broken row of a table gives the same error as a broken value.
//! So the value is to blame if the message quotes it, or if it holds what ordinary values do not.
//!
//! Knows: parameters, messages of servers. Must not know: any protocol.

use super::Param;

/// The longest value that servers quote in full in their messages, in bytes.
const QUOTED_IN_FULL: usize = 64;

/// Characters that have a meaning in patterns, in JSON and in escapes.
const SPECIAL: &[char] = &['\\', '(', '[', '{', '*', '+', '?', '^', '$', '|', '"', '\''];

/// Whether the message is about one of the parameters.
pub(super) fn is_about_a_value(message: &str, params: &[Param]) -> bool {
    texts(params).any(|text| is_unusual(text) || is_quoted(message, text))
}

/// Whether a parameter has characters that not every character set has.
pub(super) fn is_beyond_ascii(params: &[Param]) -> bool {
    texts(params).any(|text| !text.is_ascii())
}

fn texts(params: &[Param]) -> impl Iterator<Item = &str> {
    params.iter().filter_map(|param| match param {
        Param::Text(text) => Some(text.as_str()),
        Param::Null | Param::Integer(_) => None,
    })
}

fn is_unusual(text: &str) -> bool {
    let is_odd = |c: char| !c.is_ascii() || c.is_ascii_control() || SPECIAL.contains(&c);
    text.len() > QUOTED_IN_FULL || text.chars().any(is_odd)
}

fn is_quoted(message: &str, text: &str) -> bool {
    ['"', '\''].iter().any(|quote| message.contains(&format!("{quote}{text}{quote}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_to_blame_if_it_is_quoted_or_unusual() {
        let message = "invalid input syntax for type inet: \"nonsense\"";
        let blamed = |text: &str| is_about_a_value(message, &[Param::Text(text.to_owned())]);
        assert!(blamed("nonsense"));
        assert!(!blamed("192.0.2.1") && !blamed("n") && !blamed("inet"), "a row is to blame");
        assert!(
            blamed("a\\") && blamed("\u{416}") && blamed("a(b") && blamed("\t") && blamed(&"x".repeat(65))
        );
        assert!(!is_about_a_value(message, &[Param::Integer(1), Param::Null]));
        assert!(is_about_a_value(
            "invalid input syntax for type integer: \"\"",
            &[Param::Text(String::new())]
        ));
    }
}
