//! The system log: RFC 3164 messages to the datagram socket of the local syslog daemon.
//!
//! Knows: the socket, facility and severities. Must not know: what the lines say.

use std::io::{self, ErrorKind, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracing::Level;

/// Facility `mail`, as Postfix and the original use.
const FACILITY_MAIL: u8 = 2;

/// How long one line may wait when the socket's queue is full. It holds ten datagrams on many systems
/// (`net.unix.max_dgram_qlen`), so a short wait is usual; the workers do not wait with it.
const SEND_LIMIT: Duration = Duration::from_millis(100);

/// How often to look whether a syslog daemon that went away is back.
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// The connection to the system log; it may be away at any time, also at the start.
#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// When the next attempt to connect may be made.
    retry: Instant,
    /// One message, kept for its memory.
    message: Vec<u8>,
}

impl Syslog {
    pub(super) fn open(path: PathBuf) -> Syslog {
        let mut syslog = Syslog { path, socket: None, retry: Instant::now(), message: Vec::new() };
        syslog.connect();
        syslog
    }

    /// Connects anew. The old connection stays if that fails: after a chroot the path may be out of reach.
    pub(super) fn connect(&mut self) -> bool {
        self.retry = Instant::now() + RECONNECT_INTERVAL;
        let connected = UnixDatagram::unbound().and_then(|socket| {
            socket.connect(&self.path)?;
            socket.set_write_timeout(Some(SEND_LIMIT))?;
            Ok(socket)
        });
        let is_connected = connected.is_ok();
        self.socket = connected.ok().or(self.socket.take());
        is_connected
    }

    /// Sends one line, and says whether the syslog daemon got it.
    ///
    /// The time is left out, as RFC 3164 (4.3.3) allows: the receiver puts its own, in its own zone.
    pub(super) fn send(&mut self, level: Level, line: &str) -> bool {
        self.message.clear();
        let (priority, pid) = (FACILITY_MAIL * 8 + severity(level), std::process::id());
        // Writing to a vector does not fail.
        let _ = write!(self.message, "<{priority}>mtpolicyd[{pid}]: {line}");
        match self.try_send() {
            Ok(()) => true,
            // Full, or too long: a new connection would not help.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => false,
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EMSGSIZE as i32) => false,
            Err(_) => Instant::now() >= self.retry && self.connect() && self.try_send().is_ok(),
        }
    }

    fn try_send(&self) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(ErrorKind::NotConnected)?;
        socket.send(&self.message).map(drop)
    }
}

/// The severity of RFC 3164 for each `log_level` of the manual.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 5,
        Level::DEBUG => 6,
        Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_line_has_facility_severity_and_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::open(path);
        assert!(syslog.send(Level::INFO, "hello"));
        assert_eq!(received(&daemon), format!("<21>mtpolicyd[{}]: hello", std::process::id()));
        assert!(syslog.send(Level::ERROR, "no"));
        assert!(received(&daemon).starts_with("<19>"));
    }

    #[test]
    fn a_daemon_that_comes_back_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut syslog = Syslog::open(path.clone());
        assert!(!syslog.send(Level::INFO, "nobody there"));
        syslog.retry = Instant::now();
        let daemon = UnixDatagram::bind(&path).unwrap();
        assert!(syslog.send(Level::INFO, "one"));
        drop((received(&daemon), daemon));
        std::fs::remove_file(&path).unwrap();
        assert!(!syslog.send(Level::INFO, "lost"));
        let daemon = UnixDatagram::bind(&path).unwrap();
        syslog.retry = Instant::now();
        assert!(syslog.send(Level::INFO, "two"));
        assert!(received(&daemon).ends_with(": two"));
    }

    #[test]
    fn a_full_queue_loses_lines_and_blocks_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let _never_reads = UnixDatagram::bind(&path).unwrap();
        let mut syslog = Syslog::open(path);
        // The queue is at most a few thousand datagrams, whatever the system's limit is.
        let line = "x".repeat(4000);
        assert!((0..10_000).any(|_| !syslog.send(Level::INFO, &line)));
    }
}
