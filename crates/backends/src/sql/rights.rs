//! What the user of a database may do with a table, found out without changing anything.
//!
//! Knows: statements that touch no row, the grants of MySQL. Must not know: what the tables are for.

use super::{Dialect, Param, Schema, Sql, Statement, Work};
use crate::{BackendError, Call, Failure};

/// A right on a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// To read rows.
    Select,
    /// To add rows.
    Insert,
    /// To change rows.
    Update,
    /// To remove rows.
    Delete,
}

impl Right {
    /// All of them.
    pub const ALL: &[Right] = &[Right::Select, Right::Insert, Right::Update, Right::Delete];

    fn word(self) -> &'static str {
        match self {
            Right::Select => "SELECT",
            Right::Insert => "INSERT",
            Right::Update => "UPDATE",
            Right::Delete => "DELETE",
        }
    }
}

impl Sql {
    /// Fails with [`Failure::Denied`] and the statement to run if the table is missing and can't be made.
    pub async fn check_table(&self, schema: &Schema, call: Call<'_>) -> Result<(), BackendError> {
        if !schema.is_needed() || self.has_table(&schema.table, call).await? || self.may_make(call).await? {
            return Ok(());
        }
        Err(schema.missing(self.breaker.error(Failure::Denied("the user may not make one".to_owned()))))
    }

    /// Fails with [`Failure::Denied`] and the statement to run if the table is there and a right on it is
    /// missing.
    pub async fn check_rights(&self, schema: &Schema, call: Call<'_>) -> Result<(), BackendError> {
        if !schema.is_needed() || !self.has_table(&schema.table, call).await? {
            return Ok(());
        }
        let mut missing = Vec::new();
        for right in &schema.rights {
            match self.run(self.probe(*right, schema), call).await {
                Err(BackendError { failure: Failure::Denied(why), .. }) => missing.push((right.word(), why)),
                Err(error) if matches!(error.failure, Failure::Down(_) | Failure::TimedOut) => {
                    return Err(error);
                }
                // A complaint of another kind, such as about a column without a default, comes after the look
                // at the rights.
                _ => {}
            }
        }
        let Some((_, why)) = missing.first().cloned() else { return Ok(()) };
        let words: Vec<_> = missing.into_iter().map(|(word, _)| word).collect();
        let what = format!("table {} can't be used as it has to be", schema.table);
        let error = self.breaker.error(Failure::Denied(why));
        if self.dialect() == Dialect::Sqlite {
            return Err(error);
        }
        let (table, user) = (self.quote(&schema.table), self.user(call).await?);
        Err(error.advise(&what, &format!("GRANT {} ON {table} TO {user}", words.join(", "))))
    }

    /// Fails with [`Failure::NoTable`] or [`Failure::Denied`] if a query of the administrator's would. It is
    /// not asked.
    pub async fn check_query(&self, query: &str, call: Call<'_>) -> Result<(), BackendError> {
        let params = vec![Param::Null; super::count_parameters(query)];
        match self.query(Statement { sql: format!("EXPLAIN {query}").into(), params }, call).await {
            Err(error) if matches!(error.failure, Failure::NoTable(_) | Failure::Denied(_)) => Err(error),
            _ => Ok(()),
        }
    }

    /// A statement for which the right is needed and that touches no row.
    fn probe(&self, right: Right, schema: &Schema) -> Work {
        let (table, column) = (self.quote(&schema.table), self.quote(schema.column));
        let sql = match right {
            Right::Select => format!("SELECT {column} FROM {table} WHERE 1 = 0"),
            Right::Insert => {
                format!("INSERT INTO {table} ({column}) SELECT {column} FROM {table} WHERE 1 = 0")
            }
            Right::Update => format!("UPDATE {table} SET {column} = {column} WHERE 1 = 0"),
            Right::Delete => format!("DELETE FROM {table} WHERE 1 = 0"),
        };
        Work { durable: false, ..Work::durable(sql, Vec::new()) }
    }

    async fn may_make(&self, call: Call<'_>) -> Result<bool, BackendError> {
        let first = |rows: Vec<super::Row>| rows.into_iter().next().and_then(|row| row.into_iter().next()?);
        let ask = |sql: &str| self.query(Statement { sql: sql.into(), params: Vec::new() }, call);
        Ok(match self.dialect() {
            Dialect::Sqlite => true,
            Dialect::Postgres => {
                let asked = ask("SELECT has_schema_privilege(current_schema(), 'CREATE')").await?;
                first(asked).as_deref() == Some("1")
            }
            Dialect::MySql => {
                let database = first(ask("SELECT DATABASE()").await?).unwrap_or_default();
                let grants = ask("SHOW GRANTS").await?;
                grants
                    .iter()
                    .filter_map(|row| row.first()?.as_deref())
                    .any(|grant| lets_make(grant, &database))
            }
        })
    }

    /// The user as a GRANT names it.
    async fn user(&self, call: Call<'_>) -> Result<String, BackendError> {
        let sql = match self.dialect() {
            Dialect::MySql => {
                "SELECT CONCAT(QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', 1)), '@', \
                 QUOTE(SUBSTRING_INDEX(CURRENT_USER(), '@', -1)))"
            }
            Dialect::Postgres | Dialect::Sqlite => "SELECT quote_ident(current_user)",
        };
        let rows = self.query(Statement { sql: sql.into(), params: Vec::new() }, call).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()?).unwrap_or_default())
    }
}

/// Whether a line of SHOW GRANTS gives the right to make a table in the database. A role may give any right.
/// Names are quoted as the `sql_mode` of the server has it.
fn lets_make(grant: &str, database: &str) -> bool {
    let Some((rights, scope)) = grant.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON ")) else {
        return true;
    };
    let scope = scope.split(" TO ").next().unwrap_or_default().replace('\\', "");
    let names_it = || scope.strip_suffix(".*").is_some_and(|name| name.trim_matches(['`', '"']) == database);
    let is_here = scope == "*.*" || scope.contains('%') || names_it();
    is_here && rights.split(", ").any(|right| matches!(right, "CREATE" | "ALL PRIVILEGES"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read() {
        for (grant, lets) in [
            ("GRANT USAGE ON *.* TO `few`@`%` IDENTIFIED BY PASSWORD '*1'", false),
            ("GRANT SELECT, INSERT, UPDATE, DELETE ON `mail`.* TO `few`@`%`", false),
            ("GRANT SELECT, CREATE ON `mail`.* TO `few`@`%`", true),
            ("GRANT SELECT, CREATE VIEW ON `mail`.* TO `few`@`%`", false),
            ("GRANT ALL PRIVILEGES ON `mail`.* TO `few`@`%`", true),
            ("GRANT ALL PRIVILEGES ON `other`.* TO `few`@`%`", false),
            ("GRANT ALL PRIVILEGES ON `mail`.`t` TO `few`@`%`", false),
            ("GRANT ALL PRIVILEGES ON *.* TO `few`@`%` WITH GRANT OPTION", true),
            ("GRANT `writers` TO `few`@`%`", true),
            // With ANSI_QUOTES, and without sql_quote_show_create.
            ("GRANT ALL PRIVILEGES ON \"mail\".* TO \"few\"@\"%\"", true),
            ("GRANT CREATE ON mail.* TO few@%", true),
            ("GRANT ALL PRIVILEGES ON \"other\".* TO \"few\"@\"%\"", false),
        ] {
            assert_eq!(lets_make(grant, "mail"), lets, "{grant}");
        }
        assert!(lets_make("GRANT CREATE ON `my\\_mail`.* TO `few`@`%`", "my_mail"));
    }
}
