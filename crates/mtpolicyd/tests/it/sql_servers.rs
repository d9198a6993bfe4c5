//! Servers of databases as they are found: with defaults of their own, behind a pooler, replaced by another.
//!
//! Knows: `backends::sql`, real servers. Must not know: plugins, the daemon.

use crate::support::servers::{Server, mariadb, pgbouncer, postgres};
use backends::sql::{Dialect, Durability, Param, Row, Sql, SqlSettings, Statement, Work};
use backends::{Call, Failure, Secret};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// User, password and database.
const NAME: &str = "mtpolicyd";

fn settings(dsn: &str, user: &str) -> SqlSettings {
    SqlSettings {
        dsn: dsn.to_owned(),
        user: user.to_owned(),
        password: Secret(user.to_owned()),
        timeout: Duration::from_secs(20),
        max_connections: 4,
        durability: Durability::Full,
        tls_ca: None,
        identity: None,
    }
}

fn open_as(dsn: &str, user: &str) -> Arc<Sql> {
    Arc::new(Sql::new("db", settings(dsn, user)).expect("the settings are good"))
}

fn open(dsn: &str) -> Arc<Sql> {
    open_as(dsn, NAME)
}

fn soon() -> Call<'static> {
    Call::within(Duration::from_secs(20))
}

fn statement(sql: &str, params: &[&str]) -> Statement {
    let params = params.iter().map(|text| Param::Text((*text).to_owned())).collect();
    Statement { sql: sql.into(), params }
}

async fn run(sql: &Sql, statements: &[&str]) -> Result<(), Failure> {
    let statements = statements.iter().map(|text| statement(text, &[])).collect();
    let work = Work { statements, lock: None, durable: true };
    sql.run(work, soon()).await.map(drop).map_err(|error| error.failure)
}

async fn ask(sql: &Sql, text: &str, params: &[&str]) -> Result<Vec<Row>, Failure> {
    sql.query(statement(text, params), soon()).await.map_err(|error| error.failure)
}

async fn ask_one(sql: &Sql, text: &str, params: &[&str]) -> String {
    let rows = ask(sql, text, params).await.unwrap_or_else(|failure| panic!("{text}: {failure}"));
    rows[0]
        .iter()
        .map(|value| value.clone().unwrap_or_else(|| "NULL".to_owned()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Who may do everything with MariaDB.
fn root_of(server: &Server) -> Sql {
    let socket = server.path("mysql.sock").display().to_string();
    let settings = SqlSettings {
        dsn: format!("dbi:mysql:database={NAME};mysql_socket={socket}"),
        user: "root".to_owned(),
        password: Secret::default(),
        timeout: Duration::from_secs(20),
        max_connections: 1,
        durability: Durability::Full,
        tls_ca: None,
        identity: None,
    };
    Sql::new("root", settings).expect("the settings are good")
}

/// A user of MariaDB who may do everything in our database and nothing with the server.
async fn plain_user_of(server: &Server) -> Arc<Sql> {
    let root = root_of(server);
    for grant in ["CREATE USER plain@'%' IDENTIFIED BY 'plain'", "GRANT ALL ON mtpolicyd.* TO plain@'%'"] {
        run(&root, &[grant]).await.expect("it works");
    }
    open_as(&mariadb::dsn(server), "plain")
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_of_mariadb_do_not_matter() {
    let server = mariadb::start_with(&[
        "--log-bin=bl",
        "--binlog-format=STATEMENT",
        "--server-id=1",
        "--autocommit=0",
        "--character-set-server=latin1",
        "--skip-character-set-client-handshake",
    ]);
    let sql = plain_user_of(&server).await;
    run(&sql, &["CREATE TABLE t (k VARCHAR(50) PRIMARY KEY, n INT) ENGINE=InnoDB CHARSET=utf8mb4"])
        .await
        .unwrap();
    // Alone and in a transaction.
    run(&sql, &["INSERT INTO t VALUES ('gr\u{fc}n', 1)"]).await.unwrap();
    run(&sql, &["INSERT INTO t VALUES ('a', 1)", "UPDATE t SET n = n + 1"]).await.unwrap();
    let other = open(&mariadb::dsn(&server));
    assert_eq!(ask_one(&other, "SELECT n, HEX(k) FROM t WHERE k = ?", &["gr\u{fc}n"]).await, "2 6772C3BC6E");
    assert_eq!(ask_one(&other, "SELECT COUNT(*) FROM t", &[]).await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stricter_isolation_of_postgres_costs_nobody_a_message() {
    let server = postgres::start_with(&["default_transaction_isolation=serializable"]);
    let sql = open(&postgres::dsn(&server));
    run(&sql, &["CREATE TABLE t (k TEXT PRIMARY KEY, n INT)"]).await.unwrap();
    let jobs = (0..40).map(|job| {
        let sql = sql.clone();
        tokio::spawn(async move {
            let upsert = "INSERT INTO t VALUES ('a', 1) ON CONFLICT (k) DO UPDATE SET n = t.n + 1";
            let all: &[&str] = if job % 2 == 0 { &[upsert] } else { &["SELECT sum(n) FROM t", upsert] };
            run(&sql, all).await.unwrap();
        })
    });
    for job in jobs.collect::<Vec<_>>() {
        job.await.unwrap();
    }
    assert_eq!(ask_one(&sql, "SELECT n FROM t", &[]).await, "40");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_of_the_administrator_are_run_on_each_connection() {
    let server = mariadb::start();
    let dsn = format!("{};mysql_init_command=SET @a = 7", mariadb::dsn(&server));
    assert_eq!(ask_one(&open(&dsn), "SELECT @a", &[]).await, "7");
    let error = open(&dsn.replace("@a", "nosuch")).ping(soon()).await.unwrap_err();
    assert!(error.to_string().contains("nosuch"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_while_it_was_kept_fails_nothing_that_can_be_repeated() {
    let (maria, postgres) = (mariadb::start(), postgres::start());
    for dsn in [mariadb::dsn(&maria), postgres::dsn(&postgres)] {
        let (sql, other) = (open(&dsn), open(&dsn));
        run(&sql, &["CREATE TABLE t (n INT)"]).await.unwrap();
        let (identity, kill) = match sql.dialect() {
            Dialect::MySql => ("SELECT connection_id()", "KILL "),
            _ => ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend($)"),
        };
        for transaction in [false, true] {
            let first = ask_one(&sql, identity, &[]).await;
            let kill = if kill.ends_with(' ') { format!("{kill}{first}") } else { kill.replace('$', &first) };
            run(&other, &[&kill]).await.unwrap();
            // What follows comes before anybody would look whether the connection still works.
            if transaction {
                run(&sql, &["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"]).await.unwrap();
            }
            assert_ne!(ask_one(&sql, identity, &[]).await, first);
        }
        assert_eq!(ask_one(&sql, "SELECT count(*) FROM t", &[]).await, "2");
    }
}

/// An address of which somebody decides where it leads.
struct Balancer {
    port: u16,
    target: Arc<AtomicU16>,
}

impl Balancer {
    fn new(target: u16) -> Balancer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = listener.local_addr().expect("it listens").port();
        let target = Arc::new(AtomicU16::new(target));
        let shared = target.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let place = (Ipv4Addr::LOCALHOST, shared.load(Ordering::SeqCst));
                let Ok(server) = TcpStream::connect(place) else { continue };
                let halves =
                    [(client.try_clone(), server.try_clone()), (server.try_clone(), client.try_clone())];
                for (from, to) in halves {
                    let (Ok(mut from), Ok(mut to)) = (from, to) else { continue };
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        Balancer { port, target }
    }
}

/// Changes go on where the address leads once its old server may only be read.
async fn goes_where_it_can_write(old: &Server, new: &Server, dsn: &str, user: &str, read_only: &[&str]) {
    let balancer = Balancer::new(old.port);
    let through = dsn.replace(&format!("port={}", old.port), &format!("port={}", balancer.port));
    for place in [dsn.to_owned(), dsn.replace(&format!("port={}", old.port), &format!("port={}", new.port))] {
        run(&open(&place), &["CREATE TABLE t (n INT)"]).await.expect("it works");
    }
    let sql = open_as(&through, user);
    run(&sql, &["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (2)"]).await.expect("it works");
    for change in read_only {
        run(&open(dsn), &[change]).await.expect("it works");
    }
    // The daemon's own connection has to know of it before the address leads elsewhere.
    let until = soon();
    while run(&sql, &["INSERT INTO t VALUES (3)"]).await.is_ok() {
        assert!(Instant::now() < until.deadline(), "the old server can still be written to");
    }
    balancer.target.store(new.port, Ordering::SeqCst);
    run(&sql, &["INSERT INTO t VALUES (4)"]).await.expect("it works");
    run(&sql, &["INSERT INTO t VALUES (5)", "INSERT INTO t VALUES (6)"]).await.expect("it works");
    assert_eq!(ask_one(&sql, "SELECT min(n), count(*) FROM t", &[]).await, "4 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_mariadb_that_may_only_be_read_is_left() {
    let (old, new) = (mariadb::start(), mariadb::start());
    drop((plain_user_of(&old).await, plain_user_of(&new).await));
    goes_where_it_can_write(&old, &new, &mariadb::dsn(&old), "plain", &["SET GLOBAL read_only = 1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_postgres_that_may_only_be_read_is_left() {
    let (old, new) = (postgres::start(), postgres::start());
    let changes = ["ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"];
    goes_where_it_can_write(&old, &new, &postgres::dsn(&old), NAME, &changes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_may_give_each_transaction_another_connection() {
    let server = postgres::start();
    let direct = open(&postgres::dsn(&server));
    run(&direct, &["CREATE TYPE mood AS ENUM ('sad', 'ok')"]).await.unwrap();
    run(&direct, &["CREATE TABLE t (k TEXT PRIMARY KEY, n INT, m mood, a INET)"]).await.unwrap();
    let pooler = pgbouncer::start(&server, 2);
    // As two daemons have it, or one that is started again.
    let dsn = postgres::dsn(&server).replace(&server.port.to_string(), &pooler.port.to_string());
    let daemons = [open(&dsn), open(&dsn), open(&dsn)];
    let upsert = "INSERT INTO t VALUES (?, 1, 'ok', '192.0.2.1') ON CONFLICT (k) DO UPDATE SET n = t.n + 1";
    let jobs = (0..60).map(|job| {
        let sql = daemons[job % daemons.len()].clone();
        tokio::spawn(async move {
            let key = format!("k{job}");
            let work = Work {
                statements: vec![statement(upsert, &[&key]), statement(upsert, &[&key])],
                lock: Some("a lock".to_owned()),
                durable: true,
            };
            sql.run(work, soon()).await.unwrap_or_else(|error| panic!("{error}"));
            for (query, answer) in [
                ("SELECT k FROM t WHERE k = ?".to_owned(), key.clone()),
                (format!("SELECT n, k, {} FROM t WHERE k = ?", job % 7), format!("2 {key} {}", job % 7)),
                ("SELECT m, a FROM t WHERE k = ? AND m = 'ok'".to_owned(), "ok 192.0.2.1".to_owned()),
                ("SELECT k, m FROM t WHERE m = ? ORDER BY k LIMIT 0".to_owned(), String::new()),
            ] {
                if answer.is_empty() {
                    assert_eq!(ask(&sql, &query, &["ok"]).await, Ok(vec![]), "{query}");
                } else {
                    assert_eq!(ask_one(&sql, &query, &[&key]).await, answer, "{query}");
                }
            }
        })
    });
    for job in jobs.collect::<Vec<_>>() {
        job.await.unwrap();
    }
    let left = ask_one(&daemons[0], "SELECT count(*) FROM pg_prepared_statements", &[]).await;
    // That of the question itself, while it is found out how to ask it, is gone too.
    assert_eq!(left, "0");
}

/// More works at once than the server lets their user have connections.
async fn fewer_connections_than_wanted(dsn: &str) {
    let sql = Sql::new("db", SqlSettings { max_connections: 10, ..settings(dsn, "few") });
    let sql = Arc::new(sql.expect("the settings are good"));
    for _ in 0..3 {
        let works = (0..12).map(|_| {
            let sql = sql.clone();
            tokio::spawn(async move { ask(&sql, "SELECT 1", &[]).await })
        });
        for work in works.collect::<Vec<_>>() {
            assert_eq!(work.await.expect("no panic"), Ok(vec![vec![Some("1".to_owned())]]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_few_connections_has_them_shared() {
    let (maria, postgres) = (mariadb::start(), postgres::start());
    let dsn = mariadb::dsn(&maria);
    let user = "CREATE USER few@'%' IDENTIFIED BY 'few' WITH MAX_USER_CONNECTIONS 4";
    let root = root_of(&maria);
    run(&root, &[user]).await.unwrap();
    run(&root, &["GRANT ALL ON mtpolicyd.* TO few@'%'"]).await.unwrap();
    fewer_connections_than_wanted(&dsn).await;
    let dsn = postgres::dsn(&postgres);
    let role = "CREATE ROLE few LOGIN PASSWORD 'few' CONNECTION LIMIT 4";
    run(&open(&dsn), &[role]).await.unwrap();
    fewer_connections_than_wanted(&dsn).await;
}
