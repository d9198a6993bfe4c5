//! Which country, continent and network an address belongs to, as the databases of MaxMind and others say:
//! the legacy format (`GeoIP.dat`) and the present one (`.mmdb`).
//!
//! Knows: files and their formats. Must not know: what is done with an answer.

mod codes;
mod legacy;
mod mmdb;

pub use codes::{Code, continents, is_country, suggestion};

use self::legacy::Legacy;
use self::mmdb::Mmdb;
use super::file::CachedFile;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The largest file that is read. It is kept in memory; the largest on sale has half of it.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A database as it was read from its file.
#[derive(Debug)]
pub enum Database {
    /// Of the legacy format.
    Legacy(Legacy),
    /// Of the present one.
    Mmdb(Mmdb),
}

/// What a database says of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The country.
    pub country: Option<Code>,
    /// The continent.
    pub continent: Option<Code>,
    /// The number of the autonomous system, which is the network of one operator.
    pub asn: Option<u32>,
}

/// What a database can say at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Countries and continents.
    pub countries: bool,
    /// Numbers of autonomous systems.
    pub asns: bool,
}

impl Database {
    /// Reads a file, or says what is wrong with it. It blocks.
    pub fn read(path: &Path) -> Result<Database, String> {
        let bytes = safe_files::read(path, MAX_FILE_BYTES);
        Database::from_bytes(bytes.map_err(|error| super::file::plain(&error))?)
    }

    /// A database from what its file holds, or what is wrong with it.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Database, String> {
        match mmdb::is_mmdb(&bytes) {
            true => Mmdb::new(bytes).map(Database::Mmdb),
            false => Legacy::new(bytes).map(Database::Legacy),
        }
    }

    /// What it can say.
    pub fn contents(&self) -> Contents {
        match self {
            Database::Legacy(legacy) => legacy.contents(),
            Database::Mmdb(mmdb) => mmdb.contents(),
        }
    }

    /// What it says of an address; nothing of an IPv6 one where it knows only IPv4. An IPv4 address that is
    /// written as an IPv6 one (`::ffff:192.0.2.1`) is that IPv4 address. The error says what is corrupt.
    pub fn lookup(&self, ip: IpAddr) -> Result<Found, String> {
        match self {
            Database::Legacy(legacy) => legacy.lookup(ip.to_canonical()),
            Database::Mmdb(mmdb) => mmdb.lookup(ip.to_canonical()),
        }
    }
}

/// A database whose file may be replaced at any time.
pub type DatabaseFile = CachedFile<Database>;

/// The database in a file, which is read at the first use. All who name the file share what was read: it may
/// have a hundred megabytes, and a reload makes plugins anew.
pub fn open(path: &str) -> Arc<DatabaseFile> {
    static OPEN: Mutex<BTreeMap<PathBuf, Weak<DatabaseFile>>> = Mutex::new(BTreeMap::new());
    let path = PathBuf::from(path);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = open.get(&path).and_then(Weak::upgrade) {
        return file;
    }
    open.retain(|_, file| file.strong_count() > 0);
    let file = CachedFile::new(path.clone(), Database::read);
    open.insert(path, Arc::downgrade(&file));
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::geoip::{Data, asn, country, edition, legacy_countries, legacy_records, mmdb};
    use proptest::prelude::*;

    const GERMANY: u8 = 56;
    const USA: u8 = 225;

    fn lookup(file: &[u8], ip: &str) -> Found {
        Database::from_bytes(file.to_vec()).unwrap().lookup(ip.parse().unwrap()).unwrap()
    }

    /// As `DE EU 64500`, with `-` for what is not known.
    fn found(file: &[u8], ip: &str) -> String {
        let Found { country, continent, asn } = lookup(file, ip);
        let code = |code: Option<Code>| code.map_or("-".to_owned(), |code| code.to_string());
        let number = asn.map_or("-".to_owned(), |asn| asn.to_string());
        format!("{} {} {number}", code(country), code(continent))
    }

    fn countries_of_ipv4() -> Vec<u8> {
        let networks = [("192.0.2.0/24", GERMANY), ("192.0.2.128/25", USA), ("198.51.100.7/32", 252)];
        legacy_countries(edition::COUNTRY, &networks)
    }

    fn countries_of_both() -> Vec<u8> {
        let networks = [("192.0.2.0/24", GERMANY), ("2001:db8::/32", USA)];
        legacy_countries(edition::COUNTRY_V6, &networks)
    }

    fn networks() -> Vec<u8> {
        legacy_records(edition::ASN, &[("192.0.2.0/24", b"AS64500 Example"), ("192.0.3.0/24", b"nonsense")])
    }

    fn geolite() -> Vec<u8> {
        mmdb(
            "GeoLite2-Country",
            true,
            &[("192.0.2.0/24", country("DE", "EU")), ("2001:db8::/32", country("US", "NA"))],
        )
    }

    #[test]
    fn old_files_have_countries() {
        let file = countries_of_ipv4();
        for (ip, expected) in [
            ("192.0.2.1", "DE EU -"),
            ("192.0.2.255", "US NA -"),
            ("::ffff:192.0.2.255", "US NA -"),
            ("198.51.100.7", "MF NA -"),
            ("198.51.100.6", "- - -"),
            ("2001:db8::1", "- - -"),
            ("::192.0.2.1", "- - -"),
        ] {
            assert_eq!(found(&file, ip), expected, "{ip}");
        }
    }

    #[test]
    fn those_for_ipv6_have_both() {
        let file = countries_of_both();
        for (ip, expected) in [
            ("2001:db8::1", "US NA -"),
            ("2001:db9::1", "- - -"),
            ("192.0.2.1", "DE EU -"),
            ("::ffff:192.0.2.1", "DE EU -"),
        ] {
            assert_eq!(found(&file, ip), expected, "{ip}");
        }
    }

    #[test]
    fn old_files_have_networks_and_cities() {
        for (ip, expected) in
            [("192.0.2.1", "- - 64500"), ("192.0.3.1", "- - -"), ("192.0.4.1", "- - -"), ("::1", "- - -")]
        {
            assert_eq!(found(&networks(), ip), expected, "{ip}");
        }
        let file = legacy_records(edition::ASN_V6, &[("2001:db8::/32", b"AS64501")]);
        assert_eq!(found(&file, "2001:db8::1"), "- - 64501");
        let file = legacy_records(edition::CITY, &[("192.0.2.0/24", &[GERMANY, b'1', b'6', 0, b'B'])]);
        assert_eq!(found(&file, "192.0.2.1"), "DE EU -");
        assert_eq!(found(&file, "192.0.3.1"), "- - -");
    }

    #[test]
    fn new_files_have_all_of_it() {
        let file = geolite();
        for (ip, expected) in [
            ("192.0.2.1", "DE EU -"),
            ("::ffff:192.0.2.1", "DE EU -"),
            ("2001:db8::1", "US NA -"),
            ("192.0.3.1", "- - -"),
            ("::1", "- - -"),
        ] {
            assert_eq!(found(&file, ip), expected, "{ip}");
        }
        let ipv4_only = mmdb("DBIP-Country-Lite", false, &[("192.0.2.0/24", country("DE", "EU"))]);
        assert_eq!(found(&ipv4_only, "192.0.2.1"), "DE EU -");
        assert_eq!(found(&ipv4_only, "2001:db8::1"), "- - -");
        let networks = mmdb("GeoLite2-ASN", true, &[("192.0.2.0/24", asn(64_500))]);
        assert_eq!(found(&networks, "192.0.2.1"), "- - 64500");
    }

    #[test]
    fn providers_put_things_in_other_places() {
        let text = Data::Text;
        let registered = Data::Map(vec![("registered_country", Data::Map(vec![("iso_code", text("AT"))]))]);
        let flat = Data::Map(vec![
            ("country", text("Austria")),
            ("country_code", text("AT")),
            ("continent_code", text("EU")),
            ("asn", text("AS64502")),
        ]);
        let short = Data::Map(vec![("country", text("at")), ("continent", text("EU"))]);
        for (data, expected) in [(registered, "AT - -"), (flat, "AT EU 64502"), (short, "AT EU -")] {
            assert_eq!(found(&mmdb("other", true, &[("192.0.2.0/24", data)]), "192.0.2.1"), expected);
        }
    }

    #[test]
    fn values_of_other_forms_say_nothing() {
        let text = Data::Text;
        let map = |key, value| Data::Map(vec![(key, value)]);
        for (data, expected) in [
            (map("country", Data::Number(1)), "- - -"),
            (map("country", text("None")), "- - -"),
            (map("country", text("DEU")), "- - -"),
            (map("country", map("names", text("Germany"))), "- - -"),
            (map("country", map("iso_code", Data::Number(276))), "- - -"),
            (map("continent", map("names", text("Europe"))), "- - -"),
            (map("asn", Data::Number(64_500)), "- - 64500"),
            (map("asn", Data::Short(64_505)), "- - 64505"),
            (map("autonomous_system_number", Data::Long(4_200_000_001)), "- - 4200000001"),
            (map("autonomous_system_number", Data::Long(1 << 40)), "- - -"),
            (map("asn", text("64501")), "- - 64501"),
            (map("asn", text("as64502")), "- - 64502"),
            (map("autonomous_system_number", text("64503")), "- - 64503"),
            (map("autonomous_system_number", text("AS 64504")), "- - 64504"),
            (map("autonomous_system_number", map("x", text("y"))), "- - -"),
            (map("asn", text("none")), "- - -"),
            (text("DE"), "- - -"),
            (Data::Number(1), "- - -"),
        ] {
            assert_eq!(found(&mmdb("other", true, &[("192.0.2.0/24", data)]), "192.0.2.1"), expected);
        }
    }

    #[test]
    fn what_stands_for_nothing_known_is_unknown() {
        for code in ["XX", "ZZ"] {
            let file = mmdb("GeoLite2-Country", true, &[("192.0.2.0/24", country(code, "EU"))]);
            assert_eq!(found(&file, "192.0.2.1"), "- EU -", "{code}");
        }
        let file = mmdb("GeoLite2-ASN", true, &[("192.0.2.0/24", asn(0))]);
        assert_eq!(found(&file, "192.0.2.1"), "- - -");
        let file = legacy_records(edition::ASN, &[("192.0.2.0/24", b"AS0 nobody")]);
        assert_eq!(found(&file, "192.0.2.1"), "- - -");
    }

    #[test]
    fn a_file_says_what_it_has() {
        let contents = |file: &[u8]| {
            let Contents { countries, asns } = Database::from_bytes(file.to_vec()).unwrap().contents();
            (countries, asns)
        };
        assert_eq!(contents(&countries_of_ipv4()), (true, false));
        assert_eq!(contents(&networks()), (false, true));
        assert_eq!(contents(&geolite()), (true, false));
        assert_eq!(contents(&mmdb("DBIP-ASN-Lite (compat=GeoLite2-ASN)", true, &[])), (false, true));
        assert_eq!(contents(&mmdb("asn-country ipvAll", true, &[])), (true, true));
        assert_eq!(contents(&mmdb("GeoIP2-Enterprise", true, &[])), (true, true));
    }

    #[test]
    fn what_is_no_database_is_refused() {
        for bytes in [&b""[..], b"hello", &[0xff; 100], &[0; 5000], b"\xab\xcd\xefMaxMind.com"] {
            assert!(Database::from_bytes(bytes.to_vec()).is_err(), "{bytes:?}");
        }
        let proxies = Database::from_bytes(legacy_countries(8, &[])).unwrap_err();
        assert!(proxies.starts_with("edition 8 of GeoIP has neither"), "{proxies}");
        let folder = tempfile::tempdir().unwrap();
        assert!(Database::read(folder.path()).is_err(), "a folder is not a database");
        let missing = Database::read(&folder.path().join("x")).unwrap_err();
        assert_eq!(missing, "no such file");
    }

    #[test]
    fn a_tree_that_leads_nowhere_is_corrupt() {
        // One node whose records lead to a node that is not there, and to itself.
        for file in
            [b"\x09\0\0\x09\0\0\0\0\0\xff\xff\xff\x01".to_vec(), b"\0\0\0\0\0\0\0\xff\xff\xff\x01".to_vec()]
        {
            let corrupt = Database::from_bytes(file).unwrap();
            assert!(corrupt.lookup("192.0.2.1".parse().unwrap()).is_err());
        }
    }

    #[test]
    fn who_names_a_file_shares_it() {
        let (one, again, other) = (open("/nosuch/a.mmdb"), open("/nosuch/a.mmdb"), open("/nosuch/b.mmdb"));
        assert!(Arc::ptr_eq(&one, &again) && !Arc::ptr_eq(&one, &other));
    }

    proptest! {
        /// Bytes are changed, or the file is cut: an answer or an error, no panic.
        #[test]
        fn a_damaged_file_is_survived(
            which in 0..4_usize,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let files = [countries_of_ipv4(), countries_of_both(), networks(), geolite()];
            let mut file = files[which].clone();
            for (place, byte) in changes {
                let place = place.index(file.len());
                file[place] = byte;
            }
            if let Some(cut) = cut {
                file.truncate(cut.index(file.len()));
            }
            if let Ok(database) = Database::from_bytes(file) {
                for ip in ["192.0.2.1", "192.0.3.1", "2001:db8::1", "::", "255.255.255.255"] {
                    let _ = database.lookup(ip.parse().unwrap());
                }
            }
        }
    }
}
