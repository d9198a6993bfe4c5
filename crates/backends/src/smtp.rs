//! Whether another mail server would take a message, asked over SMTP without sending one.
//!
//! Knows: the servers of a domain, the dialogue with one. Must not know: sessions, options, what an answer is
//! for.

mod address;
mod connection;
mod destination;
mod dialogue;
mod probe;
mod reply;
mod route;

pub use address::Mailbox;
pub use destination::{Destinations, Limits};
pub use dialogue::{Judgement, Message, Refusal};
pub use probe::{ActiveServers, Findings, Probe, ProbeSettings, Route};
pub use reply::{Capabilities, NoReply, Reply, Status};
pub use route::{OwnAddresses, Rules};
