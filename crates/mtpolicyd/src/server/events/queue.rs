//! What waits for one receiver: events in their order, and those that come together in a digest.
//!
//! Knows: how many events of a kind are too many. Must not know: who the receiver is.

use crate::events::{Event, EventKind, EventState, Events};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Events that wait at most.
pub const MAX_WAITING: usize = 256;

/// This many events of a kind in [`SPAN`] are sent one by one.
const ONE_BY_ONE: usize = 20;
/// See there.
const SPAN: Duration = Duration::from_mins(10);
/// How long a digest waits for more; there is one in [`SPAN`] at most.
const COLLECTING: Duration = Duration::from_mins(1);
/// Events of which a digest knows more than their number.
const MAX_COLLECTED: usize = 1_000;
/// Names that a digest has.
const NAMES: usize = 20;

/// What waits.
#[derive(Default)]
pub struct Queue {
    waiting: VecDeque<Arc<Event>>,
    crowds: [Crowd; EventKind::ALL.len()],
}

/// The events of a kind.
#[derive(Default)]
struct Crowd {
    /// When the last ones were sent that were sent alone.
    sent: VecDeque<Instant>,
    collected: Vec<Arc<Event>>,
    /// How many more there are.
    more: u64,
    /// When what is collected is sent.
    due: Option<Instant>,
    /// When there was a digest.
    last: Option<Instant>,
}

impl Queue {
    /// Adds an event: false if there is no room for it.
    pub fn offer(&mut self, event: &Arc<Event>, now: Instant) -> bool {
        let crowd = &mut self.crowds[event.kind as usize];
        while crowd.sent.front().is_some_and(|sent| *sent + SPAN <= now) {
            crowd.sent.pop_front();
        }
        if crowd.due.is_none() && crowd.sent.len() < ONE_BY_ONE {
            crowd.sent.push_back(now);
            return self.push(event.clone());
        }
        let earliest = now + COLLECTING;
        crowd.due.get_or_insert(crowd.last.map_or(earliest, |last| earliest.max(last + SPAN)));
        if crowd.collected.len() < MAX_COLLECTED {
            crowd.collected.push(event.clone());
        } else {
            crowd.more += 1;
        }
        true
    }

    /// Makes digests of what was collected long enough. Returns how many of them had no room.
    pub fn release(&mut self, now: Instant, events: &Events) -> u64 {
        let mut dropped = 0;
        for kind in EventKind::ALL {
            let crowd = &mut self.crowds[kind as usize];
            if crowd.due.is_some_and(|due| due <= now) {
                let (collected, more) = (std::mem::take(&mut crowd.collected), crowd.more);
                (crowd.more, crowd.due, crowd.last) = (0, None, Some(now));
                dropped += u64::from(!self.push(Arc::new(digest(kind, &collected, more, events))));
            }
        }
        dropped
    }

    /// When there will be something to release.
    pub fn due(&self) -> Option<Instant> {
        self.crowds.iter().filter_map(|crowd| crowd.due).min()
    }

    /// The event that is next.
    pub fn front(&self) -> Option<Arc<Event>> {
        self.waiting.front().cloned()
    }

    /// It has been dealt with.
    pub fn pop(&mut self) {
        self.waiting.pop_front();
    }

    /// How many wait, those of digests included.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.crowds.iter().map(|crowd| crowd.collected.len()).sum::<usize>()
    }

    fn push(&mut self, event: Arc<Event>) -> bool {
        let has_room = self.waiting.len() < MAX_WAITING;
        if has_room {
            self.waiting.push_back(event);
        }
        has_room
    }
}

/// Several events in one.
fn digest(kind: EventKind, collected: &[Arc<Event>], more: u64, events: &Events) -> Event {
    let count = collected.len() as u64 + more;
    let ended = collected.iter().filter(|event| event.state == EventState::Ends).count();
    let names = collected.iter().map(|event| if event.key.is_empty() { &event.source } else { &event.key });
    let names: BTreeSet<_> = names.collect();
    let shown: Vec<_> = names.iter().take(NAMES).map(|name| name.as_str()).collect();
    let others = names.len().saturating_sub(NAMES);
    let others = if others > 0 { format!(" and {others} others") } else { String::new() };
    let ended = if ended > 0 { format!(", of which {ended} that it has ended") } else { String::new() };
    let text = format!("{count} more events {kind}{ended}: {}{others}", shown.join(", "));
    let advice = format!("`mtpolicyd events --kind {kind}` lists them.");
    Event { advice, ..events.event(kind, EventState::Digest, "", text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(events: &Events, kind: EventKind, key: usize) -> Arc<Event> {
        let key = format!("u{key:04}@example.org");
        Arc::new(Event { key, ..events.event(kind, EventState::Begins, "outgoing", String::new()) })
    }

    fn taken(queue: &mut Queue) -> Vec<Arc<Event>> {
        std::iter::from_fn(|| {
            let front = queue.front();
            queue.pop();
            front
        })
        .collect()
    }

    #[test]
    fn a_thousand_logins_at_once_are_twenty_events_and_a_digest() {
        let (events, mut queue, start) = (Events::default(), Queue::default(), Instant::now());
        assert!((0..1_000).all(|n| queue.offer(&event(&events, EventKind::LimitReached, n), start)));
        // Another kind is not held up by them.
        assert!(queue.offer(&event(&events, EventKind::BackendDown, 0), start));
        assert_eq!(queue.due(), Some(start + COLLECTING));
        assert_eq!(queue.release(start + COLLECTING - Duration::from_millis(1), &events), 0);
        let one_by_one = taken(&mut queue);
        assert_eq!((one_by_one.len(), one_by_one[20].kind), (21, EventKind::BackendDown));
        assert_eq!(queue.release(start + COLLECTING, &events), 0);
        let [digest] = &taken(&mut queue)[..] else { panic!("one") };
        assert_eq!((digest.kind, digest.state), (EventKind::LimitReached, EventState::Digest));
        let begin = "980 more events limit-reached: u0020@example.org, u0021@example.org, ";
        assert!(
            digest.text.starts_with(begin) && digest.text.ends_with(" and 960 others"),
            "{}",
            digest.text
        );
        assert_eq!((queue.len(), queue.due()), (0, None));
        // There is one digest in ten minutes, and then they are sent one by one again.
        let later = start + Duration::from_mins(5);
        assert!(queue.offer(&event(&events, EventKind::LimitReached, 1), later));
        assert_eq!(queue.due(), Some(start + COLLECTING + SPAN));
        queue.release(start + COLLECTING + SPAN, &events);
        assert_eq!(taken(&mut queue).len(), 1);
        assert!(queue.offer(&event(&events, EventKind::LimitReached, 1), start + 2 * SPAN));
        assert_eq!(taken(&mut queue)[0].state, EventState::Begins);
    }

    #[test]
    fn what_has_no_room_is_told() {
        let (events, mut queue, start) = (Events::default(), Queue::default(), Instant::now());
        let mut at = start;
        for n in 0..MAX_WAITING {
            at += SPAN;
            assert!(queue.offer(&event(&events, EventKind::BackendDown, n), at), "{n}");
        }
        assert!(!queue.offer(&event(&events, EventKind::BackendDown, 0), at + SPAN));
        assert_eq!(taken(&mut queue).len(), MAX_WAITING);
    }
}
