//! `mtpolicyd explain` of a request that nobody has sent: what would be decided, and that nothing is changed.
//!
//! Knows: the command and what it prints, databases. Must not know: the daemon's code.

use crate::support::daemon::{Daemon, PROGRAM, Site, errors_of, output_of, run};
use crate::support::servers::redis;
use rusqlite::Connection;
use std::fs;
use std::path::Path;
use std::process::Command;

const CONFIG: &str = "\
port = \"127.0.0.1:$PORT\"
reply_suffix = \" (ref %ID%)\"
<Control>
  socket = \"$DIR/control.sock\"
</Control>
$CONNECTION
<VirtualHost $PORT>
  name = \"inbound\"
  <Plugin users>
    module = \"SetField\"
    key = \"score\"
    value = \"1\"
  </Plugin>
  <Plugin trap>
    module = \"Honeypot\"
    recipients = \"trap@example.net\"
    store = \"$NAME\"
  </Plugin>
  <Plugin limit>
    module = \"RateLimit\"
    key = \"sender\"
    limit = \"2/1h\"
    store = \"$NAME\"
    action = \"reject too much\"
  </Plugin>
  <Plugin monthly>
    module = \"Quota\"
    field = \"sasl_username\"
    metric = \"count\"
    threshold = 2
    action = \"reject full\"
    $STORE
  </Plugin>
  <Plugin acct>
    module = \"Accounting\"
    fields = \"sasl_username\"
    $STORE
  </Plugin>
  <Plugin other>
    module = \"Proxy\"
    host = \"127.0.0.1:1\"
  </Plugin>
  <Plugin grey>
    module = \"Greylist\"
    <Ticket>
      module = \"$MODULE\"
    </Ticket>
    <AWL>
      module = \"$MODULE\"
    </AWL>
  </Plugin>
</VirtualHost>
";

const REQUEST: [&str; 4] =
    ["client_address=203.0.113.7", "sender=a@example.org", "recipient=b@example.net", "sasl_username=alice"];

fn site(module: &str, options: &str, store: &str) -> Site {
    let name = if module == "Sql" { "db" } else { "redis" };
    let connection = format!("<Connection {name}>\n  module = \"{module}\"\n{options}\n</Connection>");
    let text = CONFIG.replace("$CONNECTION", &connection).replace("$MODULE", module).replace("$NAME", name);
    Site::with(&text.replace("$STORE", store))
}

/// Runs `explain`: its exit code, what it printed and what it said.
fn explain(daemon: &Daemon, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(PROGRAM);
    command.arg("explain").args(arguments).arg("--socket").arg(daemon.site.path("control.sock"));
    let output = run(&mut command, input.as_bytes());
    (output.status.code().expect("it ends by itself"), output_of(&output), errors_of(&output))
}

#[track_caller]
fn explained(daemon: &Daemon, arguments: &[&str], input: &str) -> String {
    let (code, printed, said) = explain(daemon, arguments, input);
    assert_eq!((code, said.as_str()), (0, ""), "{printed}");
    printed
}

/// Every row of every table.
fn rows(path: &Path) -> Vec<String> {
    let database = Connection::open(path).expect("the database");
    let mut tables = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").expect("tables");
    let names = tables.query_map([], |row| row.get::<_, String>(0)).expect("names");
    let mut all = Vec::new();
    for name in names.map(|name| name.expect("a name")) {
        let mut rows = database.prepare(&format!("SELECT * FROM \"{name}\"")).expect("rows");
        let columns = rows.column_count();
        let text = |row: &rusqlite::Row<'_>| {
            (0..columns).map(|n| row.get::<_, rusqlite::types::Value>(n)).collect::<Result<Vec<_>, _>>()
        };
        let found = rows.query_map([], text).expect("values");
        all.extend(found.map(|row| format!("{name} {:?}", row.expect("a row"))));
    }
    all.sort();
    all
}

#[test]
fn a_request_is_explained_and_changes_nothing() {
    let dsn = " dsn = \"dbi:SQLite:dbname=$DIR/state.db\"";
    let daemon = site("Sql", dsn, "db = \"db\"").start();
    // One that counts, so that there is something to be seen.
    let _ = daemon.ask(&REQUEST.join("\n").replace("alice", "bob").replace("a@example", "x@example"));
    let before = rows(&daemon.site.path("state.db"));
    assert!(before.len() > 1, "{before:?}");
    for _ in 0..20 {
        let text = explained(&daemon, &REQUEST, "");
        let expected = [
            "answer after ",
            "greylisting is active",
            "decided by inbound/grey",
            "would count ",
            "would ask the policy daemon 127.0.0.1:1",
            "would set ",
        ];
        for words in expected {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
    let trap =
        REQUEST.map(|pair| if pair.starts_with("recipient") { "recipient=trap@example.net" } else { pair });
    let text = explained(&daemon, &trap, "");
    assert!(text.contains("decided by inbound/trap"), "{text}");
    assert_eq!(rows(&daemon.site.path("state.db")), before);
}

#[test]
fn neither_does_it_in_redis() {
    let server = redis::start();
    let options = format!(" server = \"127.0.0.1:{}\"", server.port);
    let daemon = site("Redis", &options, "store = \"redis\"").start();
    let _ = daemon.ask(&REQUEST.join("\n").replace("alice", "bob").replace("a@example", "x@example"));
    let all = "local all = {} for _, key in ipairs(redis.call('KEYS', '*')) do \
               all[#all + 1] = key .. redis.sha1hex(redis.call('DUMP', key)) end \
               table.sort(all) return table.concat(all, ' ')";
    let held = || redis::command(server.port, &["EVAL", all, "0"]);
    let before = held();
    assert!(before.contains("mtpolicyd:limit:"), "a request changes something: {before}");
    for _ in 0..5 {
        let text = explained(&daemon, &REQUEST, "");
        assert!(text.contains("decided by inbound/grey") && text.contains("would count "), "{text}");
    }
    assert_eq!(held(), before);
}

#[test]
fn a_plugin_can_be_left_out_and_another_file_be_tried() {
    let dsn = " dsn = \"dbi:SQLite:dbname=$DIR/state.db\"";
    let daemon = site("Sql", dsn, "db = \"db\"").start();
    let input = format!("{}\n\nsender=ignored@example.org\n", REQUEST.join("\n"));
    let text = explained(&daemon, &["--at", "-", "--without", "grey"], &input);
    assert!(text.contains("decided by no plugin") && text.contains("a@example.org"), "{text}");
    let (code, _, said) = explain(&daemon, &["sender=a@example.org", "--without", "gray"], "");
    assert_eq!((code, said.contains("has no plugin `gray`")), (2, true), "{said}");
    for (arguments, words) in [
        (&["sender"][..], "`sender` is not the identifier of a decision"),
        (&["=x"], "`=x` is not an attribute"),
        (&[], "name one decision"),
        (&["sender=a", "--host", "nowhere"], "there is no virtual host `nowhere`; there are inbound"),
    ] {
        let (code, printed, said) = explain(&daemon, arguments, "");
        assert_eq!((code, printed.as_str()), (2, ""), "{arguments:?}");
        assert!(said.contains(words) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    let config = fs::read_to_string(daemon.site.config()).expect("the configuration");
    let other = daemon.site.path("new.conf");
    let first = "<Plugin users>";
    let refuse = "<Plugin first>\nmodule = Action\naction = \"reject new\"\n</Plugin>\n<Plugin users>";
    fs::write(&other, config.replacen(first, refuse, 1)).expect("it can be written");
    let other = other.to_str().expect("a path");
    let text = explained(&daemon, &[&REQUEST[..], &["-c", other]].concat(), "");
    assert!(text.contains("reject new (ref ") && text.contains("decided by inbound/first"), "{text}");
    assert!(text.contains(&format!("{other}:")), "the place is one of the other file: {text}");
    fs::write(other, format!("{config}<VirtualHost 1>\n")).expect("it can be written");
    let (code, _, said) = explain(&daemon, &[&REQUEST[..], &["-c", other]].concat(), "");
    assert_eq!((code, said.contains("new.conf")), (2, true), "{said}");
}
