//! A service that is asked over HTTP/1.1 (RFC 9112), encrypted or not, by TCP or a UNIX socket.
//!
//! Knows: what is asked and answered. Must not know: what an answer means.

#[cfg_attr(not(feature = "http"), path = "http/absent.rs")]
mod client;
#[cfg(feature = "http")]
mod connector;
#[cfg(feature = "http")]
mod freshness;
mod noted;
mod url;

pub use client::HttpService;
pub use url::Url;

use crate::Secret;
use std::path::PathBuf;
use std::time::Duration;

/// Which service, and how it is asked.
#[derive(Clone, PartialEq)]
pub struct HttpSettings {
    /// Where it is, with a user and a password for it perhaps.
    pub url: Url,
    /// The path of a UNIX socket to connect to instead of the host in the URL.
    pub socket_path: Option<PathBuf>,
    /// What a bearer of it may ask (RFC 6750).
    pub token: Option<Secret>,
    /// Certificates of authorities to trust, in PEM, beside those of the system.
    pub tls_ca: Option<String>,
    /// How long one call may take.
    pub timeout: Duration,
    /// The longest answer that is read, in bytes.
    pub max_answer_bytes: usize,
}

/// What is sent.
pub struct Post {
    /// What the body is.
    pub content_type: &'static str,
    /// What the answer should be.
    pub accept: &'static str,
    /// More lines of the head: the name in lower case, and what stands behind it.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The number that says how it went: 200.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// How long the service wants the answer to be used, if it says so.
    pub max_age: Option<Duration>,
}
