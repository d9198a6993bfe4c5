//! What SQLite costs under requests that come together: sixteen lookups, and sixteen counts, in tables of
//! growing length.

// The macros of criterion make public functions that have nothing to say.
#![allow(missing_docs)]

use backends::Call;
use backends::Secret;
use backends::sql::{Durability, Param, Sql, SqlSettings, Statement, Work};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

const SIZES: [u64; 5] = [10, 100, 1_000, 10_000, 100_000];

/// How many requests come together.
const TOGETHER: u64 = 16;

const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT ?) \
                    INSERT INTO t SELECT 'user' || i, i FROM n";

fn open(folder: &Path) -> Arc<Sql> {
    let settings = SqlSettings {
        dsn: format!("dbi:SQLite:dbname={}", folder.join("db").display()),
        user: String::new(),
        password: Secret::default(),
        timeout: Duration::from_secs(60),
        max_connections: 1,
        // The disk is not what is measured.
        durability: Durability::Process,
        tls_ca: None,
        identity: None,
    };
    Arc::new(Sql::new("db", settings).expect("a database"))
}

fn statement(sql: &str, params: Vec<Param>) -> Statement {
    Statement { sql: sql.into(), params }
}

fn change(sql: &str, params: Vec<Param>) -> Work {
    Work { statements: vec![statement(sql, params)], lock: None, durable: false }
}

fn soon() -> Call<'static> {
    Call::within(Duration::from_secs(60))
}

fn filled(runtime: &Runtime, folder: &Path, count: u64) -> Arc<Sql> {
    let sql = open(folder);
    runtime.block_on(async {
        let create = "CREATE TABLE t (k TEXT PRIMARY KEY, n INTEGER)";
        sql.run(change(create, Vec::new()), soon()).await.expect("a table");
        let rows = Param::Integer(count.cast_signed());
        sql.run(change(FILL, vec![rows]), soon()).await.expect("rows");
    });
    sql
}

async fn together<T: Send + 'static>(tasks: impl Iterator<Item = impl Future<Output = T> + Send + 'static>) {
    let mut set: JoinSet<T> = tasks.collect();
    while let Some(done) = set.join_next().await {
        black_box(done.expect("no panic"));
    }
}

fn sqlite(c: &mut Criterion) {
    let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut group = c.benchmark_group("SQLite");
    group.throughput(Throughput::Elements(TOGETHER));
    for count in SIZES {
        let folder = tempfile::tempdir().expect("a folder");
        let sql = filled(&runtime, folder.path(), count);
        let key = |n: u64| Param::Text(format!("user{}", n * 7919 % count));
        group.bench_function(BenchmarkId::new("lookups", count), |b| {
            b.iter(|| {
                runtime.block_on(together((0..TOGETHER).map(|n| {
                    let (sql, query) = (sql.clone(), statement("SELECT n FROM t WHERE k = ?", vec![key(n)]));
                    async move { sql.query(query, soon()).await.expect("an answer") }
                })));
            });
        });
        group.bench_function(BenchmarkId::new("counts", count), |b| {
            b.iter(|| {
                runtime.block_on(together((0..TOGETHER).map(|n| {
                    let count =
                        "INSERT INTO t VALUES (?, 1) ON CONFLICT (k) DO UPDATE SET n = n + 1 RETURNING n";
                    let (sql, work) = (sql.clone(), change(count, vec![key(n)]));
                    async move { sql.run(work, soon()).await.expect("it is counted") }
                })));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, sqlite);
criterion_main!(benches);
