//! What is checked, and within which limits.
//!
//! Knows: addresses, mailboxes. Must not know: records.

use crate::name::is_domain;
use std::net::IpAddr;

/// The user that is meant where a sender names none (RFC 7208, 4.3).
const DEFAULT_USER: &str = "postmaster";

/// Which name of the client or the message is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// What the client said in HELO or EHLO.
    Helo,
    /// The sender in the envelope.
    MailFrom,
}

/// The client and the identity to check. Domains are in ASCII; internationalised ones as A-labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client; an IPv4 address mapped into IPv6 is that IPv4 address.
    pub client: IpAddr,
    /// What it said in HELO.
    pub helo: String,
    /// What is checked.
    pub identity: Identity,
    /// The sender's user.
    pub user: String,
    /// The domain that is asked.
    pub domain: String,
}

impl Request {
    /// May the client send as this sender? A sender without a user is the postmaster of the domain. A message
    /// without a sender has nothing but its HELO to check.
    pub fn mail_from(client: IpAddr, helo: &str, sender: &str) -> Request {
        let (user, domain) = sender.rsplit_once('@').unwrap_or(("", sender));
        let user = if user.is_empty() { DEFAULT_USER } else { user };
        Request::of(client, helo, Identity::MailFrom, user, domain)
    }

    /// May the client call itself by this name?
    pub fn helo(client: IpAddr, helo: &str) -> Request {
        Request::of(client, helo, Identity::Helo, DEFAULT_USER, helo)
    }

    fn of(client: IpAddr, helo: &str, identity: Identity, user: &str, domain: &str) -> Request {
        let domain = domain.strip_suffix('.').unwrap_or(domain).to_owned();
        let (client, helo, user) = (client.to_canonical(), helo.to_owned(), user.to_owned());
        Request { client, helo, identity, user, domain }
    }

    /// The name whose record a check begins with, if there is one that can have a record.
    pub fn record_name(&self) -> Option<&str> {
        is_domain(&self.domain).then_some(&self.domain)
    }

    /// The sender, or the name of HELO.
    pub fn subject(&self) -> String {
        match self.identity {
            Identity::Helo => self.domain.clone(),
            Identity::MailFrom => self.sender(),
        }
    }

    /// `user@domain`.
    pub(crate) fn sender(&self) -> String {
        format!("{}@{}", self.user, self.domain)
    }
}

/// How much work a record may cause (RFC 7208, 4.6.4). Whoever goes beyond one of them has a permanent error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Terms that ask the name service: `include`, `a`, `mx`, `ptr`, `exists`, `redirect`, in all records of
    /// a check together.
    pub terms: usize,
    /// Names that one `mx` or one address may have. Of the names of an address, those beyond are left out.
    pub names: usize,
    /// Terms that may find nothing.
    pub void_terms: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { terms: 10, names: 10, void_terms: 2 }
    }
}

/// How a check is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// See there.
    pub limits: Limits,
    /// Whether lookups start before it is their turn: a record's at once, and those of the records that it
    /// includes as soon as they are there. It saves time, costs lookups, and changes no verdict.
    pub look_ahead: bool,
    /// The name of the host that checks, for explanations.
    pub receiver: Option<String>,
    /// What time it is, in seconds since 1970, for explanations.
    pub now: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { limits: Limits::default(), look_ahead: true, receiver: None, now: 0 }
    }
}
