//! Counts that may not be exceeded: how much of something passes in a time, exactly, however many ask at
//! once.
//!
//! Knows: rates, where counts are kept. Must not know: what is counted.

mod by_hand;
mod noted;
mod rate;
pub mod redis;
mod sql;
mod state;

pub use by_hand::{Edit, HeldLimits, LimitPage};
pub use rate::{Algorithm, Rate, Rates, parse_window, window_text};
pub use sql::Table;
pub use state::{Demand, Fill, Rule, State, Taken, Usage};

use backends::keyvalue::{Memory, Redis};
use backends::{BackendError, Call};
use lookups::LookupKind;
use std::sync::Arc;

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
pub const PREFIX: &str = "mtpolicyd:limit:";

impl Counts {
    /// Lets a request pass if there is room on every limit of the key, and counts it there; else it counts on
    /// none. `now` is the wall clock in milliseconds; Redis has its own. After an error it may have been
    /// counted; if it is repeated as the same attempt, Redis counts it once.
    pub async fn take(
        &self,
        key: &str,
        demand: Demand<'_>,
        attempt: &str,
        now: i64,
        call: Call<'_>,
    ) -> Result<Taken, BackendError> {
        if let Some(pretence) = call.pretence() {
            let held = self.held(key, now, call).await?.and_then(|held| held.state);
            pretence.note(format!("count {key}"));
            // What it says of itself is for those that it is about.
            return Ok(Taken { notices: Vec::new(), ..held.unwrap_or_default().take(demand, now) });
        }
        let recorded = call.replay().map(|replay| replay.stored(&noted::question(key, demand)));
        let begun = call.begin();
        let inner = call.within_another();
        let taken = match self {
            Counts::Memory(memory) => Ok(take_in_memory(memory, key, demand, now)),
            Counts::Redis(redis) => redis::take(redis, key, demand, attempt, inner).await,
            Counts::Sql(table) => table.take(key, demand, now, inner).await,
        };
        if let Some(answer) = recorded.flatten() {
            return noted::read(self.store(), &answer).unwrap_or(taken);
        }
        begun.note_texts(LookupKind::Store, "", || noted::question(key, demand), &taken, noted::answer);
        taken
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
