//! Redis: a server, one found by sentinels, or a cluster.
//!
//! Knows: Redis. Must not know: what the values are for.

mod call;
mod clock;
mod cluster;
mod connection;
mod error;
mod keys;
mod node;
mod scan;
mod script;
mod scripts;
mod sentinel;

use super::{Lock, Locked, RedisServer, RedisSettings};
use crate::tls::{self, Verification};
use crate::{BackendError, Breaker, Call, CallNumbers, Endpoint, Failure, OptionError, Secret};
use call::{Command, Patience, STALE, Servers};
use cluster::Cluster;
use connection::{Access, Login, tcp};
use error::RequestError;
use keys::Pair;
use node::{Node, Target};
use redis::{Cmd, Value, cmd};
use script::{Lua, body_of, is_unknown, texts, unexpected};
use scripts::{INCREMENT, LOCK, RENEW, SET_AND_UNLOCK, UNLOCK};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

pub use script::Script;

/// Where a server listens unless its port is given.
const PORT: u16 = 6379;

/// What keys begin with that stand beside others.
const NOTED: &[u8] = b"mtpolicyd:noted:";

/// The longest lifetime, in milliseconds: some 30 years, which no server refuses.
const MAX_LIFETIME_MS: u64 = 1_000_000_000_000;

/// A Redis. Keys are what callers pass, behind the prefix of the connection; without one, tickets, sessions
/// and locks of the original are found.
///
/// All callers share one connection to a server, and so round trips. A call that is given up closes it for
/// those who come later.
pub struct Redis {
    breaker: Arc<Breaker>,
    numbers: Arc<CallNumbers>,
    servers: Servers,
    timeout: Duration,
    failover: Duration,
    prefix: String,
}

impl Redis {
    /// A Redis; nothing is opened yet.
    ///
    /// # Errors
    /// What is wrong with which option.
    pub fn new(name: &str, settings: RedisSettings) -> Result<Redis, OptionError> {
        let access = access(name, &settings)?;
        let breaker = Breaker::new(name);
        let one = |target| Servers::One(Node::new(target, access.clone(), breaker.clone()));
        let servers = match settings.server {
            RedisServer::Tcp(server) => {
                let address = tcp(&server, PORT);
                one(Target::Address(address.map_err(|why| OptionError::new("server", why))?))
            }
            RedisServer::Unix(path) if settings.tls => {
                return Err(OptionError::new("tls", format!("the socket {path} is not encrypted")));
            }
            RedisServer::Unix(path) => one(Target::Address(Endpoint::Unix(path.into()))),
            RedisServer::Sentinel { sentinels, service, user, password } => {
                let sentinels = addresses("sentinels", &sentinels, sentinel::PORT)?;
                let password = password.and_then(not_empty);
                if user.is_some() && password.is_none() {
                    return Err(OptionError::new("sentinel_user", "a user needs a password"));
                }
                let login = Login { user, password, ..Login::default() };
                one(Target::Master(sentinel::Service { name: service, sentinels, login }))
            }
            RedisServer::Cluster(_) if settings.db != 0 => {
                return Err(OptionError::new("db", "a cluster has database 0 only"));
            }
            RedisServer::Cluster(_) if !keys::keeps_together(&settings.prefix) => {
                let why = format!("`{}` keeps a cluster from keeping any keys together", settings.prefix);
                return Err(OptionError::new("prefix", why));
            }
            RedisServer::Cluster(nodes) => {
                let seeds = addresses("cluster", &nodes, PORT)?;
                Servers::Cluster(Cluster::new(seeds, access, breaker.clone()))
            }
        };
        let RedisSettings { timeout, failover_wait: failover, prefix, .. } = settings;
        let numbers = CallNumbers::of(name);
        Ok(Redis { breaker, numbers, servers, timeout, failover, prefix })
    }

    /// The name of the connection.
    pub fn name(&self) -> &str {
        self.breaker.connection()
    }

    /// Whether it answers, be it that the command is not allowed. For the log at the start.
    pub async fn ping(&self, call: Call<'_>) -> Result<(), BackendError> {
        match self.one(Command::repeatable(b"", cmd("PING")), call).await {
            Err(BackendError { failure: Failure::Refused(answer), .. }) if error::is_forbidden(&answer) => {
                Ok(())
            }
            answered => answered.map(drop),
        }
    }

    /// A key as the server has it.
    fn key<'a>(&self, key: &'a [u8]) -> Cow<'a, [u8]> {
        if self.prefix.is_empty() { key.into() } else { [self.prefix.as_bytes(), key].concat().into() }
    }

    /// Runs a script (Lua), all keys of which have to be on one server: its reply as a list of texts. A
    /// number is written in decimals, nothing is an empty text, lists in a list are flattened.
    ///
    /// After an error it has been run or not, and will not be run later.
    pub async fn eval(
        &self,
        script: &Script,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
        call: Call<'_>,
    ) -> Result<Vec<Vec<u8>>, BackendError> {
        call.refuse_to_pretend(self.name(), || format!("change {}", self.name()))?;
        let keys: Vec<_> = keys.iter().map(|key| self.key(key)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let args: Vec<_> = args.iter().map(Vec::as_slice).collect();
        let make = |key, command| match script.repeatable {
            true => Command::repeatable(key, command).dated(),
            false => Command::once(key, command).dated(),
        };
        let reply = self.run(&script.lua, &keys, &args, make, call).await?;
        match self.read(body_of(reply))? {
            Some(reply) => self.read(texts(reply)),
            None => Err(self.breaker.error(Failure::TimedOut)),
        }
    }

    /// A key for what is noted of another one, which a script may use together with that; `None` if a cluster
    /// can't keep them together, since the braces in it are odd.
    pub fn beside(&self, key: &[u8], note: &str) -> Option<Vec<u8>> {
        let whole = self.key(key);
        let tagged = [NOTED, b"{", &*whole, b"}:", note.as_bytes()].concat();
        if matches!(self.servers, Servers::One(_)) {
            return Some(tagged);
        }
        let plain = [key, b":", note.as_bytes()].concat();
        [tagged, plain].into_iter().find(|noted| keys::slot(&self.key(noted)) == keys::slot(&whole))
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8], call: Call<'_>) -> Result<Option<Vec<u8>>, BackendError> {
        let key = &*self.key(key);
        let reply = self.one(Command::repeatable(key, get(key)), call).await?;
        self.read(value(reply))
    }

    /// Sets a value, whatever there was, for a time.
    pub async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        let key = &*self.key(key);
        self.one(Command::repeatable(key, set(key, value, lifetime)), call).await.map(drop)
    }

    /// Sets a value unless there is one: whether it did.
    ///
    /// It is not tried again when the connection breaks, so after an error there may be the value or not.
    pub async fn add(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let key = &*self.key(key);
        let reply = self.one(Command::once(key, add(key, value, lifetime)), call).await?;
        Ok(reply == Value::Okay)
    }

    /// Removes a key. Returns whether it existed.
    pub async fn delete(&self, key: &[u8], call: Call<'_>) -> Result<bool, BackendError> {
        let key = &*self.key(key);
        let mut delete = cmd("DEL");
        delete.arg(key);
        let reply = self.one(Command::repeatable(key, delete), call).await?;
        self.read(number(&reply)).map(|deleted| deleted > 0)
    }

    /// Adds one to a number, which begins at nothing and lives for this time from now on.
    ///
    /// It is not added again when the connection breaks, so after an error it may have been added or not.
    pub async fn increment(
        &self,
        key: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<u64, BackendError> {
        let lifetime = milliseconds(lifetime).to_string();
        let key = &*self.key(key);
        let reply = self.run(&INCREMENT, &[key], &[lifetime.as_bytes()], Command::once, call).await?;
        self.read(number(&reply))
    }

    /// Locks `key` for `owner`, for `lifetime` unless that is renewed, and reads it, in one round trip. A
    /// lock that is the owner's already is renewed, so it does no harm to ask again after an error.
    pub async fn lock(
        &self,
        key: &[u8],
        owner: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<Locked, BackendError> {
        let Pair { lock, key } = self.pair(key);
        let lifetime = milliseconds(lifetime).to_string();
        let (keys, args) = ([&*lock, &*key], [owner, lifetime.as_bytes()]);
        let make = |key, command| Command::repeatable(key, command).dated();
        let reply = self.run(&LOCK, &keys, &args, make, call).await?;
        let Value::Array(parts) = reply else { return self.read(Err(unexpected())) };
        match <[Value; 3]>::try_from(parts) {
            Ok([Value::Int(1), held, _]) => self.read(value(held)).map(Locked::ours),
            Ok([Value::Int(0), ..]) => Ok(Locked::Theirs),
            Ok([Value::Int(STALE), ..]) => Err(self.breaker.error(Failure::TimedOut)),
            _ => self.read(Err(unexpected())),
        }
    }

    /// Keeps a lock for `lifetime` from now on, if it still is this owner's: whether it was.
    pub async fn renew(
        &self,
        key: &[u8],
        owner: &[u8],
        lifetime: Duration,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let lock = self.pair(key).lock;
        let lifetime = milliseconds(lifetime).to_string();
        let args = [owner, lifetime.as_bytes()];
        let reply = self.run(&RENEW, &[&*lock], &args, Command::repeatable, call).await?;
        self.read(number(&reply)).map(|renewed| renewed > 0)
    }

    /// Gives a lock back, if it still is this owner's: whether it was.
    pub async fn unlock(&self, key: &[u8], owner: &[u8], call: Call<'_>) -> Result<bool, BackendError> {
        let lock = self.pair(key).lock;
        let reply = self.run(&UNLOCK, &[&*lock], &[owner], Command::repeatable, call).await?;
        self.read(number(&reply)).map(|deleted| deleted > 0)
    }

    /// Sets what a lock protects and gives the lock back, both only if the lock still is its owner's, or has
    /// ended without anybody changing the value: whether that was so.
    pub async fn set_and_unlock(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        lock: Lock<'_>,
        call: Call<'_>,
    ) -> Result<bool, BackendError> {
        let pair = self.pair(key);
        let lifetime = milliseconds(lifetime).to_string();
        let keys = [&*pair.lock, &*pair.key];
        let mut args = vec![lock.owner, value, lifetime.as_bytes()];
        args.extend(lock.before);
        let reply = self.run(&SET_AND_UNLOCK, &keys, &args, Command::repeatable, call).await?;
        self.read(number(&reply)).map(|done| done > 0)
    }

    /// A lock and the key of what it protects. A cluster runs a script only on keys that it keeps together.
    fn pair(&self, key: &[u8]) -> Pair {
        match self.servers {
            Servers::One(_) => Pair::new(&self.prefix, key),
            Servers::Cluster(_) => Pair::in_one_slot(&self.prefix, key),
        }
    }

    /// Runs a script by its hash, or by its text where the server does not know it.
    async fn run<'a>(
        &self,
        script: &Lua,
        keys: &[&'a [u8]],
        args: &[&[u8]],
        make: impl Fn(&'a [u8], Cmd) -> Command<'a>,
        call: Call<'_>,
    ) -> Result<Value, BackendError> {
        let first = keys.first().copied().unwrap_or_default();
        let reply = self.one(make(first, script.by_hash(keys, args)), call).await?;
        if is_unknown(&reply) {
            return self.one(make(first, script.by_text(keys, args)), call).await;
        }
        Ok(reply)
    }

    /// The reply to a command.
    async fn one(&self, command: Command<'_>, call: Call<'_>) -> Result<Value, BackendError> {
        let (deadline, reply, failover) = (call.deadline(), self.timeout, self.failover);
        let begun = Instant::now();
        let read = self.read(self.servers.call(&command, Patience { deadline, reply, failover }).await);
        self.numbers.note(begun, &read);
        read
    }

    fn read<T>(&self, read: Result<T, RequestError>) -> Result<T, BackendError> {
        read.map_err(|error| error.into_backend_error(&self.breaker))
    }
}

fn access(name: &str, settings: &RedisSettings) -> Result<Access, OptionError> {
    let of_tls = [("tls_ca", settings.tls_ca.is_some()), ("tls_certificate", settings.identity.is_some())];
    if let Some((option, _)) = of_tls.iter().find(|(_, is_set)| *is_set && !settings.tls) {
        return Err(OptionError::new(option, "without `tls = on` nothing is encrypted"));
    }
    let password = settings.password.clone().and_then(not_empty);
    if settings.user.is_some() && password.is_none() {
        return Err(OptionError::new("user", "a user needs a password"));
    }
    let (ca, identity) = (settings.tls_ca.as_deref(), settings.identity.as_ref());
    let config = || tls::client_config(Verification::Full, ca, identity).map(Arc::new);
    let tls = settings.tls.then(config).transpose()?;
    let login = Login { user: settings.user.clone(), password, db: settings.db };
    // A name must not have blanks.
    let shown = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    let client_name = format!("mtpolicyd:{name}").chars().map(shown).collect::<String>().into();
    Ok(Access { login, tls, limit: settings.timeout, client_name })
}

/// A password that is empty is none.
fn not_empty(password: Secret) -> Option<Secret> {
    (!password.0.is_empty()).then_some(password)
}

fn addresses(option: &'static str, texts: &[String], port: u16) -> Result<Vec<Endpoint>, OptionError> {
    let addresses: Result<Vec<_>, _> = texts.iter().map(|text| tcp(text, port)).collect();
    let addresses = addresses.map_err(|why| OptionError::new(option, why))?;
    if addresses.is_empty() {
        return Err(OptionError::new(option, "no server is named"));
    }
    Ok(addresses)
}

fn get(key: &[u8]) -> Cmd {
    let mut get = cmd("GET");
    get.arg(key);
    get
}

fn set(key: &[u8], value: &[u8], lifetime: Duration) -> Cmd {
    let mut set = cmd("SET");
    set.arg(key).arg(value).arg("PX").arg(milliseconds(lifetime));
    set
}

fn add(key: &[u8], value: &[u8], lifetime: Duration) -> Cmd {
    let mut add = set(key, value, lifetime);
    add.arg("NX");
    add
}

/// A lifetime as servers take it, which is not nothing.
fn milliseconds(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_LIFETIME_MS)
}

fn value(reply: Value) -> Result<Option<Vec<u8>>, RequestError> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(value) => Ok(Some(value)),
        _ => Err(unexpected()),
    }
}

fn number(reply: &Value) -> Result<u64, RequestError> {
    match reply {
        Value::Int(number) => u64::try_from(*number).map_err(|_| unexpected()),
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(server: RedisServer) -> RedisSettings {
        let (user, password, tls_ca, identity) = (None, None, None, None);
        let (db, prefix, timeout) = (0, String::new(), Duration::from_secs(1));
        let (failover_wait, tls) = (Duration::ZERO, false);
        RedisSettings { server, user, password, db, prefix, timeout, failover_wait, tls, tls_ca, identity }
    }

    fn mistake(settings: RedisSettings) -> String {
        Redis::new("redis", settings).err().expect("a mistake").to_string()
    }

    #[test]
    fn settings_that_can_not_be_meant_are_refused() {
        let tcp = || settings(RedisServer::Tcp("127.0.0.1:6379".to_owned()));
        let sentinels = |sentinels: &[&str]| RedisServer::Sentinel {
            sentinels: sentinels.iter().map(|sentinel| sentinel.to_string()).collect(),
            service: "mail".to_owned(),
            user: None,
            password: None,
        };
        assert!(Redis::new("redis", tcp()).is_ok());
        assert!(mistake(settings(RedisServer::Tcp("a:b".to_owned()))).contains("`a:...` has no port from"));
        assert!(mistake(settings(sentinels(&[]))).contains("no server is named"));
        assert!(mistake(settings(sentinels(&["a:b"]))).starts_with("sentinels: "));
        let cluster = RedisSettings { db: 1, ..settings(RedisServer::Cluster(vec!["a".to_owned()])) };
        assert!(mistake(cluster).contains("database 0 only"));
        let socket = RedisSettings { tls: true, ..settings(RedisServer::Unix("/run/redis.sock".to_owned())) };
        assert!(mistake(socket).contains("not encrypted"));
        assert!(mistake(RedisSettings { tls_ca: Some("ca.pem".to_owned()), ..tcp() }).starts_with("tls_ca"));
        assert!(mistake(RedisSettings { user: Some("mail".to_owned()), ..tcp() }).starts_with("user"));
    }

    #[test]
    fn a_lifetime_is_neither_nothing_nor_more_than_a_server_takes() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_secs(3)), 3000);
        assert_eq!(milliseconds(Duration::MAX), MAX_LIFETIME_MS);
    }
}
