//! Redis with access control lists, shared by several installations, and servers that can't serve just now.
//!
//! Knows: the client of Redis. Must not know: plugins.

use crate::redis::{settings, tcp};
use crate::support::eventually;
use crate::support::servers::redis;
use backends::keyvalue::{Lock, Locked, Protected, Redis, RedisServer, RedisSettings, Scan, Script};
use backends::{Call, Failure, Secret};
use mtpolicyd::connections::option_specs;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);

/// What the manual says that access control lists have to allow, without what only some set-ups need.
const COMMANDS: [&str; 14] = [
    "get", "set", "del", "eval", "evalsha", "time", "incr", "pexpire", "expire", "hget", "hgetall", "hset",
    "hincrby", "hdel",
];

/// What it says that state by hand needs besides.
const BY_HAND: [&str; 5] = ["scan", "getrange", "pttl", "hmget", "exists"];

fn open(settings: RedisSettings) -> Redis {
    Redis::new("redis", settings).expect("the settings are right")
}

fn soon() -> Call<'static> {
    Call::within(Duration::from_secs(20))
}

fn secret(text: &str) -> Option<Secret> {
    Some(Secret(text.to_owned()))
}

#[tokio::test]
async fn what_the_manual_lists_is_enough() {
    let manual =
        option_specs().into_iter().find(|module| module.heading.contains("Redis")).expect("it is there");
    let user = manual.options.iter().find(|option| option.name == "user").expect("it has one");
    for command in COMMANDS.iter().chain(&BY_HAND) {
        assert!(
            user.doc.contains(&format!("`{}`", command.to_uppercase())),
            "{command} is not in the manual"
        );
    }
    let server = redis::start();
    let mut rule = vec!["ACL", "SETUSER", "app", "on", ">pw", "resetkeys", "~mx1:*", "-@all"];
    let allowed: Vec<_> = COMMANDS.iter().map(|command| format!("+{command}")).collect();
    rule.extend(allowed.iter().map(String::as_str));
    assert!(redis::command(server.port, &rule).starts_with("+OK"));
    let with = |prefix: &str| RedisSettings {
        user: Some("app".to_owned()),
        password: secret("pw"),
        prefix: prefix.to_owned(),
        ..tcp(&server)
    };
    let shared = open(with("mx1:"));
    shared.ping(soon()).await.unwrap();
    shared.set(b"key", b"value", LONG, soon()).await.unwrap();
    assert_eq!(shared.get(b"key", soon()).await.unwrap(), Some(b"value".to_vec()));
    assert!(!shared.add(b"key", b"other", LONG, soon()).await.unwrap());
    assert_eq!(shared.increment(b"count", LONG, soon()).await.unwrap(), 1);
    let locked = shared.lock(b"key", b"me", LONG, soon()).await.unwrap();
    let Locked::Ours(Protected { value, version }) = locked else { panic!("nobody else has it") };
    assert_eq!(value, Some(b"value".to_vec()));
    assert!(shared.renew(b"key", b"me", LONG, soon()).await.unwrap());
    let lock = Lock { owner: b"me", version, before: None };
    assert!(shared.set_and_unlock(b"key", b"new", LONG, lock, soon()).await.unwrap());
    assert!(!shared.unlock(b"key", b"me", soon()).await.unwrap());
    let script = Script::once("return redis.call('GET', KEYS[1])");
    assert_eq!(shared.eval(&script, &[b"key".to_vec()], &[], soon()).await.unwrap(), [b"new".to_vec()]);
    let scan = Scan { prefix: b"ke", cursor: None, limit: 10 };
    assert!(shared.scan(scan, soon()).await.unwrap_err().to_string().contains("NOPERM"));
    let allowed: Vec<_> = BY_HAND.iter().map(|command| format!("+{command}")).collect();
    let rule: Vec<_> =
        ["ACL", "SETUSER", "app"].into_iter().chain(allowed.iter().map(String::as_str)).collect();
    assert!(redis::command(server.port, &rule).starts_with("+OK"));
    let page = shared.scan(scan, soon()).await.unwrap();
    assert_eq!((page.entries.len(), page.entries[0].value.as_deref()), (1, Some(&b"new"[..])));
    assert!(shared.held(b"key", soon()).await.unwrap().is_some_and(|held| held.left.is_some()));
    assert!(shared.scan_hashes(scan, &["count"], soon()).await.is_ok());
    assert!(shared.delete(b"key", soon()).await.unwrap());
    assert!(redis::command(server.port, &["KEYS", "*"]).contains("mx1:count"), "the prefix is in front");
    // Keys of another installation are out of reach.
    let error = open(with("mx2:")).get(b"key", soon()).await.unwrap_err();
    assert!(error.to_string().contains("NOPERM"), "{error}");
}

#[tokio::test]
async fn two_installations_share_a_server() {
    let server = redis::start();
    let [one, two] =
        ["mx1:", "mx2:"].map(|prefix| open(RedisSettings { prefix: prefix.to_owned(), ..tcp(&server) }));
    one.set(b"key", b"1", LONG, soon()).await.unwrap();
    assert_eq!(two.get(b"key", soon()).await.unwrap(), None);
    for (store, owner, found) in [(&two, b"b", None), (&one, b"a", Some(b"1".to_vec()))] {
        let locked = store.lock(b"key", owner, LONG, soon()).await.unwrap();
        let Locked::Ours(Protected { value, .. }) = locked else { panic!("nobody else has it") };
        assert_eq!(value, found);
    }
}

#[tokio::test]
async fn sentinels_may_have_users_too() {
    let master = redis::start();
    let sentinel = redis::start_sentinel("mail", &master, 0);
    for rule in [
        &["ACL", "SETUSER", "app", "on", ">pw", "allkeys", "-@all", "+sentinel|get-master-addr-by-name"][..],
        &["ACL", "SETUSER", "default", "off"],
    ] {
        assert!(redis::command(sentinel.port, rule).starts_with("+OK"));
    }
    let with = |user: Option<&str>, password: Option<Secret>| {
        let sentinels = vec![format!("127.0.0.1:{}", sentinel.port)];
        let user = user.map(str::to_owned);
        settings(RedisServer::Sentinel { sentinels, service: "mail".to_owned(), user, password })
    };
    open(with(Some("app"), secret("pw"))).ping(soon()).await.unwrap();
    assert!(open(with(None, None)).ping(soon()).await.is_err());
    let mistake = Redis::new("redis", with(Some("app"), None)).err().expect("a mistake");
    assert_eq!(mistake.option, "sentinel_user");
}

#[tokio::test]
async fn a_call_is_made_again_where_another_server_has_taken_the_address() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // The first server behind the address reads its data, the next one serves.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut bytes = [0; 1024];
                while let Ok(length @ 1..) = stream.read(&mut bytes).await {
                    let is_ping = bytes[..length].windows(4).any(|word| word == b"PING");
                    let reply: &[u8] = match (is_ping, number) {
                        (true, _) => b"+PONG\r\n",
                        (false, 0) => b"-LOADING Redis is loading the dataset in memory\r\n",
                        (false, _) => b"$5\r\nvalue\r\n",
                    };
                    stream.write_all(reply).await.unwrap();
                }
            });
        }
    });
    let redis = open(settings(RedisServer::Tcp(address)));
    assert_eq!(redis.get(b"key", soon()).await.unwrap(), Some(b"value".to_vec()));
}

#[tokio::test]
async fn a_replica_that_is_all_there_is_refuses() {
    let server = redis::start();
    redis::command(server.port, &["REPLICAOF", "127.0.0.1", "1"]);
    let redis = open(tcp(&server));
    let error = redis.set(b"key", b"value", LONG, soon()).await.unwrap_err();
    assert!(matches!(&error.failure, Failure::Refused(text) if text.starts_with("READONLY")), "{error}");
    redis::command(server.port, &["REPLICAOF", "NO", "ONE"]);
    eventually("it is a master", || {
        redis::try_command(server.port, &["ROLE"])?.contains("master").then_some(())
    });
    redis.set(b"key", b"value", LONG, soon()).await.unwrap();
}
