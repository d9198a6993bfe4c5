//! Counts that may not be exceeded: how much of something passes in a time, exactly, however many ask at
//! once.
//!
//! Knows: rates, where counts are kept. Must not know: what is counted.

mod rate;
pub mod redis;
mod sql;
mod state;

pub use rate::{Algorithm, Rate, Rates};
pub use sql::Table;
pub use state::{Demand, Fill, Rule, State, Taken, Usage};

use backends::BackendError;
use backends::keyvalue::{Memory, Redis};
use std::sync::Arc;
use tokio::time::Instant;

/// Where counts are kept.
pub enum Counts {
    /// In this process.
    Memory(Arc<Memory>),
    /// In Redis.
    Redis(Arc<Redis>),
    /// In a database.
    Sql(Table),
}

/// What every key begins with, in stores that others use too.
const PREFIX: &str = "mtpolicyd:limit:";

impl Counts {
    /// Lets a request pass if there is room on every limit of the key, and counts it there; else it counts on
    /// none. `now` is the wall clock in milliseconds; Redis has its own.
    pub async fn take(
        &self,
        key: &str,
        demand: Demand<'_>,
        now: i64,
        deadline: Instant,
    ) -> Result<Taken, BackendError> {
        match self {
            Counts::Memory(memory) => Ok(take_in_memory(memory, key, demand, now)),
            Counts::Redis(redis) => redis::take(redis, key, demand, deadline).await,
            Counts::Sql(table) => table.take(key, demand, now, deadline).await,
        }
    }
}

fn take_in_memory(memory: &Memory, key: &str, demand: Demand<'_>, now: i64) -> Taken {
    memory.update(format!("{PREFIX}{key}").as_bytes(), |held| {
        let mut state = held.map(State::decode).unwrap_or_default();
        let taken = state.take(demand, now);
        (Some((state.encode().into_bytes(), state.life())), taken)
    })
}

#[cfg(test)]
mod tests;
