//! Tests of the DNS lists that nobody asks for: shortly after the start, and then from time to time.
//!
//! Knows: lists, when each is due. Must not know: plugins, requests, what a test asks.
//!
//! A list that dies may list everybody, and one that refuses this name server lists nobody; both look like an
//! ordinary answer. The names of which RFC 5782 says whether they are listed tell the difference.

use crate::facts::World;
use crate::facts::dnslist::ListState;
use crate::state::UsedList;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// When a list is first tested: not at once, since a name server on this machine may be starting too.
const FIRST: Duration = Duration::from_secs(10);
/// When one is tested again that has failed: two bad rounds quarantine it.
const AFTER_FAILURE: Duration = Duration::from_secs(15);
/// How often one in quarantine is tested.
const IN_QUARANTINE: Duration = Duration::from_secs(300);
/// How often the others are.
const USUAL: Duration = Duration::from_secs(3_300);

/// How long the questions of a round may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The longest wait: a reload may bring lists that nobody knows yet.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// When which list is tested.
#[derive(Default)]
pub struct Schedule {
    due: BTreeMap<Arc<str>, Instant>,
}

impl Schedule {
    /// Tests the lists that are due, all at once. Returns when to come back.
    pub async fn round(&mut self, lists: &[UsedList], world: &World) -> Instant {
        let now = Instant::now();
        self.due.retain(|zone, _| lists.iter().any(|used| used.is_tested && used.list.zone() == zone));
        let mut asked = JoinSet::new();
        for used in lists.iter().filter(|used| used.is_tested && used.list.is_askable()) {
            let zone = used.list.zone();
            let due = *self.due.entry(zone.clone()).or_insert_with(|| now + with_jitter(FIRST));
            if due <= now {
                let (list, world) = (used.list.clone(), world.clone());
                asked.spawn(async move {
                    let tests = list.test(&world.dns, LIMIT).await;
                    (list.zone().clone(), list.note_round(&tests, &world.lists))
                });
            }
        }
        for (zone, state) in asked.join_all().await {
            let is_quarantined = world.lists.condition(&zone).is_quarantined;
            self.due.insert(zone, Instant::now() + with_jitter(pause(state, is_quarantined)));
        }
        let soonest = self.due.values().min().copied();
        soonest.unwrap_or(now + LONGEST_WAIT).min(now + LONGEST_WAIT)
    }
}

/// How long to wait until a list is tested again.
fn pause(state: ListState, is_quarantined: bool) -> Duration {
    match (state.is_bad(), is_quarantined) {
        (true, false) => AFTER_FAILURE,
        (true, true) => IN_QUARANTINE,
        (false, _) => USUAL,
    }
}

/// Up to a sixth more, so that many daemons do not ask a list at the same moment.
fn with_jitter(pause: Duration) -> Duration {
    let number = RandomState::new().hash_one(Instant::now());
    let part = u32::from(number.to_be_bytes()[0]);
    pause + pause / 6 * part / 255
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::dnslist::{DnsList, ListKind};
    use backends::clock::Clock;
    use backends::dns::{Dns, Zone};

    fn world(zone: Zone) -> World {
        let dns = Arc::new(Dns::Fake(zone));
        let (lists, smtp, events) = (Arc::default(), Arc::default(), Arc::default());
        World { dns, lists, smtp, clock: Arc::new(Clock::System), events }
    }

    fn used(zone: &str, is_tested: bool) -> UsedList {
        let list = Arc::new(DnsList::new(zone, ListKind::Domain, None, false));
        UsedList { plugins: Vec::new(), list, is_tested }
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_tested_after_the_start_and_again_when_it_has_failed() {
        let world = world(Zone::default().address("test.well.test", [127, 0, 0, 2]));
        let lists = [used("well.test", true), used("nothing.test", true), used("private.test", false)];
        let mut schedule = Schedule::default();
        let begun = Instant::now();
        let is_quarantined = |zone| world.lists.condition(zone).is_quarantined;
        while !is_quarantined("nothing.test") {
            let next = schedule.round(&lists, &world).await;
            tokio::time::sleep_until(next).await;
        }
        // The clock of this test stands still but for the waits.
        let took = Instant::now() - begun;
        assert!((FIRST + AFTER_FAILURE..Duration::from_secs(60)).contains(&took), "{took:?}");
        assert_eq!(world.lists.condition("nothing.test").state, ListState::ListsNothing);
        assert!(!is_quarantined("well.test") && world.lists.condition("well.test").tested.is_some());
        let Dns::Fake(zone) = &*world.dns else { unreachable!() };
        let of_private = zone.asked().iter().filter(|it| it.name.ends_with("private.test")).count();
        assert_eq!((of_private, zone.count("test.well.test")), (0, 1));
    }

    #[test]
    fn a_pause_depends_on_the_state() {
        assert_eq!(pause(ListState::Well, false), USUAL);
        assert_eq!(pause(ListState::NotTestable, true), USUAL);
        assert_eq!(pause(ListState::Silent, false), AFTER_FAILURE);
        assert_eq!(pause(ListState::Refused, true), IN_QUARANTINE);
        let more = with_jitter(USUAL);
        assert!((USUAL..=USUAL + USUAL / 6).contains(&more));
    }
}
