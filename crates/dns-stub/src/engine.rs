//! What moves questions: sends them, hands answers to them, gives up what is late.
//!
//! Knows: all parts. Must not know: how a question is decided (`flight`), system calls (`network`).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use crate::answer::Error;
use crate::channel::{Channel, Query};
use crate::flight::{Asking, Event, Flight, Next, Outcome};
use crate::message::{MAX_QUERY, QueryOptions, Reading, read, write_query};
use crate::network::{BATCH, Network, is_cut};
use crate::random::Random;
use crate::resolver::{Class, Config, Question};
use crate::server::Server;
use crate::source::Source;
use crate::table::{Found, Table};

/// How often is looked for what is late: a part of the time limit of a server, within bounds.
const TICKS: u32 = 32;
const MIN_TICK: Duration = Duration::from_millis(5);
const MAX_TICK: Duration = Duration::from_millis(50);

/// How often is looked for ports that are old, if nothing waits.
const IDLE_TICK: Duration = Duration::from_secs(1);

/// How often a channel is chosen that turns out to be closed.
const CHANNEL_TRIES: usize = 4;

/// What all clones of a resolver share.
pub(crate) struct Engine {
    pub config: Config,
    pub table: Table,
    pub source: Source,
    pub random: Random,
    pub network: Network,
    /// The places in flight of each class.
    pub places: [Semaphore; Class::COUNT],
    /// What was asked and not sent yet.
    pending: Mutex<Vec<Arc<Flight>>>,
    has_pending: AtomicBool,
    /// The number of questions without an answer yet.
    unanswered: AtomicUsize,
    /// Counts questions, for servers that take turns.
    turn: AtomicUsize,
    driver: Arc<Driver>,
}

/// The task that does what no caller does.
#[derive(Default)]
struct Driver {
    wake: Notify,
    is_running: AtomicBool,
    /// Whether it will soon look again by itself, so that nobody need wake it.
    is_attentive: AtomicBool,
}

/// Says that the driver has ended, however it did.
struct Running(Arc<Driver>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::SeqCst);
        self.0.is_attentive.store(false, Ordering::SeqCst);
    }
}

/// A question, and how it is asked now.
type Asked = (Arc<Flight>, Asking);

impl Engine {
    pub fn new(config: Config, random: Random, network: Network) -> Self {
        let places = Class::ALL.map(|class| Semaphore::new(config.places(class).min(Semaphore::MAX_PERMITS)));
        Self {
            table: Table::new(config.cache_bytes),
            source: Source::new(&config),
            random,
            network,
            places,
            pending: Mutex::default(),
            has_pending: AtomicBool::new(false),
            unanswered: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            driver: Arc::default(),
            config,
        }
    }

    /// What is known about a question, or the question on its way. It takes the given place, or one that is
    /// free.
    pub fn find(
        self: &Arc<Self>,
        question: &Question,
        class: Class,
        place: Option<SemaphorePermit<'_>>,
    ) -> Found {
        let now = Instant::now();
        self.source.refresh_if_due(&self.config, now);
        let start = |key, at| {
            place.or_else(|| self.places[class.index()].try_acquire().ok())?.forget();
            Some(Arc::new(Flight::new(key, Some(class), at)))
        };
        let found = self.table.find(question, now, self.source.generation(), start);
        if let Found::New(flight) = &found {
            self.unanswered.fetch_add(1, Ordering::SeqCst);
            self.pending().push(Arc::clone(flight));
            self.has_pending.store(true, Ordering::Release);
            self.drive();
        }
        found
    }

    fn pending(&self) -> MutexGuard<'_, Vec<Arc<Flight>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the task runs that sends what nobody waits for, and looks for what is late. It is not
    /// woken for each question, but once for those that come while others wait.
    fn drive(self: &Arc<Self>) {
        if self.driver.is_attentive.load(Ordering::SeqCst) {
            return;
        }
        if !self.driver.is_running.swap(true, Ordering::SeqCst) {
            tokio::spawn(drive(Arc::downgrade(self), Running(Arc::clone(&self.driver))));
        }
        self.driver.wake.notify_one();
    }

    /// Sends what was asked since the last time, in as few system calls as there are servers.
    pub fn flush(self: &Arc<Self>) {
        if !self.has_pending.swap(false, Ordering::AcqRel) {
            return;
        }
        let flights = std::mem::replace(&mut *self.pending(), Vec::with_capacity(BATCH));
        let Some(first) = flights.first().map(|flight| flight.key.clone()) else { return };
        let now = Instant::now();
        let upstream = self.source.upstream();
        let mut asked = Vec::with_capacity(flights.len());
        for flight in flights {
            let turn = if upstream.rotate { self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
            match flight.begin(&upstream, None, turn, now) {
                Next::Ask => asked.push(flight),
                Next::End(outcome) => self.finish(&flight, outcome, upstream.generation, now),
            }
        }
        if upstream.servers.len() > 1 {
            for (place, server) in upstream.servers.iter().enumerate() {
                if server.wants_trial(now) {
                    let trial = Arc::new(Flight::new(first.clone(), None, None));
                    let _ = trial.begin(&upstream, Some(place), 0, now);
                    asked.push(trial);
                }
            }
        }
        self.transmit(asked, now);
    }

    /// Sends questions to the servers that their ways lead to.
    fn transmit(self: &Arc<Self>, flights: Vec<Arc<Flight>>, now: Instant) {
        let asking = |flight: Arc<Flight>| flight.asking().map(|asking| (flight, asking));
        let mut left: Vec<Asked> = flights.into_iter().filter_map(asking).collect();
        let size = if self.config.fresh_ports { 1 } else { BATCH };
        while let Some((_, last)) = left.last() {
            let (server, over_tcp) = (Arc::clone(&last.server), last.visit.over_tcp);
            let goes_there = |(_, asking): &Asked| {
                Arc::ptr_eq(&asking.server, &server) && asking.visit.over_tcp == over_tcp
            };
            let batch = match left.len() <= size && left.iter().all(goes_there) {
                true => std::mem::take(&mut left),
                false => take_last(&mut left, size, goes_there),
            };
            let refused = self.send(&server, over_tcp, &batch, now);
            left.extend(refused.into_iter().filter_map(asking));
        }
    }

    /// Sends questions to one server. Returns those that have to be asked elsewhere, which may be more than
    /// these: a port that fails fails for all.
    fn send(
        self: &Arc<Self>,
        server: &Arc<Server>,
        over_tcp: bool,
        batch: &[Asked],
        now: Instant,
    ) -> Vec<Arc<Flight>> {
        let mut failure = Error::Unreachable(io::ErrorKind::Other);
        let mut message = Vec::with_capacity(MAX_QUERY);
        for _ in 0..CHANNEL_TRIES {
            let patience = batch.first().map_or(MAX_TICK, |(_, asking)| asking.timeout);
            let channel = match self.channel(server, over_tcp, patience, now) {
                Ok(channel) => channel,
                Err(error) => {
                    failure = error.into();
                    break;
                }
            };
            let write = |asked: &Asked, id| self.write(asked, id, now, &mut message);
            let Some(messages) = channel.wait_for(batch, &self.random, write) else { continue };
            return match channel.link.send(&messages) {
                Ok(()) => Vec::new(),
                Err(error) => {
                    let error = error.into();
                    self.advance_all(channel.close(), || Event::Failed(error), now)
                }
            };
        }
        let flights = batch.iter().map(|(flight, _)| Arc::clone(flight));
        flights.filter_map(|flight| self.advance(flight, Event::Failed(failure), now)).collect()
    }

    /// The message that asks a question now; it is written into the given room.
    fn write(&self, (flight, asking): &Asked, id: u16, now: Instant, message: &mut Vec<u8>) -> Query {
        let Asking { visit, name, timeout, .. } = asking;
        message.clear();
        let question = flight.question();
        let options = QueryOptions { edns: visit.edns, proof: question.wants_proof };
        let tosses = self.random.tosses().take_while(|_| visit.mixed_case);
        write_query(message, id, name, question.record_type, options, tosses);
        Query {
            id,
            flight: Arc::clone(flight),
            name: name.clone(),
            message: Arc::from(&message[..]),
            resend: visit.resend_at(*timeout),
            due: visit.since.max(now) + *timeout,
        }
    }

    /// The port or connection for the next questions to a server.
    fn channel(
        self: &Arc<Self>,
        server: &Arc<Server>,
        over_tcp: bool,
        patience: Duration,
        now: Instant,
    ) -> io::Result<Arc<Channel>> {
        if over_tcp {
            return self.stream(server, patience, now);
        }
        let mut ports = server.ports();
        let is_fresh = self.config.fresh_ports;
        if !is_fresh && !ports.may_open(now) {
            // A port that is closed in its turn is not found here again.
            let (open, spent) =
                std::mem::take(&mut ports.open).into_iter().partition(|port| !port.is_spent(now));
            ports.open = open;
            ports.draining.extend::<Vec<_>>(spent);
            if !ports.open.is_empty() {
                return Ok(Arc::clone(&ports.open[self.random.below(ports.open.len())]));
            }
        }
        drop(ports);
        let opened = self.network.open_port(self, server, now);
        let mut ports = server.ports();
        match opened {
            Ok(port) => {
                match is_fresh {
                    true => ports.draining.push(Arc::clone(&port)),
                    false => ports.add(Arc::clone(&port)),
                }
                Ok(port)
            }
            // The process may have no descriptor left: an open port is better than none.
            Err(error) => ports.open.last().map(Arc::clone).ok_or(error),
        }
    }

    fn stream(
        self: &Arc<Self>,
        server: &Arc<Server>,
        patience: Duration,
        now: Instant,
    ) -> io::Result<Arc<Channel>> {
        let mut ports = server.ports();
        if let Some(stream) = &ports.stream
            && !stream.is_spent(now)
        {
            return Ok(Arc::clone(stream));
        }
        let stream = self.network.open_stream(self, server, patience, now)?;
        let old = ports.stream.replace(Arc::clone(&stream));
        ports.draining.extend(old);
        Ok(stream)
    }

    /// Messages have come on a channel.
    pub fn received<'m>(self: &Arc<Self>, channel: &Channel, messages: impl Iterator<Item = &'m [u8]>) {
        let now = Instant::now();
        let is_tcp = channel.link.is_tcp();
        let again = messages.filter_map(|message| {
            let (query, reading) = channel.take(message, |query| {
                let record_type = query.flight.question().record_type;
                match read(message, &query.message, &query.name, record_type, is_tcp) {
                    Reading::NotOurs => None,
                    Reading::Answer(_) | Reading::Alias { .. } if !is_tcp && is_cut(message) => {
                        Some(Reading::Truncated)
                    }
                    reading => Some(reading),
                }
            })?;
            self.advance(query.flight, Event::Reading(reading), now)
        });
        let again: Vec<_> = again.collect();
        if !again.is_empty() {
            self.transmit(again, now);
        }
    }

    /// A channel has failed; without an error the other side has closed it.
    pub fn failed(self: &Arc<Self>, channel: &Arc<Channel>, error: Option<Error>) {
        let now = Instant::now();
        let mut ports = channel.server.ports();
        if ports.stream.as_ref().is_some_and(|stream| Arc::ptr_eq(stream, channel)) {
            ports.stream = None;
        }
        ports.open.retain(|port| !Arc::ptr_eq(port, channel));
        ports.draining.retain(|port| !Arc::ptr_eq(port, channel));
        drop(ports);
        let again = self.advance_all(channel.close(), || error.map_or(Event::Closed, Event::Failed), now);
        self.transmit(again, now);
    }

    fn advance_all(&self, queries: Vec<Query>, event: impl Fn() -> Event, now: Instant) -> Vec<Arc<Flight>> {
        queries.into_iter().filter_map(|query| self.advance(query.flight, event(), now)).collect()
    }

    /// Does what follows from an event; returns the question if it has to be sent again.
    fn advance(&self, flight: Arc<Flight>, event: Event, now: Instant) -> Option<Arc<Flight>> {
        match flight.step(event, now) {
            (Next::Ask, _) => Some(flight),
            (Next::End(outcome), generation) => {
                let generation = generation.unwrap_or_else(|| self.source.generation());
                self.finish(&flight, outcome, generation, now);
                None
            }
        }
    }

    /// Remembers what a question came to and tells those who wait. A failure of servers that have been
    /// replaced meanwhile says nothing about the new ones.
    fn finish(&self, flight: &Flight, mut outcome: Outcome, generation: u64, now: Instant) {
        let Some(class) = flight.class else { return flight.end(outcome) };
        let ttl = match &mut outcome {
            Ok(answer) => {
                let max = if answer.is_empty() { self.config.max_negative_ttl } else { self.config.max_ttl };
                answer.ttl = answer.ttl.min(max);
                answer.ttl
            }
            // The next one may find a place or a descriptor.
            Err(Error::Overloaded | Error::NoSocket(_)) => Duration::ZERO,
            Err(_) => self.config.failure_ttl,
        };
        self.table.remember(flight, &outcome, ttl, generation, now);
        self.places[class.index()].add_permits(1);
        self.unanswered.fetch_sub(1, Ordering::SeqCst);
        flight.end(outcome);
    }

    /// Sends again, gives up and closes what is due. Returns when to look the next time; `None` if nothing is
    /// open.
    fn tick(self: &Arc<Self>) -> Option<Duration> {
        let now = Instant::now();
        // What is being sent by another thread may not be on any channel yet.
        let mut waits = self.unanswered.load(Ordering::SeqCst) > 0;
        let mut is_open = false;
        let mut again = Vec::new();
        for server in self.source.known_servers() {
            let mut ports = server.ports();
            let channels: Vec<_> = ports.all().map(Arc::clone).collect();
            let is_settled = |port: &Arc<Channel>| port.is_spent(now) && port.close_if_idle();
            ports.open.retain(|port| !is_settled(port));
            ports.draining.retain(|port| !port.close_if_idle());
            if ports.stream.as_ref().is_some_and(is_settled) {
                ports.stream = None;
            }
            is_open |= ports.all().next().is_some();
            drop(ports);
            for channel in channels {
                let due = channel.due(now);
                waits |= !due.is_idle;
                if channel.link.send(&due.resend).is_err() {
                    self.failed(&channel, Some(Error::Unreachable(io::ErrorKind::ConnectionRefused)));
                }
                again.extend(self.advance_all(due.given_up, || Event::Silence, now));
            }
        }
        waits |= !again.is_empty();
        self.transmit(again, now);
        if !waits {
            self.driver.is_attentive.store(false, Ordering::SeqCst);
            // Who asked before that has woken nobody.
            waits = self.unanswered.load(Ordering::SeqCst) > 0;
        }
        if waits {
            self.driver.is_attentive.store(true, Ordering::SeqCst);
        }
        (is_open || waits).then(|| if waits { self.tick_time() } else { IDLE_TICK })
    }

    fn tick_time(&self) -> Duration {
        (self.source.upstream().timeout / TICKS).clamp(MIN_TICK, MAX_TICK)
    }

    /// The number of questions that wait on channels, and of open channels.
    pub fn load(&self) -> (usize, usize) {
        let servers = self.source.known_servers();
        let ports = servers.iter().map(|server| {
            let ports = server.ports();
            (ports.all().map(|channel| channel.waits()).sum::<usize>(), ports.all().count())
        });
        ports.fold((0, 0), |(waiting, open), (more, others)| (waiting + more, open + others))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        for server in self.source.known_servers() {
            server.ports().all().for_each(|channel| drop(channel.close()));
        }
        self.driver.wake.notify_one();
    }
}

/// Takes up to `size` of what is wanted out of a list, from its end, so that taking one moves few.
fn take_last<T>(list: &mut Vec<T>, size: usize, is_wanted: impl Fn(&T) -> bool) -> Vec<T> {
    let mut taken = Vec::with_capacity(list.len().min(size));
    for place in (0..list.len()).rev() {
        if is_wanted(&list[place]) {
            taken.push(list.swap_remove(place));
        }
        if taken.len() == size {
            break;
        }
    }
    taken
}

/// Drives an engine until it is gone.
async fn drive(engine: Weak<Engine>, running: Running) {
    let driver = &running.0;
    let mut next: Option<Instant> = None;
    loop {
        let Some(engine) = engine.upgrade() else { return };
        engine.flush();
        let now = Instant::now();
        if next.is_none_or(|next| next <= now) {
            next = engine.tick().map(|pause| now + pause);
        }
        // A question that wakes the task is not left alone for as long as idle ports are.
        let soonest = now + engine.tick_time();
        drop(engine);
        let was_woken = match next {
            None => {
                driver.wake.notified().await;
                true
            }
            Some(next) => timeout(next - now, driver.wake.notified()).await.is_ok(),
        };
        if was_woken {
            next = next.map(|next| next.min(soonest));
            driver.is_attentive.store(true, Ordering::SeqCst);
        }
    }
}
