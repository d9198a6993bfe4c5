//! Redis: a server, a master that sentinels know, a cluster; what becomes of calls when one dies, freezes
//! or moves.
//!
//! Knows: real servers. Must not know: what the values are for.

use crate::keyvalue::behaves;
use crate::support::servers::certificates::Certificates;
use crate::support::servers::{Server, redis};
use crate::support::{PATIENCE, eventually, eventually_async, free_port};
use backends::keyvalue::{Redis, RedisServer, RedisSettings, Script, Store};
use backends::{BackendError, Call, Failure, Secret};
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long one call may take, unless a test is about that: tests share a machine with builds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long a value lives that is to outlive a test.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// What is not about waiting for anybody.
pub(super) fn settings(server: RedisServer) -> RedisSettings {
    RedisSettings {
        server,
        user: None,
        password: None,
        db: 0,
        prefix: String::new(),
        timeout: TIMEOUT,
        // Most of what happens here is about servers that stay away.
        failover_wait: Duration::ZERO,
        tls: false,
        tls_ca: None,
        identity: None,
    }
}

pub(super) fn tcp(server: &Server) -> RedisSettings {
    settings(RedisServer::Tcp(at(server.port)))
}

pub(super) fn at(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

pub(super) fn open(settings: RedisSettings) -> Arc<Redis> {
    Arc::new(Redis::new("shared", settings).expect("the settings are right"))
}

fn soon() -> Call<'static> {
    Call::within(TIMEOUT)
}

/// What every store does, and scripts.
async fn does_what_a_store_does(redis: &Arc<Redis>) -> Result<(), BackendError> {
    redis.ping(soon()).await?;
    behaves(&Store::Redis(redis.clone())).await;
    redis.set(b"new", b"other", LONG, soon()).await?;
    let script = Script::once("return {KEYS[1], ARGV[1], 7, false, redis.call('GET', KEYS[1])}");
    let texts = redis.eval(&script, &[b"new".to_vec()], &[b"\xfe".to_vec()], soon()).await?;
    assert_eq!(texts, [&b"new"[..], b"\xfe", b"7", b"", b"other"]);
    Ok(())
}

/// Calls until one succeeds.
async fn comes_back(redis: &Redis) {
    let until = Instant::now() + PATIENCE;
    while let Err(error) = redis.set(b"is", b"back", LONG, soon()).await {
        assert!(Instant::now() < until, "{error}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a server is `master` or `slave`. On a change sentinels have all clients hung up on.
pub(super) fn has_role(server: &Server, role: &str) -> Option<()> {
    redis::try_command(server.port, &["ROLE"])?.contains(role).then_some(())
}

#[track_caller]
fn is_down(error: &BackendError) {
    assert!(matches!(error.failure, Failure::Down(_)), "{error}");
}

#[tokio::test]
async fn a_server_with_a_password_and_a_database() {
    let server = redis::start_with(&["--requirepass", "se cret"]);
    let with = RedisSettings { password: Some(Secret("se cret".to_owned())), db: 3, ..tcp(&server) };
    let in_3 = open(with.clone());
    does_what_a_store_does(&in_3).await.unwrap();
    let in_0 = open(RedisSettings { db: 0, ..with.clone() });
    assert_eq!(in_0.get(b"new", soon()).await.unwrap(), None);
    let user = open(RedisSettings { user: Some("default".to_owned()), ..with.clone() });
    assert_eq!(user.get(b"new", soon()).await.unwrap(), Some(b"other".to_vec()));
    for (password, complaint) in [(None, "NOAUTH"), (Some("wr0ng"), "WRONGPASS")] {
        let password = password.map(|password| Secret(password.to_owned()));
        let error = open(RedisSettings { password, ..with.clone() }).ping(soon()).await.unwrap_err();
        let Failure::Refused(text) = &error.failure else { panic!("{error}") };
        assert!(text.contains(complaint) && !text.contains("wr0ng"), "{text}");
    }
    let error = open(RedisSettings { db: 99, ..with }).ping(soon()).await.unwrap_err();
    assert!(error.to_string().contains("DB index"), "{error}");
}

#[tokio::test]
async fn a_unix_socket() {
    let server = redis::start();
    let path = server.path("redis.sock").display().to_string();
    does_what_a_store_does(&open(settings(RedisServer::Unix(path)))).await.unwrap();
    let error = open(settings(RedisServer::Unix("/nowhere/redis.sock".to_owned()))).ping(soon()).await;
    is_down(&error.unwrap_err());
}

#[tokio::test]
async fn an_encrypted_connection_to_a_server_that_is_trusted() {
    let certificates = Certificates::new();
    let file = |path: &Path| path.display().to_string();
    let port = free_port();
    let (certificate, key) = (file(&certificates.certificate()), file(&certificates.key()));
    let authority = file(&certificates.authority());
    let options = ["--tls-port", &port.to_string(), "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let server = redis::start_with(&[&options[..], &["--tls-auth-clients", "no"]].concat());
    let with = |tls_ca: &Path| RedisSettings {
        tls: true,
        tls_ca: Some(file(tls_ca)),
        ..settings(RedisServer::Tcp(format!("localhost:{port}")))
    };
    does_what_a_store_does(&open(with(Path::new(&authority)))).await.unwrap();
    let stranger = Certificates::new();
    let error = open(with(&stranger.authority())).ping(soon()).await.unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    // Nor is a server that does not encrypt taken for one that does.
    let timeout = Duration::from_millis(200);
    let plain = RedisServer::Tcp(at(server.port));
    let plain = open(RedisSettings { server: plain, timeout, ..with(Path::new(&authority)) });
    plain.ping(soon()).await.unwrap_err();
}

#[tokio::test]
async fn errors_of_the_server_are_told() {
    let server = redis::start();
    let redis = open(tcp(&server));
    redis::command(server.port, &["RPUSH", "list", "a"]);
    let error = redis.get(b"list", soon()).await.unwrap_err();
    assert!(matches!(&error.failure, Failure::Refused(text) if text.contains("WRONGTYPE")), "{error}");
    redis.set(b"text", b"x", LONG, soon()).await.unwrap();
    let error = redis.increment(b"text", LONG, soon()).await.unwrap_err();
    assert!(error.to_string().contains("not an integer"), "{error}");
    let error = redis.eval(&Script::once("return redis.call('NO')"), &[], &[], soon()).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Refused(_)), "{error}");
    // What the server refuses does not make it dead.
    redis.ping(soon()).await.unwrap();
    redis::command(server.port, &["REPLICAOF", "127.0.0.1", "1"]);
    let error = redis.set(b"text", b"y", LONG, soon()).await.unwrap_err();
    assert!(error.to_string().contains("READONLY"), "{error}");
    redis::command(server.port, &["REPLICAOF", "NO", "ONE"]);
    redis.set(b"text", b"y", LONG, soon()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_only_runs_a_script_is_down() {
    let server = redis::start_with(&["--busy-reply-threshold", "50"]);
    let redis = open(tcp(&server));
    redis.ping(soon()).await.unwrap();
    let mut other = TcpStream::connect(at(server.port)).unwrap();
    other.write_all(b"EVAL 'while true do end' 0\r\n").unwrap();
    // Until the script has begun, and has run for long enough, it answers.
    let until = Instant::now() + PATIENCE;
    let error = loop {
        match redis.get(b"key", soon()).await {
            Err(error) => break error,
            Ok(_) => assert!(Instant::now() < until, "it is not busy"),
        }
        sleep(Duration::from_millis(10)).await;
    };
    assert!(error.to_string().contains("down: BUSY"), "{error}");
    redis::command(server.port, &["SCRIPT", "KILL"]);
    comes_back(&redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_a_connection_and_count_right() {
    let server = redis::start();
    let redis = open(tcp(&server));
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let redis = redis.clone();
            tokio::spawn(async move { redis.increment(b"count", LONG, soon()).await.unwrap() })
        })
        .collect();
    let mut counts = Vec::new();
    for caller in callers {
        counts.push(caller.await.unwrap());
    }
    counts.sort_unstable();
    assert_eq!(counts, (1..=100).collect::<Vec<u64>>());
    let clients = redis::command(server.port, &["INFO", "clients"]);
    // One more is that of the question.
    assert!(clients.contains("connected_clients:2\r\n"), "{clients}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_noticed_before_the_next_call() {
    let mut server = redis::start();
    let redis = open(tcp(&server));
    redis.set(b"key", b"value", LONG, soon()).await.unwrap();
    tokio::task::block_in_place(|| server.restart());
    // A call that must not be repeated, on a connection that has been closed meanwhile.
    assert_eq!(redis.increment(b"count", LONG, soon()).await.unwrap(), 1);
}

#[tokio::test]
async fn a_dead_server_delays_nobody_and_is_used_again() {
    let mut server = redis::start();
    let redis = open(tcp(&server));
    redis.ping(soon()).await.unwrap();
    server.stop();
    for _ in 0..100 {
        is_down(&redis.get(b"key", soon()).await.unwrap_err());
    }
    server.start();
    comes_back(&redis).await;
    // Also when nobody has ever reached it.
    let other = open(tcp(&server));
    server.stop();
    is_down(&other.ping(soon()).await.unwrap_err());
    server.start();
    comes_back(&other).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_increment_is_counted_twice_when_the_server_dies_under_load() {
    let mut server = redis::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let redis = open(tcp(&server));
    let until = Instant::now() + Duration::from_secs(3);
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let redis = redis.clone();
            tokio::spawn(async move {
                let (mut counted, mut unsure) = (0, 0);
                while Instant::now() < until {
                    match redis.increment(b"count", LONG, soon()).await {
                        Ok(_) => counted += 1,
                        Err(error) if error.to_string().contains("before the reply") => unsure += 1,
                        Err(_) => sleep(Duration::from_millis(5)).await,
                    }
                }
                (counted, unsure)
            })
        })
        .collect();
    for _ in 0..2 {
        sleep(Duration::from_millis(500)).await;
        tokio::task::block_in_place(|| server.restart());
    }
    let (mut counted, mut unsure) = (0, 0);
    for caller in callers {
        let (sure, perhaps) = caller.await.unwrap();
        (counted, unsure) = (counted + sure, unsure + perhaps);
    }
    comes_back(&redis).await;
    let there: u64 =
        String::from_utf8(redis.get(b"count", soon()).await.unwrap().unwrap()).unwrap().parse().unwrap();
    assert!(counted > 100 && (counted..=counted + unsure).contains(&there), "{counted} {unsure} {there}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_gives_nobody_the_reply_of_another() {
    const SHORT: Duration = Duration::from_millis(200);
    let server = redis::start();
    let redis = open(RedisSettings { timeout: SHORT, ..tcp(&server) });
    for number in 0..50_u8 {
        redis.set(&[b'k', number], &[number], LONG, soon()).await.unwrap();
    }
    for _ in 0..3 {
        server.freeze();
        let callers: Vec<_> = (0..50_u8)
            .map(|number| {
                let redis = redis.clone();
                tokio::spawn(async move { redis.get(&[b'k', number], soon()).await })
            })
            .collect();
        for caller in callers {
            let error = caller.await.unwrap().unwrap_err();
            assert!(!matches!(error.failure, Failure::Refused(_)), "{error}");
        }
        server.thaw();
        comes_back(&redis).await;
        for number in 0..50_u8 {
            assert_eq!(redis.get(&[b'k', number], soon()).await.unwrap(), Some(vec![number]));
        }
    }
    // While it is known to be down, nobody waits.
    server.freeze();
    eventually_async("it is known to be down", async || {
        matches!(redis.ping(soon()).await.unwrap_err().failure, Failure::Down(_)).then_some(())
    })
    .await;
    is_down(&redis.ping(soon()).await.unwrap_err());
    server.thaw();
    comes_back(&redis).await;
}

pub(super) fn sentinels_of(sentinels: Vec<String>, service: &str) -> RedisServer {
    RedisServer::Sentinel { sentinels, service: service.to_owned(), user: None, password: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_lead_to_the_master_and_to_its_successor() {
    let mut master = redis::start();
    let replica = redis::start_replica(&master);
    let sentinel = redis::start_sentinel("mail", &master, 1);
    // One that is gone is not a hindrance.
    let sentinels = vec![at(free_port()), at(sentinel.port)];
    let redis = open(settings(sentinels_of(sentinels, "mail")));
    does_what_a_store_does(&redis).await.unwrap();
    assert!(redis::command(master.port, &["GET", "new"]).contains("other"));
    tokio::task::block_in_place(|| master.stop());
    is_down(&redis.increment(b"count", LONG, soon()).await.unwrap_err());
    tokio::task::block_in_place(|| {
        eventually("the replica is the master", || has_role(&replica, "master"));
    });
    comes_back(&redis).await;
    assert!(redis::command(replica.port, &["GET", "is"]).contains("back"));
    let unknown = sentinels_of(vec![at(sentinel.port)], "none");
    let error = open(settings(unknown)).ping(soon()).await.unwrap_err();
    assert!(error.to_string().contains("does not know the service none"), "{error}");
    // A sentinel may want a password of its own.
    redis::command(sentinel.port, &["ACL", "SETUSER", "default", "resetpass", ">sesame"]);
    let with = |password: Option<&str>| RedisServer::Sentinel {
        sentinels: vec![at(sentinel.port)],
        service: "mail".to_owned(),
        user: None,
        password: password.map(|password| Secret(password.to_owned())),
    };
    let error = open(settings(with(None))).ping(soon()).await.unwrap_err();
    assert!(error.to_string().contains("NOAUTH"), "{error}");
    open(settings(with(Some("sesame")))).ping(soon()).await.unwrap();
}

#[tokio::test]
async fn a_master_that_became_a_replica_is_left() {
    let master = redis::start();
    let replica = redis::start_replica(&master);
    let sentinel = redis::start_sentinel("mail", &master, 1);
    let redis = open(settings(sentinels_of(vec![at(sentinel.port)], "mail")));
    redis.ping(soon()).await.unwrap();
    eventually("the sentinel begins", || {
        redis::command(sentinel.port, &["SENTINEL", "FAILOVER", "mail"]).starts_with("+OK").then_some(())
    });
    eventually("the master is a replica", || has_role(&master, "slave"));
    comes_back(&redis).await;
    assert!(redis::command(replica.port, &["GET", "is"]).contains("back"));
}

pub(super) fn cluster(servers: &[Server]) -> RedisSettings {
    // The first name leads nowhere.
    let nodes = std::iter::once(at(free_port())).chain(servers.iter().map(|server| at(server.port)));
    settings(RedisServer::Cluster(nodes.collect()))
}

#[tokio::test]
async fn a_cluster_has_every_key_on_its_server() {
    let servers = redis::start_cluster();
    let redis = open(cluster(&servers));
    does_what_a_store_does(&redis).await.unwrap();
    for number in 0..100_u8 {
        redis.set(&[b'k', number], &[number], LONG, soon()).await.unwrap();
    }
    for number in 0..100_u8 {
        assert_eq!(redis.get(&[b'k', number], soon()).await.unwrap(), Some(vec![number]));
    }
    for server in &servers {
        assert!(!redis::command(server.port, &["DBSIZE"]).starts_with(":0\r\n"));
    }
    let (one, two) = (Script::once("return 1"), [b"a".to_vec(), b"b".to_vec()]);
    let error = redis.eval(&one, &two, &[], soon()).await.unwrap_err();
    assert!(error.to_string().contains("CROSSSLOT"), "{error}");
    // A client that takes it for a single server is told what it is.
    let error = open(tcp(&servers[0])).get(b"a", soon()).await.unwrap_err();
    assert!(error.to_string().contains("`cluster`"), "{error}");
}

/// The slot of the key `foo`, which the third server has at first.
pub(super) const SLOT: &str = "12182";

/// From now on its keys may be at either of two servers. Returns the id of the second.
pub(super) fn begin_to_move_the_slot(from: &Server, to: &Server) -> String {
    let id = |server: &Server| {
        let reply = redis::command(server.port, &["CLUSTER", "MYID"]);
        reply.lines().nth(1).expect("it has an id").to_owned()
    };
    let to_id = id(to);
    redis::command(to.port, &["CLUSTER", "SETSLOT", SLOT, "IMPORTING", &id(from)]);
    redis::command(from.port, &["CLUSTER", "SETSLOT", SLOT, "MIGRATING", &to_id]);
    to_id
}

#[tokio::test]
async fn a_key_is_followed_while_it_moves() {
    let servers = redis::start_cluster();
    let redis = open(cluster(&servers));
    redis.set(b"foo", b"value", LONG, soon()).await.unwrap();
    let [to, _, from] = &servers;
    let to_id = begin_to_move_the_slot(from, to);
    assert_eq!(redis.get(b"foo", soon()).await.unwrap(), Some(b"value".to_vec()));
    let moved =
        redis::command(from.port, &["MIGRATE", "127.0.0.1", &to.port.to_string(), "foo", "0", "5000"]);
    assert!(moved.starts_with("+OK"), "{moved}");
    // The old server says ASK until all have agreed, then MOVED.
    assert_eq!(redis.get(b"foo", soon()).await.unwrap(), Some(b"value".to_vec()));
    assert_eq!(redis.increment(b"{foo}count", LONG, soon()).await.unwrap(), 1);
    for server in [to, from, &servers[1]] {
        redis::command(server.port, &["CLUSTER", "SETSLOT", SLOT, "NODE", &to_id]);
    }
    assert_eq!(redis.get(b"foo", soon()).await.unwrap(), Some(b"value".to_vec()));
    assert_eq!(redis.increment(b"{foo}count", LONG, soon()).await.unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_a_cluster_dies_and_comes_back() {
    let mut servers = redis::start_cluster();
    let redis = open(RedisSettings { timeout: Duration::from_millis(500), ..cluster(&servers) });
    redis.set(b"foo", b"value", LONG, soon()).await.unwrap();
    servers[2].freeze();
    redis.get(b"foo", soon()).await.unwrap_err();
    servers[2].thaw();
    comes_back(&redis).await;
    tokio::task::block_in_place(|| servers[2].stop());
    is_down(&redis.get(b"foo", soon()).await.unwrap_err());
    tokio::task::block_in_place(|| servers[2].start());
    let until = Instant::now() + Duration::from_secs(15);
    while let Err(error) = redis.increment(b"{foo}count", LONG, soon()).await {
        assert!(Instant::now() < until, "{error}");
        sleep(Duration::from_millis(20)).await;
    }
    redis.get(b"foo", soon()).await.unwrap();
}

/// A server that repeats what the third one does, and takes its place when it dies.
pub(super) fn replica_of_third(servers: &[Server; 3]) -> Server {
    let bus = free_port().to_string();
    let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1000"];
    let replica = redis::start_with(&options);
    let said =
        |port, words: &[&str], wanted: &str| redis::command(port, words).contains(wanted).then_some(());
    let (third, own) = (servers[2].port.to_string(), replica.port);
    let nodes = redis::command(servers[2].port, &["CLUSTER", "NODES"]);
    let (id, place) = nodes
        .lines()
        .find_map(|line| line.contains("myself").then(|| line.split_once(' ')).flatten())
        .expect("it names itself");
    let bus_of_third = place.split(['@', ' ', ',']).nth(1).expect("it names its bus");
    redis::command(own, &["CLUSTER", "MEET", "127.0.0.1", &third, bus_of_third]);
    eventually("the replica knows all", || said(own, &["CLUSTER", "INFO"], "cluster_known_nodes:4"));
    eventually("it may follow", || said(own, &["CLUSTER", "REPLICATE", id], "+OK"));
    eventually("it follows", || said(own, &["INFO", "replication"], "master_link_status:up"));
    for server in servers {
        eventually("all know it", || said(server.port, &["CLUSTER", "NODES"], " slave "));
    }
    replica
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_in_a_cluster_takes_over() {
    let mut servers = redis::start_cluster();
    let replica = tokio::task::block_in_place(|| replica_of_third(&servers));
    let redis = open(cluster(&servers));
    redis.set(b"foo", b"value", LONG, soon()).await.unwrap();
    tokio::task::block_in_place(|| {
        // A master answers before its replica knows.
        let has_it = || redis::command(replica.port, &["DBSIZE"]).starts_with(":1").then_some(());
        eventually("the replica has the value", has_it);
        servers[2].stop();
        eventually("the replica is the master", || has_role(&replica, "master"));
    });
    let until = Instant::now() + PATIENCE;
    loop {
        match redis.get(b"foo", soon()).await {
            Ok(value) => break assert_eq!(value, Some(b"value".to_vec())),
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(redis.increment(b"{foo}count", LONG, soon()).await.unwrap(), 1);
}
