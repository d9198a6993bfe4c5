//! A database as the tests look at it, beside the daemon.
//!
//! Knows: statements, the columns of the counters. Must not know: what a test wants to see.

#![allow(dead_code, reason = "each test uses a part of it")]

use backends::Call;
use backends::Secret;
use backends::sql::{Durability, Param, Sql, SqlSettings, Statement, Work};
use std::sync::Arc;
use std::time::Duration;

/// A database as the tests look at it.
pub struct Database {
    sql: Arc<Sql>,
    runtime: tokio::runtime::Runtime,
}

impl Database {
    /// One where the user and the password are the same.
    pub fn new(dsn: &str, name: &str) -> Database {
        Database::open(dsn, name, name)
    }

    /// A database.
    pub fn open(dsn: &str, user: &str, password: &str) -> Database {
        let settings = SqlSettings {
            dsn: dsn.to_owned(),
            user: user.to_owned(),
            password: Secret(password.to_owned()),
            timeout: Duration::from_secs(10),
            max_connections: 2,
            durability: Durability::Full,
            tls_ca: None,
            identity: None,
        };
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        Database { sql: Arc::new(Sql::new("test", settings).expect("a database")), runtime }
    }

    /// The rows of a statement.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, sql: &str, params: Vec<Param>) -> Vec<Vec<Option<String>>> {
        let deadline = Call::within(Duration::from_secs(10));
        let statements = vec![Statement { sql: sql.into(), params }];
        let work = Work { statements, lock: None, durable: true };
        let outputs =
            self.runtime.block_on(self.sql.run(work, deadline)).unwrap_or_else(|e| panic!("{sql}: {e}"));
        outputs.into_iter().next().unwrap_or_default().rows
    }

    /// Rows and numbers of a key: `1 300 600 3000 6000`.
    pub fn numbers(&self, table: &str, key: &str) -> String {
        let quoted = |name: &str| self.sql.quote(name);
        let sums = ["count", "count_rcpt", "size", "size_rcpt"].map(|name| format!("SUM({})", quoted(name)));
        let sql = format!(
            "SELECT COUNT(*), {} FROM {} WHERE {} = ?",
            sums.join(", "),
            quoted(table),
            quoted("key")
        );
        let row = self.run(&sql, vec![Param::Text(key.to_owned())]).remove(0);
        row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().join(" ")
    }

    /// How many messages have a place reserved.
    pub fn reservations(&self) -> String {
        self.run("SELECT COUNT(*) FROM mtpolicyd_reservations", Vec::new())[0][0].clone().expect("a number")
    }
}
