//! The journal in a database that several daemons share.
//!
//! It has connections of its own, beside those of the `<Connection>` that it names: however slow it is, no
//! request waits for it.
//!
//! Knows: the client for SQL, what the journal asks of a database. Must not know: options, what is written.

use backends::sql::{self, Param, Right, Schema, Sql, SqlSettings, Work};
use backends::{BackendError, Call, Failure, OptionError};
use decisions::journal::database::{
    Database, DatabaseError, Dialect, Output, Row, Shared, Statement, Value, tables,
};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;
use tokio::runtime::Handle;

/// One call may take at least this long: nobody waits for it.
const SHORTEST_LIMIT: Duration = Duration::from_secs(10);
/// Connections: one writes, the others search.
const CONNECTIONS: usize = 3;

/// The database of a journal.
pub struct SqlJournal {
    name: String,
    settings: SqlSettings,
    sql: Arc<Sql>,
    shared: OnceLock<Shared>,
}

impl SqlJournal {
    /// That of the `<Connection>` with this name and these settings; nothing is opened yet.
    ///
    /// # Errors
    /// What is wrong with which option of the connection.
    pub fn new(name: &str, settings: SqlSettings) -> Result<SqlJournal, OptionError> {
        let own = SqlSettings {
            timeout: settings.timeout.max(SHORTEST_LIMIT),
            max_connections: settings.max_connections.min(CONNECTIONS),
            ..settings.clone()
        };
        let sql = Arc::new(Sql::new(&format!("{name} (journal)"), own)?);
        Ok(SqlJournal { name: name.to_owned(), settings, sql, shared: OnceLock::new() })
    }

    /// Whether it can be one: a SQLite file is none.
    pub fn is_server(&self) -> bool {
        self.sql.dialect() != sql::Dialect::Sqlite
    }

    /// The database for the daemon of this number, asked by the runtime that this is called in.
    pub fn shared(&self, node: u8) -> Shared {
        let make = || {
            let host = nix::unistd::gethostname().unwrap_or_default();
            Shared::new(self.asked_by(Handle::current()), node, &host.to_string_lossy())
        };
        self.shared.get_or_init(make).clone()
    }

    /// The database, asked by a runtime.
    pub fn asked_by(&self, runtime: Handle) -> Arc<dyn Database> {
        Arc::new(Asked { name: self.name.clone(), sql: Arc::clone(&self.sql), runtime })
    }

    /// The client for it, and its tables.
    pub fn tables(&self) -> (&Arc<Sql>, Vec<Schema>) {
        (&self.sql, schemas(&self.sql))
    }
}

impl PartialEq for SqlJournal {
    fn eq(&self, other: &SqlJournal) -> bool {
        self.name == other.name && self.settings == other.settings
    }
}

impl Eq for SqlJournal {}

impl fmt::Debug for SqlJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqlJournal").field(&self.name).finish()
    }
}

fn dialect(sql: &Sql) -> Dialect {
    match sql.dialect() {
        sql::Dialect::MySql => Dialect::MySql,
        sql::Dialect::Postgres | sql::Dialect::Sqlite => Dialect::Postgres,
    }
}

/// Tables are made one after the other, by all daemons.
const LOCK: &str = "mtpolicyd_journal";

fn schemas(sql: &Sql) -> Vec<Schema> {
    let tables = tables(dialect(sql)).into_iter();
    let schema = |table: decisions::journal::database::Table| {
        let schema = Schema::new(table.name, table.column, table.create).locked_by(LOCK);
        Schema { rights: Right::ALL.to_vec(), ..schema }
    };
    tables.map(schema).collect()
}

/// A database that is asked by the tasks of a runtime, for those who wait on threads.
struct Asked {
    name: String,
    sql: Arc<Sql>,
    runtime: Handle,
}

impl Asked {
    fn wait<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, BackendError>> + Send + 'static,
    ) -> Result<T, DatabaseError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // Whoever has asked waits, and there is room for one.
            let _ = sender.send(work.await);
        });
        match receiver.recv() {
            Ok(done) => done.map_err(|error| failed(&error)),
            Err(_) => Err(DatabaseError::Failed(format!("database {}: the daemon ends", self.name))),
        }
    }
}

/// Each statement has its own time, however long others have taken.
fn call() -> Call<'static> {
    Call::within(Duration::from_secs(60))
}

fn failed(error: &BackendError) -> DatabaseError {
    match error.failure {
        Failure::NoTable(_) => DatabaseError::NoTable(error.to_string()),
        _ => DatabaseError::Failed(error.to_string()),
    }
}

fn statement(Statement { sql, values }: Statement) -> sql::Statement {
    let param = |value| match value {
        Value::Number(number) => Param::Integer(number),
        Value::Text(text) => Param::Text(text),
    };
    sql::Statement { sql: sql.into(), params: values.into_iter().map(param).collect() }
}

impl Database for Asked {
    fn name(&self) -> String {
        format!("database {}", self.name)
    }

    fn dialect(&self) -> Dialect {
        dialect(&self.sql)
    }

    fn run(&self, statements: Vec<Statement>, is_durable: bool) -> Result<Vec<Output>, DatabaseError> {
        let sql = Arc::clone(&self.sql);
        let statements = statements.into_iter().map(statement).collect();
        let work = Work { statements, lock: None, durable: is_durable };
        let outputs = self.wait(async move { sql.run(work, call()).await })?;
        let output = |output: sql::Output| Output { rows: output.rows, affected: output.affected };
        Ok(outputs.into_iter().map(output).collect())
    }

    fn query(&self, query: Statement) -> Result<Vec<Row>, DatabaseError> {
        let sql = Arc::clone(&self.sql);
        self.wait(async move { sql.query(statement(query), call()).await })
    }

    fn make(&self) -> Result<(), DatabaseError> {
        let sql = Arc::clone(&self.sql);
        self.wait(async move {
            for schema in schemas(&sql) {
                sql.make_table(&schema, call()).await?;
            }
            Ok(())
        })
    }
}
