//! The daemon: started, reloaded, ended.
//!
//! Knows: settings, the process, listeners. Must not know: requests, plugins.

mod access;
mod conversation;
mod listener;
mod listeners;
pub mod privileges;
pub mod process;
mod reload;
mod scheduler;
mod service;
mod slots;
pub mod sockets;
mod stream;

use crate::log::messages::daemon;
use crate::log::{self, Destination, LogError, LogHandle, LogSettings, OpenLog};
use crate::settings::{Globals, LogFormat, Messages, Settings, Severity, Threads};
use crate::value::Switch;
pub use access::access;
use backends::dns::MAX_IN_FLIGHT;
pub use scheduler::{look, run_tasks};

use arc_swap::ArcSwap;
use listeners::Listeners;
use nix::unistd::Uid;
use privileges::Identity;
use process::{Background, PidFile, ProcessError};
use reload::Reload;
use service::Service;
use slots::Slots;
use sockets::{BoundSocket, UnixSocketOptions};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the command line says about the daemon.
pub struct ServeOptions {
    /// The configuration file.
    pub config: PathBuf,
    /// Where to run.
    pub mode: Mode,
    /// The level of the log, where it is not the file's.
    pub log_level: Option<u8>,
}

/// Where to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As a child of whoever started it, logging to the standard output.
    Foreground,
    /// On its own, logging to the system log.
    Background,
}

/// Why the daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration can't be used.
    #[error("the configuration can't be used\n{0}")]
    Configuration(Messages),
    /// A right, a user, the pid file.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// A socket, a thread.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The log can't be opened.
    #[error(transparent)]
    Log(#[from] log::LogError),
}

/// What all connections of the daemon share.
pub(crate) struct Shared {
    /// The settings in use; a reload replaces them.
    service: ArcSwap<Service>,
    /// Cancelled when the daemon ends.
    closing: CancellationToken,
    /// The conversations that go on.
    conversations: TaskTracker,
    /// Room for connections.
    slots: Arc<Slots>,
}

/// Descriptors that are not for connections where there are enough: a question to a name server may have a
/// port of its own; the rest is for listeners, log and proxies.
const RESERVED_FILES: u64 = MAX_IN_FLIGHT as u64 + 100;

/// Fewer connections than this would be no service, however low the limit of open files is.
const LEAST_SLOTS: u64 = 16;

/// Runs the daemon until it is told to end.
///
/// Everything that can fail for a reason of the administrator's comes before the step into the background,
/// where the parent ends with success; everything that needs the rights of the start comes before they are
/// given up; and no thread is started, nor a request read, before that.
pub fn serve(options: &ServeOptions) -> Result<(), StartError> {
    process::hold_signals()?;
    process::refuse_huge_pages();
    let (settings, messages) = Settings::load(&options.config, None).map_err(StartError::Configuration)?;
    warn_starter(&messages);
    let globals = &settings.globals;
    let identity = identity(globals)?;
    process::restrict_new_files();
    let open_files = process::raise_open_file_limit();
    let mut sockets = bind_all(&settings)?;
    let path = globals.pid_file.as_deref().map(Path::new);
    let mut pid_file = path.map(PidFile::create).transpose()?;
    let (mut log, no_log_file) = open_log(globals, options, &identity)?;
    let background = (options.mode == Mode::Background).then(Background::prepare).transpose()?;
    // Reads resolv.conf, which a chroot puts out of reach.
    let service = Service::new(settings, None);
    identity.assume()?;
    if let Some(root) = &identity.chroot {
        pid_file.iter_mut().for_each(|file| file.confine(root));
        sockets.iter_mut().for_each(|socket| socket.confine(root));
        log.confine(root);
    }
    let in_background = background.is_some();
    let stays_root = Uid::effective().is_root();
    let log = log.start()?;
    if in_background {
        log_messages(&messages);
    }
    if let Some(error) = no_log_file {
        daemon::no_log_file(error);
    }
    if let Some(note) = service.settings.globals.as_root().filter(|_| stays_root) {
        daemon::runs_as_root(note);
    }
    let started = Started { options, identity, open_files, sockets, log: &log, background };
    let served = pid_file.as_mut().map_or(Ok(()), PidFile::record).map_err(StartError::from);
    let served = served.and_then(|()| started.run(service));
    if let Err(error) = &served {
        daemon::stopped(error);
    }
    served
}

/// Whether the names in a configuration exist on this machine: user, groups, chroot, owners of sockets.
pub fn check_names(settings: &Settings) -> Result<(), ProcessError> {
    identity(&settings.globals)?;
    socket_options(&settings.globals).map(|_| ())
}

/// Warnings go to whoever started the daemon; later ones go to the log.
fn warn_starter(messages: &Messages) {
    if !messages.is_empty() {
        let _ = std::io::stderr().write_all(messages.to_string().as_bytes());
    }
}

fn identity(globals: &Globals) -> Result<Identity, ProcessError> {
    let chroot = globals.chroot.as_deref().map(Path::new);
    Identity::resolve(globals.user.as_deref(), globals.group.as_deref(), chroot)
}

fn socket_options(globals: &Globals) -> Result<UnixSocketOptions, ProcessError> {
    let owner = globals.socket_owner.as_deref().map(privileges::user_id).transpose()?;
    let group = globals.socket_group.as_deref().map(privileges::group_id).transpose()?;
    Ok(UnixSocketOptions { owner, group, mode: globals.socket_mode.0 })
}

fn bind_all(settings: &Settings) -> Result<Vec<BoundSocket>, StartError> {
    let options = socket_options(&settings.globals)?;
    let bound = settings.addresses.iter().map(|address| sockets::bind(address, &options));
    Ok(bound.collect::<Result<_, _>>()?)
}

/// The log, and why it is not the file that was asked for. That ends the start, unless another user than root
/// decides what is there: no user of the machine shall keep the daemon from starting.
fn open_log(
    globals: &Globals,
    options: &ServeOptions,
    identity: &Identity,
) -> Result<(OpenLog, Option<LogError>), LogError> {
    let without_file = match options.mode {
        Mode::Foreground => Destination::Stdout,
        Mode::Background => Destination::syslog(),
    };
    let Some(path) = &globals.log_file else {
        return Ok((log::open(&log_settings(globals, options, without_file))?, None));
    };
    let settings = log_settings(globals, options, Destination::File(path.into()));
    match log::open_with(&settings, &|path| open_log_file(path, identity)) {
        Ok(log) => Ok((log, None)),
        Err(error) if Uid::effective().is_root() && safe_files::is_of_others(path.as_ref()) => {
            Ok((log::open(&LogSettings { destination: without_file, ..settings })?, Some(error)))
        }
        Err(error) => Err(error),
    }
}

fn log_settings(globals: &Globals, options: &ServeOptions, destination: Destination) -> LogSettings {
    let format = match globals.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let level = options.log_level.unwrap_or(globals.log_level.0);
    LogSettings { level, internals: globals.log_internals == Switch::On, destination, format }
}

/// Opens the log file while the process may still be root. Where another user could have put something else
/// in its place, it is opened with the rights of the daemon's user.
fn open_log_file(path: &Path, identity: &Identity) -> std::io::Result<File> {
    let (user, group) = (identity.user, identity.groups.first().copied());
    if !Uid::effective().is_root() || user.is_none() {
        return safe_files::append(path);
    }
    match safe_files::append_as_root(path, user, group) {
        Ok(Some(file)) => Ok(file),
        Ok(None) | Err(_) => identity.lend(|| safe_files::append(path)).map_err(std::io::Error::other)?,
    }
}

/// A daemon whose process is set up.
struct Started<'a> {
    options: &'a ServeOptions,
    identity: Identity,
    open_files: u64,
    sockets: Vec<BoundSocket>,
    log: &'a LogHandle,
    background: Option<Background>,
}

impl Started<'_> {
    fn run(self, service: Service) -> Result<(), StartError> {
        service.log_notes();
        std::panic::set_hook(Box::new(|panic| daemon::bug(panic)));
        let runtime = runtime(service.settings.globals.worker_threads)?;
        let reserved = RESERVED_FILES.min(self.open_files / 4);
        let most = self.open_files.saturating_sub(reserved).max(LEAST_SLOTS);
        let wanted = service.settings.globals.max_connections.map_or(most, |wanted| wanted.0);
        let slots = wanted.min(most);
        if slots < wanted {
            daemon::too_few_files(wanted, slots);
        }
        let slots = usize::try_from(slots).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            service: ArcSwap::from_pointee(service),
            closing: CancellationToken::new(),
            conversations: TaskTracker::new(),
            slots: Slots::new(slots),
        });
        let daemon = Daemon { options: self.options, identity: self.identity, log: self.log, shared };
        runtime.block_on(daemon.run(self.sockets, self.background))?;
        // What is left are lookups whose answers nobody waits for any more.
        runtime.shutdown_background();
        Ok(())
    }
}

/// The threads that serve requests, this many or as many as there are CPUs.
fn runtime(threads: Option<Threads>) -> std::io::Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(Threads(threads)) = threads {
        builder.worker_threads(threads.into());
    }
    builder.enable_all().build()
}

/// What was noticed about a file, for the log.
fn log_messages(messages: &Messages) {
    for (severity, line) in messages.lines() {
        match severity {
            Severity::Error => daemon::configuration_error(line),
            Severity::Warning => daemon::configuration_warning(line),
            Severity::Notice => daemon::configuration_notice(line),
        }
    }
}

/// The daemon at work.
struct Daemon<'a> {
    options: &'a ServeOptions,
    identity: Identity,
    log: &'a LogHandle,
    shared: Arc<Shared>,
}

impl Daemon<'_> {
    async fn run(&self, sockets: Vec<BoundSocket>, background: Option<Background>) -> Result<(), StartError> {
        let mut signals = Signals::new()?;
        process::release_signals()?;
        let mut listeners = Listeners::default();
        // A port that listens tells others that the daemon is ready, so that comes last.
        scheduler::prepare(self.shared.service.load_full()).await;
        let ports = sockets.into_iter().map(TryInto::try_into);
        listeners.start(ports.collect::<std::io::Result<_>>()?, &self.shared);
        tokio::spawn(scheduler::run(self.shared.clone()));
        background.as_ref().map_or(Ok(()), Background::ready)?;
        daemon::listening(env!("CARGO_PKG_VERSION"), listeners.names());
        let mut reload = Reload::default();
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
                _ = signals.reload.recv() => reload.request(self),
                _ = signals.reopen.recv() => self.log.reopen(),
                read = reload.finished() => reload.finish(read, self, &mut listeners).await,
            }
        }
        daemon::shutting_down();
        self.end(listeners).await;
        Ok(())
    }

    /// Stops accepting, then waits for the requests in flight, no longer than one may take.
    async fn end(&self, listeners: Listeners) {
        /// Beyond the deadline of the requests, for writing their answers.
        const GRACE: Duration = Duration::from_secs(1);
        self.shared.closing.cancel();
        listeners.stop().await;
        self.shared.conversations.close();
        let longest = self.shared.service.load().request_timeout() + GRACE;
        if tokio::time::timeout(longest, self.shared.conversations.wait()).await.is_err() {
            daemon::connections_left(self.shared.conversations.len());
        }
        if tokio::time::timeout(GRACE, self.shared.service.load_full().finish()).await.is_err() {
            daemon::sessions_left();
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
    reopen: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }
}
