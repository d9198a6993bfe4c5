//! Places that messages on their way through the chain have in a counter, before they are counted.
//!
//! Quota takes one, Accounting settles it, and a request that ends before gives it back.
//!
//! Knows: counters. Must not know: how they are kept, plugins.

use super::Counter;
use super::sql::Numbers;
use crate::log::messages::plugins;
use backends::Call;
use std::hash::{BuildHasher, Hasher, RandomState};
use tokio::time::Duration;
use tokio_util::task::TaskTracker;

/// After what time the reservation of a daemon that died is nobody's any more: the longest request, and some
/// room for clocks that differ.
pub const LIFETIME: Duration = Duration::from_secs(130);

/// What giving back may take; what is not given back expires.
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(5);

/// The reservations of one request. Those that were not settled are given back when this is dropped.
#[derive(Default)]
pub struct Reservations {
    held: Vec<Held>,
    /// Counters that this request has been counted in, with what they stood at then.
    counted: Vec<(Counter, Numbers)>,
    /// Counts what is on its way, so that the daemon does not end before it.
    background: TaskTracker,
}

/// One reservation.
struct Held {
    counter: Counter,
    token: String,
}

impl Reservations {
    /// None yet.
    pub fn new(background: TaskTracker) -> Reservations {
        Reservations { held: Vec::new(), counted: Vec::new(), background }
    }

    /// The name of the reservation in this counter, if there is one.
    pub fn token(&self, counter: &Counter) -> Option<&str> {
        self.held.iter().find(|held| held.counter.is(counter)).map(|held| held.token.as_str())
    }

    /// Notes a reservation that is about to be made: the name for it. It is given back also when nobody
    /// comes to know whether it was made.
    pub(super) fn begin(&mut self, counter: &Counter) -> String {
        // Nobody else has it: two numbers from the random keys of a hash.
        let random = || RandomState::new().build_hasher().finish();
        let token = format!("{:016x}{:016x}", random(), random());
        self.held.push(Held { counter: counter.clone(), token: token.clone() });
        token
    }

    /// Notes what a counter stands at once this request is counted; `None` if nobody knows.
    pub(super) fn note(&mut self, counter: &Counter, numbers: Option<Numbers>) {
        self.counted.extend(numbers.map(|numbers| (counter.clone(), numbers)));
    }

    /// What a counter stood at when this request was counted in it last.
    pub(super) fn counted(&self, counter: &Counter) -> Option<&Numbers> {
        self.counted.iter().rev().find(|(counted, _)| counted.is(counter)).map(|(_, numbers)| numbers)
    }

    /// The reservation is not there (any more).
    pub(super) fn end(&mut self, counter: &Counter) {
        self.held.retain(|held| !held.counter.is(counter));
    }
}

impl Drop for Reservations {
    fn drop(&mut self) {
        let held = std::mem::take(&mut self.held);
        // Without a runtime the process is ending, and what is left expires.
        if held.is_empty() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        self.background.spawn(async move {
            let call = Call::within(GIVE_BACK_LIMIT);
            for Held { counter, token } in held {
                if let Err(error) = counter.give_back(&token, call).await {
                    plugins::reservation_left(error);
                }
            }
        });
    }
}
