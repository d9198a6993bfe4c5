//! The header that tells filters behind Postfix what SPF says (RFC 7208, 9; RFC 8601).
//!
//! Knows: findings, the syntax of headers. Must not know: how a header comes into the message.

use super::finding::Finding;
use crate::value::words;
use spf::{Identity, Request, Verdict};
use std::fmt::Write;

words! {
    /// Which header.
    pub enum HeaderKind {
        /// That of SPF.
        ReceivedSpf = "Received-SPF",
        /// That of all kinds of authentication.
        AuthenticationResults = "Authentication-Results",
    }
}

/// The longest value of a key. A line of a message has up to 998 bytes, and there are five values.
const MAX_VALUE_BYTES: usize = 130;

/// Whether this can stand for a host in a header.
pub fn is_host_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

impl HeaderKind {
    /// The header about what was checked; `None` if nothing was.
    pub fn text(self, hostname: &str, requests: &[Request], findings: &[Finding]) -> Option<String> {
        let checks: Vec<_> = requests.iter().zip(findings).collect();
        let (request, finding) = checks.last()?;
        let mut text = format!("{self}: ");
        // Writing into a string does not fail.
        let _ = match self {
            HeaderKind::ReceivedSpf => write_received(&mut text, hostname, request, finding),
            HeaderKind::AuthenticationResults => write_results(&mut text, hostname, &checks),
        };
        Some(text)
    }
}

fn write_received(
    text: &mut String,
    hostname: &str,
    request: &Request,
    finding: &Finding,
) -> std::fmt::Result {
    let verdict = finding.verdict;
    write!(text, "{verdict} receiver={hostname}; client-ip={}", value(&request.client.to_string()))?;
    if request.identity == Identity::MailFrom {
        write!(text, "; envelope-from={}", quoted(&request.subject()))?;
    }
    if !request.helo.is_empty() {
        write!(text, "; helo={}", quoted(&request.helo))?;
    }
    let identity = match request.identity {
        Identity::Helo => "helo",
        Identity::MailFrom => "mailfrom",
    };
    write!(text, "; identity={identity}")?;
    match (&finding.problem, &finding.mechanism) {
        (Some(problem), _) => write!(text, "; problem={}", quoted(problem)),
        (None, Some(mechanism)) => write!(text, "; mechanism={}", quoted(mechanism)),
        // The RFC's word for the result of a record in which nothing matches.
        (None, None) if verdict == Verdict::Neutral => write!(text, "; mechanism=default"),
        (None, None) => Ok(()),
    }
}

fn write_results(text: &mut String, hostname: &str, checks: &[(&Request, &Finding)]) -> std::fmt::Result {
    write!(text, "{hostname}")?;
    for (request, finding) in checks {
        let property = match request.identity {
            Identity::Helo => "helo",
            Identity::MailFrom => "mailfrom",
        };
        write!(text, "; spf={} smtp.{property}={}", finding.verdict, value(&request.domain))?;
    }
    Ok(())
}

/// A value as it is where that is allowed (an atom with dots), else between quotes.
fn value(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let plain = !text.is_empty() && text.len() <= MAX_VALUE_BYTES && text.bytes().all(is_plain);
    if plain { text.to_owned() } else { quoted(text) }
}

/// A value between quotes; what is not printable ASCII becomes a question mark.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars().take(MAX_VALUE_BYTES) {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}
