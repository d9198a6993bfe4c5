//! `/etc/resolv.conf`, read as the C library of GNU reads it.
//!
//! Knows: the file's grammar. Must not know: when it is read, which server is asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

/// The number of servers of the file used.
const MAX_SERVERS: usize = 3;

/// The bounds of `timeout` and `attempts`.
const MAX_TIMEOUT: u64 = 30;
const MAX_ATTEMPTS: u32 = 5;

/// The port of name servers.
pub const DNS_PORT: u16 = 53;

/// What the file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResolvConf {
    /// The servers in the order given, the first three; maybe none.
    pub servers: Vec<SocketAddr>,
    /// How long to wait for a server; at least a second.
    pub timeout: Duration,
    /// How often the servers are tried; at least once.
    pub attempts: u32,
    /// Whether questions begin with each server in turn.
    pub rotate: bool,
    /// Whether every question goes over TCP.
    pub use_tcp: bool,
    /// Whether the administrator trusts the servers' word about DNSSEC.
    pub trust_ad: bool,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            attempts: 2,
            rotate: false,
            use_tcp: false,
            trust_ad: false,
        }
    }
}

impl ResolvConf {
    /// Reads the text of the file. What can't be understood is left out, line by line and word by word;
    /// `search`, `domain` and `sortlist` are of no use here, since names are never completed.
    pub fn parse(text: &[u8]) -> ResolvConf {
        let mut conf = Self::default();
        // A comment may hold any bytes.
        for line in text.split(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(line);
            // A keyword stands at the beginning of its line; so does the sign of a comment.
            let Some((keyword, rest)) = line.split_once([' ', '\t']) else { continue };
            let mut words = rest.split_ascii_whitespace();
            match keyword {
                "nameserver" if conf.servers.len() < MAX_SERVERS => {
                    conf.servers.extend(words.next().and_then(server));
                }
                "options" => words.for_each(|word| conf.apply(word)),
                _ => {}
            }
        }
        conf
    }

    fn apply(&mut self, option: &str) {
        match option.split_once(':') {
            Some(("timeout", value)) => {
                self.timeout = Duration::from_secs(number(value).clamp(1, MAX_TIMEOUT));
            }
            Some(("attempts", value)) => {
                let attempts = u32::try_from(number(value)).unwrap_or(u32::MAX);
                self.attempts = attempts.clamp(1, MAX_ATTEMPTS);
            }
            _ => match option {
                "rotate" => self.rotate = true,
                "use-vc" => self.use_tcp = true,
                "trust-ad" => self.trust_ad = true,
                _ => {}
            },
        }
    }
}

/// The digits at the beginning, as `atoi` reads them.
fn number(text: &str) -> u64 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if end == 0 { 0 } else { text[..end].parse().unwrap_or(u64::MAX) }
}

/// The address of a server, with the scope of a link-local one.
fn server(word: &str) -> Option<SocketAddr> {
    if let Some(ip) = ipv4(word) {
        return Some((ip, DNS_PORT).into());
    }
    let (address, scope) = word.split_once('%').map_or((word, None), |(ip, scope)| (ip, Some(scope)));
    let ip: Ipv6Addr = address.parse().ok()?;
    let scope = scope.map_or(0, |scope| {
        scope.parse().ok().or_else(|| nix::net::if_::if_nametoindex(scope).ok()).unwrap_or(0)
    });
    Some(SocketAddrV6::new(ip, DNS_PORT, 0, scope).into())
}

/// An IPv4 address in any of the forms of `inet_aton`: `127.1` and `0x7f000001` too.
fn ipv4(word: &str) -> Option<IpAddr> {
    let mut numbers = Vec::with_capacity(4);
    for part in word.split('.') {
        let (digits, radix) = match part.as_bytes() {
            [b'0', b'x' | b'X', ..] => (&part[2..], 16),
            [b'0', _, ..] => (&part[1..], 8),
            _ => (part, 10),
        };
        if digits.starts_with('+') {
            return None;
        }
        numbers.push(u32::from_str_radix(digits, radix).ok()?);
    }
    let (&last, leading) = numbers.split_last()?;
    if leading.len() > 3 || leading.iter().any(|&number| number > 0xff) {
        return None;
    }
    // The last number fills what is left.
    let room = 32 - 8 * u32::try_from(leading.len()).ok()?;
    if u64::from(last) >= 1 << room {
        return None;
    }
    let leading = leading.iter().fold(0_u64, |bits, &number| bits << 8 | u64::from(number)) << room;
    Some(Ipv4Addr::from_bits(u32::try_from(leading | u64::from(last)).ok()?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Vec<String> {
        ResolvConf::parse(text.as_bytes()).servers.iter().map(|server| server.ip().to_string()).collect()
    }

    #[test]
    fn servers_are_read_as_glibc_reads_them() {
        assert_eq!(
            servers("nameserver 192.0.2.1\nnameserver\t2001:db8::1 # ours\n"),
            ["192.0.2.1", "2001:db8::1"]
        );
        assert_eq!(
            servers("# nameserver 192.0.2.1\n;nameserver 192.0.2.1\n nameserver 192.0.2.1\n"),
            [""; 0]
        );
        assert_eq!(servers("nameserver 192.0.2.1\r\nsearch a\r\n"), ["192.0.2.1"]);
        assert_eq!(servers("nameserver 127.1\nnameserver 0x7f.0.0.010\n"), ["127.0.0.1", "127.0.0.8"]);
        for odd in ["[192.0.2.1]", "192.0.2.1#53", "ns.example", "256.1.1.1", "1.2.3.4.5", "+1", "", "1..2"] {
            assert_eq!(servers(&format!("nameserver {odd}\nnameserver 192.0.2.9")), ["192.0.2.9"], "{odd}");
        }
        let four = (1..5).map(|last| format!("nameserver 192.0.2.{last}\n")).collect::<String>();
        assert_eq!(servers(&four).len(), 3);
    }

    #[test]
    fn a_scope_is_an_interface() {
        let scope = |text: &str| match ResolvConf::parse(text.as_bytes()).servers[..] {
            [SocketAddr::V6(server)] => server.scope_id(),
            _ => panic!("{text}"),
        };
        assert_eq!(scope("nameserver fe80::1%7"), 7);
        assert_eq!(scope("nameserver fe80::1%no-such"), 0);
        assert_ne!(scope("nameserver fe80::1%lo"), 0);
    }

    #[test]
    fn odd_words_cost_nothing_else() {
        for odd in
            ["search ~.", "domain (none)", "search \"a\"", "lookup file", "options", "x", "options foo:1"]
        {
            assert_eq!(servers(&format!("{odd}\nnameserver 192.0.2.1")), ["192.0.2.1"]);
        }
        let latin1 = [b"# caf\xe9 \0\n".as_slice(), b"nameserver 192.0.2.1"].concat();
        assert_eq!(ResolvConf::parse(&latin1).servers.len(), 1);
    }

    #[test]
    fn options_have_bounds() {
        let read = |options: &str| ResolvConf::parse(format!("options {options}").as_bytes());
        let times = |options: &str| (read(options).timeout.as_secs(), read(options).attempts);
        assert_eq!(times(""), (5, 2));
        assert_eq!(times("timeout:0 attempts:0"), (1, 1));
        assert_eq!(times("timeout:99999999999999999999 attempts:99"), (30, 5));
        assert_eq!(times("timeout:3x\tattempts:4"), (3, 4));
        assert_eq!(times("timeout:-1"), (1, 2));
        let conf = read("rotate edns0 use-vc trust-ad");
        assert!(conf.rotate && conf.use_tcp && conf.trust_ad);
    }
}
