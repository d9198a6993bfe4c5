//! A tree as a program for the matcher.
//!
//! The pattern itself begins at 0. Behind it stand the insides of look-around and atomic groups, each of
//! which ends in a `Match` of its own and is run as a search of its own.
//!
//! Knows: trees. Must not know: values.

use crate::PatternError;
use crate::class::ByteSet;
use crate::tree::{Assert, Node};
use std::collections::HashMap;

/// The largest program, in steps.
const PROGRAM_MAX_STEPS: usize = 32 * 1024;

/// One step.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Byte(u8),
    Set(Box<ByteSet>),
    Assert(Assert),
    /// The first place is tried first. `id` counts these steps.
    Split {
        first: u32,
        second: u32,
        id: u32,
    },
    Jump(u32),
    /// A group begins, or ends: the place of its slots.
    Open(u32),
    Close(u32),
    Reference {
        slot: u32,
        fold: bool,
    },
    /// Goes on behind it if the group has captured something.
    IfCaptured {
        slot: u32,
        otherwise: u32,
    },
    Look(u32),
    Atomic(u32),
    Fail,
    Match,
}

/// A look-around.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    pub(crate) ahead: bool,
    pub(crate) negative: bool,
    pub(crate) entry: u32,
    /// Where it begins for reading backwards; for those ahead whose answer depends on the place alone.
    pub(crate) backwards: u32,
    /// Whether the answer depends on nothing but the place.
    pub(crate) is_plain: bool,
}

/// An atomic group.
#[derive(Clone, Debug)]
pub(crate) struct Atomic {
    pub(crate) entry: u32,
    /// Whether its end depends on nothing but the place where it begins.
    pub(crate) is_plain: bool,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) steps: Vec<Step>,
    pub(crate) splits: usize,
    pub(crate) looks: Vec<Look>,
    pub(crate) atomics: Vec<Atomic>,
    /// Whether something in the pattern refers to the group, for each that has slots.
    pub(crate) is_referred: Vec<bool>,
    /// Whether it can match only at the beginning.
    pub(crate) is_anchored: bool,
}

/// Which groups of a pattern have slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// Those that something refers to.
    Referred,
    /// That many, which is all.
    All(usize),
}

impl Program {
    /// Compiles a tree.
    ///
    /// # Errors
    /// When the program would be too large.
    pub(crate) fn new(tree: &Node, keep: Keep) -> Result<Program, PatternError> {
        let mut referred = Vec::new();
        tree.referred(&mut referred);
        referred.sort_unstable();
        referred.dedup();
        let groups = match keep {
            Keep::Referred => referred.clone(),
            Keep::All(count) => (1..=count).collect(),
        };
        let is_referred = groups.iter().map(|group| referred.binary_search(group).is_ok()).collect();
        let mut compiler = Compiler {
            program: Program::empty(is_referred),
            groups,
            waiting: Vec::new(),
            met: HashMap::new(),
        };
        compiler.emit(tree, false)?;
        compiler.push(Step::Match)?;
        while let Some(inside) = compiler.waiting.pop() {
            compiler.emit_inside(inside)?;
        }
        let is_anchored = begins_at_start(tree);
        Ok(Program { is_anchored, ..compiler.program })
    }

    fn empty(is_referred: Vec<bool>) -> Program {
        let (steps, looks, atomics) = (Vec::new(), Vec::new(), Vec::new());
        Program { steps, splits: 0, looks, atomics, is_referred, is_anchored: false }
    }
}

fn begins_at_start(tree: &Node) -> bool {
    match tree {
        Node::Assert(Assert::Start) => true,
        Node::Concat(items) => items.first().is_some_and(begins_at_start),
        Node::Alternatives(branches) => branches.iter().all(begins_at_start),
        Node::Capture(_, node) | Node::Atomic(node) => begins_at_start(node),
        _ => false,
    }
}

struct Compiler<'n> {
    program: Program,
    /// The numbers of the groups that have slots, in order.
    groups: Vec<usize>,
    /// The insides that have not been written yet.
    waiting: Vec<Inside<'n>>,
    /// Where the look-around and the atomic groups are that were met already: repeated ones share an inside.
    met: HashMap<*const Node, u32>,
}

enum Inside<'n> {
    Look(usize, &'n Node),
    Atomic(usize, &'n Node),
}

impl<'n> Compiler<'n> {
    fn here(&self) -> u32 {
        // The length has a limit.
        u32::try_from(self.program.steps.len()).unwrap_or(u32::MAX)
    }

    fn push(&mut self, step: Step) -> Result<usize, PatternError> {
        if self.program.steps.len() >= PROGRAM_MAX_STEPS {
            let what = format!("the compiled pattern has more than {PROGRAM_MAX_STEPS} steps");
            return Err(PatternError::whole(what));
        }
        self.program.steps.push(step);
        Ok(self.program.steps.len() - 1)
    }

    fn split(&mut self) -> Result<usize, PatternError> {
        let id = u32::try_from(self.program.splits).unwrap_or(u32::MAX);
        self.program.splits += 1;
        self.push(Step::Split { first: 0, second: 0, id })
    }

    /// Says where a split goes: into what is behind it and to `other`, or the other way round if it is lazy.
    fn direct(&mut self, split: usize, other: u32, lazy: bool) {
        let into = u32::try_from(split + 1).unwrap_or(u32::MAX);
        if let Step::Split { first, second, .. } = &mut self.program.steps[split] {
            (*first, *second) = if lazy { (other, into) } else { (into, other) };
        }
    }

    fn slot(&self, group: usize) -> Option<u32> {
        let place = self.groups.binary_search(&group).ok()?;
        u32::try_from(place).ok()
    }

    fn emit_inside(&mut self, inside: Inside<'n>) -> Result<(), PatternError> {
        let entry = self.here();
        match inside {
            Inside::Atomic(place, node) => {
                self.program.atomics[place].entry = entry;
                self.emit(node, false)?;
            }
            Inside::Look(place, node) => {
                self.program.looks[place].entry = entry;
                self.emit(node, false)?;
                if self.program.looks[place].ahead && self.program.looks[place].is_plain {
                    self.push(Step::Match)?;
                    self.program.looks[place].backwards = self.here();
                    self.emit(node, true)?;
                }
            }
        }
        self.push(Step::Match).map(drop)
    }

    /// Writes a node, for reading the value forwards or backwards.
    fn emit(&mut self, node: &'n Node, backwards: bool) -> Result<(), PatternError> {
        match node {
            Node::Empty => {}
            Node::Set(set) => drop(match set.only() {
                Some(byte) => self.push(Step::Byte(byte))?,
                None => self.push(Step::Set(Box::new(*set)))?,
            }),
            Node::Assert(assert) => drop(self.push(Step::Assert(*assert))?),
            Node::Concat(items) if backwards => {
                items.iter().rev().try_for_each(|item| self.emit(item, backwards))?;
            }
            Node::Concat(items) => items.iter().try_for_each(|item| self.emit(item, backwards))?,
            Node::Alternatives(branches) => self.emit_branches(branches, backwards)?,
            Node::Repeat { node, min, max, lazy } => self.emit_repeat(node, *min, *max, *lazy, backwards)?,
            Node::Capture(group, node) => match self.slot(*group) {
                Some(slot) => {
                    self.push(Step::Open(slot))?;
                    self.emit(node, backwards)?;
                    self.push(Step::Close(slot))?;
                }
                None => self.emit(node, backwards)?,
            },
            Node::Reference { group, fold } => {
                let refer = |slot| Step::Reference { slot, fold: *fold };
                self.push(self.slot(*group).map_or(Step::Fail, refer))?;
            }
            Node::Conditional { group, yes, no } => {
                let slot = self.slot(*group).unwrap_or(u32::MAX);
                let test = self.push(Step::IfCaptured { slot, otherwise: 0 })?;
                self.emit(yes, backwards)?;
                let jump = self.push(Step::Jump(0))?;
                self.program.steps[test] = Step::IfCaptured { slot, otherwise: self.here() };
                self.emit(no, backwards)?;
                self.program.steps[jump] = Step::Jump(self.here());
            }
            Node::Atomic(inside) => {
                let next = self.program.atomics.len();
                let place = self.place_of(node, next);
                if place as usize == next {
                    self.program.atomics.push(Atomic { entry: 0, is_plain: !self.depends(inside) });
                    self.waiting.push(Inside::Atomic(next, inside));
                }
                self.push(Step::Atomic(place))?;
            }
            Node::Look { ahead, negative, node: inside } => {
                let next = self.program.looks.len();
                let place = self.place_of(node, next);
                if place as usize == next {
                    let is_plain =
                        !self.depends(inside) && !inside.any(&|node| matches!(node, Node::Atomic(_)));
                    let (ahead, negative) = (*ahead, *negative);
                    self.program.looks.push(Look { ahead, negative, entry: 0, backwards: 0, is_plain });
                    self.waiting.push(Inside::Look(next, inside));
                }
                self.push(Step::Look(place))?;
            }
        }
        Ok(())
    }

    /// The place of a look-around or atomic group, which is `next` if it was not met yet.
    fn place_of(&mut self, node: &'n Node, next: usize) -> u32 {
        *self.met.entry(std::ptr::from_ref(node)).or_insert(u32::try_from(next).unwrap_or(u32::MAX))
    }

    /// Whether what a node matches depends on groups, or changes them.
    fn depends(&self, node: &Node) -> bool {
        node.any(&|node| match node {
            Node::Reference { .. } | Node::Conditional { .. } => true,
            Node::Capture(group, _) => self.slot(*group).is_some(),
            _ => false,
        })
    }

    fn emit_branches(&mut self, branches: &'n [Node], backwards: bool) -> Result<(), PatternError> {
        let mut jumps = Vec::new();
        for (n, branch) in branches.iter().enumerate() {
            if n + 1 == branches.len() {
                self.emit(branch, backwards)?;
                break;
            }
            let split = self.split()?;
            self.emit(branch, backwards)?;
            jumps.push(self.push(Step::Jump(0))?);
            let next = self.here();
            self.direct(split, next, false);
        }
        let end = self.here();
        jumps.into_iter().for_each(|jump| self.program.steps[jump] = Step::Jump(end));
        Ok(())
    }

    fn emit_repeat(
        &mut self,
        node: &'n Node,
        min: usize,
        max: Option<usize>,
        lazy: bool,
        backwards: bool,
    ) -> Result<(), PatternError> {
        let Some(max) = max else {
            for _ in 1..min {
                self.emit(node, backwards)?;
            }
            let split = if min == 0 { Some(self.split()?) } else { None };
            let begin = self.here();
            self.emit(node, backwards)?;
            let again = self.split()?;
            let end = self.here();
            if let Step::Split { first, second, .. } = &mut self.program.steps[again] {
                (*first, *second) = if lazy { (end, begin) } else { (begin, end) };
            }
            split.into_iter().for_each(|split| self.direct(split, end, lazy));
            return Ok(());
        };
        for _ in 0..min {
            self.emit(node, backwards)?;
        }
        let mut splits = Vec::new();
        for _ in min..max {
            splits.push(self.split()?);
            self.emit(node, backwards)?;
        }
        let end = self.here();
        splits.into_iter().for_each(|split| self.direct(split, end, lazy));
        Ok(())
    }
}
