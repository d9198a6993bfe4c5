//! SPF over the name service.
//!
//! Knows: questions and answers, what the evaluator of SPF wants. Must not know: messages, sessions, plugins.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use idna::AsciiDenyList;
use spf::{Failure, Resolve};

use backends::Call;
use backends::dns::{Answer, Dns, MAX_UNICODE_NAME, Places, Question, RecordType};

/// The name service as the evaluator sees it.
pub struct NameService<'a> {
    dns: &'a Dns,
    places: &'a Places,
    known: Vec<(Question, Answer)>,
    call: Call<'a>,
}

impl<'a> NameService<'a> {
    /// A name service, of which some answers are known already, within the places of a request.
    pub fn new(
        dns: &'a Dns,
        places: &'a Places,
        known: Vec<(Question, Answer)>,
        call: Call<'a>,
    ) -> NameService<'a> {
        NameService { dns, places, known, call }
    }

    async fn ask(&self, name: &str, record_type: RecordType) -> Result<Answer, Failure> {
        let question = Question::new(name, record_type);
        let known = self.known.iter().find(|(known, _)| *known == question);
        let answer = match known {
            Some((_, answer)) => answer.clone(),
            None => self.dns.lookup_within(self.places, &question, self.call).await,
        };
        match answer {
            Answer::Failed(failure) => Err(Failure(failure.to_string().into())),
            answer => Ok(answer),
        }
    }
}

impl Resolve for NameService<'_> {
    async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, Failure> {
        Ok(match self.ask(name, RecordType::Txt).await? {
            Answer::Texts(texts) => {
                // Equal records are one (RFC 2181, 5), also where the same is delivered twice.
                let mut seen = HashSet::new();
                let texts = texts.iter().filter(|strings| seen.insert(*strings));
                texts.map(|strings| strings.concat()).collect()
            }
            _ => Vec::new(),
        })
    }

    async fn ipv4_addresses(&self, name: &str) -> Result<Vec<Ipv4Addr>, Failure> {
        Ok(match self.ask(name, RecordType::A).await? {
            Answer::Addresses(addresses) => addresses.to_vec(),
            _ => Vec::new(),
        })
    }

    async fn ipv6_addresses(&self, name: &str) -> Result<Vec<Ipv6Addr>, Failure> {
        Ok(match self.ask(name, RecordType::Aaaa).await? {
            Answer::Ipv6Addresses(addresses) => addresses.to_vec(),
            _ => Vec::new(),
        })
    }

    async fn exchanges(&self, name: &str) -> Result<Vec<String>, Failure> {
        Ok(match self.ask(name, RecordType::Mx).await? {
            Answer::Exchanges(exchanges) => exchanges.iter().map(|one| one.host.to_string()).collect(),
            _ => Vec::new(),
        })
    }

    async fn names(&self, ip: IpAddr) -> Result<Vec<String>, Failure> {
        Ok(match self.ask(&name_of_address(ip), RecordType::Ptr).await? {
            Answer::Names(names) => names.iter().map(|name| name.to_string()).collect(),
            _ => Vec::new(),
        })
    }
}

/// The name under which the names of an address are (RFC 1035, 3.5; RFC 3596, 2.5).
fn name_of_address(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let digits = format!("{:032x}", ip.to_bits());
            let mut name = String::with_capacity(72);
            for digit in digits.chars().rev() {
                name.push(digit);
                name.push('.');
            }
            name + "ip6.arpa"
        }
    }
}

/// A domain as the DNS has it: what is not ASCII as A-labels (RFC 5890). What can't be turned into them
/// stays, and is not a domain.
pub fn ascii_domain(domain: &str) -> String {
    if domain.is_ascii() || domain.len() > MAX_UNICODE_NAME {
        return domain.to_owned();
    }
    let ascii = idna::domain_to_ascii_cow(domain.as_bytes(), AsciiDenyList::EMPTY);
    ascii.map_or_else(|_| domain.to_owned(), |ascii| ascii.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_names() {
        assert_eq!(name_of_address([192, 0, 2, 1].into()), "1.2.0.192.in-addr.arpa");
        let ip = "2001:db8::567:89ab".parse().unwrap();
        let digits = "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2";
        assert_eq!(name_of_address(ip), format!("{digits}.ip6.arpa"));
    }

    #[test]
    fn a_domain_is_in_ascii() {
        assert_eq!(ascii_domain("b\u{fc}cher.example"), "xn--bcher-kva.example");
        assert_eq!(ascii_domain("Example.org"), "Example.org");
        let long = "\u{fc}.".repeat(100_000) + "example";
        assert_eq!(ascii_domain(&long), long);
    }
}
