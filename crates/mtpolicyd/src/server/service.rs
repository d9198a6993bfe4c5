//! One request from the virtual host to the answer: session, chain, deadline, log line.
//!
//! Knows: settings, sessions, chains. Must not know: sockets, how a plugin works.

use crate::counters::Reservations;
use crate::log::{self, RequestRecord};
use crate::plugin::{Cx, Deadline, Error, OnError, Turn};
use crate::session::cache::{Lease, OpenError, SessionCache, SharedSessions};
use crate::settings::{SessionSettings, Settings, VirtualHost};
use crate::world::World;
use crate::world::clock::Clock;
use crate::world::dns::{Ahead, Dns, DnsError};
use postfix_policy::{Reply, Request};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tokio_util::task::TaskTracker;

/// The settings in use, with what they ask and where they keep sessions.
pub struct Service {
    /// What the file says.
    pub settings: Settings,
    world: World,
    sessions: Arc<SessionCache>,
    /// What goes on when its request has been answered.
    background: TaskTracker,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Answer {
    /// Postfix gets an action.
    Reply(Reply),
    /// The connection is closed without one; Postfix tries again, then runs its default action.
    Close,
}

/// The action of `on_error = defer`.
const DEFERRED: &str = "defer 4.3.0 the policy check failed, please try again later";

/// What a request may take where `request_timeout = 0` sets no limit: Postfix itself gives up then
/// (`smtpd_policy_service_timeout`).
const LONGEST_REQUEST: Duration = Duration::from_secs(100);

/// The part of a request's time, in per cent, within which backends have to answer, so that the chain can
/// still go on without one that does not.
const BACKENDS_PERCENT: u32 = 90;

impl Service {
    /// A service for these settings. Sessions and remembered DNS answers of an earlier one stay, where the
    /// settings for them are the same.
    pub fn new(settings: Settings, earlier: Option<&Service>) -> Result<Service, DnsError> {
        let same_dns = earlier.filter(|earlier| earlier.settings.dns == settings.dns);
        let dns = match same_dns {
            Some(earlier) => earlier.world.dns.clone(),
            None => Arc::new(Dns::new(&settings.dns)?),
        };
        let background = earlier.map(|earlier| earlier.background.clone()).unwrap_or_default();
        let sessions = sessions(&settings.sessions, earlier, &background);
        let lists = earlier.map(|earlier| earlier.world.lists.clone()).unwrap_or_default();
        let smtp = earlier.map(|earlier| earlier.world.smtp.clone()).unwrap_or_default();
        let world = World { dns, lists, smtp, clock: Arc::new(Clock::System) };
        Ok(Service { settings, world, sessions, background })
    }

    /// What is around the requests.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Waits for what still goes on when every request has been answered.
    pub async fn finish(&self) {
        self.background.close();
        self.background.wait().await;
    }

    /// Logs what whoever runs the daemon should know of the world outside.
    pub fn log_notes(&self) {
        if let Some(note) = self.world.dns.note() {
            tracing::warn!("{note}");
        }
    }

    /// How long a request may take.
    pub fn request_timeout(&self) -> Duration {
        let configured = self.settings.globals.request_timeout.duration();
        if configured.is_zero() { LONGEST_REQUEST } else { configured }
    }

    /// Answers a request that arrived on a port; its time runs from its first byte.
    pub async fn answer(&self, key: &str, request: &Request, begun: Instant) -> Answer {
        let Some(host) = self.settings.host(key, request.get("policy_context")) else {
            tracing::error!("no VirtualHost answers on port {key} any more; the connection is closed");
            return Answer::Close;
        };
        let start = Instant::now();
        let limit = self.request_timeout();
        let deadline = Deadline { request: begun + limit, backends: begun + limit * BACKENDS_PERCENT / 100 };
        let instance = request.get("instance").unwrap_or_default();
        let lease = match self.sessions.open(instance, deadline.request).await {
            Ok(lease) => lease,
            Err(error) => {
                report_failure(host, instance, &error);
                return self.without_session(&error);
            }
        };
        let (action, plugin) = match self.run_chain(host, request, lease, deadline).await {
            Ok(decision) => decision,
            Err(failure) => {
                report_failure(host, instance, &failure.text);
                match action_of(failure.on_error) {
                    Some(action) => (action.to_owned(), Some(failure.plugin)),
                    None => return Answer::Close,
                }
            }
        };
        let reply = if plugin.is_some() { Reply::new(action.as_bytes()) } else { Reply::dunno() };
        if let Some(warning) = reply.warning() {
            tracing::warn!("{}: plugin {}: {warning}", host.name, plugin.as_deref().unwrap_or_default());
        }
        log::request(&RequestRecord {
            host: &host.name,
            instance,
            request_type: request.get("request").unwrap_or_default(),
            elapsed: start.elapsed(),
            plugin: plugin.as_deref(),
            result: if plugin.is_some() { reply.as_str() } else { "" },
        });
        Answer::Reply(reply)
    }

    /// What becomes of a request that has no session.
    fn without_session(&self, error: &OpenError) -> Answer {
        let on_error = match (&self.settings.sessions, error) {
            (SessionSettings::Shared { on_error, .. }, OpenError::Away(_)) => *on_error,
            _ => OnError::Close,
        };
        action_of(on_error).map_or(Answer::Close, |action| Answer::Reply(Reply::new(action.as_bytes())))
    }

    /// The action and the plugin that decided, and the session kept; or who failed and why.
    async fn run_chain(
        &self,
        host: &VirtualHost,
        request: &Request,
        mut lease: Lease,
        deadline: Deadline,
    ) -> Result<(String, Option<Arc<str>>), Failure> {
        let mut cx = Cx {
            request,
            session: lease.session(),
            world: &self.world,
            ahead: &mut Ahead::default(),
            reservations: &mut Reservations::new(self.background.clone()),
            deadline,
            turn: Turn::default(),
            header: None,
        };
        let outcome = match timeout_at(deadline.request, host.chain.answer(&mut cx)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => return Err(Failure::of_plugin(error, host)),
            Err(_) => return Err(Failure::too_late(cx.turn, host)),
        };
        Ok(outcome.map_or((String::new(), None), |outcome| (outcome.action, Some(outcome.plugin))))
    }
}

/// The store of the sessions. What is in the memory of this process stays where its settings do; sessions in
/// a store of their own stay in any case.
fn sessions(
    settings: &SessionSettings,
    earlier: Option<&Service>,
    background: &TaskTracker,
) -> Arc<SessionCache> {
    Arc::new(match settings {
        SessionSettings::None => SessionCache::None,
        SessionSettings::Memory { expire, max_sessions } => match earlier {
            Some(earlier) if earlier.settings.sessions.same_memory(settings) => {
                return earlier.sessions.clone();
            }
            _ => SessionCache::memory(*expire, *max_sessions),
        },
        SessionSettings::Shared { store, options, .. } => {
            SessionCache::Shared(SharedSessions::new(store.clone(), *options, background.clone()))
        }
    })
}

/// What Postfix is told when a check has failed; `None` closes the connection.
fn action_of(on_error: OnError) -> Option<&'static str> {
    match on_error {
        OnError::Close => None,
        OnError::Defer => Some(DEFERRED),
        OnError::Dunno | OnError::Continue => Some("dunno"),
    }
}

/// Why a chain did not end.
struct Failure {
    plugin: Arc<str>,
    on_error: OnError,
    text: String,
}

impl Failure {
    fn of_plugin(error: Error, host: &VirtualHost) -> Failure {
        let text = error.to_string();
        match error {
            Error::In { plugin, on_error, .. } => {
                Failure { plugin, on_error: on_error.unwrap_or(host.on_error), text }
            }
            _ => Failure { plugin: "".into(), on_error: host.on_error, text },
        }
    }

    fn too_late(turn: Turn, host: &VirtualHost) -> Failure {
        let plugin = host.chain.name(turn.step()).cloned().unwrap_or_default();
        let text = format!("plugin {plugin}: the request took longer than request_timeout");
        Failure { plugin, on_error: turn.on_error().unwrap_or(host.on_error), text }
    }
}

fn report_failure(host: &VirtualHost, instance: &[u8], failure: &impl std::fmt::Display) {
    let instance = String::from_utf8_lossy(instance);
    tracing::error!("{}: instance={instance}, error while processing request: {failure}", host.name);
}
