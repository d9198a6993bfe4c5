//! Looking through a store by hand: a page of what is under keys that begin alike, with how long it lives.
//!
//! A page holds up nobody: a store is read in small steps, and no lock is held from one to the next. So what
//! is written meanwhile may be on a page or not, and what is moved may be on two.
//!
//! Knows: what a page is. Must not know: how a store finds it.

use std::time::Duration;

/// The most entries of a page. Redis may give a few more, since it hands them out in bunches.
pub const MAX_PAGE: usize = 200;

/// The most bytes of a value that a page shows.
pub(super) const MAX_SHOWN: usize = 32 << 10;

/// Which page.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// What the keys begin with.
    pub prefix: &'a [u8],
    /// Where the page begins: what the one before it says; `None` for the first one.
    pub cursor: Option<&'a str>,
    /// How many entries it should have, at most [`MAX_PAGE`].
    pub limit: usize,
}

/// What is under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The key, or what stands for one that is too long for the store.
    pub key: Vec<u8>,
    /// The value; `None` if somebody else has put something there that is not a value. A long one is cut on a
    /// page.
    pub value: Option<Vec<u8>>,
    /// How long it still lives; `None` if the store does not tell or it lives forever.
    pub left: Option<Duration>,
}

/// Some of what a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries, in an order of the store. There may be few or none though more pages follow.
    pub entries: Vec<Held>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<String>,
}

/// The values of the wanted fields of a hash, in their order; `None` for one that is not there.
pub type Fields = Vec<Option<Vec<u8>>>;

/// Some of the hashes that Redis holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HashPage {
    /// Each key with the wanted fields.
    pub entries: Vec<(Vec<u8>, Fields)>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<String>,
}

impl Scan<'_> {
    /// How many entries the page has.
    pub(super) fn size(&self) -> usize {
        self.limit.clamp(1, MAX_PAGE)
    }
}

/// The text of an error about a cursor that no page has given.
pub(super) const BAD_CURSOR: &str = "this is not where a page of this store begins";

/// Bytes as they may stand in a cursor.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that [`to_hex`] has written.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_holds_any_key() {
        for key in [&b""[..], b"a,b@c", b"\0\xff"] {
            assert_eq!(from_hex(&to_hex(key)).as_deref(), Some(key));
        }
        for text in ["a", "xx", "616"] {
            assert_eq!(from_hex(text), None);
        }
    }
}
