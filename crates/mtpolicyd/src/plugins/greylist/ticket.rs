//! Tickets: which clients have come when, and when a retry passes.
//!
//! Knows: stores. Must not know: the auto-whitelist, what becomes of the message.

use super::store_kind::StoreKind;
use super::triplet::Triplet;
use crate::connections::Connections;
use crate::options::{Options, Section, options};
use crate::value::{Seconds, Span};
use backends::BackendError;
use backends::keyvalue::Store;
use std::time::Duration;
use tokio::time::Instant;

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
        max_retry_wait: Option<Span>,
    }
}

/// The tickets of one Greylist.
pub struct Tickets {
    store: Store,
    prefix: String,
    /// Seconds until a retry is let through.
    wait: i64,
    lifetime: Duration,
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
        max_retry_wait: Span,
    ) -> Option<Tickets> {
        let options = TicketOptions::read(section)?;
        let name = match options.module {
            StoreKind::Memcached => &options.memcached,
            StoreKind::Redis => &options.redis,
            StoreKind::Sql => &options.db,
            StoreKind::Memory => &options.memory,
        };
        let store = options.module.store(name, connections, section)?;
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
        let wait = i64::try_from(wait.0).unwrap_or(i64::MAX);
        Some(Tickets { store, prefix: options.prefix, wait, lifetime: lifetime.duration() })
    }

    /// The key of a ticket.
    pub fn key(&self, triplet: &Triplet<'_>) -> Vec<u8> {
        let Triplet { sender, client, recipient, .. } = triplet;
        let mut key = Vec::with_capacity(sender.len() + client.len() + recipient.len() + 32);
        if !self.prefix.is_empty() {
            key.extend_from_slice(self.prefix.as_bytes());
            key.push(b',');
        }
        key.extend_from_slice(sender);
        key.push(b',');
        key.extend_from_slice(client);
        key.push(b',');
        key.extend_from_slice(recipient);
        key
    }

    /// From when on a retry is let through, in seconds since the epoch; `None` if there is no ticket.
    pub async fn get(&self, key: &[u8], deadline: Instant) -> Result<Option<i64>, BackendError> {
        let value = self.store.get(key, deadline).await?;
        Ok(value.and_then(|value| str::from_utf8(&value).ok()?.trim().parse().ok()))
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
    pub async fn create(&self, key: &[u8], now: i64, deadline: Instant) -> Result<(), BackendError> {
        self.store.add(key, &self.ticket(now), self.lifetime, deadline).await.map(|_| ())
    }

    /// Makes a ticket in place of one that makes no sense: how long there is to wait.
    pub async fn replace(&self, key: &[u8], now: i64, deadline: Instant) -> Result<i64, BackendError> {
        self.store.set(key, &self.ticket(now), self.lifetime, deadline).await?;
        Ok(self.wait)
    }

    fn ticket(&self, now: i64) -> Vec<u8> {
        now.saturating_add(self.wait).to_string().into_bytes()
    }

    /// A ticket is used up.
    pub async fn remove(&self, key: &[u8], deadline: Instant) -> Result<(), BackendError> {
        self.store.delete(key, deadline).await.map(|_| ())
    }

    /// Where the tickets are.
    pub fn store(&self) -> &Store {
        &self.store
    }
}
