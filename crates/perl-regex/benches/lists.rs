//! What one value costs in lists of patterns of growing length, and what patterns that look around cost.

// The macros of criterion make public functions that have nothing to say.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use perl_regex::{Budget, Pattern, PatternList};
use std::hint::black_box;
use std::time::Duration;

const BUDGET: Budget = Budget::new(20_000_000, 6_000_000);

/// Names of hosts, as lists of dial-up networks have them; every tenth pattern looks ahead, every twentieth
/// has nothing that tells it apart.
fn dialup(count: usize) -> PatternList {
    let pattern = |n: usize| match n % 20 {
        0 => format!(r"^[0-9]{{{},}}\.", n % 60 + 1),
        1 | 11 => format!(r"^(?!mail|mx)[a-z0-9-]+\.customer{n}\."),
        _ => format!(r"^(ppp|dial|pool)[-.]?\d+\.isp{n}\.[a-z]{{2,3}}$"),
    };
    PatternList::new((0..count).map(|n| Pattern::new(&pattern(n)).expect("it is good")).collect())
}

fn lists(c: &mut Criterion) {
    let values = ["mail1234.example.net", "ppp-12-34.isp77.net", "unknown", "a1b2c3.dynamic.example.org"];
    for count in [10, 100, 1_000, 3_000, 10_000, 100_000] {
        let list = dialup(count);
        let mut n = 0;
        c.bench_function(&format!("list of {count} patterns"), |b| {
            b.iter(|| {
                n = (n + 1) % values.len();
                black_box(list.find(values[n].as_bytes(), &mut BUDGET.clone()))
            });
        });
    }
}

fn single(c: &mut Criterion) {
    for (name, pattern, value) in [
        ("look-ahead", r"^(?!noreply)[a-z.]+@example\.org$", "bob.miller@example.org".to_owned()),
        (
            "look-ahead in a repetition",
            r"(?:(?!noreply)[a-z]+[._]?)+@evil\.example$",
            "a".repeat(1_000) + "-x@evil.example",
        ),
        ("back-reference", r"(\w)\1\1\1", "the.quick.brown.fox@example.org".to_owned()),
    ] {
        let pattern = Pattern::new(pattern).expect("it is good");
        c.bench_function(name, |b| {
            b.iter(|| black_box(pattern.is_match(value.as_bytes(), &mut BUDGET.clone())));
        });
    }
}

fn short() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1))
}

criterion_group! { name = benches; config = short(); targets = lists, single }
criterion_main!(benches);
