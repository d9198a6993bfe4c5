//! The kinds of events there are.
//!
//! Knows: their names, how much each matters. Must not know: when one happens.

use crate::metrics::Word;
use crate::value::words;

words! {
    /// What kind of thing happens.
    pub enum EventKind {
        /// Somebody has used 80 % of a RateLimit or a Quota.
        LimitNear = "limit-near",
        /// Somebody has used all of it.
        LimitReached = "limit-reached",
        /// A DNS list failed its tests.
        ListQuarantined = "list-quarantined",
        /// A `<Connection>` does not answer.
        BackendDown = "backend-down",
        /// The configuration file was read again and has mistakes.
        ReloadRefused = "reload-refused",
        /// The journal can't be written, or loses decisions.
        JournalFailing = "journal-failing",
        /// Requests take about as long as they may.
        DeadlineMissed = "deadline-missed",
        /// The configuration file is newer than the configuration in use.
        ConfigurationChanged = "configuration-changed",
        /// Nothing: somebody wants to know whether events arrive.
        Test = "test",
    }
}

words! {
    /// Whether it begins or ends.
    pub enum EventState {
        /// It begins.
        Begins = "begins",
        /// It has ended.
        Ends = "ends",
        /// Several of the same kind in one.
        Digest = "digest",
        /// It is a test.
        Test = "test",
    }
}

words! {
    /// How much an event matters.
    pub enum EventLevel {
        /// It is worth knowing.
        Notice = "notice",
        /// Somebody should look at it.
        Warning = "warning",
        /// Something does not work.
        Error = "error",
    }
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 9] = [
        EventKind::LimitNear,
        EventKind::LimitReached,
        EventKind::ListQuarantined,
        EventKind::BackendDown,
        EventKind::ReloadRefused,
        EventKind::JournalFailing,
        EventKind::DeadlineMissed,
        EventKind::ConfigurationChanged,
        EventKind::Test,
    ];

    /// Its name.
    pub fn word(self) -> Word {
        match self {
            EventKind::LimitNear => "limit-near",
            EventKind::LimitReached => "limit-reached",
            EventKind::ListQuarantined => "list-quarantined",
            EventKind::BackendDown => "backend-down",
            EventKind::ReloadRefused => "reload-refused",
            EventKind::JournalFailing => "journal-failing",
            EventKind::DeadlineMissed => "deadline-missed",
            EventKind::ConfigurationChanged => "configuration-changed",
            EventKind::Test => "test",
        }
    }

    /// How much it matters, also that it has ended.
    pub fn level(self) -> EventLevel {
        match self {
            EventKind::LimitNear | EventKind::ConfigurationChanged => EventLevel::Notice,
            EventKind::LimitReached | EventKind::ListQuarantined | EventKind::DeadlineMissed => {
                EventLevel::Warning
            }
            EventKind::BackendDown
            | EventKind::ReloadRefused
            | EventKind::JournalFailing
            | EventKind::Test => EventLevel::Error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_name() {
        assert!(EventKind::ALL.into_iter().all(|kind| kind.word() == kind.to_string()));
        assert!(EventKind::ALL.into_iter().enumerate().all(|(place, kind)| kind as usize == place));
    }
}
