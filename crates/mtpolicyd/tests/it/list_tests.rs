//! DNS lists that fail their tests, through the daemon and with a name server on the wire: who is
//! quarantined, what that means for messages, and how it ends.
//!
//! Knows: answers to Postfix, the command `lists`. Must not know: when a list is tested.

use crate::fake_dns::{FakeDns, Query, Reply};
use crate::support::daemon::{Daemon, PROGRAM, Site, output_of, run};
use crate::support::eventually;
use serde_json::Value;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const A: u16 = 1;

/// An answer that nobody remembers.
fn says(last: u8) -> Reply {
    Reply::Addresses(vec![[127, 0, 0, last].into()], 0)
}

/// What the lists of these tests answer, while they fail and once they are well.
fn answer(query: &Query, is_well: bool) -> Reply {
    if query.record_type != A {
        return Reply::NoSuchName(None);
    }
    let is_point = query.name.starts_with("2.0.0.127.") || query.name.starts_with("test.");
    let is_client = query.name.starts_with("4.2.0.192.");
    let list = query.name.rsplit('.').nth(1).unwrap_or_default();
    match list {
        "private" | "forgotten" if is_client => says(2),
        "private" | "forgotten" => Reply::NoSuchName(None),
        _ if is_well && is_point => says(2),
        "everybody" | "domains" if !is_well => says(2),
        "refusing" if !is_well => Reply::Addresses(vec![[127, 255, 255, 254].into()], 0),
        "silent" if !is_well => Reply::Silence,
        _ => Reply::NoSuchName(None),
    }
}

fn start() -> (FakeDns, Daemon, Arc<AtomicBool>) {
    let is_well = Arc::new(AtomicBool::new(false));
    let says = is_well.clone();
    let server = FakeDns::start(move |query: &Query| answer(query, says.load(Ordering::SeqCst)));
    let mut site = Site::new();
    site.replace("$DNS", server.address());
    let rbl = |name: &str, more: &str| {
        format!(
            "<Plugin {name}>\nmodule = RBL\ndomain = {name}.test\nreject_message = {name}\ntime_limit = 1\n\
             {more}</Plugin>\n"
        )
    };
    let lists = ["everybody", "refusing", "silent", "nothing", "forgotten"].map(|name| rbl(name, ""));
    let [everybody, refusing, silent, nothing, forgotten] = lists;
    let (private, domains) = (
        rbl("private", "test = off\nmode = passive\nscore = 7\n"),
        "<Plugin domains>\nmodule = DBL\ndomain = domains.test\nreject_message = domains\ntime_limit = 1\n\
         </Plugin>\n",
    );
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\nlog_level = 4\n<Dns>\nservers = \"$DNS\"\n</Dns>\n\
         <Control>\nsocket = \"$DIR/control.sock\"\n</Control>\n<VirtualHost $PORT>\nname = incoming\n\
         {domains}{everybody}{refusing}{silent}{nothing}{private}{forgotten}</VirtualHost>\n"
    ));
    (server, site.start(), is_well)
}

fn ask(daemon: &Daemon) -> String {
    let names = "helo_name=h.example.org\nreverse_client_name=r.example.org";
    daemon.ask(&format!("client_address=192.0.2.4\nsender=a@b.example.org\n{names}")).action()
}

/// The state of a list, and whether it is quarantined, after a round of tests.
fn test_round(daemon: &Daemon) -> impl Fn(&str) -> (String, bool) + use<> {
    let mut lists = Command::new(PROGRAM);
    let output =
        run(lists.args(["lists", "--test", "--format", "json", "-c"]).arg(daemon.site.config()), b"");
    let text = output_of(&output);
    let lists: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    move |name: &str| {
        let list = lists.iter().find(|list| list["zone"] == format!("{name}.test").as_str());
        let list = list.unwrap_or_else(|| panic!("{name}: {lists:?}"));
        (list["state"].as_str().unwrap_or_default().to_owned(), list["quarantined"] == true)
    }
}

#[test]
fn a_list_that_fails_twice_is_quarantined_and_a_good_round_ends_it() {
    let (_server, daemon, is_well) = start();
    assert_eq!(ask(&daemon), "reject domains", "before anything is known");
    let _ = test_round(&daemon);
    let dead = test_round(&daemon);
    for (name, state) in [
        ("everybody", "lists-everybody"),
        ("domains", "lists-everybody"),
        ("refusing", "refused"),
        ("silent", "silent"),
        ("nothing", "lists-nothing"),
        ("forgotten", "lists-nothing"),
    ] {
        assert_eq!(dead(name), (state.to_owned(), true), "{name}");
    }
    assert!(!dead("private").1, "it is not to be tested");
    // What is said of everybody does not count, and what the others say does: one whose administrator has
    // not told the daemon that it has no test points too.
    assert_eq!(ask(&daemon), "reject forgotten");
    daemon.logged("everybody.test is quarantined: it says 127.0.0.2 of everybody");
    daemon.logged("DNS list everybody.test is quarantined (lists everybody)");
    is_well.store(true, Ordering::SeqCst);
    // That a name had no answer is remembered for some seconds.
    eventually("all are well again", || {
        let round = test_round(&daemon);
        let is_well = |name: &&str| round(name) == ("well".to_owned(), false);
        ["everybody", "domains", "refusing", "silent", "nothing"].iter().all(is_well).then_some(())
    });
    daemon.logged("DNS list everybody.test is well again, after ");
    let _ = test_round(&daemon);
    let lines = daemon.log();
    for line in ["DNS list everybody.test is quarantined", "DNS list everybody.test is well again"] {
        assert_eq!(lines.matches(line).count(), 1, "{line}: once at each edge");
    }
}

#[test]
fn lists_are_tested_without_being_asked_to() {
    let (server, daemon, _) = start();
    daemon.logged("DNS list everybody.test is quarantined");
    let queries = server.queries();
    let is_asked = |name: &str| queries.iter().any(|query| query.name.ends_with(name));
    assert!(is_asked("2.0.0.127.nothing.test") && is_asked("invalid.domains.test"));
    assert!(!is_asked("private.test"), "`test = off`");
}
