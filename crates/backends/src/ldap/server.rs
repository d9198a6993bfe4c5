//! Where a directory listens, as `host` of its connection says it.
//!
//! Knows: the forms of servers that Net::LDAP takes. Must not know: connections.

use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use std::net::Ipv6Addr;

/// Ports of LDAP, in the clear at first and encrypted from the beginning.
const LDAP_PORT: u16 = 389;
const LDAPS_PORT: u16 = 636;

/// One server of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// A TCP port.
    Tcp {
        /// A name or an address, without brackets.
        host: String,
        port: u16,
        /// Whether it is encrypted from the beginning.
        ldaps: bool,
    },
    /// The path of a UNIX socket.
    Unix(String),
}

impl Server {
    /// Reads a list of servers, separated by commas or spaces. `port` is that of those which name none.
    ///
    /// # Errors
    /// What is wrong with which server.
    pub fn parse_list(text: &str, port: Option<u16>) -> Result<Vec<Server>, String> {
        let servers: Vec<_> = texts(text).map(|text| Server::parse(text, port)).collect::<Result<_, _>>()?;
        if servers.is_empty() { Err("host: no server is named".to_owned()) } else { Ok(servers) }
    }

    fn parse(text: &str, default_port: Option<u16>) -> Result<Server, String> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("ldap", text));
        let ldaps = match scheme {
            "ldap" => false,
            "ldaps" => true,
            "ldapi" => return Server::socket(rest),
            _ => return Err(format!("host: `{scheme}` is not one of ldap, ldaps and ldapi")),
        };
        // What a URL has behind the host is for searches.
        let place = rest.split(['/', '?']).next().unwrap_or_default();
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None if place.parse::<Ipv6Addr>().is_ok() => (place, None),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        if ServerName::try_from(host).is_err() {
            return Err(format!("host: `{host}` is neither a name nor an address"));
        }
        let port = match port {
            None => default_port.unwrap_or(if ldaps { LDAPS_PORT } else { LDAP_PORT }),
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                format!("host: `{port}` is not a port; write HOST:PORT, or [ADDRESS]:PORT for IPv6")
            })?,
        };
        Ok(Server::Tcp { host: host.to_owned(), port, ldaps })
    }

    /// A socket as `%2Frun%2Fslapd%2Fldapi`, or as a path.
    fn socket(text: &str) -> Result<Server, String> {
        // Behind an encoded path a slash begins what is for searches.
        let is_encoded = !text.starts_with('/');
        let text = if is_encoded { text.split(['/', '?']).next().unwrap_or_default() } else { text };
        let path = percent_decode_str(text).decode_utf8();
        let path = path
            .ok()
            .map(|path| path.trim_end_matches('/').to_owned())
            .filter(|path| path.len() > 1 && path.starts_with('/'));
        path.map(Server::Unix)
            .ok_or_else(|| "host: the socket needs a path, as in `ldapi://%2Frun%2Fslapd%2Fldapi`".to_owned())
    }
}

/// What a list of servers says of searches, which their settings say elsewhere: the distinguished names and
/// what follows them in URLs.
pub fn ignored_path(list: &str) -> Option<&str> {
    texts(list).find_map(|text| {
        let (_, rest) = text.split_once("://").filter(|(scheme, _)| *scheme != "ldapi")?;
        rest.find(['/', '?']).map(|at| &rest[at..]).filter(|path| !path.trim_matches(['/', '?']).is_empty())
    })
}

/// The servers of a list. A comma is also between the parts of a distinguished name, which has a `=` in each.
fn texts(list: &str) -> impl Iterator<Item = &str> {
    let pieces = list.split(|c: char| c == ',' || c.is_whitespace()).filter(|piece| !piece.is_empty());
    let mut has_path = false;
    pieces.filter(move |piece| {
        let is_more = has_path && piece.contains('=') && !piece.contains("://");
        if !is_more {
            has_path = piece.split_once("://").is_some_and(|(_, rest)| rest.contains(['/', '?']));
        }
        !is_more
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_written_in_several_ways() {
        let tcp = |host: &str, port, ldaps| Server::Tcp { host: host.to_owned(), port, ldaps };
        let socket = Server::Unix("/run/slapd/ldapi".to_owned());
        for (text, expected) in [
            ("ldap.example.test", tcp("ldap.example.test", 389, false)),
            ("ldap.example.test:1389", tcp("ldap.example.test", 1389, false)),
            ("127.0.0.1:1389", tcp("127.0.0.1", 1389, false)),
            ("::1", tcp("::1", 389, false)),
            ("[::1]", tcp("::1", 389, false)),
            ("[::1]:1389", tcp("::1", 1389, false)),
            ("ldap://a.test/", tcp("a.test", 389, false)),
            ("ldap://a.test:1389/dc=x?uid", tcp("a.test", 1389, false)),
            ("ldaps://a.test", tcp("a.test", 636, true)),
            ("ldaps://[::1]:1636", tcp("::1", 1636, true)),
            ("ldap://a.test:1389/dc=example,dc=org", tcp("a.test", 1389, false)),
            ("ldap://a.test/dc=example, dc=org?uid?sub", tcp("a.test", 389, false)),
            ("ldapi://%2Frun%2fslapd%2Fldapi", socket.clone()),
            ("ldapi://%2Frun%2fslapd%2Fldapi/", socket.clone()),
            ("ldapi://%2Frun%2fslapd%2Fldapi/dc=example,dc=org", socket.clone()),
            ("ldapi:///run/slapd/ldapi", socket),
        ] {
            assert_eq!(Server::parse_list(text, None), Ok(vec![expected]), "{text}");
        }
        let several = Server::parse_list("ldap://a.test/dc=x,dc=y, b.test:1", None);
        assert_eq!(several, Ok(vec![tcp("a.test", 389, false), tcp("b.test", 1, false)]));
        let several = Server::parse_list("a.test, b.test:1 ldaps://c.test", Some(7));
        assert_eq!(
            several,
            Ok(vec![tcp("a.test", 7, false), tcp("b.test", 1, false), tcp("c.test", 7, true)])
        );
    }

    #[test]
    fn what_a_url_says_of_searches_is_known() {
        assert_eq!(ignored_path("a.test ldap://b.test/dc=x,dc=y"), Some("/dc=x"));
        for nothing in ["a.test", "ldap://a.test/", "ldapi:///run/ldapi", "ldap://a.test/?"] {
            assert_eq!(ignored_path(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused() {
        for text in [
            "",
            " , ",
            "not_a*host",
            "a:b",
            "a:0",
            "a:70000",
            "http://a",
            "ldapi://",
            "ldapi:///",
            "ldapi://x",
        ] {
            let mistake = Server::parse_list(text, None).unwrap_err();
            assert!(mistake.starts_with("host: "), "{text}: {mistake}");
        }
    }
}
