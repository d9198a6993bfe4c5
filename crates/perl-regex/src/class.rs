//! Sets of bytes: what `\w`, `[[:alpha:]]`, `\p{Lu}` and a bracketed class mean, and how a set is written.
//!
//! Knows: byte values. Must not know: the rest of a regular expression.

/// A set of byte values, the meaning of everything that matches exactly one byte.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    /// The bytes for which `holds` answers yes.
    pub(super) fn of(holds: impl Fn(u8) -> bool) -> ByteSet {
        let mut set = ByteSet::default();
        (0..=u8::MAX).filter(|&byte| holds(byte)).for_each(|byte| set.insert(byte));
        set
    }

    pub(super) fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    pub(super) fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }

    /// The byte, if there is only one.
    pub(super) fn only(&self) -> Option<u8> {
        let count: u32 = self.0.iter().map(|bits| bits.count_ones()).sum();
        (count == 1).then(|| self.first()).flatten()
    }

    /// The lowest byte in it.
    pub(super) fn first(&self) -> Option<u8> {
        u8::try_from(self.next(0, true)).ok()
    }

    /// The first byte from a place on that is in it, or that is not; 256 if there is none.
    fn next(&self, from: u16, is_in: bool) -> u16 {
        for word in from / 64..4 {
            let bits = self.0[usize::from(word)];
            let mut wanted = if is_in { bits } else { !bits };
            if word == from / 64 {
                wanted &= u64::MAX << (from % 64);
            }
            if wanted != 0 {
                // Less than 64.
                return word * 64 + wanted.trailing_zeros() as u16;
            }
        }
        256
    }

    /// Whether all bytes of another are in it.
    pub(super) fn contains_all(&self, other: &ByteSet) -> bool {
        self.0.iter().zip(other.0).all(|(mine, theirs)| theirs & !mine == 0)
    }

    pub(super) fn union(&mut self, other: ByteSet) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }

    pub(super) fn negated(self) -> ByteSet {
        ByteSet(self.0.map(|bits| !bits))
    }

    /// The same bytes without regard to the case of ASCII letters, the only case that byte values have.
    pub(super) fn folded(mut self) -> ByteSet {
        /// `A` to `Z` in the second word; the others are 32 bits higher.
        const CAPITALS: u64 = 0x07FF_FFFE;
        let letters = (self.0[1] | self.0[1] >> 32) & CAPITALS;
        self.0[1] |= letters | letters << 32;
        self
    }

    /// Writes the set as a class of ranges, and returns how many ranges it took.
    pub(super) fn write(&self, out: &mut String) -> usize {
        if *self == ByteSet::default() {
            out.push_str(NEVER);
            return 1;
        }
        out.push('[');
        let (mut ranges, mut end) = (0, 0);
        while let Ok(low) = u8::try_from(self.next(end, true)) {
            end = self.next(low.into(), false);
            ranges += 1;
            push_byte(out, low);
            if let Some(high) = u8::try_from(end - 1).ok().filter(|high| *high > low) {
                out.push('-');
                push_byte(out, high);
            }
        }
        out.push(']');
        ranges
    }
}

/// Writes a byte as it stands in a class or outside of one: a letter or digit, or `\x2E`.
pub(super) fn push_byte(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if byte.is_ascii_alphanumeric() {
        return out.push(char::from(byte));
    }
    out.push_str("\\x");
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// What matches no byte at all.
pub(super) const NEVER: &str = r"[^\x00-\xFF]";

/// The set of a class escape such as `\d`: ASCII only, as Perl has it for bytes, but for `\h` and `\v`.
pub(super) fn escape(letter: u8) -> Option<ByteSet> {
    let holds: fn(u8) -> bool = match letter.to_ascii_lowercase() {
        b'd' => |byte| byte.is_ascii_digit(),
        b'w' => is_word,
        b's' => is_space,
        b'h' => |byte| matches!(byte, b'\t' | b' ' | 0xA0),
        b'v' => |byte| matches!(byte, b'\n'..=b'\r' | 0x85),
        _ => return None,
    };
    let set = ByteSet::of(holds);
    Some(if letter.is_ascii_uppercase() { set.negated() } else { set })
}

/// The set of a POSIX class by its name, without the colons.
pub(super) fn posix(name: &str) -> Option<ByteSet> {
    let holds: fn(u8) -> bool = match name {
        "alpha" => |byte| byte.is_ascii_alphabetic(),
        "digit" => |byte| byte.is_ascii_digit(),
        "alnum" => |byte| byte.is_ascii_alphanumeric(),
        "upper" => |byte| byte.is_ascii_uppercase(),
        "lower" => |byte| byte.is_ascii_lowercase(),
        "punct" => |byte| byte.is_ascii_punctuation(),
        "space" => is_space,
        "blank" => |byte| matches!(byte, b' ' | b'\t'),
        "cntrl" => |byte| byte.is_ascii_control(),
        "graph" => |byte| byte.is_ascii_graphic(),
        "print" => |byte| byte == b' ' || byte.is_ascii_graphic(),
        "xdigit" => |byte| byte.is_ascii_hexdigit(),
        "word" => is_word,
        "ascii" => |byte| byte.is_ascii(),
        _ => return None,
    };
    Some(ByteSet::of(holds))
}

/// The set of a Unicode property: the bytes whose Latin-1 characters have it, which is how Perl reads bytes.
pub(super) fn property(name: &str) -> Option<ByteSet> {
    let name = name.trim();
    let bare = name.strip_prefix("Is").unwrap_or(name);
    if let Some(set) = bare.strip_prefix("Posix").and_then(|name| posix(&name.to_ascii_lowercase())) {
        return Some(set);
    }
    let bare = bare.strip_prefix("XPosix").unwrap_or(bare);
    let class = match &*bare.to_ascii_lowercase() {
        "alnum" => r"[\p{Alphabetic}\p{Nd}]".to_owned(),
        "word" => r"\w".to_owned(),
        "space" => r"\s".to_owned(),
        "xdigit" => r"[[:xdigit:]]".to_owned(),
        name if name.bytes().all(|byte| is_word(byte) || matches!(byte, b'=' | b' ' | b'-')) => {
            format!(r"\p{{{bare}}}")
        }
        _ => return None,
    };
    let has_it = regex::Regex::new(&format!(r"\A{class}\z")).ok()?;
    Some(ByteSet::of(|byte| has_it.is_match(char::from(byte).encode_utf8(&mut [0; 4]))))
}

fn is_word(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_written_as_ranges() {
        let mut out = String::new();
        assert_eq!(escape(b'w').map(|set| set.write(&mut out)), Some(4));
        assert_eq!(out, r"[0-9A-Z\x5Fa-z]");
        out.clear();
        ByteSet::default().negated().write(&mut out);
        assert_eq!(out, r"[\x00-\xFF]");
        out.clear();
        assert_eq!(ByteSet::of(|byte| byte % 64 > 62 || byte == 64).write(&mut out), 4);
        assert_eq!(out, r"[\x3F-\x40\x7F\xBF\xFF]");
    }

    #[test]
    fn a_folded_set_has_both_cases() {
        for byte in 0..=u8::MAX {
            let both = [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()];
            let folded = ByteSet::of(|other| other == byte).folded();
            assert_eq!(folded, ByteSet::of(|other| both.contains(&other)), "{byte}");
            assert_eq!((folded.first(), folded.only().is_some()), (Some(both[1]), both[0] == both[1]));
        }
    }
}
