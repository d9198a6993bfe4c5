//! Known allow lists, and what they answer to whoever may not ask them.
//!
//! Knows: zones and addresses. Must not know: what an answer leads to.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

/// An allow list.
#[derive(Debug, PartialEq, Eq)]
pub struct AllowList {
    /// The domain of the list; its zones are at it and below.
    pub domain: &'static str,
    /// The answers that are listings, as `return_codes` takes them.
    pub listings: &'static str,
    /// Whether the zone has bad clients too, and the good ones as 127.0.0.1, which lists nobody elsewhere.
    pub has_bad_ones: bool,
    /// Where that is written.
    pub source: &'static str,
    /// When it was written there.
    pub as_of: &'static str,
}

/// What dnswl.org answers to resolvers that ask too often: the first to a blocked one, and the others, which
/// list everybody, to one who did not notice.
const REFUSALS: [RangeInclusive<Ipv4Addr>; 2] = [
    Ipv4Addr::new(127, 0, 0, 255)..=Ipv4Addr::new(127, 0, 0, 255),
    Ipv4Addr::new(127, 0, 10, 0)..=Ipv4Addr::new(127, 0, 10, 255),
];

/// The lists that are known. A new one is an entry here.
const ALLOW_LISTS: [AllowList; 4] = [
    AllowList {
        domain: "dnswl.org",
        listings: "127.0.2.0-127.0.9.3, 127.0.11.0-127.0.255.3",
        has_bad_ones: false,
        // By its page 127.0.10.y are "some special cases"; a resolver that asks too often gets 127.0.10.3 for
        // every client, and 127.0.0.255 if he is blocked (also https://github.com/rspamd/rspamd/pull/4627).
        source: "https://www.dnswl.org/?page_id=15 and https://www.dnswl.org/?p=120",
        as_of: "October 2023",
    },
    AllowList {
        domain: "swl.spamhaus.org",
        // "Any response in 127.0.2.0/24 should be taken as a positive" one.
        listings: "127.0.2.0/24",
        has_bad_ones: false,
        source: "https://www.spamhauswhitelist.com/en/techfaq.php",
        as_of: "2010",
    },
    AllowList {
        domain: "wl.mailspike.net",
        // The levels H2 to H5.
        listings: "127.0.0.17-20",
        has_bad_ones: false,
        source: "https://mailspike.org/usage.html",
        as_of: "November 2026",
    },
    AllowList {
        domain: "hostkarma.junkemailfilter.com",
        listings: "127.0.0.1",
        has_bad_ones: true,
        source: "https://www.suped.com/learn/blocklists/junk-email-filter-hostkarma-blacklist",
        as_of: "June 2026",
    },
];

impl AllowList {
    /// The list that has this zone, which is in lower case.
    pub fn of_zone(zone: &str) -> Option<&'static AllowList> {
        ALLOW_LISTS.iter().find(|list| match zone.strip_suffix(list.domain) {
            Some(front) => front.is_empty() || front.ends_with('.'),
            None => false,
        })
    }
}

/// One of the usual refusals that is among these answers, if any is.
pub fn refusal_in(is_among: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
    let all = REFUSALS.into_iter().flat_map(|range| range.start().to_bits()..=range.end().to_bits());
    all.map(Ipv4Addr::from_bits).find(|address| is_among(*address))
}

/// Whether an answer is one of those that dnswl.org gives to resolvers that ask too often; others may have
/// taken them over.
pub fn is_usual_refusal(address: Ipv4Addr) -> bool {
    REFUSALS.iter().any(|range| range.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::super::ReturnCodes;
    use super::*;

    #[test]
    fn zones_lie_at_a_domain_or_below() {
        let domain = |zone| AllowList::of_zone(zone).map(|list| list.domain);
        assert_eq!(domain("list.dnswl.org"), Some("dnswl.org"));
        assert_eq!(domain("dnswl.org"), Some("dnswl.org"));
        assert_eq!(domain("notdnswl.org"), None);
        assert_eq!(domain("dnswl.org.example"), None);
        assert_eq!(domain("swl.spamhaus.org"), Some("swl.spamhaus.org"));
        assert_eq!(domain("zen.spamhaus.org"), None);
        assert_eq!(domain("bl.mailspike.net"), None);
    }

    #[test]
    fn the_codes_of_a_list_can_be_read_and_are_no_refusals() {
        for list in &ALLOW_LISTS {
            let codes: ReturnCodes = list.listings.parse().unwrap();
            for bits in 0..=0xffff_u32 {
                let address = Ipv4Addr::from_bits(0x7f00_0000 | bits);
                assert!(!(codes.contains(address) && is_usual_refusal(address)), "{address}");
            }
            assert!(list.source.starts_with("https://") && !list.as_of.is_empty());
        }
    }
}
