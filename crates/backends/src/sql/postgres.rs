//! PostgreSQL: statements with `?`, parameters and results as text.
//!
//! Knows: tokio-postgres, PostgreSQL's types and errors. Must not know: what the tables are for.
//!
//! Parameters are sent as text and cast by the server, as DBD::Pg has it. Results come in binary; what is
//! neither text, number nor truth is made text by the server, in a query around the statement.
//!
//! No prepared statement has a name beyond a transaction: a pooler such as PgBouncer may give each
//! transaction another connection to the server, and would mix up statements of the same name.

mod values;

use super::dsn::{PostgresSource, Session, Tls};
use super::placeholders;
use super::server::{Driver, Kind, Trouble, hash};
use super::{Limiter, Output, Param, Statement, Work, blame};
use crate::Failure;
use crate::tls::{self, Verification};
use bytes::BytesMut;
use futures_util::TryStreamExt;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{CancelToken, Client, Config, Error, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Statements of which is known how they are run; the daemon has some dozens.
const PLANS: usize = 128;

/// Where the socket of the server is where no host is named, as libpq of Debian has it.
const SOCKETS: &str = "/var/run/postgresql";

/// How works begin. Their statements count on nothing stricter, and a default of the server that is would
/// have it undo most of those that are done at the same time.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";
const ISOLATION: &str = "read committed";

/// What PgBouncer says beyond its `max_client_conn`.
const POOLER_FULL: &str = "no more connections allowed";

/// How long the server is given to hear that nobody waits for a query any more.
const CANCEL_LIMIT: Duration = Duration::from_secs(1);

/// How connections to a server are made.
pub(super) struct Postgres {
    config: Config,
    tls: MakeRustlsConnect,
    plans: Arc<Mutex<HashMap<Arc<str>, Plan>>>,
}

/// How a statement is run.
#[derive(Clone)]
struct Plan {
    /// The statement with numbered parameters, perhaps inside one that makes texts of its values.
    text: Arc<str>,
    /// The number of parameters.
    parameters: usize,
    is_cast: bool,
}

/// A connection.
pub(super) struct Link {
    client: Client,
    /// What moves its bytes.
    task: JoinHandle<()>,
    plans: Arc<Mutex<HashMap<Arc<str>, Plan>>>,
    /// Whether single changes need a transaction, since the server has another isolation.
    is_strict: bool,
    /// Whether the library has named statements on it which the server does not know any more.
    is_spent: bool,
    cancel: CancelToken,
    tls: MakeRustlsConnect,
    /// Whether the server works for us.
    busy: bool,
}

impl Postgres {
    /// The error says what is wrong with the certificates.
    pub fn new(source: PostgresSource) -> Result<Postgres, String> {
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
        let hosts = if source.hosts.is_empty() && source.addresses.is_empty() {
            vec![SOCKETS.to_owned()]
        } else {
            source.hosts
        };
        if !hosts.is_empty() && hosts.iter().all(|host| host.starts_with('/')) {
            // Nobody listens between.
            config.ssl_mode(SslMode::Disable);
        }
        for host in hosts {
            config.host(host);
        }
        for port in source.ports {
            config.port(port);
        }
        for address in source.addresses {
            config.hostaddr(address);
        }
        if let Some(options) = source.options {
            config.options(options);
        }
        config.target_session_attrs(match source.session {
            Session::Any => TargetSessionAttrs::Any,
            Session::ReadWrite => TargetSessionAttrs::ReadWrite,
            Session::ReadOnly => TargetSessionAttrs::ReadOnly,
        });
        if let Some(user) = source.user {
            config.user(user);
        }
        if !source.password.0.is_empty() {
            config.password(source.password.0);
        }
        if let Some(database) = source.database {
            config.dbname(database);
        }
        Ok(Postgres { config, tls, plans: Arc::default() })
    }
}

impl Driver for Postgres {
    type Link = Link;

    async fn connect(&self) -> Result<Link, Trouble> {
        let connected = self.config.connect(self.tls.clone()).await;
        let (client, connection) = connected.map_err(|error| not_connected(&error))?;
        let cancel = client.cancel_token();
        let task = tokio::spawn(async move {
            // Who waits for an answer hears of it too.
            let _ = connection.await;
        });
        let (plans, tls) = (self.plans.clone(), self.tls.clone());
        let mut link =
            Link { client, task, plans, is_strict: false, is_spent: false, cancel, tls, busy: false };
        let shown = link.client.simple_query("SHOW default_transaction_isolation").await;
        let shown = shown.map_err(|error| Trouble::Lost(describe(&error)))?;
        link.is_strict = shown.iter().any(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).is_some_and(|isolation| isolation != ISOLATION),
            _ => false,
        });
        Ok(link)
    }

    fn is_open(link: &Link) -> bool {
        !link.client.is_closed() && !link.is_spent
    }

    async fn ping(link: &mut Link) -> bool {
        link.client.check_connection().await.is_ok()
    }

    async fn run(
        &self,
        link: &mut Link,
        work: &Work,
        kind: Kind,
        _deadline: Instant,
    ) -> Result<Vec<Output>, Trouble> {
        link.busy = true;
        let result = match kind {
            Kind::Query => link.queries(work).await,
            Kind::Change => link.changes(work).await,
        };
        link.busy = matches!(&result, Err(Failed { trouble: Trouble::Lost(_), .. }));
        result.map_err(|failed| failed.trouble)
    }
}

/// Why a work failed.
#[derive(Debug)]
struct Failed {
    trouble: Trouble,
    /// The table has changed since it was found out how to ask.
    is_stale: bool,
}

impl Link {
    /// Queries whose columns are not known before.
    async fn queries(&mut self, work: &Work) -> Result<Vec<Output>, Failed> {
        let mut outputs = Vec::with_capacity(work.statements.len());
        for statement in &work.statements {
            let mut result = self.query(statement).await;
            if result.as_ref().is_err_and(|failed| failed.is_stale) {
                result = self.query(statement).await;
            }
            outputs.push(result?);
        }
        Ok(outputs)
    }

    async fn query(&mut self, statement: &Statement) -> Result<Output, Failed> {
        let plan = self.plan(&statement.sql, false).await?;
        self.execute(&plan, statement).await
    }

    /// Changes, and what is asked together with them.
    async fn changes(&mut self, work: &Work) -> Result<Vec<Output>, Failed> {
        let in_transaction = self.is_strict || work.lock.is_some() || work.statements.len() > 1;
        if in_transaction {
            let lock = work.lock.as_deref().map(|name| hash(name).cast_signed());
            let lock = lock.map(|key| format!("; SELECT pg_advisory_xact_lock({key})")).unwrap_or_default();
            self.plain(&format!("{BEGIN}{lock}")).await.map_err(Failed::before_the_end)?;
        }
        let mut outputs = Vec::with_capacity(work.statements.len());
        for statement in &work.statements {
            match self.change(statement, in_transaction).await {
                Ok(output) => outputs.push(output),
                Err(failed) if !in_transaction => return Err(failed),
                Err(failed) => {
                    let failed = failed.before_the_end();
                    if !matches!(failed.trouble, Trouble::Cut(_)) {
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

    async fn change(&mut self, statement: &Statement, in_transaction: bool) -> Result<Output, Failed> {
        let plan = self.plan(&statement.sql, in_transaction).await?;
        self.execute(&plan, statement).await
    }

    async fn plain(&self, sql: &str) -> Result<(), Failed> {
        self.client.batch_execute(sql).await.map_err(|error| Failed::of(&error))
    }

    async fn execute(&self, plan: &Plan, statement: &Statement) -> Result<Output, Failed> {
        let (params, given) = (&statement.params, statement.params.len());
        if plan.parameters != given {
            let wanted = plan.parameters;
            let why = format!("the statement has {wanted} parameters, and {given} are given");
            return Err(Failed { trouble: Trouble::Said(Failure::Refused(why)), is_stale: false });
        }
        let mut result = self.fetch(&plan.text, params).await;
        if let Err(failed) = &mut result {
            failed.is_stale |= plan.is_cast && matches!(failed.trouble, Trouble::Said(Failure::Refused(_)));
            if failed.is_stale {
                self.plans().remove(&statement.sql);
            }
        }
        result
    }

    async fn fetch(&self, text: &str, params: &[Param]) -> Result<Output, Failed> {
        let failed = |error: Error| Failed::with(&error, params);
        // The type of a parameter is what the server takes it for.
        let typed = params.iter().map(|param| (param, Type::UNKNOWN));
        let mut rows = pin!(self.client.query_typed_raw(text, typed).await.map_err(failed)?);
        let mut limiter = Limiter::default();
        let mut is_full = false;
        let mut is_stale = false;
        while let Some(row) = rows.try_next().await.map_err(failed)? {
            is_stale |= !row.columns().iter().all(|column| is_shown(column.type_()));
            // The rest is read, so that the connection can be used again.
            is_full = is_full || is_stale || !limiter.add(values::texts(&row).map_err(failed)?);
        }
        if is_stale {
            let trouble = Trouble::Said(Failure::Refused("the columns have other types now".to_owned()));
            return Err(Failed { trouble, is_stale });
        }
        let affected = if limiter.rows.is_empty() { rows.rows_affected().unwrap_or(0) } else { 0 };
        Ok(Output { rows: limiter.rows, affected })
    }

    /// How a statement is run. To find it out the server has to prepare it under a name, which is gone again
    /// at the end of the transaction.
    async fn plan(&mut self, sql: &Arc<str>, in_transaction: bool) -> Result<Plan, Failed> {
        if let Some(plan) = self.plans().get(sql) {
            return Ok(plan.clone());
        }
        let plan = if in_transaction {
            self.describe(sql).await?
        } else {
            self.plain(BEGIN).await.map_err(Failed::before_the_end)?;
            let plan = self.describe(sql).await.map_err(Failed::before_the_end);
            if !matches!(plan, Err(Failed { trouble: Trouble::Cut(_), .. })) {
                self.plain("ROLLBACK").await?;
            }
            plan?
        };
        let mut plans = self.plans();
        if plans.len() >= PLANS {
            plans.clear();
        }
        plans.insert(sql.clone(), plan.clone());
        drop(plans);
        Ok(plan)
    }

    async fn describe(&mut self, sql: &str) -> Result<Plan, Failed> {
        let mut text = placeholders::numbered(sql);
        let prepared = self.client.prepare(&text).await.map_err(|error| Failed::of(&error))?;
        let parameters = prepared.params().len();
        let columns = || prepared.columns().iter().map(tokio_postgres::Column::type_);
        let is_cast = !columns().all(is_shown);
        if is_cast {
            text = cast(&text, &prepared);
        }
        // About types of the database's own the library has asked by statements that it believes to stay.
        let is_own = |kind: &Type| Type::from_oid(kind.oid()).is_none();
        let asked = columns().any(is_own) || prepared.params().iter().any(is_own);
        drop(prepared);
        if asked {
            self.is_spent = true;
            self.plain("DEALLOCATE ALL").await?;
        }
        Ok(Plan { text: text.into(), parameters, is_cast })
    }

    fn plans(&self) -> MutexGuard<'_, HashMap<Arc<str>, Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
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

fn not_connected(error: &Error) -> Trouble {
    let text = describe(error);
    // PgBouncer has no code for it.
    let is_full = error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) || text.contains(POOLER_FULL);
    if is_full { Trouble::Full(text) } else { Trouble::Lost(text) }
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
        let is_elsewhere = *code == SqlState::READ_ONLY_SQL_TRANSACTION;
        let trouble = match () {
            () if is_lost => Trouble::Lost(text),
            () if is_undone => Trouble::Undone(text),
            () if is_elsewhere => Trouble::Elsewhere(text),
            () if *code == SqlState::UNDEFINED_TABLE || text.contains("ON CONFLICT specification") => {
                Trouble::Said(Failure::NoTable(text))
            }
            () if *code == SqlState::INSUFFICIENT_PRIVILEGE => Trouble::Said(Failure::Denied(text)),
            () if is_bad_value(code, &text, params) => Trouble::Said(Failure::BadValue(text)),
            () => Trouble::Said(Failure::Refused(text)),
        };
        Failed { trouble, is_stale: false }
    }

    /// The same of a statement in a transaction: without its end nothing is done.
    fn before_the_end(self) -> Failed {
        Failed { trouble: self.trouble.before_anything(), ..self }
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
