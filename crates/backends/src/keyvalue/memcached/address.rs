//! Where a server of memcached is, and a connection to it.
//!
//! Knows: how addresses are written, TCP and UNIX sockets. Must not know: the protocol.

use crate::secret::shown_address;
use socket2::{SockRef, TcpKeepalive};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{Interest, Ready};
use tokio::net::{TcpStream, UnixStream};

/// The port where none is written.
const DEFAULT_PORT: u16 = 11211;

/// The largest weight: the list from which servers are chosen has as many places.
const MAX_WEIGHT: usize = 1000;

/// When the kernel begins to ask an idle connection whether its other end is still there, so that one that a
/// firewall has dropped is noticed.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// A name or an address without brackets, and a port.
    Tcp(String, u16),
    /// The path of a socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads `host:port`, `host`, `[address]:port` or a path, and `=weight` behind it. The error says what is
    /// wrong, without a user and a password that may be in it.
    pub(super) fn parse(text: &str) -> Result<(Address, usize), String> {
        if text.contains('@') && !text.starts_with('/') {
            let place = shown_address(text);
            return Err(format!("{place}: a server is written HOST:PORT, without user and password"));
        }
        let (place, weight) = match text.rsplit_once('=') {
            Some((place, weight)) => (place, parse_weight(weight).map_err(|why| format!("{text}: {why}"))?),
            None => (text, 1),
        };
        let address = parse_place(place).map_err(|why| format!("{}: {why}", shown_address(place)))?;
        Ok((address, weight))
    }

    /// A connection to it.
    pub(super) async fn connect(&self) -> io::Result<Stream> {
        match self {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                Ok(Stream::Tcp(stream))
            }
            Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

fn parse_weight(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(weight) if (1..=MAX_WEIGHT).contains(&weight) => Ok(weight),
        _ => Err(format!("a weight is a number from 1 to {MAX_WEIGHT}")),
    }
}

fn parse_place(text: &str) -> Result<Address, &'static str> {
    if text.starts_with('/') {
        return Ok(Address::Unix(text.into()));
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, behind) = rest.split_once(']').ok_or("there is no ] after the address")?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("between [ and ] stands an IPv6 address");
            }
            match behind.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if behind.is_empty() => (host, None),
                None => return Err("after the ] comes `:` and the port"),
            }
        }
        None => match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err("an IPv6 address stands in brackets: [::1]:11211");
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() || host.contains(char::is_whitespace) || host.contains('/') {
        return Err("a server is written HOST:PORT, or as the path of a socket, which begins with /");
    }
    let port = match port.map(str::parse) {
        None => DEFAULT_PORT,
        Some(Ok(port)) if port != 0 => port,
        Some(_) => return Err("the port is a number from 1 to 65535"),
    };
    Ok(Address::Tcp(host.to_owned(), port))
}

/// A connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Waits until it can be read, or written if that is of interest.
    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        match self {
            Stream::Tcp(stream) => stream.ready(interest).await,
            Stream::Unix(stream) => stream.ready(interest).await,
        }
    }

    /// Reads what is there, without waiting.
    pub(super) fn try_read(&self, buffer: &mut bytes::BytesMut) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_read_buf(buffer),
            Stream::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    /// Writes as much as can be written without waiting.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_write(bytes),
            Stream::Unix(stream) => stream.try_write(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        let tcp = |host: &str, port| Address::Tcp(host.to_owned(), port);
        for (text, address, weight, shown) in [
            ("127.0.0.1:11212", tcp("127.0.0.1", 11212), 1, "127.0.0.1:11212"),
            ("cache.example.com", tcp("cache.example.com", 11211), 1, "cache.example.com:11211"),
            ("cache:1=3", tcp("cache", 1), 3, "cache:1"),
            ("[::1]", tcp("::1", 11211), 1, "[::1]:11211"),
            ("[::1]:7=2", tcp("::1", 7), 2, "[::1]:7"),
            ("/run/m.sock", Address::Unix("/run/m.sock".into()), 1, "/run/m.sock"),
            ("/run/m.sock=5", Address::Unix("/run/m.sock".into()), 5, "/run/m.sock"),
        ] {
            assert_eq!(Address::parse(text), Ok((address.clone(), weight)), "{text}");
            assert_eq!(address.to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_said() {
        for (text, why) in [
            ("", "written HOST:PORT"),
            (":1", "written HOST:PORT"),
            ("run/m.sock", "written HOST:PORT"),
            ("a b:1", "written HOST:PORT"),
            ("a:0", "from 1 to 65535"),
            ("a:", "from 1 to 65535"),
            ("a:65536", "from 1 to 65535"),
            ("::1", "in brackets"),
            ("[::1", "no ]"),
            ("[a]:1", "IPv6"),
            ("[::1]1", "after the ]"),
            ("a:1=0", "weight"),
            ("a:1=x", "weight"),
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.starts_with(text) && error.contains(why), "{text}: {error}");
        }
        for text in
            ["u:hunter2@h:11211", "hunter2@h", "u:hun=hunter2@h:1", "memcached://u:hunter2", "h:hunter2"]
        {
            let error = Address::parse(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }
}
