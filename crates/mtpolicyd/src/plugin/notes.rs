//! What plugins write in the log of what they find.
//!
//! Knows: levels, whose request it is. Must not know: any plugin.

use std::fmt::Display;

/// A plugin's notes in the log, at the level of its `log_level`.
#[derive(Clone, Debug)]
pub struct Notes {
    pub(super) plugin: Box<str>,
    pub(super) level: i64,
}

impl Notes {
    /// Notes what was found. Where the level is off it costs a compare.
    pub fn note(&self, finding: impl Display) {
        let plugin = Labelled(&self.plugin);
        match self.level {
            ..=0 => tracing::error!("{plugin}: {finding}"),
            1 => tracing::warn!("{plugin}: {finding}"),
            2 => tracing::info!("{plugin}: {finding}"),
            3 => tracing::debug!("{plugin}: {finding}"),
            4.. => tracing::trace!("{plugin}: {finding}"),
        }
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
