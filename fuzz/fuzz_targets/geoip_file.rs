//! Any bytes as a database of countries or networks, in either format: an answer or an error, no panic.
//!
//! Hardly any input begins like a file of the present format. So each also says which bytes of good files are
//! others: two that say where, one that says what.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mtpolicyd::facts::geoip::Database;
use mtpolicyd::testing::geoip::{asn, country, mmdb};

/// Addresses whose bits differ early and late.
const ADDRESSES: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::BROADCAST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff)),
];

static GOOD: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let countries = [("192.0.2.0/24", country("DE", "EU")), ("2001:db8::/32", country("US", "NA"))];
    let asns = [("0.0.0.0/1", asn(64500)), ("255.0.0.0/8", asn(64501))];
    [mmdb("GeoLite2-Country", true, &countries), mmdb("GeoLite2-ASN", false, &asns)]
});

fuzz_target!(|bytes: &[u8]| {
    read(bytes.to_vec());
    for good in &*GOOD {
        let mut file = good.clone();
        for change in bytes.chunks_exact(3) {
            let place = usize::from(u16::from_be_bytes([change[0], change[1]])) % file.len();
            file[place] = change[2];
        }
        read(file);
    }
});

fn read(file: Vec<u8>) {
    let Ok(database) = Database::from_bytes(file) else { return };
    for ip in ADDRESSES {
        let _ = database.lookup(ip);
    }
}
