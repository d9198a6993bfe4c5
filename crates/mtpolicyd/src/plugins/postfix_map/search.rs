//! Which keys are looked up for a value, and in which order: that of access(5), or that of the original.

use super::PostfixMapOptions;
use crate::network::{address_of, plain_address};
use postfix_policy::{Mailbox, quoted_local_part, without_extension};
use std::net::IpAddr;

/// How the keys of a value are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// The address of a client as in the original, but one of IPv4 in its own form.
    Plain,
    /// The address of a client.
    Address,
    /// The name of a host.
    Name(Parents),
    /// An address of mail.
    Mail(Delimiters, Parents),
    /// An address of mail, if there is an `@`.
    MailOrWhole(Delimiters, Parents),
    /// The value as a whole.
    Whole,
}

/// How a name matches those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parents {
    /// `example.org`
    Bare,
    /// `.example.org`
    Dotted,
}

/// What may separate an extension from a user.
type Delimiters = String;

/// The most keys of a name or an address: a name of a host has 127 labels at most.
const MAX_KEYS: usize = 128;

/// What Postfix looks up for the null sender.
const NULL_SENDER: &[u8] = b"<>";

impl Search {
    /// How the values of an attribute are looked up.
    pub fn of(options: &PostfixMapOptions) -> Search {
        let delimiters = || options.recipient_delimiter.clone();
        let bare = options.parent_domain_matches_subdomains.0;
        let parents = if bare { Parents::Bare } else { Parents::Dotted };
        match &*options.field {
            "client_address" | "server_address" => Search::Address,
            "client_name" | "reverse_client_name" | "helo_name" => Search::Name(parents),
            "sender" | "recipient" => Search::Mail(delimiters(), parents),
            "ccert_subject" | "ccert_issuer" | "ccert_fingerprint" | "ccert_pubkey_fingerprint" => {
                Search::Whole
            }
            _ => Search::MailOrWhole(delimiters(), parents),
        }
    }

    /// The keys, without those that are parts where the table has no fixed keys. `mailbox` is the value, if
    /// that is an address of the envelope. The error is of the original: it fails where a client has no
    /// address.
    pub fn keys(
        &self,
        value: &[u8],
        mailbox: Option<&Mailbox>,
        fixed: bool,
    ) -> Result<Vec<Vec<u8>>, &'static str> {
        let address = || mailbox.cloned().unwrap_or_else(|| Mailbox::sender(value.to_vec()));
        let mut keys = match self {
            Search::Plain => return plain_keys(&plain_address(value)),
            Search::Address => address_keys(value),
            Search::Name(parents) => name_keys(&folded(value, fixed), *parents),
            Search::Mail(delimiters, parents) => {
                return Ok(mail_keys(&address(), delimiters, *parents, fixed));
            }
            Search::MailOrWhole(delimiters, parents) if value.contains(&b'@') => {
                return Ok(mail_keys(&address(), delimiters, *parents, fixed));
            }
            Search::MailOrWhole(..) | Search::Whole => vec![folded(value, fixed)],
        };
        keys.retain(|key| !key.is_empty());
        if !fixed {
            keys.truncate(1);
        }
        Ok(keys)
    }

    /// Which values end the search. In the original those that are false in Perl do not, for IPv6.
    pub fn accepts(&self, value: &[u8]) -> fn(&[u8]) -> bool {
        let is_plain_ipv6 = *self == Search::Plain && plain_address(value).contains(&b':');
        if is_plain_ipv6 { |value| !matches!(value, b"" | b"0") } else { |_| true }
    }
}

/// In lower case for tables with fixed keys, as Postfix folds them.
fn folded(value: &[u8], fixed: bool) -> Vec<u8> {
    match std::str::from_utf8(value) {
        Ok(text) if fixed => text.to_lowercase().into_bytes(),
        Err(_) if fixed => value.to_ascii_lowercase(),
        _ => value.to_vec(),
    }
}

/// The address as it came, then without its last part, and so on.
fn plain_keys(value: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let is_ipv4 = || {
        let parts: Vec<_> = value.split(|byte| *byte == b'.').collect();
        parts.len() == 4 && parts.iter().all(|part| !part.is_empty() && part.iter().all(u8::is_ascii_digit))
    };
    let is_ipv6 = || value.iter().all(|byte| matches!(byte, b':' | b'0'..=b'9' | b'a'..=b'f'));
    if is_ipv4() {
        return Ok(cut(value, b'.'));
    }
    if value.is_empty() || !is_ipv6() {
        return Err("the client_address is not an address, or not in lower case");
    }
    let mut keys = vec![value.to_vec()];
    let mut rest = value;
    while let Some(colon) = rest.iter().rposition(|byte| *byte == b':') {
        // A colon at the end is none before a part.
        if colon + 1 == rest.len() || keys.len() == MAX_KEYS {
            break;
        }
        let end = rest[..colon].iter().rposition(|byte| *byte != b':').map_or(0, |last| last + 1);
        rest = &rest[..end];
        keys.push(rest.to_vec());
    }
    Ok(keys)
}

/// The whole, then without its last part, and so on.
fn cut(value: &[u8], separator: u8) -> Vec<Vec<u8>> {
    let ends = value.iter().enumerate().rev().filter(|(_, byte)| **byte == separator);
    std::iter::once(value.len()).chain(ends.map(|(end, _)| end)).map(|end| value[..end].to_vec()).collect()
}

/// An address in the shortest spelling, as Postfix has it. An IPv4 address in one of IPv6 is itself.
fn address_keys(value: &[u8]) -> Vec<Vec<u8>> {
    match address_of(value) {
        Some(ip @ IpAddr::V4(_)) => cut(ip.to_string().as_bytes(), b'.'),
        Some(ip @ IpAddr::V6(_)) => cut(ip.to_string().as_bytes(), b':'),
        // Such as `unknown`.
        None => vec![value.to_ascii_lowercase()],
    }
}

fn name_keys(value: &[u8], parents: Parents) -> Vec<Vec<u8>> {
    // The dot of the root is not part of the name.
    let name = value.strip_suffix(b".").unwrap_or(value);
    let mut keys = vec![name.to_vec()];
    // The parts of an address are not names.
    let bare = name.strip_prefix(b"[").and_then(|name| name.strip_suffix(b"]")).unwrap_or(name);
    if std::str::from_utf8(bare).is_ok_and(|name| name.parse::<IpAddr>().is_ok()) {
        return keys;
    }
    let mut rest = name;
    while keys.len() < MAX_KEYS {
        // The first byte is part of the first label, a dot too.
        let Some(before) = rest.iter().skip(1).position(|byte| *byte == b'.') else { break };
        let dot = before + 1;
        rest = if parents == Parents::Bare { &rest[dot + 1..] } else { &rest[dot..] };
        keys.push(rest.to_vec());
    }
    keys
}

/// The text of the request if Postfix will understand it otherwise, then the parts of what that will be. A
/// table without fixed keys gets whole addresses only.
fn mail_keys(mailbox: &Mailbox, delimiters: &str, parents: Parents, fixed: bool) -> Vec<Vec<u8>> {
    let mut keys: Vec<_> = mailbox.is_rewritten().then(|| mailbox.raw().to_vec()).into_iter().collect();
    let user = mailbox.local_part();
    let bare = without_extension(user, delimiters).filter(|_| fixed);
    let users = || [Some(user), bare].into_iter().flatten().flat_map(spellings);
    match mailbox.domain() {
        None if mailbox.is_null() => keys.push(NULL_SENDER.to_vec()),
        None => keys.extend(spellings(user)),
        Some(domain) => {
            keys.extend(users().map(|user| [&user, &b"@"[..], domain].concat()));
            if fixed {
                keys.extend(name_keys(domain, parents));
                keys.extend(users().map(|user| [&user, &b"@"[..]].concat()));
            }
        }
    }
    let mut folded_keys = Vec::with_capacity(keys.len());
    for key in keys.iter().map(|key| folded(key, fixed)) {
        if !key.is_empty() && !folded_keys.contains(&key) {
            folded_keys.push(key);
        }
    }
    folded_keys
}

/// A user as tables have it: in quotes if it needs them, and, as before Postfix 3.2, without.
fn spellings(user: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let quoted = quoted_local_part(user);
    let has_another = *quoted != *user;
    [Some(quoted.into_owned()), has_another.then(|| user.to_vec())].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(keys: Vec<Vec<u8>>) -> Vec<String> {
        keys.into_iter().map(|key| String::from_utf8(key).unwrap()).collect()
    }

    #[track_caller]
    fn check(search: &Search, value: &str, keys: &[&str]) {
        assert_eq!(texts(search.keys(value.as_bytes(), None, true).unwrap()), keys, "{value}");
    }

    #[test]
    fn the_original_cuts_the_text_of_an_address() {
        check(&Search::Plain, "192.0.2.1", &["192.0.2.1", "192.0.2", "192.0", "192"]);
        check(&Search::Plain, "2001:db8::1", &["2001:db8::1", "2001:db8", "2001"]);
        check(&Search::Plain, "::1", &["::1", ""]);
        check(&Search::Plain, "fe80::", &["fe80::"]);
        for mapped in ["::ffff:192.0.2.1", "::ffff:c000:201", "::FFFF:192.0.2.1"] {
            check(&Search::Plain, mapped, &["192.0.2.1", "192.0.2", "192.0", "192"]);
            assert!(Search::Plain.accepts(mapped.as_bytes())(b"0"), "as for IPv4");
        }
        for bad in ["unknown", "2001:DB8::1", "1.2.3", ""] {
            assert!(Search::Plain.keys(bad.as_bytes(), None, true).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_cut_by_their_separators() {
        check(&Search::Address, "192.0.2.1", &["192.0.2.1", "192.0.2", "192.0", "192"]);
        check(&Search::Address, "2001:DB8:0::1", &["2001:db8::1", "2001:db8:", "2001:db8", "2001"]);
        check(&Search::Address, "::ffff:192.0.2.1", &["192.0.2.1", "192.0.2", "192.0", "192"]);
        check(&Search::Address, "unknown", &["unknown"]);
        assert_eq!(texts(Search::Address.keys(b"192.0.2.1", None, false).unwrap()), ["192.0.2.1"]);
    }

    #[test]
    fn names_have_parents() {
        let name = Search::Name(Parents::Bare);
        check(&name, "Mail.Example.ORG.", &["mail.example.org", "example.org", "org"]);
        check(&name, "192.0.2.1", &["192.0.2.1"]);
        check(&name, "[192.0.2.1]", &["[192.0.2.1]"]);
        check(
            &Search::Name(Parents::Dotted),
            "mail.example.org",
            &["mail.example.org", ".example.org", ".org"],
        );
    }

    #[test]
    fn mail_is_looked_up_by_parts() {
        let mail = Search::Mail("+-".to_owned(), Parents::Bare);
        let keys = ["u+x@a.example", "u@a.example", "a.example", "example", "u+x@", "u@"];
        check(&mail, "U+x@a.Example", &keys);
        check(&mail, "A.example!u", &["a.example!u", "u@a.example", "a.example", "example", "u@"]);
        check(&mail, "u@a.", &["u@a.", "u@a", "a", "u@"]);
        check(
            &mail,
            "c d+x@a",
            &[
                "\"c d+x\"@a",
                "c d+x@a",
                "\"c d\"@a",
                "c d@a",
                "a",
                "\"c d+x\"@",
                "c d+x@",
                "\"c d\"@",
                "c d@",
            ],
        );
        assert_eq!(texts(mail.keys(b"a!U", None, false).unwrap()), ["a!U", "U@a"]);
        check(&mail, "owner-l@a", &["owner-l@a", "a", "owner-l@"]);
        check(&mail, "+x@a", &["+x@a", "a", "+x@"]);
        check(&mail, "", &["<>"]);
        check(&mail, "root", &["root"]);
        assert_eq!(texts(mail.keys(b"U+x@a", None, false).unwrap()), ["U+x@a"]);
        check(&Search::MailOrWhole(String::new(), Parents::Bare), "Bob", &["bob"]);
        check(&mail, "c d@a.", &["c d@a.", "\"c d\"@a", "c d@a", "a", "\"c d\"@", "c d@"]);
        check(
            &mail,
            "a\"b+x@a",
            &[
                "\"a\\\"b+x\"@a",
                "a\"b+x@a",
                "\"a\\\"b\"@a",
                "a\"b@a",
                "a",
                "\"a\\\"b+x\"@",
                "a\"b+x@",
                "\"a\\\"b\"@",
                "a\"b@",
            ],
        );
        check(&mail, "a..b@a", &["\"a..b\"@a", "a..b@a", "a", "\"a..b\"@", "a..b@"]);
        assert_eq!(texts(mail.keys(b"c d@A.", None, false).unwrap()), ["c d@A.", "\"c d\"@a", "c d@a"]);
        assert_eq!(texts(mail.keys(b"", None, false).unwrap()), ["<>"]);
    }
}
