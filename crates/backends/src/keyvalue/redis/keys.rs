//! Which keys a cluster keeps together: the slots of keys, and the key of the lock of a session.
//!
//! Knows: slots, braces. Must not know: servers.

use crate::keyvalue::keys::stand_in;

/// The number of slots (Redis Cluster Specification, "Key distribution model").
pub(super) const SLOTS: u16 = 16384;

/// The slot of a key: that of what stands in its first braces, so that keys can be kept together.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM, as the specification asks for.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    })
}

/// A lock and the key of what it protects.
pub(super) struct Pair {
    pub(super) lock: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl Pair {
    /// The keys as the original names them, behind a prefix: `lock_KEY` and `KEY`.
    pub(super) fn new(prefix: &str, key: &[u8]) -> Pair {
        let prefix = prefix.as_bytes();
        Pair { lock: [prefix, b"lock_", key].concat(), key: [prefix, key].concat() }
    }

    /// The same in one slot: `lock_{KEY}` and `KEY`, unless there are braces already that decide. What can't
    /// be kept together so, since its braces are odd, is replaced by a hash.
    pub(super) fn in_one_slot(prefix: &str, key: &[u8]) -> Pair {
        let pair = Pair::new(prefix, key);
        if slot(&pair.lock) == slot(&pair.key) {
            return pair;
        }
        let tagged = |key: &[u8]| [prefix.as_bytes(), b"lock_{", key, b"}"].concat();
        let lock = tagged(&pair.key);
        if slot(&lock) == slot(&pair.key) {
            return Pair { lock, ..pair };
        }
        let key = stand_in(&pair.key).replace(['{', '}'], "_");
        let key = [prefix.as_bytes(), b"{", key.as_bytes(), b"}"].concat();
        Pair { lock: [&key[..], b"lock"].concat(), key }
    }
}

/// Whether a cluster can keep any two keys together that begin so: after `{}` it looks at nothing but whole
/// keys.
pub(super) fn keeps_together(prefix: &str) -> bool {
    !prefix.split_once('{').is_some_and(|(_, rest)| rest.starts_with('}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_slots_that_servers_compute() {
        // The check value of the specification, and what `CLUSTER KEYSLOT` answers.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
        assert_eq!(slot(b"somekey"), 11058);
        assert_eq!(slot(b"foo{hash_tag}"), 2515);
        assert_eq!(slot(b"{hash_tag}bar"), 2515);
        assert_eq!(slot(b"foo{}{hash_tag}"), crc16(b"foo{}{hash_tag}") % SLOTS);
    }

    #[test]
    fn a_lock_is_in_the_slot_of_what_it_protects() {
        let pair = Pair::in_one_slot("", b"1a2b.3c.0");
        assert_eq!((&pair.lock[..], &pair.key[..]), (&b"lock_{1a2b.3c.0}"[..], &b"1a2b.3c.0"[..]));
        let pair = Pair::in_one_slot("mx1:", b"1a2b.3c.0");
        assert_eq!(
            (&pair.lock[..], &pair.key[..]),
            (&b"mx1:lock_{mx1:1a2b.3c.0}"[..], &b"mx1:1a2b.3c.0"[..])
        );
        for key in [&b"a"[..], b"a{b}c", b"a{b", b"a}b", b"{}", b"{}a", b"}{", b"a}{b}c", b"\xff}", b"{a}}"] {
            for prefix in ["", "mx1:", "{mx1}:", "odd{", "odd}", "a}{"] {
                assert!(keeps_together(prefix));
                let pair = Pair::in_one_slot(prefix, key);
                assert_eq!(slot(&pair.lock), slot(&pair.key), "{prefix} {key:?}");
                assert_ne!(pair.lock, pair.key);
                assert!(pair.lock.starts_with(prefix.as_bytes()) && pair.key.starts_with(prefix.as_bytes()));
            }
        }
        assert!(!keeps_together("mx{}1:") && !keeps_together("{}"));
        let plain = Pair::new("mx1:", b"a{b}");
        assert_eq!((&plain.lock[..], &plain.key[..]), (&b"mx1:lock_a{b}"[..], &b"mx1:a{b}"[..]));
    }
}
