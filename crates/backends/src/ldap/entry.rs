//! Entries of a directory as they come over the wire (RFC 4511, section 4.5.2).
//!
//! Knows: the structure of an answer. Must not know: connections.

use super::Entry;
use ldap3::asn1::StructureTag;
use std::collections::BTreeMap;

/// The tag of an entry among the answers to a search; others are referrals.
const SEARCH_RESULT_ENTRY: u64 = 4;

impl Entry {
    /// Reads an answer. `None` if it is not an entry, or one that is built wrongly.
    pub(super) fn read(answer: StructureTag) -> Option<Entry> {
        // ldap3's own reader panics over what a server sends.
        let mut parts = answer.match_id(SEARCH_RESULT_ENTRY)?.expect_constructed()?.into_iter();
        let dn = text(parts.next()?)?;
        let mut attributes = BTreeMap::new();
        for attribute in parts.next()?.expect_constructed()? {
            let mut parts = attribute.expect_constructed()?.into_iter();
            let name = text(parts.next()?)?;
            let values = parts.next()?.expect_constructed()?.into_iter().filter_map(text).collect();
            attributes.insert(name, values);
        }
        Some(Entry { dn, attributes })
    }
}

fn text(tag: StructureTag) -> Option<String> {
    Some(String::from_utf8_lossy(&tag.expect_primitive()?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ldap3::asn1::{PL, TagClass};

    fn primitive(bytes: &[u8]) -> StructureTag {
        StructureTag { class: TagClass::Universal, id: 4, payload: PL::P(bytes.to_vec()) }
    }

    fn constructed(id: u64, parts: Vec<StructureTag>) -> StructureTag {
        StructureTag { class: TagClass::Universal, id, payload: PL::C(parts) }
    }

    #[test]
    fn an_entry_is_read_and_nonsense_is_none() {
        let values = constructed(17, vec![primitive(b"of\xff"), primitive(b"on")]);
        let attribute = constructed(16, vec![primitive(b"mailSend"), values]);
        let attributes = constructed(16, vec![attribute]);
        let entry = Entry::read(constructed(4, vec![primitive(b"cn=a"), attributes])).unwrap();
        assert_eq!((entry.dn.as_str(), entry.value("MAILSEND")), ("cn=a", Some("of\u{fffd}")));
        assert_eq!(entry.value("mail"), None);
        for nonsense in [
            primitive(b""),
            constructed(19, vec![primitive(b"ldap://elsewhere")]),
            constructed(4, vec![primitive(b"cn=a"), constructed(16, vec![primitive(b"x")])]),
        ] {
            assert_eq!(Entry::read(nonsense), None);
        }
    }
}
