//! The `<SessionCache>` block: where sessions are kept.
//!
//! Knows: its options, the connections. Must not know: plugins, how a session is kept.

use super::SessionSettings;
use crate::connections::{Connections, MEMORY, StoreKind, StoreNames, StoreRef};
use crate::options::{OptionSpec, Options, Section, codes, options};
use crate::plugin::OnError;
use crate::session::cache::{MemoryOptions, SharedOptions};
use crate::value::{Count, Limit, NonZeroSeconds, Seconds, Size, Value, words};
use std::time::Duration;

options! {
    /// The option of every `<SessionCache>` block.
    pub struct SessionOptions {
        /// Where sessions are kept: `None`, `Memory` of this process, or a store that several daemons share.
        ///
        /// A session holds the results of the requests of one message. Results that depend on the client or
        /// the sender only are determined once and apply to all recipients. Results that depend on the
        /// recipient (scores, fields, user settings) apply to that recipient only, and are dropped when the
        /// next request names another recipient, or none, as at DATA for a message with several. A result
        /// also depends on the recipient if the plugin is in the block of a Condition on the recipient, or
        /// uses a field or `uc_` setting that a plugin has derived from the recipient.
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
    struct MemorySessionOptions {
        /// How long to keep a session after its last request.
        expire: NonZeroSeconds = NonZeroSeconds(Seconds::of(300)),
        /// Maximum number of sessions; beyond it the least recently used are evicted.
        max_sessions: Limit = Limit(100_000),
        /// Maximum amount of memory for the sessions, including what the cache itself needs for them; beyond
        /// it the least recently used are evicted, which is logged at most once per minute. A session with a
        /// score and the results of a few lists takes about 2 KB.
        max_size: Size = Size::mebibytes(64),
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
        /// How long to keep a session after its last request.
        expire: NonZeroSeconds = NonZeroSeconds(Seconds::of(300)),
        /// The longest time, in milliseconds, before asking again for a session that a request at another
        /// daemon has locked. The first wait is one millisecond, each further one is twice as long. Requests
        /// at the same daemon do not wait for this: the next one goes on as soon as the session is saved.
        lock_wait: Milliseconds = Milliseconds(50),
        /// After how long the connection is closed without an answer, as the original counts it: after this
        /// many waits, of which the first is as long as `lock_wait`, the second twice, the third three times
        /// as long. The deadline of the request ends the wait too.
        lock_max_retry: Count = Count(50),
        /// How long a request may keep the session locked. It must be longer than `request_timeout`: what a
        /// request finds is discarded if the request takes longer than this. Without it, ten seconds more
        /// than `request_timeout`, which is time to save the session.
        ///
        /// The lock of a daemon that died ends earlier: a lock holds for two seconds, and is renewed as long
        /// as its request goes on.
        lock_timeout: Option<NonZeroSeconds>,
        /// What to do with a request while the store is unreachable. A Redis that has only just failed is
        /// waited for first (`failover_wait`); if the request has not so much time, its connection is closed,
        /// and Postfix asks again.
        ///
        /// `continue` goes on with a session that this daemon keeps in its memory until the store is back: it
        /// holds what this daemon has found for the message, before and since. `close` ends the connection,
        /// `defer` defers the message, `dunno` gives no opinion.
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
        text.parse().map(Milliseconds).map_err(|_| format!("`{text}` is not a number of milliseconds"))
    }
}

/// The options of the block, for the manual, by module.
pub fn option_specs() -> [(&'static str, Vec<OptionSpec>); 3] {
    [
        ("Options of the SessionCache block", SessionOptions::specs()),
        ("SessionCache, module Memory", MemorySessionOptions::specs()),
        ("SessionCache, modules Memcached, Redis and Sql", StoreOptions::specs()),
    ]
}

/// How long a lock holds beyond the longest request, so that the session is saved under it.
const TIME_TO_SAVE: Duration = Duration::from_secs(10);

/// What the block says, or `None` after the mistakes were reported. A request may take so long.
pub(super) fn read(
    mut section: Section<'_>,
    connections: &Connections,
    longest: Duration,
) -> Option<SessionSettings> {
    let settings = match SessionOptions::read(&mut section)?.module {
        SessionModule::None => {
            // Whoever switches the cache off may leave its options where they are.
            StoreOptions::read(&mut section);
            MemorySessionOptions::read(&mut section);
            Some(SessionSettings::None)
        }
        SessionModule::Memory => {
            // The locks of a process need no options, so those of the original have no effect.
            let options = MemorySessionOptions::read(&mut section)?;
            Some(SessionSettings::Memory(MemoryOptions {
                expire: options.expire.0.duration(),
                max_sessions: options.max_sessions.0,
                max_size: options.max_size,
            }))
        }
        SessionModule::Memcached => shared(StoreKind::Memcached, &mut section, connections, longest),
        SessionModule::Redis => shared(StoreKind::Redis, &mut section, connections, longest),
        SessionModule::Sql => shared(StoreKind::Sql, &mut section, connections, longest),
    };
    section.finish();
    settings
}

fn shared(
    kind: StoreKind,
    section: &mut Section<'_>,
    connections: &Connections,
    longest: Duration,
) -> Option<SessionSettings> {
    let options = StoreOptions::read(section)?;
    let StoreOptions { memcached, redis, db, .. } = &options;
    let store = StoreRef::of_kind(kind, StoreNames { memcached, redis, db, memory: MEMORY });
    let store = connections.store(store, section)?;
    let on_error = options.on_error;
    let lock_timeout = lock_timeout(options.lock_timeout, longest, section);
    let options = SharedOptions {
        expire: options.expire.0.duration(),
        lock_wait: Duration::from_millis(options.lock_wait.0),
        lock_max_retry: options.lock_max_retry.0,
        lock_timeout,
        go_on_without: on_error == OnError::Continue,
    };
    Some(SessionSettings::Shared { store, options, on_error })
}

/// How long a lock holds. Warns of one that requests may outlive.
fn lock_timeout(configured: Option<NonZeroSeconds>, longest: Duration, section: &Section<'_>) -> Duration {
    let Some(NonZeroSeconds(seconds)) = configured else { return longest + TIME_TO_SAVE };
    if seconds.duration() <= longest {
        let why = "what a request finds out is discarded if it takes longer than its lock";
        let message = format!(
            "lock_timeout: {seconds} is not longer than a request may take, {} s (request_timeout): {why}",
            longest.as_secs()
        );
        section.report().say(&codes::SHORT_LOCK, section.span_of("lock_timeout"), message, None);
    }
    seconds.duration()
}
