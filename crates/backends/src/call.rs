//! What a call to the outside may do: until when, and who writes down what came of it.
//!
//! Knows: time, notes. Must not know: any protocol.

use crate::pretence::Pretence;
use crate::replay::{self, Replay};
use crate::{BackendError, Failure};
use lookups::{LookupKind, Notebook, Origin};
use std::fmt::{self, Write};
use std::time::Duration;
use tokio::time::Instant;

/// Every function that asks a server takes one. It is copied; each client shortens its own copy to its time
/// limit.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    deadline: Instant,
    notes: Option<&'a Notebook>,
    /// Where changes are noted instead of made.
    pretence: Option<&'a Pretence>,
    /// Who answers in place of servers.
    replay: Option<&'a Replay>,
}

impl<'a> Call<'a> {
    /// A call that ends at `deadline`, and which nobody writes down.
    pub fn until(deadline: Instant) -> Call<'a> {
        Call { deadline, notes: None, pretence: None, replay: None }
    }

    /// A call that ends when `limit` is over.
    pub fn within(limit: Duration) -> Call<'a> {
        Call::until(Instant::now() + limit)
    }

    /// The same call, written down in a notebook if there is one.
    pub fn noted_in(self, notes: Option<&'a Notebook>) -> Call<'a> {
        Call { notes, ..self }
    }

    /// The same call, which changes nothing if there is a pretence: what it would change is noted there.
    pub fn pretending(self, pretence: Option<&'a Pretence>) -> Call<'a> {
        Call { pretence, ..self }
    }

    /// The same call, which does what it is asked to do.
    pub(crate) fn in_earnest(self) -> Call<'a> {
        Call { pretence: None, ..self }
    }

    /// Where changes are noted instead of made, if it only pretends.
    pub fn pretence(self) -> Option<&'a Pretence> {
        self.pretence
    }

    /// Refuses something that can't be pretended: it would change or count something elsewhere, and its
    /// answer can't be known without that.
    pub(crate) fn refuse_to_pretend(
        self,
        connection: &str,
        what: impl FnOnce() -> String,
    ) -> Result<(), BackendError> {
        let Some(pretence) = self.pretence else { return Ok(()) };
        let what = what();
        pretence.note(what.clone());
        Err(BackendError { connection: connection.into(), failure: Failure::NotDone(what) })
    }

    /// The same call, which asks nobody if there is a replay: what was recorded answers it.
    pub fn replaying(self, replay: Option<&'a Replay>) -> Call<'a> {
        Call { replay, ..self }
    }

    /// Who answers in place of servers, if it is a replay.
    pub fn replay(self) -> Option<&'a Replay> {
        self.replay
    }

    /// The call by which something is simulated in memory, or done for what is noted as a whole: it is not
    /// noted itself.
    #[must_use]
    pub fn within_another(self) -> Call<'a> {
        Call { notes: None, replay: None, ..self }
    }

    /// When it ends, with or without an answer.
    pub fn deadline(self) -> Instant {
        self.deadline
    }

    /// The same call, which ends at `deadline` if that is earlier.
    pub fn ending_by(self, deadline: Instant) -> Call<'a> {
        Call { deadline: self.deadline.min(deadline), ..self }
    }

    /// The same call, which takes at most `limit` from now on.
    pub fn at_most(self, limit: Duration) -> Call<'a> {
        self.ending_by(Instant::now() + limit)
    }

    /// A lookup begins: its time is taken if it will be written down.
    pub fn begin(self) -> Begun<'a> {
        Begun(self.notes.map(|notes| (notes, Instant::now())))
    }
}

/// A lookup that is going on.
pub struct Begun<'a>(Option<(&'a Notebook, Instant)>);

impl Begun<'_> {
    /// Whether anybody wants to know.
    pub fn is_noted(&self) -> bool {
        self.0.is_some()
    }

    /// Writes the lookup down, if anybody wants to know. What is written is made only then.
    pub fn note(
        self,
        kind: LookupKind,
        server: &str,
        origin: Origin,
        question: impl FnOnce(&mut String) -> fmt::Result,
        answer: impl FnOnce(&mut String) -> fmt::Result,
    ) {
        let Some((notes, begun)) = self.0 else { return };
        // More than an hour is an hour.
        let waited = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
        notes.note(|lookups| lookups.write(kind, server, waited, origin, question, answer));
    }

    /// The same for a question that was asked just now, with what came of it.
    pub fn note_asked<T>(
        self,
        kind: LookupKind,
        server: &str,
        question: impl FnOnce(&mut String) -> fmt::Result,
        outcome: &Result<T, BackendError>,
        answer: impl FnOnce(&T, &mut String) -> fmt::Result,
    ) {
        self.note(kind, server, Origin::Asked, question, |text| match outcome {
            Ok(value) => answer(value, text),
            Err(error) => failed(error, text),
        });
    }

    /// The same with texts that are made first.
    pub fn note_texts<T>(
        self,
        kind: LookupKind,
        server: &str,
        question: impl FnOnce() -> String,
        outcome: &Result<T, BackendError>,
        answer: impl FnOnce(&T) -> String,
    ) {
        let question = |text: &mut String| text.write_str(&question());
        self.note_asked(kind, server, question, outcome, |value, text| text.write_str(&answer(value)));
    }
}

/// How a failure is written, so that it can be told from an answer and from other failures.
fn failed(error: &BackendError, text: &mut String) -> fmt::Result {
    let begin = match error.failure {
        Failure::BadValue(_) => replay::REFUSED_VALUE,
        _ => replay::FAILED,
    };
    write!(text, "{begin}{error}")
}
