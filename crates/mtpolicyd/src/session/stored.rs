//! How a session is written into a store: a form of our own.
//!
//! The original writes Perl's Storable there; what can't be read counts as absent. The form is a line that
//! names it, then for each entry a letter and two texts, each with its length in bytes before it:
//! `f1:k3:abc`.
//!
//! Knows: what a session holds. Must not know: stores.

use super::Session;

/// The first line, with the number of the form; what begins otherwise can't be read.
const HEAD: &[u8] = b"mtpolicyd session 1\n";

impl Session {
    /// The session as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(HEAD);
        for (name, text) in &self.fields {
            write(&mut bytes, b'f', name, text);
        }
        for (name, sum) in &self.sums {
            write(&mut bytes, b's', name, &sum.to_string());
        }
        for (name, text) in &self.settings {
            write(&mut bytes, b'u', name, text);
        }
        for name in &self.configured {
            write(&mut bytes, b'c', name, "");
        }
        bytes
    }

    /// The session that was written so, or `None` if the bytes are something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Session> {
        let mut rest = bytes.strip_prefix(HEAD)?;
        let mut session = Session::default();
        while let Some((&letter, entry)) = rest.split_first() {
            let (name, entry) = read(entry)?;
            let (text, entry) = read(entry)?;
            rest = entry;
            match letter {
                b'f' => drop(session.fields.insert(name.into(), text.to_owned())),
                b's' => drop(session.sums.insert(name.into(), text.parse().ok()?)),
                b'u' => drop(session.settings.insert(name.into(), text.to_owned())),
                b'c' => drop(session.configured.insert(name.into())),
                _ => return None,
            }
        }
        Some(session)
    }
}

fn write(bytes: &mut Vec<u8>, letter: u8, name: &str, text: &str) {
    bytes.push(letter);
    for text in [name, text] {
        bytes.extend_from_slice(text.len().to_string().as_bytes());
        bytes.push(b':');
        bytes.extend_from_slice(text.as_bytes());
    }
}

/// A text, and what comes after it.
fn read(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let length: usize = str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    let (text, rest) = bytes[colon + 1..].split_at_checked(length)?;
    Some((str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Score;

    #[test]
    fn what_is_written_is_read_again() {
        let mut session = Session::default();
        session.configure("limit", "ä \" \u{1} 1:2\n");
        session.set_user("limit", "7");
        session.first_time("mark");
        session.set("", "");
        for points in [0.7, 0.1, 1e300, -3.0] {
            session.add_score("score", "c", &Score::from(points));
        }
        session.add_score("endless", "c", &Score::from(f64::INFINITY));
        assert_eq!(Session::from_bytes(&session.to_bytes()), Some(session));
        assert_eq!(Session::from_bytes(&Session::default().to_bytes()), Some(Session::default()));
    }

    #[test]
    fn what_is_none_of_ours_counts_as_absent() {
        for foreign in [&b""[..], b"pst0\x04\x0b\x08", b"{}", b"mtpolicyd session 2\n"] {
            assert_eq!(Session::from_bytes(foreign), None);
        }
        let whole = {
            let mut session = Session::default();
            session.set("field", "text");
            session.to_bytes()
        };
        for end in HEAD.len() + 1..whole.len() {
            assert_eq!(Session::from_bytes(&whole[..end]), None, "cut at {end}");
        }
        for entry in ["x1:a1:b", "f9:a1:b", "f-1:a1:b", "f99999999999999999999:a1:b", "s1:a1:b", "f1:a"] {
            assert_eq!(Session::from_bytes(&[HEAD, entry.as_bytes()].concat()), None, "{entry}");
        }
    }
}
