//! The outside: what answers questions. DNS and the clock are enums of the real one and a fake one for tests.
//!
//! Knows: protocols. Must not know: sessions, options, plugins.

pub mod backend;
pub mod clock;
pub mod ctipd;
pub mod dns;
pub mod dnslist;
pub mod fail2ban;
pub mod file;
pub mod geoip;
pub mod http;
pub mod json;
pub mod keyvalue;
pub mod ldap;
pub mod lookup_service;
pub mod maps;
pub mod smtp;
pub mod spf;
pub mod sql;
pub mod tls;

use std::sync::Arc;

/// What every plugin may ask. Databases and stores are not here: a plugin has those that its block names.
#[derive(Clone)]
pub struct World {
    /// The name service.
    pub dns: Arc<dns::Dns>,
    /// How the DNS lists fare.
    pub lists: Arc<dnslist::Health>,
    /// The mail servers that are asked.
    pub smtp: Arc<smtp::Destinations>,
    /// The wall clock.
    pub clock: Arc<clock::Clock>,
}
