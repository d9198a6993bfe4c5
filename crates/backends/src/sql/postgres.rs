//! PostgreSQL: statements with `?`, parameters and results as text.
//!
//! Knows: tokio-postgres, PostgreSQL's types and errors. Must not know: what the tables are for.
//!
//! A work travels as one message, a script with its values written into it, which the server does as one
//! transaction: it begins only when it has all of it, and ends it without us. So a daemon that is stopped in
//! the middle holds no lock, and the way there and back is paid once, whatever the number of statements.
//!
//! Queries are sent with parameters as text and cast by the server, as DBD::Pg has it. Results come in
//! binary; what is neither text, number nor truth is made text by the server, in a query around the
//! statement.
//!
//! No prepared statement has a name beyond a transaction: a pooler such as PgBouncer may give each
//! transaction another connection to the server, and would mix up statements of the same name.

mod error;
mod values;
mod wire;

use self::error::{Failed, describe, not_connected};
use self::wire::Wire;
use super::dsn::{PostgresSource, Session, Tls};
use super::placeholders;
use super::server::{Driver, Kind, WorkError, hash};
use super::{Limiter, Output, Param, Statement, Work};
use crate::tls::{self, Verification};
use crate::{Failure, OptionError};
use futures_util::TryStreamExt;
use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::types::Type;
use tokio_postgres::{CancelToken, Client, Config, Error, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Statements of which is known how they are run; the daemon has some dozens.
const PLANS: usize = 128;

/// Where the socket of the server is where no host is named, as libpq of Debian has it.
const SOCKETS: &str = "/var/run/postgresql";

/// The isolation of works. Their statements count on nothing stricter, and a default of the server that is
/// would have it undo most of those that are done at the same time.
const ISOLATION: &str = "read committed";
const ISOLATED: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// The answer does not wait until the change is on the disk: the server writes it there a moment later.
const NOT_DURABLE: &str = "SET LOCAL synchronous_commit TO off";

/// How long a server of several may take to accept a connection, unless the data source says it: then the
/// next one is tried.
const NEXT_HOST_AFTER: Duration = Duration::from_secs(1);

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
pub(super) struct Connection {
    client: Client,
    wire: Wire,
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
    pub fn new(source: PostgresSource) -> Result<Postgres, OptionError> {
        let login = source.login;
        let ca = login.tls_ca.as_deref();
        let verification = match login.tls {
            Tls::Disable | Tls::Prefer => Verification::None,
            // As libpq has it.
            Tls::Require if ca.is_none() => Verification::None,
            Tls::Require | Tls::VerifyCa => Verification::Authority,
            Tls::VerifyFull => Verification::Full,
        };
        let tls = MakeRustlsConnect::new(tls::client_config(verification, ca, login.identity()?.as_ref())?);
        let mut config = Config::new();
        config.application_name(source.application_name.as_deref().unwrap_or("mtpolicyd"));
        let is_one_of_several = source.hosts.len().max(source.addresses.len()) > 1;
        if let Some(limit) = source.connect_timeout.or(is_one_of_several.then_some(NEXT_HOST_AFTER)) {
            config.connect_timeout(limit);
        }
        config.ssl_mode(match login.tls {
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
        if let Some(user) = login.user {
            config.user(user);
        }
        if !login.password.0.is_empty() {
            config.password(login.password.0);
        }
        if let Some(database) = login.database {
            config.dbname(database);
        }
        Ok(Postgres { config, tls, plans: Arc::default() })
    }
}

impl Driver for Postgres {
    type Connection = Connection;

    async fn connect(&self) -> Result<Connection, WorkError> {
        let connected = self.config.connect(self.tls.clone()).await;
        let (client, connection) = connected.map_err(|error| not_connected(&error))?;
        let (cancel, mut wire) = (client.cancel_token(), Wire::new(connection));
        let shown = wire.during(client.simple_query("SHOW default_transaction_isolation")).await;
        let shown = shown.map_err(|error| WorkError::Lost(describe(&error)))?;
        let is_strict = shown.iter().any(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).is_some_and(|isolation| isolation != ISOLATION),
            _ => false,
        });
        let (plans, tls) = (self.plans.clone(), self.tls.clone());
        Ok(Connection { client, wire, plans, is_strict, is_spent: false, cancel, tls, busy: false })
    }

    fn is_open(connection: &mut Connection) -> bool {
        !connection.is_spent && connection.wire.is_open()
    }

    async fn ping(connection: &mut Connection) -> bool {
        let Connection { client, wire, .. } = connection;
        wire.during(client.check_connection()).await.is_ok()
    }

    async fn run(
        &self,
        connection: &mut Connection,
        work: &Work,
        kind: Kind,
        _deadline: Instant,
    ) -> Result<Vec<Output>, WorkError> {
        connection.busy = true;
        let result = match kind {
            Kind::Query => connection.queries(work).await,
            Kind::Change => connection.change(work).await,
        };
        connection.busy = matches!(&result, Err(Failed { error: WorkError::Lost(_), .. }));
        result.map_err(|failed| failed.error)
    }
}

impl Connection {
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
        let plan = self.plan(&statement.sql).await?;
        self.execute(&plan, statement).await
    }

    /// Changes, and what is asked together with them, in one message.
    async fn change(&mut self, work: &Work) -> Result<Vec<Output>, Failed> {
        let (script, preparations) = self.script(work)?;
        let Connection { client, wire, .. } = self;
        let mut outputs = match wire.during(run_script(client, &script)).await {
            Ok(outputs) => outputs,
            Err(error) => {
                let params = work.statements.iter().flat_map(|statement| &statement.params);
                return Err(wire.failed(&error, &params.cloned().collect::<Vec<_>>()));
            }
        };
        outputs.drain(..preparations.min(outputs.len()));
        Ok(outputs)
    }

    /// The statements of a work with their values, and those before them that make them the transaction which
    /// they have to be: several statements of one message are one, which the server undoes when one fails.
    fn script(&self, work: &Work) -> Result<(String, usize), Failed> {
        let lock = work.lock.as_deref().map(|name| hash(name).cast_signed());
        let preparations = [
            self.is_strict.then(|| ISOLATED.to_owned()),
            (!work.durable).then(|| NOT_DURABLE.to_owned()),
            lock.map(|key| format!("SELECT pg_advisory_xact_lock({key})")),
        ];
        let mut parts: Vec<_> = preparations.into_iter().flatten().collect();
        let count = parts.len();
        for Statement { sql, params } in &work.statements {
            let (text, wanted) = placeholders::filled(sql, |n| params.get(n).map(values::literal));
            if wanted != params.len() {
                return Err(Failed::parameters(wanted, params.len()));
            }
            parts.push(text);
        }
        // A statement may end with a comment.
        Ok((parts.join("\n;"), count))
    }

    async fn plain(&mut self, sql: &str) -> Result<(), Failed> {
        let Connection { client, wire, .. } = self;
        let done = wire.during(client.batch_execute(sql)).await;
        done.map_err(|error| wire.failed(&error, &[]))
    }

    async fn execute(&mut self, plan: &Plan, statement: &Statement) -> Result<Output, Failed> {
        let (params, given) = (&statement.params, statement.params.len());
        if plan.parameters != given {
            return Err(Failed::parameters(plan.parameters, given));
        }
        let Connection { client, wire, .. } = self;
        let mut result = match wire.during(fetch(client, &plan.text, params)).await {
            Ok(Some(output)) => Ok(output),
            Ok(None) => Err(Failed::stale()),
            Err(error) => Err(wire.failed(&error, params)),
        };
        if let Err(failed) = &mut result {
            failed.is_stale |=
                plan.is_cast && matches!(failed.error, WorkError::Refused(Failure::Refused(_)));
            if failed.is_stale {
                self.plans().remove(&statement.sql);
            }
        }
        result
    }

    /// How a query is run. To find it out the server has to prepare it under a name, which is gone again at
    /// the end of the transaction.
    async fn plan(&mut self, sql: &Arc<str>) -> Result<Plan, Failed> {
        if let Some(plan) = self.plans().get(sql) {
            return Ok(plan.clone());
        }
        self.plain("BEGIN").await?;
        let plan = self.describe(sql).await;
        if !matches!(plan, Err(Failed { error: WorkError::NotStarted(_) | WorkError::Lost(_), .. })) {
            self.plain("ROLLBACK").await?;
        }
        let plan = plan?;
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
        let Connection { client, wire, .. } = self;
        let prepared = wire.during(client.prepare(&text)).await;
        let prepared = prepared.map_err(|error| wire.failed(&error, &[]))?;
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

impl Drop for Connection {
    /// A query that nobody waits for any more is ended on the server too: it may hold locks.
    fn drop(&mut self) {
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

/// What each statement of a script gives.
async fn run_script(client: &Client, script: &str) -> Result<Vec<Output>, Error> {
    let mut messages = pin!(client.simple_query_raw(script).await?);
    let (mut outputs, mut limiter, mut is_full) = (Vec::new(), Limiter::default(), false);
    while let Some(message) = messages.try_next().await? {
        match message {
            // The rest is read, so that the connection can be used again.
            SimpleQueryMessage::Row(row) => is_full = is_full || !limiter.add(values::shown(&row)?),
            SimpleQueryMessage::CommandComplete(count) => {
                let rows = std::mem::take(&mut limiter).rows;
                let affected = if rows.is_empty() { count } else { 0 };
                outputs.push(Output { rows, affected });
                is_full = false;
            }
            _ => {}
        }
    }
    Ok(outputs)
}

/// What a query gives; `None` where its columns have other types than they had.
async fn fetch(client: &Client, text: &str, params: &[Param]) -> Result<Option<Output>, Error> {
    // The type of a parameter is what the server takes it for.
    let typed = params.iter().map(|param| (param, Type::UNKNOWN));
    let mut rows = pin!(client.query_typed_raw(text, typed).await?);
    let (mut limiter, mut is_full, mut is_stale) = (Limiter::default(), false, false);
    while let Some(row) = rows.try_next().await? {
        is_stale |= !row.columns().iter().all(|column| is_shown(column.type_()));
        // The rest is read, so that the connection can be used again.
        is_full = is_full || is_stale || !limiter.add(values::texts(&row)?);
    }
    let affected = if limiter.rows.is_empty() { rows.rows_affected().unwrap_or(0) } else { 0 };
    Ok((!is_stale).then_some(Output { rows: limiter.rows, affected }))
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
