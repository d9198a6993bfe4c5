//! What belongs to one request: its line, whose request a plugin's note is about, and how long plugins took.
//!
//! Knows: the fields of that line. Must not know: where they come from.

use super::REQUEST;
use super::messages::daemon;
use crate::value::words;
use decisions::DecisionId;
use lookups::{Lookup, Lookups};
use std::cell::RefCell;
use std::fmt::{self, Write};
use std::pin::Pin;
use std::time::{Duration, Instant};
use tracing::Level;

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
    /// Which message it is about.
    pub envelope: Envelope<'a>,
    /// The identifier of the decision, if it is shown.
    pub id: Option<DecisionId>,
}

/// What tells a message from others. What Postfix did not send is `None`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Envelope<'a> {
    /// The attribute `client_address`.
    pub client: Option<&'a [u8]>,
    /// The attribute `sender`; empty for the null sender.
    pub sender: Option<&'a [u8]>,
    /// The attribute `recipient`.
    pub recipient: Option<&'a [u8]>,
    /// The attribute `sasl_username`.
    pub login: Option<&'a [u8]>,
    /// The attribute `queue_id`.
    pub queue_id: Option<&'a [u8]>,
    /// How much of the addresses is shown.
    pub addresses: LogAddresses,
}

words! {
    /// How much the line of a request shows of sender, recipient and login.
    pub enum LogAddresses {
        /// All of it.
        Full = "full",
        /// What is behind the `@`.
        Domain = "domain",
        /// Nothing.
        Off = "off",
    }
}

#[allow(clippy::derivable_impls, reason = "the macro that declares it has no default")]
impl Default for LogAddresses {
    fn default() -> Self {
        LogAddresses::Full
    }
}

impl LogAddresses {
    fn shown(self, address: Option<&[u8]>) -> Option<&[u8]> {
        let address = address?;
        match self {
            LogAddresses::Full => Some(address),
            LogAddresses::Domain if address.is_empty() => Some(address),
            LogAddresses::Domain => address.iter().rposition(|byte| *byte == b'@').map(|at| &address[at..]),
            LogAddresses::Off => None,
        }
    }
}

/// Logs a request, at level 1: `NAME: instance=I, type=T, t=12ms, plugin=P, result=R`, and then which message
/// it was about: `client=C, sender=S, recipient=R, login=L, queue_id=Q`, as far as Postfix has told; and last
/// the identifier of the decision: `id=I`.
pub fn request(record: &RequestRecord<'_>) {
    let id = record.id.map(DecisionId::to_ascii);
    let Envelope { client, sender, recipient, login, queue_id, addresses } = record.envelope;
    tracing::event!(
        target: REQUEST,
        Level::WARN,
        host = record.host,
        instance = record.instance,
        "type" = record.request_type,
        elapsed_ms = milliseconds(record.elapsed),
        plugin = record.plugin.unwrap_or_default(),
        result = record.result,
        client = not_empty(client),
        sender = addresses.shown(sender),
        recipient = addresses.shown(not_empty(recipient)),
        login = addresses.shown(not_empty(login)),
        queue_id = not_empty(queue_id),
        id = id.as_ref().map(|id| &id[..]),
    );
}

fn not_empty(value: Option<&[u8]>) -> Option<&[u8]> {
    value.filter(|value| !value.is_empty())
}

/// With microseconds as decimals.
fn milliseconds(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1_000_000.0).floor() / 1000.0
}

/// The request that a task is about.
struct Current {
    host: Box<str>,
    instance: Box<[u8]>,
    times: RefCell<Vec<Time>>,
}

/// How long a plugin took.
struct Time {
    plugin: String,
    depth: usize,
    elapsed: Option<Duration>,
}

tokio::task_local! {
    static CURRENT: Current;
}

/// Does the work of a request: what is noted meanwhile names it, and at level 4 the times of its plugins are
/// logged at the end. The work is pinned elsewhere, since it is large and would be moved here several times.
pub async fn within<T>(host: &str, instance: &[u8], work: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> T {
    let current = Current { host: host.into(), instance: instance.into(), times: RefCell::default() };
    let begun = Instant::now();
    let timed = async {
        let done = work.await;
        CURRENT.with(|current| current.log_times(begun.elapsed()));
        done
    };
    CURRENT.scope(current, timed).await
}

/// Writes which request the task is about, if any, for the beginning of a line.
pub fn write_label(out: &mut impl Write) -> fmt::Result {
    CURRENT.try_with(|current| write!(out, "{}, ", current.label())).unwrap_or(Ok(()))
}

impl Current {
    fn label(&self) -> String {
        format!("{}: instance={}", self.host, super::escape(&self.instance))
    }

    fn log_times(&self, whole: Duration) {
        let times = self.times.borrow();
        if times.is_empty() {
            return;
        }
        let mut line = String::new();
        let mut outside: Vec<&str> = Vec::new();
        for Time { plugin, depth, elapsed } in &*times {
            outside.truncate(*depth);
            outside.push(plugin);
            let path = outside.join(" > ");
            // Writing to a string does not fail.
            let _ = match elapsed {
                Some(elapsed) => write!(line, "{path} {} ms, ", milliseconds(*elapsed)),
                None => write!(line, "{path} not finished, "),
            };
        }
        daemon::times(self.label(), line, milliseconds(whole));
    }
}

/// Whether the lookups of a request are logged: at level 4.
pub fn wants_lookups() -> bool {
    tracing::event_enabled!(Level::TRACE)
}

/// Logs what a request asked of servers, in the order of the answers, at level 4.
pub fn lookups(lookups: &Lookups) {
    if !wants_lookups() {
        return;
    }
    let label = || CURRENT.try_with(Current::label).unwrap_or_default();
    for Lookup { kind, server, question, answer, waited, origin } in lookups.iter() {
        let server = if server.is_empty() { String::new() } else { format!(" {server}") };
        let waited = milliseconds(Duration::from_micros(u64::from(waited)));
        daemon::lookup(label(), kind.name(), server, printable(question), printable(answer), waited, origin);
    }
    if lookups.left_out() > 0 {
        daemon::lookups_left_out(label(), lookups.left_out());
    }
}

/// A question or an answer holds what others send: one line of it.
fn printable(text: &str) -> impl fmt::Display {
    super::escape(text.as_bytes()).to_string()
}

/// Takes the time of a plugin, at level 4.
pub struct Stopwatch {
    /// Which of the times it is, and since when; `None` where nobody wants to know.
    running: Option<(usize, Instant)>,
}

impl Stopwatch {
    /// A plugin begins, so deep inside others.
    pub fn start(plugin: &str, depth: usize) -> Stopwatch {
        if !tracing::event_enabled!(Level::TRACE) {
            return Stopwatch { running: None };
        }
        let place = CURRENT.try_with(|current| {
            let mut times = current.times.borrow_mut();
            times.push(Time { plugin: plugin.to_owned(), depth, elapsed: None });
            times.len() - 1
        });
        Stopwatch { running: place.ok().map(|place| (place, Instant::now())) }
    }

    /// It has ended.
    pub fn stop(self) {
        let Some((place, begun)) = self.running else { return };
        let _ = CURRENT.try_with(|current| {
            if let Some(time) = current.times.borrow_mut().get_mut(place) {
                time.elapsed = Some(begun.elapsed());
            }
        });
    }
}
