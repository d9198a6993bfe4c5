//! Foreign bytes as one line of printable text.
//!
//! Knows: which characters end a line, move a cursor or mislead a reader. Must not know: what the bytes mean.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Longest printed form of one value in bytes: a mail address has at most 320, a DNS name 255.
pub const MAX_VALUE: usize = 512;

/// Says that a value was longer than it is shown.
const ELLIPSIS: &str = "...";

/// The bytes as they may stand in a log line or a message.
///
/// Control characters (C0, DEL, C1), the Unicode line separators, what changes the direction of text, and
/// bytes that are not UTF-8 become `\xNN`, a backslash becomes `\\`, so that nothing looks like an escape and
/// is not one. At most `MAX_VALUE` bytes and an ellipsis.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    if bytes.len() <= MAX_VALUE && bytes.iter().all(|byte| is_plain(*byte) && *byte != b'\\') {
        return String::from_utf8_lossy(bytes);
    }
    let mut text = String::with_capacity(bytes.len().min(MAX_VALUE) + ELLIPSIS.len());
    Escaper::new(&mut text, MAX_VALUE).values().push(bytes);
    Cow::Owned(text)
}

/// Text of our own, in which a backslash may already be part of an escape, as one printable line of at most
/// this many bytes.
pub fn printable(text: &str, limit: usize) -> String {
    let mut line = String::with_capacity(text.len().min(limit));
    Escaper::new(&mut line, limit).push(text.as_bytes());
    line
}

/// JSON as it may be printed on a terminal: what is legal in a string, but not in one printable line, becomes
/// an escape of JSON.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_dangerous) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        match character {
            // All of them have four digits at most.
            c if is_dangerous(c) => drop(write!(text, "\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
    Cow::Owned(text)
}

/// Appends the bytes as a JSON string with its quotes, at most `limit` bytes of their text.
///
/// Here JSON's own escapes serve, so a reader gets the characters that came; only bytes that are not UTF-8,
/// which JSON can't hold, appear as `\xNN`.
pub(super) fn push_json(out: &mut String, bytes: &[u8], limit: usize) {
    let needs_no_escape = |byte: &u8| is_plain(*byte) && !matches!(byte, b'"' | b'\\');
    if bytes.len() <= limit && bytes.iter().all(needs_no_escape) {
        out.push('"');
        out.push_str(&String::from_utf8_lossy(bytes));
        return out.push('"');
    }
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        push_hex(&mut text, chunk.invalid());
        if text.len() > limit {
            let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or_default());
            text.push_str(ELLIPSIS);
            break;
        }
    }
    let quoted = serde_json::Value::String(text).to_string();
    if quoted.bytes().all(is_plain) {
        return out.push_str(&quoted);
    }
    for character in quoted.chars() {
        match character {
            // Legal in JSON, but not in one line on a terminal. All of them have four digits at most.
            c if is_dangerous(c) => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
}

/// Writes text to a line and keeps it harmless and short.
pub(super) struct Escaper<'a> {
    out: &'a mut String,
    /// Bytes that may still come.
    left: usize,
    /// Something was left out.
    cut: bool,
    double_backslash: bool,
}

impl<'a> Escaper<'a> {
    /// For text of our own, where a backslash may already be part of an escape.
    pub(super) fn new(out: &'a mut String, limit: usize) -> Escaper<'a> {
        Escaper { out, left: limit, cut: false, double_backslash: false }
    }

    /// For text of others: backslashes are doubled.
    pub(super) fn values(self) -> Escaper<'a> {
        Escaper { double_backslash: true, ..self }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let plain =
            bytes.iter().position(|byte| !is_plain(*byte) || (*byte == b'\\' && self.double_backslash));
        let (head, tail) = bytes.split_at(plain.unwrap_or(bytes.len()));
        let fits = head.len().min(self.left);
        // Plain bytes are ASCII, so nothing is replaced here.
        self.piece(&String::from_utf8_lossy(&head[..fits]));
        if fits < head.len() {
            return self.end();
        }
        for chunk in tail.utf8_chunks() {
            let mut encoded = [0; 4];
            for character in chunk.valid().chars() {
                let text: &str = character.encode_utf8(&mut encoded);
                match character {
                    '\\' if self.double_backslash => self.piece("\\\\"),
                    c if is_dangerous(c) => self.hex(text.as_bytes()),
                    _ => self.piece(text),
                }
                if self.cut {
                    return;
                }
            }
            self.hex(chunk.invalid());
        }
    }

    /// Appends a byte as an escape although it is harmless.
    pub(super) fn push_hex(&mut self, byte: u8) {
        self.hex(&[byte]);
    }

    fn hex(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut text = String::new();
        push_hex(&mut text, bytes);
        self.piece(&text);
    }

    /// Appends the whole piece or, from the first that does not fit, nothing any more.
    fn piece(&mut self, text: &str) {
        if text.len() > self.left {
            return self.end();
        }
        self.left -= text.len();
        self.out.push_str(text);
    }

    fn end(&mut self) {
        if !self.cut {
            self.out.push_str(ELLIPSIS);
        }
        self.cut = true;
        self.left = 0;
    }
}

impl Write for Escaper<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Printable ASCII: the usual case, which needs no further look.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~')
}

fn is_dangerous(character: char) -> bool {
    // The separators of lines, and what changes the direction of text (UAX 9, 2.).
    let is_separator = matches!(character, '\u{2028}' | '\u{2029}');
    let is_mark = matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}');
    let is_direction = is_mark || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || is_separator || is_direction
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_dangerous_is_left() {
        for (bytes, text) in [
            (&b"alice@example.org"[..], "alice@example.org"),
            (b"", ""),
            (b"a\r\nFORGED\x00\x1b[2J\x7f\x08", "a\\x0d\\x0aFORGED\\x00\\x1b[2J\\x7f\\x08"),
            (b"tab\there", "tab\\x09here"),
            (b"a\\n", "a\\\\n"),
            (b"\xff\xfe\xc3", "\\xff\\xfe\\xc3"),
            ("gr\u{fc}n \u{1f600}".as_bytes(), "gr\u{fc}n \u{1f600}"),
            (
                "\u{85}\u{9b}2J\u{2028}\u{2029}".as_bytes(),
                "\\xc2\\x85\\xc2\\x9b2J\\xe2\\x80\\xa8\\xe2\\x80\\xa9",
            ),
        ] {
            assert_eq!(escape(bytes), text);
        }
        assert!(matches!(escape(b"plain"), Cow::Borrowed(_)));
        assert_eq!(escape("a\u{202e}b\u{2066}".as_bytes()), "a\\xe2\\x80\\xaeb\\xe2\\x81\\xa6");
        assert_eq!(printable("a\\x0a\u{1b}", 100), "a\\x0a\\x1b");
        assert_eq!(printable("abcdef", 3), "abc...");
        let json = "{\"a\": \"\u{202e}\u{7f}ü\"}";
        let escaped = escape_json(json);
        assert_eq!(escaped, "{\"a\": \"\\u202e\\u007fü\"}");
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&escaped), read(json));
    }

    #[test]
    fn a_value_is_bounded() {
        let cut = |bytes: &[u8]| escape(bytes).into_owned();
        assert_eq!(cut(&[b'a'; MAX_VALUE]), "a".repeat(MAX_VALUE));
        assert_eq!(cut(&[b'a'; MAX_VALUE + 1]), "a".repeat(MAX_VALUE) + "...");
        assert_eq!(cut(&[b'\n'; 1 << 20]), "\\x0a".repeat(MAX_VALUE / 4) + "...");
        assert_eq!(cut("\u{20ac}".repeat(1000).as_bytes()), "\u{20ac}".repeat(MAX_VALUE / 3) + "...");
    }

    #[test]
    fn an_escape_that_is_there_already_stays_in_text_of_our_own() {
        let mut text = String::new();
        write!(Escaper::new(&mut text, 100), "value {} of\n\u{85}", escape(b"a\r")).unwrap();
        assert_eq!(text, "value a\\x0d of\\x0a\\xc2\\x85");
    }

    #[test]
    fn json_gives_the_text_back() {
        for text in ["plain", "q\"uo\\te", "a\r\nb\x1b\x7f", "gr\u{fc}n\u{85}\u{2028}"] {
            let mut json = String::new();
            push_json(&mut json, text.as_bytes(), 100);
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            assert!(!json.chars().any(is_dangerous), "{json}");
        }
        let mut json = String::new();
        push_json(&mut json, b"\xffabc", 5);
        assert_eq!(json, "\"\\\\xffa...\"");
    }

    #[test]
    fn every_byte_in_every_form_is_harmless() {
        for byte in 0..=u8::MAX {
            let bytes = [b'x', byte, b'\\', byte];
            let mut json = String::new();
            push_json(&mut json, &bytes, 100);
            assert!(!json.chars().any(is_dangerous) && !escape(&bytes).chars().any(is_dangerous));
        }
    }
}
