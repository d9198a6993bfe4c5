//! Decisions that are made again by another configuration, in a world of recorded answers: those of a journal
//! one after the other, or those that a daemon has just made beside one another.
//!
//! Knows: decisions, the service. Must not know: where decisions are kept, what is printed.

use super::record::{Draft, Replayed};
use super::service::Service;
use crate::facts::World;
use crate::plugin::Afterwards;
use crate::session::cache::{Lease, MemoryOptions, SessionCache};
use crate::settings::{SessionSettings, Settings, VirtualHost};
use crate::value::Size;
use backends::clock::Clock;
use backends::dns::{Dns, Zone};
use backends::replay::Trust;
use backends::{Call, Replay};
use bytes::BytesMut;
use decisions::{Decision, Flags, Lookups, Outcome, StepTable};
use postfix_policy::{Decoder, Request};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};
use tokio::time::Instant;

/// Sessions that are kept where the file keeps them in a store.
const MAX_SESSIONS: u64 = 100_000;
/// How much memory they may take.
const MAX_SESSION_SIZE: Size = Size::mebibytes(64);
/// What is not known where names were replaced.
pub const PSEUDONYMS: &str = "names that were replaced with pseudonyms";

/// The plugins of a decision, and which of them each of ours is.
type Matched = (Arc<StepTable>, Arc<[Option<u16>]>);

/// Makes decisions again.
pub struct Replayer {
    service: Service,
    replay: Arc<Replay>,
    sessions: SessionCache,
    /// The plugins of the last decision.
    matched: Mutex<Option<Matched>>,
    /// The time of the first decision, in milliseconds since the epoch.
    begun: Option<i64>,
}

/// What would be decided by now.
pub enum Again {
    /// This, as far as it can be trusted.
    Decided(Box<Decision>, Trust),
    /// Nothing can be said, for this reason.
    LeftOut(&'static str),
}

impl Replayer {
    /// That of a configuration that was read to be replayed. If `asks_dns`, the name service is asked what
    /// nobody asked it then.
    pub fn new(settings: Settings, asks_dns: bool) -> Replayer {
        let dns = if asks_dns { Dns::new(&settings.dns) } else { Dns::Fake(Zone::default()) };
        Replayer::with(settings, dns, Replay::default())
    }

    /// That of a configuration in the shadow of another one, for as long as the daemon runs. The name service
    /// is asked what the other one did not ask.
    pub fn of_shadow(settings: Settings) -> Replayer {
        let dns = Dns::new(&settings.dns);
        Replayer::with(settings, dns, Replay::endless())
    }

    fn with(mut settings: Settings, dns: Dns, replay: Replay) -> Replayer {
        let sessions = match &settings.sessions {
            SessionSettings::None => SessionCache::None,
            SessionSettings::Memory(options) => SessionCache::memory(*options),
            SessionSettings::Shared { options, .. } => SessionCache::memory(MemoryOptions {
                expire: options.expire,
                max_sessions: MAX_SESSIONS,
                max_size: MAX_SESSION_SIZE,
            }),
        };
        settings.sessions = SessionSettings::None;
        let replay = Arc::new(replay);
        let service = Service::of_replay(settings, dns);
        Replayer { service, replay, sessions, matched: Mutex::default(), begun: None }
    }

    /// The plugins that decide by now.
    pub fn steps(&self) -> &Arc<StepTable> {
        &self.service.settings.steps
    }

    /// Makes a decision again, after the one before.
    pub async fn again(&mut self, mut decision: Decision) -> Again {
        self.set_time(micros_of(&decision) / 1000);
        let lookups = std::mem::take(&mut decision.walk.lookups);
        self.run(&decision, lookups, &self.replay, None).await
    }

    /// Makes a decision again that was made just now, by the host at this place, while others are made again
    /// too.
    pub async fn again_beside(&self, decision: &Decision, host: usize) -> Again {
        let replay = Arc::new(self.replay.beside());
        let again = self.run(decision, decision.walk.lookups.clone(), &replay, Some(host)).await;
        if replay.is_full() {
            // First the keys, so that one task of those that find this out does it.
            replay.begin_anew();
            let call = Call::until(Instant::now() + self.service.request_timeout());
            // What stands in for a database is in memory; what is left of it would only be out of date.
            let _ = self.service.settings.connections.empty_stand_ins(call).await;
        }
        again
    }

    async fn run(
        &self,
        decision: &Decision,
        lookups: Lookups,
        replay: &Arc<Replay>,
        host: Option<usize>,
    ) -> Again {
        let micros = micros_of(decision);
        let turns = self.turns(decision, micros % 1000);
        replay.begin_with(lookups, micros / 1000, turns);
        let decided = self.decide(decision, replay, host).await;
        let trust = replay.end();
        match decided {
            Ok(again) => Again::Decided(Box::new(again), trust),
            Err(why) => Again::LeftOut(why),
        }
    }

    /// What is kept in memory ages as it did then.
    fn set_time(&mut self, at: i64) {
        let begun = *self.begun.get_or_insert(at);
        let ahead = Duration::from_millis(u64::try_from(at - begun).unwrap_or_default());
        self.service.settings.connections.set_ahead(ahead);
    }

    async fn decide(
        &self,
        decision: &Decision,
        replay: &Arc<Replay>,
        host: Option<usize>,
    ) -> Result<Decision, &'static str> {
        if decision.flags.has(Flags::LATE) {
            return Err("the time of the request was over");
        }
        let is_failed = decision.flags.has(Flags::FAILED);
        if decision.walk.steps.is_empty() && is_failed {
            return Err("there was no session");
        }
        let mut steps = decision.table.steps.iter();
        if decision.walk.steps.is_empty()
            && decision.outcome == Outcome::Pass
            && steps.any(|step| *step.host == *decision.host)
        {
            return Err("it was a message of the daemon itself");
        }
        if decision.flags.has(Flags::PSEUDONYMS) || decision.flags.has(Flags::ANONYMOUS) {
            replay.miss(PSEUDONYMS);
        }
        let mut frame = BytesMut::from(&*decision.request);
        let request = Decoder::default().decode(&mut frame);
        let request = request.ok().flatten().ok_or("the request can't be read")?;
        let host = match host {
            Some(place) => self.service.settings.hosts.get(place),
            None => self.host(decision, &request),
        };
        let host = host.ok_or("there is no such virtual host")?;
        let instance = request.get("instance").unwrap_or_default();
        let call = Call::until(Instant::now() + self.service.request_timeout());
        let mut lease = self.sessions.open(instance, call).await.map_err(|_| "there is no session")?;
        self.restore(decision, &mut lease, replay);
        let mut after = Afterwards::default();
        let clock = Arc::new(Clock::Replayed(replay.clone()));
        let replayed =
            Replayed { replay: replay.clone(), world: World { clock, ..self.service.world.clone() } };
        let again = self.service.decide_again(host, &request, lease, &mut after, (decision, replayed));
        let again = pin!(again).await;
        after.run().await;
        again.ok_or("nothing was recorded")
    }

    fn host(&self, decision: &Decision, request: &Request) -> Option<&VirtualHost> {
        let settings = &self.service.settings;
        let named = settings.hosts.iter().find(|host| host.name == decision.host);
        // Another name for the only one is the same one.
        let only = || settings.hosts.first().filter(|_| settings.hosts.len() == 1);
        let by_context = || settings.host(&decision.host, request.get("policy_context"));
        named.or_else(by_context).or_else(only)
    }

    /// What is remembered of a message whose earlier requests were not replayed is what was recorded of it.
    /// If the configuration is the same, it begins anew where it did then.
    fn restore(&self, decision: &Decision, lease: &mut Lease, replay: &Replay) {
        if matches!(self.sessions, SessionCache::None) {
            return;
        }
        let session = lease.session();
        let is_known = session.shown().next().is_some();
        match (decision.flags.has(Flags::NOT_FIRST), is_known) {
            (true, false) => {
                for (name, value) in &decision.session {
                    session.set(name, value);
                }
                replay.simulated("session");
            }
            (false, true) if decision.table.fingerprint == self.steps().fingerprint => {
                *session = crate::session::Session::default();
            }
            _ => {}
        }
    }

    /// The time at which it was the turn of each of our plugins, in milliseconds since the decision began;
    /// `rest` is how many microseconds after a whole one that was.
    fn turns(&self, decision: &Decision, rest: i64) -> Vec<i64> {
        let ours = self.matched(&decision.table);
        let mut began = 0;
        let turn = |theirs: &Option<u16>| {
            let step = decision.walk.steps.iter().find(|step| Some(step.number) == *theirs);
            began = step.map_or(began, |step| (i64::from(step.began) + rest) / 1000);
            began
        };
        ours.iter().map(turn).collect()
    }

    /// Which of these plugins each of ours is.
    fn matched(&self, table: &Arc<StepTable>) -> Arc<[Option<u16>]> {
        let mut last = self.matched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, ours)) = last.as_ref().filter(|(known, _)| Arc::ptr_eq(known, table)) {
            return ours.clone();
        }
        let number = |path: &str| {
            let place = table.steps.iter().position(|step| step.path == path)?;
            u16::try_from(place).ok()
        };
        let ours: Arc<[_]> = self.steps().steps.iter().map(|step| number(&step.path)).collect();
        *last = Some((table.clone(), ours.clone()));
        ours
    }
}

/// When a decision began, in microseconds since the epoch.
fn micros_of(decision: &Decision) -> i64 {
    let at = decision.id.time() + decision.flags.moment();
    let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

impl Service {
    /// One that asks nobody but this name service.
    fn of_replay(settings: Settings, dns: Dns) -> Service {
        let mut service = Service::new(settings, None);
        service.world = World {
            dns: Arc::new(dns),
            lists: Arc::default(),
            smtp: Arc::default(),
            clock: Arc::new(Clock::System),
            events: Arc::default(),
        };
        service
    }

    async fn decide_again(
        &self,
        host: &VirtualHost,
        request: &Request,
        lease: Lease,
        after: &mut Afterwards,
        (decision, replayed): (&Decision, Replayed),
    ) -> Option<Decision> {
        let begun = Instant::now();
        let draft = Draft::of_replay(&self.recorder, &self.settings.steps, decision.id, replayed);
        self.finish_draft(host, request, lease, begun, after, draft).await.map(|(decision, _)| decision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backends::replay::Degree;
    use decisions::{DecisionId, Walk};
    use lookups::{Lookup, LookupKind, Lookups, Origin};
    use std::fs;
    use std::time::SystemTime;

    /// Seconds since the epoch, on the first of December 2026.
    const NOON: u64 = 1_796_126_400;
    const KEY: &str = "a@example.org,192.0.2.1,b@example.net";

    fn replayer(plugins: &str) -> Replayer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.conf");
        let text = format!("port = 127.0.0.1:1\n<VirtualHost 1>\nname = inbound\n{plugins}</VirtualHost>\n");
        fs::write(&path, text).unwrap();
        let (settings, _) = Settings::load_to_replay(&path).unwrap_or_else(|why| panic!("{why}"));
        Replayer::new(settings, false)
    }

    fn greylist(wait: u32) -> Replayer {
        replayer(&format!(
            "<Plugin grey>\nmodule = Greylist\nuse_autowl = 0\nmin_retry_wait = {wait}\n\
             <Ticket>\nmodule = Memory\n</Ticket>\n</Plugin>\n"
        ))
    }

    /// A decision at this number of seconds after noon, in which stores said this.
    fn decision(after: u64, stored: &[(String, &str)]) -> Decision {
        let mut lookups = Lookups::default();
        for (question, answer) in stored {
            let (kind, server, waited, origin) = (LookupKind::Store, "", 0, Origin::Asked);
            lookups.push(Lookup { kind, server, question, answer, waited, origin });
        }
        let mut walk = Walk::default();
        walk.lookups = lookups;
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(NOON + after);
        Decision {
            id: DecisionId::first_at(at),
            table: Arc::default(),
            host: "inbound".into(),
            request: format!(
                "request=smtpd_access_policy\nprotocol_state=RCPT\ninstance=i{after}\n\
                 client_address=192.0.2.1\nsender=a@example.org\nrecipient=b@example.net\n\n"
            )
            .into_bytes()
            .into(),
            took: 1,
            outcome: Outcome::Pass,
            by: None,
            answer: "dunno".into(),
            failure: "".into(),
            flags: Flags::default(),
            score: 0.0,
            session: Vec::new(),
            walk,
            shadow: None,
        }
    }

    /// A message that comes again after 350 and 700 seconds, where the wait was 300: the second time it
    /// passes and uses up its ticket, so that the third time is the first of another message.
    fn day() -> [Decision; 3] {
        let get = format!("get {KEY}");
        let add = |at: u64| format!("add {KEY} | value {} for 7200", NOON + at + 300);
        let held = format!("value {}", NOON + 300);
        [
            decision(0, &[(get.clone(), "nothing"), (add(0), "yes")]),
            decision(350, &[(get.clone(), held.as_str()), (format!("delete {KEY}"), "after the answer")]),
            decision(700, &[(get, "nothing"), (add(700), "yes")]),
        ]
    }

    async fn replayed(mut replayer: Replayer) -> Vec<(Outcome, Degree)> {
        let mut all = Vec::new();
        for decision in day() {
            match replayer.again(decision).await {
                Again::Decided(again, trust) => all.push((again.outcome, trust.degree)),
                Again::LeftOut(why) => panic!("{why}"),
            }
        }
        all
    }

    #[tokio::test]
    async fn a_ticket_is_used_as_it_was() {
        let exact = |outcome| (outcome, Degree::Exact);
        assert_eq!(replayed(greylist(300)).await, [Outcome::Defer, Outcome::Pass, Outcome::Defer].map(exact));
    }

    #[tokio::test]
    async fn a_longer_wait_is_simulated_as_a_daemon_would_have_it() {
        let simulated = |outcome| (outcome, Degree::Simulated);
        assert_eq!(
            replayed(greylist(600)).await,
            [Outcome::Defer, Outcome::Defer, Outcome::Pass].map(simulated)
        );
    }

    #[tokio::test]
    async fn what_can_not_be_made_again_is_left_out_and_what_was_replaced_is_unknown() {
        let mut replayer = greylist(300);
        let late = Decision { flags: Flags::LATE, ..decision(0, &[]) };
        assert!(matches!(replayer.again(late).await, Again::LeftOut(_)));
        let replaced = Decision { flags: Flags::PSEUDONYMS, ..decision(1, &[]) };
        let Again::Decided(_, trust) = replayer.again(replaced).await else { panic!("it is decided") };
        assert_eq!((trust.degree, trust.unknown.len()), (Degree::Unknown, 1));
    }
}
