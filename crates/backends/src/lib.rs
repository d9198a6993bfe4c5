//! One way to ask a server: the clients of everything outside that answers questions about mail.
//!
//! Each client takes a deadline, fails with one kind of error and does not ask a server that is known to be
//! down. The name service and the clock are enums of the real one and a fake one for tests.
//!
//! Knows: protocols. Must not know: options, sessions, plugins, messages.

pub mod clock;
pub mod dns;
pub mod fail2ban;
pub mod http;
pub mod keyvalue;
pub mod ldap;
pub mod messages;
pub mod scope;
pub mod smtp;
pub mod sql;
pub mod tls;

mod breaker;
mod call;
mod error;
mod secret;
mod throttle;

pub use breaker::{Breaker, Probe};
pub use call::call_deadline;
pub use error::{BackendError, Failure};
pub use secret::Secret;
pub use throttle::Throttle;
