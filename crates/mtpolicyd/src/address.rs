//! Listen addresses: what `port` and `host` of the configuration mean.
//!
//! Knows: host names, port numbers, services, paths of UNIX sockets.
//! Must not know: sockets, virtual hosts, where the text stands.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where addresses without a host of their own listen, unless `host` says otherwise.
pub const DEFAULT_HOST: &str = "127.0.0.1";

/// Where the daemon listens when the file has no `port`.
pub const DEFAULT_PORT: &str = "127.0.0.1:12345";

/// Longest path of a UNIX socket in bytes: `sun_path` has 108, the last is a NUL.
const MAX_SOCKET_PATH: usize = 107;

/// The system's list of service names, for `port = "http"`.
const SERVICES: &str = "/etc/services";

/// Any address of this machine; its socket takes IPv4 as well.
const ANY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// One place to listen at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenAddress {
    /// A TCP port; `[::]` stands for every address of the machine, IPv4 too.
    Tcp(SocketAddr),
    /// A UNIX stream socket, its path as written.
    Unix(PathBuf),
}

/// A text that is not a listen address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    /// What is wrong and what to write.
    pub message: String,
    /// The option that `range` counts in.
    pub option: &'static str,
    /// The bytes of the option's value that are meant.
    pub range: Range<usize>,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AddressError {}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(path) => write!(f, "{}|unix", path.display()),
        }
    }
}

impl ListenAddress {
    /// Reads a comma separated list; `host` is for the entries that name none.
    ///
    /// Names are resolved here, so a list may give more addresses than it has entries, and may block as long
    /// as the system's resolver does. What is listed twice comes out once.
    pub fn parse_list(port: &str, host: Option<&str>) -> Result<Vec<ListenAddress>, AddressError> {
        let mut addresses = Vec::new();
        for (range, text) in entries(port) {
            let mistake = |message| AddressError { message, option: "port", range: range.clone() };
            match Entry::parse(text).map_err(mistake)? {
                Entry::Unix(path) => add(&mut addresses, ListenAddress::Unix(path)),
                Entry::Tcp { host: Some(host), port, family } => {
                    add_all(&mut addresses, resolve(host, port, family).map_err(mistake)?);
                }
                Entry::Tcp { host: None, port, family } => {
                    let found = default_host(host.unwrap_or(DEFAULT_HOST), port, family);
                    add_all(&mut addresses, found.map_err(|message| host_mistake(message, host))?);
                }
            }
        }
        if addresses.is_empty() {
            let message = format!("no address to listen at; write for example \"{DEFAULT_PORT}\"");
            return Err(AddressError { message, option: "port", range: 0..port.len() });
        }
        drop_covered(&mut addresses);
        Ok(addresses)
    }

    /// The path of a socket whose place depends on the folder in which the daemon is started.
    pub fn relative_path(&self) -> Option<&Path> {
        match self {
            ListenAddress::Unix(path) if path.is_relative() => Some(path),
            _ => None,
        }
    }

    /// What `<VirtualHost KEY>` has to say to serve this address: the port's number, or the socket's path.
    pub fn vhost_key(&self) -> String {
        match self {
            ListenAddress::Tcp(address) => address.port().to_string(),
            ListenAddress::Unix(path) => path.display().to_string(),
        }
    }
}

/// Which addresses of a name are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Any,
    V4,
    V6,
}

impl Family {
    fn takes(self, address: IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Family::Any => "IP",
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }
}

/// One entry of the list, taken apart.
#[derive(Debug, PartialEq)]
enum Entry<'a> {
    Unix(PathBuf),
    Tcp { host: Option<&'a str>, port: u16, family: Family },
}

impl<'a> Entry<'a> {
    fn parse(text: &'a str) -> Result<Entry<'a>, String> {
        let mut rest = text;
        let mut family = Family::Any;
        while let Some((before, word)) = last_word(rest) {
            match word.to_ascii_lowercase().as_str() {
                "unix" => return socket_path(before),
                "tcp" => (),
                "ipv4" => family = Family::V4,
                "ipv6" => family = Family::V6,
                "ipv*" => family = Family::Any,
                "udp" | "ssl" | "ssleay" | "unixdgram" => {
                    return Err(format!("\"{word}\" is not supported: write \"tcp\" or \"unix\""));
                }
                _ => break,
            }
            rest = before;
        }
        if rest.starts_with('/') {
            return socket_path(rest);
        }
        match rest.split_once(':') {
            Some(("unix", path)) => {
                return Err(format!("\"{rest}\" is the form of main.cf; write \"{path}|unix\""));
            }
            Some(("inet", address)) => {
                return Err(format!("\"{rest}\" is the form of main.cf; write \"{address}\""));
            }
            _ => {}
        }
        let (host, port) = split_host(rest)?;
        Ok(Entry::Tcp { host, port: port_number(port)?, family })
    }
}

/// The entries of a comma separated list, trimmed, with their place; empty ones are skipped.
fn entries(list: &str) -> impl Iterator<Item = (Range<usize>, &str)> {
    let mut offset = 0;
    list.split(',').filter_map(move |piece| {
        let text = piece.trim();
        let start = offset + (piece.len() - piece.trim_start().len());
        offset += piece.len() + 1;
        (!text.is_empty()).then_some((start..start + text.len(), text))
    })
}

/// Splits off what follows the last separator: `127.0.0.1:12345/tcp` gives `tcp`.
fn last_word(text: &str) -> Option<(&str, &str)> {
    let at = text.rfind(is_separator)?;
    Some((text[..at].trim_end(), &text[at + 1..]))
}

/// Every separator is one ASCII byte, so the byte after it starts a character.
fn is_separator(c: char) -> bool {
    matches!(c, '|' | '/' | ':' | ' ' | '\t')
}

fn socket_path<'a>(path: &str) -> Result<Entry<'a>, String> {
    if path.is_empty() {
        return Err("the path of the UNIX socket is missing: write \"/path/of.sock|unix\"".to_owned());
    }
    if path.contains(['|', '\0']) {
        return Err(format!("\"{path}\" is not the path of a UNIX socket: write \"/path/of.sock|unix\""));
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err(format!(
            "the path of a UNIX socket has at most {MAX_SOCKET_PATH} bytes, this one has {}",
            path.len()
        ));
    }
    Ok(Entry::Unix(PathBuf::from(path)))
}

/// Takes `host:port` apart; an address in brackets may hold colons, one without ends at the last of them.
fn split_host(text: &str) -> Result<(Option<&str>, &str), String> {
    let no_port =
        || format!("\"{text}\" has no port number: write \"host:port\", for example \"{DEFAULT_PORT}\"");
    if let Some(inner) = text.strip_prefix('[') {
        let (host, port) =
            inner.split_once(']').ok_or_else(|| format!("\"{text}\" lacks a closing \"]\""))?;
        let port = port.trim_start().strip_prefix([':', '|']).unwrap_or(port).trim_start();
        return if port.is_empty() { Err(no_port()) } else { Ok((Some(host), port)) };
    }
    let Some(at) = text.rfind(|c| is_separator(c) && c != '/') else {
        let is_address = text.parse::<IpAddr>().is_ok();
        return if is_address { Err(no_port()) } else { Ok((None, text)) };
    };
    let (host, port) = (text[..at].trim_end(), &text[at + 1..]);
    // `127.0.0.1 : 12345` splits at the blank behind the colon.
    let host = host
        .strip_suffix([':', '|'])
        .filter(|_| text[at..].starts_with([' ', '\t']))
        .unwrap_or(host)
        .trim_end();
    if port.is_empty() {
        return Err(no_port());
    }
    Ok((Some(host), port))
}

fn port_number(text: &str) -> Result<u16, String> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_err(|_| format!("{text} is not a port: ports go from 0 to {}", u16::MAX));
    }
    let known = std::fs::read_to_string(SERVICES).ok().and_then(|services| service_port(&services, text));
    known.ok_or_else(|| format!("\"{text}\" is neither a port number nor a TCP service of {SERVICES}"))
}

/// Looks a name or an alias up in the text of services(5).
fn service_port(services: &str, name: &str) -> Option<u16> {
    services.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let (official, number) = (words.next()?, words.next()?.strip_suffix("/tcp")?);
        (official == name || words.any(|alias| alias == name)).then(|| number.parse().ok())?
    })
}

/// `host` may carry a family, as `localhost/IPv4` does.
fn default_host(host: &str, port: u16, family: Family) -> Result<Vec<SocketAddr>, String> {
    let host = host.trim();
    if host.contains(',') {
        return Err("one host only: give each address its own in \"port\"".to_owned());
    }
    let (host, of_host) = match last_word(host) {
        Some((before, word)) if word.eq_ignore_ascii_case("ipv4") => (before, Family::V4),
        Some((before, word)) if word.eq_ignore_ascii_case("ipv6") => (before, Family::V6),
        Some((before, word)) if word.eq_ignore_ascii_case("ipv*") => (before, Family::Any),
        _ => (host, Family::Any),
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    resolve(inner, port, if family == Family::Any { of_host } else { family })
}

fn host_mistake(message: String, host: Option<&str>) -> AddressError {
    AddressError { message, option: "host", range: 0..host.unwrap_or_default().len() }
}

/// The addresses of a host; none and `*` mean every address of this machine.
fn resolve(host: &str, port: u16, family: Family) -> Result<Vec<SocketAddr>, String> {
    if host.is_empty() || host == "*" {
        let any = if family == Family::V4 { Ipv4Addr::UNSPECIFIED.into() } else { ANY };
        return Ok(vec![SocketAddr::new(any, port)]);
    }
    if host.contains(char::is_whitespace) {
        return Err(format!("\"{host}\" is not a host: addresses are separated by commas"));
    }
    let found =
        (host, port).to_socket_addrs().map_err(|error| format!("host \"{host}\" not found: {error}"))?;
    let wanted: Vec<_> = found.filter(|address| family.takes(address.ip())).collect();
    if wanted.is_empty() {
        return Err(format!("host \"{host}\" has no {} address", family.name()));
    }
    Ok(wanted)
}

fn add(addresses: &mut Vec<ListenAddress>, address: ListenAddress) {
    if !addresses.contains(&address) {
        addresses.push(address);
    }
}

fn add_all(addresses: &mut Vec<ListenAddress>, found: Vec<SocketAddr>) {
    found.into_iter().for_each(|address| add(addresses, ListenAddress::Tcp(address)));
}

/// The socket of `[::]:port` takes IPv4 too, so one for `0.0.0.0:port` beside it could not be bound.
fn drop_covered(addresses: &mut Vec<ListenAddress>) {
    let all = addresses.clone();
    addresses.retain(|address| match address {
        ListenAddress::Tcp(tcp) if tcp.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) => {
            !all.contains(&ListenAddress::Tcp(SocketAddr::new(ANY, tcp.port())))
        }
        _ => true,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The addresses as they print, or the mistake.
    fn list(port: &str, host: Option<&str>) -> Vec<String> {
        match ListenAddress::parse_list(port, host) {
            Ok(addresses) => addresses.iter().map(ToString::to_string).collect(),
            Err(error) => vec![format!("{} {:?}: {}", error.option, error.range, error.message)],
        }
    }

    #[test]
    fn every_form_of_the_original_is_read() {
        for (text, means) in [
            ("12345", "127.0.0.1:12345"),
            ("013345", "127.0.0.1:13345"),
            ("12345|tcp", "127.0.0.1:12345"),
            ("12345/tcp", "127.0.0.1:12345"),
            ("127.0.0.2:12345", "127.0.0.2:12345"),
            ("127.0.0.2:12345/tcp", "127.0.0.2:12345"),
            ("127.0.0.2:12345|TCP", "127.0.0.2:12345"),
            ("127.0.0.2:12345:ipv4", "127.0.0.2:12345"),
            ("127.0.0.2:12345/tcp/ipv4", "127.0.0.2:12345"),
            ("127.0.0.2|12345", "127.0.0.2:12345"),
            ("127.0.0.2 : 12345", "127.0.0.2:12345"),
            ("127.0.0.2 12345", "127.0.0.2:12345"),
            ("[127.0.0.2]:12345", "127.0.0.2:12345"),
            ("[::1]:12345", "[::1]:12345"),
            ("[::1]:12345|tcp", "[::1]:12345"),
            ("::1:12345", "[::1]:12345"),
            ("[::]:12345", "[::]:12345"),
            ("*:12345", "[::]:12345"),
            (":12345", "[::]:12345"),
            ("*:12345/ipv4", "0.0.0.0:12345"),
            ("*:12345|IPv6", "[::]:12345"),
            ("0", "127.0.0.1:0"),
            ("/run/p.sock|unix", "/run/p.sock|unix"),
            ("/run/p.sock/unix", "/run/p.sock|unix"),
            ("/run/p.sock:UNIX", "/run/p.sock|unix"),
            ("/run/p.sock", "/run/p.sock|unix"),
            ("p.sock|unix", "p.sock|unix"),
            ("/run/a b.sock|unix", "/run/a b.sock|unix"),
        ] {
            assert_eq!(list(text, None), [means], "{text}");
            assert_eq!(list(&format!(" {text}\t"), None), [means], "{text} with blanks");
            assert_eq!(list(means, None), [means], "{means} is its own text");
        }
    }

    #[test]
    fn a_list_keeps_its_order_and_has_nothing_twice() {
        let text = "127.0.0.1:12345, [::1]:12345 ,,/run/p.sock|unix,12345,";
        assert_eq!(list(text, None), ["127.0.0.1:12345", "[::1]:12345", "/run/p.sock|unix"]);
        assert_eq!(list("0.0.0.0:25, *:25, 0.0.0.0:26", None), ["[::]:25", "0.0.0.0:26"]);
    }

    #[test]
    fn the_host_is_for_those_without_one() {
        assert_eq!(list("12345, 127.0.0.3:12346", Some("127.0.0.2")), ["127.0.0.2:12345", "127.0.0.3:12346"]);
        assert_eq!(list("12345", Some("::1")), ["[::1]:12345"]);
        assert_eq!(list("12345", Some("[::1]")), ["[::1]:12345"]);
        assert_eq!(list("12345", Some("*")), ["[::]:12345"]);
        assert_eq!(list("12345", Some("")), ["[::]:12345"]);
        assert_eq!(list("12345", Some("*/IPv4")), ["0.0.0.0:12345"]);
        assert_eq!(list("12345/ipv4", Some("localhost")), ["127.0.0.1:12345"]);
    }

    #[test]
    fn mistakes_say_where_they_are() {
        assert_eq!(
            list("12345, 127.0.0.1:99999", None),
            ["port 7..22: 99999 is not a port: ports go from 0 to 65535"]
        );
        assert_eq!(
            list("garbage", None),
            ["port 0..7: \"garbage\" is neither a port number nor a TCP service of /etc/services"]
        );
        assert!(list("127.0.0.1", None)[0].contains("has no port number"));
        assert!(list("127.0.0.1:", None)[0].contains("has no port number"));
        assert!(list("[::1]", None)[0].contains("has no port number"));
        assert!(list("[::1:12345", None)[0].contains("lacks a closing"));
        assert!(list("::", None)[0].contains("has no port number"));
        assert!(list("0x3421", None)[0].contains("neither a port number"));
        assert!(list("", None)[0].contains("no address"));
        assert!(list(" , ", None)[0].contains("no address"));
        assert!(list("127.0.0.1:1 127.0.0.1:2", None)[0].contains("separated by commas"));
        assert!(list("12345|udp", None)[0].contains("\"udp\" is not supported"));
        assert!(list("|unix", None)[0].contains("path of the UNIX socket is missing"));
        assert!(list("/a|SOCK_STREAM|unix", None)[0].contains("is not the path"));
        assert!(list("unix:/run/p.sock", None)[0].contains("write \"/run/p.sock|unix\""));
        assert!(list("inet:127.0.0.1:12345", None)[0].contains("write \"127.0.0.1:12345\""));
        assert!(
            list(&format!("/{}|unix", "x".repeat(107)), None)[0]
                .contains("at most 107 bytes, this one has 108")
        );
        assert!(list("127.0.0.1:1/ipv6", None)[0].contains("has no IPv6 address"));
        assert!(list("ü:ü", None)[0].contains("neither a port number"));
        assert_eq!(
            list("12345", Some("127.0.0.2, ::1")),
            ["host 0..14: one host only: give each address its own in \"port\""]
        );
    }

    #[test]
    fn a_service_has_a_name_and_aliases() {
        let services = "# comment\nhttp\t\t80/tcp\t\twww # WorldWideWeb\nsyslog 514/udp\nbroken\n";
        assert_eq!(service_port(services, "http"), Some(80));
        assert_eq!(service_port(services, "www"), Some(80));
        assert_eq!(service_port(services, "syslog"), None);
        assert_eq!(service_port(services, "WorldWideWeb"), None);
    }

    #[test]
    fn the_virtual_host_is_named_by_port_or_path() {
        let keys: Vec<_> = ListenAddress::parse_list("*:12345, /run/p.sock|unix", None).unwrap();
        assert_eq!(keys.iter().map(ListenAddress::vhost_key).collect::<Vec<_>>(), ["12345", "/run/p.sock"]);
    }
}
