//! Statements on a connection to SQLite: values in, rows of text out.
//!
//! Knows: SQLite's values. Must not know: transactions, threads, files.

use crate::sql::{Limiter, Output, Param, Statement, Work, number};
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{CachedStatement, Connection, Error, ToSql};

/// Does the statements of a work inside the transaction; those before one that fails have happened.
pub(super) fn work(connection: &Connection, work: &Work) -> Result<Vec<Output>, Error> {
    work.statements.iter().map(|one| statement(connection, one)).collect()
}

/// The same, where none has happened when one fails.
pub(super) fn work_or_nothing(connection: &Connection, work: &Work) -> Result<Vec<Output>, Error> {
    plain(connection, "SAVEPOINT work")?;
    let outputs = self::work(connection, work);
    // Some errors (a full disk) have ended the whole transaction, and the savepoint with it.
    if outputs.is_err() && !connection.is_autocommit() {
        plain(connection, "ROLLBACK TO work")?;
    }
    if !connection.is_autocommit() {
        plain(connection, "RELEASE work")?;
    }
    outputs
}

/// Does one statement.
pub(super) fn statement(connection: &Connection, statement: &Statement) -> Result<Output, Error> {
    run(connection.prepare_cached(&statement.sql)?, connection, statement)
}

/// Whether it reads and does nothing else, so that it may share a transaction with others.
pub(super) fn only_reads(prepared: &CachedStatement<'_>) -> bool {
    prepared.readonly() && prepared.column_count() > 0
}

/// Does one statement that is prepared.
pub(super) fn run(
    mut prepared: CachedStatement<'_>,
    connection: &Connection,
    statement: &Statement,
) -> Result<Output, Error> {
    let params = rusqlite::params_from_iter(&statement.params);
    if prepared.column_count() == 0 {
        let before = connection.total_changes();
        let changed = prepared.execute(params)?;
        // After a statement that changes no rows SQLite repeats the figure of the one before.
        let affected = if connection.total_changes() == before { 0 } else { changed as u64 };
        return Ok(Output { rows: Vec::new(), affected });
    }
    let columns = prepared.column_count();
    let mut found = prepared.query(params)?;
    let mut limiter = Limiter::default();
    while let Some(row) = found.next()? {
        let values = (0..columns).map(|column| row.get_ref(column).map(text));
        if !limiter.add(values.collect::<Result<_, _>>()?) {
            break;
        }
    }
    Ok(Output { rows: limiter.rows, affected: 0 })
}

/// A statement without parameters that gives nothing.
pub(super) fn plain(connection: &Connection, sql: &str) -> Result<(), Error> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// A value as DBD::SQLite shows it.
fn text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number::general(number, number::PERL_DIGITS)),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
    }
}

impl ToSql for Param {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Param::Null => ToSqlOutput::Owned(Value::Null),
            Param::Integer(number) => ToSqlOutput::Owned(Value::Integer(*number)),
            Param::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}
