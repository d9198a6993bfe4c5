//! Rows whose key is spelled in another way than it is now: each is added to the row under the key as it is
//! spelled now, and goes.
//!
//! Each row is moved in one step, so that doing it again, or in several daemons at once, counts nothing
//! twice.
//!
//! Knows: three kinds of SQL. Must not know: what the tables are for.

use super::{Dialect, Param, Sql, Statement, Tally, Work};
use crate::{BackendError, Call};

/// How many rows are looked at, and moved in one transaction, at once: others need not wait long.
const ROWS: usize = 200;

/// What every key consists of that is spelled as it should be. Others are looked at one by one.
const USUAL: &str = "a-z0-9@._+=/:-";

impl Sql {
    /// Moves the rows whose key `spell` spells differently: how many. The table has a unique key, so that
    /// each finds its place. In MySQL there is nothing to do: keys that differ in case only are one there.
    pub async fn respell(
        &self,
        table: Tally<'_>,
        spell: impl Fn(&str) -> String + Send + Sync,
        call: Call<'_>,
    ) -> Result<u64, BackendError> {
        if self.dialect() == Dialect::MySql {
            return Ok(0);
        }
        let find = self.odd_keys(table);
        // Ids begin with 1, and those of the original's tables are too short for what is below.
        let (mut after, mut moved) = (0, 0);
        loop {
            let params = vec![Param::Integer(after)];
            let rows = self.query(Statement { sql: find.as_str().into(), params }, call).await?;
            let (is_last, before) = (rows.len() < ROWS, after);
            let mut statements = Vec::new();
            for row in rows {
                let Some([Some(id), Some(key)]) = row.get(..2) else { continue };
                let Ok(id) = id.parse() else { continue };
                after = id;
                let spelled = spell(key);
                if spelled != *key {
                    statements.extend(self.move_row(table, id, key, &spelled));
                }
            }
            if !statements.is_empty() {
                let work = Work { statements, lock: Some(table.lock.to_owned()), durable: true };
                let outputs = self.run(work, call).await?;
                // The last statement for a row removes it.
                let steps = if self.dialect() == Dialect::Sqlite { 2 } else { 1 };
                moved +=
                    outputs.iter().skip(steps - 1).step_by(steps).map(|output| output.affected).sum::<u64>();
            }
            if is_last || after == before {
                return Ok(moved);
            }
        }
    }

    /// Rows after an id with a key that may be spelled in another way.
    fn odd_keys(&self, table: Tally<'_>) -> String {
        let (name, key) = (self.quote(table.table), self.quote(table.key));
        let is_odd = match self.dialect() {
            Dialect::Sqlite => format!("{key} GLOB '*[^{USUAL}]*'"),
            Dialect::Postgres | Dialect::MySql => format!("{key} COLLATE \"C\" ~ '[^{USUAL}]'"),
        };
        format!(
            "SELECT id, {key} FROM {name} WHERE id > ? AND ({is_odd} OR {key} LIKE '%.' \
             OR {key} LIKE '%@%@%') ORDER BY id LIMIT {ROWS}"
        )
    }

    /// Adds a row to the one under another key and removes it, unless somebody else has done so.
    fn move_row(&self, table: Tally<'_>, id: i64, key: &str, spelled: &str) -> Vec<Statement> {
        let name = self.quote(table.table);
        let [key_column, beside] = [table.key, table.beside].map(|column| self.quote(column));
        let is_sqlite = self.dialect() == Dialect::Sqlite;
        let dialect = self.dialect();
        let [least, greatest] = dialect.least_and_greatest();
        let sums = table.sums.iter().map(|(column, largest)| {
            let (column, old) = (self.quote(column), format!("COALESCE({name}.{}, 0)", self.quote(column)));
            format!("{column} = {old} + {least}({}, {largest} - {old})", dialect.inserted(&column))
        });
        let latest = table.latest.iter().map(|column| {
            let column = self.quote(column);
            format!("{column} = {greatest}({name}.{column}, {})", dialect.inserted(&column))
        });
        let set = sums.chain(latest).collect::<Vec<_>>().join(", ");
        let numbers = table.sums.iter().map(|(column, _)| column).chain(table.latest);
        let numbers = numbers.map(|column| self.quote(column)).collect::<Vec<_>>().join(", ");
        let insert = format!("INSERT INTO {name} ({key_column}, {beside}, {numbers})");
        let add = format!("{} {set}", dialect.or_update(&format!("{key_column}, {beside}")));
        let is_it = format!("id = ? AND {key_column} = ?");
        let row = [Param::Integer(id), Param::Text(key.to_owned())];
        let spelled = Param::Text(spelled.to_owned());
        let statement = |sql: String, params: Vec<Param>| Statement { sql: sql.into(), params };
        let [id, key] = row.clone();
        if is_sqlite {
            // Nobody else writes during a transaction.
            let copy = format!("{insert} SELECT ?, {beside}, {numbers} FROM {name} WHERE {is_it} {add}");
            let remove = format!("DELETE FROM {name} WHERE {is_it}");
            return vec![statement(copy, vec![spelled, id, key]), statement(remove, row.to_vec())];
        }
        let sql = format!(
            "WITH old AS (DELETE FROM {name} WHERE {is_it} RETURNING {beside}, {numbers}) \
             {insert} SELECT ?, {beside}, {numbers} FROM old {add}"
        );
        vec![statement(sql, vec![id, key, spelled])]
    }
}
