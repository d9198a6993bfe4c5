//! What a lookup costs in tables of patterns and networks of growing length, and in whitelists.

// The macros of criterion make public functions that have nothing to say.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use mtpolicyd::testing::Bench;
use std::hint::black_box;
use std::io::Write;
use std::time::Duration;
use tempfile::NamedTempFile;

fn file(lines: impl Iterator<Item = String>) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    lines.for_each(|line| file.write_all(line.as_bytes()).expect("room"));
    file
}

fn network(n: usize) -> String {
    format!("{}.{}.{}.0/24", 11 + n / 62_500, n / 250 % 250, n % 250)
}

fn bench(c: &mut Criterion, name: &str, text: &str) {
    let mut bench = Bench::new(text)
        .attribute("client_address", "192.0.2.7")
        .attribute("client_name", "mail.example.net")
        .attribute("sender", "newsletter-77@mail1234.example.org")
        .attribute("recipient", "bob@example.net");
    c.bench_function(name, |b| b.iter(|| black_box(bench.run_fresh())));
}

fn tables(c: &mut Criterion) {
    for count in [10, 100, 1_000, 10_000] {
        let lines = (0..count).map(|n| format!("/^news(letter)?-?{n}@.*\\.host{n}\\.example$/ OK\n"));
        let table = file(lines);
        let text = format!(
            "<Plugin m>\n module = PostfixMap\n db_file = \"pcre:{}\"\n field = sender\n</Plugin>",
            table.path().display()
        );
        bench(c, &format!("pcre table of {count} lines"), &text);
    }
    for count in [10, 1_000, 100_000] {
        let table = file((0..count).map(|n| format!("{} OK\n", network(n))));
        let text = format!(
            "<Plugin m>\n module = PostfixMap\n db_file = \"cidr:{}\"\n</Plugin>",
            table.path().display()
        );
        bench(c, &format!("cidr table of {count} lines"), &text);
        let list = file((0..count).map(|n| network(n) + "\n").chain(["192.0.2.0/24\n".to_owned()]));
        let text = format!(
            "<Plugin g>\n module = Greylist\n store = memory\n whitelist_clients = \"{}\"\n</Plugin>",
            list.path().display()
        );
        bench(c, &format!("whitelist of {count} networks"), &text);
    }
}

fn short() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = short(); targets = tables }
criterion_main!(benches);
