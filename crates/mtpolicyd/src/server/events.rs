//! Events: taken as they happen, logged, kept, and handed to those that want to know.
//!
//! Knows: who is told, where events are kept. Must not know: what makes an event, how a receiver is reached.

mod command;
mod mail;
mod queue;
mod receiver;
mod signature;
mod watch;
mod webhook;

pub(crate) use watch::watch;

use super::Shared;
use super::service::Service;
use crate::events::{Event, EventKind, EventState, host_name};
use crate::log::messages::events as messages;
use crate::metrics::Cells;
use crate::settings::NotifySettings;
use decisions::journal::Incident;
use decisions::rfc3339;
use futures_util::future::join_all;
use receiver::{Delivery, Receiver};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Events that are kept in memory.
const MAX_KEPT: usize = 1_000;

/// What is known of events, and of those that are told of them.
#[derive(Default)]
pub(crate) struct EventDesk {
    kept: Mutex<VecDeque<Incident>>,
    receivers: Mutex<BTreeMap<String, Arc<Receiver>>>,
    /// Events so far, by the numbers of their kinds.
    counted: Cells<{ EventKind::ALL.len() }>,
}

/// An event as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Its own, the same however often it is sent.
    pub id: String,
    /// When, in RFC 3339.
    pub time: String,
    /// The machine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// What kind of thing it is.
    pub kind: String,
    /// `begins`, `ends`, `digest` or `test`.
    pub state: String,
    /// `notice`, `warning` or `error`.
    pub level: String,
    /// The plugin, list, connection or file that it is about.
    pub source: String,
    /// Whom it is about, if anybody: a login, a client.
    pub key: String,
    /// What has happened.
    pub text: String,
    /// What to do.
    pub advice: String,
}

/// One who is told of events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiverView {
    /// The name of its block.
    pub name: String,
    /// `webhook`, `mail` or `command`.
    pub way: String,
    /// Events that wait for it.
    pub waiting: usize,
    /// Events that it has taken.
    pub delivered: u64,
    /// Events that were given up.
    pub failed: u64,
    /// Events that had no room while it took none.
    pub dropped: u64,
    /// Why it takes none now, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What came of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestView {
    /// The name of the block.
    pub name: String,
    /// Whether the receiver has taken the event.
    pub delivered: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl From<&Incident> for EventView {
    fn from(incident: &Incident) -> EventView {
        let Incident { id, kind, state, level, subject, key, text, advice } = incident.clone();
        let (time, id) = (rfc3339(id.time()), id.to_string());
        EventView { id, time, host: String::new(), kind, state, level, source: subject, key, text, advice }
    }
}

/// The event as the journal keeps it.
fn incident(event: &Event) -> Incident {
    Incident {
        id: event.id,
        kind: event.kind.to_string(),
        state: event.state.to_string(),
        level: event.level.to_string(),
        subject: event.source.clone(),
        key: event.key.clone(),
        text: event.text.clone(),
        advice: event.advice.clone(),
    }
}

impl EventDesk {
    /// Has those told that these settings name, from now on. What waits for one that keeps its name goes on
    /// waiting.
    pub fn apply(&self, service: &Service) {
        let wanted: &[NotifySettings] = &service.settings.notify;
        let mut receivers = self.receivers();
        receivers.retain(|name, receiver| {
            let stays = wanted.iter().any(|settings| settings.name == *name);
            if !stays {
                receiver.stop();
            }
            stays
        });
        for settings in wanted {
            match receivers.get(&settings.name) {
                Some(receiver) => receiver.change(settings.clone()),
                None => {
                    let receiver = Receiver::start(settings.clone(), &service.world().events);
                    receivers.insert(settings.name.clone(), receiver);
                }
            }
        }
    }

    /// An event has happened.
    fn take(&self, event: Event, service: &Service) {
        self.counted.add(event.kind as usize, 1);
        messages::event(event.kind, event.state, logged(&event));
        let incident = incident(&event);
        let mut kept = lock(&self.kept);
        kept.push_back(incident.clone());
        if kept.len() > MAX_KEPT {
            kept.pop_front();
        }
        drop(kept);
        if let Some(journal) = service.recorder().journal().get() {
            journal.note(incident);
        }
        let event = Arc::new(event);
        self.receivers().values().for_each(|receiver| receiver.offer(&event));
    }

    /// The last events in memory, newest first.
    pub fn kept(&self) -> Vec<Incident> {
        lock(&self.kept).iter().rev().cloned().collect()
    }

    /// Forgets the events that name somebody.
    pub fn forget(&self, address: &str) {
        let name = address.trim().to_lowercase();
        if !name.is_empty() {
            lock(&self.kept).retain(|incident| !incident.names(&name));
        }
    }

    /// Events of a kind so far.
    pub fn counted(&self, kind: EventKind) -> u64 {
        self.counted.get(kind as usize)
    }

    /// Those that are told, by their names.
    pub fn views(&self) -> Vec<ReceiverView> {
        self.receivers().values().map(|receiver| receiver.view()).collect()
    }

    /// Sends an event to one receiver, or to all, past what waits; `None` if there is no such receiver.
    pub async fn test(&self, name: Option<&str>, service: &Service) -> Option<Vec<TestView>> {
        let receivers: Vec<_> = self.receivers().values().cloned().collect();
        let wanted = receivers.iter().filter(|receiver| name.is_none_or(|name| receiver.name() == name));
        let text = format!("a test from {}", host_name());
        let event = service.world().events.event(EventKind::Test, EventState::Test, "", text);
        let event = Event { advice: "Nothing has happened, and there is nothing to do.".to_owned(), ..event };
        self.counted.add(EventKind::Test as usize, 1);
        let tests = wanted.map(async |receiver| {
            let error = match receiver.deliver(&event).await {
                Delivery::Taken => None,
                Delivery::Later(why) | Delivery::GivenUp(why) => Some(why),
            };
            TestView { name: receiver.name().to_owned(), delivered: error.is_none(), error }
        });
        let tests = join_all(tests).await;
        (!tests.is_empty() || name.is_none()).then_some(tests)
    }

    /// Says what is lost with the end of the daemon.
    pub fn end(&self) {
        self.receivers().values().for_each(|receiver| receiver.stop());
    }

    fn receivers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Receiver>>> {
        lock(&self.receivers)
    }
}

/// What the log has of an event: what it is about, where another line has said already what has happened.
fn logged(event: &Event) -> String {
    let Event { kind, state, source, key, text, .. } = event;
    let has_own_line = match kind {
        EventKind::LimitNear | EventKind::LimitReached => *state == EventState::Begins,
        EventKind::ListQuarantined
        | EventKind::BackendDown
        | EventKind::ReloadRefused
        | EventKind::JournalFailing => true,
        EventKind::DeadlineMissed | EventKind::ConfigurationChanged | EventKind::Test => false,
    };
    match (has_own_line, key.is_empty()) {
        (false, _) => text.clone(),
        (true, true) => source.clone(),
        (true, false) => format!("{source}, {key}"),
    }
}

/// Takes events until the daemon ends.
pub(super) async fn run(shared: Arc<Shared>) {
    let events = shared.service.load().world().events.clone();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = shared.closing.cancelled() => break,
        };
        shared.events.take(event, &shared.service.load_full());
        let lost = events.take_lost();
        if lost > 0 {
            messages::lost(lost);
        }
    }
    shared.events.end();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
