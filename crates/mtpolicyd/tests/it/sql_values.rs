//! What strangers write meets tables that can't hold it: an address in UTF-8, one that is too long, a number
//! beyond the end of a column. None of it is a failure of the database.
//!
//! Knows: configurations, MariaDB, PostgreSQL. Must not know: how their errors are told apart.

use crate::support::daemon::{Daemon, Site};
use crate::support::database::Database;
use crate::support::servers::{mariadb, postgres};
use backends::sql::Param;
use mtpolicyd::testing::Bench;

/// A database with a name and a password that are the same.
fn connection(dsn: &str, name: &str) -> String {
    format!(
        "<Connection db>\nmodule = Sql\ndsn = \"{dsn}\"\nuser = \"{name}\"\npassword = \"{name}\"\n\
         </Connection>\n"
    )
}

/// A list of senders, asked by this query.
fn sender_list(connection: &str, query: &str) -> Bench {
    Bench::new(&format!(
        "{connection}<Plugin l>\nmodule = SqlList\nfield = sender\nsql_query = \"{query}\"\n\
         match_action = listed\nnot_match_action = other\n</Plugin>\n"
    ))
}

/// What becomes of a sender: `listed`, `other`, or why it could not be found out.
fn looked_up(bench: &mut Bench, sender: &str) -> String {
    bench.attribute_again("sender", sender).try_run().map_or_else(|error| error, Option::unwrap_or_default)
}

const EQUAL: &str = "SELECT 1 FROM l WHERE a = ?";
const DOMAIN: &str = "SELECT 1 FROM l WHERE a = SUBSTRING_INDEX(?, '@', -1)";
const PATTERN: &str = "SELECT 1 FROM l WHERE ? LIKE a";

#[test]
fn an_address_that_a_table_of_mariadb_cannot_hold_is_not_in_it() {
    let server = mariadb::start();
    let (dsn, name) = (mariadb::dsn(&server), mariadb::NAME);
    let database = Database::new(&dsn, name);
    let connection = connection(&dsn, name);
    for set in ["latin1", "latin1 COLLATE latin1_bin", "ascii", "utf8mb3", "utf8mb4", "latin2"] {
        database.run("DROP TABLE IF EXISTS l", vec![]);
        database.run(&format!("CREATE TABLE l (a VARCHAR(255)) CHARSET {set}"), vec![]);
        database
            .run("INSERT INTO l VALUES ('plain@x.example'), ('spam.example'), ('%@pattern.example')", vec![]);
        let by = |query: &str, sender: &str| looked_up(&mut sender_list(&connection, query), sender);
        assert_eq!(by(EQUAL, "plain@x.example"), "listed", "{set}");
        for odd in ["\u{1f600}", "\u{416}", "\u{e9}", "\u{ffff}", "\\", "'", "\u{1}"] {
            assert_eq!(by(EQUAL, &format!("{odd}@x.example")), "other", "{set}: {odd}");
            // What is odd before the `@` hides nobody from a list of domains or of patterns.
            assert_eq!(by(DOMAIN, &format!("{odd}@spam.example")), "listed", "{set}: {odd}");
            assert_eq!(by(PATTERN, &format!("{odd}@pattern.example")), "listed", "{set}: {odd}");
        }
    }
    // A query that is wrong by itself does not depend on the value, however odd that is or is not.
    database.run("CREATE TABLE m (b VARCHAR(255)) CHARSET utf8mb4 COLLATE utf8mb4_bin", vec![]);
    database.run("CREATE TABLE n (c VARCHAR(255)) CHARSET utf8mb4 COLLATE utf8mb4_unicode_ci", vec![]);
    let wrong = "SELECT 1 FROM m JOIN n ON CONCAT(b, '') = c COLLATE utf8mb4_bin AND nosuch = ?";
    assert!(looked_up(&mut sender_list(&connection, wrong), "a@x.example").contains("connection db"));
}

#[test]
fn settings_are_found_where_the_table_is_in_latin1() {
    let server = mariadb::start();
    let (dsn, name) = (mariadb::dsn(&server), mariadb::NAME);
    let database = Database::new(&dsn, name);
    database.run("CREATE TABLE user_config (address VARCHAR(255), config TEXT) CHARSET latin1", vec![]);
    database.run("INSERT INTO user_config VALUES ('ours.test', '{\"x\":\"y\"}')", vec![]);
    let mut bench = Bench::new(&format!(
        "{}<Plugin u>\nmodule = SqlUserConfig\n\
         sql_query = \"SELECT config FROM user_config WHERE address = SUBSTRING_INDEX(?, '@', -1)\"\n\
         </Plugin>\n<Plugin v>\nmodule = SqlUserConfig\n\
         sql_query = \"SELECT '{{}}' FROM user_config WHERE address = ?\"\n</Plugin>\n",
        connection(&dsn, name)
    ));
    for (recipient, found) in
        [("a@ours.test", true), ("\u{416}@ours.test", true), ("\u{416}@other.test", false)]
    {
        assert_eq!(bench.attribute_again("recipient", recipient).run_fresh(), None, "{recipient}");
        assert_eq!(bench.session.text("x").is_some(), found, "{recipient}");
    }
}

#[test]
fn a_value_of_another_type_is_not_on_a_list_of_postgres() {
    let server = postgres::start();
    let (dsn, name) = (postgres::dsn(&server), postgres::NAME);
    let database = Database::new(&dsn, name);
    database.run("CREATE TABLE l (net TEXT, number INT, name TEXT)", vec![]);
    database.run("INSERT INTO l VALUES ('192.0.2.0/24', 7, 'a')", vec![]);
    let connection = connection(&dsn, name);
    for (query, listed, others) in [
        ("SELECT 1 FROM l WHERE ?::inet << net::inet", "192.0.2.1", &["nonsense", "", "\u{1f600}"][..]),
        ("SELECT 1 FROM l WHERE number = ?", "7", &["99999999999999999999", "seven", "\u{e9}"][..]),
        ("SELECT 1 FROM l WHERE name LIKE ?", "a", &["b\\", "\\"][..]),
        ("SELECT 1 FROM l WHERE name ~ ?", "^a", &["(", "b[", "*"][..]),
        ("SELECT 1 FROM l WHERE ?::json IS NOT NULL", "{}", &["{", "\""][..]),
    ] {
        let mut bench = sender_list(&connection, query);
        assert_eq!(looked_up(&mut bench, listed), "listed", "{query}");
        for other in others {
            assert_eq!(looked_up(&mut bench, other), "other", "{query}: {other:?}");
        }
    }
    // A row that is broken is another matter: then nothing was found out.
    database.run("INSERT INTO l VALUES ('192.0.2.0/99', 8, 'b')", vec![]);
    let mut bench = sender_list(&connection, "SELECT 1 FROM l WHERE ?::inet << net::inet");
    assert!(looked_up(&mut bench, "192.0.3.1").contains("192.0.2.0/99"));
}

#[test]
fn a_database_of_postgres_in_latin1_can_be_asked_and_counts() {
    let server = postgres::start();
    let name = postgres::NAME;
    let first = Database::new(&postgres::dsn(&server), name);
    first.run(
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
        vec![],
    );
    let dsn = postgres::dsn(&server).replace(&format!("dbname={name}"), "dbname=latin");
    let database = Database::new(&dsn, name);
    database.run("CREATE TABLE l (a TEXT)", vec![]);
    database.run("INSERT INTO l VALUES ('%@spam.example')", vec![]);
    let connection = connection(&dsn, name);
    let mut bench = sender_list(&connection, PATTERN);
    for (sender, found) in [("\u{416}@spam.example", "listed"), ("\u{416}@x.example", "other")] {
        assert_eq!(looked_up(&mut bench, sender), found, "{sender}");
    }
    let mut bench =
        Bench::new(&format!("{connection}<Plugin a>\nmodule = Accounting\nfields = sender\n</Plugin>\n"));
    for sender in ["\u{416}@x.example", "\u{e9}@x.example", "a@x.example"] {
        assert_eq!(bench.attribute_again("sender", sender).run_fresh(), None, "{sender}");
    }
    // The key is in lower case.
    assert_eq!(database.numbers("acct_sender", "\\u{436}@x.example"), "1 1 1 0 0");
}

/// The table of a field as mtpolicyd 2.05 makes it, with a user whose sizes are about to overflow.
fn table_of_the_original(database: &Database) {
    let table = "CREATE TABLE acct_sasl_username (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
                 `key` VARCHAR(255) NOT NULL, `time` VARCHAR(255) NOT NULL, `count` INT UNSIGNED NOT NULL, \
                 count_rcpt INT UNSIGNED NOT NULL, size INT UNSIGNED NOT NULL, \
                 size_rcpt INT UNSIGNED NOT NULL, UNIQUE KEY time_key (`key`, `time`), KEY `key` (`key`), \
                 KEY `time` (`time`)) ENGINE=MyISAM DEFAULT CHARSET=latin1";
    database.run(table, vec![]);
    let month = "INSERT INTO acct_sasl_username VALUES \
                 (NULL, 'bob', DATE_FORMAT(NOW(), '%Y-%m'), 50000, 50000, 4294967000, 4294967000)";
    database.run(month, vec![]);
}

fn accounting(dsn: &str, name: &str) -> Daemon {
    let site = Site::new();
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\n{}<VirtualHost $PORT>\nname = outgoing\n<Plugin acct>\n\
         module = Accounting\nfields = sasl_username\n</Plugin>\n</VirtualHost>\n",
        connection(dsn, name)
    ));
    site.start()
}

const OF_BOB: &str = "sasl_username=bob\nsize=1000\nrecipient_count=1";
/// One message of 60 MB for a hundred recipients.
const OF_EVE: &str = "sasl_username=eve\nsize=60000000\nrecipient_count=100";

#[test]
fn counters_of_the_original_go_on_beyond_four_gib() {
    let server = mariadb::start();
    let (dsn, name) = (mariadb::dsn(&server), mariadb::NAME);
    let database = Database::new(&dsn, name);
    table_of_the_original(&database);
    let mut daemon = accounting(&dsn, name);
    for message in [OF_BOB, OF_EVE] {
        assert_eq!(daemon.ask(message).action(), "dunno");
    }
    assert_eq!(database.numbers("acct_sasl_username", "bob"), "1 50001 50001 4294968000 4294968000");
    assert_eq!(database.numbers("acct_sasl_username", "eve"), "1 1 100 60000000 6000000000");
    daemon.terminate();
    daemon.logged("the columns count, count_rcpt, size, size_rcpt now hold numbers of 64 bits");
}

#[test]
fn counters_that_may_not_be_widened_stop_at_their_end() {
    let server = mariadb::start();
    let (dsn, name) = (mariadb::dsn(&server), mariadb::NAME);
    let socket = server.path("mysql.sock").display().to_string();
    let database = Database::open(&format!("dbi:mysql:database={name};mysql_socket={socket}"), "root", "");
    table_of_the_original(&database);
    database.run("CREATE USER few@'%' IDENTIFIED BY 'few'", vec![]);
    database.run(&format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {name}.* TO few@'%'"), vec![]);
    let mut daemon = accounting(&dsn, "few");
    for message in [OF_BOB, OF_BOB, OF_EVE] {
        assert_eq!(daemon.ask(message).action(), "dunno");
    }
    assert_eq!(database.numbers("acct_sasl_username", "bob"), "1 50002 50002 4294967295 4294967295");
    assert_eq!(database.numbers("acct_sasl_username", "eve"), "1 1 100 60000000 4294967295");
    daemon.terminate();
    daemon.logged("counting stops at 4294967295");
    daemon.logged("an administrator may run: ALTER TABLE `acct_sasl_username` MODIFY `key` VARCHAR(255)");
    daemon
        .logged("an administrator may run: ALTER TABLE `acct_sasl_username` MODIFY `count` BIGINT UNSIGNED");
}

/// In the tables that the original makes in MariaDB `jose` is `josé`, but never in those of other databases.
#[test]
fn names_that_differ_in_accents_are_counted_separately_in_a_table_of_the_original() {
    let server = mariadb::start();
    let (dsn, name) = (mariadb::dsn(&server), mariadb::NAME);
    let database = Database::new(&dsn, name);
    table_of_the_original(&database);
    let row = "INSERT INTO acct_sasl_username VALUES (NULL, ?, DATE_FORMAT(NOW(), '%Y-%m'), 7, 7, 7, 7)";
    database.run(row, vec![Param::Text("Jos\u{e9}".to_owned())]);
    let mut daemon = accounting(&dsn, name);
    for user in ["jose", "jos\u{e9}", "JOS\u{c9}"] {
        let message = format!("sasl_username={user}\nsize=1\nrecipient_count=1");
        assert_eq!(daemon.ask(&message).action(), "dunno");
    }
    assert_eq!(database.numbers("acct_sasl_username", "jose"), "1 1 1 1 1");
    assert_eq!(database.numbers("acct_sasl_username", "jos\u{e9}"), "1 9 9 9 9");
    daemon.terminate();
    daemon.logged("keys that differ in accents only are now counted separately");
}
