//! What is written each second, in one transaction.
//!
//! Knows: tables, blocks as rows. Must not know: when it is done, what is done after a failure.

use super::block::Row;
use super::file::{Db, count};
use super::pseudonym::Key;
use super::retention::{self, OpenRows, Removed};
use super::store::{More, Saved};
use super::{Settings, incident};
use crate::DecisionId;
use rusqlite::{Connection, Error};
use std::time::SystemTime;

/// Writes blocks and the rest, and removes what has to go for them.
pub(super) fn write(
    db: &mut Db,
    settings: &Settings,
    open: OpenRows,
    rows: &[&Row],
    more: &More<'_>,
) -> Result<Saved, Error> {
    let room: usize = rows.iter().map(|row| row.size()).sum();
    let work = |db: &mut Db| {
        let removed = retention::remove(&db.connection, settings, open, room as u64)?;
        if removed.blocks > 0 {
            db.forget_configs();
        }
        let mut saved = Saved { removed: removed.decisions, ..Saved::default() };
        for row in rows {
            let config = db.config(&row.table, row.first)?;
            let (id, before) = put(&db.connection, row, config)?;
            saved.ids.push(Some(id));
            saved.added += u64::from(row.count).saturating_sub(before);
        }
        note(&db.connection, more)?;
        incident::add(&db.connection, more.incidents)?;
        Ok(saved)
    };
    let saved = in_transaction(db, work);
    if saved.is_err() {
        db.forget_configs();
    }
    saved
}

/// Does work in a transaction that is ended whatever comes of it.
pub(super) fn in_transaction<T>(
    db: &mut Db,
    work: impl FnOnce(&mut Db) -> Result<T, Error>,
) -> Result<T, Error> {
    db.connection.execute_batch("BEGIN IMMEDIATE")?;
    let done = work(db).and_then(|done| db.connection.execute_batch("COMMIT").map(|()| done));
    if done.is_err() && !db.connection.is_autocommit() {
        // SQLite has ended it itself after some failures, and after all others this works.
        let _ = db.connection.execute_batch("ROLLBACK");
    }
    done
}

/// Writes a block: its row, and how many decisions of it were there before.
pub(super) fn put(connection: &Connection, row: &Row, config: i64) -> Result<(i64, u64), Error> {
    let class = row.class as i64;
    let privacy = row.privacy as i64;
    let (first, last) = (row.first.cast_signed(), row.last.cast_signed());
    if let Some(id) = row.row {
        let before = "SELECT count FROM block WHERE id = ?1";
        let before = connection.prepare_cached(before)?.query_row([id], |row| count(row, 0));
        let update = "UPDATE block SET first = ?2, last = ?3, class = ?4, config = ?5, count = ?6, \
                      privacy = ?7, summary = ?8, filter = ?9, data = ?10 WHERE id = ?1";
        let values =
            (id, first, last, class, config, row.count, privacy, &row.summary, &row.filter, &row.data);
        if connection.prepare_cached(update)?.execute(values)? == 1 {
            return Ok((id, before?));
        }
    }
    let insert = "INSERT INTO block(first, last, class, config, count, privacy, summary, filter, data) \
                  VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let values = (first, last, class, config, row.count, privacy, &row.summary, &row.filter, &row.data);
    Ok((connection.prepare_cached(insert)?.insert(values)?, 0))
}

fn note(connection: &Connection, more: &More<'_>) -> Result<(), Error> {
    for audit in more.audits {
        let add = "INSERT INTO audit(at, who, what) VALUES(?1, ?2, ?3)";
        let values = (audit.at.number().cast_signed(), &audit.who, &audit.what);
        connection.prepare_cached(add)?.execute(values)?;
    }
    if more.lost > 0 {
        let now = DecisionId::first_at(SystemTime::now()).number().cast_signed();
        let add = "INSERT INTO loss(at, count) VALUES(?1, ?2) \
                   ON CONFLICT(at) DO UPDATE SET count = count + excluded.count";
        connection.prepare_cached(add)?.execute((now, more.lost.cast_signed()))?;
    }
    Ok(())
}

/// Adds the key of a month, unless there is one.
pub(super) fn add_key(connection: &Connection, month: i64, key: &[u8; 32]) -> Result<(), Error> {
    let add = "INSERT OR IGNORE INTO secret(month, key) VALUES(?1, ?2)";
    connection.prepare_cached(add)?.execute((month, key))?;
    Ok(())
}

/// The key of a month, which is made if there is none.
pub(super) fn key(connection: &Connection, month: i64) -> Result<Key, Error> {
    add_key(connection, month, &rand::random())?;
    let get = "SELECT key FROM secret WHERE month = ?1";
    connection.prepare_cached(get)?.query_row([month], |row| row.get(0))
}

/// Removes what is too old or too much, and gives some pages back.
pub(super) fn look_after(db: &mut Db, settings: &Settings, open: OpenRows) -> Result<Removed, Error> {
    let mut removed = Removed::default();
    if retention::is_due(&db.connection, settings, open)? {
        removed = in_transaction(db, |db| retention::remove(&db.connection, settings, open, 0))?;
        db.forget_configs();
    }
    if let Some(age) = settings.anonymise_after {
        incident::remove_personal(&db.connection, retention::before(age))?;
    }
    retention::shrink(&db.connection, settings)?;
    Ok(removed)
}
