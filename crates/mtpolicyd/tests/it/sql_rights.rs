//! Databases whose user may do little: what is there is used, and what is missing is said.
//!
//! Knows: configurations, MariaDB, PostgreSQL, files of SQLite. Must not know: how rights are found out.

use crate::support::daemon::{Daemon, PROGRAM, Site, errors_of, run};
use crate::support::database::Database;
use crate::support::servers::{mariadb, postgres};
use crate::support::{eventually, is_root_or_leaves_out};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const COUNTING: &str = "\
<Plugin quota>
  module = \"Quota\"
  field = \"sasl_username\"
  metric = \"count\"
  threshold = 3
  action = \"defer too many\"
</Plugin>
<Plugin acct>
  module = \"Accounting\"
  fields = \"sasl_username\"
</Plugin>
";

const EVERYTHING: &str = "\
<Plugin limit>
  module = \"RateLimit\"
  key = \"sender\"
  limit = \"1000/1h\"
  store = \"db\"
</Plugin>
<Plugin grey>
  module = \"Greylist\"
  min_retry_wait = 0
  autowl_threshold = 1
  <Ticket>
    module = \"Sql\"
  </Ticket>
</Plugin>
";

/// Only the first plugin of [`COUNTING`].
fn quota_alone() -> &'static str {
    COUNTING.split_inclusive("</Plugin>\n").next().expect("there is one")
}

fn site(dsn: &str, user: &str, chain: &str) -> Site {
    let site = Site::new();
    site.configure(&format!(
        "port = \"127.0.0.1:$PORT\"\n<Connection db>\nmodule = Sql\ndsn = \"{dsn}\"\nuser = \"{user}\"\n\
         password = \"{user}\"\n</Connection>\n<VirtualHost $PORT>\nname = v\n{chain}</VirtualHost>\n"
    ));
    site
}

/// What `check` says of a configuration.
fn checked(place: &Site, options: &[&str]) -> Output {
    run(Command::new(PROGRAM).arg("check").arg(place.config()).args(options), b"")
}

fn daemon(dsn: &str, user: &str, chain: &str) -> Daemon {
    site(dsn, user, chain).start()
}

const OF_BOB: &str =
    "sasl_username=bob\nsender=bob@example.org\nrecipient=a@example.net\nclient_address=192.0.2.1";
const DUNNO: &str = "dunno";

/// Whoever made the tables may go: users with fewer rights go on. `grant` gives the user `few` these rights.
fn fewer_rights_are_enough(dsn: &str, name: &str, grant: impl Fn(&str)) {
    let chain = format!("{EVERYTHING}{COUNTING}");
    let mut first = daemon(dsn, name, &chain);
    // Greylisted at first, and let through when it is sent again.
    assert!(first.ask(OF_BOB).action().starts_with("defer greylisting"), "{}", first.log());
    eventually("the message passes", || (first.ask(OF_BOB).action() == DUNNO).then_some(()));
    first.terminate();
    grant("SELECT, INSERT, UPDATE, DELETE");
    let mut second = daemon(dsn, "few", &chain);
    let all: [String; 3] = std::array::from_fn(|_| second.ask(OF_BOB).action());
    assert_eq!(all, [DUNNO, DUNNO, "defer too many"], "{}", second.log());
    second.terminate();
    assert!(!second.log().contains("may run"), "{}", second.log());
    grant("SELECT");
    let mut third = daemon(dsn, "few", quota_alone());
    assert_eq!(third.ask(OF_BOB).action(), "defer too many", "{}", third.log());
    assert_eq!(third.ask("sasl_username=eve").action(), DUNNO, "{}", third.log());
    third.terminate();
    // With Accounting there are places to reserve, and nothing can be counted: that is said.
    let mut fourth = daemon(dsn, "few", COUNTING);
    assert_eq!(fourth.ask(OF_BOB).action(), "defer too many", "{}", fourth.log());
    fourth.terminate();
    fourth.logged("acct: connection db: table acct_sasl_username can't be used as it has to be");
    fourth.logged("an administrator may run: GRANT INSERT, UPDATE ON");
    let place = site(dsn, "few", COUNTING);
    let said = errors_of(&checked(&place, &["--strict"]));
    assert!(said.contains("acct: connection db: table acct_sasl_username can't be used"), "{said}");
    assert!(said.contains("GRANT INSERT, DELETE ON"), "{said}");
    assert_eq!(said.matches("quota: connection db: table acct_sasl_username").count(), 0, "{said}");
    fourth.logged("no message can have a place reserved");
}

#[test]
fn fewer_rights_are_enough_on_mariadb() {
    let server = mariadb::start();
    let (dsn, name) = (mariadb::dsn(&server), mariadb::NAME);
    let socket = server.path("mysql.sock").display().to_string();
    let root = Database::open(&format!("dbi:mysql:database={name};mysql_socket={socket}"), "root", "");
    root.run("CREATE USER few@'%' IDENTIFIED BY 'few'", vec![]);
    fewer_rights_are_enough(&dsn, name, |rights| {
        let _ = root.run("GRANT USAGE ON *.* TO few@'%'", vec![]);
        root.run(&format!("GRANT ALL ON {name}.* TO few@'%'"), vec![]);
        root.run(&format!("REVOKE ALL ON {name}.* FROM few@'%'"), vec![]);
        root.run(&format!("GRANT {rights} ON {name}.* TO few@'%'"), vec![]);
    });
}

#[test]
fn fewer_rights_are_enough_on_postgres() {
    let server = postgres::start();
    let (dsn, name) = (postgres::dsn(&server), postgres::NAME);
    let database = Database::new(&dsn, name);
    database.run("CREATE ROLE few LOGIN PASSWORD 'few'", vec![]);
    fewer_rights_are_enough(&dsn, name, |rights| {
        database.run("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM few", vec![]);
        database.run(&format!("GRANT {rights} ON ALL TABLES IN SCHEMA public TO few"), vec![]);
    });
}

#[test]
fn a_table_that_may_not_be_made_is_told_with_its_statement() {
    let server = postgres::start();
    let dsn = postgres::dsn(&server);
    Database::new(&dsn, postgres::NAME).run("CREATE ROLE few LOGIN PASSWORD 'few'", vec![]);
    let place = site(&dsn, "few", COUNTING);
    let said = errors_of(&checked(&place, &[]));
    let wanted = "quota: connection db: table acct_sasl_username is missing (the user may not make one); an \
                  administrator may run: CREATE TABLE IF NOT EXISTS \"acct_sasl_username\"";
    assert!(said.contains(wanted), "{said}");
    let mut daemon = place.start();
    daemon.terminate();
    let line = daemon.logged("table acct_sasl_username is missing");
    assert!(
        line.contains("an administrator may run: CREATE TABLE IF NOT EXISTS \"acct_sasl_username\""),
        "{line}"
    );
}

/// A chain without a table.
const NOTHING: &str = "<Plugin go>\nmodule = Action\naction = dunno\n</Plugin>\n";

/// What is said of these tables, by `check` and by the daemon at its start.
fn told_of(dsn: &str, chain: &str, wanted: &[&str]) {
    let place = site(dsn, "few", chain);
    let said = errors_of(&checked(&place, &[]));
    let mut daemon = place.start();
    daemon.terminate();
    let log = daemon.log();
    for line in wanted {
        assert!(said.contains(line), "{line}\n{said}");
        assert!(log.contains(line), "{line}\n{log}");
    }
}

/// Everything that has a table, in the words of PostgreSQL and SQLite.
const TABLES: &str = "\
<Plugin quota>
  module = \"Quota\"
  field = \"sasl_username\"
  metric = \"count\"
  threshold = 3
  action = \"defer too many\"
</Plugin>
<Plugin pot>
  module = \"Honeypot\"
  recipients = \"trap@example.net\"
  store = \"db\"
</Plugin>
<Plugin grey>
  module = \"Greylist\"
  <Ticket>
    module = \"Sql\"
  </Ticket>
</Plugin>
<Plugin list>
  module = \"SqlList\"
  sql_query = \"SELECT ip FROM nolist WHERE ip = ?\"
</Plugin>
<Plugin users>
  module = \"SqlUserConfig\"
</Plugin>
";

#[test]
fn every_table_that_is_missing_is_told_at_the_start_and_by_check() {
    let server = postgres::start();
    let dsn = postgres::dsn(&server);
    let owner = Database::new(&dsn, postgres::NAME);
    owner.run("CREATE ROLE few LOGIN PASSWORD 'few'", vec![]);
    let missing = |who: &str, table: &str| format!("{who}: connection db: table {table} is missing");
    let all = [
        missing("quota", "acct_sasl_username"),
        missing("pot", "mtpolicyd_store"),
        missing("grey", "autowl"),
        "CREATE UNIQUE INDEX IF NOT EXISTS \"autowl_domain_ip\" ON \"autowl\"".to_owned(),
        "list: connection db: relation \"nolist\" does not exist".to_owned(),
        "users: connection db: relation \"user_config\" does not exist".to_owned(),
    ];
    told_of(&dsn, TABLES, &all.each_ref().map(String::as_str));
    // They are there, and may not be read.
    owner.run("CREATE TABLE nolist (ip TEXT)", vec![]);
    let denied = ["list: connection db: permission denied for table nolist"];
    told_of(&dsn, TABLES, &denied);
    owner.run("GRANT SELECT ON nolist TO few", vec![]);
    let said = errors_of(&checked(&site(&dsn, "few", TABLES), &[]));
    assert!(!said.contains("nolist"), "{said}");
}

#[test]
fn sessions_that_can_not_be_kept_are_told() {
    let server = postgres::start();
    let dsn = postgres::dsn(&server);
    Database::new(&dsn, postgres::NAME).run("CREATE ROLE few LOGIN PASSWORD 'few'", vec![]);
    let place = site(&dsn, "few", NOTHING);
    let text = fs::read_to_string(place.config()).expect("it was written");
    fs::write(place.config(), format!("{text}<SessionCache>\nmodule = Sql\n</SessionCache>\n"))
        .expect("ours");
    let wanted = "SessionCache: connection db: table mtpolicyd_store is missing (the user may not make \
                  one); an administrator may run: CREATE TABLE";
    let said = errors_of(&checked(&place, &[]));
    assert!(said.contains(wanted), "{said}");
    let mut daemon = place.start();
    for instance in ["a.1", "a.2", "a.3"] {
        assert_eq!(daemon.ask(&format!("instance={instance}")).action(), DUNNO, "{}", daemon.log());
    }
    daemon.terminate();
    let log = daemon.log();
    assert!(log.contains(wanted), "{log}");
    let per_request = "session cache: connection db: table mtpolicyd_store is missing";
    let lines: Vec<_> = log.lines().filter(|line| line.contains(per_request)).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("requests have sessions in memory"), "{log}");
}

#[test]
fn rights_on_mariadb_are_told_although_one_column_alone_can_not_be_inserted() {
    let server = mariadb::start();
    let (dsn, name) = (mariadb::dsn(&server), mariadb::NAME);
    let socket = server.path("mysql.sock").display().to_string();
    let root = Database::open(&format!("dbi:mysql:database={name};mysql_socket={socket}"), "root", "");
    root.run("CREATE USER few@'%' IDENTIFIED BY 'few'", vec![]);
    let mut first = daemon(&dsn, name, COUNTING);
    assert_eq!(first.ask(OF_BOB).action(), DUNNO, "{}", first.log());
    first.terminate();
    root.run(&format!("GRANT SELECT, INSERT ON {name}.* TO few@'%'"), vec![]);
    told_of(&dsn, COUNTING, &["GRANT UPDATE ON `acct_sasl_username` TO", "GRANT DELETE ON"]);
}

#[test]
fn check_tells_which_servers_do_not_answer() {
    let server = postgres::start();
    let dsn = postgres::dsn(&server);
    let strictly = |dsn: &str, user: &str| {
        let place = site(dsn, user, NOTHING);
        // It has a password in it.
        fs::set_permissions(place.config(), fs::Permissions::from_mode(0o600)).expect("it is ours");
        checked(&place, &["--strict"])
    };
    let other_port = format!("port={}", crate::support::free_port());
    for (dsn, user, why) in [
        (dsn.clone(), "nobody_here", "password authentication failed"),
        (dsn.replace("dbname=mtpolicyd", "dbname=elsewhere"), postgres::NAME, "\"elsewhere\" does not exist"),
        (dsn.replace(&format!("port={}", server.port), &other_port), postgres::NAME, "refused"),
    ] {
        let said = strictly(&dsn, user);
        let text = errors_of(&said);
        let line = text.lines().find(|line| line.starts_with("warning[W025]: connection db: down: "));
        assert!(line.is_some_and(|line| line.contains(why)), "{why}\n{text}");
        assert!(said.status.success(), "the daemon would start: {text}");
    }
    let said = strictly(&dsn, postgres::NAME);
    assert!(errors_of(&said).is_empty() && said.status.success(), "{}", errors_of(&said));
}

/// A file of SQLite in a folder, both of root's.
fn file_of_root(folder: &Path, mode: &str) -> std::path::PathBuf {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    let file = folder.join("users with % and ?.sqlite");
    let database = rusqlite::Connection::open(&file).expect("it can be made");
    let _: String =
        database.query_row(&format!("PRAGMA journal_mode = {mode}"), [], |row| row.get(0)).expect(mode);
    let content = "CREATE TABLE user_config (address TEXT, config TEXT); \
                   INSERT INTO user_config VALUES ('a@example.net', '{\"x\":\"y\"}');";
    database.execute_batch(content).expect("it is ours");
    drop(database);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("it is ours");
    file
}

#[test]
fn a_file_of_sqlite_that_may_only_be_read_is_read() {
    if !is_root_or_leaves_out("that files of others are read") {
        return;
    }
    for mode in ["DELETE", "WAL"] {
        let folder = tempfile::tempdir().expect("there is room");
        let file = file_of_root(folder.path(), mode);
        let site = Site::new();
        site.configure(&format!(
            "port = \"127.0.0.1:$PORT\"\nuser = nobody\ngroup = nogroup\n<Connection db>\nmodule = Sql\n\
             dsn = \"dbi:SQLite:dbname={}\"\n</Connection>\n<VirtualHost $PORT>\nname = v\n\
             <Plugin u>\nmodule = SqlUserConfig\n</Plugin>\n<Plugin c>\nmodule = Condition\n\
             key = \"session:x\"\nre_match = \"^[yz]\"\naction = \"reject has settings\"\n</Plugin>\n\
             </VirtualHost>\n",
            file.display()
        ));
        let daemon = site.start();
        let ask = || daemon.ask(OF_BOB).action();
        assert_eq!(ask(), "reject has settings", "{mode}\n{}", daemon.log());
        // Its owner changes it: what is read is what is there now.
        let database = rusqlite::Connection::open(&file).expect("it is ours");
        database.execute("DELETE FROM user_config", []).expect("it is ours");
        assert_eq!(ask(), DUNNO, "{mode}, open at the same time\n{}", daemon.log());
        drop(database);
        assert_eq!(ask(), DUNNO, "{mode}, closed\n{}", daemon.log());
        let database = rusqlite::Connection::open(&file).expect("it is ours");
        database
            .execute("INSERT INTO user_config VALUES ('a@example.net', '{\"x\":\"z\"}')", [])
            .expect("ours");
        drop(database);
        assert_eq!(ask(), "reject has settings", "{mode}, changed\n{}", daemon.log());
    }
}
