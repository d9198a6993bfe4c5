//! How far an address reaches: whether a host on the public Internet can have it.
//!
//! The source is the IANA IPv4 Special-Purpose Address Registry (as updated 2020-09-04) and the IANA IPv6
//! Special-Purpose Address Registry (as updated 2024-10-22), with RFC 3879 for site-local addresses, RFC 4291
//! for IPv4-compatible ones and for multicast, and RFC 5771.
//!
//! Knows: special-purpose networks. Must not know: which addresses this machine has.

use Scope::{Loopback, Private, Unusable};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Public unicast.
    Global,
    /// Unicast inside a site or a link, or in examples and laboratories: private use, link-local, shared by
    /// customers of a provider, unique local, site-local, benchmarking, documentation.
    Private,
    /// This machine, whichever it is.
    Loopback,
    /// No host can be reached at it: unspecified, multicast, broadcast, reserved, used inside protocols.
    Unusable,
}

/// Networks of IPv4 that are not global, the first that contains an address counts.
const SPECIAL_V4: &[([u8; 4], u32, Scope)] = &[
    ([0, 0, 0, 0], 8, Unusable),
    ([10, 0, 0, 0], 8, Private),
    ([100, 64, 0, 0], 10, Private),
    ([127, 0, 0, 0], 8, Loopback),
    ([169, 254, 0, 0], 16, Private),
    ([172, 16, 0, 0], 12, Private),
    // IETF protocol assignments, such as DS-Lite and the discovery of NAT64.
    ([192, 0, 0, 0], 24, Unusable),
    ([192, 0, 2, 0], 24, Private),
    // Deprecated relays of 6to4.
    ([192, 88, 99, 0], 24, Unusable),
    ([192, 168, 0, 0], 16, Private),
    ([198, 18, 0, 0], 15, Private),
    ([198, 51, 100, 0], 24, Private),
    ([203, 0, 113, 0], 24, Private),
    // Multicast, reserved, broadcast.
    ([224, 0, 0, 0], 3, Unusable),
];

/// Networks of IPv6 that are not global; addresses that hold one of IPv4 are not here.
const SPECIAL_V6: &[([u16; 8], u32, Scope)] = &[
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, Loopback),
    // NAT64 inside a site.
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Private),
    ([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, Private),
    // IETF protocol assignments, Teredo among them, behind which no mail server is.
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Unusable),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, Private),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Private),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Private),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Private),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Private),
    // The rest of what is special (unspecified, IPv4-compatible, discard-only, dummy, SRv6 identifiers,
    // multicast) is outside 2000::/3, the only part of IPv6 that is assigned as global unicast.
];

/// The prefix of global unicast addresses.
const GLOBAL_V6: ([u16; 8], u32) = ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// Returns how far an address reaches. One that holds an address of IPv4 (mapped, NAT64, 6to4) reaches as far
/// as that one.
pub fn scope(ip: IpAddr) -> Scope {
    match ip.to_canonical() {
        IpAddr::V4(v4) => scope_v4(v4),
        IpAddr::V6(v6) => match translated(v6) {
            // A translator has a loopback of its own, which nobody means.
            Some(v4) if scope_v4(v4) == Loopback => Unusable,
            Some(v4) => scope_v4(v4),
            None => scope_v6(v6),
        },
    }
}

/// Returns the address of IPv4 at which packets to an address arrive, if that is not the address itself.
pub fn embedded_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().or_else(|| translated(v6)),
    }
}

/// The address of IPv4 in one of NAT64 (RFC 6052) or 6to4 (RFC 3056).
fn translated(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => Some(v4(high, low)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

fn scope_v4(v4: Ipv4Addr) -> Scope {
    let is_in =
        |first: [u8; 4], prefix: u32| (v4.to_bits() ^ u32::from_be_bytes(first)) >> (32 - prefix) == 0;
    let special = SPECIAL_V4.iter().find(|(first, prefix, _)| is_in(*first, *prefix));
    special.map_or(Scope::Global, |(.., scope)| *scope)
}

fn scope_v6(v6: Ipv6Addr) -> Scope {
    let is_in = |first: [u16; 8], prefix: u32| {
        (v6.to_bits() ^ Ipv6Addr::from(first).to_bits()) >> (128 - prefix) == 0
    };
    let special = SPECIAL_V6.iter().find(|(first, prefix, _)| is_in(*first, *prefix));
    let otherwise = if is_in(GLOBAL_V6.0, GLOBAL_V6.1) { Scope::Global } else { Unusable };
    special.map_or(otherwise, |(.., scope)| *scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_unicast_is_global() {
        for (scope, addresses) in [
            (Scope::Global, "1.1.1.1 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 172.15.255.255"),
            (Scope::Global, "172.32.0.0 192.0.1.0 192.0.3.0 198.17.255.255 198.20.0.0 223.255.255.255"),
            (
                Scope::Global,
                "2001:200::1 2a00::1 2620:fe::fe 64:ff9b::1.1.1.1 2002:101:101::1 ::ffff:1.1.1.1",
            ),
            (Private, "10.66.0.2 100.64.0.1 100.127.255.255 169.254.169.254 172.16.0.1 172.31.255.255"),
            (Private, "192.168.0.1 192.0.2.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1"),
            (
                Private,
                "fd00::2 fc00::1 fe80::1 febf::1 fec0::1 2001:db8::1 2001:2::1 3fff:fff::1 64:ff9b:1::1",
            ),
            (Private, "::ffff:10.0.0.1 64:ff9b::10.0.0.1 2002:a00:1::1 2002:c0a8:1::"),
            (Loopback, "127.0.0.1 127.255.255.255 ::1 ::ffff:127.0.0.1"),
            (Unusable, "0.0.0.0 0.1.2.3 192.0.0.9 192.88.99.1 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255"),
            (Unusable, ":: ::127.0.0.1 ::10.0.0.1 ::2 ff02::1 ff0e::1 100::1 100:0:0:1::1 5f00::1 4000::1"),
            (Unusable, "2001::1 2001:0:7f00:1::1 2001:10::1 2001:20::1 2001:1::1 64:ff9b::127.0.0.1"),
            (Unusable, "64:ff9b::0.0.0.0 2002:7f00:1::1 2002:e000:1::1 e000::1 fe00::1 ::ffff:0.0.0.0"),
        ] {
            for address in addresses.split(' ') {
                assert_eq!(super::scope(address.parse().unwrap()), scope, "{address}");
            }
        }
    }

    #[test]
    fn an_address_may_hold_another() {
        for (address, expected) in [
            ("::ffff:192.0.2.1", Some([192, 0, 2, 1])),
            ("64:ff9b::192.0.2.1", Some([192, 0, 2, 1])),
            ("2002:c000:201::9", Some([192, 0, 2, 1])),
            ("192.0.2.1", None),
            ("64:ff9b:1::192.0.2.1", None),
        ] {
            assert_eq!(embedded_v4(address.parse().unwrap()), expected.map(Ipv4Addr::from), "{address}");
        }
    }
}
