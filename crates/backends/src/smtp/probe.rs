//! One question to the servers of a domain: would they take a message?
//!
//! Knows: routes, destinations, dialogues, in this order. Must not know: what an answer is for.

use super::address::DomainForm;
use super::connection::Lost;
use super::destination::{Destination, ReuseKey};
use super::dialogue::{Conversation, Encryption, NotOpen, Wording};
use super::findings::{ActiveServers, Findings, Judgement, Probe, Refusal, Route};
use super::route::{
    Admission, Host, MAX_ADDRESSES, MAX_HOSTS, Names, OwnAddresses, Rules, permanent, temporary,
};
use crate::dns::Association;
use crate::tls::dane::Dane;
use crate::tls::{Verification, client_config};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};

/// How the attempt with one server ended.
enum Attempt {
    /// With an answer.
    Answered(Findings),
    /// Without: the next may have one.
    Failed { why: String, wording: Wording, starttls: Option<bool>, tlsa: Option<bool> },
    /// It is this machine: those that follow are none of its business (RFC 5321 section 5.1).
    Own,
    /// It has no address, or none that a mail server can have.
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

    fn not_asked(why: &str) -> Findings {
        Findings::only(Judgement::NotAsked(why.to_owned()))
    }
}

impl ActiveServers {
    fn add(&self, address: IpAddr) {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).push(address.to_canonical());
    }
}

impl Probe<'_> {
    /// What one of the servers says, the first that can be asked. It ends when all have been tried, each for
    /// a limited time.
    pub async fn run(&self) -> Findings {
        let names = Names { dns: self.dns, proofs: self.probing.tlsa };
        let domain = self.message.recipient.domain();
        let hosts = match &self.probing.route {
            Route::Host(name) => Ok(vec![Host { name: name.clone(), is_proved: true }]),
            Route::Exchanges(rules) => match self.without_asking(*rules) {
                Some(findings) => return findings,
                None => names.hosts(domain).await,
            },
        };
        let hosts = match hosts {
            Ok(hosts) => hosts,
            Err(refusal) => return Findings::only(Judgement::Refused(refusal)),
        };
        let mut last = None;
        for host in &hosts {
            match self.try_host(host, names).await {
                Attempt::Answered(findings) => return findings,
                Attempt::Failed { why, wording, starttls, tlsa } => {
                    let judgement = Judgement::Refused(self.failure(&host.name, &why, wording));
                    last = Some(Findings { starttls, tlsa, ..Findings::only(judgement) });
                }
                Attempt::TooOften => return Findings::not_asked("too many addresses are being verified"),
                Attempt::Own if last.is_none() => {
                    return Findings::unknown("this machine takes mail for the domain");
                }
                Attempt::Own => break,
                Attempt::NoAddress => {}
            }
        }
        last.unwrap_or_else(|| Findings::only(Judgement::Refused(self.without_address(hosts.len()))))
    }

    /// What is known of a domain whose servers are not asked: it is not a name, or nobody knows which
    /// addresses are this machine's. To an address that is not in brackets nobody can send mail, to one in a
    /// network of its own nobody on the Internet.
    fn without_asking(&self, rules: Rules) -> Option<Findings> {
        let domain = self.message.recipient.domain();
        let never =
            |why: &str| Some(Findings::only(Judgement::Refused(permanent(format!("5.1.2 {domain} {why}")))));
        let form = self.message.recipient.domain_form();
        let address = match form {
            DomainForm::Malformed => return never("is not a domain"),
            DomainForm::Name => None,
            DomainForm::Literal(address) | DomainForm::Bare(address) => Some(address),
        };
        let Ok(own) = self.own else {
            let is_known = rules.own_addresses && address.is_none();
            return (!is_known).then(|| Findings::not_asked("addresses can't be verified at the moment"));
        };
        let address = address?;
        let here = || Some(Findings::unknown("this machine takes mail for the domain"));
        match (rules.admit(address, own), form) {
            (Admission::Inner | Admission::Bogus, _) => never("is not the address of a mail server"),
            (Admission::Asked, _) if own.has(address) => here(),
            (Admission::Own, DomainForm::Literal(_)) => here(),
            (Admission::Asked, DomainForm::Literal(_)) => {
                Some(Findings::not_asked("servers are not looked for by their address"))
            }
            _ => never("is not a domain"),
        }
    }

    /// That a server could not be asked. What kept it from answering tells open ports from closed ones and
    /// may be the server's own words, which strangers get to know only of servers that are not theirs to
    /// choose.
    fn failure(&self, host: &str, why: &str, wording: Wording) -> Refusal {
        let what = format!("{host}: {why}");
        if wording == Wording::Theirs {
            return temporary(what);
        }
        let message = format!("4.4.1 no mail server of {} can be asked now", self.message.recipient.domain());
        Refusal { said: Some(what), ..temporary(message) }
    }

    /// That none of the servers has an address.
    fn without_address(&self, hosts: usize) -> Refusal {
        let domain = self.message.recipient.domain();
        match &self.probing.route {
            // A host that the configuration names may get its address yet.
            Route::Host(name) => temporary(format!("{name} has no address")),
            // Those that were left out may have one.
            Route::Exchanges(_) if hosts >= MAX_HOSTS => {
                temporary(format!("the first {MAX_HOSTS} mail servers of {domain} have no address"))
            }
            Route::Exchanges(_) => permanent(format!("5.1.2 there is no mail server for {domain}")),
        }
    }

    /// The addresses of a server that may be asked.
    fn admitted(&self, mut addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, Attempt> {
        let Route::Exchanges(rules) = self.probing.route else { return Ok(addresses) };
        let none = OwnAddresses::default();
        let own = self.own.as_ref().unwrap_or(&none);
        let admissions: Vec<_> = addresses.iter().map(|address| rules.admit(*address, own)).collect();
        if admissions.contains(&Admission::Own) {
            return Err(Attempt::Own);
        }
        addresses.retain(|address| rules.admit(*address, own) == Admission::Asked);
        if addresses.is_empty() && admissions.contains(&Admission::Inner) {
            let why = "its address is not a public one".to_owned();
            return Err(Attempt::Failed { why, wording: Wording::Ours, starttls: None, tlsa: None });
        }
        Ok(addresses)
    }

    /// Whose words a reply may have about the server at an address: its own if the administrator chose it, or
    /// if it is on this machine.
    fn wording(&self, address: IpAddr) -> Wording {
        let is_own = self.own.as_ref().is_ok_and(|own| own.has(address));
        match self.probing.route {
            Route::Host(_) => Wording::Theirs,
            Route::Exchanges(_) if is_own => Wording::Theirs,
            Route::Exchanges(_) => Wording::Ours,
        }
    }

    async fn try_host(&self, host: &Host, names: Names<'_>) -> Attempt {
        let found = match self.probing.route {
            Route::Host(_) => names.addresses_of_configured(&host.name).await,
            Route::Exchanges(_) => names.addresses(&host.name).await,
        };
        let wording =
            if matches!(self.probing.route, Route::Host(_)) { Wording::Theirs } else { Wording::Ours };
        let failed = |why| Attempt::Failed { why, wording, starttls: None, tlsa: None };
        let (addresses, is_proved) = match found {
            Ok(found) => found,
            Err(why) => return failed(why),
        };
        let addresses = match self.admitted(addresses) {
            Ok(addresses) if addresses.is_empty() => return Attempt::NoAddress,
            Ok(addresses) => addresses,
            Err(attempt) => return attempt,
        };
        let mut associations = Vec::new();
        if self.probing.tlsa && host.is_proved && is_proved {
            match names.associations(&host.name, self.probing.port).await {
                Ok(found) => associations = found,
                Err(why) => return failed(why),
            }
        }
        // Nothing is known of records that nobody can prove.
        let tlsa = (self.probing.tlsa && self.dns.can_prove()).then_some(!associations.is_empty());
        let server = Server { probe: self, name: &host.name, associations, tlsa };
        server.ask(&addresses).await
    }
}

/// Why a server has not answered, and whether it offers to encrypt, as far as that is known.
struct Unanswered {
    why: String,
    wording: Wording,
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
        let Probe { destinations, probing, active, .. } = self.probe;
        let mut failure = None;
        for &address in addresses.iter().take(MAX_ADDRESSES) {
            let destination = destinations.of(SocketAddr::new(address, probing.port)).await;
            let Some(mut permit) = destinations.enter(&destination, probing.limits).await else { continue };
            active.waits.store(true, Ordering::Relaxed);
            permit.begin().await;
            active.waits.store(false, Ordering::Relaxed);
            active.add(address);
            match permit.ask(self.ask_at(address, &destination)).await {
                Some(Ok(findings)) => return Attempt::Answered(findings),
                Some(Err(lost)) => failure = Some(lost),
                None => {
                    let why = "it is slow, as are too many others".to_owned();
                    failure = Some(Unanswered { why, wording: Wording::Ours, starttls: None });
                }
            }
        }
        match failure {
            Some(Unanswered { why, wording, starttls }) => {
                Attempt::Failed { why, wording, starttls, tlsa: self.tlsa }
            }
            None => Attempt::TooOften,
        }
    }

    async fn ask_at(&self, address: IpAddr, destination: &Arc<Destination>) -> Result<Findings, Unanswered> {
        let probing = self.probe.probing;
        let wording = self.probe.wording(address);
        let reuse_key = ReuseKey {
            host: self.name.into(),
            helo: probing.helo.clone(),
            encrypts: probing.encrypts,
            associations: self.associations.clone(),
        };
        // It may have been closed meanwhile, which says nothing about a new one.
        if let Some(kept) = destination.take(&reuse_key)
            && let Ok(findings) = self.judge(kept, &reuse_key, destination, wording).await
        {
            return Ok(findings);
        }
        let unanswered = |starttls| move |Lost(why)| Unanswered { why, wording, starttls };
        let conversation = self.open(address, destination).await.map_err(unanswered(None))?;
        let starttls = Some(conversation.offers_tls);
        self.judge(conversation, &reuse_key, destination, wording).await.map_err(unanswered(starttls))
    }

    /// A conversation with that address: without TLS where it does not work.
    async fn open(&self, address: IpAddr, destination: &Destination) -> Result<Conversation, Lost> {
        let probing = self.probe.probing;
        let at = SocketAddr::new(address, probing.port);
        let name =
            ServerName::try_from(self.name.to_owned()).unwrap_or(ServerName::IpAddress(address.into()));
        let encryption = match self.dane() {
            _ if !probing.encrypts => Encryption::None,
            Some(dane) => Encryption::Required(config(Verification::Dane(dane))?),
            None if !self.associations.is_empty() => Encryption::Required(unverified()?),
            None if destination.is_without_tls() => Encryption::None,
            None => Encryption::Opportunistic(unverified()?),
        };
        match Conversation::open(at, name.clone(), &probing.helo, &encryption).await {
            Ok(conversation) => Ok(conversation),
            Err(NotOpen::Handshake(_)) if matches!(encryption, Encryption::Opportunistic(_)) => {
                destination.tls_fails();
                let again = Conversation::open(at, name, &probing.helo, &Encryption::None).await;
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
        reuse_key: &ReuseKey,
        destination: &Arc<Destination>,
        wording: Wording,
    ) -> Result<Findings, Lost> {
        let message = self.probe.message;
        let judgement = conversation.judge(message, wording).await?;
        let findings = Findings {
            judgement,
            by_size: conversation.looks_at_sizes(),
            starttls: Some(conversation.offers_tls),
            tlsa: self.tlsa,
        };
        destination.keep(conversation, reuse_key.clone());
        Ok(findings)
    }
}

fn config(verification: Verification) -> Result<Arc<ClientConfig>, Lost> {
    client_config(verification, None, None).map(Arc::new).map_err(|error| Lost(error.to_string()))
}

/// What accepts every certificate: without a proof of which is the right one, a false one is no worse than no
/// encryption, which everybody accepts too.
fn unverified() -> Result<Arc<ClientConfig>, Lost> {
    static CONFIG: OnceLock<Result<Arc<ClientConfig>, Lost>> = OnceLock::new();
    CONFIG.get_or_init(|| config(Verification::None)).clone()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Answer, Dns, Exchange, Question, RecordType, Zone};
    use crate::smtp::{Destinations, Limits, Mailbox, Message, ProbeSettings};
    use std::io::{BufRead, BufReader, Write};
    use std::net::{Ipv4Addr, TcpListener};

    /// A server of a stranger's that answers RCPT so, for one connection.
    fn server(rcpt: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"220 inner.corp.test\r\n").unwrap();
            for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                let reply = if line.starts_with("RCPT") { rcpt } else { "250 ok" };
                stream.write_all(format!("{reply}\r\n").as_bytes()).unwrap();
            }
        });
        port
    }

    /// What is found out about an address whose only server is on the loopback, where that is taken for a
    /// server of a stranger's, since the addresses of this machine are not known.
    async fn ask(port: u16, own_addresses: bool) -> Judgement {
        let exchange = Exchange { preference: 1, host: "mx.test".into() };
        let zone = Zone::default()
            .with(
                Question::new("x.test", RecordType::Mx),
                Answer::Exchanges([exchange].into_iter().collect()),
            )
            .address("mx.test", Ipv4Addr::LOCALHOST);
        let rules = Rules { own_addresses, allow_private: false };
        let probing = ProbeSettings {
            route: Route::Exchanges(rules),
            port,
            helo: "us.test".into(),
            encrypts: false,
            tlsa: false,
            limits: Limits { at_once: 1, a_minute: None },
        };
        let recipient = Mailbox::parse(b"a@x.test").unwrap();
        let probe = Probe {
            dns: &Dns::Fake(zone),
            destinations: &Destinations::default(),
            probing: &probing,
            message: &Message { sender: None, recipient, size: None },
            active: &ActiveServers::default(),
            own: &Err("no AF_NETLINK".to_owned()),
        };
        probe.run().await.judgement
    }

    #[tokio::test]
    async fn strangers_are_not_told_what_a_server_says() {
        for (rcpt, is_permanent, message) in [
            (
                "550 5.1.1 call corp.test, ext 4711",
                true,
                "5.1.1 the mail server of x.test does not know this address",
            ),
            ("550 ext 4711", true, "the mail server of x.test takes no mail for this address"),
            (
                "550 5.7.1 ext 4711",
                false,
                "4.7.1 the mail server of x.test takes no mail for this address at the moment",
            ),
            ("421 ext 4711", false, "4.4.1 no mail server of x.test can be asked now"),
            ("HTTP/1.1 400 ext 4711", false, "4.4.1 no mail server of x.test can be asked now"),
        ] {
            let Judgement::Refused(refusal) = ask(server(rcpt), true).await else { panic!("{rcpt}") };
            assert_eq!((refusal.is_permanent, &*refusal.message), (is_permanent, message), "{rcpt}");
            let said = refusal.said.unwrap_or_default();
            assert!(said.contains("ext 4711") || said.contains("does not speak SMTP"), "{said}");
        }
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let Judgement::Refused(refusal) = ask(closed, true).await else { panic!("nobody listens") };
        assert_eq!(refusal.message, "4.4.1 no mail server of x.test can be asked now");
    }

    #[tokio::test]
    async fn nobody_is_asked_while_own_addresses_are_not_known() {
        let judgement = ask(server("550 5.1.1 no"), false).await;
        assert_eq!(judgement, Judgement::NotAsked("addresses can't be verified at the moment".to_owned()));
    }
}
