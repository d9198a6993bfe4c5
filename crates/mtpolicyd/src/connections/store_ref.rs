//! How options name a store: by its name alone, or by a kind with an option for the name of each.
//!
//! Knows: sections, connections. Must not know: what is kept.

use super::{Connection, Connections, Module, wrong_kind};
use crate::options::{Section, codes};
use crate::value::words;
use backends::keyvalue::Store;

words! {
    /// The kinds of stores.
    pub enum StoreKind {
        /// Servers of memcached.
        Memcached = "Memcached",
        /// Redis.
        Redis = "Redis",
        /// A database.
        Sql = "Sql",
        /// This process.
        Memory = "Memory",
    }
}

/// A store as options name it.
#[derive(Clone, Copy)]
pub struct StoreRef<'a> {
    option: &'static str,
    name: &'a str,
    /// The kind that a message suggests where there is no such connection.
    suggested: StoreKind,
    allowed: Allowed,
}

#[derive(Clone, Copy)]
enum Allowed {
    All,
    /// The kind that the block says.
    Suggested,
    /// These, and why no other.
    Some(&'static [StoreKind], &'static str),
}

/// The names of connections where each kind has an option of its own.
#[derive(Clone, Copy)]
pub struct StoreNames<'a> {
    /// For module Memcached.
    pub memcached: &'a str,
    /// For module Redis.
    pub redis: &'a str,
    /// For module Sql.
    pub db: &'a str,
    /// For module Memory.
    pub memory: &'a str,
}

impl<'a> StoreRef<'a> {
    /// The one that an option names, of any kind.
    pub fn any(option: &'static str, name: &'a str, suggested: StoreKind) -> StoreRef<'a> {
        StoreRef { option, name, suggested, allowed: Allowed::All }
    }

    /// The one that an option names, of one of these kinds; `why` says what is wrong with the others.
    pub fn one_of(
        kinds: &'static [StoreKind],
        why: &'static str,
        option: &'static str,
        name: &'a str,
    ) -> StoreRef<'a> {
        StoreRef { option, name, suggested: StoreKind::Redis, allowed: Allowed::Some(kinds, why) }
    }

    /// The one of this kind.
    pub fn of_kind(kind: StoreKind, names: StoreNames<'a>) -> StoreRef<'a> {
        let name = match kind {
            StoreKind::Memcached => names.memcached,
            StoreKind::Redis => names.redis,
            StoreKind::Sql => names.db,
            StoreKind::Memory => names.memory,
        };
        StoreRef { option: kind.option(), name, suggested: kind, allowed: Allowed::Suggested }
    }
}

impl StoreKind {
    /// The option that names the connection where each kind has one of its own.
    fn option(self) -> &'static str {
        match self {
            StoreKind::Memcached => "memcached",
            StoreKind::Redis => "redis",
            StoreKind::Sql => "db",
            StoreKind::Memory => "memory",
        }
    }

    fn module(self) -> Module {
        match self {
            StoreKind::Memcached => Module::Memcached,
            StoreKind::Redis => Module::Redis,
            StoreKind::Sql => Module::Sql,
            StoreKind::Memory => Module::Memory,
        }
    }
}

impl Connections {
    /// The store that options name, or `None` after the mistake was reported.
    pub fn store(&self, store: StoreRef<'_>, section: &Section<'_>) -> Option<Store> {
        let StoreRef { option, name, suggested, allowed } = store;
        let (found, kind) = match self.find(name, option, suggested.module(), section)? {
            Connection::Memory(memory) => (Store::Memory(memory.clone()), StoreKind::Memory),
            Connection::Memcached(memcached) => (Store::Memcached(memcached.clone()), StoreKind::Memcached),
            Connection::Redis(redis) => (Store::Redis(redis.clone()), StoreKind::Redis),
            Connection::Sql(sql) => (Store::table(sql.clone()), StoreKind::Sql),
            other @ Connection::Ldap(_) => return wrong_kind(name, other, "a store", option, section),
        };
        let (message, help) = match allowed {
            Allowed::Suggested if kind != suggested => (
                format!("connection {name} is of module {kind}, not {suggested}"),
                format!("write `module = \"{kind}\"` and `{} = \"{name}\"`", kind.option()),
            ),
            Allowed::Some(kinds, why) if !kinds.contains(&kind) => {
                let kinds: Vec<_> = kinds.iter().map(ToString::to_string).collect();
                (
                    format!("{option}: connection {name} is of module {kind}, {why}"),
                    format!("name a connection of module {}", kinds.join(" or ")),
                )
            }
            _ => return Some(self.stand_in_store(name).unwrap_or(found)),
        };
        section.report().say(&codes::NO_CONNECTION, section.span_of(option), message, Some(help));
        None
    }
}
