//! What systemd is told about this process: sd_notify(3), without its library.
//!
//! Knows: the socket of the service manager. Must not know: what the daemon does.

use nix::time::{ClockId, clock_gettime};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The variables that name the socket and ask for signs of life.
const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_MICROSECONDS: &str = "WATCHDOG_USEC";
/// The process that is meant; a successor gets the environment of its predecessor without it.
pub const WATCHDOG_PROCESS: &str = "WATCHDOG_PID";

/// The way to the service manager; where there is none, everything is said to nobody.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    /// How long it waits for a sign of life.
    watchdog: Option<Duration>,
}

impl Notify {
    /// Connects to the service manager that has started this process, while `chroot` has not put its socket
    /// out of reach.
    pub fn from_env() -> Notify {
        let Some(path) = std::env::var_os(SOCKET) else { return Notify::default() };
        let variable = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_ours = std::env::var_os(WATCHDOG_PROCESS).is_none()
            || variable(WATCHDOG_PROCESS) == Some(std::process::id().into());
        let watchdog = variable(WATCHDOG_MICROSECONDS).filter(|microseconds| is_ours && *microseconds > 0);
        Notify { socket: connect(path.as_bytes()).ok(), watchdog: watchdog.map(Duration::from_micros) }
    }

    /// Whether a service manager has started this process.
    pub fn is_heard(&self) -> bool {
        self.socket.is_some()
    }

    /// Requests are answered; the text is shown by `systemctl status`.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The configuration is being read again; `ready` ends that.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// No more requests are accepted.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=finishing requests in flight");
    }

    /// Another process is the service now.
    pub fn main_process(&self, id: u32) {
        self.tell(&format!("MAINPID={id}"));
    }

    /// Gives signs of life for as long as it is polled: on a thread that answers requests, so that they stop
    /// when no thread gets to it.
    pub async fn keep_alive(&self) {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        // Half of it, as systemd recommends.
        let mut interval = tokio::time::interval(watchdog / 2);
        loop {
            interval.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, state: &str) {
        // A service manager that does not listen is not a reason to stop.
        let _ = self.socket.as_ref().map(|socket| socket.send(state.as_bytes()));
    }
}

fn connect(path: &[u8]) -> std::io::Result<UnixDatagram> {
    // A name that begins with `@` is in the abstract namespace.
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // The daemon never waits for it.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn one_line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 500];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[test]
    fn both_kinds_of_sockets_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("mtpolicyd-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (address, socket) in [(path.display().to_string(), by_path), (format!("@{name}"), by_name)] {
            let notify = Notify { socket: Some(connect(address.as_bytes()).unwrap()), watchdog: None };
            notify.ready("serving\nREADY=0");
            assert_eq!(received(&socket), "READY=1\nSTATUS=serving READY=0");
            notify.main_process(7);
            assert_eq!(received(&socket), "MAINPID=7");
            notify.reloading();
            let reloading = received(&socket);
            let (first, second) = reloading.split_once('\n').unwrap();
            assert_eq!(first, "RELOADING=1");
            let now = second.strip_prefix("MONOTONIC_USEC=").unwrap().parse::<u64>().unwrap();
            assert!(now > 0, "{reloading}");
        }
    }

    #[test]
    fn nobody_who_listens_is_no_failure() {
        Notify::default().ready("serving");
        assert!(connect(b"/no/such/socket").is_err());
        assert!(connect(b"").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn signs_of_life_come_twice_in_the_time() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let notify = Notify { socket: Some(ours), watchdog: Some(Duration::from_secs(30)) };
        let alive = tokio::time::timeout(Duration::from_secs(61), notify.keep_alive());
        assert!(alive.await.is_err(), "it goes on");
        theirs.set_nonblocking(true).unwrap();
        let mut signs = 0;
        while theirs.recv(&mut [0; 100]).is_ok() {
            signs += 1;
        }
        assert_eq!(signs, 5, "at once, and every 15 seconds");
    }
}
