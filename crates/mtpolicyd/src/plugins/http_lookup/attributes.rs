//! Which attributes of a request a service is told, as JSON, and which its answer depends on.

use super::answers::Key;
use crate::plugin::Setup;
use crate::value::{Value, nearest};
use postfix_policy::Request;
use serde_json::Map;
use sha2::{Digest, Sha256};

/// Names of attributes, or all that a request has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attributes {
    /// All.
    All,
    /// Those with these names.
    Named(Vec<String>),
}

/// What Postfix 3.9 sends (SMTPD_POLICY_README).
const KNOWN: [&str; 31] = [
    "request",
    "protocol_state",
    "protocol_name",
    "helo_name",
    "queue_id",
    "sender",
    "recipient",
    "recipient_count",
    "client_address",
    "client_name",
    "reverse_client_name",
    "instance",
    "sasl_method",
    "sasl_username",
    "sasl_sender",
    "size",
    "ccert_subject",
    "ccert_issuer",
    "ccert_fingerprint",
    "ccert_pubkey_fingerprint",
    "encryption_protocol",
    "encryption_cipher",
    "encryption_keysize",
    "etrn_domain",
    "stress",
    "client_port",
    "policy_context",
    "server_address",
    "server_port",
    "compatibility_level",
    "mail_version",
];

/// Names of ours for the addresses of the envelope as they are written.
const WRITTEN: [(&str, &str); 2] = [("raw_sender", "sender"), ("raw_recipient", "recipient")];

impl Attributes {
    /// Those with these names.
    pub fn named(names: &[&str]) -> Attributes {
        Attributes::Named(names.iter().map(|name| (*name).to_owned()).collect())
    }

    /// Whether it is all of the request.
    pub fn is_all(&self) -> bool {
        *self == Attributes::All
    }

    /// Whether an attribute is among them.
    pub fn has(&self, attribute: &str) -> bool {
        match self {
            Attributes::All => true,
            Attributes::Named(names) => names.iter().any(|name| name == attribute),
        }
    }

    /// Warns of names that Postfix does not send.
    pub fn check(&self, option: &str, setup: &Setup<'_, '_>) {
        let Attributes::Named(names) = self else { return };
        let is_known =
            |name: &str| KNOWN.contains(&name) || WRITTEN.iter().any(|(written, _)| *written == name);
        for name in names.iter().filter(|name| !is_known(name)) {
            let near = nearest(name, KNOWN).map(|near| format!("; did you mean `{near}`?"));
            let near = near.unwrap_or_default();
            setup.warn(option, format!("{option}: Postfix sends no attribute `{name}`{near}"));
        }
    }

    /// The attributes of a request, each with its value; addresses of the envelope as Postfix will
    /// understand them, and as they are written under a name of their own.
    fn of<'a>(&'a self, request: &'a Request) -> Vec<(&'a [u8], &'a [u8])> {
        match self {
            Attributes::All => {
                let written = |name: &str| WRITTEN.iter().find(|(_, of)| *of == name).map(|(name, _)| *name);
                let mut all = Vec::new();
                for (name, value) in request.iter() {
                    let mailbox = std::str::from_utf8(name).ok().and_then(|name| {
                        Some((request.mailbox(name)?, written(name)?))
                            .filter(|(mailbox, _)| mailbox.is_rewritten())
                    });
                    all.push((name, mailbox.map_or(value, |(mailbox, _)| mailbox.address())));
                    all.extend(mailbox.map(|(mailbox, written)| (written.as_bytes(), mailbox.raw())));
                }
                all
            }
            Attributes::Named(names) => {
                let value = |name: &str| match WRITTEN.iter().find(|(written, _)| *written == name) {
                    Some((_, of)) => request.get(of),
                    None => request.address(name),
                };
                names.iter().filter_map(|name| Some((name.as_bytes(), value(name)?))).collect()
            }
        }
    }

    /// The attributes of a request as a JSON object. Bytes that are not UTF-8 become U+FFFD.
    pub fn to_json(&self, request: &Request) -> Vec<u8> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let members = self.of(request).into_iter().map(|(name, value)| (text(name), text(value).into()));
        serde_json::Value::Object(Map::from_iter(members)).to_string().into_bytes()
    }

    /// What stands for the attributes of a request: the same for the same values only.
    pub fn key(&self, request: &Request) -> Key {
        let mut digest = Sha256::new();
        for part in self.of(request).into_iter().flat_map(|(name, value)| [name, value]) {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

impl std::fmt::Display for Attributes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Attributes::All => f.write_str("*"),
            Attributes::Named(names) => f.write_str(&names.join(", ")),
        }
    }
}

impl Value for Attributes {
    const FORM: &'static str = "names of attributes, separated by commas, or `*` for all";
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim() == "*" {
            return Ok(Attributes::All);
        }
        let names: Vec<_> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        if names.is_empty() { Err("there is no name".to_owned()) } else { Ok(Attributes::named(&names)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_that_postfix_will_understand() {
        let request = request(&[("sender", "b!a"), ("recipient", "c@d"), ("size", "1")]);
        let json = |attributes: Attributes| String::from_utf8(attributes.to_json(&request)).unwrap();
        assert_eq!(
            json(Attributes::named(&["sender", "recipient"])),
            r#"{"recipient":"c@d","sender":"a@b"}"#
        );
        let named = json(Attributes::named(&["raw_sender", "raw_recipient"]));
        assert_eq!(named, r#"{"raw_recipient":"c@d","raw_sender":"b!a"}"#);
        let all = r#"{"raw_sender":"b!a","recipient":"c@d","sender":"a@b","size":"1"}"#;
        assert_eq!(json(Attributes::All), all);
    }

    fn request(pairs: &[(&str, &str)]) -> Request {
        let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Request::from_pairs(pairs).unwrap()
    }

    #[test]
    fn what_is_sent_is_what_is_named_and_there() {
        let some = Attributes::parse(" sender ,, recipient,size,").unwrap();
        let request = request(&[("size", "1"), ("sender", "\"a\u{e9}\"@b"), ("helo_name", "x")]);
        let json = String::from_utf8(some.to_json(&request)).unwrap();
        assert_eq!(json, "{\"sender\":\"\\\"a\u{e9}\\\"@b\",\"size\":\"1\"}");
        let all: serde_json::Value = serde_json::from_slice(&Attributes::All.to_json(&request)).unwrap();
        assert_eq!(all["helo_name"], "x");
        assert!(Attributes::parse(" , ").is_err());
        assert_eq!(Attributes::parse("*").unwrap().to_string(), "*");
    }

    #[test]
    fn keys_are_equal_for_equal_values_only() {
        let names = Attributes::named(&["sender", "recipient"]);
        let key = |pairs: &[(&str, &str)]| names.key(&request(pairs));
        let one = key(&[("sender", "a"), ("recipient", "b"), ("size", "1")]);
        assert_eq!(one, key(&[("recipient", "b"), ("sender", "a"), ("size", "2")]));
        for other in [
            &[("sender", "ab"), ("recipient", "")][..],
            &[("sender", "b"), ("recipient", "a")],
            &[("sender", "a")],
            &[("recipient", "a")],
            &[("sender", ""), ("recipient", "a")],
        ] {
            assert_ne!(one, key(other), "{other:?}");
        }
        assert_ne!(key(&[("sender", "")]), key(&[]));
    }
}
