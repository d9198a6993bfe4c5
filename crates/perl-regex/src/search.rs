//! Runs a program on a value: a search that goes back, but never twice the same way.
//!
//! A place in the program at a place of the value, with the same groups captured, leads to the same end
//! however it was reached. So each is looked at once, and a pattern without back-references takes work in
//! proportion to its size and to that of the value. What look-around says depends on the place alone, if no
//! group is in it: it is found out for all places together, in one pass. Back-references can take more, up to
//! the limit.
//!
//! Knows: programs, values, limits. Must not know: how a pattern is written.

mod visited;

use crate::program::{Look, Program, Step};
use std::collections::HashMap;
use visited::{Captured, Visited};

/// How far a look-behind reaches whose inside refers to groups, as in Perl.
const BEHIND_MAX: usize = 255;

/// How often a look-ahead is tried at single places before it is found out for all of them.
const SINGLE_TRIES: u32 = 4;

/// What a change of what groups have captured costs, when it is looked up and when it was not there before:
/// as much time as that many plain steps take.
const CAPTURE_STEPS: u64 = 16;
const NEW_CAPTURE_STEPS: u64 = 128;

/// The longest value: places take 20 bits in what is remembered.
const VALUE_MAX_BYTES: usize = (1 << 20) - 1;

/// A slot of a group that has nothing.
const NOWHERE: u32 = u32::MAX;

/// What was captured has no number yet: only choices need one.
const UNNUMBERED: u32 = u32::MAX;

/// The limit was reached: whether there is a match is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Exhausted;

/// Where a group began that is open, and where it began and ended when it last ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Slot {
    open: u32,
    start: u32,
    end: u32,
}

/// A search.
pub(crate) struct Search<'p, 'v> {
    program: &'p Program,
    value: &'v [u8],
    left: u64,
    slots: Vec<Slot>,
    /// What the groups that are referred to have captured, as a number, or [`UNNUMBERED`].
    captured: u32,
    known: Captured,
    looks: Vec<LookState>,
    /// The ends of atomic groups by their beginnings.
    atomics: HashMap<(u32, usize), Option<usize>>,
}

#[derive(Clone, Default)]
struct LookState {
    tries: u32,
    /// For each place whether the inside matches there.
    holds: Option<Vec<u64>>,
}

/// What to do when a way leads nowhere.
enum Back {
    To { step: u32, at: usize, captured: u32 },
    Restore { slot: u32, old: Slot },
}

impl<'p, 'v> Search<'p, 'v> {
    /// A search that may take that many steps.
    pub(crate) fn new(program: &'p Program, value: &'v [u8], limit: u64) -> Search<'p, 'v> {
        let nothing = Slot { open: NOWHERE, start: NOWHERE, end: NOWHERE };
        let slots = vec![nothing; program.is_referred.len()];
        Search {
            program,
            value,
            left: if value.len() > VALUE_MAX_BYTES { 0 } else { limit },
            slots,
            captured: UNNUMBERED,
            known: Captured::default(),
            looks: vec![LookState::default(); program.looks.len()],
            atomics: HashMap::new(),
        }
    }

    /// The steps that are left.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Whether there is a match that begins at `from` or later.
    pub(crate) fn find(&mut self, from: usize) -> Result<bool, Exhausted> {
        let refers = self.program.is_referred.contains(&true);
        let mut visited = match refers {
            true => Visited::by_captured(self.program.splits, self.value.len()),
            false => Visited::new(self.program.splits, self.value.len()),
        };
        let last = if self.program.is_anchored { 0 } else { self.value.len() };
        for start in from..=last {
            if self.run(0, start, None, &mut visited)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What a group has captured in the match that was found.
    pub(crate) fn group(&self, place: usize) -> Option<&'v [u8]> {
        let Slot { start, end, .. } = *self.slots.get(place)?;
        self.value.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    fn take(&mut self, steps: u64) -> Result<(), Exhausted> {
        let is_enough = self.left >= steps;
        self.left = self.left.saturating_sub(steps);
        if is_enough { Ok(()) } else { Err(Exhausted) }
    }

    /// Where the match ends that begins here; `must_end` is where it has to. If there is none, the groups are
    /// as they were.
    fn run(
        &mut self,
        entry: u32,
        start: usize,
        must_end: Option<usize>,
        visited: &mut Visited,
    ) -> Result<Option<usize>, Exhausted> {
        let (program, value) = (self.program, self.value);
        let captured = self.captured;
        let mut back: Vec<Back> = Vec::new();
        let (mut step, mut at) = (entry, start);
        loop {
            self.take(1)?;
            let goes_on = match &program.steps[step as usize] {
                Step::Byte(byte) => advance(value.get(at) == Some(byte), &mut at),
                Step::Set(set) => advance(value.get(at).is_some_and(|byte| set.contains(*byte)), &mut at),
                Step::Assert(assert) => assert.holds(value, at),
                Step::Split { first, second, id } => {
                    let is_new = self.is_new(*id, at, visited)?;
                    if is_new {
                        back.push(Back::To { step: *second, at, captured: self.captured });
                        // The step behind this one is taken below.
                        step = first.wrapping_sub(1);
                    }
                    is_new
                }
                Step::Jump(to) => {
                    step = to.wrapping_sub(1);
                    true
                }
                Step::Open(slot) | Step::Close(slot) => {
                    let closes = matches!(&program.steps[step as usize], Step::Close(_));
                    back.push(self.capture(*slot, at, closes)?);
                    true
                }
                Step::Reference { slot, fold } => self.refers(*slot, *fold, &mut at)?,
                Step::IfCaptured { slot, otherwise } => {
                    if self.slots.get(*slot as usize).is_none_or(|slot| slot.end == NOWHERE) {
                        step = otherwise.wrapping_sub(1);
                    }
                    true
                }
                Step::Look(look) => self.look(*look, at, &mut back)?,
                Step::Atomic(atomic) => match self.atomic(*atomic, at, &mut back)? {
                    Some(end) => {
                        at = end;
                        true
                    }
                    None => false,
                },
                Step::Fail => false,
                Step::Match => match must_end.is_none_or(|end| end == at) {
                    true => return Ok(Some(at)),
                    false => false,
                },
            };
            if goes_on {
                step = step.wrapping_add(1);
                continue;
            }
            let Some(other) = self.go_back(&mut back) else {
                self.captured = captured;
                return Ok(None);
            };
            (step, at) = other;
        }
    }

    /// Whether a choice was not followed before.
    fn is_new(&mut self, choice: u32, at: usize, visited: &mut Visited) -> Result<bool, Exhausted> {
        if self.captured == UNNUMBERED {
            let before = self.known.count();
            self.captured = self.known.number(self.program, &self.slots);
            let is_known = self.known.count() == before;
            self.take(if is_known { CAPTURE_STEPS } else { NEW_CAPTURE_STEPS + visited.words() })?;
        }
        Ok(visited.is_new(choice, at, self.captured))
    }

    /// The step and the place of the last way that was not tried, with the groups as they were there.
    fn go_back(&mut self, back: &mut Vec<Back>) -> Option<(u32, usize)> {
        loop {
            match back.pop()? {
                Back::Restore { slot, old } => self.slots[slot as usize] = old,
                Back::To { step, at, captured } => {
                    self.captured = captured;
                    return Some((step, at));
                }
            }
        }
    }

    /// A group begins or ends here; how to undo that.
    fn capture(&mut self, slot: u32, at: usize, closes: bool) -> Result<Back, Exhausted> {
        let place = slot as usize;
        let old = self.slots[place];
        let at = u32::try_from(at).unwrap_or(NOWHERE);
        self.slots[place] = match closes {
            true => Slot { start: old.open, end: at, ..old },
            false => Slot { open: at, ..old },
        };
        if self.program.is_referred[place] {
            self.take(CAPTURE_STEPS)?;
            self.captured = UNNUMBERED;
        }
        Ok(Back::Restore { slot, old })
    }

    /// Whether what the group has captured stands here too.
    fn refers(&mut self, slot: u32, fold: bool, at: &mut usize) -> Result<bool, Exhausted> {
        let Some(text) = self.group(slot as usize) else { return Ok(false) };
        let Some(here) = self.value.get(*at..*at + text.len()) else { return Ok(false) };
        let is_same = |(one, other): &(&u8, &u8)| one == other || (fold && one.eq_ignore_ascii_case(other));
        let same = here.iter().zip(text).take_while(is_same).count();
        self.take(same as u64 / 8)?;
        let is_same = same == text.len();
        *at += if is_same { text.len() } else { 0 };
        Ok(is_same)
    }

    /// Where the atomic group ends that begins here.
    fn atomic(&mut self, place: u32, at: usize, back: &mut Vec<Back>) -> Result<Option<usize>, Exhausted> {
        let atomic = &self.program.atomics[place as usize];
        if atomic.is_plain
            && let Some(end) = self.atomics.get(&(place, at))
        {
            return Ok(*end);
        }
        let before = self.slots.clone();
        let end = self.run(atomic.entry, at, None, &mut Visited::few())?;
        if atomic.is_plain {
            self.atomics.insert((place, at), end);
        }
        self.keep(&before, back);
        Ok(end)
    }

    /// Has what an inside captured undone when the way that goes on from here leads nowhere.
    fn keep(&self, before: &[Slot], back: &mut Vec<Back>) {
        for (slot, (old, new)) in before.iter().zip(&self.slots).enumerate() {
            if old != new {
                back.push(Back::Restore { slot: u32::try_from(slot).unwrap_or(NOWHERE), old: *old });
            }
        }
    }

    fn look(&mut self, place: u32, at: usize, back: &mut Vec<Back>) -> Result<bool, Exhausted> {
        let program = self.program;
        let look = &program.looks[place as usize];
        if look.is_plain {
            return Ok(self.plain_look(place, look, at)? != look.negative);
        }
        let (before, captured) = (self.slots.clone(), self.captured);
        let mut visited = Visited::few();
        let found = if look.ahead {
            self.run(look.entry, at, None, &mut visited)?.is_some()
        } else {
            let mut found = false;
            for start in (at.saturating_sub(BEHIND_MAX)..=at).rev() {
                found = self.run(look.entry, start, Some(at), &mut visited)?.is_some();
                if found {
                    break;
                }
            }
            found
        };
        if look.negative {
            (self.slots, self.captured) = (before, captured);
        } else {
            self.keep(&before, back);
        }
        Ok(found != look.negative)
    }

    /// Whether the inside of a look-around matches at a place.
    fn plain_look(&mut self, place: u32, look: &Look, at: usize) -> Result<bool, Exhausted> {
        let state = &mut self.looks[place as usize];
        if let Some(holds) = &state.holds {
            return Ok(holds[at / 64] & (1 << (at % 64)) != 0);
        }
        state.tries += 1;
        if look.ahead && state.tries <= SINGLE_TRIES {
            return Ok(self.run(look.entry, at, None, &mut Visited::few())?.is_some());
        }
        let holds = self.everywhere(look)?;
        let holds = self.looks[place as usize].holds.insert(holds);
        Ok(holds[at / 64] & (1 << (at % 64)) != 0)
    }

    /// For each place whether the inside of a look-around matches there: all matches are followed at once,
    /// those of a look-ahead from their ends to their beginnings.
    fn everywhere(&mut self, look: &Look) -> Result<Vec<u64>, Exhausted> {
        let (program, value) = (self.program, self.value);
        let entry = if look.ahead { look.backwards } else { look.entry };
        let mut holds = vec![0; value.len() / 64 + 1];
        let mut seen_at = vec![usize::MAX; program.steps.len()];
        let (mut waiting, mut takers) = (Vec::new(), Vec::new());
        for n in 0..=value.len() {
            let at = if look.ahead { value.len() - n } else { n };
            waiting.push(entry);
            takers.clear();
            while let Some(step) = waiting.pop() {
                if std::mem::replace(&mut seen_at[step as usize], n) == n {
                    continue;
                }
                self.take(1)?;
                match &program.steps[step as usize] {
                    Step::Byte(_) | Step::Set(_) => takers.push(step),
                    Step::Split { first, second, .. } => waiting.extend([*second, *first]),
                    Step::Jump(to) => waiting.push(*to),
                    Step::Assert(assert) if assert.holds(value, at) => waiting.push(step + 1),
                    Step::Look(inner) => {
                        let look = &program.looks[*inner as usize];
                        if self.plain_look(*inner, look, at)? != look.negative {
                            waiting.push(step + 1);
                        }
                    }
                    Step::Match => holds[at / 64] |= 1 << (at % 64),
                    // A plain inside has no others.
                    _ => {}
                }
            }
            let byte =
                if look.ahead { at.checked_sub(1).and_then(|at| value.get(at)) } else { value.get(at) };
            let Some(byte) = byte else { continue };
            waiting.extend(
                takers.iter().filter(|step| takes(&program.steps[**step as usize], *byte)).map(|s| s + 1),
            );
        }
        Ok(holds)
    }
}

/// Steps over a byte if it is one that belongs here.
fn advance(belongs: bool, at: &mut usize) -> bool {
    *at += usize::from(belongs);
    belongs
}

fn takes(step: &Step, byte: u8) -> bool {
    match step {
        Step::Byte(only) => *only == byte,
        Step::Set(set) => set.contains(byte),
        _ => false,
    }
}
