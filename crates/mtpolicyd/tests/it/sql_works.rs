//! Works of PostgreSQL: one message each, whatever becomes of the daemon meanwhile.

use crate::support::servers::{Server, postgres};
use backends::sql::{Durability, Output, Param, Sql, SqlSettings, Statement, Work};
use backends::{BackendError, Call, Failure, Secret};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

const NAME: &str = postgres::NAME;

fn open(dsn: &str) -> Arc<Sql> {
    let settings = SqlSettings {
        dsn: dsn.to_owned(),
        user: NAME.to_owned(),
        password: Secret(NAME.to_owned()),
        timeout: Duration::from_secs(30),
        max_connections: 4,
        durability: Durability::Full,
        tls_ca: None,
        identity: None,
    };
    Arc::new(Sql::new("db", settings).expect("the settings are good"))
}

fn soon() -> Call<'static> {
    Call::within(Duration::from_secs(30))
}

fn statement(sql: &str, params: &[&str]) -> Statement {
    let params = params.iter().map(|param| Param::Text((*param).to_owned())).collect();
    Statement { sql: sql.into(), params }
}

fn work(statements: Vec<Statement>, lock: Option<&str>, durable: bool) -> Work {
    Work { statements, lock: lock.map(str::to_owned), durable }
}

async fn run(sql: &Sql, text: &str, params: &[&str]) -> Output {
    let done = sql.run(work(vec![statement(text, params)], None, true), soon()).await;
    done.unwrap_or_else(|error| panic!("{text}: {error}")).remove(0)
}

async fn ask(sql: &Sql, text: &str, params: &[&str]) -> String {
    let rows = sql.query(statement(text, params), soon()).await;
    let row = rows.unwrap_or_else(|error| panic!("{text}: {error}")).remove(0);
    row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" ")
}

/// A way to the server on which what a client says arrives, and what the server answers does not once the
/// connection is ready: so does the server see a daemon that is stopped.
fn deaf_way(server: &Server) -> u16 {
    let (listener, target) = (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"), server.port);
    let port = listener.local_addr().expect("it listens").port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
            let (Ok(mut from), Ok(mut to)) = (client.try_clone(), server.try_clone()) else { continue };
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || hears_until_the_work(server, client));
        }
    });
    port
}

/// Passes on what the server says until it speaks of a lock, and nothing after that.
fn hears_until_the_work(mut server: TcpStream, mut client: TcpStream) {
    use std::io::{Read, Write};
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let said = &buffer[..count];
        if said.windows(21).any(|part| part == b"pg_advisory_xact_lock") {
            // It stays open.
            std::thread::park();
        }
        if client.write_all(said).is_err() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_stopped_in_the_middle_of_a_work_holds_no_lock() {
    let server = postgres::start();
    let direct = open(&postgres::dsn(&server));
    run(&direct, "CREATE TABLE t (who TEXT)", &[]).await;
    let way = deaf_way(&server);
    let stopped =
        open(&postgres::dsn(&server).replace(&format!("port={}", server.port), &format!("port={way}")));
    let of = |who: &str| {
        let insert = |part: &str| statement("INSERT INTO t VALUES (?)", &[&format!("{who} {part}")]);
        work(vec![insert("first"), insert("second")], Some("a key"), true)
    };
    let never_hears = tokio::spawn({
        let work = of("stopped");
        async move { stopped.run(work, Call::within(Duration::from_secs(3600))).await }
    });
    // Its work is done all the same, and no other waits for it.
    while ask(&direct, "SELECT count(*) FROM t", &[]).await == "0" {
        assert!(!never_hears.is_finished(), "it was told");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    direct.run(of("other"), soon()).await.expect("the lock is free");
    let all = ask(&direct, "SELECT string_agg(who, ', ') FROM t", &[]).await;
    assert_eq!(all, "stopped first, stopped second, other first, other second");
    never_hears.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_need_not_be_durable_does_not_wait_for_the_disk() {
    let server = postgres::start();
    let sql = open(&postgres::dsn(&server));
    for durable in [true, false, true] {
        let setting = statement("SELECT current_setting('synchronous_commit')", &[]);
        for lock in [None, Some("a key")] {
            let outputs = sql.run(work(vec![setting.clone()], lock, durable), soon()).await.unwrap();
            let expected = if durable { "on" } else { "off" };
            assert_eq!(outputs[0].rows, [[Some(expected.to_owned())]], "{durable} {lock:?}");
            assert_eq!(outputs.len(), 1);
        }
    }
}

/// Values that would end a text, or begin something else, if they were written into a statement as they are.
const VALUES: [&str; 14] = [
    "",
    "'",
    "''",
    "\\",
    "\\'",
    "\\\\'; DROP TABLE t; --",
    "'; DROP TABLE t; --",
    "$$ $1 ? ??",
    "/* -- \" */",
    "E'\\x27'",
    "\n\r\t\u{1}",
    "\u{20ac} \u{1f600} \u{2019} \u{5c}\u{27}",
    "\\u0027 \\047 \\x27",
    "%27 &#39;",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_a_value_whatever_is_in_it() {
    for settings in [&["standard_conforming_strings=on"][..], &["standard_conforming_strings=off"]] {
        let server = postgres::start_with(settings);
        let sql = open(&postgres::dsn(&server));
        run(&sql, "CREATE TABLE t (n INT, v TEXT)", &[]).await;
        for (n, value) in VALUES.iter().enumerate() {
            let number = n.to_string();
            // Beside one another, as a value that does not end would spoil the next.
            let insert = "INSERT INTO t VALUES (?, ?), (? + 100, ?)";
            run(&sql, insert, &[&number, value, &number, value]).await;
            let found = run(&sql, "SELECT v FROM t WHERE v = ? AND n = ?", &[value, &number]).await;
            assert_eq!(found.rows, [[Some((*value).to_owned())]], "{value:?}");
            // Asked in another way, with the value apart from the statement.
            assert_eq!(ask(&sql, "SELECT count(*) FROM t WHERE v = ?", &[value]).await, "2", "{value:?}");
        }
        let nothing =
            Statement { sql: "SELECT ? IS NULL, ?".into(), params: vec![Param::Null, Param::Integer(-7)] };
        let outputs = sql.run(work(vec![nothing], None, true), soon()).await.unwrap();
        assert_eq!(outputs[0].rows, [["t", "-7"].map(|value| Some(value.to_owned()))]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_middle_undoes_the_work_and_the_connection_goes_on() {
    let server = postgres::start();
    let sql = open(&postgres::dsn(&server));
    run(&sql, "CREATE TABLE t (n INT PRIMARY KEY)", &[]).await;
    let identity = ask(&sql, "SELECT pg_backend_pid()", &[]).await;
    let insert = |n: &str| statement("INSERT INTO t VALUES (?)", &[n]);
    for lock in [None, Some("a key")] {
        let failing = work(vec![insert("1"), insert("nonsense"), insert("2")], lock, false);
        let failed: Result<Vec<Output>, BackendError> = sql.run(failing, soon()).await;
        assert!(failed.unwrap_err().to_string().contains("nonsense"));
        assert_eq!(ask(&sql, "SELECT count(*) FROM t", &[]).await, "0");
    }
    let wrong = sql.run(work(vec![statement("SELECT ?", &["1", "2"])], None, true), soon()).await;
    assert!(wrong.unwrap_err().to_string().contains("1 parameters"));
    assert_eq!(ask(&sql, "SELECT pg_backend_pid()", &[]).await, identity, "the same connection");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_several_servers_that_can_be_written_to_is_used_under_the_name_that_is_said() {
    let (standby, primary) = (postgres::start_with(&["default_transaction_read_only=on"]), postgres::start());
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let dsn = format!(
        "dbi:Pg:dbname={NAME};host=127.0.0.1,127.0.0.1,127.0.0.1;port={free},{},{};\
         target_session_attrs=read-write;application_name=policy at mx1",
        standby.port, primary.port
    );
    let sql = open(&dsn.replace("policy at mx1", "'policy at mx1'"));
    let shown = "SELECT current_setting('port'), current_setting('application_name')";
    assert_eq!(ask(&sql, shown, &[]).await, format!("{} policy at mx1", primary.port));
    let usual = open(&postgres::dsn(&primary));
    assert_eq!(ask(&usual, "SELECT current_setting('application_name')", &[]).await, "mtpolicyd");
}

/// A way to the server that can break.
struct Way {
    port: u16,
    /// How many connections find nobody before the next one is passed on.
    refusals: Arc<AtomicUsize>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Way {
    fn to(server: &Server) -> Way {
        let (listener, target) =
            (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free"), server.port);
        let port = listener.local_addr().expect("it listens").port();
        let way = Way { port, refusals: Arc::default(), open: Arc::default() };
        let (refusals, open) = (way.refusals.clone(), way.open.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let left = refusals.load(Ordering::SeqCst);
                if left > 0 {
                    refusals.store(left - 1, Ordering::SeqCst);
                    continue;
                }
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                let halves = [(&client, &server), (&server, &client)];
                for (from, to) in halves {
                    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { continue };
                    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
                }
                open.lock().expect("no panic").push(client);
            }
        });
        way
    }

    /// Ends what is open, and lets this number of connections find nobody.
    fn fail(&self, refusals: usize) {
        self.refusals.store(refusals, Ordering::SeqCst);
        for connection in self.open.lock().expect("no panic").drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_just_gone_is_waited_for() {
    let server = postgres::start();
    let way = Way::to(&server);
    let dsn = postgres::dsn(&server).replace(&format!("port={}", server.port), &format!("port={}", way.port));
    let sql = open(&dsn);
    assert_eq!(ask(&sql, "SELECT 1", &[]).await, "1");
    way.fail(3);
    assert_eq!(ask(&sql, "SELECT 2", &[]).await, "2");
    assert_eq!(way.refusals.load(Ordering::SeqCst), 0);
    // One that has never answered is not: its name may be wrong.
    way.fail(2);
    let failed = open(&dsn).query(statement("SELECT 3", &[]), soon()).await;
    assert!(matches!(failed.unwrap_err().failure, Failure::Down(_)));
    assert_eq!(way.refusals.load(Ordering::SeqCst), 1, "one try was enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_waited_for_also_when_another_call_has_given_up() {
    let server = postgres::start();
    let way = Way::to(&server);
    let dsn = postgres::dsn(&server).replace(&format!("port={}", server.port), &format!("port={}", way.port));
    let sql = open(&dsn);
    assert_eq!(ask(&sql, "SELECT 1", &[]).await, "1");
    way.fail(usize::MAX);
    let short = Call::within(Duration::from_millis(300));
    sql.query(statement("SELECT 2", &[]), short).await.unwrap_err();
    let mut patient = pin!(ask(&sql, "SELECT 3", &[]));
    let told = patient.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(told.is_pending(), "{told:?}");
    way.fail(0);
    assert_eq!(patient.await, "3");
}
