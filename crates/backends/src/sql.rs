//! Relational databases: SQLite, MariaDB or MySQL, PostgreSQL, behind one small interface.
//!
//! A caller writes statements with `?` for parameters and gets rows of text; what differs between the three
//! (quoting, upserts, locks) it asks by [`Dialect`].
//!
//! Knows: SQL, the three protocols, deadlines. Must not know: what the tables are for.

#[cfg(not(all(feature = "mysql", feature = "postgres", feature = "sqlite")))]
mod absent;
mod blame;
mod dialect;
mod dsn;
#[cfg(feature = "mysql")]
mod mysql;
mod noted;
mod number;
mod placeholders;
#[cfg(feature = "postgres")]
mod postgres;
mod queue;
mod respell;
mod rights;
mod server;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tables;
mod tally;

pub use dialect::Dialect;
pub use placeholders::count_parameters;
pub use rights::Right;
pub use tables::Schema;
pub use tally::{Merged, Tally};

use crate::messages;
use crate::tls::Identity;
use crate::{BackendError, Breaker, Call, CallNumbers, Failure, OptionError, Secret};
use dsn::Source;
use lookups::LookupKind;
#[cfg(feature = "mysql")]
use mysql::MySql;
#[cfg(feature = "postgres")]
use postgres::Postgres;
use server::{Kind, Server};
#[cfg(feature = "sqlite")]
use sqlite::Sqlite;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[cfg(not(feature = "mysql"))]
type MySql = absent::Absent<dsn::MySqlSource>;
#[cfg(not(feature = "postgres"))]
type Postgres = absent::Absent<dsn::PostgresSource>;
#[cfg(not(feature = "sqlite"))]
type Sqlite = absent::Absent<dsn::SqliteSource>;

/// What a `<Connection>` of module Sql says.
#[derive(Clone, PartialEq)]
pub struct SqlSettings {
    /// The data source, as DBI or a URL writes it.
    pub dsn: String,
    /// The user, where the data source has none.
    pub user: String,
    /// The password, where the data source has none.
    pub password: Secret,
    /// How long one call may take.
    pub timeout: Duration,
    /// Connections to a server, at most.
    pub max_connections: usize,
    /// Whether a commit of SQLite is on the disk before it is acknowledged.
    pub durability: Durability,
    /// Certificates of authorities to trust, in PEM, beside those of the system.
    pub tls_ca: Option<String>,
    /// What the client shows of itself, where the server wants that.
    pub identity: Option<Identity>,
}

/// When a commit to SQLite counts as done. (A server decides that itself.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Once it is on the disk: what was answered survives a power cut.
    Full,
    /// Once the system has it: what was answered survives a crash of the daemon.
    Process,
}

/// A value for a `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Param {
    /// NULL.
    Null,
    /// A whole number.
    Integer(i64),
    /// A text. NUL characters, which PostgreSQL can't hold, are replaced when it is bound.
    Text(String),
}

/// A statement with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The text, with `?` for each parameter. A `?` inside quotes or comments is none.
    pub sql: Arc<str>,
    /// The values, in order.
    pub params: Vec<Param>,
}

/// A row of a result: each value as text, NULL as `None`.
pub type Row = Vec<Option<String>>;

/// What a statement gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The rows, if it is a query.
    pub rows: Vec<Row>,
    /// The rows that it changed, if it is none. In MySQL an upsert counts 2 for a row that it changed, and no
    /// statement counts one that stayed as it was.
    pub affected: u64,
}

/// Statements that happen all or not at all.
#[derive(Clone, Debug)]
pub struct Work {
    /// In order; when one fails, none has happened.
    pub statements: Vec<Statement>,
    /// Works with the same name here happen one after the other, in all daemons.
    pub lock: Option<String>,
    /// Whether losing it in a power cut would make an answer wrong.
    pub durable: bool,
}

/// A database of the configuration. It is opened when it is first used, and again when it comes back.
pub struct Sql {
    timeout: Duration,
    breaker: Arc<Breaker>,
    numbers: Arc<CallNumbers>,
    engine: Engine,
}

enum Engine {
    Sqlite(Sqlite),
    MySql(Server<MySql>),
    Postgres(Server<Postgres>),
}

/// The ASCII character SUB.
const SUBSTITUTE: char = '\u{1a}';

/// The rows of a query that are kept, at most: what an administrator's query says is one row, or some dozens.
pub const MAX_ROWS: usize = 1_000;

/// The bytes of the values of a query that are kept, at most.
pub const MAX_BYTES: usize = 1 << 20;

impl Sql {
    /// The same, whose calls nobody counts: it stands in for another one of its name.
    #[must_use]
    pub fn uncounted(self) -> Sql {
        Sql { numbers: Arc::default(), ..self }
    }

    /// A database; nothing is opened yet.
    ///
    /// # Errors
    /// What is wrong with the data source or with a certificate.
    pub fn new(name: &str, settings: SqlSettings) -> Result<Sql, OptionError> {
        let breaker = Breaker::new(name);
        let engine = match Source::read(&settings)? {
            Source::Sqlite(source) => {
                Engine::Sqlite(Sqlite::new(source, breaker.connection().clone(), settings.durability)?)
            }
            Source::Postgres(source) => {
                let driver = Postgres::new(source)?;
                Engine::Postgres(Server::new(
                    driver,
                    breaker.clone(),
                    settings.timeout,
                    settings.max_connections,
                ))
            }
            Source::MySql(source) => {
                let driver = MySql::new(source)?;
                Engine::MySql(Server::new(
                    driver,
                    breaker.clone(),
                    settings.timeout,
                    settings.max_connections,
                ))
            }
        };
        Ok(Sql { timeout: settings.timeout, breaker, numbers: CallNumbers::of(name), engine })
    }

    /// The name of the connection.
    pub fn name(&self) -> &str {
        self.breaker.connection()
    }

    /// Which SQL to write.
    pub fn dialect(&self) -> Dialect {
        match self.engine {
            Engine::Sqlite(_) => Dialect::Sqlite,
            Engine::MySql(_) => Dialect::MySql,
            Engine::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Whether a change that is not durable can be lost when the server crashes, and not only when the power
    /// fails: PostgreSQL acknowledges it before the system has it, and writes it up to 0.6 s later
    /// (`synchronous_commit = off`, `wal_writer_delay`). Elsewhere the system or the disk has it by then.
    pub fn crash_loses(&self) -> bool {
        self.dialect() == Dialect::Postgres
    }

    /// An identifier as the database wants it quoted.
    pub fn quote(&self, identifier: &str) -> String {
        self.dialect().quote(identifier)
    }

    /// Does a work in one transaction: the output of each statement. After an error it has not happened,
    /// except that nobody knows after [`Failure::TimedOut`] and [`Failure::Down`].
    pub async fn run(&self, work: Work, call: Call<'_>) -> Result<Vec<Output>, BackendError> {
        self.run_as(Kind::Change, Arc::new(work), call).await
    }

    async fn run_as(&self, kind: Kind, work: Arc<Work>, call: Call<'_>) -> Result<Vec<Output>, BackendError> {
        if kind == Kind::Change {
            call.refuse_to_pretend(self.name(), || format!("change the database: {}", work.describe()))?;
        }
        let call = call.at_most(self.timeout);
        let (begun, start) = (call.begin(), Instant::now());
        let outcome = match &self.engine {
            Engine::Sqlite(sqlite) => {
                let outputs = sqlite.run_as(kind, work.clone(), call.deadline()).await;
                outputs.map_err(|failure| self.breaker.error(failure))
            }
            // Boxed, since a call to a server needs a lot of memory on its way: every request that may use
            // some database would be as large, and be copied whenever it is moved.
            Engine::MySql(server) => Box::pin(server.run(&work, kind, call)).await,
            Engine::Postgres(server) => Box::pin(server.run(&work, kind, call)).await,
        };
        self.numbers.note(start, &outcome);
        begun.note_asked(
            LookupKind::Sql,
            self.name(),
            |text| text.write_str(&work.describe()),
            &outcome,
            |outputs, text| text.write_str(&describe(outputs)),
        );
        outcome
    }

    /// The same, where `make` makes the tables if they are missing; then it is done once more.
    pub async fn run_or_make<Make>(
        &self,
        work: Work,
        make: impl FnOnce() -> Make + Send,
        call: Call<'_>,
    ) -> Result<Vec<Output>, BackendError>
    where
        Make: Future<Output = Result<(), BackendError>> + Send,
    {
        self.run_as_or_make(Kind::Change, Arc::new(work), make, call).await
    }

    /// The same for a query.
    pub async fn query_or_make<Make>(
        &self,
        query: Statement,
        make: impl FnOnce() -> Make + Send,
        call: Call<'_>,
    ) -> Result<Vec<Row>, BackendError>
    where
        Make: Future<Output = Result<(), BackendError>> + Send,
    {
        let outputs = self.run_as_or_make(Kind::Query, Work::query(query), make, call).await?;
        Ok(outputs.into_iter().next().unwrap_or_default().rows)
    }

    async fn run_as_or_make<Make>(
        &self,
        kind: Kind,
        work: Arc<Work>,
        make: impl FnOnce() -> Make + Send,
        call: Call<'_>,
    ) -> Result<Vec<Output>, BackendError>
    where
        Make: Future<Output = Result<(), BackendError>> + Send,
    {
        match self.run_as(kind, work.clone(), call).await {
            Err(BackendError { failure: Failure::NoTable(_), .. }) => {
                Box::pin(make()).await?;
                self.run_as(kind, work, call).await
            }
            outcome => outcome,
        }
    }

    /// Asks a query, outside any transaction. It sees whatever was acknowledged before. It may be asked
    /// twice, when a connection that was kept turns out to be dead. Of the rows only the number is noted.
    pub async fn query(&self, query: Statement, call: Call<'_>) -> Result<Vec<Row>, BackendError> {
        self.query_noted(query, false, call).await
    }

    /// The same where the rows are noted, for those that can't be replayed without.
    pub async fn query_shown(&self, query: Statement, call: Call<'_>) -> Result<Vec<Row>, BackendError> {
        self.query_noted(query, true, call).await
    }

    async fn query_noted(
        &self,
        query: Statement,
        is_shown: bool,
        call: Call<'_>,
    ) -> Result<Vec<Row>, BackendError> {
        if let Some(replay) = call.replay() {
            return noted::replayed(replay, self.name(), &query, is_shown);
        }
        let begun = call.begin();
        let question = begun.is_noted().then(|| noted::question(&query));
        let outputs = self.run_as(Kind::Query, Work::query(query), call.noted_in(None)).await;
        let rows = outputs.map(|outputs| outputs.into_iter().next().unwrap_or_default().rows);
        let write = |rows: &Vec<Row>| if is_shown { noted::rows(rows) } else { noted::count(rows) };
        begun.note_texts(LookupKind::Sql, self.name(), || question.unwrap_or_default(), &rows, write);
        rows
    }

    /// Whether the database answers; opens it if it is not open. For the log at the start.
    pub async fn ping(&self, call: Call<'_>) -> Result<(), BackendError> {
        let query = Statement { sql: "SELECT 1".into(), params: Vec::new() };
        self.query(query, call).await.map(drop)
    }
}

impl Work {
    /// Its statements, without the values of their parameters.
    fn describe(&self) -> String {
        let texts: Vec<_> = self.statements.iter().map(|statement| &*statement.sql).collect();
        texts.join("; ")
    }

    fn query(query: Statement) -> Arc<Work> {
        Arc::new(Work { statements: vec![query], lock: None, durable: false })
    }

    /// One statement whose result must not be lost.
    pub fn durable(sql: impl Into<Arc<str>>, params: Vec<Param>) -> Work {
        Work { statements: vec![Statement { sql: sql.into(), params }], lock: None, durable: true }
    }
}

impl Param {
    /// The same with a control character for each one that is not ASCII. No row holds that one, and the rest
    /// of the value can still be looked up where the database has no such characters.
    pub fn in_ascii(&self) -> Param {
        match self {
            Param::Text(text) => {
                Param::Text(text.chars().map(|c| if c.is_ascii() { c } else { SUBSTITUTE }).collect())
            }
            other => other.clone(),
        }
    }

    /// A value that Postfix sent.
    pub fn text(bytes: &[u8]) -> Param {
        Param::Text(String::from_utf8_lossy(bytes).into_owned())
    }
}

/// What came of the last statement of a work.
fn describe(outputs: &[Output]) -> String {
    match outputs.last() {
        Some(output) => format!("rows: {}, changed: {}", output.rows.len(), output.affected),
        None => "nothing".to_owned(),
    }
}

/// Collects rows up to [`MAX_ROWS`] and [`MAX_BYTES`].
#[derive(Default)]
struct Limiter {
    rows: Vec<Row>,
    bytes: usize,
}

impl Limiter {
    /// Adds a row: whether it did, and more may come.
    fn add(&mut self, row: Row) -> bool {
        self.bytes += row.iter().flatten().map(String::len).sum::<usize>();
        if self.rows.len() >= MAX_ROWS || self.bytes > MAX_BYTES {
            messages::too_many_rows(MAX_ROWS, MAX_BYTES);
            return false;
        }
        self.rows.push(row);
        true
    }
}
