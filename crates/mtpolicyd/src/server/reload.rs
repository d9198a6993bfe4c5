//! SIGHUP: the new file, if it is good, for the requests from now on; else the old one stays.
//!
//! Knows: settings, listeners, the process. Must not know: conversations.

use super::control::ReloadView;
use super::daemon::Daemon;
use super::listeners::{Listeners, OpenPort};
use super::privileges::Identity;
use super::scheduler;
use super::service::Service;
use super::sockets::{self, UnixSocketOptions};
use super::{StartError, identity, log_messages, socket_options};
use crate::address::ListenAddress;
use crate::log::messages::daemon as daemon_messages;
use crate::settings::{Globals, Messages, Settings, Severity};
use crate::value::Switch;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A file that is being read again, on a thread of its own: what it names may lie on a disk that does not
/// answer, and the daemon has to end all the same when it is told to.
#[derive(Default)]
pub(super) struct Reload {
    reading: Option<JoinHandle<Result<Fresh, StartError>>>,
    /// Those that wait for what comes of it.
    waiting: Vec<oneshot::Sender<ReloadView>>,
    /// It was asked for again meanwhile.
    again: bool,
    /// Those that wait for what comes of that.
    next: Vec<oneshot::Sender<ReloadView>>,
}

/// What was read.
struct Fresh {
    settings: Settings,
    messages: Messages,
    identity: Identity,
    sockets: UnixSocketOptions,
}

impl Reload {
    /// Begins to read the file, or notes that it has changed once more; who waits is told what came of it.
    pub(super) fn request(&mut self, daemon: &Daemon<'_>, verdict: Option<oneshot::Sender<ReloadView>>) {
        // Whatever becomes of the file: logrotate has moved the log away.
        daemon.log.reopen();
        if self.is_running() {
            self.again = true;
            self.next.extend(verdict);
            daemon_messages::reload_queued();
            return;
        }
        self.waiting.extend(verdict);
        self.begin(daemon);
    }

    fn begin(&mut self, daemon: &Daemon<'_>) {
        daemon.notify.reloading();
        let (path, earlier) = (daemon.options.config.clone(), daemon.shared.service.load_full());
        self.reading = Some(tokio::task::spawn_blocking(move || read(&path, &earlier)));
    }

    /// Whether the file is being read.
    pub(super) fn is_running(&self) -> bool {
        self.reading.is_some()
    }

    /// Waits until the file has been read; forever if none is being read.
    pub(super) async fn finished(&mut self) -> Finished {
        let Some(reading) = &mut self.reading else { return std::future::pending().await };
        let fresh = reading.await;
        self.reading = None;
        Finished(fresh.unwrap_or_else(|panic| Err(std::io::Error::other(panic.to_string()).into())))
    }

    /// Uses what was read; no connection is dropped, whether it is good or not.
    pub(super) async fn finish(&mut self, read: Finished, daemon: &Daemon<'_>, listeners: &mut Listeners) {
        let used = match read.0 {
            Ok(fresh) => apply(fresh, daemon, listeners).await,
            Err(error) => Err(error),
        };
        match &used {
            Ok(_) => daemon.notify.ready(&format!("reloaded, answering on {}", listeners.names())),
            Err(_) => daemon.notify.ready("NOT reloaded, see the log; the old configuration stays in use"),
        }
        let view = match &used {
            Ok(messages) => ReloadView::reloaded(messages),
            Err(error) => ReloadView::refused(error),
        };
        daemon.shared.numbers.reloads.add(usize::from(used.is_err()), 1);
        let refused = used.as_ref().err().map(why);
        daemon.shared.desk.update(|in_use| in_use.refused.clone_from(&refused));
        match used {
            Ok(messages) => {
                daemon.shared.desk.update(|in_use| {
                    in_use.read = SystemTime::now();
                    in_use.warnings = messages.warnings();
                    in_use.ports = listeners.addresses();
                });
                daemon_messages::reloaded(daemon.options.config.display());
                daemon.tell_configuration();
            }
            Err(StartError::Configuration(messages)) => {
                log_messages(&messages);
                daemon_messages::not_reloaded();
            }
            Err(error) => daemon_messages::reload_failed(error),
        }
        let hash = daemon.shared.service.load().settings.fingerprint.clone();
        let view = ReloadView { hash, ..view };
        for waiting in self.waiting.drain(..) {
            // Who has left does not want to know.
            let _ = waiting.send(view.clone());
        }
        if std::mem::take(&mut self.again) {
            self.waiting = std::mem::take(&mut self.next);
            self.begin(daemon);
        }
    }
}

/// Why a file is not used, in a few words.
fn why(error: &StartError) -> String {
    match error {
        StartError::Configuration(messages) => {
            let first = messages.lines().find(|(severity, _)| *severity == Severity::Error);
            let first = first.map(|(_, line)| line).unwrap_or_default();
            match messages.errors() {
                0 | 1 => first,
                more => format!("{first} ({more} mistakes)"),
            }
        }
        other => other.to_string(),
    }
}

/// What came of reading the file.
pub(super) struct Finished(Result<Fresh, StartError>);

/// Everything that may block: files, the users of the system, names of hosts.
fn read(path: &Path, earlier: &Service) -> Result<Fresh, StartError> {
    let loaded = Settings::load(path, Some(&earlier.settings));
    let (settings, messages) = loaded.map_err(StartError::Configuration)?;
    let identity = identity(&settings.globals)?;
    let sockets = socket_options(&settings.globals)?;
    Ok(Fresh { settings, messages, identity, sockets })
}

async fn apply(fresh: Fresh, daemon: &Daemon<'_>, listeners: &mut Listeners) -> Result<Messages, StartError> {
    let Fresh { settings, messages, identity, sockets } = fresh;
    let earlier = daemon.shared.service.load_full();
    refuse_another_identity(daemon, &identity, &earlier.settings.globals, &settings.globals)?;
    listeners.check_passed(&settings)?;
    let (addresses, metrics) = (settings.addresses.clone(), settings.metrics);
    let service = Service::new(settings, Some(&earlier));
    let ports = open_new(&addresses, &sockets, listeners, daemon).await?;
    warn_of_what_stays(&earlier.settings, &service.settings);
    // Before anything is said of the reload. A level that was set by hand comes back after it.
    let level = service.settings.globals.log_level.0;
    let internals = service.settings.globals.log_internals == Switch::On;
    daemon.log.set_level(daemon.options.log_level.unwrap_or(level), internals);
    // First the hosts, then the ports that lead to them.
    let service = Arc::new(service);
    tokio::spawn(scheduler::prepare(service.clone()));
    service.keep_decisions();
    daemon.shared.events.apply(&service);
    daemon.shared.service.store(service);
    listeners.start(ports, &daemon.shared);
    listeners.keep_only(&addresses);
    listeners.move_metrics(metrics, &daemon.shared).await;
    listeners.move_console(&daemon.shared).await;
    log_messages(&messages);
    daemon.shared.service.load().shadows().log();
    Ok(messages)
}

/// The rights of the start are gone, so the process stays who it is.
fn refuse_another_identity(
    daemon: &Daemon<'_>,
    identity: &Identity,
    old: &Globals,
    new: &Globals,
) -> Result<(), StartError> {
    if *identity == daemon.identity {
        return Ok(());
    }
    let changes = [
        ("user", old.user != new.user),
        ("group", old.group != new.group),
        ("chroot", old.chroot != new.chroot),
    ];
    let changed: Vec<_> = changes.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name).collect();
    let changed = if changed.is_empty() { "user, group or chroot".to_owned() } else { changed.join(" and ") };
    Err(io::Error::other(format!("a changed {changed} needs a restart")).into())
}

/// Opens the ports that are not open yet; if one can't be opened, none is, and the old ones are as before.
async fn open_new(
    addresses: &[ListenAddress],
    options: &UnixSocketOptions,
    listeners: &mut Listeners,
    daemon: &Daemon<'_>,
) -> io::Result<Vec<OpenPort>> {
    let new: Vec<_> = addresses.iter().filter(|address| !listeners.has(address)).cloned().collect();
    let open = |addresses: &[ListenAddress]| {
        let bound = addresses.iter().map(|address| sockets::bind(address, options)?.try_into());
        bound.collect::<io::Result<Vec<OpenPort>>>()
    };
    // `127.0.0.1:12345` that becomes `*:12345` stands in its own way.
    let in_the_way = listeners.in_the_way(&new, addresses);
    listeners.close(&in_the_way).await;
    let opened = open(&new);
    if opened.is_err() {
        listeners.start(open(&in_the_way)?, &daemon.shared);
    }
    opened
}

/// Changes that are read, but can only be followed by a restart.
fn warn_of_what_stays(old: &Settings, new: &Settings) {
    let is_other_socket = old.control.path() != new.control.path() || old.control.group != new.control.group;
    let (old, new) = (&old.globals, &new.globals);
    let changes = [
        ("node", old.node() != new.node()),
        ("log_file", old.log_file != new.log_file),
        ("log_format", old.log_format != new.log_format),
        ("pid_file", old.pid_file != new.pid_file),
        ("max_connections", old.max_connections != new.max_connections),
        ("worker_threads", old.worker_threads != new.worker_threads),
        ("socket_owner", old.socket_owner != new.socket_owner),
        ("socket_group", old.socket_group != new.socket_group),
        ("socket_mode", old.socket_mode != new.socket_mode),
        ("control socket", is_other_socket),
    ];
    for (option, _) in changes.into_iter().filter(|(_, changed)| *changed) {
        daemon_messages::needs_restart(option);
    }
}
