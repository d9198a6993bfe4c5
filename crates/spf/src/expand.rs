//! What macros stand for in a check.
//!
//! Knows: requests. Must not know: how the validated name is looked up.

use crate::macros::{Macro, MacroText, Part};
use crate::name::{MAX_NAME_BYTES, shortened};
use crate::request::{Request, Settings};
use std::fmt::Write;
use std::net::IpAddr;

/// The longest explanation: what fits into a reply of SMTP with room for the rest of it.
const MAX_EXPLANATION_BYTES: usize = 400;

/// How much of the end of a name decides what it is: the longest one, the dot behind it, and the dot before
/// it, at which it is cut (RFC 7208, 7.3). No part of a sender or of HELO that stands farther in front is
/// looked at.
const DECISIVE_BYTES: usize = MAX_NAME_BYTES + 2;

/// What stands for a name that is not known.
const UNKNOWN: &str = "unknown";

/// The values of macros.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    pub request: &'a Request,
    pub settings: &'a Settings,
    /// The domain whose record it is.
    pub domain: &'a str,
    /// The name of the client that was found to be true, if one was.
    pub true_name: Option<&'a str>,
}

impl Values<'_> {
    /// The name that a domain in a record means. It is made from its end, and only as far as a name can
    /// reach: labels in front of that are left out.
    pub(crate) fn name(&self, spec: &MacroText) -> String {
        let mut name = String::new();
        for part in spec.parts.iter().rev() {
            let room = DECISIVE_BYTES.saturating_sub(name.len());
            match part {
                _ if room == 0 => break,
                Part::Literal(literal) => name.insert_str(0, end_of(literal, room)),
                Part::Macro(wanted) => {
                    let value = transformed(&self.value(wanted.letter), wanted, room);
                    name.insert_str(0, &value);
                }
            }
        }
        shortened(&name).to_owned()
    }

    /// The text of an explanation.
    pub(crate) fn explanation(&self, text: &MacroText) -> String {
        let mut explanation = String::new();
        for part in &text.parts {
            self.append(part, &mut explanation);
            if explanation.len() > MAX_EXPLANATION_BYTES {
                let mut end = MAX_EXPLANATION_BYTES;
                while !explanation.is_char_boundary(end) {
                    end -= 1;
                }
                explanation.truncate(end);
                break;
            }
        }
        explanation
    }

    fn append(&self, part: &Part, text: &mut String) {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Macro(wanted) => {
                text.push_str(&transformed(&self.value(wanted.letter), wanted, usize::MAX));
            }
        }
    }

    fn value(&self, letter: char) -> String {
        let Values { request, settings, domain, true_name } = self;
        match letter {
            's' => request.sender(),
            'l' => request.user.clone(),
            'o' => request.domain.clone(),
            'd' => (*domain).to_owned(),
            'i' => dotted(request.client),
            'p' => true_name.unwrap_or(UNKNOWN).to_owned(),
            'v' => if request.client.is_ipv4() { "in-addr" } else { "ip6" }.to_owned(),
            'h' => request.helo.clone(),
            'c' => request.client.to_string(),
            'r' => settings.receiver.clone().unwrap_or(UNKNOWN.to_owned()),
            't' => settings.now.to_string(),
            // The parser lets no other through.
            _ => String::new(),
        }
    }
}

/// An address with a dot between its numbers: four of IPv4, 32 hexadecimal digits of IPv6.
fn dotted(ip: IpAddr) -> String {
    let ip = match ip {
        IpAddr::V4(ip) => return ip.to_string(),
        IpAddr::V6(ip) => ip,
    };
    let mut text = String::with_capacity(63);
    for digit in format!("{:032x}", ip.to_bits()).chars() {
        if !text.is_empty() {
            text.push('.');
        }
        text.push(digit);
    }
    text
}

/// The parts of a value that a macro wants, joined by dots; of many those at the end, which fill this room.
fn transformed(value: &str, wanted: &Macro, room: usize) -> String {
    let is_delimiter = |c| wanted.delimiters.contains(c);
    let kept = wanted.kept.unwrap_or(usize::MAX);
    // Either way the one that comes first stands last.
    let mut parts = if wanted.reversed {
        fill(value.split(is_delimiter).take(kept), room)
    } else {
        fill(value.rsplit(is_delimiter).take(kept), room)
    };
    parts.reverse();
    let joined = parts.join(".");
    let end = end_of(&joined, room);
    if wanted.escaped { escaped(end) } else { end.to_owned() }
}

/// As many of the parts as fit into this room.
fn fill<'v>(parts: impl Iterator<Item = &'v str>, room: usize) -> Vec<&'v str> {
    let mut bytes = 0_usize;
    parts
        .take_while(|part| {
            let is_wanted = bytes < room;
            bytes = bytes.saturating_add(part.len() + 1);
            is_wanted
        })
        .collect()
}

/// The last `bytes` of a text, or fewer so that it starts at a character.
fn end_of(text: &str, bytes: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Everything but the unreserved characters of RFC 3986 is escaped.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing into a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::is_name;

    fn expand(text: &str, client: &str) -> String {
        let request =
            Request::mail_from(client.parse().unwrap(), "helo.example.org", "a-b+c@mail.example.org");
        let settings =
            Settings { receiver: Some("mx.example.net".into()), now: 1_764_000_000, ..Settings::default() };
        let values =
            Values { request: &request, settings: &settings, domain: "example.com", true_name: None };
        values.explanation(&MacroText::explanation(text).unwrap())
    }

    #[test]
    fn values_are_those_of_the_check() {
        let text = "%{s} %{l} %{o} %{d} %{i} %{p} %{v} %{h} %{c} %{r} %{t}";
        let expanded = "a-b+c@mail.example.org a-b+c mail.example.org example.com 192.0.2.1 unknown in-addr \
                        helo.example.org 192.0.2.1 mx.example.net 1764000000";
        assert_eq!(expand(text, "192.0.2.1"), expanded);
        assert_eq!(expand("%{i}", "::ffff:192.0.2.1"), "192.0.2.1", "an IPv4 address in IPv6");
        let dotted = "2.0.0.1.0.d.b.8.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1";
        assert_eq!(expand("%{i} %{c} %{v}", "2001:db8::1"), format!("{dotted} 2001:db8::1 ip6"));
    }

    #[test]
    fn values_are_cut_turned_and_escaped() {
        assert_eq!(expand("%{ir} %{i2} %{i9r} %{o1r}", "192.0.2.1"), "1.2.0.192 2.1 1.2.0.192 mail");
        assert_eq!(expand("%{l-} %{lr-} %{l1+} %{l-+}", "192.0.2.1"), "a.b+c b+c.a c a.b.c");
        assert_eq!(expand("%{S}%%%_%-", "192.0.2.1"), "a-b%2Bc%40mail.example.org% %20");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(expand(&"%{s}".repeat(100), "192.0.2.1").len(), MAX_EXPLANATION_BYTES);
        let request = Request::mail_from("192.0.2.1".parse().unwrap(), "h", "ü@example.org");
        let settings = Settings::default();
        let values =
            Values { request: &request, settings: &settings, domain: "example.com", true_name: None };
        let name = values.name(&MacroText::domain(&"%{s}.%{d}".repeat(64)).unwrap());
        assert!(name.len() < 254 && name.ends_with("example.org.example.com"), "{name}");
    }

    /// The name without a bound: everything is expanded, then labels go from the left.
    fn whole_name(values: &Values<'_>, spec: &MacroText) -> String {
        let mut name = String::new();
        spec.parts.iter().for_each(|part| values.append(part, &mut name));
        shortened(&name).to_owned()
    }

    #[test]
    fn only_the_end_of_a_name_is_made_and_it_is_the_same() {
        let settings = Settings::default();
        for unit in ["a.", "label-", "x", "a.b-c+d,e/f_g=", "ab..", "..", "\u{fc}.", "a.b.c.\u{20ac}"] {
            for count in [0, 1, 30, 63, 120, 126, 127, 128, 129, 250, 251, 252, 253, 254, 255, 256, 700] {
                let long = unit.repeat(count);
                let sender = format!("{long}@{long}example.org");
                let request = Request::mail_from([192, 0, 2, 1].into(), &long, &sender);
                let values =
                    Values { request: &request, settings: &settings, domain: "d.test", true_name: None };
                let wanted = |reversed| Macro {
                    letter: 'h',
                    escaped: false,
                    kept: None,
                    reversed,
                    delimiters: ".".into(),
                };
                for reversed in [false, true] {
                    assert!(transformed(&long, &wanted(reversed), DECISIVE_BYTES).len() <= DECISIVE_BYTES);
                }
                for spec in [
                    "%{s}",
                    "%{sr}",
                    "%{l}",
                    "%{lr}",
                    "%{h}",
                    "%{hr}",
                    "%{h2}",
                    "%{h2r}",
                    "%{h200}",
                    "%{h200r}",
                    "%{L}",
                    "%{LR}",
                    "%{S3-}",
                    "%{hr.-+,/_=}.%{d}",
                    "%{l-}.%{o}.%{d}",
                    "x%{h}.test",
                    "%{h}%{h}.a.b.",
                    "%{l1r}.long.label.%{hr}.d.test",
                ] {
                    let spec = MacroText::domain(spec).unwrap();
                    let (name, whole) = (values.name(&spec), whole_name(&values, &spec));
                    if is_name(&whole) {
                        assert_eq!(name, whole, "{spec} of {unit} * {count}");
                    } else {
                        assert!(!is_name(&name), "{spec} of {unit} * {count}: {name}, {whole}");
                    }
                }
            }
        }
    }
}
