//! What macros stand for in a check.
//!
//! Knows: requests. Must not know: who asks the name service for a true name.

use crate::macros::{Macro, MacroText, Part};
use crate::name::shortened;
use crate::request::{Request, Settings};
use std::fmt::Write;
use std::net::IpAddr;

/// The longest explanation: what fits into a reply of SMTP with room for the rest of it.
const MAX_EXPLANATION_BYTES: usize = 400;

/// How much of a name is kept while it is made. The end of it counts, and there is no more than
/// `MAX_NAME_BYTES` of that.
const MAX_EXPANDED_BYTES: usize = 4096;

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
    /// The name that a domain in a record means.
    pub(crate) fn name(&self, spec: &MacroText) -> String {
        let mut name = String::new();
        for part in &spec.parts {
            self.append(part, &mut name);
            if name.len() > 2 * MAX_EXPANDED_BYTES {
                let mut cut = name.len() - MAX_EXPANDED_BYTES;
                while !name.is_char_boundary(cut) {
                    cut += 1;
                }
                name.drain(..cut);
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
                let value = transformed(&self.value(wanted.letter), wanted);
                if wanted.escaped { append_escaped(&value, text) } else { text.push_str(&value) }
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

/// The parts of a value that a macro wants, joined by dots.
fn transformed(value: &str, wanted: &Macro) -> String {
    let mut parts: Vec<_> = value.split(|c| wanted.delimiters.contains(c)).collect();
    if wanted.reversed {
        parts.reverse();
    }
    let kept = wanted.kept.unwrap_or(parts.len()).min(parts.len());
    parts[parts.len() - kept..].join(".")
}

/// Everything but the unreserved characters of RFC 3986 is escaped.
fn append_escaped(value: &str, text: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing into a string does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(expand(&"%{s}".repeat(5000), "192.0.2.1").len(), MAX_EXPLANATION_BYTES);
        let request = Request::mail_from("192.0.2.1".parse().unwrap(), "h", "ü@example.org");
        let settings = Settings::default();
        let values =
            Values { request: &request, settings: &settings, domain: "example.com", true_name: None };
        let name = values.name(&MacroText::domain(&"%{s}.%{d}".repeat(5000)).unwrap());
        assert!(name.len() < 254 && name.ends_with("example.org.example.com"), "{name}");
    }
}
