//! Looking for decisions in the file: newest first, block by block, most of which are not opened.
//!
//! Knows: tables, filters of blocks. Must not know: who asks, what waits to be written.

use super::block::{may_match, unpack};
use super::bloom::{self, Key};
use super::codec::Decoder;
use super::file::{self, Trouble, look_at_head, open_to_read};
use super::marks::unmarked;
use super::{Audit, Coverage, Found, JournalError, Privacy, Progress, privacy};
use crate::{Decision, DecisionId, Filter, StepTable};
use memchr::memmem;
use rusqlite::{Connection, Error, Row};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Lines of the list of searches and changes that are given back at once.
const MAX_AUDITS: usize = 10_000;

/// A journal that is only read, by a process that does not write to it; a daemon may.
pub struct JournalFile {
    path: PathBuf,
}

impl JournalFile {
    /// Looks whether there is one.
    ///
    /// # Errors
    /// It can't be read, or is not a journal.
    pub fn open(path: &Path) -> Result<JournalFile, JournalError> {
        // Where there is none, the next line says so.
        if let Some(file) = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|it| it.is_file()))
        {
            look_at_head(path, &file).map_err(|trouble| trouble.error(path))?;
        }
        open_to_read(path)?;
        Ok(JournalFile { path: path.to_owned() })
    }

    /// As [`Journal::search`](super::Journal::search).
    ///
    /// # Errors
    /// The file can't be read.
    pub fn search(
        &self,
        filter: &Filter,
        limit: usize,
        before: Option<DecisionId>,
        progress: &Progress,
    ) -> Result<Found, JournalError> {
        search(&self.path, Vec::new(), &Wanted { filter, limit, before, progress })
    }

    /// As [`Journal::get`](super::Journal::get).
    ///
    /// # Errors
    /// The file can't be read.
    pub fn get(&self, id: DecisionId) -> Result<Option<Arc<Decision>>, JournalError> {
        get(&self.path, id)
    }

    /// As [`Journal::coverage`](super::Journal::coverage).
    ///
    /// # Errors
    /// The file can't be read.
    pub fn coverage(&self) -> Result<Coverage, JournalError> {
        covered(&self.path)
    }

    /// As [`Journal::audits`](super::Journal::audits).
    ///
    /// # Errors
    /// The file can't be read.
    pub fn audits(&self, limit: usize) -> Result<Vec<Audit>, JournalError> {
        audits(&self.path, limit)
    }
}

/// What is looked for.
pub(super) struct Wanted<'a> {
    pub filter: &'a Filter,
    pub limit: usize,
    pub before: Option<DecisionId>,
    pub progress: &'a Progress,
}

/// What is known of a block without opening it.
struct Head {
    id: i64,
    last: u64,
    config: i64,
    count: u64,
    privacy: Privacy,
}

/// How a filter is looked for in blocks in which names were replaced alike.
struct Variant {
    filter: Filter,
    keys: Vec<Key>,
    /// Texts of lower case that a block has to have.
    texts: Vec<Vec<u8>>,
}

struct Search<'a> {
    connection: &'a Connection,
    wanted: &'a Wanted<'a>,
    variants: [Vec<Variant>; 3],
    tables: HashMap<i64, Option<Arc<StepTable>>>,
    found: BTreeMap<Reverse<DecisionId>, Arc<Decision>>,
    damaged: u64,
    searched_to: Option<DecisionId>,
}

/// Looks in a file, beside what is given: that is decisions which the file may not have yet.
pub(super) fn search(
    path: &Path,
    held: Vec<Arc<Decision>>,
    wanted: &Wanted<'_>,
) -> Result<Found, JournalError> {
    let connection = open_to_read(path)?;
    in_file(&connection, held, wanted).map_err(|error| Trouble::of(path, &error).error(path))
}

/// Looks only in what is given.
pub(super) fn search_held(held: Vec<Arc<Decision>>, wanted: &Wanted<'_>) -> Found {
    let found = matching(held, wanted);
    finish(found, wanted, Coverage::default())
}

fn matching(held: Vec<Arc<Decision>>, wanted: &Wanted<'_>) -> BTreeMap<Reverse<DecisionId>, Arc<Decision>> {
    let is_wanted =
        |it: &Arc<Decision>| wanted.before.is_none_or(|before| it.id < before) && wanted.filter.matches(it);
    held.into_iter().filter(is_wanted).map(|decision| (Reverse(decision.id), decision)).collect()
}

fn finish(
    found: BTreeMap<Reverse<DecisionId>, Arc<Decision>>,
    wanted: &Wanted<'_>,
    covered: Coverage,
) -> Found {
    let has_more = found.len() > wanted.limit;
    let decisions = found.into_values().take(wanted.limit).collect();
    Found { decisions, has_more, covered, ..Found::default() }
}

fn in_file(connection: &Connection, held: Vec<Arc<Decision>>, wanted: &Wanted<'_>) -> Result<Found, Error> {
    // All of it is read at one moment, also when blocks are removed meanwhile.
    connection.execute_batch("BEGIN")?;
    let keys = file::keys(connection)?;
    let variants = [Privacy::None, Privacy::Addresses, Privacy::All].map(|level| {
        let filters = privacy::filters(wanted.filter, &keys, level);
        filters.into_iter().map(Variant::new).collect::<Vec<_>>()
    });
    let found = matching(held, wanted);
    let tables = HashMap::new();
    let mut search = Search { connection, wanted, variants, tables, found, damaged: 0, searched_to: None };
    search.run()?;
    let Search { mut found, damaged, searched_to, .. } = search;
    if let Some(to) = searched_to {
        // What is older comes with the rest of its time.
        found.retain(|Reverse(id), _| *id >= to);
    }
    let covered = coverage(connection)?;
    Ok(Found { damaged, searched_to, ..finish(found, wanted, covered) })
}

impl Search<'_> {
    fn run(&mut self) -> Result<(), Error> {
        let Wanted { filter, before, .. } = *self.wanted;
        let since = filter.since.map_or(0, |since| since.number().cast_signed());
        let until = [filter.until, before].into_iter().flatten().min();
        let until = until.map_or(i64::MAX, |until| until.number().cast_signed());
        let class = if filter.failed || is_acted(filter) { 1 } else { 0 };
        let has_keys = self.variants.iter().flatten().any(|variant| !variant.keys.is_empty());
        if !has_keys {
            let count =
                "SELECT coalesce(sum(count), 0) FROM block WHERE last >= ?1 AND first < ?2 AND class >= ?3";
            let total = self.connection.query_row(count, (since, until, class), |row| file::count(row, 0))?;
            self.wanted.progress.set_total(total);
        }
        let heads = "SELECT id, last, config, count, privacy, summary, filter FROM block
                     WHERE last >= ?1 AND first < ?2 AND class >= ?3 ORDER BY last DESC";
        let mut statement = self.connection.prepare(heads)?;
        let mut rows = statement.query((since, until, class))?;
        while let Some(row) = rows.next()? {
            let head = Head::of(row)?;
            if self.is_enough(head.last) {
                break;
            }
            let rest = DecisionId::from_number(head.last + 1);
            // Each time it has to come further than the time before.
            if before.is_none_or(|before| rest < before) && self.wanted.progress.is_over() {
                self.searched_to = Some(rest);
                break;
            }
            let summary = row.get_ref(5)?.as_blob().unwrap_or_default();
            let table = self.table(head.config)?;
            let may_match = table.is_none_or(|table| may_match(summary, filter, &table));
            if may_match && self.may_have(&head, || row.get_ref(6)?.as_blob().map_err(Into::into))? {
                self.open(&head)?;
            }
            self.wanted.progress.add(head.count);
        }
        Ok(())
    }

    /// Whether nothing in blocks that end at this identifier or earlier is needed any more.
    fn is_enough(&self, last: u64) -> bool {
        let needed = self.found.keys().nth(self.wanted.limit);
        needed.is_some_and(|Reverse(id)| id.number() >= last)
    }

    fn may_have<'b>(
        &self,
        head: &Head,
        filter: impl FnOnce() -> Result<&'b [u8], Error>,
    ) -> Result<bool, Error> {
        let variants = &self.variants[head.privacy as usize];
        if variants.iter().any(|variant| variant.keys.is_empty()) {
            return Ok(true);
        }
        let filter = filter()?;
        let has_all = |variant: &Variant| variant.keys.iter().all(|key| bloom::may_have(filter, *key));
        Ok(variants.iter().any(has_all))
    }

    fn table(&mut self, config: i64) -> Result<Option<Arc<StepTable>>, Error> {
        if let Some(known) = self.tables.get(&config) {
            return Ok(known.clone());
        }
        let table = file::table(self.connection, config)?;
        self.tables.insert(config, table.clone());
        Ok(table)
    }

    /// Reads a block.
    fn open(&mut self, head: &Head) -> Result<(), Error> {
        let get = "SELECT data FROM block WHERE id = ?1";
        let data: Vec<u8> = self.connection.prepare_cached(get)?.query_row([head.id], |row| row.get(0))?;
        let (Ok(bytes), Some(table)) = (unpack(&data), self.table(head.config)?) else {
            self.damaged += 1;
            return Ok(());
        };
        let variants = &self.variants[head.privacy as usize];
        let lower = bytes.to_ascii_lowercase();
        let has_texts =
            |variant: &&Variant| variant.texts.iter().all(|text| memmem::find(&lower, text).is_some());
        let variants: Vec<_> = variants.iter().filter(has_texts).collect();
        if variants.is_empty() {
            return Ok(());
        }
        for decision in Decoder::new(&bytes, &table) {
            let Ok(decision) = decision else {
                self.damaged += 1;
                break;
            };
            let is_before = self.wanted.before.is_none_or(|before| decision.id < before);
            if is_before && variants.iter().any(|variant| variant.filter.matches(&decision)) {
                // What waits to be written may have been written meanwhile.
                self.found.entry(Reverse(decision.id)).or_insert_with(|| Arc::new(decision));
            }
        }
        while self.found.len() > self.wanted.limit.saturating_add(1) {
            self.found.pop_last();
        }
        Ok(())
    }
}

/// Whether only decisions in which something was done are wanted.
fn is_acted(filter: &Filter) -> bool {
    !filter.outcome.is_empty() && filter.outcome.iter().all(|outcome| outcome.is_acted())
}

impl Head {
    fn of(row: &Row<'_>) -> Result<Head, Error> {
        Ok(Head {
            id: row.get(0)?,
            last: row.get::<_, i64>(1)?.cast_unsigned(),
            config: row.get(2)?,
            count: file::count(row, 3)?,
            privacy: Privacy::from_number(row.get(4)?),
        })
    }
}

impl Variant {
    fn new(filter: Filter) -> Variant {
        Variant { keys: bloom::wanted(&filter), texts: texts(&filter), filter }
    }
}

/// What has to occur in the bytes of a block, without regard to case, for a decision to be wanted: a block
/// without it need not be decoded.
fn texts(filter: &Filter) -> Vec<Vec<u8>> {
    let Filter { from, to, client_name, login, helo, queue, instance, text, about, .. } = filter;
    let client = filter.client.as_ref().filter(|client| !client.contains(['/', ':']));
    let values = [from, to, client_name, login, helo, queue, instance].into_iter().flatten();
    let values = values.chain(client).map(|text| text.to_ascii_lowercase().into_bytes());
    values.chain(text.iter().chain(about).flat_map(|text| unmarked(text))).collect()
}

/// What a file holds.
pub(super) fn covered(path: &Path) -> Result<Coverage, JournalError> {
    let connection = open_to_read(path)?;
    coverage(&connection).map_err(|error| Trouble::of(path, &error).error(path))
}

/// What a file holds, and what is missing.
pub(super) fn coverage(connection: &Connection) -> Result<Coverage, Error> {
    let since = "SELECT class, since FROM coverage";
    let mut statement = connection.prepare(since)?;
    let classes = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let classes: BTreeMap<i64, i64> = classes.collect::<Result<_, _>>()?;
    let id = |number: i64| DecisionId::from_number(number.cast_unsigned());
    let from = classes.values().max().copied();
    let acted = classes.get(&1).copied();
    let lost = "SELECT coalesce(sum(count), 0) FROM loss WHERE at >= ?1";
    let lost = connection.query_row(lost, [acted.or(from).unwrap_or_default()], |row| file::count(row, 0))?;
    Ok(Coverage { from: from.map(id), acted_from: acted.map(id), lost })
}

/// The decision with an identifier.
pub(super) fn get(path: &Path, id: DecisionId) -> Result<Option<Arc<Decision>>, JournalError> {
    let connection = open_to_read(path)?;
    find(&connection, id).map_err(|error| Trouble::of(path, &error).error(path))
}

fn find(connection: &Connection, id: DecisionId) -> Result<Option<Arc<Decision>>, Error> {
    connection.execute_batch("BEGIN")?;
    let number = id.number().cast_signed();
    let blocks = "SELECT config, data FROM block WHERE last >= ?1 AND first <= ?1 ORDER BY last";
    let mut statement = connection.prepare(blocks)?;
    let mut rows = statement.query([number])?;
    while let Some(row) = rows.next()? {
        let data = row.get_ref(1)?.as_blob().unwrap_or_default();
        let (Ok(bytes), Some(table)) = (unpack(data), file::table(connection, row.get(0)?)?) else {
            continue;
        };
        let found = Decoder::new(&bytes, &table).flatten().find(|decision| decision.id == id);
        if let Some(decision) = found {
            return Ok(Some(Arc::new(decision)));
        }
    }
    Ok(None)
}

/// Who did what, newest first.
pub(super) fn audits(path: &Path, limit: usize) -> Result<Vec<Audit>, JournalError> {
    let connection = open_to_read(path)?;
    let read = || {
        let all = "SELECT at, who, what FROM audit ORDER BY id DESC LIMIT ?1";
        let mut statement = connection.prepare(all)?;
        let limit = i64::try_from(limit.min(MAX_AUDITS)).unwrap_or_default();
        let audits = statement.query_map([limit], |row| {
            let at = DecisionId::from_number(row.get::<_, i64>(0)?.cast_unsigned());
            Ok(Audit { at, who: row.get(1)?, what: row.get(2)? })
        })?;
        audits.collect::<Result<Vec<_>, Error>>()
    };
    read().map_err(|error| Trouble::of(path, &error).error(path))
}
