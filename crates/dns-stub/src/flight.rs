//! One question on its way: which server is asked how, and what comes next after an answer, an error or
//! silence.
//!
//! Knows: the order of servers, what they can't do. Must not know: sockets, the cache.

use std::any::Any;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use crate::answer::{Answer, Error, Rcode};
use crate::message::{MAX_ALIASES, Reading};
use crate::name::Name;
use crate::resolver::{Class, Question};
use crate::server::{Server, Upstream};

/// When a message that was not answered is sent once more: after this part of the time limit, or this time.
const RESEND_PART: u32 = 2;
const MAX_RESEND: Duration = Duration::from_secs(1);

/// The number of servers of a configuration used.
pub(crate) const MAX_SERVERS: usize = 32;

/// What a question came to.
pub(crate) type Outcome = Result<Answer, Error>;

/// One question on its way.
pub(crate) struct Flight {
    pub question: Question,
    /// Whose places it takes; none: it is a trial of a server, whose answer is for nobody.
    pub class: Option<Class>,
    outcome: OnceLock<Outcome>,
    state: Mutex<State>,
}

/// Something that is dropped when a question has come to its end.
pub(crate) type Held = Box<dyn Any + Send>;

#[derive(Default)]
struct State {
    route: Option<Route>,
    waiters: Vec<Option<Waker>>,
    held: Vec<Held>,
}

/// The way through the servers.
struct Route {
    upstream: Arc<Upstream>,
    /// The servers by their places, in the order in which they are asked.
    order: Vec<usize>,
    /// The place in the order, and how often the order was gone through.
    place: usize,
    round: u32,
    /// Those of the order that have had their say: a bit each.
    finished: u32,
    visit: Visit,
    /// What the aliases so far lead to.
    target: Option<Name>,
    aliases: usize,
    alias_ttl: Duration,
    failure: Option<Error>,
}

/// How one server is asked.
#[derive(Clone, Copy)]
pub(crate) struct Visit {
    pub edns: bool,
    pub mixed_case: bool,
    pub over_tcp: bool,
    /// Whether it could not be asked with EDNS, or in mixed case.
    had_to_drop_edns: bool,
    had_to_drop_case: bool,
    has_reconnected: bool,
    pub since: Instant,
}

/// What happened to a message.
pub(crate) enum Event {
    /// The server's word.
    Reading(Reading),
    /// Nothing came.
    Silence,
    /// It could not be sent, or the machine has no such port.
    Unreachable(io::ErrorKind),
    /// The connection was closed.
    Closed,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    /// A server is asked, as the visit says.
    Ask,
    /// It is over.
    End(Outcome),
}

/// What a message needs to know.
pub(crate) struct Asking {
    pub server: Arc<Server>,
    pub visit: Visit,
    pub name: Name,
    pub timeout: Duration,
}

impl Flight {
    pub fn new(question: Question, class: Option<Class>) -> Self {
        Self { question, class, outcome: OnceLock::new(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses the way through these servers, or only to one of them.
    pub fn begin(&self, upstream: &Arc<Upstream>, only: Option<usize>, turn: usize, now: Instant) -> Next {
        let order = only.map_or_else(|| order(upstream, turn), |only| vec![only]);
        let Some(&first) = order.first() else { return Next::End(Err(Error::NoServers)) };
        let visit = Visit::new(upstream, first, true, now);
        self.state().route = Some(Route {
            upstream: Arc::clone(upstream),
            order,
            place: 0,
            round: 0,
            finished: 0,
            visit,
            target: None,
            aliases: 0,
            alias_ttl: Duration::MAX,
            failure: None,
        });
        Next::Ask
    }

    /// What is asked now; `None` before the beginning.
    pub fn asking(&self) -> Option<Asking> {
        let state = self.state();
        let route = state.route.as_ref()?;
        Some(Asking {
            server: Arc::clone(route.server()?),
            visit: route.visit,
            name: route.target.clone().unwrap_or_else(|| self.question.name.clone()),
            timeout: route.upstream.timeout,
        })
    }

    /// Which servers it asks.
    pub fn generation(&self) -> Option<u64> {
        Some(self.state().route.as_ref()?.upstream.generation)
    }

    /// What comes next.
    pub fn step(&self, event: Event, now: Instant) -> Next {
        match &mut self.state().route {
            Some(route) => {
                let next = route.step(event, now);
                route.visit.since = now;
                next
            }
            None => Next::End(Err(Error::NoServers)),
        }
    }

    /// Ends it, and wakes those who wait.
    pub fn end(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
        let mut state = self.state();
        state.route = None;
        let waiters = std::mem::take(&mut state.waiters);
        let held = std::mem::take(&mut state.held);
        drop(state);
        drop(held);
        waiters.into_iter().flatten().for_each(Waker::wake);
    }

    /// Keeps something until the end.
    pub fn hold(&self, held: Held) {
        let mut state = self.state();
        if self.outcome.get().is_none() {
            state.held.push(held);
        }
    }

    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// The outcome, or the waker is kept at a place of its own.
    pub fn poll(&self, place: &mut Option<usize>, cx: &Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome.clone());
        }
        let mut state = self.state();
        // It may have ended meanwhile.
        if let Some(outcome) = self.outcome.get() {
            return Poll::Ready(outcome.clone());
        }
        match place.and_then(|place| state.waiters.get_mut(place)) {
            Some(Some(waker)) => waker.clone_from(cx.waker()),
            Some(free) => *free = Some(cx.waker().clone()),
            None => {
                let free = state.waiters.iter().position(Option::is_none);
                let free = free.unwrap_or_else(|| {
                    state.waiters.push(None);
                    state.waiters.len() - 1
                });
                state.waiters[free] = Some(cx.waker().clone());
                *place = Some(free);
            }
        }
        Poll::Pending
    }

    /// Nobody waits at this place any more.
    pub fn leave(&self, place: usize) {
        if let Some(waiter) = self.state().waiters.get_mut(place) {
            *waiter = None;
        }
    }
}

/// The servers in the order in which they are asked: as given, those that are down last.
fn order(upstream: &Upstream, turn: usize) -> Vec<usize> {
    let count = upstream.servers.len().min(MAX_SERVERS);
    if count == 1 {
        return vec![0];
    }
    let first = if upstream.rotate { turn } else { 0 };
    let mut order: Vec<usize> = (0..count).map(|place| (place + first) % count).collect();
    order.sort_by_key(|&place| upstream.servers[place].is_dead());
    order
}

impl Visit {
    fn new(upstream: &Upstream, server: usize, is_first_round: bool, now: Instant) -> Self {
        let server = &upstream.servers[server];
        // Some machines on the way discard what has options without a word.
        let edns = server.takes_edns(now) && (is_first_round || server.speaks_edns());
        Self {
            edns,
            mixed_case: server.keeps_case(now),
            over_tcp: upstream.use_tcp,
            had_to_drop_edns: server.takes_edns(now) && !edns,
            had_to_drop_case: false,
            has_reconnected: false,
            since: now,
        }
    }

    /// When the message is sent once more. A connection does that itself.
    pub fn resend_at(&self, timeout: Duration) -> Option<Instant> {
        (!self.over_tcp).then(|| self.since + (timeout / RESEND_PART).min(MAX_RESEND))
    }
}

impl Route {
    fn server(&self) -> Option<&Arc<Server>> {
        self.upstream.servers.get(*self.order.get(self.place)?)
    }

    fn step(&mut self, event: Event, now: Instant) -> Next {
        let Some(server) = self.server().map(Arc::clone) else { return Next::End(Err(Error::NoServers)) };
        match event {
            Event::Reading(reading) => {
                server.has_answered(now);
                self.read(&server, reading, now)
            }
            Event::Silence => {
                if !self.visit.over_tcp {
                    server.was_silent(self.visit.since, now);
                }
                self.fail(Error::TimedOut, false, now)
            }
            Event::Unreachable(kind) => {
                if !self.visit.over_tcp {
                    server.is_unreachable(now);
                }
                self.fail(Error::Unreachable(kind), true, now)
            }
            // A server may close a connection that was idle, just when it is used again.
            Event::Closed if !self.visit.has_reconnected => {
                self.visit.has_reconnected = true;
                Next::Ask
            }
            Event::Closed => self.fail(Error::Unreachable(io::ErrorKind::ConnectionReset), true, now),
        }
    }

    fn read(&mut self, server: &Server, reading: Reading, now: Instant) -> Next {
        match reading {
            Reading::Answer(answer) => {
                self.learn(server, now);
                let ttl = answer.ttl.min(self.alias_ttl);
                Next::End(Ok(Answer { ttl, ..answer }))
            }
            Reading::Alias { target, aliases, ttl } => {
                self.learn(server, now);
                self.aliases += aliases;
                if self.aliases > MAX_ALIASES {
                    return self.read(server, Reading::EndlessAlias, now);
                }
                self.alias_ttl = self.alias_ttl.min(ttl);
                self.target = Some(target);
                self.visit(true, now)
            }
            Reading::EndlessAlias => Next::End(Err(Error::Malformed("the name has too many aliases"))),
            Reading::TooLarge => Next::End(Err(Error::Malformed("it has too many records or strings"))),
            Reading::OtherCase if self.visit.mixed_case => {
                self.visit.mixed_case = false;
                self.visit.had_to_drop_case = true;
                Next::Ask
            }
            Reading::Code(Rcode::FORMERR | Rcode::NOTIMP | Rcode::BADVERS) if self.visit.edns => {
                self.visit.edns = false;
                self.visit.had_to_drop_edns = true;
                Next::Ask
            }
            Reading::Code(code) => self.fail(Error::Refused(code), true, now),
            Reading::Truncated | Reading::Malformed(_) if !self.visit.over_tcp => {
                self.visit.over_tcp = true;
                Next::Ask
            }
            Reading::Truncated => self.fail(Error::Malformed("it is cut off over TCP"), true, now),
            Reading::Malformed(why) => self.fail(Error::Malformed(why), true, now),
            Reading::NotOurs | Reading::OtherCase => {
                self.fail(Error::Malformed("it answers another question"), true, now)
            }
        }
    }

    /// What a good answer says about its server.
    fn learn(&self, server: &Server, now: Instant) {
        if self.visit.edns || self.visit.had_to_drop_edns {
            server.answered_edns(self.visit.edns, now);
        }
        if self.visit.had_to_drop_case {
            server.does_not_keep_case(now);
        }
    }

    /// Goes on to the next server that may know more.
    fn fail(&mut self, error: Error, is_last_word: bool, now: Instant) -> Next {
        // What a server said is worth more than that another said nothing.
        let is_worth_more = !matches!(self.failure, Some(Error::Refused(_)));
        if is_worth_more && (self.failure.is_none() || error != Error::TimedOut) {
            self.failure = Some(error);
        }
        if is_last_word {
            self.finished |= 1 << self.place;
        }
        loop {
            self.place += 1;
            if self.place >= self.order.len() {
                (self.place, self.round) = (0, self.round + 1);
            }
            let nobody_is_left = self.finished.count_ones() as usize >= self.order.len();
            if self.round >= self.upstream.attempts || nobody_is_left {
                return Next::End(Err(self.failure.unwrap_or(error)));
            }
            if self.finished & 1 << self.place == 0 {
                return self.visit(self.round == 0, now);
            }
        }
    }

    fn visit(&mut self, is_first_round: bool, now: Instant) -> Next {
        self.visit = Visit::new(&self.upstream, self.order[self.place], is_first_round, now);
        Next::Ask
    }
}
