//! Spellings of data sources, good and bad.
//!
//! Knows: what people write. Must not know: databases.

use super::*;
use crate::Secret;
use crate::sql::Durability;
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
        identity: None,
    }
}

fn read(dsn: &str) -> Result<Source, String> {
    Source::read(&settings(dsn)).map_err(|error| error.why)
}

fn mysql(dsn: &str) -> MySqlSource {
    match read(dsn) {
        Ok(Source::MySql(server)) => server,
        other => panic!("{dsn}: {:?}", other.err()),
    }
}

fn postgres(dsn: &str) -> PostgresSource {
    match read(dsn) {
        Ok(Source::Postgres(server)) => server,
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
    let found = mysql("dbi:mysql:database=mail;host=db.example;port=3307;mysql_enable_utf8=1");
    assert_eq!((found.host.as_deref(), found.port), (Some("db.example"), Some(3307)));
    assert_eq!(
        (found.login.database.as_deref(), found.login.user.as_deref()),
        (Some("mail"), Some("mtpolicyd"))
    );
    assert_eq!((found.login.password.0.as_str(), found.login.tls), ("geheim", Tls::Disable));
    let socket = mysql("dbi:MariaDB:database=mail;mariadb_socket=/run/s.sock").socket;
    assert_eq!(socket.as_deref(), Some("/run/s.sock"));
    let tls = mysql("dbi:mysql:database=mail;mysql_ssl=1;mysql_ssl_ca_file=/ca.pem");
    assert_eq!((tls.login.tls, tls.login.tls_ca.as_deref()), (Tls::VerifyCa, Some("/ca.pem")));
    assert_eq!(mysql("dbi:mysql:database=mail;mysql_ssl=1").login.tls, Tls::Require);
    let url = mysql("mysql://joe:a%40b@db.example:3307/mail");
    assert_eq!((url.login.user.as_deref(), url.login.password.0.as_str()), (Some("joe"), "a@b"));
    assert_eq!((url.host.as_deref(), url.port), (Some("db.example"), Some(3307)));
    let init = mysql("dbi:mysql:mail;mysql_init_command=SET SESSION sql_mode='ANSI_QUOTES'").init;
    assert_eq!(init, ["SET SESSION sql_mode='ANSI_QUOTES'"]);
}

#[test]
fn parts_of_mysql_are_known_by_their_places_too() {
    for dsn in [
        "dbi:mysql:mail:db.example:3307",
        "dbi:mysql:mail;db.example;3307",
        "dbi:mysql:mail;host=db.example;port=3307",
        "dbi:mysql:mail:db.example;port=3307",
        "dbi:mysql:database=mail:host=db.example:port=3307",
        "dbi:mysql:host=db.example;mail;3307;",
        "dbi:mysql:db=mail;hostname=[db.example];port=3307",
    ] {
        let found = mysql(dsn);
        let found = (found.login.database.as_deref(), found.host.as_deref(), found.port);
        assert_eq!(found, (Some("mail"), Some("db.example"), Some(3307)), "{dsn}");
    }
    for dsn in ["dbi:mysql:mail;host=[::1];port=3307", "dbi:mysql:mail:[::1]:3307", "mysql://[::1]:3307/mail"]
    {
        let found = mysql(dsn);
        assert_eq!((found.host.as_deref(), found.port), (Some("::1"), Some(3307)), "{dsn}");
    }
}

#[test]
fn no_host_and_localhost_are_the_socket_of_mysql() {
    for dsn in [
        "dbi:mysql:mail",
        "DBI:mysql:database=mail;host=localhost",
        "dbi:mysql:mail::3307",
        "dbi:mysql:mail;host=localhost;port=3307",
        "mysql:///mail",
        "mysql://joe@localhost/mail",
    ] {
        let found = mysql(dsn);
        let found = (found.login.database.as_deref(), found.host, found.socket);
        assert_eq!(found, (Some("mail"), None, None), "{dsn}");
    }
    // A socket is for nobody elsewhere.
    let both = mysql("dbi:mysql:mail;host=127.0.0.1;mysql_socket=/run/s.sock");
    assert_eq!((both.host.as_deref(), both.socket), (Some("127.0.0.1"), None));
    let url = mysql("mysql://localhost/mail?socket=/run/s.sock");
    assert_eq!((url.host, url.socket.as_deref()), (None, Some("/run/s.sock")));
}

#[test]
fn what_is_missing_comes_from_an_option_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "[client]\nuser=joe\npassword=secret\nhost=db.example\nport=3307\ndatabase=other\n\
                init-command = SET @a = 1\n[m]\nssl-ca=/ca.pem\n[n]\nhost=n.example\n";
    std::fs::write(file.path(), text).unwrap();
    let dsn = format!("dbi:mysql:mysql_read_default_file={};database=mail", file.path().display());
    let empty = SqlSettings { user: String::new(), password: Secret::default(), ..settings(&dsn) };
    let Ok(Source::MySql(found)) = Source::read(&empty) else { panic!("it is a server") };
    assert_eq!((found.login.user.as_deref(), found.login.password.0.as_str()), (Some("joe"), "secret"));
    assert_eq!((found.host.as_deref(), found.port), (Some("db.example"), Some(3307)));
    assert_eq!((found.login.database.as_deref(), found.login.tls), (Some("mail"), Tls::Disable));
    assert_eq!(found.init, ["SET @a = 1"]);
    let found = mysql(&format!("{dsn};mysql_read_default_group=m"));
    assert_eq!((found.login.user.as_deref(), found.login.password.0.as_str()), (Some("mtpolicyd"), "geheim"));
    assert_eq!((found.login.tls, found.login.tls_ca.as_deref()), (Tls::VerifyCa, Some("/ca.pem")));
    assert!(read("dbi:mysql:mysql_read_default_file=/no/such.cnf").err().unwrap().contains("/no/such.cnf"));
    assert!(read("dbi:mysql:mail;mysql_read_default_group=m").err().unwrap().contains("default_file"));
}

#[test]
fn encryption_in_an_option_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let tls = |line: &str| {
        std::fs::write(file.path(), format!("[client]\n{line}\n")).unwrap();
        mysql(&format!("dbi:mysql:mail;mysql_read_default_file={}", file.path().display())).login.tls
    };
    for (line, expected) in [
        ("ssl", Tls::Require),
        ("ssl=1", Tls::Require),
        ("ssl = OFF", Tls::Disable),
        ("ssl=false", Tls::Disable),
        ("ssl_verify_server_cert=0", Tls::Disable),
        ("ssl-verify-server-cert", Tls::VerifyFull),
        ("ssl-mode=DISABLED", Tls::Disable),
        ("ssl-mode=required", Tls::Require),
        ("ssl_mode=VERIFY_IDENTITY", Tls::VerifyFull),
    ] {
        assert_eq!(tls(line), expected, "{line}");
    }
    assert_eq!(mysql("mysql://db/mail?ssl_mode=VERIFY_CA").login.tls, Tls::VerifyCa);
    assert!(read("mysql://db/mail?ssl_mode=maybe").err().unwrap().contains("VERIFY_IDENTITY"));
}

#[test]
fn servers_of_postgres() {
    let found = postgres("dbi:Pg:dbname=mail;host=/run/postgresql;sslmode=verify-full;sslrootcert=/ca.pem");
    assert_eq!(found.hosts, ["/run/postgresql"]);
    assert_eq!((found.login.tls, found.login.tls_ca.as_deref()), (Tls::VerifyFull, Some("/ca.pem")));
    assert_eq!(postgres("dbi:Pg:dbname=mail host=::1").hosts, ["::1"]);
    let url = postgres("postgresql://joe@[::1]:5433/mail?sslmode=disable");
    assert_eq!(
        (&url.hosts[..], &url.ports[..], url.login.tls),
        (&["::1".to_owned()][..], &[5433][..], Tls::Disable)
    );
    assert_eq!(url.login.password.0, "geheim");
    assert_eq!(postgres("postgres://%2Frun%2Fpg/mail").hosts, ["/run/pg"]);
    for dsn in ["dbi:Pg:dbname=mail", "postgresql:///mail", "dbi:Pg:mail", "dbi:Pg:"] {
        assert!(postgres(dsn).hosts.is_empty(), "{dsn}");
    }
    assert_eq!(postgres("dbi:Pg:dbname=mail;requiressl=1").login.tls, Tls::Require);
    assert_eq!(postgres("dbi:Pg:dbname=mail;requiressl=0").login.tls, Tls::Prefer);
    let system = postgres("dbi:Pg:dbname=mail;sslrootcert=system");
    assert_eq!((system.login.tls, system.login.tls_ca), (Tls::VerifyFull, None));
}

#[test]
fn several_servers_of_postgres() {
    for dsn in [
        "dbi:Pg:dbname=mail;host=a,b;port=5433,;target_session_attrs=read-write",
        "postgresql://a:5433,b/mail?target_session_attrs=read-write",
        "dbi:Pg:dbname = 'mail' host = a,b port='5433,5432' target_session_attrs = primary",
    ] {
        let found = postgres(dsn);
        assert_eq!(
            (&found.hosts[..], &found.ports[..]),
            (&["a".to_owned(), "b".to_owned()][..], &[5433, 5432][..])
        );
        assert_eq!(
            (found.login.database.as_deref(), found.session),
            (Some("mail"), Session::ReadWrite),
            "{dsn}"
        );
    }
    let both = postgres("dbi:Pg:dbname=mail;host=db.example;hostaddr=192.0.2.1");
    assert_eq!((both.hosts.len(), both.addresses.len()), (1, 1));
    let quoted = postgres("dbi:Pg:dbname='my \\'mail; x';options=-csearch_path=a\\ b");
    assert_eq!(quoted.login.database.as_deref(), Some("my 'mail; x"));
    assert_eq!(quoted.options.as_deref(), Some("-csearch_path=a b"));
}

#[test]
fn mistakes_are_named_and_secrets_are_not() {
    let wrong = |dsn: &str| read(dsn).err().unwrap();
    assert!(wrong("dbi:Oracle:x").contains("`Oracle`") && wrong("dbi:Oracle:x").contains("dbi:Pg"));
    assert!(wrong("/var/lib/db").contains("begins with none of"));
    assert!(wrong("dbi:mysql").contains("ends after the driver"));
    assert!(wrong("dbi:mysql:databse=x").contains("`databse`"));
    assert!(wrong("dbi:mysql:database=x;port=many").contains("`many`"));
    assert!(wrong("dbi:mysql:a:b:1:c").contains("`c`"));
    assert!(wrong("dbi:mysql:mail;host=a,b").contains("several hosts"));
    assert!(wrong("dbi:Pg:dbname=x;sslmode=on").contains("sslmode=on"));
    assert!(wrong("dbi:Pg:dbname=x;service=mail").contains("write host, port, dbname"));
    assert!(wrong("dbi:Pg:dbname=x;host=[::1]").contains("write `host=::1`"));
    assert!(wrong("dbi:Pg:dbname=x;host=a,b,c;port=1,2").contains("one for each host"));
    assert!(wrong("dbi:Pg:dbname=x;host=a,b;hostaddr=192.0.2.1").contains("hostaddr"));
    assert!(wrong("dbi:Pg:dbname=x;hostaddr=db.example").contains("not an address"));
    assert!(wrong("dbi:Pg:dbname=x;target_session_attrs=prefer-standby").contains("prefer-standby"));
    assert!(wrong("dbi:Pg:dbname='x").contains("does not end"));
    assert!(wrong("dbi:Pg:dbname=x host").contains("`host=...`"));
    assert!(wrong("dbi:SQLite:").contains("no file"));
    assert!(wrong("dbi:SQLite(x:dbname=/x").contains("`(`"));
    assert!(!wrong("mysql://joe:topsecret@h:x/db").contains("topsecret"));
    assert!(!wrong("postgres://joe:topsecret/db").contains("topsecret"));
}

#[test]
fn what_libpq_knows_of_tls_is_followed_or_refused() {
    for part in [
        "ssl_min_protocol_version=TLSv1.2",
        "ssl_max_protocol_version=TLSv1.3",
        "sslsni=1",
        "sslcompression=0",
        "sslcert=",
        "keepalives_idle=30",
        "keepalives_interval=5",
        "keepalives_count=3",
        "tcp_user_timeout=3000",
        "krbsrvname=postgres",
        "gssencmode=disable",
        "channel_binding=prefer",
    ] {
        assert!(read(&format!("dbi:Pg:dbname=mail;host=db;{part}")).is_ok(), "{part}");
    }
    for (part, help) in [
        ("sslpassword=x", "without a password"),
        ("sslcrl=/crl.pem", "leave it out"),
        ("ssl_min_protocol_version=TLSv1.3", "write TLSv1.2"),
        ("ssl_max_protocol_version=TLSv1.2", "leave it out"),
        ("sslsni=0", "`host`"),
        ("gssencmode=require", "sslmode=verify-full"),
        ("channel_binding=require", "sslmode=verify-full"),
    ] {
        let why = read(&format!("dbi:Pg:dbname=mail;host=db;{part}")).err().unwrap();
        assert!(why.contains("is not supported") && why.contains(help), "{part}: {why}");
    }
}

#[test]
fn a_certificate_and_its_key_belong_together() {
    let both = Some(Identity { certificate: "/c.pem".to_owned(), key: "/k.pem".to_owned() });
    let pg = |more: &str| postgres(&format!("dbi:Pg:dbname=mail;host=db{more}")).login.identity();
    let maria = |more: &str| mysql(&format!("dbi:mysql:database=mail;host=db{more}")).login.identity();
    assert_eq!(pg(";sslcert=/c.pem;sslkey=/k.pem"), Ok(both.clone()));
    assert_eq!(maria(";mysql_ssl_client_cert=/c.pem;mysql_ssl_client_key=/k.pem"), Ok(both.clone()));
    assert_eq!((pg(""), maria("")), (Ok(None), Ok(None)));
    assert!(pg(";sslcert=/c.pem").unwrap_err().why.contains("no key"));
    assert!(maria(";mysql_ssl_client_key=/k.pem").unwrap_err().why.contains("no certificate"));
    // Those of the block, where the data source names none.
    let of_block = SqlSettings { identity: both.clone(), ..settings("dbi:Pg:dbname=mail;host=db") };
    let Ok(Source::Postgres(source)) = Source::read(&of_block) else { panic!("it is right") };
    assert_eq!(source.login.identity(), Ok(both));
}
