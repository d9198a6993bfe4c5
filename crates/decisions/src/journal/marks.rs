//! The address of a client is in most texts of its decision: a mark of one byte stands for it there, so that
//! the texts of many decisions are the same.
//!
//! Knows: addresses as texts have them. Must not know: decisions, what is written.

use super::privacy::reversed;
use memchr::{memchr2_iter, memchr3};

/// What begins a text that has marks of its own.
const AS_IT_IS: u8 = 3;

/// What stands for the address of the client, in texts of its decision.
pub(super) struct Marks {
    /// The address, and as zones of DNS lists have it.
    words: [Vec<u8>; 2],
}

impl Marks {
    /// For the address of a client.
    pub fn of(client: &[u8]) -> Marks {
        let address = str::from_utf8(client).ok().and_then(|text| text.parse().ok());
        let Some(address) = address else { return Marks { words: Default::default() } };
        Marks { words: [client.to_vec(), reversed(address).into_bytes()] }
    }

    /// Adds a text with marks.
    pub fn put(&self, text: &[u8], out: &mut Vec<u8>) {
        if memchr3(1, 2, AS_IT_IS, text).is_some() {
            out.push(AS_IT_IS);
            out.extend_from_slice(text);
            return;
        }
        let [address, reversed] = &self.words;
        let (Some(first), Some(last)) = (address.first(), reversed.first()) else {
            return out.extend_from_slice(text);
        };
        let mut from = 0;
        // To prepare a search takes longer than to look at the few places where one may begin.
        for at in memchr2_iter(*first, *last, text) {
            let found = (1..).zip([address, reversed]).find(|(_, word)| text[at..].starts_with(word));
            if let Some((mark, word)) = found.filter(|_| at >= from) {
                out.extend_from_slice(&text[from..at]);
                out.push(mark);
                from = at + word.len();
            }
        }
        out.extend_from_slice(&text[from..]);
    }

    /// Whether a text is what another with marks stands for.
    pub fn is_expanded(&self, marked: &[u8], text: &[u8]) -> bool {
        let (mut marked, mut rest) = (marked, text);
        // A whole piece between two marks is compared at once.
        while let Some(at) = memchr3(1, 2, AS_IT_IS, marked) {
            let mark = marked[at];
            let piece = rest.strip_prefix(&marked[..at]);
            let Some(word) = usize::from(mark).checked_sub(1).and_then(|place| self.words.get(place)) else {
                return false;
            };
            let Some(behind) = piece.and_then(|piece| piece.strip_prefix(&**word)) else { return false };
            (marked, rest) = (&marked[at + 1..], behind);
        }
        marked == rest
    }

    /// The text that has marks.
    pub fn expand(&self, marked: &[u8]) -> Vec<u8> {
        if let [AS_IT_IS, text @ ..] = marked {
            return text.to_vec();
        }
        let mut out = Vec::with_capacity(marked.len() + 16);
        for byte in marked {
            match byte {
                1 | 2 => out.extend_from_slice(&self.words[usize::from(*byte) - 1]),
                other => out.push(*other),
            }
        }
        out
    }
}

/// The parts of a text, in lower case, that stand as they are where the text is written with marks: those
/// that have nothing that an address may have, nor what is between a name and a value.
pub(super) fn unmarked(text: &str) -> Vec<Vec<u8>> {
    let is_kept = |byte: &u8| matches!(byte, b'g'..=b'z' | b'G'..=b'Z') || b" @<>_-,;!".contains(byte);
    let parts = text.as_bytes().split(|byte| !is_kept(byte)).filter(|part| !part.is_empty());
    parts.map(<[u8]>::to_ascii_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use memchr::memmem;

    #[test]
    fn a_text_with_marks_is_what_it_was() {
        for client in ["192.0.2.7", "2001:db8::7", "unknown", ""] {
            let marks = Marks::of(client.as_bytes());
            for text in [
                "",
                "192.0.2.7",
                "192.0.2.7 is 7.2.0.192.zen.example.com, not 192.0.2.71",
                "2001:db8::7 has a mark \u{1} of its own",
                "\u{3}\u{2}",
            ] {
                let mut marked = Vec::new();
                marks.put(text.as_bytes(), &mut marked);
                assert_eq!(marks.expand(&marked), text.as_bytes(), "{client}");
                let has_own = text.contains(['\u{1}', '\u{3}']);
                assert_eq!(marks.is_expanded(&marked, text.as_bytes()), !has_own, "{text}");
                assert!(!marks.is_expanded(&marked, b"192.0.2.8"));
                let is_there = |part: &Vec<u8>| memmem::find(&marked, part).is_some();
                assert!(unmarked(text).iter().all(is_there), "{text}");
            }
        }
        let mut marked = Vec::new();
        Marks::of(b"192.0.2.7").put(b"192.0.2.7, 7.2.0.192", &mut marked);
        assert_eq!(marked, b"\x01, \x02");
    }
}
