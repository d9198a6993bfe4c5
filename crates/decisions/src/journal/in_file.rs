//! A file as the place of blocks.
//!
//! Knows: tables of SQLite. Must not know: what a block holds, who searches.

use super::block::{Class, Row};
use super::file::{self, Db, Standing, Trouble, count, open_to_read};
use super::pseudonym::{Key, Keys};
use super::retention::{self, OpenRows, Size};
use super::save;
use super::search::MAX_AUDITS;
use super::store::{Begin, Head, More, Range, Read, Saved, Stored, Write};
use super::{Audit, Coverage, Incident, JournalError, Privacy, Settings, incident};
use crate::{DecisionId, StepTable};
use rusqlite::{Connection, Error, OptionalExtension};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Heads of blocks that are read at once.
const PAGE: i64 = 256;
/// Blocks whose names are replaced before it is looked for more.
const NAMED: i64 = 64;

/// A file that is read.
pub(super) struct FileReader {
    connection: Connection,
    path: PathBuf,
}

impl FileReader {
    /// The file as it is now, also when blocks are removed meanwhile.
    pub fn open(path: &Path) -> Result<FileReader, JournalError> {
        let connection = open_to_read(path)?;
        let begun = connection.execute_batch("BEGIN");
        begun.map_err(|error| Trouble::of(path, &error).error(path))?;
        Ok(FileReader::of(connection, path))
    }

    /// One that was opened.
    pub fn of(connection: Connection, path: &Path) -> FileReader {
        FileReader { connection, path: path.to_owned() }
    }

    fn said<T>(&self, result: Result<T, Error>) -> Result<T, Trouble> {
        result.map_err(|error| Trouble::of(&self.path, &error))
    }

    fn read_heads(
        &self,
        range: Range,
        after: Option<(u64, i64)>,
        has_filter: bool,
    ) -> Result<Vec<Head>, Error> {
        let heads = "SELECT id, last, config, count, privacy, summary, CASE WHEN ?6 THEN filter END
                     FROM block WHERE last >= ?1 AND first < ?2 AND class BETWEEN ?3 AND ?8
                     AND last <= ?4 AND (last < ?4 OR id < ?5) ORDER BY last DESC, id DESC LIMIT ?7";
        let (last, id) = after.map_or((i64::MAX, i64::MAX), |(last, id)| (last.cast_signed(), id));
        let values = (range.since, range.until, range.classes.0, last, id, has_filter, PAGE, range.classes.1);
        let mut statement = self.connection.prepare_cached(heads)?;
        let heads = statement.query_map(values, |row| {
            Ok(Head {
                id: row.get(0)?,
                last: row.get::<_, i64>(1)?.cast_unsigned(),
                config: row.get(2)?,
                count: count(row, 3)?,
                privacy: Privacy::from_number(row.get(4)?),
                summary: row.get(5)?,
                filter: row.get::<_, Option<_>>(6)?.unwrap_or_default(),
            })
        })?;
        heads.collect()
    }

    fn read_begins(&self, range: Range) -> Result<Vec<Begin>, Error> {
        let blocks = "SELECT id, first, config, count FROM block
                      WHERE last >= ?1 AND first < ?2 AND class BETWEEN ?3 AND ?4";
        let mut statement = self.connection.prepare_cached(blocks)?;
        let (first, last) = range.classes;
        let begins = statement.query_map((range.since, range.until, first, last), |row| {
            let first = row.get::<_, i64>(1)?.cast_unsigned();
            Ok(Begin { id: row.get(0)?, first, config: row.get(2)?, count: count(row, 3)? })
        })?;
        begins.collect()
    }

    fn read_coverage(&self) -> Result<Coverage, Error> {
        let since = "SELECT class, since FROM coverage";
        let mut statement = self.connection.prepare(since)?;
        let classes = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
        let classes: BTreeMap<i64, i64> = classes.collect::<Result<_, _>>()?;
        let lost = |since: i64| {
            let lost = "SELECT coalesce(sum(count), 0) FROM loss WHERE at >= ?1";
            self.connection.query_row(lost, [since], |row| count(row, 0))
        };
        Coverage::of(&classes, lost)
    }

    fn read_audits(&self, limit: usize) -> Result<Vec<Audit>, Error> {
        let all = "SELECT at, who, what FROM audit ORDER BY id DESC LIMIT ?1";
        let mut statement = self.connection.prepare(all)?;
        let limit = i64::try_from(limit.min(MAX_AUDITS)).unwrap_or_default();
        let audits = statement.query_map([limit], |row| {
            let at = DecisionId::from_number(row.get::<_, i64>(0)?.cast_unsigned());
            Ok(Audit { at, who: row.get(1)?, what: row.get(2)? })
        })?;
        audits.collect()
    }
}

impl Read for FileReader {
    fn is_of_one_moment(&self) -> bool {
        true
    }

    fn keys(&mut self) -> Result<Keys, Trouble> {
        self.said(file::keys(&self.connection))
    }

    fn coverage(&mut self) -> Result<Coverage, Trouble> {
        self.said(self.read_coverage())
    }

    fn count(&mut self, range: Range) -> Result<u64, Trouble> {
        let sum = "SELECT coalesce(sum(count), 0) FROM block \
                   WHERE last >= ?1 AND first < ?2 AND class BETWEEN ?3 AND ?4";
        let values = (range.since, range.until, range.classes.0, range.classes.1);
        self.said(self.connection.query_row(sum, values, |row| count(row, 0)))
    }

    fn heads(
        &mut self,
        range: Range,
        after: Option<(u64, i64)>,
        has_filter: bool,
    ) -> Result<Vec<Head>, Trouble> {
        self.said(self.read_heads(range, after, has_filter))
    }

    fn begins(&mut self, range: Range) -> Result<Vec<Begin>, Trouble> {
        self.said(self.read_begins(range))
    }

    fn data(&mut self, id: i64) -> Result<Option<Vec<u8>>, Trouble> {
        let get = "SELECT data FROM block WHERE id = ?1";
        let read = |connection: &Connection| {
            connection.prepare_cached(get)?.query_row([id], |row| row.get(0)).optional()
        };
        self.said(read(&self.connection))
    }

    fn table(&mut self, config: i64) -> Result<Option<Arc<StepTable>>, Trouble> {
        self.said(file::table(&self.connection, config))
    }

    fn audits(&mut self, limit: usize) -> Result<Vec<Audit>, Trouble> {
        self.said(self.read_audits(limit))
    }

    fn incidents(&mut self, limit: usize) -> Result<Vec<Incident>, Trouble> {
        self.said(incident::latest(&self.connection, limit))
    }
}

impl Db {
    fn said<T>(&self, result: Result<T, Error>) -> Result<T, Trouble> {
        result.map_err(|error| self.trouble(&error))
    }

    fn rows(&self, find: &str, values: &[i64]) -> Result<Vec<i64>, Trouble> {
        let read = || {
            let mut statement = self.connection.prepare_cached(find)?;
            let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get(0))?;
            rows.collect()
        };
        self.said(read())
    }

    fn read_stored(&self, id: i64) -> Result<Option<Stored>, Error> {
        let get = "SELECT class, config, count, privacy, data FROM block WHERE id = ?1";
        let stored = self.connection.prepare_cached(get)?.query_row([id], |row| {
            Ok(Stored {
                id,
                class: Class::from_number(row.get(0)?),
                config: row.get(1)?,
                count: count(row, 2)?,
                privacy: Privacy::from_number(row.get(3)?),
                changes: 0,
                data: row.get(4)?,
            })
        });
        stored.optional()
    }

    fn change_audits(&self, is_meant: &dyn Fn(&str) -> bool, instead: &str) -> Result<(), Error> {
        let mut statement = self.connection.prepare("SELECT id, what FROM audit")?;
        let lines = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let lines = lines.collect::<Result<Vec<(i64, String)>, _>>()?;
        for (id, _) in lines.iter().filter(|(_, what)| is_meant(what)) {
            self.connection.execute("UPDATE audit SET what = ?2 WHERE id = ?1", (id, instead))?;
        }
        Ok(())
    }
}

impl Write for Db {
    fn standing(&self) -> Standing {
        Db::standing(self)
    }

    fn examine(&mut self) -> Result<(), Trouble> {
        let check = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
        match self.said(check)? {
            good if good == "ok" => Ok(()),
            bad => Err(Trouble::Damaged(bad.lines().last().unwrap_or_default().to_owned())),
        }
    }

    fn held(&mut self) -> Result<u64, Trouble> {
        let held = "SELECT coalesce(sum(count), 0) FROM block";
        self.said(self.connection.query_row(held, [], |row| count(row, 0)))
    }

    fn used(&self) -> Option<u64> {
        Size::of(&self.connection).ok().map(Size::used)
    }

    fn keys(&mut self, known: &Keys) -> Result<Keys, Trouble> {
        for (month, key) in &known.0 {
            self.said(save::add_key(&self.connection, *month, key))?;
        }
        self.said(file::keys(&self.connection))
    }

    fn key(&mut self, month: i64) -> Result<Key, Trouble> {
        self.said(save::key(&self.connection, month))
    }

    fn save(
        &mut self,
        settings: &Settings,
        open: OpenRows,
        rows: &[&Row],
        more: &More<'_>,
    ) -> Result<Saved, Trouble> {
        let saved = save::write(self, settings, open, rows, more);
        self.said(saved)
    }

    fn look_after(&mut self, settings: &Settings, open: OpenRows) -> Result<u64, Trouble> {
        let removed = save::look_after(self, settings, open);
        self.said(removed).map(|removed| removed.decisions)
    }

    fn named_blocks(&mut self, before: i64, open: OpenRows) -> Result<Vec<i64>, Trouble> {
        let find = "SELECT id FROM block WHERE privacy < 2 AND last < ?1 AND id NOT IN (?2, ?3, ?4) LIMIT ?5";
        self.rows(find, &[before, open[0], open[1], open[2], NAMED])
    }

    fn all_blocks(&mut self) -> Result<Vec<i64>, Trouble> {
        self.rows("SELECT id FROM block", &[])
    }

    fn begin_again(&mut self) -> Result<(), Trouble> {
        // What is removed must not be found in the file any more.
        self.said(self.connection.execute_batch("PRAGMA secure_delete=ON; BEGIN IMMEDIATE"))
    }

    fn end_again(&mut self, is_good: bool) -> Result<(), Trouble> {
        let ended = if is_good { self.connection.execute_batch("COMMIT") } else { Ok(()) };
        if !self.connection.is_autocommit() {
            // SQLite has ended it itself after some failures, and after all others this works.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.said(self.connection.execute_batch("PRAGMA secure_delete=OFF"))?;
        self.said(ended)
    }

    fn stored(&mut self, id: i64) -> Result<Option<Stored>, Trouble> {
        self.said(self.read_stored(id))
    }

    fn table(&mut self, config: i64) -> Result<Option<Arc<StepTable>>, Trouble> {
        self.said(file::table(&self.connection, config))
    }

    fn replace(&mut self, stored: &Stored, row: Option<&Row>) -> Result<bool, Trouble> {
        let done = match row {
            Some(row) => save::put(&self.connection, row, stored.config).map(drop),
            None => self.connection.execute("DELETE FROM block WHERE id = ?1", [stored.id]).map(drop),
        };
        self.said(done).map(|()| true)
    }

    fn replace_audits(&mut self, is_meant: &dyn Fn(&str) -> bool, instead: &str) -> Result<(), Trouble> {
        self.said(self.change_audits(is_meant, instead))
    }

    fn forget_incidents(&mut self, names: &[String]) -> Result<(), Trouble> {
        self.said(incident::forget(&self.connection, names))
    }

    fn finish_again(&mut self, is_all: bool) -> Result<(), Trouble> {
        if is_all {
            self.said(retention::vacuum(&self.connection, 0))?;
        }
        // The log has pages of before; where somebody still reads them, it is emptied later.
        self.said(self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
    }
}
