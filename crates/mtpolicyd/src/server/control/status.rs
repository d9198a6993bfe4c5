//! How the daemon is, and what its configuration says.
//!
//! Knows: settings, what the daemon keeps. Must not know: how it is printed.

use super::call::{Answer, Call, ok};
use crate::connections::BackendState;
use crate::plugin::OnError;
use crate::recorder::{Kept, RING_DECISIONS, Recorder};
use crate::server::Shared;
use crate::server::metrics::gather;
use crate::server::service::Service;
use decisions::journal::Status;
use decisions::{StepTable, rfc3339};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// How long backends may take to answer, until they count as not answering.
const BACKENDS_LIMIT: Duration = Duration::from_secs(1);

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusView {
    /// The version of the program.
    pub version: String,
    /// The process.
    pub process: u32,
    /// When it began to answer, in RFC 3339.
    pub started: String,
    /// How long that is ago.
    pub uptime_seconds: u64,
    /// Whether it can do its work.
    pub ready: bool,
    /// Why not, or what else is wrong.
    pub problems: Vec<String>,
    /// The configuration in use.
    pub configuration: ConfigurationView,
    /// How much is logged.
    pub log_level: super::LogLevelView,
    /// The virtual hosts.
    pub hosts: Vec<HostView>,
    /// Where requests are answered.
    pub ports: Vec<String>,
    /// The connections of Postfix.
    pub connections: ConnectionsView,
    /// What the configuration connects to.
    pub backends: Vec<BackendView>,
    /// DNS lists that do not answer now.
    pub silent_lists: Vec<String>,
    /// The decisions that can be shown.
    pub decisions: KeptView,
}

/// The configuration in use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigurationView {
    /// The file.
    pub file: String,
    /// The same for all configurations that say the same.
    pub hash: String,
    /// When it was read, in RFC 3339.
    pub read: String,
    /// What was said about it.
    pub warnings: usize,
    /// Whether the file has changed since.
    pub changed: bool,
}

/// A virtual host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostView {
    /// Its name.
    pub name: String,
    /// The port or socket in its tag.
    pub port: String,
}

/// The connections of Postfix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionsView {
    /// Those that are open.
    pub open: usize,
    /// Maximum number.
    pub most: usize,
}

/// A server that the configuration names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendView {
    /// The name of the connection.
    pub name: String,
    /// Its module.
    pub module: String,
    /// `up`, `down`, or `local` for what needs no server.
    pub state: String,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// The decisions that can be shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptView {
    /// Where they are kept.
    pub place: String,
    /// When the oldest was made, in RFC 3339; `None` if there is none.
    pub begins: Option<String>,
    /// Decisions that could not be kept.
    pub lost: u64,
    /// Why the journal can't be read; then only the last ones in memory are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What the configuration says, without secrets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigView {
    /// Where it comes from.
    #[serde(flatten)]
    pub configuration: ConfigurationView,
    /// The virtual hosts.
    pub hosts: Vec<HostView>,
    /// Their plugins, with their options and their places in the file.
    pub plugins: StepTable,
}

impl KeptView {
    /// What is kept of the last decisions.
    pub(super) fn of(recorder: &Recorder) -> KeptView {
        KeptView::with(recorder, recorder.kept())
    }

    /// The same, of which it is known what it holds.
    pub(super) fn with(recorder: &Recorder, kept: Kept) -> KeptView {
        let place = match recorder.journal().get().map(|journal| journal.status()) {
            None => format!("the last {RING_DECISIONS}, in memory"),
            Some(Status { file, failure: None, .. }) => format!("the journal {file}"),
            Some(Status { failure: Some(why), .. }) => format!("the journal, which can't be written: {why}"),
        };
        let begins = kept.begins.map(|begins| rfc3339(begins.time()));
        KeptView { place, begins, lost: kept.lost, problem: kept.problem }
    }
}

pub(super) async fn status(call: Call) -> Answer {
    call.query.finish()?;
    let shared = &call.shared;
    let (service, in_use) = (shared.service.load_full(), shared.desk.in_use.load_full());
    let states = service.settings.connections.states(BACKENDS_LIMIT).await;
    let mut problems = Vec::new();
    let is_down = states.iter().any(|(_, _, state)| matches!(state, BackendState::Down(_)));
    let closes = service.settings.hosts.iter().any(|host| host.on_error == OnError::Close);
    let backends = states.into_iter().map(|(name, module, state)| {
        let (state, cause) = match state {
            BackendState::Local => ("local", None),
            BackendState::Up => ("up", None),
            BackendState::Down(cause) => {
                problems.push(format!("{name} does not answer: {cause}"));
                ("down", Some(cause))
            }
        };
        BackendView { name, module: module.to_string(), state: state.to_owned(), cause }
    });
    let backends = backends.collect();
    let configuration = configuration(shared, &service).await;
    if configuration.changed {
        problems.push(format!("{} has changed since it was read", configuration.file));
    }
    let recorder = service.recorder().clone();
    let kept = super::decisions::off_the_runtime(move || KeptView::of(&recorder)).await?;
    problems.extend(kept.problem.clone());
    let now = SystemTime::now();
    ok(&StatusView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        process: std::process::id(),
        started: rfc3339(shared.desk.started),
        uptime_seconds: now.duration_since(shared.desk.started).unwrap_or_default().as_secs(),
        ready: !(is_down && closes),
        problems,
        configuration,
        log_level: super::LogLevelView {
            level: in_use.log_level,
            until: in_use.log_level_until.map(rfc3339),
        },
        hosts: hosts(&service),
        ports: in_use.ports.clone(),
        connections: ConnectionsView { open: shared.slots.in_use(), most: shared.slots.most() },
        backends,
        silent_lists: service.world().lists.silent_zones(),
        decisions: kept,
    })
}

pub(super) async fn metrics(call: Call) -> Answer {
    call.query.finish()?;
    ok(&gather(&call.shared).await.view())
}

pub(super) async fn config(call: Call) -> Answer {
    call.query.finish()?;
    let service = call.shared.service.load_full();
    let configuration = configuration(&call.shared, &service).await;
    let plugins = StepTable::clone(&service.settings.steps);
    ok(&ConfigView { configuration, hosts: hosts(&service), plugins })
}

fn hosts(service: &Service) -> Vec<HostView> {
    let hosts = service.settings.hosts.iter();
    hosts.map(|host| HostView { name: host.name.to_string(), port: host.key.clone() }).collect()
}

async fn configuration(shared: &Shared, service: &Service) -> ConfigurationView {
    let in_use = shared.desk.in_use.load_full();
    let (file, read) = (shared.desk.config.clone(), in_use.read);
    // The disk may be slow. A file that can't be seen, such as in a chroot, has not changed as far as one
    // knows.
    let changed = tokio::task::spawn_blocking(move || file.metadata()?.modified()).await;
    let changed = changed.is_ok_and(|changed| changed.is_ok_and(|changed| changed > read));
    ConfigurationView {
        file: shared.desk.config.display().to_string(),
        hash: service.settings.fingerprint.clone(),
        read: rfc3339(read),
        warnings: in_use.warnings,
        changed,
    }
}
