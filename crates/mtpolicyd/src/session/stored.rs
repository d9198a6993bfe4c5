//! How a session is written into a store: a form of our own.
//!
//! The original writes Perl's Storable there; what can't be read counts as absent, and so does the form of
//! earlier versions, which did not tell recipients apart. The form is a line that names it, then for each
//! entry a letter and two texts, each with its length in bytes before it: `f1:k3:abc`. Those of the message
//! have a lower case letter, those of the recipient an upper case one.
//!
//! Knows: what a session holds. Must not know: stores.

use super::layer::{Field, Layer, Setting};
use super::{Depends, Session};

/// The first line, with the number of the form; what begins otherwise can't be read.
const HEAD: &[u8] = b"mtpolicyd session 2\n";

/// The text of a field.
const FIELD: u8 = b'f';
/// The exact sum of a field.
const SUM: u8 = b's';
/// A field that the configuration set.
const CONFIGURED: u8 = b'c';
/// A field that is hidden from the recipient.
const NO_FIELD: u8 = b'n';
/// A setting of the user.
const SETTING: u8 = b'u';
/// The plugin that loaded a setting.
const PLUGIN: u8 = b'p';
/// A setting that is hidden from the recipient.
const NO_SETTING: u8 = b'x';
/// Whose layer the recipient's is.
const ADDRESSEE: u8 = b'A';
/// Whether any plugin has looked at a recipient.
const HAS_LOOKED: u8 = b'L';

impl Session {
    /// The session as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(1024);
        bytes.extend_from_slice(HEAD);
        self.message.write(&mut bytes, |letter| letter);
        if self.dependence.ever() {
            write(&mut bytes, HAS_LOOKED, b"", b"");
        }
        write(&mut bytes, ADDRESSEE, &self.addressee, b"");
        self.recipient.write(&mut bytes, |letter| letter.to_ascii_uppercase());
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
                ADDRESSEE => session.addressee = name.into(),
                HAS_LOOKED => session.dependence.note_recipient(),
                _ => {
                    let is_message = letter.is_ascii_lowercase();
                    let layer = if is_message { &mut session.message } else { &mut session.recipient };
                    let (name, text) = (str::from_utf8(name).ok()?, str::from_utf8(text).ok()?);
                    layer.insert(letter.to_ascii_lowercase(), name, text)?;
                }
            }
        }
        session.set_depends(Depends::OnMessage);
        Some(session)
    }
}

impl Layer {
    fn write(&self, bytes: &mut Vec<u8>, letter: impl Fn(u8) -> u8) {
        let mut entry = |kind: u8, name: &str, text: &str| {
            write(bytes, letter(kind), name.as_bytes(), text.as_bytes());
        };
        for (name, field) in &self.fields {
            let Some(Field { text, sum, is_configured }) = field else {
                entry(NO_FIELD, name, "");
                continue;
            };
            entry(FIELD, name, text);
            if let Some(sum) = sum {
                entry(SUM, name, &sum.to_string());
            }
            if *is_configured {
                entry(CONFIGURED, name, "");
            }
        }
        for (name, setting) in &self.settings {
            match setting {
                Some(Setting { text, plugin }) => {
                    entry(SETTING, name, text);
                    entry(PLUGIN, name, plugin);
                }
                None => entry(NO_SETTING, name, ""),
            }
        }
    }

    /// Takes an entry; `None` if it is none. What is said of a field comes after its text.
    fn insert(&mut self, kind: u8, name: &str, text: &str) -> Option<()> {
        match kind {
            FIELD => drop(self.fields.insert(name.into(), Some(Field::of(text)))),
            SUM => self.fields.get_mut(name)?.as_mut()?.sum = Some(text.parse().ok()?),
            CONFIGURED => self.fields.get_mut(name)?.as_mut()?.is_configured = true,
            NO_FIELD => drop(self.fields.insert(name.into(), None)),
            SETTING => {
                let setting = Setting { text: text.to_owned(), plugin: Box::default() };
                self.settings.insert(name.into(), Some(setting));
            }
            PLUGIN => self.settings.get_mut(name)?.as_mut()?.plugin = text.into(),
            NO_SETTING => drop(self.settings.insert(name.into(), None)),
            _ => return None,
        }
        Some(())
    }
}

fn write(bytes: &mut Vec<u8>, letter: u8, name: &[u8], text: &[u8]) {
    bytes.push(letter);
    for text in [name, text] {
        bytes.extend_from_slice(text.len().to_string().as_bytes());
        bytes.push(b':');
        bytes.extend_from_slice(text);
    }
}

/// A text, and what comes after it.
fn read(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().position(|byte| *byte == b':')?;
    let length: usize = str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    bytes[colon + 1..].split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::RECIPIENT;
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
        session.load_settings("uc", [("of the login", "1")]);
        session.begin(b"b\xf6b@x");
        session.depend_on(RECIPIENT);
        session.clear("limit");
        session.configure("for bob", "1");
        session.load_settings("uc", [("listing", "off"), ("", "")]);
        session.add_score("score", "list", &Score::from(0.2));
        session.set_depends(Depends::OnMessage);
        assert_eq!(session.take_added().count(), 1, "what was added in this request is not stored");
        assert_eq!(Session::from_bytes(&session.to_bytes()), Some(session));
        assert_eq!(Session::from_bytes(&Session::default().to_bytes()), Some(Session::default()));
    }

    #[test]
    fn what_is_none_of_ours_counts_as_absent() {
        for foreign in [&b""[..], b"pst0\x04\x0b\x08", b"{}", b"mtpolicyd session 1\nf1:k1:v"] {
            assert_eq!(Session::from_bytes(foreign), None);
        }
        let entry = b"f5:field4:text";
        for end in 1..entry.len() {
            assert_eq!(Session::from_bytes(&[HEAD, &entry[..end]].concat()), None, "cut at {end}");
        }
        for entry in [
            "y1:a1:b",
            "s1:a1:1",
            "p1:a1:b",
            "C1:a0:",
            "f9:a1:b",
            "f-1:a1:b",
            "f99999999999999999999:a1:b",
            "s1:a1:b",
            "f1:a",
        ] {
            assert_eq!(Session::from_bytes(&[HEAD, entry.as_bytes()].concat()), None, "{entry}");
        }
    }
}
