//! Where a service is.
//!
//! Knows: URLs (RFC 3986) of HTTP. Must not know: connections.

use crate::Secret;
use ::http::Uri;
use ::http::uri::{Authority, Parts, Scheme};
use std::net::IpAddr;
use std::str::FromStr;

/// The URL of a service. What is shown of it has no password.
#[derive(Clone, PartialEq)]
pub struct Url {
    uri: Uri,
    port: u16,
    /// `USER:PASSWORD`, as it stands in the URL.
    pub(super) user: Option<Secret>,
}

impl Url {
    /// A URL that is known to be one.
    ///
    /// # Panics
    /// It is none.
    pub fn of(text: &'static str) -> Url {
        let uri = Uri::from_static(text);
        let port = uri.port_u16().unwrap_or(if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 });
        Url { uri, port, user: None }
    }

    /// What a request is sent to: without the user.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Whether what is sent is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// The host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        let host = self.uri.host().unwrap_or_default();
        host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
    }

    /// The port, also where the scheme says it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether what is sent stays on this machine.
    pub fn is_local(&self) -> bool {
        let host = self.host();
        host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    /// How messages name the service: without the path, which may hold a key.
    pub fn origin(&self) -> String {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        format!("{scheme}://{}", self.uri.authority().map_or("", Authority::as_str))
    }

    /// Whether there is a user in it.
    pub fn has_user(&self) -> bool {
        self.user.is_some()
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.uri.fmt(f)
    }
}

/// The error does not show the text, in which there may be a password.
impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Url, String> {
        let uri = Uri::from_str(text.trim()).map_err(|error| format!("this is not a URL: {error}"))?;
        let Parts { scheme, authority, path_and_query, .. } = uri.into_parts();
        let default_port = match scheme.as_ref().map(Scheme::as_str) {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err("a URL begins with http:// or https://".to_owned()),
        };
        let authority = authority.ok_or("the URL has no host")?;
        let (user, place) = match authority.as_str().rsplit_once('@') {
            Some((user, place)) => (Some(Secret(user.to_owned())), place),
            None => (None, authority.as_str()),
        };
        let place = Authority::from_str(place).map_err(|error| format!("this is not a host: {error}"))?;
        if place.host().is_empty() || place.host() == "[]" {
            return Err("the URL has no host".to_owned());
        }
        let port = match place.as_str().strip_prefix(place.host()) {
            None | Some("") => default_port,
            Some(port) => {
                let number = port.trim_start_matches(':').parse().ok().filter(|port| *port > 0);
                // A password, perhaps, behind which the host is missing.
                number.ok_or("the port of the URL is not a number from 1 to 65535")?
            }
        };
        let mut parts = Parts::default();
        (parts.scheme, parts.authority, parts.path_and_query) = (scheme, Some(place), path_and_query);
        let uri = Uri::from_parts(parts).map_err(|error| format!("this is not a URL: {error}"))?;
        Ok(Url { uri, port, user })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn host_and_port_are_found() {
        for (text, host, port, local) in [
            ("http://localhost:8080/ctipd/iprep", "localhost", 8080, true),
            ("HTTP://lookup.example", "lookup.example", 80, false),
            ("https://lookup.example/a?b=c", "lookup.example", 443, false),
            ("https://[::1]:8443/", "::1", 8443, true),
            ("http://127.0.0.7/", "127.0.0.7", 80, true),
            (" http://user:p%40ss@10.0.0.1:81/x ", "10.0.0.1", 81, false),
        ] {
            let url = url(text);
            assert_eq!((url.host(), url.port(), url.is_local()), (host, port, local), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused_and_not_shown() {
        for text in [
            "",
            "lookup.example",
            "/path",
            "ftp://lookup.example/",
            "unix:/run/socket",
            "http://",
            "http:///x",
            "http://u:secret@/",
            "http://u:secret",
            "http://u:secret/x",
            "http://u:secret@lookup.example:99999/",
            "http://u:secret@lookup.example:0/",
            "http://u:secret@lookup.example:x/",
            "http://u:sec ret@lookup.example/",
            "http://u:secret@[::1/",
            "http://u:secret@lookup.example:/",
        ] {
            let error = text.parse::<Url>().err().expect(text);
            assert!(!error.contains("sec"), "{error}");
        }
    }

    #[test]
    fn a_password_is_sent_and_never_shown() {
        let url = url("https://al%69ce:s%3Acret@lookup.example:8443/path?key=1");
        assert_eq!(url.origin(), "https://lookup.example:8443");
        assert_eq!(url.to_string(), "https://lookup.example:8443/path?key=1");
    }
}
