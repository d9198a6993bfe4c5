//! Networks of IP addresses (RFC 4632, RFC 4291).
//!
//! Knows: addresses and prefixes. Must not know: what is in a network.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns the address that an attribute holds, such as `client_address`, or `None` if it holds none. An IPv4
/// address that is written as one of IPv6 (`::ffff:192.0.2.1`) is that IPv4 address.
pub fn address_of(value: &[u8]) -> Option<IpAddr> {
    str::from_utf8(value).ok()?.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// Returns an address as it is written, but one of IPv4 in its own form even if it is written as one of
/// IPv6: so a client has one key, and what the original has stored is found.
pub fn plain_address(value: &[u8]) -> Cow<'_, [u8]> {
    match address_of(value) {
        Some(ip @ IpAddr::V4(_)) => ip.to_string().into_bytes().into(),
        _ => value.into(),
    }
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

    /// How many bits its addresses have in common.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.first.is_ipv4() && Network::around(ip, self.prefix) == *self
    }
}

/// Many networks, each with a number. An address is found in as many steps as it takes to halve the table
/// until one place is left.
#[derive(Debug, Default)]
pub struct NetworkTable {
    ipv4: Ranges<u32>,
    ipv6: Ranges<u128>,
}

/// Stretches of addresses without gaps: where each begins, in order, and the lowest number of the networks
/// there, or [`NOBODY`].
type Ranges<A> = Vec<(A, u32)>;

/// The number of addresses that are in no network.
const NOBODY: u32 = u32::MAX;

/// A table that is being read.
#[derive(Debug, Default)]
pub struct NetworkTableBuilder {
    ipv4: Vec<(u32, u8, u32)>,
    ipv6: Vec<(u128, u8, u32)>,
}

impl NetworkTableBuilder {
    /// Adds a network with a number.
    pub fn add(&mut self, network: Network, number: u32) {
        match network.first {
            IpAddr::V4(first) => self.ipv4.push((first.to_bits(), 32 - network.prefix, number)),
            IpAddr::V6(first) => self.ipv6.push((first.to_bits(), 128 - network.prefix, number)),
        }
    }

    /// The table; of several networks with an address in them the lowest number counts.
    pub fn finish(self) -> NetworkTable {
        NetworkTable { ipv4: ranges(self.ipv4), ipv6: ranges(self.ipv6) }
    }
}

impl NetworkTable {
    /// A table of networks; of several with an address in them the lowest number counts.
    pub fn new(networks: impl IntoIterator<Item = (Network, u32)>) -> NetworkTable {
        let mut table = NetworkTableBuilder::default();
        networks.into_iter().for_each(|(network, number)| table.add(network, number));
        table.finish()
    }

    /// The lowest number of the networks in which an address is.
    pub fn get(&self, ip: IpAddr) -> Option<u32> {
        let number = match ip {
            IpAddr::V4(ip) => find(&self.ipv4, ip.to_bits()),
            IpAddr::V6(ip) => find(&self.ipv6, ip.to_bits()),
        };
        number.filter(|number| *number != NOBODY)
    }
}

fn find<A: Copy + Ord>(ranges: &Ranges<A>, address: A) -> Option<u32> {
    let behind = ranges.partition_point(|(start, _)| *start <= address);
    ranges.get(behind.checked_sub(1)?).map(|(_, number)| *number)
}

/// The bits of an address.
trait Bits: Copy + Ord {
    /// The last address of the network that begins here and has that many free bits.
    fn last_of(self, free: u8) -> Self;

    /// The address behind this one, if there is one.
    fn next(self) -> Option<Self>;
}

impl Bits for u32 {
    fn last_of(self, free: u8) -> u32 {
        self | 1_u32.checked_shl(free.into()).map_or(u32::MAX, |size| size - 1)
    }

    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
}

impl Bits for u128 {
    fn last_of(self, free: u8) -> u128 {
        self | 1_u128.checked_shl(free.into()).map_or(u128::MAX, |size| size - 1)
    }

    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }
}

/// The ranges of networks, each given by its first address, the number of its free bits, and its number.
/// Any two are apart, or one is in the other.
fn ranges<A: Bits>(mut networks: Vec<(A, u8, u32)>) -> Ranges<A> {
    networks.sort_unstable_by_key(|(first, free, number)| (*first, u8::MAX - free, *number));
    let mut ranges = Vec::new();
    // Those around the place that was reached: the last address of each, and the lowest number up to it.
    let mut around: Vec<(A, u32)> = Vec::new();
    let number_of = |around: &[(A, u32)]| around.last().map_or(NOBODY, |(_, number)| *number);
    for (first, free, number) in networks {
        while let Some((last, _)) = around.pop_if(|(last, _)| *last < first) {
            begin(&mut ranges, last.next().unwrap_or(last), number_of(&around));
        }
        let number = number.min(number_of(&around));
        begin(&mut ranges, first, number);
        around.push((first.last_of(free), number));
    }
    while let Some((last, _)) = around.pop() {
        if let Some(next) = last.next() {
            begin(&mut ranges, next, number_of(&around));
        }
    }
    ranges.shrink_to_fit();
    ranges
}

/// A stretch begins; where another one begins at the same place, the later word counts.
fn begin<A: Bits>(ranges: &mut Ranges<A>, start: A, number: u32) {
    if let Some(last) = ranges.last_mut().filter(|(known, _)| *known == start) {
        last.1 = number;
    } else if ranges.last().is_none_or(|(_, last)| *last != number) {
        ranges.push((start, number));
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn a_table_finds_what_looking_at_each_finds(
            networks in prop::collection::vec((any::<[u8; 2]>(), any::<bool>(), 0_u8..=17), 0..40),
            addresses in prop::collection::vec((any::<[u8; 2]>(), any::<bool>()), 40),
        ) {
            // Close together, at both ends of the addresses, so that they meet.
            let ip = |[high, low]: [u8; 2], is_v4: bool| -> IpAddr {
                let edge = if high % 2 == 0 { 0 } else { u128::MAX - 0xFFFF };
                let bits = edge | u128::from(high % 8) << 8 | u128::from(low);
                if is_v4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
            };
            let networks: Vec<_> = networks
                .into_iter()
                .map(|(bytes, is_v4, free)| {
                    let free = if free == 17 { 128 } else { free };
                    Network::around(ip(bytes, is_v4), if is_v4 { 32 - free.min(32) } else { 128 - free })
                })
                .collect();
            let table = NetworkTable::new(networks.iter().copied().zip(0..));
            for (bytes, is_v4) in addresses {
                let ip = ip(bytes, is_v4);
                let first = networks.iter().position(|network| network.contains(ip));
                prop_assert_eq!(table.get(ip).map(|number| number as usize), first, "{}", ip);
            }
        }
    }

    #[test]
    fn an_address_of_ipv4_is_one_however_it_is_written() {
        let of = |text: &str| address_of(text.as_bytes()).map(|ip| ip.to_string());
        assert_eq!(of("::ffff:192.0.2.1").as_deref(), Some("192.0.2.1"));
        assert_eq!(of("::FFFF:c000:201").as_deref(), Some("192.0.2.1"));
        assert_eq!(of("2001:DB8::1").as_deref(), Some("2001:db8::1"));
        assert_eq!((of("unknown"), of(""), address_of(b"\xff")), (None, None, None));
        let plain = |text: &str| String::from_utf8_lossy(&plain_address(text.as_bytes())).into_owned();
        assert_eq!(plain("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!([plain("2001:DB8::1"), plain("unknown")], ["2001:DB8::1", "unknown"]);
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
