//! Pages of a table of values, in the order of their names.
//!
//! Knows: SQL. Must not know: what the values are for.

use super::{SqlTable, decode, name, now};
use crate::clock::Clock;
use crate::keyvalue::scan::{BAD_CURSOR, Held, Page, Scan, from_hex, to_hex};
use crate::sql::{Param, Row, Statement};
use crate::{BackendError, Call, Failure};
use std::time::Duration;

impl SqlTable {
    /// What is under a key, with how long it still lives.
    pub async fn held(&self, key: &[u8], call: Call<'_>) -> Result<Option<Held>, BackendError> {
        let query = Statement { sql: self.statements.held.clone(), params: vec![name(key), now()] };
        let rows = self.read(query, call).await?;
        let row = rows.into_iter().next().and_then(|row| <[Option<String>; 2]>::try_from(row).ok());
        Ok(row.map(|[value, expires]| Held {
            key: key.to_vec(),
            value: value.as_deref().map(decode),
            left: left(expires.as_deref()),
        }))
    }

    /// A page of what is under keys that begin alike.
    pub async fn scan(&self, scan: Scan<'_>, call: Call<'_>) -> Result<Page, BackendError> {
        let behind = match scan.cursor {
            Some(text) => Some(from_hex(text).ok_or_else(|| self.refused(BAD_CURSOR.to_owned()))?),
            None => None,
        };
        let (sql, from) = match &behind {
            Some(last) => (&self.statements.scan_behind, last.as_slice()),
            None => (&self.statements.scan, scan.prefix),
        };
        let limit = i64::try_from(scan.size()).unwrap_or(i64::MAX);
        let params = vec![name(from), now(), Param::Integer(limit)];
        let rows = self.read(Statement { sql: sql.clone(), params }, call).await?;
        let (is_last, mut entries) = (rows.len() < scan.size(), Vec::with_capacity(rows.len()));
        for row in rows {
            let Ok([Some(name), value, expires]) = <[Option<String>; 3]>::try_from(row) else { continue };
            // Those that begin alike stand together.
            if !name.as_bytes().starts_with(scan.prefix) {
                return Ok(Page { entries, next: None });
            }
            let (value, left) = (value.as_deref().map(decode), left(expires.as_deref()));
            entries.push(Held { key: name.into_bytes(), value, left });
        }
        let next = entries.last().filter(|_| !is_last).map(|last| to_hex(&last.key));
        Ok(Page { entries, next })
    }

    /// The rows of a query; none where there is no table yet.
    async fn read(&self, query: Statement, call: Call<'_>) -> Result<Vec<Row>, BackendError> {
        match self.sql.query(query, call).await {
            Err(BackendError { failure: Failure::NoTable(_), .. }) => Ok(Vec::new()),
            rows => rows,
        }
    }
}

/// How long something lives that ends at a time in milliseconds.
fn left(expires: Option<&str>) -> Option<Duration> {
    let expires: i64 = expires?.parse().ok()?;
    let left = expires.saturating_sub(Clock::System.now_millis());
    u64::try_from(left).ok().map(Duration::from_millis)
}
