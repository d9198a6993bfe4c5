//! Counters in a database as an administrator sees and changes them.
//!
//! Knows: the columns. Must not know: plugins, thresholds.

use super::SqlTable;
use crate::counters::tables::{NUMBERS, Writer};
use crate::counters::{Counted, CountedPage, Counter, Metric};
use backends::sql::{Param, Row, Statement, Work};
use backends::{BackendError, Call, Failure};

/// The most rows of a page: a database hands out no more than some hundred at once.
const MAX_ROWS: usize = 500;

impl SqlTable {
    /// Some rows of a span of time, from an id on.
    pub async fn page(
        &self,
        time: &str,
        cursor: Option<&str>,
        limit: usize,
        call: Call<'_>,
    ) -> Result<CountedPage, BackendError> {
        let behind = cursor.and_then(|text| text.parse().ok()).unwrap_or(i64::MIN);
        let limit = limit.clamp(1, MAX_ROWS);
        let writer = self.writer();
        let [id, time_column] = ["id", "time"].map(|name| writer.column(name));
        let sql = format!(
            "SELECT {id}, {}, {} FROM {} WHERE {time_column} = ? AND {id} > ? ORDER BY {id} LIMIT ?",
            writer.column("key"),
            columns(&writer),
            writer.quoted()
        );
        let most = Param::Integer(i64::try_from(limit).unwrap_or(i64::MAX));
        let params = vec![Param::Text(time.to_owned()), Param::Integer(behind), most];
        let rows = self.read_rows(Statement { sql: sql.into(), params }, call).await?;
        let last = rows.last().and_then(|row| row.first()?.clone());
        let next = last.filter(|_| rows.len() >= limit);
        let rows = rows.into_iter().filter_map(|row| {
            let numbers = numbers(row.get(2..)?);
            Some(Counted { key: row.get(1)?.clone()?, numbers })
        });
        Ok(CountedPage { rows: rows.collect(), next })
    }

    /// One counter.
    pub async fn row(&self, counter: &Counter, call: Call<'_>) -> Result<Option<Counted>, BackendError> {
        let writer = self.writer();
        let [key, time] = ["key", "time"].map(|name| writer.column(name));
        // A table without its unique index has several rows, and their sum counts.
        let sums = NUMBERS.map(|name| format!("SUM({})", writer.column(name))).join(", ");
        let sql = format!("SELECT COUNT(*), {sums} FROM {} WHERE {key} = ? AND {time} = ?", writer.quoted());
        let params = self.place(counter).to_vec();
        let rows = self.read_rows(Statement { sql: sql.into(), params }, call).await?;
        let Some(row) = rows.first().filter(|row| row.first().is_some_and(|n| n.as_deref() != Some("0")))
        else {
            return Ok(None);
        };
        let numbers = row.get(1..).and_then(numbers);
        Ok(Some(Counted { key: counter.key.clone(), numbers }))
    }

    /// Gives numbers of a counter other values.
    pub async fn put(
        &self,
        counter: &Counter,
        values: &[(Metric, i64)],
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        self.make_ready(call).await?;
        let writer = self.writer();
        let keys = ["key", "time"].map(|name| writer.column(name)).join(", ");
        let or_update = self.sql.dialect().or_update(&keys);
        let updates = values.iter().map(|(metric, _)| format!("{} = ?", writer.column(&metric.to_string())));
        let updates = updates.collect::<Vec<_>>().join(", ");
        let sql = format!(
            "INSERT INTO {} ({keys}, {}) VALUES (?, ?, ?, ?, ?, ?) {or_update} {updates}",
            writer.quoted(),
            columns(&writer)
        );
        let value = |metric| values.iter().find(|(of, _)| *of == metric).map_or(0, |(_, value)| *value);
        let mut params = self.place(counter).to_vec();
        params.extend(Metric::ALL.map(|metric| Param::Integer(value(metric))));
        params.extend(values.iter().map(|(_, value)| Param::Integer(*value)));
        self.sql.run(Work::durable(sql, params), call).await.map(drop)
    }

    /// Removes the rows of a counter.
    pub async fn remove(&self, counter: &Counter, call: Call<'_>) -> Result<(), BackendError> {
        let writer = self.writer();
        let [key, time] = ["key", "time"].map(|name| writer.column(name));
        let sql = format!("DELETE FROM {} WHERE {key} = ? AND {time} = ?", writer.quoted());
        self.sql.run(Work::durable(sql, self.place(counter).to_vec()), call).await.map(drop)
    }

    fn writer(&self) -> Writer<'_> {
        Writer { sql: &self.sql, table: &self.name }
    }

    /// The rows of a query; none where there is no table yet.
    async fn read_rows(&self, query: Statement, call: Call<'_>) -> Result<Vec<Row>, BackendError> {
        match self.sql.query(query, call).await {
            Err(BackendError { failure: Failure::NoTable(_), .. }) => Ok(Vec::new()),
            rows => rows,
        }
    }
}

fn columns(writer: &Writer<'_>) -> String {
    NUMBERS.map(|name| writer.column(name)).join(", ")
}

/// The numbers of a row, if they are numbers.
fn numbers(texts: &[Option<String>]) -> Option<[i64; 4]> {
    let numbers: Option<Vec<i64>> = texts.iter().map(|text| text.as_deref()?.parse().ok()).collect();
    numbers?.try_into().ok()
}
