//! What Accounting counts and Quota compares: who sent how much in which span of time.
//!
//! A table for each field, a row for each key and time, four numbers in it. Places for mail that is on its
//! way through the chain are reserved, so that of many requests at once no more pass than a quota allows.
//!
//! Knows: the tables of the original, connections. Must not know: plugins.

mod amounts;
mod by_hand;
mod layout;
mod noted;
mod periods;
mod redis;
mod reservations;
mod sql;
mod standing;
mod tables;
mod texts;

pub use amounts::{Amounts, Metric, unknown_at, unknown_yet};
pub use by_hand::{Counted, CountedPage};
pub use periods::TimePattern;
pub use reservations::Reservations;
pub use sql::{expire_reservations, reservations_schema};
pub use standing::Standing;

use crate::connections::{Connections, StoreKind, StoreRef};
use crate::network::plain_address;
use crate::options::Section;
use crate::value::Value;
use backends::clock::Clock;
use backends::keyvalue::{Redis, Store};
use backends::sql::{Right, Schema, Sql};
use backends::{BackendError, Call};
use lookups::LookupKind;
use postfix_policy::Request;
use redis::RedisTable;
use sql::SqlTable;
use std::sync::Arc;
use std::time::Duration;

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
pub struct Ledger {
    store: CounterStore,
    prefix: String,
    engine: Engine,
    pattern: TimePattern,
    lifetime: Duration,
}

/// What keeps counters.
#[derive(Clone)]
pub enum CounterStore {
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

impl CounterStore {
    /// What the options `store`, or else `db`, of a plugin name; `None` after the mistake was reported.
    pub fn find(
        connections: &Connections,
        section: &Section<'_>,
        db: &str,
        store: Option<&str>,
    ) -> Option<CounterStore> {
        let Some(store) = store else {
            return connections.sql(db, "db", section).map(CounterStore::Sql);
        };
        const KEEPING: &[StoreKind] = &[StoreKind::Sql, StoreKind::Redis];
        let store = StoreRef::one_of(KEEPING, "where counters can't be kept", "store", store);
        match connections.store(store, section)? {
            Store::Sql(table) => Some(CounterStore::Sql(table.sql().clone())),
            Store::Redis(redis) => Some(CounterStore::Redis(redis)),
            // In a replay every store is memory.
            Store::Memory(memory) => connections.simulated(memory.name()).map(CounterStore::Sql),
            Store::Memcached(_) => None,
        }
    }

    fn name(&self) -> &str {
        match self {
            CounterStore::Sql(sql) => sql.name(),
            CounterStore::Redis(redis) => redis.name(),
        }
    }
}

impl Ledger {
    /// Counters in tables whose names begin with `prefix`. `engine` is for a new table of MySQL.
    pub fn new(store: CounterStore, prefix: &str, engine: &Engine, pattern: &TimePattern) -> Ledger {
        let (prefix, engine, pattern) = (prefix.to_owned(), engine.clone(), pattern.clone());
        Ledger { store, prefix, engine, pattern, lifetime: DEFAULT_LIFETIME }
    }

    /// The same, where Redis forgets a counter this long after it was last added to.
    pub fn forgetting_after(self, lifetime: Duration) -> Ledger {
        Ledger { lifetime, ..self }
    }

    /// The counters of a field.
    pub fn table(&self, field: &str) -> Table {
        let name = format!("{}{field}", self.prefix);
        let id = format!("{}\0{name}\0{}", self.store.name(), self.pattern).into();
        let backend = match &self.store {
            CounterStore::Sql(sql) => {
                Backend::Sql(Arc::new(SqlTable::new(sql.clone(), &name, &self.engine.0)))
            }
            CounterStore::Redis(redis) => {
                Backend::Redis(Arc::new(RedisTable::new(redis.clone(), &name, self.lifetime)))
            }
        };
        Table { id, backend }
    }

    /// The span of time that is now.
    pub fn period(&self, clock: &Clock) -> String {
        self.pattern.now(clock)
    }

    /// The counter of an attribute's value in the span of time that is now; `None` if there is no value.
    pub fn counter(&self, table: &Table, request: &Request, field: &str, clock: &Clock) -> Option<Counter> {
        let (key, written) = key_of(request, field)?;
        Some(Counter { table: table.clone(), key, written, time: self.pattern.now(clock) })
    }

    /// Counts a request in all these counters or, where the store can, in none. Its reservations in them are
    /// settled, and what the counters stand at then is noted with them where the store tells. After an error
    /// some or all may have been counted; if it is repeated as the same attempt, Redis counts each once.
    pub async fn count(
        &self,
        counters: &[Counter],
        amounts: &Amounts,
        attempt: &str,
        reservations: &mut Reservations,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        if let Some(pretence) = call.pretence() {
            counters.iter().for_each(|counter| pretence.note(format!("count {}", counter.key)));
            return Ok(());
        }
        let (begun, inner) = (call.begin(), call.within_another());
        let counted = self.count_each(counters, amounts, attempt, reservations, inner).await;
        noted::count(begun, counters, amounts, counted, call)
    }

    async fn count_each(
        &self,
        counters: &[Counter],
        amounts: &Amounts,
        attempt: &str,
        reservations: &mut Reservations,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        match &self.store {
            CounterStore::Sql(sql) => {
                let numbers = sql::count(sql, counters, amounts, reservations, call).await?;
                for (counter, numbers) in counters.iter().zip(numbers) {
                    reservations.note(counter, numbers);
                }
            }
            CounterStore::Redis(_) => {
                for counter in counters {
                    if let Backend::Redis(table) = &counter.table.backend {
                        let reservation = reservations.token(counter);
                        table.settle(counter, amounts, reservation, attempt, call).await?;
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
        call: Call<'_>,
    ) -> Result<u64, BackendError> {
        match &table.backend {
            Backend::Sql(backend) => backend.forget(&self.pattern.before(clock, keep), call).await,
            // There they go by themselves.
            Backend::Redis(_) => Ok(0),
        }
    }
}

/// The key of an attribute's value, and the value as it is written if that is another; `None` if there is no
/// value.
fn key_of(request: &Request, field: &str) -> Option<(String, Option<String>)> {
    let written = request.get(field).filter(|value| !value.trim_ascii().is_empty())?;
    let folded = request.key(field).unwrap_or_default();
    // The same client, however its address is written.
    let folded = plain_address(&folded);
    // MySQL does not see blanks at the end.
    let key = Some(folded.trim_ascii_end()).filter(|key| !key.is_empty()).unwrap_or(written);
    let [key, written] = [key, written].map(|text| String::from_utf8_lossy(text).into_owned());
    let written = Some(written).filter(|written| *written != key);
    Some((key, written))
}

/// The key of a value of this field, however that is written.
pub fn spelled(field: &str, written: &str) -> String {
    let request = Request::from_pairs([(field, written)]).ok();
    let key = request.and_then(|request| key_of(&request, field));
    key.map_or_else(|| written.to_owned(), |(key, _)| key)
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

    /// The database with the table, for which these rights are needed, if it is in one.
    pub fn schema(&self, rights: &[Right]) -> Option<(Arc<Sql>, Schema)> {
        match &self.backend {
            Backend::Sql(table) => Some((table.sql().clone(), table.schema(rights))),
            Backend::Redis(_) => None,
        }
    }

    /// Makes the table if it is missing, and repairs one of the original that lets a key occur twice: what
    /// was done.
    pub async fn prepare(&self, call: Call<'_>) -> Result<Vec<String>, BackendError> {
        match &self.backend {
            Backend::Sql(table) => table.prepare(call).await,
            Backend::Redis(_) => Ok(Vec::new()),
        }
    }

    /// Adds what the original and earlier versions have counted for a value as it was written to what is
    /// counted for its key: what was done.
    pub async fn merge_spellings(&self, field: &str, call: Call<'_>) -> Result<Option<String>, BackendError> {
        let Backend::Sql(table) = &self.backend else { return Ok(None) };
        table.merge_spellings(|written| spelled(field, written), call).await
    }
}

impl Counter {
    /// What has been counted.
    pub async fn read(&self, metric: Metric, call: Call<'_>) -> Result<f64, BackendError> {
        let question = || noted::read(self, metric);
        if let Some(recorded) = noted::recorded_number(self, question, call) {
            return recorded;
        }
        let begun = call.begin();
        let number = self.ask(metric, call.within_another()).await;
        begun.note_texts(LookupKind::Store, "", question, &number, f64::to_string);
        number
    }

    async fn ask(&self, metric: Metric, call: Call<'_>) -> Result<f64, BackendError> {
        match &self.table.backend {
            Backend::Sql(table) => table.read(self, metric, call).await,
            Backend::Redis(table) => table.read(self, metric, call).await,
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
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        if call.pretence().is_some() {
            return Ok(self.read(metric, call).await? < threshold as f64);
        }
        let question = || noted::used(self, metric, threshold);
        if let Some(recorded) = noted::recorded_room(self, question, call) {
            return recorded;
        }
        let (begun, inner) = (call.begin(), call.within_another());
        let passed = self.reserve_place(metric, threshold, amounts, reservations, clock, inner).await;
        begun.note_texts(LookupKind::Store, "", question, &passed, |passed| noted::room(*passed).to_owned());
        passed
    }

    async fn reserve_place(
        &self,
        metric: Metric,
        threshold: i64,
        amounts: &Amounts,
        reservations: &mut Reservations,
        clock: &Clock,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let known = reservations.token(self).map(str::to_owned);
        let is_new = known.is_none();
        let token = known.unwrap_or_else(|| reservations.begin(self));
        let passed = match &self.table.backend {
            Backend::Sql(table) if is_new => {
                match table.reserve(self, metric, threshold, amounts, &token, clock, call).await? {
                    Some(passed) => passed,
                    None => {
                        reservations.end(self);
                        return Ok(table.read(self, metric, call).await? < threshold as f64);
                    }
                }
            }
            Backend::Sql(table) => {
                table.used_before(self, metric, &token, clock, call).await? < threshold as f64
            }
            Backend::Redis(table) => table.reserve(self, metric, threshold, amounts, &token, call).await?,
        };
        if is_new && !passed {
            reservations.end(self);
        }
        Ok(passed)
    }

    async fn give_back(&self, token: &str, call: Call<'_>) -> Result<(), BackendError> {
        match &self.table.backend {
            Backend::Sql(table) => table.give_back(token, call).await,
            Backend::Redis(table) => table.give_back(self, token, call).await,
        }
    }

    /// What has been counted, as far as this request has to know it: if it was itself counted just now, what
    /// the counter stood at then. Messages that came later do not use up the quota of this one.
    pub async fn read_after(
        &self,
        reservations: &Reservations,
        metric: Metric,
        call: Call<'_>,
    ) -> Result<f64, BackendError> {
        match reservations.counted(self) {
            // Another row may have its key as it is written.
            Some(numbers) if self.written.is_none() => {
                let question = || noted::read(self, metric);
                if let Some(recorded) = noted::recorded_number(self, question, call) {
                    return recorded;
                }
                let number = Ok(numbers[metric as usize] as f64);
                call.begin().note_texts(LookupKind::Store, "", question, &number, f64::to_string);
                number
            }
            _ => self.read(metric, call).await,
        }
    }

    /// Whether both are the same counter.
    fn is(&self, other: &Counter) -> bool {
        self.table.id == other.table.id && self.key == other.key && self.time == other.time
    }
}
