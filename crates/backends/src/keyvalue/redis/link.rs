//! A connection to one server of Redis, and how it is opened.
//!
//! Knows: sockets, TLS, the login. Must not know: which server is the right one for a key.

use super::trouble::{Trouble, is_forbidden, on_opening, text_of};
use crate::Secret;
use crate::secret::shown_address;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, RedisError, Value, cmd};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

/// When the kernel begins to ask an idle connection whether its other end is still there, so that one that a
/// firewall has dropped is noticed.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Length of the queue of commands for the socket; beyond it callers wait: as many as policy connections are
/// busy at once.
const QUEUE: usize = 256;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Address {
    Tcp { host: String, port: u16 },
    Unix(String),
}

impl Address {
    /// Reads `HOST:PORT`, `[::1]:PORT` or a host alone. The error shows neither user nor password.
    pub(super) fn parse(text: &str, default_port: u16) -> Result<Address, String> {
        let wrong = || {
            let options =
                if text.contains('@') { "; user and password are options of their own" } else { "" };
            format!("`{}` is not a server; write HOST:PORT{options}", shown_address(text))
        };
        // The name of an interface may follow: `fe80::1%eth0`.
        let is_ipv6 = |text: &str| text.split('%').next().is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok());
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(wrong)?)),
            None => match text.split_once(':') {
                // An IPv6 address without brackets and port.
                Some(_) if is_ipv6(text) => (text, None),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map_or(Ok(default_port), |port| port.parse().map_err(|_| wrong()))?;
        let is_odd = |c: char| c.is_whitespace() || matches!(c, '/' | '@');
        if host.is_empty() || port == 0 || host.contains(is_odd) || host.contains(':') && !is_ipv6(host) {
            return Err(wrong());
        }
        Ok(Address::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp { host, port } => write!(f, "{host}:{port}"),
            Address::Unix(path) => f.write_str(path),
        }
    }
}

/// Who we say we are.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) db: i64,
}

/// How a connection is opened.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) login: Login,
    /// Encrypts and verifies.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// An open connection, shared by all who ask at the same time. It is closed when the last of them lets go.
#[derive(Clone)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    driver: Arc<Driver>,
}

/// The task that writes and reads.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    /// Sends commands in one go; their replies, errors of the server among them.
    pub(super) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        self.connection.clone().send_packed_commands(commands, 0, commands.len()).await
    }

    /// Whether the server has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.driver.0.is_finished()
    }

    /// Whether it is the same connection.
    pub(super) fn is(&self, other: &Link) -> bool {
        Arc::ptr_eq(&self.driver, &other.driver)
    }
}

impl Access {
    /// Opens a connection to a server, which has shown that it serves.
    pub(super) async fn open(&self, address: &Address) -> Result<Link, Trouble> {
        let link = self.connect(address).await?;
        let reply = link.connection.clone().send_packed_command(&cmd("PING")).await;
        match reply.and_then(Value::extract_error) {
            // Access control lists may forbid the question, and that is an answer too.
            Err(error) if !is_forbidden(&text_of(&error)) => Err(self.on_opening(&error, address)),
            _ => Ok(link),
        }
    }

    /// Opens a connection to a server that has to be a master.
    pub(super) async fn open_master(&self, address: &Address) -> Result<Link, Trouble> {
        let link = self.connect(address).await?;
        match self.ask(&link, address, "ROLE", &[]).await? {
            Value::Array(role) if role.first() == Some(&Value::BulkString(b"master".to_vec())) => Ok(link),
            _ => Err(Trouble::Down(format!("{address} is not a master any more, or not yet"))),
        }
    }

    /// Sends a command that changes no value.
    pub(super) async fn ask(
        &self,
        link: &Link,
        address: &Address,
        command: &str,
        arguments: &[&str],
    ) -> Result<Value, Trouble> {
        let mut question = cmd(command);
        question.arg(arguments);
        let reply = link.connection.clone().send_packed_command(&question).await;
        let reply = reply.and_then(Value::extract_error);
        reply.map_err(|error| self.on_opening(&error, address))
    }

    fn on_opening(&self, error: &RedisError, address: &Address) -> Trouble {
        on_opening(error, &address.to_string(), self.login.password.as_ref())
    }

    /// Opens a connection and logs in.
    pub(super) async fn connect(&self, address: &Address) -> Result<Link, Trouble> {
        let failed = |error: std::io::Error| Trouble::Down(format!("{address}: {error}"));
        match (address, &self.tls) {
            (Address::Unix(path), _) => {
                self.greet(UnixStream::connect(path).await.map_err(failed)?, address).await
            }
            (Address::Tcp { host, port }, None) => {
                self.greet(connect_tcp(host, *port).await.map_err(failed)?, address).await
            }
            (Address::Tcp { host, port }, Some(tls)) => {
                let name = ServerName::try_from(host.clone());
                let name = name.map_err(|error| Trouble::Down(format!("{address}: {error}")))?;
                let stream = connect_tcp(host, *port).await.map_err(failed)?;
                let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(failed)?;
                self.greet(stream, address).await
            }
        }
    }

    async fn greet<S>(&self, stream: S, address: &Address) -> Result<Link, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // What the library says of a refused login is less than what the server says.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        // The limits are those of the caller, which end the connection as well.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(QUEUE);
        let opened = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (connection, driver) = opened.map_err(|error| self.on_opening(&error, address))?;
        let link = Link { connection, driver: Arc::new(Driver(tokio::spawn(driver))) };
        if let Some(Secret(password)) = &self.login.password {
            let user = self.login.user.as_deref();
            let login: Vec<_> = user.into_iter().chain([password.as_str()]).collect();
            self.ask(&link, address, "AUTH", &login).await?;
        }
        if self.login.db != 0 {
            self.ask(&link, address, "SELECT", &[&self.login.db.to_string()]).await?;
        }
        Ok(link)
    }
}

async fn connect_tcp(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_or_without_a_port() {
        let parse = |text: &str| Address::parse(text, 6379).map(|address| address.to_string());
        assert_eq!(parse("127.0.0.1:7000").as_deref(), Ok("127.0.0.1:7000"));
        assert_eq!(parse("redis.example").as_deref(), Ok("redis.example:6379"));
        assert_eq!(parse("[::1]:7000").as_deref(), Ok("[::1]:7000"));
        assert_eq!(parse("[::1]").as_deref(), Ok("[::1]:6379"));
        assert_eq!(parse("::1").as_deref(), Ok("[::1]:6379"));
        for wrong in ["", ":6379", "a:b", "a:0", "a:70000", "[::1]x", "/run/redis.sock", "redis://a:1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse("fe80::1%eth0").as_deref(), Ok("[fe80::1%eth0]:6379"));
    }

    #[test]
    fn what_has_a_password_is_refused_and_not_shown() {
        for wrong in [
            "redis://:hunter2@h:6379",
            "rediss://u:hunter2@h/0",
            "u:hunter2@h:6379",
            ":hunter2@h",
            "hunter2@h",
            "u:hun:ter2@[::1]:6379",
            "[hunter2@h]:1",
            "redis://:hunter2",
            "redis://u:hunter2:1",
        ] {
            let error = Address::parse(wrong, 6379).unwrap_err();
            assert!(error.contains("write HOST:PORT") && !error.contains("ter2"), "{wrong}: {error}");
        }
    }
}
