//! A message of this daemon itself, and why no server took it.
//!
//! Knows: envelopes. Must not know: SMTP, what a message says.

use super::Mailbox;

/// A message. Its sender in the envelope is the empty one, so that nobody answers it, and no other server
/// reports that it could not be delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The recipient.
    pub to: Mailbox,
    /// Head and body, in lines that end with a line feed. All of it is ASCII.
    pub text: String,
}

/// Why a server has not taken a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSubmitted {
    /// It does not want it, now or later.
    #[error("refused: {0}")]
    Refused(String),
    /// It may want it later, or can't be reached.
    #[error("{0}")]
    Later(String),
}
