//! MariaDB and MySQL: statements with `?`, results as text.
//!
//! Knows: mysql_async, the server's errors and locks. Must not know: what the tables are for.
//!
//! Tables may be of an engine without transactions, such as MyISAM, where a work that fails in the middle
//! leaves what was done before.

mod values;

use super::dsn::{MySqlSource, Tls};
use super::server::{Driver, Kind, WorkError, hash};
use super::{Limiter, Output, Param, Statement, Work, blame};
use crate::tls::{self, Identity};
use crate::{Failure, OptionError};
use mysql_async::prelude::{Protocol, Queryable};
use mysql_async::{
    ClientIdentity, Conn, DriverError, Error, Opts, OptsBuilder, Params, QueryResult, ServerError, SslOpts,
    Value,
};
use nix::unistd::{Uid, User};
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

/// Statements that a connection keeps prepared; the daemon has some dozens.
const PREPARED: usize = 128;

/// What a server may have other defaults for: without it a single change would be undone at the end of the
/// connection, or texts would be read in another character set.
const SESSION: [&str; 2] =
    ["SET autocommit = 1, completion_type = 0", "SET NAMES utf8mb4 COLLATE utf8mb4_general_ci"];

/// The default of the server also locks the places where a row could be: works about different new keys would
/// wait for one another in a circle. PostgreSQL's default is this one.
const READ_COMMITTED: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// What a binary log of statements allows instead; works that are in each other's way are done again.
const REPEATABLE_READ: &str = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";

/// The longest name of a lock that servers accept, in characters.
const MAX_LOCK_NAME: usize = 64;

/// Errors of the server (`mysqld_error.h`).
const NO_SUCH_TABLE: u16 = 1146;
/// Another work was in the way: a row has changed, a lock was waited for too long, a deadlock.
const UNDONE: [u16; 3] = [1020, 1205, 1213];
/// The server may only be read (by an option, in this transaction, in this mode), or it is not (or no longer)
/// part of its cluster.
const ELSEWHERE: [u16; 4] = [1290, 1792, 1836, 1047];
/// As many connections as the server, or the user, may have.
const FULL: [u16; 3] = [1040, 1203, 1226];
const SERVER_SHUTDOWN: u16 = 1053;
const CONNECTION_KILLED: u16 = 1927;
const DATA_TOO_LONG: u16 = 1406;
/// No right to: a database, a table, a column, a routine, what needs a right of its own.
const DENIED: [u16; 5] = [1044, 1142, 1143, 1370, 1227];
/// Character sets that can't be compared.
const COLLATIONS: [u16; 3] = [1267, 1270, 1271];
/// What can be wrong with a value, beside what has a state of class 22: a wrong text for the character set or
/// the type of a column, a wrong regular expression.
const BAD_VALUES: [u16; 6] = [1300, 1366, 1411, 1139, 1265, 3854];
/// The class of the states that are about data.
const DATA_EXCEPTION: &str = "22";

/// How connections to a server are made.
pub(super) struct MySql {
    options: Opts,
    /// The same without encryption, where that is not required.
    plain: Option<Opts>,
    database: String,
    /// Statements of the administrator's for each new connection.
    init: Vec<String>,
}

/// Where the socket of the server is on Debian.
const SOCKET: &str = "/run/mysqld/mysqld.sock";

impl MySql {
    /// The error says what is wrong with the certificates.
    pub fn new(source: MySqlSource) -> Result<MySql, OptionError> {
        let tls = ssl_options(&source)?;
        let login = source.login;
        let database = login.database.clone().unwrap_or_default();
        let socket = source.socket.clone().or_else(|| source.host.is_none().then(|| SOCKET.to_owned()));
        let mut options = OptsBuilder::default()
            .ip_or_hostname(source.host.unwrap_or_else(|| "localhost".to_owned()))
            .user(login.user)
            .pass((!login.password.0.is_empty()).then_some(login.password.0))
            .db_name(login.database)
            .prefer_socket(false)
            .stmt_cache_size(PREPARED)
            // Rows that were changed, not those that were looked at.
            .client_found_rows(false)
            .socket(socket);
        if let Some(port) = source.port {
            options = options.tcp_port(port);
        }
        let plain = (login.tls == Tls::Prefer).then(|| options.clone().into());
        let init = source.init;
        Ok(MySql { options: options.ssl_opts(tls).into(), plain, database, init })
    }

    /// The name of a lock, which is one of the whole server's.
    fn lock_name(&self, name: &str) -> String {
        let scoped = format!("{}.{name}", self.database);
        if scoped.chars().count() <= MAX_LOCK_NAME {
            scoped
        } else {
            format!("mtpolicyd.{:016x}", hash(&scoped))
        }
    }
}

/// With a file of authorities the certificate has to be one of theirs, or of the system's, and for the
/// server's name. Without one it is not verified, as DBD::mysql has it.
fn ssl_options(source: &MySqlSource) -> Result<Option<SslOpts>, OptionError> {
    let login = &source.login;
    if login.tls == Tls::Disable || source.host.is_none() {
        return Ok(None);
    }
    let identity = login.identity()?;
    if let Some(identity) = &identity {
        // The library would say nothing of files that can't be read before it connects.
        identity.check()?;
    }
    let identity = identity.map(|Identity { certificate, key }| {
        ClientIdentity::new(PathBuf::from(certificate).into(), PathBuf::from(key).into())
    });
    let options = SslOpts::default().with_client_identity(identity);
    let verified = matches!(login.tls, Tls::VerifyCa | Tls::VerifyFull);
    if !verified && login.tls_ca.is_none() {
        return Ok(Some(options.with_danger_accept_invalid_certs(true)));
    }
    let trusted = tls::authorities(login.tls_ca.as_deref())?;
    let trusted = trusted.iter().map(|certificate| certificate.as_ref().to_vec().into()).collect();
    Ok(Some(options.with_disable_built_in_roots(true).with_root_certs(trusted)))
}

impl MySql {
    /// The library tells the path of a socket by no word.
    fn unreachable(&self, error: &Error) -> WorkError {
        let text = describe(error);
        if matches!(error, Error::Server(said) if FULL.contains(&said.code)) {
            return WorkError::TooManyConnections(text);
        }
        WorkError::Lost(match (error, self.options.socket()) {
            (Error::Io(_), Some(socket)) => {
                format!("{socket}: {text}; where no host, or `localhost`, is named, the UNIX socket is meant")
            }
            _ => text,
        })
    }
}

impl Driver for MySql {
    type Connection = Conn;

    async fn connect(&self) -> Result<Conn, WorkError> {
        let mut connected = Conn::new(as_ourselves(&self.options)).await;
        if let (Err(Error::Driver(DriverError::NoClientSslFlagFromServer)), Some(plain)) =
            (&connected, &self.plain)
        {
            connected = Conn::new(as_ourselves(plain)).await;
        }
        let mut connection = connected.map_err(|error| self.unreachable(&error))?;
        let prepared = prepare(&mut connection, &self.init).await;
        prepared.map_err(|error| WorkError::Unreachable(describe(&error)))?;
        Ok(connection)
    }

    fn is_open(connection: &mut Conn) -> bool {
        // The library closes it after mistakes of its own user, such as too few parameters.
        !connection.is_disconnected()
    }

    async fn ping(connection: &mut Conn) -> bool {
        connection.ping().await.is_ok()
    }

    async fn run(
        &self,
        connection: &mut Conn,
        work: &Work,
        _kind: Kind,
        deadline: Instant,
    ) -> Result<Vec<Output>, WorkError> {
        let Some(name) = &work.lock else { return transaction(connection, work).await };
        let name = self.lock_name(name);
        lock(connection, &name, deadline).await.map_err(WorkError::before_anything)?;
        let result = transaction(connection, work).await;
        if !matches!(result, Err(WorkError::Lost(_))) {
            let release = vec![Value::from(&name)];
            connection
                .exec_drop("DO RELEASE_LOCK(?)", release)
                .await
                .map_err(|error| work_error(&error, &[]))?;
        }
        result
    }
}

/// Without a user, the one that the process runs as, as the client library has it. That is known only now:
/// the configuration was read by root.
fn as_ourselves(options: &Opts) -> Opts {
    if options.user().is_some() {
        return options.clone();
    }
    let user = User::from_uid(Uid::effective()).ok().flatten().map(|user| user.name);
    OptsBuilder::from_opts(options.clone()).user(user).into()
}

/// Sets what the daemon relies on, after what the administrator wants.
async fn prepare(connection: &mut Conn, init: &[String]) -> Result<(), Error> {
    for statement in init.iter().map(String::as_str).chain(SESSION) {
        connection.query_drop(statement).await?;
    }
    let asked = connection.query_first("SELECT @@global.log_bin, @@session.binlog_format").await;
    let logged: Option<mysql_async::Row> = match asked {
        // A proxy need not know them.
        Err(Error::Server(_)) => None,
        logged => logged?,
    };
    let is = |at, text| logged.as_ref().and_then(|row| row.get_opt::<String, usize>(at)) == Some(Ok(text));
    let by_statements = is(0, "1".to_owned()) && is(1, "STATEMENT".to_owned());
    // Only some may change what the log is written by.
    let is_free =
        !by_statements || connection.query_drop("SET SESSION binlog_format = 'MIXED'").await.is_ok();
    connection.query_drop(if is_free { READ_COMMITTED } else { REPEATABLE_READ }).await
}

/// Waits for a lock. It is the connection's, so it ends with it.
async fn lock(connection: &mut Conn, name: &str, deadline: Instant) -> Result<(), WorkError> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let params = (name, left.as_secs());
    let got: Result<Option<Option<i64>>, _> = connection.exec_first("SELECT GET_LOCK(?, ?)", params).await;
    match got.map_err(|error| work_error(&error, &[]))? {
        Some(Some(1)) => Ok(()),
        _ => Err(WorkError::Refused(Failure::TimedOut)),
    }
}

async fn transaction(connection: &mut Conn, work: &Work) -> Result<Vec<Output>, WorkError> {
    // One statement alone happens all or not at all anyway.
    let in_transaction = work.statements.len() > 1;
    if in_transaction {
        plain(connection, "START TRANSACTION").await.map_err(WorkError::before_anything)?;
    }
    let mut outputs = Vec::with_capacity(work.statements.len());
    for one in &work.statements {
        match statement(connection, one).await {
            Ok(output) => outputs.push(output),
            Err(error) => {
                let error = work_error(&error, &one.params);
                if in_transaction && !matches!(error, WorkError::Lost(_)) {
                    plain(connection, "ROLLBACK").await?;
                }
                return Err(error);
            }
        }
    }
    if in_transaction {
        plain(connection, "COMMIT").await?;
    }
    Ok(outputs)
}

async fn plain(connection: &mut Conn, sql: &str) -> Result<(), WorkError> {
    connection.query_drop(sql).await.map_err(|error| work_error(&error, &[]))
}

async fn statement(connection: &mut Conn, statement: &Statement) -> Result<Output, Error> {
    let sql = statement.sql.as_ref();
    if statement.params.is_empty() {
        return output(connection.query_iter(sql).await?).await;
    }
    let params = Params::Positional(statement.params.iter().map(value).collect());
    output(connection.exec_iter(sql, params).await?).await
}

fn value(param: &Param) -> Value {
    match param {
        Param::Null => Value::NULL,
        Param::Integer(number) => Value::Int(*number),
        Param::Text(text) => Value::Bytes(text.as_bytes().to_vec()),
    }
}

async fn output<P: Protocol>(mut result: QueryResult<'_, '_, P>) -> Result<Output, Error> {
    let columns = result.columns();
    let mut limiter = Limiter::default();
    let mut is_full = false;
    while let Some(row) = result.next().await? {
        let Some(columns) = &columns else { break };
        // The rest is read, so that the connection can be used again.
        is_full = is_full || !limiter.add(values::texts(row, columns));
    }
    let is_query = columns.is_some_and(|columns| !columns.is_empty());
    let affected = if is_query { 0 } else { result.affected_rows() };
    result.drop_result().await?;
    Ok(Output { rows: limiter.rows, affected })
}

fn work_error(error: &Error, params: &[Param]) -> WorkError {
    let text = describe(error);
    match error {
        Error::Server(said) => match said.code {
            NO_SUCH_TABLE => WorkError::Refused(Failure::NoTable(text)),
            code if DENIED.contains(&code) => WorkError::Refused(Failure::Denied(text)),
            _ if is_bad_value(said, params) => WorkError::Refused(Failure::BadValue(text)),
            code if UNDONE.contains(&code) => WorkError::RolledBack(text),
            code if ELSEWHERE.contains(&code) => WorkError::WrongServer(text),
            SERVER_SHUTDOWN | CONNECTION_KILLED => WorkError::Lost(text),
            _ => WorkError::Refused(Failure::Refused(text)),
        },
        Error::Driver(
            DriverError::StmtParamsMismatch { .. }
            | DriverError::StmtParamsNumberExceedsLimit { .. }
            | DriverError::MixedParams
            | DriverError::Params(_),
        ) => WorkError::Refused(Failure::Refused(text)),
        _ => WorkError::Lost(text),
    }
}

fn is_bad_value(said: &ServerError, params: &[Param]) -> bool {
    match said.code {
        DATA_TOO_LONG => true,
        code if COLLATIONS.contains(&code) => blame::is_beyond_ascii(params),
        code if BAD_VALUES.contains(&code) || said.state.starts_with(DATA_EXCEPTION) => {
            blame::is_about_a_value(&said.message, params)
        }
        _ => false,
    }
}

/// What happened, without the words of the library around it.
fn describe(error: &Error) -> String {
    match error {
        Error::Server(said) => said.message.clone(),
        Error::Driver(inner) => inner.to_string(),
        Error::Io(mysql_async::IoError::Io(inner)) => inner.to_string(),
        Error::Io(mysql_async::IoError::Tls(inner)) => inner.to_string(),
        other => other.to_string(),
    }
}
