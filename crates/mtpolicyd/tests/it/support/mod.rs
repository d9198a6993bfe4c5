//! What the integration tests share: the daemon as a process, a client, a name server.
//!
//! Knows: the programs and their protocols. Must not know: what a test wants to see.

pub mod browser;
pub mod client;
pub mod cutter;
pub mod daemon;
pub mod database;
pub mod fake_dns;
pub mod fake_http;
pub mod fake_smtp;
pub mod fences;
pub mod machine;
pub mod postfix;
pub mod servers;

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long anything may take that takes milliseconds: tests share a machine with builds. It only ends a
/// test that would wait forever.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How often to look again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks again and again until there is something to see.
///
/// # Panics
/// When there is nothing within [`PATIENCE`].
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        sleep(LOOK_AGAIN);
    }
}

/// The same in a test that is asynchronous itself.
///
/// # Panics
/// When there is nothing within [`PATIENCE`].
pub async fn eventually_async<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A TCP port of the loopback that nobody uses, and that no other test of this run gets.
///
/// It lies below those that the kernel gives to outgoing connections, so that none of them takes it before
/// the daemon does.
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Runs that go on at the same time begin at different places.
    let start =
        u16::try_from(std::process::id().wrapping_mul(7_919) % u32::from(COUNT)).expect("below COUNT");
    for _ in 0..COUNT {
        let offset = u32::from(start) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from(offset % u32::from(COUNT)).expect("below COUNT");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of the loopback is free");
}

/// Whether the tests run as root; else those that need it are left out, and `what` is said on standard error.
pub fn is_root_or_leaves_out(what: &str) -> bool {
    let root = nix::unistd::Uid::effective().is_root();
    if !root {
        leaves_out("it needs root", what);
    }
    root
}

/// Says that a test is left out, past the test harness, which keeps what a passing test prints.
pub fn leaves_out(why: &str, what: &str) {
    let line = format!("left out, {why}: {what}\n");
    // Who closes standard error does not want to know.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
