//! The real name service: hickory asks the servers, this remembers what they said and bounds the asking.
//!
//! Knows: the DNS, hickory. Must not know: what an answer means to a plugin.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Said, NetError, NoRecords};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType as WireType};
use hickory_resolver::system_conf::read_system_conf;
use moka::Expiry;
use moka::future::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::authentic::Upstream;
use super::{Answer, Association, DnsError, DnsSettings, Exchange, Failure, Question, RecordType};

/// How many lookups may be on their way at once; 200 connections that ask 13 lists each fit. Each holds a UDP
/// socket, and up to three when the server is slow and hickory sends again: this bounds file descriptors.
pub const MAX_IN_FLIGHT: usize = 4_000;

/// The longest that records are believed, whatever their TTL says: a list that corrects a mistake is heard
/// the next day at the latest.
const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest that "no such name" is believed (RFC 2308 section 5 suggests one to three hours).
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(60 * 60);

/// How long a failure is remembered (RFC 9520 section 3.2: at least 1 s, at most 5 min): the recipients of
/// one mail don't wait for a dead list one after the other, and the sender's next try finds it alive again.
const FAILURE_TTL: Duration = Duration::from_secs(10);

/// What resolv.conf(5) allows at most; a larger value there is cut silently, as the C library does.
const MAX_SYSTEM_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_SYSTEM_ATTEMPTS: usize = 5;

/// The bytes of an answer that take the place of one more in the cache: so its memory is bounded, not only
/// its number of answers, whatever the owner of a zone puts into his records.
const BYTES_PER_PLACE: usize = 1_024;

/// The port of name servers.
const DNS_PORT: u16 = 53;

/// How much of an error's text is kept, in characters: a log line's worth.
const MAX_CAUSE: usize = 200;

/// The cause given when the runtime ended a lookup, which happens when the daemon stops.
pub(super) const STOPPED: &str = "the lookup was stopped";

/// Asks the configured servers over UDP, and over TCP where an answer was cut. Answers are remembered by
/// their TTL, failures briefly, and equal questions in flight share one query.
pub struct Resolver {
    upstream: TokioResolver,
    cache: Cache<Question, Known>,
    pub(super) in_flight: Arc<Semaphore>,
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

/// An answer and how long it holds.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) answer: Answer,
    ttl: Duration,
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
            .weigher(|_: &Question, known: &Known| known.places())
            .expire_after(ByTtl)
            .build();
        Ok(Self {
            upstream,
            cache,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            patience,
            note,
            authentic,
        })
    }

    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The answer, at the latest when the resolver's patience ends.
    pub(super) async fn lookup(self: &Arc<Self>, question: &Question) -> Answer {
        if let Some(known) = self.cache.get(question).await {
            return known.answer;
        }
        let Some(name) = wire_name(&question.name) else { return Answer::Nothing };
        let asked = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&self.in_flight).acquire_owned().await.ok();
            self.spawn(question.clone(), name, permit).await
        };
        match timeout(self.patience, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Answer::Failed(Failure::Broken(STOPPED.into())),
            Err(_) => Answer::Failed(Failure::TimedOut),
        }
    }

    /// The answer if it is remembered, else a lookup that was started and not waited for; `None` if too many
    /// are in flight.
    pub(super) fn start(self: &Arc<Self>, question: &Question) -> Option<Lookup> {
        if let Some(answer) = self.remembered(question) {
            return Some(Lookup::Known(answer));
        }
        let Some(name) = wire_name(&question.name) else { return Some(Lookup::Known(Answer::Nothing)) };
        let permit = Arc::clone(&self.in_flight).try_acquire_owned().ok()?;
        Some(Lookup::Running(self.spawn(question.clone(), name, Some(permit))))
    }

    /// What the cache has at once: a task for each remembered answer would cost more than the answer.
    fn remembered(&self, question: &Question) -> Option<Answer> {
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
        permit: Option<OwnedSemaphorePermit>,
    ) -> JoinHandle<Answer> {
        let resolver = Arc::clone(self);
        tokio::spawn(async move {
            let _permit = permit;
            let record_type = question.record_type;
            resolver.cache.get_with(question, resolver.query(name, record_type)).await.answer
        })
    }

    async fn query(&self, name: Name, record_type: RecordType) -> Known {
        let asked = self.upstream.lookup(name.clone(), record_type.on_the_wire());
        match timeout(self.patience, asked).await {
            Ok(Ok(lookup)) => read_answer(&name, record_type, lookup.answers()),
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
        if name.contains(char::is_whitespace) {
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

/// Reads the records at the end of the name's CNAME chain, which servers send in its order. Records of other
/// names were not asked for and don't count.
pub(super) fn read_answer(name: &Name, record_type: RecordType, records: &[Record]) -> Known {
    let mut owner = name;
    let mut ttl = MAX_TTL;
    let mut found = Vec::new();
    for record in records.iter() {
        if &record.name != owner {
            continue;
        }
        match &record.data {
            RData::CNAME(target) => owner = &target.0,
            data if data.record_type() == record_type.on_the_wire() => found.push(data),
            _ => continue,
        }
        ttl = ttl.min(Duration::from_secs(record.ttl.into()));
    }
    let answer = if found.is_empty() { Answer::Nothing } else { read_data(record_type, &found) };
    Known { answer, ttl }
}

/// The answer that these records are, all of that type.
fn read_data(record_type: RecordType, records: &[&RData]) -> Answer {
    fn all<'r, T>(records: &'r [&RData], read: impl Fn(&'r RData) -> Option<T>) -> Arc<[T]> {
        records.iter().filter_map(|record| read(record)).collect()
    }
    match record_type {
        RecordType::A => Answer::Addresses(all(records, |data| match data {
            RData::A(address) => Some(address.0),
            _ => None,
        })),
        RecordType::Aaaa => Answer::Ipv6Addresses(all(records, |data| match data {
            RData::AAAA(address) => Some(address.0),
            _ => None,
        })),
        RecordType::Mx => Answer::Exchanges(all(records, |data| match data {
            RData::MX(exchange) => {
                Some(Exchange { preference: exchange.preference, host: host_name(&exchange.exchange) })
            }
            _ => None,
        })),
        RecordType::Ptr => Answer::Names(all(records, |data| match data {
            RData::PTR(name) => Some(host_name(&name.0)),
            _ => None,
        })),
        RecordType::Txt => Answer::Texts(all(records, |data| match data {
            RData::TXT(text) => Some(text.txt_data.iter().cloned().collect()),
            _ => None,
        })),
        RecordType::Tlsa => Answer::Associations(all(records, |data| match data {
            RData::TLSA(record) => Some(Association {
                usage: record.cert_usage.into(),
                selector: record.selector.into(),
                matching: record.matching.into(),
                data: record.cert_data.as_slice().into(),
            }),
            _ => None,
        })),
        RecordType::OpenPgpKey => Answer::Keys(all(records, |data| match data {
            RData::OPENPGPKEY(record) => Some(record.public_key.as_slice().into()),
            _ => None,
        })),
    }
}

/// A name as it can be asked for again.
fn host_name(name: &Name) -> Arc<str> {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).into()
}

pub(super) fn read_error(error: &NetError) -> Known {
    match error {
        NetError::Dns(Said::NoRecordsFound(NoRecords { response_code, negative_ttl, .. })) => {
            match response_code {
                // Without an SOA record nothing says how long it holds, and it must not be remembered (RFC
                // 2308).
                ResponseCode::NXDomain | ResponseCode::NoError => Known {
                    answer: Answer::Nothing,
                    ttl: Duration::from_secs(negative_ttl.unwrap_or(0).into()).min(MAX_NEGATIVE_TTL),
                },
                code => Known::failed(Failure::Server(code.to_str())),
            }
        }
        NetError::Dns(Said::ResponseCode(code)) => Known::failed(Failure::Server(code.to_str())),
        NetError::Timeout => Known::failed(Failure::TimedOut),
        other => Known::failed(Failure::Broken(one_line(&other.to_string()).into())),
    }
}

/// The cause of an error for a log line; parts of it may come from the network.
fn one_line(cause: &str) -> String {
    cause.chars().take(MAX_CAUSE).map(|c| if c.is_control() { ' ' } else { c }).collect()
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

impl Known {
    fn failed(failure: Failure) -> Self {
        Self { answer: Answer::Failed(failure), ttl: FAILURE_TTL }
    }

    /// How many places of the cache the answer takes.
    fn places(&self) -> u32 {
        let bytes = match &self.answer {
            Answer::Addresses(addresses) => size_of_val(&**addresses),
            Answer::Ipv6Addresses(addresses) => size_of_val(&**addresses),
            Answer::Texts(texts) => texts.iter().flatten().map(|string| string.len()).sum(),
            Answer::Exchanges(exchanges) => exchanges.iter().map(|exchange| exchange.host.len()).sum(),
            Answer::Names(names) => names.iter().map(|name| name.len()).sum(),
            Answer::Associations(records) => records.iter().map(|record| record.data.len()).sum(),
            Answer::Keys(keys) => keys.iter().map(|key| key.len()).sum(),
            Answer::Nothing | Answer::Failed(_) => 0,
        };
        u32::try_from(1 + bytes / BYTES_PER_PLACE).unwrap_or(u32::MAX)
    }
}

/// Entries live as long as their answers hold.
struct ByTtl;

impl Expiry<Question, Known> for ByTtl {
    fn expire_after_create(&self, _: &Question, known: &Known, _: Instant) -> Option<Duration> {
        Some(known.ttl)
    }

    fn expire_after_update(
        &self,
        _: &Question,
        known: &Known,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(known.ttl)
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::{A, CNAME};

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
    async fn lookups_in_flight_are_bounded() {
        let timeout = Some(Duration::from_millis(50));
        let resolver = resolver(DnsSettings { timeout, attempts: Some(1), ..DnsSettings::default() });
        let taken = resolver.in_flight.acquire_many(u32::try_from(MAX_IN_FLIGHT).unwrap()).await.unwrap();
        let question = Question::new("a.test", RecordType::A);
        assert!(resolver.start(&question).is_none(), "a lookup ahead is left out");
        assert_eq!(resolver.lookup(&question).await, Answer::Failed(Failure::TimedOut), "the others wait");
        drop(taken);
        let Some(Lookup::Running(_)) = resolver.start(&question) else { panic!("there is room again") };
    }

    #[test]
    fn records_of_other_names_do_not_count() {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let record = |owner: &str, data| Record::from_rdata(name(owner), 60, data);
        let address = |last| RData::A(A::new(127, 0, 0, last));
        let alias = |target: &str| RData::CNAME(CNAME(name(target)));
        let read = |records: &[Record]| read_answer(&name("a.test."), RecordType::A, records).answer;
        let one = |last| Answer::Addresses(Arc::from([[127, 0, 0, last].into()]));
        assert_eq!(read(&[record("b.test.", address(3)), record("A.test.", address(2))]), one(2));
        let chain = [
            record("a.test.", alias("b.test.")),
            record("b.test.", alias("c.test.")),
            record("a.test.", address(3)),
            record("c.test.", address(2)),
        ];
        assert_eq!(read(&chain), one(2));
        assert_eq!(read(&chain[..3]), Answer::Nothing);
    }

    #[test]
    fn long_answers_take_more_room() {
        let places = |answer| Known { answer, ttl: MAX_TTL }.places();
        assert_eq!(places(Answer::Nothing), 1);
        assert_eq!(places(Answer::Addresses(Arc::from([[127, 0, 0, 2].into()]))), 1);
        let strings = vec![Box::from(&[0; 255][..]); 250];
        assert_eq!(places(Answer::Texts(Arc::from([strings.into()]))), 63);
    }

    #[test]
    fn causes_are_one_short_line() {
        let cause = one_line(&format!("a\r\nb\u{9b}{}", "x".repeat(1_000)));
        assert!(cause.starts_with("a  b x") && cause.len() == MAX_CAUSE, "{cause}");
    }
}
