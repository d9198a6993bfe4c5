//! Counters in a database.
//!
//! Knows: the statements, and what to do when a table is missing. Must not know: requests, plugins.

use super::amounts::{Amounts, Metric};
use super::reservations::{LIFETIME, Reservations};
use super::tables::{MAX_KEY_CHARS, Writer, create_reservations, plain, remove_expired, remove_reservation};
use super::{Backend, Counter};
use crate::value::numeric_prefix;
use crate::world::backend::BackendError;
use crate::world::clock::Clock;
use crate::world::sql::{Dialect, Output, Param, Sql, Statement, Work};
use std::collections::BTreeSet;
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
    reserve: [Arc<str>; 4],
    used_before: [Arc<str>; 4],
}

/// Counts in several tables at once, and removes the reservations there.
pub async fn count(
    sql: &Sql,
    counters: &[Counter],
    amounts: &Amounts,
    reservations: &Reservations,
    deadline: Instant,
) -> Result<(), BackendError> {
    let tables = counters.iter().filter_map(|counter| match &counter.table.backend {
        Backend::Sql(table) => Some((counter, table)),
        Backend::Redis(_) => None,
    });
    let tables: Vec<_> = tables.collect();
    for (_, table) in &tables {
        table.make_ready(deadline).await?;
    }
    let mut works = vec![Work { statements: Vec::new(), lock: None, durable: true }];
    for (counter, table) in &tables {
        let token = reservations.token(counter);
        let lock = token.filter(|_| sql.dialect() == Dialect::MySql).map(|_| table.lock(counter));
        let mut statements = vec![table.add(counter, amounts)];
        statements.extend(token.map(|token| table.remove_reservation(token)));
        match lock {
            // MyISAM knows no transaction: nobody may look between the counting and the removing.
            Some(lock) => works.push(Work { statements, lock: Some(lock), durable: true }),
            None => works[0].statements.append(&mut statements),
        }
    }
    for work in works.into_iter().filter(|work| !work.statements.is_empty()) {
        // A table may have gone with its file.
        let make = async {
            for (_, table) in &tables {
                table.prepare_and_log(deadline).await?;
            }
            make_reservations(sql, deadline).await
        };
        sql.run_or_make(work, make, deadline).await?;
    }
    Ok(())
}

async fn make_reservations(sql: &Sql, deadline: Instant) -> Result<(), BackendError> {
    let statements = create_reservations(sql);
    sql.run(Work { statements, lock: Some(TABLES_LOCK.to_owned()), durable: true }, deadline).await.map(drop)
}

impl SqlTable {
    /// A table, which is not looked at yet.
    pub fn new(sql: Arc<Sql>, name: &str, engine: &str) -> SqlTable {
        let writer = Writer { sql: &sql, table: name };
        let upsert = writer.upsert().into();
        let read = Metric::ALL.map(|metric| writer.read(&metric.to_string()).into());
        let reserve = Metric::ALL.map(|metric| writer.reserve(&metric.to_string()).into());
        let used_before = Metric::ALL.map(|metric| writer.used_before(&metric.to_string()).into());
        let (name, engine, ready) = (name.to_owned(), engine.to_owned(), AtomicBool::new(false));
        SqlTable { ready, sql, name, engine, upsert, read, reserve, used_before }
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
        let rows = self.sql.query_or_make(query, self.prepare_and_log(deadline), deadline).await?;
        let text = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        Ok(numeric_prefix(text.unwrap_or_default().as_bytes()))
    }

    /// Reserves, unless the threshold has been reached: whether it did.
    #[expect(clippy::too_many_arguments, reason = "what is compared and who asks")]
    pub async fn reserve(
        &self,
        counter: &Counter,
        metric: Metric,
        threshold: i64,
        amounts: &Amounts,
        token: &str,
        clock: &Clock,
        deadline: Instant,
    ) -> Result<bool, BackendError> {
        self.make_ready(deadline).await?;
        let now = clock.now();
        let ends = now.saturating_add(LIFETIME.as_secs().cast_signed());
        let mut params = vec![Param::Text(token.to_owned())];
        params.extend(self.reserved_place(counter));
        params.extend(amounts.all().map(Param::Integer));
        params.push(Param::Integer(ends));
        params.extend(self.place(counter));
        params.extend(self.reserved_place(counter));
        params.push(Param::Integer(threshold));
        let mut expired = self.reserved_place(counter).to_vec();
        expired.push(Param::Integer(now));
        let purge = remove_expired(&self.sql);
        let statements = vec![
            Statement { sql: purge.into(), params: expired },
            Statement { sql: self.reserve[metric as usize].clone(), params },
        ];
        let outputs = self.run_locked(counter, statements, deadline).await?;
        Ok(outputs.last().is_some_and(|output| output.affected > 0))
    }

    /// What was counted, and reserved before this reservation.
    pub async fn used_before(
        &self,
        counter: &Counter,
        metric: Metric,
        token: &str,
        deadline: Instant,
    ) -> Result<f64, BackendError> {
        let mut params = self.place(counter).to_vec();
        params.extend(self.reserved_place(counter));
        params.push(Param::Text(token.to_owned()));
        let query = Statement { sql: self.used_before[metric as usize].clone(), params };
        let outputs = self.run_locked(counter, vec![query], deadline).await?;
        let text = outputs.into_iter().next().and_then(|output| output.rows.into_iter().next()?.pop()?);
        Ok(numeric_prefix(text.unwrap_or_default().as_bytes()))
    }

    /// Removes a reservation.
    pub async fn give_back(&self, token: &str, deadline: Instant) -> Result<(), BackendError> {
        let statements = vec![self.remove_reservation(token)];
        self.sql.run(Work { statements, lock: None, durable: false }, deadline).await.map(drop)
    }

    /// Removes the rows of these spans of time: how many.
    pub async fn forget(&self, old: &BTreeSet<String>, deadline: Instant) -> Result<u64, BackendError> {
        self.make_ready(deadline).await?;
        let writer = Writer { sql: &self.sql, table: &self.name };
        let rows = self.sql.query(plain(writer.times()), deadline).await?;
        let times = rows.into_iter().filter_map(|row| row.into_iter().next().flatten());
        let delete: Arc<str> = writer.remove_time().into();
        let mut removed = 0;
        for time in times.filter(|time| old.contains(time)) {
            let statement = Statement { sql: delete.clone(), params: vec![Param::Text(time)] };
            let work = Work { statements: vec![statement], lock: None, durable: false };
            let outputs = self.sql.run(work, deadline).await?;
            removed += outputs.first().map_or(0, |output| output.affected);
        }
        Ok(removed)
    }

    /// Does what nobody else may do at the same time for this counter. It need not survive a power cut: the
    /// request would not have been answered.
    async fn run_locked(
        &self,
        counter: &Counter,
        statements: Vec<Statement>,
        deadline: Instant,
    ) -> Result<Vec<Output>, BackendError> {
        let work = Work { statements, lock: Some(self.lock(counter)), durable: false };
        let make = async {
            self.prepare_and_log(deadline).await?;
            make_reservations(&self.sql, deadline).await
        };
        self.sql.run_or_make(work, make, deadline).await
    }

    fn remove_reservation(&self, token: &str) -> Statement {
        Statement { sql: remove_reservation(&self.sql).into(), params: vec![Param::Text(token.to_owned())] }
    }

    /// Where a counter's reservations are found: its table, key and time.
    fn reserved_place(&self, counter: &Counter) -> [Param; 3] {
        let [key, time] = self.place(counter);
        [Param::Text(stored(self.sql.dialect(), &self.name)), key, time]
    }

    /// The name of the lock of a counter. MySQL takes keys for the same that differ in case or in blanks at
    /// the end; so they have one lock.
    fn lock(&self, counter: &Counter) -> String {
        let key = counter.key.to_lowercase();
        format!("mtpolicyd-quota {} {} {}", self.name, counter.time, key.trim_end())
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
