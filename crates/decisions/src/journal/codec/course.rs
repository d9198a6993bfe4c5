//! When the steps of a walk began, as far as that follows from those before.
//!
//! Knows: steps. Must not know: how they are written.

use crate::Step;

/// When a step can be expected to begin: when the one around it did, or when the one before it ended.
#[derive(Default)]
pub(super) struct Course {
    began: i64,
    /// When the last step of each depth ended.
    ends: Vec<i64>,
}

impl Course {
    pub(super) fn expected(&self, depth: u8) -> i64 {
        self.ends.get(usize::from(depth)).copied().unwrap_or(self.began)
    }

    pub(super) fn add(&mut self, step: &Step) {
        self.began = i64::from(step.began);
        let depth = usize::from(step.depth);
        // Steps inside the one before have nothing to do with those inside this one.
        self.ends.truncate(depth);
        self.ends.resize(depth, self.began);
        self.ends.push(self.began + i64::from(step.took));
    }
}
