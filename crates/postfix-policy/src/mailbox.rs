//! An address of the envelope, as Postfix will understand it.
//!
//! Knows: what Postfix rewrites after it has asked the policy service. Must not know: what an address is
//! for.

use bytes::Bytes;
use idna::AsciiDenyList;
use std::borrow::Cow;

/// Longest address, in bytes, in whose local part routes are looked for. Postfix reads lines of 2 KiB; a
/// bound here keeps the work of longer ones linear.
const MAX_ROUTED_BYTES: usize = 4096;

/// Most passes until an address no longer changes. Two suffice, but for addresses that are all operators.
const MAX_PASSES: usize = 8;

/// Names of Postfix's own mail, which have no extension.
const WHOLE_NAMES: [&[u8]; 2] = [b"double-bounce", b"mailer-daemon"];

/// A sender or a recipient, as Postfix will understand it.
///
/// Postfix sends a policy service the address as the SMTP client wrote it, without quotes (the internal
/// form: `"a b"@example.org` arrives as `a b@example.org`), and rewrites it only afterwards. A check that
/// reads the text sees another address than the one that the message is sent from or delivered to. This is
/// what trivial-rewrite(8) makes of it with the default settings:
///
/// - `site!user` becomes `user@site` (`swap_bangpath`) and `user%site` becomes `user@site`
///   (`allow_percent_hack`), both only where there is no `@`;
/// - the domain is what follows the last `@`; a route before the address (`@a,@b:user@site`) is removed;
/// - dots at the end of the domain are removed, and so is an `@` that nothing follows;
/// - `user@site@site` and the same with `%` and `!` become `user@site`. The outer domain of a *recipient* is
///   removed even if it is another one: Postfix accepts such an address from strangers only if the outer
///   domain is one of `mydestination`, and then delivers to the inner address (`resolve_dequoted_address`),
///   while it refuses all others (`allow_untrusted_routing`). A sender stays the sender of its last domain.
///
/// Beyond that the domain is in lower case and in its ASCII form (A-labels, UTS 46), as the DNS has it. A
/// domain that has no such form is left as it is, in lower case. The local part is not changed: capital
/// letters, quotes and extensions belong to it. A text without a domain gets none: Postfix will append its
/// own (`append_at_myorigin`), which a policy service does not know; `reject_non_fqdn_sender` and
/// `reject_non_fqdn_recipient` refuse such an address.
///
/// ```
/// use postfix_policy::Mailbox;
///
/// let sender = Mailbox::sender("Victim.Example.!CEO");
/// assert_eq!(sender.address(), b"CEO@victim.example");
/// assert_eq!(sender.domain(), Some(&b"victim.example"[..]));
/// assert_eq!(&*sender.key(), b"ceo@victim.example");
/// assert_eq!(sender.raw(), b"Victim.Example.!CEO");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    raw: Bytes,
    /// Shares the bytes of `raw` if the two are the same.
    address: Bytes,
    /// Where in `address` the local part ends, if a domain follows it.
    at: Option<usize>,
}

/// Whether an address says where a message comes from or where it goes: routes in it differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Sender,
    Recipient,
}

/// An address in two parts; the domain is canonical and not empty.
type Parts<'a> = (Cow<'a, [u8]>, Option<Cow<'a, [u8]>>);

impl Mailbox {
    /// Reads the address of a sender, or any other that does not say where a message goes.
    pub fn sender(raw: impl Into<Bytes>) -> Mailbox {
        Mailbox::new(raw.into(), Role::Sender)
    }

    /// Reads the address of a recipient.
    pub fn recipient(raw: impl Into<Bytes>) -> Mailbox {
        Mailbox::new(raw.into(), Role::Recipient)
    }

    fn new(raw: Bytes, role: Role) -> Mailbox {
        let (mut address, mut at) = (raw.clone(), None);
        for _ in 0..MAX_PASSES {
            let (local, domain) = rewritten(&address, role);
            at = domain.as_ref().map(|_| local.len());
            let next = match domain {
                Some(domain) => [&local, &b"@"[..], &domain].concat(),
                None => local.into_owned(),
            };
            if next == *address {
                break;
            }
            address = next.into();
        }
        Mailbox { raw, address, at }
    }

    /// The text of the request.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The address as Postfix will understand it; empty for the null sender.
    pub fn address(&self) -> &[u8] {
        &self.address
    }

    /// Whether Postfix will understand the address otherwise than it is written in the request.
    pub fn is_rewritten(&self) -> bool {
        self.raw != self.address
    }

    /// The text of the request and, if that is another, the address as Postfix will understand it.
    pub fn forms(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.raw()).chain(self.is_rewritten().then_some(self.address()))
    }

    /// Whether there is no address, as in bounces.
    pub fn is_null(&self) -> bool {
        self.address.is_empty()
    }

    /// What precedes the domain, unquoted and unchanged.
    pub fn local_part(&self) -> &[u8] {
        &self.address[..self.at.unwrap_or(self.address.len())]
    }

    /// The domain in lower case and as A-labels, without a final dot. An address literal keeps its brackets.
    pub fn domain(&self) -> Option<&[u8]> {
        self.at.map(|at| &self.address[at + 1..])
    }

    /// The address in lower case: the same for all spellings of one mailbox, for counting and comparing.
    pub fn key(&self) -> Cow<'_, [u8]> {
        folded(&self.address)
    }

    /// The address with its local part quoted if it has to be (the external form), as lookup tables have it.
    pub fn quoted(&self) -> Cow<'_, [u8]> {
        let local = self.local_part();
        match quoted_local_part(local) {
            // Nothing at all is the null sender, and no quotes are looked up for it.
            Cow::Owned(quoted) if !self.is_null() => {
                Cow::Owned([&quoted, &self.address[local.len()..]].concat())
            }
            _ => Cow::Borrowed(self.address()),
        }
    }

    /// The address without the extension of its local part, if it has one: `user@site` for `user+any@site`
    /// where `delimiters` (Postfix's `recipient_delimiter`) has a `+`.
    pub fn without_extension(&self, delimiters: &str) -> Option<Vec<u8>> {
        let local = self.local_part();
        let bare = without_extension(local, delimiters)?;
        Some([bare, &self.address[local.len()..]].concat())
    }
}

/// A local part without its extension, if it has one. The names of Postfix's own mail have none, nor have
/// those of mailing lists' owners where `-` is a delimiter (`owner_request_special`).
pub fn without_extension<'a>(local_part: &'a [u8], delimiters: &str) -> Option<&'a [u8]> {
    if WHOLE_NAMES.iter().any(|name| name.eq_ignore_ascii_case(local_part)) {
        return None;
    }
    let has = |text: Option<&[u8]>, part: &[u8]| text.is_some_and(|text| text.eq_ignore_ascii_case(part));
    let start = local_part.get(..b"owner-".len());
    let end = local_part.len().checked_sub(b"-request".len()).and_then(|end| local_part.get(end..));
    if delimiters.contains('-') && (has(start, b"owner-") || has(end, b"-request")) {
        return None;
    }
    let end = local_part.iter().position(|byte| delimiters.as_bytes().contains(byte))?;
    (end > 0).then(|| &local_part[..end])
}

/// A local part in quotes if it needs them, by the rules of RFC 822 as Postfix has them.
pub fn quoted_local_part(local: &[u8]) -> Cow<'_, [u8]> {
    if is_dot_string(local) {
        return Cow::Borrowed(local);
    }
    let mut quoted = vec![b'"'];
    for byte in local {
        if matches!(byte, b'"' | b'\\' | b'\r') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    Cow::Owned(quoted)
}

/// A text in lower case, whatever it is about; what is not UTF-8 keeps all but its ASCII letters.
pub fn folded(text: &[u8]) -> Cow<'_, [u8]> {
    match std::str::from_utf8(text) {
        Ok(_) if !text.iter().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) => {
            Cow::Borrowed(text)
        }
        Ok(text) => Cow::Owned(text.to_lowercase().into_bytes()),
        Err(_) => Cow::Owned(text.to_ascii_lowercase()),
    }
}

/// The domain of an address or of a HELO as the DNS has it: in lower case and as A-labels, without a final
/// dot. What is not a domain in UTF-8 stays as it is, in lower case.
pub fn canonical_domain(domain: &[u8]) -> Cow<'_, [u8]> {
    let name = without_final_dots(domain);
    let is_literal = name.starts_with(b"[");
    if !is_literal
        && let Ok(ascii) = idna::domain_to_ascii_cow(name, AsciiDenyList::URL)
        && !without_final_dots(ascii.as_bytes()).is_empty()
    {
        return match ascii {
            // Then it is all of the name.
            Cow::Borrowed(_) => Cow::Borrowed(name),
            Cow::Owned(ascii) => Cow::Owned(without_final_dots(ascii.as_bytes()).to_vec()),
        };
    }
    if name.iter().any(u8::is_ascii_uppercase) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

fn without_final_dots(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|byte| *byte != b'.').map_or(0, |last| last + 1);
    &name[..end]
}

/// One pass over an address: its last domain, and what it is a route to.
fn rewritten(address: &[u8], role: Role) -> Parts<'_> {
    let (mut local, mut domain) = split(Cow::Borrowed(address));
    if address.len() > MAX_ROUTED_BYTES {
        return (local, domain);
    }
    while let Some(outer) = &domain {
        let (inner_local, inner) = split(local.clone());
        let is_route = inner.as_ref().is_some_and(|inner| role == Role::Recipient || inner == outer);
        if !is_route {
            break;
        }
        (local, domain) = (inner_local, inner);
    }
    (local, domain)
}

/// An address at its last `@`, or else as the forms without one are rewritten.
fn split(address: Cow<'_, [u8]>) -> Parts<'_> {
    match address {
        Cow::Borrowed(address) => split_text(address),
        Cow::Owned(address) => {
            let (local, domain) = split_text(&address);
            (Cow::Owned(local.into_owned()), domain.map(|domain| Cow::Owned(domain.into_owned())))
        }
    }
}

fn split_text(address: &[u8]) -> Parts<'_> {
    let mut rest = without_source_route(address);
    if is_in_quotes(rest) {
        return (Cow::Borrowed(rest), None);
    }
    // Dots belong to a domain only behind an `@`. An `@` at the end has no domain behind it.
    while let Some(at) = memchr::memrchr(b'@', rest) {
        let domain = without_final_dots(&rest[at + 1..]);
        if !domain.is_empty() {
            return (Cow::Borrowed(&rest[..at]), Some(canonical_domain(domain)));
        }
        rest = &rest[..at];
    }
    let (local, domain) = if let Some(bang) = memchr::memchr(b'!', rest) {
        (&rest[bang + 1..], &rest[..bang])
    } else if let Some(percent) = memchr::memrchr(b'%', rest) {
        (&rest[..percent], &rest[percent + 1..])
    } else {
        return (Cow::Borrowed(rest), None);
    };
    match without_final_dots(domain) {
        b"" => (Cow::Borrowed(local), None),
        domain => (Cow::Borrowed(local), Some(canonical_domain(domain))),
    }
}

/// An address without the hosts that the message shall pass (`@a,@b:user@site`), which smtpd(8) removes too.
fn without_source_route(address: &[u8]) -> &[u8] {
    let mut rest = address;
    while rest.starts_with(b"@") {
        // The colons of an address literal separate nothing.
        let mut in_literal = false;
        let colon = rest.iter().position(|byte| {
            in_literal = *byte == b'[' || in_literal && *byte != b']';
            *byte == b':' && !in_literal
        });
        match colon {
            Some(colon) if colon + 1 < rest.len() => rest = &rest[colon + 1..],
            _ => break,
        }
    }
    rest
}

/// Whether the whole text is in quotes, which are part of the local part then. Postfix sends none of its
/// own.
fn is_in_quotes(text: &[u8]) -> bool {
    text.len() >= 2 && text.starts_with(b"\"") && text.ends_with(b"\"")
}

/// Whether a local part needs no quotes. Bytes beyond ASCII need none.
fn is_dot_string(local: &[u8]) -> bool {
    let is_ordinary = |byte: &u8| !byte.is_ascii_control() && !b" ()<>@,;:\\\"[]".contains(byte);
    local.iter().all(is_ordinary) && local.split(|byte| *byte == b'.').all(|atom| !atom.is_empty())
}

#[cfg(test)]
mod tests;
