//! One request from the virtual host to the answer: session, chain, deadline, log line.
//!
//! Knows: settings, sessions, chains. Must not know: sockets, how a plugin works.

use crate::chain::{DEFERRED, Outcome};
use crate::counters::Reservations;
use crate::facts::World;
use crate::log::messages::{daemon, lookups};
use crate::log::{self, Envelope, RequestRecord};
use crate::matching::Matching;
use crate::plugin::{Cx, Deadline, Error, OnError, Progress, Undecided};
use crate::session::cache::{Lease, OpenError, SessionCache, SharedSessions};
use crate::settings::{SessionSettings, Settings, VirtualHost};
use backends::clock::Clock;
use backends::dns::{Ahead, Dns};
use postfix_policy::{Reply, Request};
use std::pin::pin;
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

/// What the line of a request shows if its connection was closed without an answer.
const CLOSED: &str = "(connection closed)";

/// What a request may take where `request_timeout = 0` sets no limit: Postfix itself gives up then
/// (`smtpd_policy_service_timeout`).
const LONGEST_REQUEST: Duration = Duration::from_secs(100);

/// The part of a request's time, in per cent, within which backends have to answer, so that the chain can
/// still go on without one that does not.
const BACKENDS_PERCENT: u32 = 90;

impl Service {
    /// A service for these settings. Sessions and remembered DNS answers of an earlier one stay, where the
    /// settings for them are the same.
    pub fn new(settings: Settings, earlier: Option<&Service>) -> Service {
        let same_dns = earlier.filter(|earlier| earlier.settings.dns == settings.dns);
        let dns = match same_dns {
            Some(earlier) => {
                let dns = earlier.world.dns.clone();
                dns.refresh();
                dns
            }
            None => Arc::new(Dns::new(&settings.dns)),
        };
        let background = earlier.map(|earlier| earlier.background.clone()).unwrap_or_default();
        let sessions = sessions(&settings.sessions, earlier, &background);
        let lists = earlier.map(|earlier| earlier.world.lists.clone()).unwrap_or_default();
        let smtp = earlier.map(|earlier| earlier.world.smtp.clone()).unwrap_or_default();
        let world = World { dns, lists, smtp, clock: Arc::new(Clock::System) };
        Service { settings, world, sessions, background }
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
            lookups::name_servers(note);
        }
    }

    /// How long a request may take.
    pub fn request_timeout(&self) -> Duration {
        let configured = self.settings.globals.request_timeout.duration();
        if configured.is_zero() { LONGEST_REQUEST } else { configured }
    }

    /// Answers a request that arrived on a port; its time runs from its first byte. Whatever comes of it
    /// leaves one line in the log.
    pub async fn answer(&self, key: &str, request: &Request, begun: Instant) -> Answer {
        let start = Instant::now();
        let instance = request.get("instance").unwrap_or_default();
        let host = self.settings.host(key, request.get("policy_context"));
        let decision = match host {
            Some(host) => {
                // Pinned where it is made: to move what a request takes costs more than to decide it.
                let decide = pin!(self.decide(host, request, instance, begun));
                log::within(&host.name, instance, decide).await
            }
            None => {
                daemon::no_host(key);
                Decision::by_nobody(None)
            }
        };
        let host = host.map_or(key, |host| &host.name);
        log::request(&RequestRecord {
            host,
            instance,
            request_type: request.get("request").unwrap_or_default(),
            elapsed: start.elapsed(),
            plugin: decision.plugin.as_deref(),
            result: decision.result(),
            envelope: self.envelope(request),
        });
        decision.answer(host)
    }

    fn envelope<'a>(&self, request: &'a Request) -> Envelope<'a> {
        Envelope {
            client: request.get("client_address"),
            sender: request.get("sender"),
            recipient: request.get("recipient"),
            login: request.get("sasl_username"),
            queue_id: request.get("queue_id"),
            addresses: self.settings.globals.log_addresses,
        }
    }

    async fn decide(
        &self,
        host: &VirtualHost,
        request: &Request,
        instance: &[u8],
        begun: Instant,
    ) -> Decision {
        let limit = self.request_timeout();
        let deadline = Deadline { request: begun + limit, backends: begun + limit * BACKENDS_PERCENT / 100 };
        let lease = match self.sessions.open(instance, deadline.request).await {
            Ok(lease) => lease,
            Err(error) => {
                report_failure(host, instance, &error);
                return Decision::by_nobody(self.without_session(&error));
            }
        };
        match pin!(self.run_chain(host, request, lease, deadline)).await {
            Ok(decision) => decision,
            Err(failure) => {
                report_failure(host, instance, &failure.text);
                let action = action_of(failure.on_error).map(Reply::new);
                Decision { plugin: Some(failure.plugin), reply: action }
            }
        }
    }

    /// What becomes of a request that has no session; `None` closes the connection.
    fn without_session(&self, error: &OpenError) -> Option<Reply> {
        let on_error = match (&self.settings.sessions, error) {
            (SessionSettings::Shared { on_error, .. }, OpenError::Away(_)) => *on_error,
            _ => OnError::Close,
        };
        action_of(on_error).map(Reply::new)
    }

    /// What the chain decides, and the session kept; or which plugin failed and why.
    async fn run_chain(
        &self,
        host: &VirtualHost,
        request: &Request,
        mut lease: Lease,
        deadline: Deadline,
    ) -> Result<Decision, Failure> {
        let mut cx = Cx {
            request,
            session: lease.session(),
            world: &self.world,
            ahead: &mut Ahead::default(),
            reservations: &mut Reservations::new(self.background.clone()),
            deadline,
            progress: Progress::default(),
            matching: Matching::default(),
            header: None,
            undecided: None,
        };
        let outcome = {
            let answer = pin!(host.chain.answer(&mut cx));
            timeout_at(deadline.request, answer).await
        };
        let outcome = match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => return Err(Failure::of_plugin(error, host).despite(cx.undecided.as_ref())),
            Err(_) => return Err(Failure::too_late(cx.progress, host).despite(cx.undecided.as_ref())),
        };
        Ok(match outcome {
            Some(Outcome { action, plugin }) => {
                Decision { plugin: Some(plugin), reply: Some(Reply::new(action.as_bytes())) }
            }
            None => Decision::by_nobody(Some(Reply::dunno())),
        })
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
        SessionSettings::Memory(options) => match earlier {
            Some(earlier) if earlier.settings.sessions.same_memory(settings) => {
                return earlier.sessions.clone();
            }
            _ => SessionCache::memory(*options),
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

/// What comes of a request.
struct Decision {
    /// The plugin that decided, or failed.
    plugin: Option<Arc<str>>,
    /// What Postfix is told; `None` closes the connection.
    reply: Option<Reply>,
}

impl Decision {
    fn by_nobody(reply: Option<Reply>) -> Decision {
        Decision { plugin: None, reply }
    }

    /// How the line of the request shows it: nothing if no plugin decided, as in the original.
    fn result(&self) -> &str {
        match &self.reply {
            None => CLOSED,
            Some(reply) if self.plugin.is_some() || *reply != Reply::dunno() => reply.as_str(),
            Some(_) => "",
        }
    }

    fn answer(self, host: &str) -> Answer {
        let Some(reply) = self.reply else { return Answer::Close };
        if let Some(warning) = reply.warning() {
            daemon::action_changed(host, self.plugin.as_deref().unwrap_or_default(), warning);
        }
        Answer::Reply(reply)
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

    fn too_late(progress: Progress, host: &VirtualHost) -> Failure {
        let plugin = host.chain.name(progress.step()).cloned().unwrap_or_default();
        let text = format!("plugin {plugin}: the request took longer than request_timeout");
        // Each backend has ended before, by an outage of its own; what takes longer than all of them may be
        // the request's own doing. So Postfix gets an answer rather than its default action.
        let on_error = match progress.on_error().unwrap_or(host.on_error) {
            OnError::Close => OnError::Defer,
            other => other,
        };
        Failure { plugin, on_error, text }
    }

    /// The message does not pass by this failure if an earlier check could not find out: not by Postfix's
    /// default action either, which it runs after a connection that was closed.
    fn despite(mut self, undecided: Option<&Undecided>) -> Failure {
        if undecided.is_some() {
            self.on_error = OnError::Defer;
        }
        self
    }
}

fn report_failure(host: &VirtualHost, instance: &[u8], failure: &impl std::fmt::Display) {
    let instance = String::from_utf8_lossy(instance);
    daemon::request_failed(&host.name, instance, failure);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(on_error: OnError) -> Failure {
        Failure { plugin: "p".into(), on_error, text: String::new() }
    }

    #[test]
    fn an_outage_does_not_let_pass_what_could_not_be_judged() {
        let undecided = Undecided { plugin: "p".into(), cause: "odd".to_owned() };
        for (on_error, despite) in [
            (OnError::Dunno, OnError::Defer),
            (OnError::Continue, OnError::Defer),
            (OnError::Close, OnError::Defer),
            (OnError::Defer, OnError::Defer),
        ] {
            assert_eq!(failure(on_error).despite(Some(&undecided)).on_error, despite);
            assert_eq!(failure(on_error).despite(None).on_error, on_error);
        }
    }

    #[test]
    fn every_decision_can_be_shown() {
        assert_eq!(Decision::by_nobody(None).result(), CLOSED);
        assert_eq!(Decision::by_nobody(Some(Reply::dunno())).result(), "");
        assert_eq!(Decision::by_nobody(Some(Reply::new(DEFERRED))).result(), DEFERRED);
        let by_plugin = Decision { plugin: Some("p".into()), reply: Some(Reply::dunno()) };
        assert_eq!(by_plugin.result(), "dunno");
    }
}
