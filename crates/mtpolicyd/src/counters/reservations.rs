//! Places that messages on their way through the chain have in a counter, before they are counted.
//!
//! Quota takes one, Accounting settles it, and a request that ends before gives it back.
//!
//! Knows: counters. Must not know: how they are kept, plugins.

use super::sql::Numbers;
use super::{Counter, Standing};
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
    /// What is to be told of how full the counter is, once the request is counted.
    standings: Vec<Standing>,
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
        let (counter, standings) = (counter.clone(), Vec::new());
        self.held.push(Held { counter, token: token.clone(), standings });
        token
    }

    /// Notes what a counter stands at once this request is counted; `None` if nobody knows.
    pub(super) fn note(&mut self, counter: &Counter, numbers: Option<Numbers>) {
        for held in self.held.iter().filter(|held| held.counter.is(counter)) {
            let known = numbers.iter().flat_map(|numbers| held.standings.iter().map(move |it| (it, numbers)));
            known.for_each(|(standing, numbers)| standing.tell_counted(counter, numbers));
        }
        self.counted.extend(numbers.map(|numbers| (counter.clone(), numbers)));
    }

    /// Has it told how full a counter is, once this request, which has a place there, is counted.
    pub fn tell_when_counted(&mut self, counter: &Counter, standing: Standing) {
        if let Some(held) = self.held.iter_mut().find(|held| held.counter.is(counter)) {
            held.standings.push(standing);
        }
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
            for Held { counter, token, .. } in held {
                if let Err(error) = counter.give_back(&token, call).await {
                    plugins::reservation_left(error);
                }
            }
        });
    }
}
