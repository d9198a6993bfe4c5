//! Redis while a server is being replaced, slots are moved, replies are lost and servers are paused: what was
//! certainly not executed is repeated in time, and what nobody waits for any more is not executed.
//!
//! Knows: real servers. Must not know: what the values are for.

use crate::redis::{
    LONG, SLOT, at, begin_to_move_the_slot, cluster, has_role, open, replica_of_third, sentinels_of,
    settings, tcp,
};
use crate::support::cutter::cut_at_first;
use crate::support::servers::certificates::Certificates;
use crate::support::servers::{Server, redis};
use crate::support::{eventually, free_port};
use backends::keyvalue::{Lock, Locked, Redis, RedisServer, RedisSettings, Script, Version};
use backends::tls::Identity;
use backends::{Call, Failure};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::Instant;

/// How long a server is waited for: longer than any machine needs for a failover.
const PATIENT: Duration = Duration::from_secs(60);

fn patient() -> Call<'static> {
    Call::within(PATIENT)
}

fn waiting(settings: RedisSettings) -> Arc<Redis> {
    open(RedisSettings { failover_wait: PATIENT, ..settings })
}

/// Counts, after the server has been stopped. Until the client has noticed that, what it sends may be lost
/// without a reply: then nobody can say whether it was executed, so it is not sent again but by this test.
async fn increment(redis: &Redis, key: &[u8]) -> u64 {
    loop {
        match redis.increment(key, LONG, patient()).await {
            Ok(count) => return count,
            Err(error) => assert!(error.to_string().contains("broke before the reply"), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_waits_for_the_successor_of_a_master() {
    let mut master = redis::start();
    let replica = redis::start_replica(&master);
    let sentinel = redis::start_sentinel("mail", &master, 1);
    let redis = waiting(settings(sentinels_of(vec![at(sentinel.port)], "mail")));
    redis.ping(patient()).await.unwrap();
    tokio::task::block_in_place(|| master.stop());
    // Also one that must not be executed twice: nothing was sent.
    assert_eq!(increment(&redis, b"count").await, 1);
    tokio::task::block_in_place(|| has_role(&replica, "master").unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_waits_for_a_replica_in_a_cluster() {
    let mut servers = redis::start_cluster();
    let replica = tokio::task::block_in_place(|| replica_of_third(&servers));
    let redis = waiting(cluster(&servers));
    redis.set(b"foo", b"value", LONG, patient()).await.unwrap();
    tokio::task::block_in_place(|| {
        let has_it = || redis::command(replica.port, &["DBSIZE"]).starts_with(":1").then_some(());
        eventually("the replica has the value", has_it);
        servers[2].stop();
    });
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let redis = redis.clone();
            tokio::spawn(async move { increment(&redis, b"{foo}count").await })
        })
        .collect();
    let mut counts = Vec::new();
    for caller in callers {
        counts.push(caller.await.unwrap());
    }
    counts.sort_unstable();
    assert_eq!(counts, (1..=20).collect::<Vec<u64>>());
    assert_eq!(redis.get(b"foo", patient()).await.unwrap(), Some(b"value".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stays_away_delays_the_beginning_only() {
    let mut server = redis::start();
    let wait = Duration::from_secs(1);
    let redis = open(RedisSettings { failover_wait: wait, ..tcp(&server) });
    redis.ping(patient()).await.unwrap();
    tokio::task::block_in_place(|| server.stop());
    let waits_over = async {
        let error = redis.get(b"key", patient()).await.unwrap_err();
        assert!(matches!(error.failure, Failure::Down(_)), "{error}");
        Instant::now()
    };
    let begun = Instant::now();
    assert!(waits_over.await >= begun + wait, "the first one waits");
    // The others are told at once, as is whoever asks one that was never there, once it is known to be down.
    let other = waiting(tcp(&server));
    other.get(b"key", patient()).await.unwrap_err();
    for redis in [redis, other] {
        let told = pin!(redis.get(b"key", patient())).poll(&mut Context::from_waker(Waker::noop()));
        let Poll::Ready(Err(error)) = told else { panic!("it waits, or has an answer: {told:?}") };
        assert!(matches!(error.failure, Failure::Down(_)), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_is_sent_again_while_its_keys_are_on_the_move() {
    let servers = redis::start_cluster();
    let redis = waiting(cluster(&servers));
    redis.set(b"foo", b"value", LONG, patient()).await.unwrap();
    let [to, other, from] = &servers;
    let to_id = begin_to_move_the_slot(from, to);
    // One of its keys is there, the other nowhere: it may be at either server.
    let caller = tokio::spawn({
        let redis = redis.clone();
        let keys = [b"foo".to_vec(), b"{foo}new".to_vec()];
        let script = Script::once("return redis.call('INCR', KEYS[2])");
        async move { redis.eval(&script, &keys, &[], patient()).await }
    });
    tokio::task::block_in_place(|| {
        eventually("the servers say that it is to be sent again", || {
            (redis::errors(from.port, "TRYAGAIN") > 1).then_some(())
        });
        let port = to.port.to_string();
        let moved = redis::command(from.port, &["MIGRATE", "127.0.0.1", &port, "foo", "0", "5000"]);
        assert!(moved.starts_with("+OK"), "{moved}");
        for server in [to, from, other] {
            redis::command(server.port, &["CLUSTER", "SETSLOT", SLOT, "NODE", &to_id]);
        }
    });
    assert_eq!(caller.await.unwrap().unwrap(), [b"1".to_vec()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_takes_no_lock_when_it_wakes() {
    let server = redis::start();
    let redis = open(tcp(&server));
    // The first one shows what time it is there.
    redis.lock(b"known", b"me", LONG, patient()).await.unwrap();
    let before = redis::calls(server.port, "time");
    server.freeze();
    let call = Call::within(Duration::from_millis(200));
    redis.lock(b"late", b"me", LONG, call).await.unwrap_err();
    // What is known of the server's clock is no more exact than that.
    tokio::time::sleep_until(call.deadline() + Duration::from_millis(250)).await;
    server.thaw();
    tokio::task::block_in_place(|| {
        eventually("it executes what it was sent", || {
            (redis::calls(server.port, "time") > before).then_some(())
        });
        assert_eq!(redis::command(server.port, &["EXISTS", "lock_late"]), ":0\r\n");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_server_runs_no_script_that_was_given_up() {
    let server = redis::start();
    let redis = open(tcp(&server));
    let count = [
        Script::once("return redis.call('INCR', KEYS[1])"),
        Script::repeatable("return redis.call('INCR', KEYS[1]) * 1"),
    ];
    let key = [b"count".to_vec()];
    for _ in 0..50 {
        redis.eval(&count[0], &key, &[], patient()).await.unwrap();
    }
    let before = redis::calls(server.port, "time");
    server.freeze();
    let call = Call::within(Duration::from_millis(200));
    for script in &count {
        redis.eval(script, &key, &[], call).await.unwrap_err();
    }
    tokio::time::sleep_until(call.deadline() + Duration::from_millis(250)).await;
    server.thaw();
    tokio::task::block_in_place(|| {
        eventually("it executes what it was sent", || {
            (redis::calls(server.port, "time") > before).then_some(())
        });
    });
    assert_eq!(redis.get(b"count", patient()).await.unwrap(), Some(b"50".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_saved_before_a_pause_is_what_the_next_one_finds() {
    let server = redis::start();
    let (ours, theirs) = (open(tcp(&server)), open(tcp(&server)));
    let moment = Duration::from_millis(300);
    // What time it is there is shown by replies that come soon.
    for _ in 0..50 {
        theirs.lock(b"known", b"you", LONG, patient()).await.unwrap();
    }
    let lock = Lock { owner: b"me", version: Version::Unknown, before: None };
    // The server knows the script from then on.
    assert!(matches!(ours.lock(b"known", b"me", LONG, patient()).await.unwrap(), Locked::Theirs));
    assert!(!ours.set_and_unlock(b"known", b"saved", LONG, lock, patient()).await.unwrap());
    assert!(matches!(ours.lock(b"mail", b"me", moment, patient()).await.unwrap(), Locked::Ours(_)));
    server.freeze();
    // The server finds what they want before what we save.
    let locking = tokio::spawn(async move { theirs.lock(b"mail", b"you", LONG, patient()).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let saving =
        tokio::spawn(async move { ours.set_and_unlock(b"mail", b"saved", LONG, lock, patient()).await });
    // The lock has ended, and what they want is from long ago.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.thaw();
    assert!(saving.await.unwrap().unwrap());
    let Locked::Ours(held) = locking.await.unwrap().unwrap() else { panic!("nobody else has it") };
    assert_eq!(held.value.as_deref(), Some(&b"saved"[..]));
}

#[tokio::test]
async fn a_lock_may_be_asked_for_again_and_a_session_saved_again() {
    let server = redis::start();
    let redis = open(tcp(&server));
    let lock = async |owner: &[u8]| redis.lock(b"mail", owner, LONG, patient()).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(lock(b"me").await, Locked::Ours(_)));
        assert_eq!(lock(b"you").await, Locked::Theirs);
    }
    let save = async |owner: &[u8], value: &[u8]| {
        let lock = Lock { owner, version: Version::Unknown, before: None };
        redis.set_and_unlock(b"mail", value, LONG, lock, patient()).await.unwrap()
    };
    assert!(save(b"me", b"mine").await);
    assert!(save(b"me", b"mine").await, "it is there");
    assert!(!save(b"me", b"other").await);
    assert_eq!(redis.get(b"mail", patient()).await.unwrap(), Some(b"mine".to_vec()));
}

#[tokio::test]
async fn a_lock_that_has_ended_is_no_hindrance_unless_somebody_came() {
    let server = redis::start();
    let redis = open(tcp(&server));
    let save = async |value: &[u8], before: Option<&[u8]>| {
        let lock = Lock { owner: b"me", version: Version::Unknown, before };
        redis.set_and_unlock(b"mail", value, LONG, lock, patient()).await.unwrap()
    };
    let lock_and_lose = async || {
        assert!(matches!(redis.lock(b"mail", b"me", LONG, patient()).await.unwrap(), Locked::Ours(_)));
        redis::command(server.port, &["DEL", "lock_mail"]);
    };
    lock_and_lose().await;
    assert!(save(b"1", None).await);
    lock_and_lose().await;
    assert!(!save(b"2", None).await, "it has another value");
    assert!(save(b"2", Some(b"1")).await);
    lock_and_lose().await;
    redis.lock(b"mail", b"you", LONG, patient()).await.unwrap();
    assert!(!save(b"3", Some(b"2")).await, "somebody else has it");
    assert_eq!(redis.get(b"mail", patient()).await.unwrap(), Some(b"2".to_vec()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_whose_reply_was_lost_is_taken_all_the_same() {
    let server = redis::start();
    let (port, cuts) = cut_at_first(server.port, "lock_mail");
    let redis = open(settings(RedisServer::Tcp(at(port))));
    let locked = redis.lock(b"mail", b"me", LONG, patient()).await.unwrap();
    assert!(matches!(locked, Locked::Ours(_)));
    assert!(cuts.load(Ordering::Relaxed) > 1, "it was asked for again");
    assert!(redis.unlock(b"mail", b"me", patient()).await.unwrap());
}

#[tokio::test]
async fn a_lock_is_where_the_session_is() {
    let servers = redis::start_cluster();
    let redis = open(cluster(&servers));
    for number in 0..20_u8 {
        let key = [b"1a2b.", number.to_string().as_bytes()].concat();
        assert!(matches!(redis.lock(&key, b"me", LONG, patient()).await.unwrap(), Locked::Ours(_)));
        let name = format!("lock_{{1a2b.{number}}}");
        let has_it = |server: &Server| redis::command(server.port, &["GET", &name]).starts_with("$2\r\nme");
        assert!(servers.iter().any(has_it), "{name}");
        let lock = Lock { owner: b"me", version: Version::Unknown, before: None };
        assert!(redis.set_and_unlock(&key, b"x", LONG, lock, patient()).await.unwrap());
        assert!(!servers.iter().any(has_it));
    }
}

#[tokio::test]
async fn a_server_knows_its_clients_by_name_and_certificate() {
    let certificates = Certificates::new();
    let file = |path: std::path::PathBuf| path.display().to_string();
    let port = free_port();
    let (certificate, key) = (file(certificates.certificate()), file(certificates.key()));
    let authority = file(certificates.authority());
    let number = port.to_string();
    let server = redis::start_with(&[
        "--tls-port",
        &number,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &authority,
        "--tls-auth-clients",
        "yes",
    ]);
    let with = |identity| RedisSettings {
        tls: true,
        tls_ca: Some(authority.clone()),
        identity,
        ..settings(RedisServer::Tcp(format!("localhost:{port}")))
    };
    open(with(None)).ping(patient()).await.unwrap_err();
    let identity = Identity { certificate: certificate.clone(), key: key.clone() };
    let redis = open(with(Some(identity)));
    redis.ping(patient()).await.unwrap();
    let clients = redis::command(server.port, &["CLIENT", "LIST"]);
    assert!(clients.contains(" name=mtpolicyd:shared "), "{clients}");
    let wrong = Identity { certificate: key.clone(), key };
    let why = Redis::new("redis", with(Some(wrong))).err().expect("a mistake");
    assert_eq!(why.option, "tls_certificate");
}
