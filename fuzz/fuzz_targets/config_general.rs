//! Any bytes: no panic, no hang, and the places of all diagnostics lie in the text.

#![no_main]

use std::path::Path;

use config_general::{Limits, parse, to_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match parse(Path::new("fuzz.conf"), bytes, &Limits::default()) {
        Ok(document) => {
            let _ = to_text(&document.root);
            for found in &document.diagnostics {
                let _ = found.display(&document.sources).to_string();
            }
        }
        Err(failure) => drop(failure.to_string()),
    }
});
