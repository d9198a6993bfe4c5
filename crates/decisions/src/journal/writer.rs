//! The thread that writes: decisions into blocks, blocks into the file, each second.
//!
//! Knows: when something is written, what is done after a failure. Must not know: who searches.

use super::block::{Class, OpenBlock, Row};
use super::file::{self, Db, Standing, Trouble, Watch};
use super::job::Job;
use super::pseudonym::{self, Keys};
use super::queue::{Command, Queue};
use super::report::Reports;
use super::retention::{self, OpenRows};
use super::store::{More, Saved, Write};
use super::{Event, Incident, JournalError, Privacy, Settings, database, privacy};
use crate::{Decision, DecisionId};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

/// How often open blocks are written, and how soon a failure is tried again.
const SECOND: Duration = Duration::from_secs(1);
/// How often a damaged file is put aside, at most.
const MINUTE: Duration = Duration::from_secs(60);
/// Decisions that are taken from the queue at once.
const BATCH: usize = 256;
/// Full blocks are written when there are this many.
const READY: usize = 4;
/// No block is written to for longer.
const LONGEST: Duration = Duration::from_secs(3_600);

/// What the writer tells others.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub used: u64,
    pub held: u64,
    pub failure: Option<String>,
}

pub(super) struct Writer {
    queue: Arc<Queue>,
    state: Arc<Mutex<State>>,
    settings: Settings,
    reports: Reports,
    store: Option<Box<dyn Write>>,
    watch: Option<Arc<Watch>>,
    keys: Keys,
    /// Taken from the queue, and not in a block yet.
    taken: VecDeque<Arc<Decision>>,
    open: [Option<OpenBlock>; Class::ALL.len()],
    ready: Vec<Row>,
    job: Option<Job>,
    held: u64,
    next_save: Instant,
    next_try: Instant,
    is_failing: bool,
    /// When a damaged file was put aside.
    replaced: Option<Instant>,
    ends: Option<Instant>,
}

impl Writer {
    pub fn new(
        queue: Arc<Queue>,
        state: Arc<Mutex<State>>,
        settings: Settings,
        on_event: Box<dyn Fn(Event) + Send>,
    ) -> Writer {
        let now = Instant::now();
        Writer {
            queue,
            state,
            settings,
            reports: Reports::new(on_event),
            store: None,
            watch: None,
            keys: Keys::default(),
            taken: VecDeque::new(),
            open: [const { None }; Class::ALL.len()],
            ready: Vec::new(),
            job: None,
            held: 0,
            next_save: now,
            next_try: now,
            is_failing: false,
            replaced: None,
            ends: None,
        }
    }

    /// Writes until it is told to end.
    pub fn run(mut self) {
        loop {
            let next = if self.is_failing { self.next_try } else { self.next_save };
            let next = self.ends.map_or(next, |end| next.min(end));
            let pause = next.saturating_duration_since(Instant::now());
            let is_busy = self.job.is_some() && !self.is_failing;
            self.queue.wait(if is_busy { Duration::ZERO } else { pause }, !self.is_failing);
            for command in self.queue.commands() {
                self.obey(command);
            }
            self.turn();
            if let Some(end) = self.ends
                && (self.is_done() || Instant::now() >= end)
            {
                break;
            }
        }
        if let Some(store) = &mut self.store {
            store.end();
        }
        self.queue.close();
    }

    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.taken.is_empty()
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Settings(settings) => {
                if settings.file != self.settings.file || settings.database != self.settings.database {
                    // What waits still belongs to the file that it was sent to.
                    self.save_or_fail();
                    self.begin_other();
                    self.keys = Keys::default();
                }
                self.settings = settings;
                (self.next_save, self.next_try) = (Instant::now(), Instant::now());
            }
            Command::Suspect => self.examine(),
            Command::Forget { address, who, done } => self.forget(&address, who, done),
            Command::End(by) => {
                self.ends = Some(by);
                (self.next_save, self.next_try) = (Instant::now(), Instant::now());
            }
        }
    }

    /// Removes what names an address; the answer comes when all blocks were looked at.
    fn forget(&mut self, address: &str, who: String, done: mpsc::SyncSender<Result<u64, JournalError>>) {
        self.queue.forget_incidents(&address.trim().to_lowercase());
        if self.job.as_ref().is_some_and(Job::is_for_somebody) {
            // Nobody waits any more if it can't be sent.
            let _ = done.send(Err(JournalError::Busy));
            return;
        }
        let written = self.ensure_open().and_then(|()| {
            self.drain()?;
            self.close_blocks();
            self.save()?;
            // What a block lacks that somebody else has changed is in another one then.
            self.drain()?;
            self.close_blocks();
            self.save()
        });
        let begun = written.and_then(|()| {
            let store = self.store.as_mut().ok_or(Trouble::Busy)?;
            // Others may have added to them.
            self.keys = store.keys(&Keys::default())?;
            Ok(Job::forget(store.all_blocks()?, address, who, &self.keys, done.clone()))
        });
        match begun {
            Ok(job) => self.job = Some(job),
            Err(trouble) => {
                let _ = done.send(Err(trouble.clone().error(&self.settings.file)));
                self.fail(trouble);
            }
        }
    }

    /// What is done each time: as long as nothing fails, everything that waits is encoded, and each second
    /// written.
    fn turn(&mut self) {
        if self.is_failing && Instant::now() < self.next_try {
            return;
        }
        let done = self.ensure_open().and_then(|()| {
            // What could not be written before comes first, so that not more and more waits here.
            if self.is_failing {
                self.save()?;
            }
            self.drain()?;
            if Instant::now() >= self.next_save {
                self.close_old_blocks();
                self.save()?;
                self.look_after()?;
                self.next_save = Instant::now() + SECOND;
            }
            self.do_job()
        });
        match done {
            Ok(()) => self.works(),
            Err(trouble) => self.fail(trouble),
        }
    }

    fn works(&mut self) {
        self.is_failing = false;
        self.reports.works(|| self.settings.place(), self.queue.lost());
        self.tell(None);
    }

    fn fail(&mut self, trouble: Trouble) {
        self.is_failing = true;
        self.next_try = Instant::now() + SECOND;
        let may_replace = self.replaced.is_none_or(|last| last.elapsed() >= MINUTE);
        if let Trouble::Damaged(why) = &trouble
            && may_replace
            && self.replace(why)
        {
            // The new file may be begun at once.
            self.replaced = Some(Instant::now());
            self.next_try = Instant::now();
            return;
        }
        if trouble != Trouble::Busy {
            self.store = None;
        }
        let why = trouble.error(&self.settings.file);
        self.reports.failing(&why, self.queue.lost());
        self.tell(Some(why.to_string()));
    }

    fn tell(&self, failure: Option<String>) {
        let used = self.store.as_ref().and_then(|store| store.used());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.store.as_ref().and_then(|store| store.held_by_all()).unwrap_or(self.held);
        *state = State { used: used.unwrap_or(state.used), held, failure };
    }

    fn ensure_open(&mut self) -> Result<(), Trouble> {
        match self.store.as_ref().map(|store| store.standing()) {
            Some(Standing::Same) => return Ok(()),
            Some(Standing::Damaged) => return Err(Trouble::Damaged("file is not a database".to_owned())),
            Some(Standing::Gone) => {
                let why = format!("{}: the file was removed or replaced", self.settings.file.display());
                self.reports.replaced(&why, None, self.held);
                self.begin_other();
            }
            None => {}
        }
        let held = self.queue.held();
        let now = DecisionId::first_at(SystemTime::now());
        let since = held.iter().map(|decision| decision.id).min().map_or(now, |first| first.min(now));
        let mut store: Box<dyn Write> = match &self.settings.database {
            Some(shared) => database::writer(shared, since)?,
            None => Box::new(Db::open(&self.settings.file, since, &mut self.watch)?),
        };
        self.held = store.held()?;
        // Blocks that were not written yet may need those of before, but none that is older.
        self.keys.0.retain(|month, _| month + 1 >= pseudonym::month(now));
        self.keys = store.keys(&self.keys)?;
        self.store = Some(store);
        Ok(())
    }

    /// Forgets the file; what is not full goes into the next one whole.
    fn begin_other(&mut self) {
        if let Some(mut store) = self.store.take() {
            store.end();
        }
        self.held = 0;
        if let Some(job) = self.job.take() {
            job.answer(&Err(Trouble::Busy), &self.settings.file);
        }
        for block in self.open.iter_mut().flatten() {
            block.row = None;
            block.is_changed = !block.is_empty();
        }
    }

    /// Puts a damaged file aside; whether that worked.
    fn replace(&mut self, why: &str) -> bool {
        let rows = self.open.iter().flatten().filter(|block| block.row.is_some());
        let again: u64 = rows.map(|block| u64::from(block.count())).sum();
        let held = self.held.saturating_sub(again);
        // Its locks end before it gets another name.
        self.begin_other();
        let Ok(renamed) = file::put_aside(&self.settings.file) else { return false };
        self.queue.add_lost(held);
        let why = format!("{}: {why}", self.settings.file.display());
        self.reports.replaced(&why, Some(&renamed), held);
        true
    }

    /// A reader has met with damage: is it the file?
    fn examine(&mut self) {
        let Some(store) = &mut self.store else { return };
        if let Err(trouble) = store.examine() {
            self.fail(trouble);
        }
    }

    /// Encodes all that wait.
    fn drain(&mut self) -> Result<(), Trouble> {
        loop {
            if self.taken.is_empty() {
                self.taken.extend(self.queue.take(BATCH));
            }
            if self.taken.is_empty() {
                return Ok(());
            }
            while let Some(decision) = self.taken.front().cloned() {
                self.encode(&decision)?;
                self.taken.pop_front();
            }
            if self.ready.len() >= READY {
                self.save()?;
            }
        }
    }

    fn encode(&mut self, sent: &Arc<Decision>) -> Result<(), Trouble> {
        let privacy = self.settings.privacy;
        let class = Class::of(sent);
        let replaced = match privacy {
            Privacy::None => None,
            _ => Some(privacy::replace(sent, &self.key(sent.id)?, privacy)),
        };
        let decision = replaced.as_ref().unwrap_or(sent);
        let block = &mut self.open[class as usize];
        let fits = |block: &OpenBlock| {
            block.privacy == privacy
                && (Arc::ptr_eq(&block.table, &decision.table) || block.table == decision.table)
        };
        if let Some(block) = block {
            if !block.is_empty() && !fits(block) {
                self.ready.push(block.row(class));
                block.clear(Arc::clone(&decision.table), privacy);
            } else if block.is_empty() {
                block.clear(Arc::clone(&decision.table), privacy);
            }
        }
        let block = block.get_or_insert_with(|| OpenBlock::new(Arc::clone(&decision.table), privacy));
        block.add(decision);
        block.unsaved.push(Arc::clone(sent));
        if block.is_full() {
            self.ready.push(block.row(class));
            block.clear(Arc::clone(&decision.table), privacy);
        }
        Ok(())
    }

    /// The key of the month of a decision.
    fn key(&mut self, id: DecisionId) -> Result<pseudonym::Key, Trouble> {
        let month = pseudonym::month(id);
        if let Some(key) = self.keys.0.get(&month) {
            return Ok(*key);
        }
        let key = self.store.as_mut().ok_or(Trouble::Busy)?.key(month)?;
        self.keys.0.insert(month, key);
        Ok(key)
    }

    /// Begins new blocks in place of those that are not empty.
    fn close_blocks(&mut self) {
        self.close_blocks_where(|_| true);
    }

    /// The same for those that are old: a block is removed as a whole.
    fn close_old_blocks(&mut self) {
        let Settings { keep, keep_acted, anonymise_after, .. } = self.settings;
        let shortest = keep.min(keep_acted).min(anonymise_after.unwrap_or(Duration::MAX));
        let longest = (shortest / 16).min(LONGEST);
        self.close_blocks_where(|block| block.begun.elapsed() > longest);
    }

    fn close_blocks_where(&mut self, is_closed: impl Fn(&OpenBlock) -> bool) {
        for class in Class::ALL {
            let block = self.open[class as usize].as_mut();
            if let Some(block) = block.filter(|block| !block.is_empty() && is_closed(block)) {
                if block.is_changed {
                    self.ready.push(block.row(class));
                }
                block.clear(Arc::clone(&block.table), block.privacy);
            }
        }
    }

    fn open_rows(&self) -> OpenRows {
        self.open.each_ref().map(|block| block.as_ref().and_then(|block| block.row).unwrap_or(-1))
    }

    /// Writes all blocks that have changed, and what else is to be noted, in one transaction.
    fn save(&mut self) -> Result<(), Trouble> {
        let changed = |class: Class| {
            let block = self.open[class as usize].as_ref().filter(|block| block.is_changed);
            block.map(|block| block.row(class))
        };
        let open: Vec<Row> = Class::ALL.into_iter().filter_map(changed).collect();
        let (audits, incidents) = (self.queue.audits(), self.queue.incidents());
        let kept = self.with_names_that_may_be_kept(&incidents)?;
        let lost = self.queue.lost() - self.queue.lost_noted();
        let rows: Vec<&Row> = self.ready.iter().chain(&open).collect();
        let mut again = Vec::new();
        if !rows.is_empty() || !audits.is_empty() || !kept.is_empty() || lost > 0 {
            let open_rows = self.open_rows();
            let store = self.store.as_mut().ok_or(Trouble::Busy)?;
            let more = More { audits: &audits, incidents: &kept, lost };
            let saved = store.save(&self.settings, open_rows, &rows, &more)?;
            self.held = (self.held + saved.added).saturating_sub(saved.removed);
            let refused = rows.iter().zip(&saved.ids).filter(|(_, id)| id.is_none());
            again.extend(refused.flat_map(|(row, _)| row.unsaved.iter().cloned()));
            self.note_rows(&open, &saved);
        }
        self.ready.clear();
        self.queue.note_lost(lost);
        self.queue.audits_saved(&audits);
        self.queue.incidents_saved(&incidents);
        self.queue.saved();
        // Somebody else has changed these blocks, so what they lack goes into others.
        if !again.is_empty() {
            self.taken.extend(again);
            self.next_save = Instant::now();
        }
        Ok(())
    }

    /// What happened, with pseudonyms where names are replaced.
    fn with_names_that_may_be_kept(&mut self, incidents: &[Incident]) -> Result<Vec<Incident>, Trouble> {
        let is_kept = self.settings.privacy == Privacy::None;
        let replace = |incident: &Incident| match is_kept {
            true => Ok(incident.clone()),
            false => Ok(incident.replaced(&self.key(incident.id)?)),
        };
        incidents.iter().map(replace).collect()
    }

    /// The blocks that are still written, the last of those that were saved, have these rows.
    fn note_rows(&mut self, open: &[Row], saved: &Saved) {
        for (row, id) in open.iter().zip(saved.ids.iter().skip(self.ready.len())) {
            let block = &mut self.open[row.class as usize];
            if id.is_none() {
                *block = None;
            } else if let Some(block) = block {
                (block.row, block.is_changed) = (*id, false);
                block.unsaved.clear();
            }
        }
    }

    fn save_or_fail(&mut self) {
        let saved = self.ensure_open().and_then(|()| {
            self.drain()?;
            self.close_blocks();
            self.save()
        });
        if let Err(trouble) = saved {
            self.fail(trouble);
        }
    }

    /// Removes what is too old, gives pages back, and begins to replace names in what is old enough.
    fn look_after(&mut self) -> Result<(), Trouble> {
        let open_rows = self.open_rows();
        let Some(store) = &mut self.store else { return Ok(()) };
        let removed = store.look_after(&self.settings, open_rows)?;
        self.held = self.held.saturating_sub(removed);
        if let Some((node, host)) = store.take_same_node() {
            self.reports.same_node(node, host);
        }
        if let Some(age) = self.settings.anonymise_after.filter(|_| self.job.is_none()) {
            self.job = Job::anonymise(store.named_blocks(retention::before(age), open_rows)?);
        }
        Ok(())
    }

    /// Goes on with what takes long.
    fn do_job(&mut self) -> Result<(), Trouble> {
        let Some((job, store)) = self.job.as_mut().zip(self.store.as_mut()) else { return Ok(()) };
        let part = job.go_on(&mut **store)?;
        self.held = self.held.saturating_sub(part.removed);
        if part.is_over
            && let Some(job) = self.job.take()
        {
            if let Some(note) = job.note() {
                self.queue.audit(note);
            }
            let saved = self.save();
            job.answer(&saved, &self.settings.file);
            saved?;
        }
        Ok(())
    }
}
