//! A database as the place of blocks, for the daemons of many machines.
//!
//! Each daemon writes blocks of its own, so none can overwrite those of another, and others change them only
//! to remove or replace names, or since they are too old. A block that somebody else has changed is not
//! written to any more by its own daemon.
//!
//! Knows: statements of PostgreSQL and MariaDB. Must not know: connections, the wire, when something is
//! written.

mod nodes;
mod reader;
mod tables;
mod upkeep;
mod writer;

pub use tables::{Table, tables};

use super::JournalError;
use super::file::Trouble;
use super::store::{Read, Write};
use crate::DecisionId;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::sync::Arc;

/// A database, asked by whoever can. Whoever asks waits for the answer.
pub trait Database: Send + Sync {
    /// What it is called in messages.
    fn name(&self) -> String;

    /// Which SQL to write.
    fn dialect(&self) -> Dialect;

    /// Does all statements in one transaction, or none.
    ///
    /// # Errors
    /// None was done, unless the connection was lost: then nobody knows.
    fn run(&self, statements: Vec<Statement>, is_durable: bool) -> Result<Vec<Output>, DatabaseError>;

    /// Asks for rows.
    ///
    /// # Errors
    /// They can't be had.
    fn query(&self, statement: Statement) -> Result<Vec<Row>, DatabaseError>;

    /// Makes the [`tables`] that are missing.
    ///
    /// # Errors
    /// They can't be made; the text has the statement that an administrator may run.
    fn make(&self) -> Result<(), DatabaseError>;
}

/// The SQL of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// MariaDB and MySQL.
    MySql,
}

/// A statement with a value for each `?`.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Its text.
    pub sql: String,
    /// The values.
    pub values: Vec<Value>,
}

/// A value for a `?`.
#[derive(Clone, Debug)]
pub enum Value {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
}

/// A row of a result: each value as text.
pub type Row = Vec<Option<String>>;

/// What a statement gave.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// The rows, if it is a query.
    pub rows: Vec<Row>,
    /// How many rows it changed.
    pub affected: u64,
}

/// Why a database does not do what it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseError {
    /// A table is missing.
    NoTable(String),
    /// Anything else. If the connection was lost, nobody knows whether it was done.
    Failed(String),
}

/// A database, and who this daemon is among those that share it.
#[derive(Clone)]
pub struct Shared {
    /// The database.
    pub database: Arc<dyn Database>,
    /// The number of the daemon, which is in its identifiers.
    pub node: u8,
    /// The host that it runs on.
    pub host: String,
    /// A number that no other daemon has.
    pub instance: i64,
}

impl Shared {
    /// The daemon with this number on this host.
    pub fn new(database: Arc<dyn Database>, node: u8, host: &str) -> Shared {
        let instance = i64::from(rand::random::<u32>()) << 16 | i64::from(rand::random::<u16>());
        Shared { database, node, host: host.to_owned(), instance }
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Shared) -> bool {
        Arc::ptr_eq(&self.database, &other.database) && self.node == other.node
    }
}

impl Eq for Shared {}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.database.name()).field(&self.node).finish()
    }
}

/// Reads a database.
pub(super) fn reader(database: Arc<dyn Database>) -> Result<Box<dyn Read>, JournalError> {
    let client = Client { database };
    match client.version() {
        Ok(Some(_)) => Ok(Box::new(reader::Reader::new(client))),
        Ok(None) => Err(JournalError::Missing(client.database.name())),
        Err(trouble) => Err(trouble.error(std::path::Path::new(""))),
    }
}

/// Writes to a database, where tables are made; then they have every decision since `since`.
pub(super) fn writer(shared: &Shared, since: DecisionId) -> Result<Box<dyn Write>, Trouble> {
    Ok(Box::new(writer::Writer::open(shared, since)?))
}

/// How a database is asked here.
struct Client {
    database: Arc<dyn Database>,
}

impl Client {
    fn trouble(error: DatabaseError) -> Trouble {
        let (DatabaseError::NoTable(why) | DatabaseError::Failed(why)) = error;
        Trouble::Other(JournalError::Database(why))
    }

    fn query(&self, sql: &str, values: &[i64]) -> Result<Vec<Row>, Trouble> {
        let statement = statement(sql, values);
        self.database.query(statement).map_err(Client::trouble)
    }

    /// Does all statements, or none.
    fn run(&self, statements: Vec<Statement>, is_durable: bool) -> Result<Vec<Output>, Trouble> {
        self.database.run(statements, is_durable).map_err(Client::trouble)
    }

    /// The version of the tables, if they were made and begun.
    fn version(&self) -> Result<Option<i64>, Trouble> {
        let read = self.database.query(statement(tables::VERSION_OF, &[]));
        let rows = match read {
            Err(DatabaseError::NoTable(_)) => return Ok(None),
            rows => rows.map_err(Client::trouble)?,
        };
        let Some(version) = rows.first().map(|row| number(row, 0)) else { return Ok(None) };
        if version > tables::VERSION {
            let (file, known) = (self.database.name(), tables::VERSION);
            return Err(Trouble::Other(JournalError::Newer { file, found: version, known }));
        }
        Ok(Some(version))
    }

    /// An expression that gives the bytes of another as text.
    fn as_text(&self, bytes: &str) -> String {
        match self.database.dialect() {
            Dialect::Postgres => format!("encode({bytes}, 'base64')"),
            Dialect::MySql => format!("TO_BASE64({bytes})"),
        }
    }

    /// A place for bytes that are given as text.
    fn of_text(&self) -> &'static str {
        match self.database.dialect() {
            Dialect::Postgres => "decode(?, 'base64')",
            Dialect::MySql => "FROM_BASE64(?)",
        }
    }
}

fn statement(sql: &str, values: &[i64]) -> Statement {
    Statement { sql: sql.to_owned(), values: values.iter().map(|number| Value::Number(*number)).collect() }
}

fn encoded(bytes: &[u8]) -> Value {
    Value::Text(STANDARD.encode(bytes))
}

/// The bytes of a column; both databases break its lines.
fn bytes(row: &Row, column: usize) -> Vec<u8> {
    let text = text(row, column);
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(text).unwrap_or_default()
}

fn text(row: &Row, column: usize) -> &str {
    row.get(column).and_then(Option::as_deref).unwrap_or_default()
}

/// The number of a column. Sums may have a point.
fn number(row: &Row, column: usize) -> i64 {
    text(row, column).split('.').next().unwrap_or_default().parse().unwrap_or_default()
}

fn count(row: &Row, column: usize) -> u64 {
    u64::try_from(number(row, column)).unwrap_or_default()
}
