//! Data sources of PostgreSQL, as DBD::Pg and libpq read them.
//!
//! Knows: their grammar and their options. Must not know: how a connection is made.

use super::{Login, Tls, port, unknown};
use crate::Secret;
use std::net::IpAddr;
use std::time::Duration;

/// Servers, of which the first that can be used is, and the database on them.
#[derive(Clone, Default, PartialEq)]
pub(in crate::sql) struct PostgresSource {
    /// Their names or addresses, or the folders of their sockets; none for the usual folder.
    pub hosts: Vec<String>,
    /// Their addresses, where those are not to be found by the names.
    pub addresses: Vec<IpAddr>,
    /// A port for all or for each, unless it is the usual one.
    pub ports: Vec<u16>,
    /// The database, and who asks it in which way.
    pub login: Login,
    /// Settings for the session.
    pub options: Option<String>,
    /// The name under which the server shows its connections, unless it is the usual one.
    pub application_name: Option<String>,
    /// How long one server may take to accept a connection.
    pub connect_timeout: Option<Duration>,
    /// Which servers can be used.
    pub session: Session,
}

/// Which of several servers is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sql) enum Session {
    /// Any.
    #[default]
    Any,
    /// One that can be written to.
    ReadWrite,
    /// One that can't.
    ReadOnly,
}

/// The port where none is said.
const PORT: u16 = 5432;

impl PostgresSource {
    /// Reads what follows the driver: `name=value` with `;` or blanks between.
    pub fn read(text: &str) -> Result<PostgresSource, String> {
        let text = text.trim();
        if !text.is_empty() && !text.contains(['=', ';', ' ']) {
            return PostgresSource::of(std::iter::once(("dbname".to_owned(), text.to_owned())));
        }
        PostgresSource::of(pairs(text)?.into_iter())
    }

    /// A source of these options.
    pub fn of(pairs: impl Iterator<Item = (String, String)>) -> Result<PostgresSource, String> {
        let login = Login { tls: Tls::Prefer, ..Login::default() };
        let mut source = PostgresSource { login, ..PostgresSource::default() };
        for (name, value) in pairs {
            source.set(&name, value)?;
        }
        let places = source.hosts.len().max(source.addresses.len());
        let fits = |count: usize| count == places || count == 0;
        if !fits(source.hosts.len()) || !fits(source.addresses.len()) {
            return Err("the data source has not as many entries in `host` as in `hostaddr`".to_owned());
        }
        if source.ports.len() > 1 && source.ports.len() != places {
            return Err("the data source has neither one port nor one for each host".to_owned());
        }
        Ok(source)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let login = &mut self.login;
        match name {
            "dbname" | "database" | "db" if value.contains('=') || value.contains("://") => {
                return Err(
                    "`dbname` in the data source holds another data source; write that one".to_owned()
                );
            }
            "dbname" | "database" | "db" => login.database = (!value.is_empty()).then_some(value),
            "host" => self.hosts = list(&value).map(host).collect::<Result<_, _>>()?,
            "hostaddr" => self.addresses = list(&value).map(address).collect::<Result<_, _>>()?,
            "port" => self.ports = list(&value).map(port_or_usual).collect::<Result<_, _>>()?,
            "user" | "username" => login.user = (!value.is_empty()).then_some(value),
            "password" => login.password = Secret(value),
            "sslmode" => login.tls = ssl_mode(&value)?,
            "ssl" if value == "true" => login.tls = login.tls.max_of(Tls::Require),
            // The old name of `sslmode=require`.
            "requiressl" if value == "1" => login.tls = login.tls.max_of(Tls::Require),
            // As libpq 16 has it: those of the system, and the name counts too.
            "sslrootcert" if value == "system" => login.tls = Tls::VerifyFull,
            "sslrootcert" => login.tls_ca = Some(value),
            "options" => self.options = Some(value),
            "application_name" if !value.is_empty() => self.application_name = Some(value),
            "connect_timeout" => self.connect_timeout = connect_timeout(&value)?,
            "target_session_attrs" => self.session = session(&value)?,
            "service" | "passfile" => {
                let help = "write host, port, dbname, user and password in this block";
                return Err(format!("`{name}` in the data source is not supported; {help}"));
            }
            "sslcert" if !value.is_empty() => login.certificate = Some(value),
            "sslkey" if !value.is_empty() => login.key = Some(value),
            "sslpassword" | "sslcertmode" if !value.is_empty() => {
                let help = "leave it out, and name a key without a password in sslkey";
                return Err(format!("`{name}` in the data source is not supported; {help}"));
            }
            "sslcrl" | "sslcrldir" if !value.is_empty() => {
                let help = "leave it out, and name in sslrootcert only an authority that signs nothing else";
                return Err(format!("`{name}` in the data source is not supported; {help}"));
            }
            "ssl_min_protocol_version" if !matches!(value.as_str(), "TLSv1" | "TLSv1.1" | "TLSv1.2" | "") => {
                let help = "write TLSv1.2, which is the least that is ever used";
                return Err(format!("`{name}={value}` in the data source is not supported; {help}"));
            }
            "ssl_max_protocol_version" if !matches!(value.as_str(), "TLSv1.3" | "") => {
                return Err(format!("`{name}={value}` in the data source is not supported; leave it out"));
            }
            "sslsni" if value == "0" => {
                let help = "write the address of the server in `host` instead of its name";
                return Err(format!("`{name}=0` in the data source is not supported; {help}"));
            }
            "sslcert" | "sslkey" | "sslpassword" | "sslcertmode" | "sslcrl" | "sslcrldir" | "sslsni" => {}
            // Nobody compresses any more.
            "ssl_min_protocol_version" | "ssl_max_protocol_version" | "sslcompression" => {}
            "load_balance_hosts" if value != "disable" => {
                return Err(format!("`{name}={value}` in the data source is not supported"));
            }
            "gssencmode" | "channel_binding" if value == "require" => {
                let help = "write `sslmode=verify-full` for a connection that nobody else can read";
                return Err(format!("`{name}=require` in the data source is not supported; {help}"));
            }
            // These change nothing that the daemon would see.
            "requiressl" | "krbsrvname" | "gsslib" | "tcp_user_timeout" => {}
            "keepalives_idle" | "keepalives_interval" | "keepalives_count" => {}
            "application_name" | "keepalives" | "client_encoding" | "gssencmode" => {}
            "channel_binding" | "fallback_application_name" | "load_balance_hosts" => {}
            _ => return Err(unknown(name, "dbname, host, port, user, password, sslmode, sslrootcert")),
        }
        Ok(())
    }
}

/// The entries of a list; an empty text has none.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).take(if value.is_empty() { 0 } else { usize::MAX })
}

fn host(text: &str) -> Result<String, String> {
    match text.bytes().next() {
        None => Err("`host` in the data source has an empty entry".to_owned()),
        Some(b'[') => {
            let bare = text.trim_matches(['[', ']']);
            Err(format!("`host={text}` in the data source has brackets; write `host={bare}`"))
        }
        Some(b'@') => Err(format!("`host={text}` in the data source, an abstract socket, is not supported")),
        Some(_) => Ok(text.to_owned()),
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`hostaddr={text}` in the data source is not an address"))
}

fn port_or_usual(text: &str) -> Result<u16, String> {
    if text.is_empty() { Ok(PORT) } else { port(text) }
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
            Err(format!("`sslmode={word}` in the data source is not one of {known}"))
        }
    }
}

/// Seconds; 0 and less set no limit.
fn connect_timeout(text: &str) -> Result<Option<Duration>, String> {
    let seconds: i32 =
        text.parse().map_err(|_| format!("`connect_timeout={text}` in the data source is not a number"))?;
    Ok(u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs))
}

fn session(word: &str) -> Result<Session, String> {
    match word {
        "any" => Ok(Session::Any),
        "read-write" | "primary" => Ok(Session::ReadWrite),
        "read-only" | "standby" => Ok(Session::ReadOnly),
        _ => {
            let known = "any, read-write, primary, read-only, standby";
            Err(format!("`target_session_attrs={word}` in the data source is not one of {known}"))
        }
    }
}

/// The pairs of a connection string: a value may stand in single quotes, and a backslash takes its meaning
/// from the character after it.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let is_between = |c: char| c == ';' || c.is_whitespace();
    let mut rest = text.trim_start_matches(is_between);
    while !rest.is_empty() {
        let end = rest.find(|c: char| c == '=' || is_between(c)).unwrap_or(rest.len());
        let name = rest[..end].to_ascii_lowercase();
        let Some(after) = rest[end..].trim_start().strip_prefix('=') else {
            return Err(format!("`{name}` in the data source has no value; write `{name}=...`"));
        };
        let (value, left) = value(after.trim_start_matches(char::is_whitespace), is_between)?;
        pairs.push((name, value));
        rest = left.trim_start_matches(is_between);
    }
    Ok(pairs)
}

/// The value that a text begins with, and what follows it.
fn value(text: &str, is_between: impl Fn(char) -> bool) -> Result<(String, &str), String> {
    let (is_quoted, text) = match text.strip_prefix('\'') {
        Some(inside) => (true, inside),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, next)| next)),
            '\'' if is_quoted => return Ok((value, &text[at + 1..])),
            other if !is_quoted && is_between(other) => return Ok((value, &text[at..])),
            other => value.push(other),
        }
    }
    if is_quoted { Err("the data source has a quote that does not end".to_owned()) } else { Ok((value, "")) }
}
