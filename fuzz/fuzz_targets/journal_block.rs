//! No bytes of a block of the journal make its reader panic, and what it reads is the same once it is written
//! and read again.
//!
//! The input is the contents of a block, behind its checksum and its compression, which would hide them.

#![no_main]

use decisions::journal::contents::{decode, encode};
use decisions::{DecisionView, Filter, StepInfo, StepTable};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|bytes: &[u8]| {
    let step = |name: &str| StepInfo { path: format!("in/{name}"), ..StepInfo::default() };
    let steps = ["one", "two", "three"].map(step).to_vec();
    let table = Arc::new(StepTable { steps, ..StepTable::default() });
    let Ok(decisions) = decode(bytes, &table) else { return };
    let again = decode(&encode(&decisions), &table).expect("what was written can be read");
    assert_eq!(decisions.len(), again.len());
    let filter = Filter { about: Some("bob@example.org".to_owned()), ..Filter::default() };
    for (decision, again) in decisions.iter().zip(&again) {
        // Numbers that are none are not equal to themselves, but look the same.
        assert_eq!(format!("{decision:?}"), format!("{again:?}"));
        let _ = filter.matches(decision);
        let _ = DecisionView::of(decision);
    }
});
