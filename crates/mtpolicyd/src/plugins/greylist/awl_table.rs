//! The auto-whitelist in a table of a database, the one that the original keeps.
//!
//! Knows: SQL. Must not know: when something is counted.

mod by_hand;

use super::awl::Entry;
use crate::log::messages::plugins;
use backends::sql::{Dialect, Merged, Param, Schema, Sql, Statement, Tally, Work};
use backends::{BackendError, Call};
use postfix_policy::canonical_domain;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use by_hand::Row;

/// The table.
pub struct AwlTable {
    sql: Arc<Sql>,
    /// Its name as the configuration has it.
    name: String,
    /// The unique index over domain and client, where it has to be added.
    index: String,
    /// The name of the lock under which the table is changed.
    lock: String,
    /// Seconds after the last message for which an entry counts.
    lifetime: i64,
    texts: Texts,
    /// Whether the table is known to be there with its unique index.
    prepared: AtomicBool,
}

/// The statements, written out once.
struct Texts {
    count: Arc<str>,
    count_two: Arc<str>,
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

/// The largest count that the columns hold; beyond the threshold it makes no difference.
const MAX_COUNT: i64 = 2_147_483_647;

impl AwlTable {
    /// The table of that name; nothing is asked yet.
    pub fn new(sql: Arc<Sql>, name: &str, lifetime: Duration) -> AwlTable {
        let (table, dialect) = (sql.quote(name), sql.dialect());
        let count = |is_domain: &str| {
            let count = sql.quote("count");
            format!(
                "SELECT SUM({count}) FROM {table} \
                 WHERE sender_domain {is_domain} AND client_ip = ? AND last_seen >= ?"
            )
            .into()
        };
        let texts = Texts {
            count: count("= ?"),
            count_two: count("IN (?, ?)"),
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
        // That of the original on MySQL has this name too.
        let index =
            if dialect == Dialect::MySql { "domain_ip".to_owned() } else { format!("{name}_domain_ip") };
        let (name, lock, prepared) = (name.to_owned(), format!("mtpolicyd {name}"), AtomicBool::new(false));
        AwlTable { sql, name, index, lock, lifetime, texts, prepared }
    }

    /// The count of an entry that has not expired, under two spellings of the domain. Where they are the
    /// same to the database, it is one row.
    pub async fn count(
        &self,
        domains: [&[u8]; 2],
        client: &[u8],
        now: i64,
        call: Call<'_>,
    ) -> Result<Option<u64>, BackendError> {
        let Some([domain, client]) = columns(domains[0], client) else { return Ok(None) };
        let oldest = Param::Integer(self.oldest(now));
        let written = column(domains[1], MAX_DOMAIN_BYTES).filter(|written| *written != domain);
        let (sql, params) = match written {
            None => (&self.texts.count, vec![domain, client, oldest]),
            // SQLite makes a table of such a list first, which takes longer than all the rest.
            Some(written) => (&self.texts.count_two, vec![domain, written, client, oldest]),
        };
        let query = Statement { sql: sql.clone(), params };
        let rows = self.sql.query_or_make(query, || self.prepare(call), call).await?;
        Ok(rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok()))
    }

    /// Counts one more, from 1 where there is no entry or an expired one. Losing it in a power cut costs a
    /// client a wait at worst.
    pub async fn add_one(
        &self,
        domain: &[u8],
        client: &[u8],
        now: i64,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        let Some([domain, client]) = columns(domain, client) else { return Ok(()) };
        let (now, oldest) = (Param::Integer(now), Param::Integer(self.oldest(now)));
        if let Some(sql) = &self.texts.add_one_there {
            let params = vec![oldest.clone(), now.clone(), domain.clone(), client.clone()];
            if self.change(Statement { sql: sql.clone(), params }, call).await? > 0 {
                return Ok(());
            }
        }
        let params = vec![domain, client, now.clone(), oldest, now];
        self.change(Statement { sql: self.texts.add_one.clone(), params }, call).await.map(|_| ())
    }

    /// Adds entries, all or none: the higher count and the later time hold. Returns the number of those that
    /// have not expired.
    pub async fn add_known(
        &self,
        entries: &[Entry],
        count: u64,
        now: i64,
        call: Call<'_>,
    ) -> Result<u64, BackendError> {
        self.prepare(call).await?;
        let text: Arc<str> =
            known(&self.sql.quote(&self.name), &self.sql.quote("count"), self.sql.dialect()).into();
        let count = Param::Integer(i64::try_from(count).unwrap_or(MAX_COUNT).min(MAX_COUNT));
        let statements: Vec<_> = entries
            .iter()
            .filter(|entry| entry.last_seen >= self.oldest(now))
            .filter_map(|entry| {
                let [domain, client] = columns(&entry.domain, &entry.client)?;
                let (count, seen) = (|| count.clone(), || Param::Integer(entry.last_seen.min(now)));
                let params = vec![domain, client, count(), seen(), count(), count(), seen(), seen()];
                Some(Statement { sql: text.clone(), params })
            })
            .collect();
        let added = u64::try_from(statements.len()).unwrap_or(u64::MAX);
        self.sql.run(Work { statements, lock: Some(self.lock.clone()), durable: true }, call).await?;
        Ok(added)
    }

    /// Removes the entries that have expired. Returns their number.
    pub async fn expire(&self, now: i64, call: Call<'_>) -> Result<u64, BackendError> {
        let params = vec![Param::Integer(self.oldest(now))];
        self.change(Statement { sql: self.texts.expire.clone(), params }, call).await
    }

    /// When an entry that still counts was last seen at the earliest.
    fn oldest(&self, now: i64) -> i64 {
        now.saturating_sub(self.lifetime)
    }

    /// Makes a change. Returns how many rows it has changed.
    async fn change(&self, statement: Statement, call: Call<'_>) -> Result<u64, BackendError> {
        // Without its unique index the table would take a second row of the same entry.
        if !self.prepared.load(Ordering::Relaxed) {
            Box::pin(self.prepare(call)).await?;
        }
        let work = Work { statements: vec![statement], lock: None, durable: false };
        let outputs = self.sql.run_or_make(work, || self.prepare(call), call).await?;
        Ok(outputs.first().map_or(0, |output| output.affected))
    }

    /// Makes the table if it is missing, and its unique index where the original has made none.
    pub async fn prepare(&self, call: Call<'_>) -> Result<(), BackendError> {
        if !self.sql.has_unique_key(self.tally(), call).await? {
            self.sql.make_table(&self.schema(), call).await?;
        }
        if !self.sql.has_unique_key(self.tally(), call).await? {
            let Merged { rows, removed } = self.sql.make_unique(self.tally(), call).await?;
            if removed > 0 {
                plugins::whitelist_merged(&self.name, self.sql.name(), removed, rows);
            }
        }
        self.prepared.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn tally(&self) -> Tally<'_> {
        let (key, beside, sums, latest) =
            ("sender_domain", "client_ip", &[("count", MAX_COUNT)], &["last_seen"]);
        Tally { table: &self.name, key, beside, sums, latest, index: &self.index, lock: &self.lock }
    }

    /// Adds entries whose domain is as it was written in some message to those of the domain as it is
    /// counted: how many.
    pub async fn merge_spellings(&self, call: Call<'_>) -> Result<u64, BackendError> {
        let spell = |domain: &str| match column(&canonical_domain(domain.as_bytes()), MAX_DOMAIN_BYTES) {
            // Its control characters are escaped already.
            Some(Param::Text(spelled)) if !domain.contains('\\') => spelled,
            _ => domain.to_owned(),
        };
        self.sql.respell(self.tally(), spell, call).await
    }

    /// The database.
    pub fn sql(&self) -> &Arc<Sql> {
        &self.sql
    }

    /// The table and, where that is a statement of its own, its unique index.
    pub fn schema(&self) -> Schema {
        let index = (self.sql.dialect() != Dialect::MySql).then(|| self.sql.unique_key(self.tally()));
        let create = std::iter::once(self.creation()).chain(index);
        Schema::new(&self.name, "last_seen", create).locked_by(&self.lock)
    }

    fn creation(&self) -> String {
        let table = self.sql.quote(&self.name);
        let dialect = self.sql.dialect();
        let (id, [count_type, time_type], tail) = match dialect {
            Dialect::Sqlite => (dialect.row_number(), ["INT UNSIGNED", "INTEGER"], ")"),
            Dialect::Postgres => (dialect.row_number(), ["BIGINT", "BIGINT"], ")"),
            Dialect::MySql => (
                "INT NOT NULL AUTO_INCREMENT PRIMARY KEY",
                ["INT UNSIGNED", "INT UNSIGNED"],
                ", UNIQUE KEY domain_ip (client_ip, sender_domain), KEY client_ip (client_ip), \
                 KEY sender_domain (sender_domain)) ENGINE=InnoDB DEFAULT CHARSET=latin1",
            ),
        };
        let count = self.sql.quote("count");
        format!(
            "CREATE TABLE IF NOT EXISTS {table} (id {id}, sender_domain VARCHAR(255) NOT NULL, \
             client_ip VARCHAR(39) NOT NULL, {count} {count_type} NOT NULL, \
             last_seen {time_type} NOT NULL{tail}"
        )
    }
}

/// Counts one more, in one statement. The parameters are domain, client, now, the time from which on an entry
/// still counts, now.
fn upsert(table: &str, count: &str, dialect: Dialect) -> String {
    let or_update = dialect.or_update("sender_domain, client_ip");
    let counted = counted(table, count);
    format!(
        "INSERT INTO {table} (sender_domain, client_ip, {count}, last_seen) VALUES (?, ?, 1, ?) \
         {or_update} {count} = {counted}, last_seen = ?"
    )
}

/// Adds an entry of which count and time are known. The parameters are domain, client, count, time; then
/// count and time twice each, for an entry that is there.
fn known(table: &str, count: &str, dialect: Dialect) -> String {
    let or_update = dialect.or_update("sender_domain, client_ip");
    let higher =
        |column: &str| format!("{column} = CASE WHEN {table}.{column} < ? THEN ? ELSE {table}.{column} END");
    format!(
        "INSERT INTO {table} (sender_domain, client_ip, {count}, last_seen) VALUES (?, ?, ?, ?) \
         {or_update} {}, {}",
        higher(count),
        higher("last_seen")
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
