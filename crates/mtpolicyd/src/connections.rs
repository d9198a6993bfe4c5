//! The `<Connection>` blocks: databases, stores and directories that plugins and caches find by name.
//!
//! Knows: the options of each kind, what opens it. Must not know: who uses a connection for what.

mod modules;
mod store_ref;

pub use modules::{Connection, ConnectionOptions, Module, ModuleOptions, option_specs};
pub use store_ref::{StoreKind, StoreNames, StoreRef};

use crate::log::messages::lookups;
use crate::options::{Section, codes};
use crate::value::Size;
use backends::keyvalue::{Memory, MemorySettings, Store};
use backends::ldap::Ldap;
use backends::sql::{Durability, Sql, SqlSettings};
use backends::{BackendError, Call, Failure, Secret};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// The connections of a file.
pub struct Connections {
    all: BTreeMap<String, Named>,
    /// Those about which a mistake was reported: who names one is not told that it is missing.
    broken: BTreeSet<String>,
    /// What stands in for databases and stores, if nothing outside may be used: a store and a database in
    /// memory for each.
    stand_ins: Option<BTreeMap<String, StandIn>>,
}

struct StandIn {
    store: Arc<Memory>,
    /// `None` in a build without SQLite.
    sql: Option<Arc<Sql>>,
}

/// What connections lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    /// What the file names.
    Real,
    /// Nothing: databases and stores are in memory and empty, for a replay.
    Memory,
    /// The same for a file that runs in the shadow of another one.
    Shadow,
}

struct Named {
    settings: modules::Settings,
    connection: Connection,
}

/// How what a connection leads to is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// It needs no server.
    Local,
    /// It answers.
    Up,
    /// It does not answer, or refuses, for this reason.
    Down(String),
}

/// The store in this process that is there without a block.
pub const MEMORY: &str = "memory";

/// Maximum number of values in that store.
pub const DEFAULT_MAX_ENTRIES: u64 = 500_000;

/// How much memory they may take: some 200,000 greylisting tickets.
pub const DEFAULT_MAX_SIZE: Size = Size::mebibytes(64);

/// Maximum number of values in a store that stands in for another.
const SIMULATED_ENTRIES: u64 = 2_000_000;

/// How much memory they may take.
const SIMULATED_SIZE: Size = Size::mebibytes(256);

/// How long one call to a database in memory may take.
const SIMULATED_TIMEOUT: Duration = Duration::from_secs(10);

impl Connections {
    /// No connections but the store in this process.
    pub fn none() -> Connections {
        let mut connections = Connections { all: BTreeMap::new(), broken: BTreeSet::new(), stand_ins: None };
        connections.add_memory(None);
        connections
    }

    /// The connections of a file, after the mistakes were reported. Those whose settings are the same as
    /// earlier stay as they are, with what they hold.
    pub fn read(section: &mut Section<'_>, earlier: Option<&Connections>, outside: Outside) -> Connections {
        let stand_ins = (outside != Outside::Real).then(BTreeMap::new);
        let mut connections = Connections { all: BTreeMap::new(), broken: BTreeSet::new(), stand_ins };
        for block in section.take_blocks("Connection") {
            let mut connection = Section::new(block, section.report());
            let name = connection.name();
            if name.is_empty() {
                let help = "write `<Connection NAME>`; plugins and caches find it by that name".to_owned();
                section.report().say(&codes::BAD_BLOCK, block.span, "a connection has no name", Some(help));
            }
            if connections.all.contains_key(name) {
                let message = format!("connection `{name}` occurs more than once");
                section.report().say(&codes::REPEATED_BLOCK, block.span, message, None);
            }
            let settings = modules::Settings::read(&mut connection);
            let is_known = settings.is_some();
            if !settings.is_some_and(|settings| connections.add(name, settings, earlier, &connection)) {
                connections.broken.insert(name.to_owned());
            }
            // Unknown options of an unknown kind would only hide what is wrong.
            if is_known {
                connection.finish();
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
        section: &Section<'_>,
    ) -> bool {
        let same = earlier.and_then(|earlier| earlier.all.get(name)).filter(|old| old.settings == settings);
        let connection = match same {
            Some(old) => Ok(old.connection.clone()),
            None => settings.open(name),
        };
        match connection {
            Ok(connection) => {
                if let Some(stand_ins) = &mut self.stand_ins {
                    stand_ins.insert(name.to_owned(), StandIn::new(name));
                }
                self.all.insert(name.to_owned(), Named { settings, connection });
                true
            }
            Err(mistake) => {
                section.refuse_option(mistake);
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
        if let Some(stand_ins) = &mut self.stand_ins {
            stand_ins.entry(MEMORY.to_owned()).or_insert_with(|| StandIn::new(MEMORY));
        }
        self.all.entry(MEMORY.to_owned()).or_insert(memory);
    }

    /// The database in memory that stands in for the connection of that name, if nothing outside may be used.
    pub fn simulated(&self, name: &str) -> Option<Arc<Sql>> {
        self.stand_ins.as_ref()?.get(name)?.sql.clone()
    }

    fn stand_in_store(&self, name: &str) -> Option<Store> {
        self.stand_ins.as_ref()?.get(name).map(|stand_in| Store::Memory(stand_in.store.clone()))
    }

    /// Sets how far time is ahead of the clock for what is kept in memory, if nothing outside is used.
    pub fn set_ahead(&self, ahead: Duration) {
        self.stand_ins.iter().flatten().for_each(|(_, stand_in)| stand_in.store.set_ahead(ahead));
    }

    /// Empties what stands in for databases and stores, if nothing outside is used.
    pub async fn empty_stand_ins(&self, call: Call<'_>) -> Result<(), BackendError> {
        for stand_in in self.stand_ins.iter().flatten().map(|(_, stand_in)| stand_in) {
            stand_in.store.clear();
            if let Some(sql) = &stand_in.sql {
                sql.empty_tables(call).await?;
            }
        }
        Ok(())
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
        let call = Call::within(limit);
        let mut pings = JoinSet::new();
        for (_, connection) in self.iter() {
            let connection = connection.clone();
            pings.spawn(async move { connection.ping(call).await });
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

    /// How each connection is, in the order of their names. Files are not opened.
    pub async fn states(&self, limit: Duration) -> Vec<(String, Module, BackendState)> {
        let call = Call::within(limit);
        let mut pings = JoinSet::new();
        for (name, connection) in self.iter() {
            let (name, connection) = (name.to_owned(), connection.clone());
            pings.spawn(async move {
                let module = connection.module();
                if !connection.is_server() {
                    return (name, module, BackendState::Local);
                }
                let state = match connection.ping(call).await {
                    Ok(()) => BackendState::Up,
                    Err(error) => BackendState::Down(error.failure.to_string()),
                };
                (name, module, state)
            });
        }
        let mut states = pings.join_all().await;
        states.sort_by(|one, other| one.0.cmp(&other.0));
        states
    }

    /// What is wrong with servers that do not answer now. Files are not opened.
    pub async fn unanswered(&self, limit: Duration) -> Vec<String> {
        let call = Call::within(limit);
        let mut pings = JoinSet::new();
        for (_, connection) in self.iter().filter(|(_, connection)| connection.is_server()) {
            let connection = connection.clone();
            pings.spawn(async move { connection.ping(call).await });
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
            Connection::Sql(sql) if self.stand_ins.is_none() => Some(sql.clone()),
            Connection::Sql(_) => {
                let sql = self.simulated(name);
                if sql.is_none() {
                    let message = "a replay needs SQLite, which this daemon was built without".to_owned();
                    section.report().error(section.span_of(option), message, None);
                }
                sql
            }
            other => wrong_kind(name, other, "a database (module Sql)", option, section),
        }
    }

    /// How the database of that name is reached, or `None` after the mistake was reported at the option that
    /// names it.
    pub fn sql_settings(&self, name: &str, option: &str, section: &Section<'_>) -> Option<&SqlSettings> {
        let found = self.find(name, option, Module::Sql, section)?;
        match &self.all.get(name)?.settings {
            modules::Settings::Sql(settings) => Some(settings),
            _ => wrong_kind(name, found, "a database (module Sql)", option, section),
        }
    }

    /// The directory of that name, or `None` after the mistake was reported at the option that names it.
    pub fn ldap(&self, name: &str, option: &str, section: &Section<'_>) -> Option<Arc<Ldap>> {
        match self.find(name, option, Module::Ldap, section)? {
            Connection::Ldap(ldap) => Some(ldap.clone()),
            other => wrong_kind(name, other, "a directory (module Ldap)", option, section),
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
            section.report().say(&codes::NO_CONNECTION, section.span_of(option), message, Some(help));
        }
        found
    }
}

impl StandIn {
    /// Empty ones.
    fn new(name: &str) -> StandIn {
        let room = MemorySettings { max_entries: SIMULATED_ENTRIES, max_bytes: SIMULATED_SIZE.0 };
        let settings = SqlSettings {
            dsn: "dbi:SQLite:dbname=:memory:".to_owned(),
            user: String::new(),
            password: Secret::default(),
            timeout: SIMULATED_TIMEOUT,
            max_connections: 1,
            durability: Durability::Process,
            tls_ca: None,
            identity: None,
        };
        let sql = Sql::new(name, settings).ok().map(|sql| Arc::new(sql.uncounted()));
        StandIn { store: Arc::new(Memory::new(name, room)), sql }
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
    section.report().say(&codes::NO_CONNECTION, section.span_of(option), message, Some(help));
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Report;
    use backends::sql::{Statement, Work};
    use config_general::Limits;
    use std::path::Path;

    fn read(text: &str, earlier: Option<&Connections>) -> (Option<Connections>, Vec<String>) {
        let limits = Limits::default();
        let document = config_general::parse(Path::new("test"), text.as_bytes(), &limits).unwrap();
        let report = Report::default();
        let mut section = Section::new(&document.root, &report);
        let connections = Connections::read(&mut section, earlier, Outside::Real);
        (connections.whole(), report.into_diagnostics().into_iter().map(|d| d.message).collect())
    }

    #[test]
    fn a_connection_stays_while_its_settings_do() {
        let sql = |timeout: u8| {
            let dsn = "dsn = \"dbi:SQLite:dbname=/nothere/db\"";
            format!("<Connection db>\nmodule = Sql\n{dsn}\ntimeout = {timeout}\n</Connection>")
        };
        let (first, messages) = read(&sql(1), None);
        assert!(messages.is_empty(), "{messages:?}");
        let first = first.unwrap();
        let same = |second: &Connections, name| {
            let (old, new) = (first.get(name).unwrap(), second.get(name).unwrap());
            match (old, new) {
                (Connection::Sql(old), Connection::Sql(new)) => Arc::ptr_eq(old, new),
                (Connection::Memory(old), Connection::Memory(new)) => Arc::ptr_eq(old, new),
                _ => false,
            }
        };
        let (second, _) = read(&sql(1), Some(&first));
        assert!(same(second.as_ref().unwrap(), "db"));
        assert!(same(second.as_ref().unwrap(), MEMORY));
        let (third, _) = read(&sql(2), Some(&first));
        assert!(!same(third.as_ref().unwrap(), "db"));
    }

    #[tokio::test]
    async fn what_stands_in_is_empty_when_it_begins_anew() {
        let text = "<Connection db>\nmodule = Sql\ndsn = \"dbi:SQLite:dbname=/nothere/db\"\n</Connection>";
        let document = config_general::parse(Path::new("test"), text.as_bytes(), &Limits::default()).unwrap();
        let report = Report::default();
        let mut section = Section::new(&document.root, &report);
        let connections = Connections::read(&mut section, None, Outside::Shadow);
        let (store, sql) = (connections.stand_in_store("db").unwrap(), connections.simulated("db").unwrap());
        let call = Call::within(Duration::from_secs(60));
        store.set(b"key", b"value", Duration::from_secs(60), call).await.unwrap();
        for statement in ["CREATE TABLE \"a b\"(x INTEGER PRIMARY KEY)", "INSERT INTO \"a b\" VALUES(1)"] {
            sql.run(Work::durable(statement, Vec::new()), call).await.unwrap();
        }
        let rows = async || {
            let sql_text = "SELECT count(*) FROM \"a b\"";
            let rows = sql.query(Statement { sql: sql_text.into(), params: Vec::new() }, call).await.unwrap();
            (store.get(b"key", call).await.unwrap().is_some(), rows[0][0].clone())
        };
        assert_eq!(rows().await, (true, Some("1".to_owned())));
        connections.empty_stand_ins(call).await.unwrap();
        assert_eq!(rows().await, (false, Some("0".to_owned())));
    }

    #[test]
    fn a_client_that_this_build_lacks_is_named_at_its_line() {
        for (is_built, feature, at, options) in [
            (cfg!(feature = "redis"), "redis", "module: ", "module = Redis"),
            (cfg!(feature = "memcached"), "memcached", "module: ", "module = Memcached"),
            (cfg!(feature = "ldap"), "ldap", "module: ", "module = Ldap\nstarttls = 0"),
            (cfg!(feature = "mysql"), "mysql", "dsn: ", "module = Sql\ndsn = \"dbi:mysql:mail\""),
            (cfg!(feature = "postgres"), "postgres", "dsn: ", "module = Sql\ndsn = \"dbi:Pg:mail\""),
        ] {
            let (connections, messages) = read(&format!("<Connection c>\n{options}\n</Connection>"), None);
            let refused = format!("{at}this daemon was built without {feature} (feature `{feature}`)");
            let expected = if is_built { Vec::new() } else { vec![refused] };
            assert_eq!((connections.is_some(), messages), (is_built, expected), "{feature}");
        }
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
