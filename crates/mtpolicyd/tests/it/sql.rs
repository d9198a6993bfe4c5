//! MariaDB and PostgreSQL behind the one interface for databases.
//!
//! Knows: `backends::sql`, real servers. Must not know: plugins, the daemon.

use crate::support::eventually_async;
use crate::support::servers::certificates::Certificates;
use crate::support::servers::{Server, mariadb, postgres};
use backends::sql::{Dialect, Durability, MAX_ROWS, Param, Row, Sql, SqlSettings, Statement, Work};
use backends::{Call, Failure, Secret};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// User, password and database.
pub const NAME: &str = "mtpolicyd";

pub fn settings(dsn: String) -> SqlSettings {
    SqlSettings {
        dsn,
        user: NAME.to_owned(),
        password: Secret(NAME.to_owned()),
        timeout: Duration::from_secs(20),
        max_connections: 4,
        durability: Durability::Full,
        tls_ca: None,
        identity: None,
    }
}

pub fn open(settings: SqlSettings) -> Arc<Sql> {
    Arc::new(Sql::new("db", settings).expect("the settings are good"))
}

/// Each server with a database of its own.
fn both() -> [(Server, Arc<Sql>); 2] {
    let (maria, postgres) = (mariadb::start(), postgres::start());
    let (first, second) = (settings(mariadb::dsn(&maria)), settings(postgres::dsn(&postgres)));
    [(maria, open(first)), (postgres, open(second))]
}

pub fn statement(sql: &str, params: Vec<Param>) -> Statement {
    Statement { sql: sql.into(), params }
}

pub fn soon() -> Call<'static> {
    Call::within(Duration::from_secs(20))
}

async fn run(sql: &Sql, text: &str) -> Result<u64, Failure> {
    let outputs = sql.run(Work::durable(text, Vec::new()), soon()).await;
    outputs.map(|outputs| outputs[0].affected).map_err(|error| error.failure)
}

async fn ask(sql: &Sql, text: &str, params: Vec<Param>) -> Result<Vec<Row>, Failure> {
    sql.query(statement(text, params), soon()).await.map_err(|error| error.failure)
}

async fn ask_row(sql: &Sql, text: &str, params: Vec<Param>) -> Vec<String> {
    let rows = ask(sql, text, params).await.unwrap_or_else(|failure| panic!("{text}: {failure}"));
    assert_eq!(rows.len(), 1, "{text}");
    rows[0].iter().map(|value| value.clone().unwrap_or_else(|| "NULL".to_owned())).collect()
}

fn text(text: &str) -> Param {
    Param::Text(text.to_owned())
}

fn works(statements: &[&str], lock: Option<&str>) -> Work {
    let statements = statements.iter().map(|sql| statement(sql, Vec::new())).collect();
    Work { statements, lock: lock.map(str::to_owned), durable: true }
}

/// Waits until a server is used again.
async fn is_back(sql: &Sql) {
    eventually_async("it is used again", async || sql.ping(soon()).await.ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_mariadb_are_texts() {
    let server = mariadb::start();
    let sql = open(settings(mariadb::dsn(&server)));
    assert_eq!((sql.dialect(), sql.quote("a`b")), (Dialect::MySql, "`a``b`".to_owned()));
    let table = "CREATE TABLE t (a INT UNSIGNED, b INT(5) ZEROFILL, c DECIMAL(8,3), d FLOAT, e DOUBLE, \
                 f DATETIME, g DATETIME(3), h DATE, i TIME, j ENUM('x','y'), k BLOB, l JSON, m BIT(8), \
                 n VARCHAR(9), o TEXT, p TIMESTAMP NULL, q YEAR, r DOUBLE(8,2), s BIGINT UNSIGNED)";
    run(&sql, table).await.unwrap();
    let insert = "INSERT INTO t VALUES (4294967295, 42, 1.5, 0.1, 1e20, '2026-01-02 03:04:05', \
                  '2026-01-02 03:04:05.678', '2026-01-02', '-25:00:01', 'y', 'bl\\\\ob', '{\"a\": 1}', \
                  b'1000001', 'grün', '😀', '2026-01-02 03:04:05', 2026, 1.5, 18446744073709551615)";
    assert_eq!(run(&sql, insert).await, Ok(1));
    let expected = [
        "4294967295",
        "00042",
        "1.500",
        "0.1",
        "1e20",
        "2026-01-02 03:04:05",
        "2026-01-02 03:04:05.678",
        "2026-01-02",
        "-25:00:01",
        "y",
        "bl\\ob",
        "{\"a\": 1}",
        "A",
        "grün",
        "😀",
        "2026-01-02 03:04:05",
        "2026",
        "1.50",
        "18446744073709551615",
    ];
    // The server's own text, and what is made of its binary values, are the same.
    assert_eq!(ask_row(&sql, "SELECT * FROM t", vec![]).await, expected);
    assert_eq!(ask_row(&sql, "SELECT * FROM t WHERE n = ?", vec![text("grün")]).await, expected);
    let row =
        ask_row(&sql, "SELECT '?', ? /* ? */, ? + 1, ?", vec![text("a'b"), Param::Integer(-2), Param::Null]);
    assert_eq!(row.await, ["?", "a'b", "-1", "NULL"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_postgres_are_texts() {
    let server = postgres::start();
    let sql = open(settings(postgres::dsn(&server)));
    assert_eq!((sql.dialect(), sql.quote("a\"b")), (Dialect::Postgres, "\"a\"\"b\"".to_owned()));
    run(&sql, "CREATE TYPE mood AS ENUM ('sad', 'ok')").await.unwrap();
    run(&sql, "CREATE DOMAIN short AS varchar(5)").await.unwrap();
    let table = "CREATE TABLE t (a bool, b smallint, c int, d bigint, e real, f float8, g numeric(8,3), \
                 h text, i varchar(9), j char(3), k name, l bytea, m timestamp, n timestamptz, o date, \
                 p time, q inet, r cidr, s uuid, t json, u jsonb, v mood, w int[], x interval, y oid, \
                 z macaddr, aa short)";
    run(&sql, table).await.unwrap();
    let insert = "INSERT INTO t VALUES (true, -1, 2, 3, 0.1, 1e20, 1.5, 'grün', '😀', 'a', 'n', '\\x6162', \
                  '2026-01-02 03:04:05.5', '2026-01-02 03:04:05+00', '2026-01-02', '03:04', '192.0.2.1', \
                  '192.0.2.0/24', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\":1}', '{\"a\":1}', 'ok', \
                  '{1,2}', '1 day 2 hours', 9, '08:00:2b:01:02:03', 'dom')";
    assert_eq!(run(&sql, insert).await, Ok(1));
    let expected = [
        "1",
        "-1",
        "2",
        "3",
        "0.1",
        "1e+20",
        "1.500",
        "grün",
        "😀",
        "a  ",
        "n",
        "ab",
        "2026-01-02 03:04:05.5",
        "2026-01-02 03:04:05+00",
        "2026-01-02",
        "03:04:00",
        "192.0.2.1",
        "192.0.2.0/24",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "{\"a\":1}",
        "{\"a\": 1}",
        "ok",
        "{1,2}",
        "1 day 02:00:00",
        "9",
        "08:00:2b:01:02:03",
        "dom",
    ];
    let select = "SELECT * FROM t WHERE h = ? AND c = ? AND q = ? AND o = ?; -- ?";
    let params = vec![text("grün"), text("2"), text("192.0.2.1"), text("2026-01-02")];
    let shown = ask_row(&sql, select, params).await;
    for (at, (shown, expected)) in shown.iter().zip(expected).enumerate() {
        // The zone of the server is its own matter.
        assert!(shown == expected || at == 13, "{at}: {shown} instead of {expected}");
    }
    let row = ask_row(
        &sql,
        "SELECT '?', ?::text, ?::int + 1, ?::int, '{\"a\":1}'::jsonb ?? 'a'",
        vec![text("a'b\0"), Param::Integer(-2), Param::Null],
    );
    assert_eq!(row.await, ["?", "a'b\u{fffd}", "-1", "NULL", "1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_table_is_told_from_other_mistakes_and_nothing_is_down() {
    for (_server, sql) in both() {
        assert!(matches!(ask(&sql, "SELECT * FROM nowhere", vec![]).await, Err(Failure::NoTable(_))));
        assert!(matches!(run(&sql, "SELEC").await, Err(Failure::Refused(_))));
        let many = ask(&sql, "SELECT 1 WHERE 1 = ?", vec![text("1"), text("2")]).await;
        assert!(matches!(many, Err(Failure::Refused(_))), "{many:?}");
        sql.ping(soon()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_work_leaves_nothing() {
    for (_server, sql) in both() {
        run(&sql, "CREATE TABLE t (n INT PRIMARY KEY)").await.unwrap();
        let work = works(&["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"], Some("a lock"));
        let failure = sql.run(work, soon()).await.unwrap_err().failure;
        assert!(matches!(failure, Failure::Refused(_)), "{failure}");
        assert_eq!(ask_row(&sql, "SELECT count(*) FROM t", vec![]).await, ["0"]);
        // The lock was given back.
        sql.run(works(&["INSERT INTO t VALUES (1)"], Some("a lock")), soon()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_at_once_are_counted_exactly() {
    for (_server, sql) in both() {
        run(&sql, "CREATE TABLE t (k VARCHAR(50) PRIMARY KEY, n INT)").await.unwrap();
        let upsert = match sql.dialect() {
            Dialect::MySql => "INSERT INTO t VALUES (?, 1) ON DUPLICATE KEY UPDATE n = n + 1",
            _ => "INSERT INTO t VALUES (?, 1) ON CONFLICT (k) DO UPDATE SET n = t.n + 1",
        };
        let jobs = (0..50).map(|job| {
            let (sql, key) = (sql.clone(), if job % 2 == 0 { "a" } else { "b" });
            tokio::spawn(
                async move { sql.run(Work::durable(upsert, vec![text(key)]), soon()).await.unwrap() },
            )
        });
        for job in jobs.collect::<Vec<_>>() {
            job.await.unwrap();
        }
        assert_eq!(ask_row(&sql, "SELECT sum(n), count(*) FROM t", vec![]).await, ["50", "2"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn works_with_one_lock_happen_one_after_the_other() {
    for (_server, sql) in both() {
        run(&sql, "CREATE TABLE t (n INT)").await.unwrap();
        run(&sql, "INSERT INTO t VALUES (0)").await.unwrap();
        // What is read is written later: without the lock one overtakes the other, and its number is lost.
        let steps = match sql.dialect() {
            Dialect::MySql => ["SET @n = (SELECT n FROM t)", "DO sleep(0.05)", "UPDATE t SET n = @n + 1"],
            _ => [
                "SELECT set_config('t.n', (SELECT n::text FROM t), true)",
                "SELECT pg_sleep(0.05)",
                "UPDATE t SET n = current_setting('t.n')::int + 1",
            ],
        };
        let name = "a name that is longer than the sixty-four characters that servers accept";
        let jobs = (0..4).map(|_| {
            let sql = sql.clone();
            tokio::spawn(async move { sql.run(works(&steps, Some(name)), soon()).await.unwrap() })
        });
        for job in jobs.collect::<Vec<_>>() {
            job.await.unwrap();
        }
        assert_eq!(ask_row(&sql, "SELECT n FROM t", vec![]).await, ["4"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_returns_is_used_again() {
    for (mut server, sql) in both() {
        sql.ping(soon()).await.unwrap();
        server.stop();
        assert!(matches!(run(&sql, "SELECT 1").await, Err(Failure::Down(_))));
        assert!(matches!(run(&sql, "SELECT 1").await, Err(Failure::Down(_))), "it is known to be down");
        server.start();
        is_back(&sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_that_nobody_saw_fails_no_request() {
    for (mut server, sql) in both() {
        sql.ping(soon()).await.unwrap();
        server.restart();
        tokio::time::sleep(Duration::from_millis(600)).await;
        sql.ping(soon()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_somebody_ends_is_not_the_server() {
    for (_server, sql) in both() {
        let end = match sql.dialect() {
            Dialect::MySql => "KILL CONNECTION_ID()",
            _ => "SELECT pg_terminate_backend(pg_backend_pid())",
        };
        assert!(matches!(ask(&sql, end, vec![]).await, Err(Failure::Down(_))), "{end}");
        sql.ping(soon()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_takes_its_connection_with_it() {
    for (server, sql) in both() {
        let identity = match sql.dialect() {
            Dialect::MySql => "SELECT connection_id()",
            _ => "SELECT pg_backend_pid()",
        };
        let slow = identity.replace(
            "SELECT ",
            if sql.dialect() == Dialect::MySql { "SELECT sleep(3), " } else { "SELECT pg_sleep(3), " },
        );
        let first = ask_row(&sql, identity, vec![]).await;
        let late = Call::within(Duration::from_millis(200));
        let failure = sql.query(statement(&slow, vec![]), late).await.unwrap_err().failure;
        assert_eq!(failure, Failure::TimedOut);
        assert_ne!(ask_row(&sql, identity, vec![]).await, first);
        server.freeze();
        let impatient = async || {
            let deadline = Call::within(Duration::from_millis(300));
            sql.query(statement(identity, vec![]), deadline).await.unwrap_err().failure
        };
        assert_eq!(impatient().await, Failure::TimedOut);
        eventually_async("it is known to be down", async || {
            matches!(impatient().await, Failure::Down(_)).then_some(())
        })
        .await;
        server.thaw();
        is_back(&sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_may_change_under_a_prepared_statement() {
    for (_server, sql) in both() {
        run(&sql, "CREATE TABLE t (a INT)").await.unwrap();
        run(&sql, "INSERT INTO t VALUES (1)").await.unwrap();
        assert_eq!(ask_row(&sql, "SELECT * FROM t WHERE a = ?", vec![text("1")]).await, ["1"]);
        run(&sql, "ALTER TABLE t ADD COLUMN b VARCHAR(9) DEFAULT 'x'").await.unwrap();
        assert_eq!(ask_row(&sql, "SELECT * FROM t WHERE a = ?", vec![text("1")]).await, ["1", "x"]);
        run(&sql, "DROP TABLE t").await.unwrap();
        let gone = ask(&sql, "SELECT * FROM t WHERE a = ?", vec![text("1")]).await;
        assert!(matches!(gone, Err(Failure::NoTable(_))), "{gone:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_bounded_and_changed_rows_counted() {
    for (_server, sql) in both() {
        run(&sql, "CREATE TABLE t (n INT)").await.unwrap();
        let values: Vec<_> = (0..1500).map(|n| format!("({n})")).collect();
        assert_eq!(run(&sql, &format!("INSERT INTO t VALUES {}", values.join(","))).await, Ok(1500));
        assert_eq!(ask(&sql, "SELECT n FROM t", vec![]).await.unwrap().len(), MAX_ROWS);
        assert_eq!(run(&sql, "DELETE FROM t WHERE n < 10").await, Ok(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_not_shown() {
    let (maria, postgres) = (mariadb::start(), postgres::start());
    for dsn in [mariadb::dsn(&maria), postgres::dsn(&postgres)] {
        let wrong = SqlSettings { password: Secret("opensesame".to_owned()), ..settings(dsn) };
        let error = open(wrong).ping(soon()).await.unwrap_err();
        assert!(matches!(error.failure, Failure::Down(_)), "{error}");
        assert!(error.to_string().contains(NAME) && !error.to_string().contains("opensesame"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_serve_as_well() {
    let (maria, postgres) = (mariadb::start(), postgres::start());
    let socket = maria.path("mysql.sock").display().to_string();
    let sql = open(settings(format!("dbi:mysql:database={NAME};mysql_socket={socket}")));
    sql.ping(soon()).await.unwrap();
    let folder = postgres.path("").display().to_string();
    let sql = open(settings(format!("dbi:Pg:dbname={NAME};host={folder};port={}", postgres.port)));
    sql.ping(soon()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_mariadb_are_verified() {
    let (good, other) = (Certificates::new(), Certificates::new());
    let option = |name: &str, file: std::path::PathBuf| format!("--{name}={}", file.display());
    let server = mariadb::start_with(&[
        &option("ssl-cert", good.certificate()),
        &option("ssl-key", good.key()),
        "--require-secure-transport=ON",
    ]);
    let dsn = mariadb::dsn(&server);
    let (good, other) = (good.authority().display().to_string(), other.authority().display().to_string());
    let encrypted = |dsn: String| async move {
        let sql = open(settings(dsn));
        let rows = ask(&sql, "SHOW STATUS LIKE 'Ssl_cipher'", vec![]).await?;
        assert!(rows[0][1].as_ref().is_some_and(|cipher| !cipher.is_empty()), "{rows:?}");
        Ok::<(), Failure>(())
    };
    assert!(encrypted(dsn.clone()).await.is_err(), "the server wants encryption");
    encrypted(format!("{dsn};mysql_ssl=1")).await.unwrap();
    encrypted(format!("{dsn};mysql_ssl=1;mysql_ssl_optional=1")).await.unwrap();
    encrypted(format!("{dsn};mysql_ssl=1;mysql_ssl_ca_file={good}")).await.unwrap();
    let failure = encrypted(format!("{dsn};mysql_ssl=1;mysql_ssl_ca_file={other}")).await.unwrap_err();
    assert!(failure.to_string().contains("certificate"), "{failure}");
    let failure = encrypted(format!("{dsn};mysql_ssl=1;mysql_ssl_verify_server_cert=1")).await.unwrap_err();
    assert!(failure.to_string().contains("certificate"), "{failure}");
}

pub fn encrypting_postgres(certificates: &Certificates, more: &[&str]) -> Server {
    // The server takes no key that others may read.
    let key = certificates.key().with_extension("own");
    std::fs::copy(certificates.key(), &key).expect("it is copied");
    let user = if nix::unistd::Uid::effective().is_root() { "postgres" } else { "" };
    for command in [["chown", user], ["chmod", "600"]] {
        if !command[1].is_empty() {
            assert!(Command::new(command[0]).arg(command[1]).arg(&key).status().expect("it runs").success());
        }
    }
    let certificate = format!("ssl_cert_file={}", certificates.certificate().display());
    let key = format!("ssl_key_file={}", key.display());
    let encrypting = ["ssl=on", "listen_addresses=127.0.0.1,127.0.0.2", &certificate, &key];
    postgres::start_with(&[&encrypting[..], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_itself_named_is_accepted() {
    let (own, other) = (Certificates::new(), Certificates::new());
    own.sign_itself();
    other.sign_itself();
    let server = encrypting_postgres(&own, &[]);
    let dsn = postgres::dsn(&server);
    let ping = |dsn: String, mode: &str, named: &Certificates| {
        let ca = named.certificate().display().to_string();
        let sql = open(settings(format!("{dsn};sslmode={mode};sslrootcert={ca}")));
        async move { sql.ping(soon()).await }
    };
    for mode in ["require", "verify-ca", "verify-full"] {
        ping(dsn.clone(), mode, &own).await.unwrap();
        let error = ping(dsn.clone(), mode, &other).await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let by_another_name = dsn.replace("127.0.0.1", "127.0.0.2");
    ping(by_another_name.clone(), "verify-ca", &own).await.unwrap();
    let error = ping(by_another_name, "verify-full", &own).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_postgres_are_verified() {
    let (good, other) = (Certificates::new(), Certificates::new());
    let server = encrypting_postgres(&good, &[]);
    let dsn = postgres::dsn(&server);
    let (good, other) = (good.authority().display().to_string(), other.authority().display().to_string());
    let is_encrypted = |rest: String| {
        let dsn = format!("{dsn};{rest}");
        async move {
            let sql = open(settings(dsn));
            let asked = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            let rows = ask(&sql, asked, vec![]).await?;
            Ok::<bool, Failure>(rows[0][0].as_deref() == Some("1"))
        }
    };
    assert_eq!(is_encrypted("sslmode=disable".to_owned()).await, Ok(false));
    assert_eq!(is_encrypted("sslmode=prefer".to_owned()).await, Ok(true));
    assert_eq!(is_encrypted("sslmode=require".to_owned()).await, Ok(true));
    for mode in ["require", "verify-ca", "verify-full"] {
        assert_eq!(is_encrypted(format!("sslmode={mode};sslrootcert={good}")).await, Ok(true), "{mode}");
        let failure = is_encrypted(format!("sslmode={mode};sslrootcert={other}")).await.unwrap_err();
        assert!(failure.to_string().contains("certificate"), "{failure}");
    }
    // 127.0.0.2 is the same server by a name that its certificate does not have.
    let dsn = postgres::dsn(&server).replace("127.0.0.1", "127.0.0.2");
    for (mode, works) in [("verify-ca", true), ("verify-full", false)] {
        let sql = open(settings(format!("{dsn};sslmode={mode};sslrootcert={good}")));
        assert_eq!(sql.ping(soon()).await.is_ok(), works, "{mode}");
    }
}
