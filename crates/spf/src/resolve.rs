//! Who answers the questions about names.
//!
//! Knows: kinds of records. Must not know: why they are asked for, the network.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The name service. A name that does not exist, or has no such records, is an empty answer; names come as a
/// record has them, without a final dot, and may hold any printable ASCII.
///
/// Calls run at the same time, and equal ones are made once a check.
pub trait Resolve: Sync {
    /// The TXT records of a name, the strings of each joined.
    fn texts(&self, name: &str) -> impl Future<Output = Result<Vec<Vec<u8>>, Failure>> + Send;
    /// Its IPv4 addresses.
    fn ipv4_addresses(&self, name: &str) -> impl Future<Output = Result<Vec<Ipv4Addr>, Failure>> + Send;
    /// Its IPv6 addresses.
    fn ipv6_addresses(&self, name: &str) -> impl Future<Output = Result<Vec<Ipv6Addr>, Failure>> + Send;
    /// The hosts that take its mail, in any order.
    fn exchanges(&self, name: &str) -> impl Future<Output = Result<Vec<String>, Failure>> + Send;
    /// The names of an address (PTR).
    fn names(&self, ip: IpAddr) -> impl Future<Output = Result<Vec<String>, Failure>> + Send;
}

/// Why a question has no answer, in words for a log: no server answered, or one said that it can't.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub Arc<str>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}
