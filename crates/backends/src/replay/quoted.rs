//! Values in the text of a note, so that they can be read back: `"a" NULL | "b"`.
//!
//! Knows: quotes. Must not know: what the values are.

/// Bytes of a value or of values that are shown in a note; of more only how many there are.
pub(crate) const MAX_SHOWN_BYTES: usize = 400;

/// A part of a list of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A value.
    Value(Vec<u8>),
    /// A value that is missing.
    Null,
    /// What divides lists: `;` or `|`.
    Divider(u8),
}

/// Whether a value can stand in a note as it is.
pub(crate) fn is_plain(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b' '..=b'~')) && value.first() != Some(&b'"')
}

/// Adds a value in quotes; what can't be printed as `\ddd`.
pub(crate) fn push_quoted(text: &mut String, value: &[u8]) {
    use std::fmt::Write;
    text.push('"');
    for byte in value {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            // Writing to a string does not fail.
            _ => drop(write!(text, "\\{byte:03}")),
        }
    }
    text.push('"');
}

/// Adds a part, with a blank before it.
pub(crate) fn push_part(text: &mut String, part: &Part) {
    if !text.is_empty() {
        text.push(' ');
    }
    match part {
        Part::Value(value) => push_quoted(text, value),
        Part::Null => text.push_str("NULL"),
        Part::Divider(byte) => text.push(char::from(*byte)),
    }
}

/// Reads them back; `None` if it is not such a list, or one that was cut.
pub(crate) fn parts(text: &str) -> Option<Vec<Part>> {
    let mut rest = text.as_bytes();
    let mut parts = Vec::new();
    loop {
        rest = rest.trim_ascii_start();
        match rest {
            [] => return Some(parts),
            [b'"', after @ ..] => {
                let (value, after) = unquoted(after)?;
                parts.push(Part::Value(value));
                rest = after;
            }
            [b'N', b'U', b'L', b'L', after @ ..] => {
                parts.push(Part::Null);
                rest = after;
            }
            [byte @ (b';' | b'|'), after @ ..] => {
                parts.push(Part::Divider(*byte));
                rest = after;
            }
            _ => return None,
        }
    }
}

fn unquoted(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    loop {
        match rest {
            [b'"', after @ ..] => return Some((value, after)),
            [b'\\', a, b, c, after @ ..] if a.is_ascii_digit() => {
                let digits = [*a, *b, *c];
                value.push(str::from_utf8(&digits).ok()?.parse().ok()?);
                rest = after;
            }
            [b'\\', byte, after @ ..] | [byte, after @ ..] => {
                value.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let all = [
            Part::Value(b"a\"b\\c\n\xff7".to_vec()),
            Part::Null,
            Part::Divider(b'|'),
            Part::Value(Vec::new()),
        ];
        let mut text = String::new();
        all.iter().for_each(|part| push_part(&mut text, part));
        assert_eq!(text, r#""a\"b\\c\010\2557" NULL | """#);
        assert_eq!(parts(&text).as_deref(), Some(&all[..]));
        for cut in ["\"a", "x", "\"a\\"] {
            assert_eq!(parts(cut), None, "{cut}");
        }
    }
}
