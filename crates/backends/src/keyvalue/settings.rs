//! What the blocks of stores say.
//!
//! Knows: their options. Must not know: what opens a store.

use crate::Secret;
use crate::tls::Identity;
use std::time::Duration;

/// What a `<Connection>` of module Redis says.
#[derive(Clone, PartialEq)]
pub struct RedisSettings {
    /// Where it is.
    pub server: RedisServer,
    /// The user of an access control list, if any.
    pub user: Option<String>,
    /// The password, if it wants one.
    pub password: Option<Secret>,
    /// The number of the database.
    pub db: i64,
    /// Prefix of every key.
    pub prefix: String,
    /// How long a server may take for a reply before it is suspected to be dead.
    pub timeout: Duration,
    /// How long calls wait for a server that has failed, from the beginning of the outage on.
    pub failover_wait: Duration,
    /// Whether the connection is encrypted, and the server's certificate verified.
    pub tls: bool,
    /// Certificates of authorities to trust, in PEM, beside those of the system.
    pub tls_ca: Option<String>,
    /// What the client shows of itself, where the server wants that.
    pub identity: Option<Identity>,
}

/// Where a Redis is.
#[derive(Clone, PartialEq)]
pub enum RedisServer {
    /// `host:port`.
    Tcp(String),
    /// The path of a socket.
    Unix(String),
    /// The master of a service, which these sentinels (`host:port`) know.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<String>,
        /// The name of the service.
        service: String,
        /// The user of the sentinels' access control lists, if any.
        user: Option<String>,
        /// The password of the sentinels, if they want one.
        password: Option<Secret>,
    },
    /// A cluster that one of these nodes (`host:port`) knows.
    Cluster(Vec<String>),
}

/// What a `<Connection>` of module Memcached says.
#[derive(Clone, Debug, PartialEq)]
pub struct MemcachedSettings {
    /// Addresses `host:port`, or paths of UNIX sockets; with `=weight` where it is not 1.
    pub servers: Vec<String>,
    /// Prefix of every key.
    pub namespace: String,
    /// How long one call may take.
    pub timeout: Duration,
}
