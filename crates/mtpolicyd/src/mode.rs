//! What plugins do about what they find, in the words that several have.
//!
//! Knows: what a plugin says. Must not know: any plugin.

use crate::plugin::Verdict;
use crate::value::words;

words! {
    /// Everything that can be done.
    pub enum Mode {
        /// Reject the message.
        Reject = "reject",
        /// End the chain without an opinion.
        Accept = "accept",
        /// The same.
        Dunno = "dunno",
        /// Only add the score.
        Passive = "passive",
    } else Passive
}

words! {
    /// What can be done about something good.
    pub enum PassMode {
        /// Only add the score.
        Passive = "passive",
        /// End the chain without an opinion.
        Accept = "accept",
        /// The same.
        Dunno = "dunno",
    } else Passive
}

words! {
    /// What can be done about something bad.
    pub enum FailMode {
        /// Reject the message.
        Reject = "reject",
        /// Only add the score.
        Passive = "passive",
    } else Passive
}

impl Mode {
    /// What the plugin says; `message` makes the text of a rejection.
    pub fn verdict(self, message: impl FnOnce() -> String) -> Verdict {
        match self {
            Mode::Reject => FailMode::Reject.verdict(message),
            // Postfix knows no `accept`.
            Mode::Accept | Mode::Dunno => Verdict::dunno(),
            Mode::Passive => Verdict::Next,
        }
    }
}

impl PassMode {
    /// What the plugin says.
    pub fn verdict(self) -> Verdict {
        match self {
            PassMode::Passive => Verdict::Next,
            PassMode::Accept | PassMode::Dunno => Verdict::dunno(),
        }
    }
}

impl FailMode {
    /// What the plugin says; `message` makes the text of a rejection.
    pub fn verdict(self, message: impl FnOnce() -> String) -> Verdict {
        match self {
            FailMode::Reject => Verdict::Stop(format!("reject {}", message())),
            FailMode::Passive => Verdict::Next,
        }
    }
}
