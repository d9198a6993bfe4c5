//! The name service: questions, their answers, and who answers them.
//!
//! Knows: the DNS. Must not know: what an answer means to a plugin, sessions, options.

mod ahead;
mod authentic;
mod key;
mod note;
mod recorded;
mod resolver;
mod zone;

use crate::Call;
use lookups::Origin;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use ahead::Ahead;
pub use authentic::Authentic;
pub use key::{hide_key, name_keys, note_zone, without_key, zone_shown_as};
pub use resolver::{MAX_IN_FLIGHT, MAX_UNICODE_NAME, Places, Resolver};
pub use zone::Zone;

/// Default size of the answer cache in KiB: the clients of some minutes of a busy server.
pub const DEFAULT_CACHE_SIZE: u64 = 10_000;

/// Which servers are asked and how patiently. What is left out is taken from the system's `resolv.conf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// The servers; none: those of `resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// How long to wait for one server.
    pub timeout: Option<Duration>,
    /// How often a server is asked that does not answer; none counts as once.
    pub attempts: Option<usize>,
    /// Maximum memory for cached answers, in KiB.
    pub cache_size: u64,
    /// Whether the servers are believed when they say that DNSSEC has proved an answer; without it those of
    /// this machine are, and those of a `resolv.conf` with the option `trust-ad`.
    pub trust_ad: Option<bool>,
    /// Whether each question has a port of its own.
    pub fresh_ports: bool,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: None,
            attempts: None,
            cache_size: DEFAULT_CACHE_SIZE,
            trust_ad: None,
            fresh_ports: false,
        }
    }
}

/// What can be asked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum RecordType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The mail exchangers of a domain.
    Mx,
    /// The names of an address.
    Ptr,
    /// Free text.
    Txt,
    /// Which certificates a server may have (RFC 6698).
    Tlsa,
    /// The OpenPGP keys of an address (RFC 7929).
    OpenPgpKey,
}

impl RecordType {
    /// All of them.
    pub const ALL: [RecordType; 7] =
        [Self::A, Self::Aaaa, Self::Mx, Self::Ptr, Self::Txt, Self::Tlsa, Self::OpenPgpKey];
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Mx => "MX",
            Self::Ptr => "PTR",
            Self::Txt => "TXT",
            Self::Tlsa => "TLSA",
            Self::OpenPgpKey => "OPENPGPKEY",
        })
    }
}

/// One TXT record: its character strings, as the raw bytes they are.
pub type Text = Box<[Box<[u8]>]>;

/// One MX record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exchange {
    /// Lower ones are tried first.
    pub preference: u16,
    /// The host, without the final dot; empty where the domain takes no mail (RFC 7505).
    pub host: Arc<str>,
}

/// One TLSA record: a certificate or key that belongs to a server (RFC 6698 section 2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// How it belongs: 2 is an authority that the zone names, 3 the server's own.
    pub usage: u8,
    /// What is compared: 0 the certificate, 1 the public key.
    pub selector: u8,
    /// How: 0 as it is, 1 by SHA-256, 2 by SHA-512.
    pub matching: u8,
    /// What it has to be.
    pub data: Box<[u8]>,
}

/// A name and what is asked about it.
#[derive(Clone, Debug)]
pub struct Question {
    /// An absolute name; the final dot may be left out. It may hold anything: what is not a name has no
    /// records.
    pub name: Arc<str>,
    /// The kind of records.
    pub record_type: RecordType,
    /// The zone of the DNS list that is asked. Its servers are those of the file and not of a stranger, so
    /// there are places of their own for such questions. It makes no difference to the answer.
    pub list: Option<Arc<str>>,
}

impl PartialEq for Question {
    fn eq(&self, other: &Self) -> bool {
        self.record_type == other.record_type && self.name == other.name
    }
}

impl Eq for Question {}

impl Hash for Question {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, self.record_type).hash(state);
    }
}

impl Question {
    /// A question to a DNS list, which has this zone.
    pub fn of_list(name: &str, record_type: RecordType, zone: &Arc<str>) -> Self {
        Self { list: Some(zone.clone()), ..Self::new(name, record_type) }
    }

    /// A question about a name. Case doesn't matter in the DNS, so it is folded here and equal names are
    /// asked once.
    pub fn new(name: &str, record_type: RecordType) -> Self {
        let mut name: Arc<str> = name.strip_suffix('.').unwrap_or(name).into();
        if let Some(name) = Arc::get_mut(&mut name) {
            name.make_ascii_lowercase();
        }
        Self { name, record_type, list: None }
    }
}

/// What came of a question; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The addresses at the end of the name's CNAME chain, in the server's order; at least one.
    Addresses(Arc<[Ipv4Addr]>),
    /// The same of IPv6.
    Ipv6Addresses(Arc<[Ipv6Addr]>),
    /// The TXT records in the server's order; at least one.
    Texts(Arc<[Text]>),
    /// The MX records in the server's order; at least one.
    Exchanges(Arc<[Exchange]>),
    /// The names that PTR records give, without the final dot; at least one.
    Names(Arc<[Arc<str>]>),
    /// The TLSA records; at least one.
    Associations(Arc<[Association]>),
    /// The OpenPGP keys as they are; at least one.
    Keys(Arc<[Box<[u8]>]>),
    /// The name does not exist, has no such records, or is none that can be asked.
    Nothing,
    /// Nobody knows.
    Failed(Failure),
}

/// Why a question has no answer, in one line for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No server answered in time.
    #[error("no answer in time")]
    TimedOut,
    /// The server said that it can't or won't answer: SERVFAIL, REFUSED and the like.
    #[error("the name server answered \"{0}\"")]
    Server(&'static str),
    /// Anything else: no connection, an answer that can't be read.
    #[error("{0}")]
    Broken(Arc<str>),
}

/// Who answers questions.
pub enum Dns {
    /// The servers of the configuration or the system; needs a tokio runtime with timers and I/O.
    Resolver(Arc<Resolver>),
    /// A fixed set of answers. It never waits and needs no runtime.
    Fake(Zone),
}

impl Dns {
    /// The name service for these settings. Nothing is sent before the first question.
    pub fn new(settings: &DnsSettings) -> Self {
        Self::Resolver(Arc::new(Resolver::new(settings)))
    }

    /// Reads the list of servers again, if it has changed. What is asked does that too, once a second.
    pub fn refresh(&self) {
        if let Self::Resolver(resolver) = self {
            resolver.refresh();
        }
    }

    /// What whoever runs the daemon should know about the servers that are asked.
    pub fn note(&self) -> Option<String> {
        match self {
            Self::Resolver(resolver) => resolver.note(),
            Self::Fake(_) => None,
        }
    }

    /// What is remembered and under way; `None` where nothing is asked.
    pub fn usage(&self) -> Option<dns_stub::Usage> {
        match self {
            Self::Resolver(resolver) => Some(resolver.usage()),
            Self::Fake(_) => None,
        }
    }

    /// Sends what was started and not sent yet.
    fn flush(&self) {
        if let Self::Resolver(resolver) = self {
            resolver.flush();
        }
    }

    /// The answer to a question: remembered, shared with whoever else is asking, or asked now. It comes
    /// within the configured time-out for each server times the attempts, or is `Failed`. Dropping the
    /// future does not stop a query that was sent: its answer is cached for the next caller.
    pub async fn lookup(&self, question: &Question) -> Answer {
        match self {
            Self::Resolver(resolver) => resolver.lookup(question, &Places::default()).await,
            Self::Fake(zone) => zone.answer(question),
        }
    }

    /// The same within the places of a request, which has to wait until it has one.
    pub async fn lookup_within(&self, places: &Places, question: &Question, call: Call<'_>) -> Answer {
        if let Some(replay) = call.replay() {
            return recorded::answer(replay, self, places, question).await;
        }
        let begun = call.begin();
        let answer = match self {
            Self::Resolver(resolver) => resolver.lookup(question, places).await,
            Self::Fake(zone) => zone.answer(question),
        };
        question.note(begun, &answer, Origin::Asked);
        answer
    }

    /// The answer if it is there without asking.
    fn remembered(&self, question: &Question) -> Option<Answer> {
        match self {
            Self::Resolver(resolver) => resolver.remembered(question),
            Self::Fake(zone) => Some(zone.answer(question)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_fold_case_and_the_final_dot() {
        let plain = Question::new("a.bad.example", RecordType::A);
        assert_eq!(Question::new("A.BAD.example.", RecordType::A), plain);
        assert_ne!(Question::new("a.bad.example", RecordType::Txt), plain);
    }

    #[test]
    fn failures_are_one_line() {
        assert_eq!(Failure::TimedOut.to_string(), "no answer in time");
        assert_eq!(Failure::Server("SERVFAIL").to_string(), "the name server answered \"SERVFAIL\"");
        assert_eq!(Failure::Broken("no route".into()).to_string(), "no route");
    }
}
