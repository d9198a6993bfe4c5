//! Configurations that run in the shadow of virtual hosts: what they would have decided, found out after the
//! answer was sent.
//!
//! A shadow reads the record of the decision, and nothing else of the request: whatever becomes of it, the
//! answer and the stores are as they are without it.
//!
//! Knows: records of decisions, who makes them again. Must not know: plugins, sockets.

use super::replay::{Again, Replayer};
use super::service::Service;
use crate::log::{self, messages::shadows as messages};
use crate::settings::{Messages, Severity, ShadowFile};
use backends::replay::Degree;
use decisions::{Decision, DecisionId, Outcome, Shadow};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that one shadow looks at at the same time; of more it is only counted that there were more.
const MAX_AT_ONCE: usize = 64;
/// How often a difference of one kind is logged, at most.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The shadows of a configuration.
#[derive(Default)]
pub(super) struct Shadows {
    hosts: Vec<Arc<HostShadow>>,
    refused: Vec<Refused>,
}

/// A file that can't be used.
pub(super) struct Refused {
    pub(super) path: PathBuf,
    /// The hosts that have no shadow therefore.
    pub(super) hosts: Vec<Arc<str>>,
    pub(super) why: String,
    messages: Messages,
}

/// What runs in the shadow of one host.
pub(super) struct HostShadow {
    /// The host.
    pub(super) name: Arc<str>,
    /// The place of the host of the file that decides for it.
    place: usize,
    pub(super) world: Arc<ShadowWorld>,
    /// Requests of which both outcomes are known.
    compared: AtomicU64,
    /// Those with different outcomes.
    differ: AtomicU64,
    /// Requests that came while too many were looked at.
    dropped: AtomicU64,
    /// Requests that can't be decided again.
    left_out: AtomicU64,
    /// Differences that were logged, by the two outcomes.
    logged: Mutex<BTreeMap<(u8, u8), Logged>>,
}

/// A file with what it has counted and remembered; hosts that name the same one share it.
pub(super) struct ShadowWorld {
    pub(super) path: PathBuf,
    pub(super) since: SystemTime,
    replayer: Replayer,
    places: Arc<Semaphore>,
}

/// When a kind of difference was logged last, and how many there were since.
struct Logged {
    last: Instant,
    more: u64,
}

/// What a shadow has done since its file was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ShadowCounts {
    pub(super) compared: u64,
    pub(super) differ: u64,
    pub(super) dropped: u64,
    pub(super) left_out: u64,
}

/// Why a request was not compared, as the metrics name it.
#[derive(Clone, Copy)]
pub(super) enum NotCompared {
    Dropped = 0,
    LeftOut = 1,
}

impl Shadows {
    /// Those of these files. One that has not changed goes on with what it has counted and remembered.
    pub(super) fn new(files: Vec<ShadowFile>, earlier: Option<&Shadows>) -> Shadows {
        let mut shadows = Shadows::default();
        for ShadowFile { path, hosts, settings, messages, problem } in files {
            let Some(settings) = settings else {
                let why = problem.unwrap_or_else(|| errors(&messages));
                let hosts = hosts.into_iter().map(|(name, _)| name).collect();
                shadows.refused.push(Refused { path, hosts, why, messages });
                continue;
            };
            let before = earlier.map(|earlier| &earlier.hosts[..]).unwrap_or_default();
            let is_same = |host: &&Arc<HostShadow>| {
                host.world.path == path
                    && host.world.replayer.steps().fingerprint == settings.steps.fingerprint
            };
            let same: Vec<_> = before.iter().filter(is_same).cloned().collect();
            let world = same.first().map(|host| host.world.clone());
            let world = world.unwrap_or_else(|| Arc::new(ShadowWorld::new(path, settings)));
            shadows.hosts.extend(hosts.into_iter().map(|(name, place)| {
                let goes_on = same.iter().find(|host| host.name == name && host.place == place).cloned();
                goes_on.unwrap_or_else(|| Arc::new(HostShadow::new(name, place, world.clone())))
            }));
        }
        shadows
    }

    /// What runs in the shadow of a host.
    pub(super) fn of(&self, host: &str) -> Option<&Arc<HostShadow>> {
        self.hosts.iter().find(|shadow| *shadow.name == *host)
    }

    /// All that run.
    pub(super) fn all(&self) -> &[Arc<HostShadow>] {
        &self.hosts
    }

    /// Files that can't be used.
    pub(super) fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Logs which shadows there are, and what is wrong with others.
    pub(super) fn log(&self) {
        for Refused { path, hosts, why, messages } in &self.refused {
            for (_, line) in messages.lines().filter(|(severity, _)| *severity == Severity::Error) {
                messages::shadow_mistake(line);
            }
            messages::no_shadow(hosts.join(", "), path.display(), why);
        }
        for host in &self.hosts {
            messages::shadow(&host.name, host.world.path.display());
        }
    }
}

fn errors(messages: &Messages) -> String {
    match messages.errors() {
        1 => "1 error".to_owned(),
        errors => format!("{errors} errors"),
    }
}

impl ShadowWorld {
    fn new(path: PathBuf, settings: crate::settings::Settings) -> ShadowWorld {
        let replayer = Replayer::of_shadow(settings);
        let places = Arc::new(Semaphore::new(MAX_AT_ONCE));
        ShadowWorld { path, since: SystemTime::now(), replayer, places }
    }
}

impl HostShadow {
    fn new(name: Arc<str>, place: usize, world: Arc<ShadowWorld>) -> HostShadow {
        HostShadow {
            name,
            place,
            world,
            compared: AtomicU64::new(0),
            differ: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            logged: Mutex::default(),
        }
    }

    /// What it has done so far.
    pub(super) fn counts(&self) -> ShadowCounts {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        ShadowCounts {
            compared: get(&self.compared),
            differ: get(&self.differ),
            dropped: get(&self.dropped),
            left_out: get(&self.left_out),
        }
    }

    /// Begins to find out what it would have decided, in a task of its own; nobody waits for it, not even the
    /// end of the daemon.
    pub(super) fn begin(self: &Arc<Self>, decision: Arc<Decision>, service: &Arc<Service>) {
        let Ok(place) = self.world.places.clone().try_acquire_owned() else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            service.count_not_compared(&self.name, NotCompared::Dropped);
            return;
        };
        tokio::spawn(self.clone().run(decision, service.clone(), place));
    }

    async fn run(self: Arc<Self>, live: Arc<Decision>, service: Arc<Service>, _place: OwnedSemaphorePermit) {
        // What its plugins find is not logged: the lines of the log are about what was done.
        let again = log::silently(self.world.replayer.again_beside(&live, self.place)).await;
        let Again::Decided(shadow, trust) = again else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            service.count_not_compared(&self.name, NotCompared::LeftOut);
            return;
        };
        service.count_shadow(&self.name, live.outcome, shadow.outcome);
        if live.outcome != shadow.outcome {
            let degree = match trust.degree {
                Degree::Exact => "exact",
                Degree::Simulated => "simulated",
                Degree::Unknown => "unknown",
            };
            let shadow = Shadow::of(&shadow, degree);
            self.tell(live.id, live.outcome, &shadow);
            let record = Decision { shadow: Some(Box::new(shadow)), ..Decision::clone(&live) };
            service.recorder().record_shadow(record);
            self.differ.fetch_add(1, Ordering::Relaxed);
        }
        // Last, so that whoever sees it in the numbers finds the record too.
        self.compared.fetch_add(1, Ordering::Relaxed);
    }

    /// Logs a difference, once a minute for each kind.
    fn tell(&self, id: DecisionId, live: Outcome, shadow: &Shadow) {
        let now = Instant::now();
        let more = {
            let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
            match logged.get_mut(&(live as u8, shadow.outcome as u8)) {
                Some(before) if now.saturating_duration_since(before.last) < LOG_INTERVAL => {
                    before.more += 1;
                    return;
                }
                Some(before) => {
                    before.last = now;
                    std::mem::take(&mut before.more)
                }
                None => {
                    logged.insert((live as u8, shadow.outcome as u8), Logged { last: now, more: 0 });
                    0
                }
            }
        };
        let by = shadow.by.as_deref().unwrap_or("-");
        messages::shadow_differs(&self.name, live, shadow.outcome, by, id, more);
    }
}
