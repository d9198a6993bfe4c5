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
use crate::table::Key;

/// When a message that was not answered is sent once more: after this part of the time limit, or this time.
const RESEND_PART: u32 = 2;
const MAX_RESEND: Duration = Duration::from_secs(1);

/// The number of servers of a configuration used.
pub(crate) const MAX_SERVERS: usize = 32;

/// What a question came to.
pub(crate) type Outcome = Result<Answer, Error>;

/// One question on its way.
pub(crate) struct Flight {
    pub key: Key,
    /// Whose places it takes; none: it is a trial of a server, whose answer is for nobody.
    pub class: Option<Class>,
    /// Where it stands in its part of the table.
    pub place: Option<u32>,
    outcome: OnceLock<Outcome>,
    state: Mutex<State>,
}

/// Something that is dropped when a question has come to its end.
pub(crate) type Held = Box<dyn Any + Send>;

#[derive(Default)]
struct State {
    route: Option<Route>,
    /// Nearly always there is one who waits.
    first_waiter: Option<Waker>,
    more_waiters: Vec<Option<Waker>>,
    held: Vec<Held>,
}

/// The way through the servers.
struct Route {
    upstream: Arc<Upstream>,
    order: Order,
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

/// The servers in the order in which they are asked.
enum Order {
    /// As given, this many of them.
    AsGiven(usize),
    /// By their places.
    Places(Vec<usize>),
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
    Failed(Error),
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
    pub fn new(key: Key, class: Option<Class>, place: Option<u32>) -> Self {
        Self { key, class, place, outcome: OnceLock::new(), state: Mutex::default() }
    }

    pub fn question(&self) -> &Question {
        &self.key.question
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Chooses the way through these servers, or only to one of them.
    pub fn begin(&self, upstream: &Arc<Upstream>, only: Option<usize>, turn: usize, now: Instant) -> Next {
        let order = only.map_or_else(|| Order::now(upstream, turn), |only| Order::Places(vec![only]));
        let Some(first) = order.server(0) else { return Next::End(Err(Error::NoServers)) };
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
            name: route.target.as_ref().unwrap_or(&self.question().name).clone(),
            timeout: route.upstream.timeout,
        })
    }

    /// What comes next, and of which generation the servers are that were asked.
    pub fn step(&self, event: Event, now: Instant) -> (Next, Option<u64>) {
        match &mut self.state().route {
            Some(route) => {
                let next = route.step(event, now);
                route.visit.since = now;
                (next, Some(route.upstream.generation))
            }
            None => (Next::End(Err(Error::NoServers)), None),
        }
    }

    /// Ends it, and wakes those who wait.
    pub fn end(&self, outcome: Outcome) {
        let _ = self.outcome.set(outcome);
        let State { first_waiter, more_waiters, route, held } = {
            let mut state = self.state();
            std::mem::take(&mut *state)
        };
        drop((route, held));
        first_waiter.into_iter().chain(more_waiters.into_iter().flatten()).for_each(Waker::wake);
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
        let place = *place.get_or_insert_with(|| state.free_place());
        match state.waiter(place) {
            Some(Some(waker)) => waker.clone_from(cx.waker()),
            Some(free) => *free = Some(cx.waker().clone()),
            None => state.more_waiters.push(Some(cx.waker().clone())),
        }
        Poll::Pending
    }

    /// Nobody waits at this place any more.
    pub fn leave(&self, place: usize) {
        if let Some(waiter) = self.state().waiter(place) {
            *waiter = None;
        }
    }
}

impl State {
    /// Who waits at this place; `None` if it is one behind the last.
    fn waiter(&mut self, place: usize) -> Option<&mut Option<Waker>> {
        match place.checked_sub(1) {
            None => Some(&mut self.first_waiter),
            Some(place) => self.more_waiters.get_mut(place),
        }
    }

    /// The first place where nobody waits.
    fn free_place(&self) -> usize {
        if self.first_waiter.is_none() {
            return 0;
        }
        let free = self.more_waiters.iter().position(Option::is_none);
        free.unwrap_or(self.more_waiters.len()) + 1
    }
}

impl Order {
    /// As given, those that are down last.
    fn now(upstream: &Upstream, turn: usize) -> Self {
        let count = upstream.servers.len().min(MAX_SERVERS);
        let first = if upstream.rotate && count > 1 { turn % count } else { 0 };
        let is_dead = |&place: &usize| upstream.servers[place].is_dead();
        if first == 0 && (count == 1 || !(0..count).any(|place| is_dead(&place))) {
            return Self::AsGiven(count);
        }
        let mut order: Vec<usize> = (0..count).map(|place| (place + first) % count).collect();
        order.sort_by_key(is_dead);
        Self::Places(order)
    }

    fn len(&self) -> usize {
        match self {
            Self::AsGiven(count) => *count,
            Self::Places(order) => order.len(),
        }
    }

    /// The server's place in the configuration.
    fn server(&self, place: usize) -> Option<usize> {
        match self {
            Self::AsGiven(count) => (place < *count).then_some(place),
            Self::Places(order) => order.get(place).copied(),
        }
    }
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
        self.upstream.servers.get(self.order.server(self.place)?)
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
            Event::Failed(error) => {
                // That this process has no descriptor left says nothing about the server.
                if !self.visit.over_tcp && !matches!(error, Error::NoSocket(_)) {
                    server.is_unreachable(now);
                }
                self.fail(error, true, now)
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
            // A server that writes a name in capital letters of its own can prove over TCP who it is.
            Reading::Truncated | Reading::Malformed(_) | Reading::OtherCase if !self.visit.over_tcp => {
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
        let Some(server) = self.order.server(self.place) else { return Next::End(Err(Error::NoServers)) };
        self.visit = Visit::new(&self.upstream, server, is_first_round, now);
        Next::Ask
    }
}
