//! Counters in a database.
//!
//! Knows: the statements, and what to do when a table is missing. Must not know: requests, plugins.

use super::Counter;
use super::amounts::{Amounts, Metric};
use super::tables::{MAX_KEY_CHARS, Writer};
use crate::value::numeric_prefix;
use crate::world::backend::{BackendError, Failure};
use crate::world::sql::{Dialect, Param, Sql, Statement, Work};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::time::Instant;

/// Two daemons do not make or repair tables at the same time.
const TABLES_LOCK: &str = "mtpolicyd-tables";

/// A table of counters.
pub struct SqlTable {
    sql: Arc<Sql>,
    name: String,
    engine: String,
    /// Whether the table is known to be there, with its unique key.
    ready: AtomicBool,
    upsert: Arc<str>,
    read: [Arc<str>; 4],
}

/// Counts in several tables at once.
pub async fn count(
    sql: &Sql,
    counters: &[Counter],
    amounts: &Amounts,
    deadline: Instant,
) -> Result<(), BackendError> {
    for counter in counters {
        counter.table.backend.make_ready(deadline).await?;
    }
    let work = Work {
        statements: counters.iter().map(|counter| counter.table.backend.add(counter, amounts)).collect(),
        lock: None,
        durable: true,
    };
    match sql.run(work.clone(), deadline).await {
        // A table may have gone with its file.
        Err(error) if is_answer(&error) => {
            for counter in counters {
                counter.table.backend.prepare_and_log(deadline).await?;
            }
            sql.run(work, deadline).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// Whether the database has answered, if only with an error.
fn is_answer(error: &BackendError) -> bool {
    !matches!(error.failure, Failure::Down(_) | Failure::TimedOut)
}

impl SqlTable {
    /// A table, which is not looked at yet.
    pub fn new(sql: Arc<Sql>, name: &str, engine: &str) -> SqlTable {
        let writer = Writer { sql: &sql, table: name };
        let upsert = writer.upsert().into();
        let read = Metric::ALL.map(|metric| writer.read(&metric.to_string()).into());
        let (name, engine) = (name.to_owned(), engine.to_owned());
        SqlTable { ready: AtomicBool::new(false), sql, name, engine, upsert, read }
    }

    /// What has been counted.
    pub async fn read(
        &self,
        counter: &Counter,
        metric: Metric,
        deadline: Instant,
    ) -> Result<f64, BackendError> {
        self.make_ready(deadline).await?;
        let sql = self.read[metric as usize].clone();
        let query = Statement { sql, params: self.place(counter).to_vec() };
        let rows = match self.sql.query(query.clone(), deadline).await {
            Err(error) if is_answer(&error) => {
                self.prepare_and_log(deadline).await?;
                self.sql.query(query, deadline).await?
            }
            other => other?,
        };
        let text = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        Ok(numeric_prefix(text.unwrap_or_default().as_bytes()))
    }

    /// Makes the table if it is missing, and repairs one that lets a key occur twice: what was done.
    pub async fn prepare(&self, deadline: Instant) -> Result<Vec<String>, BackendError> {
        let writer = Writer { sql: &self.sql, table: &self.name };
        let look = Work {
            statements: vec![writer.create(&self.engine), writer.count_unique_indexes()],
            lock: Some(TABLES_LOCK.to_owned()),
            durable: true,
        };
        let found = self.sql.run(look.clone(), deadline).await?;
        let mut done = Vec::new();
        let has_index = found.get(1).is_some_and(|output| output.rows != [[Some("0".to_owned())]]);
        if !has_index {
            let merge =
                Work { statements: writer.merge().into(), lock: Some(TABLES_LOCK.to_owned()), durable: true };
            let merged = self.sql.run(merge, deadline).await?;
            let surplus = merged.get(1).map_or(0, |output| output.affected);
            if surplus > 0 {
                let name = &self.name;
                done.push(format!("table {name}: {surplus} rows that repeated key and time were merged"));
            }
        }
        self.ready.store(true, Ordering::Release);
        Ok(done)
    }

    async fn make_ready(&self, deadline: Instant) -> Result<(), BackendError> {
        if self.ready.load(Ordering::Acquire) { Ok(()) } else { self.prepare_and_log(deadline).await }
    }

    async fn prepare_and_log(&self, deadline: Instant) -> Result<(), BackendError> {
        for done in self.prepare(deadline).await? {
            tracing::warn!("{done}");
        }
        Ok(())
    }

    fn add(&self, counter: &Counter, amounts: &Amounts) -> Statement {
        let mut params = self.place(counter).to_vec();
        params.extend(amounts.all().map(Param::Integer));
        Statement { sql: self.upsert.clone(), params }
    }

    /// Key and time as the table holds them.
    fn place(&self, counter: &Counter) -> [Param; 2] {
        let key = stored(self.sql.dialect(), &counter.key);
        [Param::Text(key), Param::Text(counter.time.clone())]
    }
}

/// A key as the column of the database can hold it.
fn stored(dialect: Dialect, key: &str) -> String {
    match dialect {
        Dialect::Sqlite => key.to_owned(),
        Dialect::Postgres => key.chars().take(MAX_KEY_CHARS).collect(),
        // The tables of the original are in latin1, which MySQL takes for windows-1252.
        Dialect::MySql => {
            let in_latin1 = |c: char| c.is_ascii() || ('\u{a0}'..='\u{ff}').contains(&c);
            let text = |c: char| if in_latin1(c) { c.to_string() } else { c.escape_unicode().to_string() };
            key.chars().map(text).collect::<String>().chars().take(MAX_KEY_CHARS).collect()
        }
    }
}
