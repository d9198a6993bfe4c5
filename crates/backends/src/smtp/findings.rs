//! What is asked about an address, and what comes of it.
//!
//! Knows: messages, rules, answers. Must not know: how servers are asked.

use super::Destinations;
use super::address::Mailbox;
use super::route::{OwnAddresses, Rules};
use crate::dns::Dns;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a message would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender; `None` is the null sender.
    pub sender: Option<Mailbox>,
    /// The recipient.
    pub recipient: Mailbox,
    /// Its size in bytes, if it is known.
    pub size: Option<u64>,
}

/// Whether a server would take a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It would.
    Accepted,
    /// It would not.
    Refused(Refusal),
    /// Nobody asked, for a reason of ours that soon passes, given as text for a reply. It counts like a
    /// temporary failure, and is not remembered.
    NotAsked(String),
    /// It is not to be asked, and why.
    Unknown(String),
}

/// Why a message would not be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whether it would not be taken later either.
    pub is_permanent: bool,
    /// Whether it is so whoever sends: the recipient's address is the reason, or no server can be asked.
    pub for_all_senders: bool,
    /// A text for a reply. The words of a server are only in it if the server is the administrator's.
    pub message: String,
    /// The words of a server that strangers chose, for the log.
    pub said: Option<String>,
}

/// How often a server may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At the same time.
    pub at_once: u64,
    /// Within a minute.
    pub a_minute: Option<u64>,
}

/// Which servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// This one.
    Host(Arc<str>),
    /// Those that take the mail of the recipient's domain, if the rules admit them.
    Exchanges(Rules),
}

/// How servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSettings {
    /// Which.
    pub route: Route,
    /// On which port.
    pub port: u16,
    /// The name that is said.
    pub helo: Arc<str>,
    /// Whether the connection is encrypted if the server can.
    pub encrypts: bool,
    /// Whether TLSA records are looked for.
    pub tlsa: bool,
    /// How often.
    pub limits: Limits,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Whether the message would be taken.
    pub judgement: Judgement,
    /// Whether the server looks at sizes, so that another size may have another answer.
    pub by_size: bool,
    /// Whether the server that answered offers to encrypt.
    pub starttls: Option<bool>,
    /// Whether it has TLSA records.
    pub tlsa: Option<bool>,
}

/// The servers that are being asked at the moment, by address.
#[derive(Debug, Default)]
pub struct ActiveServers {
    pub(super) addresses: Mutex<Vec<IpAddr>>,
    /// Whether the question waits since too many others are being asked.
    pub(super) waits: AtomicBool,
}

impl ActiveServers {
    /// Whether this one is.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).contains(&address.to_canonical())
    }

    /// Whether none is at the moment, since this machine asks too many others. That is not their failure.
    pub fn are_waited_for(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }
}

/// Asks.
pub struct Probe<'a> {
    /// Who knows names.
    pub dns: &'a Dns,
    /// The servers there are.
    pub destinations: &'a Destinations,
    /// How to ask.
    pub probing: &'a ProbeSettings,
    /// What to ask.
    pub message: &'a Message,
    /// The servers that are being asked.
    pub active: &'a ActiveServers,
    /// The addresses of this machine, or why they are not known.
    pub own: &'a Result<OwnAddresses, String>,
}
