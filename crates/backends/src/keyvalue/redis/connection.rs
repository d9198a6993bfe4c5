//! A connection to one server of Redis, and how it is opened.
//!
//! Knows: sockets, TLS, the login. Must not know: which server is the right one for a key.

use super::error::{RequestError, is_forbidden, on_opening, text_of};
use crate::{Endpoint, Secret, Socket};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, RedisError, Value, cmd};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

/// Length of the queue of commands for the socket; beyond it callers wait: as many as policy connections are
/// busy at once.
const QUEUE: usize = 256;

/// Reads the address of a server that is reached by TCP.
///
/// # Errors
/// What is wrong; neither user nor password are shown.
pub(super) fn tcp(text: &str, default_port: u16) -> Result<Endpoint, String> {
    match Endpoint::parse(text, Some(default_port)) {
        Ok(Endpoint::Unix(path)) => {
            Err(format!("`{}` is a socket; write HOST:PORT, or the path to `sock`", path.display()))
        }
        address => address.map_err(|error| error.to_string()),
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
    /// How long a connection may take, of which several addresses of a host have a share each.
    pub(super) limit: Duration,
    /// By which `CLIENT LIST` of the server shows the connection.
    pub(super) client_name: Arc<str>,
}

/// An open connection, shared by all who ask at the same time. It is closed when the last of them lets go.
#[derive(Clone)]
pub(super) struct Connection {
    multiplexed: MultiplexedConnection,
    driver: Arc<Driver>,
}

/// The task that writes and reads.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Sends commands in one go; their replies, errors of the server among them.
    pub(super) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        self.multiplexed.clone().send_packed_commands(commands, 0, commands.len()).await
    }

    /// Whether the server has closed it.
    pub(super) fn is_closed(&self) -> bool {
        self.driver.0.is_finished()
    }

    /// Whether it is the same connection.
    pub(super) fn is(&self, other: &Connection) -> bool {
        Arc::ptr_eq(&self.driver, &other.driver)
    }
}

impl Access {
    /// Opens a connection to a server, which has shown that it serves.
    pub(super) async fn open(&self, address: &Endpoint) -> Result<Connection, RequestError> {
        let connection = self.connect(address).await?;
        let reply = connection.multiplexed.clone().send_packed_command(&cmd("PING")).await;
        match reply.and_then(Value::extract_error) {
            // Access control lists may forbid the question, and that is an answer too.
            Err(error) if !is_forbidden(&text_of(&error)) => Err(self.on_opening(&error, address)),
            _ => Ok(connection),
        }
    }

    /// Opens a connection to a server that has to be a master.
    pub(super) async fn open_master(&self, address: &Endpoint) -> Result<Connection, RequestError> {
        let connection = self.connect(address).await?;
        match self.ask(&connection, address, "ROLE", &[]).await? {
            Value::Array(role) if role.first() == Some(&Value::BulkString(b"master".to_vec())) => {
                Ok(connection)
            }
            _ => Err(RequestError::Down(format!("{address} is not a master any more, or not yet"))),
        }
    }

    /// Sends a command that changes no value.
    pub(super) async fn ask(
        &self,
        connection: &Connection,
        address: &Endpoint,
        command: &str,
        arguments: &[&str],
    ) -> Result<Value, RequestError> {
        let mut question = cmd(command);
        question.arg(arguments);
        let reply = connection.multiplexed.clone().send_packed_command(&question).await;
        let reply = reply.and_then(Value::extract_error);
        reply.map_err(|error| self.on_opening(&error, address))
    }

    fn on_opening(&self, error: &RedisError, address: &Endpoint) -> RequestError {
        on_opening(error, &address.to_string(), self.login.password.as_ref())
    }

    /// Opens a connection and logs in.
    pub(super) async fn connect(&self, address: &Endpoint) -> Result<Connection, RequestError> {
        let failed = |error: std::io::Error| RequestError::Down(format!("{address}: {error}"));
        let socket = Socket::connect(address, self.limit).await.map_err(failed)?;
        match (address, &self.tls) {
            (Endpoint::Tcp { host, .. }, Some(tls)) => {
                let name = ServerName::try_from(host.clone());
                let name = name.map_err(|error| RequestError::Down(format!("{address}: {error}")))?;
                let stream = socket.encrypt(tls.clone(), name).await.map_err(failed)?;
                self.greet(stream, address).await
            }
            _ => self.greet(socket, address).await,
        }
    }

    async fn greet<S>(&self, stream: S, address: &Endpoint) -> Result<Connection, RequestError>
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
        let (multiplexed, driver) = opened.map_err(|error| self.on_opening(&error, address))?;
        let connection = Connection { multiplexed, driver: Arc::new(Driver(tokio::spawn(driver))) };
        if let Some(Secret(password)) = &self.login.password {
            let user = self.login.user.as_deref();
            let login: Vec<_> = user.into_iter().chain([password.as_str()]).collect();
            self.ask(&connection, address, "AUTH", &login).await?;
        }
        if self.login.db != 0 {
            self.ask(&connection, address, "SELECT", &[&self.login.db.to_string()]).await?;
        }
        // Whether the server takes the name, or may be told it, does not matter.
        let mut name = cmd("CLIENT");
        name.arg("SETNAME").arg(&*self.client_name);
        drop(connection.multiplexed.clone().send_packed_command(&name).await);
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_no_address_of_a_host() {
        assert_eq!(
            tcp("redis.example", 6379).map(|address| address.to_string()).unwrap(),
            "redis.example:6379"
        );
        assert!(tcp("/run/redis.sock", 6379).unwrap_err().contains("the path to `sock`"));
    }
}
