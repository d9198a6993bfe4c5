//! Any bytes as a database of countries or networks, in either format: an answer or an error, no panic.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use mtpolicyd::world::geoip::Database;

/// Addresses whose bits differ early and late.
const ADDRESSES: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V4(Ipv4Addr::BROADCAST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff)),
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(database) = Database::from_bytes(bytes.to_vec()) else { return };
    for ip in ADDRESSES {
        let _ = database.lookup(ip);
    }
});
