//! The master of a service, as sentinels know it.
//!
//! Knows: sentinels. Must not know: when it is time to ask them.

use super::connection::{Access, Connection, Login};
use super::error::RequestError;
use crate::Endpoint;
use redis::Value;
use tokio::task::JoinSet;

/// Where sentinels listen unless their port is given.
pub(super) const PORT: u16 = 26379;

/// A service and who knows its master.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) sentinels: Vec<Endpoint>,
    /// How to log in to them.
    pub(super) login: Login,
}

impl Service {
    /// Opens a connection to the master. All sentinels are asked at the same time, and the first that leads
    /// to a master is followed: one that is cut off from the others still names the old one.
    pub(super) async fn open_master(&self, access: &Access) -> Result<Connection, RequestError> {
        let mut tries = JoinSet::new();
        for sentinel in &self.sentinels {
            let to_sentinel = Access { login: self.login.clone(), ..access.clone() };
            let (sentinel, service, access) = (sentinel.clone(), self.name.clone(), access.clone());
            tries.spawn(async move {
                let address = master(&sentinel, &service, &to_sentinel).await?;
                access.open_master(&address).await
            });
        }
        let mut first_error = None;
        while let Some(tried) = tries.join_next().await {
            match tried {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => {
                    first_error.get_or_insert(error);
                }
                Err(panic) => {
                    first_error.get_or_insert(RequestError::Down(panic.to_string()));
                }
            }
        }
        Err(first_error.unwrap_or_else(|| RequestError::Down("there are no sentinels".to_owned())))
    }
}

/// Where a sentinel says that the master is.
async fn master(sentinel: &Endpoint, service: &str, access: &Access) -> Result<Endpoint, RequestError> {
    let connection = access.connect(sentinel).await?;
    let reply = access.ask(&connection, sentinel, "SENTINEL", &["get-master-addr-by-name", service]).await?;
    let unknown = || RequestError::Down(format!("sentinel {sentinel} does not know the service {service}"));
    let Value::Array(parts) = reply else { return Err(unknown()) };
    let [Value::BulkString(host), Value::BulkString(port)] = parts.as_slice() else { return Err(unknown()) };
    let host = String::from_utf8_lossy(host).into_owned();
    let port = str::from_utf8(port).ok().and_then(|port| port.parse().ok()).ok_or_else(unknown)?;
    Ok(Endpoint::Tcp { host, port })
}
