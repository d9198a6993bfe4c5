//! Which certificates to trust on an encrypted connection: the authorities of the system and those of a file.
//!
//! Knows: certificates. Must not know: what goes over the connection.

#[cfg(feature = "tls")]
mod config;
#[cfg(feature = "tls")]
pub mod dane;
#[cfg(feature = "tls")]
mod verifier;

#[cfg(feature = "tls")]
pub use config::{Verification, authorities, client_config};

/// A certificate of the client's own, with which it logs in to a server that wants one: two PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The path of the certificate, with those between it and the authority behind it.
    pub certificate: String,
    /// The path of its key, which has no password.
    pub key: String,
}
