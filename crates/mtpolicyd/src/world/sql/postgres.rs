//! PostgreSQL: statements with `?`, parameters and results as text.
//!
//! Knows: tokio-postgres, PostgreSQL's types and errors. Must not know: what the tables are for.
//!
//! Parameters are sent as text and cast by the server, as DBD::Pg has it. Results come in binary; what is
//! neither text, number nor truth is made text by the server, in a query around the statement.

use super::dsn::{ServerSource, Tls};
use super::placeholders;
use super::server::{Driver, Trouble, hash};
use super::{Limiter, Output, Param, Row, Statement, Work, blame};
use crate::world::backend::Failure;
use crate::world::tls::{self, Verification};
use bytes::BytesMut;
use futures_util::TryStreamExt;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Format, FromSql, IsNull, ToSql, Type};
use tokio_postgres::{CancelToken, Client, Config, Error};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Statements that a connection keeps prepared; the daemon has some dozens.
const PREPARED: usize = 128;

/// How long the server is given to hear that nobody waits for a query any more.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);

/// How connections to a server are made.
pub(super) struct Postgres {
    config: Config,
    tls: MakeRustlsConnect,
}

/// A connection.
pub(super) struct Link {
    client: Client,
    /// What moves its bytes.
    task: JoinHandle<()>,
    prepared: HashMap<Arc<str>, tokio_postgres::Statement>,
    cancel: CancelToken,
    tls: MakeRustlsConnect,
    /// Whether the server works for us.
    busy: bool,
}

impl Postgres {
    /// The error says what is wrong with the certificates.
    pub fn new(source: ServerSource) -> Result<Postgres, String> {
        let ca = source.tls_ca.as_deref();
        let verification = match source.tls {
            Tls::Disable | Tls::Prefer => Verification::None,
            // As libpq has it.
            Tls::Require if ca.is_none() => Verification::None,
            Tls::Require | Tls::VerifyCa => Verification::Authority,
            Tls::VerifyFull => Verification::Full,
        };
        let tls = MakeRustlsConnect::new(tls::client_config_with(verification, ca)?);
        let mut config = Config::new();
        config.application_name("mtpolicyd").ssl_mode(match source.tls {
            Tls::Disable => SslMode::Disable,
            Tls::Prefer => SslMode::Prefer,
            Tls::Require | Tls::VerifyCa | Tls::VerifyFull => SslMode::Require,
        });
        match (&source.socket, &source.host) {
            // Nobody listens between.
            (Some(folder), _) => config.host_path(folder).ssl_mode(SslMode::Disable),
            (None, host) => config.host(host.as_deref().unwrap_or("localhost")),
        };
        if let Some(port) = source.port {
            config.port(port);
        }
        if let Some(user) = source.user {
            config.user(user);
        }
        if !source.password.0.is_empty() {
            config.password(source.password.0);
        }
        if let Some(database) = source.database {
            config.dbname(database);
        }
        Ok(Postgres { config, tls })
    }
}

impl Driver for Postgres {
    type Link = Link;

    async fn connect(&self) -> Result<Link, Trouble> {
        let connected = self.config.connect(self.tls.clone()).await;
        let (client, connection) = connected.map_err(|error| Trouble::Lost(describe(&error)))?;
        let cancel = client.cancel_token();
        let task = tokio::spawn(async move {
            // Who waits for an answer hears of it too.
            let _ = connection.await;
        });
        Ok(Link { client, task, prepared: HashMap::new(), cancel, tls: self.tls.clone(), busy: false })
    }

    fn is_open(link: &Link) -> bool {
        !link.client.is_closed()
    }

    async fn ping(link: &mut Link) -> bool {
        link.client.check_connection().await.is_ok()
    }

    async fn run(&self, link: &mut Link, work: &Work, _deadline: Instant) -> Result<Vec<Output>, Trouble> {
        link.busy = true;
        let mut result = link.work(work).await;
        if let Err(Failed { is_stale: true, .. }) = &result {
            // Nothing was done yet, since it was the first statement.
            result = link.work(work).await;
        }
        link.busy = matches!(&result, Err(Failed { trouble: Trouble::Lost(_), .. }));
        result.map_err(|failed| failed.trouble)
    }
}

/// Why a work failed.
struct Failed {
    trouble: Trouble,
    /// The statement was prepared for a table that has changed, and is the first one.
    is_stale: bool,
}

impl Link {
    async fn work(&mut self, work: &Work) -> Result<Vec<Output>, Failed> {
        let in_transaction = work.lock.is_some() || work.statements.len() > 1;
        if in_transaction {
            let lock = work.lock.as_deref().map(|name| hash(name).cast_signed());
            let lock = lock.map(|key| format!("; SELECT pg_advisory_xact_lock({key})")).unwrap_or_default();
            self.plain(&format!("BEGIN{lock}")).await?;
        }
        let mut outputs = Vec::with_capacity(work.statements.len());
        for statement in &work.statements {
            match self.statement(statement).await {
                Ok(output) => outputs.push(output),
                Err(mut failed) => {
                    failed.is_stale &= outputs.is_empty();
                    if in_transaction && !matches!(failed.trouble, Trouble::Lost(_)) {
                        self.plain("ROLLBACK").await?;
                    }
                    return Err(failed);
                }
            }
        }
        if in_transaction {
            self.plain("COMMIT").await?;
        }
        Ok(outputs)
    }

    async fn plain(&self, sql: &str) -> Result<(), Failed> {
        self.client.batch_execute(sql).await.map_err(|error| Failed::of(&error))
    }

    async fn statement(&mut self, statement: &Statement) -> Result<Output, Failed> {
        let prepared = self.prepare(&statement.sql).await?;
        let wanted = prepared.params().len();
        if wanted != statement.params.len() {
            let given = statement.params.len();
            return Err(Failed::refused(format!(
                "the statement has {wanted} parameters, and {given} are given"
            )));
        }
        let result = self.execute(&prepared, &statement.params).await;
        if result.as_ref().is_err_and(|failed| failed.is_stale) {
            self.prepared.clear();
        }
        result
    }

    async fn execute(
        &self,
        prepared: &tokio_postgres::Statement,
        params: &[Param],
    ) -> Result<Output, Failed> {
        let failed = |error: Error| Failed::with(&error, params);
        let rows = self.client.query_raw(prepared, params).await.map_err(failed)?;
        let mut rows = pin!(rows);
        let mut limiter = Limiter::default();
        let mut is_full = false;
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            // The rest is read, so that the connection can be used again.
            is_full = is_full || !limiter.add(texts(&row).map_err(failed)?);
        }
        let is_query = !prepared.columns().is_empty();
        let affected = if is_query { 0 } else { rows.rows_affected().unwrap_or(0) };
        Ok(Output { rows: limiter.rows, affected })
    }

    async fn prepare(&mut self, sql: &Arc<str>) -> Result<tokio_postgres::Statement, Failed> {
        if let Some(prepared) = self.prepared.get(sql) {
            return Ok(prepared.clone());
        }
        let text = placeholders::numbered(sql);
        let failed = |error: Error| Failed::of(&error);
        let mut prepared = self.client.prepare(&text).await.map_err(failed)?;
        if prepared.columns().iter().any(|column| !is_shown(column.type_())) {
            prepared = self.client.prepare(&cast(&text, &prepared)).await.map_err(failed)?;
        }
        if self.prepared.len() >= PREPARED {
            self.prepared.clear();
        }
        self.prepared.insert(sql.clone(), prepared.clone());
        Ok(prepared)
    }
}

impl Drop for Link {
    /// A query that nobody waits for any more is ended on the server too: it may hold locks.
    fn drop(&mut self) {
        self.task.abort();
        if self.busy
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (cancel, tls) = (self.cancel.clone(), self.tls.clone());
            runtime.spawn(timeout(CANCEL_LIMIT, async move {
                let _ = cancel.cancel_query(tls).await;
            }));
        }
    }
}

/// Types whose values [`texts`] can show.
fn is_shown(kind: &Type) -> bool {
    [Type::BOOL, Type::INT2, Type::INT4, Type::INT8, Type::BYTEA].contains(kind) || is_text(kind)
}

fn is_text(kind: &Type) -> bool {
    [Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME, Type::UNKNOWN].contains(kind)
}

/// The statement inside one that has the server show what can't be shown here. `format` shows a value as it
/// is sent to others; a cast to text adds a prefix length to an address.
fn cast(sql: &str, prepared: &tokio_postgres::Statement) -> String {
    let columns = prepared.columns().iter().enumerate();
    let (names, shown): (Vec<_>, Vec<_>) = columns
        .map(|(at, column)| {
            let name = format!("c{at}");
            let shown = if is_shown(column.type_()) {
                name.clone()
            } else {
                format!("CASE WHEN {name} IS NOT NULL THEN format('%s', {name}) END")
            };
            (name, shown)
        })
        .unzip();
    // The statement may end with a comment.
    format!("WITH q ({}) AS ({sql}\n) SELECT {} FROM q", names.join(", "), shown.join(", "))
}

/// The values of a row as DBD::Pg shows them.
fn texts(row: &tokio_postgres::Row) -> Result<Row, Error> {
    let columns = row.columns().iter().enumerate();
    columns
        .map(|(at, column)| Ok(row.try_get::<_, Option<Raw<'_>>>(at)?.map(|raw| raw.text(column.type_()))))
        .collect()
}

/// A value as the server sent it.
struct Raw<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        Ok(Raw(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Raw<'_> {
    fn text(&self, kind: &Type) -> String {
        match (kind, self.0) {
            (&Type::BOOL, [truth]) => truth.to_string(),
            (&Type::INT2, &[a, b]) => i16::from_be_bytes([a, b]).to_string(),
            (&Type::INT4, &[a, b, c, d]) => i32::from_be_bytes([a, b, c, d]).to_string(),
            (&Type::INT8, &[a, b, c, d, e, f, g, h]) => {
                i64::from_be_bytes([a, b, c, d, e, f, g, h]).to_string()
            }
            (_, bytes) => String::from_utf8_lossy(bytes).into_owned(),
        }
    }
}

/// A parameter goes as text; the server casts it to what it needs.
impl ToSql for Param {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Param::Null => return Ok(IsNull::Yes),
            Param::Integer(number) => out.extend_from_slice(number.to_string().as_bytes()),
            // PostgreSQL's texts hold no NUL.
            Param::Text(text) => out.extend_from_slice(text.replace('\0', "\u{fffd}").as_bytes()),
        }
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}

impl Failed {
    fn of(error: &Error) -> Failed {
        Failed::with(error, &[])
    }

    /// Of a statement that had these parameters.
    fn with(error: &Error, params: &[Param]) -> Failed {
        let Some(said) = error.as_db_error() else {
            return Failed { trouble: Trouble::Lost(describe(error)), is_stale: false };
        };
        let text = said.message().to_owned();
        let code = said.code();
        // A connection that ends, or a server that does (classes 08 and 57P).
        let is_lost = code.code().starts_with("08") || code.code().starts_with("57P");
        let is_undone = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code);
        let is_stale = *code == SqlState::INVALID_SQL_STATEMENT_NAME
            || (*code == SqlState::FEATURE_NOT_SUPPORTED && text.contains("cached plan"));
        let trouble = match () {
            () if is_lost => Trouble::Lost(text),
            () if is_undone => Trouble::Undone(text),
            () if *code == SqlState::UNDEFINED_TABLE || text.contains("ON CONFLICT specification") => {
                Trouble::Said(Failure::NoTable(text))
            }
            () if *code == SqlState::INSUFFICIENT_PRIVILEGE => Trouble::Said(Failure::Denied(text)),
            () if is_bad_value(code, &text, params) => Trouble::Said(Failure::BadValue(text)),
            () => Trouble::Said(Failure::Refused(text)),
        };
        Failed { trouble, is_stale }
    }

    fn refused(text: String) -> Failed {
        Failed { trouble: Trouble::Said(Failure::Refused(text)), is_stale: false }
    }
}

/// A value may be too long for its column or for an index, or (class 22) of a form that is not right there.
fn is_bad_value(code: &SqlState, text: &str, params: &[Param]) -> bool {
    let too_long = [SqlState::STRING_DATA_RIGHT_TRUNCATION, SqlState::PROGRAM_LIMIT_EXCEEDED];
    let is_about_data = code.code().starts_with("22");
    too_long.contains(code) || (is_about_data && blame::is_about_a_value(text, params))
}

/// An error with its causes, in one line.
fn describe(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return said.message().to_owned();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
