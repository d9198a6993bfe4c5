//! The console: pages for browsers, over HTTP or HTTPS, at a port of its own or a UNIX socket.
//!
//! Knows: the port, its connections, their bounds. Must not know: what a page shows.

mod answer;
mod assets;
mod door;
mod form;
mod gate;
mod layout;
mod pages;
mod sessions;
mod sign_in;
mod tls;
mod tokens;

pub(super) use sessions::{LINK_LIFETIME, Person};
pub(super) use tokens::{TokenError, TokenFile};

use super::Shared;
use super::control::Busy;
use super::passed::{self, PassedSocket};
use super::privileges::{self, Identity};
use super::side_port::SidePort;
use super::slots::{Slot, Slots};
use super::sockets::{self, BoundSocket, Listener, UnixSocketOptions};
use super::stream::Stream;
use crate::log::messages::console as messages;
use crate::settings::ConsoleOptions;
use door::Entrance;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sessions::Sessions;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tls::Tls;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

/// Connections at the same time. For one more, the one that has been idle longest is closed.
const MAX_CONNECTIONS: usize = 32;

/// Pages that follow what is decided, at the same time: others shall have their connections too.
const MAX_WATCHERS: usize = 12;

/// How long the head of a request may take, and how long a connection may be idle.
const HEAD_LIMIT: Duration = Duration::from_secs(15);

/// How long the handshake of TLS may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How long a connection may last, so that one whose client reads nothing ends too. A page that follows what
/// is decided connects again by itself.
const CONNECTION_LIMIT: Duration = Duration::from_mins(10);

/// The head of a request, in bytes: the smallest buffer that the library has is half of that.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// How long what is being answered at the end may still take.
const GRACE: Duration = Duration::from_secs(1);

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Owner and group may connect to a UNIX socket.
const MODE: u32 = 0o660;

/// What the console keeps beside its port.
pub(super) struct Console {
    /// Who is signed in.
    pub(super) sessions: Sessions,
    /// Whoever reads and then writes the file of the tokens does so alone.
    pub(super) token_file: Mutex<()>,
    /// Room for pages that follow what is decided.
    watchers: Arc<Semaphore>,
}

impl Default for Console {
    fn default() -> Console {
        let watchers = Arc::new(Semaphore::new(MAX_WATCHERS));
        Console { sessions: Sessions::default(), token_file: Mutex::default(), watchers }
    }
}

/// A port that is bound, or why there is none although there was to be one.
pub(super) type Bound = Option<io::Result<BoundSocket>>;

/// Binds the address that the configuration names, or takes the socket that another process has passed.
pub(super) fn bind(
    options: Option<&ConsoleOptions>,
    identity: Option<&Identity>,
    passed: &mut Vec<PassedSocket>,
) -> Bound {
    let options = options?;
    if let Some(socket) = passed::take(passed, options.address()) {
        return Some(Ok(socket));
    }
    let group = options.group.as_deref().map(privileges::group_id).transpose().map_err(io::Error::other);
    let bound = group.and_then(|group| {
        let group = group.or_else(|| identity.and_then(|identity| identity.groups.first().copied()));
        let owner = identity.and_then(|identity| identity.user);
        sockets::bind(options.address(), &UnixSocketOptions { owner, group, mode: MODE })
    });
    Some(bound)
}

/// The open port.
pub(super) struct ConsolePort {
    pub(super) port: SidePort,
    /// What the port was opened with; when it changes, the port is opened again.
    options: Option<ConsoleOptions>,
}

impl ConsolePort {
    /// Starts to accept. A port that can't be opened is logged: requests of Postfix matter more.
    pub(super) fn start(bound: Bound, shared: &Arc<Shared>) -> Option<ConsolePort> {
        let started = bound?.and_then(|socket| ConsolePort::open(socket, shared));
        started.map_err(messages::no_console).ok()
    }

    fn open(socket: BoundSocket, shared: &Arc<Shared>) -> io::Result<ConsolePort> {
        let options = shared.service.load().settings.console.clone();
        let files = options.as_ref().and_then(ConsoleOptions::tls_files);
        let tls = files.map(|(certificate, key)| Tls::read(certificate, key)).transpose()?;
        let (tls, shared) = (tls.map(Arc::new), shared.clone());
        let port = SidePort::start(socket, |listener, stop| listen(listener, tls, shared, stop))?;
        Ok(ConsolePort { port, options })
    }

    fn is_as(&self, wanted: &ConsoleOptions) -> bool {
        let opened_with = |options: &ConsoleOptions| {
            (options.address().clone(), options.tls_files(), options.group.clone())
        };
        self.options.as_ref().map(opened_with) == Some(opened_with(wanted))
    }
}

async fn listen(
    listener: Arc<Listener>,
    tls: Option<Arc<Tls>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let (slots, mut connections) = (Slots::new(MAX_CONNECTIONS), JoinSet::new());
    let renewal = tls.clone().map(|tls| tokio::spawn(async move { tls.renew().await }));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok(stream) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = slots.take_any() => slot,
        };
        let Some(slot) = slot else { break };
        let (tls, shared, stop) = (tls.clone(), shared.clone(), stop.clone());
        connections.spawn(async move {
            // How a connection ends is its client's matter.
            let _ = tokio::time::timeout(CONNECTION_LIMIT, connect(stream, slot, tls, shared, stop)).await;
        });
    }
    drop(listener);
    renewal.iter().for_each(JoinHandle::abort);
    while connections.join_next().await.is_some() {}
}

async fn connect(
    stream: Stream,
    mut slot: Slot,
    tls: Option<Arc<Tls>>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    match (stream, tls) {
        (Stream::Unix(stream), _) => {
            serve(TokioIo::new(stream), Entrance::default(), slot, shared, stop).await;
        }
        (Stream::Tcp(stream), None) => {
            let entrance = Entrance::of(&stream, false);
            serve(TokioIo::new(stream), entrance, slot, shared, stop).await;
        }
        (Stream::Tcp(stream), Some(tls)) => {
            let entrance = Entrance::of(&stream, true);
            // A client that says nothing makes room for others.
            slot.begin_to_wait();
            let evicted = slot.eviction();
            let shaken = tokio::select! {
                () = stop.cancelled() => return,
                () = evicted => return,
                shaken = tokio::time::timeout(HANDSHAKE_LIMIT, tls.accept(stream)) => shaken,
            };
            slot.end_waiting();
            if let Ok(Ok(stream)) = shaken {
                serve(TokioIo::new(stream), entrance, slot, shared, stop).await;
            }
        }
    }
}

/// Answers the requests of one connection.
async fn serve<S: Read + Write + Unpin>(
    stream: S,
    entrance: Entrance,
    slot: Slot,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let (evicted, entrance, slot) = (slot.eviction(), Arc::new(entrance), Busy::idle(slot));
    let answer = service_fn(|request| {
        let (busy, entrance, shared) = (Busy::begin(&slot), entrance.clone(), shared.clone());
        async move { Ok::<_, Infallible>(gate::answer(request, &entrance, shared, busy).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(MAX_HEAD_BYTES);
    let mut connection = pin!(server.serve_connection(stream, answer));
    tokio::select! {
        _ = &mut connection => return,
        () = evicted => return,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(GRACE, connection).await;
}

impl super::listeners::Listeners {
    /// Has the console where the settings want it, after a reload.
    pub(super) async fn move_console(&mut self, shared: &Arc<Shared>) {
        let wanted = shared.service.load().settings.console.clone();
        let is_there = match (&self.console, &wanted) {
            (Some(open), Some(wanted)) => open.is_as(wanted),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if is_there {
            return;
        }
        if let Some(old) = self.console.take() {
            old.port.close().await;
        }
        self.console = ConsolePort::start(bind(wanted.as_ref(), None, &mut Vec::new()), shared);
    }
}
