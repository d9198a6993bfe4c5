//! Trapped clients as an administrator sees and changes them.
//!
//! Knows: the keys of trapped clients. Must not know: who asks.

use crate::facts::World;
use crate::network::{Network, address_of, plain_address};
use crate::state::{
    CANT_LIST, Change, Changed, Condition, Entry, Listing, Order, Select, State, StateError, end_of,
    key_bytes, key_text, unreadable,
};
use backends::Call;
use backends::keyvalue::{Held, Scan, Store};
use std::time::Duration;

/// What stands under the key of a client.
pub const TRAPPED: &[u8] = b"1";

/// The key of a client.
pub fn key(plugin: &str, address: &[u8]) -> Vec<u8> {
    [plugin.as_bytes(), address].join(&b',')
}

/// The trapped clients of a Honeypot.
pub struct TrappedClients {
    pub store: Store,
    pub plugin: String,
    pub lifetime: Duration,
}

impl TrappedClients {
    /// The address that a complete question names.
    fn client(select: &Select) -> Option<Vec<u8>> {
        let named = select.client.as_deref().map(|client| plain_address(client.as_bytes()).into_owned());
        let of_key = || select.key.as_deref().map(key_bytes);
        let is_network = |client: &[u8]| address_of(client).is_none() && network(client).is_some();
        named.or_else(of_key).filter(|client| !is_network(client))
    }

    fn entry(held: &Held, client: &[u8], now: i64) -> Entry {
        let (key, client) = (key_text(client), Some(key_text(client)));
        let mut entry = Entry { key, client, expires_at: end_of(held.left, now), ..Entry::default() };
        // Whatever is there counts for the plugin; what it has not written is shown too.
        entry.state = if held.value.is_some() { Condition::Trapped } else { Condition::Unreadable };
        if held.value.as_deref() != Some(TRAPPED) {
            entry.value = Some(unreadable(held));
        }
        entry
    }
}

fn network(text: &[u8]) -> Option<Network> {
    std::str::from_utf8(text).ok().and_then(Network::parse)
}

impl State for TrappedClients {
    fn is_complete(&self, select: &Select) -> Result<bool, StateError> {
        select.only(&["client"])?;
        Ok(TrappedClients::client(select).is_some())
    }

    fn cannot_list(&self) -> Option<String> {
        (!self.store.can_list()).then(|| CANT_LIST.to_owned())
    }

    async fn look(
        &self,
        select: &Select,
        world: &World,
        call: Call<'_>,
    ) -> Result<Option<Entry>, StateError> {
        let now = world.clock.now();
        let Some(client) = TrappedClients::client(select) else { return Ok(None) };
        let held = self.store.held(&key(&self.plugin, &client), call).await?;
        Ok(held.map(|held| TrappedClients::entry(&held, &client, now)))
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
        let prefix = key(&self.plugin, b"");
        let wanted = select.client.as_deref().and_then(|client| network(client.as_bytes()));
        let page = self.store.scan(Scan { prefix: &prefix, cursor, limit }, call).await?;
        let entries = page.entries.iter().filter_map(|held| {
            let client = held.key.strip_prefix(&prefix[..])?;
            // A plugin of a greylist may have the same name in the same store.
            let is_meant = match &wanted {
                Some(network) => address_of(client).is_some_and(|ip| network.contains(ip)),
                None => !client.contains(&b','),
            };
            is_meant.then(|| TrappedClients::entry(held, client, now))
        });
        Ok(Listing { entries: entries.collect(), next: page.next, notes: Vec::new() })
    }

    async fn change(
        &self,
        select: &Select,
        change: &Change,
        world: &World,
        call: Call<'_>,
    ) -> Result<Option<Changed>, StateError> {
        let now = world.clock.now();
        let Some(client) = TrappedClients::client(select) else { return Ok(None) };
        let lifetime = match change {
            Change::Reset { parts } if parts.is_empty() => None,
            Change::Set { values, lifetime } if values.is_empty() => {
                Some(lifetime.map_or(self.lifetime, Duration::from_secs))
            }
            _ => {
                let text = "a trapped client can be reset, or set for a time".to_owned();
                return Err(StateError::Request(text));
            }
        };
        let before = self.look(select, world, call).await?;
        let key = key(&self.plugin, &client);
        let done = match lifetime {
            None if before.is_none() => return Ok(None),
            None => {
                self.store.delete(&key, call).await?;
                "reset".to_owned()
            }
            Some(lifetime) => {
                self.store.set(&key, TRAPPED, lifetime, call).await?;
                format!("trapped for {} s", lifetime.as_secs())
            }
        };
        let left =
            before.as_ref().and_then(|entry| entry.expires_at).map(|end| end.saturating_sub(now).max(1));
        let was = match (&before, left) {
            (None, _) => "was not trapped".to_owned(),
            (Some(_), Some(left)) => format!("was trapped for {left} s more"),
            (Some(_), None) => "was trapped".to_owned(),
        };
        let undo = match before {
            None => Change::Reset { parts: Vec::new() },
            Some(_) => {
                let lifetime = left.and_then(|left| u64::try_from(left).ok());
                Change::Set { values: std::collections::BTreeMap::new(), lifetime }
            }
        };
        let client = key_text(&client);
        let select = Select { client: Some(client.clone()), ..Select::default() };
        let undo = Some(Order { select, change: undo, all: false });
        Ok(Some(Changed { key: client, done: format!("{done}; {was}"), undo, ..Changed::default() }))
    }
}
