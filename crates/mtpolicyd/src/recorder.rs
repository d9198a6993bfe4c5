//! The last decisions, and those who watch them as they are made.
//!
//! Knows: records of decisions. Must not know: requests, plugins, who asks.

mod search;

pub use search::{Forgotten, Found, Kept, damaged};

use crate::journal::JournalSlot;
use decisions::{Decision, DecisionId, Filter, Ids};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tokio::sync::mpsc;

/// Decisions that are kept in memory.
pub const RING_DECISIONS: usize = 1_000;
/// Bytes of memory for them.
pub const RING_BYTES: usize = 4 << 20;
/// Decisions that wait for one watcher; of more it is told how many it has missed.
const WATCHED: usize = 256;
/// Watchers at the same time.
pub const MAX_WATCHERS: usize = 32;

/// Keeps the last decisions, and hands all of them to the journal, if there is one. A reload does not touch
/// it.
pub struct Recorder {
    ids: Ids,
    ring: Mutex<Ring>,
    watchers: Mutex<Vec<Watcher>>,
    is_watched: AtomicBool,
    is_kept: AtomicBool,
    is_measured: AtomicBool,
    journal: JournalSlot,
}

#[derive(Default)]
struct Ring {
    /// From the oldest to the newest, each with its size.
    decisions: VecDeque<(Arc<Decision>, usize)>,
    bytes: usize,
}

/// What leaves the ring at once.
type Dropped = SmallVec<[Arc<Decision>; 2]>;

impl Ring {
    /// Removes the oldest until the rest is within the bounds.
    fn evict(&mut self, dropped: &mut Dropped) {
        while self.decisions.len() > RING_DECISIONS || self.bytes > RING_BYTES {
            let Some((oldest, size)) = self.decisions.pop_front() else { break };
            self.bytes -= size;
            dropped.push(oldest);
        }
    }
}

struct Watcher {
    filter: Filter,
    sender: mpsc::Sender<Arc<Decision>>,
    missed: Arc<AtomicU64>,
}

/// Decisions as they are made.
pub struct Watch {
    receiver: mpsc::Receiver<Arc<Decision>>,
    missed: Arc<AtomicU64>,
}

impl Recorder {
    /// That of the daemon with this number, from 0 to [`decisions::MAX_NODE`].
    pub fn new(node: u8) -> Recorder {
        Recorder {
            ids: Ids::new(node),
            ring: Mutex::default(),
            watchers: Mutex::default(),
            is_watched: AtomicBool::new(false),
            is_kept: AtomicBool::new(true),
            is_measured: AtomicBool::new(false),
            journal: JournalSlot::default(),
        }
    }

    /// Whether the last decisions are kept. What is kept so far is dropped where they no longer are.
    pub fn keep(&self, is_kept: bool) {
        self.is_kept.store(is_kept, Ordering::Relaxed);
        if !is_kept {
            *lock(&self.ring) = Ring::default();
        }
    }

    /// Whether monitoring wants to know what plugins do, though nothing may be kept.
    pub fn measure(&self, is_measured: bool) {
        self.is_measured.store(is_measured, Ordering::Relaxed);
    }

    /// Whether anybody wants to know how a request is decided.
    pub fn is_wanted(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
            || self.is_measured.load(Ordering::Relaxed)
            || self.is_watched.load(Ordering::Relaxed)
            || self.journal.is_open()
    }

    /// Where all decisions are kept.
    pub fn journal(&self) -> &JournalSlot {
        &self.journal
    }

    /// A decision begins: its identifier, and the moment, which that holds to the hundredth of a second.
    pub fn begin(&self) -> (DecisionId, SystemTime) {
        let now = SystemTime::now();
        (self.ids.next(now), now)
    }

    /// Keeps a decision whose answer has been sent.
    pub fn record(&self, decision: impl Into<Arc<Decision>>) {
        let decision = decision.into();
        if self.is_watched.load(Ordering::Relaxed) {
            self.show(&decision, |_| true);
        }
        self.journal.record(&decision);
        if !self.is_kept.load(Ordering::Relaxed) {
            return;
        }
        let size = decision.size();
        // Declared before the lock is taken, so that what is dropped is freed when the lock is free again.
        let mut dropped = Dropped::new();
        let mut ring = lock(&self.ring);
        ring.bytes += size;
        ring.decisions.push_back((decision, size));
        ring.evict(&mut dropped);
    }

    /// Keeps a decision once more, since its shadow has decided otherwise by now.
    pub fn record_shadow(&self, decision: Decision) {
        let decision = Arc::new(decision);
        if self.is_watched.load(Ordering::Relaxed) {
            // The others have seen it before.
            self.show(&decision, |filter| filter.shadow_differs);
        }
        self.journal.record(&decision);
        let size = decision.size();
        let mut dropped = Dropped::new();
        let mut ring = lock(&self.ring);
        let place = ring.decisions.iter().rposition(|(kept, _)| kept.id == decision.id);
        let Some(before) = place.and_then(|place| ring.decisions.get_mut(place)) else { return };
        let (before, old) = std::mem::replace(before, (decision, size));
        ring.bytes = (ring.bytes + size).saturating_sub(old);
        dropped.push(before);
        ring.evict(&mut dropped);
    }

    fn show(&self, decision: &Arc<Decision>, is_for: impl Fn(&Filter) -> bool) {
        let mut watchers = lock(&self.watchers);
        watchers.retain(|watcher| !watcher.sender.is_closed());
        self.is_watched.store(!watchers.is_empty(), Ordering::Relaxed);
        for watcher in watchers.iter().filter(|it| is_for(&it.filter) && it.filter.matches(decision)) {
            if watcher.sender.try_send(decision.clone()).is_err() {
                watcher.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The decisions from now on that a filter wants; `None` if too many watch already.
    pub fn watch(&self, filter: Filter) -> Option<Watch> {
        let mut watchers = lock(&self.watchers);
        watchers.retain(|watcher| !watcher.sender.is_closed());
        if watchers.len() >= MAX_WATCHERS {
            return None;
        }
        let (sender, receiver) = mpsc::channel(WATCHED);
        let missed = Arc::default();
        watchers.push(Watcher { filter, sender, missed: Arc::clone(&missed) });
        self.is_watched.store(true, Ordering::Relaxed);
        Some(Watch { receiver, missed })
    }
}

impl Watch {
    /// The next decision; `None` at the end of the daemon.
    pub async fn next(&mut self) -> Option<Arc<Decision>> {
        self.receiver.recv().await
    }

    /// How many were missed since it was last asked, since they were not taken in time.
    pub fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use decisions::journal::Progress;
    use decisions::{Flags, Outcome, Walk};

    fn decision(recorder: &Recorder, sender: &str) -> Decision {
        Decision {
            id: recorder.begin().0,
            table: Arc::default(),
            host: "inbound".into(),
            request: format!("sender={sender}\n\n").into_bytes().into(),
            took: 1,
            outcome: Outcome::Pass,
            by: None,
            answer: "dunno".into(),
            failure: "".into(),
            flags: Flags::default(),
            score: 0.0,
            session: Vec::new(),
            walk: Walk::default(),
            shadow: None,
        }
    }

    fn from(sender: &str) -> Filter {
        Filter { from: Some(sender.to_owned()), ..Filter::default() }
    }

    fn search(
        recorder: &Recorder,
        filter: &Filter,
        before: Option<DecisionId>,
        limit: usize,
    ) -> search::Found {
        recorder.search(filter, before, limit, &Progress::default())
    }

    #[test]
    fn what_names_an_address_is_removed_from_memory() {
        let recorder = Recorder::new(0);
        for sender in ["a@x.test", "b@x.test", "A@X.test", "ba@x.test"] {
            recorder.record(decision(&recorder, sender));
        }
        let forgotten = recorder.forget("a@x.test", "somebody").unwrap();
        assert_eq!(forgotten, Forgotten { journal: 0, memory: 2 });
        assert_eq!(search(&recorder, &Filter::default(), None, 9).decisions.len(), 2);
        let left: usize = lock(&recorder.ring).decisions.iter().map(|(_, size)| size).sum();
        assert_eq!(lock(&recorder.ring).bytes, left);
    }

    #[test]
    fn a_decision_that_a_shadow_would_make_otherwise_is_found_as_one() {
        let recorder = Recorder::new(0);
        let mut all: Vec<_> = (0..3).map(|_| decision(&recorder, "a@x.test")).collect();
        all.iter().cloned().for_each(|decision| recorder.record(decision));
        let differs = Filter { shadow_differs: true, ..Filter::default() };
        let mut watch = recorder.watch(differs.clone()).expect("the first");
        let mut everybody = recorder.watch(Filter::default()).expect("the second");
        assert!(search(&recorder, &differs, None, 9).decisions.is_empty());
        let again = all[1].clone();
        all[1].shadow = Some(Box::new(decisions::Shadow::of(&again, "exact")));
        recorder.record_shadow(all[1].clone());
        let found = search(&recorder, &differs, None, 9).decisions;
        assert_eq!(found.iter().map(|it| it.id).collect::<Vec<_>>(), [all[1].id]);
        assert_eq!(search(&recorder, &Filter::default(), None, 9).decisions.len(), 3);
        let sizes: usize = all.iter().map(Decision::size).sum();
        assert_eq!(lock(&recorder.ring).bytes, sizes);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(runtime.block_on(watch.next()).map(|it| it.id), Some(all[1].id));
        recorder.record(again.clone());
        assert_eq!(runtime.block_on(everybody.next()).map(|it| it.shadow.is_some()), Some(false));
    }

    #[test]
    fn a_journal_that_cannot_be_read_is_told() {
        let recorder = Recorder::new(0);
        let folder = tempfile::tempdir().unwrap();
        // A folder is not a journal.
        let settings = decisions::journal::Settings::new(folder.path());
        recorder.journal().apply(Some(&settings));
        recorder.record(decision(&recorder, "a@x.test"));
        let found = search(&recorder, &Filter::default(), None, 9);
        assert_eq!((found.decisions.len(), found.problems.len()), (1, 1), "the last ones are known");
        assert!(found.problems[0].contains("can't be read"), "{}", found.problems[0]);
        assert!(recorder.kept().problem.is_some());
        assert!(recorder.get(DecisionId::from_number(1)).is_err(), "nobody knows whether there is one");
        assert!(recorder.forget("a@x.test", "somebody").is_err());
        recorder.journal().end();
    }

    #[test]
    fn the_last_decisions_are_kept_and_found() {
        let recorder = Recorder::new(0);
        for number in 0..RING_DECISIONS + 5 {
            recorder.record(decision(&recorder, ["a@x.test", "b@x.test"][number % 2]));
        }
        let all = search(&recorder, &Filter::default(), None, usize::MAX);
        assert_eq!((all.decisions.len(), all.next.is_some()), (RING_DECISIONS, false));
        assert_eq!(all.kept.begins, all.decisions.last().map(|oldest| oldest.id));
        assert!(all.decisions.windows(2).all(|pair| pair[0].id > pair[1].id));
        let first = search(&recorder, &from("a@x.test"), None, 300);
        assert_eq!((first.decisions.len(), first.next.is_some()), (300, true));
        let rest = search(&recorder, &from("a@x.test"), first.next, 300);
        assert_eq!((rest.decisions.len(), rest.next.is_some()), (200, false));
        let id = rest.decisions[0].id;
        assert_eq!(recorder.get(id).unwrap().map(|found| found.id), Some(id));
        assert!(recorder.get(DecisionId::from_number(1)).unwrap().is_none());
    }

    #[test]
    fn nothing_is_kept_where_nobody_wants_it() {
        let recorder = Recorder::new(0);
        recorder.record(decision(&recorder, "a@x.test"));
        recorder.keep(false);
        recorder.record(decision(&recorder, "a@x.test"));
        assert!(search(&recorder, &Filter::default(), None, 10).decisions.is_empty());
        assert!(!recorder.is_wanted());
        let _watch = recorder.watch(Filter::default());
        assert!(recorder.is_wanted());
    }

    #[test]
    fn memory_is_bounded_in_bytes_too() {
        let recorder = Recorder::new(0);
        for _ in 0..100 {
            recorder.record(decision(&recorder, &"x".repeat(RING_BYTES / 10)));
        }
        let kept = search(&recorder, &Filter::default(), None, 100).decisions.len();
        assert!((5..10).contains(&kept), "{kept}");
    }

    #[tokio::test]
    async fn a_watcher_gets_what_it_wants_and_is_told_what_it_misses() {
        let recorder = Recorder::new(0);
        let mut watch = recorder.watch(from("a@x.test")).expect("the first");
        recorder.record(decision(&recorder, "b@x.test"));
        for _ in 0..WATCHED + 3 {
            recorder.record(decision(&recorder, "a@x.test"));
        }
        assert_eq!((watch.take_missed(), watch.take_missed()), (3, 0));
        for _ in 0..WATCHED {
            let next = watch.next().await.expect("it waits");
            assert_eq!(next.attribute("sender"), Some(&b"a@x.test"[..]));
        }
        drop(watch);
        let watches: Vec<_> = (0..MAX_WATCHERS).map(|_| recorder.watch(Filter::default())).collect();
        assert!(watches.iter().all(Option::is_some) && recorder.watch(Filter::default()).is_none());
    }
}
