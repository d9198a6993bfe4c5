//! The auto-whitelist: how often a client has passed for a sender's domain.
//!
//! Knows: stores, databases. Must not know: tickets, what becomes of the message.

use super::awl_table::AwlTable;
use super::store_kind::StoreKind;
use crate::connections::Connections;
use crate::options::{Options, Section, options};
use crate::value::Limit;
use backends::BackendError;
use backends::keyvalue::Store;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

options! {
    /// Where greylisting keeps its auto-whitelist.
    pub struct AwlOptions {
        /// The kind of store. Of the options that name a connection, only the one for this kind is used.
        module: StoreKind = StoreKind::Sql,
        /// The name of the connection, for module Sql.
        db: String = "db",
        /// The name of the connection, for module Redis.
        redis: String = "redis",
        /// The name of the connection, for module Memcached.
        memcached: String = "memcached",
        /// The name of the connection, for module Memory.
        memory: String = "memory",
        /// Prefix of every key, followed by a comma; not for module Sql.
        prefix: String = "awl-",
        /// The name of the table, for module Sql. Without it, the option of the plugin applies.
        autowl_table: Option<String>,
        /// After how many days an entry expires. Without it, the option of the plugin applies.
        autowl_expire_days: Option<Limit>,
    }
}

/// The auto-whitelist of one Greylist.
#[derive(Clone)]
pub enum Awl {
    /// In a table that other programs and the original know.
    Table(Arc<AwlTable>),
    /// In a store whose values expire by themselves.
    Store {
        /// Where.
        store: Store,
        /// Prefix of every key.
        prefix: String,
        /// How long an entry lives after the last message.
        lifetime: Duration,
    },
}

const DAY: u64 = 86_400;

/// The longest that entries are kept, in days: a hundred years.
const LONGEST: u64 = 36_500;

impl Awl {
    /// The store that an `<AWL>` block names, or `None` after the mistake was reported.
    pub fn read(
        section: &mut Section<'_>,
        connections: &Connections,
        table: &str,
        expire_days: Limit,
    ) -> Option<Awl> {
        let options = AwlOptions::read(section)?;
        let days = options.autowl_expire_days.unwrap_or(expire_days).0.min(LONGEST);
        let lifetime = Duration::from_secs(days * DAY);
        let name = match options.module {
            StoreKind::Sql => {
                let sql = connections.sql(&options.db, StoreKind::Sql.option(), section)?;
                let table = options.autowl_table.as_deref().unwrap_or(table);
                return Some(Awl::Table(Arc::new(AwlTable::new(sql, table, lifetime))));
            }
            StoreKind::Redis => &options.redis,
            StoreKind::Memcached => &options.memcached,
            StoreKind::Memory => &options.memory,
        };
        let store = options.module.store(name, connections, section)?;
        Some(Awl::Store { store, prefix: options.prefix, lifetime })
    }

    /// How often the client has passed for this domain, which may be spelled in two ways; `None` if it never
    /// has, or too long ago.
    pub async fn count(
        &self,
        domains: [&[u8]; 2],
        client: &[u8],
        now: i64,
        deadline: Instant,
    ) -> Result<Option<u64>, BackendError> {
        match self {
            Awl::Table(table) => table.count(domains, client, now, deadline).await,
            Awl::Store { store, prefix, .. } => {
                let mut sum = None;
                let spellings = if domains[0] == domains[1] { &domains[..1] } else { &domains[..] };
                for domain in spellings {
                    let value = store.get(&key(prefix, domain, client), deadline).await?;
                    let count =
                        value.and_then(|value| str::from_utf8(&value).ok()?.trim().parse::<u64>().ok());
                    sum = count.map(|count| count.saturating_add(sum.unwrap_or(0))).or(sum);
                }
                Ok(sum)
            }
        }
    }

    /// The client has passed once more.
    pub async fn add_one(
        &self,
        domain: &[u8],
        client: &[u8],
        now: i64,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        match self {
            Awl::Table(table) => table.add_one(domain, client, now, deadline).await,
            Awl::Store { store, prefix, lifetime } => {
                store.increment(&key(prefix, domain, client), *lifetime, deadline).await.map(|_| ())
            }
        }
    }
}

fn key(prefix: &str, domain: &[u8], client: &[u8]) -> Vec<u8> {
    [prefix.as_bytes(), domain, client].join(&b',')
}

/// What of a sender stands in the list: the part after the last `@`, or all where there is none.
pub fn domain_of(sender: &[u8]) -> &[u8] {
    sender.rsplit(|byte| *byte == b'@').next().unwrap_or(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_follows_the_last_at_sign() {
        for (sender, domain) in
            [("alice@example.org", "example.org"), ("a@b@c", "c"), ("", ""), ("foo", "foo"), ("foo@", "")]
        {
            assert_eq!(domain_of(sender.as_bytes()), domain.as_bytes());
        }
        assert_eq!(key("awl-", b"example.org", b"192.0.2.10"), b"awl-,example.org,192.0.2.10");
    }
}
