//! MaxMind's legacy format, `GeoIP.dat`: a binary tree over the bits of the address. A node is a pair of
//! records, for the bits 0 and 1. A record is the number of the next node; from a certain number on it says
//! what is known of the network. The last bytes of the file tell which edition it is.
//!
//! Knows: the bytes. Must not know: files.

use super::codes::by_number;
use super::{Contents, Found};
use std::net::IpAddr;

/// Of each of the two records of a node, with the least significant byte first.
const RECORD_BYTES: usize = 3;

/// What stands before the edition.
const MARKER: &[u8] = &[0xff; 3];

/// How far from the end the marker begins at most.
const MAX_TRAILER_BYTES: usize = 20;

/// What the numbers of editions were raised by in the first years.
const OLD_EDITIONS: u8 = 105;

/// In editions of countries the first record that is not a node, whose country is number 0.
const COUNTRIES_BEGIN: usize = 16_776_960;

/// The same in the editions for large files.
const LARGE_COUNTRIES_BEGIN: usize = 16_515_072;

/// The longest text about a network that is looked at: `AS15169 Google`.
const MAX_TEXT_BYTES: usize = 300;

/// A file of the legacy format.
pub struct Legacy {
    bytes: Vec<u8>,
    edition: Edition,
    /// The first record that is not a node.
    leaves: usize,
}

/// What a file says and for which addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edition {
    ipv6: bool,
    leaf: Leaf,
}

/// What stands at the end of a way through the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    /// The number of a country.
    Country,
    /// The same, with more room for nodes.
    LargeCountry,
    /// The place of a record of which the first byte is the number of the country.
    City,
    /// The place of a text that begins with the number of the network.
    Asn,
}

impl std::fmt::Debug for Legacy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Legacy").field("edition", &self.edition).finish_non_exhaustive()
    }
}

impl Legacy {
    /// A database from its bytes, or what is wrong with them.
    pub fn new(bytes: Vec<u8>) -> Result<Legacy, String> {
        let trailer = bytes.len().saturating_sub(MAX_TRAILER_BYTES);
        let last = bytes.get(trailer..).unwrap_or_default();
        let marker = last.windows(MARKER.len()).rposition(|window| window == MARKER);
        let structure = marker.and_then(|at| last.get(at + MARKER.len()..));
        let Some((&number, rest)) = structure.and_then(|structure| structure.split_first()) else {
            return Err("this is not a GeoIP database, or only a part of one".to_owned());
        };
        let number = if number > OLD_EDITIONS { number - OLD_EDITIONS } else { number };
        let edition = Edition::of(number)?;
        let leaves = match edition.leaf {
            Leaf::Country => COUNTRIES_BEGIN,
            Leaf::LargeCountry => LARGE_COUNTRIES_BEGIN,
            Leaf::City | Leaf::Asn => number_of(rest).ok_or("the file does not say how many nodes it has")?,
        };
        Ok(Legacy { bytes, edition, leaves })
    }

    /// What it can say.
    pub fn contents(&self) -> Contents {
        let asns = self.edition.leaf == Leaf::Asn;
        Contents { countries: !asns, asns }
    }

    /// What it says of an address, or what is corrupt.
    pub fn lookup(&self, ip: IpAddr) -> Result<Found, String> {
        let leaf = match (ip, self.edition.ipv6) {
            (IpAddr::V4(ip), false) => self.leaf(ip.to_bits().into(), 32)?,
            // Of IPv4 addresses the editions for IPv6 know under `::192.0.2.1`.
            (IpAddr::V4(ip), true) => self.leaf(ip.to_bits().into(), 128)?,
            (IpAddr::V6(ip), true) => self.leaf(ip.to_bits(), 128)?,
            (IpAddr::V6(_), false) => return Ok(Found::default()),
        };
        let country = |number| match by_number(number) {
            Some((country, continent)) => Found { country: Some(country), continent, asn: None },
            None => Found::default(),
        };
        match self.edition.leaf {
            Leaf::Country | Leaf::LargeCountry => Ok(country(leaf)),
            Leaf::City | Leaf::Asn if leaf == 0 => Ok(Found::default()),
            Leaf::City => {
                let first = self.record(leaf)?.first().ok_or(CORRUPT)?;
                Ok(country(usize::from(*first)))
            }
            Leaf::Asn => {
                let text = self.record(leaf)?;
                Ok(Found { asn: asn_of(&text[..text.len().min(MAX_TEXT_BYTES)]), ..Found::default() })
            }
        }
    }

    /// The end of the path of an address with this many bits through the tree, counted from 0.
    fn leaf(&self, address: u128, bits: u32) -> Result<usize, String> {
        let mut node = 0;
        for bit in (0..bits).rev() {
            let side = usize::from(address >> bit & 1 == 1);
            // A record has three bytes, so no number overflows.
            let at = (2 * node + side) * RECORD_BYTES;
            node = self.bytes.get(at..).and_then(number_of).ok_or(CORRUPT)?;
            if let Some(leaf) = node.checked_sub(self.leaves) {
                return Ok(leaf);
            }
        }
        Err(CORRUPT.to_owned())
    }

    /// What the file has about a network: it stands behind the nodes.
    fn record(&self, leaf: usize) -> Result<&[u8], String> {
        self.bytes.get(2 * RECORD_BYTES * self.leaves + leaf..).ok_or_else(|| CORRUPT.to_owned())
    }
}

const CORRUPT: &str = "the database is corrupt";

impl Edition {
    fn of(number: u8) -> Result<Edition, String> {
        let edition = |ipv6, leaf| Ok(Edition { ipv6, leaf });
        match number {
            1 => edition(false, Leaf::Country),
            12 => edition(true, Leaf::Country),
            17 => edition(false, Leaf::LargeCountry),
            18 => edition(true, Leaf::LargeCountry),
            2 | 6 => edition(false, Leaf::City),
            30 | 31 => edition(true, Leaf::City),
            9 => edition(false, Leaf::Asn),
            21 => edition(true, Leaf::Asn),
            other => Err(format!("edition {other} of GeoIP has neither countries nor numbers of networks")),
        }
    }
}

/// The number of three bytes.
fn number_of(bytes: &[u8]) -> Option<usize> {
    let record = bytes.first_chunk::<RECORD_BYTES>()?;
    Some(record.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
}

/// The number in a text such as `AS15169 Google`, which ends with a zero byte. Nobody has 0 (RFC 7607).
fn asn_of(text: &[u8]) -> Option<u32> {
    let text = text.strip_prefix(b"AS")?;
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&text[..digits]).ok()?.parse().ok().filter(|number| *number != 0)
}
