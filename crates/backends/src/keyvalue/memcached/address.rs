//! How the servers of memcached are written: an address, and a weight behind it.
//!
//! Knows: that form. Must not know: the protocol, connections.

use crate::Endpoint;

/// The port where none is written.
const DEFAULT_PORT: u16 = 11211;

/// The largest weight: the list from which servers are chosen has as many places.
const MAX_WEIGHT: usize = 1000;

/// Reads the address of a server, and `=WEIGHT` behind it.
///
/// # Errors
/// What is wrong, without a user and a password that may be in the text.
pub(super) fn parse(text: &str) -> Result<(Endpoint, usize), String> {
    let has_user = text.contains('@') && !text.starts_with('/');
    let (address, weight) = match text.rsplit_once('=') {
        Some((address, weight)) if !has_user => {
            (address, parse_weight(weight).map_err(|why| format!("{text}: {why}"))?)
        }
        _ => (text, 1),
    };
    Ok((Endpoint::parse(address, Some(DEFAULT_PORT)).map_err(|error| error.to_string())?, weight))
}

fn parse_weight(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(weight) if (1..=MAX_WEIGHT).contains(&weight) => Ok(weight),
        _ => Err(format!("a weight is a number from 1 to {MAX_WEIGHT}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_have_a_weight() {
        for (text, address, weight) in [
            ("cache.example.com", "cache.example.com:11211", 1),
            ("cache:1=3", "cache:1", 3),
            ("[::1]:7=2", "[::1]:7", 2),
            ("/run/m.sock", "/run/m.sock", 1),
            ("/run/m.sock=5", "/run/m.sock", 5),
        ] {
            let (endpoint, found) = parse(text).unwrap();
            assert_eq!((endpoint.to_string().as_str(), found), (address, weight), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_a_password() {
        for (text, why) in [("a:1=0", "weight"), ("a:1=x", "weight"), ("a:0", "write HOST:PORT")] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(text) && error.contains(why), "{text}: {error}");
        }
        for text in ["u:hunter2@h:11211", "hunter2@h", "u:hun=hunter2@h:1", "h:hunter2"] {
            let error = parse(text).unwrap_err();
            assert!(!error.contains("hunter2"), "{text}: {error}");
        }
    }
}
