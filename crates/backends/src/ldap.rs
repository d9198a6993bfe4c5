//! A directory that answers LDAP (RFC 4511).
//!
//! Knows: binding, searching, deadlines. Must not know: what an attribute means.

#[cfg_attr(not(feature = "ldap"), path = "ldap/absent.rs")]
mod client;
#[cfg(feature = "ldap")]
mod connection;
#[cfg(feature = "ldap")]
mod entry;
mod filter;
mod noted;
#[cfg(feature = "ldap")]
mod server;

pub use client::{Ldap, ignored_path, is_filter};
pub use filter::{escape, without_blanks};

use crate::Secret;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a `<Connection>` of module Ldap says.
#[derive(Clone, PartialEq)]
pub struct LdapSettings {
    /// The servers, in the forms that the option `host` has.
    pub host: String,
    /// The port of those that name none.
    pub port: Option<u16>,
    /// Whether to keep the connection open for the next request.
    pub keepalive: bool,
    /// How long one call may take.
    pub timeout: Duration,
    /// Who to bind as; anonymous if none.
    pub binddn: Option<String>,
    /// The password for it.
    pub password: Secret,
    /// Whether to encrypt the connection with StartTLS and verify the server's certificate before anything
    /// else is sent.
    pub starttls: bool,
    /// Certificates of authorities to trust, in PEM, beside those of the system.
    pub tls_ca: Option<String>,
    /// Which aliases are followed.
    pub deref: Deref,
}

/// Which aliases a search follows (RFC 4511, section 4.5.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deref {
    /// None.
    Never,
    /// Those below the base.
    Search,
    /// The base.
    Find,
    /// All.
    Always,
}

/// An entry that was found: its attributes, each with its values in the order of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its distinguished name.
    pub dn: String,
    /// Its attributes. What is not UTF-8 in a value has been replaced.
    pub attributes: BTreeMap<String, Vec<String>>,
}

impl Entry {
    /// The first value of an attribute, whose name may be written in any case.
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.and_then(|(_, values)| values.first()).map(String::as_str)
    }
}
