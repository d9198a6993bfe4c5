//! The name service as a client of recursive servers: servers, tries, cache, answers.
//!
//! Knows: the DNS as a stub resolver sees it. Must not know: what an answer means to the one who asks.
//!
//! A [`Resolver`] asks the servers that its [`Config`] or `/etc/resolv.conf` names, in their order, over UDP,
//! and over TCP where an answer is too long. It remembers answers as long as they hold, failures for some
//! seconds, and asks equal questions once. What each part promises is in the crate's README.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use dns_stub::{Class, Config, Data, Name, Question, RecordType, Resolver};
//!
//! let resolver = Resolver::new(Config::default());
//! let question = Question::new(Name::parse("example.com")?, RecordType::MX);
//! // It may be started early and awaited where the answer is needed.
//! let lookup = resolver.start(&question, Class::Foreign)?;
//! for record in lookup.await?.records() {
//!     if let Data::Mx { preference, exchange } = record {
//!         assert!(preference <= 50, "{exchange}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod answer;
mod channel;
mod engine;
mod flight;
pub mod message;
mod name;
mod network;
mod random;
mod resolv_conf;
mod resolver;
mod server;
#[cfg(test)]
mod simulation;
mod source;
mod table;

pub use answer::{Answer, Data, Error, Rcode, RecordType, Records, Strings};
pub use name::{Labels, Name, NameError, NameRef};
pub use resolv_conf::{DNS_PORT, ResolvConf};
pub use resolver::{Class, Config, Lookup, Question, Resolver, Usage};
