//! What must not be shown.
//!
//! Knows: that it is secret. Must not know: what it opens.

/// A password, a token or a key. It can't be printed: there is neither `Display` nor `Debug`, and what holds
/// one has no `Debug` either.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub String);

/// Returns what a message may show of the address of a server, in which somebody may have put a user and a
/// password: what follows the last `@`, of a URL without one only the scheme, and no word in place of the
/// port.
pub(crate) fn shown_address(text: &str) -> String {
    let place = text.rsplit_once('@').map_or(text, |(_, place)| place);
    if let Some((scheme, _)) = place.split_once("://") {
        return format!("{scheme}://...");
    }
    match place.rsplit_once(':') {
        Some((host, port)) if !place.starts_with('[') && place.parse::<std::net::Ipv6Addr>().is_err() => {
            let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { place.to_owned() } else { format!("{host}:...") }
        }
        _ => place.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::shown_address;

    #[test]
    fn an_address_is_shown_without_user_and_password() {
        for (text, shown) in [
            ("redis://:hunter2@h:6379", "h:6379"),
            ("u:p@hunter2@h", "h"),
            (":hunter2@h:x/0", "h:..."),
            ("redis://:hunter2", "redis://..."),
            ("u:hunter2", "u:..."),
            ("h:70000", "h:70000"),
            ("::1", "::1"),
            ("[::1]x", "[::1]x"),
            ("/run/redis.sock", "/run/redis.sock"),
        ] {
            assert_eq!(shown_address(text), shown, "{text}");
        }
    }
}
