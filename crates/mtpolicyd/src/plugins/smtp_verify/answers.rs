//! What is remembered of an address: in this process, and in a store if there is one.
//!
//! Knows: for which messages an answer holds, and how long. Must not know: how servers are asked.

use super::SmtpVerifyOptions;
use crate::plugin::Setup;
use crate::sql_query::Complaints;
use crate::value::Switch;
use backends::clock::Clock;
use backends::keyvalue::Store;
use backends::smtp::{Findings, Judgement, Message, ProbeSettings, Refusal};
use backends::{BackendError, Call};
use moka::Expiry;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use serde_json::{Value as Json, json};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::time::Duration;

/// How much of a digest is part of a key: enough for the configurations of one site.
const DIGEST_BYTES: usize = 8;

/// What the cache itself needs for an answer, about.
const ENTRY_BYTES: usize = 500;

/// What was found out about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What its server said.
    pub findings: Findings,
    /// Whether it has an OpenPGP key.
    pub openpgp: Option<bool>,
    /// For a message of which size it was asked.
    pub size: Option<u64>,
}

impl Known {
    /// Why the address counts as one that can't be written to: whether that is permanent, and the text for a
    /// reply.
    pub fn failure(&self) -> Option<(bool, &str)> {
        match &self.findings.judgement {
            Judgement::Refused(refusal) => Some((refusal.is_permanent, &refusal.message)),
            Judgement::NotAsked(why) => Some((false, why)),
            Judgement::Accepted | Judgement::Unknown(_) => None,
        }
    }

    /// Whether the answer, which was one to `asked`, is one to this message too. That an address is taken
    /// does not depend on the sender; that it is not, may.
    pub fn holds_for(&self, message: &Message, asked: &Message) -> bool {
        let is_of_sender = matches!(&self.findings.judgement,
            Judgement::Refused(refusal) if !refusal.for_all_senders);
        (!is_of_sender || message.sender == asked.sender) && self.fits(message)
    }

    /// Whether the answer is one for the size of a message: what takes a large one takes a small one.
    fn fits(&self, message: &Message) -> bool {
        let (asked, size) = (self.size.unwrap_or_default(), message.size.unwrap_or_default());
        match self.findings.judgement {
            _ if !self.findings.by_size => true,
            Judgement::Accepted => size <= asked,
            _ => size >= asked,
        }
    }
}

/// How long answers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lifetimes {
    positive: Duration,
    negative: Duration,
    temporary: Duration,
}

/// The answers of one plugin.
pub struct Answers {
    known: Cache<Key, Remembered>,
    lifetimes: Lifetimes,
    store: Option<Store>,
    /// What its keys in the store begin with.
    prefix: String,
    complaints: Complaints,
}

/// An address, and the sender if that matters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    recipient: Box<str>,
    sender: Option<Box<str>>,
}

#[derive(Clone)]
struct Remembered {
    known: Known,
    lifetime: Duration,
}

impl Answers {
    /// None yet.
    pub fn new(
        setup: &Setup<'_, '_>,
        options: &SmtpVerifyOptions,
        probing: &ProbeSettings,
        store: Option<Store>,
    ) -> Answers {
        let lifetimes = Lifetimes {
            positive: options.positive_expire.0.duration(),
            negative: options.negative_expire.0.duration(),
            temporary: options.temporary_expire.0.duration(),
        };
        let openpgp = options.check_openpgp == Switch::On;
        let (bytes, count) = (options.cache_memory.0, options.cache_size.0);
        let settings = (probing.clone(), openpgp, lifetimes, bytes, count);
        let known = setup.carried_over(settings, |_| {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            // With its share of the memory as the least weight of each, no more than the count are there.
            let share = u32::try_from(bytes / count).unwrap_or(u32::MAX);
            let known = Cache::builder().max_capacity(bytes).expire_after(ByLifetime);
            let known = known.weigher(move |key, remembered| weight(key, remembered).max(share));
            // The default policy would refuse what is new once it is full.
            known.eviction_policy(EvictionPolicy::lru()).build()
        });
        let question = digest(probing, openpgp);
        let prefix = format!("smtpverify,{},{question}", setup.name);
        let complaints = Complaints::of(setup.name);
        Answers { known, lifetimes, store, prefix, complaints }
    }

    /// The answer to a message that this process remembers.
    pub async fn recall(&self, message: &Message) -> Option<Known> {
        for key in keys(message) {
            if let Some(remembered) = self.known.get(&key).await
                && remembered.known.fits(message)
            {
                return Some(remembered.known);
            }
        }
        None
    }

    /// The answer to a message that the store has; it is remembered here from then on.
    pub async fn fetch(&self, message: &Message, clock: &Clock, call: Call<'_>) -> Option<Known> {
        let store = self.store.as_ref()?;
        for key in keys(message) {
            let value = match store.get(&self.stored_key(&key), call).await {
                Ok(value) => value,
                Err(error) => {
                    self.is_not_shared(&error);
                    return None;
                }
            };
            if let Some((known, until)) = value.and_then(|value| decode(&value))
                && known.fits(message)
                && let Some(seconds) = u64::try_from(until - clock.now()).ok().filter(|seconds| *seconds > 0)
            {
                let remembered = Remembered { known: known.clone(), lifetime: Duration::from_secs(seconds) };
                self.known.insert(key, remembered).await;
                return Some(known);
            }
        }
        None
    }

    /// Remembers the answer to a message, unless it is none.
    pub async fn remember(&self, message: &Message, known: &Known) {
        if let Some((key, lifetime)) = self.place_of(message, known) {
            self.known.insert(key, Remembered { known: known.clone(), lifetime }).await;
        }
    }

    /// Has the store remember it too.
    pub async fn share(&self, message: &Message, known: &Known, clock: &Clock, call: Call<'_>) {
        let Some(store) = &self.store else { return };
        let Some((key, lifetime)) = self.place_of(message, known) else { return };
        let until = clock.now().saturating_add_unsigned(lifetime.as_secs());
        if let Err(error) = store.set(&self.stored_key(&key), &encode(known, until), lifetime, call).await {
            self.is_not_shared(&error);
        }
    }

    /// Whose answer it is, and how long it holds.
    fn place_of(&self, message: &Message, known: &Known) -> Option<(Key, Duration)> {
        let Lifetimes { positive, negative, temporary } = self.lifetimes;
        let (lifetime, for_all) = match &known.findings.judgement {
            Judgement::Accepted => (positive, true),
            Judgement::Refused(Refusal { is_permanent, for_all_senders, .. }) => {
                (if *is_permanent { negative } else { temporary }, *for_all_senders)
            }
            Judgement::NotAsked(_) | Judgement::Unknown(_) => return None,
        };
        let [for_all_senders, for_sender] = keys(message);
        Some((if for_all { for_all_senders } else { for_sender }, lifetime))
    }

    fn stored_key(&self, Key { recipient, sender }: &Key) -> Vec<u8> {
        let sender = sender.as_ref().map(|sender| format!(",{sender}")).unwrap_or_default();
        format!("{},{recipient}{sender}", self.prefix).into_bytes()
    }

    /// Logs what is wrong.
    pub fn complain(&self, what: &str) {
        self.complaints.complain(what);
    }

    /// A message needs no store: its address is asked about again.
    fn is_not_shared(&self, error: &BackendError) {
        self.complaints.complain(format_args!("answers are not shared: {error}"));
    }
}

/// A digest of which servers are asked, and how: answers of other servers, and those that leave out what is
/// wanted now, are none. The name that is said is left out, since daemons that share answers have different
/// ones.
fn digest(probing: &ProbeSettings, openpgp: bool) -> String {
    let ProbeSettings { route, port, helo: _, encrypts, tlsa, limits: _ } = probing;
    let question = format!("{route:?} {port} {encrypts} {tlsa} {openpgp}");
    let mut digest = String::new();
    for byte in &Sha256::digest(question)[..DIGEST_BYTES] {
        let _ = write!(digest, "{byte:02x}");
    }
    digest
}

/// How much memory an answer takes, about.
fn weight(key: &Key, remembered: &Remembered) -> u32 {
    let text = match &remembered.known.findings.judgement {
        Judgement::Refused(refusal) => {
            refusal.message.capacity() + refusal.said.as_ref().map_or(0, String::capacity)
        }
        Judgement::NotAsked(why) | Judgement::Unknown(why) => why.capacity(),
        Judgement::Accepted => 0,
    };
    let bytes = ENTRY_BYTES + key.recipient.len() + key.sender.as_ref().map_or(0, |s| s.len()) + text;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Where the answer to a message may be: that for all senders, then that for its own.
fn keys(message: &Message) -> [Key; 2] {
    let recipient: Box<str> = message.recipient.to_string().into();
    let sender = message.sender.as_ref().map(ToString::to_string).unwrap_or_default();
    [Key { recipient: recipient.clone(), sender: None }, Key { recipient, sender: Some(sender.into()) }]
}

/// An answer as the store has it, with the second at which it ends.
fn encode(known: &Known, until: i64) -> Vec<u8> {
    let Findings { judgement, by_size, starttls, tlsa } = &known.findings;
    let judgement = match judgement {
        Judgement::Accepted => json!("accepted"),
        Judgement::NotAsked(_) | Judgement::Unknown(_) => Json::Null,
        Judgement::Refused(Refusal { is_permanent, for_all_senders, message, said }) => json!({
            "permanent": is_permanent, "for_all": for_all_senders, "message": message, "said": said,
        }),
    };
    let (openpgp, size) = (known.openpgp, known.size);
    json!({
        "judgement": judgement, "by_size": by_size, "starttls": starttls, "tlsa": tlsa,
        "openpgp": openpgp, "size": size, "until": until,
    })
    .to_string()
    .into_bytes()
}

fn decode(value: &[u8]) -> Option<(Known, i64)> {
    let value: Json = serde_json::from_slice(value).ok()?;
    let judgement = match &value["judgement"] {
        Json::String(word) if word == "accepted" => Judgement::Accepted,
        refused => Judgement::Refused(Refusal {
            is_permanent: refused["permanent"].as_bool()?,
            for_all_senders: refused["for_all"].as_bool()?,
            message: refused["message"].as_str()?.to_owned(),
            said: refused["said"].as_str().map(str::to_owned),
        }),
    };
    let findings = Findings {
        judgement,
        by_size: value["by_size"].as_bool()?,
        starttls: value["starttls"].as_bool(),
        tlsa: value["tlsa"].as_bool(),
    };
    let known = Known { findings, openpgp: value["openpgp"].as_bool(), size: value["size"].as_u64() };
    Some((known, value["until"].as_i64()?))
}

struct ByLifetime;

impl Expiry<Key, Remembered> for ByLifetime {
    fn expire_after_create(
        &self,
        _: &Key,
        remembered: &Remembered,
        _: std::time::Instant,
    ) -> Option<Duration> {
        Some(remembered.lifetime)
    }

    fn expire_after_update(
        &self,
        _: &Key,
        remembered: &Remembered,
        _: std::time::Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(remembered.lifetime)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backends::smtp::Mailbox;

    fn message(sender: &str, size: u64) -> Message {
        let recipient = Mailbox::parse(b"bob@x.test").unwrap();
        Message { sender: Mailbox::parse(sender.as_bytes()), recipient, size: Some(size) }
    }

    fn known(judgement: Judgement, by_size: bool) -> Known {
        let findings = Findings { judgement, by_size, starttls: Some(true), tlsa: None };
        Known { findings, openpgp: Some(false), size: Some(10) }
    }

    fn refused(is_permanent: bool, for_all_senders: bool) -> Judgement {
        Judgement::Refused(Refusal { is_permanent, for_all_senders, message: "no \u{fc}".into(), said: None })
    }

    #[test]
    fn an_answer_holds_for_messages_that_are_no_harder() {
        let asked = message("a@x", 10);
        let (taken, full) = (known(Judgement::Accepted, true), known(refused(false, false), true));
        for (size, by_taken, by_full) in [(9, true, false), (10, true, true), (11, false, true)] {
            assert_eq!(taken.holds_for(&message("b@x", size), &asked), by_taken, "{size}");
            assert_eq!(full.holds_for(&message("a@x", size), &asked), by_full, "{size}");
            assert!(!full.holds_for(&message("b@x", size), &asked), "another sender may be wanted");
            assert!(known(refused(true, true), false).holds_for(&message("b@x", size), &asked));
            assert!(known(Judgement::Accepted, false).holds_for(&message("", size), &asked));
        }
    }

    #[test]
    fn a_store_gives_back_what_it_got() {
        for judgement in [Judgement::Accepted, refused(true, false), refused(false, true)] {
            let known = known(judgement, true);
            assert_eq!(decode(&encode(&known, 77)), Some((known, 77)));
        }
        for value in ["", "{}", "[]", "{\"judgement\":\"accepted\"}", "{\"judgement\":{},\"by_size\":true}"] {
            assert_eq!(decode(value.as_bytes()), None, "{value}");
        }
    }
}
