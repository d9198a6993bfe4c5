//! The face of the crate: a configuration, questions, and the resolver that answers them.
//!
//! Knows: what callers need. Must not know: how servers are asked.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::answer::{Answer, Error, RecordType};
use crate::engine::Engine;
use crate::flight::Flight;
use crate::name::Name;
use crate::network::Network;
use crate::random::Random;
use crate::table::Found;

/// Which servers are asked, how patiently, and what is remembered.
#[derive(Clone, Debug)]
pub struct Config {
    /// The servers, in the order in which they are asked; none: those of [`Config::resolv_conf`].
    pub servers: Vec<SocketAddr>,
    /// The file that names the servers, looked at again at most once a second.
    pub resolv_conf: PathBuf,
    /// How long to wait for one server; `None`: as the file says, or 5 s.
    pub timeout: Option<Duration>,
    /// How often each server is asked that does not answer; `None`: as the file says, or 2.
    pub attempts: Option<u32>,
    /// Maximum size of the cached answers in bytes.
    pub cache_bytes: usize,
    /// How long answers are remembered at most.
    pub max_ttl: Duration,
    /// How long it is remembered at most that there are no such records.
    pub max_negative_ttl: Duration,
    /// How long it is remembered that a question has no answer (RFC 9520 section 3.2).
    pub failure_ttl: Duration,
    /// Maximum number of questions of [`Class::Configured`] in flight.
    pub max_configured: usize,
    /// Maximum number of questions of [`Class::Foreign`] in flight.
    pub max_foreign: usize,
    /// Whether every question has a port of its own.
    pub fresh_ports: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            timeout: None,
            attempts: None,
            cache_bytes: 8 * 1_024 * 1_024,
            max_ttl: Duration::from_secs(24 * 60 * 60),
            max_negative_ttl: Duration::from_secs(60 * 60),
            failure_ttl: Duration::from_secs(10),
            max_configured: 4_000,
            max_foreign: 4_000,
            fresh_ports: false,
        }
    }
}

impl Config {
    /// The file, if the servers are its matter.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.servers.is_empty().then_some(&*self.resolv_conf)
    }

    pub(crate) fn places(&self, class: Class) -> usize {
        match class {
            Class::Configured => self.max_configured,
            Class::Foreign => self.max_foreign,
        }
    }
}

/// Whose places in flight a question takes. So servers of strangers that do not answer keep no place from
/// others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Class {
    /// Below names that the administrator chose.
    Configured,
    /// About names that strangers choose.
    Foreign,
}

impl Class {
    pub(crate) const COUNT: usize = 2;
    pub(crate) const ALL: [Class; Self::COUNT] = [Self::Configured, Self::Foreign];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Configured => 0,
            Self::Foreign => 1,
        }
    }
}

/// What is asked. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Question {
    /// The name.
    pub name: Name,
    /// The type of records.
    pub record_type: RecordType,
    /// Whether the server is asked if DNSSEC proves the answer; [`Answer::is_authentic`] says nothing without
    /// it.
    pub wants_proof: bool,
}

impl Question {
    /// A question that needs no proof.
    pub fn new(name: Name, record_type: RecordType) -> Self {
        Self { name, record_type, wants_proof: false }
    }
}

/// What a resolver holds now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Usage {
    /// The bytes of remembered answers.
    pub cache_bytes: usize,
    /// The number of remembered answers.
    pub answers: usize,
    /// The number of questions that were sent and have no answer yet.
    pub in_flight: usize,
}

/// Asks name servers. Cheap to clone; all clones share servers, ports and answers.
///
/// It needs a tokio runtime with I/O and timers, from the first question on.
#[derive(Clone)]
pub struct Resolver(Arc<Engine>);

impl Resolver {
    /// A resolver. Nothing is opened or sent before the first question; `resolv.conf` is read.
    pub fn new(config: Config) -> Self {
        Self(Arc::new(Engine::new(config, Random::System, Network::System)))
    }

    #[cfg(test)]
    pub(crate) fn with(engine: Arc<Engine>) -> Self {
        Self(engine)
    }

    /// The answer if it is remembered, or one that is under way: shared with others who ask the same, or
    /// asked now. What is started one after the other is sent together: when one of them is awaited, at
    /// [`Resolver::flush`], or some hundredths of a second later. A lookup that is dropped goes on, and its
    /// answer is remembered.
    ///
    /// # Errors
    ///
    /// [`Error::Overloaded`] if the places of the class are taken; nothing is asked then.
    pub fn start(&self, question: &Question, class: Class) -> Result<Lookup, Error> {
        self.lookup(self.0.find(question, class, None)).ok_or(Error::Overloaded)
    }

    fn lookup(&self, found: Found) -> Option<Lookup> {
        match found {
            Found::Known(outcome) => Some(Lookup(State::Known(outcome))),
            Found::InFlight(flight) | Found::New(flight) => {
                Some(Lookup(State::Waiting { engine: Arc::clone(&self.0), flight, place: None }))
            }
            Found::Full => None,
        }
    }

    /// As [`Resolver::start`]; something is held until the answer is here, even if nobody waits for it any
    /// more: a caller's own bound on what it has in flight.
    ///
    /// # Errors
    ///
    /// [`Error::Overloaded`] if the places of the class are taken; nothing is asked then, and nothing held.
    pub fn start_holding<T: Send + 'static>(
        &self,
        question: &Question,
        class: Class,
        held: T,
    ) -> Result<Lookup, Error> {
        let lookup = self.start(question, class)?;
        if let State::Waiting { flight, .. } = &lookup.0 {
            flight.hold(Box::new(held));
        }
        Ok(lookup)
    }

    /// Sends what was started and not sent yet.
    pub fn flush(&self) {
        self.0.flush();
    }

    /// The answer if it is remembered.
    pub fn known(&self, question: &Question) -> Option<Result<Answer, Error>> {
        self.0.table.peek(question, Instant::now(), self.0.source.generation())
    }

    /// The answer, at the latest at the deadline. If the places of the class are taken it waits for one.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] at the deadline, [`Error::Overloaded`] if no place became free until then; the
    /// others as the servers are.
    pub async fn resolve(
        &self,
        question: &Question,
        class: Class,
        deadline: Instant,
    ) -> Result<Answer, Error> {
        self.resolve_holding(question, class, deadline, ()).await
    }

    /// As [`Resolver::resolve`], and something is held as by [`Resolver::start_holding`].
    ///
    /// # Errors
    ///
    /// As [`Resolver::resolve`].
    pub async fn resolve_holding<T: Send + 'static>(
        &self,
        question: &Question,
        class: Class,
        deadline: Instant,
        held: T,
    ) -> Result<Answer, Error> {
        let lookup = match self.start(question, class) {
            Ok(lookup) => lookup,
            Err(_) => {
                // Tried again and again without the place, two waiting tasks would hand it to one another
                // forever.
                let place = timeout_at(deadline, self.0.places[class.index()].acquire()).await;
                let place = place.map_err(|_| Error::Overloaded)?.ok();
                self.lookup(self.0.find(question, class, place)).ok_or(Error::Overloaded)?
            }
        };
        if let State::Waiting { flight, .. } = &lookup.0
            && size_of::<T>() > 0
        {
            flight.hold(Box::new(held));
        }
        timeout_at(deadline, lookup).await.unwrap_or(Err(Error::TimedOut))
    }

    /// Reads `resolv.conf` now, if it has changed.
    pub fn refresh(&self) {
        self.0.source.refresh(&self.0.config);
    }

    /// The servers that are asked, in their order.
    pub fn servers(&self) -> Vec<SocketAddr> {
        self.0.source.upstream().servers.iter().map(|server| server.address).collect()
    }

    /// The longest that a question may take: all servers, as often as they are asked.
    pub fn patience(&self) -> Duration {
        let upstream = self.0.source.upstream();
        let servers = u32::try_from(upstream.servers.len()).unwrap_or(u32::MAX).max(1);
        upstream.timeout.saturating_mul(upstream.attempts).saturating_mul(servers)
    }

    /// What is odd about the servers.
    pub fn warning(&self) -> Option<String> {
        self.0.source.warning()
    }

    /// Whether `resolv.conf` says that the servers' word about DNSSEC is to be trusted (`options trust-ad`).
    pub fn trusts_ad(&self) -> bool {
        self.0.source.trusts_ad()
    }

    /// What is remembered now.
    pub fn usage(&self) -> Usage {
        let (cache_bytes, answers) = self.0.table.size();
        Usage { cache_bytes, answers, in_flight: self.0.load().0 }
    }
}

/// An answer that is here or under way.
#[must_use = "it is asked only when it is awaited, or a little later"]
pub struct Lookup(State);

enum State {
    Known(Result<Answer, Error>),
    Waiting { engine: Arc<Engine>, flight: Arc<Flight>, place: Option<usize> },
}

impl Lookup {
    /// The answer if it is here.
    pub fn known(&self) -> Option<&Result<Answer, Error>> {
        match &self.0 {
            State::Known(outcome) => Some(outcome),
            State::Waiting { flight, .. } => flight.outcome(),
        }
    }
}

impl Future for Lookup {
    type Output = Result<Answer, Error>;

    /// May be polled again after its end.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            State::Known(outcome) => Poll::Ready(outcome.clone()),
            State::Waiting { engine, flight, place } => {
                engine.flush();
                flight.poll(place, cx)
            }
        }
    }
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if let State::Waiting { flight, place: Some(place), .. } = &self.0 {
            flight.leave(*place);
        }
    }
}
