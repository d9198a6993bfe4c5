//! The `<SessionCache>` block: where sessions are kept.
//!
//! Knows: its options, the connections. Must not know: plugins, how a session is kept.

use super::SessionSettings;
use crate::connections::{Connections, Module};
use crate::options::{OptionSpec, Options, Section, options};
use crate::plugin::OnError;
use crate::session::cache::SharedOptions;
use crate::value::{Count, Limit, Seconds, Span, Value, words};
use std::time::Duration;

options! {
    /// The option of every `<SessionCache>` block.
    pub struct SessionOptions {
        /// Where sessions are kept: `None`, `Memory` of this process, or a store that several daemons share.
        module: SessionModule = SessionModule::None,
    }
}

words! {
    /// Where sessions are kept.
    pub enum SessionModule {
        /// Nowhere.
        None = "None",
        /// In this process.
        Memory = "Memory",
        /// In memcached.
        Memcached = "Memcached",
        /// In Redis.
        Redis = "Redis",
        /// In a table of a database.
        Sql = "Sql",
    }
}

options! {
    /// Options of module Memory.
    struct MemoryOptions {
        /// How long after its last request a mail is remembered.
        expire: Span = Span(Seconds(300)),
        /// How many mails are remembered at most.
        max_sessions: Limit = Limit(100_000),
    }
}

options! {
    /// Options of modules Memcached, Redis and Sql.
    struct StoreOptions {
        /// The name of the connection, for module Memcached.
        memcached: String = "memcached",
        /// The name of the connection, for module Redis.
        redis: String = "redis",
        /// The name of the connection, for module Sql.
        db: String = "db",
        /// How long after its last request a mail is remembered.
        expire: Span = Span(Seconds(300)),
        /// How long to wait, in milliseconds, for a session that another request of the mail has locked. The
        /// first wait is as long as this, the second twice, the third three times.
        lock_wait: Milliseconds = Milliseconds(50),
        /// How often to wait before the connection is closed without an answer. The request's deadline ends
        /// the waiting too.
        lock_max_retry: Count = Count(50),
        /// After what time the lock of a daemon that died is nobody's any more. Keep it above
        /// `request_timeout`.
        lock_timeout: Span = Span(Seconds(10)),
        /// What becomes of a request while the store is away: `continue` goes on with a session that nobody
        /// else sees; `close` ends the connection, `defer` defers the mail, `dunno` gives no opinion.
        on_error: OnError = OnError::Continue,
    }
}

/// A number of milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Milliseconds(u64);

impl std::fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl Value for Milliseconds {
    const FORM: &'static str = "whole number of milliseconds";
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map(Milliseconds).map_err(|_| format!("`{text}` is no number of milliseconds"))
    }
}

/// The options of the block, for the manual, by module.
pub fn option_specs() -> [(&'static str, Vec<OptionSpec>); 3] {
    [
        ("Options of the SessionCache block", SessionOptions::specs()),
        ("SessionCache, module Memory", MemoryOptions::specs()),
        ("SessionCache, modules Memcached, Redis and Sql", StoreOptions::specs()),
    ]
}

/// What the block says, or `None` after the mistakes were reported.
pub(super) fn read(mut section: Section<'_>, connections: &Connections) -> Option<SessionSettings> {
    let settings = match SessionOptions::read(&mut section)?.module {
        SessionModule::None => {
            // Whoever switches the cache off may leave its options where they are.
            StoreOptions::read(&mut section);
            MemoryOptions::read(&mut section);
            Some(SessionSettings::None)
        }
        SessionModule::Memory => {
            // The locks of a process need no options, so those of the original have no effect.
            let MemoryOptions { expire, max_sessions } = MemoryOptions::read(&mut section)?;
            Some(SessionSettings::Memory { expire: expire.0.duration(), max_sessions: max_sessions.0 })
        }
        SessionModule::Memcached => shared(Module::Memcached, &mut section, connections),
        SessionModule::Redis => shared(Module::Redis, &mut section, connections),
        SessionModule::Sql => shared(Module::Sql, &mut section, connections),
    };
    section.finish();
    settings
}

fn shared(module: Module, section: &mut Section<'_>, connections: &Connections) -> Option<SessionSettings> {
    let options = StoreOptions::read(section)?;
    let (option, name) = match module {
        Module::Redis => ("redis", &options.redis),
        Module::Sql => ("db", &options.db),
        _ => ("memcached", &options.memcached),
    };
    let store = connections.store(name, option, module, section)?;
    let on_error = options.on_error;
    let options = SharedOptions {
        expire: options.expire.0.duration(),
        lock_wait: Duration::from_millis(options.lock_wait.0),
        lock_max_retry: options.lock_max_retry.0,
        lock_timeout: options.lock_timeout.0.duration(),
        go_on_without: on_error == OnError::Continue,
    };
    Some(SessionSettings::Shared { store, options, on_error })
}
