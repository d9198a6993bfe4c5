//! Tables that the daemon keeps in a database: made only where they are missing, since the right to make one
//! is asked for even where there is one.
//!
//! Knows: the catalogues of the three databases. Must not know: what the tables are for.

use super::{Dialect, Param, Sql, Statement, Work};
use crate::{BackendError, Failure};
use tokio::time::Instant;

impl Sql {
    /// Whether there is a table of that name, as far as the user may know it.
    pub async fn has_table(&self, name: &str, deadline: Instant) -> Result<bool, BackendError> {
        let (sql, name) = match self.dialect() {
            Dialect::Sqlite => ("SELECT 1 FROM sqlite_master WHERE name = ? COLLATE NOCASE", name.to_owned()),
            Dialect::MySql => (
                "SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?",
                name.to_owned(),
            ),
            Dialect::Postgres => ("SELECT 1 WHERE to_regclass(?) IS NOT NULL", self.quote(name)),
        };
        let query = Statement { sql: sql.into(), params: vec![Param::Text(name)] };
        Ok(!self.query(query, deadline).await?.is_empty())
    }

    /// Makes a table by these statements unless there is one. Those with the same lock happen one after the
    /// other.
    pub async fn make_table(
        &self,
        name: &str,
        statements: Vec<Statement>,
        lock: &str,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        if self.has_table(name, deadline).await? {
            return Ok(());
        }
        let text = statements.iter().map(|statement| statement.sql.as_ref()).collect::<Vec<_>>().join("; ");
        let work = Work { statements, lock: Some(lock.to_owned()), durable: true };
        let made = self.run(work, deadline).await;
        made.map(drop).map_err(|error| error.advise(&format!("table {name} is missing"), &text))
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
