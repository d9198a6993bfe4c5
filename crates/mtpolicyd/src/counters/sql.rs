//! Counters in a database.
//!
//! Knows: the statements, and what to do when a table is missing. Must not know: requests, plugins.

mod by_hand;

use super::amounts::{Amounts, Metric};
use super::layout::{self, KeySet, Layout};
use super::reservations::{LIFETIME, Reservations};
use super::tables::{NUMBERS, RESERVATIONS, Writer, create_reservations, plain, remove_all_expired};
use super::texts::{Questions, Texts};
use super::{Backend, Counter};
use crate::log::messages::{plugins, tasks};
use crate::value::numeric_prefix;
use backends::clock::Clock;
use backends::sql::{Dialect, Merged, Output, Param, Right, Schema, Sql, Statement, Tally, Work};
use backends::{BackendError, Call, Failure};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Two daemons do not make or repair tables at the same time.
const TABLES_LOCK: &str = "mtpolicyd-tables";

/// How long reservations are not tried again after a right was missing.
const READ_ONLY_SPAN: Duration = Duration::from_secs(60);

/// A table of counters.
pub struct SqlTable {
    sql: Arc<Sql>,
    name: String,
    /// The name of its unique index, where it has to be added.
    index: String,
    engine: String,
    /// Whether the table is known to be there, and as it should be as far as that is allowed.
    ready: AtomicBool,
    /// What it was like when it was last looked at.
    layout: Mutex<Option<Layout>>,
    /// Until when nothing is reserved, after the database did not allow it.
    only_reads: Mutex<Option<Instant>>,
    texts: Texts,
}

/// What a counter stands at, in the order of `Metric::ALL`.
pub type Numbers = [i64; 4];

/// Counts in several tables at once, and removes the reservations there. Returns what each counter stands at
/// then, where the database tells.
pub async fn count(
    sql: &Sql,
    counters: &[Counter],
    amounts: &Amounts,
    reservations: &Reservations,
    call: Call<'_>,
) -> Result<Vec<Option<Numbers>>, BackendError> {
    let tables = counters.iter().filter_map(|counter| match &counter.table.backend {
        Backend::Sql(table) => Some((counter, table)),
        Backend::Redis(_) => None,
    });
    let tables: Vec<_> = tables.collect();
    for (_, table) in &tables {
        table.make_ready(call).await?;
    }
    let mut together = Work { statements: Vec::new(), lock: None, durable: true };
    let mut places = Vec::with_capacity(tables.len());
    let mut alone = Vec::new();
    for (counter, table) in &tables {
        let token = reservations.token(counter);
        let lock = token.filter(|_| sql.dialect() == Dialect::MySql).map(|_| table.lock(counter));
        let mut statements = vec![table.add(counter, amounts)];
        statements.extend(token.map(|token| table.remove_reservation(token)));
        match lock {
            // MyISAM knows no transaction: nobody may look between the counting and the removing.
            Some(lock) => {
                places.push(None);
                alone.push(Work { statements, lock: Some(lock), durable: true });
            }
            None => {
                places.push(Some(together.statements.len()));
                together.statements.append(&mut statements);
            }
        }
    }
    // A table may have gone with its file.
    let make = || async {
        for (_, table) in &tables {
            table.prepare_and_log(call).await?;
        }
        sql.make_table(&reservations_schema(sql), call).await
    };
    let mut outputs = Vec::new();
    if !together.statements.is_empty() {
        outputs = sql.run_or_make(together, make, call).await?;
    }
    for work in alone {
        sql.run_or_make(work, make, call).await?;
    }
    let numbers = |place: Option<usize>| numbers(outputs.get(place?)?);
    Ok(places.into_iter().map(numbers).collect())
}

/// The numbers that counting has given, if it has.
fn numbers(output: &Output) -> Option<Numbers> {
    let numbers = output.rows.first()?.iter().map(|number| number.as_deref()?.parse().ok());
    numbers.collect::<Option<Vec<i64>>>()?.try_into().ok()
}

/// The table of the reservations.
pub fn reservations_schema(sql: &Sql) -> Schema {
    let schema = Schema::new(RESERVATIONS, "expires", create_reservations(sql)).locked_by(TABLES_LOCK);
    Schema { rights: vec![Right::Select, Right::Insert, Right::Delete], ..schema }
}

/// Removes the reservations that have expired. Returns their number.
pub async fn expire_reservations(sql: &Sql, clock: &Clock, call: Call<'_>) -> Result<u64, BackendError> {
    let delete = Statement { sql: remove_all_expired(sql).into(), params: vec![Param::Integer(clock.now())] };
    match sql.run(Work { statements: vec![delete], lock: None, durable: false }, call).await {
        // Without the right there are none of ours.
        Err(BackendError { failure: Failure::NoTable(_) | Failure::Denied(_), .. }) => Ok(0),
        outputs => Ok(outputs?.first().map_or(0, |output| output.affected)),
    }
}

impl SqlTable {
    /// A table, which is not looked at yet.
    pub fn new(sql: Arc<Sql>, name: &str, engine: &str) -> SqlTable {
        let writer = Writer { sql: &sql, table: name };
        let texts = Texts::new(&writer);
        let (name, index, engine) = (name.to_owned(), format!("{name}_key_time"), engine.to_owned());
        let (ready, layout, only_reads) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        SqlTable { sql, name, index, engine, ready, layout, only_reads, texts }
    }

    /// The table, for which these rights are needed.
    pub fn schema(&self, rights: &[Right]) -> Schema {
        let create = Writer { sql: &self.sql, table: &self.name }.create(&self.engine);
        let schema = Schema::new(&self.name, "time", [create]).locked_by(TABLES_LOCK);
        Schema { rights: rights.to_vec(), ..schema }
    }

    /// The database.
    pub fn sql(&self) -> &Arc<Sql> {
        &self.sql
    }

    /// What has been counted.
    pub async fn read(&self, counter: &Counter, metric: Metric, call: Call<'_>) -> Result<f64, BackendError> {
        self.make_known(call).await?;
        let sql = self.questions(counter).read[metric as usize].clone();
        let query = Statement { sql, params: self.counted_place(counter) };
        let rows = self.sql.query_or_make(query, || self.prepare_and_log(call), call).await?;
        let text = rows.into_iter().next().and_then(|row| row.into_iter().next().flatten());
        Ok(numeric_prefix(text.unwrap_or_default().as_bytes()))
    }

    /// Reserves, unless the threshold has been reached: whether it did, `None` where the user has no right to
    /// reserve anything.
    #[expect(clippy::too_many_arguments, reason = "what is compared and for which request")]
    pub async fn reserve(
        &self,
        counter: &Counter,
        metric: Metric,
        threshold: i64,
        amounts: &Amounts,
        token: &str,
        clock: &Clock,
        call: Call<'_>,
    ) -> Result<Option<bool>, BackendError> {
        self.make_known(call).await?;
        if self
            .only_reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
        {
            return Ok(None);
        }
        let now = clock.now();
        let ends = now.saturating_add(LIFETIME.as_secs().cast_signed());
        let mut params = vec![Param::Text(token.to_owned())];
        params.extend(self.reserved_place(counter));
        params.extend(amounts.all().map(Param::Integer));
        params.push(Param::Integer(ends));
        params.extend(self.used_params(counter, now));
        params.push(Param::Integer(threshold));
        let reserve = Statement { sql: self.questions(counter).reserve[metric as usize].clone(), params };
        match self.run_locked(counter, reserve, call).await {
            Err(BackendError { failure: Failure::Denied(why), .. }) => {
                self.only_read(&why);
                Ok(None)
            }
            output => Ok(Some(output?.affected > 0)),
        }
    }

    /// Does without reservations for a while.
    fn only_read(&self, why: &str) {
        plugins::no_reservations(&self.name, why, RESERVATIONS);
        let until = Instant::now() + READ_ONLY_SPAN;
        *self.only_reads.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }

    /// What was counted, and reserved before this reservation.
    pub async fn used_before(
        &self,
        counter: &Counter,
        metric: Metric,
        token: &str,
        clock: &Clock,
        call: Call<'_>,
    ) -> Result<f64, BackendError> {
        let mut params = self.used_params(counter, clock.now());
        params.push(Param::Text(token.to_owned()));
        let query = Statement { sql: self.questions(counter).used_before[metric as usize].clone(), params };
        let output = self.run_locked(counter, query, call).await?;
        let text = output.rows.into_iter().next().and_then(|mut row| row.pop()?);
        Ok(numeric_prefix(text.unwrap_or_default().as_bytes()))
    }

    /// Removes a reservation.
    pub async fn give_back(&self, token: &str, call: Call<'_>) -> Result<(), BackendError> {
        let statements = vec![self.remove_reservation(token)];
        self.sql.run(Work { statements, lock: None, durable: false }, call).await.map(drop)
    }

    /// Removes the rows of these periods. Returns their number.
    pub async fn forget(&self, old: &BTreeSet<String>, call: Call<'_>) -> Result<u64, BackendError> {
        self.make_ready(call).await?;
        let writer = Writer { sql: &self.sql, table: &self.name };
        let rows = self.sql.query(plain(writer.times()), call).await?;
        let times = rows.into_iter().filter_map(|row| row.into_iter().next().flatten());
        let delete: Arc<str> = writer.remove_time().into();
        let mut removed = 0;
        for time in times.filter(|time| old.contains(time)) {
            let statement = Statement { sql: delete.clone(), params: vec![Param::Text(time)] };
            let work = Work { statements: vec![statement], lock: None, durable: false };
            let outputs = self.sql.run(work, call).await?;
            removed += outputs.first().map_or(0, |output| output.affected);
        }
        Ok(removed)
    }

    /// Does what nobody else may do at the same time for this counter. It need not survive a power cut: the
    /// request would not have been answered.
    async fn run_locked(
        &self,
        counter: &Counter,
        statement: Statement,
        call: Call<'_>,
    ) -> Result<Output, BackendError> {
        let work = Work { statements: vec![statement], lock: Some(self.lock(counter)), durable: false };
        let make = || async {
            self.prepare_and_log(call).await?;
            self.sql.make_table(&reservations_schema(&self.sql), call).await
        };
        let outputs = self.sql.run_or_make(work, make, call).await?;
        Ok(outputs.into_iter().next().unwrap_or_default())
    }

    fn remove_reservation(&self, token: &str) -> Statement {
        let sql = self.texts.remove_reservation.clone();
        Statement { sql, params: vec![Param::Text(token.to_owned())] }
    }

    /// Where a counter's reservations are found: its table, key and time.
    fn reserved_place(&self, counter: &Counter) -> [Param; 3] {
        let [key, time] = self.place(counter);
        [Param::Text(stored(&Layout::of_new(self.sql.dialect()), &self.name)), key, time]
    }

    /// Where is read what is counted and what is reserved now.
    fn used_params(&self, counter: &Counter, now: i64) -> Vec<Param> {
        let mut params = self.counted_place(counter);
        params.extend(self.reserved_place(counter));
        params.push(Param::Integer(now));
        params
    }

    /// The name of the lock of a counter. MySQL takes keys for the same that differ in case or in blanks at
    /// the end; so they have one lock.
    fn lock(&self, counter: &Counter) -> String {
        let key = counter.key.to_lowercase();
        format!("mtpolicyd-quota {} {} {}", self.name, counter.time, key.trim_end())
    }

    /// Makes the table if it is missing, and repairs one of the original: a key may occur once only, and its
    /// numbers may not end at 4 GiB. Returns what was done, and what should be but is not allowed.
    pub async fn prepare(&self, call: Call<'_>) -> Result<Vec<String>, BackendError> {
        let layout = match self.look(call).await? {
            Some(layout) => layout,
            None => {
                self.sql.make_table(&self.schema(&[]), call).await?;
                self.look(call).await?.unwrap_or(Layout::of_new(self.sql.dialect()))
            }
        };
        let mut done = Vec::new();
        if layout.narrow().next().is_some() {
            done.push(self.widen(&layout, call).await?);
        }
        if layout.ignores_accents {
            done.push(self.separate_accents(&layout, call).await?);
        }
        if !layout.has_unique_key {
            done.extend(self.merge(call).await?);
        }
        // Nothing was changed if there was nothing to do.
        if !done.is_empty() {
            self.look(call).await?;
        }
        self.ready.store(true, Ordering::Release);
        Ok(done)
    }

    /// Looks what the table is like, and remembers it; `None` if there is none.
    async fn look(&self, call: Call<'_>) -> Result<Option<Layout>, BackendError> {
        let columns = self.sql.query(layout::columns(&self.sql, &self.name), call).await?;
        if columns.is_empty() {
            return Ok(None);
        }
        let sums = sums(&Layout::of_new(self.sql.dialect()));
        let has_unique_key = self.sql.has_unique_key(self.tally(&sums), call).await?;
        let found = Layout::read(self.sql.dialect(), &columns, has_unique_key);
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(found)
    }

    /// Gives narrow columns 64 bits: that this was done, or what follows if it can't be.
    async fn widen(&self, layout: &Layout, call: Call<'_>) -> Result<String, BackendError> {
        let (writer, name) = (Writer { sql: &self.sql, table: &self.name }, &self.name);
        let statement = writer.widen(layout.narrow());
        let columns = layout.narrow().collect::<Vec<_>>().join(", ");
        let text = statement.sql.clone();
        Ok(match self.alter(statement, call).await? {
            None => tasks::columns_widened(name, columns),
            Some(why) => {
                let largest = layout.largest.iter().min().unwrap_or(&i64::MAX);
                tasks::columns_narrow(name, columns, why, largest, text)
            }
        })
    }

    /// Lets keys differ in accents: that this was done, or what follows if it can't be.
    async fn separate_accents(&self, layout: &Layout, call: Call<'_>) -> Result<String, BackendError> {
        let (writer, name) = (Writer { sql: &self.sql, table: &self.name }, &self.name);
        let statement = writer.separate_accents(layout.key_chars);
        let text = statement.sql.clone();
        Ok(match self.alter(statement, call).await? {
            None => tasks::accents_separated(name),
            Some(why) => tasks::accents_ignored(name, why, text),
        })
    }

    /// Changes the table: `None` if that was done, or why it can't be.
    async fn alter(&self, statement: Statement, call: Call<'_>) -> Result<Option<Failure>, BackendError> {
        let work = Work { statements: vec![statement], lock: Some(TABLES_LOCK.to_owned()), durable: true };
        match self.sql.run(work, call).await {
            Ok(_) => Ok(None),
            Err(error @ BackendError { failure: Failure::Down(_), .. }) => Err(error),
            Err(error) => Ok(Some(error.failure)),
        }
    }

    /// Merges rows of the same key and time, and lets them occur once only from now on.
    async fn merge(&self, call: Call<'_>) -> Result<Option<String>, BackendError> {
        let sums = sums(&Layout::of_new(self.sql.dialect()));
        match self.sql.make_unique(self.tally(&sums), call).await {
            Ok(Merged { removed, .. }) => Ok((removed > 0).then(|| tasks::rows_merged(&self.name, removed))),
            // Each message then has a row of its own there, and their sum is what counts.
            Err(BackendError { failure: Failure::Denied(why), .. })
                if self.sql.dialect() == Dialect::MySql =>
            {
                Ok(Some(why))
            }
            Err(error) => Err(error),
        }
    }

    /// Adds rows whose key is as it was written in some request to those under the key that is counted: what
    /// was done, or what follows if it can't be.
    pub async fn merge_spellings(
        &self,
        key_of: impl Fn(&str) -> String + Send + Sync,
        call: Call<'_>,
    ) -> Result<Option<String>, BackendError> {
        let layout = self.known().unwrap_or(Layout::of_new(self.sql.dialect()));
        let sums = sums(&layout);
        let spell = |key: &str| stored(&layout, &key_of(key));
        let name = &self.name;
        match self.sql.respell(self.tally(&sums), spell, call).await {
            Ok(0) => Ok(None),
            Ok(moved) => Ok(Some(tasks::spellings_merged(name, moved))),
            Err(BackendError { failure: Failure::Denied(why), .. }) => {
                Ok(Some(tasks::spellings_left(name, why)))
            }
            Err(error) => Err(error),
        }
    }

    fn tally<'a>(&'a self, sums: &'a [(&'a str, i64)]) -> Tally<'a> {
        let (table, index) = (&self.name, &self.index);
        Tally { table, key: "key", beside: "time", sums, latest: &[], index, lock: TABLES_LOCK }
    }

    async fn make_ready(&self, call: Call<'_>) -> Result<(), BackendError> {
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        Box::pin(self.prepare_and_log(call)).await
    }

    /// Finds out what is needed to read, for which no other right is needed where the table is there.
    async fn make_known(&self, call: Call<'_>) -> Result<(), BackendError> {
        if self.known().is_some() || Box::pin(self.look(call)).await?.is_some() {
            return Ok(());
        }
        Box::pin(self.prepare_and_log(call)).await
    }

    fn known(&self) -> Option<Layout> {
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn prepare_and_log(&self, call: Call<'_>) -> Result<(), BackendError> {
        for done in self.prepare(call).await? {
            tasks::changed(done);
        }
        Ok(())
    }

    fn add(&self, counter: &Counter, amounts: &Amounts) -> Statement {
        let largest = self.known().unwrap_or(Layout::of_new(self.sql.dialect())).largest;
        let mut params = self.place(counter).to_vec();
        let amounts = amounts.all().into_iter().zip(largest).map(|(amount, largest)| amount.min(largest));
        params.extend(amounts.chain(largest).map(Param::Integer));
        Statement { sql: self.texts.upsert.clone(), params }
    }

    /// Where is read what was counted: the key, the key as it is written if that is another, and the time.
    /// Where both are the same to the database, it is one row.
    fn counted_place(&self, counter: &Counter) -> Vec<Param> {
        let [key, time] = self.place(counter);
        let Some(written) = &counter.written else { return vec![key, time] };
        let layout = self.known().unwrap_or(Layout::of_new(self.sql.dialect()));
        vec![key, Param::Text(stored(&layout, written)), time]
    }

    /// The statements that look for a counter.
    fn questions(&self, counter: &Counter) -> &Questions {
        if counter.written.is_some() { &self.texts.two_spellings } else { &self.texts.one_spelling }
    }

    /// Key and time as the table holds them.
    fn place(&self, counter: &Counter) -> [Param; 2] {
        let layout = self.known().unwrap_or(Layout::of_new(self.sql.dialect()));
        [Param::Text(stored(&layout, &counter.key)), Param::Text(counter.time.clone())]
    }
}

/// The columns of the numbers, each with the largest that it holds.
fn sums(layout: &Layout) -> [(&'static str, i64); 4] {
    std::array::from_fn(|at| (NUMBERS[at], layout.largest[at]))
}

/// A key as the column of the table can hold it.
fn stored(layout: &Layout, key: &str) -> String {
    if key.is_ascii() && key.len() <= layout.key_chars {
        return key.to_owned();
    }
    // MySQL takes latin1 for windows-1252.
    let fits = |c: char| match layout.key_set {
        KeySet::Unicode => true,
        KeySet::Latin1 => c.is_ascii() || ('\u{a0}'..='\u{ff}').contains(&c),
        KeySet::Ascii => c.is_ascii(),
    };
    let text = |c: char| if fits(c) { c.to_string() } else { c.escape_unicode().to_string() };
    key.chars().map(text).collect::<String>().chars().take(layout.key_chars).collect()
}
