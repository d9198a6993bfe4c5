//! The log: where the events of `tracing` go, and the one line that each request leaves.
//!
//! Knows: levels, destinations, the shape of that line. Must not know: who logs, requests, settings.
//!
//! The levels of the original stand for those of `tracing`: 0 error, 1 warn, 2 info (notice), 3 debug (info),
//! 4 trace (debug). Whatever is logged comes out as one line of printable text.

mod escape;
mod format;
mod syslog;
mod throttle;
mod writer;

pub use throttle::Throttle;

pub use escape::{MAX_VALUE, escape};

use format::Style;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;
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
const REQUEST: &str = concat!(env!("CARGO_CRATE_NAME"), "::request");

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
/// rights of the start. A system log that is away is no error: it may come later.
pub fn open(settings: &LogSettings) -> Result<OpenLog, LogError> {
    open_with(settings, &crate::files::append)
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

/// What the line of a request says.
#[derive(Clone, Copy, Debug)]
pub struct RequestRecord<'a> {
    /// Name of the virtual host.
    pub host: &'a str,
    /// The attribute `instance`.
    pub instance: &'a [u8],
    /// The attribute `request`.
    pub request_type: &'a [u8],
    /// From the last byte of the request to the answer.
    pub elapsed: Duration,
    /// The plugin that decided, if one did.
    pub plugin: Option<&'a str>,
    /// The action; empty if no plugin decided.
    pub result: &'a str,
}

/// Logs a request, at level 1: `NAME: instance=I, type=T, t=12ms, plugin=P, result=R`.
pub fn request(record: &RequestRecord<'_>) {
    tracing::event!(
        target: REQUEST,
        Level::WARN,
        host = record.host,
        instance = record.instance,
        "type" = record.request_type,
        elapsed_ms = milliseconds(record.elapsed),
        plugin = record.plugin.unwrap_or_default(),
        result = record.result,
    );
}

/// With microseconds as decimals.
fn milliseconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1_000_000.0).floor() / 1000.0
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
    metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
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
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    fn settings(path: &Path, level: u8, format: Format) -> LogSettings {
        LogSettings { level, internals: true, destination: Destination::File(path.to_owned()), format }
    }

    /// What `work` logs to a file; without the times if they are in front.
    fn logged(level: u8, format: Format, work: impl FnOnce(&LogHandle)) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (subscriber, handle) = open(&settings(&path, level, format)).unwrap().subscriber().unwrap();
        tracing::subscriber::with_default(subscriber, || work(&handle));
        assert!(handle.flush());
        let text = std::fs::read_to_string(&path).unwrap();
        if format == Format::Json {
            return text;
        }
        let without_time = |line: &str| {
            let (time, line) = line.split_once(' ').unwrap();
            assert!(time.len() == "2026-11-25T02:01:46.123456Z".len() && time.ends_with('Z'), "{time}");
            line.to_owned() + "\n"
        };
        text.lines().map(without_time).collect()
    }

    const RECORD: RequestRecord<'_> = RequestRecord {
        host: "test",
        instance: b"abc.1",
        request_type: b"smtpd_access_policy",
        elapsed: Duration::from_micros(12_345),
        plugin: Some("one"),
        result: "reject it",
    };

    #[test]
    fn a_request_leaves_the_line_of_the_original() {
        let nobody = RequestRecord { plugin: None, result: "", ..RECORD };
        let text = logged(1, Format::Text, |_| [RECORD, nobody].iter().for_each(request));
        let expected = [
            "test: instance=abc.1, type=smtpd_access_policy, t=12ms, plugin=one, result=reject it",
            "test: instance=abc.1, type=smtpd_access_policy, t=12ms, plugin=, result=",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        assert_eq!(logged(0, Format::Text, |_| request(&RECORD)), "");
    }

    #[test]
    fn a_request_as_json_has_types() {
        let nobody = RequestRecord { plugin: None, instance: b"a\"\xff\n", ..RECORD };
        let text = logged(1, Format::Json, |_| [RECORD, nobody].iter().for_each(request));
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["event"], "request");
        assert_eq!(lines[0]["host"], "test");
        assert_eq!(lines[0]["elapsed_ms"], 12.345);
        assert_eq!(lines[0]["plugin"], "one");
        assert_eq!(lines[1]["plugin"], serde_json::Value::Null);
        assert_eq!(lines[1]["instance"], "a\"\\xff\n");
        assert!(text.starts_with("{\"time\":\"2"), "{text}");
    }

    #[test]
    fn no_sender_forges_a_line() {
        let evil = b"a\r\nFORGED: instance=1\x1b[2J\x00\xff\xc2\x85\\n";
        let forged = RequestRecord { instance: evil, request_type: evil, ..RECORD };
        let work = |_: &LogHandle| {
            request(&forged);
            let text = String::from_utf8_lossy(evil);
            tracing::warn!("broken request from {text}");
            tracing::warn!(sender = &*text, sender_shown = %text, sender_bytes = &evil[..], "trouble");
            tracing::warn!("{}", escape(evil));
        };
        for format in [Format::Text, Format::Json] {
            let text = logged(4, format, work);
            assert_eq!(text.lines().count(), 4, "{text}");
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text}");
        }
        let last = "warning: a\\x0d\\x0aFORGED: instance=1\\x1b[2J\\x00\\xff\\xc2\\x85\\\\n\n";
        assert!(logged(4, Format::Text, work).ends_with(last));
    }

    #[test]
    fn a_line_is_bounded() {
        let long = "x".repeat(1 << 20);
        let text = logged(4, Format::Text, |_| {
            tracing::info!("{long}");
            request(&RequestRecord { result: &long, instance: long.as_bytes(), ..RECORD });
        });
        assert!(text.lines().all(|line| line.len() < 8000 && line.ends_with("...")));
    }

    #[test]
    fn levels_are_those_of_the_original_and_can_change() {
        let all = || {
            tracing::error!("e");
            tracing::warn!("w");
            tracing::info!("n");
            tracing::debug!(count = 3, "i");
            tracing::trace!("d");
        };
        let lines = ["error: e\n", "warning: w\n", "n\n", "i count=3\n", "d\n"];
        for level in 0..=MAX_LEVEL {
            assert_eq!(logged(level, Format::Text, |_| all()), lines[..=usize::from(level)].concat());
        }
        let text = logged(0, Format::Text, |handle| {
            all();
            handle.set_level(1, false);
            all();
        });
        assert_eq!(text, "error: e\nerror: e\nwarning: w\n");
    }

    #[test]
    fn what_libraries_tell_is_for_debugging() {
        let library = || {
            tracing::event!(target: "hickory_proto::xfer", Level::WARN, "no answer");
            tracing::event!(target: "hickory_proto::xfer", Level::TRACE, "noise");
        };
        assert_eq!(logged(3, Format::Text, |_| library()), "");
        assert_eq!(logged(4, Format::Text, |_| library()), "warning: no answer\n");
        let switched_off = |handle: &LogHandle| {
            handle.set_level(4, false);
            library();
        };
        assert_eq!(logged(4, Format::Text, switched_off), "");
    }

    #[test]
    fn the_file_is_opened_again_after_logrotate() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("log"), directory.path().join("log.1"));
        let (subscriber, handle) = open(&settings(&path, 2, Format::Text)).unwrap().subscriber().unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("before");
            assert!(handle.flush());
            std::fs::rename(&path, &moved).unwrap();
            handle.reopen();
            assert!(handle.flush());
            tracing::info!("after");
            assert!(handle.flush());
            assert!(std::fs::read_to_string(&moved).unwrap().ends_with("before\n"));
            assert!(std::fs::read_to_string(&path).unwrap().ends_with("after\n"));
            std::fs::remove_file(&path).unwrap();
            std::fs::create_dir(&path).unwrap();
            handle.reopen();
            assert!(handle.flush());
            std::fs::remove_dir(&path).unwrap();
        });
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = open(&settings(&directory.path().join("none/log"), 2, Format::Text)).unwrap_err();
        assert!(error.to_string().contains("none/log: No such file or directory"), "{error}");
    }

    #[test]
    fn what_syslog_loses_is_counted_and_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let destination = Destination::Syslog(path.clone());
        let settings = LogSettings { level: 2, internals: true, destination, format: Format::Text };
        let (subscriber, handle) = open(&settings).unwrap().subscriber().unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("one");
            tracing::info!("two");
            assert!(handle.flush());
            let daemon = UnixDatagram::bind(&path).unwrap();
            daemon.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            handle.reopen();
            assert!(handle.flush());
            tracing::info!("three");
            let mut texts = Vec::new();
            let mut buffer = [0; 1024];
            while texts.len() < 2 {
                let length = daemon.recv(&mut buffer).unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]);
                texts.push(text.split_once(": ").unwrap().1.to_owned());
            }
            texts.sort();
            assert_eq!(
                texts,
                ["three", "warning: 2 log lines were lost: the log took them too slowly or not at all"]
            );
        });
    }

    #[test]
    fn many_threads_lose_nothing_that_fits() {
        let text = logged(2, Format::Text, |_| {
            let dispatch = tracing::dispatcher::get_default(Clone::clone);
            std::thread::scope(|scope| {
                for thread in 0..4 {
                    let dispatch = dispatch.clone();
                    scope.spawn(move || {
                        tracing::dispatcher::with_default(&dispatch, || {
                            (0..500).for_each(|line| tracing::info!("{thread} {line}"));
                        });
                    });
                }
            });
        });
        for thread in ["0", "1", "2", "3"] {
            let of_thread =
                text.lines().filter_map(|line| line.strip_prefix(thread)?.trim().parse::<u32>().ok());
            assert!(of_thread.eq(0..500), "in order and complete");
        }
    }
}
