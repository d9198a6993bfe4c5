//! One question to the servers of a domain: would they take a message?
//!
//! Knows: routes, destinations, dialogues, in this order. Must not know: who asks, what an answer is for.

use super::destination::{Destination, Destinations, Limits, Terms};
use super::dialogue::{Conversation, Encryption, Judgement, Message, NotOpen};
use super::link::Lost;
use super::route::{Host, MAX_ADDRESSES, MAX_HOSTS, Names, OwnAddresses, permanent, temporary};
use crate::world::dns::{Association, Dns};
use crate::world::tls::dane::Dane;
use crate::world::tls::{Verification, client_config_with};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Which servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// This one.
    Host(Arc<str>),
    /// Those that take the mail of the recipient's domain.
    Exchanges {
        /// Addresses of this machine among them too.
        own_addresses: bool,
    },
}

/// How servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manner {
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
pub struct Peers {
    addresses: Mutex<Vec<IpAddr>>,
    /// Whether the question waits since too many others are being asked.
    waits: AtomicBool,
}

impl Peers {
    /// Whether this one is.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).contains(&address.to_canonical())
    }

    /// Whether none is at the moment, since this machine asks too many others. That is not their failure.
    pub fn are_waited_for(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    fn add(&self, address: IpAddr) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).push(address.to_canonical());
    }
}

/// Asks.
pub struct Probe<'a> {
    /// Who knows names.
    pub dns: &'a Dns,
    /// The servers there are.
    pub destinations: &'a Destinations,
    /// How to ask.
    pub manner: &'a Manner,
    /// What to ask.
    pub message: &'a Message,
    /// Where it is noted who is asked.
    pub peers: &'a Peers,
}

/// How the attempt with one server ended.
enum Attempt {
    /// With an answer.
    Answered(Findings),
    /// Without: the next may have one.
    Failed { why: String, starttls: Option<bool>, tlsa: Option<bool> },
    /// It is this machine: those that follow are none of its business (RFC 5321 section 5.1).
    Own,
    /// It has no address.
    NoAddress,
    /// It must not be asked now.
    TooOften,
}

impl Findings {
    fn only(judgement: Judgement) -> Findings {
        Findings { judgement, by_size: false, starttls: None, tlsa: None }
    }

    fn unknown(why: &str) -> Findings {
        Findings::only(Judgement::Unknown(why.to_owned()))
    }
}

impl Probe<'_> {
    /// What one of the servers says, the first that can be asked. It ends when all have been tried, each for
    /// a limited time.
    pub async fn run(&self) -> Findings {
        let names = Names { dns: self.dns, proofs: self.manner.tlsa };
        let domain = self.message.recipient.domain();
        let hosts = match &self.manner.route {
            Route::Host(name) => Ok(vec![Host { name: name.clone(), is_proved: true }]),
            Route::Exchanges { .. } if self.message.recipient.is_literal() => {
                return Findings::unknown("the domain is an address");
            }
            Route::Exchanges { .. } => names.hosts(domain).await,
        };
        let hosts = match hosts {
            Ok(hosts) => hosts,
            Err(refusal) => return Findings::only(Judgement::Refused(refusal)),
        };
        let own = match self.manner.route {
            Route::Exchanges { own_addresses: false } => Some(OwnAddresses::now()),
            _ => None,
        };
        let mut last = None;
        for host in &hosts {
            match self.try_host(host, names, own.as_ref()).await {
                Attempt::Answered(findings) => return findings,
                Attempt::Failed { why, starttls, tlsa } => {
                    let message = format!("{}: {why}", host.name);
                    let judgement = Judgement::Refused(temporary(message));
                    last = Some(Findings { starttls, tlsa, ..Findings::only(judgement) });
                }
                Attempt::TooOften => return Findings::unknown("its server was asked too often"),
                Attempt::Own if last.is_none() => {
                    return Findings::unknown("this machine takes mail for the domain");
                }
                Attempt::Own => break,
                Attempt::NoAddress => {}
            }
        }
        last.unwrap_or_else(|| {
            let message = match &self.manner.route {
                // A host that the configuration names may get its address yet.
                Route::Host(name) => {
                    return Findings::only(Judgement::Refused(temporary(format!("{name} has no address"))));
                }
                // Those that were left out may have one.
                Route::Exchanges { .. } if hosts.len() >= MAX_HOSTS => {
                    let message = format!("the first {MAX_HOSTS} mail servers of {domain} have no address");
                    return Findings::only(Judgement::Refused(temporary(message)));
                }
                Route::Exchanges { .. } => format!("5.1.2 there is no mail server for {domain}"),
            };
            Findings::only(Judgement::Refused(permanent(message)))
        })
    }

    async fn try_host(&self, host: &Host, names: Names<'_>, own: Option<&OwnAddresses>) -> Attempt {
        let (addresses, is_proved) = match names.addresses(&host.name).await {
            Ok(found) => found,
            Err(why) => return Attempt::Failed { why, starttls: None, tlsa: None },
        };
        if addresses.is_empty() {
            return Attempt::NoAddress;
        }
        if own.is_some_and(|own| addresses.iter().any(|address| own.has(*address))) {
            return Attempt::Own;
        }
        let mut associations = Vec::new();
        if self.manner.tlsa && host.is_proved && is_proved {
            match names.associations(&host.name, self.manner.port).await {
                Ok(found) => associations = found,
                Err(why) => return Attempt::Failed { why, starttls: None, tlsa: None },
            }
        }
        // Nothing is known of records that nobody can prove.
        let tlsa = (self.manner.tlsa && self.dns.can_prove()).then_some(!associations.is_empty());
        let server = Server { probe: self, name: &host.name, associations, tlsa };
        server.ask(&addresses).await
    }
}

/// Why a server has not answered, and whether it offers to encrypt, as far as that is known.
struct Unanswered {
    why: String,
    starttls: Option<bool>,
}

/// One server while it is asked.
struct Server<'a> {
    probe: &'a Probe<'a>,
    name: &'a str,
    associations: Vec<Association>,
    tlsa: Option<bool>,
}

impl Server<'_> {
    async fn ask(&self, addresses: &[IpAddr]) -> Attempt {
        let Probe { destinations, manner, peers, .. } = self.probe;
        let mut failure = None;
        for &address in addresses.iter().take(MAX_ADDRESSES) {
            let destination = destinations.of(SocketAddr::new(address, manner.port)).await;
            let Some(mut visit) = destinations.enter(&destination, manner.limits).await else { continue };
            peers.waits.store(true, Ordering::Relaxed);
            visit.begin().await;
            peers.waits.store(false, Ordering::Relaxed);
            peers.add(address);
            match visit.ask(self.ask_at(address, &destination)).await {
                Some(Ok(findings)) => return Attempt::Answered(findings),
                Some(Err(lost)) => failure = Some(lost),
                None => {
                    let why = "it is slow, as are too many others".to_owned();
                    failure = Some(Unanswered { why, starttls: None });
                }
            }
        }
        match failure {
            Some(Unanswered { why, starttls }) => Attempt::Failed { why, starttls, tlsa: self.tlsa },
            None => Attempt::TooOften,
        }
    }

    async fn ask_at(&self, address: IpAddr, destination: &Arc<Destination>) -> Result<Findings, Unanswered> {
        let manner = self.probe.manner;
        let terms = Terms {
            host: self.name.into(),
            helo: manner.helo.clone(),
            encrypts: manner.encrypts,
            associations: self.associations.clone(),
        };
        // It may have been closed meanwhile, which says nothing about a new one.
        if let Some(kept) = destination.take(&terms)
            && let Ok(findings) = self.judge(kept, &terms, destination).await
        {
            return Ok(findings);
        }
        let unanswered = |starttls| move |Lost(why)| Unanswered { why, starttls };
        let conversation = self.open(address, destination).await.map_err(unanswered(None))?;
        let starttls = Some(conversation.offers_tls);
        self.judge(conversation, &terms, destination).await.map_err(unanswered(starttls))
    }

    /// A conversation with that address: without TLS where it does not work.
    async fn open(&self, address: IpAddr, destination: &Destination) -> Result<Conversation, Lost> {
        let manner = self.probe.manner;
        let at = SocketAddr::new(address, manner.port);
        let name =
            ServerName::try_from(self.name.to_owned()).unwrap_or(ServerName::IpAddress(address.into()));
        let encryption = match self.dane() {
            _ if !manner.encrypts => Encryption::None,
            Some(dane) => Encryption::Required(config(Verification::Dane(dane))?),
            None if !self.associations.is_empty() => Encryption::Required(unverified()?),
            None if destination.is_without_tls() => Encryption::None,
            None => Encryption::Opportunistic(unverified()?),
        };
        match Conversation::open(at, name.clone(), &manner.helo, &encryption).await {
            Ok(conversation) => Ok(conversation),
            Err(NotOpen::Handshake(_)) if matches!(encryption, Encryption::Opportunistic(_)) => {
                destination.tls_fails();
                let again = Conversation::open(at, name, &manner.helo, &Encryption::None).await;
                again.map_err(|error| error.into_lost())
            }
            Err(error) => Err(error.into_lost()),
        }
    }

    /// What the certificate has to be, if there is a usable record.
    fn dane(&self) -> Option<Dane> {
        let usable = self.associations.iter().filter(|record| record.is_usable());
        let associations: Vec<_> = usable.cloned().collect();
        let domain = self.probe.message.recipient.domain();
        let names =
            [self.name, domain].into_iter().filter_map(|name| ServerName::try_from(name.to_owned()).ok());
        (!associations.is_empty()).then(|| Dane { associations, names: names.collect() })
    }

    async fn judge(
        &self,
        mut conversation: Conversation,
        terms: &Terms,
        destination: &Arc<Destination>,
    ) -> Result<Findings, Lost> {
        let message = self.probe.message;
        let judgement = conversation.judge(message).await?;
        let findings = Findings {
            judgement,
            by_size: conversation.looks_at_sizes(),
            starttls: Some(conversation.offers_tls),
            tlsa: self.tlsa,
        };
        destination.keep(conversation, terms.clone());
        Ok(findings)
    }
}

fn config(verification: Verification) -> Result<Arc<ClientConfig>, Lost> {
    client_config_with(verification, None).map(Arc::new).map_err(Lost)
}

/// What accepts every certificate: without a proof of which is the right one, a false one is no worse than no
/// encryption, which everybody accepts too.
fn unverified() -> Result<Arc<ClientConfig>, Lost> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, Lost>> = OnceLock::new();
    CONFIG.get_or_init(|| config(Verification::None)).clone()
}
