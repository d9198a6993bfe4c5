//! Keys that a store can't take as they are.
//!
//! Knows: hashing. Must not know: any store's protocol.

use sha2::{Digest, Sha256};

/// How many bytes of a long key stay readable in its replacement.
const READABLE_BYTES: usize = 100;

/// What stands for a key that is too long or has bytes that its store can't take: its beginning with `_` for
/// whatever is not visible ASCII, `~`, and half of its SHA-256 in hexadecimal. At most 133 bytes.
pub fn stand_in(key: &[u8]) -> String {
    let readable = key.iter().take(READABLE_BYTES);
    let readable = readable.map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '_' });
    let hash = Sha256::digest(key);
    let hex = hash.iter().take(16).map(|byte| format!("{byte:02x}"));
    readable.chain(std::iter::once('~')).collect::<String>() + &hex.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_short_and_tells_keys_apart() {
        assert_eq!(stand_in(b"a b"), "a_b~c8687a08aa5d6ed2044328fa6a697ab8");
        assert_eq!(stand_in(&[b'x'; 1000]).len(), 133);
        assert_ne!(stand_in(&[b'x'; 1000]), stand_in(&[b'x'; 1001]));
    }
}
