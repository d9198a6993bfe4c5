//! What plugins remember between messages, as an administrator sees and changes it by hand.
//!
//! A plugin that keeps something says here how it is listed, shown and changed; so the same file that writes
//! a ticket or a count also reads it for the administrator. It leaves this when it is made, wherever its
//! block stands.
//!
//! Knows: what can be asked and answered. Must not know: plugins, stores, who asks.

mod desk;
mod forms;
mod undo;

pub use desk::Desk;
pub use forms::{
    Change, Changed, Condition, Count, Entry, Kind, ListReport, ListState, ListTest, Listing, Lists, Order,
    Select, key_bytes, key_text, printable,
};

use crate::facts::World;
use crate::facts::dnslist::DnsList;
use backends::keyvalue::Held;
use backends::{BackendError, Call};
use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Why something could not be shown or changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// What was asked makes no sense.
    #[error("{0}")]
    Request(String),
    /// Several entries would be changed, and nobody has said that this is meant.
    #[error("this would change {}", many(*entries, *has_more))]
    NotAll {
        /// How many were found.
        entries: usize,
        /// Whether there are more.
        has_more: bool,
    },
    /// The store can't list what it holds.
    #[error("{0}")]
    CantList(String),
    /// The store failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

fn many(entries: usize, has_more: bool) -> String {
    if has_more { format!("at least {entries} entries") } else { format!("{entries} entries") }
}

/// What a plugin remembers.
pub trait State: Send + Sync + 'static {
    /// Whether the question names one entry, so that nothing has to be searched. An error says what of it
    /// this plugin does not have.
    fn is_complete(&self, select: &Select) -> Result<bool, StateError>;

    /// Why the store can't list what it holds, if it can't.
    fn cannot_list(&self) -> Option<String> {
        None
    }

    /// The entry that a complete question names, if there is one.
    fn look(
        &self,
        select: &Select,
        world: &World,
        call: Call<'_>,
    ) -> impl Future<Output = Result<Option<Entry>, StateError>> + Send;

    /// Some entries that match, from a cursor on. There may be few or none though more follow.
    fn list(
        &self,
        select: &Select,
        cursor: Option<&str>,
        limit: usize,
        world: &World,
        call: Call<'_>,
    ) -> impl Future<Output = Result<Listing, StateError>> + Send;

    /// Changes the entry that a complete question names. `None` if there is nothing to change.
    fn change(
        &self,
        select: &Select,
        change: &Change,
        world: &World,
        call: Call<'_>,
    ) -> impl Future<Output = Result<Option<Changed>, StateError>> + Send;
}

type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StateError>> + Send + 'a>>;

/// What any plugin remembers. Written once, so that plugins can use plain `async fn`.
trait DynState: Send + Sync {
    fn is_complete(&self, select: &Select) -> Result<bool, StateError>;
    fn cannot_list(&self) -> Option<String>;
    fn look<'a>(&'a self, select: &'a Select, world: &'a World, call: Call<'a>)
    -> Pending<'a, Option<Entry>>;
    fn list<'a>(
        &'a self,
        select: &'a Select,
        cursor: Option<&'a str>,
        limit: usize,
        world: &'a World,
        call: Call<'a>,
    ) -> Pending<'a, Listing>;
    fn change<'a>(
        &'a self,
        select: &'a Select,
        change: &'a Change,
        world: &'a World,
        call: Call<'a>,
    ) -> Pending<'a, Option<Changed>>;
}

impl<S: State> DynState for S {
    fn is_complete(&self, select: &Select) -> Result<bool, StateError> {
        State::is_complete(self, select)
    }
    fn cannot_list(&self) -> Option<String> {
        State::cannot_list(self)
    }
    fn look<'a>(
        &'a self,
        select: &'a Select,
        world: &'a World,
        call: Call<'a>,
    ) -> Pending<'a, Option<Entry>> {
        Box::pin(State::look(self, select, world, call))
    }
    fn list<'a>(
        &'a self,
        select: &'a Select,
        cursor: Option<&'a str>,
        limit: usize,
        world: &'a World,
        call: Call<'a>,
    ) -> Pending<'a, Listing> {
        Box::pin(State::list(self, select, cursor, limit, world, call))
    }
    fn change<'a>(
        &'a self,
        select: &'a Select,
        change: &'a Change,
        world: &'a World,
        call: Call<'a>,
    ) -> Pending<'a, Option<Changed>> {
        Box::pin(State::change(self, select, change, world, call))
    }
}

/// What one or several plugins remember in the same place.
#[derive(Clone)]
pub struct Handle {
    /// What it is.
    pub kind: Kind,
    /// The plugins, at least one.
    pub plugins: Vec<String>,
    identity: String,
    state: Arc<dyn DynState>,
}

/// A DNS list, and the plugins that ask it.
pub struct UsedList {
    /// The plugins.
    pub plugins: Vec<String>,
    /// The list.
    pub list: Arc<DnsList>,
    /// Whether it may be tested without being asked for it.
    pub is_tested: bool,
}

/// What the plugins of a configuration remember, while it is read.
#[derive(Default)]
pub struct States {
    handles: RefCell<Vec<Handle>>,
    lists: RefCell<Vec<UsedList>>,
}

/// What the plugins of a configuration remember.
#[derive(Default)]
pub struct Remembered {
    /// In the order of the file.
    pub handles: Vec<Handle>,
    /// The DNS lists, each once.
    pub lists: Vec<UsedList>,
}

impl States {
    /// Leaves what a plugin remembers. What has the same identity as that of another plugin is the same.
    pub fn add(&self, plugin: &str, kind: Kind, identity: String, state: impl State) {
        let mut handles = self.handles.borrow_mut();
        match handles.iter_mut().find(|known| known.kind == kind && known.identity == identity) {
            Some(known) if known.plugins.iter().any(|name| name == plugin) => {}
            Some(known) => known.plugins.push(plugin.to_owned()),
            None => {
                let (plugins, state) = (vec![plugin.to_owned()], Arc::new(state));
                handles.push(Handle { kind, plugins, identity, state });
            }
        }
    }

    /// Notes that a plugin asks a DNS list, and whether it may be tested.
    pub fn add_list(&self, plugin: &str, list: &DnsList, is_tested: bool) {
        let mut lists = self.lists.borrow_mut();
        match lists.iter_mut().find(|known| known.list.zone() == list.zone()) {
            Some(known) => {
                known.is_tested &= is_tested;
                if !known.plugins.iter().any(|name| name == plugin) {
                    known.plugins.push(plugin.to_owned());
                }
            }
            None => {
                let (plugins, list) = (vec![plugin.to_owned()], Arc::new(list.clone()));
                lists.push(UsedList { plugins, list, is_tested });
            }
        }
    }

    /// All that was left here.
    pub fn take_all(&self) -> Remembered {
        Remembered { handles: self.handles.take(), lists: self.lists.take() }
    }
}

/// Why memcached shows nothing that it is not asked for by its key.
pub const CANT_LIST: &str = "memcached can't list its keys";

impl Select {
    /// Refuses a question about entries that have these parts, beside their key, if it names another part:
    /// what was ignored would show, and change, more than was meant.
    pub fn only(&self, parts: &[&str]) -> Result<(), StateError> {
        // All of them by name, so that one that is added is not forgotten.
        let Select { plugin: _, key: _, client, sender, recipient, domain, period, over } = self;
        let given = [
            ("client", client.is_some()),
            ("sender", sender.is_some()),
            ("recipient", recipient.is_some()),
            ("domain", domain.is_some()),
            ("period", period.is_some()),
            ("over", over.is_some()),
        ];
        match given.iter().find(|(name, is_given)| *is_given && !parts.contains(name)) {
            Some((name, _)) => Err(StateError::Request(format!("these entries have no `{name}`"))),
            None => Ok(()),
        }
    }
}

/// When something ends that lives so long from now on, in seconds since the epoch.
pub fn end_of(left: Option<Duration>, now: i64) -> Option<i64> {
    left.map(|left| now.saturating_add(i64::try_from(left.as_secs()).unwrap_or(i64::MAX)))
}

/// What is shown of a value that the plugin has not written, or that was damaged since.
pub fn unreadable(held: &Held) -> String {
    /// Enough to recognize it.
    const MOST: usize = 60;
    match &held.value {
        Some(value) => key_text(&value[..value.len().min(MOST)]),
        None => "(not a value)".to_owned(),
    }
}
