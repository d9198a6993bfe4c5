//! The way of one request through its chain: steps, what they found, what they asked, the points they gave.
//!
//! Knows: numbers of steps, time. Must not know: plugins, what a step does.

use lookups::{Lookups, numbered};
use std::fmt::{self, Write};
use std::time::{Duration, Instant};

/// The steps of one request that are kept; of more only that there were more.
pub const MAX_STEPS: usize = 256;
/// The findings of one request that are kept.
pub const MAX_NOTES: usize = 256;
/// Bytes of one finding that are kept.
pub const MAX_NOTE_BYTES: usize = 512;
/// Changes of a score in one request that are kept.
pub const MAX_POINTS: usize = 256;
/// Findings for which there is room from the first one on, and bytes of their texts.
const USUAL_NOTES: usize = 16;
const USUAL_TEXTS: usize = 384;

/// What the steps of a chain did with one request, in the order in which they began.
#[derive(Clone, Debug, PartialEq)]
pub struct Walk {
    /// Whose turn it was.
    pub steps: Vec<Step>,
    /// What was asked of servers, in the order of the answers.
    pub lookups: Lookups,
    /// Who changed a score.
    pub points: Vec<Points>,
    /// Something was left out, since a bound was reached.
    pub is_cut: bool,
    notes: Vec<Note>,
    texts: String,
    /// The step whose turn it is, as a place in `steps`.
    current: Option<u16>,
    begun: Instant,
    /// Microseconds from there to the last moment at which a step began or ended.
    now: u32,
}

/// The turn of one plugin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Its number in the [`StepTable`](crate::StepTable).
    pub number: u16,
    /// How deep inside other plugins it stands: 0 for the outermost chain.
    pub depth: u8,
    /// How it ended.
    pub outcome: StepOutcome,
    /// Microseconds from the begin of the chain to the begin of the step.
    pub began: u32,
    /// Microseconds that it took; 0 if it did not end.
    pub took: u32,
}

numbered! {
    /// How the turn of a plugin ended.
    pub enum StepOutcome {
        /// It has not ended: the time of the request was over.
        NotFinished = 0, "not finished";
        /// The chain went on.
        Next = 1, "next";
        /// It decided, and the chain ended.
        Stopped = 2, "stopped";
        /// A backend failed, and the chain went on without it.
        Skipped = 3, "skipped";
        /// A backend failed, and the chain ended.
        Failed = 4, "failed";
        /// The request itself kept it from deciding; the chain went on.
        Undecided = 5, "undecided";
        /// It is switched off.
        Off = 6, "off";
    }
}

/// A change of a score.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    /// The step that made it, as a place in [`Walk::steps`].
    pub step: u16,
    /// The field of the session.
    pub field: Box<str>,
    /// What was added.
    pub points: f64,
}

/// A finding: its text lies behind that of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Note {
    step: u16,
    end: u32,
}

/// A step that has begun; to be given back when it ends.
#[must_use]
pub struct Begun {
    place: Option<u16>,
    outside: Option<u16>,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk {
            steps: Vec::new(),
            lookups: Lookups::default(),
            points: Vec::new(),
            is_cut: false,
            notes: Vec::new(),
            texts: String::new(),
            current: None,
            begun: Instant::now(),
            now: 0,
        }
    }
}

impl Walk {
    /// A walk that begins now, with room for these steps.
    pub fn with_room(steps: usize) -> Walk {
        Walk { steps: Vec::with_capacity(steps.min(MAX_STEPS)), ..Walk::default() }
    }

    /// It is the turn of a step. Its begin is the end of what was before, so that each step costs one look at
    /// the clock.
    pub fn begin(&mut self, number: u16, depth: usize) -> Begun {
        let outside = self.current;
        if self.steps.len() >= MAX_STEPS {
            self.is_cut = true;
            return Begun { place: None, outside };
        }
        let place = u16::try_from(self.steps.len()).ok();
        let depth = u8::try_from(depth).unwrap_or(u8::MAX);
        let outcome = StepOutcome::NotFinished;
        self.steps.push(Step { number, depth, outcome, began: self.now, took: 0 });
        self.current = place;
        Begun { place, outside }
    }

    /// The step has ended.
    pub fn end(&mut self, begun: Begun, outcome: StepOutcome) {
        self.now = micros(self.begun.elapsed());
        self.current = begun.outside;
        if let Some(step) = begun.place.and_then(|place| self.steps.get_mut(usize::from(place))) {
            // What is off says so itself; the chain only knows that it went on.
            if step.outcome == StepOutcome::NotFinished {
                step.outcome = outcome;
            }
            step.took = self.now.saturating_sub(step.began);
        }
    }

    /// The plugin whose turn it is, is switched off.
    pub fn is_off(&mut self) {
        if let Some(step) = self.current.and_then(|place| self.steps.get_mut(usize::from(place))) {
            step.outcome = StepOutcome::Off;
        }
    }

    /// What the plugin whose turn it is has found; cut to [`MAX_NOTE_BYTES`].
    pub fn note(&mut self, finding: impl fmt::Display) {
        let Some(step) = self.current else { return };
        if self.notes.len() >= MAX_NOTES {
            self.is_cut = true;
            return;
        }
        if self.notes.is_empty() {
            self.notes.reserve(USUAL_NOTES);
            self.texts.reserve(USUAL_TEXTS);
        }
        let start = self.texts.len();
        // Writing to a string does not fail.
        let _ = write!(self.texts, "{finding}");
        if self.texts.len() - start > MAX_NOTE_BYTES {
            self.texts.truncate(self.texts.floor_char_boundary(start + MAX_NOTE_BYTES));
        }
        self.notes.push(Note { step, end: u32::try_from(self.texts.len()).unwrap_or(u32::MAX) });
    }

    /// The same for the step that ended last, if it stands where the next one will.
    pub fn note_of_last(&mut self, finding: impl fmt::Display) {
        let outside = self.current;
        let depth =
            outside.and_then(|place| self.steps.get(usize::from(place))).map_or(0, |step| step.depth + 1);
        let last = self.steps.iter().rposition(|step| step.depth == depth);
        self.current = last.and_then(|place| u16::try_from(place).ok());
        self.note(finding);
        self.current = outside;
    }

    /// The plugin whose turn it is has added to a score.
    pub fn add_points(&mut self, field: impl Into<Box<str>>, points: f64) {
        let Some(step) = self.current else { return };
        if self.points.len() >= MAX_POINTS {
            self.is_cut = true;
            return;
        }
        self.points.push(Points { step, field: field.into(), points });
    }

    /// The findings: the step as a place in [`Walk::steps`], and the text.
    pub fn notes(&self) -> impl Iterator<Item = (u16, &str)> {
        self.notes.iter().scan(0, |start, note| {
            let end = note.end as usize;
            let text = self.texts.get(*start..end).unwrap_or_default();
            *start = end;
            Some((note.step, text))
        })
    }

    /// Adds a finding of a step, which is a place in [`Walk::steps`]: for those that read a walk from bytes.
    pub fn push_note(&mut self, step: u16, text: &str) {
        self.texts.push_str(text);
        self.notes.push(Note { step, end: u32::try_from(self.texts.len()).unwrap_or(u32::MAX) });
    }

    /// How much memory it holds beside its own size, about.
    pub fn size(&self) -> usize {
        let points = self.points.capacity() * size_of::<Points>() + self.points.len() * 8;
        let (steps, notes) =
            (self.steps.capacity() * size_of::<Step>(), self.notes.capacity() * size_of::<Note>());
        self.lookups.size() + points + steps + notes + self.texts.capacity()
    }
}

/// More than an hour is an hour.
fn micros(time: Duration) -> u32 {
    let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    seconds.saturating_mul(1_000_000).saturating_add(time.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_inside_another_has_its_own_findings() {
        let mut walk = Walk::default();
        let outer = walk.begin(0, 0);
        walk.note("before");
        let inner = walk.begin(1, 1);
        walk.note("inside");
        walk.add_points("score", 2.5);
        walk.end(inner, StepOutcome::Next);
        walk.note("after");
        walk.end(outer, StepOutcome::Stopped);
        walk.note("nobody's");
        let notes: Vec<_> = walk.notes().collect();
        assert_eq!(notes, [(0, "before"), (1, "inside"), (0, "after")]);
        let steps: Vec<_> = walk.steps.iter().map(|step| (step.number, step.depth, step.outcome)).collect();
        assert_eq!(steps, [(0, 0, StepOutcome::Stopped), (1, 1, StepOutcome::Next)]);
        assert_eq!(walk.points, [Points { step: 1, field: "score".into(), points: 2.5 }]);
        assert!(walk.steps[0].took >= walk.steps[1].took);
    }

    #[test]
    fn what_is_off_stays_off() {
        let mut walk = Walk::default();
        let step = walk.begin(0, 0);
        walk.is_off();
        walk.end(step, StepOutcome::Next);
        assert_eq!(walk.steps[0].outcome, StepOutcome::Off);
    }

    #[test]
    fn everything_has_a_bound() {
        let mut walk = Walk::default();
        let step = walk.begin(0, 0);
        for _ in 0..=MAX_NOTES {
            walk.note("ä".repeat(MAX_NOTE_BYTES));
            walk.add_points("score", 1.0);
        }
        walk.end(step, StepOutcome::Next);
        for _ in 0..MAX_STEPS {
            let step = walk.begin(0, 0);
            walk.end(step, StepOutcome::Next);
        }
        assert!(walk.is_cut);
        assert_eq!((walk.steps.len(), walk.notes().count(), walk.points.len()), (256, 256, 256));
        assert!(walk.notes().all(|(_, text)| text.len() == MAX_NOTE_BYTES));
    }
}
