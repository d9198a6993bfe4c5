//! `shadow` of a virtual host: another configuration decides too, after the answer, and nothing but what is
//! reported of it shows that.
//!
//! Knows: the commands and what they print, the configuration file. Must not know: the daemon's code.

use crate::support::daemon::{Daemon, Site, errors_of, output_of, run};
use crate::support::eventually;
use crate::support::fake_dns::{FakeDns, Query, Reply};
use rusqlite::Connection;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::thread;

/// A chain that remembers and asks; `$SHADOW` is the option, or nothing.
const CONFIG: &str = r#"
port = "127.0.0.1:$PORT"
<Dns>
  servers = "$DNS"
</Dns>
<Control>
  socket = "$DIR/control.sock"
</Control>
$JOURNAL
<SessionCache>
  module = "Memory"
</SessionCache>
<Connection db>
  module = "Sql"
  dsn = "dbi:SQLite:dbname=$DIR/state.sqlite"
</Connection>
<VirtualHost $PORT>
  name = "inbound"
  $SHADOW
  <Plugin first>
    module = "RBL"
    domain = "first.test"
    mode = "passive"
    score = 6
  </Plugin>
  <Plugin bad>
    module = "ScoreAction"
    threshold = 5
    action = "reject score %SCORE%"
  </Plugin>
  <Plugin limit>
    module = "RateLimit"
    key = "sender"
    limit = "14/1h"
    store = "db"
    action = "reject too much"
  </Plugin>
  <Plugin quota>
    module = "Quota"
    field = "client_address"
    metric = "count"
    threshold = 6
    action = "reject full"
  </Plugin>
  <Plugin acct>
    module = "Accounting"
    fields = "client_address"
  </Plugin>
  <Plugin grey>
    module = "Greylist"
    min_retry_wait = 300
    append_waittime = 0
    <Ticket>
      module = "Sql"
    </Ticket>
    <AWL>
      module = "Sql"
    </AWL>
  </Plugin>
</VirtualHost>
"#;

/// A chain of another configuration.
fn other(plugins: &str) -> String {
    format!(
        "port = \"127.0.0.1:$PORT\"\n<Dns>\nservers = \"$DNS\"\n</Dns>\n<VirtualHost $PORT>\n\
         name = \"inbound\"\n{plugins}\n</VirtualHost>\n"
    )
}

const REJECT: &str = "<Plugin no>\nmodule = Action\naction = \"reject never\"\n</Plugin>\n";
const SHADOW: &str = "shadow = new.conf";
const JOURNAL: &str = "<Journal>\nfile = \"$DIR/journal.db\"\n</Journal>";

fn live(shadow: &str, journal: &str) -> String {
    CONFIG.replace("$SHADOW", shadow).replace("$JOURNAL", journal)
}

/// Clients that end in a multiple of four are on the list; another list never answers.
fn world() -> FakeDns {
    FakeDns::start(|query: &Query| {
        let last: u8 = query.name.split('.').next().and_then(|label| label.parse().ok()).unwrap_or(1);
        if query.name.ends_with("silent.test") {
            return Reply::Silence;
        }
        match query.name.ends_with("first.test") && last.is_multiple_of(4) {
            true => Reply::address([127, 0, 0, 2]),
            false => Reply::NoSuchName(Some(60)),
        }
    })
}

/// Waits for an answer that never comes.
const WAITS: &str = "<Plugin waits>\nmodule = RBL\ndomain = silent.test\nmode = passive\n</Plugin>\n";

fn site(dns: &FakeDns, live: &str, shadow: &str) -> Site {
    let mut site = Site::new();
    site.replace("$DNS", dns.address());
    fs::write(site.path("new.conf"), site.fill(shadow)).expect("the folder is ours");
    site.configure(live);
    site
}

fn request(number: u32) -> String {
    format!(
        "request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=i.{number}\nsize=1000\n\
         client_address=192.0.2.{}\nclient_name=mx.example.org\nhelo_name=mx.example.org\n\
         sender=user{}@example.org\nrecipient=bob@rcpt.test",
        number % 12,
        number % 5
    )
}

const REQUESTS: u32 = 120;

/// Asks all, and returns the answers.
fn ask_all(daemon: &Daemon) -> Vec<String> {
    let mut client = daemon.connect();
    (0..REQUESTS).map(|number| client.ask(&request(number)).action()).collect()
}

/// What a command prints, as JSON.
fn json(daemon: &Daemon, words: &[&str]) -> Value {
    let output = run(&mut daemon.site.command_after(&[words, &["--format", "json"]].concat()), b"");
    let (printed, errors) = (output_of(&output), errors_of(&output));
    serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{printed}{errors}"))
}

/// The numbers of the only shadow, once it has looked at all requests, or dropped them: compared, differ,
/// dropped.
fn settled(daemon: &Daemon, requests: u32) -> [u64; 3] {
    eventually("the shadow has looked at everything", || {
        let view = json(daemon, &["shadow", "status"]);
        let number = |name: &str| view["shadows"][0][name].as_u64().expect("it is a number");
        assert_eq!(number("left_out"), 0, "{view}");
        let numbers = ["compared", "differ", "dropped"].map(number);
        (numbers[0] + numbers[2] == u64::from(requests)).then_some(numbers)
    })
}

/// Everything that the plugins have stored, but for times.
fn stored(site: &Site) -> Vec<String> {
    let db = Connection::open(site.path("state.sqlite")).expect("it is there");
    let rows = |sql: &str| {
        let mut statement = db.prepare(sql).expect("a query");
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            (0..columns).map(|at| Ok(format!("{:?}", row.get_ref(at)?))).collect::<Result<Vec<_>, _>>()
        };
        let rows = statement.query_map([], row).expect("rows").map(|row| row.expect("a row").join(" "));
        rows.collect::<Vec<_>>()
    };
    let tables =
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1";
    let mut statement = db.prepare(tables).expect("a query");
    let names = statement.query_map([], |row| row.get::<_, String>(0)).expect("names");
    let names: Vec<String> = names.map(|name| name.expect("a name")).collect();
    let count = |name: &String| format!("{name}: {}", rows(&format!("SELECT count(*) FROM \"{name}\""))[0]);
    let mut all: Vec<String> = names.iter().map(count).collect();
    let counters = names.iter().filter(|name| name.starts_with("acct"));
    counters.for_each(|name| all.extend(rows(&format!("SELECT * FROM \"{name}\" ORDER BY 1, 2"))));
    assert!(all.len() > names.len(), "something was counted: {names:?}");
    all
}

#[test]
fn the_same_chain_in_the_shadow_decides_the_same() {
    let dns = world();
    let site = site(&dns, &live(SHADOW, ""), &live("", ""));
    let daemon = site.start();
    let answers = ask_all(&daemon);
    let has = |word: &str| answers.iter().any(|answer| answer.contains(word));
    assert!(["score", "too much", "full", "efer"].into_iter().all(has), "{answers:?}");
    let [compared, differ, dropped] = settled(&daemon, REQUESTS);
    assert_eq!((compared + dropped, differ), (REQUESTS.into(), 0));
    assert!(compared > 0);
    let found = run(&mut daemon.site.command_after(&["decisions", "--shadow-differs"]), b"");
    assert_eq!(output_of(&found), "", "{}", errors_of(&found));
}

/// What a daemon answers, and what it has stored when it has ended.
fn day(dns: &FakeDns, live: &str, shadow: &str) -> (Vec<String>, Vec<String>) {
    let mut daemon = site(dns, live, shadow).start();
    let answers = ask_all(&daemon);
    assert!(daemon.terminate().success(), "{}", daemon.log());
    (answers, stored(&daemon.site))
}

#[test]
fn whatever_a_shadow_does_answers_and_stores_are_as_without_it() {
    let dns = world();
    let without = day(&dns, &live("", JOURNAL), "");
    let fails =
        "<Plugin web>\nmodule = HttpLookup\nurl = \"http://127.0.0.1:1/\"\non_error = close\n</Plugin>\n";
    for plugins in [REJECT.to_owned(), format!("{WAITS}{REJECT}"), format!("{fails}{REJECT}")] {
        assert_eq!(day(&dns, &live(SHADOW, JOURNAL), &other(&plugins)), without, "{plugins}");
    }
}

#[test]
fn what_differs_is_counted_logged_kept_and_explained() {
    for journal in ["", JOURNAL] {
        let dns = world();
        let daemon = site(&dns, &live(SHADOW, journal), &other(REJECT)).start();
        let answers = ask_all(&daemon);
        let [compared, differ, dropped] = settled(&daemon, REQUESTS);
        let rejected = answers.iter().filter(|answer| answer.starts_with("reject")).count() as u64;
        // What was dropped may have been any of them.
        assert!(differ <= compared && differ >= compared.saturating_sub(rejected), "{answers:?}");
        if dropped == 0 {
            assert_eq!(differ, compared - rejected);
        }
        let found = run(&mut daemon.site.command_after(&["decisions", "--shadow-differs"]), b"");
        let (rows, errors) = (output_of(&found), errors_of(&found));
        assert_eq!(rows.lines().count() as u64, differ, "{rows}{errors}");
        let row = rows.lines().next().expect("there is one");
        for part in ["live=", " shadow=reject shadow_by=inbound/no shadow_place=", "new.conf:"] {
            assert!(row.contains(part), "{row}");
        }
        let id = row.split(' ').nth(1).expect("the identifier is the second word");
        let explained = output_of(&run(&mut daemon.site.command_after(&["explain", id]), b""));
        assert!(
            explained.contains("reject by inbound/no") && explained.contains("decided by"),
            "{explained}"
        );
        assert!(explained.contains("answer of the shadow: reject never"), "{explained}");
        // Everything is found once without the option.
        let all = output_of(&run(&mut daemon.site.command_after(&["decisions"]), b""));
        assert_eq!(all.lines().count(), answers.len(), "{all}");
        let mut metrics = daemon.site.command_after(&["metrics", "shadow", "--format", "json"]);
        let metrics = output_of(&run(&mut metrics, b""));
        let labels = r#"{"host":"inbound","live":"defer","shadow":"reject"}"#;
        assert!(metrics.contains("mtpolicyd_shadow_total") && metrics.contains(labels), "{metrics}");
        let log = daemon.log();
        let told = log.lines().filter(|line| line.contains("shadow differs: live=defer shadow=reject"));
        assert!(told.count() >= 1, "{log}");
        assert!(!log.contains("never"), "the shadow's plugins log nothing: {log}");
    }
}

#[test]
fn a_broken_shadow_is_refused_alone() {
    let dns = world();
    let daemon = site(&dns, &live(SHADOW, ""), &other(REJECT)).start();
    daemon.logged("new.conf runs in its shadow");
    daemon.ask(&request(0));
    settled(&daemon, 1);
    for (text, why) in [
        (other("<Plugin a>\nmodule = Actoin\n</Plugin>"), "Actoin"),
        (other(&format!("shadow = new.conf\n{REJECT}")), "has none itself"),
        (other(REJECT).replace("\"inbound\"", "\"x\"").replace("$PORT", "1"), "no virtual host of the name"),
    ] {
        fs::write(daemon.site.path("new.conf"), daemon.site.fill(&text)).expect("the folder is ours");
        daemon.hang_up();
        daemon.logged(why);
        let view = json(&daemon, &["shadow", "status"]);
        assert!(view["shadows"][0]["problem"].is_string() && view["shadows"][0]["since"].is_null(), "{view}");
        assert!(daemon.ask(&request(3)).action().to_lowercase().contains("defer"));
        let check = run(&mut daemon.site.command_after(&["shadow", "status"]), b"");
        assert!(output_of(&check).contains("inbound: no shadow: "), "{}", output_of(&check));
        let config = daemon.site.config();
        let mut check = std::process::Command::new(crate::support::daemon::PROGRAM);
        let check = run(check.arg("check").arg(config), b"");
        let errors = errors_of(&check);
        assert_eq!(check.status.code(), Some(0), "{errors}");
        assert!(errors.contains(why) && errors.contains("warning[W019]"), "{errors}");
    }
    // It runs again once it is right.
    fs::write(daemon.site.path("new.conf"), daemon.site.fill(&other(REJECT))).expect("the folder is ours");
    daemon.hang_up();
    daemon.ask(&request(1));
    assert_eq!(settled(&daemon, 1), [1, 1, 0]);
    // What has not changed goes on, although the daemon's own file is read again.
    daemon.hang_up();
    daemon.ask(&request(2));
    assert_eq!(settled(&daemon, 2), [2, 2, 0]);
}

#[test]
fn nothing_but_the_name_service_is_asked() {
    let dns = world();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    listener.set_nonblocking(true).expect("it is ours");
    let plugins = format!(
        "<Plugin web>\nmodule = HttpLookup\nurl = \"http://127.0.0.1:{port}/\"\non_error = continue\n\
         </Plugin>\n\
         <Plugin proxy>\nmodule = Proxy\nhost = \"127.0.0.1:{port}\"\non_error = continue\n</Plugin>\n\
         <Plugin counts>\nmodule = RateLimit\nkey = sender\nlimit = \"5/1h\"\nstore = redis\n</Plugin>\n\
         <Plugin new>\nmodule = RBL\ndomain = new.test\nmode = passive\n</Plugin>\n{REJECT}"
    );
    let redis = format!("<Connection redis>\nmodule = Redis\nserver = \"127.0.0.1:{port}\"\n</Connection>\n");
    let daemon = site(&dns, &live(SHADOW, ""), &(redis + &other(&plugins))).start();
    daemon.logged("new.conf runs in its shadow");
    for number in 0..6 {
        daemon.ask(&request(number));
    }
    let [compared, differ, _] = settled(&daemon, 6);
    assert!(differ > 0 && compared > 0);
    let asked = dns.queries().iter().filter(|query| query.name.ends_with("new.test")).count();
    assert!(asked > 0);
    assert!(listener.accept().is_err(), "nobody has connected");
}

#[test]
fn more_than_a_shadow_can_take_is_dropped_and_counted() {
    let dns = world();
    let waits =
        other(&(WAITS.to_owned() + REJECT)).replace("</Dns>", "timeout = 8\n</Dns>\nrequest_timeout = 10");
    let daemon = site(&dns, &live(SHADOW, ""), &waits).start();
    let ask = |part: u32| {
        let mut client = daemon.connect();
        let answers = (0..100).map(|number| client.ask(&request(part * 100 + number)).action());
        answers.filter(|answer| !answer.is_empty()).count()
    };
    let answered: usize = thread::scope(|scope| {
        let parts: Vec<_> = (0..4).map(|part| scope.spawn(move || ask(part))).collect();
        parts.into_iter().map(|part| part.join().expect("no panic")).sum()
    });
    assert_eq!(answered, 400);
    let [compared, _, dropped] = settled(&daemon, 400);
    assert!(dropped > 0 && compared >= 64, "{compared} {dropped}");
}
