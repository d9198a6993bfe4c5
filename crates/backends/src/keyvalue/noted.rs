//! How what is done with a store is noted, so that it can be replayed.
//!
//! Knows: keys, values, what comes of a call. Must not know: what they are for.

use super::{Held, Locked};
use crate::replay::{DETAIL, is_plain};
use crate::{BackendError, Begun, Call};
use lookups::{LookupKind, Origin};
use std::fmt::{self, Write};
use std::time::Duration;

/// What is noted where there is no value.
pub(super) const NOTHING: &str = "nothing";
/// What stands before a value that is shown.
pub(super) const VALUE: &str = "value ";
/// The longest value that is shown.
const MAX_VALUE: usize = 40;

/// Writes down what was done with a key. Only a short value is shown; others may be a whole session.
pub(super) fn note<T: Outcome>(
    begun: Begun<'_>,
    what: &str,
    key: &[u8],
    detail: impl FnOnce(&mut String) -> fmt::Result,
    outcome: &Result<T, BackendError>,
) {
    let question = |text: &mut String| {
        write!(text, "{what} {}", String::from_utf8_lossy(key))?;
        detail(text)
    };
    begun.note_asked(LookupKind::Store, "", question, outcome, Outcome::describe);
}

/// What comes of a call to a store, for its note.
pub(super) trait Outcome {
    fn describe(&self, text: &mut String) -> fmt::Result;
}

impl Outcome for Option<Vec<u8>> {
    fn describe(&self, text: &mut String) -> fmt::Result {
        match self {
            Some(value) => show(value, text),
            None => text.write_str(NOTHING),
        }
    }
}

impl Outcome for Option<Held> {
    fn describe(&self, text: &mut String) -> fmt::Result {
        text.write_str(if self.is_some() { "something" } else { NOTHING })
    }
}

impl Outcome for bool {
    fn describe(&self, text: &mut String) -> fmt::Result {
        text.write_str(said(*self))
    }
}

impl Outcome for u64 {
    fn describe(&self, text: &mut String) -> fmt::Result {
        write!(text, "{self}")
    }
}

impl Outcome for () {
    fn describe(&self, text: &mut String) -> fmt::Result {
        text.write_str("done")
    }
}

impl Outcome for Locked {
    fn describe(&self, text: &mut String) -> fmt::Result {
        text.write_str(if matches!(self, Locked::Ours(_)) { "locked" } else { "another's" })
    }
}

/// Whether something was so.
pub(super) fn said(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

/// A value that is set, and for how long.
pub(super) fn detail(value: &[u8], lifetime: Duration, text: &mut String) -> fmt::Result {
    text.write_str(DETAIL)?;
    show(value, text)?;
    write!(text, " for {}", lifetime.as_secs())
}

fn show(value: &[u8], text: &mut String) -> fmt::Result {
    match str::from_utf8(value) {
        Ok(shown) if shown.len() <= MAX_VALUE && is_plain(value) => write!(text, "{VALUE}{shown}"),
        _ => write!(text, "{} bytes", value.len()),
    }
}

/// Notes a number that is kept elsewhere as if a store had it under this key.
pub fn note_found(begun: Begun<'_>, key: &[u8], outcome: &Result<Option<u64>, BackendError>) {
    let question = |text: &mut String| write!(text, "get {}", String::from_utf8_lossy(key));
    begun.note_asked(LookupKind::Store, "", question, outcome, |found, text| match found {
        Some(number) => write!(text, "{VALUE}{number}"),
        None => text.write_str(NOTHING),
    });
}

/// Notes that such a number has grown by one.
pub fn note_counted(begun: Begun<'_>, key: &[u8], outcome: &Result<(), BackendError>) {
    note(begun, "increment", key, |_| Ok(()), outcome);
}

/// Notes that a key will be removed once the request has its answer.
pub fn note_removal(key: &[u8], call: Call<'_>) {
    let question = |text: &mut String| write!(text, "delete {}", String::from_utf8_lossy(key));
    match call.replay() {
        Some(replay) => {
            let mut text = String::new();
            // Writing to a string does not fail.
            let _ = question(&mut text);
            replay.stored(&text);
        }
        None => call
            .begin()
            .note(LookupKind::Store, "", Origin::Asked, question, |text| text.write_str("after the answer")),
    }
}
