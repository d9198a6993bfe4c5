//! Searches that end early, and those for everything about somebody.
//!
//! Knows: journals as a daemon uses them.

use super::tests::{Bench, all, find, until};
use super::*;
use crate::Outcome;

#[test]
fn a_search_without_time_goes_on_where_it_has_ended() {
    let bench = Bench::new();
    let journal = bench.open();
    let mut sent = Vec::new();
    for n in 0..1_500 {
        until("room", || journal.status().waiting < 1_000);
        // A block of few decisions, among which many blocks of the others are.
        let outcome = if n % 200 == 0 { Outcome::Reject } else { Outcome::Pass };
        sent.push(bench.send(&journal, "bob@example.org", outcome));
    }
    until("writing", || journal.status().waiting == 0);
    let (mut found, mut before, mut pages) = (Vec::new(), None, 0);
    loop {
        let late = Progress::until(Instant::now());
        let page = journal.search(&Filter::default(), 5_000, before, &late).unwrap();
        pages += 1;
        found.extend(page.decisions.iter().map(|decision| decision.id));
        let Some(next) = page.next() else { break };
        assert!(before.is_none_or(|before| next < before), "each time it comes further");
        before = Some(next);
    }
    found.reverse();
    assert_eq!(found, sent, "each once");
    assert!(pages > 5, "{pages}");
}

#[test]
fn what_is_said_about_somebody_is_what_would_be_forgotten() {
    for privacy in [Privacy::None, Privacy::Addresses] {
        let mut bench = Bench::new();
        bench.settings.privacy = privacy;
        let journal = bench.open();
        bench.send(&journal, "bob@example.org", Outcome::Pass);
        bench.send(&journal, "jim.bob@example.org", Outcome::Pass);
        let mut about = bench.decision("x@example.org", Outcome::Reject);
        about.session = vec![("seen".into(), "BOB@example.org".into())];
        journal.send(Arc::new(about));
        let about = Filter { about: Some("Bob@Example.org".to_owned()), ..Filter::default() };
        assert_eq!(find(&journal, &about, 10).decisions.len(), 2);
        until("writing", || journal.status().waiting == 0);
        assert_eq!(find(&journal, &about, 10).decisions.len(), 2);
        assert_eq!(journal.forget("bob@example.org", "root"), Ok(2));
        assert_eq!(find(&journal, &about, 10).decisions.len(), 0);
        assert_eq!(all(&journal).len(), 1);
    }
}
