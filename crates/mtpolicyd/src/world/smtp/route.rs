//! Which servers take the mail of a domain (RFC 5321 section 5.1, RFC 7505), and which of them is this
//! machine.
//!
//! Knows: the DNS, the addresses of this machine. Must not know: SMTP.

use super::dialogue::Refusal;
use crate::world::dns::{Answer, Association, Authentic, Dns, Question, RecordType};
use std::net::IpAddr;
use std::sync::Arc;

/// How many servers of a domain are asked at most, and how many addresses of one.
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

    /// The addresses of a server, those of IPv4 first, and whether they are proved; none if it has none.
    pub async fn addresses(&self, host: &str) -> Result<(Vec<IpAddr>, bool), String> {
        if let Ok(address) = host.trim_matches(['[', ']']).parse() {
            return Ok((vec![address], false));
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
    Refusal { is_permanent: false, for_all_senders: true, message }
}

/// That none can ever be sent there, whoever sends it.
pub fn permanent(message: String) -> Refusal {
    Refusal { is_permanent: true, for_all_senders: true, message }
}

/// The addresses of this machine.
pub struct OwnAddresses(Vec<IpAddr>);

impl OwnAddresses {
    /// Those that it has now.
    pub fn now() -> OwnAddresses {
        let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
        let address = |address: nix::sys::socket::SockaddrStorage| {
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        };
        OwnAddresses(interfaces.filter_map(|interface| interface.address.and_then(address)).collect())
    }

    /// Whether a connection to that address would end on this machine, or nowhere.
    pub fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let is_nowhere = match address {
            IpAddr::V4(v4) => v4.is_broadcast() || v4.octets()[0] == 0,
            IpAddr::V6(_) => false,
        };
        let is_local = address.is_loopback() || address.is_unspecified() || address.is_multicast();
        is_local || is_nowhere || self.0.contains(&address)
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
            ("127.0.0.2", true),
            ("::1", true),
            ("0.0.0.1", true),
            ("::", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("192.0.2.2", false),
            ("10.0.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(own.has(address.parse().unwrap()), is_own, "{address}");
        }
        assert!(OwnAddresses::now().0.iter().any(IpAddr::is_loopback), "the interfaces are read");
    }
}
