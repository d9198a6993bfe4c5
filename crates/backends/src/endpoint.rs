//! Where a server listens, as options and command lines name it.
//!
//! Knows: how an address is written. Must not know: protocols, connections.

use crate::secret::shown_address;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A TCP port.
    Tcp {
        /// A name, or an address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a UNIX socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// The forms that are read, for a manual.
    pub const FORM: &'static str = "`HOST:PORT`, `[IPV6]:PORT` or `unix:PATH`";

    /// Reads `HOST:PORT`, `[IPV6]:PORT`, `unix:PATH` and absolute paths; also Postfix's `inet:HOST:PORT`. The
    /// port may be left out where there is a default. Without brackets, the last part of an IPv6 address is
    /// the port if there has to be one.
    ///
    /// # Errors
    /// What is wrong, and what to write. A user and a password that may be in the text are not shown.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<Endpoint, EndpointError> {
        let wrong = |why| EndpointError { shown: shown_address(text), why };
        if let Some(path) = text.strip_prefix("unix:").or(text.starts_with('/').then_some(text)) {
            return if path.is_empty() {
                Err(wrong("names no socket"))
            } else {
                Ok(Endpoint::Unix(path.into()))
            };
        }
        if text.contains('@') {
            return Err(wrong("has a user in front of it; user and password are options of their own"));
        }
        let address = text.strip_prefix("inet:").unwrap_or(text);
        let (host, port) = match address.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((host, port))) if is_ipv6(host) => match port.strip_prefix(':') {
                None if !port.is_empty() => return Err(wrong("has no `:` after the `]`")),
                port => (host, port),
            },
            Some(_) => return Err(wrong("has no IPv6 address in brackets")),
            None if default_port.is_some() && is_ipv6(address) => (address, None),
            None => address.rsplit_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
        };
        let is_odd = |c: char| c.is_whitespace() || matches!(c, '/' | '[' | ']');
        if host.is_empty() || host.contains(is_odd) || host.contains(':') && !is_ipv6(host) {
            return Err(wrong("has no host"));
        }
        let port = match port.map(str::parse) {
            None => default_port.ok_or_else(|| wrong("has no port"))?,
            Some(Ok(port)) if port > 0 => port,
            Some(_) => return Err(wrong("has no port from 1 to 65535")),
        };
        Ok(Endpoint::Tcp { host: host.to_owned(), port })
    }
}

/// The name of an interface may follow: `fe80::1%eth0`.
fn is_ipv6(text: &str) -> bool {
    text.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// Reads an address that has to name a port.
impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        Endpoint::parse(text, None)
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp { host: address.ip().to_string(), port: address.port() }
    }
}

/// In a form that [`Endpoint::parse`] reads.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}"),
            Endpoint::Unix(path) if path.is_absolute() => write!(f, "{}", path.display()),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A text that names no place where a server could listen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` {why}; write HOST:PORT, [IPV6]:PORT or unix:PATH")]
pub struct EndpointError {
    shown: String,
    why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn an_endpoint_is_read_as_it_is_written() {
        for (text, endpoint, shown) in [
            ("localhost:12345", tcp("localhost", 12345), "localhost:12345"),
            ("127.0.0.1:7000", tcp("127.0.0.1", 7000), "127.0.0.1:7000"),
            ("inet:[::1]:1", tcp("::1", 1), "[::1]:1"),
            ("::1:25", tcp("::1", 25), "[::1]:25"),
            ("/run/policy.sock", Endpoint::Unix("/run/policy.sock".into()), "/run/policy.sock"),
            ("unix:/run/policy.sock", Endpoint::Unix("/run/policy.sock".into()), "/run/policy.sock"),
            ("unix:private/policy", Endpoint::Unix("private/policy".into()), "unix:private/policy"),
        ] {
            assert_eq!(text.parse(), Ok(endpoint.clone()), "{text}");
            assert_eq!(endpoint.to_string(), shown);
            assert_eq!(shown.parse(), Ok(endpoint));
        }
    }

    #[test]
    fn a_port_may_be_left_out_where_there_is_a_default() {
        for (text, endpoint) in [
            ("cache.example", tcp("cache.example", 11211)),
            ("cache:1", tcp("cache", 1)),
            ("[::1]", tcp("::1", 11211)),
            ("[::1]:7", tcp("::1", 7)),
            ("::1", tcp("::1", 11211)),
            ("fe80::1%eth0", tcp("fe80::1%eth0", 11211)),
        ] {
            assert_eq!(Endpoint::parse(text, Some(11211)), Ok(endpoint), "{text}");
        }
        assert_eq!(tcp("fe80::1%eth0", 1).to_string(), "[fe80::1%eth0]:1");
    }

    #[test]
    fn what_is_no_endpoint_is_refused_with_a_hint() {
        for (text, why) in [
            ("", "has no host"),
            (":1", "has no host"),
            ("run/m.sock", "has no host"),
            ("a b:1", "has no host"),
            ("a:b:1", "has no host"),
            ("a:0", "has no port from 1 to 65535"),
            ("a:", "has no port from 1 to 65535"),
            ("a:65536", "has no port from 1 to 65535"),
            ("host:smtp", "has no port from 1 to 65535"),
            ("[::1", "has no IPv6 address in brackets"),
            ("[a]:1", "has no IPv6 address in brackets"),
            ("[::1]1", "has no `:` after the `]`"),
            ("unix:", "names no socket"),
        ] {
            let error = Endpoint::parse(text, Some(1)).unwrap_err().to_string();
            assert!(error.contains(&format!("` {why}; write HOST:PORT, ")), "{text}: {error}");
        }
        for text in ["localhost", "inet:1", "[::1]"] {
            let error = text.parse::<Endpoint>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("`{text}` has no port;")), "{error}");
        }
    }

    #[test]
    fn what_has_a_password_is_refused_and_not_shown() {
        for text in [
            "redis://:hunter2@h:6379",
            "rediss://u:hunter2@h/0",
            "u:hunter2@h:6379",
            ":hunter2@h",
            "hunter2@h",
            "u:hun:ter2@[::1]:6379",
            "[hunter2@h]:1",
            "redis://:hunter2",
            "redis://u:hunter2:1",
            "memcached://u:hunter2",
            "h:hunter2",
        ] {
            let error = Endpoint::parse(text, Some(6379)).unwrap_err().to_string();
            assert!(!error.contains("ter2"), "{text}: {error}");
        }
    }
}
