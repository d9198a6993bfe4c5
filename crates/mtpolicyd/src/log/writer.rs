//! The one thread that writes the log, and the bounded queue before it: no worker waits for a disk or a pipe.
//!
//! Knows: queue, files, the system log. Must not know: what the lines say.

use super::format::Style;
use super::messages::daemon;
use super::syslog::Syslog;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use tracing::Level;

/// Lines that may wait: a second or so of a busy server, about 1 MB of them. More are dropped and counted.
const QUEUE_LINES: usize = 4096;

/// How long the thread rests after it has written everything, so that a line a request does not mean a
/// wake-up a request. So a line is at most this late.
const REST: Duration = Duration::from_millis(5);

/// Bytes that are written at once.
const WRITE_BYTES: usize = 64 * 1024;

/// How long the end of the daemon waits for a destination that takes nothing.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Between two tries to get a place in a full queue.
const RETRY: Duration = Duration::from_millis(2);

/// What the thread is to do.
enum Order {
    Line(Level, String),
    /// Say so when everything before is written.
    Flush(SyncSender<()>),
    /// Look at `Shared`.
    Wake,
}

#[derive(Debug, Default)]
struct Shared {
    dropped: AtomicU64,
    reopen: AtomicBool,
}

/// The sending end of the queue.
#[derive(Clone)]
pub(super) struct Queue {
    orders: SyncSender<Order>,
    shared: Arc<Shared>,
}

impl Queue {
    /// Starts the thread. It ends when the last end of the queue is gone.
    pub(super) fn start(sink: Sink, style: Style) -> io::Result<Queue> {
        let (orders, receiver) = sync_channel(QUEUE_LINES);
        let shared = Arc::new(Shared::default());
        let writer = LogWriter { sink, style, shared: shared.clone() };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok(Queue { orders, shared })
    }

    /// Queues a line, or drops and counts it if there is no place.
    pub(super) fn line(&self, level: Level, line: String) {
        if self.orders.try_send(Order::Line(level, line)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets the thread open its file anew.
    pub(super) fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        // A full queue keeps it awake anyway.
        let _ = self.orders.try_send(Order::Wake);
    }

    /// Waits until everything queued is written, no longer than a bound; says whether it is.
    pub(super) fn flush(&self) -> bool {
        let deadline = Instant::now() + FLUSH_LIMIT;
        let (done, wait) = sync_channel(1);
        let mut order = Order::Flush(done);
        while let Err(error) = self.orders.try_send(order) {
            match error {
                TrySendError::Full(back) if Instant::now() < deadline => order = back,
                _ => return false,
            }
            std::thread::sleep(RETRY);
        }
        wait.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }
}

/// What the thread holds.
struct LogWriter {
    sink: Sink,
    style: Style,
    shared: Arc<Shared>,
}

impl LogWriter {
    fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(first) = orders.recv() {
            self.follow(first);
            // At most a queue's length, so that the rest below is reached under any load.
            orders.try_iter().take(QUEUE_LINES).for_each(|order| self.follow(order));
            self.finish();
            std::thread::sleep(REST);
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Line(level, line) => self.lost(|sink| sink.line(level, &line)),
            Order::Flush(done) => {
                self.finish();
                // Nobody waits any more if the bound was shorter.
                let _ = done.try_send(());
            }
            Order::Wake => (),
        }
    }

    /// Reports what was dropped, and brings everything to its place.
    fn finish(&mut self) {
        let dropped = self.shared.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let text = daemon::lines_lost(dropped);
            let line = self.style.notice(Level::WARN, &text);
            if self.sink.line(Level::WARN, &line) > 0 || self.sink.flush() > 0 {
                self.shared.dropped.fetch_add(dropped, Ordering::Relaxed);
            }
        }
        self.lost(Sink::flush);
        if self.shared.reopen.swap(false, Ordering::Acquire)
            && let Err(error) = self.sink.reopen()
        {
            let line = self.style.notice(Level::ERROR, &daemon::log_not_reopened(error));
            self.lost(|sink| sink.line(Level::ERROR, &line) + sink.flush());
        }
    }

    fn lost(&mut self, step: impl FnOnce(&mut Sink) -> u64) {
        let lost = step(&mut self.sink);
        self.shared.dropped.fetch_add(lost, Ordering::Relaxed);
    }
}

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink {
    /// A file, or the standard output if it has no path.
    Stream(Stream),
    /// The system log.
    Syslog(Syslog),
}

#[derive(Debug)]
pub(super) struct Stream {
    file: File,
    path: Option<PathBuf>,
    buffer: Vec<u8>,
    buffered_lines: u64,
    /// The last write failed, perhaps within a line.
    torn: bool,
}

impl Sink {
    /// The end of a file that `open` opens for the first time.
    pub(super) fn file(path: &Path, open: &dyn Fn(&Path) -> io::Result<File>) -> io::Result<Sink> {
        // Absolute, since the working directory may be another one when it is opened again.
        let path = std::path::absolute(path)?;
        let file = open(&path).map_err(|error| naming(&path, &error))?;
        Ok(Sink::Stream(Stream::new(file, Some(path))))
    }

    pub(super) fn stdout() -> io::Result<Sink> {
        Sink::standard(io::stdout().as_fd())
    }

    pub(super) fn stderr() -> io::Result<Sink> {
        Sink::standard(io::stderr().as_fd())
    }

    /// A descriptor of its own, without the line buffer of `Stdout`: one write for many lines.
    fn standard(stream: BorrowedFd<'_>) -> io::Result<Sink> {
        Ok(Sink::Stream(Stream::new(File::from(stream.try_clone_to_owned()?), None)))
    }

    /// Finds a file again once a folder above it has become the root of the file system.
    pub(super) fn confine(&mut self, root: &Path) {
        let Sink::Stream(Stream { path: Some(path), .. }) = self else { return };
        if let Ok(inside) = path.strip_prefix(root) {
            *path = Path::new("/").join(inside);
        }
    }

    /// Writes one line. Returns the number of lines lost.
    fn line(&mut self, level: Level, line: &str) -> u64 {
        match self {
            Sink::Stream(stream) => stream.line(line),
            Sink::Syslog(syslog) => u64::from(!syslog.send(level, line)),
        }
    }

    fn flush(&mut self) -> u64 {
        match self {
            Sink::Stream(stream) => stream.flush(),
            Sink::Syslog(_) => 0,
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        match self {
            Sink::Stream(Stream { file, path: Some(path), .. }) => {
                *file = safe_files::append(path).map_err(|error| naming(path, &error))?;
            }
            Sink::Stream(_) => (),
            // Without effect if it fails: the next line tries again.
            Sink::Syslog(syslog) => drop(syslog.connect()),
        }
        Ok(())
    }
}

impl Stream {
    fn new(file: File, path: Option<PathBuf>) -> Stream {
        Stream { file, path, buffer: Vec::new(), buffered_lines: 0, torn: false }
    }

    fn line(&mut self, line: &str) -> u64 {
        if self.torn && self.buffer.is_empty() {
            self.buffer.push(b'\n');
        }
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
        self.buffered_lines += 1;
        if self.buffer.len() < WRITE_BYTES { 0 } else { self.flush() }
    }

    fn flush(&mut self) -> u64 {
        if self.buffer.is_empty() {
            return 0;
        }
        self.torn = self.file.write_all(&self.buffer).is_err();
        self.buffer.clear();
        let lines = std::mem::take(&mut self.buffered_lines);
        if self.torn { lines } else { 0 }
    }
}

fn naming(path: &Path, error: &io::Error) -> io::Error {
    let hint = match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            "; a systemd unit names its folder with LogsDirectory= or ReadWritePaths="
        }
        _ => "",
    };
    io::Error::new(error.kind(), format!("cannot open log file {}: {error}{hint}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    #[test]
    fn a_destination_that_takes_nothing_holds_nobody_up() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sink = Sink::Stream(Stream::new(File::from(OwnedFd::from(writer)), None));
        let style = Style { format: Format::Text, stamped: false };
        let queue = Queue::start(sink, style).unwrap();
        (0..4 * QUEUE_LINES).for_each(|number| queue.line(Level::INFO, format!("{number:0100}")));
        assert!(!queue.flush());
        let reading = std::thread::spawn(move || {
            let mut text = String::new();
            reader.read_to_string(&mut text).map(|_| text)
        });
        assert!(queue.flush());
        // The thread ends, and with it the pipe.
        drop(queue);
        let text = reading.join().unwrap().unwrap();
        let lost: usize = text
            .lines()
            .filter_map(|line| line.strip_prefix("warning: ")?.split(' ').next()?.parse::<usize>().ok())
            .sum();
        let kept = text.lines().filter(|line| line.len() == 100).count();
        assert_eq!(lost + kept, 4 * QUEUE_LINES);
        assert!(kept >= QUEUE_LINES && lost > 0);
    }

    #[test]
    fn a_full_disk_is_reported_when_there_is_room_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let sink = Sink::file(&path, &safe_files::append).unwrap();
        let queue = Queue::start(sink, Style { format: Format::Text, stamped: false }).unwrap();
        queue.line(Level::INFO, "lost".to_owned());
        assert!(queue.flush());
        std::fs::remove_file(&path).unwrap();
        queue.reopen();
        queue.line(Level::INFO, "kept".to_owned());
        // Once for the file, once for the line that was written before it.
        assert!(queue.flush() && queue.flush());
        queue.line(Level::INFO, "more".to_owned());
        assert!(queue.flush());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains("log lines were lost") && text.contains("more\n"), "{text}");
    }
}
