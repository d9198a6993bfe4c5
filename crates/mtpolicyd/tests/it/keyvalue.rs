//! Stores of values: the same behaviour on each, and what happens when servers of memcached die or freeze.
//!
//! Knows: the interface of stores, real servers. Must not know: sessions, tickets, limits.

#![allow(clippy::unwrap_used, reason = "what a test shares with others is a test too")]

use super::support::servers::{Server, mariadb, memcached, postgres};
use super::support::{PATIENCE, eventually_async};
use backends::keyvalue::{
    Lock, Locked, Memcached, MemcachedSettings, Memory, MemorySettings, Protected, Scan, Store,
};
use backends::sql::{Durability, Sql, SqlSettings};
use backends::{Call, Failure, Secret};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const MINUTE: Duration = Duration::from_secs(60);

/// How long one call may take here.
const CALL_LIMIT: Duration = Duration::from_millis(400);

fn soon() -> Call<'static> {
    Call::within(Duration::from_secs(10))
}

/// What every store does.
pub async fn behaves(store: &Store) {
    values(store).await;
    counters(store).await;
    locks(store).await;
    locks_exclude(store).await;
    only_the_owner_saves(store).await;
    values_expire(store).await;
    pages(store).await;
}

/// Everything under keys that begin alike is on some page, and nothing else.
async fn pages(store: &Store) {
    let set = |key: String, value: String| async move {
        store.set(key.as_bytes(), value.as_bytes(), MINUTE, soon()).await.unwrap();
    };
    for n in 0..500 {
        set(format!("p*,{n}@example.org"), n.to_string()).await;
    }
    set("p,other".to_owned(), "x".to_owned()).await;
    set("P*,upper".to_owned(), "x".to_owned()).await;
    let held = store.held(b"p*,7@example.org", soon()).await.unwrap().unwrap();
    assert_eq!((held.key, held.value.as_deref()), (b"p*,7@example.org".to_vec(), Some(&b"7"[..])));
    assert_eq!(store.held(b"nothing", soon()).await.unwrap(), None);
    let scan = Scan { prefix: b"p*,", cursor: None, limit: 40 };
    if !store.can_list() {
        assert_eq!(held.left, None);
        let error = store.scan(scan, soon()).await.unwrap_err();
        assert!(error.to_string().ends_with("memcached can't list its keys"), "{error}");
        return;
    }
    assert!(held.left.is_some_and(|left| left > MINUTE / 2 && left <= MINUTE));
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.scan(Scan { cursor: cursor.as_deref(), ..scan }, soon()).await.unwrap();
        assert!(page.entries.iter().all(|held| held.left.is_some()));
        found.extend(page.entries.into_iter().map(|held| (held.key, held.value.unwrap())));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 500);
    for (key, value) in found {
        assert_eq!(key, [b"p*,", &value[..], b"@example.org"].concat());
    }
    let odd = store.scan(Scan { cursor: Some("odd one"), ..scan }, soon()).await;
    assert!(odd.is_err_and(|error| error.to_string().contains("where a page")));
}

async fn values(store: &Store) {
    let long = [&b"long "[..], &[b'x'; 600]].concat();
    for key in [&b"plain"[..], b"a b\n", "grün@example.com".as_bytes(), b"UPPER", b"upper", &long] {
        assert_eq!(store.get(key, soon()).await.unwrap(), None);
        assert!(!store.delete(key, soon()).await.unwrap());
        assert!(store.add(key, key, MINUTE, soon()).await.unwrap());
        assert!(!store.add(key, b"another", MINUTE, soon()).await.unwrap());
        assert_eq!(store.get(key, soon()).await.unwrap().as_deref(), Some(key));
        store.set(key, b"", MINUTE, soon()).await.unwrap();
        assert_eq!(store.get(key, soon()).await.unwrap().as_deref(), Some(&b""[..]));
        assert!(store.delete(key, soon()).await.unwrap());
        assert_eq!(store.get(key, soon()).await.unwrap(), None);
        store.set(key, b"1", MINUTE, soon()).await.unwrap();
        let Protected { value, version } = store.get_protected(key, soon()).await.unwrap();
        assert_eq!(value.as_deref(), Some(&b"1"[..]));
        assert!(store.delete_unchanged(key, version, soon()).await.unwrap());
        assert!(!store.delete_unchanged(key, version, soon()).await.unwrap());
        assert_eq!(store.get(key, soon()).await.unwrap(), None);
    }
    let large = b"0123456789\r\nEND\r\n".repeat(10_000);
    for value in [&b"\r\nEND\r\n"[..], "Grüße".as_bytes(), b"\0\xff\x80 not UTF-8", &large] {
        store.set(b"value", value, MINUTE * 60 * 24 * 45, soon()).await.unwrap();
        assert!(store.get(b"value", soon()).await.unwrap().as_deref() == Some(value));
    }
}

async fn counters(store: &Store) {
    for expected in 1..=3 {
        assert_eq!(store.increment(b"count", MINUTE, soon()).await.unwrap(), expected);
    }
    assert_eq!(store.get(b"count", soon()).await.unwrap().as_deref(), Some(&b"3"[..]));
    store.set(b"word", b"many", MINUTE, soon()).await.unwrap();
    let error = store.increment(b"word", MINUTE, soon()).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Refused(_)), "{error}");
    let tasks = (0..20).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.increment(b"raced", MINUTE, soon()).await.unwrap() })
    });
    let mut seen = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        seen.push(task.await.unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
}

/// What a lock that is ours protects.
fn ours(locked: Locked) -> Option<Protected> {
    match locked {
        Locked::Ours(protected) => Some(protected),
        Locked::Theirs => None,
    }
}

async fn locks(store: &Store) {
    let lock = async |owner: &[u8], lifetime| {
        let locked = store.lock(b"mail", owner, lifetime, soon()).await.unwrap();
        ours(locked).map(|protected| protected.value)
    };
    let seen = b"seen".to_vec();
    assert_eq!(lock(b"one", MINUTE).await, Some(None));
    assert_eq!(lock(b"two", MINUTE).await, None);
    assert!(!store.unlock(b"mail", b"two", soon()).await.unwrap());
    assert_eq!(lock(b"two", MINUTE).await, None);
    assert!(!store.renew(b"mail", b"two", MINUTE, soon()).await.unwrap());
    assert!(store.renew(b"mail", b"one", MINUTE, soon()).await.unwrap());
    store.set(b"mail", b"seen", MINUTE, soon()).await.unwrap();
    assert!(store.unlock(b"mail", b"one", soon()).await.unwrap());
    assert!(!store.unlock(b"mail", b"one", soon()).await.unwrap());
    assert_eq!(lock(b"two", Duration::from_secs(1)).await, Some(Some(seen.clone())));
    // Its owner has died.
    let found = eventually_async("the lock expires", async || lock(b"three", MINUTE).await).await;
    assert_eq!(found, Some(seen));
    assert!(!store.unlock(b"mail", b"two", soon()).await.unwrap());
    assert!(!store.renew(b"mail", b"two", MINUTE, soon()).await.unwrap());
    assert!(store.unlock(b"mail", b"three", soon()).await.unwrap());
    assert!(!store.renew(b"mail", b"three", MINUTE, soon()).await.unwrap());
}

/// Each adds one to the number that the lock protects.
async fn locks_exclude(store: &Store) {
    const TASKS: u32 = 12;
    // Several locks, since with several servers some are where their key is and some are not.
    for mail in 0..6 {
        let key = format!("raced{mail}");
        let tasks = (0..TASKS).map(|owner| {
            let (store, key, owner) = (store.clone(), key.clone(), owner.to_string());
            tokio::spawn(async move {
                let (key, owner) = (key.as_bytes(), owner.as_bytes());
                let before = loop {
                    match store.lock(key, owner, MINUTE, soon()).await.unwrap() {
                        Locked::Ours(Protected { value, .. }) => {
                            break value.unwrap_or_else(|| b"0".to_vec());
                        }
                        Locked::Theirs => sleep(Duration::from_millis(3)).await,
                    }
                };
                let number: u32 = String::from_utf8(before).unwrap().parse().unwrap();
                store.set(key, (number + 1).to_string().as_bytes(), MINUTE, soon()).await.unwrap();
                assert!(store.unlock(key, owner, soon()).await.unwrap());
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        let sum = store.get(key.as_bytes(), soon()).await.unwrap();
        assert_eq!(sum, Some(TASKS.to_string().into_bytes()));
    }
}

/// What a lock protects is saved by its owner only, and the lock is gone then.
async fn only_the_owner_saves(store: &Store) {
    let key = b"saved";
    let lock = async |owner: &[u8], lifetime| ours(store.lock(key, owner, lifetime, soon()).await.unwrap());
    let save = async |owner: &[u8], value: &[u8], version| {
        let lock = Lock { owner, version, before: Some(b"another") };
        store.set_and_unlock(key, value, MINUTE, lock, soon()).await.unwrap()
    };
    for (before, after) in [(None, "one"), (Some("one"), "two")] {
        let mine = lock(b"me", MINUTE).await.unwrap();
        assert_eq!(mine.value.as_deref(), before.map(str::as_bytes));
        assert!(save(b"me", after.as_bytes(), mine.version).await);
        assert_eq!(store.get(key, soon()).await.unwrap().as_deref(), Some(after.as_bytes()));
    }
    // The store loses the lock, and somebody else has it now: whoever is late saves nothing and leaves it.
    let late = lock(b"late", MINUTE).await.unwrap();
    assert!(store.unlock(key, b"late", soon()).await.unwrap());
    assert!(!save(b"late", b"lost", late.version).await);
    let next = lock(b"next", MINUTE).await.unwrap();
    assert!(!save(b"late", b"late", late.version).await);
    assert_eq!(lock(b"another", MINUTE).await, None);
    assert!(save(b"next", b"three", next.version).await);
    assert_eq!(store.get(key, soon()).await.unwrap().as_deref(), Some(&b"three"[..]));
}

async fn values_expire(store: &Store) {
    let short = Duration::from_secs(1);
    store.set(b"short", b"1", short, soon()).await.unwrap();
    assert!(store.add(b"short2", b"1", short, soon()).await.unwrap());
    assert_eq!(store.increment(b"short3", short, soon()).await.unwrap(), 1);
    store.set(b"renewed", b"1", short, soon()).await.unwrap();
    assert_eq!(store.increment(b"renewed", MINUTE, soon()).await.unwrap(), 2);
    for key in [&b"short"[..], b"short2", b"short3"] {
        eventually_async("it expires", async || {
            store.get(key, soon()).await.unwrap().is_none().then_some(())
        })
        .await;
    }
    assert!(!store.delete(b"short", soon()).await.unwrap());
    assert!(store.add(b"short2", b"2", MINUTE, soon()).await.unwrap());
    assert_eq!(store.increment(b"short3", MINUTE, soon()).await.unwrap(), 1);
    assert_eq!(store.get(b"renewed", soon()).await.unwrap().as_deref(), Some(&b"2"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_behaves() {
    behaves(&Store::Memory(Arc::new(Memory::new(
        "memory",
        MemorySettings { max_entries: 1000, max_bytes: 1 << 20 },
    ))))
    .await;
}

fn client(servers: &[String], namespace: &str) -> Store {
    let (servers, namespace) = (servers.to_vec(), namespace.to_owned());
    let settings = MemcachedSettings { servers, namespace, timeout: CALL_LIMIT };
    Store::Memcached(Arc::new(Memcached::new("cache", settings).unwrap()))
}

fn at(server: &Server) -> String {
    format!("127.0.0.1:{}", server.port)
}

#[tokio::test(flavor = "multi_thread")]
async fn memcached_behaves() {
    let (one, unix, two) = (memcached::start(), memcached::start_unix(), memcached::start());
    behaves(&client(&[at(&one)], "mt-")).await;
    let path = unix.path("memcached.sock").display().to_string();
    let store = client(&[at(&two), format!("{path}=2"), at(&one)], "many-");
    behaves(&store).await;
    // The longest that memcached takes leaves some room for the key.
    store.set(b"large", &[b'x'; 1_000_000], MINUTE, soon()).await.unwrap();
    assert_eq!(store.get(b"large", soon()).await.unwrap().map(|value| value.len()), Some(1_000_000));
    let error = store.set(b"large", &[b'x'; 1_100_000], MINUTE, soon()).await.unwrap_err();
    assert!(error.to_string().contains("beyond the limit"), "{error}");
    let error = store.set(b"large", &[b'x'; 1024 * 1024], MINUTE, soon()).await.unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    assert!(store.get(b"value", soon()).await.unwrap().is_some());
    // A ticket that was put in the place of the one that was used stays, even if it says the same.
    store.set(b"ticket", b"1", MINUTE, soon()).await.unwrap();
    let used = store.get_protected(b"ticket", soon()).await.unwrap().version;
    store.set(b"ticket", b"1", MINUTE, soon()).await.unwrap();
    assert!(!store.delete_unchanged(b"ticket", used, soon()).await.unwrap());
    assert!(store.get(b"ticket", soon()).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_end_when_memcached_is_frozen_and_no_late_reply_is_seen() {
    let server = memcached::start();
    let store = client(&[at(&server)], "");
    store.set(b"early", b"early", MINUTE, soon()).await.unwrap();
    server.freeze();
    let calls = (0..20).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            let key = format!("frozen{number}");
            store.set(key.as_bytes(), key.as_bytes(), MINUTE, soon()).await
        })
    });
    for call in calls.collect::<Vec<_>>() {
        assert!(call.await.unwrap().is_err());
    }
    // It is known to be down once it did not answer a try either; from then on calls fail at once.
    eventually_async("it is known to be down", async || {
        matches!(store.get(b"early", soon()).await.unwrap_err().failure, Failure::Down(_)).then_some(())
    })
    .await;
    let error = store.get(b"early", soon()).await.unwrap_err();
    assert!(matches!(error.failure, Failure::Down(_)), "{error}");
    server.thaw();
    eventually_async("it is back", async || store.get(b"early", soon()).await.ok()).await;
    for number in 0..200 {
        let key = format!("late{number}");
        store.set(key.as_bytes(), key.as_bytes(), MINUTE, soon()).await.unwrap();
        let value = store.get(key.as_bytes(), soon()).await.unwrap();
        assert_eq!(value.as_deref(), Some(key.as_bytes()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_memcached_under_load_is_got_over() {
    let mut server = memcached::start();
    let store = client(&[at(&server)], "");
    let ends = Arc::new(AtomicBool::new(false));
    let wins: Arc<[AtomicU32]> = (0..8).map(|_| AtomicU32::new(0)).collect();
    let workers = (0..wins.len()).map(|worker| {
        let (store, ends, wins) = (store.clone(), ends.clone(), wins.clone());
        tokio::spawn(async move {
            while !ends.load(Ordering::Relaxed) {
                let key = format!("{worker}-{}", wins[worker].load(Ordering::Relaxed));
                let set = store.set(key.as_bytes(), key.as_bytes(), MINUTE, soon()).await;
                match set.and(store.get(key.as_bytes(), soon()).await) {
                    // Gone with the server, if anything.
                    Ok(value) => {
                        assert!(value.is_none_or(|value| value == key.as_bytes()));
                        wins[worker].fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => sleep(Duration::from_millis(5)).await,
                }
            }
        })
    });
    let workers: Vec<_> = workers.collect();
    sleep(Duration::from_millis(300)).await;
    tokio::task::block_in_place(|| server.restart());
    // However slow this machine is just now: each of them got over it.
    eventually_got_over(&wins).await;
    ends.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
}

/// Waits until each worker has had more answers.
async fn eventually_got_over(wins: &[AtomicU32]) {
    let before: Vec<_> = wins.iter().map(|wins| wins.load(Ordering::Relaxed)).collect();
    let until = Instant::now() + PATIENCE;
    while wins.iter().zip(&before).any(|(wins, before)| wins.load(Ordering::Relaxed) < before + 10) {
        assert!(Instant::now() < until, "somebody never had an answer again");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_while_nothing_is_asked_is_not_noticed() {
    let mut server = memcached::start();
    let store = client(&[at(&server)], "");
    for _ in 0..3 {
        store.set(b"k", b"v", MINUTE, soon()).await.unwrap();
        tokio::task::block_in_place(|| server.restart());
        assert_eq!(store.get(b"k", soon()).await.unwrap(), None);
    }
}

/// memcached counts whole seconds, and what lives for one may be gone after a moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_in_memcached_ends_by_itself() {
    let server = memcached::start();
    let store = client(&[at(&server)], "");
    let lifetime = Duration::from_secs(1);
    assert!(ours(store.lock(b"a", b"me", lifetime, soon()).await.unwrap()).is_some());
    assert_eq!(store.lock(b"a", b"next", lifetime, soon()).await.unwrap(), Locked::Theirs);
    eventually_async("the lock expires", async || {
        ours(store.lock(b"a", b"next", lifetime, soon()).await.unwrap())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_dead_memcached_move_to_another() {
    let (one, two) = (memcached::start(), memcached::start());
    let mut dead = memcached::start();
    let store = client(&[at(&one), at(&two), at(&dead)], "");
    tokio::task::block_in_place(|| dead.stop());
    for number in 0..50 {
        let key = format!("key{number}");
        store.set(key.as_bytes(), b"1", MINUTE, soon()).await.unwrap();
        assert!(store.get(key.as_bytes(), soon()).await.unwrap().is_some());
        let locked = store.lock(key.as_bytes(), b"me", MINUTE, soon()).await.unwrap();
        assert_eq!(ours(locked).and_then(|protected| protected.value), Some(b"1".to_vec()));
        assert!(store.unlock(key.as_bytes(), b"me", soon()).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memcached_that_is_not_there_is_said_and_found_later() {
    let mut server = memcached::start();
    let store = client(&[at(&server)], "");
    tokio::task::block_in_place(|| server.stop());
    let error = store.get(b"k", soon()).await.unwrap_err();
    let place = format!("connection cache (127.0.0.1:{}): down: ", server.port);
    assert!(error.to_string().starts_with(&place), "{error}");
    tokio::task::block_in_place(|| server.start());
    eventually_async("it is found", async || store.get(b"k", soon()).await.ok()).await;
}

fn table(dsn: String) -> Store {
    let settings = SqlSettings {
        dsn,
        user: mariadb::NAME.to_owned(),
        password: Secret(mariadb::NAME.to_owned()),
        timeout: Duration::from_secs(5),
        max_connections: 10,
        durability: Durability::Full,
        tls_ca: None,
        identity: None,
    };
    Store::table(Arc::new(Sql::new("db", settings).unwrap()))
}

async fn table_behaves(store: &Store) {
    behaves(store).await;
    let before = store.expire(soon()).await.unwrap();
    for number in 0..30 {
        let key = format!("old{number}");
        store.set(key.as_bytes(), b"x", Duration::from_millis(1), soon()).await.unwrap();
    }
    store.set(b"old and kept", b"x", MINUTE, soon()).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!((before > 0, store.expire(soon()).await.unwrap()), (true, 30));
    assert_eq!(store.expire(soon()).await.unwrap(), 0);
    assert!(store.get(b"old and kept", soon()).await.unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_sqlite_behaves() {
    let folder = tempfile::tempdir().unwrap();
    table_behaves(&table(format!("dbi:SQLite:dbname={}", folder.path().join("db").display()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_mariadb_behaves() {
    let server = mariadb::start();
    table_behaves(&table(mariadb::dsn(&server))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_postgres_behaves() {
    let server = postgres::start();
    table_behaves(&table(postgres::dsn(&server))).await;
}
