//! What was asked of servers during one request, and what came of it.
//!
//! Clients of servers write into a [`Notebook`]; a record of the request keeps the [`Lookups`] that it held.
//!
//! Knows: the kinds of servers. Must not know: protocols, plugins, who reads it.

mod numbered;

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// The lookups of one request that are kept; of more only their number is.
pub const MAX_LOOKUPS: usize = 64;
/// Bytes of a question or an answer that are kept.
pub const MAX_TEXT_BYTES: usize = 512;
/// Lookups of a request for which there is room at once.
const USUAL_LOOKUPS: usize = 16;
/// Bytes of a lookup for which there is room at once: a list and an address of IPv4.
const USUAL_BYTES: usize = 48;

/// One question to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lookup<'a> {
    /// What kind of server it was.
    pub kind: LookupKind,
    /// The connection or the server, as it is called in the log; empty where the kind says it all.
    pub server: &'a str,
    /// What was asked, without any secret.
    pub question: &'a str,
    /// The answer, or why there is none.
    pub answer: &'a str,
    /// Microseconds that the request waited for it.
    pub waited: u32,
    /// Where the answer came from.
    pub origin: Origin,
}

numbered! {
    /// What kind of server was asked.
    pub enum LookupKind {
        /// The name service.
        Dns = 0, "dns";
        /// A database.
        Sql = 1, "sql";
        /// A store of keys and values: memory, memcached, Redis, or a table.
        Store = 2, "store";
        /// A directory.
        Ldap = 3, "ldap";
        /// A web service.
        Http = 4, "http";
        /// A fail2ban server.
        #[serde(rename = "fail2ban")]
        Fail2Ban = 5, "fail2ban";
        /// A lookup table of Postfix that a server has.
        Map = 6, "map";
        /// Another policy daemon.
        Policy = 7, "policy";
    }
}

numbered! {
    /// Where an answer came from.
    pub enum Origin {
        /// It was asked when it was wanted.
        Asked = 0, "asked";
        /// It was asked before the plugin wanted it, together with others.
        AskedAhead = 1, "asked ahead";
        /// It was known from an earlier question.
        Remembered = 2, "remembered";
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The lookups of one request, in the order of their answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    entries: Vec<Entry>,
    texts: String,
    left_out: u32,
}

/// A lookup: its texts begin where those of the one before end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    kind: LookupKind,
    origin: Origin,
    waited: u32,
    server_end: u32,
    question_end: u32,
    answer_end: u32,
}

impl Lookups {
    /// Adds a lookup whose question and answer are written where they will stand; of each,
    /// [`MAX_TEXT_BYTES`] are kept. Beyond [`MAX_LOOKUPS`] it is only counted, and nothing is written.
    pub fn write(
        &mut self,
        kind: LookupKind,
        server: &str,
        waited: u32,
        origin: Origin,
        question: impl FnOnce(&mut String) -> fmt::Result,
        answer: impl FnOnce(&mut String) -> fmt::Result,
    ) {
        if self.entries.len() >= MAX_LOOKUPS {
            self.left_out += 1;
            return;
        }
        if self.entries.is_empty() {
            self.entries.reserve(USUAL_LOOKUPS);
            self.texts.reserve(USUAL_LOOKUPS * USUAL_BYTES);
        }
        let server_end = self.text(|text| {
            text.push_str(server);
            Ok(())
        });
        let (question_end, answer_end) = (self.text(question), self.text(answer));
        self.entries.push(Entry { kind, origin, waited, server_end, question_end, answer_end });
    }

    /// Adds a lookup, as [`write`](Self::write) does.
    pub fn push(&mut self, lookup: Lookup<'_>) {
        let Lookup { kind, server, question, answer, waited, origin } = lookup;
        let put = |part: &str, text: &mut String| {
            text.push_str(part);
            Ok(())
        };
        self.write(kind, server, waited, origin, |text| put(question, text), |text| put(answer, text));
    }

    /// Writes a text, cut to its bound: where it ends.
    fn text(&mut self, write: impl FnOnce(&mut String) -> fmt::Result) -> u32 {
        let start = self.texts.len();
        // Writing to a string does not fail.
        let _ = write(&mut self.texts);
        if self.texts.len() - start > MAX_TEXT_BYTES {
            self.texts.truncate(self.texts.floor_char_boundary(start + MAX_TEXT_BYTES));
        }
        // Bounded by the number of lookups.
        u32::try_from(self.texts.len()).unwrap_or(u32::MAX)
    }

    /// The lookups, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = Lookup<'_>> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let mut part = |end: u32| {
                let text = self.texts.get(start..end as usize).unwrap_or_default();
                start = end as usize;
                text
            };
            Lookup {
                kind: entry.kind,
                server: part(entry.server_end),
                question: part(entry.question_end),
                answer: part(entry.answer_end),
                waited: entry.waited,
                origin: entry.origin,
            }
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was asked.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many more there were than are kept.
    pub fn left_out(&self) -> u32 {
        self.left_out
    }

    /// How much memory they hold beside their own size.
    pub fn size(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>() + self.texts.capacity()
    }
}

/// Where the lookups of a request are written down while it is decided, by all who ask for it.
#[derive(Default)]
pub struct Notebook {
    lookups: Mutex<Lookups>,
}

impl Notebook {
    /// Writes something down.
    pub fn note(&self, write: impl FnOnce(&mut Lookups)) {
        write(&mut self.lookups.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What was written down so far.
    pub fn take(&self) -> Lookups {
        std::mem::take(&mut *self.lookups.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(question: &str) -> Lookup<'_> {
        Lookup {
            kind: LookupKind::Dns,
            server: "",
            question,
            answer: "127.0.0.2",
            waited: 7,
            origin: Origin::AskedAhead,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut lookups = Lookups::default();
        let all = [lookup("a.test"), Lookup { server: "db", answer: "", ..lookup("") }, lookup("b.test")];
        all.into_iter().for_each(|lookup| lookups.push(lookup));
        assert_eq!(lookups.iter().collect::<Vec<_>>(), all);
    }

    #[test]
    fn a_notebook_is_bounded_in_lookups_and_in_bytes() {
        let notes = Notebook::default();
        let long = "ä".repeat(MAX_TEXT_BYTES);
        notes.note(|lookups| lookups.push(Lookup { answer: &long, ..lookup(&long) }));
        for _ in 0..MAX_LOOKUPS + 1 {
            notes.note(|lookups| lookups.push(lookup("a.test")));
        }
        let lookups = notes.take();
        assert_eq!((lookups.len(), lookups.left_out()), (MAX_LOOKUPS, 2));
        let half = "ä".repeat(MAX_TEXT_BYTES / 2);
        let mut found = lookups.iter();
        assert_eq!(found.next(), Some(Lookup { answer: &half, ..lookup(&half) }));
        assert_eq!(found.next(), Some(lookup("a.test")));
    }

    #[test]
    fn numbers_and_names_lead_back() {
        for kind in LookupKind::ALL {
            assert_eq!(LookupKind::from_number(kind as u8), Some(kind));
        }
        assert_eq!((LookupKind::from_number(8), Origin::from_number(3)), (None, None));
    }
}
