//! DNS lists that have been closed, with the source and the date of the knowledge.
//!
//! Knows: zones. Must not know: who asks a list, what an answer leads to.

/// A list that has been closed.
#[derive(Debug, PartialEq, Eq)]
pub struct ClosedList {
    /// The domain of the list; its zones are at it and below.
    pub domain: &'static str,
    /// When that was, and what it answers since then: the rest of a sentence that begins with the domain.
    pub what: &'static str,
    /// Where that is written.
    pub source: &'static str,
    /// When it was written there.
    pub as_of: &'static str,
}

/// The lists that are known to be closed. A new one is an entry here.
const CLOSED: &[ClosedList] = &[
    ClosedList {
        domain: "sorbs.net",
        what: "was closed in June 2024 and has no data any more",
        source: "https://www.dnsbl.com/2024/06/status-of-dnsblsorbsnet-dead.html",
        as_of: "June 2024",
    },
    ClosedList {
        domain: "ix.dnsbl.manitu.net",
        what: "was closed in January 2025 and is empty",
        source: "https://heise.de/-10248714",
        as_of: "January 2025",
    },
    ClosedList {
        domain: "spamcannibal.org",
        what: "was closed in 2018, and since the domain has lapsed it lists every address",
        source: "https://www.dnsbl.info/bl-spamcannibal-org.php",
        as_of: "May 2019",
    },
    ClosedList {
        domain: "ahbl.org",
        what: "was closed, and lists every address since January 2015",
        source: "http://ahbl.org/content/last-notice-wildcarding-services-jan-1st",
        as_of: "January 2015",
    },
    ClosedList {
        domain: "njabl.org",
        what: "was closed in March 2013, and since the domain has lapsed it lists every address",
        source: "https://en.wikipedia.org/wiki/Not_Just_Another_Bogus_List",
        as_of: "January 2024",
    },
    ClosedList {
        domain: "dsbl.org",
        what: "was closed in May 2008",
        source: "http://dsbl.org/",
        as_of: "March 2009",
    },
    ClosedList {
        domain: "ordb.org",
        what: "was closed in December 2006, and has listed every address for a time since then",
        source: "https://nowhere.dk/articles/ordb_org_is_dead_and_gone",
        as_of: "March 2008",
    },
    ClosedList {
        domain: "rfc-ignorant.org",
        what: "was closed in November 2012",
        source: "https://www.rollernet.us/2012/09/dnsbl-rfc-ignorant-org-shutting-down-2/",
        as_of: "September 2012",
    },
    ClosedList {
        domain: "rfc-clueless.org",
        what: "was closed in November 2023 and has no data any more",
        source: "http://rfc-clueless.org/",
        as_of: "September 2023",
    },
    ClosedList {
        domain: "dnsbl.inps.de",
        what: "was closed in May 2020",
        source: "https://www.dnsbl.com/2020/05/",
        as_of: "May 2020",
    },
    ClosedList {
        domain: "virbl.dnsbl.bit.nl",
        what: "was closed in January 2017",
        source: "https://www.rollernet.us/2017/01/shutdown-of-virbl-dnsbl-bit-nl/",
        as_of: "January 2017",
    },
    ClosedList {
        domain: "db.wpbl.info",
        what: "was closed in 2024, and its name servers no longer answer",
        source: "http://wpbl.info/",
        as_of: "October 2025",
    },
];

/// The list of this zone, if it is known to be closed. Case and a dot at the end make no difference.
pub fn known_dead(zone: &str) -> Option<&'static ClosedList> {
    let zone = zone.trim_end_matches('.').to_ascii_lowercase();
    CLOSED.iter().find(|list| match zone.strip_suffix(list.domain) {
        Some(front) => front.is_empty() || front.ends_with('.'),
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_list_is_known_by_each_of_its_zones() {
        for zone in ["dnsbl.sorbs.net", "Spam.DNSBL.sorbs.net.", "sorbs.net", "ix.dnsbl.manitu.net"] {
            assert!(known_dead(zone).is_some(), "{zone}");
        }
        for zone in ["zen.spamhaus.org", "bl.spamcop.net", "notsorbs.net", "dnsbl.manitu.net", "net", ""] {
            assert_eq!(known_dead(zone), None, "{zone}");
        }
    }

    #[test]
    fn each_has_a_source_and_a_date() {
        for list in CLOSED {
            assert!(list.source.starts_with("http") && !list.as_of.is_empty(), "{}", list.domain);
            assert!(list.what.starts_with("was closed") && list.domain == list.domain.to_ascii_lowercase());
        }
    }
}
