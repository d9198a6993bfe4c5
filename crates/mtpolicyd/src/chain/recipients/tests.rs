//! What was found for one recipient of a message does not hold for the next, whichever plugin found it.
//!
//! Knows: configurations, the bench. Must not know: how a session tells recipients apart.

use crate::session::Session;
use crate::tasks::When;
use crate::testing::Bench;
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::TempDir;

/// What the score is in the end.
const SHOW: &str = "<Plugin show>\n module = ScoreAction\n threshold = -99\n \
                    action = \"%SCORE%%SCORE_DETAIL%\"\n</Plugin>\n";

/// Scores for the client and for the sender.
const RBL: &str = "<Plugin bl>\n module = RBL\n domain = bl.test\n mode = passive\n score = 5\n</Plugin>\n";
const SENDER: &str = "<Plugin s>\n module = RegexList\n key = sender\n regex = .\n score = 3\n</Plugin>\n";

/// The last one is how Postfix asks at DATA about several.
const RECIPIENTS: [&str; 3] = ["a@x", "b@x", ""];

fn bench(text: &str) -> Bench {
    Bench::new(&format!("{text}{SHOW}"))
        .attribute("client_address", "192.0.2.1")
        .attribute("sender", "alice@example.org")
        .listed("1.2.0.192.bl.test", "127.0.0.2", "listed")
}

fn plugin(name: &str, module: &str, options: &str) -> String {
    format!("<Plugin {name}>\n module = {module}\n {options}\n</Plugin>\n")
}

fn database(path: &Path) -> String {
    let path = path.display();
    format!("<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname={path}\"\n</Connection>\n")
}

/// Each recipient of a message gets the answer that he gets alone, in this order, from a session that goes
/// through a store.
fn in_order(bench: &mut Bench, order: &[&str], alone: &BTreeMap<&str, Option<String>>) {
    bench.session = Session::default();
    for recipient in order {
        bench.attribute_again("recipient", recipient);
        let answer = bench.run();
        assert_eq!(Some(&answer), alone.get(recipient), "{recipient} in {order:?}");
        bench.session = Session::from_bytes(&bench.session.to_bytes()).expect("our own form");
    }
}

/// Asks about recipients in every order, and about some twice: the answers, which are always the same.
fn in_every_order(bench: &mut Bench, recipients: [&'static str; 3]) -> [String; 3] {
    let mut alone = BTreeMap::new();
    for recipient in recipients {
        bench.attribute_again("recipient", recipient);
        alone.insert(recipient, bench.run_fresh());
    }
    let [a, b, c] = recipients;
    for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
        let [first, second, third] = order;
        in_order(bench, &order, &alone);
        in_order(bench, &[first, first, second, first, third, second], &alone);
    }
    recipients.map(|recipient| alone[recipient].clone().unwrap_or_default())
}

#[test]
fn a_score_for_looking_at_the_recipient_does_not_follow() {
    let folder = tempfile::tempdir().unwrap();
    let map = folder.path().join("map");
    std::fs::write(&map, "a@x OK\n").unwrap();
    let table = format!("field = recipient\n db_file = \"texthash:{}\"\n score = 3", map.display());
    let connection = database(&folder.path().join("db"));
    for (module, options) in [
        ("RegexList", "key = recipient\n regex = ^a@\n score = 3"),
        ("SqlList", "field = recipient\n sql_query = \"SELECT 1 WHERE ? = 'a@x'\"\n score = 3"),
        ("PostfixMap", &table),
    ] {
        // In front of and behind what depends on the client.
        let own = plugin("c", module, options);
        for (text, of_a) in [(format!("{RBL}{own}"), "8, bl=5, c=3"), (format!("{own}{RBL}"), "8, c=3, bl=5")]
        {
            let answers = in_every_order_of_sums(&mut bench(&format!("{connection}{text}")), of_a);
            assert_eq!(answers, ["5, bl=5", "5, bl=5"], "{module}");
        }
    }
}

/// The same where the sum is made in another order if the client was known before: of the others.
fn in_every_order_of_sums(bench: &mut Bench, of_a: &str) -> [String; 2] {
    let parts = |answer: &str| {
        let mut parts: Vec<_> = answer.split(", ").map(str::to_owned).collect();
        parts.sort();
        parts
    };
    let [a, b, c] = RECIPIENTS;
    let mut answers = BTreeMap::new();
    for order in [[a, b, c], [b, a, c], [c, b, a], [c, a, b], [a, c, a], [b, a, b]] {
        bench.session = Session::default();
        for recipient in order {
            bench.attribute_again("recipient", recipient);
            let answer = bench.run().unwrap_or_default();
            if recipient == a {
                assert_eq!(parts(&answer), parts(of_a), "{order:?}");
            } else {
                assert_eq!(*answers.entry(recipient).or_insert(answer.clone()), answer, "{order:?}");
            }
        }
    }
    [b, c].map(|recipient| answers[recipient].clone())
}

#[test]
fn a_client_in_a_trap_is_so_for_all_but_only_once() {
    let options = "recipients = a@x\n store = memory\n mode = passive\n score = 3";
    let mut bench = bench(&plugin("c", "Honeypot", options));
    for (recipient, score) in
        [("b@x", "0"), ("a@x", "3, c=3"), ("b@x", "3, c=3"), ("a@x", "3, c=3"), ("", "3, c=3")]
    {
        bench.attribute_again("recipient", recipient);
        assert_eq!(bench.run().as_deref(), Some(score), "{recipient}");
    }
}

#[test]
fn a_condition_on_the_recipient_is_one_for_all_in_its_block() {
    let of_a = |inside: &str| plugin("c", "RegexList", &format!("key = recipient\n regex = ^a@\n {inside}"));
    let set = plugin("f", "SetField", "key = mine\n value = 4");
    let uses = plugin("u", "RegexList", "key = sender\n regex = .\n score = 3\n uc_score = mine");
    let acts = |inside: &str| plugin("act", "ScoreAction", &format!("threshold = 4\n {inside}"));
    let clear = plugin("no", "ClearFields", "fields_prefix = score");
    let answer = |action: &str| plugin("y", "Action", &format!("action = {action}"));
    let eval = |inside: &str| plugin("e", "Eval", &format!("store_in = mine\n {inside}"));
    for (text, expected, of_others) in [
        (of_a(SENDER), "3, s=3", "0"),
        (of_a(RBL), "5, bl=5", "0"),
        (of_a(&set) + &uses, "4, u=4", "3, u=3"),
        // Through the score.
        (of_a(RBL) + &acts(SENDER), "8, bl=5, s=3", "0"),
        (of_a(RBL) + &acts(&set) + &uses, "9, bl=5, u=4", "3, u=3"),
        (RBL.to_owned() + &of_a(&clear), "0", "5, bl=5"),
        // Through the answer of a chain, given and not given, and through its end.
        (eval(&of_a(&answer("4"))) + &uses, "4, u=4", "3, u=3"),
        (eval(&(of_a(&answer("dunno")) + SENDER)) + &uses, "3, u=3", "6, s=3, u=3"),
    ] {
        let answers = in_every_order(&mut bench(&text), RECIPIENTS);
        assert_eq!(answers, [expected, of_others, of_others], "{text}");
    }
}

#[test]
fn what_depends_on_the_client_is_asked_and_counted_once_per_message() {
    let looks = plugin("c", "RegexList", "key = recipient\n regex = ^a@");
    let mut bench = bench(&format!("{RBL}{looks}{SENDER}"));
    for recipient in ["a@x", "b@x", "a@x", ""] {
        bench.attribute_again("recipient", recipient);
        assert_eq!(bench.run().as_deref(), Some("8, bl=5, s=3"));
    }
    assert_eq!(bench.questions(), ["1.2.0.192.bl.test A"]);
}

/// What users have set, in a database.
fn user_config(folder: &TempDir, field: &str) -> String {
    let path = folder.path().join("users");
    let table = "CREATE TABLE user_config (address TEXT, config TEXT)";
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute(table, []).unwrap();
    let all = r#"{"listing": "off", "points": 7, "mode": "reject", "text": "chosen"}"#;
    for (address, config) in [("a@x", all), ("b@x", r#"{"other": 1}"#), ("login", r#"{"points": 9}"#)] {
        connection.execute("INSERT INTO user_config VALUES (?1, ?2)", [address, config]).unwrap();
    }
    database(&path) + &plugin("users", "SqlUserConfig", &format!("field = {field}"))
}

#[test]
fn settings_of_one_recipient_are_none_of_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let users = user_config(&folder, "recipient");
    let rbl = |options: &str| plugin("bl", "RBL", &format!("domain = bl.test\n {options}"));
    let passive = "mode = passive\n score = 5";
    let action = plugin("act", "RBLAction", "result_from = bl\n re_match = .\n mode = passive\n score = 2");
    let field = plugin("text", "Condition", "key = session:text\n match = chosen\n action = yes");
    for (text, expected) in [
        (rbl(&format!("{passive}\n uc_enabled = listing")), ["0", "5, bl=5", "5, bl=5"]),
        (rbl(&format!("{passive}\n uc_score = points")), ["7, bl=7", "5, bl=5", "5, bl=5"]),
        (rbl(&format!("{passive}\n uc_mode = mode")), ["reject", "5, bl=5", "5, bl=5"]),
        (rbl("mode = passive\n uc_enabled = listing") + &action, ["0", "2, act=2", "2, act=2"]),
        (field, ["yes", "0", "0"]),
    ] {
        let answers = in_every_order(&mut bench(&format!("{users}{text}")), ["a@x", "b@x", "nobody@x"]);
        for (answer, expected) in answers.iter().zip(expected) {
            assert!(answer.starts_with(expected), "{answer} for {expected}: {text}");
        }
    }
}

#[test]
fn settings_of_a_login_hold_for_the_message() {
    let folder = tempfile::tempdir().unwrap();
    let users = user_config(&folder, "sasl_username");
    // Looked up at one stage, used at another, as by hosts of different ports.
    let at_rcpt = "<Plugin rcpt>\n module = Condition\n key = protocol_state\n match = RCPT\n<Plugin users>";
    let once = users.replace("<Plugin users>", at_rcpt) + "</Plugin>\n";
    let uses = plugin("u", "RegexList", "key = sender\n regex = .\n score = 3\n uc_score = points");
    let mut bench = bench(&format!("{once}{uses}")).attribute("sasl_username", "login");
    for (state, recipient) in [("RCPT", "a@x"), ("RCPT", "b@x"), ("DATA", "")] {
        bench.attribute_again("protocol_state", state).attribute_again("recipient", recipient);
        assert_eq!(bench.run().as_deref(), Some("9, u=9"), "{state} {recipient}");
    }
}

/// The code of each plugin, by its name, without its tests.
fn code_of_plugins() -> BTreeMap<String, String> {
    let mut code = BTreeMap::<String, String>::new();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plugins");
    let mut folders = vec![top.clone()];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("tests.rs") {
                let inside = path.strip_prefix(&top).unwrap().to_string_lossy().into_owned();
                let name = inside.split(['/', '.']).next().unwrap_or_default().to_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                code.entry(name)
                    .or_default()
                    .push_str(text.split("#[cfg(test)]\nmod tests {").next().unwrap());
            }
        }
    }
    code
}

#[test]
fn a_plugin_that_reads_the_recipient_says_so() {
    let reads = ["get(\"recipient\")", "attribute(\"recipient\")", "get(RECIPIENT)", ".recipient()"];
    let code = code_of_plugins();
    let readers: Vec<_> = code
        .iter()
        .filter(|(_, code)| reads.iter().any(|read| code.contains(read)))
        .map(|(name, code)| (name.as_str(), code.contains(".depend_on(")))
        .collect();
    assert!(readers.iter().any(|(name, _)| *name == "greylist"), "{readers:?}");
    assert!(readers.iter().all(|(_, says_so)| *says_so), "{readers:?}");
}

/// A setting of one recipient alone.
fn only_for_open(setting: &str, value: &str) -> String {
    let inside = plugin("f", "SetField", &format!("key = {setting}\n value = \"{value}\""));
    plugin("c", "Condition", &format!("key = recipient\n match = open@x\n {inside}"))
}

const OF_TWO_KINDS: [&str; 3] = ["open@x", "victim@x", "other@x"];

#[test]
fn a_limit_that_one_recipient_has_lets_nobody_else_through() {
    let memory = "<Connection m>\n module = Memory\n</Connection>\n";
    let limit = |options: &str| {
        let options =
            format!("store = m\n key = client_address\n limit = 0/1h\n action = \"reject x\"\n {options}");
        plugin("r", "RateLimit", &options)
    };
    for (setting, value, option) in [
        ("lim", "999/1h", "uc_limit = lim"),
        ("m", "passive", "uc_mode = m"),
        ("en", "off", "uc_enabled = en"),
    ] {
        let text = format!("{memory}{}{}", only_for_open(setting, value), limit(option));
        let [open, victim, other] = in_every_order(&mut bench(&text), OF_TWO_KINDS);
        assert_ne!(open, "reject x", "{option}");
        assert_eq!((&*victim, &*other), ("reject x", "reject x"), "{option}");
    }
}

#[test]
fn a_quota_that_one_recipient_has_lets_nobody_else_through() {
    for (setting, value, option) in [("thr", "1000", "uc_threshold = thr"), ("en", "off", "uc_enabled = en")]
    {
        let folder = tempfile::tempdir().unwrap();
        let options =
            format!("field = sender\n metric = count\n threshold = 0\n action = \"reject x\"\n {option}");
        let chain = database(&folder.path().join("db.sqlite"))
            + &only_for_open(setting, value)
            + &plugin("q", "Quota", &options)
            + &plugin("acct", "Accounting", "fields = sender");
        let mut bench = bench(&chain);
        bench.run_tasks(When::Start);
        let [open, victim, other] = in_every_order(&mut bench, OF_TWO_KINDS);
        assert_ne!(open, "reject x", "{option}");
        assert_eq!((&*victim, &*other), ("reject x", "reject x"), "{option}");
    }
}
