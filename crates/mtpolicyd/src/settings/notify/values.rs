//! What the options of a `<Notify>` block can mean.
//!
//! Knows: kinds of events, addresses. Must not know: who is told.

use crate::events::EventKind;
use crate::value::{Value, nearest};
use backends::smtp::Mailbox;
use std::fmt;

/// Kinds of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventKinds(Vec<EventKind>);

impl EventKinds {
    /// All that there are.
    pub fn all() -> EventKinds {
        EventKinds(EventKind::ALL.into_iter().filter(|kind| *kind != EventKind::Test).collect())
    }

    /// Whether one is among them.
    pub fn has(&self, kind: EventKind) -> bool {
        self.0.contains(&kind)
    }
}

impl fmt::Display for EventKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == EventKinds::all() {
            return f.write_str("all");
        }
        let words: Vec<_> = self.0.iter().map(|kind| kind.word()).collect();
        f.write_str(&words.join(", "))
    }
}

impl Value for EventKinds {
    const FORM: &'static str = "`all`, or kinds of events, separated by commas";
    fn parse(text: &str) -> Result<Self, String> {
        let all = EventKinds::all();
        if text == "all" {
            return Ok(all);
        }
        let words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
        let known = words.map(|word| {
            let found = all.0.iter().find(|kind| kind.word() == word).copied();
            found.ok_or_else(|| {
                let hint = nearest(word, all.0.iter().map(|kind| kind.word()));
                let hint = hint.map(|word| format!("; did you mean `{word}`?")).unwrap_or_default();
                format!("`{word}` is not a kind of event{hint}")
            })
        });
        let known: Vec<_> = known.collect::<Result<_, _>>()?;
        if known.is_empty() { Err("no kind of event is named".to_owned()) } else { Ok(EventKinds(known)) }
    }
}

/// The address of a mailbox, in ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailAddress {
    /// As it is written.
    pub text: String,
    /// As a mail server is told.
    pub mailbox: Mailbox,
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Value for MailAddress {
    const FORM: &'static str = "address such as `postmaster@example.org`";
    fn parse(text: &str) -> Result<Self, String> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.@".contains(&byte);
        let mailbox = Mailbox::parse(text.as_bytes()).filter(|_| text.bytes().all(is_plain));
        let mailbox = mailbox.filter(|_| text.matches('@').count() == 1);
        let mailbox = mailbox.ok_or_else(|| format!("`{text}` is not an address of a mailbox"))?;
        Ok(MailAddress { text: text.to_owned(), mailbox })
    }
}
