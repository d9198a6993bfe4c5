//! A network that loses, delays, reorders, doubles and lies, the same way for the same seed.
//!
//! Knows: what servers do wrong. Must not know: how the resolver copes with it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::{Instant, sleep};

use crate::answer::{Answer, Data, Error, Rcode, RecordType};
use crate::channel::Channel;
use crate::engine::Engine;
use crate::message::tests::{record, reply, soa, wire};
use crate::name::Name;
use crate::network::{Link, Network};
use crate::random::Random;
use crate::resolver::{Class, Config, Question, Resolver};
use crate::server::Server;

/// The time limit of a server in all runs.
const TIMEOUT: Duration = Duration::from_millis(800);

/// The names that there are: what a server says about each depends on the number.
const NAMES: usize = 24;

/// The address that only liars give.
const LIE: [u8; 4] = [6, 6, 6, 6];

/// What a server is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Good,
    Silent,
    /// Nothing has the port.
    Closed,
    Code(u8),
    /// It refuses questions with EDNS, with its question or a bare header; or says nothing.
    NoEdns(Option<u8>, bool),
    LowerCase,
}

/// A server and the way to it.
#[derive(Clone, Copy, Debug)]
struct Behaviour {
    manner: Manner,
    /// Of a hundred messages, in each direction.
    loss: u64,
    doubled: u64,
    max_delay: u64,
    /// A forger who does not know the question answers first.
    lies: bool,
}

/// What the channels of a test lead to.
pub(crate) struct FakeNetwork {
    random: Random,
    behaviours: HashMap<SocketAddr, Behaviour>,
    channels: Mutex<HashMap<u64, Weak<Channel>>>,
    count: AtomicU64,
    pub queries: AtomicUsize,
    /// The error number that opening a socket ends with; 0 is none.
    no_sockets: AtomicI32,
    engine: OnceLock<Weak<Engine>>,
    this: Weak<FakeNetwork>,
}

impl FakeNetwork {
    pub fn open(&self, server: &Arc<Server>, is_tcp: bool, now: Instant) -> io::Result<Arc<Channel>> {
        match self.no_sockets.load(Ordering::Relaxed) {
            0 => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let network = self.this.upgrade().expect("it is asked");
        let channel = Arc::new(Channel::new(Arc::clone(server), Link::Fake { number, is_tcp, network }, now));
        self.channels.lock().unwrap().insert(number, Arc::downgrade(&channel));
        Ok(channel)
    }

    pub fn send(&self, number: u64, is_tcp: bool, messages: &[Arc<[u8]>]) -> io::Result<()> {
        let channel = self.channels.lock().unwrap()[&number].upgrade().expect("it sends");
        let behaviour = self.behaviours[&channel.server.address];
        for message in messages {
            self.queries.fetch_add(1, Ordering::Relaxed);
            if behaviour.manner == Manner::Closed {
                self.later(&channel, 1, None);
                continue;
            }
            if behaviour.lies && !is_tcp {
                for lie in self.lies(message) {
                    self.later(&channel, 0, Some(lie));
                }
            }
            if !is_tcp && self.happens(behaviour.loss) {
                continue;
            }
            let Some(reply) = behaviour.reply(message, is_tcp) else { continue };
            for _ in 0..1 + usize::from(!is_tcp && self.happens(behaviour.doubled)) {
                if is_tcp || !self.happens(behaviour.loss) {
                    let delay = 1 + self.random.number() % behaviour.max_delay;
                    self.later(&channel, delay, Some(reply.clone()));
                }
            }
        }
        Ok(())
    }

    fn happens(&self, of_a_hundred: u64) -> bool {
        self.random.number() % 100 < of_a_hundred
    }

    /// Something reaches the resolver after some milliseconds; without a message it is that nobody is there.
    fn later(&self, channel: &Arc<Channel>, delay: u64, message: Option<Vec<u8>>) {
        let (engine, channel) = (self.engine.get().cloned().unwrap_or_default(), Arc::downgrade(channel));
        tokio::spawn(async move {
            sleep(Duration::from_millis(delay)).await;
            let (Some(engine), Some(channel)) = (engine.upgrade(), channel.upgrade()) else { return };
            match message {
                Some(message) => engine.received(&channel, [&message[..]].into_iter()),
                None => {
                    engine.failed(&channel, Some(Error::Unreachable(io::ErrorKind::ConnectionRefused)));
                }
            }
        });
    }

    /// What somebody sends who knows the question but neither the identifier nor the case of the letters, and
    /// then all but the latter.
    fn lies(&self, query: &[u8]) -> Vec<Vec<u8>> {
        let mut plain = query.to_vec();
        plain[12..].make_ascii_lowercase();
        let lie = record(&[0xc0, 12], RecordType::A, 60, &LIE);
        let good = reply(&plain, 0, std::slice::from_ref(&lie), &[]);
        let mut wrong_id = reply(query, 0, std::slice::from_ref(&lie), &[]);
        wrong_id[0] ^= 1;
        let mut question = reply(query, 0, &[lie], &[]);
        question[13] = question[13].wrapping_add(1);
        let is_known = plain[12..] == query[12..];
        let guess = if is_known { Vec::new() } else { vec![good] };
        [guess, vec![wrong_id, question, vec![], query.to_vec()]].concat()
    }
}

/// The number of a name that is asked for, and if it is the second of a chain.
fn number_of(query: &[u8]) -> (usize, bool) {
    let name = Name::read(query, 12).unwrap();
    let label = String::from_utf8(name.labels().next().unwrap().to_vec()).unwrap();
    (label[1..].parse().unwrap(), label.starts_with('t'))
}

fn address(number: usize, of: usize) -> [u8; 4] {
    [10, u8::try_from(of).unwrap(), 0, u8::try_from(number).unwrap()]
}

impl Behaviour {
    fn reply(self, query: &[u8], is_tcp: bool) -> Option<Vec<u8>> {
        let has_edns = query[11] != 0;
        match self.manner {
            Manner::Silent | Manner::Closed => None,
            Manner::Code(code) => Some(reply(query, code, &[], &[])),
            Manner::NoEdns(code, is_bare) if has_edns => {
                let mut refusal = reply(query, code?, &[], &[]);
                if is_bare {
                    refusal.truncate(12);
                    refusal[5] = 0;
                }
                Some(refusal)
            }
            Manner::LowerCase => {
                let mut lower = query.to_vec();
                lower[12..].make_ascii_lowercase();
                Some(truth(&lower, is_tcp))
            }
            Manner::Good | Manner::NoEdns(..) => Some(truth(query, is_tcp)),
        }
    }
}

/// What is true about a name.
fn truth(query: &[u8], is_tcp: bool) -> Vec<u8> {
    let (number, is_target) = number_of(query);
    let question = [0xc0, 12];
    let target = wire(&format!("t{number}.test"));
    let a = |owner: &[u8], of| record(owner, RecordType::A, 60, &address(number, of));
    let alias = record(&question, RecordType::CNAME, 60, &target);
    match number % 8 {
        _ if is_target => reply(query, 0, &[a(&question, 1)], &[]),
        0 => reply(query, 0, &[a(&question, 1)], &[]),
        1 => reply(query, 0, &[a(&target, 1), alias], &[]),
        2 => reply(query, 0, &[alias], &[]),
        3 => reply(query, 3, &[], &[soa(60, 60)]),
        4 => reply(query, 0, &[], &[]),
        5 if !is_tcp => {
            let mut cut = reply(query, 0, &[], &[]);
            cut[2] |= 2;
            cut
        }
        5 => reply(query, 0, &(1..=200).map(|of| a(&question, of)).collect::<Vec<_>>(), &[]),
        6 => reply(query, 0, &[record(&question, RecordType::A, 60, &[1]), a(&question, 1)], &[]),
        // Over UDP it ends in the middle.
        _ => {
            let mut message = reply(query, 0, &[a(&question, 1)], &[]);
            message.truncate(if is_tcp { message.len() } else { message.len() - 2 });
            message
        }
    }
}

/// The number of addresses of a name; `None` if it does not exist.
fn expected(number: usize) -> Option<usize> {
    match number % 8 {
        3 => None,
        4 => Some(0),
        5 => Some(200),
        _ => Some(1),
    }
}

fn check(number: usize, answer: &Answer, context: &str) {
    let addresses: Vec<_> = answer.records().collect();
    let truth = |of| Data::A(address(number, of).into());
    let expected_addresses: Vec<_> = (1..=expected(number).unwrap_or(0)).map(truth).collect();
    assert_eq!(addresses, expected_addresses, "{context}");
    let code = expected(number).map_or(Rcode::NXDOMAIN, |_| Rcode::NOERROR);
    assert_eq!(answer.rcode, code, "{context}");
}

/// One run's servers.
fn behaviours(random: &Random) -> Vec<Behaviour> {
    let percent = |max: usize| u64::try_from(random.below(max)).unwrap();
    let behaviour = || {
        let manner = match random.below(12) {
            0 => Manner::Silent,
            1 => Manner::Closed,
            2 => Manner::Code([2, 5, 1, 4][random.below(4)]),
            3 => Manner::NoEdns([None, Some(1), Some(4)][random.below(3)], random.below(2) == 0),
            4 => Manner::LowerCase,
            _ => Manner::Good,
        };
        let loss = if random.below(2) == 0 { 0 } else { percent(40) };
        let (doubled, lies) = (percent(30), random.below(2) == 0);
        Behaviour { manner, loss, doubled, max_delay: 1 + percent(250), lies }
    };
    (0..1 + random.below(3)).map(|_| behaviour()).collect()
}

fn engine(behaviours: &[Behaviour], seed: u64, config: Config) -> (Arc<Engine>, Arc<FakeNetwork>) {
    let address = |place: usize| SocketAddr::from(([192, 0, 2, u8::try_from(place).unwrap()], 53));
    let servers: Vec<_> = (0..behaviours.len()).map(address).collect();
    let network = Arc::new_cyclic(|this| FakeNetwork {
        random: Random::seeded(seed ^ 0x5eed),
        behaviours: servers.iter().copied().zip(behaviours.iter().copied()).collect(),
        channels: Mutex::default(),
        count: AtomicU64::new(0),
        queries: AtomicUsize::new(0),
        no_sockets: AtomicI32::new(0),
        engine: OnceLock::new(),
        this: Weak::clone(this),
    });
    let config = Config { servers, timeout: Some(TIMEOUT), attempts: Some(2), ..config };
    let engine = Arc::new(Engine::new(config, Random::seeded(seed), Network::Fake(Arc::clone(&network))));
    network.engine.set(Arc::downgrade(&engine)).unwrap();
    (engine, network)
}

/// One run: some lookups, some of them of the same name, then silence.
async fn run(seed: u64) {
    let random = Random::seeded(!seed);
    let behaviours = behaviours(&random);
    let max = 1 + random.below(8);
    let fresh_ports = random.below(4) == 0;
    let config = Config { max_configured: max, max_foreign: max, fresh_ports, ..Config::default() };
    let (engine, _network) = engine(&behaviours, seed, config);
    let resolver = Resolver::with(Arc::clone(&engine));
    let is_healthy =
        |b: &Behaviour| b.loss == 0 && !matches!(b.manner, Manner::Silent | Manner::Closed | Manner::Code(_));
    let must_answer = behaviours.iter().any(is_healthy);
    let context = format!("seed {seed}, {behaviours:?}");
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let number = random.below(NAMES);
        let question = Question::new(Name::parse(&format!("n{number}.test")).unwrap(), RecordType::A);
        let class = Class::ALL[random.below(2)];
        let (resolver, context) = (resolver.clone(), context.clone());
        let ahead = if random.below(2) == 0 { resolver.start(&question, class).ok() } else { None };
        let pause = Duration::from_millis(u64::try_from(random.below(3_000)).unwrap());
        tasks.push(tokio::spawn(async move {
            sleep(pause).await;
            let start = Instant::now();
            let outcome = match ahead {
                Some(lookup) => lookup.await,
                None => resolver.resolve(&question, class, start + 1_000 * TIMEOUT).await,
            };
            // Each server twice, over UDP without EDNS and over TCP, and what waits for a place waits for
            // others.
            assert!(start.elapsed() < 8 * 8 * 4 * resolver.patience(), "{context}: {:?}", start.elapsed());
            match &outcome {
                Ok(answer) => check(number, answer, &context),
                Err(error) => assert!(!must_answer, "{context}: {error}, name {number}"),
            }
        }));
    }
    drop(resolver);
    for task in tasks {
        task.await.unwrap_or_else(|error| panic!("{error}"));
    }
    sleep(Duration::from_secs(20)).await;
    assert_eq!(engine.load(), (0, 0), "{context}: nothing waits, nothing is open");
    assert_eq!(
        engine.places.each_ref().map(tokio::sync::Semaphore::available_permits),
        [max; 2],
        "{context}"
    );
}

fn in_virtual_time(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(future);
}

#[test]
fn no_network_makes_it_believe_a_lie_or_wait_for_ever() {
    // Each part has its own thread: they share nothing.
    std::thread::scope(|scope| {
        for part in 0..PARTS {
            scope.spawn(move || {
                (part..SEEDS).step_by(PARTS).for_each(|seed| in_virtual_time(run(seed as u64)))
            });
        }
    });
}

const SEEDS: usize = 10_000;
const PARTS: usize = 4;

const GOOD: Behaviour = Behaviour { manner: Manner::Good, loss: 0, doubled: 0, max_delay: 1, lies: false };

fn question(number: usize) -> Question {
    Question::new(Name::parse(&format!("n{number}.test")).unwrap(), RecordType::A)
}

/// The outcome of questions one after the other, how long each took, and the number of messages sent.
async fn ask(manners: &[Manner], numbers: &[usize]) -> Vec<(Result<usize, Error>, Duration, usize)> {
    let behaviours: Vec<_> = manners.iter().map(|&manner| Behaviour { manner, ..GOOD }).collect();
    let (engine, network) = engine(&behaviours, 1, Config::default());
    let resolver = Resolver::with(engine);
    let mut results = Vec::new();
    for &number in numbers {
        let (start, before) = (Instant::now(), network.queries.load(Ordering::Relaxed));
        let outcome = resolver.resolve(&question(number), Class::Foreign, start + 100 * TIMEOUT).await;
        let queries = network.queries.load(Ordering::Relaxed) - before;
        results.push((outcome.map(|answer| answer.records().count()), start.elapsed(), queries));
    }
    results
}

#[test]
fn a_dead_server_is_waited_for_once() {
    in_virtual_time(async {
        let results = ask(&[Manner::Silent, Manner::Closed, Manner::Good], &[0, 8, 16]).await;
        assert!(results.iter().all(|(outcome, ..)| *outcome == Ok(1)), "{results:?}");
        let (_, took, queries) = results[0];
        assert!(took >= TIMEOUT && took < 2 * TIMEOUT && queries == 4, "{took:?}, {queries} messages");
        assert!(
            results[1..].iter().all(|&(_, took, queries)| took < TIMEOUT / 4 && queries == 1),
            "{results:?}"
        );
    });
}

#[test]
fn a_server_that_only_refuses_is_passed_over() {
    in_virtual_time(async {
        for code in [1, 2, 4, 5] {
            let results = ask(&[Manner::Code(code), Manner::Good], &[0, 8]).await;
            assert!(
                results.iter().all(|(outcome, took, _)| *outcome == Ok(1) && *took < TIMEOUT),
                "{results:?}"
            );
            let alone = ask(&[Manner::Code(code)], &[0]).await;
            assert_eq!(alone[0].0, Err(Error::Refused(Rcode(code.into()))));
        }
    });
}

#[test]
fn what_a_server_can_not_do_is_learnt() {
    in_virtual_time(async {
        for manner in [Manner::NoEdns(Some(1), false), Manner::NoEdns(Some(4), true), Manner::LowerCase] {
            let queries: Vec<_> = ask(&[manner], &[0, 8]).await.iter().map(|result| result.2).collect();
            assert_eq!(queries, [2, 1], "{manner:?}");
        }
        let results = ask(&[Manner::NoEdns(None, false)], &[0, 8]).await;
        assert!(results[0].1 >= TIMEOUT && results[1].1 < TIMEOUT / 4, "{results:?}");
    });
}

#[test]
fn equal_questions_are_asked_once() {
    in_virtual_time(async {
        let (engine, network) = engine(&[GOOD], 1, Config::default());
        let resolver = Resolver::with(engine);
        let start = || resolver.start(&question(0), Class::Configured).unwrap();
        let lookups: Vec<_> = (0..20).map(|_| start()).collect();
        drop(start());
        for lookup in lookups {
            check(0, &lookup.await.unwrap(), "");
        }
        assert!(start().known().is_some());
        assert_eq!(network.queries.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn what_nobody_awaits_is_asked_and_remembered() {
    in_virtual_time(async {
        let (engine, network) = engine(&[GOOD], 1, Config::default());
        let resolver = Resolver::with(engine);
        drop(resolver.start(&question(0), Class::Configured));
        sleep(Duration::from_millis(100)).await;
        assert_eq!(network.queries.load(Ordering::Relaxed), 1);
        assert!(resolver.start(&question(0), Class::Configured).unwrap().known().is_some());
    });
}

#[test]
fn what_is_held_is_held_until_the_answer() {
    in_virtual_time(async {
        let (engine, _network) =
            engine(&[Behaviour { manner: Manner::Silent, ..GOOD }], 1, Config::default());
        let resolver = Resolver::with(engine);
        let held = Arc::new(());
        let start = || resolver.start_holding(&question(0), Class::Foreign, Arc::clone(&held));
        let lookup = start().unwrap();
        drop(start());
        sleep(TIMEOUT).await;
        assert_eq!((Arc::strong_count(&held), resolver.known(&question(0))), (3, None));
        assert_eq!(lookup.await, Err(Error::TimedOut));
        drop(start());
        assert_eq!((Arc::strong_count(&held), resolver.known(&question(0))), (1, Some(Err(Error::TimedOut))));
    });
}

#[test]
fn places_of_one_class_are_not_taken_by_the_other() {
    in_virtual_time(async {
        let config = Config { max_foreign: 2, ..Config::default() };
        let (engine, _network) = engine(&[Behaviour { manner: Manner::Silent, ..GOOD }], 1, config);
        let resolver = Resolver::with(engine);
        let start = |number, class| resolver.start(&question(number), class).map(drop);
        assert_eq!((start(0, Class::Foreign), start(1, Class::Foreign)), (Ok(()), Ok(())));
        assert_eq!(start(2, Class::Foreign), Err(Error::Overloaded));
        assert_eq!((start(0, Class::Foreign), start(2, Class::Configured)), (Ok(()), Ok(())));
        let soon = Instant::now() + TIMEOUT / 2;
        assert_eq!(resolver.resolve(&question(3), Class::Foreign, soon).await, Err(Error::Overloaded));
        let later = Instant::now() + 10 * TIMEOUT;
        assert_eq!(resolver.resolve(&question(3), Class::Foreign, later).await, Err(Error::TimedOut));
    });
}

#[test]
fn that_no_descriptor_is_left_says_nothing_about_a_server() {
    in_virtual_time(async {
        let (engine, network) = engine(&[GOOD, GOOD], 1, Config::default());
        let resolver = Resolver::with(Arc::clone(&engine));
        let asked = question(0);
        let ask = || resolver.resolve(&asked, Class::Foreign, Instant::now() + TIMEOUT);
        for code in [Errno::EMFILE, Errno::ENFILE] {
            network.no_sockets.store(code as i32, Ordering::Relaxed);
            let start = Instant::now();
            assert_eq!(ask().await, Err(Error::NoSocket(code as i32)));
            assert_eq!(start.elapsed(), Duration::ZERO, "nobody is waited for");
        }
        assert_eq!(
            Error::NoSocket(Errno::EMFILE as i32).to_string(),
            "no socket can be opened: Too many open files (os error 24)"
        );
        assert!(engine.source.upstream().servers.iter().all(|server| !server.is_dead()));
        network.no_sockets.store(0, Ordering::Relaxed);
        assert_eq!(ask().await.map(|answer| answer.records().count()), Ok(1), "it is asked at once");
        assert_eq!(network.queries.load(Ordering::Relaxed), 1, "the first server only");
    });
}
