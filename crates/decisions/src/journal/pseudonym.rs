//! Pseudonyms: names that stand for others under a key that only the journal has.
//!
//! Knows: HMAC-SHA-256 (RFC 2104), months. Must not know: decisions, where keys are kept.

use crate::DecisionId;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A key of one month.
pub(super) type Key = [u8; 32];

/// The keys of all months of which there are decisions. A month is counted from year 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys(pub BTreeMap<i64, Key>);

/// What a pseudonym begins with. Addresses seldom do.
pub(super) const MARK: char = '~';
/// The characters behind it: 40 bits.
const CHARACTERS: usize = 8;
/// Crockford's base 32, as identifiers have it.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The month of a decision, in UTC, counted from year 0.
pub(super) fn month(id: DecisionId) -> i64 {
    let date = Timestamp::try_from(id.time()).map(|time| TimeZone::UTC.to_datetime(time));
    date.map_or(0, |date| i64::from(date.year()) * 12 + i64::from(date.month()) - 1)
}

/// The pseudonym of a name, without regard to its case.
pub(super) fn of_name(name: &str, key: &Key) -> String {
    let code = hmac(key, name.to_lowercase().as_bytes());
    let bits = code[..5].iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut text = String::with_capacity(1 + CHARACTERS);
    text.push(MARK);
    for place in (0..CHARACTERS).rev() {
        let digit = usize::try_from(bits >> (5 * place) & 31).unwrap_or_default();
        text.push(char::from(ALPHABET[digit]));
    }
    text
}

/// The pseudonym of an address of a mailbox, which keeps its domain; of what has none, as of a name.
pub(super) fn of_address(address: &str, key: &Key) -> String {
    match address.rsplit_once('@') {
        Some(("", _)) => address.to_owned(),
        Some((_, domain)) => format!("{}@{domain}", of_name(address, key)),
        None if address.is_empty() || address == "<>" => address.to_owned(),
        None => of_name(address, key),
    }
}

/// Whether what stands before an `@` may be a pseudonym.
pub(super) fn is_one(local: &str) -> bool {
    let code = local.strip_prefix(MARK);
    code.is_some_and(|code| code.len() == CHARACTERS && code.bytes().all(|byte| ALPHABET.contains(&byte)))
}

fn hmac(key: &Key, text: &[u8]) -> [u8; 32] {
    /// What SHA-256 takes at once.
    const BLOCK: usize = 64;
    let mut block = [0; BLOCK];
    block[..key.len()].copy_from_slice(key);
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_hmac_sha_256() {
        // The second and the first case of RFC 4231 have keys of 4 and 20 bytes; zeros fill them up.
        let mut key = Key::default();
        key[..4].copy_from_slice(b"Jefe");
        let code = hmac(&key, b"what do ya want for nothing?");
        assert_eq!(code[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
        key[..20].fill(0x0b);
        let code = hmac(&key, b"Hi There");
        assert_eq!(code[..8], [0xb0, 0x34, 0x4c, 0x61, 0xd8, 0xdb, 0x38, 0x53]);
    }

    #[test]
    fn a_pseudonym_hides_the_name_and_keeps_the_domain() {
        let key = [7; 32];
        let bob = of_address("Bob@Example.org", &key);
        assert!(bob.ends_with("@Example.org") && is_one(bob.split('@').next().unwrap()), "{bob}");
        let lower = of_address("bob@example.org", &key);
        assert_eq!(lower.split('@').next(), bob.split('@').next());
        assert_ne!(of_address("bob@example.net", &key)[..9], bob[..9]);
        assert_ne!(of_address("bob@example.org", &[8; 32]), lower);
        for same in ["", "<>", "@example.org"] {
            assert_eq!(of_address(same, &key), same);
        }
        assert!(is_one(&of_name("bob", &key)) && !is_one("~bob") && !is_one("bob"));
    }

    #[test]
    fn a_month_begins_at_midnight_in_utc() {
        let at = |seconds| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            month(DecisionId::first_at(time))
        };
        // 2026-11-30T23:59:59Z, and a second later.
        assert_eq!((at(1_796_083_199), at(1_796_083_200)), (2026 * 12 + 10, 2026 * 12 + 11));
    }
}
