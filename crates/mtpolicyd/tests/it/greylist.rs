//! Greylisting and the honeypot with each store there is, and counted by many at once.
//!
//! Knows: what a client is answered, what stands in the tables. Must not know: how it is done.

use crate::support::client::Answer;
use crate::support::daemon::Daemon;
use crate::support::eventually;
use crate::support::servers::{mariadb, memcached, postgres, redis};
use backends::Call;
use backends::Secret;
use backends::sql::{Durability, Sql, SqlSettings, Statement, Work};
use std::thread;
use std::time::Duration;

/// A place for tickets and the auto-whitelist.
struct Place {
    module: &'static str,
    /// Its block of the configuration.
    connection: String,
}

fn place(module: &'static str, name: &str, options: &str) -> Place {
    let connection = format!("<Connection {name}>\n module = \"{module}\"\n{options}\n</Connection>\n");
    Place { module, connection }
}

fn database(dsn: &str) -> Place {
    let name = mariadb::NAME;
    place("Sql", "db", &format!(" dsn = \"{dsn}\"\n user = \"{name}\"\n password = \"{name}\""))
}

const PASSED: &str = "passed";

impl Place {
    fn start(&self, options: &str) -> Daemon {
        let (module, connection) = (self.module, &self.connection);
        Daemon::start(&format!(
            "port = \"127.0.0.1:$PORT\"\nkeepalive_timeout = 0\n{connection}\
             <VirtualHost $PORT>\n name = \"incoming\"\n <Plugin grey>\n  module = \"Greylist\"\n{options}\n\
             <Ticket>\n   module = \"{module}\"\n  </Ticket>\n  <AWL>\n   module = \"{module}\"\n  </AWL>\n\
             </Plugin>\n <Plugin end>\n  module = \"Action\"\n  action = \"{PASSED}\"\n </Plugin>\n\
             </VirtualHost>\n"
        ))
    }

    /// The store forgets nothing it needs and keeps apart what is not the same.
    fn works(&self) {
        let daemon = self.start("min_retry_wait = 1\nautowl_threshold = 2");
        let bob = "bob@example.net";
        for time in 1..=2 {
            assert_eq!(ask(&daemon, "192.0.2.10", bob), "defer greylisting is active", "time {time}");
            let early = ask(&daemon, "192.0.2.10", bob);
            assert_eq!(early, "defer greylisting is active (1s left)", "time {time}");
            eventually("the retry passes", || (ask(&daemon, "192.0.2.10", bob) == PASSED).then_some(()));
        }
        assert_eq!(ask(&daemon, "192.0.2.10", "carol@example.net"), PASSED, "it is known");
        assert_eq!(ask(&daemon, "192.0.2.11", bob), "defer greylisting is active");
        // Blanks and length do not matter for a key.
        let odd = format!("\"odd one\"{}@example.net", "x".repeat(300));
        assert_eq!(ask(&daemon, "192.0.2.11", &odd), "defer greylisting is active");
        assert!(ask(&daemon, "192.0.2.11", &odd).starts_with("defer greylisting is active ("));
    }
}

fn ask(daemon: &Daemon, client: &str, recipient: &str) -> String {
    daemon.ask(&mail(client, recipient)).action()
}

fn mail(client: &str, recipient: &str) -> String {
    format!("sender=alice@example.org\nclient_address={client}\nrecipient={recipient}")
}

#[test]
fn in_this_process() {
    Place { module: "Memory", connection: String::new() }.works();
}

#[test]
fn in_memcached() {
    let server = memcached::start();
    place("Memcached", "memcached", &format!(" servers = \"127.0.0.1:{}\"", server.port)).works();
}

#[test]
fn in_redis() {
    let server = redis::start();
    place("Redis", "redis", &format!(" server = \"127.0.0.1:{}\"", server.port)).works();
}

#[test]
fn in_a_cluster_of_redis() {
    let servers = redis::start_cluster();
    place("Redis", "redis", &format!(" cluster = \"127.0.0.1:{}\"", servers[0].port)).works();
}

#[test]
fn in_databases() {
    let folder = tempfile::tempdir().unwrap();
    let dsn = format!("dbi:SQLite:dbname={}", folder.path().join("db").display());
    works_in_database(&dsn);
    works_in_database(&mariadb::dsn(&mariadb::start()));
    works_in_database(&postgres::dsn(&postgres::start()));
}

fn works_in_database(dsn: &str) {
    let place = database(dsn);
    place.works();
    counts_exactly(&place, dsn);
}

/// Every message that passes counts one, whoever else counts at the same time.
fn counts_exactly(place: &Place, dsn: &str) {
    const CONNECTIONS: usize = 20;
    const MAILS: usize = 10;
    let daemons = [place.start("autowl_threshold = 2"), place.start("autowl_threshold = 2")];
    let count = "SELECT count FROM autowl WHERE client_ip = '192.0.2.10'";
    let before: usize = number(dsn, count);
    thread::scope(|scope| {
        for n in 0..CONNECTIONS {
            let mut client = daemons[n % 2].connect();
            scope.spawn(move || {
                for _ in 0..MAILS {
                    assert_eq!(client.ask(&mail("192.0.2.10", "bob@example.net")).action(), PASSED);
                }
            });
        }
    });
    assert_eq!(number(dsn, count), before + CONNECTIONS * MAILS, "{dsn}");
    assert_eq!(number(dsn, "SELECT COUNT(*) FROM autowl"), 1, "{dsn}");
    if dsn.starts_with("dbi:mysql") {
        // Counting must not use up the ids, which end.
        let sql = "INSERT INTO autowl (sender_domain, client_ip, count, last_seen) VALUES ('x', 'y', 1, 1)";
        run(dsn, &[sql]);
        assert!(number(dsn, "SELECT MAX(id) FROM autowl") < 10);
    }
}

#[test]
fn a_ticket_outlives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let place = database(&format!("dbi:SQLite:dbname={}", folder.path().join("db").display()));
    let mut daemon = place.start("");
    assert_eq!(ask(&daemon, "192.0.2.10", "bob@example.net"), "defer greylisting is active");
    daemon.signal("KILL");
    daemon.wait();
    let answer = ask(&place.start(""), "192.0.2.10", "bob@example.net");
    assert!(answer.starts_with("defer greylisting is active ("), "{answer}");
}

/// A table as an older version may have left it, with the rows that two daemons made at once.
#[test]
fn a_table_without_its_index_gets_it() {
    let server = mariadb::start();
    let dsn = mariadb::dsn(&server);
    run(
        &dsn,
        &[
            "CREATE TABLE autowl (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
             sender_domain VARCHAR(255) NOT NULL, client_ip VARCHAR(39) NOT NULL, \
             count INT UNSIGNED NOT NULL, last_seen INT UNSIGNED NOT NULL)",
            "INSERT INTO autowl (sender_domain, client_ip, count, last_seen) VALUES \
             ('example.org', '192.0.2.10', 1, UNIX_TIMESTAMP() - 50), ('example.org', '192.0.2.11', 1, 1), \
             ('example.org', '192.0.2.10', 2, UNIX_TIMESTAMP() - 40)",
        ],
    );
    let daemon = database(&dsn).start("");
    daemon.logged("1 duplicate rows were merged into 1 others");
    assert_eq!(ask(&daemon, "192.0.2.10", "bob@example.net"), PASSED);
    assert_eq!(number(&dsn, "SELECT count FROM autowl WHERE client_ip = '192.0.2.10'"), 4);
    assert_eq!(number(&dsn, "SELECT COUNT(*) FROM autowl"), 2);
}

#[test]
fn a_store_that_is_away_lets_nobody_through() {
    let mut server = redis::start();
    let place = place("Redis", "redis", &format!(" server = \"127.0.0.1:{}\"", server.port));
    let daemon = place.start("use_autowl = 0");
    assert_eq!(ask(&daemon, "192.0.2.10", "bob@example.net"), "defer greylisting is active");
    server.stop();
    assert_eq!(daemon.ask(&mail("192.0.2.10", "carol@example.net")), Answer::Closed);
    server.start();
    eventually("greylisting is back", || match daemon.ask(&mail("192.0.2.10", "dave@example.net")) {
        Answer::Action(action) => {
            assert!(action.starts_with("defer"), "{action}");
            Some(())
        }
        Answer::Closed => None,
    });
}

/// Runs statements one by one.
fn run(dsn: &str, statements: &[&str]) -> Vec<Vec<Option<String>>> {
    let settings = SqlSettings {
        dsn: dsn.to_owned(),
        user: mariadb::NAME.to_owned(),
        password: Secret(mariadb::NAME.to_owned()),
        timeout: Duration::from_secs(20),
        max_connections: 1,
        durability: Durability::Process,
        tls_ca: None,
        identity: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("threads can be started").block_on(async {
        let sql = Sql::new("test", settings).expect("the data source is right");
        let mut rows = Vec::new();
        for statement in statements {
            let statements = vec![Statement { sql: (*statement).into(), params: Vec::new() }];
            let work = Work { statements, lock: None, durable: false };
            let deadline = Call::within(Duration::from_secs(20));
            rows = sql.run(work, deadline).await.expect(statement).remove(0).rows;
        }
        rows
    })
}

fn number(dsn: &str, query: &str) -> usize {
    let rows = run(dsn, &[query]);
    rows[0][0].as_deref().expect("it is not NULL").parse().expect("it is a number")
}
