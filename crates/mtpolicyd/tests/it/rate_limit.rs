//! RateLimit on stores that several daemons share: however the requests race, exactly as many pass.
//!
//! Knows: configurations, servers. Must not know: how counts are kept.

use crate::support::cutter::cut_at_first;
use crate::support::daemon::{Daemon, Site};
use crate::support::eventually;
use crate::support::servers::{Server, mariadb, postgres, redis};
use backends::Call;
use backends::Secret;
use backends::keyvalue::{Redis, RedisServer, RedisSettings};
use backends::sql::{Durability, Sql, SqlSettings};
use mtpolicyd::limits::redis::{SCRIPT, arguments, read};
use mtpolicyd::limits::{Algorithm, Counts, Demand, Rates, Rule, State, Table};
use mtpolicyd::value::Value;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

const CONFIG: &str = "\
request_timeout = 100
port = \"127.0.0.1:$PORT\"
<Connection shared>
  $CONNECTION
</Connection>
<VirtualHost $PORT>
  name = \"outgoing\"
  <Plugin limit>
    module = \"RateLimit\"
    key = \"sasl_username, client_address/24\"
    limit = \"$LIMIT\"
    algorithm = \"$ALGORITHM\"
    store = \"shared\"
    action = \"defer %COUNT% of %LIMIT%, %RETRY_AFTER%s\"
  </Plugin>
  <Plugin ok>
    module = \"Action\"
    action = \"OK\"
  </Plugin>
</VirtualHost>
";

/// A request of Bob's, from somewhere in his network.
fn of_bob(host: usize) -> String {
    format!("sasl_username=Bob\nclient_address=192.0.2.{host}")
}

fn daemon(connection: &str, algorithm: &'static str, limit: &'static str) -> Daemon {
    let mut site = Site::new();
    site.replace("$CONNECTION", connection);
    site.replace("$ALGORITHM", algorithm);
    site.replace("$LIMIT", limit);
    site.configure(CONFIG);
    site.start()
}

/// The answers to 100 requests at once, half of them to each of two daemons. The requests are numbered.
fn race(daemons: &[Daemon; 2], request: impl Fn(usize) -> String + Copy + Send + Sync) -> Vec<String> {
    /// Connections to all daemons.
    const CONNECTIONS: usize = 20;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CONNECTIONS)
            .map(|n| {
                let daemon = &daemons[n % 2];
                scope.spawn(move || {
                    let mut client = daemon.connect();
                    let numbers = (n..100).step_by(CONNECTIONS);
                    numbers.map(|number| client.ask(&request(number)).action()).collect::<Vec<_>>()
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("it got its answers")).collect()
    })
}

#[test]
fn a_crash_of_postgresql_loses_no_count() {
    // What is acknowledged before it is written is not written for a long time.
    let mut server = postgres::start_with(&["wal_writer_delay=10s"]);
    let (dsn, name) = (postgres::dsn(&server), postgres::NAME);
    let connection = format!("module = Sql\ndsn = \"{dsn}\"\nuser = {name}\npassword = {name}");
    let mut first = daemon(&connection, "window", "1/1h");
    assert_eq!(first.ask(&of_bob(1)).action(), "OK");
    assert!(first.terminate().success());
    server.restart();
    let second = daemon(&connection, "window", "1/1h");
    let answer = second.ask(&of_bob(2)).action();
    assert!(answer.starts_with("defer 1 of 1"), "{answer}");
}

fn exactly_so_many_pass(connection: &str) {
    for (algorithm, limit, passing) in [("window", "37/1h, 50/1d", 37), ("bucket", "70/1d", 70)] {
        let daemons = [daemon(connection, algorithm, limit), daemon(connection, algorithm, limit)];
        let answers = race(&daemons, of_bob);
        let passed = answers.iter().filter(|answer| *answer == "OK").count();
        assert_eq!(passed, passing, "{connection} {algorithm} {answers:?}");
        let refusal = format!("defer {passing} of {}, ", limit.split(',').next().unwrap_or(limit));
        assert!(answers.iter().all(|answer| answer == "OK" || answer.starts_with(&refusal)), "{answers:?}");
        let one_each = race(&daemons, |n| format!("sasl_username=user{n}\nclient_address=2001:db8::{n}"));
        assert!(one_each.iter().all(|answer| answer == "OK"), "{connection} {one_each:?}");
        let ended = |mut daemon: Daemon| {
            daemon.terminate();
            daemon.log()
        };
        let logs = daemons.map(ended).concat();
        for said in ["is at 80 % of", "has used up"] {
            let times = logs.matches(&format!("bob,192.0.2.0/24 {said} {passing}/1")).count();
            assert_eq!(times, 1, "{connection} {algorithm} {said}\n{logs}");
        }
    }
}

#[test]
fn daemons_share_a_redis() {
    let server = redis::start();
    exactly_so_many_pass(&format!("module = Redis\n server = \"127.0.0.1:{}\"", server.port));
}

#[test]
fn daemons_share_a_cluster() {
    let nodes = redis::start_cluster();
    exactly_so_many_pass(&format!("module = Redis\n cluster = \"127.0.0.1:{}\"", nodes[1].port));
}

#[test]
fn daemons_share_a_sqlite_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db");
    exactly_so_many_pass(&format!("module = Sql\n dsn = \"dbi:SQLite:dbname={}\"", file.display()));
}

fn database(dsn: &str, name: &str) -> String {
    format!("module = Sql\n dsn = \"{dsn}\"\n user = {name}\n password = {name}\n timeout = 90")
}

#[test]
fn daemons_share_a_postgres() {
    let server = postgres::start();
    exactly_so_many_pass(&database(&postgres::dsn(&server), postgres::NAME));
}

#[test]
fn daemons_share_a_mariadb() {
    let server = mariadb::start();
    exactly_so_many_pass(&database(&mariadb::dsn(&server), mariadb::NAME));
}

#[test]
fn in_redis_the_room_comes_back_by_its_own_time() {
    let server = redis::start();
    let connection = format!("module = Redis\n server = \"127.0.0.1:{}\"", server.port);
    let daemon = daemon(&connection, "window", "2/2s");
    let mut client = daemon.connect();
    let mut ask = || client.ask(&of_bob(1)).action();
    assert_eq!([ask(), ask()], ["OK", "OK"]);
    // A busy machine may take longer for three questions than the limit looks back.
    eventually("three questions within the window", || ask().starts_with("defer 2 of 2/2s, ").then_some(()));
    eventually("there is room again", || (ask() == "OK").then_some(()));
    drop(daemon);
    eventually("counts expire", || (redis::command(server.port, &["DBSIZE"]).trim() == ":0").then_some(()));
}

#[test]
fn without_the_store_on_error_decides() {
    let mut server = redis::start();
    let connection = format!("module = Redis\n server = \"127.0.0.1:{}\"", server.port);
    let mut site = Site::new();
    for (name, value) in [("$CONNECTION", &*connection), ("$ALGORITHM", "bucket"), ("$LIMIT", "1/1h")] {
        site.replace(name, value);
    }
    site.configure(&CONFIG.replace("store =", "on_error = defer\n store ="));
    let daemon = site.start();
    assert_eq!(daemon.ask(&of_bob(1)).action(), "OK");
    server.stop();
    assert!(daemon.ask(&of_bob(1)).action().starts_with("defer"), "{}", daemon.log());
    daemon.logged("plugin limit failed: connection shared: down");
    server.start();
    eventually("the store is in use again", || (daemon.ask(&of_bob(1)).action() == "OK").then_some(()));
}

/// Requests about one key: the limits, how much it counts, and when. Any will do, with a clock that jumps now
/// and then.
fn requests() -> impl Iterator<Item = (Vec<Rule>, u64, i64)> {
    let limits = ["5/1m, 12/10m", "7/1m burst 3, 30/10m", "0/1m burst 2", "1G/1w"];
    let limits = limits.map(|limit| Rates::parse(limit).expect("it can be read"));
    let mut now = 1_764_000_000_000_i64;
    (0..1000_i64).map(move |n| {
        let random = (n * 7919 + 13) % 1000;
        now += if random < 20 { -20_000 } else { random * random % 9000 };
        let algorithm = if random % 2 == 0 { Algorithm::Window } else { Algorithm::Bucket };
        let amount = if random % 10 == 0 { 123_456_789 } else { random % 4 + 1 };
        let rates = &limits[usize::try_from(random / 2).unwrap_or(0) % limits.len()];
        (rates.rules(algorithm), amount.unsigned_abs(), now)
    })
}

async fn decides_as_memory_does(dsn: String, name: &str) {
    let settings = SqlSettings {
        dsn,
        user: name.to_owned(),
        password: Secret(name.to_owned()),
        timeout: Duration::from_secs(20),
        max_connections: 1,
        durability: Durability::Full,
        tls_ca: None,
        identity: None,
    };
    let counts = Counts::Sql(Table::new(Arc::new(Sql::new("db", settings).expect("a source"))));
    let mut state = State::default();
    for (n, (rules, amount, now)) in requests().enumerate() {
        let demand = Demand { rules: &rules, amount, passes_anyway: n % 7 == 0 };
        let deadline = Call::within(Duration::from_secs(20));
        let taken = counts.take("limit:bob", demand, "", now, deadline).await.expect("an answer");
        assert_eq!(taken, state.take(demand, now), "request {n} at {now}");
    }
}

#[tokio::test]
async fn servers_decide_as_memory_does() {
    let server = postgres::start();
    decides_as_memory_does(postgres::dsn(&server), postgres::NAME).await;
    let server = mariadb::start();
    decides_as_memory_does(mariadb::dsn(&server), mariadb::NAME).await;
}

#[tokio::test]
async fn the_script_decides_as_memory_does() {
    let server = redis::start();
    let redis = redis_at(RedisServer::Tcp(format!("127.0.0.1:{}", server.port)));
    let mut state = State::default();
    for (n, (rules, amount, now)) in requests().enumerate() {
        let demand = Demand { rules: &rules, amount, passes_anyway: n % 7 == 0 };
        let deadline = Call::within(Duration::from_secs(20));
        let reply = redis.eval(&SCRIPT, &[b"k".to_vec()], &arguments(demand, now), deadline).await.unwrap();
        assert_eq!(read(&reply, demand).unwrap(), state.take(demand, now), "request {n} at {now}");
        assert_eq!(State::decode(&reply[2]), state, "request {n} at {now}");
    }
}

fn redis_at(server: RedisServer) -> Arc<Redis> {
    let settings = RedisSettings {
        server,
        user: None,
        password: None,
        db: 0,
        prefix: String::new(),
        timeout: Duration::from_secs(20),
        tls: false,
        tls_ca: None,
        failover_wait: Duration::from_secs(5),
        identity: None,
    };
    Arc::new(Redis::new("redis", settings).expect("the settings are good"))
}

/// How much was counted, and whether the request passes.
async fn take(counts: &Counts, key: &str, attempt: &str, passes_anyway: bool) -> (u64, bool) {
    let rules = Rates::parse("2/1h").expect("rates").rules(Algorithm::Window);
    let demand = Demand { rules: &rules, amount: 1, passes_anyway };
    let call = Call::within(Duration::from_secs(20));
    let taken = counts.take(key, demand, attempt, 0, call).await.expect("an answer");
    (taken.usage[0].count, taken.passed)
}

#[tokio::test]
async fn an_attempt_that_is_repeated_counts_once() {
    let nodes = redis::start_cluster();
    let alone = redis::start();
    let at = |server: &Server| format!("127.0.0.1:{}", server.port);
    for redis in [RedisServer::Cluster(nodes.iter().map(at).collect()), RedisServer::Tcp(at(&alone))] {
        let counts = Counts::Redis(redis_at(redis));
        for key in ["user:bob", "user:{bob}"] {
            for attempt in ["1", "1", "2", "2", "1"] {
                let count = if attempt == "1" { 1.. } else { 2.. };
                let (counted, passed) = take(&counts, key, attempt, false).await;
                assert!(passed && count.contains(&counted), "{key} {attempt} {counted}");
            }
            assert_eq!(take(&counts, key, "3", false).await, (2, false));
            assert_eq!(take(&counts, key, "3", false).await, (2, false), "it was not counted");
            // What passes anyway is told again what it was told.
            for _ in 0..2 {
                assert_eq!(take(&counts, key, "4", true).await, (3, false));
            }
            assert_eq!(take(&counts, key, "1", true).await, (3, false));
        }
    }
}

#[tokio::test]
async fn a_count_whose_reply_was_lost_counts_once() {
    let server = redis::start();
    let (port, executed) = cut_at_first(server.port, "mtpolicyd:limit");
    let counts = Counts::Redis(redis_at(RedisServer::Tcp(format!("127.0.0.1:{port}"))));
    assert_eq!(take(&counts, "user:bob", "1", false).await, (1, true));
    assert!(executed.load(Ordering::Relaxed) > 1, "it was executed again");
}
