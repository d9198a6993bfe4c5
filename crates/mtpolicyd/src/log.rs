//! The log: where the events of `tracing` go, and the one line that each request leaves.
//!
//! Knows: levels, destinations, the shape of that line. Must not know: who logs, requests, settings.
//!
//! The levels of the original stand for those of `tracing`: 0 error, 1 warn, 2 info (notice), 3 debug (info),
//! 4 trace (debug). Whatever is logged comes out as one line of printable text.

mod escape;
mod format;
pub mod messages;
mod request;
mod syslog;
mod writer;

pub use escape::{MAX_VALUE, escape, escape_json, printable};
pub use request::{
    Envelope, LogAddresses, RequestRecord, Stopwatch, lookups, request, wants_lookups, within, write_label,
};

use format::Style;
use log_messages::TARGET;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use syslog::Syslog;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use writer::{Queue, Sink};

/// The highest level: debug.
pub const MAX_LEVEL: u8 = 4;

/// Where local programs reach the syslog daemon.
pub const SYSLOG_SOCKET: &str = "/dev/log";

/// Marks the event of a request.
const REQUEST: &str = "mtpolicyd::request";

/// From this level on what libraries tell may be logged too: it is for developers, and much.
const LIBRARIES_LEVEL: u8 = MAX_LEVEL;

/// What is logged, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// 0 (errors only) to 4 (debug).
    pub level: u8,
    /// Whether libraries are logged too at level 4.
    pub internals: bool,
    /// Where lines go.
    pub destination: Destination,
    /// How they look.
    pub format: Format,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The standard output, without a time, as in the original.
    Stdout,
    /// The standard error, without a time: for cron, which mails it.
    Stderr,
    /// The end of a file, each line with its time.
    File(PathBuf),
    /// The system log behind this socket, facility `mail`, tag `mtpolicyd`.
    Syslog(PathBuf),
}

impl Destination {
    /// The system log of this machine.
    pub fn syslog() -> Destination {
        Destination::Syslog(PathBuf::from(SYSLOG_SOCKET))
    }
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Plain text.
    Text,
    /// One JSON object a line.
    Json,
}

/// The log can't be used.
#[derive(Debug)]
pub struct LogError(String);

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LogError {}

/// Opens the destination: to be done while its file and `/dev/log` are in reach, before `chroot` and with the
/// rights of the start. A system log that is unreachable is not an error: it may come later.
pub fn open(settings: &LogSettings) -> Result<OpenLog, LogError> {
    open_with(settings, &safe_files::append)
}

/// The same, where a file is opened for the first time in a way of its own. When it is opened again, the
/// process has the rights that it will have.
pub fn open_with(
    settings: &LogSettings,
    open_file: &dyn Fn(&Path) -> io::Result<File>,
) -> Result<OpenLog, LogError> {
    let sink = match &settings.destination {
        Destination::Stdout => Sink::stdout(),
        Destination::Stderr => Sink::stderr(),
        Destination::File(path) => Sink::file(path, open_file),
        Destination::Syslog(path) => Ok(Sink::Syslog(Syslog::open(path.clone()))),
    };
    let sink = sink.map_err(|error| LogError(error.to_string()))?;
    let stamped = matches!(settings.destination, Destination::File(_));
    let wanted = Wanted { level: settings.level.into(), internals: settings.internals.into() };
    Ok(OpenLog { sink, style: Style { format: settings.format, stamped }, wanted })
}

/// A log that is open, but has no thread yet: none would survive the step into the background.
#[derive(Debug)]
pub struct OpenLog {
    sink: Sink,
    style: Style,
    wanted: Wanted,
}

tokio::task_local! {
    /// There while nothing is logged.
    static SILENCE: ();
}

/// Does something of which nothing is logged, as far as it goes on in this task. What else the process logs
/// is not touched: another subscriber would be asked, and remembered, for every message that it is the first
/// to log.
pub fn silently<F: Future>(work: F) -> impl Future<Output = F::Output> {
    SILENCE.scope((), work)
}

/// What is logged; it changes with a reload.
#[derive(Debug)]
struct Wanted {
    level: AtomicU8,
    internals: AtomicBool,
}

impl OpenLog {
    /// Finds a log file again once a folder above it has become the root of the file system.
    pub fn confine(&mut self, root: &Path) {
        self.sink.confine(root);
    }

    /// Starts the thread that writes, and sends the events of the whole process there. Once in a process.
    pub fn start(self) -> Result<LogHandle, LogError> {
        let (subscriber, handle) =
            self.subscriber().map_err(|error| LogError(format!("cannot start the log: {error}")))?;
        tracing::subscriber::set_global_default(subscriber)
            .map_err(|_| LogError("the log was started already".to_owned()))?;
        Ok(handle)
    }

    fn subscriber(self) -> io::Result<(impl Subscriber + Send + Sync, LogHandle)> {
        let queue = Queue::start(self.sink, self.style)?;
        let wanted = Arc::new(self.wanted);
        let lines = Lines { wanted: wanted.clone(), queue: queue.clone(), style: self.style };
        Ok((tracing_subscriber::registry().with(lines), LogHandle { wanted, queue }))
    }
}

/// The running log. When it is dropped everything queued is written first, as far as the destination takes it
/// within a few seconds; what ends the process without that (`std::process::exit`) calls `flush`.
pub struct LogHandle {
    wanted: Arc<Wanted>,
    queue: Queue,
}

impl LogHandle {
    /// Changes the level, 0 to 4, and whether libraries are logged at 4.
    pub fn set_level(&self, level: u8, internals: bool) {
        self.wanted.level.store(level, Ordering::Relaxed);
        self.wanted.internals.store(internals, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Opens the file again, after logrotate has moved it away. If that fails the old one stays, and says so.
    pub fn reopen(&self) {
        self.queue.reopen();
    }

    /// Waits until everything logged so far is written; `false` if the destination did not take it in time.
    pub fn flush(&self) -> bool {
        self.queue.flush()
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Makes lines of events.
struct Lines {
    wanted: Arc<Wanted>,
    queue: Queue,
    style: Style,
}

impl Lines {
    fn level(&self) -> u8 {
        self.wanted.level.load(Ordering::Relaxed)
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let level = self.level();
        if !metadata.is_event() || *metadata.level() > filter(level) {
            return false;
        }
        let internals = level >= LIBRARIES_LEVEL && self.wanted.internals.load(Ordering::Relaxed);
        is_own(metadata) || internals && *metadata.level() < Level::TRACE
    }
}

fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(TARGET)
}

impl<S: Subscriber> Layer<S> for Lines {
    /// Decided once for each place that logs, and again by `set_level`: what is not wanted costs a load and a
    /// compare.
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(filter(self.level()))
    }
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if SILENCE.try_with(|()| ()).is_ok() {
            return;
        }
        self.queue.line(*event.metadata().level(), self.style.line(event));
    }
}

fn filter(level: u8) -> LevelFilter {
    match level {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::WARN,
        2 => LevelFilter::INFO,
        3 => LevelFilter::DEBUG,
        MAX_LEVEL.. => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests;
