//! Networks of IP addresses (RFC 4632, RFC 4291).
//!
//! Knows: addresses and prefixes. Must not know: who is in a network.

mod scope;

pub use scope::{Scope, embedded_v4, scope};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns the address that an attribute holds, such as `client_address`, or `None` if it holds none. An IPv4
/// address that is written as one of IPv6 (`::ffff:192.0.2.1`) is that IPv4 address.
pub fn address_of(value: &[u8]) -> Option<IpAddr> {
    str::from_utf8(value).ok()?.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// The addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network around an address; a prefix that is too long is that of the address alone.
    pub fn around(ip: IpAddr, prefix: u8) -> Network {
        match ip {
            IpAddr::V4(ip) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Network { first: Ipv4Addr::from_bits(ip.to_bits() & mask).into(), prefix }
            }
            IpAddr::V6(ip) => {
                let prefix = prefix.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Network { first: Ipv6Addr::from_bits(ip.to_bits() & mask).into(), prefix }
            }
        }
    }

    /// A network as `192.0.2.0/24`, `192.0.2.1`, `192.0.2`, `2001:db8::/32`, or `None` if it is none.
    pub fn parse(text: &str) -> Option<Network> {
        match text.split_once('/') {
            Some((ip, prefix)) => {
                let ip: IpAddr = ip.parse().ok()?;
                let longest = if ip.is_ipv4() { 32 } else { 128 };
                let prefix = prefix.parse().ok().filter(|prefix| *prefix <= longest)?;
                Some(Network::around(ip, prefix))
            }
            None => match text.parse() {
                Ok(ip) => Some(Network::around(ip, 128)),
                Err(_) => first_numbers(text),
            },
        }
    }

    /// The first address of it.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.first.is_ipv4() && Network::around(ip, self.prefix) == *self
    }
}

/// `192.0.2` or `192.0`: an IPv4 address without its last numbers.
fn first_numbers(text: &str) -> Option<Network> {
    let text = text.strip_suffix('.').unwrap_or(text);
    let numbers: Option<Vec<u8>> = text.split('.').map(|number| number.parse().ok()).collect();
    let numbers = numbers.filter(|numbers| numbers.len() < 4)?;
    let mut octets = [0; 4];
    octets[..numbers.len()].copy_from_slice(&numbers);
    let prefix = u8::try_from(8 * numbers.len()).ok()?;
    Some(Network::around(Ipv4Addr::from(octets).into(), prefix))
}

impl Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let alone = self.prefix == if self.first.is_ipv4() { 32 } else { 128 };
        if alone { self.first.fmt(f) } else { write!(f, "{}/{}", self.first, self.prefix) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_written_in_several_ways() {
        for (text, means) in [
            ("192.0.2.77/24", "192.0.2.0/24"),
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2", "192.0.2.0/24"),
            ("10.", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8:1::9/32", "2001:db8::/32"),
            ("::1", "::1"),
        ] {
            assert_eq!(Network::parse(text).map(|network| network.to_string()).as_deref(), Some(means));
        }
        for bad in ["", "192.0.2.0/33", "192.0.256", "1.2.3.4.5", "example", "::/129", "192.0.2/24", "1..2"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_address_of_ipv4_is_one_however_it_is_written() {
        let of = |text: &str| address_of(text.as_bytes()).map(|ip| ip.to_string());
        assert_eq!(of("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(of("::FFFF:c000:201").as_deref(), Some("192.0.2.1"));
        assert_eq!(of("2001:DB8::1").as_deref(), Some("2001:db8::1"));
        assert_eq!((of("unknown"), of(""), address_of(b"\xff")), (None, None, None));
    }

    #[test]
    fn an_address_is_in_it_or_not() {
        let holds = |network: &str, ip: &str| Network::parse(network).unwrap().contains(ip.parse().unwrap());
        assert!(holds("192.0.2", "192.0.2.255"));
        assert!(!holds("192.0.2", "192.0.3.0"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::"));
        assert!(!holds("::/0", "192.0.2.1") && !holds("0.0.0.0/0", "::1"));
    }
}
