//! Servers of memcached.
//!
//! A key lives on the server that the original's client would choose; while that one is down, on another.
//! Keys with blanks, and those longer than 250 bytes with the namespace, are replaced by a hash. Values are
//! written as they are. One that Perl's client has serialized or compressed can't be read here, and counts as
//! absent.
//!
//! Knows: keys, lifetimes, which commands an operation needs. Must not know: what the values are for.

mod address;
mod asking;
mod by_hand;
mod choice;
mod job;
mod line;
mod protocol;
mod server;

use self::choice::Choice;
use self::protocol::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Reply, Request};
use self::server::Server;
use super::keys::stand_in;
use super::{Lock, Locked, MemcachedSettings, Protected, Version, lock_name};
use crate::{BackendError, Call, CallNumbers, Failure, OptionError};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// The longest namespace in bytes, so that there is room for a key.
const MAX_NAMESPACE_BYTES: usize = 100;

/// How often adding one is begun anew when others make and remove the number meanwhile.
const MAX_INCREMENTS: usize = 10;

/// Its clock counts whole seconds, and the one that is running counts too: what shall live for a second may
/// be gone at once.
const CLOCK_TICK: Duration = Duration::from_secs(1);

/// Servers of memcached; a key lives on one of them.
pub struct Memcached {
    connection: Arc<str>,
    servers: Vec<Server>,
    choice: Choice,
    namespace: Vec<u8>,
    timeout: Duration,
    numbers: Arc<CallNumbers>,
}

/// A key as the servers see it.
struct Name<'a> {
    /// What decides on which server it lives.
    chosen_by: Cow<'a, [u8]>,
    /// With the namespace.
    full: Vec<u8>,
}

impl Memcached {
    /// The servers; nothing is opened yet.
    ///
    /// # Errors
    /// What is wrong with which option.
    pub fn new(name: &str, settings: MemcachedSettings) -> Result<Memcached, OptionError> {
        let namespace = settings.namespace.into_bytes();
        if namespace.len() > MAX_NAMESPACE_BYTES || !is_legal(&namespace) {
            let why = format!("at most {MAX_NAMESPACE_BYTES} bytes without blanks");
            return Err(OptionError::new("namespace", why));
        }
        let read = settings.servers.iter().map(|text| address::parse(text));
        let read = read.collect::<Result<Vec<_>, _>>().map_err(|why| OptionError::new("servers", why))?;
        if read.is_empty() {
            return Err(OptionError::new("servers", "there is none"));
        }
        let choice = Choice::new(read.iter().map(|(_, weight)| *weight));
        let servers = read.into_iter().map(|(address, _)| Server::new(name, address, settings.timeout));
        let (connection, servers, timeout) = (name.into(), servers.collect(), settings.timeout);
        let numbers = CallNumbers::of(name);
        Ok(Memcached { connection, servers, choice, namespace, timeout, numbers })
    }

    /// Whether the servers answer, all of them. For the log at the start.
    pub async fn ping(&self, call: Call<'_>) -> Result<(), BackendError> {
        let mut outcome = Ok(());
        for server in &self.servers {
            outcome = outcome.and(server.ping(call.at_most(self.timeout).deadline()).await);
        }
        outcome
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8], call: Call<'_>) -> Result<Option<Vec<u8>>, BackendError> {
        let (server, reply) = self.read(key, Request::get, call).await?;
        value(server, reply)
    }

    /// The same, and which value it is.
    pub async fn get_protected(&self, key: &[u8], call: Call<'_>) -> Result<Protected, BackendError> {
        let (server, reply) = self.read(key, Request::gets, call).await?;
        protected(server, reply)
    }

    async fn read(
        &self,
        key: &[u8],
        request: fn(Request, &[u8]) -> Request,
        call: Call<'_>,
    ) -> Result<(&Server, Option<Reply>), BackendError> {
        let call = call.at_most(self.timeout);
        let name = self.name(key);
        let ask = || self.call(&name, |full| request(Request::new(), full), call);
        let answered = match ask().await {
            // The connection was kept from before, and the server has closed it meanwhile.
            Err(BackendError { failure: Failure::Down(_), .. }) => ask().await,
            answered => answered,
        };
        answered.map(|(server, replies)| (server, replies.into_iter().next()))
    }

    /// Sets a value, whatever there was, for a time. At most 1 MB.
    pub async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        self.check_size(value)?;
        let name = self.name(key);
        let request = |full: &[u8]| Request::new().set(full, value, lifetime);
        let (server, replies) = self.call(&name, request, call).await?;
        yes_or_no(server, replies.first(), &Reply::Stored, None).map(drop)
    }

    /// Sets a value unless there is one: whether it did. At most 1 MB.
    pub async fn add(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        self.check_size(value)?;
        let name = self.name(key);
        let request = |full: &[u8]| Request::new().add(full, value, lifetime);
        let (server, replies) = self.call(&name, request, call).await?;
        yes_or_no(server, replies.first(), &Reply::Stored, Some(&Reply::NotStored))
    }

    /// Removes a key. Returns whether it existed.
    pub async fn delete(&self, key: &[u8], call: Call<'_>) -> Result<bool, BackendError> {
        let name = self.name(key);
        let (server, replies) = self.call(&name, |full| Request::new().delete(full), call).await?;
        yes_or_no(server, replies.first(), &Reply::Deleted, Some(&Reply::NotFound))
    }

    /// Removes a key that has still this value: whether it had.
    pub async fn delete_unchanged(&self, key: &[u8], cas: u64, call: Call<'_>) -> Result<bool, BackendError> {
        self.release(&self.name(key), cas, call).await
    }

    /// Adds one to a number, which begins at nothing and lives for this time from now on. An error if the
    /// value is not a number.
    pub async fn increment(
        &self,
        key: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<u64, BackendError> {
        let call = call.at_most(self.timeout);
        let name = self.name(key);
        for _ in 0..MAX_INCREMENTS {
            let request = |full: &[u8]| Request::new().increment(full).touch(full, lifetime);
            let (server, replies) = self.call(&name, request, call).await?;
            match replies.first() {
                Some(Reply::Number(number)) => return Ok(*number),
                Some(Reply::NotFound) => {}
                other => return Err(unexpected(server, other)),
            }
            // It is not there; somebody else may be making it too.
            if self.add(key, b"1", lifetime, call).await? {
                return Ok(1);
            }
        }
        Err(self.home(&name).refused("a counter is removed as soon as it is made".to_owned()))
    }

    /// Locks `key` for `owner`, for at least `lifetime` unless the server loses it, and reads it: in one
    /// round trip if both live on the same server. If they do not, the key is read once the lock is ours,
    /// since it may change before.
    pub async fn lock(
        &self,
        key: &[u8],
        owner: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<Locked, BackendError> {
        let call = call.at_most(self.timeout);
        let lock = lock_name(key);
        let (lock, key_name) = (self.name(&lock), self.name(key));
        let together = std::ptr::eq(self.home(&lock), self.home(&key_name));
        let request = |full: &[u8]| {
            let add = Request::new().add(full, owner, lifetime.saturating_add(CLOCK_TICK));
            if together { add.gets(&key_name.full) } else { add }
        };
        let (server, replies) = self.call(&lock, request, call).await?;
        let mut replies = replies.into_iter();
        if !yes_or_no(server, replies.next().as_ref(), &Reply::Stored, Some(&Reply::NotStored))? {
            return Ok(Locked::Theirs);
        }
        // A server may have died just now: the value is where the key is now.
        if together && std::ptr::eq(server, self.home(&key_name)) {
            return protected(server, replies.next()).map(Locked::Ours);
        }
        let (server, replies) = self.call(&key_name, |full| Request::new().gets(full), call).await?;
        protected(server, replies.into_iter().next()).map(Locked::Ours)
    }

    /// Keeps a lock for at least `lifetime` from now on, if it still is this owner's: whether it was.
    pub async fn renew(
        &self,
        key: &[u8],
        owner: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let call = call.at_most(self.timeout);
        let lock = lock_name(key);
        let name = self.name(&lock);
        let (server, replies) = self.call(&name, |full| Request::new().gets(full), call).await?;
        let Some(ours) = version_of_lock(server, replies.first(), owner)? else { return Ok(false) };
        let lifetime = lifetime.saturating_add(CLOCK_TICK);
        let request = |full: &[u8]| Request::new().set_unchanged(full, owner, lifetime, ours);
        let (server, replies) = self.call(&name, request, call).await?;
        match replies.first() {
            Some(Reply::Stored) => Ok(true),
            // It has expired meanwhile, and may be another's.
            Some(Reply::Exists | Reply::NotFound) => Ok(false),
            other => Err(unexpected(server, other)),
        }
    }

    /// Sets what a lock protects and gives the lock back, if the lock still is its owner's and nobody has
    /// changed the value: whether that was so. Two round trips where both are on one server.
    pub async fn set_and_unlock(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        lock: Lock<'_>,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        self.check_size(value)?;
        let call = call.at_most(self.timeout);
        let lock_key = lock_name(key);
        let (name, key_name) = (self.name(&lock_key), self.name(key));
        let (server, replies) = self.call(&name, |full| Request::new().gets(full), call).await?;
        let Some(ours) = version_of_lock(server, replies.first(), lock.owner)? else { return Ok(false) };
        let set = |full: &[u8]| match lock.version {
            Version::Unique(cas) => Request::new().set_unchanged(full, value, lifetime, cas),
            Version::Absent => Request::new().add(full, value, lifetime),
            Version::Unknown => Request::new().set(full, value, lifetime),
        };
        if !std::ptr::eq(server, self.home(&key_name)) {
            let (server, replies) = self.call(&key_name, set, call).await?;
            let saved = self.is_saved(server, replies.first(), (key, value, lifetime), call).await?;
            self.release(&name, ours, call).await?;
            return Ok(saved);
        }
        let both = |full: &[u8]| set(full).delete_unchanged(&name.full, ours);
        let (server, replies) = self.call(&key_name, both, call).await?;
        self.is_saved(server, replies.first(), (key, value, lifetime), call).await
    }

    /// Whether a value was stored. One that has gone meanwhile is in nobody's way.
    async fn is_saved(
        &self,
        server: &Server,
        reply: Option<&Reply>,
        (key, value, lifetime): (&[u8], &[u8], Duration),
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        match reply {
            Some(Reply::Stored) => Ok(true),
            Some(Reply::Exists | Reply::NotStored) => Ok(false),
            Some(Reply::NotFound) => self.add(key, value, lifetime, call).await,
            other => Err(unexpected(server, other)),
        }
    }

    /// Gives a lock back, if it still is this owner's: whether it was.
    pub async fn unlock(&self, key: &[u8], owner: &[u8], call: Call<'_>) -> Result<bool, BackendError> {
        let call = call.at_most(self.timeout);
        let lock = lock_name(key);
        let name = self.name(&lock);
        let (server, replies) = self.call(&name, |full| Request::new().gets(full), call).await?;
        match version_of_lock(server, replies.first(), owner)? {
            Some(version) => self.release(&name, version, call).await,
            None => Ok(false),
        }
    }

    /// Removes a key that is still the one that was read: whether it was.
    async fn release(&self, name: &Name<'_>, version: u64, call: Call<'_>) -> Result<bool, BackendError> {
        let request = |full: &[u8]| Request::new().delete_unchanged(full, version);
        let (server, replies) = self.call(name, request, call).await?;
        match replies.first() {
            Some(Reply::Stored) => Ok(true),
            // It has expired meanwhile, and may be another's.
            Some(Reply::Exists | Reply::NotFound) => Ok(false),
            other => Err(unexpected(server, other)),
        }
    }

    fn name<'a>(&self, key: &'a [u8]) -> Name<'a> {
        let fits = !key.is_empty() && self.namespace.len() + key.len() <= MAX_KEY_BYTES;
        let chosen_by =
            if fits && is_legal(key) { Cow::Borrowed(key) } else { stand_in(key).into_bytes().into() };
        let full = [&self.namespace, &chosen_by[..]].concat();
        Name { chosen_by, full }
    }

    fn check_size(&self, value: &[u8]) -> Result<(), BackendError> {
        if value.len() <= MAX_VALUE_BYTES {
            return Ok(());
        }
        let message = format!("a value of {} bytes is beyond the limit of {MAX_VALUE_BYTES}", value.len());
        Err(self.servers[0].refused(message))
    }
}

/// Whether memcached takes a key with these bytes.
fn is_legal(key: &[u8]) -> bool {
    key.iter().all(|byte| *byte > b' ' && *byte != 0x7f)
}

/// The value in the reply to `get`. Flags say that it is Perl's, which only Perl can read.
fn value(server: &Server, reply: Option<Reply>) -> Result<Option<Vec<u8>>, BackendError> {
    match reply {
        Some(Reply::Value { flags: 0, data, .. }) => Ok(Some(data)),
        Some(Reply::Value { .. } | Reply::Miss) => Ok(None),
        other => Err(unexpected(server, other.as_ref())),
    }
}

/// What a lock protects, from the reply to `gets`.
fn protected(server: &Server, reply: Option<Reply>) -> Result<Protected, BackendError> {
    let version = match &reply {
        Some(Reply::Value { cas, .. }) => Version::Unique(*cas),
        _ => Version::Absent,
    };
    value(server, reply).map(|value| Protected { value, version })
}

/// Which value a lock is, if it is this owner's.
fn version_of_lock(
    server: &Server,
    found: Option<&Reply>,
    owner: &[u8],
) -> Result<Option<u64>, BackendError> {
    match found {
        Some(Reply::Value { data, cas, .. }) if data == owner => Ok(Some(*cas)),
        Some(Reply::Value { .. } | Reply::Miss) => Ok(None),
        other => Err(unexpected(server, other)),
    }
}

fn yes_or_no(
    server: &Server,
    reply: Option<&Reply>,
    yes: &Reply,
    no: Option<&Reply>,
) -> Result<bool, BackendError> {
    match reply {
        Some(reply) if reply == yes => Ok(true),
        Some(reply) if Some(reply) == no => Ok(false),
        other => Err(unexpected(server, other)),
    }
}

fn unexpected(server: &Server, reply: Option<&Reply>) -> BackendError {
    server.refused(match reply {
        Some(Reply::Error(message)) => message.clone(),
        other => format!("an unexpected reply: {other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(servers: &[&str], namespace: &str) -> MemcachedSettings {
        let servers = servers.iter().map(|&server| server.to_owned()).collect();
        MemcachedSettings { servers, namespace: namespace.to_owned(), timeout: Duration::from_secs(1) }
    }

    #[test]
    fn what_is_wrong_with_a_setting_is_said() {
        let error = |servers: &[&str], namespace| {
            Memcached::new("m", settings(servers, namespace)).err().map(String::from)
        };
        assert_eq!(error(&["a", "/run/m.sock=3"], "mt-"), None);
        assert_eq!(error(&[], ""), Some("servers: there is none".to_owned()));
        let port = "servers: `a:...` has no port from 1 to 65535; write HOST:PORT, [IPV6]:PORT or unix:PATH";
        assert_eq!(error(&["a:x"], ""), Some(port.to_owned()));
        assert!(error(&["a"], "a b").is_some_and(|error| error.contains("namespace")));
        assert!(error(&["a"], &"x".repeat(101)).is_some());
    }

    #[tokio::test]
    async fn a_value_is_asked_for_again_where_the_connection_was_closed() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 256]).await;
                if number > 0 {
                    let _ = stream.write_all(b"END\r\n").await;
                    let _ = stream.read(&mut [0; 256]).await;
                }
            }
        });
        let memcached = Memcached::new("m", settings(&[&address], "")).unwrap();
        let call = Call::within(Duration::from_secs(5));
        assert_eq!(memcached.get(b"key", call).await.unwrap(), None);
    }

    #[test]
    fn only_keys_that_memcached_does_not_take_are_replaced() {
        let memcached = Memcached::new("m", settings(&["a"], "mt-")).unwrap();
        let full = |key: &[u8]| memcached.name(key).full;
        for legal in [&b"a,b@example.com,192.0.2.1"[..], "grün".as_bytes(), &[b'x'; 247]] {
            assert_eq!(full(legal), [b"mt-", legal].concat());
        }
        for illegal in [&b""[..], b"a b", b"a\nb", b"a\0b", &[b'x'; 248]] {
            let full = full(illegal);
            assert!(full.len() <= MAX_KEY_BYTES && is_legal(&full) && full.contains(&b'~'), "{full:?}");
        }
        // The namespace does not decide where a key is.
        assert_eq!(&memcached.name(b"key").chosen_by[..], b"key");
    }

    /// A second of the server's clock may be over at once.
    #[tokio::test]
    async fn a_lock_gets_a_second_more_than_it_has_to_hold() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut said = String::new();
            let mut bytes = [0; 256];
            while !said.contains("gets a") {
                let length = stream.read(&mut bytes).await.unwrap();
                said += std::str::from_utf8(&bytes[..length]).unwrap();
            }
            stream.write_all(b"STORED\r\nEND\r\n").await.unwrap();
            said
        });
        let memcached = Memcached::new("m", settings(&[&address], "")).unwrap();
        let call = Call::within(Duration::from_secs(60));
        let locked = memcached.lock(b"a", b"me", Duration::from_secs(5), call).await;
        assert!(matches!(locked, Ok(Locked::Ours(_))), "{locked:?}");
        let said = server.await.unwrap();
        assert!(said.starts_with("add lock_a 0 6 2\r\nme\r\n"), "{said}");
    }
}
