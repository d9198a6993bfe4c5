//! One way to ask a server: the clients of everything outside that answers questions about mail.
//!
//! Each client takes a [`Call`], fails with one kind of error and does not ask a server that is known to be
//! down. The name service and the clock are enums of the real one and a fake one for tests.
//!
//! Knows: protocols. Must not know: options, sessions, plugins, messages.

/// The calls of what stands in for a client that is not compiled in: nobody has one to make them with.
#[allow(unused_macros, reason = "a build with all clients has no such thing")]
macro_rules! never {
    ($($name:ident($($argument:ty),*) -> $output:ty;)*) => {$(
        /// Never called.
        pub async fn $name(&self, $(_: $argument),*) -> $output {
            match self.0 {}
        }
    )*};
}

pub mod clock;
pub mod dns;
pub mod fail2ban;
pub mod http;
pub mod keyvalue;
pub mod ldap;
pub mod messages;
pub mod policy;
pub mod scope;
pub mod smtp;
#[cfg_attr(
    not(all(feature = "mysql", feature = "postgres", feature = "sqlite")),
    allow(dead_code, unused_imports, reason = "what only some of the databases need")
)]
pub mod sql;
pub mod tls;

mod breaker;
mod call;
mod call_numbers;
mod endpoint;
mod error;
mod guarded;
mod option_error;
mod pool;
mod pretence;
pub mod replay;
mod secret;
mod stream;
mod throttle;

pub use breaker::{Breaker, Server};
pub use call::{Begun, Call};
pub use call_numbers::{BOUNDS, CallNumbers, KINDS};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{BackendError, CallError, Failure};
pub use guarded::Guarded;
pub use option_error::OptionError;
pub use pool::{Client, Pool, PoolLimits};
pub use pretence::Pretence;
pub use replay::Replay;
pub use secret::Secret;
pub use stream::Socket;
#[cfg(feature = "tls")]
pub use stream::Stream;
pub use throttle::Throttle;
