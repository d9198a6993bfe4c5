//! The control socket: HTTP with JSON over a UNIX socket, for commands and scripts on this machine.
//!
//! Knows: the socket, its connections, their bounds. Must not know: what is asked.

mod activity;
mod audit;
mod call;
mod change;
mod console;
mod decisions;
mod events;
mod explain;
mod forget;
mod peer;
mod query;
mod routes;
mod shadow;
mod state;
mod status;

pub use activity::{ActivityView, PluginView, SliceView};
pub use audit::{AuditView, AuditsView};
pub use change::{HandoverView, LogLevelView, ReloadView};
pub use console::{ConsoleLinkView, TokenAddedView, TokensView};
pub use decisions::DecisionsView;
pub use events::{EventsView, TestsView};
pub use explain::{ChosenView, ExplainedView, Question};
pub use forget::{ForgottenView, Whom};
pub use query::{filter_query, filter_text, path_segment};
pub use routes::{ROUTES, Route};
pub use shadow::{ShadowView, ShadowsView};
pub use state::ChangesView;
pub use status::{
    BackendView, ConfigView, ConfigurationView, ConnectionsView, HostView, KeptView, StatusView,
};

use super::Shared;
use super::passed::{self, PassedSocket};
use super::privileges::{self, Identity};
use super::side_port::SidePort;
use super::slots::{Slot, Slots};
use super::sockets::{self, BoundSocket, Listener, UnixSocketOptions};
use super::stream::Stream;
use crate::address::ListenAddress;
use crate::log::messages::daemon as messages;
use crate::settings::ControlOptions;
use arc_swap::ArcSwap;
pub(super) use call::{Busy, Problem, Response, typed};
pub(super) use change::Order;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
pub(super) use peer::Peer;
pub(super) use routes::{Question as ApiQuestion, ask, read_body};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at the same time. For one more, the one that has been idle longest is closed.
const MAX_CONNECTIONS: usize = 64;

/// How long the head of a request may take, and how long a connection may be idle.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// The head of a request, in bytes: the smallest buffer that the library has is half of that.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// How long what is being answered at the end may still take.
const GRACE: Duration = Duration::from_secs(1);

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Orders to the daemon that wait.
const MAX_ORDERS: usize = 16;

/// Owner and group may connect; what they may do depends on who they are.
const MODE: u32 = 0o660;

/// What the routes know of the daemon beside its settings, and how they reach it.
pub(super) struct Desk {
    /// When the process started to answer.
    started: SystemTime,
    /// The configuration file.
    config: PathBuf,
    orders: mpsc::Sender<Order>,
    in_use: ArcSwap<InUse>,
    /// The last search of decisions that was noted.
    noted: Mutex<String>,
}

/// What a reload changes.
#[derive(Clone, Debug)]
pub(super) struct InUse {
    /// When the configuration was read.
    pub(super) read: SystemTime,
    /// What was said about it beside notices.
    pub(super) warnings: usize,
    /// Where requests are answered.
    pub(super) ports: Vec<String>,
    /// How much is logged.
    pub(super) log_level: u8,
    /// Until when, if that was set by hand.
    pub(super) log_level_until: Option<SystemTime>,
    /// Why the last reload was refused, if it was.
    pub(super) refused: Option<String>,
}

impl Desk {
    /// For the daemon of this file, and where its orders arrive.
    pub(super) fn new(config: &Path, warnings: usize, log_level: u8) -> (Desk, mpsc::Receiver<Order>) {
        let (orders, arriving) = mpsc::channel(MAX_ORDERS);
        let started = SystemTime::now();
        let in_use = InUse {
            read: started,
            warnings,
            ports: Vec::new(),
            log_level,
            log_level_until: None,
            refused: None,
        };
        let (config, in_use) = (config.to_owned(), ArcSwap::from_pointee(in_use));
        (Desk { started, config, orders, in_use, noted: Mutex::default() }, arriving)
    }

    /// When the process started to answer.
    pub(super) fn started(&self) -> SystemTime {
        self.started
    }

    /// The configuration file.
    pub(super) fn config(&self) -> &Path {
        &self.config
    }

    /// What is in use now.
    pub(super) fn in_use(&self) -> Arc<InUse> {
        self.in_use.load_full()
    }

    /// Changes what is in use.
    pub(super) fn update(&self, change: impl Fn(&mut InUse)) {
        self.in_use.rcu(|in_use| {
            let mut new = InUse::clone(in_use);
            change(&mut new);
            new
        });
    }
}

/// A control socket that is bound, or why there is none although there was to be one.
#[derive(Default)]
pub(super) struct Bound {
    pub(super) socket: Option<BoundSocket>,
    pub(super) failure: Option<io::Error>,
}

/// Binds the control socket, or takes the one that another process has passed. The error is of a socket that
/// the configuration names; one that nobody has asked for is left out where it can't be made.
pub(super) fn bind(
    options: &ControlOptions,
    identity: &Identity,
    passed: &mut Vec<PassedSocket>,
) -> io::Result<Bound> {
    let Some(path) = options.path() else { return Ok(Bound::default()) };
    let address = ListenAddress::Unix(path.clone());
    if let Some(socket) = passed::take(passed, &address) {
        return Ok(Bound { socket: Some(socket), failure: None });
    }
    let is_wanted = options.socket.is_some();
    let is_possible = path.parent().is_some_and(can_be_written);
    if !is_wanted && !is_possible {
        return Ok(Bound::default());
    }
    let group = options.group.as_deref().map(privileges::group_id).transpose().map_err(io::Error::other)?;
    let group = group.or_else(|| identity.groups.first().copied());
    let bound = sockets::bind(&address, &UnixSocketOptions { owner: identity.user, group, mode: MODE });
    match bound {
        Ok(socket) => Ok(Bound { socket: Some(socket), failure: None }),
        Err(failure) if !is_wanted => Ok(Bound { socket: None, failure: Some(failure) }),
        Err(failure) => Err(failure),
    }
}

fn can_be_written(folder: &Path) -> bool {
    use nix::unistd::{AccessFlags, access};
    access(folder, AccessFlags::W_OK | AccessFlags::X_OK).is_ok()
}

/// Starts to accept.
fn start(socket: BoundSocket, shared: &Arc<Shared>) -> io::Result<SidePort> {
    let (address, shared) = (socket.address().clone(), shared.clone());
    SidePort::start(socket, |listener, stop| listen(listener, address, shared, stop))
}

async fn listen(
    listener: Arc<Listener>,
    address: ListenAddress,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let ListenAddress::Unix(path) = address else { return };
    let (path, slots) = (Arc::<Path>::from(path), Slots::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok(Stream::Unix(stream)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = slots.take_any() => slot,
        };
        let Some(slot) = slot else { break };
        connections.spawn(serve(stream, path.clone(), slot, shared.clone(), stop.clone()));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Answers the requests of one connection.
async fn serve(
    stream: UnixStream,
    path: Arc<Path>,
    slot: Slot,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let evicted = slot.eviction();
    let (peer, slot) = (Peer::of(&stream, &path), Busy::idle(slot));
    let answer = service_fn(|request| {
        let busy = Busy::begin(&slot);
        routes::answer(request, peer.clone(), shared.clone(), busy)
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(MAX_IDLE).max_buf_size(MAX_HEAD_BYTES);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), answer));
    // How a connection ends is its client's matter.
    tokio::select! {
        _ = &mut connection => return,
        () = evicted => return,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(GRACE, connection).await;
}

impl super::listeners::Listeners {
    /// Starts to accept at the control socket.
    pub(super) fn start_control(&mut self, bound: Bound, shared: &Arc<Shared>) -> io::Result<()> {
        if let Some(failure) = bound.failure {
            messages::no_control_socket(failure);
        }
        self.control = bound.socket.map(|socket| start(socket, shared)).transpose()?;
        Ok(())
    }
}
