//! A domain's record: `v=spf1 mx include:example.net -all`.
//!
//! Knows: the grammar of records (RFC 7208, 12). Must not know: the name service, the client.

use crate::error::{MAX_EXCERPT_BYTES, SyntaxError};
use crate::macros::{MacroText, Place};
use crate::outcome::Verdict;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest record. The RFC wants records that fit into an answer of 512 bytes (3.4), and those of the
/// largest networks have some thousands; what is longer is there to cost time.
pub(crate) const MAX_RECORD_BYTES: usize = 16 * 1024;

/// How a record begins.
const VERSION: &[u8] = b"v=spf1";

/// A record without a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub(crate) directives: Vec<Directive>,
    /// The domain whose record counts where no directive matches.
    pub(crate) redirect: Option<MacroText>,
    /// Where the explanation of a failure is.
    pub(crate) exp: Option<MacroText>,
}

/// A mechanism, and what it means that it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    pub verdict: Verdict,
    pub mechanism: Mechanism,
    /// As it stands in the record.
    pub text: Box<str>,
}

/// What a client is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    All,
    Include(MacroText),
    A(Hosts),
    Mx(Hosts),
    Ptr(Option<MacroText>),
    Ip(IpAddr, u8),
    Exists(MacroText),
}

impl Mechanism {
    /// The domain that it names.
    pub(crate) fn domain(&self) -> Option<&MacroText> {
        match self {
            Mechanism::Include(spec) | Mechanism::Exists(spec) => Some(spec),
            Mechanism::A(hosts) | Mechanism::Mx(hosts) => hosts.domain.as_ref(),
            Mechanism::Ptr(spec) => spec.as_ref(),
            Mechanism::All | Mechanism::Ip(..) => None,
        }
    }
}

/// The hosts of a domain, `None` that of the record, and the networks around their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hosts {
    pub domain: Option<MacroText>,
    pub ipv4_prefix: u8,
    pub ipv6_prefix: u8,
}

/// What is wrong with the TXT records of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// There is more than one record.
    Several,
    /// It can't be read.
    Syntax(SyntaxError),
}

impl Record {
    /// The one record among the TXT records of a domain, if it has one.
    pub(crate) fn find(texts: &[Vec<u8>]) -> Result<Option<Record>, Unusable> {
        let mut records = texts.iter().filter(|text| is_record(text));
        match (records.next(), records.next()) {
            (None, _) => Ok(None),
            (Some(text), None) => Record::parse(text).map(Some).map_err(Unusable::Syntax),
            (Some(_), Some(_)) => Err(Unusable::Several),
        }
    }

    /// A record from its text, or its first mistake. One mistake makes all of it worthless (RFC 7208, 4.6).
    pub fn parse(text: &[u8]) -> Result<Record, SyntaxError> {
        if text.len() > MAX_RECORD_BYTES {
            let start = String::from_utf8_lossy(&text[..MAX_EXCERPT_BYTES]);
            return Err(SyntaxError::new("a record has more than 16384 bytes", &start));
        }
        let Ok(text) = str::from_utf8(text) else {
            return Err(SyntaxError::new("a record is not in ASCII", &String::from_utf8_lossy(text)));
        };
        if !is_record(text.as_bytes()) {
            return Err(SyntaxError::new("this is not an SPF record", text));
        }
        let mut record = Record { directives: Vec::new(), redirect: None, exp: None };
        for term in text[VERSION.len()..].split(' ').filter(|term| !term.is_empty()) {
            record.add_term(term)?;
        }
        Ok(record)
    }

    fn add_term(&mut self, term: &str) -> Result<(), SyntaxError> {
        if !term.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(SyntaxError::new("a record is not in printable ASCII", term));
        }
        let Some((name, value)) = modifier(term) else {
            self.directives.push(Directive::parse(term)?);
            return Ok(());
        };
        let place = match name.to_ascii_lowercase().as_str() {
            "redirect" => &mut self.redirect,
            "exp" => &mut self.exp,
            _ => return MacroText::parse(value, Place::Modifier).map(|_| ()),
        };
        if place.replace(MacroText::domain(value)?).is_some() {
            return Err(SyntaxError::new("a modifier stands twice", term));
        }
        Ok(())
    }
}

fn is_record(text: &[u8]) -> bool {
    match text.split_at_checked(VERSION.len()) {
        Some((version, rest)) => {
            version.eq_ignore_ascii_case(VERSION) && (rest.is_empty() || rest.starts_with(b" "))
        }
        None => false,
    }
}

/// Name and value of a term that is a modifier: a name before an equal sign.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    is_name.then_some((name, value))
}

impl Directive {
    fn parse(term: &str) -> Result<Directive, SyntaxError> {
        let (verdict, body) = match term.as_bytes().first() {
            Some(b'+') => (Verdict::Pass, &term[1..]),
            Some(b'-') => (Verdict::Fail, &term[1..]),
            Some(b'~') => (Verdict::SoftFail, &term[1..]),
            Some(b'?') => (Verdict::Neutral, &term[1..]),
            _ => (Verdict::Pass, term),
        };
        let end = body.find([':', '/']).unwrap_or(body.len());
        let (name, rest) = body.split_at(end);
        let value = rest.strip_prefix(':');
        let error = |what| Err(SyntaxError::new(what, term));
        let mechanism = match (name.to_ascii_lowercase().as_str(), value) {
            ("all", None) if rest.is_empty() => Mechanism::All,
            ("include", Some(domain)) => Mechanism::Include(MacroText::domain(domain)?),
            ("exists", Some(domain)) => Mechanism::Exists(MacroText::domain(domain)?),
            ("ptr", None) if rest.is_empty() => Mechanism::Ptr(None),
            ("ptr", Some(domain)) => Mechanism::Ptr(Some(MacroText::domain(domain)?)),
            ("a", _) => Mechanism::A(Hosts::parse(rest)?),
            ("mx", _) => Mechanism::Mx(Hosts::parse(rest)?),
            ("ip4", Some(network)) => ip::<Ipv4Addr>(network, 32)?,
            ("ip6", Some(network)) => ip::<Ipv6Addr>(network, 128)?,
            ("all" | "include" | "exists" | "ptr" | "ip4" | "ip6", _) => {
                return error("a mechanism can't be read");
            }
            _ => return error("there is no such mechanism"),
        };
        Ok(Directive { verdict, mechanism, text: term.into() })
    }
}

impl Hosts {
    /// From what stands behind `a` or `mx`: `:domain`, `/24`, `//64`, `:domain/24//64`.
    fn parse(rest: &str) -> Result<Hosts, SyntaxError> {
        let (front, ipv6_prefix) = match split_prefix(rest, "//") {
            Some((front, digits)) => (front, prefix(digits, 128)?),
            None => (rest, 128),
        };
        let (front, ipv4_prefix) = match split_prefix(front, "/") {
            Some((front, digits)) => (front, prefix(digits, 32)?),
            None => (front, 32),
        };
        let domain = match front.strip_prefix(':') {
            Some(domain) => Some(MacroText::domain(domain)?),
            None if front.is_empty() => None,
            None => return Err(SyntaxError::new("this is not a prefix", front)),
        };
        Ok(Hosts { domain, ipv4_prefix, ipv6_prefix })
    }
}

/// What stands before and behind the slashes of a prefix at the end. There are slashes in domains as well.
fn split_prefix<'a>(text: &'a str, slashes: &str) -> Option<(&'a str, &'a str)> {
    let (front, digits) = text.rsplit_once(slashes)?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some((front, digits))
}

fn ip<A: std::str::FromStr + Into<IpAddr>>(network: &str, longest: u8) -> Result<Mechanism, SyntaxError> {
    let (address, bits) = match network.split_once('/') {
        Some((address, digits)) => (address, prefix(digits, longest)?),
        None => (network, longest),
    };
    let address: A = address.parse().map_err(|_| SyntaxError::new("this is not an address", network))?;
    Ok(Mechanism::Ip(address.into(), bits))
}

/// A prefix in decimal, without zeros in front.
fn prefix(digits: &str, longest: u8) -> Result<u8, SyntaxError> {
    let plain = digits == "0" || !digits.starts_with(['0', '+']);
    let bits = digits.parse().ok().filter(|bits| plain && *bits <= longest);
    bits.ok_or_else(|| SyntaxError::new("this is not a prefix length", digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_term_is_read() {
        let text = b"V=SPF1  mx -A:foo:bar/baz.example.org/24//64 ?include:%{d2}  ~ptr ip4:192.0.2.0/24 \
                     ip6:2001:db8::/32 exists:%{i}.example.org a//0 unknown=%{c} redirect=a.example +All ";
        let record = Record::parse(text).unwrap();
        let texts: Vec<_> = record.directives.iter().map(|directive| &*directive.text).collect();
        assert_eq!(texts.len(), 9);
        assert_eq!(texts[1], "-A:foo:bar/baz.example.org/24//64");
        let Mechanism::A(hosts) = &record.directives[1].mechanism else { panic!("{record:?}") };
        assert_eq!((hosts.ipv4_prefix, hosts.ipv6_prefix), (24, 64));
        assert_eq!(hosts.domain.as_ref().unwrap().to_string(), "foo:bar/baz.example.org");
        assert_eq!(record.redirect.unwrap().to_string(), "a.example");
        assert_eq!(record.directives[8].mechanism, Mechanism::All);
    }

    #[test]
    fn one_mistake_is_enough() {
        for bad in [
            "foo",
            "all:a.b",
            "all/8",
            "include",
            "include:",
            "include/24",
            "a:",
            "a/",
            "a/33",
            "a/024",
            "a//129",
            "a/24/64",
            "a:b.c/24//",
            "ip4",
            "ip4:192.0.2",
            "ip4:192.0.2.1/33",
            "ip4:192.0.2.01",
            "ip6:192.0.2.1",
            "ip6:::1/129",
            "ip4:192.0.2.1//32",
            "ptr/0",
            "ptr:",
            "exists",
            "exists:a.b/8",
            "redirect=",
            "exp=",
            "redirect=a.b redirect=a.b",
            "exp=a.b exp=a.b",
            "-redirect=a.b",
            "x=%",
            "1x=a",
            "+",
            "a:a.b\t",
            "redirect:a.b",
            "a+b",
            "--all",
            "ip4:192.0.2.1/+8",
            "é",
        ] {
            assert!(Record::parse(format!("v=spf1 {bad} -all").as_bytes()).is_err(), "{bad}");
        }
        assert!(Record::parse(b"v=spf10").is_err() && Record::parse(b"v=spf1\xff").is_err());
    }

    #[test]
    fn a_record_has_a_length() {
        let record = |terms| [b"v=spf1".to_vec(), b" ip4:192.0.2.1".repeat(terms)].concat();
        let most = (MAX_RECORD_BYTES - 6) / 14;
        assert!(Record::parse(&record(most)).is_ok());
        let error = Record::parse(&record(most + 1)).unwrap_err().to_string();
        assert!(error.starts_with("a record has more than 16384 bytes: `v=spf1 ip4:"), "{error}");
        assert!(error.len() < 120, "{error}");
    }

    #[test]
    fn one_record_is_found_among_others() {
        let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(Record::find(&texts(&["v=spf", "v=spf12", "v=spf1a", ""])), Ok(None));
        assert!(Record::find(&texts(&["other", "v=spf1"])).unwrap().is_some());
        assert_eq!(Record::find(&texts(&["v=spf1", "v=spf1 a"])), Err(Unusable::Several));
    }
}
