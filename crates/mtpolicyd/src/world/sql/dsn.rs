//! Data source names: those of Perl's DBI, as people have them in their configuration, and URLs.
//!
//! Knows: the spellings of DBI and its drivers, URLs. Must not know: how a connection is made.

use super::SqlSettings;
use crate::world::backend::Secret;
use std::path::PathBuf;

/// Where the data is.
#[derive(Clone, PartialEq)]
pub(super) enum Source {
    /// A file of SQLite.
    Sqlite(SqliteSource),
    /// A server of MariaDB or MySQL.
    MySql(ServerSource),
    /// A server of PostgreSQL.
    Postgres(ServerSource),
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

/// A server, and the database on it.
#[derive(Clone, PartialEq)]
pub(super) struct ServerSource {
    /// Its name or address.
    pub host: Option<String>,
    /// Its port, unless it is the usual one.
    pub port: Option<u16>,
    /// The path of its UNIX socket (MySQL), or the folder of it (PostgreSQL).
    pub socket: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// Who we are there.
    pub user: Option<String>,
    /// And how we show it.
    pub password: Secret,
    /// Whether to encrypt.
    pub tls: Tls,
    /// A file of certificates to trust, beside those of the system.
    pub tls_ca: Option<String>,
}

/// How a connection is encrypted, as `sslmode` of PostgreSQL has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tls {
    /// Not at all.
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

/// What may stand in front of a data source.
const KNOWN: &str = "`dbi:SQLite:...`, `dbi:mysql:...`, `dbi:MariaDB:...`, `dbi:Pg:...`, `sqlite://...`, \
                     `mysql://...` or `postgres://...`";

impl Source {
    /// Reads the data source of the settings. The error shows neither passwords nor the whole source.
    pub fn read(settings: &SqlSettings) -> Result<Source, String> {
        let dsn = settings.dsn.trim();
        let mut source = match dsn.split_once(':') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("dbi") => dbi(rest)?,
            Some((scheme, rest)) if rest.starts_with("//") => url(scheme, &rest[2..])?,
            _ => return Err(format!("the data source begins with none of {KNOWN}")),
        };
        if let Source::MySql(server) | Source::Postgres(server) = &mut source {
            server.complete(settings);
        }
        Ok(source)
    }
}

impl ServerSource {
    fn new(tls: Tls) -> ServerSource {
        ServerSource {
            host: None,
            port: None,
            socket: None,
            database: None,
            user: None,
            password: Secret::default(),
            tls,
            tls_ca: None,
        }
    }

    fn complete(&mut self, settings: &SqlSettings) {
        if self.user.is_none() && !settings.user.is_empty() {
            self.user = Some(settings.user.clone());
        }
        if self.password.0.is_empty() {
            self.password = settings.password.clone();
        }
        if self.tls_ca.is_none() {
            self.tls_ca = settings.tls_ca.clone();
        }
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
        "mysql" | "mariadb" => mysql(rest).map(Source::MySql),
        "pg" | "postgres" | "postgresql" => postgres(rest).map(Source::Postgres),
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

fn mysql(text: &str) -> Result<ServerSource, String> {
    let mut server = ServerSource::new(Tls::Disable);
    if !text.contains('=') {
        // `NAME:HOST:PORT`, the old way.
        let mut parts = text.splitn(3, ':').map(|part| (!part.is_empty()).then(|| part.to_owned()));
        server.database = parts.next().flatten();
        server.host = parts.next().flatten();
        server.port = parts.next().flatten().map(|text| port(&text)).transpose()?;
        return Ok(server);
    }
    for (name, value) in pairs(text) {
        mysql_option(&mut server, &name, value)?;
    }
    Ok(server)
}

fn mysql_option(server: &mut ServerSource, name: &str, value: String) -> Result<(), String> {
    let bare = name.strip_prefix("mysql_").or(name.strip_prefix("mariadb_")).unwrap_or(name);
    match bare {
        "database" | "dbname" | "db" => server.database = Some(value),
        "host" | "hostname" => server.host = Some(value),
        "port" => server.port = Some(port(&value)?),
        "socket" => server.socket = Some(value),
        "user" => server.user = Some(value),
        "password" => server.password = Secret(value),
        "ssl" => server.tls = mysql_tls(server.tls, value == "1"),
        "ssl_optional" if value == "1" && server.tls != Tls::VerifyFull => server.tls = Tls::Prefer,
        "ssl_ca_file" => {
            server.tls_ca = Some(value);
            server.tls = server.tls.max_of(Tls::VerifyCa);
        }
        "ssl_verify_server_cert" if value == "1" => server.tls = Tls::VerifyFull,
        "ssl_client_key" | "ssl_client_cert" | "ssl_ca_path" | "ssl_cipher" | "read_default_file" => {
            return Err(format!("`{name}` in the data source is not supported"));
        }
        // What else begins like this (mysql_enable_utf8, mysql_connect_timeout, ...) has no meaning here.
        _ if bare != name => {}
        "ssl_optional" | "ssl_verify_server_cert" => {}
        _ => return Err(unknown(name, "database, host, port, mysql_socket, mysql_ssl, mysql_ssl_ca_file")),
    }
    Ok(())
}

fn mysql_tls(now: Tls, wanted: bool) -> Tls {
    if wanted { now.max_of(Tls::Require) } else { now }
}

impl Tls {
    fn max_of(self, other: Tls) -> Tls {
        if self as u8 >= other as u8 { self } else { other }
    }
}

fn postgres(text: &str) -> Result<ServerSource, String> {
    let mut server = ServerSource::new(Tls::Prefer);
    if !text.contains('=') && !text.trim().is_empty() {
        server.database = Some(text.trim().to_owned());
        return Ok(server);
    }
    // DBD::Pg also takes blanks between the pairs, as libpq does.
    for (name, value) in pairs(&text.replace(' ', ";")) {
        postgres_option(&mut server, &name, value)?;
    }
    Ok(server)
}

fn postgres_option(server: &mut ServerSource, name: &str, value: String) -> Result<(), String> {
    match name {
        "dbname" | "database" | "db" => server.database = Some(value),
        "host" | "hostaddr" if value.starts_with('/') => server.socket = Some(value),
        "host" | "hostaddr" => server.host = Some(value),
        "port" => server.port = Some(port(&value)?),
        "user" | "username" => server.user = Some(value),
        "password" => server.password = Secret(value),
        "sslmode" => server.tls = ssl_mode(&value)?,
        "sslrootcert" => server.tls_ca = Some(value),
        // These change nothing that the daemon would see.
        "connect_timeout" | "application_name" | "keepalives" | "client_encoding" | "gssencmode" => {}
        "channel_binding" | "target_session_attrs" | "fallback_application_name" => {}
        _ => return Err(unknown(name, "dbname, host, port, user, password, sslmode, sslrootcert")),
    }
    Ok(())
}

fn ssl_mode(word: &str) -> Result<Tls, String> {
    match word {
        "disable" => Ok(Tls::Disable),
        "allow" | "prefer" => Ok(Tls::Prefer),
        "require" => Ok(Tls::Require),
        "verify-ca" => Ok(Tls::VerifyCa),
        "verify-full" => Ok(Tls::VerifyFull),
        _ => {
            let known = "disable, allow, prefer, require, verify-ca, verify-full";
            Err(format!("`sslmode={word}` in the data source is none of {known}"))
        }
    }
}

/// `USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE&...` after the scheme.
fn url(scheme: &str, rest: &str) -> Result<Source, String> {
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (option, mut server): (fn(&mut _, &str, String) -> _, _) = match scheme.to_ascii_lowercase().as_str()
    {
        "sqlite" => return sqlite_file(&decoded(rest)?),
        "mysql" | "mariadb" => (mysql_option, ServerSource::new(Tls::Disable)),
        "postgres" | "postgresql" => (postgres_option, ServerSource::new(Tls::Prefer)),
        _ => return Err(format!("the data source begins with none of {KNOWN}")),
    };
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let (host, number) = host_and_port(address);
    server.user = (!user.is_empty()).then(|| decoded(user)).transpose()?;
    server.password = Secret(decoded(password)?);
    server.database = (!database.is_empty()).then(|| decoded(database)).transpose()?;
    server.port = number.map(port).transpose()?;
    if !host.is_empty() {
        let host = decoded(host)?;
        if host.starts_with('/') { server.socket = Some(host) } else { server.host = Some(host) }
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        option(&mut server, &name.to_ascii_lowercase(), decoded(value)?)?;
    }
    let mysql = matches!(scheme.to_ascii_lowercase().as_str(), "mysql" | "mariadb");
    Ok(if mysql { Source::MySql(server) } else { Source::Postgres(server) })
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
    text.parse().map_err(|_| format!("`{text}` in the data source is no port"))
}

/// Percent signs of a URL resolved (RFC 3986 section 2.1).
fn decoded(text: &str) -> Result<String, String> {
    let wrong = || "the data source has a `%` that is no code of a character".to_owned();
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
