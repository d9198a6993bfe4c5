//! Every message that the daemon logs: its text, its level, and what to do about it.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.
//!
//! A message is declared once, in one of the groups below, and logged by the function that the declaration
//! makes. `docs/log.md` is written from the same lines. The texts are an interface: people search for them.

pub mod console;
pub mod daemon;
pub mod events;
pub mod findings;
pub mod foreign_files;
pub mod journal;
pub mod lookups;
pub mod plugins;
pub mod sessions;
pub mod shadows;
pub mod tasks;

use log_messages::{Group, TARGET};
use std::fmt::Display;

/// All messages, in the order of the page.
pub const GROUPS: &[Group] = &[
    daemon::GROUP,
    console::GROUP,
    sessions::GROUP,
    backends::messages::GROUP,
    lookups::GROUP,
    foreign_files::GROUP,
    journal::GROUP,
    events::GROUP,
    shadows::GROUP,
    plugins::GROUP,
    tasks::GROUP,
    findings::GROUP,
];

/// Logs what a plugin found, at the level that its `log_level` says.
pub fn note(level: i64, plugin: impl Display, finding: impl Display) {
    match level {
        ..=0 => tracing::error!(target: TARGET, "{plugin}: {finding}"),
        1 => tracing::warn!(target: TARGET, "{plugin}: {finding}"),
        2 => tracing::info!(target: TARGET, "{plugin}: {finding}"),
        3 => tracing::debug!(target: TARGET, "{plugin}: {finding}"),
        4.. => tracing::trace!(target: TARGET, "{plugin}: {finding}"),
    }
}
