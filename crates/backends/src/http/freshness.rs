//! How long an answer may be used, as its server says (RFC 9111, section 5.2.2).
//!
//! Knows: the header Cache-Control. Must not know: caches.

use hyper::HeaderMap;
use hyper::header::CACHE_CONTROL;
use std::time::Duration;

/// How long the server wants the answer to be used; `None` where it says nothing of it.
pub fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    let directives = lines.flat_map(|line| line.split(',')).map(str::trim);
    directives.filter_map(bound).min()
}

fn bound(directive: &str) -> Option<Duration> {
    let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
    match name.to_ascii_lowercase().as_str() {
        // Without asking again it may not be used at all.
        "no-store" | "no-cache" => Some(Duration::ZERO),
        // What can't be read counts as stale.
        "max-age" => Some(Duration::from_secs(value.trim_matches('"').parse().unwrap_or(0))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn the_shortest_bound_holds() {
        for (lines, seconds) in [
            (&[][..], None),
            (&["public"], None),
            (&["private, max-age=60"], Some(60)),
            (&["Max-Age=\"60\"", "max-age=5"], Some(5)),
            (&["max-age=60, no-cache"], Some(0)),
            (&["no-store"], Some(0)),
            (&["max-age=soon"], Some(0)),
            (&["max-age"], Some(0)),
            (&["max-age=99999999999999999999"], Some(0)),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
            }
            assert_eq!(max_age(&headers), seconds.map(Duration::from_secs), "{lines:?}");
        }
    }
}
