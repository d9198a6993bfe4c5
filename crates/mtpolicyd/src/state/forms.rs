//! What is asked about the state of plugins and what is answered, as JSON has it: the daemon writes it, the
//! commands read it.
//!
//! Knows: names of fields. Must not know: plugins, stores, HTTP.

pub use crate::facts::dnslist::ListState;
use crate::value::words;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

words! {
    /// What plugins remember.
    pub enum Kind {
        /// Tickets of a greylist.
        Greylist = "greylist",
        /// Clients that a greylist knows.
        Awl = "awl",
        /// Counters that a quota compares.
        Quota = "quota",
        /// Counts of a rate limit.
        Limits = "limits",
        /// Clients that have been trapped.
        Honeypot = "honeypot",
    }
}

/// Which entries are meant; each part that is given has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Select {
    /// The name of the plugin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// The key of an entry, as a list shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The client: its address, or what else stands for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The sender; `@example.org` is any of that domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The recipient; `@example.org` is any of that domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// The domain of the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The period of a counter; without it the one that is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// Only what is used to more than this, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over: Option<u64>,
}

/// What is done to an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "lowercase", deny_unknown_fields)]
pub enum Change {
    /// It is forgotten, or only these counts of it.
    Reset {
        /// The windows or numbers; empty means all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        parts: Vec<String>,
    },
    /// Its numbers become these.
    Set {
        /// By the names of windows or numbers.
        #[serde(default)]
        values: BTreeMap<String, i64>,
        /// How long it lives, in seconds; without it as long as the plugin says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lifetime: Option<u64>,
    },
    /// The next attempt passes.
    Allow {
        /// For how long, in seconds; without it as long as the plugin says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lifetime: Option<u64>,
    },
}

/// A change and what it is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// What is changed.
    #[serde(default)]
    pub select: Select,
    /// How.
    pub change: Change,
    /// Whether it may be more than one entry.
    #[serde(default, skip_serializing_if = "is_false")]
    pub all: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// How an entry stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// The client has to wait.
    Waiting,
    /// The next attempt passes.
    Ready,
    /// The client is counted, but does not pass by that yet.
    Counting,
    /// The client passes.
    Whitelisted,
    /// There is room.
    Below,
    /// There is none.
    Full,
    /// The client is trapped.
    Trapped,
    /// It is not what the plugin writes: it was damaged, or belongs to somebody else.
    #[default]
    Unreadable,
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Condition::Waiting => "waiting",
            Condition::Ready => "ready",
            Condition::Counting => "counting",
            Condition::Whitelisted => "whitelisted",
            Condition::Below => "below",
            Condition::Full => "FULL",
            Condition::Trapped => "trapped",
            Condition::Unreadable => "unreadable",
        })
    }
}

/// One thing that a plugin remembers. Times are seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// The plugin that remembers it; several that share it are separated by commas.
    pub plugin: String,
    /// What it is found by.
    pub key: String,
    /// The client, or what else stands for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
    /// The recipient.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<String>,
    /// The domain of the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The period of the counter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period: Option<String>,
    /// How it stands.
    pub state: Condition,
    /// When the client first tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seen: Option<i64>,
    /// When the client came last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<i64>,
    /// From when on an attempt passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passes_at: Option<i64>,
    /// When it is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// What is counted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counts: Vec<Count>,
    /// The beginning of a value that can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A number that a plugin counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Count {
    /// The window, such as `1h`, or the number, such as `count_rcpt`.
    pub name: String,
    /// How much it is.
    pub count: u64,
    /// How much it may be, as the file says; a user's own setting may say something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// In how many seconds there is room again, if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_in: Option<u64>,
    /// Since when it is full, if the log has said it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_since: Option<i64>,
}

impl Count {
    /// Whether there is no room.
    pub fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.count >= limit)
    }

    /// How many percent of the limit it is, rounded down; `None` without a limit.
    pub fn percent(&self) -> Option<u64> {
        let limit = self.limit?;
        Some(self.count.saturating_mul(100).checked_div(limit).unwrap_or(100))
    }
}

/// Some of what plugins remember.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the next page begins; absent after the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What can't be listed, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The plugin.
    #[serde(default)]
    pub plugin: String,
    /// What it was found by.
    pub key: String,
    /// What was done and what was there before.
    pub done: String,
    /// What undoes it; absent if nothing can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Order>,
}

/// How the DNS lists fare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lists {
    /// Each list.
    pub lists: Vec<ListReport>,
}

/// How a DNS list fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReport {
    /// Its zone, without a key.
    pub zone: String,
    /// The plugins that ask it.
    pub plugins: Vec<String>,
    /// How it is.
    pub state: ListState,
    /// Whether it has failed two rounds of tests in a row, and no good one has followed.
    #[serde(default)]
    pub quarantined: bool,
    /// Since when it is in that state by its tests, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
    /// When it was tested last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tested: Option<i64>,
    /// For how many seconds it has not answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent_for: Option<u64>,
    /// Failures since the log last had a line about them.
    #[serde(default)]
    pub failures: u64,
    /// What it answered about the test points, if it was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tests: Vec<ListTest>,
}

/// What a list answered about a test point (RFC 5782 section 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTest {
    /// The name, without the zone.
    pub asked: String,
    /// Whether it should be listed.
    pub expected: bool,
    /// What came.
    pub answer: String,
    /// Whether that is right.
    pub right: bool,
    /// How long it took, in milliseconds.
    pub took: u64,
}

/// Bytes as text that shows each of them: `\xNN` for what is not printable UTF-8, two backslashes for one.
pub fn key_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for part in chunk.valid().split_inclusive('\\') {
            text.push_str(&printable(part));
            if part.ends_with('\\') {
                text.push('\\');
            }
        }
        chunk.invalid().iter().for_each(|byte| push_hex(&mut text, *byte));
    }
    text
}

/// Text that is a key as it is shown, or has one in it, as it may stand on a terminal: what it has of
/// backslashes is not doubled again.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_misleading(c) {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| push_hex(&mut shown, byte));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Ends a line, or turns the direction of writing around.
fn is_misleading(c: char) -> bool {
    let is_separator = matches!(c, '\u{2028}' | '\u{2029}');
    is_separator || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push_hex(text: &mut String, byte: u8) {
    let _ = write!(text, "\\x{byte:02x}");
}

/// The bytes of a text that [`key_text`] has written.
pub fn key_bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        (bytes, rest) = match (first, behind) {
            (b'\\', [b'\\', behind @ ..]) => (with(bytes, b'\\'), behind),
            (b'\\', [b'x', high, low, behind @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (with(bytes, high << 4 | low), behind),
                _ => (with(bytes, b'\\'), &rest[1..]),
            },
            (byte, behind) => (with(bytes, *byte), behind),
        };
    }
    bytes
}

fn with(mut bytes: Vec<u8>, byte: u8) -> Vec<u8> {
    bytes.push(byte);
    bytes
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

impl Entry {
    /// What names this entry and no other.
    pub fn select(&self) -> Select {
        Select { key: Some(self.key.clone()), period: self.period.clone(), ..Select::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_can_be_shown_and_read_back() {
        for (bytes, text) in [
            (&b"alice@example.org,192.0.2.1,bob@x"[..], "alice@example.org,192.0.2.1,bob@x"),
            ("grün\u{202e}".as_bytes(), "grün\\xe2\\x80\\xae"),
            (b"\x1b[2J\\x41\xff\n", "\\x1b[2J\\\\x41\\xff\\x0a"),
        ] {
            assert_eq!(key_text(bytes), text);
            assert_eq!(key_bytes(text), bytes);
        }
        assert_eq!(key_bytes("a\\xzz\\"), b"a\\xzz\\");
    }

    #[test]
    fn what_is_sent_is_what_comes() {
        let text = r#"{"select":{"plugin":"out","key":"a"},"change":{"action":"reset","parts":["1h"]}}"#;
        let order: Order = serde_json::from_str(text).unwrap();
        assert_eq!(order.change, Change::Reset { parts: vec!["1h".to_owned()] });
        assert_eq!(serde_json::to_string(&order).unwrap(), text);
        assert!(
            serde_json::from_str::<Order>(r#"{"select":{"kye":"a"},"change":{"action":"reset"}}"#).is_err()
        );
    }
}
