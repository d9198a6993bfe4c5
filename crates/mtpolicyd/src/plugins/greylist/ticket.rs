//! Tickets: which clients have come when, and when a retry passes.
//!
//! Knows: stores. Must not know: the auto-whitelist, what becomes of the message.

use super::triplet::Triplet;
use crate::connections::{Connections, StoreKind, StoreNames, StoreRef};
use crate::options::{Options, Section, options};
use crate::value::{NonZeroSeconds, Seconds};
use backends::keyvalue::{Protected, Store, Version};
use backends::{BackendError, Call};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout_at;

options! {
    /// Where greylisting keeps its tickets.
    pub struct TicketOptions {
        /// The kind of store. Of the options that name a connection, only the one for this kind is used.
        module: StoreKind = StoreKind::Memcached,
        /// The name of the connection, for module Memcached.
        memcached: String = "memcached",
        /// The name of the connection, for module Redis.
        redis: String = "redis",
        /// The name of the connection, for module Sql. A ticket is in the database before the message is
        /// deferred.
        db: String = "db",
        /// The name of the connection, for module Memory. Tickets there are lost when the daemon stops, and
        /// other daemons do not see them.
        memory: String = "memory",
        /// Prefix of every key, followed by a comma; for greylists that share a store but not their tickets.
        prefix: String = "",
        /// How long a client must wait before it may retry. Without it, the option of the plugin applies.
        min_retry_wait: Option<Seconds>,
        /// When a ticket expires. Without it, the option of the plugin applies.
        max_retry_wait: Option<NonZeroSeconds>,
    }
}

/// The tickets of one Greylist.
#[derive(Clone)]
pub struct Tickets {
    store: Store,
    prefix: String,
    /// Seconds until a retry is let through.
    wait: i64,
    lifetime: Duration,
    leaving: Arc<Leaving>,
}

/// Tickets that have been used, and are removed as soon as Postfix has its answer. Whoever asks for one
/// meanwhile waits for that.
#[derive(Default)]
struct Leaving {
    keys: Mutex<HashSet<Vec<u8>>>,
    left: Notify,
}

/// A ticket that is being used up, until this is dropped.
pub struct Used {
    tickets: Tickets,
    key: Vec<u8>,
    version: Version,
}

/// What a ticket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The client has waited.
    Valid,
    /// It has to wait this many seconds more.
    Early(i64),
    /// It would have to wait longer than anybody has to: the clock was set back, or the configuration has
    /// changed.
    Absurd,
}

impl Tickets {
    /// The store that a `<Ticket>` block names, or `None` after the mistake was reported.
    pub fn read(
        section: &mut Section<'_>,
        connections: &Connections,
        min_retry_wait: Seconds,
        max_retry_wait: NonZeroSeconds,
    ) -> Option<Tickets> {
        let options = TicketOptions::read(section)?;
        let TicketOptions { memcached, redis, db, memory, .. } = &options;
        let store = StoreRef::of_kind(options.module, StoreNames { memcached, redis, db, memory });
        let store = connections.store(store, section)?;
        let wait = options.min_retry_wait.unwrap_or(min_retry_wait);
        let lifetime = options.max_retry_wait.unwrap_or(max_retry_wait).0;
        if wait >= lifetime {
            let message = format!(
                "tickets expire after {lifetime} seconds (max_retry_wait), before a client may come back \
                 after {wait} (min_retry_wait)"
            );
            section.refuse(message, Some("give max_retry_wait a longer time".to_owned()));
            return None;
        }
        let wait = i64::try_from(wait.whole()).unwrap_or(i64::MAX);
        let leaving = Arc::default();
        Some(Tickets { store, prefix: options.prefix, wait, lifetime: lifetime.duration(), leaving })
    }

    /// The key of a ticket.
    pub fn key(&self, triplet: &Triplet<'_>) -> Vec<u8> {
        let Triplet { sender, client, recipient, .. } = triplet;
        let mut key = self.key_prefix();
        key.reserve_exact(sender.len() + client.len() + recipient.len() + 2);
        key.extend_from_slice(sender);
        key.push(b',');
        key.extend_from_slice(client);
        key.push(b',');
        key.extend_from_slice(recipient);
        key
    }

    /// From when on a retry is let through, in seconds since the epoch, and which ticket says so; `None` if
    /// there is none.
    pub async fn get(&self, key: &[u8], call: Call<'_>) -> Result<Option<(i64, Version)>, BackendError> {
        self.wait_until_left(key, call).await;
        let Protected { value, version } = self.store.get_protected(key, call).await?;
        Ok(value.and_then(|value| read_ticket(&value)).map(|ticket| (ticket, version)))
    }

    /// What a ticket means now.
    pub fn standing(&self, ticket: i64, now: i64) -> Standing {
        match ticket.saturating_sub(now) {
            // Both are whole seconds, so that the same one may be almost a second early.
            ..0 => Standing::Valid,
            left if left <= self.wait => Standing::Early(left.max(1)),
            _ => Standing::Absurd,
        }
    }

    /// Makes a ticket, unless another request for the same has just made one.
    pub async fn create(&self, key: &[u8], now: i64, call: Call<'_>) -> Result<(), BackendError> {
        self.store.add(key, &self.ticket(now), self.lifetime, call).await.map(|_| ())
    }

    /// Makes a ticket in place of one that makes no sense: how long there is to wait.
    pub async fn replace(&self, key: &[u8], now: i64, call: Call<'_>) -> Result<i64, BackendError> {
        self.store.set(key, &self.ticket(now), self.lifetime, call).await?;
        Ok(self.wait)
    }

    /// What every key begins with.
    pub fn key_prefix(&self) -> Vec<u8> {
        if self.prefix.is_empty() { Vec::new() } else { format!("{},", self.prefix).into_bytes() }
    }

    /// Sets a ticket that passes from this time on, whatever there was, for a time; without one as long as
    /// tickets live.
    pub async fn put(
        &self,
        key: &[u8],
        passes_at: i64,
        lifetime: Option<Duration>,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        let lifetime = lifetime.unwrap_or(self.lifetime);
        self.store.set(key, passes_at.to_string().as_bytes(), lifetime, call).await
    }

    /// How long a client has to wait, in seconds.
    pub fn wait(&self) -> i64 {
        self.wait
    }

    fn ticket(&self, now: i64) -> Vec<u8> {
        now.saturating_add(self.wait).to_string().into_bytes()
    }

    /// A ticket has been used, and is about to be removed.
    pub fn used(&self, key: Vec<u8>, version: Version) -> Used {
        self.leaving().insert(key.clone());
        Used { tickets: self.clone(), key, version }
    }

    /// Waits while a ticket is about to be removed.
    async fn wait_until_left(&self, key: &[u8], call: Call<'_>) {
        loop {
            let left = self.leaving.left.notified();
            if !self.leaving().contains(key) || timeout_at(call.deadline(), left).await.is_err() {
                return;
            }
        }
    }

    fn leaving(&self) -> MutexGuard<'_, HashSet<Vec<u8>>> {
        self.leaving.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the tickets are.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// What a ticket says: from when on a retry is let through.
pub fn read_ticket(value: &[u8]) -> Option<i64> {
    str::from_utf8(value).ok()?.trim().parse().ok()
}

impl Used {
    /// Removes the ticket, and not one that somebody has put in its place meanwhile.
    pub async fn remove(&self, call: Call<'_>) -> Result<(), BackendError> {
        self.tickets.store.delete_unchanged(&self.key, self.version, call).await.map(|_| ())
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        self.tickets.leaving().remove(&self.key);
        self.tickets.leaving.left.notify_waiters();
    }
}
