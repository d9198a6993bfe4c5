//! The filter of a block: whether one of its decisions may name a sender, a client or another key.
//!
//! Knows: hashes, which attributes are keys. Must not know: blocks, the file.

use crate::{Decision, Filter};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The size of a filter: with ten keys a decision and 256 decisions, one key in fifty that is not there seems
/// to be.
pub(super) const BYTES: usize = 2_560;
const PROBES: u64 = 7;

/// What a key is of. The numbers are part of the format.
#[derive(Clone, Copy)]
enum Kind {
    Sender = 1,
    SenderDomain = 2,
    Recipient = 3,
    RecipientDomain = 4,
    Client = 5,
    Network = 6,
    ClientName = 7,
    Helo = 8,
    Login = 9,
    Queue = 10,
    Instance = 11,
}

/// The filter of a block.
#[derive(Clone)]
pub(super) struct Bloom(Box<[u8]>);

/// A key as a filter has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(u64);

impl Default for Bloom {
    fn default() -> Bloom {
        Bloom(vec![0; BYTES].into())
    }
}

impl Bloom {
    /// Adds the keys of a decision.
    pub fn add(&mut self, decision: &Decision) {
        let mut is_last_client = None;
        for (name, value) in decision.attributes() {
            let mut add = |kind, value: &[u8]| self.add_key(key(kind, value));
            match name {
                // Of a repeated attribute the last counts; that of the others may be found costs little.
                _ if value.is_empty() => {}
                b"sender" => add_address(value, Kind::Sender, Kind::SenderDomain, &mut add),
                b"recipient" => add_address(value, Kind::Recipient, Kind::RecipientDomain, &mut add),
                b"client_name" => add(Kind::ClientName, value),
                b"helo_name" => add(Kind::Helo, value),
                b"sasl_username" => add(Kind::Login, value),
                b"queue_id" => add(Kind::Queue, value),
                b"instance" => add(Kind::Instance, value),
                b"client_address" => {
                    is_last_client = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                }
                _ => {}
            }
        }
        if let Some(client) = is_last_client {
            self.add_key(client_key(client));
            self.add_key(network_key(client));
        }
    }

    fn add_key(&mut self, key: Key) {
        for bit in bits(key) {
            self.0[bit / 8] |= 1 << (bit % 8);
        }
    }

    /// Its bytes, as the file has them.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        self.0.fill(0);
    }
}

/// Whether a filter may have a key; one of another size has all.
pub(super) fn may_have(filter: &[u8], key: Key) -> bool {
    filter.len() != BYTES || bits(key).all(|bit| filter[bit / 8] & 1 << (bit % 8) != 0)
}

fn bits(key: Key) -> impl Iterator<Item = usize> {
    // Two halves of one hash, combined, are as good as seven hashes (Kirsch and Mitzenmacher, 2006).
    let (first, second) = (key.0 & 0xffff_ffff, key.0 >> 32 | 1);
    let all = BYTES as u64 * 8;
    (0..PROBES).map(move |n| usize::try_from((first + n * second) % all).unwrap_or_default())
}

fn key(kind: Kind, value: &[u8]) -> Key {
    Key(hash(kind as u64, value))
}

fn add_address(value: &[u8], whole: Kind, domain: Kind, add: &mut impl FnMut(Kind, &[u8])) {
    add(whole, value);
    if let Some(at) = value.iter().rposition(|byte| *byte == b'@') {
        add(domain, &value[at..]);
    }
}

fn client_key(client: IpAddr) -> Key {
    address_key(Kind::Client, client.to_canonical())
}

/// The key of the network /24 or /48 that an address is in.
fn network_key(client: IpAddr) -> Key {
    address_key(Kind::Network, network_of(client))
}

/// The first address of the network /24 or /48 that an address is in.
pub(super) fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(it) => Ipv4Addr::from_bits(it.to_bits() & !0xff).into(),
        IpAddr::V6(it) => Ipv6Addr::from_bits(it.to_bits() & !((1 << 80) - 1)).into(),
    }
}

fn address_key(kind: Kind, address: IpAddr) -> Key {
    match address {
        IpAddr::V4(it) => key(kind, &it.octets()),
        IpAddr::V6(it) => key(kind, &it.octets()),
    }
}

/// The keys that a block has to have for a filter, if it has a decision that the filter wants.
pub(super) fn wanted(filter: &Filter) -> Vec<Key> {
    let mut keys = Vec::new();
    for (wanted, whole, domain) in [
        (&filter.from, Kind::Sender, Kind::SenderDomain),
        (&filter.to, Kind::Recipient, Kind::RecipientDomain),
    ] {
        let wanted = wanted.as_deref().unwrap_or_default();
        match wanted.as_bytes() {
            [] => {}
            [b'@', ..] => keys.push(key(domain, wanted.as_bytes())),
            _ => keys.push(key(whole, wanted.as_bytes())),
        }
    }
    for (wanted, kind) in [
        (&filter.client_name, Kind::ClientName),
        (&filter.helo, Kind::Helo),
        (&filter.login, Kind::Login),
        (&filter.queue, Kind::Queue),
        (&filter.instance, Kind::Instance),
    ] {
        let wanted = wanted.as_deref().filter(|wanted| !wanted.is_empty());
        keys.extend(wanted.map(|wanted| key(kind, wanted.as_bytes())));
    }
    if let Some((address, bits)) = filter.client.as_deref().and_then(crate::filter::network) {
        let (network, whole) = if address.is_ipv4() { (24, 32) } else { (48, 128) };
        match bits {
            _ if address.to_canonical() != address => {}
            _ if bits == whole => keys.push(client_key(address)),
            _ if bits >= network => keys.push(network_key(address)),
            _ => {}
        }
    }
    keys
}

/// A hash of letters without regard to case; part of the format, so it stays as it is.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let mut hash = mix(seed, bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(chunk) {
            *to = from.to_ascii_lowercase();
        }
        hash = mix(hash, u64::from_le_bytes(word));
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ hash >> 32
}
