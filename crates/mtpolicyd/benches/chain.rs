//! What a chain costs: twenty plugins, and a list of two hundred regular expressions.

// The macros of criterion make public functions that have nothing to say.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use mtpolicyd::testing::Bench;
use std::fmt::Write;
use std::hint::black_box;

/// A mix of what configurations have: fields, conditions, score actions, a header at the end.
fn twenty_plugins() -> String {
    let mut text = String::new();
    for n in 0..6 {
        let _ =
            write!(text, "<Plugin set{n}>\n module = SetField\n key = field{n}\n value = {n}\n</Plugin>\n");
        let _ = write!(
            text,
            "<Plugin exact{n}>\n module = Condition\n key = client_name\n match = host{n}\n \
             score = 1\n</Plugin>\n"
        );
        let _ = write!(
            text,
            "<Plugin re{n}>\n module = Condition\n key = sender\n re_match = \"^bounce{n}[-+.@]\"\n \
             score = 1\n</Plugin>\n"
        );
    }
    text += "<Plugin act>\n module = ScoreAction\n threshold = 15\n action = reject %SCORE%\n</Plugin>\n";
    text + "<Plugin tag>\n module = AddScoreHeader\n</Plugin>\n"
}

fn two_hundred_patterns() -> String {
    let mut text = "<Plugin list>\n module = RegexList\n key = helo_name\n action = x\n".to_owned();
    for n in 0..200 {
        let _ = writeln!(text, " regex = \"^(ppp|dial|pool)[-.]?\\d+\\.isp{n}\\.[a-z]{{2,3}}\\$\"");
    }
    text + "</Plugin>\n"
}

fn chain(c: &mut Criterion) {
    for (name, text) in
        [("chain of 20 plugins", twenty_plugins()), ("list of 200 patterns", two_hundred_patterns())]
    {
        let mut bench = Bench::new(&text)
            .attribute("client_name", "mail.example.net")
            .attribute("helo_name", "mail1234.example.net")
            .attribute("sender", "user@example.net");
        c.bench_function(name, |b| b.iter(|| black_box(bench.run_fresh())));
    }
}

criterion_group!(benches, chain);
criterion_main!(benches);
