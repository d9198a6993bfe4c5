//! Where tickets and the auto-whitelist are kept: the blocks `<Ticket>` and `<AWL>` inside the plugin's.
//!
//! Knows: sections, connections. Must not know: what is kept.

use crate::connections::{Connections, Module};
use crate::options::Section;
use crate::value::words;
use backends::keyvalue::Store;
use config_general::Block;

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

impl StoreKind {
    /// The kind of connection.
    pub fn module(self) -> Module {
        match self {
            StoreKind::Memcached => Module::Memcached,
            StoreKind::Redis => Module::Redis,
            StoreKind::Sql => Module::Sql,
            StoreKind::Memory => Module::Memory,
        }
    }

    /// The option that names the connection.
    pub fn option(self) -> &'static str {
        match self {
            StoreKind::Memcached => "memcached",
            StoreKind::Redis => "redis",
            StoreKind::Sql => "db",
            StoreKind::Memory => "memory",
        }
    }

    /// The connection of that name as a store, or `None` after the mistake was reported.
    pub fn store(self, name: &str, connections: &Connections, section: &Section<'_>) -> Option<Store> {
        let store = connections.store(name, self.option(), self.module(), section)?;
        let found = match store {
            Store::Memory(_) => StoreKind::Memory,
            Store::Memcached(_) => StoreKind::Memcached,
            Store::Redis(_) => StoreKind::Redis,
            Store::Sql(_) => StoreKind::Sql,
        };
        if found != self {
            let message = format!("connection {name} is of module {found}, not {self}");
            let help = format!("write `module = \"{found}\"` and `{} = \"{name}\"`", found.option());
            section.report().error(section.span_of(self.option()), message, Some(help));
            return None;
        }
        Some(store)
    }
}

/// Reads a block inside the plugin's, or nothing in its place where there is none.
pub fn read_block<T>(
    plugin: &mut Section<'_>,
    kind: &str,
    read: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Option<T> {
    let report = plugin.report();
    let blocks = plugin.take_blocks(kind);
    if let [_, again, ..] = blocks[..] {
        let help = "keep one of them".to_owned();
        report.error(again.span, format!("block <{kind}> occurs more than once"), Some(help));
    }
    let empty = Block {
        kind: "Plugin".to_owned(),
        name: Some(plugin.name().to_owned()),
        span: plugin.span(),
        ..Block::default()
    };
    let mut section = Section::new(blocks.first().copied().unwrap_or(&empty), report);
    let read = read(&mut section);
    // Unknown options of a block that is refused would only hide what is wrong.
    if read.is_some() {
        section.finish();
    }
    read
}
