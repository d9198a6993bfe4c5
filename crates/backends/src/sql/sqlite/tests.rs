//! A file of SQLite under concurrent works, and what befalls such files.
//!
//! Knows: files, other connections to them. Must not know: the threads' insides.

use super::super::{Durability, Param, Sql, SqlSettings, Statement, Work};
use crate::{Call, Failure, Secret};
use rusqlite::Connection;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

struct Fixture {
    folder: TempDir,
    sql: Arc<Sql>,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let sql = Arc::new(open(&format!("dbi:SQLite:dbname={}", folder.path().join("db").display())));
        Fixture { folder, sql }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    async fn run(&self, sql: &str) -> Result<u64, Failure> {
        run(&self.sql, sql, Duration::from_secs(5)).await
    }

    async fn count(&self) -> i64 {
        let rows = self.sql.query(statement("SELECT n FROM counter"), soon()).await.unwrap();
        rows[0][0].as_deref().unwrap().parse().unwrap()
    }
}

const CREATE: &str = "CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER)";
const COUNT: &str =
    "INSERT INTO counter (id, n) VALUES (1, 1) ON CONFLICT (id) DO UPDATE SET n = n + 1 RETURNING n";

fn open(dsn: &str) -> Sql {
    let settings = SqlSettings {
        dsn: dsn.to_owned(),
        user: String::new(),
        password: Secret::default(),
        timeout: Duration::from_secs(10),
        max_connections: 10,
        durability: Durability::Full,
        tls_ca: None,
        identity: None,
    };
    Sql::new("db", settings).unwrap()
}

fn statement(sql: &str) -> Statement {
    Statement { sql: sql.into(), params: Vec::new() }
}

fn soon() -> Call<'static> {
    Call::within(Duration::from_secs(5))
}

async fn run(sql: &Sql, text: &str, patience: Duration) -> Result<u64, Failure> {
    let outputs = sql.run(Work::durable(text, Vec::new()), Call::within(patience)).await;
    outputs.map(|outputs| outputs[0].affected).map_err(|error| error.failure)
}

/// The number in the file at the path, read by another connection.
fn counted(path: &Path) -> i64 {
    let other = Connection::open(path).unwrap();
    other.query_row("SELECT n FROM counter", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn nothing_is_opened_before_it_is_needed() {
    let fixture = Fixture::new();
    assert!(!fixture.path().exists());
    fixture.sql.ping(soon()).await.unwrap();
    assert!(fixture.path().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_at_once_are_counted_exactly() {
    let fixture = Fixture::new();
    fixture.run(CREATE).await.unwrap();
    let works: Vec<_> = (0..100)
        .map(|_| {
            let sql = fixture.sql.clone();
            tokio::spawn(async move { sql.run(Work::durable(COUNT, vec![]), soon()).await.unwrap() })
        })
        .collect();
    let mut seen = Vec::new();
    for work in works {
        let outputs = work.await.unwrap();
        seen.push(outputs[0].rows[0][0].clone().unwrap().parse::<u32>().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=100).collect::<Vec<_>>());
    assert_eq!((fixture.count().await, counted(&fixture.path())), (100, 100));
}

#[tokio::test]
async fn a_failing_work_harms_itself_only() {
    let fixture = Fixture::new();
    fixture.run(CREATE).await.unwrap();
    let broken = Work {
        statements: vec![statement(COUNT), statement("INSERT INTO counter (id) VALUES (1)")],
        lock: None,
        durable: true,
    };
    let good = || fixture.sql.run(Work::durable(COUNT, vec![]), soon());
    let (before, failed, after) = tokio::join!(good(), fixture.sql.run(broken, soon()), good());
    assert!(before.is_ok() && after.is_ok());
    assert!(matches!(failed.unwrap_err().failure, Failure::Refused(text) if text.contains("UNIQUE")));
    assert_eq!(fixture.count().await, 2);
}

#[tokio::test]
async fn a_missing_table_is_told_from_other_mistakes() {
    let fixture = Fixture::new();
    assert!(matches!(fixture.run(COUNT).await, Err(Failure::NoTable(_))));
    let query = fixture.sql.query(statement("SELECT * FROM nowhere"), soon()).await;
    assert!(matches!(query.unwrap_err().failure, Failure::NoTable(_)));
    assert!(matches!(fixture.run("SELEC").await, Err(Failure::Refused(_))));
}

#[tokio::test]
async fn a_locked_file_fails_each_at_its_deadline_and_goes_on_at_once() {
    let fixture = Fixture::new();
    fixture.run(CREATE).await.unwrap();
    let other = Connection::open(fixture.path()).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let patient = tokio::spawn({
        let sql = fixture.sql.clone();
        async move { run(&sql, COUNT, Duration::from_secs(5)).await }
    });
    let hasty = run(&fixture.sql, COUNT, Duration::from_millis(200)).await;
    assert_eq!(hasty, Err(Failure::TimedOut));
    other.execute_batch("ROLLBACK").unwrap();
    assert!(patient.await.unwrap().is_ok());
    assert_eq!(fixture.count().await, 1, "the one that was given up is not done");
}

#[tokio::test]
async fn a_removed_file_is_made_again_before_anything_is_acknowledged() {
    let fixture = Fixture::new();
    fixture.run(CREATE).await.unwrap();
    fixture.run(COUNT).await.unwrap();
    assert_eq!(fixture.count().await, 1);
    // The log stays behind.
    std::fs::remove_file(fixture.path()).unwrap();
    assert!(matches!(fixture.run(COUNT).await, Err(Failure::NoTable(_))));
    fixture.run(CREATE).await.unwrap();
    fixture.run(COUNT).await.unwrap();
    assert_eq!((fixture.count().await, counted(&fixture.path())), (1, 1));
}

#[tokio::test]
async fn a_replaced_file_is_taken_up_without_the_log_of_the_old_one() {
    let fixture = Fixture::new();
    fixture.run(CREATE).await.unwrap();
    for _ in 0..3 {
        fixture.run(COUNT).await.unwrap();
    }
    let copy = fixture.folder.path().join("copy");
    Connection::open(&copy).unwrap().execute_batch(&format!("{CREATE}; {COUNT}")).unwrap();
    std::fs::rename(&copy, fixture.path()).unwrap();
    assert_eq!(fixture.count().await, 1);
    fixture.run(COUNT).await.unwrap();
    assert_eq!((fixture.count().await, counted(&fixture.path())), (2, 2));
}

#[tokio::test]
async fn a_removed_log_loses_nothing() {
    let fixture = Fixture::new();
    fixture.run(CREATE).await.unwrap();
    fixture.run(COUNT).await.unwrap();
    assert_eq!(fixture.count().await, 1);
    std::fs::remove_file(fixture.folder.path().join("db-wal")).unwrap();
    assert_eq!(fixture.count().await, 1);
    fixture.run(COUNT).await.unwrap();
    assert_eq!((fixture.count().await, counted(&fixture.path())), (2, 2));
}

#[tokio::test]
async fn a_folder_that_is_missing_is_named_and_awaited() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let sql = open(&format!("dbi:SQLite:dbname={}", missing.join("db").display()));
    let failure = run(&sql, CREATE, Duration::from_secs(5)).await.unwrap_err();
    assert!(failure.to_string().contains("there is no folder"), "{failure}");
    std::fs::create_dir(missing).unwrap();
    run(&sql, CREATE, Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn what_is_no_database_is_said_and_awaited() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path(), "not a database, but a text that is longer than a header".repeat(20))
        .unwrap();
    assert!(matches!(fixture.run(CREATE).await, Err(Failure::Down(_))));
    std::fs::remove_file(fixture.path()).unwrap();
    fixture.run(CREATE).await.unwrap();
}

#[tokio::test]
async fn a_query_is_interrupted_when_its_caller_is_gone() {
    let fixture = Fixture::new();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    for _ in 0..5 {
        let late = Call::within(Duration::from_millis(50));
        let failure = fixture.sql.query(statement(endless), late).await.unwrap_err().failure;
        assert_eq!(failure, Failure::TimedOut);
    }
    fixture.sql.ping(soon()).await.unwrap();
}

/// Takes seconds, unless it is interrupted.
const SLOW: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000000) \
                    SELECT count(*) FROM n";

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_query_holds_up_no_other() {
    let fixture = Fixture::new();
    fixture.run(CREATE).await.unwrap();
    fixture.run(COUNT).await.unwrap();
    let late = Call::within(Duration::from_secs(60));
    let slow = tokio::spawn({
        let sql = fixture.sql.clone();
        async move { sql.query(statement(SLOW), late).await }
    });
    let quick = (0..50).map(|_| {
        let sql = fixture.sql.clone();
        tokio::spawn(async move { sql.query(statement("SELECT n FROM counter"), late).await })
    });
    for answer in quick.collect::<Vec<_>>() {
        assert_eq!(answer.await.unwrap().unwrap(), [[Some("1".to_owned())]]);
    }
    assert!(!slow.is_finished());
    slow.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_sees_whatever_was_acknowledged_before_it() {
    let fixture = Fixture::new();
    fixture.run("CREATE TABLE t (a INTEGER PRIMARY KEY)").await.unwrap();
    let tasks = (0..200).map(|n| {
        let sql = fixture.sql.clone();
        tokio::spawn(async move {
            run(&sql, &format!("INSERT INTO t VALUES ({n})"), Duration::from_secs(20)).await.unwrap();
            let query = format!("SELECT a FROM t WHERE a = {n}");
            let late = Call::within(Duration::from_secs(20));
            sql.query(statement(&query), late).await.unwrap().len()
        })
    });
    for rows in tasks.collect::<Vec<_>>() {
        assert_eq!(rows.await.unwrap(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_changes_something_or_fails_harms_none_that_wait_with_it() {
    let fixture = Fixture::new();
    fixture.run(CREATE).await.unwrap();
    fixture.run(COUNT).await.unwrap();
    let late = Call::within(Duration::from_secs(20));
    let texts = ["SELECT n > 0 FROM counter", COUNT, "SELECT * FROM nowhere", "BEGIN", "COMMIT"];
    let tasks = texts.into_iter().cycle().take(100).map(|text| {
        let sql = fixture.sql.clone();
        tokio::spawn(async move { (text, sql.query(statement(text), late).await) })
    });
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            ("SELECT n > 0 FROM counter", answer) => assert_eq!(answer.unwrap(), [[Some("1".to_owned())]]),
            (COUNT, answer) => assert_eq!(answer.unwrap().len(), 1),
            ("SELECT * FROM nowhere", answer) => {
                assert!(matches!(answer.unwrap_err().failure, Failure::NoTable(_)));
            }
            _ => {}
        }
    }
    assert_eq!((fixture.count().await, counted(&fixture.path())), (21, 21));
}

#[tokio::test]
async fn a_database_in_memory_is_one() {
    let sql = open("dbi:SQLite:dbname=:memory:");
    run(&sql, CREATE, Duration::from_secs(5)).await.unwrap();
    run(&sql, COUNT, Duration::from_secs(5)).await.unwrap();
    let rows = sql.query(statement("SELECT n FROM counter"), soon()).await.unwrap();
    assert_eq!(rows, [[Some("1".to_owned())]]);
}

#[tokio::test]
async fn values_are_texts_and_rows_are_bounded() {
    let fixture = Fixture::new();
    let sql = "SELECT ?, ? + 1, NULL, 1.50, x'6162', ? IS NULL";
    let params = vec![Param::text(b"a\0\xff"), Param::Integer(i64::MAX - 1), Param::Null];
    let rows = fixture.sql.query(Statement { sql: sql.into(), params }, soon()).await.unwrap();
    let texts: Vec<_> = rows[0].iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
    assert_eq!(texts, ["a\0\u{fffd}", "9223372036854775807", "NULL", "1.5", "ab", "1"]);
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT i FROM n";
    let rows = fixture.sql.query(statement(many), soon()).await.unwrap();
    assert_eq!(rows.len(), super::super::MAX_ROWS);
    let wrong = Statement { sql: "SELECT ?".into(), params: Vec::new() };
    assert!(fixture.sql.query(wrong, soon()).await.is_err());
}

#[tokio::test]
async fn changed_rows_are_counted() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run(CREATE).await, Ok(0));
    assert_eq!(fixture.run("INSERT INTO counter (n) VALUES (1), (2), (3)").await, Ok(3));
    assert_eq!(fixture.run("CREATE INDEX i ON counter (n)").await, Ok(0));
    assert_eq!(fixture.run("DELETE FROM counter WHERE n > 1").await, Ok(2));
}

/// What a plugin does that keeps a table: counts, and makes the table when it is not there.
async fn count_or_create(sql: &Sql) -> Result<(), Failure> {
    match run(sql, COUNT, Duration::from_secs(5)).await {
        Err(Failure::NoTable(_)) => {
            let create = CREATE.replace("TABLE", "TABLE IF NOT EXISTS");
            run(sql, &create, Duration::from_secs(5)).await?;
            run(sql, COUNT, Duration::from_secs(5)).await.map(drop)
        }
        other => other.map(drop),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_vanish_under_load_take_along_nothing_that_is_asked_later() {
    let fixture = Fixture::new();
    for round in 0..9 {
        let (is_removed, counted_later) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (sql, is_removed) = (fixture.sql.clone(), is_removed.clone());
                let counted_later = counted_later.clone();
                tokio::spawn(async move {
                    let mut left = 10;
                    while left > 0 {
                        let is_later = is_removed.load(Ordering::SeqCst);
                        left -= i32::from(is_later);
                        if count_or_create(&sql).await.is_ok() && is_later {
                            counted_later.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
        // The file alone, or with its log, or with all.
        for suffix in ["", "-wal", "-shm"].iter().take(1 + round % 3) {
            let _ = std::fs::remove_file(fixture.folder.path().join(format!("db{suffix}")));
        }
        is_removed.store(true, Ordering::SeqCst);
        for task in tasks {
            task.await.unwrap();
        }
        let acknowledged = counted_later.load(Ordering::SeqCst);
        let counted = counted(&fixture.path());
        assert!(acknowledged > 40 && counted >= acknowledged, "{counted} of {acknowledged}");
        std::fs::remove_file(fixture.path()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_small() {
    let fixture = Fixture::new();
    fixture.run("CREATE TABLE t (a TEXT)").await.unwrap();
    let log = fixture.folder.path().join("db-wal");
    let mut largest = 0;
    for _ in 0..600 {
        fixture.run("INSERT INTO t VALUES (hex(randomblob(2048)))").await.unwrap();
        largest = largest.max(std::fs::metadata(&log).map_or(0, |log| log.len()));
    }
    assert!(largest > 0 && largest < 1 << 20, "{largest}");
    // One large transaction leaves no large log behind.
    let many = "INSERT INTO t SELECT hex(randomblob(2048)) FROM t";
    fixture.run(many).await.unwrap();
    for _ in 0..2 {
        fixture.run("INSERT INTO t VALUES ('x')").await.unwrap();
    }
    let left = std::fs::metadata(&log).map_or(0, |log| log.len());
    assert!(left < 1 << 20, "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_is_not_for_everybody() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    fixture.run(CREATE).await.unwrap();
    for name in ["db", "db-wal", "db-shm"] {
        let mode = std::fs::metadata(fixture.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7137, 0, "{name}: {mode:o}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_only_be_read_is_read() {
    let fixture = Fixture::new();
    fixture.run(CREATE).await.unwrap();
    fixture.run(COUNT).await.unwrap();
    let uri = |mode: &str| format!("dbi:SQLite:uri=file:{}?mode={mode}", fixture.path().display());
    let reading = open(&uri("ro"));
    let asked = || reading.query(statement("SELECT n FROM counter"), soon());
    assert_eq!(asked().await.unwrap(), [[Some("1".to_owned())]]);
    let refused = run(&reading, COUNT, Duration::from_secs(5)).await;
    assert!(matches!(refused, Err(Failure::Denied(_))), "{refused:?}");
    fixture.run(COUNT).await.unwrap();
    assert_eq!(asked().await.unwrap(), [[Some("2".to_owned())]]);
    // None is made where it says so.
    let missing = fixture.folder.path().join("other");
    let none = open(&format!("dbi:SQLite:uri=file:{}?mode=ro", missing.display()));
    assert!(none.ping(soon()).await.is_err() && !missing.exists());
}
