//! How much is logged for a while, at somebody's wish.
//!
//! Knows: the log, the level of the settings. Must not know: who wishes it.

use super::daemon::Daemon;
use crate::log::messages::daemon as messages;
use crate::value::Switch;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// A level that was set by hand for some time.
#[derive(Default)]
pub(super) struct LogLevel {
    set: Option<(u8, Instant, SystemTime)>,
}

impl LogLevel {
    /// Sets it, for this time or until the next reload.
    pub(super) fn set(&mut self, level: u8, time: Option<Duration>, daemon: &Daemon<'_>) {
        let ends = time.map(|time| (Instant::now() + time, SystemTime::now() + time));
        self.set = ends.map(|(until, shown)| (level, until, shown));
        apply(level, self.shown(), daemon);
    }

    /// Sets it again after a reload, which has set that of the file, if its time is not over.
    pub(super) fn reapply(&self, daemon: &Daemon<'_>) {
        match self.set {
            Some((level, ..)) => apply(level, self.shown(), daemon),
            None => apply(configured(daemon), None, daemon),
        }
    }

    /// Waits for the end of its time; forever if it has none.
    pub(super) async fn ended(&self) {
        match self.set {
            Some((_, until, _)) => tokio::time::sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    /// Returns to the level of the configuration.
    pub(super) fn fall_back(&mut self, daemon: &Daemon<'_>) {
        self.set = None;
        let level = configured(daemon);
        apply(level, None, daemon);
        messages::log_level_is_back(level);
    }

    fn shown(&self) -> Option<SystemTime> {
        self.set.map(|(_, _, shown)| shown)
    }
}

/// The level of the command line, or else of the file.
fn configured(daemon: &Daemon<'_>) -> u8 {
    let level = daemon.shared.service.load().settings.globals.log_level.0;
    daemon.options.log_level.unwrap_or(level)
}

fn apply(level: u8, until: Option<SystemTime>, daemon: &Daemon<'_>) {
    let internals = daemon.shared.service.load().settings.globals.log_internals == Switch::On;
    daemon.log.set_level(level, internals);
    daemon.shared.desk.update(|in_use| {
        in_use.log_level = level;
        in_use.log_level_until = until;
    });
}
