//! Searches that end early, and those for everything about somebody.
//!
//! Knows: journals as a daemon uses them.

use super::tests::{Bench, all, find, until};
use super::*;
use crate::{Outcome, Shadow};

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

#[test]
fn what_a_shadow_decides_otherwise_is_found_as_such_and_counts_once() {
    for privacy in [Privacy::None, Privacy::Addresses] {
        let mut bench = Bench::new();
        bench.settings.privacy = privacy;
        let journal = bench.open();
        let same = bench.send(&journal, "bob@example.org", Outcome::Pass);
        let mut other = bench.decision("alice@example.org", Outcome::Pass);
        journal.send(Arc::new(other.clone()));
        let shadow = Shadow { outcome: Outcome::Reject, ..Shadow::of(&other, "exact") };
        let answer = "reject mail for carol@example.org from alice@example.org".into();
        other.shadow = Some(Box::new(Shadow { answer, ..shadow }));
        journal.send(Arc::new(other.clone()));
        let differs = Filter { shadow_differs: true, ..Filter::default() };
        let look = || {
            let found: Vec<_> = find(&journal, &differs, 10).decisions.iter().map(|it| it.id).collect();
            assert_eq!(found, [other.id]);
            assert_eq!(all(&journal).iter().map(|it| it.id).collect::<Vec<_>>(), [other.id, same]);
            let got = journal.get(other.id).unwrap().and_then(|it| it.shadow.clone()).unwrap();
            (got.outcome, got.by, got.steps.len(), got.answer)
        };
        let first = look();
        until("writing", || journal.status().waiting == 0);
        let (outcome, by, steps, written) = look();
        assert_eq!((outcome, by, steps), (first.0, first.1, first.2));
        assert_eq!((outcome, steps), (Outcome::Reject, 1));
        let names_people = written.contains("carol@") || written.contains("alice@");
        assert_eq!(names_people, privacy == Privacy::None, "{written}");
        assert!(journal.close(Duration::from_secs(60)));
        let replayed = OldestFirst::open(&bench.settings.file, DecisionId::from_number(0), None).unwrap();
        assert_eq!(replayed.map(|it| it.unwrap().id).collect::<Vec<_>>(), [same, other.id]);
        let journal = bench.open();
        assert_eq!(journal.forget("alice@example.org", "root"), Ok(2), "both records");
        assert_eq!(find(&journal, &differs, 10).decisions.len(), 0);
        assert_eq!(find(&journal, &Filter::default(), 10).decisions.len(), 1);
    }
}
