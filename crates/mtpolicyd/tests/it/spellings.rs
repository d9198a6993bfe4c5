//! Rows that the original has counted for `BOB`, found by requests of `bob`: in SQLite and PostgreSQL, which
//! tell the two apart.
//!
//! Knows: configurations, servers, the tables. Must not know: how rows are moved.

use crate::support::daemon::{Daemon, Site};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::servers::postgres;

/// How many rows there are of logins that nobody asks about: more than are moved at once.
const OTHERS: usize = 450;

/// The table as the original makes it, with ids and numbers of 32 bits.
const OF_THE_ORIGINAL: &str = "CREATE TABLE acct_sasl_username (id SERIAL PRIMARY KEY, \
    \"key\" VARCHAR(255) NOT NULL, \"time\" VARCHAR(255) NOT NULL, \"count\" INTEGER NOT NULL, \
    count_rcpt INTEGER NOT NULL, size INTEGER NOT NULL, size_rcpt INTEGER NOT NULL)";

fn site(dsn: &str, name: &str) -> Site {
    let site = Site::new();
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\nlog_level = 3\n\
         <Connection db>\n module = Sql\n dsn = \"{dsn}\"\n user = \"{name}\"\n password = \"{name}\"\n\
         </Connection>\n<VirtualHost $PORT>\n name = outgoing\n\
         <Plugin quota>\n module = Quota\n field = sasl_username\n metric = count\n threshold = 7\n\
         action = \"defer too many\"\n</Plugin>\n\
         <Plugin acct>\n module = Accounting\n fields = sasl_username\n</Plugin>\n\
         <Plugin grey>\n module = Greylist\n autowl_threshold = 3\n mode = passive\n\
         <Ticket>\n module = Sql\n</Ticket>\n</Plugin>\n</VirtualHost>\n"
    ));
    site
}

fn ask(daemon: &Daemon, login: &str) -> String {
    let request = format!(
        "sasl_username={login}\nsender=alice@example.org\nclient_address=192.0.2.10\nrecipient=c@example.net"
    );
    daemon.connect().ask(&request).action()
}

fn fill(database: &Database, dialect: &str) {
    let (quoted, now) = match dialect {
        "sqlite" => (["`key`", "`time`", "`count`"], "unixepoch()"),
        _ => (["\"key\"", "\"time\"", "\"count\""], "CAST(EXTRACT(EPOCH FROM now()) AS BIGINT)"),
    };
    let [key, time, count] = quoted;
    let row = |login: &str, month: &str, messages: usize| {
        format!(
            "INSERT INTO acct_sasl_username ({key}, {time}, {count}, count_rcpt, size, size_rcpt) \
             VALUES ('{login}', '{month}', {messages}, 1, 10, 10)"
        )
    };
    let month = &database.run("SELECT MAX(time) FROM acct_sasl_username", Vec::new())[0][0];
    let month = month.clone().expect("one message has been counted");
    // Together with the one that the daemon has counted they are 6.
    for (login, messages) in [("BOB", 3), ("Bob", 2), ("carol", 9)] {
        database.run(&row(login, &month, messages), Vec::new());
    }
    for n in 0..OTHERS {
        database.run(&row(&format!("User{n}"), "2020-01", 1), Vec::new());
    }
    for (domain, messages) in [("Example.ORG", 2), ("example.org.", 1)] {
        let entry = format!(
            "INSERT INTO autowl (sender_domain, client_ip, {count}, last_seen) \
             VALUES ('{domain}', '192.0.2.10', {messages}, {now})"
        );
        database.run(&entry, Vec::new());
    }
}

fn rows_of_other_spellings_count(dsn: &str, name: &str, dialect: &str) {
    let database = Database::new(dsn, name);
    if dialect == "postgres" {
        database.run(OF_THE_ORIGINAL, Vec::new());
    }
    let mut daemon = site(dsn, name).start();
    assert!(ask(&daemon, "bob").starts_with("defer greylisting"));
    daemon.terminate();
    fill(&database, dialect);
    // Both may move them, each counts once.
    let daemons = [site(dsn, name).spawn(&[]), site(dsn, name).spawn(&[])];
    for daemon in &daemons {
        daemon.logged("listens on");
    }
    // On a slow machine they listen before that is done.
    let logs = eventually("rows and entries are moved", || {
        let logs = daemons.each_ref().map(Daemon::log).concat();
        let said = ["rows with another spelling of their key", "entries of the auto-whitelist with another"];
        said.iter().all(|words| logs.contains(words)).then_some(logs)
    });
    let count = |sql: &str| database.run(sql, Vec::new())[0][0].clone().unwrap_or_default();
    eventually("all rows are moved", || {
        let rows = count("SELECT COUNT(*) FROM acct_sasl_username");
        (rows == (OTHERS + 2).to_string()).then_some(())
    });
    assert_eq!(database.numbers("acct_sasl_username", "bob"), "1 6 3 20 20", "{logs}");
    assert_eq!(database.numbers("acct_sasl_username", "carol"), "1 9 1 10 10");
    assert_eq!(count("SELECT SUM(count) FROM acct_sasl_username"), (OTHERS + 15).to_string());
    let entries = "SELECT COUNT(*) FROM autowl WHERE sender_domain = 'example.org' AND count = 3";
    assert_eq!(count(entries), "1");
    assert_eq!(ask(&daemons[0], "bob"), "dunno", "6 were counted, and 3 are on the auto-whitelist");
    assert_eq!(ask(&daemons[1], "BoB"), "defer too many");
}

#[test]
fn rows_of_the_original_count_for_every_spelling_in_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let dsn = format!("dbi:SQLite:dbname={}", folder.path().join("db").display());
    rows_of_other_spellings_count(&dsn, "", "sqlite");
}

#[test]
fn rows_of_the_original_count_for_every_spelling_in_postgres() {
    let server = postgres::start();
    rows_of_other_spellings_count(&postgres::dsn(&server), postgres::NAME, "postgres");
}
