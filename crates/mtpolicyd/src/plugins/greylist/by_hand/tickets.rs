//! Tickets: who waits for how long, who may pass now.
//!
//! Knows: keys and values of tickets. Must not know: who asks.

use super::{Clients, Standing, Tickets, Triplet, client_key, is_client, is_many, read_ticket};
use crate::facts::World;
use crate::limits::PREFIX;
use crate::network::{Network, address_of};
use crate::state::{
    CANT_LIST, Change, Changed, Condition, Entry, Listing, Order, Select, State, StateError, end_of,
    key_bytes, key_text, unreadable,
};
use backends::Call;
use backends::clock::Clock;
use backends::keyvalue::{Held, Scan};
use postfix_policy::Request;
use std::collections::BTreeMap;
use std::time::Duration;

/// The name of the time in a change.
const PASSES_AT: &str = "passes_at";

/// The tickets of a Greylist.
pub struct HeldTickets {
    pub tickets: Tickets,
    pub clients: Clients,
    pub without_tags: bool,
}

/// Sender, client and recipient of a ticket.
type Parts<'a> = [&'a [u8]; 3];

impl HeldTickets {
    /// The key that a complete question names.
    fn key(&self, select: &Select) -> Option<Vec<u8>> {
        if let Some(key) = &select.key {
            return Some(key_bytes(key));
        }
        let Select { sender: Some(sender), client: Some(client), recipient: Some(recipient), .. } = select
        else {
            return None;
        };
        let is_vague = sender.starts_with('@') || recipient.starts_with('@') || is_many(self.clients, client);
        if is_vague {
            return None;
        }
        let request = Request::from_pairs([("sender", sender.as_str()), ("recipient", recipient)]).ok()?;
        let client = client_key(self.clients, client);
        Some(self.tickets.key(&Triplet::of(&request, &client, self.without_tags)))
    }

    /// The parts of a key, `None` if it is not that of a ticket.
    fn parts<'a>(&self, key: &'a [u8]) -> Option<Parts<'a>> {
        let rest = key.strip_prefix(&self.tickets.key_prefix()[..])?;
        if self.shares_keys() && rest.starts_with(PREFIX.as_bytes()) {
            return None;
        }
        let commas: Vec<_> = (0..rest.len()).filter(|at| rest[*at] == b',').collect();
        // A quoted sender may have commas of its own.
        let splits = commas.windows(2).map(|pair| {
            let [first, second] = [pair[0], pair[1]];
            [&rest[..first], &rest[first + 1..second], &rest[second + 1..]]
        });
        let is_address = |part: &[u8]| part.contains(&b'@');
        let fits = |[sender, _, recipient]: &Parts<'_>| {
            is_address(recipient) && (sender.is_empty() || is_address(sender))
        };
        let has_client = |[_, client, _]: &Parts<'_>| {
            let text = std::str::from_utf8(client).unwrap_or_default();
            address_of(client).is_some() || Network::parse(text).is_some()
        };
        let splits: Vec<_> = splits.collect();
        let by_client = splits.iter().find(|parts| has_client(parts) && (fits(parts) || !self.shares_keys()));
        by_client.or_else(|| splits.iter().find(|parts| fits(parts))).copied()
    }

    /// Whether others may have keys that look alike in the same store.
    fn shares_keys(&self) -> bool {
        self.tickets.key_prefix().is_empty()
    }

    /// What an administrator sees of a ticket.
    fn entry(&self, held: &Held, parts: Option<Parts<'_>>, now: i64) -> Entry {
        let text = |part: &[u8]| key_text(part);
        let mut entry = Entry { key: key_text(&held.key), ..Entry::default() };
        if let Some([sender, client, recipient]) = parts {
            entry.sender = Some(text(sender));
            entry.client = Some(text(client));
            entry.recipient = Some(text(recipient));
        }
        entry.expires_at = end_of(held.left, now);
        match held.value.as_deref().and_then(read_ticket) {
            Some(ticket) => {
                entry.state = match self.tickets.standing(ticket, now) {
                    Standing::Valid => Condition::Ready,
                    Standing::Early(_) | Standing::Absurd => Condition::Waiting,
                };
                entry.passes_at = Some(ticket);
                entry.first_seen = Some(ticket.saturating_sub(self.tickets.wait()));
            }
            None => entry.value = Some(unreadable(held)),
        }
        entry
    }

    async fn find(
        &self,
        select: &Select,
        now: i64,
        call: Call<'_>,
    ) -> Result<Option<(Held, Entry)>, StateError> {
        let Some(key) = self.key(select) else { return Ok(None) };
        let Some(held) = self.tickets.store().held(&key, call).await? else { return Ok(None) };
        let entry = self.entry(&held, self.parts(&held.key), now);
        Ok(Some((held, entry)))
    }

    /// What a change asks to be put there: when the ticket passes and how long it lives.
    fn wanted(change: &Change, now: i64) -> Result<Option<(i64, Option<Duration>)>, StateError> {
        match change {
            Change::Reset { parts } if parts.is_empty() => Ok(None),
            Change::Reset { .. } => Err(StateError::Request("a ticket has no parts".to_owned())),
            Change::Allow { lifetime } => {
                Ok(Some((now.saturating_sub(1), lifetime.map(Duration::from_secs))))
            }
            Change::Set { values, lifetime } => match values.iter().next() {
                Some((name, at)) if name == PASSES_AT && values.len() == 1 => {
                    Ok(Some((*at, lifetime.map(Duration::from_secs))))
                }
                _ => Err(StateError::Request(format!(
                    "a ticket has nothing but `{PASSES_AT}`, in seconds since the epoch"
                ))),
            },
        }
    }

    /// The question that names this ticket.
    fn named(&self, key: &[u8]) -> Select {
        let whole = |parts: &Parts<'_>| {
            let [sender, client, recipient] = parts.map(key_text);
            Select {
                sender: Some(sender),
                client: Some(client),
                recipient: Some(recipient),
                ..Select::default()
            }
        };
        let by_parts = self.parts(key).as_ref().map(whole);
        let by_key = || Select { key: Some(key_text(key)), ..Select::default() };
        by_parts.filter(|select| self.key(select).as_deref() == Some(key)).unwrap_or_else(by_key)
    }
}

impl State for HeldTickets {
    fn is_complete(&self, select: &Select) -> Result<bool, StateError> {
        select.only(&["client", "sender", "recipient"])?;
        Ok(self.key(select).is_some())
    }

    fn cannot_list(&self) -> Option<String> {
        let store = self.tickets.store();
        (!store.can_list()).then(|| CANT_LIST.to_owned())
    }

    async fn look(
        &self,
        select: &Select,
        world: &World,
        call: Call<'_>,
    ) -> Result<Option<Entry>, StateError> {
        Ok(self.find(select, world.clock.now(), call).await?.map(|(_, entry)| entry))
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
        let prefix = self.tickets.key_prefix();
        let page = self.tickets.store().scan(Scan { prefix: &prefix, cursor, limit }, call).await?;
        let entries = page.entries.iter().filter_map(|held| {
            let parts = self.parts(&held.key);
            // A key that was too long for the store is not whole any more.
            let is_ours =
                parts.is_some() || is_replaced(&held.key) && held.value.as_deref().is_some_and(is_ticket);
            (is_ours && matches(select, parts)).then(|| self.entry(held, parts, now))
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
        let Some(key) = self.key(select) else { return Ok(None) };
        let wanted = HeldTickets::wanted(change, now)?;
        let before = self.find(select, now, call).await?;
        let was = before.as_ref().map(|(_, entry)| entry);
        let done = match wanted {
            None if was.is_none() => return Ok(None),
            None => {
                self.tickets.store().delete(&key, call).await?;
                format!("reset; {}", describe(was, &world.clock))
            }
            Some((passes_at, lifetime)) => {
                self.tickets.put(&key, passes_at, lifetime, call).await?;
                let what = if passes_at < now {
                    "the next attempt passes".to_owned()
                } else {
                    format!("passes from {} on", time_text(passes_at, &world.clock))
                };
                format!("{what}; {}", describe(was, &world.clock))
            }
        };
        let undo = match before {
            None => Some(Change::Reset { parts: Vec::new() }),
            Some((held, Entry { passes_at: Some(at), .. })) => {
                let values = BTreeMap::from([(PASSES_AT.to_owned(), at)]);
                Some(Change::Set { values, lifetime: held.left.map(|left| left.as_secs().max(1)) })
            }
            // What could not be read can't be written again.
            Some(_) => None,
        };
        let key_shown = key_text(&key);
        let undo = undo.map(|change| Order { select: self.named(&key), change, all: false });
        Ok(Some(Changed { key: key_shown, done, undo, ..Changed::default() }))
    }
}

/// Whether a ticket is one that is asked for.
fn matches(select: &Select, parts: Option<Parts<'_>>) -> bool {
    let Select { sender, client, recipient, .. } = select;
    if sender.is_none() && client.is_none() && recipient.is_none() {
        return true;
    }
    let Some([of_sender, of_client, of_recipient]) = parts else { return false };
    sender.as_ref().is_none_or(|wanted| is_mailbox(wanted, of_sender, "sender"))
        && client.as_ref().is_none_or(|wanted| is_client(wanted, of_client))
        && recipient.as_ref().is_none_or(|wanted| is_mailbox(wanted, of_recipient, "recipient"))
}

/// Whether an address is the one that is asked for, or in the domain that is.
fn is_mailbox(wanted: &str, address: &[u8], attribute: &str) -> bool {
    if wanted.starts_with('@') {
        return address.to_ascii_lowercase().ends_with(wanted.to_ascii_lowercase().as_bytes());
    }
    let request = Request::from_pairs([(attribute, wanted)]).ok();
    let key = request.as_ref().and_then(|request| request.mailbox(attribute)).map(|mailbox| mailbox.key());
    wanted.as_bytes() == address || key.is_some_and(|key| *key == *address)
}

/// Whether a value is a time of this century; a smaller number is what others count.
fn is_ticket(value: &[u8]) -> bool {
    /// September 2001.
    const OLDEST: i64 = 1_000_000_000;
    read_ticket(value).is_some_and(|ticket| ticket > OLDEST)
}

/// Whether a key ends as one that was too long for its store.
fn is_replaced(key: &[u8]) -> bool {
    let Some(at) = key.len().checked_sub(33) else { return false };
    key[at] == b'~' && key[at + 1..].iter().all(u8::is_ascii_hexdigit)
}

/// What was there.
fn describe(entry: Option<&Entry>, clock: &Clock) -> String {
    match entry {
        None => "there was no ticket".to_owned(),
        Some(Entry { passes_at: Some(at), .. }) => format!("was to pass from {} on", time_text(*at, clock)),
        Some(Entry { value, .. }) => format!("was unreadable: {}", value.as_deref().unwrap_or_default()),
    }
}

fn time_text(seconds: i64, clock: &Clock) -> String {
    clock.format_at(seconds, "%Y-%m-%d %H:%M:%S").unwrap_or_else(|_| seconds.to_string())
}
