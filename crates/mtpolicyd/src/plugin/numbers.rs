//! The numbers of plugins, by which a decision names them.
//!
//! Knows: places in the file. Must not know: any plugin.

use config_general::Span;
use std::cell::RefCell;

/// Gives each plugin of a file a number, in the order of the file; those inside another come behind it.
#[derive(Debug, Default)]
pub struct StepNumbers(RefCell<Vec<Span>>);

impl StepNumbers {
    /// The number of the plugin with this opening tag. A file has fewer than can be counted.
    pub fn next(&self, tag: Span) -> u16 {
        let mut tags = self.0.borrow_mut();
        tags.push(tag);
        u16::try_from(tags.len() - 1).unwrap_or(u16::MAX)
    }

    /// The opening tags by the numbers of their plugins.
    pub fn into_tags(self) -> Vec<Span> {
        self.0.into_inner()
    }
}
