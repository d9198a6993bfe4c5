//! The table of the auto-whitelist as an administrator sees and changes it.
//!
//! Knows: SQL. Must not know: what a count means.

use super::{AwlTable, MAX_COUNT, columns};
use backends::sql::{Param, Statement, Work};
use backends::{BackendError, Call, Failure};
use std::time::Duration;

/// The most rows of a page.
const MAX_ROWS: usize = 500;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The domain of the senders, as the column has it.
    pub domain: String,
    /// What stands for the client.
    pub client: String,
    /// The count and when the client came last; `None` if they can't be read.
    pub counted: Option<(u64, i64)>,
}

impl AwlTable {
    /// The name of the table.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long an entry counts after the last message.
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime.unsigned_abs())
    }

    /// Some rows that still count, from a cursor on; with a domain those of that domain.
    pub async fn page(
        &self,
        domain: Option<&[u8]>,
        cursor: Option<&str>,
        limit: usize,
        now: i64,
        call: Call<'_>,
    ) -> Result<(Vec<Row>, Option<String>), BackendError> {
        let limit = limit.clamp(1, MAX_ROWS);
        let behind = cursor.and_then(|text| text.parse().ok()).unwrap_or(i64::MIN);
        let (table, count) = (self.sql.quote(&self.name), self.sql.quote("count"));
        let mut params = vec![Param::Integer(behind), Param::Integer(self.oldest(now))];
        let mut of_domain = "";
        if let Some(domain) = domain {
            // What is too long for the column is not there.
            let Some([domain, _]) = columns(domain, b"") else { return Ok((Vec::new(), None)) };
            params.push(domain);
            of_domain = " AND sender_domain = ?";
        }
        params.push(Param::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        let sql = format!(
            "SELECT id, sender_domain, client_ip, {count}, last_seen FROM {table} \
             WHERE id > ? AND last_seen >= ?{of_domain} ORDER BY id LIMIT ?"
        );
        let rows = self.read(Statement { sql: sql.into(), params }, call).await?;
        let next = rows.last().filter(|_| rows.len() >= limit).and_then(|row| row.first()?.clone());
        let rows = rows.into_iter().filter_map(|row| {
            let mut row = row.into_iter().skip(1);
            let (domain, client) = (row.next()??, row.next()??);
            Some(Row { domain, client, counted: counted(row.next()?, row.next()?) })
        });
        Ok((rows.collect(), next))
    }

    /// One row, if it still counts.
    pub async fn row(
        &self,
        domain: &[u8],
        client: &[u8],
        now: i64,
        call: Call<'_>,
    ) -> Result<Option<Row>, BackendError> {
        let Some([Param::Text(domain), Param::Text(client)]) = columns(domain, client) else {
            return Ok(None);
        };
        let (table, count) = (self.sql.quote(&self.name), self.sql.quote("count"));
        let sql = format!(
            "SELECT {count}, last_seen FROM {table} \
             WHERE sender_domain = ? AND client_ip = ? AND last_seen >= ?"
        );
        let texts = [&domain, &client].map(|text| Param::Text(text.clone()));
        let params = texts.into_iter().chain([Param::Integer(self.oldest(now))]).collect();
        let rows = self.read(Statement { sql: sql.into(), params }, call).await?;
        let row = rows.into_iter().next().and_then(|row| <[Option<String>; 2]>::try_from(row).ok());
        Ok(row.map(|[count, seen]| Row { domain, client, counted: counted(count, seen) }))
    }

    /// Gives an entry this count, whatever there was; the client counts as having come now.
    pub async fn put(
        &self,
        domain: &[u8],
        client: &[u8],
        count: u64,
        now: i64,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        let Some([domain, client]) = columns(domain, client) else { return Ok(()) };
        self.prepare(call).await?;
        let (table, column) = (self.sql.quote(&self.name), self.sql.quote("count"));
        let or_update = self.sql.dialect().or_update("sender_domain, client_ip");
        let sql = format!(
            "INSERT INTO {table} (sender_domain, client_ip, {column}, last_seen) VALUES (?, ?, ?, ?) \
             {or_update} {column} = ?, last_seen = ?"
        );
        let count = Param::Integer(i64::try_from(count).unwrap_or(MAX_COUNT).min(MAX_COUNT));
        let now = Param::Integer(now);
        let params = vec![domain, client, count.clone(), now.clone(), count, now];
        self.sql.run(Work::durable(sql, params), call).await.map(drop)
    }

    /// Removes an entry.
    pub async fn remove(&self, domain: &[u8], client: &[u8], call: Call<'_>) -> Result<(), BackendError> {
        let Some([domain, client]) = columns(domain, client) else { return Ok(()) };
        let table = self.sql.quote(&self.name);
        let sql = format!("DELETE FROM {table} WHERE sender_domain = ? AND client_ip = ?");
        self.sql.run(Work::durable(sql, vec![domain, client]), call).await.map(drop)
    }

    /// The rows of a query; none where there is no table yet.
    async fn read(&self, query: Statement, call: Call<'_>) -> Result<Vec<backends::sql::Row>, BackendError> {
        match self.sql.query(query, call).await {
            Err(BackendError { failure: Failure::NoTable(_), .. }) => Ok(Vec::new()),
            rows => rows,
        }
    }
}

/// A count and a time, if they are numbers.
fn counted(count: Option<String>, seen: Option<String>) -> Option<(u64, i64)> {
    Some((count?.parse().ok()?, seen?.parse().ok()?))
}
