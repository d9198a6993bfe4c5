//! What is looked at and cleaned of tables without a request.
//!
//! Knows: tasks, rights on tables. Must not know: plugins, what the tables are for.

use crate::log::messages::tasks as messages;
use crate::tasks::{Period, TaskResult, Tasks, When};
use backends::keyvalue::Store;
use backends::sql::{Dialect, Schema, Sql};
use backends::{BackendError, Call, Failure};
use std::sync::Arc;
use std::time::Duration;

/// How long a task may take for one statement; a table of millions of rows takes seconds.
pub const TASK_LIMIT: Duration = Duration::from_secs(60);

/// When a table that is missing is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// By another task of the start, which says what is in the way.
    AtStart,
    /// When a request needs it.
    WhenUsed,
}

/// Has the start and `check` look whether the user of the database has the rights that a table schema. `who`
/// needs it.
pub fn look_at_rights(tasks: &Tasks, who: &str, sql: &Arc<Sql>, schema: Schema, made: Made) {
    for when in looks(sql) {
        let (sql, schema) = (sql.clone(), schema.clone());
        let also_missing = when == When::Check || made == Made::WhenUsed;
        tasks.add(who, when, move |_| {
            let (sql, schema) = (sql.clone(), schema.clone());
            async move { look(&sql, &schema, also_missing).await }
        });
    }
}

/// Has `check` alone look, where the start has no need to wait for it.
pub fn check_rights(tasks: &Tasks, who: &str, sql: &Arc<Sql>, schema: Schema) {
    let sql = sql.clone();
    tasks.add(who, When::Check, move |_| {
        let (sql, schema) = (sql.clone(), schema.clone());
        async move { look(&sql, &schema, true).await }
    });
}

async fn look(sql: &Sql, schema: &Schema, also_missing: bool) -> TaskResult {
    let call = Call::within(TASK_LIMIT);
    if also_missing && let Err(error) = sql.check_table(schema, call).await {
        return looked(Err(error));
    }
    looked(sql.check_rights(schema, call).await)
}

/// Has them look whether the tables of a query of the administrator's are there and may be read.
pub fn look_at_query(tasks: &Tasks, who: &str, sql: &Arc<Sql>, query: &Arc<str>) {
    for when in looks(sql) {
        let (sql, query) = (sql.clone(), query.clone());
        tasks.add(who, when, move |_| {
            let (sql, query) = (sql.clone(), query.clone());
            async move { looked(sql.check_query(&query, Call::within(TASK_LIMIT)).await) }
        });
    }
}

/// The future owner of a file and its access rights can't be seen by looking as another user.
fn looks(sql: &Sql) -> impl Iterator<Item = When> + use<> {
    let is_file = sql.dialect() == Dialect::Sqlite;
    [When::Start, When::Check].into_iter().filter(move |when| *when == When::Start || !is_file)
}

/// What a look has found. That a database can't be asked is said where it is opened.
fn looked(result: Result<(), BackendError>) -> TaskResult {
    match result {
        Err(error) if matches!(error.failure, Failure::Denied(_) | Failure::NoTable(_)) => {
            Err(error.to_string())
        }
        _ => Ok(String::new()),
    }
}

/// Has what has expired removed every hour from a store that does not do it by itself, and its table looked
/// at.
pub fn expire_hourly(tasks: &Tasks, who: &str, store: &Store) {
    let Store::Sql(table) = store else { return };
    look_at_rights(tasks, who, table.sql(), table.schema(), Made::WhenUsed);
    let store = store.clone();
    tasks.add(who, When::Every(Period::Hourly), move |_| {
        let store = store.clone();
        async move {
            let expired = store.expire(Call::within(TASK_LIMIT)).await;
            expired.map(messages::values_expired).map_err(|error| error.to_string())
        }
    });
}
