//! Writes small databases of countries and networks, in the formats that `facts/geoip` reads. For tests only.
//!
//! Knows: the formats. Must not know: how they are read.

use std::net::IpAddr;

/// Where a bit of an address leads to.
#[derive(Clone, Copy, Debug)]
enum Record {
    Nothing,
    Node(usize),
    Leaf(usize),
}

/// A binary tree over the bits of addresses.
struct Tree {
    /// The number of bits of an address.
    bits: u32,
    nodes: Vec<[Record; 2]>,
}

impl Tree {
    /// A tree with the networks, each with the number of what is said of it; a network stands before those in
    /// it. An IPv4 one has 96 zero bits before it among IPv6 ones.
    fn new<'a>(ipv6: bool, networks: impl Iterator<Item = (&'a str, usize)>) -> Tree {
        let bits = if ipv6 { 128 } else { 32 };
        let mut tree = Tree { bits, nodes: vec![[Record::Nothing; 2]] };
        for (network, leaf) in networks {
            let (ip, prefix) = network.split_once('/').expect("a network");
            let prefix: u32 = prefix.parse().expect("the length of a prefix");
            let ip: IpAddr = ip.parse().expect("an address");
            match ip {
                IpAddr::V4(ip) => tree.put(ip.to_bits().into(), prefix + bits - 32, leaf),
                IpAddr::V6(ip) => tree.put(ip.to_bits(), prefix, leaf),
            }
        }
        tree
    }

    fn put(&mut self, address: u128, prefix: u32, leaf: usize) {
        let mut node = 0;
        for depth in 1..=prefix {
            let side = usize::from(address >> (self.bits - depth) & 1 == 1);
            if depth == prefix {
                self.nodes[node][side] = Record::Leaf(leaf);
                return;
            }
            node = match self.nodes[node][side] {
                Record::Node(next) => next,
                other => {
                    let next = self.nodes.len();
                    self.nodes.push([other; 2]);
                    self.nodes[node][side] = Record::Node(next);
                    next
                }
            };
        }
    }

    /// The records in their order.
    fn records(&self) -> impl Iterator<Item = Record> + '_ {
        self.nodes.iter().flatten().copied()
    }
}

/// The first record of a country that is not a node.
const COUNTRIES_BEGIN: usize = 16_776_960;

/// The numbers of the legacy editions.
pub mod edition {
    /// Countries of IPv4 addresses.
    pub const COUNTRY: u8 = 1;
    /// Countries of IPv6 addresses.
    pub const COUNTRY_V6: u8 = 12;
    /// Cities of IPv4 addresses.
    pub const CITY: u8 = 2;
    /// Networks of IPv4 addresses.
    pub const ASN: u8 = 9;
    /// Networks of IPv6 addresses.
    pub const ASN_V6: u8 = 21;
}

/// A legacy database of countries, by their numbers: 56 is Germany, 225 the United States.
pub fn legacy_countries(edition: u8, networks: &[(&str, u8)]) -> Vec<u8> {
    let numbers = networks.iter().map(|(network, country)| (*network, usize::from(*country)));
    let tree = Tree::new(edition == edition::COUNTRY_V6, numbers);
    let mut file = Vec::new();
    for record in tree.records() {
        let number = match record {
            Record::Nothing => COUNTRIES_BEGIN,
            Record::Node(node) => node,
            Record::Leaf(country) => COUNTRIES_BEGIN + country,
        };
        file.extend(&number.to_le_bytes()[..3]);
    }
    file.extend(b"\0\0\0made for a test\xff\xff\xff");
    file.push(edition);
    file
}

/// A legacy database that says something else of each network.
pub fn legacy_records(edition: u8, networks: &[(&str, &[u8])]) -> Vec<u8> {
    // Number 0 means nothing.
    let mut texts = vec![0];
    let places: Vec<_> = networks
        .iter()
        .map(|(network, text)| {
            let place = texts.len();
            texts.extend_from_slice(text);
            texts.push(0);
            (*network, place)
        })
        .collect();
    let tree = Tree::new(edition == edition::ASN_V6, places.into_iter());
    let count = tree.nodes.len();
    let mut file = Vec::new();
    for record in tree.records() {
        let number = match record {
            Record::Nothing => count,
            Record::Node(node) => node,
            Record::Leaf(place) => count + place,
        };
        file.extend(&number.to_le_bytes()[..3]);
    }
    file.extend(texts);
    file.extend(b"\0\0\0\xff\xff\xff");
    file.push(edition);
    file.extend(&count.to_le_bytes()[..3]);
    file
}

/// What the present format says of a network.
#[derive(Clone, Debug)]
pub enum Data {
    /// Keys and values.
    Map(Vec<(&'static str, Data)>),
    /// A text.
    Text(&'static str),
    /// A number.
    Number(u32),
    /// A number in two bytes.
    Short(u16),
    /// A number in eight bytes.
    Long(u64),
}

/// What GeoLite2-Country has.
pub fn country(country: &'static str, continent: &'static str) -> Data {
    Data::Map(vec![
        ("continent", Data::Map(vec![("code", Data::Text(continent)), ("geoname_id", Data::Number(1))])),
        ("country", Data::Map(vec![("geoname_id", Data::Number(2)), ("iso_code", Data::Text(country))])),
    ])
}

/// What GeoLite2-ASN has.
pub fn asn(number: u32) -> Data {
    let operator = Data::Text("an operator with a name of more than 28 bytes");
    Data::Map(vec![
        ("autonomous_system_number", Data::Number(number)),
        ("autonomous_system_organization", operator),
    ])
}

/// A database of the present format, of the kind `GeoLite2-Country` for example.
pub fn mmdb(kind: &str, ipv6: bool, networks: &[(&str, Data)]) -> Vec<u8> {
    /// What lies between the tree and the data.
    const GAP: usize = 16;
    let mut data = Vec::new();
    let places: Vec<_> = networks
        .iter()
        .map(|(network, said)| {
            let place = data.len();
            encode(said, &mut data);
            (*network, place)
        })
        .collect();
    let tree = Tree::new(ipv6, places.into_iter());
    let count = tree.nodes.len();
    let mut file = Vec::new();
    for record in tree.records() {
        let number = match record {
            Record::Nothing => count,
            Record::Node(node) => node,
            Record::Leaf(place) => count + GAP + place,
        };
        file.extend(&number.to_be_bytes()[std::mem::size_of::<usize>() - 3..]);
    }
    file.extend([0; GAP]);
    file.extend(data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    describe(kind, ipv6, count, &mut file);
    file
}

const TEXT: usize = 2;
const U16: usize = 5;
const U32: usize = 6;
const MAP: usize = 7;
const U64: usize = 9;
const ARRAY: usize = 11;

fn describe(kind: &str, ipv6: bool, nodes: usize, file: &mut Vec<u8>) {
    let version = if ipv6 { 6 } else { 4 };
    begin(MAP, 9, file);
    for (key, number) in [
        ("binary_format_major_version", 2),
        ("binary_format_minor_version", 0),
        ("ip_version", version),
        ("record_size", 24),
    ] {
        text(key, file);
        begin(U16, 1, file);
        file.push(number);
    }
    text("node_count", file);
    begin(U32, 4, file);
    file.extend(u32::try_from(nodes).expect("a small tree").to_be_bytes());
    text("build_epoch", file);
    begin(U64, 8, file);
    file.extend(1_764_000_000_u64.to_be_bytes());
    text("database_type", file);
    text(kind, file);
    text("languages", file);
    begin(ARRAY, 0, file);
    text("description", file);
    begin(MAP, 0, file);
}

fn encode(data: &Data, file: &mut Vec<u8>) {
    match data {
        Data::Text(said) => text(said, file),
        Data::Number(number) => {
            begin(U32, 4, file);
            file.extend(number.to_be_bytes());
        }
        Data::Short(number) => {
            begin(U16, 2, file);
            file.extend(number.to_be_bytes());
        }
        Data::Long(number) => {
            begin(U64, 8, file);
            file.extend(number.to_be_bytes());
        }
        Data::Map(entries) => {
            begin(MAP, entries.len(), file);
            for (key, value) in entries {
                text(key, file);
                encode(value, file);
            }
        }
    }
}

fn text(said: &str, file: &mut Vec<u8>) {
    begin(TEXT, said.len(), file);
    file.extend(said.as_bytes());
}

/// The first bytes of a value: its type in three bits, or with another byte for the later types, and its size
/// in five, or with another byte.
fn begin(kind: usize, size: usize, file: &mut Vec<u8>) {
    let (first, later) = if kind < 8 { (kind, None) } else { (0, Some(kind - 7)) };
    let (short, long) = if size < 29 { (size, None) } else { (29, Some(size - 29)) };
    for part in [Some(first << 5 | short), later, long].into_iter().flatten() {
        file.push(u8::try_from(part).expect("a small value"));
    }
}
