//! A chain on the bench: configuration in, fake world around it, answers out. For tests and benchmarks only.
//!
//! Knows: everything below the server. Must not know: sockets, files.

#[cfg(test)]
mod example;
pub mod geoip;

use crate::carry_over::CarryOver;
use crate::chain::Chain;
use crate::connections::{Connections, Outside};
use crate::counters::Reservations;
use crate::events::{Event, Events};
use crate::facts::World;
use crate::journal::JournalSlot;
use crate::matching::Matching;
use crate::options::{Report, Section};
use crate::plugin::{Afterwards, Course, Cx, Kind, Notes, OnBadRequest, OnError, PluginEnv, StepNumbers};
use crate::plugins::KINDS;
use crate::session::Session;
use crate::state::{Changed, Desk, Entry, Kind as StateKind, Lists, Order, Remembered, Select, StateError};
use crate::tasks::{Task, TaskResult, Tasks, When};
use backends::Call;
use backends::clock::Clock;
use backends::dns::{Ahead, Answer, Dns, Question, Zone};
use backends::smtp::Destinations;
use config_general::{Document, Limits, Severity};
use decisions::Walk;
use postfix_policy::Request;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

#[cfg(test)]
#[path = "../tests/it/support/fake_http.rs"]
pub mod fake_http;

/// A chain, the next request to it, and what is around it.
pub struct Bench {
    chain: Chain,
    attributes: Vec<(String, String)>,
    zone: Zone,
    dns: Option<Arc<Dns>>,
    smtp: Arc<Destinations>,
    clock: Arc<Clock>,
    events: Arc<Events>,
    tasks: Vec<Task>,
    remembered: Remembered,
    runtime: Runtime,
    /// What is remembered of the message; it stays from one run to the next.
    pub session: Session,
    /// The way of the last request through the chain.
    pub walk: Walk,
}

impl Bench {
    /// A chain from the text of its plugin blocks, and of the connections that they name.
    pub fn new(text: &str) -> Bench {
        Bench::with_kinds(text, KINDS)
    }

    /// The same with other kinds of plugins than those of the daemon.
    pub fn with_kinds(text: &str, kinds: &'static [Kind]) -> Bench {
        let (read, messages) = read(text, kinds);
        let (chain, tasks, remembered) = read.unwrap_or_else(|| panic!("{messages:?}"));
        // A worker of its own, so that what was begun in the background goes on between the requests.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Bench {
            chain,
            attributes: Vec::new(),
            zone: Zone::default(),
            dns: None,
            smtp: Arc::default(),
            clock: Arc::new(Clock::Fake(AtomicI64::new(BEGINNING))),
            events: Arc::default(),
            tasks,
            remembered,
            runtime: runtime.expect("a runtime"),
            session: Session::default(),
            walk: Walk::default(),
        }
    }

    /// The events since it was last asked, each as `KIND STATE: TEXT`.
    pub fn events(&self) -> Vec<String> {
        self.events.end_limits(&self.clock);
        let shown = |event: Event| format!("{} {}: {}", event.kind, event.state, event.text);
        self.events.take_all().into_iter().map(shown).collect()
    }

    /// Lets time pass for tickets and counters.
    pub fn pass(&mut self, time: Duration) {
        if let Clock::Fake(now) = self.clock.as_ref() {
            now.fetch_add(i64::try_from(time.as_secs()).expect("a short time"), Ordering::Relaxed);
        }
    }

    /// Puts the clock back, as happens to one that was wrong.
    pub fn pass_back(&mut self, time: Duration) {
        if let Clock::Fake(now) = self.clock.as_ref() {
            now.fetch_sub(i64::try_from(time.as_secs()).expect("a short time"), Ordering::Relaxed);
        }
    }

    /// What time it is for tickets and counters.
    pub fn now(&self) -> i64 {
        self.clock.now()
    }

    /// Does the tasks that are due then.
    pub fn run_tasks(&mut self, when: When) -> Vec<TaskResult> {
        let world = self.world();
        let due = self.tasks.iter().filter(|task| task.when == when);
        self.runtime.block_on(async {
            let mut results = Vec::new();
            for task in due {
                results.push(task.run(world.clone()).await);
            }
            results
        })
    }

    /// Asks what the plugins of the chain remember: all pages.
    pub fn list(&mut self, kind: StateKind, select: &Select) -> Result<Vec<Entry>, StateError> {
        let world = self.world();
        let journal = JournalSlot::default();
        let desk = Desk { remembered: &self.remembered, world: &world, journal: &journal };
        self.runtime.block_on(async {
            let (mut entries, mut cursor) = (Vec::new(), None::<String>);
            loop {
                let call = Call::within(Duration::from_secs(20));
                let page = desk.list(kind, select, cursor.as_deref(), 7, call).await?;
                assert!(page.notes.is_empty(), "{:?}", page.notes);
                entries.extend(page.entries);
                cursor = page.next;
                if cursor.is_none() {
                    return Ok(entries);
                }
            }
        })
    }

    /// Changes what the plugins of the chain remember.
    pub fn change(&mut self, kind: StateKind, order: &Order) -> Result<Vec<Changed>, StateError> {
        let world = self.world();
        let journal = JournalSlot::default();
        let desk = Desk { remembered: &self.remembered, world: &world, journal: &journal };
        let call = Call::within(Duration::from_secs(20));
        self.runtime.block_on(desk.change(kind, order, "a test", call))
    }

    /// How the DNS lists of the chain fare.
    pub fn lists(&mut self, name: Option<&str>, test: bool) -> Result<Lists, StateError> {
        let world = self.world();
        let journal = JournalSlot::default();
        let desk = Desk { remembered: &self.remembered, world: &world, journal: &journal };
        self.runtime.block_on(desk.lists(name, test, Call::within(Duration::from_secs(20))))
    }

    /// Waits for a future on the runtime of the bench.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn world(&mut self) -> World {
        let zone = std::mem::take(&mut self.zone);
        let dns = self.dns.get_or_insert_with(|| Arc::new(Dns::Fake(zone))).clone();
        let (smtp, clock, events) = (self.smtp.clone(), self.clock.clone(), self.events.clone());
        World { dns, lists: Arc::default(), smtp, clock, events }
    }

    /// What is wrong with a configuration, as `line:column message`.
    pub fn mistakes(text: &str) -> Vec<String> {
        let (chain, messages) = read(text, KINDS);
        assert!(chain.is_none(), "the configuration is refused");
        messages
            .into_iter()
            .filter(|(severity, _)| *severity == Severity::Error)
            .map(|(_, text)| text)
            .collect()
    }

    /// What is noticed about a configuration that works.
    pub fn warnings(text: &str) -> Vec<String> {
        let (chain, messages) = read(text, KINDS);
        assert!(chain.is_some(), "the configuration is accepted: {messages:?}");
        messages.into_iter().map(|(_, text)| text).collect()
    }

    /// Adds an attribute to the request.
    pub fn attribute(mut self, name: &str, value: &str) -> Bench {
        self.attribute_again(name, value);
        self
    }

    /// Changes an attribute for the requests from now on.
    pub fn attribute_again(&mut self, name: &str, value: &str) -> &mut Bench {
        self.attributes.retain(|(known, _)| known != name);
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Puts a name on a DNS list.
    pub fn listed(mut self, name: &str, address: &str, text: &str) -> Bench {
        let address: Ipv4Addr = address.parse().expect("an address");
        self.zone = self.zone.address(name, address).text(name, text);
        self
    }

    /// Gives a name a TXT record.
    pub fn text(mut self, name: &str, text: &str) -> Bench {
        self.zone = self.zone.text(name, text);
        self
    }

    /// Adds an answer to a question, proved by DNSSEC or not.
    pub fn answers(mut self, question: Question, answer: Answer, is_proved: bool) -> Bench {
        let zone = self.zone;
        self.zone = if is_proved { zone.proved(question, answer) } else { zone.with(question, answer) };
        self
    }

    /// Makes the question for an address fail.
    pub fn dns_fails(mut self, name: &str) -> Bench {
        self.zone = self.zone.failing(name);
        self
    }

    /// The DNS questions asked so far, as `name TYPE`.
    pub fn questions(&self) -> Vec<String> {
        let Some(Dns::Fake(zone)) = self.dns.as_deref() else { return Vec::new() };
        let text = |question: Question| format!("{} {}", question.name, question.record_type);
        zone.asked().into_iter().map(text).collect()
    }

    /// The action of the chain, or `None` if no plugin answers.
    pub fn run(&mut self) -> Option<String> {
        self.try_run().expect("the chain answers")
    }

    /// The same with nothing remembered, as for the first request of a message.
    pub fn run_fresh(&mut self) -> Option<String> {
        self.session = Session::default();
        self.run()
    }

    /// The action about a message of which nothing is remembered, by a daemon that dies before Postfix has
    /// it.
    pub fn run_and_die(&mut self) -> Option<String> {
        self.session = Session::default();
        self.try_run_until(false).expect("the chain answers")
    }

    /// The same where a plugin may fail.
    pub fn try_run(&mut self) -> Result<Option<String>, String> {
        self.try_run_until(true)
    }

    fn try_run_until(&mut self, answered: bool) -> Result<Option<String>, String> {
        let pairs = self.attributes.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let request = Request::from_pairs(pairs).expect("a request");
        let world = self.world();
        self.runtime.block_on(async {
            let (mut after, mut walk) = (Afterwards::default(), Some(Walk::default()));
            let mut cx = Cx {
                notes: &Notes::default(),
                request: &request,
                session: &mut self.session,
                world: &world,
                ahead: &mut Ahead::default(),
                reservations: &mut Reservations::default(),
                call: Call::within(Duration::from_secs(20)),
                matching: &mut Matching::default(),
                course: &mut Course::default(),
                after: &mut after,
                walk: &mut walk,
            };
            let outcome = self.chain.answer(&mut cx).await.map_err(|error| error.to_string());
            self.walk = walk.unwrap_or_default();
            let outcome = outcome?;
            if answered {
                after.run().await;
            }
            Ok(outcome.map(|outcome| outcome.action))
        })
    }
}

/// When the clock of a bench begins to stand still: 2025-11-24T16:00:00Z.
const BEGINNING: i64 = 1_764_000_000;

/// What was said about a configuration, each with its severity.
type Diagnostics = Vec<(Severity, String)>;

/// A chain with its tasks and what its plugins remember.
type Made = (Chain, Vec<Task>, Remembered);

/// The chain, if it is accepted, and what was said about it.
fn read(text: &str, kinds: &'static [Kind]) -> (Option<Made>, Diagnostics) {
    let document = config_general::parse(Path::new("bench"), text.as_bytes(), &Limits::default());
    let Document { root, sources, .. } =
        document.unwrap_or_else(|failure| panic!("{:?}", failure.diagnostics));
    let report = Report::default();
    let mut section = Section::new(&root, &report);
    let connections = Connections::read(&mut section, None, Outside::Real);
    let tasks = Tasks::default();
    let env = PluginEnv {
        kinds,
        on_error: Some(OnError::Close),
        on_bad_request: OnBadRequest::Defer,
        lookahead: true,
        log_level: 4,
        depth: 0,
        connections: &connections,
        tasks: &tasks,
        carried_over: &CarryOver::default(),
        numbers: &StepNumbers::default(),
        number: 0,
        stage: None,
    };
    let chain = Chain::from_section(&mut section, env);
    section.finish();
    let messages = report.into_diagnostics().into_iter().map(|d| {
        let place = d.span.map(|span| sources.position(span)).map(|at| format!("{}:{} ", at.line, at.column));
        (d.severity, format!("{}{}", place.unwrap_or_default(), d.message))
    });
    let messages: Vec<_> = messages.collect();
    let refused = messages.iter().any(|(severity, _)| *severity == Severity::Error);
    let remembered = tasks.states.take_all();
    (chain.filter(|_| !refused).map(|chain| (chain, tasks.into_list(), remembered)), messages)
}
