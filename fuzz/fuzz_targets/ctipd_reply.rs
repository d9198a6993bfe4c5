//! No answer of ctipd makes its reader panic, and what it says of a wrong one is short.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mtpolicyd::facts::ctipd::{Reputation, read};
use mtpolicyd::value::Value;

fuzz_target!(|body: &[u8]| match read(body) {
    // Bytes that are not UTF-8 become three each.
    Ok(reply) => {
        assert!(reply.reference.len() <= 3 * body.len() && !reply.reference.contains('\n'));
        assert_eq!(Reputation::parse(&reply.reputation.to_string()), Ok(reply.reputation));
    }
    Err(why) => assert!(why.chars().count() < 120),
});
