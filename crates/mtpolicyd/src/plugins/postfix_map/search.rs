//! Which keys are looked up for a value, and in which order: that of access(5), or that of the original.

use super::PostfixMapOptions;
use crate::network::address_of;
use std::net::IpAddr;

/// How the keys of a value are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// The address of a client as in the original.
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

    /// The keys, without those that are parts where the table has no fixed keys. The error is of the
    /// original: it fails where a client has no address.
    pub fn keys(&self, value: &[u8], fixed: bool) -> Result<Vec<Vec<u8>>, &'static str> {
        let mut keys = match self {
            Search::Plain => return plain_keys(value),
            Search::Address => address_keys(value),
            Search::Name(parents) => name_keys(&folded(value, fixed), *parents),
            Search::Mail(..) if !fixed && !value.is_empty() => return Ok(whole_mail(value)),
            Search::MailOrWhole(..) if !fixed && value.contains(&b'@') => return Ok(whole_mail(value)),
            Search::Mail(delimiters, parents) => mail_keys(&folded(value, fixed), delimiters, *parents),
            Search::MailOrWhole(delimiters, parents) if value.contains(&b'@') => {
                mail_keys(&folded(value, fixed), delimiters, *parents)
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
        let is_plain_ipv6 = *self == Search::Plain && value.contains(&b':');
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
        return Err("the client_address is no address, or not in lower case");
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
    // The dot of the root is no part of the name.
    let name = value.strip_suffix(b".").unwrap_or(value);
    let mut keys = vec![name.to_vec()];
    // The parts of an address are no names.
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

fn mail_keys(value: &[u8], delimiters: &str, parents: Parents) -> Vec<Vec<u8>> {
    if value.is_empty() {
        return vec![NULL_SENDER.to_vec()];
    }
    let Some((user, domain)) = parts(value) else { return vec![value.to_vec()] };
    let bare = without_extension(user, delimiters);
    let users = [Some(user), bare].into_iter().flatten();
    let mut keys: Vec<_> =
        users.clone().flat_map(spellings).map(|user| [&*user, b"@", domain].concat()).collect();
    keys.extend(name_keys(domain, parents));
    keys.extend(users.flat_map(spellings).map(|user| [&*user, b"@"].concat()));
    keys
}

/// An address as a table of patterns gets it: as Postfix passes it on, then as it is.
fn whole_mail(value: &[u8]) -> Vec<Vec<u8>> {
    let Some((user, domain)) = parts(value) else { return vec![value.to_vec()] };
    let mut keys: Vec<_> =
        spellings(user).iter().map(|user| [user, b"@".as_slice(), domain].concat()).collect();
    keys.push(value.to_vec());
    keys.dedup();
    keys
}

/// The user and the domain, whose final dot Postfix takes away.
fn parts(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = value.iter().rposition(|byte| *byte == b'@')?;
    let domain = &value[at + 1..];
    Some((&value[..at], domain.strip_suffix(b".").unwrap_or(domain)))
}

/// A user as it is written in an address, in quotes if they are needed (RFC 5321, 4.1.2), and as it is.
/// Postfix sends users without quotes, and looks up the written form first.
fn spellings(user: &[u8]) -> Vec<Vec<u8>> {
    let is_atom =
        |byte: &u8| !byte.is_ascii() || (byte.is_ascii_graphic() && !b"()<>[]:;@\\,\"".contains(byte));
    if user.split(|byte| *byte == b'.').all(|atom| !atom.is_empty() && atom.iter().all(is_atom)) {
        return vec![user.to_vec()];
    }
    let mut quoted = vec![b'"'];
    for byte in user {
        if matches!(byte, b'"' | b'\\' | b'\r') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    vec![quoted, user.to_vec()]
}

/// The user without an extension, if there is one. The names of Postfix's own mail are whole.
fn without_extension<'a>(user: &'a [u8], delimiters: &str) -> Option<&'a [u8]> {
    if [b"double-bounce".as_slice(), b"mailer-daemon"].contains(&user) {
        return None;
    }
    let of_list = user.starts_with(b"owner-") || user.ends_with(b"-request");
    if delimiters.contains('-') && of_list {
        return None;
    }
    let end = user.iter().position(|byte| delimiters.as_bytes().contains(byte))?;
    (end > 0).then(|| &user[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(keys: Vec<Vec<u8>>) -> Vec<String> {
        keys.into_iter().map(|key| String::from_utf8(key).unwrap()).collect()
    }

    #[track_caller]
    fn check(search: &Search, value: &str, keys: &[&str]) {
        assert_eq!(texts(search.keys(value.as_bytes(), true).unwrap()), keys, "{value}");
    }

    #[test]
    fn the_original_cuts_the_text_of_an_address() {
        check(&Search::Plain, "192.0.2.1", &["192.0.2.1", "192.0.2", "192.0", "192"]);
        check(&Search::Plain, "2001:db8::1", &["2001:db8::1", "2001:db8", "2001"]);
        check(&Search::Plain, "::1", &["::1", ""]);
        check(&Search::Plain, "fe80::", &["fe80::"]);
        for bad in ["unknown", "2001:DB8::1", "1.2.3", ""] {
            assert!(Search::Plain.keys(bad.as_bytes(), true).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_are_cut_by_their_separators() {
        check(&Search::Address, "192.0.2.1", &["192.0.2.1", "192.0.2", "192.0", "192"]);
        check(&Search::Address, "2001:DB8:0::1", &["2001:db8::1", "2001:db8:", "2001:db8", "2001"]);
        check(&Search::Address, "::ffff:192.0.2.1", &["192.0.2.1", "192.0.2", "192.0", "192"]);
        check(&Search::Address, "unknown", &["unknown"]);
        assert_eq!(texts(Search::Address.keys(b"192.0.2.1", false).unwrap()), ["192.0.2.1"]);
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
        check(&mail, "owner-l@a", &["owner-l@a", "a", "owner-l@"]);
        check(&mail, "+x@a", &["+x@a", "a", "+x@"]);
        check(&mail, "", &["<>"]);
        check(&mail, "root", &["root"]);
        assert_eq!(texts(mail.keys(b"U+x@A", false).unwrap()), ["U+x@A"]);
        check(&Search::MailOrWhole(String::new(), Parents::Bare), "Bob", &["bob"]);
        check(&mail, "c d@a.", &["\"c d\"@a", "c d@a", "a", "\"c d\"@", "c d@"]);
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
        assert_eq!(texts(mail.keys(b"c d@A.", false).unwrap()), ["\"c d\"@A", "c d@A", "c d@A."]);
        assert_eq!(texts(mail.keys(b"", false).unwrap()), ["<>"]);
    }
}
