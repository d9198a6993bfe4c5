//! The master of a service, as sentinels know it.
//!
//! Knows: sentinels. Must not know: when it is time to ask them.

use super::link::{Access, Address, Link, Login};
use super::trouble::Trouble;
use redis::Value;
use tokio::task::JoinSet;

/// Where sentinels listen unless their port is given.
pub(super) const PORT: u16 = 26379;

/// A service and who knows its master.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) sentinels: Vec<Address>,
    /// How to log in to them.
    pub(super) login: Login,
}

impl Service {
    /// Opens a connection to the master. All sentinels are asked at the same time, and the first that leads
    /// to a master is followed: one that is cut off from the others still names the old one.
    pub(super) async fn open_master(&self, access: &Access) -> Result<Link, Trouble> {
        let mut tries = JoinSet::new();
        for sentinel in &self.sentinels {
            let to_sentinel = Access { login: self.login.clone(), tls: access.tls.clone() };
            let (sentinel, service, access) = (sentinel.clone(), self.name.clone(), access.clone());
            tries.spawn(async move {
                let address = master(&sentinel, &service, &to_sentinel).await?;
                access.open_master(&address).await
            });
        }
        let mut first_trouble = None;
        while let Some(tried) = tries.join_next().await {
            match tried {
                Ok(Ok(link)) => return Ok(link),
                Ok(Err(trouble)) => {
                    first_trouble.get_or_insert(trouble);
                }
                Err(panic) => {
                    first_trouble.get_or_insert(Trouble::Down(panic.to_string()));
                }
            }
        }
        Err(first_trouble.unwrap_or_else(|| Trouble::Down("there are no sentinels".to_owned())))
    }
}

/// Where a sentinel says that the master is.
async fn master(sentinel: &Address, service: &str, access: &Access) -> Result<Address, Trouble> {
    let link = access.connect(sentinel).await?;
    let reply = access.ask(&link, sentinel, "SENTINEL", &["get-master-addr-by-name", service]).await?;
    let unknown = || Trouble::Down(format!("sentinel {sentinel} does not know the service {service}"));
    let Value::Array(parts) = reply else { return Err(unknown()) };
    let [Value::BulkString(host), Value::BulkString(port)] = parts.as_slice() else { return Err(unknown()) };
    let host = String::from_utf8_lossy(host).into_owned();
    let port = str::from_utf8(port).ok().and_then(|port| port.parse().ok()).ok_or_else(unknown)?;
    Ok(Address::Tcp { host, port })
}
