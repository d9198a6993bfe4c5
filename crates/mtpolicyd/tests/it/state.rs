//! State by hand: greylist, auto-whitelist, limits, quota and honeypot through the commands, on every store.
//!
//! Knows: the commands and their output, real servers. Must not know: how state is kept.

use crate::support::daemon::{Daemon, PROGRAM, Site, errors_of, output_of, run};
use crate::support::eventually;
use crate::support::servers::{mariadb, memcached, postgres, redis};
use serde_json::Value;
use std::process::Command;

/// What is asked of greylist and honeypot is on one port, what limits and quotas are about on another.
const CONFIG: &str = "\
port = \"127.0.0.1:$PORT,127.0.0.1:$OTHER\"
keepalive_timeout = 0
<Control>
  socket = \"$DIR/control.sock\"
</Control>
$CONNECTION
<VirtualHost $PORT>
  name = \"incoming\"
  <Plugin trap>
    module = \"Honeypot\"
    recipients = \"trap@example.net\"
    store = \"$NAME\"
  </Plugin>
  <Plugin grey>
    module = \"Greylist\"
    min_retry_wait = 600
    autowl_threshold = 2
    <Ticket>
      module = \"$MODULE\"
    </Ticket>
    <AWL>
      module = \"$MODULE\"
    </AWL>
  </Plugin>
  <Plugin end>
    module = \"Action\"
    action = \"passed\"
  </Plugin>
</VirtualHost>
<VirtualHost $OTHER>
  name = \"outgoing\"
$OUTGOING
  <Plugin end>
    module = \"Action\"
    action = \"passed\"
  </Plugin>
</VirtualHost>
";

const LIMIT: &str = "  <Plugin limit>
    module = \"RateLimit\"
    key = \"sender\"
    limit = \"3/1h, 100/1d\"
    store = \"$NAME\"
    action = \"too much\"
  </Plugin>
";

const QUOTA: &str = "  <Plugin monthly>
    module = \"Quota\"
    field = \"sasl_username\"
    metric = \"count\"
    threshold = 2
    action = \"full\"
    $STORE
  </Plugin>
  <Plugin acct>
    module = \"Accounting\"
    fields = \"sasl_username\"
    $STORE
  </Plugin>
";

const DEFERRED: &str = "defer greylisting is active";
const PASSED: &str = "passed";

fn daemon(module: &str, name: &str, options: &str, outgoing: &str) -> Daemon {
    let connection = format!("<Connection {name}>\n  module = \"{module}\"\n{options}\n</Connection>");
    let store = if module == "Sql" { "db = \"db\"".to_owned() } else { format!("store = \"{name}\"") };
    let text = CONFIG.replace("$CONNECTION", &connection).replace("$OUTGOING", outgoing);
    let text = text.replace("$MODULE", module).replace("$NAME", name).replace("$STORE", &store);
    Site::with(&text).start()
}

fn database(dsn: &str) -> Daemon {
    let name = mariadb::NAME;
    let options = format!(" dsn = \"{dsn}\"\n user = \"{name}\"\n password = \"{name}\"");
    daemon("Sql", "db", &options, &format!("{QUOTA}{LIMIT}"))
}

/// Runs a command: its exit code, what it printed, what it said.
fn by_hand(daemon: &Daemon, words: &str) -> (i32, String, String) {
    // As a shell reads it, so that what is printed as an undo can be run.
    let words = words.strip_prefix("mtpolicyd ").unwrap_or(words);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("exec \"$0\" {words} --socket \"$1\"")]);
    let output = run(command.arg(PROGRAM).arg(daemon.site.path("control.sock")), b"");
    (output.status.code().expect("it has ended by itself"), output_of(&output), errors_of(&output))
}

/// What a command that works prints.
#[track_caller]
fn done(daemon: &Daemon, words: &str) -> String {
    let (code, printed, said) = by_hand(daemon, words);
    assert_eq!((code, said.as_str()), (0, ""), "{words}: {printed}");
    printed
}

/// Makes a change and returns the command that undoes it, which is also in the log.
#[track_caller]
fn changed(daemon: &Daemon, words: &str) -> String {
    let printed = done(daemon, words);
    let undo = printed.lines().find_map(|line| line.strip_prefix("undo: ")).expect("an undo").to_owned();
    assert!(undo.starts_with("mtpolicyd "), "{undo}");
    daemon.logged(&format!("undo: {undo}"));
    undo
}

/// The entries that a command prints.
#[track_caller]
fn entries(daemon: &Daemon, words: &str) -> Vec<Value> {
    let printed = done(daemon, &format!("{words} --format json"));
    printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[track_caller]
fn nothing(daemon: &Daemon, words: &str) {
    let (code, printed, said) = by_hand(daemon, words);
    assert_eq!((code, printed.as_str(), said.as_str()), (1, "", "mtpolicyd: nothing matches\n"), "{words}");
}

fn incoming(daemon: &Daemon, recipient: &str) -> String {
    let request = format!("sender=new@example.org\nclient_address=192.0.2.10\nrecipient={recipient}");
    daemon.ask(&request).action()
}

fn outgoing(daemon: &Daemon, attributes: &str) -> String {
    daemon.connect_to(daemon.site.other_port).ask(attributes).action()
}

/// A ticket that is used is removed once the answer is there.
fn wait_until_gone(daemon: &Daemon, words: &str) {
    eventually("the ticket is used up", || (by_hand(daemon, words).0 == 1).then_some(()));
}

const CAROL: &str = "--client 192.0.2.10 --from new@example.org --to carol@example.net";

fn greylist(daemon: &Daemon, can_list: bool) {
    assert_eq!(incoming(daemon, "bob@example.net"), DEFERRED);
    assert_eq!(incoming(daemon, "carol@example.net"), DEFERRED);
    if can_list {
        let all = entries(daemon, "greylist list --from @example.org");
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all.iter().all(|entry| entry["state"] == "waiting" && entry["plugin"] == "grey"));
        let table = done(daemon, "greylist list --to bob@example.net");
        assert!(table.contains("192.0.2.10") && table.contains(" min "), "{table}");
        let (code, _, said) = by_hand(daemon, "greylist reset --from @example.org");
        assert_eq!((code, said.as_str()), (2, "mtpolicyd: this would change 2 entries: add --all\n"));
        changed(daemon, "greylist allow --to bob@example.net");
    } else {
        let (code, printed, said) = by_hand(daemon, "greylist list");
        let note = "mtpolicyd: plugin grey: memcached can't list its keys; show and reset work by key\n";
        assert_eq!((code, printed.as_str(), said.as_str()), (2, "", note));
        assert_eq!(by_hand(daemon, "greylist reset --from new@example.org").0, 2);
        changed(daemon, "greylist allow --client 192.0.2.10 --from new@example.org --to bob@example.net");
    }
    assert_eq!(incoming(daemon, "bob@example.net"), PASSED, "the very next attempt passes");
    let [entry] = &entries(daemon, &format!("greylist show {CAROL}"))[..] else { panic!("one entry") };
    assert_eq!((&entry["state"], &entry["sender"]), (&"waiting".into(), &"new@example.org".into()));
    let undo = changed(daemon, &format!("greylist allow {CAROL}"));
    changed(daemon, &undo);
    assert!(incoming(daemon, "carol@example.net").starts_with("defer greylisting is active ("));
    let undo = changed(daemon, &format!("greylist reset {CAROL}"));
    nothing(daemon, &format!("greylist show {CAROL}"));
    nothing(daemon, &format!("greylist reset {CAROL}"));
    changed(daemon, &undo);
    assert!(incoming(daemon, "carol@example.net").starts_with("defer greylisting is active ("));
    changed(daemon, &format!("greylist allow {CAROL} --for 1h"));
    assert_eq!(incoming(daemon, "carol@example.net"), PASSED);
    wait_until_gone(daemon, &format!("greylist show {CAROL}"));
}

/// Two messages have passed, so the client is known.
fn known_client(daemon: &Daemon, can_list: bool) {
    let known = "--client 192.0.2.10 --domain example.org";
    assert_eq!(incoming(daemon, "dave@example.net"), PASSED);
    let show = if can_list { "awl show Example.org".to_owned() } else { format!("awl show {known}") };
    let [entry] = &entries(daemon, &show)[..] else { panic!("one entry") };
    assert_eq!((&entry["state"], &entry["counts"][0]["count"]), (&"whitelisted".into(), &3.into()));
    let undo = changed(daemon, &format!("awl reset {known}"));
    assert_eq!(incoming(daemon, "dave@example.net"), DEFERRED);
    changed(daemon, &undo);
    assert_eq!(incoming(daemon, "dave@example.net"), PASSED);
    changed(daemon, &format!("awl reset {known}"));
    nothing(daemon, &format!("awl show {known}"));
}

fn honeypot(daemon: &Daemon, can_list: bool) {
    let trapped = "reject trapped by honeypod";
    assert_eq!(incoming(daemon, "trap@example.net"), trapped);
    assert_eq!(incoming(daemon, "bob@example.net"), trapped);
    let words = if can_list { "honeypot list" } else { "honeypot show 192.0.2.10" };
    let [entry] = &entries(daemon, words)[..] else { panic!("one entry") };
    assert_eq!((&entry["client"], &entry["state"]), (&"192.0.2.10".into(), &"trapped".into()));
    let undo = changed(daemon, "honeypot reset 192.0.2.10");
    assert_ne!(incoming(daemon, "bob@example.net"), trapped);
    changed(daemon, &undo);
    assert_eq!(incoming(daemon, "bob@example.net"), trapped);
    changed(daemon, "honeypot reset ::ffff:192.0.2.10");
    nothing(daemon, "honeypot show 192.0.2.10");
}

fn limit(daemon: &Daemon) {
    let alice = "sender=Alice@example.org";
    let answers: Vec<_> = (0..4).map(|_| outgoing(daemon, alice)).collect();
    assert_eq!(answers, [PASSED, PASSED, PASSED, "too much"]);
    let table = done(daemon, "limits show limit alice@example.org");
    assert!(table.contains("1h 3/3 FULL, next free in ") && table.contains("1d 3/100"), "{table}");
    assert!(table.contains("1h full since "), "{table}");
    assert_eq!(entries(daemon, "limits list --over 80%").len(), 1);
    nothing(daemon, "limits show limit bob@example.org");
    let undo = changed(daemon, "limits reset limit alice@example.org --window hour");
    assert_eq!(undo, "mtpolicyd limits set limit alice@example.org --window 1h 3");
    assert_eq!(outgoing(daemon, alice), PASSED);
    changed(daemon, &undo);
    assert_eq!(outgoing(daemon, alice), "too much");
    changed(daemon, "limits reset limit alice@example.org");
    nothing(daemon, "limits list limit");
    let (code, _, said) = by_hand(daemon, "limits reset outgoing alice@example.org");
    assert_eq!(code, 2);
    assert_eq!(said, "mtpolicyd: no plugin `outgoing` keeps limits; those that do: limit\n");
}

fn quota(daemon: &Daemon) {
    let carol = "sasl_username=carol\nsize=100";
    let answers: Vec<_> = (0..3).map(|_| outgoing(daemon, carol)).collect();
    assert_eq!(answers, [PASSED, PASSED, "full"]);
    let [entry] = &entries(daemon, "quota list monthly --over 80%")[..] else { panic!("one entry") };
    assert_eq!((&entry["key"], &entry["state"]), (&"carol".into(), &"full".into()));
    let undo = changed(daemon, "quota reset monthly Carol");
    nothing(daemon, "quota show monthly carol");
    assert_eq!(outgoing(daemon, carol), PASSED);
    changed(daemon, &undo);
    assert_eq!(outgoing(daemon, carol), "full");
    changed(daemon, "quota set monthly carol --metric count 1");
    assert_eq!(outgoing(daemon, carol), PASSED);
    assert_eq!(outgoing(daemon, carol), "full");
}

fn incoming_works(daemon: &Daemon, can_list: bool) {
    greylist(daemon, can_list);
    known_client(daemon, can_list);
    honeypot(daemon, can_list);
}

#[test]
fn in_this_process() {
    let daemon = daemon("Memory", "memory", "", LIMIT);
    incoming_works(&daemon, true);
    limit(&daemon);
}

#[test]
fn in_memcached() {
    let server = memcached::start();
    let options = format!(" servers = \"127.0.0.1:{}\"", server.port);
    incoming_works(&daemon("Memcached", "memcached", &options, ""), false);
}

#[test]
fn in_redis() {
    let server = redis::start();
    let options = format!(" server = \"127.0.0.1:{}\"\n prefix = \"mx*\"", server.port);
    let daemon = daemon("Redis", "redis", &options, &format!("{QUOTA}{LIMIT}"));
    incoming_works(&daemon, true);
    limit(&daemon);
    quota(&daemon);
    // What others have put there is shown as such.
    redis::command(server.port, &["RPUSH", "mx*x@example.org,192.0.2.1,y@example.net", "1"]);
    redis::command(server.port, &["SET", "mx*v@example.org,192.0.2.1,w@example.net", "\u{1b}[2J"]);
    redis::command(server.port, &["SET", "mx*mtpolicyd:limit:limit:mallory", "?"]);
    redis::command(server.port, &["SET", "mxx@example.org,192.0.2.1,y@example.net", "another prefix"]);
    let odd = entries(&daemon, "greylist list --client 192.0.2.1");
    assert_eq!(odd.len(), 2, "{odd:?}");
    assert!(odd.iter().all(|entry| entry["state"] == "unreadable"), "{odd:?}");
    let table = done(&daemon, "greylist list --client 192.0.2.1");
    assert!(table.contains("\\x1b[2J") && !table.contains('\u{1b}'), "{table}");
    assert!(done(&daemon, "limits list").contains("unreadable"));
    done(&daemon, "greylist reset --client 192.0.2.1 --all");
    nothing(&daemon, "greylist list --client 192.0.2.1");
    assert_eq!(redis::calls(server.port, "keys"), 0);
}

#[test]
fn in_a_cluster_of_redis() {
    let servers = redis::start_cluster();
    let options = format!(" cluster = \"127.0.0.1:{}\"", servers[0].port);
    let daemon = daemon("Redis", "redis", &options, &format!("{QUOTA}{LIMIT}"));
    incoming_works(&daemon, true);
    limit(&daemon);
    quota(&daemon);
    for n in 0..100 {
        assert_eq!(incoming(&daemon, &format!("r{n}@example.net")), DEFERRED);
    }
    assert_eq!(entries(&daemon, "greylist list --to @example.net").len(), 102, "on all servers");
}

#[test]
fn in_databases() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("dbi:SQLite:dbname={}", folder.path().join("db").display());
    let (mariadb_server, postgres_server) = (mariadb::start(), postgres::start());
    for dsn in [sqlite, mariadb::dsn(&mariadb_server), postgres::dsn(&postgres_server)] {
        let daemon = database(&dsn);
        incoming_works(&daemon, true);
        limit(&daemon);
        quota(&daemon);
    }
}

#[test]
fn what_can_not_be_done_is_said_in_one_line() {
    let daemon = daemon("Memory", "memory", "", LIMIT);
    for (words, why) in [
        ("limits list --over much", "--over: `much` is not a percentage such as 80%"),
        ("greylist reset", "say which entries are meant, or `--all`"),
        ("quota list", "the configuration has no plugin that keeps quota"),
        ("limits set limit a 1h=x", "`1h=x` is not NAME=NUMBER"),
        ("limits reset limit a --window 5m", "plugin limit has no window `5m`; it has: 1h, 1d"),
        ("greylist allow --client 192.0.2.1 --from a@x --to b@y --for good", "--for: `good` is not a time"),
    ] {
        // There has to be something that could be reset.
        outgoing(&daemon, "sender=a");
        let (code, printed, said) = by_hand(&daemon, words);
        assert_eq!((code, printed.as_str(), said.lines().count()), (2, "", 1), "{words}: {said}");
        assert!(said.contains(why), "{words}: {said}");
    }
}
