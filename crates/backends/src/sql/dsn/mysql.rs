//! Data sources of MariaDB and MySQL, as DBD::mysql and DBD::MariaDB read them.
//!
//! Knows: their grammar and their options. Must not know: how a connection is made.

use super::{Login, Tls, option_file, port, unknown};
use crate::Secret;

/// A server, and the database on it.
#[derive(Clone, Default, PartialEq)]
pub(in crate::sql) struct MySqlSource {
    /// Its name or address; none if it is reached by a UNIX socket.
    pub host: Option<String>,
    /// Its port, unless it is the usual one.
    pub port: Option<u16>,
    /// The path of the UNIX socket, unless it is the usual one.
    pub socket: Option<String>,
    /// The database, and who asks it in which way.
    pub login: Login,
    /// Statements for each new connection.
    pub init: Vec<String>,
    /// A file with more options, and the group in it that counts beside that of all clients.
    defaults: Option<String>,
    group: Option<String>,
}

/// What stands without a name, by its place.
const PLACES: [&str; 3] = ["database", "host", "port"];

/// The host that means the UNIX socket, whatever port is said.
const LOCAL: &str = "localhost";

impl MySqlSource {
    /// Reads what follows the driver: `NAME:HOST:PORT` or `name=value;...`, also mixed. Either of `:` and `;`
    /// ends a part; in brackets there is an address.
    pub fn read(text: &str) -> Result<MySqlSource, String> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in parts(text) {
            match part.split_once('=') {
                Some((name, value)) => {
                    pairs.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
                }
                None => {
                    let is_free = |place: &&&str| !pairs.iter().any(|(name, _)| canonical(name) == **place);
                    let Some(place) = PLACES.iter().find(is_free) else {
                        return Err(format!("`{part}` in the data source has no meaning"));
                    };
                    pairs.push(((*place).to_owned(), part.trim().to_owned()));
                }
            }
        }
        MySqlSource::of(pairs.into_iter())
    }

    /// A source of these options.
    pub fn of(pairs: impl Iterator<Item = (String, String)>) -> Result<MySqlSource, String> {
        let mut source = MySqlSource::default();
        for (name, value) in pairs {
            source.set(&name, value)?;
        }
        Ok(source)
    }

    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let is_on = !matches!(value.as_str(), "" | "0");
        let (bare, login) = (canonical(name), &mut self.login);
        match bare {
            "host" if value.contains(',') => {
                let why = "names several hosts; the client library of MariaDB takes one, as `host=NAME`";
                return Err(format!("the data source {why}"));
            }
            "database" => login.database = (!value.is_empty()).then_some(value),
            "host" => self.host = (!value.is_empty()).then_some(value),
            "port" => self.port = (!value.is_empty()).then(|| port(&value)).transpose()?,
            "socket" => self.socket = (!value.is_empty()).then_some(value),
            "user" => login.user = Some(value),
            "password" => login.password = Secret(value),
            "init_command" => self.init.push(value),
            "read_default_file" => self.defaults = Some(value),
            "read_default_group" => self.group = Some(value),
            "ssl" if is_on => login.tls = login.tls.max_of(Tls::Require),
            "ssl_optional" if is_on && login.tls != Tls::VerifyFull => login.tls = Tls::Prefer,
            "ssl_ca_file" => {
                login.tls_ca = Some(value);
                login.tls = login.tls.max_of(Tls::VerifyCa);
            }
            "ssl_verify_server_cert" if is_on => login.tls = Tls::VerifyFull,
            "ssl_mode" => login.tls = login.tls.max_of(ssl_mode(&value)?),
            "ssl_client_cert" => login.certificate = Some(value),
            "ssl_client_key" => login.key = Some(value),
            "ssl_ca_path" | "ssl_cipher" => {
                return Err(format!("`{name}` in the data source is not supported"));
            }
            // What else begins like this (mysql_enable_utf8, mysql_connect_timeout, ...) has no meaning here.
            _ if bare != name => {}
            "ssl" | "ssl_optional" | "ssl_verify_server_cert" => {}
            _ => {
                return Err(unknown(
                    name,
                    "database, host, port, mysql_socket, mysql_ssl, mysql_ssl_ca_file",
                ));
            }
        }
        Ok(())
    }

    /// Adds what the option file says.
    pub fn complete(&mut self) -> Result<(), String> {
        match (self.defaults.take(), self.group.take()) {
            (Some(file), group) => self.add_defaults(&file, group.as_deref())?,
            (None, Some(_)) => {
                let help = "name the file too: `mysql_read_default_file=/etc/mysql/my.cnf`";
                return Err(format!("`mysql_read_default_group` in the data source is not enough; {help}"));
            }
            (None, None) => {}
        }
        if self.host.as_deref().is_some_and(|host| host.eq_ignore_ascii_case(LOCAL)) {
            self.host = None;
        }
        if self.host.is_some() {
            // As in the client library: only somebody local is asked by the socket.
            self.socket = None;
        }
        Ok(())
    }

    fn add_defaults(&mut self, file: &str, group: Option<&str>) -> Result<(), String> {
        let found = option_file::read(file, group)?;
        let mut defaults = MySqlSource::default();
        for (name, value) in found {
            let name = match name.as_str() {
                "ssl-ca" => "ssl_ca_file",
                "ssl-cert" => "ssl_client_cert",
                "ssl-key" => "ssl_client_key",
                "ssl-verify-server-cert" => "ssl_verify_server_cert",
                "ssl-mode" => "ssl_mode",
                "init-command" => "init_command",
                name @ ("host" | "port" | "socket" | "user" | "password" | "database" | "ssl") => name,
                "ssl-capath" | "ssl-cipher" => {
                    return Err(format!("`{name}` in {file} is not supported"));
                }
                // Of other programs and of the library's inside.
                _ => continue,
            };
            let value = if matches!(name, "ssl" | "ssl_verify_server_cert") { switch(&value) } else { value };
            defaults.set(name, value).map_err(|why| format!("{file}: {why}"))?;
        }
        self.host = self.host.take().or(defaults.host);
        self.port = self.port.or(defaults.port);
        self.socket = self.socket.take().or(defaults.socket);
        self.login.complete_from(defaults.login);
        self.init.splice(0..0, defaults.init);
        Ok(())
    }
}

/// A switch of an option file, as a data source has it. Without a value it is on.
fn switch(value: &str) -> String {
    let is_off = ["0", "off", "false", "no"].iter().any(|off| value.eq_ignore_ascii_case(off));
    if is_off { "0" } else { "1" }.to_owned()
}

/// `ssl_mode` of MySQL, in upper or lower case.
fn ssl_mode(word: &str) -> Result<Tls, String> {
    match word.to_ascii_uppercase().as_str() {
        "DISABLED" => Ok(Tls::Disable),
        "PREFERRED" => Ok(Tls::Prefer),
        "REQUIRED" => Ok(Tls::Require),
        "VERIFY_CA" => Ok(Tls::VerifyCa),
        "VERIFY_IDENTITY" => Ok(Tls::VerifyFull),
        _ => {
            let known = "DISABLED, PREFERRED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY";
            Err(format!("`ssl_mode={word}` is not one of {known}"))
        }
    }
}

/// The one name of an option that has several.
fn canonical(name: &str) -> &str {
    let bare = name.strip_prefix("mysql_").or(name.strip_prefix("mariadb_")).unwrap_or(name);
    match bare {
        "dbname" | "db" => "database",
        "hostname" => "host",
        bare => bare,
    }
}

/// The parts of a data source, without brackets.
fn parts(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find([':', ';']).unwrap_or(rest.len());
        // An address in brackets has colons of its own.
        let end = match (rest[..end].find('['), rest.find(']')) {
            (Some(_), Some(close)) => {
                rest[close..].find([':', ';']).map_or(rest.len(), |after| close + after)
            }
            _ => end,
        };
        parts.push(rest[..end].replace(['[', ']'], ""));
        rest = rest.get(end + 1..).unwrap_or_default();
    }
    parts
}
