//! Which servers take the mail of a domain (RFC 5321 section 5.1, RFC 7505), and which of them is this
//! machine.
//!
//! Knows: the DNS, the addresses of this machine. Must not know: SMTP.

use super::findings::Refusal;
use crate::dns::{Answer, Association, Authentic, Dns, Question, RecordType};
use crate::scope::{Scope, embedded_v4, scope};
use std::net::IpAddr;
use std::sync::Arc;

/// Maximum number of servers of a domain to ask, and of addresses of one.
pub const MAX_HOSTS: usize = 5;
pub const MAX_ADDRESSES: usize = 4;

/// A server that takes mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name, or its address.
    pub name: Arc<str>,
    /// Whether it is proved that the mail goes there.
    pub is_proved: bool,
}

/// The questions, and whether it matters what is proved.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// Who answers them.
    pub dns: &'a Dns,
    /// Whether TLSA records are wanted, which count only if all before them is proved.
    pub proofs: bool,
}

impl Names<'_> {
    async fn ask(&self, name: &str, record_type: RecordType) -> Authentic {
        let question = Question::new(name, record_type);
        if self.proofs {
            return self.dns.lookup_authentic(&question).await;
        }
        Authentic { answer: self.dns.lookup(&question).await, is_proved: false }
    }

    /// The servers of a domain, the preferred ones first. Servers of the same preference are in the order of
    /// the name server, which shuffles them.
    pub async fn hosts(&self, domain: &str) -> Result<Vec<Host>, Refusal> {
        let Authentic { answer, is_proved } = self.ask(domain, RecordType::Mx).await;
        let mut exchanges = match answer {
            Answer::Exchanges(exchanges) => exchanges.to_vec(),
            Answer::Failed(failure) => {
                return Err(temporary(format!("the mail servers of {domain} are not known: {failure}")));
            }
            // Without a proof that there are no MX records nothing that follows is proved.
            _ => return Ok(vec![Host { name: domain.into(), is_proved: false }]),
        };
        if exchanges.iter().all(|exchange| exchange.host.is_empty()) {
            return Err(permanent(format!("5.1.10 {domain} takes no mail")));
        }
        exchanges.retain(|exchange| !exchange.host.is_empty());
        exchanges.sort_by_key(|exchange| exchange.preference);
        let hosts = exchanges.into_iter().take(MAX_HOSTS);
        Ok(hosts.map(|exchange| Host { name: exchange.host, is_proved }).collect())
    }

    /// The addresses of a server that the configuration names, as this machine resolves names: in
    /// `/etc/hosts` too. Only those of the DNS can be proved.
    pub async fn addresses_of_configured(&self, host: &str) -> Result<(Vec<IpAddr>, bool), String> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Ok((vec![address], false));
        }
        if self.proofs {
            // A failure is none of a name that only `/etc/hosts` knows: whoever can cause one must not take
            // the TLSA records away.
            let (addresses, is_proved) = self.addresses(host).await?;
            if is_proved && !addresses.is_empty() {
                return Ok((addresses, true));
            }
        }
        match tokio::net::lookup_host((host, 0)).await {
            Ok(found) => {
                let mut addresses: Vec<_> = found.map(|address| address.ip().to_canonical()).collect();
                addresses.sort_by_key(IpAddr::is_ipv6);
                Ok((addresses, false))
            }
            Err(error) => Err(format!("the address of {host} is not known: {error}")),
        }
    }

    /// The addresses of a server, those of IPv4 first, and whether they are proved; none if it has none, as
    /// one whose name is an address (RFC 5321 section 5.1).
    pub async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, bool), String> {
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Ok((Vec::new(), false));
        }
        let (v4, v6) = tokio::join!(self.ask(host, RecordType::A), self.ask(host, RecordType::Aaaa));
        let mut found = Vec::new();
        let mut failed = None;
        let mut is_proved = true;
        for Authentic { answer, is_proved: one_is_proved } in [v4, v6] {
            match answer {
                Answer::Addresses(addresses) => found.extend(addresses.iter().map(|ip| IpAddr::from(*ip))),
                Answer::Ipv6Addresses(addresses) => {
                    found.extend(addresses.iter().map(|ip| IpAddr::from(*ip)));
                }
                Answer::Failed(failure) => {
                    failed = Some(failure);
                    continue;
                }
                _ => continue,
            }
            is_proved &= one_is_proved;
        }
        match failed {
            Some(failure) if found.is_empty() => {
                Err(format!("the address of {host} is not known: {failure}"))
            }
            _ => Ok((found, is_proved)),
        }
    }

    /// The proved TLSA records of a server.
    pub async fn associations(&self, host: &str, port: u16) -> Result<Vec<Association>, String> {
        match self.ask(&format!("_{port}._tcp.{host}"), RecordType::Tlsa).await {
            Authentic { answer: Answer::Associations(records), is_proved: true } => Ok(records.to_vec()),
            Authentic { answer: Answer::Failed(failure), .. } => {
                Err(format!("the TLSA records of {host} are not known: {failure}"))
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// That no mail can be sent to a domain for now.
pub fn temporary(message: String) -> Refusal {
    Refusal { is_permanent: false, for_all_senders: true, message, said: None }
}

/// That none can ever be sent there, whoever sends it.
pub fn permanent(message: String) -> Refusal {
    Refusal { is_permanent: true, for_all_senders: true, message, said: None }
}

/// The addresses of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses(Vec<IpAddr>);

impl OwnAddresses {
    /// Those that it has now.
    ///
    /// # Errors
    /// The system does not tell them, as where a service may have no sockets of `AF_NETLINK`.
    pub fn now() -> Result<OwnAddresses, String> {
        let interfaces = nix::ifaddrs::getifaddrs().map_err(|error| {
            format!("the addresses of this machine can't be read, which takes AF_NETLINK: {error}")
        })?;
        let address = |address: nix::sys::socket::SockaddrStorage| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        };
        let addresses = interfaces.filter_map(|interface| interface.address.and_then(address));
        Ok(OwnAddresses(addresses.collect()))
    }

    /// Whether a connection to that address would end on this machine.
    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_own = |address: &IpAddr| self.0.contains(address);
        scope(address) == Scope::Loopback
            || is_own(&address)
            || embedded_v4(address).is_some_and(|v4| is_own(&v4.into()))
    }
}

/// What becomes of an address that strangers name as that of a mail server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is asked.
    Asked,
    /// It is this machine, which takes the mail itself.
    Own,
    /// It is reachable inside a network at most, which is none of the strangers' business.
    Inner,
    /// No mail server can have it.
    Bogus,
}

/// Which addresses that strangers name are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Those of this machine.
    pub own_addresses: bool,
    /// Those that are not public.
    pub allow_private: bool,
}

impl Rules {
    /// What becomes of an address.
    pub fn admit(self, address: IpAddr, own: &OwnAddresses) -> Admission {
        let scope = scope(address);
        match scope {
            Scope::Unusable => Admission::Bogus,
            _ if self.own_addresses && own.has(address) => Admission::Asked,
            Scope::Loopback => Admission::Bogus,
            Scope::Private if !self.allow_private => Admission::Inner,
            Scope::Private | Scope::Global if own.has(address) => Admission::Own,
            Scope::Private | Scope::Global => Admission::Asked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_an_own_address_ends_here() {
        let own = OwnAddresses(vec![IpAddr::from([192, 0, 2, 1])]);
        for (address, is_own) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("64:ff9b::192.0.2.1", true),
            ("2002:c000:201::1", true),
            ("127.0.0.2", true),
            ("::1", true),
            ("192.0.2.2", false),
            ("10.0.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(own.has(address.parse().unwrap()), is_own, "{address}");
        }
        let read = OwnAddresses::now().expect("the interfaces are read");
        assert!(read.0.iter().any(IpAddr::is_loopback));
    }

    #[test]
    fn strangers_lead_to_public_servers_only() {
        use Admission::{Asked, Bogus, Inner, Own};
        let own = OwnAddresses(["9.9.9.9", "10.0.0.1"].map(|own| own.parse().unwrap()).to_vec());
        let rules = [(false, false), (true, false), (false, true), (true, true)]
            .map(|(own_addresses, allow_private)| Rules { own_addresses, allow_private });
        for (address, expected) in [
            ("1.1.1.1", [Asked; 4]),
            ("9.9.9.9", [Own, Asked, Own, Asked]),
            ("10.0.0.1", [Inner, Asked, Own, Asked]),
            ("10.0.0.2", [Inner, Inner, Asked, Asked]),
            ("::ffff:10.0.0.2", [Inner, Inner, Asked, Asked]),
            ("64:ff9b::9.9.9.9", [Own, Asked, Own, Asked]),
            ("127.0.0.1", [Bogus, Asked, Bogus, Asked]),
            ("0.0.0.0", [Bogus; 4]),
            ("224.0.0.1", [Bogus; 4]),
            ("::127.0.0.1", [Bogus; 4]),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(rules.map(|rules| rules.admit(address, &own)), expected, "{address}");
        }
    }
}
