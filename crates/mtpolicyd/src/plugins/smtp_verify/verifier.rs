//! Questions on their way: one about an address at a time, in a task of its own, so that its answer is there
//! for the next message even where this one could not wait.
//!
//! Knows: who waits for what. Must not know: what an answer leads to.

use super::answers::{Answers, Known};
use crate::facts::World;
use backends::Call;
use backends::dns::{Answer, Dns, Question, RecordType};
use backends::scope::{Scope, scope};
use backends::smtp::{
    ActiveServers, Findings, Judgement, Mailbox, Message, OwnAddresses, Probe, ProbeSettings, Refusal, Route,
};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{timeout, timeout_at};

/// How long a question may take in all, however many servers there are.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to store an answer; nobody waits for it.
const STORE_LIMIT: Duration = Duration::from_secs(5);

/// Maximum number of addresses being verified, including those that wait for a server.
const MAX_IN_FLIGHT: usize = 1_000;

/// How much of the digest of a local part is the name of its key (RFC 7929 section 3).
const KEY_NAME_BYTES: usize = 28;

/// Asks, and remembers.
pub struct Verifier {
    /// How servers are asked.
    pub probing: ProbeSettings,
    /// Whether OpenPGP keys are looked for.
    pub openpgp: bool,
    /// What is known.
    pub answers: Answers,
    /// What is on its way.
    pub in_flight: InFlight,
}

/// The questions on their way, by address.
#[derive(Default)]
pub struct InFlight(Mutex<BTreeMap<String, Verification>>);

#[derive(Clone)]
struct Verification {
    asked: Arc<Message>,
    active: Arc<ActiveServers>,
    answer: watch::Receiver<Option<Known>>,
}

/// Takes a question off the list when it has ended, however it did.
struct RemoveWhenDone(Arc<Verifier>, String);

impl Drop for RemoveWhenDone {
    fn drop(&mut self) {
        self.0.in_flight.lock().remove(&self.1);
    }
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Verification>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client of the message that is verified.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The address.
    pub address: Option<IpAddr>,
    /// Whether the client calls itself what this daemon calls itself when it asks. Anybody may.
    pub has_our_name: bool,
}

impl Client {
    /// Whether a question of ours may have come back to us, by a router that translates addresses: no client
    /// with a public address can have itself taken for that.
    fn may_be_us(&self) -> bool {
        self.has_our_name && self.address.is_none_or(|address| scope(address) != Scope::Global)
    }
}

impl Verifier {
    /// What is known of a message, or found out until the deadline.
    pub async fn ask(
        self: &Arc<Self>,
        message: Message,
        client: Client,
        world: &World,
        call: Call<'_>,
    ) -> Known {
        let message = Arc::new(message);
        if let Some(replay) = call.replay() {
            replay.miss(format!("the mail server of {}", message.recipient));
            return not_asked("what it said was not recorded");
        }
        if let Some(known) = self.answers.recall(&message).await {
            return known;
        }
        if let Some(known) = self.answers.fetch(&message, &world.clock, call).await {
            return known;
        }
        if let Some(pretence) = call.pretence() {
            pretence.note(format!("ask the mail server of {}", message.recipient));
            return not_asked("it is not asked for an explanation");
        }
        loop {
            let Some((mut verification, is_new)) = self.join(&message, world) else {
                return not_asked("too many addresses are being verified");
            };
            // Its server wants to know whether we would take mail, before it says whether it would.
            if client.address.is_some_and(|address| verification.active.has(address)) {
                return unknown("its server asks us about this address at the moment");
            }
            if client.may_be_us() && !is_new {
                return unknown("this is a question of our own, which is on its way");
            }
            let ended = match timeout_at(call.deadline(), verification.answer.wait_for(Option::is_some)).await
            {
                Ok(Ok(known)) => known.clone(),
                // The daemon is ending.
                Ok(Err(_)) => return not_asked("the verification was stopped"),
                Err(_) => return too_late(&verification.active),
            };
            if let Some(known) = ended.filter(|known| known.holds_for(&message, &verification.asked)) {
                return known;
            }
        }
    }

    /// The question about an address that is on its way, or else this one, which is new; `None` if too many
    /// are.
    fn join(self: &Arc<Self>, message: &Arc<Message>, world: &World) -> Option<(Verification, bool)> {
        let address = message.recipient.to_string();
        let mut in_flight = self.in_flight.lock();
        if let Some(verification) = in_flight.get(&address) {
            return Some((verification.clone(), false));
        }
        if in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let (ended, answer) = watch::channel(None);
        let verification = Verification { asked: message.clone(), active: Arc::default(), answer };
        in_flight.insert(address.clone(), verification.clone());
        drop(in_flight);
        let guard = RemoveWhenDone(self.clone(), address);
        let (world, message, active) = (world.clone(), message.clone(), verification.active.clone());
        tokio::spawn(async move {
            let verifier = &guard.0;
            let known = verifier.find_out(&message, &active, &world).await;
            verifier.answers.remember(&message, &known).await;
            let verifier = verifier.clone();
            // The next one finds it remembered, so it must be off the list before the others go on.
            drop(guard);
            let _ = ended.send(Some(known.clone()));
            let call = Call::within(STORE_LIMIT);
            verifier.answers.share(&message, &known, &world.clock, call).await;
        });
        Some((verification, true))
    }

    async fn find_out(&self, message: &Message, active: &ActiveServers, world: &World) -> Known {
        let (dns, destinations) = (&*world.dns, &*world.smtp);
        let own = match self.probing.route {
            Route::Host(_) => Ok(OwnAddresses::default()),
            Route::Exchanges(_) => OwnAddresses::now(),
        };
        if let Err(why) = &own {
            self.answers.complain(why);
        }
        let probe = Probe { dns, destinations, probing: &self.probing, message, active, own: &own };
        let probed =
            async { timeout(PROBE_LIMIT, probe.run()).await.unwrap_or_else(|_| too_late(active).findings) };
        let key = async { if self.openpgp { has_key(dns, &message.recipient).await } else { None } };
        let (findings, openpgp) = tokio::join!(probed, key);
        Known { findings, openpgp, size: message.size }
    }
}

/// Whether there is an OpenPGP key of the address that DNSSEC proves (RFC 7929); `None` if nobody knows.
async fn has_key(dns: &Dns, mailbox: &Mailbox) -> Option<bool> {
    if !dns.can_prove() {
        return None;
    }
    let lower = mailbox.local().to_lowercase();
    let mut spellings = vec![mailbox.local()];
    if lower != mailbox.local() {
        spellings.push(&lower);
    }
    for local in spellings {
        let question = Question::new(&key_name(local, mailbox.domain()), RecordType::OpenPgpKey);
        let found = dns.lookup_authentic(&question).await;
        match found.answer {
            Answer::Keys(_) if found.is_proved => return Some(true),
            Answer::Failed(_) => return None,
            _ => {}
        }
    }
    Some(false)
}

fn key_name(local: &str, domain: &str) -> String {
    let mut name = String::new();
    for byte in &Sha256::digest(local)[..KEY_NAME_BYTES] {
        let _ = write!(name, "{byte:02x}");
    }
    name + "._openpgpkey." + domain
}

/// Nothing is known, since nobody could ask; that counts like a temporary failure.
pub fn not_asked(why: &str) -> Known {
    known(Judgement::NotAsked(why.to_owned()))
}

/// Nothing is known, for that reason.
fn unknown(why: &str) -> Known {
    known(Judgement::Unknown(why.to_owned()))
}

fn too_late(active: &ActiveServers) -> Known {
    if active.are_waited_for() {
        return not_asked("too many servers are being asked");
    }
    let message = "the mail server does not answer in time".to_owned();
    known(Judgement::Refused(Refusal { is_permanent: false, for_all_senders: true, message, said: None }))
}

fn known(judgement: Judgement) -> Known {
    let findings = Findings { judgement, by_size: false, starttls: None, tlsa: None };
    Known { findings, openpgp: None, size: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_name_of_the_rfc() {
        // RFC 7929 section 3.
        let name = "c93f1e400f26708f98cb19d936620da35eec8f72e57f9eec01c1afd6._openpgpkey.example.com";
        assert_eq!(key_name("hugh", "example.com"), name);
    }
}
