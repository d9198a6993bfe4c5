//! No file makes a reader of tables panic or go on forever: Berkeley DB, LMDB, CDB.
//!
//! The first byte says how long the key is that the input begins with; the rest is the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postfix_maps::berkeley::Database;
use postfix_maps::cdb::Cdb;
use postfix_maps::lmdb::Lmdb;
use postfix_maps::text::{key_and_value, logical_lines};

/// What is done with an entry.
fn visit(key: &[u8], value: &[u8]) {
    std::hint::black_box((key.len(), value.len()));
}

fuzz_target!(|data: &[u8]| {
    let Some((&length, rest)) = data.split_first() else { return };
    let (key, file) = rest.split_at(usize::from(length).min(rest.len()));
    if let Ok(database) = Database::open(file) {
        let _ = database.get(key);
        let _ = database.for_each(visit);
    }
    if let Ok(database) = Lmdb::open(file) {
        let _ = database.get(key);
        let _ = database.for_each(visit);
    }
    if let Ok(database) = Cdb::open(file) {
        let _ = database.get(key);
        let _ = database.for_each(visit);
    }
    for line in logical_lines(&String::from_utf8_lossy(file)) {
        let _ = key_and_value(&line.text);
    }
});
