//! Numbers that nobody guesses.
//!
//! Knows: the generator. Must not know: what the numbers are for.

#[cfg(test)]
use std::sync::{Mutex, PoisonError};

use rand::Rng;
#[cfg(test)]
use rand::{SeedableRng, rngs::StdRng};

/// Where random numbers come from.
pub(crate) enum Random {
    /// ChaCha with twelve rounds, one a thread, seeded and seeded again by the system.
    System,
    /// The same numbers in every run of a test.
    #[cfg(test)]
    Seeded(Box<Mutex<StdRng>>),
}

impl Random {
    #[cfg(test)]
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Box::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    pub fn number(&self) -> u64 {
        match self {
            Self::System => rand::rng().next_u64(),
            #[cfg(test)]
            Self::Seeded(generator) => generator.lock().unwrap_or_else(PoisonError::into_inner).next_u64(),
        }
    }

    /// A number below a bound that is not 0. The bias is that of 64 bits to the bound: none to speak of.
    pub fn below(&self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.number() % bound).unwrap_or(0)
    }

    /// An identifier of a message.
    pub fn id(&self) -> u16 {
        // The cut is the point.
        (self.number() >> 48) as u16
    }

    /// As many coin tosses as anybody asks for.
    pub fn tosses(&self) -> impl Iterator<Item = bool> {
        let (mut bits, mut left) = (0, 0);
        std::iter::from_fn(move || {
            if left == 0 {
                (bits, left) = (self.number(), 64);
            }
            let toss = bits & 1 == 1;
            (bits, left) = (bits >> 1, left - 1);
            Some(toss)
        })
    }
}
