//! Who is signed in: links that work once, sessions of browsers, and who has guessed too often. All of it is
//! in memory, so a restart signs everybody out.
//!
//! Knows: secrets, times, bounds. Must not know: HTTP, where tokens are kept.

use crate::settings::Level;
use rand::Rng;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a link works.
pub const LINK_LIFETIME: Duration = Duration::from_secs(60);

/// How long somebody stays signed in.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Links that wait to be used; the oldest goes for one more.
const MAX_LINKS: usize = 32;

/// Browsers that are signed in; the one that has been for longest is signed out for one more.
const MAX_SESSIONS: usize = 1024;

/// Failures within [`FAILURE_WINDOW`] after which a client has to wait.
const MAX_FAILURES: usize = 5;

/// How long a failure counts.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);

/// Clients of which failures are counted; the one whose last failure is oldest is forgotten for one more.
const MAX_CLIENTS: usize = 4096;

/// The bytes of a secret: 256 bits.
const SECRET_BYTES: usize = 32;

/// The SHA-256 of a secret. Secrets are random, so a fast hash is as good as a slow one, and the time that
/// a search for it takes tells nothing about it.
pub type Hash = [u8; 32];

/// A new secret, as hexadecimal digits.
pub fn new_secret() -> String {
    let mut bytes = [0; SECRET_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    hex(&bytes)
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The hash of a secret.
pub fn hash(secret: &str) -> Hash {
    Sha256::digest(secret).into()
}

/// Somebody who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Their name, for the audit.
    pub name: String,
    /// What they may do.
    pub level: Level,
}

struct Link {
    hash: Hash,
    person: Person,
    ends: Instant,
}

struct Session {
    person: Person,
    /// The hash of the token that was used.
    token: Option<Hash>,
    ends: Instant,
}

#[derive(Default)]
struct State {
    links: Vec<Link>,
    sessions: BTreeMap<Hash, Session>,
    failures: BTreeMap<String, Vec<Instant>>,
}

/// All of them.
pub struct Sessions {
    state: Mutex<State>,
    /// What makes the tokens of forms.
    key: String,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions { state: Mutex::default(), key: new_secret() }
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The secret of a new link for somebody.
    pub fn offer(&self, person: Person, now: Instant) -> String {
        let secret = new_secret();
        let mut state = self.lock();
        state.links.retain(|link| link.ends > now);
        if state.links.len() >= MAX_LINKS {
            state.links.remove(0);
        }
        state.links.push(Link { hash: hash(&secret), person, ends: now + LINK_LIFETIME });
        secret
    }

    /// Whose link this is, which then is used up.
    pub fn redeem(&self, secret: &str, now: Instant) -> Option<Person> {
        let wanted = hash(secret);
        let mut state = self.lock();
        state.links.retain(|link| link.ends > now);
        let at = state.links.iter().position(|link| link.hash == wanted)?;
        Some(state.links.remove(at).person)
    }

    /// The secret of a new session, made with a token or without one.
    pub fn begin(&self, person: Person, token: Option<Hash>, now: Instant) -> String {
        let secret = new_secret();
        let mut state = self.lock();
        state.sessions.retain(|_, session| session.ends > now);
        if state.sessions.len() >= MAX_SESSIONS {
            let oldest = state.sessions.iter().min_by_key(|(_, session)| session.ends);
            let oldest = oldest.map(|(hash, _)| *hash);
            oldest.and_then(|oldest| state.sessions.remove(&oldest));
        }
        state.sessions.insert(hash(&secret), Session { person, token, ends: now + SESSION_LIFETIME });
        secret
    }

    /// Who has this session.
    pub fn find(&self, secret: &str, now: Instant) -> Option<Person> {
        let state = self.lock();
        let session = state.sessions.get(&hash(secret)).filter(|session| session.ends > now);
        session.map(|session| session.person.clone())
    }

    /// Ends a session.
    pub fn end(&self, secret: &str) {
        self.lock().sessions.remove(&hash(secret));
    }

    /// Ends the sessions that were made with a token.
    pub fn end_of_token(&self, token: &Hash) {
        self.lock().sessions.retain(|_, session| session.token.as_ref() != Some(token));
    }

    /// Whether a client may try to sign in.
    pub fn may_try(&self, client: &str, now: Instant) -> bool {
        let state = self.lock();
        let failures = state.failures.get(client).map_or(&[][..], Vec::as_slice);
        failures.iter().filter(|at| counts(**at, now)).count() < MAX_FAILURES
    }

    /// Notes that a client has failed.
    pub fn failed(&self, client: &str, now: Instant) {
        let mut state = self.lock();
        if state.failures.len() >= MAX_CLIENTS && !state.failures.contains_key(client) {
            state.failures.retain(|_, failures| failures.iter().any(|at| counts(*at, now)));
            let oldest = state.failures.iter().min_by_key(|(_, failures)| failures.last().copied());
            let oldest = oldest.map(|(client, _)| client.clone());
            if let Some(oldest) = oldest.filter(|_| state.failures.len() >= MAX_CLIENTS) {
                state.failures.remove(&oldest);
            }
        }
        let failures = state.failures.entry(client.to_owned()).or_default();
        failures.retain(|at| counts(*at, now));
        if failures.len() < MAX_FAILURES {
            failures.push(now);
        }
    }

    /// What the forms of somebody carry: no other site can know it. `who` is the secret of the session, or
    /// what stands for it.
    pub fn form_token(&self, who: &str) -> String {
        // Hashed twice, so that nothing can be appended.
        hex(&hash(&format!("{}{}", self.key, hex(&hash(&format!("{}{who}", self.key))))))
    }
}

fn counts(failure: Instant, now: Instant) -> bool {
    now.saturating_duration_since(failure) < FAILURE_WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alice() -> Person {
        Person { name: "alice".to_owned(), level: Level::Change }
    }

    #[test]
    fn a_link_works_once_and_for_a_minute() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let link = sessions.offer(alice(), now);
        assert_eq!(sessions.redeem(&new_secret(), now), None);
        assert_eq!(sessions.redeem(&link, now + Duration::from_secs(59)), Some(alice()));
        assert_eq!(sessions.redeem(&link, now), None, "it is used up");
        let late = sessions.offer(alice(), now);
        assert_eq!(sessions.redeem(&late, now + Duration::from_secs(61)), None);
        let first = sessions.offer(alice(), now);
        let others: Vec<_> = (0..MAX_LINKS).map(|_| sessions.offer(alice(), now)).collect();
        assert_eq!(sessions.redeem(&first, now), None, "others have its place");
        assert_eq!(sessions.redeem(&others[0], now), Some(alice()));
    }

    #[test]
    fn of_two_who_use_a_link_at_once_one_wins() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        for _ in 0..50 {
            let link = sessions.offer(alice(), now);
            let wins = std::thread::scope(|scope| {
                let tries: Vec<_> =
                    (0..4).map(|_| scope.spawn(|| sessions.redeem(&link, now).is_some())).collect();
                tries.into_iter().filter_map(|it| it.join().ok()).filter(|won| *won).count()
            });
            assert_eq!(wins, 1);
        }
    }

    #[test]
    fn a_session_ends_with_its_time_its_token_or_by_hand() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let [one, two] = [None, Some(hash("t"))].map(|token| sessions.begin(alice(), token, now));
        assert_eq!(sessions.find(&one, now + Duration::from_secs(12 * 3600 - 1)), Some(alice()));
        assert_eq!(sessions.find(&one, now + SESSION_LIFETIME), None);
        sessions.end_of_token(&hash("t"));
        assert_eq!((sessions.find(&one, now), sessions.find(&two, now)), (Some(alice()), None));
        sessions.end(&one);
        assert_eq!(sessions.find(&one, now), None);
        let first = sessions.begin(alice(), None, now);
        (0..MAX_SESSIONS).for_each(|_| drop(sessions.begin(alice(), None, now + Duration::from_secs(1))));
        assert_eq!(sessions.find(&first, now), None, "the oldest goes");
        assert_eq!(sessions.lock().sessions.len(), MAX_SESSIONS);
    }

    #[test]
    fn five_failures_a_minute_are_enough() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        for second in 0..5 {
            assert!(sessions.may_try("a", now));
            sessions.failed("a", now + Duration::from_secs(second));
        }
        assert!(!sessions.may_try("a", now + Duration::from_secs(5)));
        assert!(sessions.may_try("b", now + Duration::from_secs(5)), "others are not concerned");
        assert!(sessions.may_try("a", now + Duration::from_secs(60)), "the first does not count any more");
        (0..MAX_CLIENTS + 9).for_each(|number| sessions.failed(&number.to_string(), now));
        assert_eq!(sessions.lock().failures.len(), MAX_CLIENTS);
    }

    #[test]
    fn a_form_belongs_to_its_session() {
        let (sessions, others) = (Sessions::default(), Sessions::default());
        assert_eq!(sessions.form_token("a"), sessions.form_token("a"));
        assert_ne!(sessions.form_token("a"), sessions.form_token("b"));
        assert_ne!(sessions.form_token("a"), others.form_token("a"));
    }
}
