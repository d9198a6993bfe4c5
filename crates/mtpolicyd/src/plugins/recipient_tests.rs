//! What was found for one recipient of a message does not hold for the next, whichever plugin found it.

use crate::testing::Bench;
use std::collections::BTreeMap;

/// What the score is in the end.
const SHOW: &str = "<Plugin show>\n module = ScoreAction\n threshold = -99\n \
                    action = \"%SCORE%%SCORE_DETAIL%\"\n</Plugin>\n";

/// What each recipient of a message is answered, asked in this order, beside what he is answered alone.
fn in_order(bench: &mut Bench, order: &[&str], alone: &BTreeMap<&str, Option<String>>) {
    bench.session = crate::session::Session::default();
    for recipient in order {
        bench.attribute_again("recipient", recipient);
        let answer = bench.run();
        assert_eq!(Some(&answer), alone.get(recipient), "{recipient} in {order:?}");
        bench.session = crate::session::Session::from_bytes(&bench.session.to_bytes()).expect("our own form");
    }
}

/// Asks about recipients in every order, some twice: each gets the answer that he gets alone.
fn is_the_same_in_every_order(bench: &mut Bench, recipients: [&'static str; 3]) -> [String; 3] {
    let mut alone = BTreeMap::new();
    for recipient in recipients {
        bench.attribute_again("recipient", recipient);
        alone.insert(recipient, bench.run_fresh());
    }
    let [a, b, c] = recipients;
    for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
        in_order(bench, &order, &alone);
        in_order(bench, &[order[0], order[0], order[1], order[0], order[2], order[1]], &alone);
    }
    recipients.map(|recipient| alone[recipient].clone().unwrap_or_default())
}

fn bench(text: &str) -> Bench {
    Bench::new(&format!("{text}{SHOW}"))
        .attribute("client_address", "192.0.2.1")
        .attribute("client_name", "mail.example.org")
        .attribute("reverse_client_name", "mail.example.org")
        .attribute("helo_name", "mail.example.org")
        .attribute("sender", "alice@example.org")
        .listed("1.2.0.192.bl.test", "127.0.0.2", "listed")
}

const RECIPIENTS: [&str; 3] = ["a@x", "b@x", ""];

/// A plugin that adds a score, and options with which it looks at the recipient; `a@x` is meant.
const LOOKS_AT_RECIPIENT: [(&str, &str); 6] = [
    ("Condition", "key = recipient\n match = a@x\n score = 3"),
    ("Condition", "key = recipient\n match = b@x\n invert = 1\n score = 3\n"),
    ("RegexList", "key = recipient\n regex = ^a@\n score = 3"),
    ("SqlList", "field = recipient\n sql_query = \"SELECT 1 WHERE ? = 'a@x'\"\n score = 3"),
    ("PostfixMap", "field = recipient\n db_file = \"inline\"\n score = 3"),
    ("Honeypot", "recipients = a@x\n store = memory\n mode = passive\n score = 3"),
];

#[test]
fn scores_of_what_looks_at_the_recipient_do_not_follow() {
    let sql = "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname=:memory:\"\n</Connection>\n";
    for (module, options) in LOOKS_AT_RECIPIENT {
        // These have tests of their own: a table is needed, and a trapped client stays one.
        if matches!(module, "PostfixMap" | "Honeypot" | "SqlList") {
            continue;
        }
        let text = format!("{sql}<Plugin c>\n module = {module}\n {options}\n</Plugin>\n");
        let [a, b, _] = is_the_same_in_every_order(&mut bench(&text), RECIPIENTS);
        assert_eq!((a.as_str(), b.as_str()), ("3, c=3", "0"), "{module} {options}");
    }
}
