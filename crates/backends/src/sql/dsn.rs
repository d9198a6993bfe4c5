//! Data source names: those of Perl's DBI, as people have them in their configuration, and URLs.
//!
//! Knows: the spellings of DBI and its drivers, URLs. Must not know: how a connection is made.

mod mysql;
mod option_file;
mod postgres;

pub(super) use mysql::MySqlSource;
pub(super) use postgres::{PostgresSource, Session};

use super::SqlSettings;
use crate::tls::Identity;
use crate::{OptionError, Secret};
use std::path::PathBuf;

/// Where the data is.
#[derive(Clone, PartialEq)]
pub(super) enum Source {
    /// A file of SQLite.
    Sqlite(SqliteSource),
    /// A server of MariaDB or MySQL.
    MySql(MySqlSource),
    /// A server of PostgreSQL.
    Postgres(PostgresSource),
}

/// A file of SQLite.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SqliteSource {
    /// What SQLite is told to open: a path, a `file:` URI or `:memory:`.
    pub open: String,
    /// The file; none if the data is in memory only.
    pub path: Option<PathBuf>,
}

impl SqliteSource {
    /// Whether a file that is missing is made.
    pub fn makes_file(&self) -> bool {
        let query =
            self.open.strip_prefix("file:").and_then(|uri| uri.split_once('?')).map_or("", |uri| uri.1);
        !query.split('&').any(|pair| matches!(pair, "mode=ro" | "mode=rw" | "immutable=1"))
    }
}

/// How a connection is encrypted, as `sslmode` of PostgreSQL has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tls {
    /// Not at all.
    #[default]
    Disable,
    /// If the server can; its certificate is not verified.
    Prefer,
    /// Always; the certificate is not verified.
    Require,
    /// Always, and the certificate comes from a trusted authority.
    VerifyCa,
    /// Always, and the certificate is also for the name of the server.
    VerifyFull,
}

/// Which database of a server, and who asks it in which way: what servers of all kinds are told.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Login {
    /// The database; none for the one that the server takes then.
    pub database: Option<String>,
    /// Who we are there; none for the name of the user that the process runs as.
    pub user: Option<String>,
    /// And how we show it.
    pub password: Secret,
    /// Whether to encrypt.
    pub tls: Tls,
    /// A file of certificates to trust, beside those of the system.
    pub tls_ca: Option<String>,
    /// The file of the client's own certificate, and that of its key.
    pub certificate: Option<String>,
    pub key: Option<String>,
}

impl Login {
    /// Takes what the settings say where the data source says nothing.
    fn complete(&mut self, settings: &SqlSettings) {
        let identity = settings.identity.clone();
        let (certificate, key) =
            identity.map(|Identity { certificate, key }| (Some(certificate), Some(key))).unwrap_or_default();
        self.complete_from(Login {
            user: Some(settings.user.clone()).filter(|user| !user.is_empty()),
            password: settings.password.clone(),
            tls_ca: settings.tls_ca.clone(),
            certificate,
            key,
            ..Login::default()
        });
    }

    /// Takes what others say where this says nothing, and the stricter encryption.
    fn complete_from(&mut self, others: Login) {
        self.database = self.database.take().or(others.database);
        self.user = self.user.take().or(others.user);
        if self.password.0.is_empty() {
            self.password = others.password;
        }
        self.tls = self.tls.max_of(others.tls);
        self.tls_ca = self.tls_ca.take().or(others.tls_ca);
        if self.certificate.is_none() {
            self.certificate = others.certificate;
            self.key = self.key.take().or(others.key);
        }
    }

    /// The client's own certificate with its key, if it has one.
    pub(super) fn identity(&self) -> Result<Option<Identity>, OptionError> {
        match (self.certificate.clone(), self.key.clone()) {
            (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(wrong("the data source names a certificate and no key for it")),
            (None, Some(_)) => Err(wrong("the data source names a key and no certificate for it")),
        }
    }
}

/// What is wrong with the data source.
fn wrong(why: impl ToString) -> OptionError {
    OptionError::new("dsn", why)
}

/// What may stand in front of a data source.
const KNOWN: &str = "`dbi:SQLite:...`, `dbi:mysql:...`, `dbi:MariaDB:...`, `dbi:Pg:...`, `sqlite://...`, \
                     `mysql://...` or `postgres://...`";

impl Source {
    /// Reads the data source of the settings.
    ///
    /// # Errors
    /// What is wrong with it; neither passwords nor the whole source are shown.
    pub fn read(settings: &SqlSettings) -> Result<Source, OptionError> {
        let dsn = settings.dsn.trim();
        let source = match dsn.split_once(':') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("dbi") => dbi(rest),
            Some((scheme, rest)) if rest.starts_with("//") => url(scheme, &rest[2..]),
            _ => Err(format!("the data source begins with none of {KNOWN}")),
        };
        let mut source = source.map_err(wrong)?;
        match &mut source {
            Source::Sqlite(_) => {}
            Source::MySql(server) => {
                server.login.complete(settings);
                server.complete().map_err(wrong)?;
            }
            Source::Postgres(server) => server.login.complete(settings),
        }
        Ok(source)
    }
}

/// `DRIVER:...` or `DRIVER(attributes):...`. The attributes are DBI's own (RaiseError and such), which say
/// how a Perl program is told of errors, so they mean nothing here.
fn dbi(text: &str) -> Result<Source, String> {
    let (driver, rest) = match text.find(['(', ':']) {
        Some(at) if text[at..].starts_with('(') => {
            let close = text[at..].find("):").ok_or("the data source has `(` without `):`")?;
            (&text[..at], &text[at + close + 2..])
        }
        Some(at) => (&text[..at], &text[at + 1..]),
        None => return Err("the data source ends after the driver; a `:` has to follow".to_owned()),
    };
    match driver.to_ascii_lowercase().as_str() {
        "sqlite" => sqlite(rest),
        "mysql" | "mariadb" => MySqlSource::read(rest).map(Source::MySql),
        "pg" | "postgres" | "postgresql" => PostgresSource::read(rest).map(Source::Postgres),
        _ => Err(format!("the driver `{driver}` is not known; the data source begins with {KNOWN}")),
    }
}

/// The `name=value` pairs of a data source, names in lower case.
fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split(';').map(str::trim).filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.trim().to_ascii_lowercase(), value.trim().to_owned())
    })
}

fn sqlite(text: &str) -> Result<Source, String> {
    if !text.contains('=') || text.starts_with("file:") {
        return sqlite_file(text);
    }
    let mut file = None;
    for (name, value) in pairs(text) {
        match name.as_str() {
            "dbname" | "db" | "database" | "uri" => file = Some(value),
            // Settings of DBD::SQLite's Perl side.
            name if name.starts_with("sqlite_") => {}
            name => return Err(unknown(name, "dbname, db, database, uri")),
        }
    }
    sqlite_file(&file.ok_or("the data source has no `dbname=FILE`")?)
}

fn sqlite_file(file: &str) -> Result<Source, String> {
    let path = match file.strip_prefix("file:") {
        None => file.to_owned(),
        Some(uri) => {
            let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
            let path = path.strip_prefix("//localhost").or(path.strip_prefix("//")).unwrap_or(path);
            let in_memory = query.split('&').any(|pair| pair == "mode=memory");
            if in_memory { ":memory:".to_owned() } else { decoded(path)? }
        }
    };
    if path.is_empty() {
        return Err("the data source names no file".to_owned());
    }
    let path = (path != ":memory:").then(|| PathBuf::from(path));
    // A shared cache or a file without a name would be another database for each connection.
    let open = if path.is_none() { ":memory:".to_owned() } else { file.to_owned() };
    Ok(Source::Sqlite(SqliteSource { open, path }))
}

impl Tls {
    fn max_of(self, other: Tls) -> Tls {
        if self as u8 >= other as u8 { self } else { other }
    }
}

/// `USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE&...` after the scheme.
fn url(scheme: &str, rest: &str) -> Result<Source, String> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let scheme = scheme.to_ascii_lowercase();
    if scheme == "sqlite" {
        return sqlite_file(&decoded(rest)?);
    }
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let mut pairs = vec![("user", decoded(user)?), ("password", decoded(password)?)];
    pairs.push(("database", decoded(database)?));
    pairs.retain(|(_, value)| !value.is_empty());
    let places: Vec<_> = hosts.split(',').map(host_and_port).collect();
    if !hosts.is_empty() {
        let names: Result<Vec<_>, _> = places.iter().map(|(host, _)| decoded(host)).collect();
        pairs.push(("host", names?.join(",")));
    }
    // It is not shown: without a host, it is the password.
    if places.iter().filter_map(|(_, port)| *port).any(|port| !port.bytes().all(|b| b.is_ascii_digit())) {
        return Err("the port in the URL of the data source is not a number".to_owned());
    }
    if places.iter().any(|(_, port)| port.is_some()) {
        let ports: Vec<_> = places.iter().map(|(_, port)| port.unwrap_or_default()).collect();
        pairs.push(("port", ports.join(",")));
    }
    let options = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((name.to_ascii_lowercase(), decoded(value)?))
    });
    let options: Vec<(String, String)> = options.collect::<Result<_, String>>()?;
    let all = pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).chain(options);
    match scheme.as_str() {
        "mysql" | "mariadb" => MySqlSource::of(all).map(Source::MySql),
        "postgres" | "postgresql" => PostgresSource::of(all).map(Source::Postgres),
        _ => Err(format!("the data source begins with none of {KNOWN}")),
    }
}

/// An IPv6 address stands in brackets.
fn host_and_port(address: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match address.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (address, None),
    }
}

fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("`{text}` in the data source is not a port"))
}

/// Percent signs of a URL resolved (RFC 3986 section 2.1).
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || "the data source has a `%` that is not a code of a character".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(wrong);
        let code = digit()? * 16 + digit()?;
        bytes.push(u8::try_from(code).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn unknown(name: &str, known: &str) -> String {
    format!("`{name}` in the data source is not known; known are {known}")
}

#[cfg(test)]
mod tests;
