//! DNS lists (RFC 5782): what is asked of a list, and what its answer means.
//!
//! Knows: DNS questions and answers. Must not know: what an answer leads to.

mod allow_lists;
mod health;
mod record;
mod return_codes;
mod test_points;
mod text;

use crate::log::messages::lookups;
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use backends::dns::{Answer, Dns, Failure, Question, RecordType, note_zone, without_key};

pub use allow_lists::AllowList;
pub use health::Health;
pub use record::{Change, Condition, ListAnswer, ListRecord, ListState};
pub use return_codes::{ReturnCodes, ReturnCodesError};
pub use test_points::{TestAnswer, TestPoint, Tested};
pub use text::text_presentation;

/// The longest name in the DNS, in bytes of text (RFC 1035 section 2.3.4); what is longer is not even copied.
const MAX_NAME: usize = 253;

/// The longest address as it is asked: 32 half octets and the dots between them.
const MAX_REVERSED: usize = 63;

/// How long a list may take to answer unless the file says otherwise. Those that are well take some
/// hundredths of a second, also for a name that the name server here does not know yet.
pub const DEFAULT_TIME_LIMIT: Duration = Duration::from_secs(2);

/// The most addresses of an answer that are kept. A list has one for each of the lists that it is made of.
const MAX_LISTINGS: usize = 64;

/// What a list lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListKind {
    /// Addresses of clients.
    Address,
    /// Domain names.
    Domain,
}

/// What a list says about an address or a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Listing {
    /// It is on the list; the addresses say why, and there is at least one. A list that is made of several
    /// answers with one for each that has the name (RFC 5782 section 2.3), in any order.
    Listed(Vec<Ipv4Addr>),
    /// It is not.
    NotListed,
    /// The list says the same of everybody: these addresses prove nothing.
    Ignored(Vec<Ipv4Addr>),
    /// The list failed, refused, or answered nonsense; nobody may be judged by that.
    NoAnswer,
}

/// One list: its zone, and how it is read.
#[derive(Clone, Debug)]
pub struct DnsList {
    zone: Arc<str>,
    kind: ListKind,
    return_codes: Option<ReturnCodes>,
    ipv6: bool,
    /// Whether whoever is on it is let in.
    allows: bool,
    /// What is known of it, as soon as it was asked.
    record: OnceLock<Arc<ListRecord>>,
    /// How long it may take to answer.
    pub time_limit: Duration,
}

impl DnsList {
    /// A list in this zone. With return codes only those count as listed; with `ipv6` IPv6 clients are looked
    /// up.
    pub fn new(zone: &str, kind: ListKind, return_codes: Option<ReturnCodes>, ipv6: bool) -> Self {
        let zone: Arc<str> = zone.trim_matches('.').to_ascii_lowercase().into();
        note_zone(&zone);
        let (allows, record, time_limit) = (false, OnceLock::new(), DEFAULT_TIME_LIMIT);
        Self { zone, kind, return_codes, ipv6, allows, record, time_limit }
    }

    /// The same list where those on it are let in: what allow lists answer to whoever may not ask them counts
    /// for nothing, unless the return codes name it.
    pub fn allowing(self, allows: bool) -> Self {
        Self { allows, ..self }
    }

    /// The same list with another time limit.
    pub fn within(self, time_limit: Duration) -> Self {
        Self { time_limit, ..self }
    }

    /// The allow list that this is, if it is a known one.
    pub fn allow_list(&self) -> Option<&'static AllowList> {
        AllowList::of_zone(&self.zone)
    }

    /// Its zone.
    pub fn zone(&self) -> &Arc<str> {
        &self.zone
    }

    /// Whether names in the zone can be asked at all (RFC 1035 section 2.3.4).
    pub fn is_askable(&self) -> bool {
        /// The longest label, in bytes.
        const MAX_LABEL: usize = 63;
        let good = |label: &str| (1..=MAX_LABEL).contains(&label.len()) && !label.contains([' ', '\t']);
        self.zone.len() <= MAX_NAME && self.zone.split('.').all(good)
    }

    /// The question about a client (RFC 5782 sections 2.1 and 2.4); `None` for an IPv6 client unless the list
    /// is asked about those. An IPv4-mapped address is IPv6 as it stands, as in the original, and the IPv4
    /// client that it is where IPv6 is looked up. Postfix writes such a client as IPv4.
    pub fn question_for_address(&self, address: IpAddr) -> Option<Question> {
        let mut name = String::with_capacity(MAX_REVERSED + 1 + self.zone.len());
        match (address, address.to_canonical()) {
            (IpAddr::V6(_), _) if !self.ipv6 => return None,
            (_, IpAddr::V4(v4)) => push_reversed_octets(&mut name, v4),
            (_, IpAddr::V6(v6)) => push_reversed_nibbles(&mut name, v6),
        }
        Some(self.question(name))
    }

    /// The question about a domain, which may be whatever a client wrote; `None` if it can't be a name.
    pub fn question_for_domain(&self, domain: &[u8]) -> Option<Question> {
        let domain = str::from_utf8(domain).ok()?;
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        let fits = !domain.is_empty() && domain.len() + 1 + self.zone.len() <= MAX_NAME;
        fits.then(|| self.question(domain.to_owned()))
    }

    /// What the answer means. A list that does not answer is counted, and logged once an hour.
    ///
    /// All addresses that are listings count, each once, with return codes those that are among them, unless
    /// the list says the same of everybody. Only if there is none do error codes matter.
    pub fn judge(&self, answer: &Answer, health: &Health) -> Listing {
        let record = self.record.get_or_init(|| health.record(&self.zone));
        let mut listing = self.read(answer, health);
        if let Listing::Listed(listings) = &mut listing
            && record.ignores_some()
        {
            let all = listings.clone();
            record.retain_evidence(listings);
            if listings.is_empty() {
                listing = Listing::Ignored(all);
            }
        }
        record.count(match (&listing, answer) {
            (Listing::Listed(_), _) => ListAnswer::Listed,
            (Listing::NotListed, _) => ListAnswer::Clear,
            (Listing::Ignored(_), _) => ListAnswer::Ignored,
            (Listing::NoAnswer, Answer::Failed(Failure::TimedOut)) => ListAnswer::Timeout,
            (Listing::NoAnswer, Answer::Failed(_)) => ListAnswer::Error,
            (Listing::NoAnswer, _) => ListAnswer::Refused,
        });
        listing
    }

    fn read(&self, answer: &Answer, health: &Health) -> Listing {
        let addresses = match answer {
            Answer::Addresses(addresses) => addresses,
            Answer::Failed(failure) => return self.complain(failure, health),
            // A listing is an address, so nothing else was asked for.
            _ => return Listing::NotListed,
        };
        let is_wanted = |address: &Ipv4Addr| match &self.return_codes {
            Some(codes) => codes.contains(*address),
            None => true,
        };
        let (mut listings, mut is_usable) = (Vec::new(), false);
        for address in addresses.iter().filter(|address| self.is_listing(**address)) {
            is_usable = true;
            if is_wanted(address) && !listings.contains(address) && listings.len() < MAX_LISTINGS {
                listings.push(*address);
            }
        }
        match addresses.first() {
            Some(code) if !is_usable => {
                self.complain(&format_args!("{code}, {}", self.meaning(*code)), health)
            }
            _ if listings.is_empty() => Listing::NotListed,
            _ => Listing::Listed(listings),
        }
    }

    /// The zone as it may be shown.
    pub fn label(&self) -> String {
        without_key(&self.zone)
    }

    /// Whether the address means "listed". The others come from over-used or closed lists, from resolvers
    /// that lists refuse, from typing errors in the zone and from parked domains.
    fn is_listing(&self, address: Ipv4Addr) -> bool {
        if self.is_refusal(address) {
            return false;
        }
        match address.octets() {
            [127, 0, 0, 1] => self.means_good_by_loopback(address),
            [127, 255, 255, _] => false,
            [127, 0, 1, 255] => self.kind != ListKind::Domain,
            [first, ..] => first == 127,
        }
    }

    /// Whether 127.0.0.1 is a listing: in a known list that has its good clients there, if the file names it.
    fn means_good_by_loopback(&self, address: Ipv4Addr) -> bool {
        let is_wanted = self.return_codes.as_ref().is_some_and(|codes| codes.contains(address));
        is_wanted && self.allow_list().is_some_and(|list| list.has_bad_ones)
    }

    /// The return codes that can never be a listing, as far as whole parts of the option are.
    pub fn codes_without_effect(&self) -> Vec<String> {
        /// Larger parts have others in them.
        const MOST: u32 = 1 << 16;
        let Some(codes) = &self.return_codes else { return Vec::new() };
        let is_dead = |(start, end): &(Ipv4Addr, Ipv4Addr)| {
            let (start, end) = (start.to_bits(), end.to_bits());
            end - start < MOST && (start..=end).all(|bits| !self.is_listing(Ipv4Addr::from_bits(bits)))
        };
        let shown = |(start, end): (Ipv4Addr, Ipv4Addr)| match start == end {
            true => start.to_string(),
            false => format!("{start}-{end}"),
        };
        codes.parts().filter(is_dead).map(shown).collect()
    }

    /// What a known allow list answers to whoever may not ask it, where it is among the return codes.
    pub fn refusal_among_codes(&self) -> Option<Ipv4Addr> {
        let codes = self.return_codes.as_ref().filter(|_| self.allow_list().is_some())?;
        allow_lists::refusal_in(|address| codes.contains(address))
    }

    /// Whether it is what an allow list answers to whoever may not ask it. Of lists that are not known it is
    /// taken for that where they let clients in, unless the file names it as one of the answers that count.
    fn is_refusal(&self, address: Ipv4Addr) -> bool {
        match self.allow_list() {
            Some(_) => allow_lists::is_usual_refusal(address),
            None => self.allows && self.return_codes.is_none() && allow_lists::is_usual_refusal(address),
        }
    }

    /// Whether an answer may let a client in, where a user wants it and the file does not say it.
    pub fn may_allow(&self, address: Ipv4Addr) -> bool {
        self.return_codes.is_some() || !allow_lists::is_usual_refusal(address)
    }

    /// What an answer that is not a listing tells the one who runs the daemon.
    fn meaning(&self, code: Ipv4Addr) -> &'static str {
        if self.is_refusal(code) { "which means that it refuses our queries" } else { meaning(code) }
    }

    /// What is asked to find out whether the list answers at all: a name that nobody has asked before, so
    /// that no cache has the answer.
    fn trial(&self) -> Question {
        let number = RandomState::new().hash_one(Instant::now());
        let name = match self.kind {
            ListKind::Address => {
                let [a, b, c, ..] = number.to_be_bytes();
                format!("{c}.{b}.{a}.127")
            }
            ListKind::Domain => format!("t{number:x}.invalid"),
        };
        self.question(name)
    }

    /// Whether the list is known not to answer, so that nobody need wait for it. From time to time such a
    /// call has it tried in the background.
    pub fn is_silent(&self, dns: &Arc<Dns>, health: &Arc<Health>) -> bool {
        let (is_silent, is_trial_due) = health.is_silent(&self.zone, Instant::now());
        if is_trial_due {
            self.start_trial(dns, health);
        }
        is_silent
    }

    /// Notes that a question has got no answer in time. The list is tried at once, with a question of ours:
    /// it may have been this name alone that got none.
    pub fn timed_out(&self, dns: &Arc<Dns>, health: &Arc<Health>) {
        health.timed_out(&self.zone, Instant::now());
        self.is_silent(dns, health);
    }

    fn start_trial(&self, dns: &Arc<Dns>, health: &Arc<Health>) {
        let (dns, health, question) = (dns.clone(), health.clone(), self.trial());
        let (zone, label, limit) = (self.zone.clone(), self.label(), self.time_limit);
        tokio::spawn(async move {
            let answer = tokio::time::timeout(limit, dns.lookup(&question)).await;
            let is_answer = answer.is_ok_and(|answer| !matches!(answer, Answer::Failed(_)));
            let now = Instant::now();
            if let Some(silence) = health.trial_ended(&zone, is_answer, now) {
                lookups::list_back(label, silence.as_secs());
            }
        });
    }

    fn complain(&self, cause: &dyn Display, health: &Health) -> Listing {
        if let Some(failures) = health.failed(&self.zone, Instant::now()) {
            lookups::list_unusable(self.label(), cause, failures);
        }
        Listing::NoAnswer
    }

    fn question(&self, mut name: String) -> Question {
        name.push('.');
        name.push_str(&self.zone);
        Question::of_list(&name, RecordType::A, &self.zone)
    }
}

/// What an answer that is not a listing tells the one who runs the daemon. The codes are those of Spamhaus,
/// which others have taken over.
fn meaning(code: Ipv4Addr) -> &'static str {
    match code.octets() {
        [127, 255, 255, 252] => "the name of the zone is misspelt",
        [127, 255, 255, 254] => "the list refuses this name server, which many share; use one of your own",
        [127, 255, 255, 255] => "the list is asked too often from here",
        [127, ..] => "which is an error code",
        _ => "which lies outside 127.0.0.0/8; does the list still exist?",
    }
}

/// Appends the octets, the last one first. Each message has a dozen such names, and formatting takes longer
/// than asking.
fn push_reversed_octets(name: &mut String, address: Ipv4Addr) {
    let digit = |digit: u8| char::from(b'0' + digit);
    for (place, octet) in address.octets().into_iter().rev().enumerate() {
        if place > 0 {
            name.push('.');
        }
        if octet >= 100 {
            name.push(digit(octet / 100));
        }
        if octet >= 10 {
            name.push(digit(octet / 10 % 10));
        }
        name.push(digit(octet % 10));
    }
}

/// Appends the half octets in the same way.
fn push_reversed_nibbles(name: &mut String, address: Ipv6Addr) {
    let nibbles = address.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
    for (place, nibble) in nibbles.enumerate() {
        if place > 0 {
            name.push('.');
        }
        name.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
    }
}

#[cfg(test)]
mod tests;
