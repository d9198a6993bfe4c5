//! What an administrator sees and changes of a greylist, in memory and in a database.

use crate::state::{Change, Condition, Entry, Kind, Order, Select, StateError};
use crate::testing::Bench;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

const DEFERRED: Option<&str> = Some("defer greylisting is active");

fn in_memory(options: &str) -> Bench {
    let blocks = "<Ticket>\n module = Memory\n</Ticket>\n<AWL>\n module = Memory\n</AWL>";
    bench(&format!("<Plugin grey>\n module = Greylist\n{options}\n{blocks}\n</Plugin>"))
}

fn in_database(folder: &Path, options: &str) -> Bench {
    let db = folder.join("db.sqlite");
    bench(&format!(
        "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname={}\"\n</Connection>\n\
         <Plugin grey>\n module = Greylist\n{options}\n<Ticket>\n module = Sql\n</Ticket>\n</Plugin>",
        db.display()
    ))
}

fn bench(text: &str) -> Bench {
    Bench::new(text)
        .attribute("client_address", "192.0.2.10")
        .attribute("sender", "New@Example.org")
        .attribute("recipient", "bob@example.net")
}

fn select(client: &str, sender: &str, recipient: &str) -> Select {
    let given = |text: &str| (text != "-").then(|| text.to_owned());
    Select { client: given(client), sender: given(sender), recipient: given(recipient), ..Select::default() }
}

fn order(select: Select, change: Change) -> Order {
    Order { select, change, all: false }
}

fn reset() -> Change {
    Change::Reset { parts: Vec::new() }
}

fn allow() -> Change {
    Change::Allow { lifetime: None }
}

fn tickets(bench: &mut Bench, select: &Select) -> Vec<Entry> {
    bench.list(Kind::Greylist, select).unwrap()
}

fn a_ticket_by_hand(mut bench: Bench) {
    assert!(tickets(&mut bench, &Select::default()).is_empty());
    assert_eq!(bench.run_fresh().as_deref(), DEFERRED);
    bench.attribute_again("recipient", "carol@example.net");
    assert_eq!(bench.run_fresh().as_deref(), DEFERRED);
    bench.pass(Duration::from_secs(40));
    let now = bench.now();
    let all = tickets(&mut bench, &Select::default());
    assert_eq!(all.len(), 2, "{all:?}");
    let bob = tickets(&mut bench, &select("192.0.2.10", "-", "Bob@Example.net."));
    let [entry] = &bob[..] else { panic!("{bob:?}") };
    assert_eq!((entry.sender.as_deref(), entry.plugin.as_str()), (Some("new@example.org"), "grey"));
    assert_eq!((entry.state, entry.passes_at), (Condition::Waiting, Some(now + 260)));
    assert_eq!(entry.first_seen, Some(now - 40));
    assert!(entry.expires_at.is_some_and(|end| end > now));
    for (of_network, found) in [("192.0.2.0/24", 2), ("192.0.3.0/24", 0)] {
        assert_eq!(tickets(&mut bench, &select(of_network, "@example.ORG", "-")).len(), found);
    }
    let whole = || select("::ffff:192.0.2.10", "new@example.org", "carol@example.net");
    let changed = bench.change(Kind::Greylist, &order(whole(), allow())).unwrap();
    assert!(changed[0].done.starts_with("the next attempt passes; was to pass from 2025-11-24 16:05:00 on"));
    assert_eq!(tickets(&mut bench, &whole())[0].state, Condition::Ready);
    let undo = changed[0].undo.clone().unwrap();
    assert!(undo.command(Kind::Greylist).starts_with(
        "mtpolicyd greylist set --plugin grey --client 192.0.2.10 --from new@example.org \
         --to carol@example.net passes_at=1764000300 --for "
    ));
    bench.change(Kind::Greylist, &undo).unwrap();
    assert_eq!(bench.run_fresh().as_deref(), Some("defer greylisting is active (260s left)"));
    bench.change(Kind::Greylist, &order(whole(), allow())).unwrap();
    assert_eq!(bench.run_fresh(), None, "the very next attempt passes");
    assert!(bench.change(Kind::Greylist, &order(whole(), reset())).unwrap().is_empty(), "it was used up");
    let changed = bench.change(Kind::Greylist, &order(whole(), allow())).unwrap();
    assert!(changed[0].done.ends_with("there was no ticket"), "{changed:?}");
    bench.change(Kind::Greylist, &changed[0].undo.clone().unwrap()).unwrap();
    assert_eq!(bench.run_fresh().as_deref(), DEFERRED, "it waits again");
}

#[test]
fn a_ticket_is_shown_allowed_and_reset() {
    let folder = tempfile::tempdir().unwrap();
    a_ticket_by_hand(in_memory("autowl_threshold = 100"));
    a_ticket_by_hand(in_database(folder.path(), "autowl_threshold = 100"));
}

#[test]
fn several_tickets_are_changed_only_if_that_is_meant() {
    let mut bench = in_memory("");
    for n in 0..20 {
        bench.attribute_again("recipient", &format!("r{n}@example.net"));
        assert_eq!(bench.run_fresh().as_deref(), DEFERRED);
    }
    let mut of_domain = order(select("-", "@example.org", "-"), reset());
    let refused = bench.change(Kind::Greylist, &of_domain).unwrap_err();
    assert!(matches!(refused, StateError::NotAll { entries: 2.., .. }), "{refused}");
    assert_eq!(tickets(&mut bench, &Select::default()).len(), 20);
    of_domain.all = true;
    assert_eq!(bench.change(Kind::Greylist, &of_domain).unwrap().len(), 20);
    assert!(tickets(&mut bench, &Select::default()).is_empty());
}

fn known_clients_by_hand(mut bench: Bench) {
    for _ in 0..2 {
        assert_eq!(bench.run_fresh().as_deref(), DEFERRED);
        bench.pass(Duration::from_secs(301));
        assert_eq!(bench.run_fresh(), None);
    }
    assert_eq!(bench.run_fresh(), None, "it is known");
    let now = bench.now();
    let of_domain = Select { domain: Some("Example.org".to_owned()), ..Select::default() };
    let [entry] = &bench.list(Kind::Awl, &of_domain).unwrap()[..] else { panic!("one entry") };
    assert_eq!((entry.client.as_deref(), entry.state), (Some("192.0.2.10"), Condition::Whitelisted));
    assert_eq!((entry.counts[0].count, entry.counts[0].limit), (3, Some(2)));
    assert!(entry.last_seen.is_some_and(|seen| seen <= now) && entry.expires_at.is_some());
    let other = Select { domain: Some("example.com".to_owned()), ..Select::default() };
    assert!(bench.list(Kind::Awl, &other).unwrap().is_empty());
    let changed = bench.change(Kind::Awl, &order(of_domain, reset())).unwrap();
    assert_eq!((changed[0].done.as_str(), changed.len()), ("reset; was 3", 1));
    assert_eq!(bench.run_fresh().as_deref(), DEFERRED, "it waits again");
    let undo = changed[0].undo.clone().unwrap();
    let command = "mtpolicyd awl set --plugin grey --client 192.0.2.10 --domain example.org count=3";
    assert_eq!(undo.command(Kind::Awl), command);
    bench.change(Kind::Awl, &undo).unwrap();
    assert_eq!(bench.run_fresh(), None, "it is known again");
}

#[test]
fn a_known_client_is_shown_and_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    known_clients_by_hand(in_memory("autowl_threshold = 2"));
    known_clients_by_hand(in_database(folder.path(), "autowl_threshold = 2"));
}

#[test]
fn what_is_damaged_or_foreign_is_shown_as_such() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = in_database(folder.path(), "");
    assert_eq!(bench.run_fresh().as_deref(), DEFERRED);
    let db = rusqlite::Connection::open(folder.path().join("db.sqlite")).unwrap();
    let insert = |name: &str, value: &str| {
        let sql = "INSERT INTO mtpolicyd_store (name, value, expires) VALUES (?, ?, 9000000000000)";
        db.execute(sql, [name, value]).unwrap();
    };
    insert("a@example.org,192.0.2.1,b@example.net", "\u{1b}[2J odd");
    insert("\"a,b\"@example.org,192.0.2.1,c@example.net", "1764000300");
    // A session, its lock, somebody's count and a trapped client.
    insert("6a1.67.1.0", "x");
    insert("lock_6a1.67.1.0", "x");
    insert("awl-,example.org,192.0.2.1", "3");
    insert("hp,192.0.2.1", "1");
    let entries = tickets(&mut bench, &Select::default());
    assert_eq!(entries.len(), 3, "{entries:?}");
    let damaged = entries.iter().find(|entry| entry.sender.as_deref() == Some("a@example.org")).unwrap();
    let (state, value) = (damaged.state, damaged.value.as_deref());
    assert_eq!((state, value), (Condition::Unreadable, Some("\\x1b[2J odd")));
    assert!(entries.iter().any(|entry| entry.sender.as_deref() == Some("\"a,b\"@example.org")));
    let changed = bench.change(Kind::Greylist, &order(damaged.select(), reset())).unwrap();
    assert_eq!(changed[0].undo, None);
    assert_eq!(tickets(&mut bench, &Select::default()).len(), 2);
    db.execute(
        "INSERT INTO autowl (sender_domain, client_ip, count, last_seen) VALUES ('x', 'y', 'z', 9e9)",
        [],
    )
    .unwrap();
    let known = bench.list(Kind::Awl, &Select::default()).unwrap();
    assert_eq!((known.len(), known[0].state), (1, Condition::Unreadable));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut bench = in_memory("");
    let refused = |bench: &mut Bench, kind, select| match bench.list(kind, &select) {
        Err(StateError::Request(text)) => text,
        other => panic!("{other:?}"),
    };
    let plugin = Select { plugin: Some("gray".to_owned()), ..Select::default() };
    let text = refused(&mut bench, Kind::Greylist, plugin);
    assert_eq!(text, "no plugin `gray` keeps greylist; those that do: grey");
    assert!(refused(&mut bench, Kind::Quota, Select::default()).contains("no plugin that keeps quota"));
    let over = Select { over: Some(80), ..Select::default() };
    assert_eq!(refused(&mut bench, Kind::Greylist, over), "these entries have no `over`");
    let values = BTreeMap::from([("count".to_owned(), 1)]);
    let odd = order(select("192.0.2.1", "a@x", "b@y"), Change::Set { values, lifetime: None });
    assert!(matches!(bench.change(Kind::Greylist, &odd), Err(StateError::Request(_))));
}
