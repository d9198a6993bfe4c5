//! The `<Connection>` blocks: databases, stores and directories that plugins and caches find by name.
//!
//! Knows: the options of each kind, what opens it. Must not know: who uses a connection for what.

mod modules;

pub use modules::{Connection, ConnectionOptions, Module, ModuleOptions, option_specs};

use crate::log::messages::lookups;
use crate::options::Section;
use crate::value::Size;
use backends::keyvalue::{Memory, MemorySettings, Store};
use backends::ldap::Ldap;
use backends::sql::{Dialect, Sql};
use backends::{BackendError, Failure};
use config_general::Block;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// The connections of a file.
pub struct Connections {
    all: BTreeMap<String, Named>,
    /// Those about which a mistake was reported: who names one is not told that it is missing.
    broken: BTreeSet<String>,
}

struct Named {
    settings: modules::Settings,
    connection: Connection,
}

/// The store in this process that is there without a block.
pub const MEMORY: &str = "memory";

/// Maximum number of values in that store.
pub const DEFAULT_MAX_ENTRIES: u64 = 500_000;

/// How much memory they may take: some 200,000 greylisting tickets.
pub const DEFAULT_MAX_SIZE: Size = Size::mebibytes(64);

impl Connections {
    /// No connections but the store in this process.
    pub fn none() -> Connections {
        let mut connections = Connections { all: BTreeMap::new(), broken: BTreeSet::new() };
        connections.add_memory(None);
        connections
    }

    /// The connections of a file, after the mistakes were reported. Those whose settings are the same as
    /// earlier stay as they are, with what they hold.
    pub fn read(section: &mut Section<'_>, earlier: Option<&Connections>) -> Connections {
        let mut connections = Connections { all: BTreeMap::new(), broken: BTreeSet::new() };
        for block in section.take_blocks("Connection") {
            let mut connection = Section::new(block, section.report());
            let name = connection.name();
            let settings = modules::Settings::read(&mut connection);
            // Unknown options of an unknown kind would only hide what is wrong.
            if settings.is_some() {
                connection.finish();
            }
            if name.is_empty() {
                let help = "write `<Connection NAME>`; plugins and caches find it by that name".to_owned();
                section.report().error(block.span, "a connection has no name", Some(help));
            }
            if connections.all.contains_key(name) {
                let message = format!("connection `{name}` occurs more than once");
                section.report().error(block.span, message, None);
            }
            if !settings.is_some_and(|settings| connections.add(name, settings, earlier, block, section)) {
                connections.broken.insert(name.to_owned());
            }
        }
        connections.add_memory(earlier);
        connections
    }

    /// The same if there was no mistake.
    pub fn whole(self) -> Option<Connections> {
        self.broken.is_empty().then_some(self)
    }

    fn add(
        &mut self,
        name: &str,
        settings: modules::Settings,
        earlier: Option<&Connections>,
        block: &Block,
        section: &Section<'_>,
    ) -> bool {
        let same = earlier.and_then(|earlier| earlier.all.get(name)).filter(|old| old.settings == settings);
        let connection = match same {
            Some(old) => Ok(old.connection.clone()),
            None => settings.open(name),
        };
        match connection {
            Ok(connection) => {
                self.all.insert(name.to_owned(), Named { settings, connection });
                true
            }
            Err(why) => {
                section.report().error(block.span, format!("Connection {name}: {why}"), None);
                false
            }
        }
    }

    fn add_memory(&mut self, earlier: Option<&Connections>) {
        let settings = MemorySettings { max_entries: DEFAULT_MAX_ENTRIES, max_bytes: DEFAULT_MAX_SIZE.0 };
        let same = earlier.and_then(|earlier| earlier.all.get(MEMORY));
        let same = same.filter(|old| old.settings == modules::Settings::Memory(settings.clone()));
        let connection = match same {
            Some(old) => old.connection.clone(),
            None => Connection::Memory(Arc::new(Memory::new(MEMORY, settings.clone()))),
        };
        let memory = Named { settings: modules::Settings::Memory(settings), connection };
        self.all.entry(MEMORY.to_owned()).or_insert(memory);
    }

    /// A connection by its name.
    pub fn get(&self, name: &str) -> Option<&Connection> {
        self.all.get(name).map(|named| &named.connection)
    }

    /// All connections, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Connection)> {
        self.all.iter().map(|(name, named)| (name.as_str(), &named.connection))
    }

    /// Asks every connection whether it answers, all at once. Those that do not are logged, and tried again
    /// until they do.
    pub async fn ping_all(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut pings = JoinSet::new();
        for (_, connection) in self.iter() {
            let connection = connection.clone();
            pings.spawn(async move { connection.ping(deadline).await });
        }
        while let Some(ping) = pings.join_next().await {
            // One that can't be reached has said so itself.
            if let Ok(Err(error @ BackendError { failure: Failure::Refused(_) | Failure::Denied(_), .. })) =
                ping
            {
                lookups::refused(error);
            }
        }
    }

    /// What is wrong with servers that do not answer now. Files are not opened.
    pub async fn unanswered(&self, limit: Duration) -> Vec<String> {
        let deadline = Instant::now() + limit;
        let is_server = |connection: &Connection| match connection {
            Connection::Sql(sql) => sql.dialect() != Dialect::Sqlite,
            Connection::Memory(_) => false,
            _ => true,
        };
        let mut pings = JoinSet::new();
        for (_, connection) in self.iter().filter(|(_, connection)| is_server(connection)) {
            let connection = connection.clone();
            pings.spawn(async move { connection.ping(deadline).await });
        }
        let answers = pings.join_all().await;
        let mut unanswered: Vec<_> =
            answers.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
        unanswered.sort();
        unanswered
    }

    /// The database of that name, or `None` after the mistake was reported at the option that names it.
    pub fn sql(&self, name: &str, option: &str, section: &Section<'_>) -> Option<Arc<Sql>> {
        match self.find(name, option, Module::Sql, section)? {
            Connection::Sql(sql) => Some(sql.clone()),
            other => wrong_kind(name, other, "a database (module Sql)", option, section),
        }
    }

    /// The directory of that name, or `None` after the mistake was reported at the option that names it.
    pub fn ldap(&self, name: &str, option: &str, section: &Section<'_>) -> Option<Arc<Ldap>> {
        match self.find(name, option, Module::Ldap, section)? {
            Connection::Ldap(ldap) => Some(ldap.clone()),
            other => wrong_kind(name, other, "a directory (module Ldap)", option, section),
        }
    }

    /// The connection of that name as a store, or `None` after the mistake was reported at the option that
    /// names it. `suggested` is the module that the message proposes.
    pub fn store(&self, name: &str, option: &str, suggested: Module, section: &Section<'_>) -> Option<Store> {
        match self.find(name, option, suggested, section)? {
            Connection::Memory(memory) => Some(Store::Memory(memory.clone())),
            Connection::Memcached(memcached) => Some(Store::Memcached(memcached.clone())),
            Connection::Redis(redis) => Some(Store::Redis(redis.clone())),
            Connection::Sql(sql) => Some(Store::table(sql.clone())),
            other @ Connection::Ldap(_) => wrong_kind(name, other, "a store", option, section),
        }
    }

    fn find(&self, name: &str, option: &str, module: Module, section: &Section<'_>) -> Option<&Connection> {
        let found = self.get(name);
        if found.is_none() && !self.broken.contains(name) {
            let message = format!("{}: there is no <Connection {name}>", section.describe());
            let example = modules::example(name, module);
            let nearest = crate::value::nearest(name, self.all.keys().map(String::as_str));
            let help = match nearest {
                Some(near) => format!("did you mean `{near}`? Otherwise add\n{example}"),
                None => format!("add\n{example}"),
            };
            section.report().error(section.span_of(option), message, Some(help));
        }
        found
    }
}

fn wrong_kind<T>(
    name: &str,
    found: &Connection,
    wanted: &str,
    option: &str,
    section: &Section<'_>,
) -> Option<T> {
    let message = format!("connection {name} is not {wanted}, but of module {}", found.module());
    let help = format!("name {wanted} in `{option}`");
    section.report().error(section.span_of(option), message, Some(help));
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Report;
    use config_general::Limits;
    use std::path::Path;

    fn read(text: &str, earlier: Option<&Connections>) -> (Option<Connections>, Vec<String>) {
        let limits = Limits::default();
        let document = config_general::parse(Path::new("test"), text.as_bytes(), &limits).unwrap();
        let report = Report::default();
        let mut section = Section::new(&document.root, &report);
        let connections = Connections::read(&mut section, earlier);
        (connections.whole(), report.into_diagnostics().into_iter().map(|d| d.message).collect())
    }

    #[test]
    fn a_connection_stays_while_its_settings_do() {
        let redis = "<Connection redis>\nmodule = Redis\n</Connection>";
        let (first, messages) = read(redis, None);
        assert!(messages.is_empty(), "{messages:?}");
        let first = first.unwrap();
        let same = |second: &Connections, name| {
            let (old, new) = (first.get(name).unwrap(), second.get(name).unwrap());
            match (old, new) {
                (Connection::Redis(old), Connection::Redis(new)) => Arc::ptr_eq(old, new),
                (Connection::Memory(old), Connection::Memory(new)) => Arc::ptr_eq(old, new),
                _ => false,
            }
        };
        let (second, _) = read(redis, Some(&first));
        assert!(same(second.as_ref().unwrap(), "redis"));
        assert!(same(second.as_ref().unwrap(), MEMORY));
        let (third, _) = read("<Connection redis>\nmodule = Redis\ndb = 1\n</Connection>", Some(&first));
        assert!(!same(third.as_ref().unwrap(), "redis"));
    }

    #[test]
    fn mistakes_of_every_block_are_reported() {
        let (connections, messages) = read(
            "<Connection a>\nmodule = Sql\n</Connection>\n<Connection b>\nmodule = Sqll\n</Connection>\n\
             <Connection c>\nmodule = Redis\nsentinels = \"a:1\"\n</Connection>\n\
             <Connection d>\nmodule = Redis\nsrever = x\n</Connection>\n\
             <Connection e>\nmodule = Redis\ndb = 1\ndb = 2\nbogus = 1\nbogus = 2\n</Connection>",
            None,
        );
        assert!(connections.is_none());
        assert!(messages[0].contains("dsn"), "{messages:?}");
        assert!(messages[1].contains("did you mean `Sql`"), "{messages:?}");
        assert!(messages.iter().any(|m| m.contains("service")), "{messages:?}");
        assert!(messages.iter().any(|m| m.contains("srever")), "{messages:?}");
        let repeated = messages.iter().filter(|m| m.contains("occurs more than once"));
        assert_eq!(repeated.count(), 2, "{messages:?}");
    }
}
