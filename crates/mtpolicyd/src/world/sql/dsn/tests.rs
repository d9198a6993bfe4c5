//! Spellings of data sources, good and bad.
//!
//! Knows: what people write. Must not know: databases.

use super::*;
use crate::world::sql::Durability;
use std::time::Duration;

fn settings(dsn: &str) -> SqlSettings {
    SqlSettings {
        dsn: dsn.to_owned(),
        user: "mtpolicyd".to_owned(),
        password: Secret("geheim".to_owned()),
        timeout: Duration::from_secs(5),
        max_connections: 10,
        durability: Durability::Full,
        tls_ca: None,
    }
}

fn read(dsn: &str) -> Result<Source, String> {
    Source::read(&settings(dsn))
}

fn server(dsn: &str) -> ServerSource {
    match read(dsn) {
        Ok(Source::MySql(server) | Source::Postgres(server)) => server,
        other => panic!("{dsn}: {:?}", other.err()),
    }
}

#[test]
fn files_of_sqlite() {
    let file = |dsn: &str| match read(dsn) {
        Ok(Source::Sqlite(source)) => {
            source.path.map_or("memory".to_owned(), |path| path.display().to_string())
        }
        other => panic!("{dsn}: {:?}", other.err()),
    };
    assert_eq!(file("dbi:SQLite:dbname=/var/lib/m/db.sqlite"), "/var/lib/m/db.sqlite");
    assert_eq!(file("DBI:SQLite:dbname=/var/lib/m/db.sqlite"), "/var/lib/m/db.sqlite");
    assert_eq!(file("dbi:sqlite(RaiseError=>1):database=/db;sqlite_unicode=1"), "/db");
    assert_eq!(file("dbi:SQLite:/db"), "/db");
    assert_eq!(file("dbi:SQLite:uri=file:///a%20b?mode=rwc"), "/a b");
    assert_eq!(file("dbi:SQLite:dbname=:memory:"), "memory");
    assert_eq!(file("dbi:SQLite::memory:"), "memory");
    assert_eq!(file("dbi:SQLite:uri=file:x?mode=memory&cache=shared"), "memory");
    assert_eq!(file("sqlite:///var/db"), "/var/db");
}

#[test]
fn servers_of_mysql() {
    let found = server("dbi:mysql:database=mail;host=db.example;port=3307;mysql_enable_utf8=1");
    assert_eq!((found.host.as_deref(), found.port), (Some("db.example"), Some(3307)));
    assert_eq!((found.database.as_deref(), found.user.as_deref()), (Some("mail"), Some("mtpolicyd")));
    assert_eq!((found.password.0.as_str(), found.tls), ("geheim", Tls::Disable));
    assert_eq!(server("dbi:mysql:mail:db.example:3307").port, Some(3307));
    assert_eq!(server("DBI:mysql:mail").database.as_deref(), Some("mail"));
    let socket = server("dbi:MariaDB:database=mail;mariadb_socket=/run/s.sock").socket;
    assert_eq!(socket.as_deref(), Some("/run/s.sock"));
    let tls = server("dbi:mysql:database=mail;mysql_ssl=1;mysql_ssl_ca_file=/ca.pem");
    assert_eq!((tls.tls, tls.tls_ca.as_deref()), (Tls::VerifyCa, Some("/ca.pem")));
    assert_eq!(server("dbi:mysql:database=mail;mysql_ssl=1").tls, Tls::Require);
    let url = server("mysql://joe:a%40b@db.example:3307/mail");
    assert_eq!((url.user.as_deref(), url.password.0.as_str()), (Some("joe"), "a@b"));
}

#[test]
fn servers_of_postgres() {
    let found = server("dbi:Pg:dbname=mail;host=/run/postgresql;sslmode=verify-full;sslrootcert=/ca.pem");
    assert_eq!((found.socket.as_deref(), found.host), (Some("/run/postgresql"), None));
    assert_eq!((found.tls, found.tls_ca.as_deref()), (Tls::VerifyFull, Some("/ca.pem")));
    assert_eq!(server("dbi:Pg:dbname=mail host=::1").host.as_deref(), Some("::1"));
    let url = server("postgresql://joe@[::1]:5433/mail?sslmode=disable");
    assert_eq!((url.host.as_deref(), url.port, url.tls), (Some("::1"), Some(5433), Tls::Disable));
    assert_eq!(url.password.0, "geheim");
    assert_eq!(server("postgres://%2Frun%2Fpg/mail").socket.as_deref(), Some("/run/pg"));
}

#[test]
fn mistakes_are_named_and_secrets_are_not() {
    let wrong = |dsn: &str| read(dsn).err().unwrap();
    assert!(wrong("dbi:Oracle:x").contains("`Oracle`") && wrong("dbi:Oracle:x").contains("dbi:Pg"));
    assert!(wrong("/var/lib/db").contains("begins with none of"));
    assert!(wrong("dbi:mysql").contains("ends after the driver"));
    assert!(wrong("dbi:mysql:databse=x").contains("`databse`"));
    assert!(wrong("dbi:mysql:database=x;port=many").contains("`many`"));
    assert!(wrong("dbi:Pg:dbname=x;sslmode=on").contains("sslmode=on"));
    assert!(wrong("dbi:SQLite:").contains("no file"));
    assert!(wrong("dbi:SQLite(x:dbname=/x").contains("`(`"));
    assert!(!wrong("mysql://joe:topsecret@h:x/db").contains("topsecret"));
}
