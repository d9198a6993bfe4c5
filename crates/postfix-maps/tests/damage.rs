//! Files that somebody has damaged, or is just writing, give an answer or an error, and soon.

// Clippy takes only functions marked as tests for tests, not what they call.
#![allow(clippy::unwrap_used)]

use postfix_maps::Error;
use postfix_maps::berkeley::Database;
use postfix_maps::cdb::Cdb;
use postfix_maps::lmdb::Lmdb;
use proptest::prelude::*;
use std::fmt::Write;
use std::process::Command;
use std::sync::LazyLock;

const KINDS: [&str; 4] = ["hash", "btree", "lmdb", "cdb"];

/// A file of each type, with items that have pages of their own.
static FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("main.cf"), "compatibility_level = 3.6\n").unwrap();
    let mut text = format!("long {}\n{} x\n", "v".repeat(9000), "k".repeat(400));
    (0..600).for_each(|number| writeln!(text, "user{number}@example.org OK {number}").unwrap());
    let path = folder.path().join("map");
    std::fs::write(&path, text).unwrap();
    let make = |kind: &str| {
        let map = format!("{kind}:{}", path.display());
        let output = Command::new("postmap").arg("-c").arg(folder.path()).arg(map).output();
        assert!(output.expect("postmap is installed").status.success(), "{kind}");
        let suffix = if matches!(kind, "hash" | "btree") { "db" } else { kind };
        std::fs::read(path.with_extension(suffix)).unwrap()
    };
    KINDS.map(make).to_vec()
});

fn get(kind: &str, file: &[u8], key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    match kind {
        "lmdb" => Lmdb::open(file)?.get(key),
        "cdb" => Cdb::open(file)?.get(key),
        _ => Database::open(file)?.get(key),
    }
}

/// The number of entries.
fn count(kind: &str, file: &[u8]) -> Result<usize, Error> {
    let mut count = 0;
    let mut visit = |_: &[u8], _: &[u8]| count += 1;
    match kind {
        "lmdb" => Lmdb::open(file)?.for_each(&mut visit)?,
        "cdb" => Cdb::open(file)?.for_each(&mut visit)?,
        _ => Database::open(file)?.for_each(&mut visit)?,
    }
    Ok(count)
}

#[test]
fn the_files_are_good_before() {
    for (kind, file) in KINDS.iter().zip(&*FILES) {
        assert_eq!(count(kind, file).unwrap(), 602, "{kind}");
        let key: &[u8] = if *kind == "cdb" { b"user7@example.org" } else { b"user7@example.org\0" };
        assert!(get(kind, file, key).unwrap().unwrap().starts_with(b"OK 7"), "{kind}");
    }
}

#[test]
fn a_file_that_is_cut_off_is_no_table_without_the_key() {
    for (kind, file) in KINDS.iter().zip(&*FILES) {
        for length in (0..file.len()).step_by(509) {
            let key: &[u8] = if *kind == "cdb" { b"user7@example.org" } else { b"user7@example.org\0" };
            // The part with the key may be whole. That there is no such key it must not say.
            assert!(!matches!(get(kind, &file[..length], key), Ok(None)), "{kind} of {length} bytes");
        }
    }
}

#[test]
fn other_files_are_refused() {
    for kind in KINDS {
        assert!(get(kind, b"", b"x").is_err() && get(kind, &[0; 100], b"x").is_err(), "{kind}");
    }
    for kind in ["hash", "lmdb"] {
        assert!(get(kind, &[0; 100_000], b"x").is_err(), "{kind}");
        assert!(get(kind, &[255; 100_000], b"x").is_err(), "{kind}");
    }
}

#[test]
fn what_is_wrong_within_a_page_may_pass() {
    // A process that takes no lock is seen while it moves items; only the first page says what the file is.
    const PAGE: usize = 4096;
    for (kind, file) in KINDS.iter().zip(&*FILES).filter(|(kind, _)| matches!(**kind, "hash" | "btree")) {
        let mut wrong = 0;
        for place in PAGE..file.len() {
            let mut file = file.clone();
            file[place] = 0x77;
            if let Err(error) = get(kind, &file, b"user7@example.org\0") {
                assert!(error.may_pass(), "{kind}, byte {place}: {error}");
                wrong += 1;
            }
        }
        assert!(wrong > 10, "{kind}: {wrong}");
    }
}

proptest! {
    #[test]
    fn a_damaged_file_gives_an_answer_or_an_error(
        kind in 0..4_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..40),
        cut in prop::option::of(any::<prop::sample::Index>()),
        number in 0..700_u32,
    ) {
        let mut file = FILES[kind].clone();
        for (place, byte, early) in damage {
            // Most of what matters stands at the beginning of a page.
            let place = place.index(file.len());
            let place = if early { place - place % 4096 + place % 64 } else { place };
            file[place] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        let _ = get(KINDS[kind], &file, format!("user{number}@example.org\0").as_bytes());
        let _ = get(KINDS[kind], &file, b"long\0");
        let _ = count(KINDS[kind], &file);
    }
}
