//! Measures lookups in a file of Berkeley DB that postmap has made of numbered keys.
//!
//! `cargo run --release -p postfix-maps --example lookups -- FILE.db KEYS LOOKUPS` asks for the keys
//! `user0@example.org` to `userKEYS@example.org` in no order, with and without opening the file for each, and
//! prints how many lookups it made in a second and how much memory the process has.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

use postfix_maps::Error;
use postfix_maps::berkeley::Database;
use std::fs::File;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, keys, lookups] = &arguments[..] else { return Err("give FILE.db KEYS LOOKUPS".into()) };
    let (keys, lookups): (u64, u64) = (keys.parse()?, lookups.parse()?);
    let file = File::open(path)?;
    measure("the file stays open", keys, lookups, |key| Database::open(&file)?.get(key))?;
    measure("opened and locked each time", keys, lookups, |key| {
        let file = File::open(path)?;
        file.lock_shared()?;
        Database::open(&file)?.get(key)
    })?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    status.lines().filter(|line| line.starts_with("VmRSS")).for_each(|line| println!("{line}"));
    Ok(())
}

fn measure(
    what: &str,
    keys: u64,
    lookups: u64,
    get: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, Error>,
) -> Result<(), Box<dyn std::error::Error>> {
    let (begun, mut number, mut found) = (Instant::now(), 1_u64, 0_u64);
    for lookup in 0..lookups {
        // Jumps through all keys; every tenth is one that is not there.
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let beyond = if lookup % 10 == 0 { keys } else { 0 };
        let key = format!("user{}@example.org\0", (number >> 33) % keys + beyond);
        found += u64::from(get(key.as_bytes())?.is_some());
    }
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let rate = lookups as f64 / seconds;
    println!("{what}: {found} of {lookups} found, {rate:.0} lookups a second");
    Ok(())
}
