//! Tables that the daemon keeps in a database: made only where they are missing, since the right to make one
//! is asked for even where there is one.
//!
//! Knows: the catalogues of the three databases. Must not know: what the tables are for.

use super::{Dialect, Param, Right, Sql, Statement, Work};
use crate::{BackendError, Call, Failure};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A table that the daemon keeps, declared once: for making it, for the look at rights, and for what an
/// administrator is told to run.
#[derive(Clone)]
pub struct Schema {
    /// Its name.
    pub table: String,
    /// A column of it.
    pub column: &'static str,
    /// The statements that make it.
    pub create: Vec<Statement>,
    /// What is done with its rows.
    pub rights: Vec<Right>,
    /// Works with this lock happen one after the other, in all daemons.
    pub lock: String,
    /// Whether it is needed at all, where that is known only when all is read.
    pub only_if: Option<Arc<AtomicBool>>,
}

impl Schema {
    /// A table whose rows are read, added, changed and removed, and that is made by these statements.
    pub fn new<Text: Into<Arc<str>>>(
        table: &str,
        column: &'static str,
        create: impl IntoIterator<Item = Text>,
    ) -> Schema {
        let create = create.into_iter().map(|sql| Statement { sql: sql.into(), params: Vec::new() });
        let (create, rights) = (create.collect(), Right::ALL.to_vec());
        Schema { table: table.to_owned(), column, create, rights, lock: table.to_owned(), only_if: None }
    }

    /// The same with another lock.
    pub fn locked_by(self, lock: &str) -> Schema {
        Schema { lock: lock.to_owned(), ..self }
    }

    pub(super) fn is_needed(&self) -> bool {
        self.only_if.as_ref().is_none_or(|needed| needed.load(Ordering::Relaxed))
    }

    /// The error if it is that the table could not be made, with the statements for an administrator to run.
    pub(super) fn missing(&self, error: BackendError) -> BackendError {
        let create: Vec<_> = self.create.iter().map(|statement| &*statement.sql).collect();
        error.advise(&format!("table {} is missing", self.table), &create.join("; "))
    }
}

impl Sql {
    /// Whether there is a table of that name, as far as the user may know it.
    pub async fn has_table(&self, name: &str, call: Call<'_>) -> Result<bool, BackendError> {
        let (sql, name) = match self.dialect() {
            Dialect::Sqlite => ("SELECT 1 FROM sqlite_master WHERE name = ? COLLATE NOCASE", name.to_owned()),
            Dialect::MySql => (
                "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?",
                name.to_owned(),
            ),
            Dialect::Postgres => ("SELECT 1 WHERE to_regclass(?) IS NOT NULL", self.quote(name)),
        };
        let query = Statement { sql: sql.into(), params: vec![Param::Text(name)] };
        Ok(!self.query(query, call).await?.is_empty())
    }

    /// Removes the rows of all tables of a database of SQLite: of one that stands in for another.
    pub async fn empty_tables(&self, call: Call<'_>) -> Result<(), BackendError> {
        let names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'";
        let names = self.query(Statement { sql: names.into(), params: Vec::new() }, call).await?;
        let delete = |name: String| Statement {
            sql: format!("DELETE FROM {}", self.quote(&name)).into(),
            params: Vec::new(),
        };
        let statements: Vec<_> = names.into_iter().flatten().flatten().map(delete).collect();
        if statements.is_empty() {
            return Ok(());
        }
        self.run(Work { statements, lock: None, durable: false }, call).await.map(drop)
    }

    /// Makes a table unless there is one.
    pub async fn make_table(&self, schema: &Schema, call: Call<'_>) -> Result<(), BackendError> {
        if self.has_table(&schema.table, call).await? {
            return Ok(());
        }
        let (statements, lock) = (schema.create.clone(), Some(schema.lock.clone()));
        let made = self.run(Work { statements, lock, durable: true }, call).await;
        made.map(drop).map_err(|error| schema.missing(error))
    }
}

impl BackendError {
    /// The same if a right is missing, with the statement for an administrator to run.
    pub fn advise(mut self, what: &str, statement: &str) -> BackendError {
        if let Failure::Denied(why) = self.failure {
            self.failure = Failure::Denied(format!("{what} ({why}); an administrator may run: {statement}"));
        }
        self
    }
}
