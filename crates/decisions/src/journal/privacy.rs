//! What names people, replaced by pseudonyms: in decisions, and in what is searched for.
//!
//! Knows: which parts of a decision may name somebody. Must not know: keys' origin, the file.

use super::Privacy;
use super::bloom::network_of;
use super::pseudonym::{self, Key, Keys};
use crate::{Decision, Filter, Flags, Lookup, Shadow, Walk};
use std::fmt::Write;
use std::net::IpAddr;

/// Attributes that are addresses or logins.
const ADDRESSES: [&[u8]; 4] = [b"sender", b"recipient", b"sasl_username", b"sasl_sender"];
/// Attributes that name a client.
const NAMES: [&[u8]; 7] = [
    b"client_name",
    b"reverse_client_name",
    b"helo_name",
    b"ccert_subject",
    b"ccert_issuer",
    b"ccert_fingerprint",
    b"ccert_pubkey_fingerprint",
];
/// The name of a client that has none.
const UNKNOWN: &str = "unknown";
/// What stands alone has to have this many bytes to be taken for a name.
const SHORTEST: usize = 2;

/// Texts that are replaced wherever they occur as a word: in lower case, with what stands for them.
#[derive(Default)]
struct Words(Vec<Word>);

struct Word {
    text: String,
    instead: String,
    /// It is too common to be replaced in the first word of an action.
    is_part: bool,
}

/// The decision without what names people.
pub(super) fn replace(decision: &Decision, key: &Key, privacy: Privacy) -> Decision {
    let mut words = Words::default();
    let is_first = !decision.flags.has(Flags::PSEUDONYMS);
    let mut request = Vec::with_capacity(decision.request.len());
    for line in decision.request.split_inclusive(|byte| *byte == b'\n') {
        let content = line.trim_ascii_end();
        let at = content.iter().position(|byte| *byte == b'=');
        let replaced = at.and_then(|at| {
            let value = String::from_utf8_lossy(&content[at + 1..]);
            words.attribute(&content[..at], &value, key, privacy, is_first).map(|instead| (at, instead))
        });
        match replaced {
            Some((at, instead)) => {
                request.extend_from_slice(&content[..=at]);
                request.extend_from_slice(instead.as_bytes());
                request.extend_from_slice(&line[content.len()..]);
            }
            None => request.extend_from_slice(line),
        }
    }
    words.0.sort_by_key(|word| std::cmp::Reverse(word.text.len()));
    let text = |text: &str| words.replace(text, key, 0);
    let boxed = |text: &str| words.replace(text, key, 0).into_boxed_str();
    let mut walk = Walk::default();
    walk.is_cut = decision.walk.is_cut;
    walk.steps.clone_from(&decision.walk.steps);
    walk.points.clone_from(&decision.walk.points);
    for (step, note) in decision.walk.notes() {
        walk.push_note(step, &text(note));
    }
    for lookup in decision.walk.lookups.iter() {
        let (question, answer) = (text(lookup.question), text(lookup.answer));
        walk.lookups.push(Lookup { question: &question, answer: &answer, ..lookup });
    }
    let shadow = decision.shadow.as_ref().map(|shadow| {
        let action = shadow.answer.find(' ').unwrap_or(shadow.answer.len());
        let answer = words.replace(&shadow.answer, key, action).into();
        Box::new(Shadow { answer, failure: boxed(&shadow.failure), ..(**shadow).clone() })
    });
    let anonymous = if privacy == Privacy::All { Flags::ANONYMOUS } else { Flags::default() };
    let action = decision.answer.find(' ').unwrap_or(decision.answer.len());
    Decision {
        request: request.into(),
        answer: words.replace(&decision.answer, key, action).into(),
        failure: boxed(&decision.failure),
        session: decision.session.iter().map(|(name, value)| (boxed(name), boxed(value))).collect(),
        flags: decision.flags.with(Flags::PSEUDONYMS).with(anonymous),
        walk,
        shadow,
        ..decision.clone()
    }
}

impl Words {
    /// What stands for the value of an attribute, if something does, which is noted.
    fn attribute(
        &mut self,
        name: &[u8],
        value: &str,
        key: &Key,
        privacy: Privacy,
        is_first: bool,
    ) -> Option<String> {
        if value.is_empty() {
            return None;
        }
        let is_all = privacy == Privacy::All;
        if ADDRESSES.contains(&name) {
            return is_first.then(|| self.address(value, key));
        }
        match name {
            b"client_address" if is_all => {
                let client: IpAddr = value.parse().ok()?;
                let network = network_of(client);
                self.client(value, client, network);
                Some(network.to_string())
            }
            b"client_port" if is_all => Some(String::new()),
            _ if is_all && NAMES.contains(&name) && value != UNKNOWN => {
                let local = value.split('@').next().unwrap_or_default();
                if pseudonym::is_one(local) {
                    return None;
                }
                let instead = pseudonym::of_name(value, key);
                self.add(value, &instead, false);
                Some(instead)
            }
            // Other attributes may have addresses too, such as the subject of a certificate.
            _ if value.contains('@') => Some(other_addresses(value, key)),
            _ => None,
        }
    }

    fn address(&mut self, address: &str, key: &Key) -> String {
        let instead = pseudonym::of_address(address, key);
        if instead != address {
            self.add(address, &instead, false);
            if let Some((local, _)) = address.rsplit_once('@') {
                let instead = instead.split('@').next().unwrap_or_default();
                self.add(local, instead, true);
                // What is behind a `+` is not what the mailbox is called.
                let base = local.split('+').next().unwrap_or_default();
                self.add(base, instead, true);
            }
        }
        instead
    }

    /// The client, as texts and questions to lists have it.
    fn client(&mut self, value: &str, client: IpAddr, network: IpAddr) {
        self.add(value, &network.to_string(), false);
        self.add(&client.to_canonical().to_string(), &network.to_string(), false);
        self.add(&reversed(client), &reversed(network), false);
    }

    fn add(&mut self, text: &str, instead: &str, is_part: bool) {
        let text = text.to_ascii_lowercase();
        if text.len() >= SHORTEST && self.0.iter().all(|known| known.text != text) {
            self.0.push(Word { text, instead: instead.to_owned(), is_part });
        }
    }

    /// A text without the words, and without other addresses. Up to a place only whole addresses count.
    fn replace(&self, text: &str, key: &Key, only_whole_until: usize) -> String {
        let lower = text.to_ascii_lowercase();
        let mut out = String::with_capacity(text.len());
        let mut at = 0;
        while at < text.len() {
            let is_here = |word: &&Word| {
                lower[at..].starts_with(&word.text)
                    && (!word.is_part || at >= only_whole_until)
                    && is_word(text, at, at + word.text.len())
            };
            if let Some(word) = self.0.iter().find(is_here) {
                out.push_str(&word.instead);
                at += word.text.len();
            } else {
                let next = text[at..].chars().next().unwrap_or_default();
                out.push(next);
                at += next.len_utf8();
            }
        }
        if out.contains('@') { other_addresses(&out, key) } else { out }
    }
}

/// Whether a part of a text is not within a longer word.
fn is_word(text: &str, start: usize, end: usize) -> bool {
    let is_inside = |c: char| c.is_alphanumeric() || c == '_';
    let before = text[..start].chars().next_back();
    let after = text[end..].chars().next();
    !before.is_some_and(is_inside) && !after.is_some_and(is_inside)
}

/// Replaces every address of a mailbox in a text, but for pseudonyms.
fn other_addresses(text: &str, key: &Key) -> String {
    let is_local = |c: char| c.is_alphanumeric() || "!#$%&*+-/?^_{|}~.".contains(c);
    let is_domain = |c: char| c.is_alphanumeric() || "-.[]:".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let (before, after) = rest.split_at(at);
        let start = before
            .rfind(|c| !is_local(c))
            .map_or(0, |place| place + before[place..].chars().next().map_or(0, char::len_utf8));
        let local = &before[start..];
        let domain_end = after[1..].find(|c| !is_domain(c)).map_or(after.len(), |end| end + 1);
        let domain = after[1..domain_end].trim_end_matches(['.', ':', '-']);
        out.push_str(&before[..start]);
        if local.is_empty() || domain.is_empty() || pseudonym::is_one(local) {
            out.push_str(local);
        } else {
            out.push_str(&pseudonym::of_name(&format!("{local}@{domain}"), key));
        }
        out.push('@');
        rest = &after[1..];
    }
    out + rest
}

/// The digits of an address as the zones of DNS lists have them.
pub(super) fn reversed(address: IpAddr) -> String {
    // The longest is an IPv6 address: 32 digits and the dots between them.
    let mut text = String::with_capacity(63);
    match address.to_canonical() {
        IpAddr::V4(it) => {
            let [a, b, c, d] = it.octets();
            // Writing to a string does not fail.
            let _ = write!(text, "{d}.{c}.{b}.{a}");
        }
        IpAddr::V6(it) => {
            for digit in it.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]) {
                if !text.is_empty() {
                    text.push('.');
                }
                text.extend(char::from_digit(digit.into(), 16));
            }
        }
    }
    text
}

/// What has to be searched for in blocks in which names were replaced: under each key its own. What is given
/// as a pseudonym is searched for as it is.
pub(super) fn filters(filter: &Filter, keys: &Keys, privacy: Privacy) -> Vec<Filter> {
    let mut filters = vec![filter.clone()];
    if privacy == Privacy::None {
        return filters;
    }
    for key in keys.0.values() {
        let keyed = under_key(filter, key, privacy);
        if !filters.contains(&keyed) {
            filters.push(keyed);
        }
    }
    filters
}

fn under_key(filter: &Filter, key: &Key, privacy: Privacy) -> Filter {
    let address = |text: &Option<String>| text.as_deref().map(|text| pseudonym::of_address(text, key));
    let mut keyed = Filter {
        from: address(&filter.from),
        to: address(&filter.to),
        login: address(&filter.login),
        text: filter.text.as_deref().map(|text| other_addresses(text, key)),
        about: filter.about.as_deref().map(|name| pseudonym::of_address(name.trim(), key)),
        ..filter.clone()
    };
    if privacy == Privacy::All {
        let name = |text: &Option<String>| {
            let known = |text: &str| text == UNKNOWN || text.is_empty();
            let name = |text: &str| {
                if known(text) { text.to_owned() } else { pseudonym::of_name(text, key) }
            };
            text.as_deref().map(name)
        };
        (keyed.client_name, keyed.helo) = (name(&filter.client_name), name(&filter.helo));
        keyed.client = filter.client.as_deref().map(|client| {
            let exact = client.parse().ok().map(|client: IpAddr| {
                let bits = if client.is_ipv4() { 24 } else { 48 };
                format!("{}/{bits}", network_of(client))
            });
            exact.unwrap_or_else(|| client.to_owned())
        });
    }
    keyed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::decision;
    use crate::{LookupKind, Origin, Outcome, StepOutcome};

    const KEY: Key = [3; 32];

    fn personal() -> Decision {
        let request = "sender=Bob+news@Example.org\nrecipient=alice@example.net\nsasl_username=carol\n\
                       client_address=192.0.2.77\nclient_name=pc.example.com\nhelo_name=laptop\n\
                       ccert_subject=dave@example.org\nsize=1\n\n";
        let mut decision = decision(request, Outcome::Reject);
        decision.answer = "reject alice: bob+news@example.org from 192.0.2.77 (pc.example.com) is not".into();
        decision.session = vec![("seen".into(), "erin@example.net,bob".into())];
        let step = decision.walk.begin(0, 0);
        decision.walk.note("ticket of <bob+news@example.org> for ALICE@example.net at laptop");
        decision.walk.lookups.push(Lookup {
            kind: LookupKind::Dns,
            server: "",
            question: "77.2.0.192.zen.example.com",
            answer: "carol: listed",
            waited: 5,
            origin: Origin::Asked,
        });
        decision.walk.end(step, StepOutcome::Stopped);
        decision
    }

    fn all_text(decision: &Decision) -> String {
        format!("{} {decision:?}", String::from_utf8_lossy(&decision.request)).to_lowercase()
    }

    #[test]
    fn no_local_part_is_left() {
        let replaced = replace(&personal(), &KEY, Privacy::Addresses);
        let text = all_text(&replaced);
        for local in ["bob", "news", "alice", "carol", "dave", "erin"] {
            assert!(!text.contains(local), "{local} in {text}");
        }
        for kept in ["@example.org", "@example.net", "192.0.2.77", "pc.example.com", "laptop", "reject ~"] {
            assert!(text.contains(kept), "{kept} in {text}");
        }
        assert!(replaced.flags.has(Flags::PSEUDONYMS) && !replaced.flags.has(Flags::ANONYMOUS));
    }

    #[test]
    fn no_client_is_left() {
        let once = replace(&personal(), &KEY, Privacy::All);
        let twice = replace(&replace(&personal(), &KEY, Privacy::Addresses), &KEY, Privacy::All);
        for replaced in [once, twice] {
            let text = all_text(&replaced);
            for gone in ["bob", "192.0.2.77", "pc.example", "laptop", "77.2.0.192"] {
                assert!(!text.contains(gone), "{gone} in {text}");
            }
            assert!(text.contains("0.2.0.192.zen") && text.contains("client_address=192.0.2.0\n"), "{text}");
            assert!(replaced.flags.has(Flags::ANONYMOUS));
        }
    }

    #[test]
    fn who_knows_the_name_finds_it() {
        let keys = Keys([(1, [1; 32]), (2, KEY)].into());
        let wanted = |text: &str| Some(text.to_owned());
        for (filter, privacy) in [
            (Filter { from: wanted("bob+news@example.org"), ..Filter::default() }, Privacy::Addresses),
            (Filter { to: wanted("@example.net"), ..Filter::default() }, Privacy::Addresses),
            (Filter { login: wanted("Carol"), ..Filter::default() }, Privacy::Addresses),
            (Filter { text: wanted("Alice@example.net"), ..Filter::default() }, Privacy::Addresses),
            (Filter { client: wanted("192.0.2.77"), ..Filter::default() }, Privacy::All),
            (
                Filter { helo: wanted("LAPTOP"), client: wanted("192.0.0.0/16"), ..Filter::default() },
                Privacy::All,
            ),
        ] {
            let replaced = replace(&personal(), &KEY, privacy);
            let found = filters(&filter, &keys, privacy).iter().any(|filter| filter.matches(&replaced));
            assert!(found, "{filter:?}");
        }
        let other = Filter { from: wanted("bob@example.org"), ..Filter::default() };
        let replaced = replace(&personal(), &KEY, Privacy::All);
        assert!(!filters(&other, &keys, Privacy::All).iter().any(|filter| filter.matches(&replaced)));
    }
}
