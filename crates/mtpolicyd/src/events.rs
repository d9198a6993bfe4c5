//! What an administrator wants to be told: that something begins that needs a person, and that it has ended.
//!
//! Knows: kinds of events, the limits that somebody has used up, what waits to be told. Must not know: who is
//! told and how, where events are kept, plugins.

mod kind;
mod limits;
mod own_mail;

pub use kind::{EventKind, EventLevel, EventState};
pub use limits::{Fill, LimitKind, LimitUse, Until};
pub use own_mail::{OpenMail, OwnMail};

use backends::clock::Clock;
use decisions::{DecisionId, Ids};
use limits::Limits;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use tokio::sync::Notify;

/// Events that wait until somebody looks at them, which takes microseconds. Each receiver has a queue of its
/// own.
const MAX_WAITING: usize = 1_024;

/// Something that begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its own; it also says when it was.
    pub id: DecisionId,
    /// What kind of thing it is.
    pub kind: EventKind,
    /// Whether it begins or ends.
    pub state: EventState,
    /// How much it matters.
    pub level: EventLevel,
    /// The plugin, list, connection or file that it is about.
    pub source: String,
    /// Whom it is about: the login, client or other value of a limit. Empty if nobody.
    pub key: String,
    /// What has happened, in a sentence.
    pub text: String,
    /// What to do, in a sentence or as a command.
    pub advice: String,
}

/// What happens is noted here, without waiting for anything.
pub struct Events {
    ids: Ids,
    waiting: Mutex<VecDeque<Event>>,
    wake: Notify,
    /// Events that had no room.
    lost: AtomicU64,
    limits: Limits,
    /// Requests that took about as long as they may.
    late: AtomicU64,
    /// Connections over which events are sent as messages.
    pub own_mail: OwnMail,
}

impl Default for Events {
    fn default() -> Events {
        Events::new(0)
    }
}

/// What waits is of use to nobody who prints what holds it.
impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Those of the daemon with this number.
    pub fn new(node: u8) -> Events {
        Events {
            ids: Ids::new(node),
            waiting: Mutex::default(),
            wake: Notify::new(),
            lost: AtomicU64::new(0),
            limits: Limits::default(),
            late: AtomicU64::new(0),
            own_mail: OwnMail::default(),
        }
    }

    /// An event of this moment, which nobody is told yet.
    pub fn event(&self, kind: EventKind, state: EventState, source: &str, text: String) -> Event {
        Event {
            id: self.ids.next(SystemTime::now()),
            kind,
            state,
            level: kind.level(),
            source: source.to_owned(),
            key: String::new(),
            text,
            advice: String::new(),
        }
    }

    /// Has those told that want to know. If too many wait already, it is lost and counted.
    pub fn raise(&self, event: Event) {
        let mut waiting = self.waiting();
        if waiting.len() >= MAX_WAITING {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.push_back(event);
        drop(waiting);
        self.wake.notify_one();
    }

    /// The next event, when there is one.
    pub async fn next(&self) -> Event {
        loop {
            let woken = self.wake.notified();
            if let Some(event) = self.waiting().pop_front() {
                return event;
            }
            woken.await;
        }
    }

    /// Takes all that wait.
    pub fn take_all(&self) -> Vec<Event> {
        self.waiting().drain(..).collect()
    }

    /// How many had no room since it was last asked.
    pub fn take_lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// A request took about as long as it may.
    pub fn request_was_late(&self) {
        self.late.fetch_add(1, Ordering::Relaxed);
    }

    /// How many did so far.
    pub fn late_requests(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Somebody has used most or all of a limit: told once, until it is used little again.
    pub fn limit_filled(&self, fill: Fill, used: &LimitUse<'_>, until: impl FnOnce() -> Until) {
        if self.limits.fill(fill, used, until) {
            self.raise(used.begins(fill, self));
        }
    }

    /// How much of a limit is used, in per cent: if little is again, that is told. It costs nothing while
    /// nobody has used much of any limit.
    pub fn limit_stands(&self, percent: u64, used: &LimitUse<'_>, until: impl FnOnce() -> Until) {
        if let Some(fill) = self.limits.stands(percent, used, until) {
            self.raise(used.ends(fill, self));
        }
    }

    /// Whether anybody has used much of a limit, as far as is known here.
    pub fn is_any_limit_filled(&self) -> bool {
        self.limits.is_any()
    }

    /// Tells of the limits whose time is over without another request.
    pub fn end_limits(&self, clock: &Clock) {
        for (fill, ended) in self.limits.take_over(clock) {
            self.raise(ended.as_use().ends(fill, self));
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What this machine calls itself, as it may stand in a message and in SMTP.
pub fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

#[cfg(test)]
mod tests;
