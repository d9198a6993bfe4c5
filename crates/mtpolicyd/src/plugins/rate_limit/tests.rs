//! Tests of `RateLimit`.

use crate::tasks::{Period, When};
use crate::testing::Bench;
use std::time::Duration;

fn bench(options: &str) -> Bench {
    let text = format!("<Plugin r>\n module = RateLimit\n key = sasl_username\n {options}\n</Plugin>");
    Bench::new(&text).attribute("sasl_username", "bob")
}

const SAID: &str = "action = no %COUNT% of %LIMIT%, %RETRY_AFTER%s";

fn no(text: &str) -> Option<String> {
    Some(format!("no {text}"))
}

#[test]
fn so_many_pass_and_then_none_until_the_time_is_over() {
    let mut bench = bench(&format!("limit = 3/1h, 5/1d\n {SAID}"));
    for _ in 0..3 {
        assert_eq!(bench.run_fresh(), None);
        bench.pass(Duration::from_secs(10));
    }
    assert_eq!(bench.run_fresh(), no("3 of 3/1h, 3570s"));
    assert_eq!(bench.attribute_again("sasl_username", "eve").run_fresh(), None);
    bench.attribute_again("sasl_username", "bob").pass(Duration::from_secs(3569));
    assert_eq!(bench.run_fresh(), no("3 of 3/1h, 1s"));
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.run_fresh(), None);
    assert_eq!(bench.run_fresh(), no("3 of 3/1h, 10s"));
    bench.pass(Duration::from_secs(20));
    assert_eq!(bench.run_fresh(), None);
    assert_eq!(bench.run_fresh(), no("5 of 5/1d, 82780s"));
}

#[test]
fn a_bucket_fills_again_steadily() {
    let mut bench = bench(&format!("algorithm = bucket\n limit = 1/10s burst 3\n {SAID}"));
    for _ in 0..3 {
        assert_eq!(bench.run_fresh(), None);
    }
    assert_eq!(bench.run_fresh(), no("3 of 1/10s burst 3, 10s"));
    bench.pass(Duration::from_secs(7));
    assert_eq!(bench.run_fresh(), no("3 of 1/10s burst 3, 3s"));
    bench.pass(Duration::from_secs(3));
    assert_eq!((bench.run_fresh(), bench.run_fresh()), (None, no("3 of 1/10s burst 3, 10s")));
}

#[test]
fn a_mail_counts_once() {
    let mut bench = bench("limit = 1/1h\n action = no");
    assert_eq!((bench.run(), bench.run(), bench.run_fresh()), (None, None, Some("no".into())));
    assert_eq!(bench.run(), Some("no".into()));
}

#[test]
fn recipients_count_each_and_only_once() {
    let mut bench = bench("count = recipients\n limit = 5/1h\n action = no");
    bench.attribute_again("recipient_count", "0");
    assert_eq!((bench.run(), bench.run()), (None, None));
    bench.attribute_again("recipient_count", "4");
    assert_eq!((bench.run(), bench.run()), (None, None));
    bench.attribute_again("recipient_count", "2");
    assert_eq!(bench.run_fresh(), Some("no".into()));
    assert_eq!(bench.attribute_again("recipient_count", "1").run_fresh(), None);
}

#[test]
fn bytes_count_as_far_as_they_are_known() {
    let mut bench = bench("count = bytes\n limit = 1k/1h\n action = no");
    for (size, answer) in [("0", None), ("1000", None), ("1024", None), ("1025", Some("no"))] {
        assert_eq!(bench.attribute_again("size", size).run().as_deref(), answer, "{size}");
    }
    assert_eq!(bench.attribute_again("size", "99999999999999999999999").run(), Some("no".into()));
}

#[test]
fn a_user_may_have_another_limit() {
    let mut bench = bench("limit = none\n uc_limit = l");
    assert_eq!(bench.run_fresh(), None);
    for (limit, passes) in [("0/1h", false), ("2/1h", true), ("2/hour", true), ("1/1h", false)] {
        bench.run_fresh();
        bench.session = Default::default();
        bench.session.set_user("l", limit);
        assert_eq!(bench.run().is_none(), passes, "{limit}");
    }
}

#[test]
fn passive_adds_a_score_once_a_mail() {
    let mut bench = bench("limit = 0/1h\n mode = passive\n score = 3");
    assert_eq!((bench.run(), bench.run()), (None, None));
    assert_eq!(bench.session.score_detail("score"), Some("r=3"));
}

#[test]
fn plugins_in_the_block_run_above_the_limit() {
    let inside = "<Plugin a>\n module = Action\n action = inside\n </Plugin>";
    assert_eq!(bench(&format!("limit = 0/1h\n {inside}")).run(), Some("inside".into()));
    let answer = bench("limit = 0/5m").run();
    assert_eq!(answer, Some("defer 4.7.1 too much mail, try again in 300 seconds".into()));
}

#[test]
fn nobody_is_limited_who_has_no_key() {
    let mut bench = bench("limit = 0/1h");
    assert_eq!(bench.attribute_again("sasl_username", "").run(), None);
    assert!(bench.attribute_again("sasl_username", "x").run().is_some());
}

#[test]
fn a_clock_that_was_wrong_locks_nobody_out() {
    let mut bench = bench("limit = 1/1m\n action = no");
    bench.pass(Duration::from_secs(86_400));
    assert_eq!((bench.run_fresh(), bench.run_fresh()), (None, Some("no".into())));
    bench.pass_back(Duration::from_secs(86_400));
    assert_eq!(bench.run_fresh(), Some("no".into()));
    bench.pass(Duration::from_secs(60));
    assert_eq!(bench.run_fresh(), None);
}

#[test]
fn counts_in_a_database_outlive_the_daemon_until_they_are_old() {
    let folder = tempfile::tempdir().unwrap();
    let started = || {
        let text = format!(
            "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname={}/db\"\n</Connection>\n\
             <Plugin r>\n module = RateLimit\n key = sender\n store = db\n limit = 1/1h\n action = no\n\
             </Plugin>",
            folder.path().display()
        );
        let mut bench = Bench::new(&text).attribute("sender", "a@b");
        // The table is made, and its rights are looked at.
        assert_eq!(bench.run_tasks(When::Start), [Ok(String::new()), Ok(String::new())]);
        bench
    };
    assert_eq!(started().run(), None);
    let mut again = started();
    assert_eq!(again.run(), Some("no".into()));
    let mut hourly = |removed: &str| {
        let done = again.run_tasks(When::Every(Period::Hourly));
        assert_eq!(done, [Ok(format!("{removed} old counts were removed"))]);
        again.pass(Duration::from_secs(3600));
    };
    hourly("0");
    // The count, and the entry which says that the log has a line about it.
    hourly("2");
    assert_eq!(again.run_fresh(), None);
}

#[cfg(all(feature = "memcached", feature = "ldap"))]
#[test]
fn mistakes_have_their_place() {
    let text = "<Connection m>\n module = Memcached\n</Connection>\n<Connection l>\n module = Ldap\n \
                host = h\n basedn = b\n</Connection>\n";
    let of = |store: &str| {
        let plugin =
            format!("<Plugin r>\n module = RateLimit\n key = sender\n limit = 1/1h\n store = {store}\n");
        Bench::mistakes(&format!("{text}{plugin}</Plugin>")).join("\n")
    };
    assert!(
        of("m").contains("connection m is of module Memcached, which can't count exactly"),
        "{}",
        of("m")
    );
    assert!(of("l").contains("connection l is not a store"), "{}", of("l"));
    assert!(of("x").contains("there is no <Connection x>"), "{}", of("x"));
    let text = "<Connection b>\n module = Sql\n</Connection>\n\
                <Plugin r>\n module = RateLimit\n key = sender\n limit = 1/1h\n store = b\n</Plugin>";
    assert_eq!(Bench::mistakes(text), ["1:1 Connection b needs the option `dsn`"], "it is not missing");
    let text = "<Plugin r>\n module = RateLimit\n key = sender\n limit = 1/1h burst 3\n</Plugin>";
    assert!(Bench::warnings(text)[0].contains("`burst` has no effect"));
}

#[test]
fn counts_are_shown_set_and_reset() {
    use crate::state::{Change, Condition, Kind, Order, Select};
    let folder = tempfile::tempdir().unwrap();
    let database = format!(
        "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname={}\"\n</Connection>\n",
        folder.path().join("db").display()
    );
    for (connection, store) in [("", "memory"), (&*database, "db")] {
        let mut bench = Bench::new(&format!(
            "{connection}<Plugin out>\n module = RateLimit\n key = sasl_username\n \
             limit = \"3/1h, 10/1d\"\n store = {store}\n</Plugin>"
        ))
        .attribute("sasl_username", "Alice");
        let passed = |bench: &mut Bench| bench.run_fresh().is_none();
        assert_eq!([0; 4].map(|_| passed(&mut bench)), [true, true, true, false]);
        bench.pass(Duration::from_secs(600));
        let over = Select { over: Some(80), ..Select::default() };
        let [entry] = &bench.list(Kind::Limits, &over).unwrap()[..] else { panic!("one") };
        assert_eq!((entry.key.as_str(), entry.state), ("alice", Condition::Full));
        let shown = |name: &str| entry.counts.iter().find(|count| count.name == name).unwrap();
        assert_eq!((shown("1h").count, shown("1h").limit, shown("1h").free_in), (3, Some(3), Some(3000)));
        assert_eq!((shown("1d").count, shown("1d").limit, shown("1d").free_in), (3, Some(10), None));
        assert!(shown("1h").full_since.is_some() && shown("1d").full_since.is_none());
        let alice = || Select { key: Some("ALICE".to_owned()), ..Select::default() };
        let order = |change| Order { select: alice(), change, all: false };
        let parts = vec!["hour".to_owned()];
        let changed = bench.change(Kind::Limits, &order(Change::Reset { parts })).unwrap();
        assert_eq!(changed[0].done, "reset; was 3 in 1h");
        assert!(passed(&mut bench));
        bench.change(Kind::Limits, &changed[0].undo.clone().unwrap()).unwrap();
        assert!(!passed(&mut bench));
        let changed = bench.change(Kind::Limits, &order(Change::Reset { parts: Vec::new() })).unwrap();
        assert_eq!(changed[0].done, "reset; was 4 in 1d, 3 in 1h");
        let undo = changed[0].undo.clone().unwrap();
        assert_eq!(undo.command(Kind::Limits), "mtpolicyd limits set out alice 1d=4 1h=3");
        assert!(bench.list(Kind::Limits, &Select::default()).unwrap().is_empty());
        assert!(bench.change(Kind::Limits, &order(Change::Reset { parts: Vec::new() })).unwrap().is_empty());
        bench.change(Kind::Limits, &undo).unwrap();
        assert!(!passed(&mut bench));
        let odd = order(Change::Reset { parts: vec!["5m".to_owned()] });
        let refused = bench.change(Kind::Limits, &odd).unwrap_err().to_string();
        assert_eq!(refused, "plugin out has no window `5m`; it has: 1h, 1d");
    }
}

#[test]
fn an_event_is_raised_once_when_a_limit_is_reached_and_once_when_it_is_over() {
    let mut bench = bench("limit = 10/1h");
    let run = |bench: &mut Bench, count| (0..count).for_each(|_| drop(bench.run_fresh()));
    run(&mut bench, 7);
    assert!(bench.events().is_empty());
    run(&mut bench, 1);
    assert_eq!(bench.events(), ["limit-near begins: r: bob is at 80 % of 10/1h: 8 messages"]);
    run(&mut bench, 4);
    assert_eq!(bench.events(), ["limit-reached begins: r: bob has used up 10/1h: 10 messages"]);
    // Half an hour later nothing has expired, and an hour later everything has, without another request.
    bench.pass(Duration::from_secs(1_800));
    run(&mut bench, 2);
    assert!(bench.events().is_empty());
    bench.pass(Duration::from_secs(3_600));
    assert_eq!(bench.events(), ["limit-reached ends: r: bob is below 10/1h again"]);
    // One that goes on sending is told of when it is below 70 %.
    run(&mut bench, 8);
    assert_eq!(bench.events().len(), 1);
    bench.pass(Duration::from_secs(3_599));
    run(&mut bench, 1);
    assert!(bench.events().is_empty());
    bench.pass(Duration::from_secs(1));
    run(&mut bench, 1);
    assert_eq!(bench.events(), ["limit-near ends: r: bob is below 10/1h again"]);
}
