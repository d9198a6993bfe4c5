//! How the text of a listing is shown.
//!
//! Knows: the presentation form of TXT records. Must not know: where it is shown.

use std::fmt::Write;

/// Once so much of a text is shown, the strings that follow are left out: it is for one line of a reply.
const MAX_SHOWN_BYTES: usize = 2_048;

/// The character strings of a TXT record in one line, as the original shows them: blanks between the strings,
/// quotes around those that hold a blank, `;` or a parenthesis or nothing at all, `\"` and `\\` for quote and
/// backslash, `\DDD` for control bytes. The bytes are read as UTF-8; what is none becomes U+FFFD. A list
/// writes this text, so nothing in it may end a line or steer a terminal.
pub fn text_presentation(strings: &[Box<[u8]>]) -> String {
    let mut shown = String::new();
    for (position, string) in strings.iter().enumerate() {
        if shown.len() >= MAX_SHOWN_BYTES {
            break;
        }
        if position > 0 {
            shown.push(' ');
        }
        let quotes = string.is_empty() || string.iter().any(|byte| b" ;()".contains(byte));
        if quotes {
            shown.push('"');
        }
        push_escaped(&mut shown, string);
        if quotes {
            shown.push('"');
        }
    }
    shown
}

fn push_escaped(shown: &mut String, string: &[u8]) {
    for chunk in string.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\\' => shown.extend(['\\', letter]),
                control if control.is_control() => {
                    let mut bytes = [0; 4];
                    control.encode_utf8(&mut bytes).bytes().for_each(|byte| push_decimal(shown, byte));
                }
                plain => shown.push(plain),
            }
        }
        match chunk.invalid() {
            [] => {}
            // The original escapes this one too.
            [0xff] => push_decimal(shown, 0xff),
            _ => shown.push(char::REPLACEMENT_CHARACTER),
        }
    }
}

fn push_decimal(shown: &mut String, byte: u8) {
    // Writing to a string can't fail.
    let _ = write!(shown, "\\{byte:03}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(strings: &[&[u8]]) -> String {
        text_presentation(&strings.iter().map(|&string| Box::from(string)).collect::<Vec<_>>())
    }

    /// Measured: what mtpolicyd 2.05 answers for such records, as far as that is UTF-8.
    #[test]
    fn strings_look_as_in_the_original() {
        for plain in
            ["simple", "123", "a,b", "a.b", "a/b", "a:b", "a-b", "a@b", "a=b", "a'b", "a$b%&*+<>?[]^_`{|}~!#"]
        {
            assert_eq!(shown(&[plain.as_bytes()]), plain);
        }
        for quoted in ["a b", " ", "a ", "a;b", "a(b", "a)b", "", "listed, see http://bl.test/"] {
            assert_eq!(shown(&[quoted.as_bytes()]), format!("\"{quoted}\""));
        }
        for (raw, escaped) in [
            (&b"a\"b"[..], r#"a\"b"#),
            (b"a\\b", r"a\\b"),
            (b"\\032", r"\\032"),
            (b"say \"hi\"; ok", r#""say \"hi\"; ok""#),
            (b"a\tb", r"a\009b"),
            (b"\0\x01\x1f\x7f", r"\000\001\031\127"),
            (b"a\r\nb c", r#""a\013\010b c""#),
            (b"\xff\xfe x", "\"\\255\u{fffd} x\""),
            (b"a\xe9b", "a\u{fffd}b"),
            ("é x".as_bytes(), "\"é x\""),
        ] {
            assert_eq!(shown(&[raw]), escaped);
        }
    }

    #[test]
    fn several_strings_stand_side_by_side() {
        assert_eq!(shown(&[b"part one", b"part two"]), r#""part one" "part two""#);
        assert_eq!(shown(&[b"a", b"b"]), "a b");
        assert_eq!(shown(&[b"", b"b"]), r#""" b"#);
        assert_eq!(shown(&[]), "");
        assert_eq!(shown(&[&b"x".repeat(255)[..]; 250]).len(), 9 * 256 - 1);
    }

    #[test]
    fn nothing_can_end_a_line() {
        let every_byte = (0..=255).collect::<Vec<u8>>();
        let all = shown(&[&every_byte, "\u{85}\u{9b}31m".as_bytes()]);
        assert!(!all.contains(char::is_control), "{all:?}");
        assert!(all.ends_with(r"\194\133\194\15531m"), "{all:?}");
    }
}
