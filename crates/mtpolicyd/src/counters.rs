//! What Accounting counts and Quota compares: who sent how much in which span of time.
//!
//! A table for each field, a row for each key and time, four numbers in it. Places for mail that is on its
//! way through the chain are reserved, so that of many requests at once no more pass than a quota allows.
//!
//! Knows: the tables of the original, connections. Must not know: plugins.

mod amounts;
mod layout;
mod periods;
mod redis;
mod reservations;
mod sql;
mod tables;

pub use amounts::{Amounts, Metric, unknown_yet};
pub use periods::TimePattern;
pub use reservations::Reservations;
pub use sql::{expire_reservations, reservation_needs};

use crate::connections::{Connection, Connections, Module};
use crate::network::plain_address;
use crate::options::Section;
use crate::value::Value;
use backends::BackendError;
use backends::clock::Clock;
use backends::keyvalue::Redis;
use backends::sql::{Needs, Right, Sql};
use postfix_policy::Request;
use redis::RedisTable;
use sql::SqlTable;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The name of a storage engine of MySQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine(String);

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl From<&str> for Engine {
    fn from(name: &str) -> Engine {
        Engine(name.to_owned())
    }
}
impl Value for Engine {
    const FORM: &'static str = "name of a storage engine";
    fn parse(text: &str) -> Result<Self, String> {
        let legal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if legal {
            Ok(Engine(text.to_owned()))
        } else {
            Err(format!("`{text}` is not the name of an engine"))
        }
    }
}

/// Where the counters of one plugin are kept.
#[derive(Clone)]
pub struct Book {
    keeper: Keeper,
    prefix: String,
    engine: Engine,
    pattern: TimePattern,
    lifetime: Duration,
}

/// What keeps counters.
#[derive(Clone)]
pub enum Keeper {
    /// A database, in the tables of the original.
    Sql(Arc<Sql>),
    /// Redis.
    Redis(Arc<Redis>),
}

/// The counters of one field.
#[derive(Clone)]
pub struct Table {
    /// The same for all who mean the same counters.
    id: Arc<str>,
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Sql(Arc<SqlTable>),
    Redis(Arc<RedisTable>),
}

/// One counter.
#[derive(Clone)]
pub struct Counter {
    /// The table it is in.
    pub table: Table,
    /// The key: the value of the field, the same however it is written.
    pub key: String,
    /// The value as it is written, if that is another: earlier versions and the original counted under it.
    pub written: Option<String>,
    /// The span of time, as the pattern writes it.
    pub time: String,
}

/// How long Redis keeps a counter that nobody adds to, where nothing else is said: over a year, so that a
/// pattern of years works.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(400 * 24 * 3600);

impl Keeper {
    /// What the options `store`, or else `db`, of a plugin name; `None` after the mistake was reported.
    pub fn find(
        connections: &Connections,
        section: &Section<'_>,
        db: &str,
        store: Option<&str>,
    ) -> Option<Keeper> {
        let Some(store) = store else {
            return connections.sql(db, "db", section).map(Keeper::Sql);
        };
        match connections.get(store) {
            Some(Connection::Sql(sql)) => Some(Keeper::Sql(sql.clone())),
            Some(Connection::Redis(redis)) => Some(Keeper::Redis(redis.clone())),
            Some(other) => {
                let message = format!("store: counters can't be kept in {} ({})", store, other.module());
                let help = "name a connection of module Sql or Redis".to_owned();
                section.report().error(section.span_of("store"), message, Some(help));
                None
            }
            // It says that there is none.
            None => connections.store(store, "store", Module::Redis, section).and(None),
        }
    }

    fn name(&self) -> &str {
        match self {
            Keeper::Sql(sql) => sql.name(),
            Keeper::Redis(redis) => redis.name(),
        }
    }
}

impl Book {
    /// Counters in tables whose names begin with `prefix`. `engine` is for a new table of MySQL.
    pub fn new(keeper: Keeper, prefix: &str, engine: &Engine, pattern: &TimePattern) -> Book {
        let (prefix, engine, pattern) = (prefix.to_owned(), engine.clone(), pattern.clone());
        Book { keeper, prefix, engine, pattern, lifetime: DEFAULT_LIFETIME }
    }

    /// The same, where Redis forgets a counter this long after it was last added to.
    pub fn forgetting_after(self, lifetime: Duration) -> Book {
        Book { lifetime, ..self }
    }

    /// The counters of a field.
    pub fn table(&self, field: &str) -> Table {
        let name = format!("{}{field}", self.prefix);
        let id = format!("{}\0{name}\0{}", self.keeper.name(), self.pattern).into();
        let backend = match &self.keeper {
            Keeper::Sql(sql) => Backend::Sql(Arc::new(SqlTable::new(sql.clone(), &name, &self.engine.0))),
            Keeper::Redis(redis) => {
                Backend::Redis(Arc::new(RedisTable::new(redis.clone(), &name, self.lifetime)))
            }
        };
        Table { id, backend }
    }

    /// The counter of an attribute's value in the span of time that is now; `None` if there is no value.
    pub fn counter(&self, table: &Table, request: &Request, field: &str, clock: &Clock) -> Option<Counter> {
        let written = request.get(field).filter(|value| !value.trim_ascii().is_empty())?;
        let folded = request.key(field).unwrap_or_default();
        // The same client, however its address is written.
        let folded = plain_address(&folded);
        // MySQL does not see blanks at the end.
        let key = Some(folded.trim_ascii_end()).filter(|key| !key.is_empty()).unwrap_or(written);
        let [key, written] = [key, written].map(|text| String::from_utf8_lossy(text).into_owned());
        let written = Some(written).filter(|written| *written != key);
        Some(Counter { table: table.clone(), key, written, time: self.pattern.now(clock) })
    }

    /// Counts a request in all these counters or, where the keeper can, in none. Its reservations in them are
    /// settled.
    pub async fn count(
        &self,
        counters: &[Counter],
        amounts: &Amounts,
        reservations: &mut Reservations,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        match &self.keeper {
            Keeper::Sql(sql) => sql::count(sql, counters, amounts, reservations, deadline).await?,
            Keeper::Redis(_) => {
                for counter in counters {
                    if let Backend::Redis(table) = &counter.table.backend {
                        let reservation = reservations.token(counter);
                        table.settle(counter, amounts, reservation, deadline).await?;
                    }
                }
            }
        }
        for counter in counters {
            reservations.end(counter);
        }
        Ok(())
    }

    /// Removes the counts of periods that ended more than `keep` ago. Returns the number of rows.
    pub async fn forget(
        &self,
        table: &Table,
        keep: Duration,
        clock: &Clock,
        deadline: Instant,
    ) -> Result<u64, BackendError> {
        match &table.backend {
            Backend::Sql(backend) => backend.forget(&self.pattern.before(clock, keep), deadline).await,
            // There they go by themselves.
            Backend::Redis(_) => Ok(0),
        }
    }
}

/// What a session holds once its mail was counted in this table: the key. Quota lets the other recipients of
/// such a message pass, as they are not counted again.
pub fn counted_mark(table: &Table) -> String {
    format!("counted-{}", table.id.replace('\0', "-"))
}

impl Table {
    /// What names these counters among all of the configuration.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The database with what is needed of the table, if there is one.
    pub fn needs(&self, rights: &[Right]) -> Option<(Arc<Sql>, Needs)> {
        match &self.backend {
            Backend::Sql(table) => Some((table.sql().clone(), table.needs(rights))),
            Backend::Redis(_) => None,
        }
    }

    /// Makes the table if it is missing, and repairs one of the original that lets a key occur twice: what
    /// was done.
    pub async fn prepare(&self, deadline: Instant) -> Result<Vec<String>, BackendError> {
        match &self.backend {
            Backend::Sql(table) => table.prepare(deadline).await,
            Backend::Redis(_) => Ok(Vec::new()),
        }
    }
}

impl Counter {
    /// What has been counted.
    pub async fn read(&self, metric: Metric, deadline: Instant) -> Result<f64, BackendError> {
        match &self.table.backend {
            Backend::Sql(table) => table.read(self, metric, deadline).await,
            Backend::Redis(table) => table.read(self, metric, deadline).await,
        }
    }

    /// Reserves a place for a request, unless what is counted and reserved has reached the threshold: whether
    /// it did, as one step. A request that has a place looks at what is before it.
    pub async fn reserve(
        &self,
        metric: Metric,
        threshold: i64,
        amounts: &Amounts,
        reservations: &mut Reservations,
        clock: &Clock,
        deadline: Instant,
    ) -> Result<bool, BackendError> {
        let known = reservations.token(self).map(str::to_owned);
        let is_new = known.is_none();
        let token = known.unwrap_or_else(|| reservations.begin(self));
        let passed = match &self.table.backend {
            Backend::Sql(table) if is_new => {
                match table.reserve(self, metric, threshold, amounts, &token, clock, deadline).await? {
                    Some(passed) => passed,
                    None => {
                        reservations.end(self);
                        return Ok(table.read(self, metric, deadline).await? < threshold as f64);
                    }
                }
            }
            Backend::Sql(table) => {
                table.used_before(self, metric, &token, deadline).await? < threshold as f64
            }
            Backend::Redis(table) => {
                table.reserve(self, metric, threshold, amounts, &token, deadline).await?
            }
        };
        if is_new && !passed {
            reservations.end(self);
        }
        Ok(passed)
    }

    async fn give_back(&self, token: &str, deadline: Instant) -> Result<(), BackendError> {
        match &self.table.backend {
            Backend::Sql(table) => table.give_back(token, deadline).await,
            Backend::Redis(table) => table.give_back(self, token, deadline).await,
        }
    }

    /// Whether both are the same counter.
    fn is(&self, other: &Counter) -> bool {
        self.table.id == other.table.id && self.key == other.key && self.time == other.time
    }
}
