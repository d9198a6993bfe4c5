//! Where a directory listens, as `host` of its connection says it.
//!
//! Knows: the forms of servers that Net::LDAP takes. Must not know: connections.

use crate::Endpoint;
use crate::secret::shown_address;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;

/// Ports of LDAP, in the clear at first and encrypted from the beginning.
const LDAP_PORT: u16 = 389;
const LDAPS_PORT: u16 = 636;

/// One server of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub endpoint: Endpoint,
    /// Whether it is encrypted from the beginning.
    pub ldaps: bool,
}

impl Server {
    /// Reads a list of servers, separated by commas or spaces. `port` is that of those which name none.
    ///
    /// # Errors
    /// What is wrong with which server, without a user and a password that may be in it.
    pub fn parse_list(text: &str, port: Option<u16>) -> Result<Vec<Server>, String> {
        let servers: Vec<_> = texts(text).map(|text| Server::parse(text, port)).collect::<Result<_, _>>()?;
        if servers.is_empty() { Err("no server is named".to_owned()) } else { Ok(servers) }
    }

    fn parse(text: &str, default_port: Option<u16>) -> Result<Server, String> {
        if text.starts_with('/') {
            let path = text.replace('/', "%2F");
            return Err(format!("`{text}` is a path; write `ldapi://{path}` for a UNIX socket"));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("ldap", text));
        // Schemes are read in either case (RFC 3986 section 3.1).
        let ldaps = match scheme.to_ascii_lowercase().as_str() {
            "ldap" => false,
            "ldaps" => true,
            "ldapi" => return Server::socket(rest),
            _ => {
                let scheme = shown_address(scheme);
                return Err(format!("`{scheme}` is not one of ldap, ldaps and ldapi"));
            }
        };
        if rest.contains('@') {
            let place = shown_address(rest);
            return Err(format!("before `{place}` stands a user; write binddn and password instead"));
        }
        // What a URL has behind the host is for searches.
        let place = rest.split(['/', '?']).next().unwrap_or_default();
        let port = default_port.unwrap_or(if ldaps { LDAPS_PORT } else { LDAP_PORT });
        let endpoint = Endpoint::parse(place, Some(port)).map_err(|error| error.to_string())?;
        match &endpoint {
            Endpoint::Tcp { host, .. } if ServerName::try_from(host.as_str()).is_err() => {
                Err(format!("`{host}` is neither a name nor an address"))
            }
            _ => Ok(Server { endpoint, ldaps }),
        }
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
        path.map(|path| Server { endpoint: Endpoint::Unix(path.into()), ldaps: false })
            .ok_or_else(|| "the socket needs a path, as in `ldapi://%2Frun%2Fslapd%2Fldapi`".to_owned())
    }
}

/// What a list of servers says of searches, which their settings say elsewhere: the distinguished names and
/// what follows them in URLs.
pub fn ignored_path(list: &str) -> Option<&str> {
    texts(list).find_map(|text| {
        let (_, rest) = text.split_once("://").filter(|(scheme, _)| !scheme.eq_ignore_ascii_case("ldapi"))?;
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
        let tcp = |host: &str, port, ldaps| {
            let endpoint = Endpoint::Tcp { host: host.to_owned(), port };
            Server { endpoint, ldaps }
        };
        let socket = Server { endpoint: Endpoint::Unix("/run/slapd/ldapi".into()), ldaps: false };
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
            ("LDAP://a.test", tcp("a.test", 389, false)),
            ("LDAPS://a.test:1636", tcp("a.test", 1636, true)),
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
    fn a_path_alone_is_shown_as_a_socket() {
        let mistake = Server::parse_list("/run/slapd/ldapi", None).unwrap_err();
        assert!(mistake.contains("`ldapi://%2Frun%2Fslapd%2Fldapi`"), "{mistake}");
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
            "ldap://u:hunter2@h/",
            "ldaps://h:x@hunter2@h",
            "u:hunter2@h",
            "ldap://u:hunter2",
            "http//u:hunter2@h://x",
            "http://a",
            "ldapi://",
            "ldapi:///",
            "ldapi://x",
        ] {
            let mistake = Server::parse_list(text, None).unwrap_err();
            assert!(!mistake.contains("hunter2"), "{text}: {mistake}");
        }
    }
}
