//! Domain names: labels of any bytes, as they stand on the wire.
//!
//! Knows: RFC 1035 section 3.1, compression. Must not know: records, questions, what a name is for.

use std::fmt;
use std::sync::Arc;

/// The longest name on the wire, the root's empty label included.
pub const MAX_NAME: usize = 255;

/// The longest label.
pub const MAX_LABEL: usize = 63;

/// An absolute name in lower case: names that differ in the case of ASCII letters are equal. A label may hold
/// any byte, dots included. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<[u8]>);

/// Why labels are not a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NameError {
    /// A label has no byte.
    EmptyLabel,
    /// A label has more than 63 bytes.
    LongLabel,
    /// The name has more than 255 bytes.
    LongName,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmptyLabel => "a label is empty",
            Self::LongLabel => "a label is longer than 63 bytes",
            Self::LongName => "the name is longer than 255 bytes",
        })
    }
}

impl std::error::Error for NameError {}

impl Name {
    /// The name of these labels, the most specific one first; no labels give the root.
    ///
    /// # Errors
    ///
    /// If a label or the whole name has a length that the wire format can't express.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Result<Name, NameError> {
        let mut wire = [0; MAX_NAME];
        let mut used = 0;
        for label in labels {
            let length = match u8::try_from(label.len()) {
                Ok(0) => return Err(NameError::EmptyLabel),
                Ok(length) if label.len() <= MAX_LABEL => length,
                _ => return Err(NameError::LongLabel),
            };
            let end = used + 1 + label.len();
            // One byte is left for the root.
            if end >= MAX_NAME {
                return Err(NameError::LongName);
            }
            wire[used] = length;
            wire[used + 1..end].copy_from_slice(label);
            wire[used + 1..end].make_ascii_lowercase();
            used = end;
        }
        Ok(Self(Arc::from(&wire[..=used])))
    }

    /// The name whose labels are separated by dots. Every other byte stands for itself, backslashes too. A
    /// final dot may be left out; `.` is the root.
    ///
    /// # Errors
    ///
    /// As [`Name::from_labels`]; an empty text has an empty label.
    pub fn parse(text: &str) -> Result<Name, NameError> {
        if text == "." {
            return Self::from_labels([]);
        }
        let text = text.strip_suffix('.').unwrap_or(text).as_bytes();
        // Bounds come first, as a label may be too long in a name that is too long.
        let mut wire = [0; MAX_NAME];
        let end = text.len() + 1;
        if end >= MAX_NAME {
            Self::from_labels(text.split(|byte| *byte == b'.'))?;
            return Err(NameError::LongName);
        }
        wire[1..end].copy_from_slice(text);
        wire[1..end].make_ascii_lowercase();
        // The dot before a label makes way for its length.
        let mut label = 0;
        for at in 1..=end {
            if at == end || wire[at] == b'.' {
                wire[label] = match at - label - 1 {
                    0 => return Err(NameError::EmptyLabel),
                    length @ 1..=MAX_LABEL => u8::try_from(length).unwrap_or(0),
                    _ => return Err(NameError::LongLabel),
                };
                label = at;
            }
        }
        Ok(Self(Arc::from(&wire[..=end])))
    }

    /// The bytes of the wire format, uncompressed and in lower case.
    pub fn as_wire(&self) -> &[u8] {
        &self.0
    }

    /// The labels, the most specific one first.
    pub fn labels(&self) -> Labels<'_> {
        Labels(&self.0)
    }

    /// The name at this place of a message.
    pub(crate) fn read(message: &[u8], offset: usize) -> Option<Name> {
        let mut wire = Vec::with_capacity(64);
        expand(message, offset, &mut wire)?;
        wire.make_ascii_lowercase();
        Some(Self(wire.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_labels(self.labels(), f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A name inside an answer, with the case that the server sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NameRef<'a>(pub(crate) &'a [u8]);

impl<'a> NameRef<'a> {
    /// The labels, the most specific one first.
    pub fn labels(self) -> Labels<'a> {
        Labels(self.0)
    }

    /// Whether this is the root, which has no labels.
    pub fn is_root(self) -> bool {
        self.0 == [0]
    }
}

impl fmt::Display for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_labels(self.labels(), f)
    }
}

impl fmt::Debug for NameRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The labels of a name.
#[derive(Clone, Debug)]
pub struct Labels<'a>(&'a [u8]);

impl<'a> Iterator for Labels<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (&length, rest) = self.0.split_first()?;
        if length == 0 || rest.len() < usize::from(length) {
            return None;
        }
        let (label, rest) = rest.split_at(length.into());
        self.0 = rest;
        Some(label)
    }
}

/// Writes labels as a master file has them (RFC 1035 section 5.1), without the final dot.
fn write_labels(labels: Labels<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut is_root = true;
    for label in labels {
        if !is_root {
            f.write_str(".")?;
        }
        is_root = false;
        for &byte in label {
            match byte {
                b'.' | b'\\' => write!(f, "\\{}", char::from(byte))?,
                b'!'..=b'~' => write!(f, "{}", char::from(byte))?,
                _ => write!(f, "\\{byte:03}")?,
            }
        }
    }
    if is_root { f.write_str(".") } else { Ok(()) }
}

/// One step through a name of a message.
enum Step<'a> {
    Label(&'a [u8]),
    Root,
}

/// Walks through a name that may be compressed. Pointers lead backwards only, so it ends.
struct Walk<'a> {
    message: &'a [u8],
    at: usize,
    /// Where the run of labels begins that is read now; pointers have to lead before it.
    run: usize,
    /// Where the name ends in the place where it was found; known after the first pointer or the root.
    end: Option<usize>,
}

impl<'a> Walk<'a> {
    fn new(message: &'a [u8], offset: usize) -> Self {
        Self { message, at: offset, run: offset, end: None }
    }

    /// `None` if the message ends early, or a pointer does not lead backwards.
    fn next(&mut self) -> Option<Step<'a>> {
        loop {
            let length = usize::from(*self.message.get(self.at)?);
            match length {
                0 => {
                    self.end.get_or_insert(self.at + 1);
                    return Some(Step::Root);
                }
                1..=MAX_LABEL => {
                    let label = self.message.get(self.at + 1..self.at + 1 + length)?;
                    self.at += 1 + length;
                    return Some(Step::Label(label));
                }
                0xc0.. => {
                    let low = usize::from(*self.message.get(self.at + 1)?);
                    let target = (length & 0x3f) << 8 | low;
                    self.end.get_or_insert(self.at + 2);
                    if target >= self.run {
                        return None;
                    }
                    (self.at, self.run) = (target, target);
                }
                _ => return None,
            }
        }
    }
}

/// Where the name at this place ends. What its pointers lead to is not looked at, so a name that can't be
/// read can be skipped.
pub(crate) fn skip(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            // Both bytes have to be there.
            0xc0.. => return message.get(at + 1).map(|_| at + 2),
            _ => return None,
        }
    }
}

/// Appends the name at this place, uncompressed; returns where it ends. `None` if it can't be read or is too
/// long.
pub(crate) fn expand(message: &[u8], offset: usize, out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    let mut walk = Walk::new(message, offset);
    loop {
        match walk.next()? {
            Step::Root => break out.push(0),
            Step::Label(label) => {
                if out.len() - start + 1 + label.len() >= MAX_NAME {
                    return None;
                }
                // A label has at most 63 bytes.
                out.push(u8::try_from(label.len()).ok()?);
                out.extend_from_slice(label);
            }
        }
    }
    walk.end
}

/// Whether the name at this place is this one, given in lower case and uncompressed.
pub(crate) fn is_name(message: &[u8], offset: usize, lower: &[u8]) -> bool {
    let mut walk = Walk::new(message, offset);
    let mut rest = lower;
    while let (Some(step), Some((&length, tail))) = (walk.next(), rest.split_first()) {
        match step {
            Step::Root => return length == 0,
            Step::Label(label) => {
                let Some((expected, tail)) = tail.split_at_checked(length.into()) else { return false };
                if label.len() != expected.len() || !label.eq_ignore_ascii_case(expected) {
                    return false;
                }
                rest = tail;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_any_byte_and_fold_case() {
        let name = Name::parse("FOO:bar/baz.a b.Example.com.").unwrap();
        assert_eq!(name, Name::parse("foo:bar/baz.A B.example.COM").unwrap());
        assert_eq!(name.labels().next(), Some(&b"foo:bar/baz"[..]));
        assert_eq!(name.to_string(), "foo:bar/baz.a\\032b.example.com");
        let odd = Name::from_labels([&b"a.b"[..], b"\xff\0\\"]).unwrap();
        assert_eq!(odd.to_string(), "a\\.b.\\255\\000\\\\");
        assert_eq!(Name::parse(".").unwrap().to_string(), ".");
    }

    #[test]
    fn names_have_bounds() {
        let label = "a".repeat(63);
        assert!(Name::parse(&label).is_ok());
        assert_eq!(Name::parse(&format!("{label}a")), Err(NameError::LongLabel));
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(Name::parse(&longest).unwrap().as_wire().len(), MAX_NAME);
        assert_eq!(Name::parse(&format!("{longest}a")), Err(NameError::LongName));
        for empty in ["", "..", "a..b", ".a", "a.."] {
            assert_eq!(Name::parse(empty), Err(NameError::EmptyLabel), "{empty}");
        }
        assert_eq!(Name::parse(&format!("{label}a.{longest}")), Err(NameError::LongLabel));
    }

    #[test]
    fn pointers_lead_backwards_only() {
        // At 0 "b", at 3 "a" and a pointer to 0, at 7 a pointer to itself, at 9 one forwards.
        let message = b"\x01b\0\x01A\xc0\0\xc0\x07\xc0\x0a\0";
        let mut out = Vec::new();
        assert_eq!((expand(message, 3, &mut out), &out[..]), (Some(7), &b"\x01A\x01b\0"[..]));
        assert!(is_name(message, 3, b"\x01a\x01b\0") && !is_name(message, 3, b"\x01a\0"));
        assert!(!is_name(message, 3, b"\x01a\x01b\x01c\0") && !is_name(message, 0, b"\x01c\0"));
        assert_eq!(skip(message, 3), Some(7));
        for at in [7, 9] {
            assert_eq!(expand(message, at, &mut Vec::new()), None);
            assert!(!is_name(message, at, b"\x01b\0"));
            assert_eq!(skip(message, at), Some(at + 2), "it can be skipped");
        }
        assert_eq!((skip(b"\x01", 0), skip(b"\xc0", 0), skip(b"\x41a", 0)), (None, None, None));
    }

    #[test]
    fn an_expanded_name_is_bounded() {
        let mut message = Vec::new();
        let mut last = None;
        for _ in 0..10 {
            let at = message.len();
            message.push(63);
            message.extend([b'a'; 63]);
            match last {
                None => message.push(0),
                Some(last) => message.extend(u16::to_be_bytes(0xc000 | last)),
            }
            last = Some(u16::try_from(at).unwrap());
        }
        assert!(expand(&message, 65 + 66, &mut Vec::new()).is_some());
        assert_eq!(expand(&message, 65 + 66 + 66, &mut Vec::new()), None);
    }
}
