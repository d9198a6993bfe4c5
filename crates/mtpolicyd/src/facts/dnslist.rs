//! DNS lists (RFC 5782): what is asked of a list, and what its answer means.
//!
//! Knows: DNS questions and answers. Must not know: what an answer leads to.

mod allow_lists;
mod health;
mod key;
mod return_codes;
mod text;

use crate::log::messages::lookups;
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backends::dns::{Answer, Dns, Question, RecordType};

pub use allow_lists::AllowList;
pub use health::Health;
pub use key::{hide_key, without_key};
pub use return_codes::{ReturnCodes, ReturnCodesError};
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
    /// The list failed, refused, or answered nonsense; nobody may be judged by that.
    NoAnswer,
}

/// One list: its zone, and how it is read.
#[derive(Debug)]
pub struct DnsList {
    zone: Arc<str>,
    kind: ListKind,
    return_codes: Option<ReturnCodes>,
    ipv6: bool,
    /// Whether whoever is on it is let in.
    allows: bool,
    /// How long it may take to answer.
    pub time_limit: Duration,
}

impl DnsList {
    /// A list in this zone. With return codes only those count as listed; with `ipv6` IPv6 clients are looked
    /// up.
    pub fn new(zone: &str, kind: ListKind, return_codes: Option<ReturnCodes>, ipv6: bool) -> Self {
        let zone = zone.trim_matches('.').to_ascii_lowercase().into();
        Self { zone, kind, return_codes, ipv6, allows: false, time_limit: DEFAULT_TIME_LIMIT }
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
    /// All addresses that are listings count, each once, with return codes those that are among them. Only if
    /// there is none do error codes matter.
    pub fn judge(&self, answer: &Answer, health: &Health) -> Listing {
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
mod tests {
    use super::*;
    use backends::dns::{Failure, Zone};

    fn addresses(list: &[[u8; 4]]) -> Answer {
        Answer::Addresses(list.iter().map(|&octets| octets.into()).collect())
    }

    fn list(kind: ListKind) -> DnsList {
        DnsList::new("bl.test", kind, None, false)
    }

    fn judge(list: &DnsList, answer: &Answer) -> Listing {
        list.judge(answer, &Health::default())
    }

    fn listed(a: u8, b: u8, c: u8, d: u8) -> Listing {
        Listing::Listed(vec![Ipv4Addr::new(a, b, c, d)])
    }

    #[test]
    fn clients_are_asked_in_reverse() {
        let v4 = list(ListKind::Address);
        let name = |list: &DnsList, address: &str| {
            list.question_for_address(address.parse().unwrap()).map(|question| question.name.to_string())
        };
        assert_eq!(name(&v4, "192.0.2.10").unwrap(), "10.2.0.192.bl.test");
        assert_eq!(name(&v4, "2001:db8::1"), None);
        assert_eq!(name(&v4, "::ffff:192.0.2.10"), None, "as in the original");
        let both = DnsList::new("BL.test.", ListKind::Address, None, true);
        assert_eq!(name(&both, "::ffff:192.0.2.10").unwrap(), "10.2.0.192.bl.test");
        assert_eq!(
            name(&both, "2001:db8:1:2:3:4:567:89ab").unwrap(),
            "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2.bl.test"
        );
    }

    #[test]
    fn domains_are_asked_as_they_stand() {
        let list = list(ListKind::Domain);
        let name = |domain: &[u8]| list.question_for_domain(domain).map(|question| question.name.to_string());
        assert_eq!(name(b"b@BAD.example").unwrap(), "b@bad.example.bl.test");
        assert_eq!(name(b"bad.example.").unwrap(), "bad.example.bl.test");
        assert_eq!(name(b""), None);
        assert_eq!(name(b"."), None);
        assert_eq!(name(b"\xff.example"), None);
        assert_eq!(name(&[b'a'; 100_000]), None);
    }

    #[test]
    fn zones_that_are_no_names() {
        let askable = |zone| DnsList::new(zone, ListKind::Address, None, false).is_askable();
        assert!(askable("zen.example.") && askable("a_b.example"));
        for zone in ["", ".", "a..b", "zen spamhaus.org", &"a.".repeat(200), &"a".repeat(64)] {
            assert!(!askable(zone), "{zone}");
        }
    }

    #[test]
    fn listings_lie_in_127_and_are_no_error_codes() {
        let (clients, domains) = (list(ListKind::Address), list(ListKind::Domain));
        for list in [&clients, &domains] {
            assert_eq!(judge(list, &addresses(&[[127, 0, 0, 2]])), listed(127, 0, 0, 2));
            assert_eq!(judge(list, &addresses(&[[127, 255, 254, 255]])), listed(127, 255, 254, 255));
            for no_listing in
                [[127, 0, 0, 1], [127, 255, 255, 252], [127, 255, 255, 0], [192, 0, 2, 1], [0, 0, 0, 0]]
            {
                assert_eq!(judge(list, &addresses(&[no_listing])), Listing::NoAnswer, "{no_listing:?}");
            }
            assert_eq!(judge(list, &Answer::Nothing), Listing::NotListed);
            assert_eq!(judge(list, &addresses(&[])), Listing::NotListed);
            assert_eq!(judge(list, &Answer::Failed(Failure::TimedOut)), Listing::NoAnswer);
        }
        assert_eq!(judge(&clients, &addresses(&[[127, 0, 1, 255]])), listed(127, 0, 1, 255));
        assert_eq!(judge(&domains, &addresses(&[[127, 0, 1, 255]])), Listing::NoAnswer);
    }

    #[test]
    fn all_usable_addresses_count() {
        let list = list(ListKind::Address);
        let all = |all: &[[u8; 4]]| Listing::Listed(all.iter().map(|octets| (*octets).into()).collect());
        let both = [[127, 0, 0, 10], [127, 0, 0, 2], [127, 0, 0, 10]];
        assert_eq!(judge(&list, &addresses(&both)), all(&both[..2]));
        assert_eq!(judge(&list, &addresses(&[[127, 0, 0, 1], [127, 0, 0, 2]])), listed(127, 0, 0, 2));
        let many: Vec<_> = (1..=200).map(|n| [127, 0, 2, n]).collect();
        assert_eq!(judge(&list, &addresses(&many)), all(&many[..MAX_LISTINGS]));
    }

    #[test]
    fn what_an_allow_list_says_to_who_asks_too_often_allows_nobody() {
        let listing = |zone: &str, codes: Option<&str>, allows: bool, address: [u8; 4]| {
            let codes = codes.map(|codes| codes.parse().unwrap());
            judge(
                &DnsList::new(zone, ListKind::Address, codes, false).allowing(allows),
                &addresses(&[address]),
            )
        };
        for refusal in [[127, 0, 0, 255], [127, 0, 10, 0], [127, 0, 10, 3], [127, 0, 10, 255]] {
            let Listing::Listed(addresses) = listed(refusal[0], refusal[1], refusal[2], refusal[3]) else {
                unreachable!()
            };
            // The known list, whatever is made of it and whatever the codes say.
            for zone in ["list.dnswl.org", "DNSWL.org."] {
                for allows in [true, false] {
                    for codes in [None, Some("127.0.0.2-127.0.20.3")] {
                        assert_eq!(listing(zone, codes, allows, refusal), Listing::NoAnswer, "{zone}");
                    }
                }
            }
            // Another one that lets clients in, unless the file names the code.
            assert_eq!(listing("wl.test", None, true, refusal), Listing::NoAnswer);
            let all = Some("127.0.0.0/8");
            for (codes, allows) in [(None, false), (all, false), (all, true)] {
                assert_eq!(listing("wl.test", codes, allows, refusal), Listing::Listed(addresses.clone()));
            }
        }
        assert_eq!(listing("list.dnswl.org", None, true, [127, 0, 5, 2]), listed(127, 0, 5, 2));
        assert_eq!(listing("notdnswl.org", None, false, [127, 0, 10, 3]), listed(127, 0, 10, 3));
    }

    #[test]
    fn a_trial_asks_what_nobody_has_asked() {
        for kind in [ListKind::Address, ListKind::Domain] {
            let list = list(kind);
            let (first, second) = (list.trial(), list.trial());
            assert_ne!(first, second);
            assert!(first.name.ends_with(if kind == ListKind::Domain {
                ".invalid.bl.test"
            } else {
                ".127.bl.test"
            }));
            assert_eq!(first.list.as_deref(), Some("bl.test"));
        }
    }

    #[tokio::test]
    async fn a_list_that_has_not_answered_is_tried_at_once() {
        let (dns, health) = (Arc::new(Dns::Fake(Zone::default())), Arc::new(Health::default()));
        let list = list(ListKind::Address);
        assert!(!list.is_silent(&dns, &health));
        list.timed_out(&dns, &health);
        assert!(list.is_silent(&dns, &health), "nobody waits for it");
        // The name of the trial is not there, which is an answer: it was that one question alone.
        while health.is_known_silent("bl.test") {
            tokio::task::yield_now().await;
        }
        let Dns::Fake(zone) = &*dns else { unreachable!() };
        assert_eq!(zone.asked().len(), 1);
    }

    #[test]
    fn return_codes_narrow_a_list() {
        let codes = "127.0.0.2-11, 127.0.1.0/24".parse().unwrap();
        let list = DnsList::new("bl.test", ListKind::Address, Some(codes), false);
        assert_eq!(judge(&list, &addresses(&[[127, 0, 0, 11]])), listed(127, 0, 0, 11));
        assert_eq!(judge(&list, &addresses(&[[127, 0, 0, 12]])), Listing::NotListed);
        assert_eq!(judge(&list, &addresses(&[[127, 0, 0, 12], [127, 0, 1, 9]])), listed(127, 0, 1, 9));
        assert_eq!(judge(&list, &addresses(&[[127, 255, 255, 254]])), Listing::NoAnswer);
    }
}
