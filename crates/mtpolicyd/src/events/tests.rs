//! Tests of events and of the limits that somebody has used up.

use super::*;
use backends::clock::Clock;
use std::sync::atomic::AtomicI64;

fn used<'a>(key: &'a str, count: &'a str) -> LimitUse<'a> {
    LimitUse { kind: LimitKind::Limits, plugin: "outgoing", key, limit: "100/1h", count }
}

fn told(events: &Events) -> Vec<String> {
    let shown = |event: Event| format!("{} {}: {}", event.kind, event.state, event.text);
    events.take_all().into_iter().map(shown).collect()
}

#[test]
fn a_limit_is_told_once_and_that_it_is_over_once() {
    let events = Events::default();
    let until = || Until::Time(1_000);
    let near = used("alice", "80 messages");
    for _ in 0..2 {
        events.limit_filled(Fill::Near, &near, until);
    }
    events.limit_stands(75, &near, until);
    events.limit_filled(Fill::Reached, &used("alice", "100 messages"), until);
    events.limit_filled(Fill::Near, &near, until);
    assert_eq!(
        told(&events),
        [
            "limit-near begins: outgoing: alice is at 80 % of 100/1h: 80 messages",
            "limit-reached begins: outgoing: alice has used up 100/1h: 100 messages",
        ]
    );
    events.limit_stands(70, &near, until);
    events.limit_stands(69, &used("bob", ""), until);
    assert!(told(&events).is_empty());
    events.limit_stands(69, &near, until);
    events.limit_stands(0, &near, until);
    assert_eq!(told(&events), ["limit-reached ends: outgoing: alice is below 100/1h again"]);
    assert!(!events.is_any_limit_filled());
}

#[test]
fn a_limit_is_over_without_another_request() {
    let events = Events::default();
    let clock = Clock::Fake(AtomicI64::new(1_764_000_000));
    let period = || Until::Period { pattern: "%Y-%m".to_owned(), text: "2025-11".to_owned() };
    events.limit_filled(Fill::Near, &used("alice", ""), || Until::Time(1_764_000_001_000));
    events.limit_filled(Fill::Reached, &used("bob", ""), period);
    told(&events);
    events.end_limits(&clock);
    assert!(told(&events).is_empty());
    let Clock::Fake(now) = &clock else { unreachable!() };
    now.fetch_add(1, Ordering::Relaxed);
    events.end_limits(&clock);
    assert_eq!(told(&events), ["limit-near ends: outgoing: alice is below 100/1h again"]);
    now.fetch_add(31 * 86_400, Ordering::Relaxed);
    events.end_limits(&clock);
    assert_eq!(told(&events), ["limit-reached ends: outgoing: bob is below 100/1h again"]);
}

#[test]
fn advice_is_a_command_that_a_shell_reads() {
    let events = Events::default();
    let advice = |key| {
        events.limit_filled(Fill::Reached, &used(key, ""), || Until::Time(0));
        events.take_all().remove(0).advice
    };
    let alice = advice("alice@example.org");
    assert!(alice.contains("`mtpolicyd limits reset outgoing alice@example.org`"), "{alice}");
    let odd = advice("-x'; rm");
    assert!(odd.contains("`mtpolicyd limits reset -- outgoing '-x'\\''; rm'`"), "{odd}");
}

#[tokio::test]
async fn what_has_no_room_is_counted() {
    let events = Events::default();
    for _ in 0..MAX_WAITING + 3 {
        events.raise(events.event(EventKind::Test, EventState::Test, "", String::new()));
    }
    assert_eq!((events.take_lost(), events.take_lost()), (3, 0));
    let first = events.next().await;
    assert!(first.id < events.next().await.id);
    assert_eq!(events.take_all().len(), MAX_WAITING - 2);
}
