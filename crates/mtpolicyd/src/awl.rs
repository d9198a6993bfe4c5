//! SpamAssassin's auto-whitelist: under which key it keeps a sender, and what of it a session remembers.
//!
//! Knows: the keys of SpamAssassin, sessions. Must not know: where the list is kept, any plugin.

use crate::session::Session;
use crate::value::{numeric_prefix, perl_number};
use std::net::IpAddr;

/// What SpamAssassin knows of a sender: how many messages it has seen, and their mean score.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The number of messages.
    pub count: f64,
    /// Their mean score.
    pub score: f64,
}

impl Entry {
    /// An entry from what is stored, a count and a sum. Without messages there is no mean.
    pub fn of(count: &[u8], total: &[u8]) -> Option<Entry> {
        Entry::mean(numeric_prefix(count), numeric_prefix(total))
    }

    /// An entry from a count and a sum.
    pub fn mean(count: f64, total: f64) -> Option<Entry> {
        let score = total / count;
        (count > 0.0 && score.is_finite()).then_some(Entry { count, score })
    }
}

/// The address as SpamAssassin keeps it: in lower case, without what it takes for dangerous.
pub fn address_key(sender: &str) -> String {
    sender.to_lowercase().replace(['\0', ';', '\'', '"', '!', '|'], "_")
}

/// The network of a client, as SpamAssassin keeps it unless told otherwise: half of an IPv4 address, 48
/// bits of one of IPv6.
pub fn network_key(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            format!("{a}.{b}")
        }
        IpAddr::V6(ip) => {
            // All digits of what is not zero at the end.
            let groups = &ip.segments()[..3];
            let used = groups.iter().rposition(|group| *group != 0).map_or(1, |last| last + 1);
            let groups: Vec<_> = groups[..used].iter().map(|group| format!("{group:04X}")).collect();
            format!("{}::", groups.join(":"))
        }
    }
}

/// The session field that keeps what the SaAwlLookup plugin of that name has found.
pub fn result_field(plugin: &str) -> String {
    format!("sa-awl-{plugin}-result")
}

/// Notes what was found.
pub fn remember(session: &mut Session, field: &str, entry: Option<&Entry>) {
    let text = entry.map(|entry| format!("{} {}", perl_number(entry.count), entry.score));
    session.set(field, &text.unwrap_or_default());
}

/// What the session remembers: `None` if nobody looked, `Some(None)` if there was no entry.
pub fn recall(session: &Session, field: &str) -> Option<Option<Entry>> {
    let kept = session.result(field)?.split_once(' ');
    let read = |text: &str| text.parse().ok();
    Some(kept.and_then(|(count, score)| Some(Entry { count: read(count)?, score: read(score)? })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_spelled_as_spamassassin_does() {
        for (ip, key) in [
            ("192.0.2.10", "192.0"),
            ("::ffff:192.0.2.10", "192.0"),
            ("2001:db8:1:2::3", "2001:0DB8:0001::"),
            ("2001:db8::3", "2001:0DB8::"),
            ("2001:0:1::", "2001:0000:0001::"),
            ("::1", "0000::"),
        ] {
            assert_eq!(network_key(ip.parse().unwrap()), key, "{ip}");
        }
        assert_eq!(address_key("O'Neill|x@Example.ORG"), "o_neill_x@example.org");
    }

    #[test]
    fn a_session_remembers_the_exact_mean() {
        let mut session = Session::default();
        assert_eq!(recall(&session, "f"), None);
        remember(&mut session, "f", None);
        assert_eq!(recall(&session, "f"), Some(None));
        let entry = Entry::of(b"3", b"0.1").unwrap();
        remember(&mut session, "f", Some(&entry));
        assert_eq!(recall(&session, "f"), Some(Some(entry)));
        assert_eq!(
            (Entry::of(b"0", b"5"), Entry::of(b"-1", b"5"), Entry::of(b"x", b"5")),
            (None, None, None)
        );
    }
}
