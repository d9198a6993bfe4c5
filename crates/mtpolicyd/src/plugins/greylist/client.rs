//! What stands for a client in tickets and in the auto-whitelist: its address, its network or its name.
//!
//! Knows: addresses, host names. Must not know: tickets.

use crate::network::{Network, address_of, plain_address};
use crate::value::{Value, words};
use postfix_policy::Request;
use std::borrow::Cow;
use std::fmt::Display;
use std::net::IpAddr;

words! {
    /// What stands for a client.
    pub enum ClientKey {
        /// Its address.
        Ip = "ip",
        /// The network that its address is in.
        Net = "net",
        /// Its verified name without the part that is the host's own.
        Name = "name",
        /// The domain of the sender, if SPF lets the client send for it.
        Spf = "spf",
    }
}

/// The prefix length of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix<const LONGEST: u8>(pub u8);

impl<const LONGEST: u8> Display for Prefix<LONGEST> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<const LONGEST: u8> Value for Prefix<LONGEST> {
    const FORM: &'static str = "length of a prefix in bits";
    fn parse(text: &str) -> Result<Self, String> {
        let prefix = text.parse().ok().filter(|prefix| (1..=LONGEST).contains(prefix));
        prefix.map(Prefix).ok_or_else(|| format!("`{text}` is not a prefix length from 1 to {LONGEST}"))
    }
}

/// The longest prefix of IPv6 that still says something of a network: beyond it, is one host.
pub const IPV6_LONGEST: u8 = 64;

/// How clients are told apart.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    /// What stands for a client.
    pub key: ClientKey,
    /// Bits of an IPv4 address.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address.
    pub ipv6_prefix: u8,
}

/// What the column of the original's table holds; longer names lose labels in front.
const MAX_NAME_BYTES: usize = 39;

impl Clients {
    /// What stands for the client of a request. `sending_for` is the domain of the sender, if the client is
    /// known to send for it.
    pub fn key_of<'a>(&self, request: &'a Request, sending_for: Option<&str>) -> Cow<'a, [u8]> {
        let address = request.get("client_address").unwrap_or_default();
        // What is not an address stands for itself.
        let Some(ip) = address_of(address) else { return address.into() };
        let address = plain_address(address);
        match self.key {
            ClientKey::Ip => address,
            // The sender is part of the triplet too, so a domain that is cut means no other one.
            ClientKey::Spf => match sending_for.and_then(fitting) {
                Some(domain) => domain.as_bytes().to_vec().into(),
                None => address,
            },
            ClientKey::Net => self.network(ip).into(),
            ClientKey::Name => {
                let name = request.get("client_name").and_then(|name| str::from_utf8(name).ok());
                match name.and_then(|name| reduce(name, ip)) {
                    Some(Reduced::Name(name)) => name.into_bytes().into(),
                    Some(Reduced::Address) => address,
                    None => self.network(ip).into(),
                }
            }
        }
    }

    /// What stands for a client of which the address is known, and nothing else.
    pub fn of_address(&self, ip: IpAddr) -> Vec<u8> {
        match self.key {
            ClientKey::Net | ClientKey::Name => self.network(ip),
            ClientKey::Ip | ClientKey::Spf => ip.to_string().into_bytes(),
        }
    }

    fn network(&self, ip: IpAddr) -> Vec<u8> {
        let prefix = if ip.is_ipv4() { self.ipv4_prefix } else { self.ipv6_prefix };
        Network::around(ip, prefix).to_string().into_bytes()
    }
}

/// What a name gives.
#[derive(Debug, PartialEq, Eq)]
enum Reduced {
    /// What hosts of the same site share.
    Name(String),
    /// The name is that of an address, as providers give it to customers: it says nothing of a site.
    Address,
}

/// Words in the names that providers give to the addresses of their customers.
const CUSTOMER_WORDS: [&str; 34] = [
    "adsl",
    "broadband",
    "cable",
    "client",
    "clients",
    "cpe",
    "cust",
    "customer",
    "customers",
    "dhcp",
    "dial",
    "dialin",
    "dialup",
    "dip",
    "dsl",
    "dyn",
    "dynamic",
    "fiber",
    "ftth",
    "home",
    "host",
    "ip",
    "lan",
    "mobile",
    "modem",
    "pool",
    "ppp",
    "pppoe",
    "res",
    "static",
    "user",
    "vdsl",
    "wifi",
    "xdsl",
];

/// The part of a verified name that the hosts of a site share; `None` if it is not a name.
fn reduce(name: &str, ip: IpAddr) -> Option<Reduced> {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let labels: Vec<_> = name.split('.').collect();
    let is_label = |label: &&str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if labels.len() < 2 || !labels.iter().all(is_label) {
        return None;
    }
    if names_address(&name, ip) {
        return Some(Reduced::Address);
    }
    let site = labels[1..].join(".");
    // Below a public suffix everything belongs to somebody else.
    let reduced = match psl::domain_str(&site) {
        Some(_) => site,
        None => format!("{}.{site}", without_digits(labels[0])),
    };
    fitting(&reduced).map(|name| Reduced::Name(name.to_owned()))
}

/// Whether a name is made from the address: all numbers of an IPv4 address stand in it one after another,
/// forwards or backwards, or its last two and a word for customers; or an address of either kind in
/// hexadecimal. Large senders name their hosts by the last two numbers too.
fn names_address(name: &str, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let numbers: Vec<_> = name
                .split(|c: char| !c.is_ascii_digit())
                .filter(|digits| !digits.is_empty())
                .map(|digits| digits.parse::<u32>().unwrap_or(u32::MAX))
                .collect();
            let [a, b, c, d] = ip.octets();
            let has = |wanted: &[u8]| {
                let is_it = |found: &[u32]| {
                    found.iter().zip(wanted).all(|(found, octet)| *found == u32::from(*octet))
                };
                numbers.windows(wanted.len()).any(is_it)
            };
            let digits = format!("{a:03}{b:03}{c:03}{d:03}");
            has(&[a, b, c, d])
                || has(&[d, c, b, a])
                || name.contains(&digits)
                || name.contains(&format!("{:08x}", ip.to_bits()))
                || ((has(&[c, d]) || has(&[d, c])) && is_of_customers(name))
        }
        // The half that tells hosts of a network apart, with or without its separators.
        IpAddr::V6(ip) => {
            let letters: String = name.chars().filter(char::is_ascii_hexdigit).collect();
            letters.contains(&format!("{:016x}", ip.to_bits() & u128::from(u64::MAX)))
        }
    }
}

/// Whether one of the words stands in a name.
fn is_of_customers(name: &str) -> bool {
    name.split(|c: char| !c.is_ascii_alphabetic()).any(|word| CUSTOMER_WORDS.contains(&word))
}

/// A label in which `#` stands for each number: `mx1` and `mx2` are `mx#`.
fn without_digits(label: &str) -> String {
    let mut text = String::with_capacity(label.len());
    for c in label.chars() {
        match c {
            '0'..='9' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            c => text.push(c),
        }
    }
    text
}

/// As many of the last labels as fit, at least two.
fn fitting(name: &str) -> Option<&str> {
    let mut rest = name;
    while rest.len() > MAX_NAME_BYTES {
        rest = rest.split_once('.')?.1;
    }
    rest.contains('.').then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: ClientKey, ip: &str, name: &str) -> String {
        let pairs = [("client_address", ip), ("client_name", name)];
        let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let request = Request::from_pairs(pairs).unwrap();
        let clients = Clients { key, ipv4_prefix: 24, ipv6_prefix: 64 };
        String::from_utf8(clients.key_of(&request, None).into_owned()).unwrap()
    }

    #[test]
    fn an_address_and_its_network() {
        assert_eq!(key(ClientKey::Ip, "192.0.2.77", "x"), "192.0.2.77");
        assert_eq!(key(ClientKey::Net, "192.0.2.77", "x"), "192.0.2.0/24");
        assert_eq!(key(ClientKey::Net, "2001:db8:1:2:3:4:5:6", "x"), "2001:db8:1:2::/64");
        for kind in [ClientKey::Ip, ClientKey::Net, ClientKey::Name] {
            assert_eq!(key(kind, "unknown", "unknown"), "unknown");
        }
    }

    #[test]
    fn hosts_of_a_site_share_a_name() {
        for (name, reduced) in [
            ("mail-ej1-f54.google.com", "google.com"),
            ("mail-ed1-x52b.google.com", "google.com"),
            ("mail-db8eur05on2071.outbound.protection.Outlook.com.", "outbound.protection.outlook.com"),
            ("mx3.example.co.uk", "example.co.uk"),
            ("example.co.uk", "example.co.uk"),
            ("mx12.gmx.de", "gmx.de"),
            ("mout-3.web.de", "web.de"),
            ("mx7.com.br", "mx#.com.br"),
            ("mx7.example.com.br", "example.com.br"),
            ("mx7.city.kawasaki.jp", "city.kawasaki.jp"),
            ("a10-219.smtp-out.amazonses.com", "smtp-out.amazonses.com"),
            ("mail133-8.atl131.mcsv.net", "atl131.mcsv.net"),
            ("mout.gmx.net", "gmx.net"),
            ("example.org", "example.org"),
            ("smtp2.example", "smtp#.example"),
            ("a.very-long-name-of-a-department.very-long-name.example.org", "very-long-name.example.org"),
        ] {
            assert_eq!(key(ClientKey::Name, "192.0.2.200", name), reduced);
        }
    }

    #[test]
    fn numbers_in_the_name_of_a_host_do_not_make_a_customer() {
        for (ip, name, reduced) in [
            ("54.240.10.219", "a10-219.smtp-out.amazonses.com", "smtp-out.amazonses.com"),
            ("198.2.133.8", "mail133-8.atl131.mcsv.net", "atl131.mcsv.net"),
            ("192.0.1.2", "mx1-2.example.org", "example.org"),
            ("1.1.1.1", "mx1.example.org", "example.org"),
            ("192.0.2.77", "pool-2-77.example.org", "192.0.2.77"),
            ("192.0.2.77", "77-2.static.example.org", "192.0.2.77"),
            ("192.0.2.77", "77.2.0.192.example.org", "192.0.2.77"),
            ("192.0.2.77", "x192000002077.example.org", "192.0.2.77"),
            ("192.0.2.77", "ec2-192-0-2-77.compute-1.amazonaws.com", "192.0.2.77"),
        ] {
            assert_eq!(key(ClientKey::Name, ip, name), reduced, "{name}");
        }
    }

    #[test]
    fn an_ipv4_client_is_one_however_its_address_is_written() {
        assert_eq!(key(ClientKey::Ip, "::ffff:192.0.2.77", "x"), "192.0.2.77");
        assert_eq!(key(ClientKey::Net, "::ffff:192.0.2.77", "x"), "192.0.2.0/24");
        assert_eq!(key(ClientKey::Ip, "2001:DB8::1", "x"), "2001:DB8::1");
        let by_name = key(ClientKey::Name, "::ffff:192.0.2.77", "192-0-2-77.example.org");
        assert_eq!(by_name, "192.0.2.77");
    }

    #[test]
    fn customers_of_a_provider_do_not() {
        let by_name = |ip, name| key(ClientKey::Name, ip, name);
        assert_eq!(by_name("192.0.2.77", "192-0-2-77.dial.example.org"), "192.0.2.77");
        assert_eq!(by_name("192.0.2.77", "ip-077-002.dial.example.org"), "192.0.2.77");
        assert_eq!(by_name("192.0.2.77", "c000024d.dsl.example.org"), "192.0.2.77");
        let ip = "2001:db8::1234:5678:9abc:def0";
        assert_eq!(by_name(ip, "1234-5678-9abc-def0.v6.example.org"), ip);
    }

    #[test]
    fn what_is_no_verified_name_is_a_network() {
        for name in ["unknown", "", "a,b.example.org", "[192.0.2.77]", "..", "localhost"] {
            assert_eq!(key(ClientKey::Name, "192.0.2.77", name), "192.0.2.0/24", "{name}");
        }
        let long = format!("a.b.{}", "x".repeat(60));
        assert_eq!(key(ClientKey::Name, "192.0.2.77", &long), "192.0.2.0/24");
    }

    #[test]
    fn prefixes_have_bounds() {
        assert_eq!(Prefix::<32>::parse("24"), Ok(Prefix(24)));
        for bad in ["0", "33", "", "/24"] {
            assert!(Prefix::<32>::parse(bad).is_err(), "{bad}");
        }
    }
}
