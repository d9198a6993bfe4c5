//! The answers that are remembered and the questions that are on their way, in one table.
//!
//! Knows: lifetimes, bytes held. Must not know: servers, messages.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::flight::{Flight, Outcome};
use crate::resolver::Question;

/// Parts of the table, each behind a lock of its own. A small cache has fewer: a part has room for some
/// answers.
const MAX_SHARDS: usize = 32;
const MIN_SHARD_BYTES: usize = 64 * 1_024;

/// What an answer takes beside its records and its name: an entry and its place in the index, both of which
/// grow by doubling, and what the allocator needs.
const ENTRY_BYTES: usize = 2 * (size_of::<Entry>() + size_of::<(u64, u32)>()) + 64;

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

/// Takes a hash for what it is.
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

/// A part of the table. What it has stands in one list, and the index only says where, so that a question
/// costs few looks at memory that no cache of the processor holds.
#[derive(Default)]
struct Shard {
    /// The places in the list, by hash. Of two questions with one hash only the first is in the table.
    index: HashMap<u64, u32, BuildHasherDefault<Known>>,
    entries: Vec<Entry>,
    /// The places in the list that nothing stands at.
    free: Vec<u32>,
    /// Where the next one to be discarded is looked for. It goes round the list.
    hand: usize,
    answers: usize,
    bytes: usize,
    max_bytes: usize,
}

struct Entry {
    key: Key,
    value: Value,
    /// The bytes that it is counted with; 0 without an answer.
    bytes: usize,
    /// Whether it gets a second chance when it is about to be discarded.
    was_used: bool,
}

enum Value {
    InFlight(Arc<Flight>),
    Known {
        outcome: Outcome,
        until: Instant,
        generation: u64,
    },
    /// The place is free.
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
    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // The index inside uses the bits at both ends.
        let place = (hash >> 24) as usize % self.shards.len();
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known about a question; else it is put on its way by `start`, if there is a place. `start` is
    /// told where in the table it will stand. Failures of an earlier generation are dropped: the servers were
    /// others.
    pub fn find(
        &self,
        question: &Question,
        now: Instant,
        generation: u64,
        start: impl FnOnce(Key, Option<u32>) -> Option<Arc<Flight>>,
    ) -> Found {
        let key = self.key(question);
        self.shard(key.hash).find(key, now, generation, start)
    }

    /// What is remembered about a question.
    pub fn peek(&self, question: &Question, now: Instant, generation: u64) -> Option<Outcome> {
        let hash = self.hasher.hash_one(question);
        let mut shard = self.shard(hash);
        let place = *shard.index.get(&hash)?;
        let entry = shard.entries.get_mut(place as usize).filter(|entry| entry.key.question == *question)?;
        match entry.found(now, generation)? {
            Found::Known(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Remembers what a question came to.
    pub fn remember(&self, flight: &Flight, outcome: &Outcome, ttl: Duration, generation: u64, now: Instant) {
        let Some(place) = flight.place else { return };
        let held = outcome.as_ref().map_or(0, crate::answer::Answer::bytes_held);
        let name = flight.question().name.as_wire().len() + 2 * size_of::<usize>();
        let bytes = ENTRY_BYTES + name + held;
        let mut guard = self.shard(flight.key.hash);
        let shard = &mut *guard;
        let Some(entry) = shard.entries.get_mut(place as usize).filter(|entry| entry.is_of(flight)) else {
            return;
        };
        if ttl.is_zero() || bytes > shard.max_bytes {
            shard.remove(place);
            return;
        }
        entry.value = Value::Known { outcome: outcome.clone(), until: now + ttl, generation };
        entry.bytes = bytes;
        entry.was_used = false;
        shard.bytes += bytes;
        shard.answers += 1;
        shard.make_room();
    }

    /// The size in bytes, and the number of answers.
    pub fn size(&self) -> (usize, usize) {
        let shards = self.shards.iter().map(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (shard.bytes, shard.answers)
        });
        shards.fold((0, 0), |(bytes, count), (more, others)| (bytes + more, count + others))
    }
}

impl Entry {
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

    /// Whether it stands for this question on its way.
    fn is_of(&self, flight: &Flight) -> bool {
        matches!(&self.value, Value::InFlight(of) if std::ptr::eq(&**of, flight))
    }
}

impl Shard {
    fn find(
        &mut self,
        key: Key,
        now: Instant,
        generation: u64,
        start: impl FnOnce(Key, Option<u32>) -> Option<Arc<Flight>>,
    ) -> Found {
        let known = self.index.get(&key.hash).copied();
        if let Some(place) = known {
            let Some(entry) = self.entries.get_mut(place as usize).filter(|entry| entry.key == key) else {
                return start(key, None).map_or(Found::Full, Found::New);
            };
            if let Some(found) = entry.found(now, generation) {
                return found;
            }
        }
        let next = || self.free.last().copied().or_else(|| u32::try_from(self.entries.len()).ok());
        let place = known.or_else(next);
        let Some(flight) = start(key.clone(), place) else { return Found::Full };
        if let Some(place) = place {
            self.put(place, key, Value::InFlight(Arc::clone(&flight)));
        }
        Found::New(flight)
    }

    /// Puts a question at a place that is free, one behind the last, or has what was known about it.
    fn put(&mut self, place: u32, key: Key, value: Value) {
        if let Some(entry) = self.entries.get_mut(place as usize) {
            if let Value::Nothing = entry.value {
                self.free.pop();
                self.index.insert(key.hash, place);
                entry.key = key;
            }
            self.answers -= usize::from(entry.bytes > 0);
            self.bytes -= std::mem::take(&mut entry.bytes);
            entry.value = value;
        } else {
            self.index.insert(key.hash, place);
            self.entries.push(Entry { key, value, bytes: 0, was_used: false });
        }
    }

    /// Discards an entry.
    fn remove(&mut self, place: u32) {
        let Some(entry) = self.entries.get_mut(place as usize) else { return };
        entry.value = Value::Nothing;
        self.answers -= usize::from(entry.bytes > 0);
        self.bytes -= std::mem::take(&mut entry.bytes);
        self.index.remove(&entry.key.hash);
        self.free.push(place);
    }

    /// Discards what is used least until the bytes are within their bound.
    fn make_room(&mut self) {
        while self.bytes > self.max_bytes {
            let place = self.hand % self.entries.len().max(1);
            self.hand = place + 1;
            let Some(entry) = self.entries.get_mut(place) else { return };
            if entry.bytes > 0 && !std::mem::take(&mut entry.was_used) {
                self.remove(u32::try_from(place).unwrap_or(u32::MAX));
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

    fn start(key: Key, place: Option<u32>) -> Option<Arc<Flight>> {
        Some(Arc::new(Flight::new(key, None, place)))
    }

    fn look(table: &Table, name: &str, now: Instant) -> Found {
        let question = question(name);
        table.find(&question, now, 0, start)
    }

    fn put(table: &Table, name: &str, bytes: usize, seconds: u64, now: Instant) {
        let Found::New(flight) = look(table, name, now) else { panic!("{name} is new") };
        table.remember(&flight, &answer(bytes), Duration::from_secs(seconds), 0, now);
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
        assert!(matches!(table.find(&question("c.test"), now, 0, |_, _| None), Found::Full));
    }

    #[test]
    fn failures_are_those_of_their_servers() {
        let (table, now) = (Table::new(1 << 20), Instant::now());
        let Found::New(flight) = look(&table, "a.test", now) else { panic!("it is new") };
        table.remember(&flight, &Err(Error::TimedOut), Duration::from_secs(9), 1, now);
        assert!(matches!(table.find(&question("a.test"), now, 1, |_, _| None), Found::Known(Err(_))));
        assert!(matches!(table.find(&question("a.test"), now, 2, |_, _| None), Found::Full));
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
            if let Found::New(flight) = look(&table, &name, now) {
                let bytes = [0, 40, 3_000, 40_000, 1 << 21][usize::try_from(round % 5).unwrap()];
                let ttl = Duration::from_secs([0, 1, 3_600][usize::try_from(round % 3).unwrap()]);
                table.remember(&flight, &answer(bytes), ttl, 0, now);
            }
            assert!(matches!(look(&table, "used.test", now), Found::Known(_)), "round {round}");
            assert!(table.size().0 <= max, "{:?}", table.size());
        }
        let (bytes, count) = table.size();
        assert!(bytes > max / 4 && count > 10, "{bytes} bytes, {count} answers");
        for shard in &table.shards {
            let shard = shard.lock().unwrap();
            let of = |is_wanted: fn(&Entry) -> bool| shard.entries.iter().filter(|&e| is_wanted(e)).count();
            let free = of(|entry| matches!(entry.value, Value::Nothing));
            assert_eq!((shard.free.len(), shard.index.len()), (free, shard.entries.len() - free));
            assert_eq!((shard.answers, of(|entry| entry.bytes > 0)), (shard.index.len(), shard.index.len()));
            assert_eq!(shard.bytes, shard.entries.iter().map(|entry| entry.bytes).sum::<usize>());
        }
    }

    #[test]
    fn two_questions_with_one_hash_are_not_taken_for_each_other() {
        let (mut shard, now) = (Shard { max_bytes: 1 << 20, ..Shard::default() }, Instant::now());
        let mut find = |name: &str| shard.find(Key { hash: 7, question: question(name) }, now, 0, start);
        let Found::New(first) = find("a.test") else { panic!("it is new") };
        let Found::New(second) = find("b.test") else { panic!("it is new") };
        assert_eq!((first.place, second.place), (Some(0), None));
        assert!(matches!(find("a.test"), Found::InFlight(of) if Arc::ptr_eq(&of, &first)));
        assert!(matches!(find("b.test"), Found::New(_)), "it is asked again");
    }
}
