//! The auto-whitelist: how often a client has passed for a sender's domain.
//!
//! Knows: stores, databases. Must not know: tickets, what becomes of the message.

use super::awl_table::AwlTable;
use crate::connections::{Connections, StoreKind, StoreNames, StoreRef};
use crate::options::{Options, Section, options};
use crate::value::Limit;
use backends::keyvalue::{Store, note_counted, note_found};
use backends::{BackendError, Call};
use std::sync::Arc;
use std::time::Duration;

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
    Table {
        /// The table.
        table: Arc<AwlTable>,
        /// Prefix of every key as a store would have it, for notes.
        prefix: String,
    },
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
        let AwlOptions { memcached, redis, db, memory, .. } = &options;
        let store = StoreRef::of_kind(options.module, StoreNames { memcached, redis, db, memory });
        let store = connections.store(store, section)?;
        if let Store::Sql(values) = &store {
            let table = options.autowl_table.as_deref().unwrap_or(table);
            let table = Arc::new(AwlTable::new(values.sql().clone(), table, lifetime));
            return Some(Awl::Table { table, prefix: options.prefix.clone() });
        }
        Some(Awl::Store { store, prefix: options.prefix, lifetime })
    }

    /// How often the client has passed for this domain, which may be spelled in two ways; `None` if it never
    /// has, or too long ago.
    pub async fn count(
        &self,
        domains: [&[u8]; 2],
        client: &[u8],
        now: i64,
        call: Call<'_>,
    ) -> Result<Option<u64>, BackendError> {
        match self {
            Awl::Table { table, prefix } => {
                let begun = call.begin();
                let found = table.count(domains, client, now, call.noted_in(None)).await;
                note_found(begun, &key(prefix, domains[0], client), &found);
                if domains[0] != domains[1] {
                    note_found(call.begin(), &key(prefix, domains[1], client), &Ok(None));
                }
                found
            }
            Awl::Store { store, prefix, .. } => {
                let mut sum = None;
                let spellings = if domains[0] == domains[1] { &domains[..1] } else { &domains[..] };
                for domain in spellings {
                    let count = stored_count(store, &key(prefix, domain, client), call).await?;
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
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        match self {
            Awl::Table { table, prefix } => {
                let begun = call.begin();
                let counted = table.add_one(domain, client, now, call.noted_in(None)).await;
                note_counted(begun, &key(prefix, domain, client), &counted);
                counted
            }
            Awl::Store { store, prefix, lifetime } => {
                store.increment(&key(prefix, domain, client), *lifetime, call).await.map(|_| ())
            }
        }
    }

    /// Adds entries of clients that are known from elsewhere: their count becomes `count` unless it is
    /// higher. Returns the number of those that have not expired.
    pub async fn add_known(
        &self,
        entries: &[Entry],
        count: u64,
        now: i64,
        call: Call<'_>,
    ) -> Result<u64, BackendError> {
        match self {
            Awl::Table { table, .. } => table.add_known(entries, count, now, call).await,
            Awl::Store { store, prefix, lifetime } => {
                let mut added = 0;
                for Entry { domain, client, last_seen } in entries {
                    let age = u64::try_from(now.saturating_sub(*last_seen)).unwrap_or(0);
                    let Some(left) = lifetime.checked_sub(Duration::from_secs(age)) else { continue };
                    let key = key(prefix, domain, client);
                    added += 1;
                    if stored_count(store, &key, call).await?.is_some_and(|stored| stored >= count) {
                        continue;
                    }
                    let value = count.to_string();
                    store.set(&key, value.as_bytes(), left.max(Duration::from_secs(1)), call).await?;
                }
                Ok(added)
            }
        }
    }
}

/// An entry of a client that is known from elsewhere.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The domain of its senders.
    pub domain: Vec<u8>,
    /// What stands for it.
    pub client: Vec<u8>,
    /// When it came last.
    pub last_seen: i64,
}

async fn stored_count(store: &Store, key: &[u8], call: Call<'_>) -> Result<Option<u64>, BackendError> {
    Ok(store.get(key, call).await?.and_then(|value| read_count(&value)))
}

/// The count that a store holds.
pub fn read_count(value: &[u8]) -> Option<u64> {
    str::from_utf8(value).ok()?.trim().parse().ok()
}

/// The key of an entry in a store.
pub fn key(prefix: &str, domain: &[u8], client: &[u8]) -> Vec<u8> {
    [prefix.as_bytes(), domain, client].join(&b',')
}

/// What of a sender stands in the list: the part after the last `@`, or all where there is none.
pub fn domain_of(sender: &[u8]) -> &[u8] {
    sender.rsplit(|byte| *byte == b'@').next().unwrap_or(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use backends::keyvalue::{Memory, MemorySettings};

    #[tokio::test]
    async fn what_is_known_from_elsewhere_lowers_no_count() {
        let store = Store::Memory(Arc::new(Memory::new(
            "memory",
            MemorySettings { max_entries: 10, max_bytes: 1 << 20 },
        )));
        let awl = Awl::Store { store, prefix: "awl".into(), lifetime: Duration::from_secs(DAY) };
        let call = Call::within(Duration::from_secs(10));
        for _ in 0..3 {
            awl.add_one(b"a.test", b"192.0.2.1", 0, call).await.unwrap();
        }
        let entry =
            |domain: &str| Entry { domain: domain.into(), client: b"192.0.2.1".to_vec(), last_seen: 0 };
        assert_eq!(awl.add_known(&[entry("a.test"), entry("b.test")], 2, 0, call).await.unwrap(), 2);
        for (domain, count) in [(b"a.test", 3), (b"b.test", 2)] {
            assert_eq!(awl.count([domain, domain], b"192.0.2.1", 0, call).await.unwrap(), Some(count));
        }
    }

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
