//! Sender Policy Framework (RFC 7208): may this client send mail for that domain?
//!
//! - [`check`] asks the domain's record, and those that it includes, over a [`Resolve`] of the caller.
//! - [`Outcome`] is what came of it: the verdict, the terms that led to it, and where the domain explains a
//!   failure, [`Outcome::explanation`].
//! - [`Limits`] bound the work that a record can cause; the verdict depends on them, on the records and on
//!   nothing else. Lookups start before their turn ([`Settings::look_ahead`]), but are counted in their turn.
//! - [`Record`] and [`MacroText`] are what a domain publishes, parsed.
//!
//! Nothing here has a clock or a timer: who calls gives the time, and drops the future that takes too long,
//! which is a temporary error.
//!
//! ```
//! use spf::{Failure, Request, Resolve, Settings, Verdict, check};
//! use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
//!
//! /// One domain with one record.
//! struct World;
//!
//! impl Resolve for World {
//!     async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, Failure> {
//!         let record: &[u8] = b"v=spf1 ip4:192.0.2.0/24 -all";
//!         Ok(if name == "example.org" { vec![record.to_vec()] } else { Vec::new() })
//!     }
//!     async fn ipv4_addresses(&self, _: &str) -> Result<Vec<Ipv4Addr>, Failure> {
//!         Ok(Vec::new())
//!     }
//!     async fn ipv6_addresses(&self, _: &str) -> Result<Vec<Ipv6Addr>, Failure> {
//!         Ok(Vec::new())
//!     }
//!     async fn exchanges(&self, _: &str) -> Result<Vec<String>, Failure> {
//!         Ok(Vec::new())
//!     }
//!     async fn names(&self, _: IpAddr) -> Result<Vec<String>, Failure> {
//!         Ok(Vec::new())
//!     }
//! }
//!
//! # futures_util::FutureExt::now_or_never(async {
//! let client = IpAddr::from([192, 0, 2, 10]);
//! let request = Request::mail_from(client, "mail.example.org", "alice@example.org");
//! let outcome = check(&World, &request, &Settings::default()).await;
//! assert_eq!(outcome.verdict, Verdict::Pass);
//! # }).expect("nothing waits");
//! ```

mod ahead;
mod client;
mod error;
mod evaluate;
mod expand;
mod explain;
mod lookups;
mod macros;
mod name;
mod outcome;
mod record;
mod request;
mod resolve;

pub use error::SyntaxError;
pub use evaluate::check;
pub use macros::MacroText;
pub use outcome::{Outcome, Step, Verdict};
pub use record::Record;
pub use request::{Identity, Limits, Request, Settings};
pub use resolve::{Failure, Resolve};
