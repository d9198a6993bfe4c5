//! All numbers at one moment, from those who have them.
//!
//! Knows: where each number is. Must not know: how numbers are written or asked for.

use super::process;
use crate::connections::{BackendState, Connection, Module};
use crate::events::EventKind;
use crate::facts::dnslist::{ListAnswer, ListState};
use crate::metrics::{self, Configured, Observed, Page};
use crate::plugin::OnError;
use crate::server::Shared;
use crate::server::numbers::{ENDS, NOT_COMPARED, ORIGINS, RELOADS, TURN_MICROS, TURNS, pair};
use crate::server::service::Service;
use backends::{CallNumbers, KINDS};
use decisions::{DecisionId, LookupKind, Origin, Outcome};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::Mutex;

/// How long servers may take to answer, until they count as not answering.
const BACKENDS_LIMIT: Duration = Duration::from_secs(1);

/// How the servers of a configuration are, asked at most once a second however many want to know.
#[derive(Default)]
pub(crate) struct Backends(Mutex<Option<Known>>);

struct Known {
    service: Arc<Service>,
    asked: Instant,
    states: Arc<Vec<(String, Module, BackendState)>>,
}

impl Backends {
    async fn states(&self, service: &Arc<Service>) -> Arc<Vec<(String, Module, BackendState)>> {
        let mut known = self.0.lock().await;
        let is_new =
            |known: &&Known| Arc::ptr_eq(&known.service, service) && known.asked.elapsed() < BACKENDS_LIMIT;
        if let Some(known) = known.as_ref().filter(is_new) {
            return known.states.clone();
        }
        let states = Arc::new(service.settings.connections.states(BACKENDS_LIMIT).await);
        *known = Some(Known { service: service.clone(), asked: Instant::now(), states: states.clone() });
        states
    }
}

/// Whether the daemon can do its work, and what there is to say about it, as `mtpolicyd status` has it.
pub(super) async fn readiness(shared: &Shared) -> (bool, String) {
    let service = shared.service.load_full();
    let states = shared.backends.states(&service).await;
    let down = states.iter().filter_map(|(name, _, state)| match state {
        BackendState::Down(_) => Some(format!("{name} does not answer\n")),
        BackendState::Up | BackendState::Local => None,
    });
    let down: String = down.collect();
    let closes = service.settings.hosts.iter().any(|host| host.on_error == OnError::Close);
    if down.is_empty() || !closes {
        return (true, format!("ready\n{down}"));
    }
    (false, format!("not ready\n{down}"))
}

/// All numbers.
pub(crate) async fn gather(shared: &Shared) -> Page {
    let service = shared.service.load_full();
    let recorder = service.recorder().clone();
    let (states, process, kept) = tokio::join!(
        shared.backends.states(&service),
        tokio::task::spawn_blocking(process::state),
        // A journal that is slow to be read has no age this time.
        tokio::time::timeout(BACKENDS_LIMIT, tokio::task::spawn_blocking(move || recorder.kept().begins)),
    );
    let begins = kept.ok().and_then(Result::ok).flatten();
    let mut page = Page::default();
    of_requests(&mut page, &service);
    of_shadows(&mut page, &service);
    of_plugins(&mut page, &service);
    of_lists(&mut page, &service);
    for (name, (_, _, state)) in service.labels().connections.iter().zip(&*states) {
        match state {
            BackendState::Local => {}
            BackendState::Up => metrics::backend_up(&mut page, name, true),
            BackendState::Down(_) => metrics::backend_up(&mut page, name, false),
        }
    }
    for (name, (_, connection)) in
        service.labels().connections.iter().zip(service.settings.connections.iter())
    {
        match connection {
            Connection::Memory(memory) => metrics::memory_store_entries(&mut page, name, memory.entries()),
            _ => of_calls(&mut page, name),
        }
    }
    of_connections(&mut page, shared);
    metrics::sessions(&mut page, service.kept_sessions());
    if let Some(usage) = service.world().dns.usage() {
        metrics::dns_in_flight(&mut page, usage.in_flight);
        metrics::dns_cache_entries(&mut page, usage.answers);
        metrics::dns_cache_bytes(&mut page, usage.cache_bytes);
    }
    of_journal(&mut page, &service, begins);
    of_events(&mut page, shared, &service);
    of_configuration(&mut page, shared, &service);
    of_process(&mut page, shared, process.unwrap_or_default());
    page
}

fn of_requests(page: &mut Page, service: &Service) {
    for (host, cells) in service.labels().hosts.iter().zip(&service.numbers().hosts) {
        for outcome in Outcome::ALL {
            metrics::requests(page, host, outcome.name(), cells.outcomes.get(outcome as usize));
        }
        metrics::request_seconds(page, host, cells.seconds.observed());
    }
}

/// Of shadows, as far as there are or were any.
fn of_shadows(page: &mut Page, service: &Service) {
    for (host, cells) in service.labels().hosts.iter().zip(&service.numbers().hosts) {
        for (live, shadow) in Outcome::ALL.iter().flat_map(|live| Outcome::ALL.map(|shadow| (*live, shadow)))
        {
            let count = cells.shadow.get(pair(live, shadow));
            if count > 0 {
                metrics::shadow(page, host, live.name(), shadow.name(), count);
            }
        }
    }
    for (place, host) in service.settings.hosts.iter().enumerate() {
        let numbers = service.labels().hosts.get(place).zip(service.numbers().hosts.get(place));
        let Some((label, cells)) = numbers else { continue };
        for (number, reason) in NOT_COMPARED.into_iter().enumerate() {
            let count = cells.not_compared.get(number);
            if count > 0 || service.shadows().of(&host.name).is_some() {
                metrics::shadow_dropped(page, label, reason, count);
            }
        }
    }
}

/// The plugins that have limits.
const LIMITS: [&str; 2] = ["RateLimit", "Quota"];

/// Of limits; and of what is written down of the way of a request, which is nothing where nobody wants to
/// know it.
fn of_plugins(page: &mut Page, service: &Service) {
    let steps = &service.settings.steps.steps;
    for (number, (host, plugin)) in service.labels().plugins.iter().enumerate() {
        if steps.get(number).is_some_and(|step| LIMITS.contains(&step.module.as_str())) {
            metrics::limit_hits(page, host, plugin, service.numbers().limit_hits(number));
        }
    }
    if !service.recorder().is_wanted() {
        return;
    }
    for ((host, plugin), cells) in service.labels().plugins.iter().zip(&service.numbers().steps) {
        for (number, outcome) in TURNS.into_iter().enumerate() {
            metrics::plugin_outcomes(page, host, plugin, outcome, cells.get(number));
        }
        metrics::plugin_seconds(page, host, plugin, seconds(cells.get(TURN_MICROS)));
    }
    for kind in LookupKind::ALL {
        for (origin, word) in Origin::ALL.into_iter().zip(ORIGINS) {
            metrics::lookups(page, kind.name(), word, service.numbers().lookups(kind, origin));
        }
        metrics::lookup_seconds(page, kind.name(), seconds(service.numbers().lookup_micros(kind)));
    }
}

fn of_lists(page: &mut Page, service: &Service) {
    for (zone, label) in &service.labels().lists {
        let record = service.world().lists.record(zone);
        for answer in ListAnswer::ALL {
            metrics::dnslist_answers(page, label, answer.word(), record.answers(answer));
        }
        let condition = service.world().lists.condition(zone);
        for state in ListState::ALL {
            metrics::dnslist_state(page, label, state.word(), state == condition.state);
        }
        metrics::dnslist_quarantined(page, label, condition.is_quarantined);
    }
}

fn of_connections(page: &mut Page, shared: &Shared) {
    metrics::connections(page, shared.slots.in_use());
    metrics::connections_limit(page, shared.slots.most());
    metrics::connections_accepted(page, shared.numbers.accepted.get(0));
    for (number, reason) in ENDS.into_iter().enumerate() {
        metrics::connections_ended(page, reason, shared.numbers.ended.get(number));
    }
}

fn of_calls(page: &mut Page, name: &Configured) {
    let numbers = CallNumbers::of(name.as_str());
    let (buckets, micros) = numbers.times();
    metrics::backend_seconds(page, name, Observed::counted(buckets, micros));
    for (kind, count) in KINDS.into_iter().zip(numbers.errors()) {
        metrics::backend_errors(page, name, kind, count);
    }
}

fn of_journal(page: &mut Page, service: &Service, begins: Option<DecisionId>) {
    let Some(journal) = service.recorder().journal().get() else { return };
    let status = journal.status();
    metrics::journal_up(page, status.failure.is_none());
    metrics::journal_sent(page, status.sent);
    metrics::journal_lost(page, status.lost);
    metrics::journal_queue(page, status.waiting);
    metrics::journal_decisions(page, status.held);
    metrics::journal_bytes(page, status.used);
    if let Some(oldest) = begins.and_then(|begins| begins.time().elapsed().ok()) {
        metrics::journal_oldest(page, oldest.as_secs_f64());
    }
}

fn of_events(page: &mut Page, shared: &Shared, service: &Service) {
    for kind in EventKind::ALL {
        metrics::events(page, kind.word(), shared.events.counted(kind));
    }
    for receiver in shared.events.views() {
        // One that a reload has just removed has no label.
        let Some(name) = service.labels().receivers.iter().find(|name| name.as_str() == receiver.name) else {
            continue;
        };
        metrics::event_deliveries(page, name, "delivered", receiver.delivered);
        metrics::event_deliveries(page, name, "failed", receiver.failed);
        metrics::event_deliveries(page, name, "dropped", receiver.dropped);
        metrics::events_waiting(page, name, receiver.waiting);
    }
}

fn of_configuration(page: &mut Page, shared: &Shared, service: &Service) {
    let in_use = shared.desk.in_use();
    for (number, result) in RELOADS.into_iter().enumerate() {
        metrics::reloads(page, result, shared.numbers.reloads.get(number));
    }
    metrics::config(page, &service.labels().hash);
    metrics::config_read(page, since_1970(in_use.read));
    metrics::config_warnings(page, in_use.warnings);
    metrics::build(page, env!("CARGO_PKG_VERSION"));
}

fn of_process(page: &mut Page, shared: &Shared, state: process::ProcessState) {
    let process::ProcessState { cpu_seconds, resident, address_space, threads, open_files } = state;
    cpu_seconds.into_iter().for_each(|seconds| metrics::process_cpu(page, seconds));
    resident.into_iter().for_each(|bytes| metrics::process_resident_memory(page, bytes));
    address_space.into_iter().for_each(|bytes| metrics::process_virtual_memory(page, bytes));
    threads.into_iter().for_each(|threads| metrics::process_threads(page, threads));
    open_files.into_iter().for_each(|files| metrics::process_open_fds(page, files));
    if let Ok((limit, _)) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        metrics::process_max_fds(page, limit);
    }
    metrics::process_start_time(page, since_1970(shared.desk.started()));
}

#[allow(clippy::cast_precision_loss, reason = "microseconds of two centuries fit")]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1_000_000.0
}

fn since_1970(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
