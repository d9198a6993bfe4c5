//! Looking for decisions in the file: newest first, block by block, most of which are not opened.
//!
//! Knows: tables, filters of blocks. Must not know: who asks, what waits to be written.

use super::block::{may_match, unpack};
use super::bloom::{self, Key};
use super::codec::Decoder;
use super::file::{Trouble, look_at_head, open_to_read};
use super::in_file::FileReader;
use super::marks::unmarked;
use super::store::{Head, Range, Read};
use super::{Audit, Coverage, Found, Incident, JournalError, Privacy, Progress, database, privacy};
use super::{Settings, database::Shared};
use crate::{Decision, DecisionId, Filter, StepTable};
use memchr::memmem;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Lines of the list of searches and changes that are given back at once.
pub(super) const MAX_AUDITS: usize = 10_000;

/// Where not everything is read at one moment, blocks that have grown meanwhile end at most this much before
/// the newest one that was there at the begin, in numbers: a minute, for clocks that differ.
const GROWN: u64 = 6_000 << 14;

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
        self.place().search(Vec::new(), &Wanted { filter, limit, before, progress })
    }

    /// As [`Journal::get`](super::Journal::get).
    ///
    /// # Errors
    /// The file can't be read.
    pub fn get(&self, id: DecisionId) -> Result<Option<Arc<Decision>>, JournalError> {
        self.place().get(id)
    }

    /// As [`Journal::coverage`](super::Journal::coverage).
    ///
    /// # Errors
    /// The file can't be read.
    pub fn coverage(&self) -> Result<Coverage, JournalError> {
        self.place().covered()
    }

    /// As [`Journal::audits`](super::Journal::audits).
    ///
    /// # Errors
    /// The file can't be read.
    pub fn audits(&self, limit: usize) -> Result<Vec<Audit>, JournalError> {
        self.place().audits(limit)
    }

    /// As [`Journal::incidents`](super::Journal::incidents).
    ///
    /// # Errors
    /// The file can't be read.
    pub fn incidents(&self, limit: usize) -> Result<Vec<Incident>, JournalError> {
        self.place().incidents(limit)
    }

    fn place(&self) -> Place {
        Place { file: self.path.clone(), database: None }
    }
}

/// Where decisions are found.
pub(super) struct Place {
    file: PathBuf,
    database: Option<Shared>,
}

/// What is looked for.
pub(super) struct Wanted<'a> {
    pub filter: &'a Filter,
    pub limit: usize,
    pub before: Option<DecisionId>,
    pub progress: &'a Progress,
}

/// How a filter is looked for in blocks in which names were replaced alike.
struct Variant {
    filter: Filter,
    keys: Vec<Key>,
    /// Texts of lower case that a block has to have.
    texts: Vec<Vec<u8>>,
}

struct Search<'a> {
    reader: &'a mut dyn Read,
    wanted: &'a Wanted<'a>,
    variants: [Vec<Variant>; 3],
    tables: HashMap<i64, Option<Arc<StepTable>>>,
    found: BTreeMap<Reverse<DecisionId>, Arc<Decision>>,
    /// Blocks that were looked at, where they may grow meanwhile.
    seen: HashSet<i64>,
    damaged: u64,
    searched_to: Option<DecisionId>,
}

impl Place {
    pub fn of(settings: &Settings) -> Place {
        Place { file: settings.file.clone(), database: settings.database.clone() }
    }

    fn open(&self) -> Result<Box<dyn Read>, JournalError> {
        match &self.database {
            Some(shared) => database::reader(Arc::clone(&shared.database)),
            None => Ok(Box::new(FileReader::open(&self.file)?)),
        }
    }

    fn read<T>(&self, read: impl FnOnce(&mut dyn Read) -> Result<T, Trouble>) -> Result<T, JournalError> {
        read(&mut *self.open()?).map_err(|trouble| trouble.error(&self.file))
    }

    /// Looks beside what is given: that is decisions which may not be there yet.
    pub fn search(&self, held: Vec<Arc<Decision>>, wanted: &Wanted<'_>) -> Result<Found, JournalError> {
        self.read(|reader| in_blocks(reader, held, wanted))
    }

    /// What is held.
    pub fn covered(&self) -> Result<Coverage, JournalError> {
        self.read(|reader| reader.coverage())
    }

    /// The decision with an identifier.
    pub fn get(&self, id: DecisionId) -> Result<Option<Arc<Decision>>, JournalError> {
        self.read(|reader| find(reader, id))
    }

    /// Who did what, newest first.
    pub fn audits(&self, limit: usize) -> Result<Vec<Audit>, JournalError> {
        self.read(|reader| reader.audits(limit))
    }

    /// The latest things that happened, newest first.
    pub fn incidents(&self, limit: usize) -> Result<Vec<Incident>, JournalError> {
        self.read(|reader| reader.incidents(limit))
    }
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

fn in_blocks(reader: &mut dyn Read, held: Vec<Arc<Decision>>, wanted: &Wanted<'_>) -> Result<Found, Trouble> {
    let keys = reader.keys()?;
    let variants = [Privacy::None, Privacy::Addresses, Privacy::All].map(|level| {
        let filters = privacy::filters(wanted.filter, &keys, level);
        filters.into_iter().map(Variant::new).collect::<Vec<_>>()
    });
    let (found, seen) = (matching(held, wanted), HashSet::new());
    let tables = HashMap::new();
    let mut search = Search { reader, wanted, variants, tables, found, seen, damaged: 0, searched_to: None };
    search.run()?;
    let Search { mut found, damaged, searched_to, reader, .. } = search;
    if let Some(to) = searched_to {
        // What is older comes with the rest of its time.
        found.retain(|Reverse(id), _| *id >= to);
    }
    let covered = reader.coverage()?;
    Ok(Found { damaged, searched_to, ..finish(found, wanted, covered) })
}

impl Search<'_> {
    fn run(&mut self) -> Result<(), Trouble> {
        let Wanted { filter, before, .. } = *self.wanted;
        let since = filter.since.map_or(0, |since| since.number().cast_signed());
        let until = [filter.until, before].into_iter().flatten().min();
        let until = until.map_or(i64::MAX, |until| until.number().cast_signed());
        // Those that a shadow has decided otherwise stand in a class of their own, and in another one too.
        let classes = match filter.shadow_differs {
            true => (2, 2),
            false if filter.failed || is_acted(filter) => (1, 1),
            false => (0, 1),
        };
        let range = Range { since, until, classes };
        let has_keys = self.variants.iter().flatten().any(|variant| !variant.keys.is_empty());
        if !has_keys {
            self.wanted.progress.set_total(self.reader.count(range)?);
        }
        let newest = self.look_through(range, has_keys)?;
        if let Some(newest) = newest.filter(|_| !self.reader.is_of_one_moment()) {
            let since = since.max(newest.saturating_sub(GROWN).cast_signed());
            self.look_through(Range { since, ..range }, has_keys)?;
        }
        Ok(())
    }

    /// Looks at the blocks of a range that were not looked at yet: where the last of them ends.
    fn look_through(&mut self, range: Range, has_keys: bool) -> Result<Option<u64>, Trouble> {
        let (mut after, mut newest) = (None, None);
        loop {
            let heads = self.reader.heads(range, after, has_keys)?;
            let Some(end) = heads.last() else { return Ok(newest) };
            after = Some((end.last, end.id));
            for head in &heads {
                newest = newest.max(Some(head.last));
                if !self.look_at(head)? {
                    return Ok(newest);
                }
            }
        }
    }

    /// Looks at a block; false if nothing in earlier ones is needed, or the time is over.
    fn look_at(&mut self, head: &Head) -> Result<bool, Trouble> {
        let Wanted { filter, before, .. } = *self.wanted;
        if self.is_enough(head.last) {
            return Ok(false);
        }
        let rest = DecisionId::from_number(head.last + 1);
        if self.searched_to.is_some_and(|to| rest <= to) {
            return Ok(false);
        }
        // Each time it has to come further than the time before.
        if before.is_none_or(|before| rest < before) && self.wanted.progress.is_over() {
            self.searched_to = Some(rest);
            return Ok(false);
        }
        if !self.reader.is_of_one_moment() && !self.seen.insert(head.id) {
            return Ok(true);
        }
        let table = self.table(head.config)?;
        let may_match = table.is_none_or(|table| may_match(&head.summary, filter, &table));
        if may_match && self.may_have(head) {
            self.open(head)?;
        }
        self.wanted.progress.add(head.count);
        Ok(true)
    }

    /// Whether nothing in blocks that end at this identifier or earlier is needed any more.
    fn is_enough(&self, last: u64) -> bool {
        let needed = self.found.keys().nth(self.wanted.limit);
        needed.is_some_and(|Reverse(id)| id.number() >= last)
    }

    fn may_have(&self, head: &Head) -> bool {
        let variants = &self.variants[head.privacy as usize];
        let has_all = |variant: &Variant| variant.keys.iter().all(|key| bloom::may_have(&head.filter, *key));
        variants.iter().any(|variant| variant.keys.is_empty() || has_all(variant))
    }

    fn table(&mut self, config: i64) -> Result<Option<Arc<StepTable>>, Trouble> {
        if let Some(known) = self.tables.get(&config) {
            return Ok(known.clone());
        }
        let table = self.reader.table(config)?;
        self.tables.insert(config, table.clone());
        Ok(table)
    }

    /// Reads a block.
    fn open(&mut self, head: &Head) -> Result<(), Trouble> {
        // It may have been removed meanwhile.
        let Some(data) = self.reader.data(head.id)? else { return Ok(()) };
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

fn find(reader: &mut dyn Read, id: DecisionId) -> Result<Option<Arc<Decision>>, Trouble> {
    let number = id.number().cast_signed();
    // What a shadow has decided otherwise is a record with more in it.
    let range = |classes| Range { since: number, until: number + 1, classes };
    let mut blocks = reader.begins(range((2, 2)))?;
    blocks.extend(reader.begins(range((0, 1)))?);
    for block in blocks {
        let Some(data) = reader.data(block.id)? else { continue };
        let (Ok(bytes), Some(table)) = (unpack(&data), reader.table(block.config)?) else { continue };
        let found = Decoder::new(&bytes, &table).flatten().find(|decision| decision.id == id);
        if let Some(decision) = found {
            return Ok(Some(Arc::new(decision)));
        }
    }
    Ok(None)
}
