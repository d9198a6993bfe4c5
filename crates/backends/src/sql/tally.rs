//! Tables of numbers under a key, of which each has one row.
//!
//! Those of the original let a key occur twice in some databases; such rows become one before a unique key
//! keeps it so.
//!
//! Knows: three kinds of SQL. Must not know: what is counted.

use super::{Dialect, Param, Sql, Statement, Work};
use crate::{BackendError, Call};

/// A table with numbers under keys.
#[derive(Clone, Copy)]
pub struct Tally<'a> {
    /// The name of the table. Its rows are numbered in the column `id`.
    pub table: &'a str,
    /// The column whose values may be spelled in several ways.
    pub key: &'a str,
    /// The column that is unique together with the key.
    pub beside: &'a str,
    /// The columns that are added up, each with the largest number that it holds.
    pub sums: &'a [(&'a str, i64)],
    /// The columns of which the largest value stays.
    pub latest: &'a [&'a str],
    /// The name of the unique index over both columns.
    pub index: &'a str,
    /// Works with this lock happen one after the other, in all daemons.
    pub lock: &'a str,
}

/// What making a key unique has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The rows that stand for several now.
    pub rows: u64,
    /// The rows that were added to others.
    pub removed: u64,
}

impl Sql {
    /// Whether there is a unique index on exactly the key and what is beside it.
    pub async fn has_unique_key(&self, tally: Tally<'_>, call: Call<'_>) -> Result<bool, BackendError> {
        let mut columns = [tally.key, tally.beside];
        columns.sort_unstable();
        let [a, b] = columns;
        let (sql, name) = match self.dialect() {
            Dialect::Sqlite => (
                format!(
                    "SELECT 1 FROM pragma_index_list(?) AS l WHERE l.\"unique\" = 1 AND l.partial = 0 \
                     AND (SELECT group_concat(name) FROM pragma_index_info(l.name)) IN ('{a},{b}', '{b},{a}')"
                ),
                tally.table.to_owned(),
            ),
            Dialect::MySql => (
                format!(
                    "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() \
                     AND table_name = ? AND non_unique = 0 GROUP BY index_name HAVING COUNT(*) = 2 \
                     AND SUM(column_name IN ('{a}', '{b}')) = 2 AND COUNT(sub_part) = 0"
                ),
                tally.table.to_owned(),
            ),
            Dialect::Postgres => (
                format!(
                    "SELECT 1 FROM pg_index AS i WHERE i.indrelid = to_regclass(?) AND i.indisunique \
                     AND i.indisvalid AND i.indpred IS NULL AND (SELECT string_agg(a.attname, ',' ORDER BY \
                     a.attname) FROM pg_attribute AS a WHERE a.attrelid = i.indrelid AND a.attnum = \
                     ANY (i.indkey)) = '{a},{b}'"
                ),
                self.quote(tally.table),
            ),
        };
        let query = Statement { sql: sql.into(), params: vec![Param::Text(name)] };
        Ok(!self.query(query, call).await?.is_empty())
    }

    /// The statement that makes the unique index.
    pub fn unique_key(&self, tally: Tally<'_>) -> String {
        let [table, index, key, beside] =
            [tally.table, tally.index, tally.key, tally.beside].map(|name| self.quote(name));
        match self.dialect() {
            Dialect::MySql => format!("ALTER TABLE {table} ADD UNIQUE KEY {index} ({key}, {beside})"),
            Dialect::Sqlite | Dialect::Postgres => {
                format!("CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {table} ({key}, {beside})")
            }
        }
    }

    /// Makes one row of those of the same key, then allows only one.
    pub async fn make_unique(&self, tally: Tally<'_>, call: Call<'_>) -> Result<Merged, BackendError> {
        let add = self.unique_key(tally);
        let statements = [self.merge(tally), self.remove_merged(tally), add.clone()];
        let statements = statements.map(|sql| Statement { sql: sql.into(), params: Vec::new() }).into();
        let work = Work { statements, lock: Some(tally.lock.to_owned()), durable: true };
        let Tally { table, key, beside, .. } = tally;
        let what = format!("table {table} has no unique key on {key} and {beside}");
        let outputs = self.run(work, call).await.map_err(|error| error.advise(&what, &add))?;
        let affected = |at: usize| outputs.get(at).map_or(0, |output| output.affected);
        Ok(Merged { rows: affected(0), removed: affected(1) })
    }

    /// Gives the first row of a key what all of its rows have together.
    fn merge(&self, tally: Tally<'_>) -> String {
        let [table, key, beside] = [tally.table, tally.key, tally.beside].map(|name| self.quote(name));
        let sums = tally.sums.iter().map(|(name, _)| (self.quote(name), "SUM"));
        let all: Vec<_> = sums.chain(tally.latest.iter().map(|name| (self.quote(name), "MAX"))).collect();
        let values: Vec<_> = all.iter().map(|(name, merge)| format!("{merge}({name}) AS {name}")).collect();
        let merged = format!(
            "(SELECT MIN(id) AS id, {} FROM {table} GROUP BY {key}, {beside} HAVING COUNT(*) > 1) AS g",
            values.join(", ")
        );
        let is_mysql = self.dialect() == Dialect::MySql;
        let own = if is_mysql { format!("{table}.") } else { String::new() };
        let set: Vec<_> = all.iter().map(|(name, _)| format!("{own}{name} = g.{name}")).collect();
        let set = set.join(", ");
        if is_mysql {
            format!("UPDATE {table} JOIN {merged} ON {table}.id = g.id SET {set}")
        } else {
            format!("UPDATE {table} SET {set} FROM {merged} WHERE {table}.id = g.id")
        }
    }

    /// Removes all rows of a key but the first.
    fn remove_merged(&self, tally: Tally<'_>) -> String {
        let [table, key, beside] = [tally.table, tally.key, tally.beside].map(|name| self.quote(name));
        let first = format!("(SELECT MIN(id) AS id FROM {table} GROUP BY {key}, {beside}) AS g");
        match self.dialect() {
            Dialect::MySql => {
                format!(
                    "DELETE {table} FROM {table} LEFT JOIN {first} ON {table}.id = g.id WHERE g.id IS NULL"
                )
            }
            Dialect::Sqlite | Dialect::Postgres => {
                format!("DELETE FROM {table} WHERE id NOT IN (SELECT id FROM {first})")
            }
        }
    }
}
