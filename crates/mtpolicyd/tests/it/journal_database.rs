//! `<Journal>` in a database that two daemons share: what one has decided is found, forgotten and replayed
//! from the other, and a database that is down keeps nobody from an answer.
//!
//! Knows: the commands and what they print, real servers. Must not know: how a journal is written.

use crate::support::client::Client;
use crate::support::daemon::{Daemon, PROGRAM, Site, errors_of, output_of, run};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::servers::{Server, mariadb, postgres};
use backends::Secret;
use backends::sql::{Durability, SqlSettings};
use decisions::journal::database::Shared;
use decisions::journal::{Journal, Settings};
use decisions::{Decision, DecisionId, Flags, Outcome, Walk};
use mtpolicyd::journal::SqlJournal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A daemon of this number that rejects what names `bad` as its sender.
fn configuration(dsn: &str, node: u8, more: &str) -> String {
    let name = mariadb::NAME;
    format!(
        "<Control>\n  socket = \"$DIR/control.sock\"\n</Control>\nport = \"127.0.0.1:$PORT\"\nnode = {node}\n\
         <Connection db>\n  module = \"Sql\"\n  dsn = \"{dsn}\"\n  user = \"{name}\"\n  \
         password = \"{name}\"\n</Connection>\n<Journal>\n  connection = db\n{more}\n</Journal>\n\
         <VirtualHost $PORT>\n  name = \"incoming\"\n  <Plugin rejected>\n    module = \"RegexList\"\n    \
         key = \"request:sender\"\n    regex = \"^bad\"\n    action = \"reject no\"\n  </Plugin>\n\
         </VirtualHost>\n"
    )
}

fn ask(client: &mut Client, sender: &str) -> String {
    client.ask(&format!("sender={sender}\nrecipient=carol@example.net\nclient_address=192.0.2.1")).action()
}

fn command(site: &Site, arguments: &[&str]) -> Output {
    run(Command::new(PROGRAM).args(arguments).arg("-c").arg(site.config()), b"")
}

/// What a command printed; it has to end with this code.
#[track_caller]
fn printed(site: &Site, arguments: &[&str], code: i32) -> String {
    let output = command(site, arguments);
    assert_eq!(output.status.code(), Some(code), "{}{}", output_of(&output), errors_of(&output));
    output_of(&output)
}

/// The identifiers and the senders of the decisions that a daemon finds, the newest first.
fn found(site: &Site, filter: &[&str]) -> Vec<(String, String)> {
    let all = ["decisions", "--format", "json", "--limit", "10000"];
    let output = command(site, &[&all[..], filter].concat());
    let text_of = |value: &Value| value.as_str().expect("a text").to_owned();
    let read = |line: &str| serde_json::from_str::<Value>(line).expect("a line is JSON");
    let lines = output_of(&output);
    lines.lines().map(read).map(|line| (text_of(&line["id"]), text_of(&line["request"]["sender"]))).collect()
}

fn senders(site: &Site, filter: &[&str]) -> BTreeSet<String> {
    found(site, filter).into_iter().map(|(_, sender)| sender).collect()
}

/// Waits until a daemon finds this many decisions in the journal, each once.
fn until_found(site: &Site, count: usize) -> Vec<(String, String)> {
    let all = eventually("all are found", || {
        let all = found(site, &[]);
        (all.len() >= count).then_some(all)
    });
    let ids: BTreeSet<_> = all.iter().map(|(id, _)| id).collect();
    assert_eq!((all.len(), ids.len()), (count, count), "{all:?}");
    all
}

fn both_are_one(dsn: &str) {
    let first = Daemon::start(&configuration(dsn, 1, ""));
    let second = Daemon::start(&configuration(dsn, 2, ""));
    let (mut to_first, mut to_second) = (first.connect(), second.connect());
    for n in 0..300 {
        ask(&mut to_first, &format!("first{n}@example.org"));
        assert_eq!(ask(&mut to_second, &format!("bad{n}@example.org")), "reject no");
    }
    ask(&mut to_first, "alice@example.org");
    ask(&mut to_second, "alice@example.org");
    let all = until_found(&first.site, 602);
    assert_eq!(until_found(&second.site, 602), all);
    assert_eq!(senders(&second.site, &["--from", "first7@example.org"]).len(), 1);
    assert_eq!(found(&first.site, &["--refused"]).len(), 300);
    let id = |sender: &str| {
        let found = all.iter().find(|(_, it)| it == sender);
        found.map(|(id, _)| id.clone()).expect("it was found")
    };
    assert!(printed(&second.site, &["explain", &id("first7@example.org")], 0).contains("first7@"));
    assert!(printed(&first.site, &["explain", &id("bad7@example.org")], 0).contains("rejected"));

    first.reload(&configuration(dsn, 1, "  keep = 8d"));
    // What the other one still writes to is changed, and it goes on.
    let about = ["--about", "alice@example.org"];
    assert_eq!(found(&second.site, &about).len(), 2);
    let forget = ["decisions", "forget", "--address", "alice@example.org"];
    assert!(printed(&second.site, &forget, 0).starts_with("removed: 2 decisions of the journal"));
    for n in 0..10 {
        ask(&mut to_first, &format!("later{n}@example.org"));
    }
    for site in [&first.site, &second.site] {
        until_found(site, 610);
    }
    let notes = printed(&first.site, &["audit", "--format", "json"], 0);
    assert!(notes.contains("forget an address of example.org: 2 decisions removed"), "{notes}");
    assert!(!notes.contains("alice") && notes.contains("(about an address that was forgotten)"), "{notes}");
    for site in [&first.site, &second.site] {
        assert!(found(site, &about).is_empty());
    }

    let replayed = printed(&first.site, &["replay", "--format", "json"], 0);
    assert!(replayed.contains("\"decisions\":610") && replayed.contains("\"differ\":0"), "{replayed}");
}

#[test]
fn what_one_daemon_has_decided_the_other_finds_in_postgres() {
    let server = postgres::start();
    both_are_one(&postgres::dsn(&server));
}

#[test]
fn what_one_daemon_has_decided_the_other_finds_in_mariadb() {
    let server = mariadb::start();
    both_are_one(&mariadb::dsn(&server));
}

fn it_delays_nobody(mut server: Server, dsn: &str) {
    let mut daemon = Daemon::start(&configuration(dsn, 1, ""));
    let mut client = daemon.connect();
    for n in 0..50 {
        ask(&mut client, &format!("before{n}@example.org"));
    }
    until_found(&daemon.site, 50);
    server.freeze();
    for n in 0..20 {
        assert_eq!(ask(&mut client, &format!("slow{n}@example.org")), "dunno");
    }
    server.thaw();
    until_found(&daemon.site, 70);
    for n in 0..20 {
        ask(&mut client, &format!("near{n}@example.org"));
    }
    server.stop();
    for n in 0..100 {
        assert_eq!(ask(&mut client, &format!("bad{n}@example.org")), "reject no");
    }
    daemon.logged("connection db (journal) is down");
    daemon.logged("decisions were lost");
    assert_eq!(ask(&mut client, "meanwhile@example.org"), "dunno");
    server.start();
    daemon.logged("database db is written again; 0 decisions were lost");
    until_found(&daemon.site, 191);
    drop(client);
    assert!(daemon.terminate().success());
}

#[test]
fn postgres_that_is_down_delays_nobody() {
    let server = postgres::start();
    let dsn = postgres::dsn(&server);
    it_delays_nobody(server, &dsn);
}

#[test]
fn mariadb_that_is_down_delays_nobody() {
    let server = mariadb::start();
    let dsn = mariadb::dsn(&server);
    it_delays_nobody(server, &dsn);
}

#[test]
fn names_are_replaced_under_the_key_that_both_have() {
    let server = postgres::start();
    let dsn = postgres::dsn(&server);
    let start = |node| Daemon::start(&configuration(&dsn, node, "  privacy = addresses"));
    let daemons = [start(1), start(2)];
    for (n, daemon) in daemons.iter().enumerate() {
        ask(&mut daemon.connect(), "alice@example.org");
        ask(&mut daemon.connect(), &format!("other{n}@example.org"));
    }
    for daemon in &daemons {
        let alice = eventually("no name is left", || {
            let all = found(&daemon.site, &[]);
            let is_done = all.len() == 4 && all.iter().all(|(_, sender)| sender.starts_with('~'));
            is_done.then(|| senders(&daemon.site, &["--from", "alice@example.org"]))
        });
        assert_eq!(alice.len(), 1, "{alice:?}");
        assert_eq!(found(&daemon.site, &["--from", "alice@example.org"]).len(), 2);
    }
}

fn names_are_replaced_later(dsn: &str) {
    let mut before = Daemon::start(&configuration(dsn, 1, ""));
    ask(&mut before.connect(), "alice@example.org");
    // It writes what waits before it ends.
    assert!(before.terminate().success());
    let daemon = Daemon::start(&configuration(dsn, 1, "  anonymise_after = 1s"));
    eventually("the name is replaced", || {
        let all = found(&daemon.site, &[]);
        (all.len() == 1 && all[0].1.starts_with('~')).then_some(())
    });
    assert!(!daemon.log().contains("error"), "{}", daemon.log());
}

#[test]
fn names_are_replaced_later_in_postgres() {
    let server = postgres::start();
    names_are_replaced_later(&postgres::dsn(&server));
}

#[test]
fn names_are_replaced_later_in_mariadb() {
    let server = mariadb::start();
    names_are_replaced_later(&mariadb::dsn(&server));
}

#[test]
fn two_daemons_with_one_number_are_told() {
    let server = postgres::start();
    let dsn = postgres::dsn(&server);
    let daemons = [3, 3].map(|node| Daemon::start(&configuration(&dsn, node, "")));
    for daemon in &daemons {
        let line = daemon.logged("has the same number too (node = 3)");
        assert!(line.contains("journal: the daemon on "), "{line}");
    }
}

#[test]
fn what_is_too_much_is_removed_from_the_database() {
    let server = mariadb::start();
    let dsn = mariadb::dsn(&server);
    let daemon = Daemon::start(&configuration(&dsn, 1, "  keep = 1s\n  keep_acted = 1h"));
    let mut client = daemon.connect();
    ask(&mut client, "good@example.org");
    ask(&mut client, "bad@example.org");
    let database = Database::new(&dsn, mariadb::NAME);
    let held = || {
        let rows = database.run("SELECT class FROM mtpolicyd_journal_block", Vec::new());
        rows.into_iter().flatten().flatten().collect::<Vec<_>>()
    };
    eventually("what passed is removed", || {
        let site = &daemon.site;
        let is_done = found(site, &["--outcome", "reject"]).len() == 1 && !held().contains(&"0".to_owned());
        (is_done && held() == ["1"]).then_some(())
    });
}

#[test]
fn what_the_user_may_not_make_is_said() {
    let server = postgres::start();
    let dsn = postgres::dsn(&server);
    let database = Database::new(&dsn, postgres::NAME);
    database.run("CREATE ROLE plain LOGIN PASSWORD 'plain'", Vec::new());
    let text = configuration(&dsn, 1, "").replace(&format!("\"{}\"", postgres::NAME), "\"plain\"");
    let daemon = Daemon::start(&text);
    let line = daemon.logged("journal: connection db (journal): table mtpolicyd_journal_block is missing");
    assert!(
        line.contains("an administrator may run: CREATE TABLE IF NOT EXISTS mtpolicyd_journal_block ("),
        "{line}"
    );
    assert_eq!(ask(&mut daemon.connect(), "bad@example.org"), "reject no");
}

/// A decision about a request of this many bytes that can't be compressed.
fn large_decision(size: u32) -> Decision {
    let noise = (0..size).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8);
    Decision {
        id: DecisionId::first_at(SystemTime::now()),
        table: Arc::default(),
        host: "incoming".into(),
        request: noise.collect::<Vec<_>>().into(),
        took: 1,
        outcome: Outcome::Pass,
        by: None,
        answer: "dunno".into(),
        failure: "".into(),
        flags: Flags::default(),
        score: 0.0,
        session: Vec::new(),
        walk: Walk::default(),
        shadow: None,
    }
}

fn a_large_block_is_whole(dsn: &str) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let settings = SqlSettings {
        dsn: dsn.to_owned(),
        user: mariadb::NAME.to_owned(),
        password: Secret(mariadb::NAME.to_owned()),
        timeout: Duration::from_secs(60),
        max_connections: 2,
        durability: Durability::Full,
        tls_ca: None,
        identity: None,
    };
    let database = SqlJournal::new("db", settings).expect("the settings are good");
    let shared = Shared::new(database.asked_by(runtime.handle().clone()), 1, "here");
    let settings = Settings { database: Some(shared), ..Settings::new("/nothere") };
    let journal = Journal::open(settings, drop).expect("a thread");
    let decision = large_decision(1_500_000);
    let (id, request) = (decision.id, decision.request.clone());
    assert!(journal.send(Arc::new(decision)));
    eventually("it is written", || (journal.status().waiting == 0).then_some(()));
    let found = journal.get(id).expect("it can be read").expect("it is there");
    assert!(found.request == request, "it is the same");
    assert!(journal.close(Duration::from_secs(60)));
}

#[test]
fn a_large_block_is_read_in_pieces() {
    let (postgres, mariadb) = (postgres::start(), mariadb::start());
    a_large_block_is_whole(&postgres::dsn(&postgres));
    a_large_block_is_whole(&mariadb::dsn(&mariadb));
}
