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
    /// The answers that say that we may not ask, from the first to the last of each range.
    refusals: [RangeInclusive<Ipv4Addr>; 2],
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

/// The lists that are known. A new one is a line here.
const ALLOW_LISTS: [AllowList; 1] = [AllowList {
    domain: "dnswl.org",
    listings: "127.0.2.0-127.0.9.3, 127.0.11.0-127.0.255.3",
    refusals: REFUSALS,
    // By its page 127.0.10.y are "some special cases"; a resolver that asks too often gets 127.0.10.3 for
    // every client, and 127.0.0.255 if he is blocked (also https://github.com/rspamd/rspamd/pull/4627).
    source: "https://www.dnswl.org/?page_id=15 and https://www.dnswl.org/?p=120",
    as_of: "October 2023",
}];

impl AllowList {
    /// The list that has this zone, which is in lower case.
    pub fn of_zone(zone: &str) -> Option<&'static AllowList> {
        ALLOW_LISTS.iter().find(|list| match zone.strip_suffix(list.domain) {
            Some(front) => front.is_empty() || front.ends_with('.'),
            None => false,
        })
    }

    /// Whether the list says with this answer that we may not ask.
    pub fn is_refusal(&self, address: Ipv4Addr) -> bool {
        self.refusals.iter().any(|range| range.contains(&address))
    }
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
    }

    #[test]
    fn the_codes_of_a_list_can_be_read_and_are_no_refusals() {
        for list in &ALLOW_LISTS {
            let codes: ReturnCodes = list.listings.parse().unwrap();
            for bits in 0..=0xffff_u32 {
                let address = Ipv4Addr::from_bits(0x7f00_0000 | bits);
                assert!(!(codes.contains(address) && list.is_refusal(address)), "{address}");
            }
            assert!(list.source.starts_with("https://") && !list.as_of.is_empty());
        }
    }
}
