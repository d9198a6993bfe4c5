//! What is known about somebody is found and removed, who did that is noted, and the file of a journal can be
//! read without a daemon.
//!
//! Knows: the commands and what they print, the file of the journal as bytes. Must not know: the daemon's
//! code.

use crate::support::daemon::{Daemon, PROGRAM, Site, errors_of, output_of, run};
use crate::support::eventually;
use decisions::journal::{JournalFile, Progress};
use decisions::{Decision, Filter};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

/// A daemon with a control socket that rejects what names `bad` as its sender.
fn configuration(journal: &str) -> String {
    format!(
        "<Control>\n  socket = \"$DIR/control.sock\"\n</Control>\nport = \"127.0.0.1:$PORT\"\n\
         reply_suffix = \" (ref %ID%)\"\n{journal}\n<VirtualHost $PORT>\n  name = \"incoming\"\n  \
         <Plugin rejected>\n    module = \"RegexList\"\n    key = \"request:sender\"\n    \
         regex = \"^bad\"\n    action = \"reject no\"\n  </Plugin>\n</VirtualHost>\n"
    )
}

fn journal() -> String {
    configuration("<Journal>\n  file = \"$DIR/journal.db\"\n</Journal>")
}

fn ask(daemon: &Daemon, sender: &str, recipient: &str) {
    daemon.ask(&format!(
        "sender={sender}\nrecipient={recipient}\nclient_address=192.0.2.1\ninstance=1.{sender}"
    ));
}

/// Runs a command that finds the daemon by its configuration file.
fn command(site: &Site, arguments: &[&str]) -> Output {
    run(Command::new(PROGRAM).args(arguments).arg("-c").arg(site.config()), b"")
}

/// Runs one that reads a file.
fn on_file(file: &Path, arguments: &[&str]) -> Output {
    run(Command::new(PROGRAM).args(arguments).arg("--journal").arg(file), b"")
}

/// What it printed; it has to end with this code.
#[track_caller]
fn printed(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}{}", output_of(output), errors_of(output));
    output_of(output)
}

/// One line, and exit code 2.
#[track_caller]
fn fails(output: &Output, words: &str) {
    let said = errors_of(output);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{}{said}", output_of(output));
    assert!(said.contains(words), "{said}");
}

fn held(file: &Path) -> Vec<Arc<Decision>> {
    let found = JournalFile::open(file)
        .and_then(|it| it.search(&Filter::default(), 100_000, None, &Progress::default()));
    found.map(|found| found.decisions).unwrap_or_default()
}

/// The notes, the newest first, as `WHO: WHAT`.
fn audits(site: &Site) -> Vec<String> {
    let text = printed(&command(site, &["audit", "--format", "json"]), 0);
    let read = |line| serde_json::from_str::<Value>(line).expect("a line is JSON");
    let text_of = |line: &Value, name: &str| line[name].as_str().expect("a text").to_owned();
    let shown = |line: Value| format!("{}: {}", text_of(&line, "who"), text_of(&line, "what"));
    text.lines().map(read).map(shown).collect()
}

fn me() -> String {
    nix::unistd::User::from_uid(nix::unistd::Uid::effective()).ok().flatten().expect("somebody").name
}

#[test]
fn nothing_is_left_of_somebody_in_the_journal_and_in_memory() {
    let mut daemon = Daemon::start(&journal());
    for n in 0..30 {
        ask(&daemon, &format!("user{n}@example.org"), "carol@example.net");
    }
    ask(&daemon, "bad@example.org", "Alice@example.net");
    ask(&daemon, "alice@example.net", "carol@example.net");
    ask(&daemon, "not.alice@example.net", "carol@example.net");
    let site = &daemon.site;
    let file = site.path("journal.db");
    eventually("all is written", || (held(&file).len() == 33).then_some(()));
    let about = ["decisions", "--about", "alice@example.net", "--format", "json"];
    assert_eq!(printed(&command(site, &about), 0).lines().count(), 2);
    let forget = ["decisions", "forget", "--address", "alice@example.net"];
    let dry = command(site, &[&forget[..], &["--dry-run"]].concat());
    assert_eq!(printed(&dry, 0), "2 decisions name alice@example.net\n");
    assert_eq!(held(&file).len(), 33, "only counted");

    let removed = printed(&command(site, &forget), 0);
    assert_eq!(removed, "removed: 2 decisions of the journal, 2 of the last ones in memory\n");
    let line = daemon.logged("had everything about an address removed");
    assert!(line.contains(&me()) && !line.contains("alice"), "{line}");
    assert_eq!(printed(&command(site, &about), 1), "");
    assert_eq!(held(&file).len(), 31);
    assert_eq!(printed(&command(site, &forget), 1).lines().count(), 1, "nothing is left to remove");
    let notes = audits(site);
    let me = me();
    assert_eq!(notes[0], format!("{me}: forget an address of example.net: 0 decisions removed"));
    assert!(
        notes.contains(&format!("{me}: forget an address of example.net: 2 decisions removed")),
        "{notes:?}"
    );
    assert!(notes.contains(&format!("{me}: (about an address that was forgotten)")), "{notes:?}");

    for address in ["@example.net", "a", "two words"] {
        let output = command(site, &["decisions", "forget", "--address", address]);
        fails(&output, if address == "a" { "is needed" } else { "is not the whole address" });
    }
    // No page of the file has the name any more.
    assert!(daemon.terminate().success());
    let bytes = fs::read(&file).unwrap().to_ascii_lowercase();
    let is_in = |name: &[u8]| bytes.windows(name.len()).any(|window| window == name);
    assert!(!is_in(b"(alice@") && !is_in(b"=alice@example.net"));
}

#[test]
fn somebody_is_forgotten_without_a_journal_and_under_a_pseudonym() {
    let private = "<Journal>\n  file = \"$DIR/journal.db\"\n  privacy = addresses\n</Journal>";
    let forget = ["decisions", "forget", "--address", "alice@example.net", "--format", "json"];
    for (block, of_journal) in [("", 0), (private, 1)] {
        let daemon = Daemon::start(&configuration(block));
        ask(&daemon, "alice@example.net", "carol@example.net");
        ask(&daemon, "bob@example.net", "carol@example.net");
        let site = &daemon.site;
        eventually("both are found", || {
            let all = command(site, &["decisions", "--format", "json"]);
            (output_of(&all).lines().count() == 2).then_some(())
        });
        if of_journal > 0 {
            eventually("both are written", || (held(&site.path("journal.db")).len() == 2).then_some(()));
        } else {
            fails(&command(site, &["audit"]), "nothing is noted, since there is no journal");
        }
        let view: Value = serde_json::from_str(&printed(&command(site, &forget), 0)).unwrap();
        assert_eq!((&view["journal"], &view["memory"]), (&of_journal.into(), &1.into()));
        let left = printed(&command(site, &["decisions"]), 0);
        assert!(left.contains("from=bob@") || left.contains("@example.net to="), "{left}");
        assert_eq!(left.lines().count(), 1, "{left}");
    }
}

#[test]
fn who_searched_and_changed_what_is_noted() {
    let daemon = Daemon::start(&journal());
    ask(&daemon, "bad@example.org", "carol@example.net");
    let site = &daemon.site;
    let json = eventually("it is found", || {
        let found =
            command(site, &["decisions", "--from", "bad@example.org", "--refused", "--format", "json"]);
        serde_json::from_str::<Value>(&output_of(&found)).ok()
    });
    let id = json["id"].as_str().unwrap();
    printed(&command(site, &["explain", id]), 0);
    printed(&command(site, &["log-level", "3", "--for", "1m"]), 0);
    printed(&command(site, &["reload"]), 0);
    let (notes, me) = (audits(site), me());
    assert_eq!(
        notes[..4],
        [
            format!("{me}: reload"),
            format!("{me}: log level 3, for 60 s"),
            format!("{me}: looked at decision {id}"),
            format!(
                "{me}: searched decisions: from=bad@example.org, outcome=reject, outcome=defer, \
                     outcome=discard, outcome=closed"
            ),
        ]
    );
    let text = printed(&command(site, &["audit", "--limit", "2"]), 0);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().next().unwrap().ends_with(&format!("  {me}  reload")), "{text}");
}

#[test]
fn a_journal_is_read_without_a_daemon() {
    let mut daemon = Daemon::start(&journal());
    ask(&daemon, "bad@example.org", "carol@example.net");
    ask(&daemon, "good@example.org", "carol@example.net");
    let site = &daemon.site;
    eventually("both are found", || {
        let all = command(site, &["decisions", "--format", "json"]);
        (output_of(&all).lines().count() == 2).then_some(())
    });
    let of_daemon = |arguments: &[&str]| output_of(&command(&daemon.site, arguments));
    let json = of_daemon(&["decisions", "--refused", "--format", "json"]);
    let row: Value = serde_json::from_str(&json).unwrap();
    let id = row["id"].as_str().unwrap().to_owned();
    let (explained, rows) = (of_daemon(&["explain", &id]), of_daemon(&["decisions"]));
    assert!(daemon.terminate().success());
    let file = daemon.site.path("journal.db");
    let before = fs::read(&file).unwrap();
    assert_eq!(printed(&on_file(&file, &["decisions", "--refused", "--format", "json"]), 0), json);
    assert_eq!(printed(&on_file(&file, &["decisions"]), 0), rows);
    assert_eq!(printed(&on_file(&file, &["decisions", "--id", &id]), 0).lines().count(), 1);
    assert_eq!(printed(&on_file(&file, &["explain", &id]), 0), explained);
    assert!(printed(&on_file(&file, &["audit"]), 0).contains(&format!("looked at decision {id}")));
    let nothing = on_file(&file, &["decisions", "--to", "nobody@example.org"]);
    assert_eq!(printed(&nothing, 1), "");
    let name = file.display();
    let said = errors_of(&nothing);
    assert!(said.contains(&format!("(the journal {name}: 20")), "{said}");
    fails(&on_file(&file, &["explain", "00000-00001"]), "no decision 00000-00001 in the journal");
    fails(&on_file(&file, &["explain", "sender=a@example.org"]), "a journal has decisions only");
    assert_eq!(fs::read(&file).unwrap(), before, "nothing is written");
}

#[test]
fn a_file_that_is_no_journal_is_one_line() {
    let site = Site::with(&journal());
    let file = site.path("j.db");
    let commands: [&[&str]; 3] = [&["decisions"], &["explain", "9F3KQ-2M7TX"], &["audit"]];
    let all_fail =
        |words: &str| commands.iter().for_each(|arguments| fails(&on_file(&file, arguments), words));
    all_fail("there is no journal");
    fs::write(&file, "a letter to somebody\n").unwrap();
    all_fail("this is not a journal of mtpolicyd");
    let noise: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    fs::write(&file, noise).unwrap();
    all_fail("the journal is damaged");
    fs::remove_file(&file).unwrap();
    let database = rusqlite::Connection::open(&file).unwrap();
    database.execute_batch("CREATE TABLE letter(text TEXT)").unwrap();
    all_fail("this is not a journal of mtpolicyd");
    database.execute_batch("PRAGMA application_id=1297371210; PRAGMA user_version=99").unwrap();
    drop(database);
    all_fail("has format 99, and this program knows formats up to");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    for arguments in commands {
        let output = on_file(&file, arguments);
        assert_eq!((output.status.code(), errors_of(&output).lines().count()), (Some(2), 1));
    }
}

#[test]
fn an_explanation_has_no_identifier() {
    let daemon = Daemon::start(&journal());
    let arguments = ["explain", "sender=bad@example.org", "recipient=carol@example.net"];
    let text = printed(&command(&daemon.site, &arguments), 0);
    assert!(text.starts_with("an explanation  20") && text.contains("reject no (ref %ID%)"), "{text}");
    let json = printed(&command(&daemon.site, &[&arguments[..], &["--format", "json"]].concat()), 0);
    let view: Value = serde_json::from_str(&json).unwrap();
    assert!(view["decision"]["id"].is_null() && view["decision"]["time"].is_string(), "{json}");
}
