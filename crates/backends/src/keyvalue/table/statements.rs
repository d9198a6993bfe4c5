//! The statements of a table of values, in each dialect. Each changes or reads a row as one step.
//!
//! Knows: what the dialects write differently. Must not know: how statements are run.

use crate::sql::Dialect;
use std::sync::Arc;

/// The table.
pub(super) const TABLE: &str = "mtpolicyd_store";

/// The statements, and which parameters they have.
pub(super) struct Statements {
    /// Make the table.
    pub(super) create: Vec<Arc<str>>,
    /// Name, now.
    pub(super) get: Arc<str>,
    /// Name, value, end.
    pub(super) set: Arc<str>,
    /// Name, value, end; name and value of a lock, now. Sets nothing if there is no such lock.
    pub(super) set_locked: Arc<str>,
    /// Name, value, end, and now as often as `add_nows` says. Changes a row if it does it.
    pub(super) add: Arc<str>,
    pub(super) add_nows: usize,
    /// Name, now.
    pub(super) delete: Arc<str>,
    /// Name, end, and now as often as `increment_nows` says. Leaves what is not a number.
    pub(super) increment: Arc<str>,
    pub(super) increment_nows: usize,
    /// End, name, value, now.
    pub(super) renew: Arc<str>,
    /// Name, value, now.
    pub(super) unlock: Arc<str>,
    /// Now. Removes some rows.
    pub(super) expire: Arc<str>,
    /// Name, now: value and end.
    pub(super) held: Arc<str>,
    /// Name, now, number of rows: names that are this one or come after it, byte by byte, with the beginning
    /// of their values and their ends.
    pub(super) scan: Arc<str>,
    /// The same without the name itself.
    pub(super) scan_behind: Arc<str>,
}

/// Maximum number of characters of a value that a page shows.
const MAX_SHOWN_CHARS: usize = 1_000;

impl Statements {
    /// The statements of a dialect. `expired_at_once` is the number of expired rows that one of them removes.
    pub(super) fn new(dialect: Dialect, expired_at_once: u64) -> Statements {
        let insert = format!("INSERT INTO {TABLE} (name, value, expires) VALUES");
        let (set, add, increment, nows) = match dialect {
            Dialect::MySql => mysql_upserts(),
            Dialect::Sqlite => upserts("value <> '' AND value NOT GLOB '*[^0-9]*' AND LENGTH(value) < 19"),
            Dialect::Postgres => upserts("value ~ '^[0-9]{1,18}$'"),
        };
        let value = match dialect {
            // Texts that differ in blanks at the end are equal there.
            Dialect::MySql => "CAST(value AS BINARY)",
            Dialect::Sqlite | Dialect::Postgres => "value",
        };
        let expired = match dialect {
            Dialect::MySql => format!("expires <= ? ORDER BY expires LIMIT {expired_at_once}"),
            Dialect::Sqlite | Dialect::Postgres => {
                let oldest = format!("WHERE expires <= ? ORDER BY expires LIMIT {expired_at_once}");
                format!("name IN (SELECT name FROM {TABLE} {oldest})")
            }
        };
        Statements {
            create: create(dialect),
            get: format!("SELECT value FROM {TABLE} WHERE name = ? AND expires > ?").into(),
            set: format!("{insert} (?, ?, ?) {set}").into(),
            set_locked: format!(
                "INSERT INTO {TABLE} (name, value, expires) SELECT ?, ?, ? FROM {TABLE} AS held \
                 WHERE held.name = ? AND {} = ? AND held.expires > ? {set}",
                value.replace("value", "held.value")
            )
            .into(),
            add: format!("{insert} (?, ?, ?) {add}").into(),
            add_nows: nows.0,
            delete: format!("DELETE FROM {TABLE} WHERE name = ? AND expires > ?").into(),
            increment: format!("{insert} (?, '1', ?) {increment}").into(),
            increment_nows: nows.1,
            renew: format!("UPDATE {TABLE} SET expires = ? WHERE name = ? AND {value} = ? AND expires > ?")
                .into(),
            unlock: format!("DELETE FROM {TABLE} WHERE name = ? AND {value} = ? AND expires > ?").into(),
            expire: format!("DELETE FROM {TABLE} WHERE {expired}").into(),
            held: format!("SELECT value, expires FROM {TABLE} WHERE name = ? AND expires > ?").into(),
            scan: scan(dialect, ">="),
            scan_behind: scan(dialect, ">"),
        }
    }
}

/// Reads a page.
fn scan(dialect: Dialect, from: &str) -> Arc<str> {
    let name = match dialect {
        // It compares texts as a language does.
        Dialect::Postgres => "name COLLATE \"C\"",
        Dialect::Sqlite | Dialect::MySql => "name",
    };
    format!(
        "SELECT name, SUBSTR(value, 1, {MAX_SHOWN_CHARS}), expires FROM {TABLE} \
         WHERE {name} {from} ? AND expires > ? ORDER BY {name} LIMIT ?"
    )
    .into()
}

/// Names are compared byte by byte in all of them.
fn create(dialect: Dialect) -> Vec<Arc<str>> {
    let table = |name: &str, value: &str, more: &str| -> Arc<str> {
        let columns = format!("name {name} NOT NULL PRIMARY KEY, value {value} NOT NULL");
        format!("CREATE TABLE IF NOT EXISTS {TABLE} ({columns}, expires BIGINT NOT NULL{more})").into()
    };
    let index = format!("CREATE INDEX IF NOT EXISTS {TABLE}_expires ON {TABLE} (expires)").into();
    match dialect {
        Dialect::MySql => {
            let value = "MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin";
            vec![table("VARBINARY(255)", value, &format!(", KEY {TABLE}_expires (expires)"))]
        }
        Dialect::Sqlite | Dialect::Postgres => vec![table("VARCHAR(255)", "TEXT", ""), index],
    }
}

/// The ends of `set`, `add` and `increment`, and how often the latter two want to know what time it is.
type Upserts = (String, String, String, (usize, usize));

/// `is_number` decides on a value.
fn upserts(is_number: &str) -> Upserts {
    let conflict = "ON CONFLICT (name) DO UPDATE SET";
    let replace = format!("{conflict} value = excluded.value, expires = excluded.expires");
    let add = format!("{replace} WHERE {TABLE}.expires <= ?");
    let is_number = is_number.replace("value", &format!("{TABLE}.value"));
    let next = format!("CAST(CAST({TABLE}.value AS BIGINT) + 1 AS VARCHAR(20))");
    let increment = format!(
        "{conflict} value = CASE WHEN {TABLE}.expires <= ? THEN '1' ELSE {next} END, \
         expires = excluded.expires WHERE {TABLE}.expires <= ? OR ({is_number})"
    );
    (replace, add, increment, (1, 2))
}

/// There is no WHERE, and assignments see those before them.
fn mysql_upserts() -> Upserts {
    let duplicate = "ON DUPLICATE KEY UPDATE";
    let set = format!("{duplicate} value = VALUES(value), expires = VALUES(expires)");
    let add = format!(
        "{duplicate} value = IF(expires <= ?, VALUES(value), value), \
         expires = IF(expires <= ?, VALUES(expires), expires)"
    );
    let number = "value REGEXP '^[0-9]{1,18}$'";
    let increment = format!(
        "{duplicate} value = IF(expires <= ?, '1', IF({number}, CAST(value AS UNSIGNED) + 1, value)), \
         expires = IF({number}, VALUES(expires), expires)"
    );
    (set, add, increment, (2, 1))
}
