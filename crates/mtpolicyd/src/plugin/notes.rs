//! A plugin's name, and what it writes in the log of what it finds.
//!
//! Knows: levels, whose request it is. Must not know: any plugin.

use crate::log::messages;
use log_messages::Finding;
use std::fmt::Display;
use std::sync::Arc;

/// A plugin's notes in the log, at the level of its `log_level`.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// The name of the plugin.
    pub plugin: Arc<str>,
    /// The number of the plugin.
    pub number: u16,
    /// Their level.
    pub level: i64,
}

impl Notes {
    /// Notes what was found. Where the level is off it costs a compare.
    pub fn note<F>(&self, finding: Finding<F>)
    where
        F: Fn(&mut std::fmt::Formatter<'_>) -> std::fmt::Result,
    {
        messages::note(self.level, Labelled(&self.plugin), finding);
    }
}

/// A plugin's name behind that of the request.
struct Labelled<'a>(&'a str);

impl Display for Labelled<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        crate::log::write_label(f)?;
        f.write_str(self.0)
    }
}
