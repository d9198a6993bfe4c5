//! Keys of customers in the zones of DNS lists, which must not be shown.
//!
//! Knows: which part of a zone is a key. Must not know: where a zone is shown, where a key is kept.

use crate::Secret;
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// What is shown instead of a key.
const HIDDEN: &str = "***";

/// Zones below which the keys of customers stand, and whether the name of a list stands between:
/// `KEY.zen.dq.spamhaus.net`, but `KEY.df.uribl.com`.
const SERVICES: [(&str, bool); 4] = [
    ("dq.spamhaus.net", true),
    ("mail.abusix.zone", true),
    ("mail-abuse.com", true),
    ("df.uribl.com", false),
];

/// The least length of a label of letters and digits, or of hexadecimal digits, that is taken for a key.
const MIXED_LENGTH: usize = 16;

/// The least length of a label of letters that is taken for a key; shorter words are names.
const WORD_LENGTH: usize = 20;

/// Returns how many labels at the beginning of a zone are keys because a service is known to put them there.
fn known_keys(labels: &[&str]) -> usize {
    let zone = labels.join(".").to_ascii_lowercase();
    for (service, has_list) in SERVICES {
        let below = zone.strip_suffix(service).and_then(|zone| zone.strip_suffix('.'));
        if let Some(below) = below {
            return below.split('.').count() - usize::from(has_list);
        }
    }
    // Others have copied the form of Spamhaus.
    let service = labels.iter().position(|label| label.eq_ignore_ascii_case("dq"));
    service.map_or(0, |dq| dq.saturating_sub(1))
}

fn looks_like_a_key(label: &str) -> bool {
    let is_punycode = label.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("xn--"));
    let bytes = || label.bytes().filter(|byte| !matches!(byte, b'-' | b'_'));
    if is_punycode || !bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return false;
    }
    let is_mixed =
        bytes().any(|byte| byte.is_ascii_digit()) && bytes().any(|byte| byte.is_ascii_alphabetic());
    let is_hex = bytes().all(|byte| byte.is_ascii_hexdigit());
    label.len() >= WORD_LENGTH && bytes().count() == label.len()
        || label.len() >= MIXED_LENGTH && (is_mixed || is_hex)
}

/// Returns the labels of a zone, each with whether it is a key.
fn labels(zone: &str) -> Vec<(&str, bool)> {
    let labels: Vec<_> = zone.split('.').collect();
    let known = known_keys(&labels);
    labels.iter().enumerate().map(|(n, label)| (*label, n < known || looks_like_a_key(label))).collect()
}

/// What is known of a zone.
struct Shown {
    /// The zone as it may be shown.
    text: Box<str>,
    /// The keys in it that the configuration has from elsewhere, each with what is shown instead.
    keys: Vec<(Secret, String)>,
}

/// Zones of lists, each as it may be shown: they are few, and each request asks about all of them.
static SHOWN: RwLock<BTreeMap<Box<str>, Shown>> = RwLock::new(BTreeMap::new());
/// Maximum number of zones whose form is remembered because they were asked.
const MAX_SHOWN: usize = 1_000;

/// A zone as all forms of it are remembered.
fn folded(zone: &str) -> String {
    zone.trim_matches('.').to_ascii_lowercase()
}

/// Notes that a zone has keys in it that the configuration has from elsewhere, and what is shown instead of
/// each and of the whole. From then on nothing else is shown of it.
pub fn name_keys(zone: &str, shown: &str, keys: Vec<(Secret, String)>) {
    let shown = Shown { text: shown.trim_matches('.').into(), keys };
    SHOWN.write().unwrap_or_else(PoisonError::into_inner).insert(folded(zone).into(), shown);
}

/// Notes a zone, so that it can be found by what is shown of it.
pub fn note_zone(zone: &str) {
    push_without_key(&mut String::new(), zone);
}

/// Returns the zone that is shown like this, if there is a known one.
pub fn zone_shown_as(shown: &str) -> Option<Arc<str>> {
    let known = SHOWN.read().unwrap_or_else(PoisonError::into_inner);
    let mut found = known.iter().filter(|(_, zone)| zone.text.eq_ignore_ascii_case(shown));
    found.next().map(|(zone, _)| Arc::from(&**zone))
}

/// Returns a zone as it may be shown: without the parts that are the key of a customer.
pub fn without_key(zone: &str) -> String {
    let known = SHOWN.read().unwrap_or_else(PoisonError::into_inner);
    match known.get(&*folded(zone)) {
        Some(shown) if !shown.keys.is_empty() => shown.text.to_string(),
        _ => without_likely_key(zone),
    }
}

/// The same of a zone of which nothing is known.
fn without_likely_key(zone: &str) -> String {
    let shown = labels(zone).into_iter().map(|(label, is_key)| if is_key { HIDDEN } else { label });
    shown.collect::<Vec<_>>().join(".")
}

/// Appends a zone of a list as [`without_key`] shows it.
pub(super) fn push_without_key(text: &mut String, zone: &str) {
    let known = SHOWN.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(shown) = known.get(zone) {
        return text.push_str(&shown.text);
    }
    drop(known);
    let shown = without_key(zone);
    text.push_str(&shown);
    let mut known = SHOWN.write().unwrap_or_else(PoisonError::into_inner);
    if known.len() < MAX_SHOWN {
        known.entry(zone.into()).or_insert(Shown { text: shown.into(), keys: Vec::new() });
    }
}

/// Returns a text of a list without the key in its zone: a list may repeat the name that it was asked about,
/// and a rejected client gets to read that.
pub fn hide_key(text: String, zone: &str) -> String {
    let known = SHOWN.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(shown) = known.get(&*folded(zone)).filter(|shown| !shown.keys.is_empty()) {
        return shown.keys.iter().fold(text, |text, (key, label)| replace_any_case(&text, &key.0, label));
    }
    let keys = labels(zone).into_iter().filter(|(label, is_key)| *is_key && !label.is_empty());
    keys.fold(text, |text, (key, _)| replace_any_case(&text, key, HIDDEN))
}

/// Replaces all that equals a key but for capital letters.
fn replace_any_case(text: &str, key: &str, instead: &str) -> String {
    let (folded, key) = (text.to_ascii_lowercase(), key.to_ascii_lowercase());
    let (mut shown, mut from) = (String::with_capacity(text.len()), 0);
    for (at, found) in folded.match_indices(&key) {
        shown.push_str(&text[from..at]);
        shown.push_str(instead);
        from = at + found.len();
    }
    shown + &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_zone_is_not_shown() {
        for (zone, shown) in [
            ("abcdefghijklmnopqrst123456.zen.dq.example", "***.zen.dq.example"),
            ("x7k2.zen.dq.spamhaus.net", "***.zen.dq.spamhaus.net"),
            ("a1b2-c3d4.x.DBL.DQ.Spamhaus.NET", "***.***.DBL.DQ.Spamhaus.NET"),
            ("zen.dq.spamhaus.net", "zen.dq.spamhaus.net"),
            ("short.combined.mail.abusix.zone", "***.combined.mail.abusix.zone"),
            ("combined.mail.abusix.zone", "combined.mail.abusix.zone"),
            ("k.r.mail-abuse.com", "***.r.mail-abuse.com"),
            ("k.df.uribl.com", "***.df.uribl.com"),
            ("x7k2p9q4.lis.dq.example", "***.lis.dq.example"),
            ("deadbeef01234567.bl.example", "***.bl.example"),
            ("deadbeefdeadbeef.bl.example", "***.bl.example"),
            ("a1b2-c3d4-e5f6-a7b8.bl.example", "***.bl.example"),
            ("zen.spamhaus.org", "zen.spamhaus.org"),
            ("dnsbl-1.uceprotect.net", "dnsbl-1.uceprotect.net"),
            ("hostkarma.junkemailfilter.com", "hostkarma.junkemailfilter.com"),
            ("bl.xn--bcher-kva1234567.example", "bl.xn--bcher-kva1234567.example"),
            ("bl.test", "bl.test"),
            ("dq", "dq"),
        ] {
            assert_eq!(without_key(zone), shown);
        }
    }

    #[test]
    fn a_text_does_not_give_the_key_away() {
        let zone = "x7k2p9q4.zen.dq.spamhaus.net";
        let text = "see http://x/?q=2.0.0.127.X7k2P9q4.zen.dq.spamhaus.net, \u{e9} x7k2p9q4".to_owned();
        let hidden = "see http://x/?q=2.0.0.127.***.zen.dq.spamhaus.net, \u{e9} ***";
        assert_eq!(hide_key(text.clone(), zone), hidden);
        assert_eq!(hide_key(text.clone(), "bl.test"), text);
    }

    #[test]
    fn a_key_from_elsewhere_has_the_name_of_its_place() {
        let keys = vec![(Secret("Vq7".to_owned()), "{dqs}".to_owned())];
        name_keys("Vq7.zen.dq.key.test", "{dqs}.zen.dq.key.test", keys);
        assert_eq!(without_key("vq7.ZEN.dq.key.test."), "{dqs}.zen.dq.key.test");
        let mut shown = String::new();
        push_without_key(&mut shown, "vq7.zen.dq.key.test");
        assert_eq!(shown, "{dqs}.zen.dq.key.test");
        assert_eq!(hide_key("see vQ7, vq8".to_owned(), "vq7.zen.dq.key.test"), "see {dqs}, vq8");
        assert_eq!(zone_shown_as("{dqs}.zen.dq.key.test").as_deref(), Some("vq7.zen.dq.key.test"));
        // Another zone keeps what looks like this key.
        assert_eq!(without_key("vq7.key.test"), "vq7.key.test");
        note_zone("x7k2p9q4.zen.dq.noted.test");
        assert_eq!(zone_shown_as("***.zen.dq.noted.test").as_deref(), Some("x7k2p9q4.zen.dq.noted.test"));
        assert_eq!(zone_shown_as("bl.unknown.test"), None);
    }
}
