//! Accounting and Quota on what several daemons share: every message is counted, and no more pass than a
//! quota allows, however they race.
//!
//! Knows: configurations, servers, the tables of the counters. Must not know: how counters are kept.

use crate::support::cutter::cut_at_first;
use crate::support::daemon::{Daemon, Site, errors_of};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::servers::{mariadb, postgres, redis};
use std::sync::atomic::Ordering;
use std::thread;

const ACCOUNTING: &str = "\
  <Plugin acct>
    module = \"Accounting\"
    fields = \"sender, sasl_username\"
    $STORE
  </Plugin>
";

const QUOTA: &str = "\
  <Plugin quota>
    module = \"Quota\"
    field = \"sasl_username\"
    metric = \"count\"
    threshold = 37
    action = \"defer too many\"
    $STORE
  </Plugin>
  <Plugin bad>
    module = \"Condition\"
    key = \"recipient\"
    match = \"bad@example.net\"
    action = \"reject bad\"
  </Plugin>
";

/// What is shared, as the lines of its `<Connection shared>`.
fn daemon(connection: &str, chain: &str) -> Daemon {
    let site = Site::new();
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\nrequest_timeout = 90\n<Connection shared>\n{connection}\n</Connection>\n\
         <VirtualHost $PORT>\nname = outgoing\n{}</VirtualHost>\n",
        chain.replace("$STORE", "store = shared")
    ));
    site.start()
}

/// The answers to requests at once on many connections, spread over the daemons. The requests are numbered.
fn race(daemons: &[Daemon], connections: usize, request: impl Fn(usize) -> String + Sync) -> Vec<String> {
    /// Requests on each connection.
    const EACH: usize = 3;
    let request = &request;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|n| {
                let daemon = &daemons[n % daemons.len()];
                scope.spawn(move || {
                    let mut client = daemon.connect();
                    (0..EACH).map(|m| client.ask(&request(n * EACH + m)).action()).collect::<Vec<_>>()
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("it got its answers")).collect()
    })
}

fn of_bob(_: usize) -> String {
    "sasl_username=bob\nsender=bob@example.org\nsize=10\nrecipient_count=2".to_owned()
}

fn counts_are_exact(connection: &str, database: &Database) {
    let daemons = [daemon(connection, ACCOUNTING), daemon(connection, ACCOUNTING)];
    let answers = race(&daemons, 100, of_bob);
    assert!(answers.iter().all(|answer| answer == "dunno"), "{connection} {answers:?}");
    assert_eq!(database.numbers("acct_sasl_username", "bob"), "1 300 600 3000 6000", "{connection}");
    let keys = race(&daemons, 50, |n| format!("sasl_username=user{n}\nsender=<>"));
    assert!(keys.iter().all(|answer| answer == "dunno"), "{connection} {keys:?}");
    for n in [0, 73, 149] {
        assert_eq!(database.numbers("acct_sasl_username", &format!("user{n}")), "1 1 1 0 0", "{connection}");
    }
}

fn exactly_so_many_pass(connection: &str) -> [Daemon; 2] {
    let chain = format!("{QUOTA}{ACCOUNTING}");
    let daemons = [daemon(connection, &chain), daemon(connection, &chain)];
    // Messages that are rejected later release their reservation.
    let of_carol = "sasl_username=carol\nsender=carol@example.org\n";
    let rejected = race(&daemons, 20, |_| format!("{of_carol}recipient=bad@example.net"));
    assert!(rejected.iter().all(|answer| answer != "dunno"), "{connection} {rejected:?}");
    let mut client = daemons[0].connect();
    eventually("the places are given back", || (client.ask(of_carol).action() == "dunno").then_some(()));
    let answers = race(&daemons, 40, of_bob);
    let passed = answers.iter().filter(|answer| *answer == "dunno").count();
    let refused = answers.iter().filter(|answer| *answer == "defer too many").count();
    assert_eq!((passed, refused), (37, 83), "{connection} {answers:?}");
    daemons
}

fn on_a_database(dsn: &str, name: &str) {
    let connection =
        format!("module = Sql\ndsn = \"{dsn}\"\nuser = \"{name}\"\npassword = \"{name}\"\ntimeout = 60");
    let database = Database::new(dsn, name);
    counts_are_exact(&connection, &database);
    database.run("DELETE FROM acct_sasl_username", Vec::new());
    let daemons = exactly_so_many_pass(&connection);
    assert_eq!(database.numbers("acct_sasl_username", "bob"), "1 37 74 370 740");
    eventually("no reservation is left", || (database.reservations() == "0").then_some(()));
    drop(daemons);
}

#[test]
fn counters_are_exact_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    on_a_database(&format!("dbi:SQLite:dbname={}", folder.path().join("db").display()), "");
}

#[test]
fn counters_are_exact_on_postgres() {
    let server = postgres::start();
    on_a_database(&postgres::dsn(&server), postgres::NAME);
}

#[test]
fn counters_are_exact_on_mariadb() {
    let server = mariadb::start();
    on_a_database(&mariadb::dsn(&server), mariadb::NAME);
}

#[test]
fn a_quota_is_exact_in_redis() {
    let server = redis::start();
    exactly_so_many_pass(&format!("module = Redis\nserver = \"127.0.0.1:{}\"", server.port));
}

#[test]
fn a_quota_is_exact_in_a_cluster_of_redis() {
    let nodes = redis::start_cluster();
    exactly_so_many_pass(&format!("module = Redis\ncluster = \"127.0.0.1:{}\"", nodes[0].port));
}

#[test]
fn a_count_in_redis_whose_reply_was_lost_counts_once() {
    let server = redis::start();
    let (port, executed) = cut_at_first(server.port, "mtpolicyd:noted:");
    let daemon = daemon(&format!("module = Redis\nserver = \"127.0.0.1:{port}\""), ACCOUNTING);
    assert_eq!(daemon.connect().ask(&of_bob(0)).action(), "dunno");
    assert_eq!(executed.load(Ordering::Relaxed), 3, "of two fields, the first was counted again");
    for key in ["{acct_sender,*,bob@example.org}", "{acct_sasl_username,*,bob}"] {
        let look = format!("return redis.call('HGET', redis.call('KEYS', '{key}')[1], 'count')");
        assert_eq!(redis::command(server.port, &["EVAL", &look, "0"]), "$1\r\n1\r\n", "{key}");
    }
}

#[test]
fn a_table_of_the_original_on_mariadb_keeps_its_sums() {
    let server = mariadb::start();
    let (dsn, name) = (mariadb::dsn(&server), mariadb::NAME);
    let database = Database::new(&dsn, name);
    // Somebody has removed the unique key, or the table is from before it.
    let table = "CREATE TABLE acct_sasl_username (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
                 `key` VARCHAR(255) NOT NULL, `time` VARCHAR(255) NOT NULL, count INT UNSIGNED NOT NULL, \
                 count_rcpt INT UNSIGNED NOT NULL, size BIGINT UNSIGNED NOT NULL, \
                 size_rcpt BIGINT UNSIGNED NOT NULL) ENGINE=MyISAM DEFAULT CHARSET=latin1";
    database.run(table, Vec::new());
    for n in 1..=3 {
        let row = format!("INSERT INTO acct_sasl_username VALUES (NULL, 'old', '2020-01', {n}, 2, 3, 4)");
        database.run(&row, Vec::new());
    }
    let connection = format!("module = Sql\ndsn = \"{dsn}\"\nuser = \"{name}\"\npassword = \"{name}\"");
    let mut daemon = daemon(&connection, ACCOUNTING);
    assert_eq!(daemon.connect().ask(&of_bob(0)).action(), "dunno");
    assert_eq!(database.numbers("acct_sasl_username", "old"), "1 6 6 9 12");
    assert_eq!(database.numbers("acct_sasl_username", "bob"), "1 1 2 10 20");
    daemon.terminate();
    assert!(daemon.log().contains("2 rows that repeated key and time were merged"), "{}", daemon.log());
}

#[test]
fn keys_that_differ_in_accents_are_two_on_mariadb() {
    let server = mariadb::start();
    let (dsn, name) = (mariadb::dsn(&server), mariadb::NAME);
    let connection = format!("module = Sql\ndsn = \"{dsn}\"\nuser = \"{name}\"\npassword = \"{name}\"");
    let daemon = daemon(&connection, &format!("{QUOTA}{ACCOUNTING}"));
    for (user, times) in [("jos\u{e9}", 1), ("jose", 2)] {
        for n in 0..times {
            let request = of_bob(n).replace("=bob", &format!("={user}"));
            assert_eq!(daemon.connect().ask(&request).action(), "dunno");
        }
    }
    let database = Database::new(&dsn, name);
    for (user, count) in [("jose", "2"), ("jos\u{e9}", "1")] {
        let numbers = database.numbers("acct_sasl_username", user);
        assert!(numbers.starts_with(&format!("1 {count} ")), "{user}: {numbers}");
    }
}

#[test]
fn places_of_a_daemon_that_was_killed_are_not_lost_for_ever() {
    let server = postgres::start();
    let (dsn, name) = (postgres::dsn(&server), postgres::NAME);
    let connection = format!("module = Sql\ndsn = \"{dsn}\"\nuser = \"{name}\"\npassword = \"{name}\"");
    let daemon = daemon(&connection, &format!("{QUOTA}{ACCOUNTING}"));
    let mut client = daemon.connect();
    assert_eq!(client.ask(&of_bob(0)).action(), "dunno");
    let database = Database::new(&dsn, name);
    // As many as the quota has left, of a daemon that died more than two minutes ago.
    for n in 0..36 {
        let row = format!(
            "INSERT INTO mtpolicyd_reservations (token, counted_in, key, time, count, count_rcpt, size, \
             size_rcpt, expires) SELECT 'dead{n}', 'acct_sasl_username', key, time, 1, 1, 1, 1, 1000 \
             FROM acct_sasl_username WHERE key = 'bob'"
        );
        database.run(&row, Vec::new());
    }
    // They no longer count, and the hourly task removes them.
    assert_eq!(client.ask(&of_bob(0)).action(), "dunno");
    eventually("its own is removed", || (database.reservations() == "36").then_some(()));
    let hourly = daemon.site.run(&["--cron", "hourly"]);
    assert!(hourly.status.success(), "{}", errors_of(&hourly));
    assert_eq!(database.reservations(), "0");
}
