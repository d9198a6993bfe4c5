//! `<Journal>`: every decision is in the file, whatever happens to the daemon, and nothing that happens to
//! the file keeps a request from being answered.
//!
//! Knows: the configuration file, the library that reads journals. Must not know: how a journal is written.

use crate::support::client::Client;
use crate::support::daemon::{Daemon, PROGRAM, Site, errors_of, output_of, run};
use crate::support::eventually;
use decisions::journal::{JournalFile, Progress};
use decisions::{Decision, Filter, Outcome};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// A daemon that rejects what names `bad` as its sender, with this block.
fn configuration(journal: &str) -> String {
    format!(
        "port = \"127.0.0.1:$PORT\"\n{journal}\n<VirtualHost $PORT>\n  name = \"incoming\"\n  \
         <Plugin rejected>\n    module = \"RegexList\"\n    key = \"request:sender\"\n    \
         regex = \"^bad\"\n    action = \"reject no\"\n  </Plugin>\n</VirtualHost>\n"
    )
}

fn journal() -> String {
    configuration("<Journal>\n  file = \"$DIR/journal.db\"\n</Journal>")
}

fn held(file: &Path, filter: &Filter) -> Option<Vec<Arc<Decision>>> {
    let found = JournalFile::open(file).and_then(|it| it.search(filter, 100_000, None, &Progress::default()));
    found.ok().map(|found| found.decisions)
}

fn ask(client: &mut Client, sender: &str) -> String {
    client
        .ask(&format!("sender={sender}@example.org\nrecipient=a@example.net\nclient_address=192.0.2.1"))
        .action()
}

#[test]
fn every_decision_is_in_the_file_with_the_answer_that_the_client_got() {
    let mut daemon = Daemon::start(&journal());
    let mut client = daemon.connect();
    let asked: Vec<_> = (0..600)
        .map(|n| {
            let sender = format!("{}{n}", if n % 3 == 0 { "bad" } else { "good" });
            let answer = ask(&mut client, &sender);
            (format!("{sender}@example.org"), answer)
        })
        .collect();
    drop(client);
    assert!(daemon.terminate().success());
    let file = daemon.site.path("journal.db");
    let mut held = held(&file, &Filter::default()).expect("a journal");
    held.reverse();
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
    let found: Vec<_> = held.iter().map(|it| (text(it.attribute("sender")), it.answer.to_string())).collect();
    assert_eq!(found, asked);
    assert!(held.windows(2).all(|pair| pair[0].id < pair[1].id));
    let rejected = held.iter().find(|it| it.outcome == Outcome::Reject).expect("one was rejected");
    let place = rejected.decider().map(|step| (step.name.clone(), step.line));
    assert_eq!(place, Some(("rejected".to_owned(), 7)));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o137, 0, "others may not read it");
    assert!(!daemon.log().contains("journal"), "there is nothing to say of it:\n{}", daemon.log());
}

#[test]
fn what_was_written_survives_a_kill() {
    let daemon = Daemon::start(&journal());
    let mut client = daemon.connect();
    (0..300).for_each(|n| drop(ask(&mut client, &format!("good{n}"))));
    let file = daemon.site.path("journal.db");
    let written = eventually("all is written", || {
        ask(&mut client, "more");
        held(&file, &Filter::default()).filter(|held| held.len() >= 300).map(|held| held.len())
    });
    daemon.signal("KILL");
    let site = daemon.into_site();
    let after = held(&file, &Filter::default()).expect("a journal");
    assert!(after.len() >= written);
    let database = rusqlite::Connection::open(&file).unwrap();
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    drop(database);
    let mut daemon = site.start();
    ask(&mut daemon.connect(), "again");
    assert!(daemon.terminate().success());
    assert_eq!(held(&file, &Filter::default()).map(|held| held.len() > after.len()), Some(true));
}

#[test]
fn a_file_that_cannot_be_written_delays_nobody() {
    let site = Site::with(&journal());
    let file = site.path("journal.db");
    fs::write(&file, "these are the notes of somebody\n").unwrap();
    let mut daemon = site.start();
    let mut client = daemon.connect();
    assert_eq!(ask(&mut client, "bad"), "reject no");
    let line = daemon.logged("this is not a journal of mtpolicyd");
    assert!(line.contains(&file.display().to_string()), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "these are the notes of somebody\n");
    fs::remove_file(&file).unwrap();
    daemon.logged("is written again; 0 decisions were lost");
    assert_eq!(ask(&mut client, "good"), "dunno");
    drop(client);
    assert!(daemon.terminate().success());
    assert_eq!(held(&file, &Filter::default()).map(|held| held.len()), Some(2));
}

#[test]
fn a_damaged_file_is_put_aside_while_requests_are_answered() {
    let mut daemon = Daemon::start(&journal());
    let file = daemon.site.path("journal.db");
    let mut client = daemon.connect();
    ask(&mut client, "good");
    eventually("it is written", || held(&file, &Filter::default()).filter(|held| held.len() == 1));
    let noise: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    fs::write(&file, noise).unwrap();
    let line = eventually("it is put aside", || {
        ask(&mut client, "bad");
        daemon.log().lines().find(|line| line.contains("; it is now ")).map(str::to_owned)
    });
    assert!(line.contains("journal.db.broken-20"), "{line}");
    ask(&mut client, "last");
    drop(client);
    assert!(daemon.terminate().success());
    let last = Filter { from: Some("last@example.org".to_owned()), ..Filter::default() };
    assert_eq!(held(&file, &last).map(|held| held.len()), Some(1));
}

#[test]
fn a_reload_changes_the_journal() {
    let mut daemon = Daemon::start(&configuration(""));
    let mut client = daemon.connect();
    ask(&mut client, "before");
    daemon.reload(&journal());
    ask(&mut client, "first");
    let file = daemon.site.path("journal.db");
    eventually("it is written", || held(&file, &Filter::default()).filter(|held| held.len() == 1));
    daemon.reload(&configuration(
        "<Journal>\n  file = \"$DIR/journal.db\"\n  record = acted\n  privacy = addresses\n</Journal>",
    ));
    ask(&mut client, "passed");
    ask(&mut client, "bad");
    eventually("it is written", || held(&file, &Filter::default()).filter(|held| held.len() == 2));
    daemon.reload(&configuration("<Journal off>\n</Journal>"));
    ask(&mut client, "bad.unseen");
    drop(client);
    assert!(daemon.terminate().success());
    let held = held(&file, &Filter::default()).expect("a journal");
    let senders: Vec<_> =
        held.iter().map(|it| String::from_utf8_lossy(it.attribute("sender").unwrap()).into_owned()).collect();
    assert_eq!(senders[1], "first@example.org");
    assert!(senders[0].starts_with('~') && senders[0].ends_with("@example.org"), "{senders:?}");
    let known = Filter { from: Some("bad@example.org".to_owned()), ..Filter::default() };
    assert_eq!(self::held(&file, &known).map(|held| held.len()), Some(1));
}

#[test]
fn mistakes_in_the_block_are_reported_with_their_lines() {
    let site = Site::with(&configuration("<Journal on>\n</Journal>"));
    let said = run(Command::new(PROGRAM).arg("check").arg(site.config()), b"");
    let shown = format!("{}{}", output_of(&said), errors_of(&said));
    assert!(!said.status.success() && shown.contains("`on` is not a kind of journal"), "{shown}");
    assert!(shown.contains(":2:"), "{shown}");
}
