//! The auto-whitelist in a table of a database, the one that the original keeps.
//!
//! Knows: SQL. Must not know: when something is counted.

use crate::log::messages::plugins;
use backends::BackendError;
use backends::sql::{Dialect, Needs, Param, Right, Sql, Statement, Work};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// The table.
pub struct AwlTable {
    sql: Arc<Sql>,
    /// Its name as the configuration has it.
    name: String,
    /// Seconds after the last message for which an entry counts.
    lifetime: i64,
    texts: Texts,
    /// Whether the table is known to be there with its unique index.
    prepared: AtomicBool,
}

/// The statements, written out once.
struct Texts {
    count: Arc<str>,
    /// What counts where there is an entry, for MySQL: its upsert uses up one of the ids each time it is
    /// tried, and those of the original's tables end at 2,147,483,647.
    add_one_there: Option<Arc<str>>,
    add_one: Arc<str>,
    expire: Arc<str>,
}

/// What the columns hold in the tables of the original; a longer domain is never whitelisted.
const MAX_DOMAIN_BYTES: usize = 255;

/// The same for what stands for the client.
const MAX_CLIENT_BYTES: usize = 39;

impl AwlTable {
    /// The table of that name; nothing is asked yet.
    pub fn new(sql: Arc<Sql>, name: &str, lifetime: Duration) -> AwlTable {
        let (table, dialect) = (sql.quote(name), sql.dialect());
        let texts = Texts {
            count: format!(
                "SELECT SUM({count}) FROM {table} \
                 WHERE sender_domain IN (?, ?) AND client_ip = ? AND last_seen >= ?",
                count = sql.quote("count")
            )
            .into(),
            add_one_there: (dialect == Dialect::MySql).then(|| {
                let (count, counted) = (sql.quote("count"), counted(&table, &sql.quote("count")));
                format!(
                    "UPDATE {table} SET {count} = {counted}, last_seen = ? \
                     WHERE sender_domain = ? AND client_ip = ?"
                )
                .into()
            }),
            add_one: upsert(&table, &sql.quote("count"), dialect).into(),
            expire: format!("DELETE FROM {table} WHERE last_seen < ?").into(),
        };
        let lifetime = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        AwlTable { sql, name: name.to_owned(), lifetime, texts, prepared: AtomicBool::new(false) }
    }

    /// The count of an entry that has not expired, under two spellings of the domain. Where they are the
    /// same to the database, it is one row.
    pub async fn count(
        &self,
        domains: [&[u8]; 2],
        client: &[u8],
        now: i64,
        deadline: Instant,
    ) -> Result<Option<u64>, BackendError> {
        let Some([domain, client]) = columns(domains[0], client) else { return Ok(None) };
        let written = column(domains[1], MAX_DOMAIN_BYTES).unwrap_or_else(|| domain.clone());
        let params = vec![domain, written, client, Param::Integer(self.oldest(now))];
        let query = Statement { sql: self.texts.count.clone(), params };
        let rows = self.sql.query_or_make(query, self.prepare(deadline), deadline).await?;
        Ok(rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok()))
    }

    /// Counts one more, from 1 where there is no entry or an expired one. Losing it in a power cut costs a
    /// client a wait at worst.
    pub async fn add_one(
        &self,
        domain: &[u8],
        client: &[u8],
        now: i64,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let Some([domain, client]) = columns(domain, client) else { return Ok(()) };
        let (now, oldest) = (Param::Integer(now), Param::Integer(self.oldest(now)));
        if let Some(sql) = &self.texts.add_one_there {
            let params = vec![oldest.clone(), now.clone(), domain.clone(), client.clone()];
            if self.change(Statement { sql: sql.clone(), params }, deadline).await? > 0 {
                return Ok(());
            }
        }
        let params = vec![domain, client, now.clone(), oldest, now];
        self.change(Statement { sql: self.texts.add_one.clone(), params }, deadline).await.map(|_| ())
    }

    /// Removes the entries that have expired. Returns their number.
    pub async fn expire(&self, now: i64, deadline: Instant) -> Result<u64, BackendError> {
        let params = vec![Param::Integer(self.oldest(now))];
        self.change(Statement { sql: self.texts.expire.clone(), params }, deadline).await
    }

    /// When an entry that still counts was last seen at the earliest.
    fn oldest(&self, now: i64) -> i64 {
        now.saturating_sub(self.lifetime)
    }

    /// Makes a change. Returns how many rows it has changed.
    async fn change(&self, statement: Statement, deadline: Instant) -> Result<u64, BackendError> {
        // Without its unique index the table would take a second row of the same entry.
        if !self.prepared.load(Ordering::Relaxed) {
            self.prepare(deadline).await?;
        }
        let work = Work { statements: vec![statement], lock: None, durable: false };
        let outputs = self.sql.run_or_make(work, self.prepare(deadline), deadline).await?;
        Ok(outputs.first().map_or(0, |output| output.affected))
    }

    /// Makes the table if it is missing, and its unique index where the original has made none.
    pub async fn prepare(&self, deadline: Instant) -> Result<(), BackendError> {
        if !self.has_index(deadline).await? {
            self.sql.make_table(&self.name, self.create(), &self.lock(), deadline).await?;
        }
        if !self.has_index(deadline).await? {
            self.add_index(deadline).await?;
        }
        self.prepared.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn run(&self, statements: Vec<String>, deadline: Instant) -> Result<Vec<u64>, BackendError> {
        let statement = |sql: String| Statement { sql: sql.into(), params: Vec::new() };
        let statements = statements.into_iter().map(statement).collect();
        let work = Work { statements, lock: Some(self.lock()), durable: true };
        let outputs = self.sql.run(work, deadline).await?;
        Ok(outputs.iter().map(|output| output.affected).collect())
    }

    /// The database.
    pub fn sql(&self) -> &Arc<Sql> {
        &self.sql
    }

    /// What is needed of the table.
    pub fn needs(&self) -> Needs {
        let (table, rights) = (self.name.clone(), Right::ALL.to_vec());
        Needs { table, column: "last_seen", rights, create: self.create(), only_if: None }
    }

    /// The table and, where that is a statement of its own, its unique index.
    fn create(&self) -> Vec<Statement> {
        let index = (self.sql.dialect() != Dialect::MySql).then(|| self.index_creation());
        let statement = |sql: String| Statement { sql: sql.into(), params: Vec::new() };
        std::iter::once(self.creation()).chain(index).map(statement).collect()
    }

    fn index_creation(&self) -> String {
        let (table, index) = (self.sql.quote(&self.name), self.sql.quote(&self.index()));
        match self.sql.dialect() {
            Dialect::MySql => {
                format!("ALTER TABLE {table} ADD UNIQUE KEY {index} (client_ip, sender_domain)")
            }
            Dialect::Sqlite | Dialect::Postgres => {
                format!("CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {table} (sender_domain, client_ip)")
            }
        }
    }

    fn lock(&self) -> String {
        format!("mtpolicyd {}", self.name)
    }

    fn creation(&self) -> String {
        let table = self.sql.quote(&self.name);
        let (id, number, tail) = match self.sql.dialect() {
            Dialect::Sqlite => ("INTEGER PRIMARY KEY AUTOINCREMENT", ["INT UNSIGNED", "INTEGER"], ")"),
            Dialect::MySql => (
                "INT NOT NULL AUTO_INCREMENT PRIMARY KEY",
                ["INT UNSIGNED", "INT UNSIGNED"],
                ", UNIQUE KEY domain_ip (client_ip, sender_domain), KEY client_ip (client_ip), \
                 KEY sender_domain (sender_domain)) ENGINE=InnoDB DEFAULT CHARSET=latin1",
            ),
            Dialect::Postgres => {
                ("BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY", ["BIGINT", "BIGINT"], ")")
            }
        };
        let [count_type, time_type] = number;
        let count = self.sql.quote("count");
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (id {id}, sender_domain VARCHAR(255) NOT NULL, \
             client_ip VARCHAR(39) NOT NULL, {count} {count_type} NOT NULL, \
             last_seen {time_type} NOT NULL{tail}"
        )
    }

    /// The unique index over domain and client. That of the original on MySQL has the same name.
    fn index(&self) -> String {
        match self.sql.dialect() {
            Dialect::MySql => "domain_ip".to_owned(),
            Dialect::Sqlite | Dialect::Postgres => format!("{}_domain_ip", self.name),
        }
    }

    async fn has_index(&self, deadline: Instant) -> Result<bool, BackendError> {
        let sql = match self.sql.dialect() {
            Dialect::Sqlite => "SELECT 1 FROM sqlite_master WHERE tbl_name = ? AND name = ?",
            Dialect::MySql => {
                "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() \
                 AND table_name = ? AND index_name = ? AND non_unique = 0"
            }
            Dialect::Postgres => {
                "SELECT 1 FROM pg_indexes WHERE schemaname = ANY (current_schemas(false)) \
                 AND tablename = ? AND indexname = ?"
            }
        };
        let params = vec![Param::Text(self.name.clone()), Param::Text(self.index())];
        let rows = self.sql.query(Statement { sql: sql.into(), params }, deadline).await?;
        Ok(!rows.is_empty())
    }

    /// Adds the unique index, after rows of the same entry have become one: their sum, and the last of their
    /// times.
    async fn add_index(&self, deadline: Instant) -> Result<(), BackendError> {
        let (table, count) = (self.sql.quote(&self.name), self.sql.quote("count"));
        let sums = format!(
            "SELECT MIN(id) AS first, sender_domain AS domain, client_ip AS ip, SUM({count}) AS total, \
             MAX(last_seen) AS latest FROM {table} GROUP BY sender_domain, client_ip HAVING COUNT(*) > 1"
        );
        let add = self.index_creation();
        let (merge, remove) = match self.sql.dialect() {
            Dialect::MySql => (
                format!(
                    "UPDATE {table} t JOIN ({sums}) m ON t.id = m.first \
                     SET t.{count} = m.total, t.last_seen = m.latest"
                ),
                format!(
                    "DELETE t FROM {table} t JOIN ({sums}) m \
                     ON t.sender_domain = m.domain AND t.client_ip = m.ip AND t.id <> m.first"
                ),
            ),
            Dialect::Sqlite | Dialect::Postgres => (
                format!(
                    "UPDATE {table} SET {count} = m.total, last_seen = m.latest FROM ({sums}) m \
                     WHERE {table}.id = m.first"
                ),
                format!(
                    "DELETE FROM {table} WHERE id NOT IN \
                     (SELECT MIN(id) FROM {table} GROUP BY sender_domain, client_ip)"
                ),
            ),
        };
        let what = format!("table {} has no unique index {}", self.name, self.index());
        let statements = vec![merge, remove, add.clone()];
        let changed = self.run(statements, deadline).await.map_err(|error| error.advise(&what, &add))?;
        let removed = changed.get(1).copied().unwrap_or(0);
        if removed > 0 {
            plugins::whitelist_merged(&self.name, self.sql.name(), removed, changed[0]);
        }
        Ok(())
    }
}

/// Counts one more, in one statement. The parameters are domain, client, now, the time from which on an entry
/// still counts, now.
fn upsert(table: &str, count: &str, dialect: Dialect) -> String {
    let conflict = match dialect {
        Dialect::MySql => "ON DUPLICATE KEY UPDATE",
        Dialect::Sqlite | Dialect::Postgres => "ON CONFLICT (sender_domain, client_ip) DO UPDATE SET",
    };
    let counted = counted(table, count);
    format!(
        "INSERT INTO {table} (sender_domain, client_ip, {count}, last_seen) VALUES (?, ?, 1, ?) \
         {conflict} {count} = {counted}, last_seen = ?"
    )
}

/// The next count of an entry. It comes before the new time: MySQL sets columns from left to right.
fn counted(table: &str, count: &str) -> String {
    format!("CASE WHEN {table}.last_seen < ? THEN 1 ELSE {table}.{count} + 1 END")
}

/// An entry as the columns take it, `None` if it is too long.
fn columns(domain: &[u8], client: &[u8]) -> Option<[Param; 2]> {
    Some([column(domain, MAX_DOMAIN_BYTES)?, column(client, MAX_CLIENT_BYTES)?])
}

/// What is not ASCII is written in hexadecimal, since the tables of the original hold Latin-1.
fn column(bytes: &[u8], most: usize) -> Option<Param> {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_graphic() || *byte == b' ' {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    (text.len() <= most).then_some(Param::Text(text))
}
