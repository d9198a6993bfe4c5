//! The key of a limit: the values that it names, and which part of them counts.

use crate::fields::FieldRef;
use crate::network::{Network, address_of, plain_address};
use crate::session::Session;
use crate::value::Value;
use backends::keyvalue::stand_in;
use postfix_policy::Request;
use std::fmt::{Display, Write};

/// Values that together are the key of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Vec<Part>);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    field: FieldRef,
    portion: Portion,
}

/// What of a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Portion {
    /// All of it.
    Whole,
    /// The network around an address: the lengths of the prefixes.
    Network { ipv4: u8, ipv6: u8 },
    /// What is behind the last `@`.
    Domain,
}

/// More values than a key can need; each makes it longer.
const MAX_PARTS: usize = 8;

/// The IPv6 network that one customer commonly has (RFC 6177): its addresses cost nothing.
const IPV6_PREFIX: u8 = 64;

/// What stands for the domain of an address.
const DOMAIN: &str = "@domain";

/// A key that is longer, in bytes, which no honest one is, ends in a hash. A database has 255 characters for
/// it and the name of the plugin.
const MAX_KEY: usize = 133;

impl Key {
    /// The key of this request, in lower case and without spaces; `None` if one of the values is
    /// empty or not there.
    pub fn of(&self, request: &Request, session: &Session) -> Option<String> {
        let mut key = String::new();
        for part in &self.0 {
            let value = part.value(request, session).filter(|value| !value.is_empty())?;
            if !key.is_empty() {
                key.push(',');
            }
            push_escaped(&mut key, &part.portion.of(&value));
        }
        Some(fitting(key))
    }

    /// The key that an administrator means, who writes it as a list shows it or as the value of a message.
    pub fn of_text(text: &str) -> String {
        let mut key = String::with_capacity(text.len());
        for byte in text.to_lowercase().bytes() {
            if byte.is_ascii_graphic() {
                key.push(char::from(byte));
            } else {
                push_hex(&mut key, byte);
            }
        }
        fitting(key)
    }
}

/// A key that is not too long.
fn fitting(key: String) -> String {
    if key.len() > MAX_KEY { stand_in(key.as_bytes()) } else { key }
}

fn push_hex(key: &mut String, byte: u8) {
    let _ = write!(key, "%{byte:02x}");
}

/// Visible ASCII but `,` and `%` as it is, and the rest as `%20`: the same to every store and in every
/// collation.
fn push_escaped(key: &mut String, value: &str) {
    for byte in value.bytes() {
        if byte.is_ascii_graphic() && byte != b',' && byte != b'%' {
            key.push(char::from(byte));
        } else {
            push_hex(key, byte);
        }
    }
}

impl Part {
    /// The value in lower case. An address of the envelope is the one that Postfix will understand.
    fn value(&self, request: &Request, session: &Session) -> Option<String> {
        let mailbox = match &self.field {
            FieldRef::Request(name) => request.mailbox(name),
            FieldRef::Session(_) => None,
        };
        let value = self.field.get(request, session)?;
        let Some(mailbox) = mailbox else { return Some(String::from_utf8_lossy(value).to_lowercase()) };
        Some(String::from_utf8_lossy(&mailbox.key()).into_owned())
    }
}

impl Portion {
    fn of(self, value: &str) -> String {
        match self {
            // The same client, however its address is written.
            Portion::Whole => String::from_utf8_lossy(&plain_address(value.as_bytes())).into_owned(),
            Portion::Domain => value.rsplit_once('@').map_or(value, |(_, domain)| domain).to_owned(),
            Portion::Network { ipv4, ipv6 } => match address_of(value.as_bytes()) {
                Some(ip) => Network::around(ip, if ip.is_ipv4() { ipv4 } else { ipv6 }).to_string(),
                None => value.to_owned(),
            },
        }
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().enumerate().try_for_each(|(n, Part { field, portion })| {
            let comma = if n == 0 { "" } else { ", " };
            write!(f, "{comma}{field}")?;
            match portion {
                Portion::Whole => Ok(()),
                Portion::Domain => f.write_str(DOMAIN),
                Portion::Network { ipv4, ipv6 } => write!(f, "/{ipv4}/{ipv6}"),
            }
        })
    }
}

impl Value for Key {
    const FORM: &'static str = "`NAME` (an attribute) or `session:NAME`, several separated by commas, each \
                                perhaps with `/24` or `/24/64` (the network) or `@domain`";
    fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(',').map(|part| parse_part(part.trim())).collect::<Result<_, _>>()?;
        if parts.len() > MAX_PARTS {
            return Err(format!("a key has at most {MAX_PARTS} values"));
        }
        Ok(Key(parts))
    }
    fn session_fields(&self) -> Vec<String> {
        self.0.iter().flat_map(|part| part.field.session_fields()).collect()
    }
}

fn parse_part(text: &str) -> Result<Part, String> {
    let (field, portion) = if let Some(field) = text.strip_suffix(DOMAIN) {
        (field, Portion::Domain)
    } else if let Some((field, prefixes)) = text.split_once('/') {
        let (ipv4, ipv6) = prefixes.split_once('/').map_or((prefixes, None), |(four, six)| (four, Some(six)));
        let ipv4 = parse_prefix(ipv4, 32)?;
        let ipv6 = ipv6.map_or(Ok(IPV6_PREFIX), |prefix| parse_prefix(prefix, 128))?;
        (field, Portion::Network { ipv4, ipv6 })
    } else {
        (text, Portion::Whole)
    };
    let field = FieldRef::parse(field)?;
    let (FieldRef::Request(name) | FieldRef::Session(name)) = &field;
    if name.is_empty() || name.contains(['@', ' ']) {
        return Err(format!("`{text}` names no value"));
    }
    Ok(Part { field, portion })
}

fn parse_prefix(text: &str, longest: u8) -> Result<u8, String> {
    let prefix = text.parse().ok().filter(|prefix| *prefix <= longest);
    prefix.ok_or_else(|| format!("`{text}` is not a prefix length from 0 to {longest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(key: &str, attributes: &[(&str, &str)]) -> Option<String> {
        let pairs = attributes.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Key::parse(key).unwrap().of(&Request::from_pairs(pairs).unwrap(), &Session::default())
    }

    #[test]
    fn an_address_counts_as_its_network() {
        for (key, ip, expected) in [
            ("client_address", "192.0.2.77", "192.0.2.77"),
            ("client_address", "::ffff:192.0.2.77", "192.0.2.77"),
            ("client_address/24", "192.0.2.77", "192.0.2.0/24"),
            ("client_address/24", "::ffff:192.0.2.77", "192.0.2.0/24"),
            ("client_address/24", "2001:DB8:1:2:3::9", "2001:db8:1:2::/64"),
            ("client_address/0/0", "192.0.2.77", "0.0.0.0/0"),
            ("client_address/0/0", "2001:db8::1", "::/0"),
            ("client_address/32/128", "2001:db8::1", "2001:db8::1"),
            ("client_address/24/48", "unknown", "unknown"),
        ] {
            assert_eq!(key_of(key, &[("client_address", ip)]).as_deref(), Some(expected), "{key} {ip}");
        }
    }

    #[test]
    fn several_values_make_one_key() {
        let both = "sasl_username, sender@domain";
        let of = |user, sender| key_of(both, &[("sasl_username", user), ("sender", sender)]);
        assert_eq!(of("Bob", "x@Example.ORG").as_deref(), Some("bob,example.org"));
        assert_eq!(of("a,b", "c"), Some("a%2cb,c".to_owned()));
        assert_ne!(of("a", "b@c,d"), of("a,c", "b@d"));
        assert_eq!(of("", "x@example.org"), None);
        assert_eq!(key_of(both, &[("sender", "x@y")]), None);
        assert_eq!(of("ü x", "y").as_deref(), Some("%c3%bc%20x,y"));
    }

    #[test]
    fn an_address_counts_once_however_it_is_written() {
        for sender in ["x@example.org", "X@Example.ORG.", "example.org!x", "x%example.org"] {
            assert_eq!(key_of("sender", &[("sender", sender)]).as_deref(), Some("x@example.org"), "{sender}");
            let domain = key_of("sender@domain", &[("sender", sender)]);
            assert_eq!(domain.as_deref(), Some("example.org"), "{sender}");
        }
        assert_eq!(key_of("recipient", &[("recipient", "a@y@x")]).as_deref(), Some("a@y"));
        assert_eq!(key_of("sender", &[("sender", "@")]), None);
    }

    #[test]
    fn a_long_key_ends_in_a_hash() {
        let long = |end: &str| key_of("sender", &[("sender", &("x".repeat(500) + end))]).unwrap();
        assert_eq!(long("a").len(), MAX_KEY);
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn mistakes_say_what_is_wrong() {
        for (text, why) in [
            ("", "`` names no value"),
            ("sender,", "`` names no value"),
            ("@domain", "`@domain` names no value"),
            ("sender@", "`sender@` names no value"),
            ("sasl_username sender", "`sasl_username sender` names no value"),
            ("client_address/33", "`33` is not a prefix length from 0 to 32"),
            ("client_address/24/", "`` is not a prefix length from 0 to 128"),
            ("sesion:x", "`sesion` is not a scope; did you mean `session:`?"),
        ] {
            assert_eq!(Key::parse(text), Err(why.to_owned()), "{text}");
        }
        let shown = Key::parse("client_address/24,s:user , sender@domain").unwrap().to_string();
        assert_eq!(shown, "request:client_address/24/64, session:user, request:sender@domain");
        assert_eq!(Key::parse(&shown).unwrap().to_string(), shown);
    }
}
