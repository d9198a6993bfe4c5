//! The answers that are remembered and the questions that are on their way, in one table.
//!
//! Knows: lifetimes, bytes held. Must not know: servers, messages.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::flight::{Flight, Outcome};
use crate::resolver::Question;

/// Parts of the table, each behind a lock of its own. A small cache has fewer: a part has room for some
/// answers.
const MAX_SHARDS: usize = 32;
const MIN_SHARD_BYTES: usize = 64 * 1_024;

/// What an answer takes beside its records and its name: the slot, the place in the queue, what the allocator
/// and the spare room of the table need.
const ENTRY_BYTES: usize = 2 * size_of::<(Key, Slot)>() + 2 * size_of::<Key>() + 64;

/// What is remembered and what is under way.
pub(crate) struct Table {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

/// A question and its hash, which is computed once.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key {
    hash: u64,
    pub question: Question,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// Takes the hash of a [`Key`] for what it is.
#[derive(Default)]
struct Known(u64);

impl Hasher for Known {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, &byte| hash.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[derive(Default)]
struct Shard {
    slots: HashMap<Key, Slot, BuildHasherDefault<Known>>,
    /// The remembered ones, the next to be discarded first. Those that were used meanwhile get a second
    /// chance.
    queue: VecDeque<Key>,
    bytes: usize,
    max_bytes: usize,
}

struct Slot {
    value: Value,
    /// The bytes that it is counted with; 0 while it is not in the queue.
    bytes: usize,
    was_used: bool,
}

enum Value {
    InFlight(Arc<Flight>),
    Known {
        outcome: Outcome,
        until: Instant,
        generation: u64,
    },
    /// What was known is out of date.
    Nothing,
}

/// What the table has about a question.
pub(crate) enum Found {
    /// It is remembered.
    Known(Outcome),
    /// Somebody has asked.
    InFlight(Arc<Flight>),
    /// It was put on its way now.
    New(Arc<Flight>),
    /// There is no place for it.
    Full,
}

impl Table {
    pub fn new(max_bytes: usize) -> Self {
        let count = (max_bytes / MIN_SHARD_BYTES).clamp(1, MAX_SHARDS);
        let max_bytes = max_bytes / count;
        let shard = || Mutex::new(Shard { max_bytes, ..Shard::default() });
        Self { shards: (0..count).map(|_| shard()).collect(), hasher: RandomState::new() }
    }

    /// The key of a question.
    pub fn key(&self, question: &Question) -> Key {
        Key { hash: self.hasher.hash_one(question), question: question.clone() }
    }

    /// The part that a question is in.
    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        // The table inside uses the bits at both ends.
        let place = (key.hash >> 24) as usize % self.shards.len();
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known about a question; else it is put on its way by `start`, if there is a place. Failures of
    /// an earlier generation are dropped: the servers were others.
    pub fn find(
        &self,
        question: &Question,
        now: Instant,
        generation: u64,
        start: impl FnOnce(Key) -> Option<Arc<Flight>>,
    ) -> Found {
        let key = self.key(question);
        let mut shard = self.shard(&key);
        let mut entry = shard.slots.entry(key);
        if let Entry::Occupied(entry) = &mut entry
            && let Some(found) = entry.get_mut().found(now, generation)
        {
            return found;
        }
        let Some(flight) = start(entry.key().clone()) else { return Found::Full };
        let value = Value::InFlight(Arc::clone(&flight));
        match entry {
            Entry::Occupied(mut entry) => entry.get_mut().value = value,
            Entry::Vacant(entry) => {
                entry.insert(Slot { value, bytes: 0, was_used: false });
            }
        }
        Found::New(flight)
    }

    /// What is remembered about a question.
    pub fn peek(&self, question: &Question, now: Instant, generation: u64) -> Option<Outcome> {
        let key = self.key(question);
        match self.shard(&key).slots.get_mut(&key)?.found(now, generation)? {
            Found::Known(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Remembers what a question came to.
    pub fn remember(&self, key: &Key, outcome: &Outcome, ttl: Duration, generation: u64, now: Instant) {
        let held = outcome.as_ref().map_or(0, crate::answer::Answer::bytes_held);
        let name = key.question.name.as_wire().len() + 2 * size_of::<usize>();
        let bytes = ENTRY_BYTES + name + held;
        let mut guard = self.shard(key);
        let shard = &mut *guard;
        let is_kept = !ttl.is_zero() && bytes <= shard.max_bytes;
        let Some(slot) = shard.slots.get_mut(key) else { return };
        let was_queued = slot.bytes > 0;
        if !is_kept && !was_queued {
            shard.slots.remove(key);
            return;
        }
        let (value, bytes) = match is_kept {
            true => (Value::Known { outcome: outcome.clone(), until: now + ttl, generation }, bytes),
            // It stays in the queue, so it goes on being counted.
            false => (Value::Nothing, ENTRY_BYTES + name),
        };
        let before = std::mem::replace(&mut slot.bytes, bytes);
        slot.value = value;
        shard.bytes = shard.bytes - before + bytes;
        if !was_queued {
            shard.queue.push_back(key.clone());
        }
        shard.make_room();
    }

    /// The size in bytes, and the number of answers.
    pub fn size(&self) -> (usize, usize) {
        let shards = self.shards.iter().map(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (shard.bytes, shard.queue.len())
        });
        shards.fold((0, 0), |(bytes, count), (more, others)| (bytes + more, count + others))
    }
}

impl Slot {
    fn found(&mut self, now: Instant, generation: u64) -> Option<Found> {
        match &self.value {
            Value::InFlight(flight) => Some(Found::InFlight(Arc::clone(flight))),
            Value::Known { outcome, until, generation: of } => {
                let left = until.saturating_duration_since(now);
                if left.is_zero() || (outcome.is_err() && *of != generation) {
                    return None;
                }
                self.was_used = true;
                let mut outcome = outcome.clone();
                if let Ok(answer) = &mut outcome {
                    answer.ttl = left;
                }
                Some(Found::Known(outcome))
            }
            Value::Nothing => None,
        }
    }
}

impl Shard {
    /// Discards what is used least until the bytes are within their bound.
    fn make_room(&mut self) {
        while self.bytes > self.max_bytes {
            let Some(key) = self.queue.pop_front() else { return };
            let Entry::Occupied(mut entry) = self.slots.entry(key) else { continue };
            let slot = entry.get_mut();
            if std::mem::take(&mut slot.was_used) {
                self.queue.push_back(entry.key().clone());
                continue;
            }
            self.bytes -= std::mem::take(&mut slot.bytes);
            if !matches!(slot.value, Value::InFlight(_)) {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Answer, Error, Rcode, RecordType};
    use crate::name::Name;

    fn question(name: &str) -> Question {
        Question::new(Name::parse(name).unwrap(), RecordType::TXT)
    }

    fn answer(bytes: usize) -> Outcome {
        let records = (bytes > 0).then(|| vec![0; bytes].into());
        let (rcode, ttl, record_type) = (Rcode::NOERROR, Duration::MAX, RecordType::TXT);
        Ok(Answer { rcode, is_authentic: false, ttl, record_type, records })
    }

    fn look(table: &Table, name: &str, now: Instant) -> Found {
        let question = question(name);
        table.find(&question, now, 0, |key| Some(Arc::new(Flight::new(key, None))))
    }

    fn put(table: &Table, name: &str, bytes: usize, seconds: u64, now: Instant) {
        assert!(matches!(look(table, name, now), Found::New(_)), "{name}");
        let key = table.key(&question(name));
        table.remember(&key, &answer(bytes), Duration::from_secs(seconds), 0, now);
    }

    #[test]
    fn answers_live_as_long_as_they_hold() {
        let (table, now) = (Table::new(1 << 20), Instant::now());
        put(&table, "a.test", 10, 60, now);
        let later = now + Duration::from_secs(50);
        let Found::Known(Ok(known)) = look(&table, "A.test", later) else { panic!("it is remembered") };
        assert_eq!(known.ttl, Duration::from_secs(10));
        assert!(matches!(look(&table, "a.test", now + Duration::from_secs(60)), Found::New(_)));
        put(&table, "b.test", 10, 0, now);
        assert!(matches!(look(&table, "b.test", now), Found::New(_)), "0 is not remembered");
        assert!(matches!(look(&table, "b.test", now), Found::InFlight(_)));
        assert!(matches!(table.find(&question("c.test"), now, 0, |_| None), Found::Full));
    }

    #[test]
    fn failures_are_those_of_their_servers() {
        let (table, now) = (Table::new(1 << 20), Instant::now());
        look(&table, "a.test", now);
        table.remember(
            &table.key(&question("a.test")),
            &Err(Error::TimedOut),
            Duration::from_secs(9),
            1,
            now,
        );
        assert!(matches!(table.find(&question("a.test"), now, 1, |_| None), Found::Known(Err(_))));
        assert!(matches!(table.find(&question("a.test"), now, 2, |_| None), Found::Full));
    }

    #[test]
    fn bytes_are_bounded_whatever_comes() {
        let max = 256 * 1_024;
        let (table, mut now) = (Table::new(max), Instant::now());
        put(&table, "used.test", 100, 1_000_000, now);
        for round in 0_u64..4_000 {
            now += Duration::from_millis(100);
            // Some hold, some do not, some come again when they are out of date; some are larger than the
            // cache.
            let name = format!("{}.test", round % 700);
            if let Found::New(_) = look(&table, &name, now) {
                let bytes = [0, 40, 3_000, 40_000, 1 << 21][usize::try_from(round % 5).unwrap()];
                let ttl = Duration::from_secs([0, 1, 3_600][usize::try_from(round % 3).unwrap()]);
                table.remember(&table.key(&question(&name)), &answer(bytes), ttl, 0, now);
            }
            assert!(matches!(look(&table, "used.test", now), Found::Known(_)), "round {round}");
            assert!(table.size().0 <= max, "{:?}", table.size());
        }
        let (bytes, count) = table.size();
        assert!(bytes > max / 4 && count > 10, "{bytes} bytes, {count} answers");
        let held: usize = table.shards.iter().map(|shard| shard.lock().unwrap().slots.len()).sum();
        assert!(held <= count, "{held} slots for {count} answers");
    }
}
