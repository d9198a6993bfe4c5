//! What grows with the length of a file or of a configuration: a request to tables and lists of 10 to 100,000
//! lines, and reading them.

// The macros of criterion make public functions that have nothing to say.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use mtpolicyd::testing::Bench;
use std::fmt::Write as _;
use std::hint::black_box;
use std::io::Write;
use std::time::Duration;
use tempfile::NamedTempFile;

/// The lengths.
const COUNTS: [usize; 5] = [10, 100, 1_000, 10_000, 100_000];

/// A line of a table by its number.
type Line = fn(usize) -> String;

/// The kinds of tables by their type, with the line of a number and the attribute that is looked up.
const TABLES: [(&str, &str, Line); 4] = [
    ("pcre", "sender", |n| format!("/^news(letter)?-?{n}@.*\\.host{n}\\.example$/ OK\n")),
    ("regexp", "sender", |n| format!("/^(bounce|news)-{n}@[a-z]+\\.host{n}\\.example$/ OK\n")),
    ("cidr", "client_address", |n| network(n) + " OK\n"),
    ("texthash", "sender", |n| format!("user{n}@host{n}.example OK\n")),
];

/// The kinds of whitelists of Greylist, and of lists of expressions.
const LISTS: [(&str, Line); 3] = [
    ("networks", |n| network(n) + "\n"),
    ("domains", |n| format!("mx{n}.host{n}.example\n")),
    ("expressions", |n| format!("/\\.dyn{n}\\.(net|com)$/\n")),
];

/// Expressions of RegexList, of the kinds that lists of dynamic names have.
const EXPRESSIONS: [fn(usize) -> String; 5] = [
    |n| format!(r"^(\d{{1,3}}[-.]){{3}}\d{{1,3}}\.dyn{n}\."),
    |n| format!(r"^(ppp|dial|pool)[-.]?\d+\.isp{n}\.[a-z]{{2,3}}$"),
    |n| format!(r"\.(dsl|cable|dhcp){n}\.(net|com)$"),
    |n| format!(r"^n{n}-\d+.*\.customers\.dynamic\.provider\.example$"),
    |n| format!(r"^(?!mail|mx)[a-z0-9-]+\.virtua{n}\."),
];

fn network(n: usize) -> String {
    format!("{}.{}.{}.0/24", 11 + n / 62_500, n / 250 % 250, n % 250)
}

fn file(lines: impl Iterator<Item = String>) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    let text: String = lines.collect();
    file.write_all(text.as_bytes()).expect("room");
    file
}

/// What a request costs, and the reading of the configuration with its files.
fn bench(c: &mut Criterion, name: &str, text: &str) {
    let mut bench = Bench::new(text)
        .attribute("client_address", "192.0.2.7")
        .attribute("client_name", "mail.example.net")
        .attribute("helo_name", "n77-12.mail.example.net")
        .attribute("sender", "newsletter-77@mail1234.example.org")
        .attribute("recipient", "bob@example.net");
    c.bench_function(name, |b| b.iter(|| black_box(bench.run_fresh())));
    c.bench_function(&format!("reading {name}"), |b| b.iter(|| black_box(Bench::new(text))));
}

fn tables(c: &mut Criterion) {
    for (kind, field, line) in TABLES {
        for count in COUNTS {
            let table = file((0..count).map(line));
            let path = table.path().display();
            let text = format!(
                "<Plugin m>\n module = PostfixMap\n db_file = \"{kind}:{path}\"\n field = {field}\n</Plugin>"
            );
            bench(c, &format!("{kind} table of {count} lines"), &text);
        }
    }
}

fn lists(c: &mut Criterion) {
    for (kind, line) in LISTS {
        for count in COUNTS {
            let list = file((0..count).map(line).chain(["192.0.2.0/24\n".to_owned()]));
            let text = format!(
                "<Plugin g>\n module = Greylist\n whitelist_clients = \"{}\"\n<Ticket>\n module = Memory\n\
                 </Ticket>\n<AWL>\n module = Memory\n</AWL>\n</Plugin>",
                list.path().display()
            );
            bench(c, &format!("whitelist of {count} {kind}"), &text);
        }
    }
    for count in COUNTS {
        let list = file((0..count).map(|n| EXPRESSIONS[n % EXPRESSIONS.len()](n) + "\n"));
        let path = list.path().display();
        let text =
            format!("<Plugin r>\n module = RegexList\n key = helo_name\n file = \"{path}\"\n</Plugin>");
        bench(c, &format!("RegexList of {count} lines"), &text);
    }
}

/// Plugins cost in proportion to their number: this shows what one costs.
fn plugins(c: &mut Criterion) {
    for count in COUNTS {
        let mut text = String::new();
        for n in 0..count {
            let _ = match n % 2 {
                0 => write!(text, "<Plugin s{n}>\n module = SetField\n key = k\n value = {n}\n</Plugin>\n"),
                _ => write!(
                    text,
                    "<Plugin c{n}>\n module = Condition\n key = sender\n match = {n}\n</Plugin>\n"
                ),
            };
        }
        bench(c, &format!("chain of {count} plugins"), &text);
    }
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500))
}

criterion_group! { name = benches; config = short(); targets = tables, lists, plugins }
criterion_main!(benches);
