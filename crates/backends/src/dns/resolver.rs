//! The real name service: servers are asked, and their answers remembered, by the crate `dns-stub`; this
//! says whose places a question takes, and what the daemon calls an answer.
//!
//! Knows: the DNS, dns-stub. Must not know: what an answer means to a plugin.

use std::sync::Arc;
use std::time::Duration;

use dns_stub::{Class, Config, Data, Error, Name, NameRef};
use idna::AsciiDenyList;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::{Answer, Association, DnsSettings, Exchange, Failure, Question, RecordType};

/// Maximum number of lookups in DNS lists in flight at once: 300 connections that ask thirteen lists each
/// fit.
const MAX_LISTS_IN_FLIGHT: usize = 4_000;

/// Maximum number of other lookups in flight at once. Their names are those that strangers choose, and so
/// are the servers that may leave them waiting; the lists have places of their own, which nobody can fill
/// that way.
const MAX_NAMES_IN_FLIGHT: usize = 2_000;

/// Maximum number of lookups in flight at once. Each has a port of its own at most: this bounds file
/// descriptors.
pub const MAX_IN_FLIGHT: usize = MAX_LISTS_IN_FLIGHT + MAX_NAMES_IN_FLIGHT;

/// The longest that records are believed, whatever their TTL says: a list that corrects a mistake is heard
/// the next day at the latest.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest that "no such name" is believed (RFC 2308 section 5 suggests one to three hours).
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(60 * 60);

/// How long a failure is remembered (RFC 9520 section 3.2: at least 1 s, at most 5 min): the recipients of
/// one message don't wait for a dead list one after the other, and the sender's next try finds it alive
/// again.
const FAILURE_TTL: Duration = Duration::from_secs(10);

/// The memory that `cache_size` counts by.
const BYTES_PER_PLACE: usize = 1_024;

/// The longest name that is turned into A-labels, in bytes: what is longer is longer in A-labels than a name
/// may be, and the work grows faster than the length.
pub const MAX_UNICODE_NAME: usize = 1_024;

/// Maximum number of lookups of names that strangers choose per request in flight at once, those included
/// for which it no longer waits: a record of SPF may ask for a hundred hosts.
const MAX_NAMES_OF_A_REQUEST: usize = 20;

/// Asks the configured servers over UDP, and over TCP where an answer was cut. Answers are remembered by
/// their TTL, failures briefly, and equal questions in flight share one query.
pub struct Resolver {
    stub: dns_stub::Resolver,
    /// Whether the servers' word about DNSSEC is believed, if the configuration says so or not.
    trust_ad: Option<bool>,
}

/// A lookup that was started.
pub(super) enum Lookup {
    /// Its answer is on the way.
    Running(RecordType, dns_stub::Lookup),
    /// Its answer is here.
    Known(Answer),
}

/// The places of one request for lookups of names that strangers choose.
#[derive(Clone)]
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_NAMES_OF_A_REQUEST)))
    }
}

impl Resolver {
    /// A resolver for these settings. It opens nothing and needs no runtime yet.
    pub(super) fn new(settings: &DnsSettings) -> Self {
        let places = usize::try_from(settings.cache_size).unwrap_or(usize::MAX);
        let config = Config {
            servers: settings.servers.clone(),
            timeout: settings.timeout,
            attempts: settings.attempts.map(|attempts| u32::try_from(attempts).unwrap_or(u32::MAX)),
            cache_bytes: places.saturating_mul(BYTES_PER_PLACE),
            max_ttl: MAX_TTL,
            max_negative_ttl: MAX_NEGATIVE_TTL,
            failure_ttl: FAILURE_TTL,
            max_configured: MAX_LISTS_IN_FLIGHT,
            max_foreign: MAX_NAMES_IN_FLIGHT,
            fresh_ports: settings.fresh_ports,
            ..Config::default()
        };
        Self { stub: dns_stub::Resolver::new(config), trust_ad: settings.trust_ad }
    }

    pub(super) fn note(&self) -> Option<String> {
        self.stub.warning()
    }

    /// What is remembered and under way.
    pub(super) fn usage(&self) -> dns_stub::Usage {
        self.stub.usage()
    }

    /// Reads the list of servers again, if it has changed.
    pub(super) fn refresh(&self) {
        self.stub.refresh();
    }

    /// The answer, at the latest when the resolver's patience ends.
    pub(super) async fn lookup(&self, question: &Question, places: &Places) -> Answer {
        let Some(asked) = stub_question(question) else { return Answer::Nothing };
        if let Some(outcome) = self.stub.known(&asked) {
            return read_outcome(question.record_type, outcome);
        }
        let deadline = Instant::now() + self.stub.patience();
        let outcome = match class(question) {
            Class::Configured => self.stub.resolve(&asked, Class::Configured, deadline).await,
            class @ Class::Foreign => {
                // The semaphore is never closed.
                match timeout_at(deadline, places.0.clone().acquire_owned()).await {
                    Ok(own) => self.stub.resolve_holding(&asked, class, deadline, own).await,
                    Err(_) => Err(Error::Overloaded),
                }
            }
        };
        read_outcome(question.record_type, outcome)
    }

    /// The answer if it is remembered, else a lookup that was started and not waited for; `None` if too many
    /// are in flight.
    pub(super) fn start(&self, question: &Question, places: &Places) -> Option<Lookup> {
        let Some(asked) = stub_question(question) else { return Some(Lookup::Known(Answer::Nothing)) };
        let lookup = match class(question) {
            Class::Configured => self.stub.start(&asked, Class::Configured).ok()?,
            class @ Class::Foreign => match self.stub.known(&asked) {
                Some(outcome) => return Some(Lookup::Known(read_outcome(question.record_type, outcome))),
                None => {
                    let own = places.0.clone().try_acquire_owned().ok()?;
                    self.stub.start_holding(&asked, class, own).ok()?
                }
            },
        };
        Some(match lookup.known() {
            Some(outcome) => Lookup::Known(read_outcome(question.record_type, outcome.clone())),
            None => Lookup::Running(question.record_type, lookup),
        })
    }

    /// Sends what was started and not sent yet.
    pub(super) fn flush(&self) {
        self.stub.flush();
    }

    /// What is remembered.
    pub(super) fn remembered(&self, question: &Question) -> Option<Answer> {
        let outcome = self.stub.known(&stub_question(question)?)?;
        Some(read_outcome(question.record_type, outcome))
    }

    /// Whether the servers are believed when they say that DNSSEC proves an answer.
    pub(super) fn is_believed(&self) -> bool {
        // Anybody on the way to a server elsewhere could set the flag.
        let is_local = |servers: Vec<std::net::SocketAddr>| {
            !servers.is_empty() && servers.iter().all(|server| server.ip().is_loopback())
        };
        self.trust_ad.unwrap_or_else(|| self.stub.trusts_ad() || is_local(self.stub.servers()))
    }

    /// The answer, and whether a server says that DNSSEC proves it.
    pub(super) async fn lookup_with_proof(&self, question: &Question) -> (Answer, bool) {
        let Some(asked) = stub_question(question) else { return (Answer::Nothing, false) };
        let asked = dns_stub::Question { wants_proof: true, ..asked };
        let deadline = Instant::now() + self.stub.patience();
        let outcome = self.stub.resolve(&asked, class(question), deadline).await;
        let is_proved = outcome.as_ref().is_ok_and(|answer| answer.is_authentic && !answer.is_empty());
        (read_outcome(question.record_type, outcome), is_proved)
    }
}

impl Lookup {
    /// Waits for the answer. What is not there at the deadline may still come for a later one.
    pub(super) async fn finish(&mut self, deadline: Instant) -> Answer {
        let (record_type, lookup) = match self {
            Self::Known(answer) => return answer.clone(),
            Self::Running(record_type, lookup) => (*record_type, lookup),
        };
        // Of ten answers that have come together nine need no timer.
        let known = lookup.known().cloned();
        let outcome = match known {
            Some(outcome) => outcome,
            None => match timeout_at(deadline, lookup).await {
                Ok(outcome) => outcome,
                Err(_) => return Answer::Failed(Failure::TimedOut),
            },
        };
        let answer = read_outcome(record_type, outcome);
        *self = Self::Known(answer.clone());
        answer
    }

    /// The answer if it is here.
    pub(super) fn finish_now(&mut self) -> Option<Answer> {
        let answer = match self {
            Self::Known(answer) => return Some(answer.clone()),
            Self::Running(record_type, lookup) => read_outcome(*record_type, lookup.known()?.clone()),
        };
        *self = Self::Known(answer.clone());
        Some(answer)
    }
}

fn class(question: &Question) -> Class {
    if question.list.is_some() { Class::Configured } else { Class::Foreign }
}

fn stub_question(question: &Question) -> Option<dns_stub::Question> {
    Some(dns_stub::Question::new(wire_name(&question.name)?, question.record_type.on_the_wire()))
}

/// The name as labels, or `None` if it is none: empty or overlong labels, more than 255 bytes, control
/// characters. Everything else is asked as it stands, blanks too, for a label may hold any byte (RFC 2181
/// section 11), and SPF makes labels of users; what is not ASCII is turned into A-labels (RFC 5890).
fn wire_name(name: &str) -> Option<Name> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_ascii() {
        let is_askable = !name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_control());
        return is_askable.then(|| Name::parse(name).ok()).flatten();
    }
    if name.contains(char::is_control) || name.len() > MAX_UNICODE_NAME || name.contains(char::is_whitespace)
    {
        return None;
    }
    Name::parse(&idna::domain_to_ascii_cow(name.as_bytes(), AsciiDenyList::EMPTY).ok()?).ok()
}

/// What the daemon calls an answer.
fn read_outcome(record_type: RecordType, outcome: Result<dns_stub::Answer, Error>) -> Answer {
    let answer = match outcome {
        Ok(answer) if answer.is_empty() => return Answer::Nothing,
        Ok(answer) => answer,
        Err(Error::TimedOut) => return Answer::Failed(Failure::TimedOut),
        Err(Error::Refused(code)) => return Answer::Failed(Failure::Server(code.description())),
        Err(error) => return Answer::Failed(Failure::Broken(error.to_string().into())),
    };
    fn all<'a, T>(answer: &'a dns_stub::Answer, read: impl Fn(Data<'a>) -> Option<T>) -> Arc<[T]> {
        answer.records().filter_map(read).collect()
    }
    match record_type {
        RecordType::A => Answer::Addresses(all(&answer, |data| match data {
            Data::A(address) => Some(address),
            _ => None,
        })),
        RecordType::Aaaa => Answer::Ipv6Addresses(all(&answer, |data| match data {
            Data::Aaaa(address) => Some(address),
            _ => None,
        })),
        RecordType::Mx => Answer::Exchanges(all(&answer, |data| match data {
            Data::Mx { preference, exchange } => Some(Exchange { preference, host: host_name(exchange) }),
            _ => None,
        })),
        RecordType::Ptr => Answer::Names(all(&answer, |data| match data {
            Data::Name(name) => Some(host_name(name)),
            _ => None,
        })),
        RecordType::Txt => Answer::Texts(all(&answer, |data| match data {
            Data::Text(strings) => Some(strings.map(Box::from).collect()),
            _ => None,
        })),
        RecordType::Tlsa => Answer::Associations(all(&answer, |data| match data {
            Data::Tlsa { usage, selector, matching, data } => {
                Some(Association { usage, selector, matching, data: data.into() })
            }
            _ => None,
        })),
        RecordType::OpenPgpKey => Answer::Keys(all(&answer, |data| match data {
            Data::Other(key) => Some(key.into()),
            _ => None,
        })),
    }
}

/// A name as it can be asked for again; the root is empty. One that text can't express (a dot in a label, a
/// control character) is written as master files have it, and asked for without success.
fn host_name(name: NameRef<'_>) -> Arc<str> {
    let text = |label| {
        let text = str::from_utf8(label).ok()?;
        (!text.contains(|c: char| c == '.' || c.is_control())).then_some(text)
    };
    match name.labels().map(text).collect::<Option<Vec<_>>>() {
        Some(labels) => labels.join(".").into(),
        None => name.to_string().into(),
    }
}

impl RecordType {
    fn on_the_wire(self) -> dns_stub::RecordType {
        match self {
            Self::A => dns_stub::RecordType::A,
            Self::Aaaa => dns_stub::RecordType::AAAA,
            Self::Mx => dns_stub::RecordType::MX,
            Self::Ptr => dns_stub::RecordType::PTR,
            Self::Txt => dns_stub::RecordType::TXT,
            Self::Tlsa => dns_stub::RecordType::TLSA,
            Self::OpenPgpKey => dns_stub::RecordType::OPENPGPKEY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A resolver whose server never answers.
    async fn waiting() -> (tokio::net::UdpSocket, Resolver) {
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![silent.local_addr().unwrap()];
        let timeout = Some(Duration::from_secs(600));
        (silent, Resolver::new(&DnsSettings { servers, timeout, ..DnsSettings::default() }))
    }

    fn about(n: usize) -> Question {
        Question::new(&format!("{n}.test"), RecordType::A)
    }

    fn listing(n: usize) -> Question {
        Question::of_list(&format!("{n}.bl.test"), RecordType::A, &"bl.test".into())
    }

    #[tokio::test]
    async fn lookups_in_flight_are_bounded_and_lists_have_places_of_their_own() {
        let (_silent, resolver) = waiting().await;
        let start = |question: &Question| resolver.start(question, &Places::default());
        for n in 0..MAX_NAMES_IN_FLIGHT {
            assert!(start(&about(n)).is_some());
        }
        let one_more = about(MAX_NAMES_IN_FLIGHT);
        assert!(start(&one_more).is_none(), "a lookup ahead is left out");
        assert!(start(&about(0)).is_some(), "what is on its way has its place");
        for n in 0..MAX_LISTS_IN_FLIGHT {
            assert!(start(&listing(n)).is_some(), "lists have places of their own");
        }
        assert!(start(&listing(MAX_LISTS_IN_FLIGHT)).is_none());
    }

    #[tokio::test]
    async fn a_request_has_so_many_places_and_no_more() {
        let (_silent, resolver) = waiting().await;
        let (places, others) = (Places::default(), Places::default());
        for n in 0..MAX_NAMES_OF_A_REQUEST {
            assert!(resolver.start(&about(n), &places).is_some());
        }
        let one_more = about(MAX_NAMES_OF_A_REQUEST);
        assert!(resolver.start(&one_more, &places).is_none());
        assert!(resolver.start(&one_more, &others).is_some(), "another request has its own");
        assert!(
            resolver.start(&listing(0), &places).is_some(),
            "how many lists there are is for the file to say"
        );
    }

    #[test]
    fn only_servers_of_this_machine_are_believed_unasked() {
        let believed = |servers: &[&str], trust_ad| {
            let servers = servers.iter().map(|server| server.parse().unwrap()).collect();
            Resolver::new(&DnsSettings { servers, trust_ad, ..DnsSettings::default() }).is_believed()
        };
        assert!(believed(&["127.0.0.53:53"], None) && believed(&["127.0.0.1:53", "[::1]:53"], None));
        assert!(!believed(&["127.0.0.1:53", "192.0.2.1:53"], None) && !believed(&["192.0.2.1:53"], None));
        assert!(believed(&["192.0.2.1:53"], Some(true)) && !believed(&["[::1]:53"], Some(false)));
    }
}
