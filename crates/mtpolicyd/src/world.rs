//! The outside: what answers questions, each as an enum of the real one and a fake one for tests.
//!
//! Knows: protocols. Must not know: sessions, options, plugins.

pub mod dns;
pub mod dnslist;

use std::sync::Arc;

/// Everything outside that plugins may ask.
#[derive(Clone)]
pub struct World {
    /// The name service.
    pub dns: Arc<dns::Dns>,
    /// How the DNS lists fare.
    pub lists: Arc<dnslist::Health>,
}
