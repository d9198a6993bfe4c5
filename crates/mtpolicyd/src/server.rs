//! The daemon: started, reloaded, ended.
//!
//! Knows: settings, the process, listeners. Must not know: requests, plugins.

mod access;
mod console;
pub mod control;
mod conversation;
mod daemon;
mod decided;
mod descriptors;
pub mod events;
mod handover;
mod intake;
mod listener;
mod listeners;
mod log_level;
mod metrics;
mod notify;
mod numbers;
mod passed;
pub mod privileges;
pub mod process;
mod record;
mod reload;
pub mod replay;
mod scheduler;
mod service;
mod shadow;
mod side_port;
mod slots;
pub mod sockets;
mod stream;

use crate::log::messages::daemon as daemon_messages;
use crate::log::{self, Destination, LogError, LogSettings, OpenLog};
use crate::settings::{Globals, LogFormat, Messages, Settings, Severity, Threads};
use crate::value::Switch;
pub use access::access;
use backends::dns::MAX_IN_FLIGHT;
pub use intake::{IntakeOptions, take_in};
pub use scheduler::{look, run_tasks};

use arc_swap::ArcSwap;
use console::Console;
use control::Desk;
use daemon::Daemon;
use events::EventDesk;
use handover::{Predecessor, Received};
use metrics::Backends;
use nix::unistd::Uid;
use notify::Notify;
use numbers::ProcessNumbers;
use privileges::Identity;
use process::{Background, PidFile, ProcessError};
use service::Service;
use slots::Slots;
use sockets::{BoundSocket, UnixSocketOptions};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::Runtime;
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
    /// What the control socket needs.
    desk: Desk,
    /// What is counted of the process.
    numbers: ProcessNumbers,
    /// How the servers are that the configuration names.
    backends: Backends,
    /// What is known of events, and who is told of them.
    events: EventDesk,
    /// Who is signed in to the console, and what it shows of the last hour.
    console: Console,
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
    let (predecessor, received) = match Predecessor::from_env()? {
        Some((predecessor, received)) => (Some(predecessor), received),
        None => (None, Received::from_systemd()?),
    };
    let served = serve_with(options, predecessor.as_ref(), received);
    if let (Err(error), Some(predecessor)) = (&served, &predecessor) {
        predecessor.refuse(error);
    }
    served
}

/// The same, with what another process has passed.
fn serve_with(
    options: &ServeOptions,
    predecessor: Option<&Predecessor>,
    mut received: Received,
) -> Result<(), StartError> {
    let (program, notify) = (process::program()?, Notify::from_env());
    process::refuse_huge_pages();
    let (settings, messages) = Settings::load(&options.config, None).map_err(StartError::Configuration)?;
    warn_starter(&messages);
    let globals = &settings.globals;
    let identity = identity(globals)?;
    let ending = find_ending(&settings, &identity, predecessor, &mut received);
    let predecessor = predecessor.or(ending.as_ref());
    process::restrict_new_files();
    let open_files = process::raise_open_file_limit();
    let mut passed = std::mem::take(&mut received.sockets);
    let mut control = control::bind(&settings.control, &identity, &mut passed)?;
    let metrics = metrics::bind(settings.metrics, &mut passed);
    let mut console = console::bind(settings.console.as_ref(), Some(&identity), &mut passed);
    let mut sockets = passed::bind_all(&settings, &socket_options(globals)?, passed)?;
    let path = globals.pid_file.as_deref().map(Path::new);
    let passed = path.and_then(|path| received.take_pid_file(path));
    let mut pid_file = passed.map_or_else(|| path.map(PidFile::create).transpose(), |file| Ok(Some(file)))?;
    let (mut log, no_log_file) = open_log(globals, options, &identity)?;
    let background = (options.mode == Mode::Background).then(Background::prepare).transpose()?;
    // Reads resolv.conf, which a chroot puts out of reach.
    let service = Service::new(settings, None);
    identity.assume()?;
    if let Some(root) = &identity.chroot {
        pid_file.iter_mut().for_each(|file| file.confine(root));
        let console = console.iter_mut().filter_map(|bound| bound.as_mut().ok());
        let sockets = sockets.iter_mut().chain(&mut control.socket).chain(console);
        sockets.for_each(|socket| socket.confine(root));
        log.confine(root);
    }
    let in_background = background.is_some();
    let stays_root = Uid::effective().is_root();
    let log = log.start()?;
    if in_background {
        log_messages(&messages);
    }
    if let Some(error) = no_log_file {
        daemon_messages::no_log_file(error);
    }
    if let Some(note) = service.settings.globals.as_root().filter(|_| stays_root) {
        daemon_messages::runs_as_root(note);
    }
    service.log_notes();
    service.shadows().log();
    let (pid_file, notify) = (pid_file.as_ref(), Arc::new(notify));
    let level = options.log_level.unwrap_or(service.settings.globals.log_level.0);
    let (desk, orders) = Desk::new(&options.config, messages.warnings(), level);
    let shared = share(service, open_files, desk);
    let daemon = Daemon { options, identity, program, log: &log, pid_file, notify, predecessor, shared };
    let served = run(&daemon, sockets, (control, metrics, console, orders), background);
    if let Err(error) = &served {
        daemon_messages::stopped(error);
    }
    served
}

/// The daemon in whose place this one is started, if that one ends just now and passes its ports.
fn find_ending(
    settings: &Settings,
    identity: &Identity,
    predecessor: Option<&Predecessor>,
    received: &mut Received,
) -> Option<Predecessor> {
    if predecessor.is_some() || !received.sockets.is_empty() {
        return None;
    }
    let (ending, passed) = Predecessor::that_ends(&settings.addresses, identity.user)?;
    *received = passed;
    Some(ending)
}

/// Whether the names in a configuration exist on this machine: user, groups, chroot, owners of sockets.
pub fn check_names(settings: &Settings) -> Result<(), ProcessError> {
    identity(&settings.globals)?;
    settings.control.group.as_deref().map(privileges::group_id).transpose()?;
    let console = settings.console.as_ref().and_then(|console| console.group.as_deref());
    console.map(privileges::group_id).transpose()?;
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

/// Room for as many connections as there are open files for.
fn share(service: Service, open_files: u64, desk: Desk) -> Arc<Shared> {
    let reserved = RESERVED_FILES.min(open_files / 4);
    let most = open_files.saturating_sub(reserved).max(LEAST_SLOTS);
    let wanted = service.settings.globals.max_connections.map_or(most, |wanted| wanted.0);
    let slots = wanted.min(most);
    if slots < wanted {
        daemon_messages::too_few_files(wanted, slots);
    }
    let slots = usize::try_from(slots).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    Arc::new(Shared {
        service: ArcSwap::from_pointee(service),
        closing: CancellationToken::new(),
        conversations: TaskTracker::new(),
        slots: Slots::new(slots),
        desk,
        numbers: ProcessNumbers::default(),
        backends: Backends::default(),
        events: EventDesk::default(),
        console: Console::default(),
    })
}

fn run(
    daemon: &Daemon<'_>,
    sockets: Vec<BoundSocket>,
    control: daemon::Doors,
    background: Option<Background>,
) -> Result<(), StartError> {
    // Until this process has taken over, the file names its predecessor.
    if let Some(pid_file) = daemon.pid_file.filter(|_| daemon.predecessor.is_none()) {
        pid_file.record()?;
    }
    std::panic::set_hook(Box::new(|panic| daemon_messages::bug(panic)));
    let runtime = runtime(daemon.shared.service.load().settings.globals.worker_threads)?;
    runtime.block_on(daemon.run(sockets, control, background))?;
    // What is left are lookups whose answers nobody waits for any more.
    runtime.shutdown_background();
    Ok(())
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
            Severity::Error => daemon_messages::configuration_error(line),
            Severity::Warning => daemon_messages::configuration_warning(line),
            Severity::Notice => daemon_messages::configuration_notice(line),
        }
    }
}
