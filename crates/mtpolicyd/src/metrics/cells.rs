//! Counters that many threads add to without waiting for one another, and histograms made of them.
//!
//! Knows: atomics, threads. Must not know: what is counted.

use backends::BOUNDS;
use decisions::DecisionId;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Copies of each counter. A thread always adds to the same one, so that a few threads do not share any.
const SHARDS: usize = 8;

/// The bounds of all histograms, in seconds as numbers and as they are written: [`BOUNDS`], which are in
/// microseconds.
pub const BUCKETS: [(f64, &str); 13] = [
    (0.0001, "0.0001"),
    (0.0003, "0.0003"),
    (0.001, "0.001"),
    (0.003, "0.003"),
    (0.01, "0.01"),
    (0.03, "0.03"),
    (0.1, "0.1"),
    (0.3, "0.3"),
    (1.0, "1.0"),
    (2.0, "2.0"),
    (5.0, "5.0"),
    (10.0, "10.0"),
    (20.0, "20.0"),
];

/// One bucket more, for what is beyond.
const ALL_BUCKETS: usize = BOUNDS.len() + 1;

/// A line of a processor's cache, or several: two threads that write into the same one wait for each other.
#[repr(align(64))]
#[derive(Debug)]
struct Line<const N: usize>([AtomicU64; N]);

/// Counters that belong together.
#[derive(Debug)]
pub struct Cells<const N: usize> {
    shards: [Line<N>; SHARDS],
}

impl<const N: usize> Default for Cells<N> {
    fn default() -> Cells<N> {
        Cells { shards: std::array::from_fn(|_| Line(std::array::from_fn(|_| AtomicU64::new(0)))) }
    }
}

impl<const N: usize> Cells<N> {
    /// Adds to one of them.
    pub fn add(&self, cell: usize, number: u64) {
        if let Some(cell) = self.shards[shard()].0.get(cell) {
            cell.fetch_add(number, Ordering::Relaxed);
        }
    }

    /// How much was added to one of them.
    pub fn get(&self, cell: usize) -> u64 {
        self.shards.iter().filter_map(|line| line.0.get(cell)).map(|cell| cell.load(Ordering::Relaxed)).sum()
    }
}

/// The copy that this thread adds to.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    OWN.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        own.get()
    })
}

/// How long something took, and for each bucket the last decision that fell into it.
#[derive(Debug)]
pub struct Histogram {
    /// The buckets, and behind them the sum in microseconds.
    cells: Cells<{ ALL_BUCKETS + 1 }>,
    examples: [Example; ALL_BUCKETS],
}

/// The last decision of a bucket. Two threads may mix their numbers here; both are of this bucket.
#[derive(Debug, Default)]
struct Example {
    id: AtomicU64,
    micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { cells: Cells::default(), examples: std::array::from_fn(|_| Example::default()) }
    }
}

/// What a histogram has seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// How many were at most as large as each bound, and behind them how many there were.
    pub cumulative: [u64; ALL_BUCKETS],
    /// The sum in seconds.
    pub sum: f64,
    /// An example for each bucket, with its seconds.
    pub examples: [Option<(DecisionId, f64)>; ALL_BUCKETS],
}

impl Observed {
    /// What others have counted: how many were in each bucket, and the microseconds that they took together.
    pub fn counted(buckets: [u64; ALL_BUCKETS], micros: u64) -> Observed {
        let mut so_far = 0;
        let cumulative = buckets.map(|bucket| {
            so_far += bucket;
            so_far
        });
        Observed { cumulative, sum: seconds(micros), examples: [None; ALL_BUCKETS] }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.cumulative[ALL_BUCKETS - 1]
    }
}

impl Histogram {
    /// Something took this time, in microseconds; the decision is an example that can be looked up.
    pub fn observe(&self, micros: u64, example: Option<DecisionId>) {
        let bucket = BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(BOUNDS.len());
        self.cells.add(bucket, 1);
        self.cells.add(ALL_BUCKETS, micros);
        if let Some(id) = example {
            self.examples[bucket].id.store(id.number(), Ordering::Relaxed);
            self.examples[bucket].micros.store(micros, Ordering::Relaxed);
        }
    }

    /// What it has seen so far.
    pub fn observed(&self) -> Observed {
        let mut so_far = 0;
        let cumulative = std::array::from_fn(|bucket| {
            so_far += self.cells.get(bucket);
            so_far
        });
        let examples = std::array::from_fn(|bucket| {
            let Example { id, micros } = &self.examples[bucket];
            let id = Some(id.load(Ordering::Relaxed)).filter(|id| *id > 0)?;
            Some((DecisionId::from_number(id), seconds(micros.load(Ordering::Relaxed))))
        });
        Observed { cumulative, sum: seconds(self.cells.get(ALL_BUCKETS)), examples }
    }
}

#[allow(clippy::cast_precision_loss, reason = "microseconds of two centuries fit")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_the_same_in_both_units() {
        assert_eq!(BUCKETS.map(|(bound, _)| bound), BOUNDS.map(seconds));
        assert!(BUCKETS.iter().all(|(bound, text)| text.parse() == Ok(*bound)));
    }
}
