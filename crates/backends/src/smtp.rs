//! Whether another mail server would take a message, asked over SMTP without sending one; and messages of
//! this daemon itself, handed to one.
//!
//! Knows: the servers of a domain, the dialogue with one. Must not know: sessions, options, what an answer is
//! for.

mod address;
#[cfg(feature = "smtp")]
mod connection;
#[cfg_attr(not(feature = "smtp"), path = "smtp/absent.rs")]
mod destination;
#[cfg(feature = "smtp")]
mod dialogue;
mod findings;
mod message;
#[cfg(feature = "smtp")]
mod probe;
mod reply;
#[cfg_attr(not(feature = "smtp"), allow(dead_code, reason = "which servers there are, that nobody asks"))]
mod route;
#[cfg(feature = "smtp")]
mod submit;

pub use address::Mailbox;
pub use destination::Destinations;
#[cfg(not(feature = "smtp"))]
pub use destination::Submission;
pub use findings::{
    ActiveServers, Findings, Judgement, Limits, Message, Probe, ProbeSettings, Refusal, Route,
};
pub use message::{Letter, NotSubmitted};
pub use reply::{Capabilities, NoReply, Reply, Status};
pub use route::{OwnAddresses, Rules};
#[cfg(feature = "smtp")]
pub use submit::Submission;
