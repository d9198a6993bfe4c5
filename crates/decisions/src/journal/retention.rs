//! How long and how much is kept: whole blocks are removed, the oldest first, and pages given back.
//!
//! Knows: blocks' times and sizes. Must not know: what is in them, when it is done.

use super::Settings;
use super::block::Class;
use super::file::count;
use crate::DecisionId;
use rusqlite::{Connection, OptionalExtension};
use std::time::{Duration, SystemTime};

/// Blocks that are removed at once, at most, so that nothing waits for it.
const MOST_AT_ONCE: usize = 64;
/// Pages that are given back at once.
const PAGES_AT_ONCE: i64 = 256;
/// Free pages that a file may have, beside a tenth of all.
const FREE_PAGES: i64 = 256;
/// Lines of the list of searches and changes that are kept.
pub(super) const MAX_AUDITS: i64 = 100_000;

/// The rows that are still written, of each class; -1 where there is none.
pub(super) type OpenRows = [i64; Class::ALL.len()];

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Removed {
    /// Blocks.
    pub blocks: u64,
    /// Their decisions.
    pub decisions: u64,
}

/// The size of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Size {
    page: i64,
    pages: i64,
    free: i64,
}

impl Size {
    pub fn of(connection: &Connection) -> Result<Size, rusqlite::Error> {
        let number = |pragma: &str| connection.prepare_cached(pragma)?.query_row([], |row| row.get(0));
        Ok(Size {
            page: number("PRAGMA page_size")?,
            pages: number("PRAGMA page_count")?,
            free: number("PRAGMA freelist_count")?,
        })
    }

    /// Bytes in use.
    pub fn used(self) -> u64 {
        u64::try_from((self.pages - self.free).saturating_mul(self.page)).unwrap_or_default()
    }

    fn total(self) -> u64 {
        u64::try_from(self.pages.saturating_mul(self.page)).unwrap_or_default()
    }
}

/// What the blocks may use, so that the file with what is added between two looks is not larger than it may
/// be.
pub(super) fn budget(settings: &Settings) -> u64 {
    settings.max_size - settings.max_size / 16
}

/// Removes, within a transaction, what is too old or too much; `open` are the rows that are still written,
/// and `room` the bytes that are added next.
pub(super) fn remove(
    connection: &Connection,
    settings: &Settings,
    open: OpenRows,
    room: u64,
) -> Result<Removed, rusqlite::Error> {
    let mut removed = Removed::default();
    for (class, keep) in Class::ALL.into_iter().zip([settings.keep, settings.keep_acted, settings.keep_acted])
    {
        let before = before(keep);
        while removed.blocks < MOST_AT_ONCE as u64
            && remove_oldest(connection, class, before, open, &mut removed)?
        {}
    }
    let mut blocks = 0;
    while blocks < MOST_AT_ONCE && Size::of(connection)?.used() + room > budget(settings) {
        let mut oldest = |class| remove_oldest(connection, class, i64::MAX, open, &mut removed);
        if !oldest(Class::Passed)? && !oldest(Class::ShadowDiffers)? && !oldest(Class::Acted)? {
            break;
        }
        blocks += 1;
    }
    if removed.blocks > 0 {
        tidy(connection)?;
    }
    Ok(removed)
}

/// Whether there is something to remove.
pub(super) fn is_due(
    connection: &Connection,
    settings: &Settings,
    open: OpenRows,
) -> Result<bool, rusqlite::Error> {
    let find = "SELECT EXISTS (SELECT 1 FROM block WHERE class = ?1 AND last < ?2
                AND id NOT IN (?3, ?4, ?5))";
    for (class, keep) in Class::ALL.into_iter().zip([settings.keep, settings.keep_acted, settings.keep_acted])
    {
        let values = (class as i64, before(keep), open[0], open[1], open[2]);
        if connection.prepare_cached(find)?.query_row(values, |row| row.get(0))? {
            return Ok(true);
        }
    }
    Ok(Size::of(connection)?.used() > budget(settings))
}

/// The smallest number of what is younger than this.
pub(super) fn before(age: Duration) -> i64 {
    let time = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    DecisionId::first_at(time).number().cast_signed()
}

/// Removes the oldest block of a class that ended before a number: whether there was one.
fn remove_oldest(
    connection: &Connection,
    class: Class,
    before: i64,
    open: OpenRows,
    removed: &mut Removed,
) -> Result<bool, rusqlite::Error> {
    let oldest = "SELECT id, last, count FROM block WHERE class = ?1 AND last < ?2 AND id NOT IN (?3, ?4, ?5)
                  ORDER BY last LIMIT 1";
    let values = (class as i64, before, open[0], open[1], open[2]);
    let found: Option<(i64, i64, u64)> = connection
        .prepare_cached(oldest)?
        .query_row(values, |row| Ok((row.get(0)?, row.get(1)?, count(row, 2)?)))
        .optional()?;
    let Some((id, last, count)) = found else { return Ok(false) };
    connection.prepare_cached("DELETE FROM block WHERE id = ?1")?.execute([id])?;
    let since = "UPDATE coverage SET since = max(since, ?2) WHERE class = ?1";
    connection.prepare_cached(since)?.execute((class as i64, last + 1))?;
    removed.blocks += 1;
    removed.decisions += count;
    Ok(true)
}

/// Removes what belonged to blocks that are gone: tables of steps, losses, keys of pseudonyms.
fn tidy(connection: &Connection) -> Result<(), rusqlite::Error> {
    let execute = |sql: &str| connection.prepare_cached(sql)?.execute([]);
    execute("DELETE FROM config WHERE id NOT IN (SELECT config FROM block)")?;
    execute("DELETE FROM loss WHERE at < (SELECT min(since) FROM coverage)")?;
    execute(&format!("DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - {MAX_AUDITS}"))?;
    let oldest = "SELECT min(first) FROM block";
    let first: Option<i64> = connection.prepare_cached(oldest)?.query_row([], |row| row.get(0))?;
    if let Some(first) = first {
        let month = super::pseudonym::month(DecisionId::from_number(first.cast_unsigned()));
        connection.prepare_cached("DELETE FROM secret WHERE month < ?1")?.execute([month])?;
    }
    Ok(())
}

/// Gives pages back to the system, if many are free or the file is too large; whether some may be left to
/// give.
pub(super) fn shrink(connection: &Connection, settings: &Settings) -> Result<bool, rusqlite::Error> {
    let size = Size::of(connection)?;
    let is_large = size.total() > budget(settings);
    let is_loose = size.free > size.pages / 10 + FREE_PAGES;
    if size.free == 0 || !is_large && !is_loose {
        return Ok(false);
    }
    vacuum(connection, PAGES_AT_ONCE)?;
    Ok(size.free > PAGES_AT_ONCE)
}

/// Gives this many free pages back; 0 is all.
pub(super) fn vacuum(connection: &Connection, pages: i64) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    // Each step gives back one page.
    while rows.next()?.is_some() {}
    Ok(())
}
