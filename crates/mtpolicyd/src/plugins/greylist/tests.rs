//! Greylisting on the bench: tickets and the auto-whitelist in the stores that need no server.

use crate::session::Session;
use crate::tasks::{Period, When};
use crate::testing::Bench;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

const MEMORY: &str = "<Ticket>\n module = Memory\n</Ticket>\n<AWL>\n module = Memory\n</AWL>\n";

fn greylist(options: &str) -> Bench {
    let text = format!("<Plugin g>\n module = Greylist\n{options}\n</Plugin>\n{PASSED}");
    with_mail(Bench::new(&text))
}

const PASSED: &str = "<Plugin z>\n module = Action\n action = passed\n</Plugin>\n";

/// The same with the auto-whitelist in a file of SQLite.
fn in_sqlite(file: &Path, options: &str) -> Bench {
    with_tickets_in("Memory", file, options)
}

fn with_tickets_in(module: &str, file: &Path, options: &str) -> Bench {
    let text = format!(
        "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname={}\"\n</Connection>\n<Plugin g>\n \
         module = Greylist\n<Ticket>\n module = {module}\n</Ticket>\n{options}\n</Plugin>\n{PASSED}",
        file.display()
    );
    with_mail(Bench::new(&text))
}

fn with_mail(bench: Bench) -> Bench {
    bench
        .attribute("sender", "alice@example.org")
        .attribute("client_address", "192.0.2.10")
        .attribute("client_name", "mail.example.org")
        .attribute("recipient", "bob@example.net")
}

/// The answer to another message like it.
fn ask(bench: &mut Bench) -> String {
    bench.run_fresh().unwrap_or_default()
}

fn wait(bench: &mut Bench, seconds: u64) {
    bench.pass(Duration::from_secs(seconds));
}

const DEFERRED: &str = "defer greylisting is active";

#[test]
fn a_retry_passes_once_after_the_wait() {
    let mut bench = greylist(&format!("use_autowl = 0\n{MEMORY}"));
    assert_eq!(ask(&mut bench), DEFERRED);
    assert_eq!(ask(&mut bench), "defer greylisting is active (300s left)");
    wait(&mut bench, 300);
    assert_eq!(ask(&mut bench), "defer greylisting is active (1s left)");
    wait(&mut bench, 1);
    assert_eq!(ask(&mut bench), "passed");
    assert_eq!(ask(&mut bench), DEFERRED, "the ticket is used up");
}

#[test]
fn nobody_waits_twice_for_a_daemon_that_dies_before_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db.sqlite");
    for module in ["Memory", "Sql"] {
        let mut bench = with_tickets_in(module, &file, "use_autowl = 0");
        assert_eq!(ask(&mut bench), DEFERRED);
        wait(&mut bench, 301);
        assert_eq!(bench.run_and_die().as_deref(), Some("passed"));
        assert_eq!(ask(&mut bench), "passed", "{module}: Postfix asks another daemon");
        assert_eq!(ask(&mut bench), DEFERRED, "{module}: the ticket is used up");
    }
}

#[test]
fn a_retry_that_comes_too_late_begins_anew() {
    let mut bench = greylist(
        "use_autowl = 0\n<Ticket>\nmodule = Memory\nmin_retry_wait = 0\n\
                              max_retry_wait = 1\n</Ticket>",
    );
    assert_eq!(ask(&mut bench), DEFERRED);
    assert_eq!(ask(&mut bench), "defer greylisting is active (1s left)");
    // The store has a clock of its own.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(ask(&mut bench), DEFERRED);
}

#[test]
fn every_part_of_the_triplet_counts() {
    let mut bench = greylist(&format!("use_autowl = 0\n{MEMORY}"));
    assert_eq!(ask(&mut bench), DEFERRED);
    wait(&mut bench, 301);
    for (name, other) in
        [("sender", "eve@example.org"), ("client_address", "192.0.2.11"), ("recipient", "carol@example.net")]
    {
        let mut changed = bench;
        changed.attribute_again(name, other);
        assert_eq!(ask(&mut changed), DEFERRED, "{name}");
        bench = with_mail(changed);
    }
    assert_eq!(ask(&mut bench), "passed");
}

#[test]
fn what_is_missing_counts_as_empty() {
    let text = format!("<Plugin g>\n module = Greylist\nuse_autowl = 0\n{MEMORY}</Plugin>");
    assert_eq!(Bench::new(&text).run().as_deref(), Some(DEFERRED));
}

#[test]
fn one_mail_asks_once_and_passes_with_all_its_recipients() {
    let mut bench = greylist(MEMORY);
    assert_eq!(bench.run().as_deref(), Some(DEFERRED));
    assert_eq!(bench.run().as_deref(), Some(DEFERRED), "remembered that there was none");
    wait(&mut bench, 301);
    bench.session = Session::default();
    assert_eq!(bench.run().as_deref(), Some("passed"));
    assert_eq!(bench.attribute_again("recipient", "carol@example.net").run().as_deref(), Some("passed"));
    assert_eq!(bench.attribute_again("recipient", "bob@example.net").run().as_deref(), Some("passed"));
    bench.session = Session::default();
    assert_eq!(bench.run().as_deref(), Some(DEFERRED));
}

#[test]
fn a_recipient_does_not_wait_for_the_ticket_of_another() {
    let mut bench = greylist(&format!("use_autowl = 0\n{MEMORY}"));
    assert_eq!(ask(&mut bench), DEFERRED);
    wait(&mut bench, 301);
    bench.session = Session::default();
    assert_eq!(bench.attribute_again("recipient", "carol@example.net").run().as_deref(), Some(DEFERRED));
    assert_eq!(bench.attribute_again("recipient", "bob@example.net").run().as_deref(), Some("passed"));
}

#[test]
fn a_clock_that_was_set_back_costs_one_wait() {
    let mut bench = greylist(&format!("use_autowl = 0\nmin_retry_wait = 60\n{MEMORY}"));
    wait(&mut bench, 1000);
    assert_eq!(ask(&mut bench), DEFERRED);
    bench.pass_back(Duration::from_secs(500));
    assert_eq!(ask(&mut bench), "defer greylisting is active (60s left)");
    wait(&mut bench, 61);
    assert_eq!(ask(&mut bench), "passed");
}

#[test]
fn the_score_is_added_once_a_mail_to_what_passes() {
    let mut bench = greylist(&format!("score = -5\nmode = accept\nuse_autowl = 0\n{MEMORY}"));
    assert_eq!(ask(&mut bench), DEFERRED);
    assert_eq!(bench.session.text("score"), None);
    wait(&mut bench, 301);
    assert_eq!(ask(&mut bench), "dunno");
    assert_eq!(bench.run().as_deref(), Some("dunno"));
    assert_eq!(bench.session.score_detail("score"), Some("g=-5"));
}

#[test]
fn the_first_of_two_may_only_catch_early_retries() {
    let text = format!(
        "<Plugin early>\n module = Greylist\n create_ticket = 0\n query_autowl = 0\n score = -5\n{MEMORY}\
         </Plugin>\n<Plugin late>\n module = Greylist\n score = -5\n append_waittime = 0\n{MEMORY}</Plugin>\n\
         {PASSED}"
    );
    let mut bench = with_mail(Bench::new(&text));
    assert_eq!(ask(&mut bench), DEFERRED);
    assert_eq!(ask(&mut bench), "defer greylisting is active (300s left)", "that was the first");
    wait(&mut bench, 301);
    assert_eq!(ask(&mut bench), "passed");
    assert_eq!(bench.session.score_detail("score"), Some("early=-5"));
}

#[test]
fn it_can_be_switched_off() {
    let mut bench = greylist(&format!("uc_enabled = grey\ndefer_message = 450 later\n{MEMORY}"));
    assert_eq!(ask(&mut bench), "450 later");
    bench.session.set("grey", "off");
    assert_eq!(bench.run().as_deref(), Some("passed"));
}

/// Passes the test so often.
fn pass(bench: &mut Bench, times: usize) {
    for _ in 0..times {
        assert_eq!(ask(bench), DEFERRED);
        wait(bench, 301);
        assert_eq!(ask(bench), "passed");
    }
}

#[test]
fn who_has_passed_often_is_known() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for mut bench in [greylist(MEMORY), in_sqlite(file.path(), "")] {
        pass(&mut bench, 3);
        assert_eq!(ask(&mut bench), "passed");
        bench.attribute_again("sender", "eve@example.org").attribute_again("recipient", "carol@example.net");
        assert_eq!(ask(&mut bench), "passed");
        bench.attribute_again("sender", "eve@sub.example.org");
        assert_eq!(ask(&mut bench), DEFERRED);
    }
}

/// The rows of the table in a file.
fn rows(file: &Path) -> Vec<(String, String, i64, i64)> {
    let database = rusqlite::Connection::open(file).unwrap();
    let sql = "SELECT sender_domain, client_ip, count, last_seen FROM autowl ORDER BY id";
    let mut query = database.prepare(sql).unwrap();
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn entry(domain: &str, client: &str, count: i64, last_seen: i64) -> (String, String, i64, i64) {
    (domain.to_owned(), client.to_owned(), count, last_seen)
}

#[test]
fn an_entry_counts_every_mail_and_expires() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bench = in_sqlite(file.path(), "autowl_threshold = 2\nautowl_expire_days = 10");
    pass(&mut bench, 2);
    assert_eq!(ask(&mut bench), "passed");
    assert_eq!(bench.run().as_deref(), Some("passed"), "the same message");
    assert_eq!(rows(file.path()), [entry("example.org", "192.0.2.10", 3, bench.now())]);
    wait(&mut bench, 10 * 86_400);
    assert_eq!(ask(&mut bench), "passed", "the last second");
    wait(&mut bench, 10 * 86_400 + 1);
    pass(&mut bench, 1);
    assert_eq!(rows(file.path()), [entry("example.org", "192.0.2.10", 1, bench.now())]);
}

#[test]
fn the_hourly_task_removes_what_has_expired() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bench = in_sqlite(file.path(), "");
    let made = bench.run_tasks(When::Start);
    // It is made, and its rights are looked at.
    assert_eq!(made, [Ok("the auto-whitelist is ready".to_owned()), Ok(String::new())]);
    pass(&mut bench, 1);
    wait(&mut bench, 30 * 86_400);
    bench.attribute_again("client_address", "192.0.2.20");
    pass(&mut bench, 1);
    wait(&mut bench, 31 * 86_400);
    let done = bench.run_tasks(When::Every(Period::Hourly));
    assert_eq!(done[0], Ok("1 entries of the auto-whitelist have expired".to_owned()));
    let left = rows(file.path());
    assert!(left.len() == 1 && left[0].1 == "192.0.2.20", "{left:?}");
}

#[test]
fn a_table_of_the_original_gets_its_index() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bench = in_sqlite(file.path(), "");
    let now = bench.now();
    let database = rusqlite::Connection::open(file.path()).unwrap();
    database
        .execute_batch(&format!(
            "CREATE TABLE autowl (id INTEGER PRIMARY KEY AUTOINCREMENT, sender_domain VARCHAR(255) NOT NULL,
             client_ip VARCHAR(39) NOT NULL, count INT UNSIGNED NOT NULL, last_seen INTEGER NOT NULL);
             INSERT INTO autowl VALUES (NULL, 'example.org', '192.0.2.10', 2, {now} - 60);
             INSERT INTO autowl VALUES (NULL, 'example.com', '192.0.2.10', 7, {now} - 70);
             INSERT INTO autowl VALUES (NULL, 'example.org', '192.0.2.10', 3, {now} - 50);
             INSERT INTO autowl VALUES (NULL, 'example.org', '192.0.2.11', 1, {now} - 80);"
        ))
        .unwrap();
    assert!(bench.run_tasks(When::Start)[0].is_ok());
    let merged = [
        entry("example.org", "192.0.2.10", 5, now - 50),
        entry("example.com", "192.0.2.10", 7, now - 70),
        entry("example.org", "192.0.2.11", 1, now - 80),
    ];
    assert_eq!(rows(file.path()), merged);
    assert!(bench.run_tasks(When::Start)[0].is_ok(), "a second time");
    assert_eq!(ask(&mut bench), "passed");
    assert_eq!(rows(file.path())[0], entry("example.org", "192.0.2.10", 6, now));
}

#[test]
fn a_table_that_was_dropped_is_made_again() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bench = in_sqlite(file.path(), "");
    pass(&mut bench, 1);
    rusqlite::Connection::open(file.path()).unwrap().execute_batch("DROP TABLE autowl").unwrap();
    pass(&mut bench, 1);
    assert_eq!(rows(file.path()), [entry("example.org", "192.0.2.10", 1, bench.now())]);
}

#[test]
fn odd_domains_are_kept_apart() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bench = in_sqlite(file.path(), "");
    let long = "x".repeat(256);
    for sender in ["", "root", "a@\u{fc}.example", "a@xn--\u{fc}", &format!("a@{long}")] {
        bench.attribute_again("sender", sender);
        pass(&mut bench, 1);
    }
    let domains: Vec<_> = rows(file.path()).into_iter().map(|row| row.0).collect();
    assert_eq!(domains, ["", "root", "xn--tda.example", "xn--\\xc3\\xbc"]);
}

#[test]
fn mistakes_in_blocks_are_reported() {
    let mistakes =
        |inside: &str| Bench::mistakes(&format!("<Plugin g>\nmodule = Greylist\n{inside}</Plugin>"));
    let none = mistakes("use_autowl = 0\n");
    assert!(none[0].contains("Plugin g: there is no <Connection memcached>"), "{none:?}");
    let block = mistakes("<Ticket>\nmodule = Redis\nredis = r\n</Ticket>\n<AWL>\nmodule = Disk\n</AWL>\n");
    assert!(block[0].starts_with("5:9 Ticket: there is no <Connection r>"), "{block:?}");
    assert!(block[1].starts_with("8:10 module: `Disk` is not one of"), "{block:?}");
    let waits = mistakes("use_autowl = 0\nmin_retry_wait = 3h\n<Ticket>\nmodule = Memory\n</Ticket>\n");
    assert!(waits[0].contains("expire after 7200 seconds"), "{waits:?}");
    let other = mistakes("use_autowl = 0\n<Ticket>\nmodule = Redis\nredis = memory\n</Ticket>\n");
    assert!(other[0].contains("connection memory is of module Memory, not Redis"), "{other:?}");
}

#[test]
fn without_the_auto_whitelist_a_valid_ticket_passes_and_nobody_else() {
    let text = format!(
        "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname=/nothere/db\"\n</Connection>\n\
         <Plugin g>\n module = Greylist\n<Ticket>\n module = Memory\n</Ticket>\n</Plugin>\n{PASSED}"
    );
    let mut bench = with_mail(Bench::new(&text));
    let fresh = |bench: &mut Bench| {
        bench.session = Session::default();
        bench.try_run()
    };
    let failed = fresh(&mut bench).unwrap_err();
    assert!(failed.contains("connection db"), "{failed}");
    assert!(fresh(&mut bench).is_err());
    wait(&mut bench, 301);
    assert_eq!(fresh(&mut bench), Ok(Some("passed".to_owned())));
    assert!(fresh(&mut bench).is_err());
}

#[test]
fn hosts_of_a_network_may_stand_for_one_another() {
    let mut bench = greylist(&format!("client_key = net\nipv4_prefix = 28\n{MEMORY}"));
    assert_eq!(ask(&mut bench), DEFERRED);
    wait(&mut bench, 301);
    bench.attribute_again("client_address", "192.0.2.16");
    assert_eq!(ask(&mut bench), DEFERRED);
    bench.attribute_again("client_address", "192.0.2.15");
    assert_eq!(ask(&mut bench), "passed");
}

#[test]
fn hosts_of_a_site_may_stand_for_one_another() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bench = in_sqlite(file.path(), "client_key = name");
    pass(&mut bench, 3);
    bench.attribute_again("client_address", "198.51.100.7").attribute_again("client_name", "mx2.example.org");
    assert_eq!(ask(&mut bench), "passed");
    assert_eq!(rows(file.path()), [entry("example.org", "example.org", 4, bench.now())]);
}

#[test]
fn whitelisted_clients_and_recipients_are_not_tested() {
    let mut clients = tempfile::NamedTempFile::new().unwrap();
    let mut recipients = tempfile::NamedTempFile::new().unwrap();
    clients.write_all(b"good.example\n192.0.2.0/28\n/(bad/\n").unwrap();
    recipients.write_all(b"postmaster@\n").unwrap();
    let options = format!(
        "score = -5\nwhitelist_clients = {}\nwhitelist_recipients = {}\n{MEMORY}",
        clients.path().display(),
        recipients.path().display()
    );
    let mut bench = greylist(&options);
    assert_eq!(ask(&mut bench), "passed");
    assert_eq!(bench.session.text("score"), None);
    bench.attribute_again("client_address", "192.0.2.16");
    assert_eq!(ask(&mut bench), DEFERRED);
    bench.attribute_again("recipient", "postmaster+x@example.net");
    assert_eq!(ask(&mut bench), "passed");
    bench.attribute_again("recipient", "bob@example.net").attribute_again("client_name", "mx.good.example");
    assert_eq!(ask(&mut bench), "passed");
    let warnings = Bench::warnings(&format!("<Plugin g>\nmodule = Greylist\n{options}</Plugin>"));
    assert!(warnings.len() == 1 && warnings[0].contains("line 3"), "{warnings:?}");
    let missing = format!("<Plugin g>\nmodule = Greylist\nwhitelist_clients = /nothere\n{MEMORY}</Plugin>");
    assert!(Bench::mistakes(&missing)[0].starts_with("3:21 whitelist_clients: can't read `/nothere`"));
}

/// A greylist by SPF, perhaps behind the plugin SPF, for a sender whose hosts are 192.0.2.0/24.
fn by_spf(before: &str, options: &str) -> Bench {
    let text = format!(
        "{before}<Plugin g>\n module = Greylist\nclient_key = spf\n{options}\n{MEMORY}</Plugin>\n{PASSED}"
    );
    with_mail(Bench::new(&text)).text("example.org", "v=spf1 ip4:192.0.2.0/24 ~all")
}

const SPF: &str = "<Plugin spf>\n module = SPF\n check_helo = off\n</Plugin>\n";

#[test]
fn by_spf_any_host_of_the_domain_may_come_back() {
    for before in ["", SPF] {
        let mut bench = by_spf(before, "");
        assert_eq!(ask(&mut bench), DEFERRED);
        wait(&mut bench, 301);
        bench.attribute_again("client_address", "198.51.100.1");
        assert_eq!(ask(&mut bench), DEFERRED, "it is not a host of the domain");
        bench.attribute_again("client_address", "192.0.2.77");
        assert_eq!(ask(&mut bench), "passed");
        assert_eq!(ask(&mut bench), DEFERRED, "the ticket is used up");
        assert_eq!(bench.questions().iter().filter(|asked| *asked == "example.org TXT").count(), 4);
    }
}

#[test]
fn by_spf_the_auto_whitelist_knows_the_domain() {
    let mut bench = by_spf("", "autowl_threshold = 1");
    assert_eq!(ask(&mut bench), DEFERRED);
    wait(&mut bench, 301);
    assert_eq!(ask(&mut bench), "passed");
    bench.attribute_again("client_address", "192.0.2.99").attribute_again("recipient", "carol@example.net");
    assert_eq!(ask(&mut bench), "passed", "another host, another recipient");
    bench.attribute_again("client_address", "198.51.100.1");
    assert_eq!(ask(&mut bench), DEFERRED);
}

#[test]
fn without_a_pass_it_is_the_address() {
    for (sender, text) in
        [("", "v=spf1 +all"), ("alice@example.com", "v=spf1 ?all"), ("alice@example.com", "other")]
    {
        let mut bench = by_spf("", "use_autowl = 0").text("example.com", text);
        bench.attribute_again("sender", sender);
        assert_eq!(ask(&mut bench), DEFERRED);
        wait(&mut bench, 301);
        bench.attribute_again("client_address", "192.0.2.77");
        assert_eq!(ask(&mut bench), DEFERRED, "{sender} {text}");
        bench.attribute_again("client_address", "192.0.2.10");
        assert_eq!(ask(&mut bench), "passed", "{sender} {text}");
    }
}

#[test]
fn tags_of_the_sender_may_be_left_out_of_the_key() {
    for (options, retry) in [("", DEFERRED), ("ignore_sender_tags = 1", "passed")] {
        let mut bench = greylist(&format!("use_autowl = 0\n{options}\n{MEMORY}"));
        bench.attribute_again("sender", "bounces-1234-1@lists.example.org");
        assert_eq!(ask(&mut bench), DEFERRED);
        wait(&mut bench, 301);
        bench.attribute_again("sender", "bounces-1234-2@lists.example.org");
        assert_eq!(ask(&mut bench), retry, "{options}");
    }
}

#[test]
fn the_answer_can_show_the_key() {
    let options =
        "use_autowl = 0\nclient_key = net\nignore_sender_tags = 1\ndefer_message = \"defer for %KEY%\"";
    let mut bench = greylist(&format!("{options}\n{MEMORY}"));
    bench
        .attribute_again("sender", "alice+x@example.org")
        .attribute_again("client_address", "::ffff:192.0.2.10");
    assert_eq!(ask(&mut bench), "defer for alice@example.org,192.0.2.0/24,bob@example.net");
    assert!(ask(&mut bench).ends_with("bob@example.net (300s left)"));
}

#[test]
fn a_retry_may_spell_its_addresses_otherwise() {
    for (sender, recipient) in [
        ("Alice@Example.ORG", "BOB@example.net"),
        ("alice@example.org.", "bob@example.net."),
        ("example.org!alice", "bob%example.net"),
        ("alice%example.org", "bob@example.net@example.net"),
    ] {
        let mut bench = greylist(&format!("autowl_threshold = 1\n{MEMORY}"));
        bench.attribute_again("sender", sender).attribute_again("recipient", recipient);
        assert_eq!(ask(&mut bench), DEFERRED);
        wait(&mut bench, 301);
        let mut bench = with_mail(bench);
        assert_eq!(ask(&mut bench), "passed", "{sender} {recipient}");
        bench.attribute_again("sender", sender).attribute_again("recipient", "carol@example.net");
        assert_eq!(ask(&mut bench), "passed", "{sender} is on the auto-whitelist");
    }
}

#[test]
fn tickets_and_entries_under_the_address_as_written_are_still_found() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    let mut bench = with_tickets_in("Sql", &file, "");
    bench.run_tasks(When::Start);
    bench.attribute_again("sender", "Alice@Example.ORG");
    assert_eq!(ask(&mut bench), DEFERRED);
    let db = rusqlite::Connection::open(&file).unwrap();
    let rename = "UPDATE mtpolicyd_store SET name = 'Alice@Example.ORG,192.0.2.10,bob@example.net'";
    let changed = db.execute(rename, []);
    assert_eq!(changed, Ok(1));
    wait(&mut bench, 301);
    assert_eq!(ask(&mut bench), "passed");
    assert_eq!(ask(&mut bench), DEFERRED, "that ticket is used up too");
    let insert =
        "INSERT INTO autowl (sender_domain, client_ip, count, last_seen) VALUES ('Example.ORG', ?1, 2, ?2)";
    db.execute(insert, ("192.0.2.10", bench.now())).unwrap();
    assert_eq!(ask(&mut bench), "passed", "2 there and 1 under the domain in lower case are 3");
    assert!(ask(&mut with_mail(bench)).starts_with(DEFERRED), "only 2 are under that one");
}
