//! `mtpolicyd replay`: the same configuration over its own journal changes nothing; another one changes what
//! it would have changed; nobody is asked and nothing is written.
//!
//! Knows: the command and what it prints, the configuration file. Must not know: the daemon's code.

use crate::support::daemon::{PROGRAM, Site, errors_of, output_of, run};
use crate::support::fake_dns::{FakeDns, Query, Reply};
use rusqlite::Connection;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const A: u16 = 1;
const TXT: u16 = 16;

/// Many kinds of plugins, each with something to remember or to ask.
const CONFIG: &str = r#"
port = "127.0.0.1:$PORT"
reply_suffix = " (ref %ID%)"
<Dns>
  servers = "$DNS"
</Dns>
<Journal>
  file = "$DIR/journal.db"
</Journal>
<SessionCache>
  module = "Memory"
</SessionCache>
<Connection db>
  module = "Sql"
  dsn = "dbi:SQLite:dbname=$DIR/state.sqlite"
</Connection>
<VirtualHost $PORT>
  name = "inbound"
  <Plugin users>
    module = "SqlUserConfig"
    sql_query = "SELECT config FROM user_config WHERE address = ?"
    field = "recipient"
  </Plugin>
  <Plugin friends>
    module = "SqlList"
    sql_query = "SELECT 1 FROM friends WHERE address = ?"
    field = "sender"
    match_action = "dunno"
  </Plugin>
  <Plugin first>
    module = "RBL"
    domain = "first.test"
    mode = "passive"
    score = 6
  </Plugin>
  <Plugin second>
    module = "RBL"
    domain = "second.test"
    mode = "passive"
    score = 3
  </Plugin>
  <Plugin spf>
    module = "SPF"
    pass_mode = "passive"
    fail_mode = "passive"
    fail_score = 2
  </Plugin>
  <Plugin limit>
    module = "RateLimit"
    key = "sender"
    limit = "$LIMIT/1h"
    store = "memory"
    action = "reject too much"
  </Plugin>
  <Plugin quota>
    module = "Quota"
    field = "client_address"
    metric = "count"
    threshold = 12
    action = "reject full"
  </Plugin>
  <Plugin acct>
    module = "Accounting"
    fields = "client_address"
  </Plugin>
  <Plugin bad>
    module = "ScoreAction"
    uc_threshold = "my_threshold"
    threshold = $THRESHOLD
    action = "reject score %SCORE%"
  </Plugin>
  $MORE
  <Plugin grey>
    module = "Greylist"
    min_retry_wait = $WAIT
    append_waittime = 0
    <Ticket>
      module = "Memory"
    </Ticket>
    <AWL>
      module = "Sql"
    </AWL>
  </Plugin>
  <Plugin header>
    module = "AddScoreHeader"
  </Plugin>
</VirtualHost>
"#;

/// What of it is another in some of the tests.
#[derive(Clone, Copy)]
struct Variant {
    limit: &'static str,
    threshold: &'static str,
    wait: &'static str,
    more: &'static str,
}

const USUAL: Variant = Variant { limit: "30", threshold: "8", wait: "300", more: "" };

fn configuration(variant: Variant) -> String {
    let Variant { limit, threshold, wait, more } = variant;
    CONFIG
        .replace("$LIMIT", limit)
        .replace("$THRESHOLD", threshold)
        .replace("$WAIT", wait)
        .replace("$MORE", more)
}

/// A name service: clients that end in an even number are on the first list, those that end in a multiple of
/// three on the second; senders of example.org have an SPF record among others.
fn world() -> FakeDns {
    FakeDns::start(|query: &Query| {
        let last: u8 = query.name.split('.').next().and_then(|label| label.parse().ok()).unwrap_or(1);
        let is_listed = query.name.ends_with("first.test") && last.is_multiple_of(2)
            || query.name.ends_with("second.test") && last.is_multiple_of(3);
        match query.record_type {
            A if is_listed => Reply::address([127, 0, 0, 2]),
            TXT if query.name == "example.org" => {
                let records = ["other, a", "v=spf1 ip4:192.0.2.0/28 -all"];
                Reply::Texts(records.map(|record| vec![record.as_bytes().to_vec()]).to_vec(), 60)
            }
            _ => Reply::NoSuchName(Some(60)),
        }
    })
}

fn site(dns: &FakeDns, variant: Variant) -> Site {
    let mut site = Site::new();
    site.replace("$DNS", dns.address());
    site.configure(&configuration(variant));
    let db = Connection::open(site.path("state.sqlite")).expect("there is a folder");
    db.execute_batch(
        "CREATE TABLE friends(address TEXT); INSERT INTO friends VALUES('friend@example.net');
         CREATE TABLE user_config(address TEXT, config TEXT);
         INSERT INTO user_config VALUES('lenient@rcpt.test', '{\"my_threshold\": \"20\"}')",
    )
    .expect("the database is ours");
    site
}

/// The requests of the day: messages of several recipients, retries of those that are deferred.
fn requests() -> Vec<String> {
    let mut requests = Vec::new();
    for round in 0..2 {
        for number in 0..24 {
            let sender = match number % 5 {
                0 => "friend@example.net".to_owned(),
                1 => "often@example.org".to_owned(),
                _ => format!("user{number}@example.org"),
            };
            let recipients: &[&str] =
                if number % 4 == 0 { &["lenient@rcpt.test", "bob@rcpt.test"] } else { &["bob@rcpt.test"] };
            for recipient in recipients {
                requests.push(format!(
                    "request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=i.{round}.{number}\n\
                     client_address=192.0.2.{}\nclient_name=mx{number}.example.org\nsize=1000\n\
                     helo_name=mx{number}.example.org\nsender={sender}\nrecipient={recipient}",
                    number % 20
                ));
            }
        }
    }
    requests
}

/// A daemon has answered the requests and has ended: the folder with its journal, and its answers.
fn day(dns: &FakeDns, variant: Variant) -> (Site, Vec<String>) {
    let mut daemon = site(dns, variant).start();
    let mut client = daemon.connect();
    let ask = |request: &String| client.ask(request).action();
    let answers = requests().iter().map(ask).collect();
    drop(client);
    assert!(daemon.terminate().success(), "{}", daemon.log());
    (daemon.into_site(), answers)
}

fn command(site: &Site, config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("replay").arg("-c").arg(config).arg("--journal").arg(site.path("journal.db"));
    run(command.args(arguments), b"")
}

/// What it prints with another configuration; it has to end with this code.
#[track_caller]
fn replayed(site: &Site, variant: Variant, code: i32, arguments: &[&str]) -> String {
    let config = site.path("new.conf");
    fs::write(&config, site.fill(&configuration(variant))).expect("the folder is ours");
    let output = command(site, &config, arguments);
    let (printed, errors) = (output_of(&output), errors_of(&output));
    assert_eq!(output.status.code(), Some(code), "{printed}{errors}");
    printed
}

/// The differences and the summary.
#[track_caller]
fn as_json(site: &Site, variant: Variant, code: i32, arguments: &[&str]) -> (Vec<Value>, Value) {
    let printed = replayed(site, variant, code, &[&["--format", "json"], arguments].concat());
    let mut lines: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    let summary = lines.pop().expect("there is a summary")["summary"].take();
    (lines, summary)
}

#[test]
fn the_same_configuration_changes_nothing_and_asks_nobody() {
    let dns = world();
    let (site, answers) = day(&dns, USUAL);
    let kinds: BTreeSet<_> = answers.iter().filter_map(|answer| answer.split(' ').next()).collect();
    assert!(kinds.len() >= 3, "there is something to compare: {answers:?}");
    let asked = dns.queries().len();
    let (differences, summary) = as_json(&site, USUAL, 0, &[]);
    assert_eq!(differences, [] as [Value; 0]);
    let count = requests().len();
    let numbers = ["decisions", "exact", "simulated", "unknown", "differ", "other_answers"];
    let found = numbers.map(|name| summary[name].as_u64().unwrap_or(u64::MAX));
    let count = u64::try_from(count).expect("it is small");
    assert_eq!(found, [count, count, 0, 0, 0, 0], "{summary}");
    let text = replayed(&site, USUAL, 0, &[]);
    assert!(text.contains("\n0 differ (0.00 %)\n"), "{text}");
    assert_eq!(replayed(&site, USUAL, 0, &[]), text);
    assert_eq!(dns.queries().len(), asked);
}

#[test]
fn nothing_is_connected_to_and_nothing_is_written() {
    let dns = world();
    let daemon = site(&dns, USUAL).start();
    let mut client = daemon.connect();
    requests().iter().for_each(|request| drop(client.ask(request)));
    // The daemon goes on, so that a part of its journal is in the log beside the file.
    let trace = daemon.site.path("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=network,%file", "-o"]).arg(&trace).arg(PROGRAM);
    command.arg("replay").arg("-c").arg(daemon.site.config());
    let read = || {
        let output = run(&mut command, b"");
        let is_whole = output_of(&output).starts_with(&format!("{} decisions", requests().len()));
        is_whole.then_some(output)
    };
    let output = crate::support::eventually("all decisions are in the journal", read);
    assert_eq!(output.status.code(), Some(0), "{}{}", output_of(&output), errors_of(&output));
    let trace = fs::read_to_string(trace).expect("strace has written it");
    assert!(trace.contains("journal.db"), "{trace}");
    let calls = ["connect(", "sendto(", "sendmsg(", "O_WRONLY", "O_RDWR", "O_CREAT", "unlink", "rename"];
    let bad: Vec<_> = trace.lines().filter(|line| calls.iter().any(|call| line.contains(call))).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn another_threshold_changes_what_it_changes_for_a_daemon() {
    let dns = world();
    let (site, then) = day(&dns, USUAL);
    let other = Variant { threshold: "6", ..USUAL };
    let (_, now) = day(&dns, other);
    let (differences, summary) = as_json(&site, other, 1, &[]);
    let class = |answer: &str| match answer.split(' ').next().unwrap_or_default() {
        "reject" => "reject",
        "dunno" => "pass",
        "PREPEND" => "header",
        _ => "defer",
    };
    let mut expected = BTreeMap::new();
    for (then, now) in then.iter().zip(&now).filter(|(then, now)| class(then) != class(now)) {
        *expected.entry((class(then), class(now))).or_insert(0) += 1;
    }
    assert!(!expected.is_empty(), "{then:?} {now:?}");
    let mut found = BTreeMap::new();
    for difference in &differences {
        let side = |name: &str| difference[name]["outcome"].as_str().unwrap_or_default();
        *found.entry((side("was"), side("now"))).or_insert(0) += 1;
    }
    assert_eq!(found, expected, "{summary}");
    let by: BTreeSet<_> = differences.iter().filter_map(|it| it["now"]["by"].as_str()).collect();
    assert!(by.contains("inbound/bad"), "{by:?}");
    let ids: Vec<_> = differences.iter().filter_map(|it| it["id"].as_str()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    let text = replayed(&site, other, 1, &["--show", "defer->reject", "--limit", "1"]);
    assert!(text.contains("by bad (") && text.contains("new.conf:"), "{text}");
    replayed(&site, other, 1, &["--fail-on", "reject:+0"]);
    replayed(&site, other, 0, &["--fail-on", "reject:+90%", "--fail-on", "discard:+0"]);
}

#[test]
fn a_list_that_nobody_asked_is_unknown_until_it_is_asked() {
    let dns = world();
    let (site, _) = day(&dns, USUAL);
    let more = "<Plugin third>\nmodule = \"RBL\"\ndomain = \"first.test\"\nmode = \"passive\"\n</Plugin>\n\
                <Plugin fourth>\nmodule = \"RBL\"\ndomain = \"new.test\"\nmode = \"reject\"\n</Plugin>";
    let other = Variant { more, ..USUAL };
    let text = replayed(&site, other, 0, &[]);
    assert!(text.contains(" asked new.test, which nobody asked then (--ask-dns "), "{text}");
    assert!(!text.contains("asked first.test"), "{text}");
    let (_, summary) = as_json(&site, other, 0, &[]);
    assert_eq!(summary["unknown"], summary["unknown_questions"]["new.test"], "{summary}");
    let asked = dns.queries().len();
    let (_, summary) = as_json(&site, other, 0, &["--ask-dns"]);
    assert_eq!(summary["unknown"], 0, "{summary}");
    let queries = dns.queries().split_off(asked);
    let distinct: BTreeSet<_> = queries.iter().map(|query| (&query.name, query.record_type)).collect();
    assert!(!queries.is_empty() && queries.len() == distinct.len(), "{queries:?}");
    assert!(queries.iter().all(|query| query.name.ends_with("new.test")), "{queries:?}");
}

#[test]
fn counters_and_tickets_of_another_configuration_are_simulated() {
    let dns = world();
    let (site, then) = day(&dns, USUAL);
    let is = |answers: &[String], word: &str| answers.iter().filter(|it| it.contains(word)).count();
    assert_eq!(is(&then, "too much"), 0, "{then:?}");
    let other = Variant { limit: "3", ..USUAL };
    let (_, now) = day(&dns, other);
    let (differences, summary) = as_json(&site, other, 1, &[]);
    let limited = differences.iter().filter(|it| it["now"]["by"] == "inbound/limit").count();
    // What was rejected before is not another outcome.
    let pairs = then.iter().zip(&now).filter(|(then, _)| !then.starts_with("reject"));
    let expected = pairs.filter(|(_, now)| now.contains("too much")).count();
    assert!(limited > 0 && limited == expected, "{limited} {expected} {summary}");
    assert!(differences.iter().all(|it| it["trust"] == "simulated"), "{differences:?}");
    // Tickets of another wait are not those that were made then, and the retry was too early for both.
    let (differences, summary) = as_json(&site, Variant { wait: "600", ..USUAL }, 0, &[]);
    assert_eq!(differences, [] as [Value; 0], "{summary}");
    assert!(summary["simulated"].as_u64() > Some(0) && summary["unknown"] == 0, "{summary}");
}

#[test]
fn what_can_not_be_done_is_one_line_and_code_2() {
    let dns = world();
    let (site, _) = day(&dns, USUAL);
    let fails = |arguments: &[&str], words: &str| {
        let output = command(&site, &site.config(), arguments);
        let errors = errors_of(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.lines().count() == 1 && errors.contains(words), "{errors}");
        assert_eq!(output_of(&output), "");
    };
    fails(&["--show", "pass->nothing"], "--show: `nothing` is not an outcome");
    fails(&["--fail-on", "reject"], "--fail-on: `reject` is not an outcome and a number");
    fails(&["--since", "yesterday"], "--since: `yesterday` is neither a span");
    fails(&["--until", "2026-01-02"], "there is no decision in this time");
    fs::write(site.path("journal.db"), "a text\n").expect("the folder is ours");
    fails(&[], "journal.db");
    fs::remove_file(site.path("journal.db")).expect("it is there");
    fails(&[], "journal.db");
    fs::write(site.path("wrong.conf"), "port = \"127.0.0.1:1\"\nbogus = 1\n<VirtualHost 1>\n")
        .expect("the folder is ours");
    let output = command(&site, &site.path("wrong.conf"), &[]);
    let errors = errors_of(&output);
    assert!(output.status.code() == Some(2) && errors.contains("wrong.conf:3"), "{errors}");
    let without = site.fill(crate::support::daemon::OK);
    fs::write(site.path("without.conf"), without).expect("the folder is ours");
    let mut replay = Command::new(PROGRAM);
    let output = run(replay.arg("replay").arg("-c").arg(site.path("without.conf")), b"");
    let errors = errors_of(&output);
    assert!(errors.contains("--journal FILE") && errors.contains("shadow = FILE"), "{errors}");
    assert_eq!((output.status.code(), errors.lines().count()), (Some(2), 1), "{errors}");
}

#[test]
fn a_range_before_the_journal_is_said() {
    let dns = world();
    let (site, _) = day(&dns, USUAL);
    let output = command(&site, &site.config(), &["--since", "30d", "--warm-up", "1h"]);
    let errors = errors_of(&output);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(errors.contains("--since 30d: the journal begins 20"), "{errors}");
}
