//! One request from the virtual host to the answer: session, chain, deadline, log line.
//!
//! Knows: settings, sessions, chains. Must not know: sockets, how a plugin works.

use super::decided::{Answer, Decided, Failure, action_of, report_failure};
use super::numbers::{HostCells, Numbers, pair};
use super::record::{Chosen, Draft};
use super::shadow::{NotCompared, Shadows};
use crate::chain::Outcome;
use crate::counters::Reservations;
use crate::events::Events;
use crate::facts::World;
use crate::log::messages::{daemon, lookups};
use crate::log::{self, Envelope, RequestRecord};
use crate::matching::Matching;
use crate::plugin::{Afterwards, Course, Cx, Notes, OnError};
use crate::recorder::Recorder;
use crate::session::RECIPIENT;
use crate::session::cache::{Lease, OpenError, SessionCache, SharedSessions};
use crate::settings::{JournalSettings, Labels, SessionSettings, Settings, VirtualHost};
use crate::value::Switch;
use ::lookups::Notebook;
use backends::Call;
use backends::clock::Clock;
use backends::dns::{Ahead, Dns};
use decisions::Decision;
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
    pub(super) world: World,
    sessions: Arc<SessionCache>,
    /// What goes on when its request has been answered.
    background: TaskTracker,
    labels: Labels,
    numbers: Numbers,
    pub(super) recorder: Arc<Recorder>,
    /// What runs in the shadow of virtual hosts.
    shadows: Shadows,
}

/// What would be decided about a request.
pub struct Explained {
    /// The decision.
    pub decision: Decision,
    /// What would have been done besides.
    pub would: Vec<String>,
    /// The options whose values were not those of the file.
    pub(super) chosen: Vec<Chosen>,
}

/// The part of a request's time, in per cent, within which backends have to answer, so that the chain can
/// still go on without one that does not.
const BACKENDS_PERCENT: u32 = 90;

impl Service {
    /// A service for these settings. Sessions and remembered DNS answers of an earlier one stay, where the
    /// settings for them are the same.
    pub fn new(mut settings: Settings, earlier: Option<&Service>) -> Service {
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
        let events = earlier.map(|earlier| earlier.world.events.clone());
        let events = events.unwrap_or_else(|| Arc::new(Events::new(settings.globals.node())));
        let world = World { dns, lists, smtp, clock: Arc::new(Clock::System), events };
        let recorder = earlier.map(|earlier| earlier.recorder.clone());
        let recorder = recorder.unwrap_or_else(|| Arc::new(Recorder::new(settings.globals.node())));
        let labels = Labels::of(&settings);
        let numbers = Numbers::new(&labels, earlier.map(|earlier| (&earlier.labels, &earlier.numbers)));
        let shadows = std::mem::take(&mut settings.shadows);
        let shadows = Shadows::new(shadows, earlier.map(|earlier| &earlier.shadows));
        Service { settings, world, sessions, background, recorder, labels, numbers, shadows }
    }

    /// The names that may label numbers.
    pub(super) fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What is counted of its requests.
    pub(super) fn numbers(&self) -> &Numbers {
        &self.numbers
    }

    /// The number of sessions in this process.
    pub(super) fn kept_sessions(&self) -> usize {
        self.sessions.kept()
    }

    /// What runs in the shadow of its virtual hosts.
    pub(super) fn shadows(&self) -> &Shadows {
        &self.shadows
    }

    /// Counts and keeps a decision whose answer has been sent, and hands it to the shadow of its host.
    pub(super) fn record(self: &Arc<Self>, decision: Decision) {
        self.numbers.count(&decision);
        let decision = Arc::new(decision);
        self.recorder.record(decision.clone());
        if let Some(shadow) = self.shadows.of(&decision.host) {
            shadow.begin(decision, self);
        }
    }

    /// Counts what the shadow of a host would have decided.
    pub(super) fn count_shadow(&self, host: &str, live: decisions::Outcome, shadow: decisions::Outcome) {
        self.cells_of(host).into_iter().for_each(|cells| cells.shadow.add(pair(live, shadow), 1));
    }

    /// Counts a request that the shadow of a host has not compared.
    pub(super) fn count_not_compared(&self, host: &str, why: NotCompared) {
        self.cells_of(host).into_iter().for_each(|cells| cells.not_compared.add(why as usize, 1));
    }

    fn cells_of(&self, host: &str) -> Option<&HostCells> {
        let place = self.settings.hosts.iter().position(|known| *known.name == *host)?;
        self.numbers.hosts.get(place).map(|cells| &**cells)
    }

    /// Counts a request that was answered. Its identifier is an example where its decision is kept.
    fn count(&self, host: &VirtualHost, draft: &Draft, reply: Option<&Reply>, elapsed: Duration) {
        let outcome =
            reply.map_or(decisions::Outcome::Closed, |reply| decisions::Outcome::of_action(reply.as_str()));
        let is_kept = self.settings.journal != JournalSettings::Off;
        if let Some(place) = self.settings.hosts.iter().position(|known| std::ptr::eq(known, host)) {
            self.numbers.answered(place, outcome, elapsed, is_kept.then_some(draft.id));
        }
    }

    /// Where decisions are kept.
    pub fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// Keeps decisions as the settings say from now on.
    pub fn keep_decisions(&self) {
        let is_shown = self.settings.metrics.is_some() || self.settings.console.is_some();
        self.recorder.measure(is_shown);
        self.recorder.keep(self.settings.journal != JournalSettings::Off);
        let kept = self.settings.journal.kept(self.settings.globals.node());
        self.recorder.journal().apply(kept.as_ref());
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
        self.settings.globals.longest_request()
    }

    /// Answers a request that arrived on a port; its time runs from its first byte. Whatever comes of it
    /// leaves one line in the log. Once the answer is sent, the rest is to be done, and the decision recorded
    /// if anybody wants it.
    pub async fn answer(
        &self,
        key: &str,
        request: &Request,
        begun: Instant,
        after: &mut Afterwards,
    ) -> (Answer, Option<Decision>) {
        let start = Instant::now();
        let instance = request.get("instance").unwrap_or_default();
        let host = self.settings.host(key, request.get("policy_context"));
        let mut draft = match host.and_then(|host| self.shadows.of(&host.name)) {
            Some(_) => Draft::of_shadowed(&self.recorder, &self.settings.steps),
            None => Draft::new(&self.recorder, &self.settings.steps),
        };
        let mut decided = match host {
            Some(host) => {
                // Pinned where it is made: to move what a request takes costs more than to decide it.
                let decide = pin!(self.decide(host, request, instance, begun, after, &mut draft));
                log::within(&host.name, instance, decide).await
            }
            None => {
                daemon::no_host(key);
                Decided::by_nobody(None)
            }
        };
        let globals = &self.settings.globals;
        let suffix = globals.reply_suffix.as_deref();
        decided.reply = decided.reply.map(|reply| draft.finish_reply(reply, suffix));
        let elapsed = start.elapsed();
        if elapsed * 100 >= self.request_timeout() * BACKENDS_PERCENT {
            self.world.events.request_was_late();
        }
        let name = host.map_or(key, |host| &host.name);
        log::request(&RequestRecord {
            host: name,
            instance,
            request_type: request.get("request").unwrap_or_default(),
            elapsed,
            plugin: decided.plugin.as_deref(),
            result: decided.result(),
            envelope: self.envelope(request),
            id: (globals.log_id == Switch::On).then_some(draft.id),
        });
        host.iter().for_each(|host| self.count(host, &draft, decided.reply.as_ref(), elapsed));
        let steps = &self.settings.steps;
        let decision = draft.into_decision(host.ok_or(key), steps, request, decided.reply.as_ref(), elapsed);
        (decided.answer(name), decision)
    }

    /// What would be decided about a request, as the first of its message. It asks what a request asks, but
    /// changes, counts and sends nothing; what it would is noted. Plugins with these numbers are left out.
    pub async fn explain(
        &self,
        host: &VirtualHost,
        request: &Request,
        without: Vec<u16>,
    ) -> Option<Explained> {
        let (begun, mut after) = (Instant::now(), Afterwards::default());
        let draft = Draft::of_explanation(&self.recorder, without);
        let lease = SessionCache::None.open(b"", Call::until(begun + self.request_timeout())).await.ok()?;
        let finished = self.finish_draft(host, request, lease, begun, &mut after, draft).await;
        finished.map(|(decision, (would, chosen))| Explained { decision, would, chosen })
    }

    /// What is decided about a request that nobody waits for: the decision, what would have been done
    /// besides, and the options whose values were not those of the file.
    pub(super) async fn finish_draft(
        &self,
        host: &VirtualHost,
        request: &Request,
        lease: Lease,
        begun: Instant,
        after: &mut Afterwards,
        mut draft: Draft,
    ) -> Option<(Decision, (Vec<String>, Vec<Chosen>))> {
        let outcome = pin!(self.run_chain(host, request, lease, begun, after, &mut draft)).await;
        let reply = match outcome {
            Ok(decided) => decided.reply,
            Err(failure) => {
                draft.failed(failure.is_late, &failure.text);
                action_of(failure.on_error).map(Reply::new)
            }
        };
        let suffix = self.settings.globals.reply_suffix.as_deref();
        let reply = reply.map(|reply| draft.finish_reply(reply, suffix));
        let would = draft.pretence.take().map(|pretence| pretence.take()).unwrap_or_default();
        let chosen = std::mem::take(&mut draft.chosen);
        let steps = &self.settings.steps;
        let decision = draft.into_decision(Ok(host), steps, request, reply.as_ref(), begun.elapsed())?;
        Some((decision, (would, chosen)))
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
        after: &mut Afterwards,
        draft: &mut Draft,
    ) -> Decided {
        // A message of this daemon that tells what is wrong must not be held up by that.
        if self.world.events.own_mail.is_own(request) {
            return Decided::by_nobody(Some(Reply::dunno()));
        }
        let limit = self.request_timeout();
        let deadline = begun + limit;
        let lease = match self.sessions.open(instance, Call::until(deadline)).await {
            Ok(lease) => lease,
            Err(error) => {
                report_failure(host, instance, &error);
                draft.failed(false, &error.to_string());
                return Decided::by_nobody(self.without_session(&error));
            }
        };
        let outcome = pin!(self.run_chain(host, request, lease, begun, &mut *after, draft)).await;
        match outcome {
            Ok(decision) => decision,
            Err(failure) => {
                report_failure(host, instance, &failure.text);
                draft.failed(failure.is_late, &failure.text);
                // The message is tried again, and needs what it had.
                *after = Afterwards::default();
                let action = action_of(failure.on_error).map(Reply::new);
                Decided { plugin: Some(failure.plugin), reply: action }
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
        begun: Instant,
        after: &mut Afterwards,
        draft: &mut Draft,
    ) -> Result<Decided, Failure> {
        let limit = self.request_timeout();
        let replayed = draft.replayed.take();
        let is_noted = replayed.is_none() && (draft.walk.is_some() || log::wants_lookups());
        let notebook = is_noted.then(Notebook::default);
        let session = lease.session();
        session.begin(request.get(RECIPIENT).unwrap_or_default());
        draft.note_session(session);
        let mut course = Course { without: std::mem::take(&mut draft.without), ..Course::default() };
        let mut cx = Cx {
            notes: &Notes::default(),
            request,
            session,
            world: replayed.as_ref().map_or(&self.world, |replayed| &replayed.world),
            ahead: &mut Ahead::default(),
            reservations: &mut Reservations::new(self.background.clone()),
            call: Call::until(begun + limit * BACKENDS_PERCENT / 100)
                .noted_in(notebook.as_ref())
                .pretending(draft.pretence.as_ref())
                .replaying(replayed.as_ref().map(|replayed| &*replayed.replay)),
            matching: &mut Matching::default(),
            course: &mut course,
            after,
            walk: &mut draft.walk,
        };
        let outcome = {
            let answer = pin!(host.chain.answer(&mut cx));
            timeout_at(begun + limit, answer).await
        };
        if let Some(notebook) = &notebook {
            let lookups = notebook.take();
            log::lookups(&lookups);
            draft.note_lookups(lookups);
        }
        if course.undecided.is_some() {
            draft.undecided();
        }
        if draft.pretence.is_none() && replayed.is_none() {
            course.beyond_limits.iter().for_each(|number| self.numbers.beyond_limit(*number));
        }
        draft.note_chosen(lease.session(), &self.settings.steps);
        let outcome = match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => return Err(Failure::of_plugin(error, host).despite(course.undecided.as_ref())),
            Err(_) => {
                return Err(Failure::too_late(course.progress, host).despite(course.undecided.as_ref()));
            }
        };
        lease.before_answer().await;
        Ok(match outcome {
            Some(Outcome { action, plugin, by }) => {
                draft.decided_by(by);
                Decided { plugin: Some(plugin), reply: Some(Reply::new(action.as_bytes())) }
            }
            None => Decided::by_nobody(Some(Reply::dunno())),
        })
    }
}

/// The store of the sessions. What is in the memory of this process stays where its settings do: that is all
/// of them without a store, and what stands in for those of a store that is unreachable.
fn sessions(
    settings: &SessionSettings,
    earlier: Option<&Service>,
    background: &TaskTracker,
) -> Arc<SessionCache> {
    if let Some(earlier) = earlier.filter(|earlier| earlier.settings.sessions.same_sessions(settings)) {
        return earlier.sessions.clone();
    }
    Arc::new(match settings {
        SessionSettings::None => SessionCache::None,
        SessionSettings::Memory(options) => SessionCache::memory(*options),
        SessionSettings::Shared { store, options, .. } => {
            SessionCache::Shared(SharedSessions::new(store.clone(), *options, background.clone()))
        }
    })
}
