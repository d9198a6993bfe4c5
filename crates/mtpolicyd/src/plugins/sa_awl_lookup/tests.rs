//! The list in a database, and what can be wrong. Files that Perl has made are read in the integration tests.

use crate::testing::Bench;
use tempfile::NamedTempFile;

/// The table of SpamAssassin, without what no query of ours looks at.
const TABLE: &str = "CREATE TABLE awl (username TEXT, email TEXT, ip TEXT, msgcount INTEGER, totscore REAL);
    INSERT INTO awl VALUES ('amavis', 'bad@a.example', '192.0', 20, 160),
        ('amavis', 'two@a.example', '192.0', 5, 10), ('other', 'two@a.example', '192.0', 15, 150),
        ('amavis', 'six@a.example', '2001:0DB8:0001::', 12, -24),
        ('amavis', 'none@a.example', '192.0', 0, 0);";

fn database() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    rusqlite::Connection::open(file.path()).unwrap().execute_batch(TABLE).unwrap();
    file
}

fn found(options: &str, before: &str, sender: &str, client: &str) -> Option<String> {
    let mut bench = Bench::new(&format!("{before}<Plugin l>\n module = SaAwlLookup\n {options}\n</Plugin>"))
        .attribute("sender", sender)
        .attribute("client_address", client);
    assert_eq!(bench.run(), None);
    bench.session.text("sa-awl-l-result").map(str::to_owned)
}

#[test]
fn the_list_is_found_in_a_database() {
    let file = database();
    let dsn = format!("dsn = \"dbi:SQLite:dbname={}\"", file.path().display());
    let connection = format!("<Connection awl>\n module = Sql\n {dsn}\n</Connection>\n");
    let of_one = format!(
        "{dsn}\n sql_query = \"SELECT msgcount, totscore FROM awl WHERE username = 'other' AND email = ? AND \
         ip = ?\""
    );
    for (options, before, sender, client, result) in [
        (&*dsn, "", "Bad@A.example", "192.0.2.1", "20 8"),
        ("db = awl", &*connection, "bad@a.example", "192.0.77.1", "20 8"),
        (&dsn, "", "bad@a.example", "192.1.2.1", ""),
        (&dsn, "", "two@a.example", "192.0.2.1", "20 8"),
        (&of_one, "", "two@a.example", "192.0.2.1", "15 10"),
        (&dsn, "", "six@a.example", "2001:db8:1:2::3", "12 -2"),
        (&dsn, "", "none@a.example", "192.0.2.1", ""),
        (&dsn, "", "bad@a.example", "unknown", ""),
    ] {
        assert_eq!(found(options, before, sender, client).as_deref(), Some(result), "{sender} {client}");
    }
}

#[test]
fn a_list_that_is_not_there_fails_the_plugin() {
    for (options, failure) in [
        ("db_file = /nowhere/awl", "auto-whitelist: /nowhere/awl: no such file"),
        ("dsn = \"dbi:SQLite:dbname=/nowhere/awl\"", "can't open /nowhere/awl"),
    ] {
        let mut bench = Bench::new(&format!("<Plugin l>\n module = SaAwlLookup\n {options}\n</Plugin>"))
            .attribute("sender", "a@b")
            .attribute("client_address", "192.0.2.1");
        let said = bench.try_run().unwrap_err();
        assert!(said.contains(failure), "{said}");
        assert_eq!(bench.session.text("sa-awl-l-result"), None, "nothing is known");
    }
}

#[test]
fn there_is_one_list() {
    let mistakes =
        |options: &str| Bench::mistakes(&format!("<Plugin l>\n module = SaAwlLookup\n{options}\n</Plugin>"));
    assert_eq!(mistakes(" db_file = a\n db = b"), ["4:7 db: there is `db_file` already"]);
    assert!(mistakes(" dsn = nothing")[0].starts_with("3:8 dsn: the data source begins with none of"));
    assert_eq!(
        mistakes(" dsn = \"dbi:SQLite:dbname=a\"\n sql_query = \"SELECT ?\""),
        ["4:14 sql_query: there are 1 `?` in the query instead of 2"]
    );
    assert!(mistakes(" db = nothere")[0].contains("there is no <Connection nothere>"));
}

#[test]
fn options_for_another_list_are_noticed() {
    let text = "<Plugin l>\n module = SaAwlLookup\n user = u\n sql_query = \"SELECT ?, ?\"\n</Plugin>";
    let expected =
        ["3:9 user: has no effect without `dsn`", "4:14 sql_query: has no effect without `dsn` or `db`"];
    assert_eq!(Bench::warnings(text), expected);
}
