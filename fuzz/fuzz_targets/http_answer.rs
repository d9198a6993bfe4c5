//! No answer of a service makes its reader panic, and what it reads is within its bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mtpolicyd::facts::lookup_service::{LookupAnswer, MAX_ANSWER_BYTES};

fuzz_target!(|body: &[u8]| {
    let Ok(answer) = LookupAnswer::read(body) else { return };
    assert!(body.len() <= MAX_ANSWER_BYTES);
    assert!(answer.score.is_none_or(f64::is_finite));
    assert!(answer.action.is_none_or(|action| !action.trim().is_empty() && action.len() <= body.len()));
    // The longest text of a number that is not in the answer itself has 22 characters.
    assert!(answer.user.iter().all(|(name, text)| name.len() <= body.len() && text.len() <= body.len() + 22));
});
