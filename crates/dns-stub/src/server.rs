//! The servers that are asked: what is known of each, and the ports that are open to it.
//!
//! Knows: health, ports. Must not know: questions' content, sockets' system calls.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::channel::Channel;

/// How long a server that did not answer is asked last. After that, copies of questions find out whether it
/// is back, one in the same time.
pub(crate) const DEAD_TIME: Duration = Duration::from_secs(30);

/// How long a server is asked without EDNS that has answered only without it.
const PLAIN_TIME: Duration = Duration::from_secs(15 * 60);

/// How long a server is asked in lower case that does not repeat the case of a name.
const LOWER_CASE_TIME: Duration = Duration::from_secs(60 * 60);

/// Maximum number of ports open for new questions to one server.
pub(crate) const MAX_PORTS: usize = 32;

/// The number of ports opened per second; with more questions ports are used again. Those of some quiet
/// seconds may be opened at once. A port costs as much as five questions.
const FRESH_PORTS_PER_SECOND: u64 = 256;
const MAX_FRESH_PORTS: u64 = 8 * FRESH_PORTS_PER_SECOND;

/// The servers of one configuration, and how patiently they are asked.
pub(crate) struct Upstream {
    /// In the order given.
    pub servers: Vec<Arc<Server>>,
    /// How long to wait for one server.
    pub timeout: Duration,
    /// How often all of them are asked.
    pub attempts: u32,
    /// Whether questions begin with each server in turn.
    pub rotate: bool,
    /// Whether all questions go over TCP.
    pub use_tcp: bool,
    /// How often the servers had changed before.
    pub generation: u64,
}

/// A point in time, in milliseconds since the resolver was made; 0 is never.
struct Stamp(AtomicU64);

/// One server.
pub(crate) struct Server {
    pub address: SocketAddr,
    /// When the resolver was made.
    epoch: Instant,
    /// When it last sent something that was waited for.
    heard: Stamp,
    /// When it was found dead; never: it lives.
    died: Stamp,
    /// When it is tried the next time.
    next_trial: Stamp,
    plain_until: Stamp,
    lower_case_until: Stamp,
    /// Whether it has answered a question with EDNS.
    speaks_edns: AtomicBool,
    ports: Mutex<Ports>,
}

/// What is open to a server.
pub(crate) struct Ports {
    /// Those that take questions, the oldest first.
    pub open: Vec<Arc<Channel>>,
    /// Those whose last answers are waited for.
    pub draining: Vec<Arc<Channel>>,
    /// The connection over TCP.
    pub stream: Option<Arc<Channel>>,
    fresh: u64,
    refilled: Instant,
}

impl Stamp {
    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::Relaxed);
    }
}

impl Server {
    pub fn new(address: SocketAddr, epoch: Instant) -> Self {
        let ports = Ports {
            open: Vec::new(),
            draining: Vec::new(),
            stream: None,
            fresh: MAX_FRESH_PORTS,
            refilled: epoch,
        };
        Self {
            address,
            epoch,
            heard: Stamp::new(),
            died: Stamp::new(),
            next_trial: Stamp::new(),
            plain_until: Stamp::new(),
            lower_case_until: Stamp::new(),
            speaks_edns: AtomicBool::new(false),
            ports: Mutex::new(ports),
        }
    }

    pub fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds since the resolver was made, never 0.
    fn millis(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn millis_in(&self, at: Instant, time: Duration) -> u64 {
        self.millis(at + time)
    }

    /// It has sent an answer of any kind.
    pub fn has_answered(&self, at: Instant) {
        self.heard.set(self.millis(at));
        if self.died.get() != 0 {
            self.died.set(0);
        }
    }

    /// It did not answer a question that was sent at this time. If it has answered others since, it lives.
    pub fn was_silent(&self, since: Instant, now: Instant) {
        if self.heard.get() < self.millis(since) {
            self.is_unreachable(now);
        }
    }

    /// It can't be reached.
    pub fn is_unreachable(&self, now: Instant) {
        if self.died.get() == 0 {
            self.died.set(self.millis(now));
            self.next_trial.set(self.millis_in(now, DEAD_TIME));
        }
    }

    pub fn is_dead(&self) -> bool {
        self.died.get() != 0
    }

    /// Whether it is time to test if a server that was down is back; the caller that gets `true` does it.
    pub fn wants_trial(&self, now: Instant) -> bool {
        let due = self.next_trial.get();
        if !self.is_dead() || self.millis(now) < due {
            return false;
        }
        let next = self.millis_in(now, DEAD_TIME);
        self.next_trial.0.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether questions to it have EDNS.
    pub fn takes_edns(&self, now: Instant) -> bool {
        self.plain_until.get() <= self.millis(now)
    }

    /// Whether it is known that EDNS is not what keeps it from answering.
    pub fn speaks_edns(&self) -> bool {
        self.speaks_edns.load(Ordering::Relaxed)
    }

    /// It has answered a question with EDNS, or only one without.
    pub fn answered_edns(&self, edns: bool, now: Instant) {
        if !edns {
            self.plain_until.set(self.millis_in(now, PLAIN_TIME));
        } else if !self.speaks_edns() {
            self.speaks_edns.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it repeats names as they were sent.
    pub fn keeps_case(&self, now: Instant) -> bool {
        self.lower_case_until.get() <= self.millis(now)
    }

    pub fn does_not_keep_case(&self, now: Instant) {
        self.lower_case_until.set(self.millis_in(now, LOWER_CASE_TIME));
    }
}

impl Ports {
    /// Whether one more port may be opened now; the caller that gets `true` opens it.
    pub fn may_open(&mut self, now: Instant) -> bool {
        let millis = now.saturating_duration_since(self.refilled).as_millis();
        let refill = u64::try_from(millis).unwrap_or(u64::MAX).saturating_mul(FRESH_PORTS_PER_SECOND) / 1_000;
        if refill > 0 {
            self.fresh = self.fresh.saturating_add(refill).min(MAX_FRESH_PORTS);
            self.refilled = now;
        }
        if self.fresh == 0 {
            return false;
        }
        self.fresh -= 1;
        true
    }

    /// Adds a port for questions; the oldest one makes room.
    pub fn add(&mut self, channel: Arc<Channel>) {
        if self.open.len() >= MAX_PORTS {
            let oldest = self.open.remove(0);
            self.draining.push(oldest);
        }
        self.open.push(channel);
    }

    /// Everything that is open.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.open.iter().chain(&self.draining).chain(&self.stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> (Server, Instant) {
        let now = Instant::now();
        (Server::new(([127, 0, 0, 1], 53).into(), now), now)
    }

    #[test]
    fn a_server_that_answers_others_is_not_dead() {
        let (server, now) = server();
        let at = |seconds| now + Duration::from_secs(seconds);
        server.has_answered(at(3));
        server.was_silent(at(2), at(4));
        assert!(!server.is_dead());
        server.was_silent(at(4), at(6));
        assert!(server.is_dead() && !server.wants_trial(at(35)));
        assert!(server.wants_trial(at(36)) && !server.wants_trial(at(36)), "one of those who ask");
        server.has_answered(at(37));
        assert!(!server.is_dead() && !server.wants_trial(at(100)));
    }

    #[test]
    fn what_a_server_can_not_do_is_tried_again_later() {
        let (server, now) = server();
        server.answered_edns(false, now);
        server.does_not_keep_case(now);
        assert!(!server.takes_edns(now) && !server.keeps_case(now));
        assert!(server.takes_edns(now + PLAIN_TIME + Duration::from_secs(1)));
        assert!(server.keeps_case(now + LOWER_CASE_TIME + Duration::from_secs(1)));
    }

    #[test]
    fn ports_have_a_rate() {
        let (server, now) = server();
        let opened = |now| (0..10_000).take_while(|_| server.ports().may_open(now)).count();
        assert_eq!(opened(now), 2_048);
        assert_eq!(opened(now + Duration::from_millis(500)), 128);
    }
}
