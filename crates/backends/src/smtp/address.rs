//! An address as it is written between `<` and `>` (RFC 5321 section 4.1.2).
//!
//! Knows: quoting. Must not know: requests.

use std::net::{IpAddr, Ipv6Addr};

/// The longest address that is asked about: RFC 5321 allows 64 bytes, the sign and 255.
const MAX_ADDRESS: usize = 320;

/// What a domain is by its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainForm {
    /// A name, which the DNS may have.
    Name,
    /// An address in brackets (RFC 5321 section 4.1.3), to which mail can be sent.
    Literal(IpAddr),
    /// An address without them, to which none can.
    Bare(IpAddr),
    /// Neither.
    Malformed,
}

/// An address with a domain, as Postfix knows it: its local part is not quoted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mailbox {
    local: String,
    domain: String,
}

impl Mailbox {
    /// The address, or `None` if it is none that can be sent to a server.
    pub fn parse(text: &[u8]) -> Option<Mailbox> {
        let text = std::str::from_utf8(text).ok()?;
        let (local, domain) = text.rsplit_once('@')?;
        let is_fit = |c: char| !c.is_control() && c != '<' && c != '>';
        let is_name = !domain.is_empty() && !domain.contains(|c: char| c.is_whitespace() || c == '"');
        let fits = text.len() <= MAX_ADDRESS && !local.is_empty() && text.chars().all(is_fit);
        let domain = domain.strip_suffix('.').unwrap_or(domain).to_lowercase();
        (fits && is_name).then(|| Mailbox { local: local.to_owned(), domain })
    }

    /// The part before the last `@`, which only its own server understands.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain, in lower case.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// What the domain is by its form. No name of the DNS has a colon or a bracket, or digits alone behind
    /// its last dot.
    pub fn domain_form(&self) -> DomainForm {
        let domain = self.domain.as_str();
        if let Some(inner) = domain.strip_prefix('[') {
            let address = inner.strip_suffix(']').and_then(literal);
            return address.map_or(DomainForm::Malformed, DomainForm::Literal);
        }
        if let Ok(address) = domain.parse() {
            return DomainForm::Bare(address);
        }
        let last = domain.rsplit('.').next().unwrap_or_default();
        let is_number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        let is_odd = is_number || domain.contains([':', '[', ']']);
        if is_odd { DomainForm::Malformed } else { DomainForm::Name }
    }

    /// Whether its server has to know addresses in UTF-8 (RFC 6531).
    pub fn needs_utf8(&self) -> bool {
        !self.local.is_ascii() || !self.domain.is_ascii()
    }

    /// The path for MAIL and RCPT.
    pub fn path(&self) -> String {
        format!("<{}@{}>", quoted(&self.local), self.domain)
    }
}

impl std::fmt::Display for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.local, self.domain)
    }
}

/// The address in an address literal, whose domain is in lower case; also without the tag of IPv6.
fn literal(inner: &str) -> Option<IpAddr> {
    match inner.strip_prefix("ipv6:") {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => inner.parse().ok(),
    }
}

/// The local part, in quotes where it is not a dot-atom.
fn quoted(local: &str) -> String {
    let is_atom = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    if local.split('.').all(|part| !part.is_empty() && part.chars().all(is_atom)) {
        return local.to_owned();
    }
    let mut quoted = String::from('"');
    for c in local.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted() {
        for (text, path) in [
            ("bob@Example.ORG", "<bob@example.org>"),
            ("a.b+c=d@x", "<a.b+c=d@x>"),
            ("john smith@x", "<\"john smith\"@x>"),
            ("a\"b\\c@x", "<\"a\\\"b\\\\c\"@x>"),
            ("a..b@x", "<\"a..b\"@x>"),
            ("a@b@x.", "<\"a@b\"@x>"),
            ("müller@bücher.test", "<müller@bücher.test>"),
            ("a@[192.0.2.1]", "<a@[192.0.2.1]>"),
        ] {
            assert_eq!(Mailbox::parse(text.as_bytes()).map(|mailbox| mailbox.path()).as_deref(), Some(path));
        }
    }

    #[test]
    fn domains_have_forms() {
        use DomainForm::{Bare, Literal, Malformed, Name};
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (domain, form) in [
            ("x", Name),
            ("1.x", Name),
            ("x1.test", Name),
            ("[192.0.2.1]", Literal(ip("192.0.2.1"))),
            ("[IPv6:FD00::2]", Literal(ip("fd00::2"))),
            ("[::1]", Literal(ip("::1"))),
            ("10.66.0.2", Bare(ip("10.66.0.2"))),
            ("127.0.0.1.", Bare(ip("127.0.0.1"))),
            ("fd00::2", Bare(ip("fd00::2"))),
            ("127.1", Malformed),
            ("171048962", Malformed),
            ("256.1.1.1", Malformed),
            ("1.2.3", Malformed),
            ("[10.66.0.2", Malformed),
            ("10.66.0.2]", Malformed),
            ("[]", Malformed),
            ("[IPv6:10.66.0.2]", Malformed),
            ("[x.test]", Malformed),
            ("x.test:25", Malformed),
            ("[192.0.2.1]:25", Malformed),
        ] {
            let mailbox = Mailbox::parse(format!("a@{domain}").as_bytes());
            assert_eq!(mailbox.map(|mailbox| mailbox.domain_form()), Some(form), "{domain}");
        }
    }

    #[test]
    fn what_could_be_a_command_is_no_address() {
        let long = format!("{}@x", "a".repeat(MAX_ADDRESS));
        for text in ["", "bob", "@x", "a@", "a@x y", "a\r\nDATA@x", "a@x\r\nQUIT", "a>@x", "<a@x", &long] {
            assert_eq!(Mailbox::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Mailbox::parse(b"\xff@x"), None);
    }
}
