//! The real name service: hickory asks the servers, this remembers what they said and bounds the asking.
//!
//! Knows: the DNS, hickory. Must not know: what an answer means to a plugin.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RecordType as WireType};
use hickory_resolver::system_conf::read_system_conf;
use moka::future::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::authentic::Upstream;
use super::known::{ByTtl, Known, read_error, read_lookup};
use super::{Answer, DnsError, DnsSettings, Failure, Question, RecordType};

/// How many lookups in DNS lists may be on their way at once: 200 connections that ask ten lists each fit.
const MAX_LISTS_IN_FLIGHT: usize = 2_000;

/// How many other lookups may be on their way at once. Their names are those that strangers choose, and so
/// are the servers that may leave them waiting; the lists have places of their own, which nobody can fill
/// that way.
const MAX_NAMES_IN_FLIGHT: usize = 2_000;

/// How many lookups may be on their way at once. Each holds a UDP socket, and up to three when the server is
/// slow and hickory sends again: this bounds file descriptors.
pub const MAX_IN_FLIGHT: usize = MAX_LISTS_IN_FLIGHT + MAX_NAMES_IN_FLIGHT;

/// What resolv.conf(5) allows at most; a larger value there is cut silently, as the C library does.
const MAX_SYSTEM_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_SYSTEM_ATTEMPTS: usize = 5;

/// The port of name servers.
const DNS_PORT: u16 = 53;

/// The longest name that is turned into A-labels, in bytes: what is longer is longer in A-labels than a name
/// may be, and the work grows faster than the length.
pub(in crate::world) const MAX_UNICODE_NAME: usize = 1_024;

/// The cause given when the runtime ended a lookup, which happens when the daemon stops.
pub(super) const STOPPED: &str = "the lookup was stopped";

/// Asks the configured servers over UDP, and over TCP where an answer was cut. Answers are remembered by
/// their TTL, failures briefly, and equal questions in flight share one query.
pub struct Resolver {
    upstream: TokioResolver,
    cache: Cache<Question, Known>,
    lists_in_flight: Arc<Semaphore>,
    pub(super) names_in_flight: Arc<Semaphore>,
    /// The longest that a question may take: the time-out of a try times the tries.
    pub(super) patience: Duration,
    /// What is odd about the servers.
    note: Option<String>,
    /// The same servers, asked for what DNSSEC proves.
    pub(super) authentic: Upstream,
}

/// A lookup that was started.
pub(super) enum Lookup {
    /// Its answer is on the way.
    Running(JoinHandle<Answer>),
    /// Its answer is here.
    Known(Answer),
}

/// How many lookups of names that strangers choose one request may have on their way at once, those included
/// for which it no longer waits: a record of SPF may ask for a hundred hosts.
const MAX_NAMES_OF_A_REQUEST: usize = 20;

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
    pub(super) fn new(settings: &DnsSettings) -> Result<Self, DnsError> {
        let (servers, mut options, note) = match settings.servers.as_slice() {
            [] => system_servers(),
            given => {
                (given.iter().map(|&server| name_server(server)).collect(), ResolverOpts::default(), None)
            }
        };
        options.timeout = settings.timeout.unwrap_or(options.timeout);
        let attempts = settings.attempts.unwrap_or(options.attempts).max(1);
        // hickory counts the tries after the first one.
        options.attempts = attempts - 1;
        options.cache_size = 0;
        options.edns0 = true;
        // More would ask every server every question, and list operators count.
        options.num_concurrent_reqs = 1;
        options.use_hosts_file = ResolveHosts::Never;
        let patience = options.timeout.saturating_mul(u32::try_from(attempts).unwrap_or(u32::MAX));

        // Without a domain and a search list no name is ever completed.
        let authentic = Upstream::new(&servers, options.clone(), settings.trust_ad)
            .map_err(|error| DnsError::Setup(error.to_string()))?;
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let upstream = builder.build().map_err(|error| DnsError::Setup(error.to_string()))?;
        let cache = Cache::builder()
            .max_capacity(settings.cache_size)
            .weigher(|question: &Question, known: &Known| known.places(question))
            .expire_after(ByTtl)
            .build();
        Ok(Self {
            upstream,
            cache,
            lists_in_flight: Arc::new(Semaphore::new(MAX_LISTS_IN_FLIGHT)),
            names_in_flight: Arc::new(Semaphore::new(MAX_NAMES_IN_FLIGHT)),
            patience,
            note,
            authentic,
        })
    }

    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The answer, at the latest when the resolver's patience ends.
    pub(super) async fn lookup(self: &Arc<Self>, question: &Question, places: &Places) -> Answer {
        if let Some(known) = self.cache.get(question).await {
            return known.answer;
        }
        let Some(name) = wire_name(&question.name) else { return Answer::Nothing };
        let asked = async {
            // The semaphores are never closed.
            let own = match &question.list {
                Some(_) => None,
                None => places.0.clone().acquire_owned().await.ok(),
            };
            let shared = self.in_flight(question).clone().acquire_owned().await.ok();
            self.spawn(question.clone(), name, [own, shared]).await
        };
        match timeout(self.patience, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer::Failed(Failure::Broken(STOPPED.into())),
            Err(_) => Answer::Failed(Failure::TimedOut),
        }
    }

    /// The answer if it is remembered, else a lookup that was started and not waited for; `None` if too many
    /// are in flight.
    pub(super) fn start(self: &Arc<Self>, question: &Question, places: &Places) -> Option<Lookup> {
        if let Some(answer) = self.remembered(question) {
            return Some(Lookup::Known(answer));
        }
        let Some(name) = wire_name(&question.name) else { return Some(Lookup::Known(Answer::Nothing)) };
        let own = match &question.list {
            Some(_) => None,
            None => Some(places.0.clone().try_acquire_owned().ok()?),
        };
        let shared = self.in_flight(question).clone().try_acquire_owned().ok()?;
        Some(Lookup::Running(self.spawn(question.clone(), name, [own, Some(shared)])))
    }

    fn in_flight(&self, question: &Question) -> &Arc<Semaphore> {
        if question.list.is_some() { &self.lists_in_flight } else { &self.names_in_flight }
    }

    /// What the cache has at once: a task for each remembered answer would cost more than the answer.
    pub(super) fn remembered(&self, question: &Question) -> Option<Answer> {
        let get = pin!(self.cache.get(question));
        match get.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(known) => Some(known?.answer),
            Poll::Pending => None,
        }
    }

    /// The lookup in a task of its own, so that it ends, and is remembered, also when nobody waits any more.
    fn spawn(
        self: &Arc<Self>,
        question: Question,
        name: Name,
        permits: [Option<OwnedSemaphorePermit>; 2],
    ) -> JoinHandle<Answer> {
        let resolver = Arc::clone(self);
        tokio::spawn(async move {
            let _permits = permits;
            let record_type = question.record_type;
            resolver.cache.get_with(question, resolver.query(name, record_type)).await.answer
        })
    }

    async fn query(&self, name: Name, record_type: RecordType) -> Known {
        let asked = self.upstream.lookup(name.clone(), record_type.on_the_wire());
        match timeout(self.patience, asked).await {
            Ok(Ok(lookup)) => read_lookup(&name, record_type, &lookup),
            Ok(Err(error)) => read_error(&error),
            Err(_) => Known::failed(Failure::TimedOut),
        }
    }
}

/// The servers of `/etc/resolv.conf` and what it says about patience. The servers of resolv.conf. Without a
/// readable one it is the server of this machine, as resolv.conf(5) has it: a chain may need no name server,
/// and one that does fails by the list.
fn system_servers() -> (Vec<NameServerConfig>, ResolverOpts, Option<String>) {
    let local = |why: String| {
        let note = format!("no name server in /etc/resolv.conf ({why}): 127.0.0.1 is asked");
        (vec![name_server((Ipv4Addr::LOCALHOST, DNS_PORT).into())], ResolverOpts::default(), Some(note))
    };
    match read_system_conf() {
        Ok((config, _)) if config.name_servers().is_empty() => local("it names none".to_owned()),
        Ok((config, mut options)) => {
            options.timeout = options.timeout.min(MAX_SYSTEM_TIMEOUT);
            options.attempts = options.attempts.min(MAX_SYSTEM_ATTEMPTS);
            (config.name_servers().to_vec(), options, None)
        }
        Err(error) => local(error.to_string()),
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// The name as labels, or `None` if it is none: empty or overlong labels, more than 255 bytes, control
/// characters. Everything else is asked as it stands, blanks too, for a label may hold any byte (RFC 2181
/// section 11), and SPF makes labels of users; what is not ASCII is turned into A-labels (RFC 5890).
pub(super) fn wire_name(name: &str) -> Option<Name> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.contains(char::is_control) {
        return None;
    }
    if !name.is_ascii() {
        if name.len() > MAX_UNICODE_NAME || name.contains(char::is_whitespace) {
            return None;
        }
        let mut name = Name::from_utf8(name).ok()?;
        name.set_fqdn(true);
        return Some(name);
    }
    if name.split('.').any(str::is_empty) {
        return None;
    }
    Name::from_labels(name.split('.').map(str::as_bytes)).ok()
}

impl RecordType {
    pub(super) fn on_the_wire(self) -> WireType {
        match self {
            Self::A => WireType::A,
            Self::Aaaa => WireType::AAAA,
            Self::Mx => WireType::MX,
            Self::Ptr => WireType::PTR,
            Self::Txt => WireType::TXT,
            Self::Tlsa => WireType::TLSA,
            Self::OpenPgpKey => WireType::OPENPGPKEY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolver(settings: DnsSettings) -> Arc<Resolver> {
        let servers = vec!["127.0.0.1:9".parse().unwrap()];
        Arc::new(Resolver::new(&DnsSettings { servers, ..settings }).unwrap())
    }

    #[test]
    fn patience_is_the_time_of_all_tries() {
        let patience = |timeout: u64, attempts: usize| {
            let timeout = Some(Duration::from_secs(timeout));
            let resolver =
                resolver(DnsSettings { timeout, attempts: Some(attempts), ..DnsSettings::default() });
            assert_eq!(resolver.upstream.options().attempts + 1, attempts.max(1));
            resolver.patience.as_secs()
        };
        assert_eq!([patience(2, 3), patience(2, 1), patience(2, 0)], [6, 2, 2]);
    }

    #[tokio::test]
    async fn lookups_in_flight_are_bounded_and_lists_have_places_of_their_own() {
        let timeout = Some(Duration::from_millis(50));
        let resolver = resolver(DnsSettings { timeout, attempts: Some(1), ..DnsSettings::default() });
        let all = |count: usize| u32::try_from(count).unwrap();
        let name = |name: &str| Question::new(name, RecordType::A);
        let listing = |name: &str| Question::of_list(name, RecordType::A, &"bl.test".into());
        let places = Places::default();
        for (taken, most, waiting, going) in [
            (&resolver.names_in_flight, MAX_NAMES_IN_FLIGHT, name("a.test"), listing("a.bl.test")),
            (&resolver.lists_in_flight, MAX_LISTS_IN_FLIGHT, listing("b.bl.test"), name("b.test")),
        ] {
            let taken = taken.acquire_many(all(most)).await.unwrap();
            assert!(resolver.start(&waiting, &places).is_none(), "a lookup ahead is left out");
            let answer = resolver.lookup(&waiting, &places).await;
            assert_eq!(answer, Answer::Failed(Failure::TimedOut), "the others wait");
            assert!(resolver.start(&going, &places).is_some(), "the others have places of their own");
            drop(taken);
            assert!(resolver.start(&waiting, &places).is_some(), "there is room again");
        }
    }

    #[tokio::test]
    async fn a_request_has_so_many_places_and_no_more() {
        // Nobody answers there, and nobody says so.
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = vec![silent.local_addr().unwrap()];
        let resolver = Arc::new(Resolver::new(&DnsSettings { servers, ..DnsSettings::default() }).unwrap());
        let about = |n: usize| Question::new(&format!("{n}.test"), RecordType::A);
        let (places, others) = (Places::default(), Places::default());
        for n in 0..MAX_NAMES_OF_A_REQUEST {
            assert!(resolver.start(&about(n), &places).is_some());
        }
        let one_more = about(MAX_NAMES_OF_A_REQUEST);
        assert!(resolver.start(&one_more, &places).is_none());
        assert!(resolver.start(&one_more, &others).is_some(), "another request has its own");
        let listing = Question::of_list("a.bl.test", RecordType::A, &"bl.test".into());
        assert!(
            resolver.start(&listing, &places).is_some(),
            "how many lists there are is for the file to say"
        );
    }
}
