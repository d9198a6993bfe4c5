//! The cursor over a pattern's text, and the parts that mean one character: `\x41`, `\012`, `\cA`,
//! `\N{U+41}`.
//!
//! Knows: Perl's spelling of characters and bracketed classes. Must not know: groups, quantifiers.

use super::PatternError;
use super::class::{self, ByteSet};

/// A place in the bytes of a pattern.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'p> {
    bytes: &'p [u8],
    pub(super) at: usize,
}

/// What a backslash and the letters after it mean where one character or a set of them may stand.
pub(super) enum Single {
    Byte(u8),
    Set(ByteSet),
}

impl<'p> Cursor<'p> {
    pub(super) fn new(text: &'p str) -> Cursor<'p> {
        Cursor { bytes: text.as_bytes(), at: 0 }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Steps over `word` if it stands here.
    pub(super) fn eat(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word.as_bytes());
        if found {
            self.at += word.len();
        }
        found
    }

    pub(super) fn rest(&self) -> &'p [u8] {
        &self.bytes[self.at..]
    }

    /// Takes the bytes for which `belongs` answers yes, at most `limit`.
    pub(super) fn take_while(&mut self, limit: usize, belongs: impl Fn(u8) -> bool) -> &'p [u8] {
        let rest = self.rest();
        let len = rest.iter().take(limit).take_while(|&&byte| belongs(byte)).count();
        self.at += len;
        &rest[..len]
    }

    /// Takes everything up to `end` and steps over it, or answers nothing if there is no `end`.
    pub(super) fn take_until(&mut self, end: u8) -> Option<&'p [u8]> {
        let rest = self.rest();
        let len = rest.iter().position(|&byte| byte == end)?;
        self.at += len + 1;
        Some(&rest[..len])
    }

    /// Takes a decimal number, if there is one.
    pub(super) fn number(&mut self) -> Option<usize> {
        let digits = self.take_while(usize::MAX, |byte| byte.is_ascii_digit());
        let text = std::str::from_utf8(digits).ok().filter(|text| !text.is_empty())?;
        Some(text.parse().unwrap_or(usize::MAX))
    }

    /// Takes the name of a group and the `end` after it.
    pub(super) fn name(&mut self, end: u8) -> Result<String, PatternError> {
        let start = self.at;
        let name = self.take_while(usize::MAX, |byte| byte == b'_' || byte.is_ascii_alphanumeric());
        if name.first().is_none_or(u8::is_ascii_digit) {
            return Err(PatternError::at(start, "a group name must start with a letter or an underscore"));
        }
        let text = String::from_utf8_lossy(name).into_owned();
        match self.next() {
            Some(byte) if byte == end => Ok(text),
            _ => Err(PatternError::at(start, format!("missing {} after a group name", char::from(end)))),
        }
    }
}

/// Reads what follows a backslash where a character may stand; `None` if it is something else (`\b`, `\1`).
///
/// The cursor stands after the backslash and moves only when there is an answer.
pub(super) fn single(cursor: &mut Cursor<'_>) -> Result<Option<Single>, PatternError> {
    let (start, before) = (cursor.at - 1, *cursor);
    let Some(letter) = cursor.next() else {
        return Err(PatternError::at(start, "trailing backslash"));
    };
    let byte = match letter {
        b'e' => 0x1B,
        b'a' => 0x07,
        b'f' => 0x0C,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'c' => match cursor.next() {
            Some(byte @ b' '..=b'~') => byte.to_ascii_uppercase() ^ 0x40,
            _ => return Err(PatternError::at(start, r"\c needs a printable ASCII character after it")),
        },
        b'x' => hexadecimal(cursor, start)?,
        b'o' => octal_in_braces(cursor, start)?,
        b'0' => {
            cursor.at -= 1;
            octal(cursor, start)?
        }
        b'N' if cursor.eat("{U+") => match cursor.take_until(b'}') {
            Some(digits) => code_point(digits, 16, start)?,
            None => return Err(PatternError::at(start, r"missing } after \N{U+")),
        },
        b'p' | b'P' => return property(cursor, letter, start).map(|set| Some(Single::Set(set))),
        letter => match class::escape(letter) {
            Some(set) => return Ok(Some(Single::Set(set))),
            None => {
                *cursor = before;
                return Ok(None);
            }
        },
    };
    Ok(Some(Single::Byte(byte)))
}

/// Reads up to three octal digits.
pub(super) fn octal(cursor: &mut Cursor<'_>, start: usize) -> Result<u8, PatternError> {
    let digits = cursor.take_while(3, |byte| matches!(byte, b'0'..=b'7'));
    code_point(digits, 8, start)
}

fn hexadecimal(cursor: &mut Cursor<'_>, start: usize) -> Result<u8, PatternError> {
    if !cursor.eat("{") {
        return code_point(cursor.take_while(2, |byte| byte.is_ascii_hexdigit()), 16, start);
    }
    match cursor.take_until(b'}') {
        Some(digits) => code_point(digits, 16, start),
        None => Err(PatternError::at(start, r"missing } after \x{")),
    }
}

fn octal_in_braces(cursor: &mut Cursor<'_>, start: usize) -> Result<u8, PatternError> {
    if !cursor.eat("{") {
        return Err(PatternError::at(start, r"missing { after \o"));
    }
    match cursor.take_until(b'}') {
        Some([]) => Err(PatternError::at(start, r"empty \o{}")),
        Some(digits) => code_point(digits, 8, start),
        None => Err(PatternError::at(start, r"missing } after \o{")),
    }
}

/// The number in `text`; like Perl, blanks around it are nothing and it ends at the first other character.
fn code_point(text: &[u8], radix: u32, start: usize) -> Result<u8, PatternError> {
    let mut value = 0_u32;
    for &byte in text.trim_ascii().iter().filter(|&&byte| byte != b'_') {
        let Some(digit) = char::from(byte).to_digit(radix) else { break };
        value = value.saturating_mul(radix).saturating_add(digit);
    }
    u8::try_from(value)
        .map_err(|_| PatternError::unsupported(start, "a character above 255 (values are bytes)"))
}

fn property(cursor: &mut Cursor<'_>, letter: u8, start: usize) -> Result<ByteSet, PatternError> {
    let name = match cursor.next() {
        Some(b'{') => cursor.take_until(b'}'),
        Some(byte) if byte.is_ascii_alphabetic() => Some(&cursor.bytes[cursor.at - 1..cursor.at]),
        _ => return Err(PatternError::at(start, format!("\\{} without a name", char::from(letter)))),
    };
    let Some(name) = name else {
        return Err(PatternError::at(start, format!("missing }} after \\{}{{", char::from(letter))));
    };
    let name = String::from_utf8_lossy(name);
    let (name, inverted) = match name.trim().strip_prefix('^') {
        Some(name) => (name.to_owned(), true),
        None => (name.into_owned(), false),
    };
    let Some(set) = class::property(&name) else {
        return Err(PatternError::unsupported(start, format!("the property {name:?}")));
    };
    Ok(if inverted != (letter == b'P') { set.negated() } else { set })
}

/// Reads a bracketed class; the cursor stands after its `[`.
///
/// `ignore_blanks` is the flag `xx`, `fold` the flag `i`.
pub(super) fn bracketed(
    cursor: &mut Cursor<'_>,
    ignore_blanks: bool,
    fold: bool,
) -> Result<ByteSet, PatternError> {
    let start = cursor.at - 1;
    let unmatched = || PatternError::at(start, "unmatched [");
    let inverted = cursor.eat("^");
    let mut set = ByteSet::default();
    let mut first = true;
    loop {
        if ignore_blanks {
            cursor.take_while(usize::MAX, |byte| matches!(byte, b' ' | b'\t'));
        }
        if !first && cursor.eat("]") {
            break;
        }
        first = false;
        let from = cursor.at;
        let low = match member(cursor, fold)?.ok_or_else(unmatched)? {
            Single::Set(named) => {
                set.union(named);
                continue;
            }
            Single::Byte(low) => low,
        };
        let mut ahead = *cursor;
        if !ahead.eat("-") || matches!(ahead.peek(), Some(b']') | None) {
            set.insert(low);
            continue;
        }
        match member(&mut ahead, fold)?.ok_or_else(unmatched)? {
            Single::Byte(high) if low > high => {
                let text = String::from_utf8_lossy(&cursor.bytes[from..ahead.at]);
                return Err(PatternError::at(from, format!("the range {text:?} is backwards")));
            }
            Single::Byte(high) => set.union(ByteSet::of(|byte| (low..=high).contains(&byte))),
            // `[a-\d]`: no range can end in a set, so the hyphen is one.
            Single::Set(named) => {
                set.union(named);
                set.insert(low);
                set.insert(b'-');
            }
        }
        *cursor = ahead;
    }
    let set = if fold { set.folded() } else { set };
    Ok(if inverted { set.negated() } else { set })
}

/// One member of a bracketed class; `None` at the end of the pattern.
fn member(cursor: &mut Cursor<'_>, fold: bool) -> Result<Option<Single>, PatternError> {
    let start = cursor.at;
    let byte = match cursor.next() {
        None => return Ok(None),
        Some(b'[') => match posix_class(cursor, start, fold)? {
            Some(set) => return Ok(Some(Single::Set(set))),
            None => b'[',
        },
        Some(b'\\') => {
            if let Some(single) = single(cursor)? {
                return Ok(Some(single));
            }
            match cursor.next() {
                Some(b'b') => 0x08,
                Some(b'0'..=b'7') => {
                    cursor.at -= 1;
                    octal(cursor, start)?
                }
                Some(b'N') => return Err(PatternError::at(start, r"\N must be \N{U+...} inside a class")),
                Some(other) => other,
                None => return Ok(None),
            }
        }
        Some(byte) => byte,
    };
    Ok(Some(Single::Byte(byte)))
}

/// `[:alpha:]` inside a class; the cursor stands after its `[` and moves only when there is an answer.
fn posix_class(cursor: &mut Cursor<'_>, start: usize, fold: bool) -> Result<Option<ByteSet>, PatternError> {
    let Some(mark @ (b':' | b'.' | b'=')) = cursor.peek() else { return Ok(None) };
    let mut ahead = *cursor;
    ahead.at += 1;
    let inverted = ahead.eat("^");
    let name = ahead.take_while(usize::MAX, |byte| byte == b'_' || byte.is_ascii_alphanumeric());
    if !(ahead.next() == Some(mark) && ahead.next() == Some(b']')) {
        return Ok(None);
    }
    let name = String::from_utf8_lossy(name);
    if mark != b':' {
        let what = format!("[{0}{name}{0}]", char::from(mark));
        return Err(PatternError::unsupported(start, what));
    }
    let name = if fold && matches!(&*name, "upper" | "lower") { "alpha" } else { &*name };
    let Some(set) = class::posix(name) else {
        return Err(PatternError::at(start, format!("there is no class [:{name}:]")));
    };
    *cursor = ahead;
    Ok(Some(if inverted { set.negated() } else { set }))
}
