//! What Accounting counts and Quota compares: who sent how much in which span of time.
//!
//! A table for each field, a row for each key and time, four numbers in it. Places for mail that is on its way
//! through the chain are reserved, so that of many requests at once no more pass than a quota allows.
//!
//! Knows: the tables of the original, SQL, Redis. Must not know: plugins.

mod amounts;
mod periods;
mod sql;
mod tables;

pub use amounts::{Amounts, Metric, unknown_yet};
pub use periods::TimePattern;

use crate::value::Value;
use crate::world::backend::BackendError;
use crate::world::sql::Sql;
use sql::SqlTable;
use std::sync::Arc;
use tokio::time::Instant;

/// The name of a storage engine of MySQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine(String);

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl From<&str> for Engine {
    fn from(name: &str) -> Engine {
        Engine(name.to_owned())
    }
}
impl Value for Engine {
    const FORM: &'static str = "name of a storage engine";
    fn parse(text: &str) -> Result<Self, String> {
        let legal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if legal { Ok(Engine(text.to_owned())) } else { Err(format!("`{text}` is no name of an engine")) }
    }
}

/// Where the counters of one plugin are kept.
#[derive(Clone)]
pub struct Book {
    sql: Arc<Sql>,
    prefix: String,
    engine: Engine,
    pattern: TimePattern,
}

/// The counters of one field.
#[derive(Clone)]
pub struct Table {
    /// The same for all who mean the same counters.
    id: Arc<str>,
    backend: Arc<SqlTable>,
}

/// One counter.
#[derive(Clone)]
pub struct Counter {
    /// The table it is in.
    pub table: Table,
    /// Who is counted: the value of the field.
    pub key: String,
    /// The span of time, as the pattern writes it.
    pub time: String,
}

impl Book {
    /// Counters in tables of a database whose names begin with `prefix`. `engine` is for a new table of MySQL.
    pub fn new(sql: Arc<Sql>, prefix: &str, engine: &Engine, pattern: &TimePattern) -> Book {
        Book { sql, prefix: prefix.to_owned(), engine: engine.clone(), pattern: pattern.clone() }
    }

    /// The counters of a field.
    pub fn table(&self, field: &str) -> Table {
        let name = format!("{}{field}", self.prefix);
        let id = format!("{}\0{name}\0{}", self.sql.name(), self.pattern).into();
        Table { id, backend: Arc::new(SqlTable::new(self.sql.clone(), &name, &self.engine.0)) }
    }

    /// Counts a request in all these counters or in none.
    pub async fn count(
        &self,
        counters: &[Counter],
        amounts: &Amounts,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        sql::count(&self.sql, counters, amounts, deadline).await
    }
}

impl Table {
    /// What names these counters among all of the configuration.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Makes the table if it is missing, and repairs one of the original that lets a key occur twice: what
    /// was done.
    pub async fn prepare(&self, deadline: Instant) -> Result<Vec<String>, BackendError> {
        self.backend.prepare(deadline).await
    }
}

impl Counter {
    /// What has been counted.
    pub async fn read(&self, metric: Metric, deadline: Instant) -> Result<f64, BackendError> {
        self.table.backend.read(self, metric, deadline).await
    }
}
