//! Counts in a database as an administrator sees and changes them.
//!
//! Knows: SQL. Must not know: what the limit is for.

use super::{TABLE, Table, not_durable, read, statement};
use crate::limits::by_hand::{Edit, HeldLimits, LimitPage};
use backends::sql::{Dialect, Param, Row, Statement, Work};
use backends::{BackendError, Call, Failure};

/// The most keys of a page: each is read by itself.
const MAX_KEYS: usize = 100;

impl Table {
    /// The name of the connection.
    pub fn store(&self) -> &str {
        self.sql.name()
    }

    /// What is counted of a key.
    pub async fn held(
        &self,
        key: &str,
        now: i64,
        call: Call<'_>,
    ) -> Result<Option<HeldLimits>, BackendError> {
        let sql = format!("SELECT rule, slot, seen, units FROM {TABLE} WHERE limited = ? AND expires > ?");
        let rows = self.rows(statement(sql, vec![Param::Text(key.to_owned()), Param::Integer(now)]), call);
        let rows = rows.await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let state = read(&rows);
        let state = Some(state).filter(|state| state.rules().next().is_some());
        Ok(Some(HeldLimits { key: key.to_owned(), state }))
    }

    /// Some of the keys that begin so, from a cursor on.
    pub async fn page(
        &self,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
        now: i64,
        call: Call<'_>,
    ) -> Result<LimitPage, BackendError> {
        let limit = limit.clamp(1, MAX_KEYS);
        let column = match self.sql.dialect() {
            // It compares texts as a language does.
            Dialect::Postgres => "limited COLLATE \"C\"",
            Dialect::Sqlite | Dialect::MySql => "limited",
        };
        let (from, key) = cursor.map_or((">=", prefix), |last| (">", last));
        let sql = format!(
            "SELECT limited FROM {TABLE} WHERE {column} {from} ? AND expires > ? \
             GROUP BY limited ORDER BY {column} LIMIT ?"
        );
        let most = Param::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
        let params = vec![Param::Text(key.to_owned()), Param::Integer(now), most];
        let keys = self.rows(statement(sql, params), call).await?;
        let is_last = keys.len() < limit;
        let (mut held, mut last) = (Vec::new(), None);
        for key in keys.into_iter().filter_map(|row| row.into_iter().next().flatten()) {
            // Those that begin alike stand together.
            if !key.starts_with(prefix) {
                return Ok(LimitPage { held, next: None });
            }
            held.extend(self.held(&key, now, call).await?);
            last = Some(key);
        }
        Ok(LimitPage { held, next: last.filter(|_| !is_last) })
    }

    /// Changes what is counted of a key on these limits.
    pub async fn edit(
        &self,
        key: &str,
        edits: &[Edit],
        now: i64,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        let text = |text: &str| Param::Text(text.to_owned());
        let mut statements = Vec::new();
        for edit in edits {
            let delete = format!("DELETE FROM {TABLE} WHERE limited = ? AND rule = ?");
            statements.push(statement(delete, vec![text(key), text(&edit.rule.name)]));
            if let Some(entry) = edit.entry(now) {
                let insert = format!(
                    "INSERT INTO {TABLE} (limited, rule, slot, seen, units, expires) \
                     VALUES (?, ?, ?, ?, ?, ?)"
                );
                let numbers = [entry.slot, entry.seen, entry.units, now.saturating_add(edit.rule.life)];
                let params = [text(key), text(&edit.rule.name)].into_iter();
                statements.push(statement(insert, params.chain(numbers.map(Param::Integer)).collect()));
            }
        }
        let work = Work { durable: true, ..not_durable(statements, Some(format!("{TABLE}:{key}"))) };
        self.sql.run_or_make(work, || self.create(call), call).await.map(drop)
    }

    /// Forgets all that is counted of a key.
    pub async fn forget(&self, key: &str, call: Call<'_>) -> Result<(), BackendError> {
        let delete = format!("DELETE FROM {TABLE} WHERE limited = ?");
        let delete = statement(delete, vec![Param::Text(key.to_owned())]);
        let work = Work { durable: true, ..not_durable(vec![delete], Some(format!("{TABLE}:{key}"))) };
        self.sql.run_or_make(work, || self.create(call), call).await.map(drop)
    }

    /// The rows of a query; none where there is no table yet.
    async fn rows(&self, query: Statement, call: Call<'_>) -> Result<Vec<Row>, BackendError> {
        match self.sql.query(query, call).await {
            Err(BackendError { failure: Failure::NoTable(_), .. }) => Ok(Vec::new()),
            rows => rows,
        }
    }
}
