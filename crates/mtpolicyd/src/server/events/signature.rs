//! What shows a receiver that an event comes from this daemon.
//!
//! Knows: HMAC-SHA-256 (RFC 2104). Must not know: events, headers.

use backends::Secret;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// What SHA-256 takes at once.
const BLOCK: usize = 64;

/// The code of a text under a secret, in hexadecimal digits.
pub fn sign(secret: &Secret, parts: &[&[u8]]) -> String {
    let mut block = [0_u8; BLOCK];
    let key = secret.0.as_bytes();
    if key.len() > BLOCK {
        let short = Sha256::digest(key);
        block[..short.len()].copy_from_slice(&short);
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36));
    parts.iter().for_each(|part| inner.update(part));
    let code = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner.finalize());
    code.finalize().iter().fold(String::new(), |mut text, byte| {
        // A string takes all that is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_that_of_the_standard() {
        // RFC 4231, test cases 2 and 6.
        let sign = |key: &str, text: &str| sign(&Secret(key.to_owned()), &[text.as_bytes()]);
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(sign("Jefe", "what do ya want for nothing?"), expected);
        let long = "k".repeat(131);
        let again = super::sign(&Secret(long.clone()), &[b"a", b"b"]);
        assert_eq!(sign(&long, "ab"), again);
        assert_ne!(sign(&long, "ab"), sign(&long[..64], "ab"));
    }
}
