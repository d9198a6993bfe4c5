//! What takes long and is done in parts, between two looks at the queue: names replaced in old blocks,
//! decisions about somebody removed.
//!
//! Knows: how blocks are read and written again. Must not know: when it is begun.

use super::block::{Class, OpenBlock, unpack};
use super::codec::Decoder;
use super::file::{self, Db, Trouble};
use super::marks::unmarked;
use super::pseudonym::{self, Keys};
use super::save::{add_key, in_transaction, put};
use super::{Audit, JournalError, Privacy, privacy, retention};
use crate::about::{is_about, is_named_in};
use crate::{Decision, DecisionId};
use memchr::memmem;
use rusqlite::{Connection, Error, OptionalExtension};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::SystemTime;

/// Blocks in one part.
const PART: usize = 16;
/// Blocks whose names are replaced before it is looked for more.
const ANONYMISED: i64 = 64;

/// What takes long.
pub(super) struct Job {
    kind: Kind,
    /// The rows that were not looked at yet.
    rows: Vec<i64>,
    removed: u64,
}

enum Kind {
    /// Replace names as [`Privacy::All`] does.
    Anonymise,
    /// Remove decisions.
    Forget { names: Names, who: String, done: mpsc::SyncSender<Result<u64, JournalError>> },
}

/// What somebody is called.
struct Names {
    /// The domain, for the note about it.
    domain: String,
    /// The address and its pseudonyms, in lower case.
    names: Vec<String>,
}

/// What a part has done.
pub(super) struct Part {
    /// Decisions that were removed.
    pub removed: u64,
    /// Nothing is left to be done.
    pub is_over: bool,
}

impl Job {
    /// Replaces names in blocks that end before a number, if there are any.
    pub fn anonymise(db: &Db, before: i64, open: [i64; 2]) -> Result<Option<Job>, Error> {
        let find = "SELECT id FROM block WHERE privacy < 2 AND last < ?1 AND id NOT IN (?2, ?3) LIMIT ?4";
        let mut statement = db.connection.prepare_cached(find)?;
        let rows = statement.query_map((before, open[0], open[1], ANONYMISED), |row| row.get(0))?;
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let job = Job { kind: Kind::Anonymise, rows, removed: 0 };
        Ok(Some(job).filter(|job| !job.rows.is_empty()))
    }

    /// Removes what names an address.
    pub fn forget(
        db: &Db,
        address: &str,
        who: String,
        keys: &Keys,
        done: mpsc::SyncSender<Result<u64, JournalError>>,
    ) -> Result<Job, Error> {
        let mut statement = db.connection.prepare("SELECT id FROM block")?;
        let rows = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()?;
        let kind = Kind::Forget { names: Names::new(address, keys), who, done };
        Ok(Job { kind, rows, removed: 0 })
    }

    /// Whether somebody waits for it.
    pub fn is_for_somebody(&self) -> bool {
        matches!(self.kind, Kind::Forget { .. })
    }

    /// Does a part of it.
    pub fn go_on(&mut self, db: &mut Db, keys: &mut Keys) -> Result<Part, Error> {
        let rest = self.rows.len().saturating_sub(PART);
        // What is removed must not be found in the file any more.
        db.connection.execute_batch("PRAGMA secure_delete=ON")?;
        let kind = &self.kind;
        let part = &self.rows[rest..];
        let removed = in_transaction(db, |db| {
            let mut removed = 0;
            for row in part {
                removed += rewrite(&db.connection, *row, kind, keys)?;
            }
            if let Kind::Forget { names, .. } = kind
                && rest == 0
            {
                names.remove_from_audit(&db.connection)?;
            }
            Ok(removed)
        });
        db.connection.execute_batch("PRAGMA secure_delete=OFF")?;
        let removed = removed?;
        self.rows.truncate(rest);
        self.removed += removed;
        if rest == 0 {
            if self.is_for_somebody() {
                retention::vacuum(&db.connection, 0)?;
            }
            // The log has pages of before; where somebody still reads them, it is emptied later.
            db.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        Ok(Part { removed, is_over: rest == 0 })
    }

    /// What is to be noted of it.
    pub fn note(&self) -> Option<Audit> {
        let Kind::Forget { names, who, .. } = &self.kind else { return None };
        let what = format!("forget an address{}: {} decisions removed", names.domain, self.removed);
        let at = DecisionId::first_at(SystemTime::now());
        Some(Audit { at, who: who.clone(), what })
    }

    /// Tells whoever waits for it.
    pub fn answer(self, saved: &Result<(), Trouble>, file: &Path) {
        if let Kind::Forget { done, .. } = self.kind {
            let result = saved.clone().map(|()| self.removed).map_err(|trouble| trouble.error(file));
            // Nobody waits any more if it can't be sent.
            let _ = done.send(result);
        }
    }
}

/// Reads a block and writes it again, if something in it changes: how many decisions were removed.
fn rewrite(connection: &Connection, row: i64, kind: &Kind, keys: &mut Keys) -> Result<u64, Error> {
    let get = "SELECT class, config, count, privacy, data FROM block WHERE id = ?1";
    let found = connection
        .prepare_cached(get)?
        .query_row([row], |row| {
            let class = if row.get::<_, i64>(0)? == 0 { Class::Passed } else { Class::Acted };
            let data: Vec<u8> = row.get(4)?;
            Ok((class, row.get::<_, i64>(1)?, file::count(row, 2)?, row.get::<_, u8>(3)?, data))
        })
        .optional()?;
    // It may have been too old meanwhile.
    let Some((class, config, count, privacy, data)) = found else { return Ok(0) };
    let bytes = unpack(&data);
    if let (Ok(bytes), Kind::Forget { names, .. }) = (&bytes, kind)
        && !names.may_be_in(&bytes.to_ascii_lowercase())
    {
        return Ok(0);
    }
    let table = file::table(connection, config)?;
    let decisions: Option<Vec<Decision>> = bytes
        .ok()
        .zip(table.as_ref())
        .and_then(|(bytes, table)| Decoder::new(&bytes, table).collect::<Result<_, _>>().ok());
    let (Some(decisions), Some(table)) = (decisions, table) else {
        // Nobody can read it, so nobody can say that nothing is in it.
        return remove(connection, row, count);
    };
    let privacy = match kind {
        Kind::Anonymise => Privacy::All,
        Kind::Forget { .. } => Privacy::from_number(privacy),
    };
    let mut block = OpenBlock::new(Arc::clone(&table), privacy);
    for decision in decisions {
        match kind {
            Kind::Anonymise => {
                let month = pseudonym::month(decision.id);
                let key = *keys.0.entry(month).or_insert_with(rand::random);
                add_key(connection, month, &key)?;
                block.add(&privacy::replace(&decision, &key, privacy));
            }
            Kind::Forget { names, .. } if is_about(&decision, &names.names) => {}
            Kind::Forget { .. } => block.add(&decision),
        }
    }
    if block.is_empty() {
        return remove(connection, row, count);
    }
    block.row = Some(row);
    put(connection, &block.row(class), config)?;
    Ok(count.saturating_sub(u64::from(block.count())))
}

fn remove(connection: &Connection, row: i64, count: u64) -> Result<u64, Error> {
    connection.prepare_cached("DELETE FROM block WHERE id = ?1")?.execute([row])?;
    Ok(count)
}

impl Names {
    fn new(address: &str, keys: &Keys) -> Names {
        let address = address.trim().to_lowercase();
        let pseudonyms = keys.0.values().map(|key| pseudonym::of_address(&address, key));
        let domain = address.rsplit_once('@').map(|(_, domain)| format!(" of {domain}")).unwrap_or_default();
        Names { domain, names: std::iter::once(address.clone()).chain(pseudonyms).collect() }
    }

    /// Whether one of them may be in the bytes of a block, in lower case.
    fn may_be_in(&self, text: &[u8]) -> bool {
        let has = |part: Vec<u8>| memmem::find(text, &part).is_some();
        self.names.iter().any(|name| unmarked(name).into_iter().all(has))
    }

    /// Removes them from the notes about searches.
    fn remove_from_audit(&self, connection: &Connection) -> Result<(), Error> {
        let mut statement = connection.prepare("SELECT id, what FROM audit")?;
        let lines = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let lines = lines.collect::<Result<Vec<(i64, String)>, _>>()?;
        for (id, what) in lines {
            if is_named_in(what.as_bytes(), &self.names) {
                let change = "UPDATE audit SET what = '(about an address that was forgotten)' WHERE id = ?1";
                connection.execute(change, [id])?;
            }
        }
        Ok(())
    }
}
