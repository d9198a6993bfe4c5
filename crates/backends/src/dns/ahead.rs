//! Lookups that one request started before its plugins ask for them, so that ten lists cost one round trip.
//!
//! Knows: questions, answers, deadlines. Must not know: which plugin will ask, or why.

use crate::Call;
use lookups::Origin;
use std::sync::Arc;

use smallvec::SmallVec;
use tokio::time::{Instant, timeout_at};

use super::recorded;
use super::resolver::Lookup;
use super::{Answer, Dns, Failure, Places, Question, RecordType};

/// The answers of one request, those on their way included. Within a request a question is asked once, even
/// where its answer may not be remembered for the next one (TTL 0): the plugins of a chain see one and the
/// same world.
#[derive(Default)]
pub struct Ahead {
    /// A handful, so comparing is cheaper than hashing.
    lookups: SmallVec<[Started; 4]>,
    /// Where the last one was found. Mostly the next is asked for after it.
    last: usize,
    places: Places,
}

struct Started {
    question: Question,
    at: Instant,
    lookup: Lookup,
}

impl Ahead {
    /// Starts a lookup that somebody will want before the deadline; does not wait. It is a help, no promise:
    /// when too many lookups are in flight, or the time is over, the question is asked only by
    /// [`Ahead::answer`]. A started query goes on when the request ends early, for the next request will want
    /// the same answer.
    pub fn start(&mut self, dns: &Arc<Dns>, question: Question, call: Call<'_>) {
        let Dns::Resolver(resolver) = &**dns else { return };
        let now = Instant::now();
        if self.find(&question).is_some() || call.deadline() <= now || call.replay().is_some() {
            return;
        }
        if let Some(lookup) = resolver.start(&question, &self.places) {
            self.lookups.push(Started { question, at: now, lookup });
        }
    }

    /// Sends what was started: the plugins may be busy with something else before they wait for an answer.
    pub fn send(&self, dns: &Dns) {
        if !self.lookups.is_empty() {
            dns.flush();
        }
    }

    fn find(&mut self, question: &Question) -> Option<&mut Started> {
        let count = self.lookups.len();
        let mut places = (self.last..count).chain(0..self.last.min(count));
        self.last = places.find(|place| self.lookups[*place].question == *question)?;
        self.lookups.get_mut(self.last)
    }

    /// The question that was started with this very zone, for a list that is asked about one address a
    /// request: so it need not be written again.
    pub fn address_asked(&self, zone: &Arc<str>) -> Option<Question> {
        let of_list = |started: &&Started| {
            let list = started.question.list.as_ref();
            started.question.record_type == RecordType::A && list.is_some_and(|list| Arc::ptr_eq(list, zone))
        };
        self.lookups.iter().find(of_list).map(|started| started.question.clone())
    }

    /// The places that this request has for lookups of names that strangers choose.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The answer that need not be waited for, if it is there; else it comes too late.
    pub fn known(&mut self, dns: &Dns, question: &Question, call: Call<'_>) -> Answer {
        let begun = call.begin();
        let known = match self.find(question) {
            Some(started) => started.lookup.finish_now(),
            None => dns.remembered(question),
        };
        let answer = known.unwrap_or(Answer::Failed(Failure::TimedOut));
        question.note(begun, &answer, Origin::Remembered);
        answer
    }

    /// When the lookup of a question was started, or now.
    pub fn started_at(&mut self, question: &Question) -> Instant {
        self.find(question).map_or_else(Instant::now, |started| started.at)
    }

    /// The answer, from the lookups that were started or else asked now; `Failed` at the deadline.
    pub async fn answer(&mut self, dns: &Arc<Dns>, question: &Question, call: Call<'_>) -> Answer {
        if let Some(replay) = call.replay() {
            return recorded::answer(replay, dns, &self.places, question).await;
        }
        let begun = call.begin();
        let is_started = self.find(question).is_some();
        let answer = self.answer_unnoted(dns, question, call.deadline()).await;
        let origin = if is_started { Origin::AskedAhead } else { Origin::Asked };
        question.note(begun, &answer, origin);
        answer
    }

    async fn answer_unnoted(&mut self, dns: &Arc<Dns>, question: &Question, deadline: Instant) -> Answer {
        if let Some(started) = self.find(question) {
            return started.lookup.finish(deadline).await;
        }
        let at = Instant::now();
        let answer = match &**dns {
            // No runtime, hence no timer, has to be there.
            Dns::Fake(zone) => zone.answer(question),
            Dns::Resolver(resolver) => {
                match timeout_at(deadline, resolver.lookup(question, &self.places)).await {
                    Ok(answer) => answer,
                    Err(_) => return Answer::Failed(Failure::TimedOut),
                }
            }
        };
        self.lookups.push(Started { question: question.clone(), at, lookup: Lookup::Known(answer.clone()) });
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::super::Zone;
    use super::*;

    /// The result of a future that never waits; there is no runtime.
    fn at_once<T>(future: impl Future<Output = T>) -> T {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn a_fake_needs_no_runtime_and_is_asked_once() {
        let zone = Zone::default().address("a.test", [127, 0, 0, 2]).failing("down.test");
        let dns = Arc::new(Dns::Fake(zone));
        let mut ahead = Ahead::default();
        let call = Call::until(Instant::now());
        let about = |name: &str| Question::new(name, RecordType::A);
        let listed = Answer::Addresses(Arc::from([[127, 0, 0, 2].into()]));
        for name in ["a.test", "down.test", "other.test"] {
            ahead.start(&dns, about(name), call);
        }
        for _ in 0..2 {
            assert_eq!(at_once(ahead.answer(&dns, &about("a.test"), call)), listed);
            assert_eq!(at_once(ahead.answer(&dns, &about("other.test"), call)), Answer::Nothing);
            let failed = at_once(ahead.answer(&dns, &about("down.test"), call));
            assert!(matches!(failed, Answer::Failed(_)), "{failed:?}");
        }
        assert_eq!(at_once(dns.lookup(&about("a.test"))), listed);
        let Dns::Fake(zone) = &*dns else { unreachable!() };
        assert_eq!(["a.test", "down.test", "other.test"].map(|name| zone.count(name)), [2, 1, 1]);
    }
}
