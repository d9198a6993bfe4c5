//! The auto-whitelist: which client has passed how often for which domain.
//!
//! Knows: entries and where they are. Must not know: who asks.

use super::{Awl, Clients, Row, client_key, domain_of, is_client, is_many, key, read_count};
use crate::facts::World;
use crate::state::{
    CANT_LIST, Change, Changed, Condition, Count, Entry, Listing, Order, Select, State, StateError, end_of,
    key_bytes, key_text, unreadable,
};
use backends::keyvalue::{Held, Scan};
use backends::{BackendError, Call};
use postfix_policy::canonical_domain;
use std::collections::BTreeMap;
use std::time::Duration;

/// The name of the number in a change.
const COUNT: &str = "count";

/// The auto-whitelist of a Greylist.
pub struct KnownClients {
    pub awl: Awl,
    pub clients: Clients,
    pub threshold: u64,
}

impl KnownClients {
    /// Domain and client that a complete question names.
    fn names(&self, select: &Select) -> Option<[Vec<u8>; 2]> {
        if let Some(key) = &select.key {
            let key = key_bytes(key);
            let comma = key.iter().rposition(|byte| *byte == b',')?;
            return Some([key[..comma].to_vec(), key[comma + 1..].to_vec()]);
        }
        let domain = self.domain(select)?;
        Some([domain, client_key(self.clients, select.client.as_ref()?)])
    }

    /// The domain that is asked for, also where a whole address was named.
    fn domain(&self, select: &Select) -> Option<Vec<u8>> {
        let written = select.domain.as_ref().or(select.sender.as_ref())?;
        Some(canonical_domain(domain_of(written.as_bytes())).into_owned())
    }

    fn entry(&self, domain: &[u8], client: &[u8]) -> Entry {
        Entry {
            key: key_text(&[domain, client].join(&b',')),
            domain: Some(key_text(domain)),
            client: Some(key_text(client)),
            ..Entry::default()
        }
    }

    fn counted(&self, entry: &mut Entry, count: u64) {
        entry.state = if count >= self.threshold { Condition::Whitelisted } else { Condition::Counting };
        let (name, limit) = (COUNT.to_owned(), Some(self.threshold));
        entry.counts = vec![Count { name, count, limit, ..Count::default() }];
    }

    fn of_row(&self, row: &Row, lifetime: Duration) -> Entry {
        let mut entry = self.entry(row.domain.as_bytes(), row.client.as_bytes());
        if let Some((count, seen)) = row.counted {
            self.counted(&mut entry, count);
            entry.last_seen = Some(seen);
            entry.expires_at = end_of(Some(lifetime), seen);
        } else {
            entry.value = Some("(not numbers)".to_owned());
        }
        entry
    }

    fn of_value(&self, held: &Held, domain: &[u8], client: &[u8], lifetime: Duration, now: i64) -> Entry {
        let mut entry = self.entry(domain, client);
        entry.expires_at = end_of(held.left, now);
        match held.value.as_deref().and_then(read_count) {
            Some(count) => {
                self.counted(&mut entry, count);
                let age = held.left.and_then(|left| lifetime.checked_sub(left));
                entry.last_seen = age.and_then(|age| now.checked_sub_unsigned(age.as_secs()));
            }
            None => entry.value = Some(unreadable(held)),
        }
        entry
    }

    async fn put(
        &self,
        [domain, client]: &[Vec<u8>; 2],
        count: u64,
        now: i64,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        match &self.awl {
            Awl::Table { table, .. } => table.put(domain, client, count, now, call).await,
            Awl::Store { store, prefix, lifetime } => {
                let value = count.to_string();
                store.set(&key(prefix, domain, client), value.as_bytes(), *lifetime, call).await
            }
        }
    }

    async fn remove(&self, [domain, client]: &[Vec<u8>; 2], call: Call<'_>) -> Result<(), BackendError> {
        match &self.awl {
            Awl::Table { table, .. } => table.remove(domain, client, call).await,
            Awl::Store { store, prefix, .. } => {
                store.delete(&key(prefix, domain, client), call).await.map(drop)
            }
        }
    }
}

/// The count that a change asks for; `None` if it asks for none.
fn wanted(change: &Change, threshold: u64) -> Result<Option<u64>, StateError> {
    match change {
        Change::Reset { parts } if parts.is_empty() => Ok(None),
        Change::Allow { lifetime: None } => Ok(Some(threshold)),
        Change::Set { values, lifetime: None } => match values.iter().next() {
            Some((name, count)) if name == COUNT && values.len() == 1 => match u64::try_from(*count) {
                Ok(count) => Ok(Some(count)),
                Err(_) => Err(StateError::Request(format!("{COUNT} can't be {count}"))),
            },
            _ => Err(StateError::Request(format!("such an entry has nothing but `{COUNT}`"))),
        },
        Change::Reset { .. } => Err(StateError::Request("such an entry has no parts".to_owned())),
        Change::Allow { .. } | Change::Set { .. } => {
            Err(StateError::Request("how long an entry lives follows from `autowl_expire_days`".to_owned()))
        }
    }
}

impl State for KnownClients {
    fn is_complete(&self, select: &Select) -> Result<bool, StateError> {
        select.only(&["client", "sender", "domain"])?;
        let is_many = select.client.as_ref().is_some_and(|client| is_many(self.clients, client));
        Ok(self.names(select).is_some() && (!is_many || select.key.is_some()))
    }

    fn cannot_list(&self) -> Option<String> {
        match &self.awl {
            Awl::Store { store, .. } if !store.can_list() => Some(CANT_LIST.to_owned()),
            _ => None,
        }
    }

    async fn look(
        &self,
        select: &Select,
        world: &World,
        call: Call<'_>,
    ) -> Result<Option<Entry>, StateError> {
        let now = world.clock.now();
        let Some([domain, client]) = self.names(select) else { return Ok(None) };
        match &self.awl {
            Awl::Table { table, .. } => {
                let row = table.row(&domain, &client, now, call).await?;
                Ok(row.map(|row| self.of_row(&row, table.lifetime())))
            }
            Awl::Store { store, prefix, lifetime } => {
                let held = store.held(&key(prefix, &domain, &client), call).await?;
                Ok(held.map(|held| self.of_value(&held, &domain, &client, *lifetime, now)))
            }
        }
    }

    async fn list(
        &self,
        select: &Select,
        cursor: Option<&str>,
        limit: usize,
        world: &World,
        call: Call<'_>,
    ) -> Result<Listing, StateError> {
        let now = world.clock.now();
        let domain = self.domain(select);
        let is_meant = |of_domain: &[u8], client: &[u8]| {
            domain.as_deref().is_none_or(|domain| domain == of_domain)
                && select.client.as_ref().is_none_or(|wanted| is_client(wanted, client))
        };
        match &self.awl {
            Awl::Table { table, .. } => {
                let (rows, next) = table.page(domain.as_deref(), cursor, limit, now, call).await?;
                let meant = rows.iter().filter(|row| is_meant(row.domain.as_bytes(), row.client.as_bytes()));
                let entries = meant.map(|row| self.of_row(row, table.lifetime())).collect();
                Ok(Listing { entries, next, notes: Vec::new() })
            }
            Awl::Store { store, prefix, lifetime } => {
                let prefix = format!("{prefix},").into_bytes();
                let page = store.scan(Scan { prefix: &prefix, cursor, limit }, call).await?;
                let entries = page.entries.iter().filter_map(|held| {
                    let names = held.key.strip_prefix(&prefix[..])?;
                    let comma = names.iter().rposition(|byte| *byte == b',')?;
                    let (domain, client) = (&names[..comma], &names[comma + 1..]);
                    is_meant(domain, client).then(|| self.of_value(held, domain, client, *lifetime, now))
                });
                Ok(Listing { entries: entries.collect(), next: page.next, notes: Vec::new() })
            }
        }
    }

    async fn change(
        &self,
        select: &Select,
        change: &Change,
        world: &World,
        call: Call<'_>,
    ) -> Result<Option<Changed>, StateError> {
        let now = world.clock.now();
        let Some(names) = self.names(select) else { return Ok(None) };
        let wanted = wanted(change, self.threshold)?;
        let before = self.look(select, world, call).await?;
        let was = match &before {
            None if wanted.is_none() => return Ok(None),
            None => "there was nothing".to_owned(),
            Some(entry) => match entry.counts.first() {
                Some(count) => format!("was {}", count.count),
                None => format!("was unreadable: {}", entry.value.as_deref().unwrap_or_default()),
            },
        };
        let done = match wanted {
            None => {
                self.remove(&names, call).await?;
                format!("reset; {was}")
            }
            Some(count) => {
                self.put(&names, count, now, call).await?;
                format!("set to {count}; {was}")
            }
        };
        let undo = match before.map(|entry| entry.counts.first().map(|count| count.count)) {
            None => Some(Change::Reset { parts: Vec::new() }),
            Some(Some(count)) => {
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                Some(Change::Set { values: BTreeMap::from([(COUNT.to_owned(), count)]), lifetime: None })
            }
            Some(None) => None,
        };
        let [domain, client] = names.each_ref().map(|name| key_text(name));
        let key = key_text(&names.join(&b','));
        let select = Select { domain: Some(domain), client: Some(client), ..Select::default() };
        let undo = undo.map(|change| Order { select, change, all: false });
        Ok(Some(Changed { key, done, undo, ..Changed::default() }))
    }
}
