//! Facts about a message that others know: DNS lists, countries, sender policies, tables, reputations.
//!
//! Knows: what is asked about messages and what an answer says. Must not know: sessions, options, plugins.

pub mod ctipd;
pub mod dnslist;
pub mod file;
pub mod geoip;
pub mod json;
pub mod known_lists;
pub mod lookup_service;
pub mod maps;
pub mod spf;

use crate::events::Events;
use backends::clock::Clock;
use backends::dns::Dns;
use backends::smtp::Destinations;
use std::sync::Arc;

/// What every plugin may ask. Databases and stores are not here: a plugin has those that its block names.
#[derive(Clone)]
pub struct World {
    /// The name service.
    pub dns: Arc<Dns>,
    /// How the DNS lists fare.
    pub lists: Arc<dnslist::Health>,
    /// The mail servers that are asked.
    pub smtp: Arc<Destinations>,
    /// The wall clock.
    pub clock: Arc<Clock>,
    /// Where it is noted what an administrator wants to be told.
    pub events: Arc<Events>,
}
