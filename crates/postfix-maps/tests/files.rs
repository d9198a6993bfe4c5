//! Files that postmap and Perl have made are read as those programs read them.
//!
//! postmap is part of the Debian package postfix, its LMDB and CDB of postfix-lmdb and postfix-cdb.

// Clippy takes only functions marked as tests for tests, not what they call.
#![allow(clippy::unwrap_used)]

use postfix_maps::berkeley::{Database, Format};
use postfix_maps::cdb::Cdb;
use postfix_maps::lmdb::Lmdb;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A folder with a configuration of Postfix.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("main.cf"), "compatibility_level = 3.6\n").unwrap();
    folder
}

/// Makes a table of that type from its text.
fn postmap(folder: &Path, kind: &str, text: &str) -> PathBuf {
    fs::write(folder.join("map"), text).unwrap();
    let mut postmap = Command::new("postmap");
    postmap.arg("-c").arg(folder).arg(format!("{kind}:{}", folder.join("map").display()));
    let output = postmap.output().expect("postmap is installed");
    assert!(output.status.success(), "{kind}: {output:?}");
    let suffix = if matches!(kind, "hash" | "btree") { "db" } else { kind };
    folder.join(format!("map.{suffix}"))
}

/// As postmap stores it.
fn stored(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

/// Entries of several lengths, the longest on pages of their own, and the text of their table.
fn entries(count: u32) -> (Entries, String) {
    let (mut entries, mut text) = (Entries::new(), String::new());
    for number in 0..count {
        let key = match number % 100 {
            7 => format!("{}{number}@long.example", "k".repeat(400 + number as usize % 4000)),
            _ => format!("user{number}@domain{}.example", number % 97),
        };
        let value = match number % 50 {
            3 => format!("{number} {}", "v".repeat(number as usize * 3)),
            _ => format!("OK {number}"),
        };
        text.push_str(&format!("{key} {value}\n"));
        entries.insert(stored(&key), stored(value.trim_end()));
    }
    (entries, text)
}

fn check(
    what: &str,
    expected: &Entries,
    get: impl Fn(&[u8]) -> Option<Vec<u8>>,
    for_each: impl FnOnce(&mut dyn FnMut(&[u8], &[u8])),
) {
    for (key, value) in expected {
        assert_eq!(get(key).as_ref(), Some(value), "{what}: {}", key.escape_ascii());
        let other = [b"x", key.as_slice()].concat();
        assert_eq!(get(&other), None, "{what}: {}", other.escape_ascii());
    }
    assert_eq!((get(b""), get(b"zzz\0"), get(&[255; 600])), (None, None, None), "{what}");
    let mut all = Entries::new();
    for_each(&mut |key, value| assert_eq!(all.insert(key.to_vec(), value.to_vec()), None, "{what}: twice"));
    assert!(all == *expected, "{what}: {} of {} entries", all.len(), expected.len());
}

fn check_berkeley(what: &str, path: &Path, format: Format, expected: &Entries) {
    let file = File::open(path).unwrap();
    let database = Database::open(&file).unwrap();
    assert_eq!(database.format(), format, "{what}");
    let get = |key: &[u8]| database.get(key).unwrap();
    check(what, expected, get, |visit| database.for_each(visit).unwrap());
}

#[test]
fn hash_and_btree_files_of_postmap() {
    for count in [0, 1, 2, 100, 6_000] {
        let (expected, text) = entries(count);
        let folder = folder();
        for (kind, format) in [("hash", Format::Hash), ("btree", Format::Btree)] {
            let path = postmap(folder.path(), kind, &text);
            check_berkeley(&format!("{kind} {count}"), &path, format, &expected);
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn lmdb_and_cdb_files_of_postmap() {
    for count in [0, 1, 2, 100, 6_000] {
        let (mut expected, mut text) = entries(count);
        let folder = folder();
        let path = postmap(folder.path(), "cdb", &text);
        let file = File::open(path).unwrap();
        let cdb = Cdb::open(&file).unwrap();
        let without_nul = |bytes: &[u8]| bytes.strip_suffix(b"\0").unwrap().to_vec();
        let plain = expected.iter().map(|(key, value)| (without_nul(key), without_nul(value))).collect();
        check("cdb", &plain, |key| cdb.get(key).unwrap(), |visit| cdb.for_each(visit).unwrap());

        // Keys of LMDB have 511 bytes at most.
        expected.retain(|key, _| key.len() <= 511);
        text =
            text.lines().filter(|line| line.find(' ') < Some(511)).map(|line| format!("{line}\n")).collect();
        // Twice, so that the other of the two first pages is current.
        for _ in 0..2 {
            let path = postmap(folder.path(), "lmdb", &text);
            let file = File::open(path).unwrap();
            let lmdb = Lmdb::open(&file).unwrap();
            check("lmdb", &expected, |key| lmdb.get(key).unwrap(), |visit| lmdb.for_each(visit).unwrap());
        }
    }
}

/// DB_File is how SpamAssassin keeps its auto-whitelist; `lorder` writes as a machine of the other byte
/// order.
const PERL: &str = r#"
    use DB_File; use Fcntl;
    my ($kind, $file, $order, $page) = @ARGV;
    my $info = $kind eq 'hash' ? DB_File::HASHINFO->new : DB_File::BTREEINFO->new;
    $info->{lorder} = $order if $order;
    $info->{$kind eq 'hash' ? 'bsize' : 'psize'} = $page if $page;
    tie(my %map, 'DB_File', $file, O_RDWR|O_CREAT, 0644, $info) or die "cannot: $!";
    for my $n (0 .. 2999) {
        my $key = "user$n\@domain.example|ip=192.0" . ($n % 100 == 7 ? 'k' x $n : '');
        $map{$key} = $n;
        $map{"$key|totscore"} = $n * 1.5 . ($n % 100 == 3 ? 'v' x ($n * 3) : '');
    }
    delete $map{"user$_\@domain.example|ip=192.0"} for map { $_ * 10 } 0 .. 299;
    untie %map;
"#;

fn perls_entries() -> Entries {
    let mut entries = Entries::new();
    for number in 0..3000_usize {
        let long_key = "k".repeat(if number % 100 == 7 { number } else { 0 });
        let long_value = "v".repeat(if number % 100 == 3 { number * 3 } else { 0 });
        let key = format!("user{number}@domain.example|ip=192.0{long_key}");
        let total = format!("{}{long_value}", number as f64 * 1.5);
        entries.insert(format!("{key}|totscore").into_bytes(), total.into_bytes());
        if number % 10 != 0 {
            entries.insert(key.into_bytes(), number.to_string().into_bytes());
        }
    }
    entries
}

#[test]
fn files_of_perl_in_both_byte_orders_and_several_page_sizes() {
    let (folder, expected) = (folder(), perls_entries());
    for (kind, format) in [("hash", Format::Hash), ("btree", Format::Btree)] {
        for order in ["0", "1234", "4321"] {
            for page in ["0", "512", "65536"] {
                let what = format!("{kind}-{order}-{page}");
                let path = folder.path().join(&what);
                let perl =
                    Command::new("perl").args(["-e", PERL, kind]).arg(&path).args([order, page]).output();
                let perl = perl.expect("perl is installed");
                assert!(perl.status.success(), "{what}: {perl:?}");
                check_berkeley(&what, &path, format, &expected);
            }
        }
    }
}
