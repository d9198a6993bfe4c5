//! How much work matching may take.
//!
//! Counted in steps of the matcher, never in time: on a busy machine a step takes longer, but what a pattern
//! finds is the same. A step takes some nanoseconds.
//!
//! Knows: numbers. Must not know: patterns.

/// The steps that may still be taken, for one request or one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    left: u64,
    each: u64,
}

impl Budget {
    /// This many steps in all, and this many for one pattern on one value.
    pub const fn new(total: u64, each: u64) -> Budget {
        Budget { left: total, each }
    }

    /// A part of this budget, for a first try with at most that many steps: what it takes is taken from the
    /// whole with [`Budget::spend`].
    pub fn part(&self, steps: u64) -> Budget {
        Budget { left: self.left.min(steps), each: self.each.min(steps) }
    }

    /// The steps that are left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Takes steps out, down to none.
    pub fn spend(&mut self, steps: u64) {
        self.left = self.left.saturating_sub(steps);
    }

    /// What one pattern may take now.
    pub(crate) fn for_one(&self) -> u64 {
        self.left.min(self.each)
    }
}
