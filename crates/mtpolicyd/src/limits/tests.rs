//! Counts on the stores that need no server: every one of them decides as `State` does, and exactly.

use super::*;
use crate::value::Value;
use crate::world::backend::Secret;
use crate::world::keyvalue::MemorySettings;
use crate::world::sql::{Durability, Sql, SqlSettings};
use std::time::Duration;
use tokio::task::JoinSet;

/// 2025-11-24T16:00:00Z, in milliseconds.
const BEGINNING: i64 = 1_764_000_000_000;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn memory() -> Counts {
    Counts::Memory(Arc::new(Memory::new("memory", MemorySettings { max_entries: 1000 })))
}

fn sqlite(folder: &tempfile::TempDir) -> Counts {
    let settings = SqlSettings {
        dsn: format!("dbi:SQLite:dbname={}", folder.path().join("db").display()),
        user: String::new(),
        password: Secret::default(),
        timeout: Duration::from_secs(20),
        max_connections: 1,
        durability: Durability::Process,
        tls_ca: None,
    };
    Counts::Sql(Table::new(Arc::new(Sql::new("db", settings).unwrap())))
}

async fn exactly_so_many_pass(counts: Counts, algorithm: Algorithm, limit: &str, passing: usize) {
    let rules = Rates::parse(limit).unwrap().rules(algorithm);
    let (counts, rules) = (Arc::new(counts), Arc::new(rules));
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let (counts, rules) = (counts.clone(), rules.clone());
        tasks.spawn(async move {
            let demand = Demand { rules: &rules, amount: 1 };
            counts.take("r:bob", demand, BEGINNING, soon()).await.unwrap()
        });
    }
    let taken = tasks.join_all().await;
    assert_eq!(taken.iter().filter(|taken| taken.passed).count(), passing, "{limit}");
    let said: Vec<_> = taken.iter().flat_map(|taken| &taken.notices).filter(|(rule, _)| *rule == 0).collect();
    assert_eq!(said.iter().filter(|(_, fill)| *fill == Fill::Full).count(), 1, "{limit} {said:?}");
    assert!(said.iter().filter(|(_, fill)| *fill == Fill::Nearly).count() <= 1, "{limit} {said:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_at_once_do_not_exceed_it() {
    let folder = tempfile::tempdir().unwrap();
    for algorithm in [Algorithm::Window, Algorithm::Bucket] {
        exactly_so_many_pass(memory(), algorithm, "37/1h, 1000/1d", 37).await;
        exactly_so_many_pass(memory(), algorithm, "70/1h", 70).await;
    }
    exactly_so_many_pass(sqlite(&folder), Algorithm::Window, "37/1h, 1000/1d", 37).await;
    exactly_so_many_pass(sqlite(&folder), Algorithm::Bucket, "70/1h", 70).await;
}

#[tokio::test]
async fn a_database_decides_as_memory_does() {
    let folder = tempfile::tempdir().unwrap();
    let (database, mut state) = (sqlite(&folder), State::default());
    let limits = ["5/1m, 12/10m", "100/1m", "7/1m burst 3, 30/10m", "0/1m burst 2"];
    let rules: Vec<_> = limits
        .iter()
        .flat_map(|limit| {
            [Algorithm::Window, Algorithm::Bucket].map(|a| Rates::parse(limit).unwrap().rules(a))
        })
        .collect();
    let mut now = BEGINNING;
    for n in 0..600_i64 {
        // Any sequence will do, with a clock that jumps now and then.
        let random = (n * 7919 + 13) % 1000;
        now += if random < 20 { -200_000 } else { random * random % 9000 };
        let rules = &rules[usize::try_from(random).unwrap() % rules.len()];
        let demand = Demand { rules, amount: (random % 4).unsigned_abs() + 1 };
        let taken = database.take("r:bob", demand, now, soon()).await.unwrap();
        assert_eq!(taken, state.take(demand, now), "request {n} at {now}");
    }
    let Counts::Sql(table) = database else { unreachable!() };
    assert_eq!(table.expire(now, soon()).await.unwrap(), 0, "each request removes its own");
    assert!(table.expire(now + 3_600_000, soon()).await.unwrap() > 0);
}
