//! The present format, `.mmdb`: MaxMind's GeoLite2 and GeoIP2, DB-IP, IPinfo.
//!
//! Knows: the crate that reads the format, and where providers put what. Must not know: files.

use super::codes::Code;
use super::{Contents, Found};
use maxminddb::{MaxMindDbError, PathElement, Reader};
use serde_json::Value as Json;
use std::net::IpAddr;

/// What begins the description of a database, at the end of its file.
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";

/// How far from the end of a file the format has it at most.
const MAX_DESCRIPTION_BYTES: usize = 128 << 10;

/// A database in memory. It is not mapped: a program that writes into the file would end the daemon.
#[derive(Debug)]
pub struct Mmdb {
    reader: Reader<Vec<u8>>,
}

/// Where a value stands in what is known of a network.
type RecordPath = &'static [PathElement<'static>];

const COUNTRY: [RecordPath; 4] = [
    &[PathElement::Key("country"), PathElement::Key("iso_code")],
    // Of some networks only that is known, and the legacy files were made so.
    &[PathElement::Key("registered_country"), PathElement::Key("iso_code")],
    &[PathElement::Key("country_code")],
    &[PathElement::Key("country")],
];

const CONTINENT: [RecordPath; 3] = [
    &[PathElement::Key("continent"), PathElement::Key("code")],
    &[PathElement::Key("continent_code")],
    &[PathElement::Key("continent")],
];

/// As a number, or as a text: `AS15169`.
const ASN: [RecordPath; 3] = [
    &[PathElement::Key("autonomous_system_number")],
    &[PathElement::Key("traits"), PathElement::Key("autonomous_system_number")],
    &[PathElement::Key("asn")],
];

/// Whether a file is of this format.
pub(super) fn is_mmdb(bytes: &[u8]) -> bool {
    let tail = &bytes[bytes.len().saturating_sub(MAX_DESCRIPTION_BYTES)..];
    tail.windows(MARKER.len()).any(|window| window == MARKER)
}

impl Mmdb {
    /// A database from its bytes, or what is wrong with them.
    pub fn new(bytes: Vec<u8>) -> Result<Mmdb, String> {
        Reader::from_source(bytes).map(|reader| Mmdb { reader }).map_err(|error| error.to_string())
    }

    /// What it can say, by the name of its kind; one that does not tell may have both.
    pub fn contents(&self) -> Contents {
        let kind = self.reader.metadata().database_type.to_ascii_lowercase();
        let asns = kind.contains("asn");
        let countries = kind.contains("country") || kind.contains("city");
        Contents { countries: countries || !asns, asns: asns || !countries }
    }

    /// What it says of an address, or what is corrupt.
    pub fn lookup(&self, ip: IpAddr) -> Result<Found, String> {
        if ip.is_ipv6() && self.reader.metadata().ip_version == 4 {
            return Ok(Found::default());
        }
        self.decode(ip).map_err(|error| error.to_string())
    }

    fn decode(&self, ip: IpAddr) -> Result<Found, MaxMindDbError> {
        let record = self.reader.lookup(ip)?;
        let contents = self.contents();
        let text = |place| record.decode_path::<&str>(place);
        let known = |code: &str| code.parse().ok().filter(|code: &Code| !code.is_unknown());
        let code = |place| Ok(text(place)?.and_then(known));
        let mut found = Found::default();
        if contents.countries {
            found.country = first(&COUNTRY, code)?;
            found.continent = first(&CONTINENT, code)?;
        }
        if contents.asns {
            // The crate reads a number only in the width that is asked for, and JSON has them all.
            found.asn =
                first(&ASN, |place| Ok(record.decode_path::<Json>(place)?.as_ref().and_then(asn_of)))?;
        }
        Ok(found)
    }
}

/// The number in `AS15169`, `15169` and their like, and in a number. Nobody has 0 (RFC 7607).
fn asn_of(value: &Json) -> Option<u32> {
    number_in(value).filter(|number| *number != 0)
}

fn number_in(value: &Json) -> Option<u32> {
    let text = match value {
        Json::Number(number) => return number.as_u64()?.try_into().ok(),
        Json::String(text) => text.trim(),
        _ => return None,
    };
    let number = text.get(..2).filter(|start| start.eq_ignore_ascii_case("AS")).map_or(text, |_| &text[2..]);
    number.trim().parse().ok()
}

/// What stands at the first of several places that can be read. Providers put values of other forms there, or
/// of other types where others have theirs: such a value says nothing, and is not a failure.
fn first<V>(
    places: &[RecordPath],
    at: impl Fn(RecordPath) -> Result<Option<V>, MaxMindDbError>,
) -> Result<Option<V>, MaxMindDbError> {
    for place in places {
        match at(place) {
            Ok(None) | Err(MaxMindDbError::Decoding { .. }) => {}
            found => return found,
        }
    }
    Ok(None)
}
