//! Redis: a server, one found by sentinels, or a cluster.
//!
//! Knows: Redis. Must not know: what the values are for.

mod call;
mod cluster;
mod link;
mod node;
mod script;
mod sentinel;
mod trouble;

use super::{Lock, Locked};
use crate::tls;
use crate::{BackendError, Breaker, Failure, Secret, call_deadline};
use call::{Call, Servers};
use cluster::Cluster;
use link::{Access, Address, Login};
use node::{Node, Target};
use redis::{Cmd, Value, cmd};
use script::{Lua, is_unknown, texts, unexpected};
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::time::Instant;
use trouble::Trouble;

/// What a `<Connection>` of module Redis says.
#[derive(Clone, PartialEq)]
pub struct RedisSettings {
    /// Where it is.
    pub server: RedisServer,
    /// The user of an access control list, if any.
    pub user: Option<String>,
    /// The password, if it wants one.
    pub password: Option<Secret>,
    /// The number of the database.
    pub db: i64,
    /// Prefix of every key.
    pub prefix: String,
    /// How long one call may take.
    pub timeout: Duration,
    /// Whether the connection is encrypted, and the server's certificate verified.
    pub tls: bool,
    /// Certificates of authorities to trust, in PEM, beside those of the system.
    pub tls_ca: Option<String>,
}

/// Where a Redis is.
#[derive(Clone, PartialEq)]
pub enum RedisServer {
    /// `host:port`.
    Tcp(String),
    /// The path of a socket.
    Unix(String),
    /// The master of a service, which these sentinels (`host:port`) know.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<String>,
        /// The name of the service.
        service: String,
        /// The user of the sentinels' access control lists, if any.
        user: Option<String>,
        /// The password of the sentinels, if they want one.
        password: Option<Secret>,
    },
    /// A cluster that one of these nodes (`host:port`) knows.
    Cluster(Vec<String>),
}

/// Where a server listens unless its port is given.
const PORT: u16 = 6379;

/// The longest lifetime, in milliseconds: some 30 years, which no server refuses.
const MAX_LIFETIME_MS: u64 = 1_000_000_000_000;

/// `KEYS[1]` is a number, `ARGV[1]` how long it lives from now on in milliseconds.
static INCREMENT: LazyLock<Lua<'static>> = LazyLock::new(|| {
    Lua::new("local n = redis.call('INCR', KEYS[1]) redis.call('PEXPIRE', KEYS[1], ARGV[1]) return n")
});

/// `KEYS[1]` is a lock, `ARGV[1]` who owns it.
static UNLOCK: LazyLock<Lua<'static>> = LazyLock::new(|| {
    Lua::new("if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0")
});

/// Keys: the lock, what it protects. Arguments: the owner, the value, its lifetime in milliseconds.
static SET_AND_UNLOCK: LazyLock<Lua<'static>> = LazyLock::new(|| {
    Lua::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
         redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3]) return redis.call('DEL', KEYS[1])",
    )
});

/// A Redis. Keys are what callers pass, behind the prefix of the connection; without one, tickets, sessions
/// and locks of the original are found.
///
/// All callers share one connection to a server, and so round trips. A call that is given up closes it for
/// those who come later.
pub struct Redis {
    breaker: Arc<Breaker>,
    servers: Servers,
    timeout: Duration,
    prefix: String,
}

impl Redis {
    /// A Redis; nothing is opened yet. The error says what is wrong with a setting.
    pub fn new(name: &str, settings: RedisSettings) -> Result<Redis, String> {
        let access = access(&settings)?;
        let breaker = Breaker::new(name);
        let one = |target| Servers::One(Node::new(target, access.clone(), breaker.clone()));
        let servers = match settings.server {
            RedisServer::Tcp(server) => one(Target::Address(Address::parse(&server, PORT)?)),
            RedisServer::Unix(path) if settings.tls => {
                return Err(format!("tls: the socket {path} is not encrypted"));
            }
            RedisServer::Unix(path) => one(Target::Address(Address::Unix(path))),
            RedisServer::Sentinel { sentinels, service, user, password } => {
                let sentinels = addresses("sentinels", &sentinels, sentinel::PORT)?;
                let password = password.and_then(not_empty);
                if user.is_some() && password.is_none() {
                    return Err("sentinel_user: a user needs a password".to_owned());
                }
                let login = Login { user, password, ..Login::default() };
                one(Target::Master(sentinel::Service { name: service, sentinels, login }))
            }
            RedisServer::Cluster(_) if settings.db != 0 => {
                return Err(format!("db = {}: a cluster has database 0 only", settings.db));
            }
            RedisServer::Cluster(nodes) => {
                let seeds = addresses("cluster", &nodes, PORT)?;
                Servers::Cluster(Cluster::new(seeds, access, breaker.clone()))
            }
        };
        Ok(Redis { breaker, servers, timeout: settings.timeout, prefix: settings.prefix })
    }

    /// The name of the connection.
    pub fn name(&self) -> &str {
        self.breaker.connection()
    }

    /// Whether it answers, be it that the command is not allowed. For the log at the start.
    pub async fn ping(&self, deadline: Instant) -> Result<(), BackendError> {
        match self.call(Call::repeatable(b"", [cmd("PING")]), deadline).await {
            Err(BackendError { failure: Failure::Refused(answer), .. }) if trouble::is_forbidden(&answer) => {
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
    /// A script whose connection broke is not run again, so what it was to do may be done or not.
    pub async fn eval(
        &self,
        script: &str,
        keys: &[Vec<u8>],
        args: &[Vec<u8>],
        deadline: Instant,
    ) -> Result<Vec<Vec<u8>>, BackendError> {
        let keys: Vec<_> = keys.iter().map(|key| self.key(key)).collect();
        let keys: Vec<&[u8]> = keys.iter().map(AsRef::as_ref).collect();
        let args: Vec<_> = args.iter().map(Vec::as_slice).collect();
        let reply = self.run(&Lua::new(script), &keys, &args, Call::once, deadline).await?;
        self.read(texts(reply))
    }

    /// The value of a key.
    pub async fn get(&self, key: &[u8], deadline: Instant) -> Result<Option<Vec<u8>>, BackendError> {
        let key = &*self.key(key);
        let reply = self.one(Call::repeatable(key, [get(key)]), deadline).await?;
        self.read(value(reply))
    }

    /// Sets a value, whatever there was, for a time.
    pub async fn set(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<(), BackendError> {
        let key = &*self.key(key);
        self.one(Call::repeatable(key, [set(key, value, lifetime)]), deadline).await.map(drop)
    }

    /// Sets a value unless there is one: whether it did.
    ///
    /// It is not tried again when the connection breaks, so after an error there may be the value or not.
    pub async fn add(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<bool, BackendError> {
        let key = &*self.key(key);
        let reply = self.one(Call::once(key, [add(key, value, lifetime)]), deadline).await?;
        Ok(reply == Value::Okay)
    }

    /// Removes a key. Returns whether it existed.
    pub async fn delete(&self, key: &[u8], deadline: Instant) -> Result<bool, BackendError> {
        let key = &*self.key(key);
        let mut delete = cmd("DEL");
        delete.arg(key);
        let reply = self.one(Call::repeatable(key, [delete]), deadline).await?;
        self.read(number(&reply)).map(|deleted| deleted > 0)
    }

    /// Adds one to a number, which begins at nothing and lives for this time from now on.
    ///
    /// It is not added again when the connection breaks, so after an error it may have been added or not.
    pub async fn increment(
        &self,
        key: &[u8],
        lifetime: Duration,
        deadline: Instant,
    ) -> Result<u64, BackendError> {
        let lifetime = milliseconds(lifetime).to_string();
        let key = &*self.key(key);
        let reply = self.run(&INCREMENT, &[key], &[lifetime.as_bytes()], Call::once, deadline).await?;
        self.read(number(&reply))
    }

    /// Locks `lock` for `owner`, at most for `lifetime`, and reads `key`; in one round trip, in a cluster in
    /// two.
    pub async fn lock(
        &self,
        lock: &[u8],
        owner: &[u8],
        lifetime: Duration,
        key: &[u8],
        deadline: Instant,
    ) -> Result<Locked, BackendError> {
        let (lock, of) = (&*self.key(lock), &*self.key(key));
        let locking = add(lock, owner, lifetime);
        if let Servers::Cluster(_) = self.servers {
            // One after the other: a value read before the lock was ours might change until it is.
            return match self.one(Call::once(lock, [locking]), deadline).await? {
                Value::Okay => self.get(key, deadline).await.map(Locked::ours),
                _ => Ok(Locked::Theirs),
            };
        }
        let replies = self.call(Call::once(lock, [locking, get(of)]), deadline).await?;
        match <[Value; 2]>::try_from(replies) {
            Ok([Value::Okay, reply]) => self.read(value(reply)).map(Locked::ours),
            Ok(_) => Ok(Locked::Theirs),
            Err(_) => self.read(Err(unexpected())),
        }
    }

    /// Gives a lock back, if it still is this owner's: whether it was.
    pub async fn unlock(&self, lock: &[u8], owner: &[u8], deadline: Instant) -> Result<bool, BackendError> {
        let lock = &*self.key(lock);
        let reply = self.run(&UNLOCK, &[lock], &[owner], Call::repeatable, deadline).await?;
        self.read(number(&reply)).map(|deleted| deleted > 0)
    }

    /// Sets what a lock protects and gives the lock back, both only if the lock still is its owner's: whether
    /// it was. In a cluster the two may be on different nodes: the lock is looked at before.
    pub async fn set_and_unlock(
        &self,
        key: &[u8],
        value: &[u8],
        lifetime: Duration,
        lock: Lock<'_>,
        deadline: Instant,
    ) -> Result<bool, BackendError> {
        if let Servers::Cluster(_) = self.servers {
            let is_ours = self.get(lock.key, deadline).await?.as_deref() == Some(lock.owner);
            if is_ours {
                self.set(key, value, lifetime, deadline).await?;
                self.unlock(lock.key, lock.owner, deadline).await?;
            }
            return Ok(is_ours);
        }
        let keys = [&*self.key(lock.key), &*self.key(key)];
        let milliseconds = lifetime.as_millis().max(1).to_string();
        let arguments = [lock.owner, value, milliseconds.as_bytes()];
        let reply = self.run(&SET_AND_UNLOCK, &keys, &arguments, Call::once, deadline).await?;
        self.read(number(&reply)).map(|done| done > 0)
    }

    /// Runs a script by its hash, or by its text where the server does not know it.
    async fn run<'a>(
        &self,
        script: &Lua<'_>,
        keys: &[&'a [u8]],
        args: &[&[u8]],
        make: fn(&'a [u8], [Cmd; 1]) -> Call<'a>,
        deadline: Instant,
    ) -> Result<Value, BackendError> {
        let first = keys.first().copied().unwrap_or_default();
        let reply = self.one(make(first, [script.by_hash(keys, args)]), deadline).await?;
        if is_unknown(&reply) {
            return self.one(make(first, [script.by_text(keys, args)]), deadline).await;
        }
        Ok(reply)
    }

    /// The reply to a call of one command.
    async fn one(&self, call: Call<'_>, deadline: Instant) -> Result<Value, BackendError> {
        let reply = self.call(call, deadline).await?.pop();
        self.read(reply.ok_or_else(unexpected))
    }

    async fn call(&self, call: Call<'_>, deadline: Instant) -> Result<Vec<Value>, BackendError> {
        let deadline = call_deadline(deadline, self.timeout);
        self.read(self.servers.call(&call, deadline).await)
    }

    fn read<T>(&self, read: Result<T, Trouble>) -> Result<T, BackendError> {
        read.map_err(|trouble| trouble.told(&self.breaker))
    }
}

fn access(settings: &RedisSettings) -> Result<Access, String> {
    if settings.tls_ca.is_some() && !settings.tls {
        return Err("tls_ca: without `tls = on` nothing is encrypted".to_owned());
    }
    let password = settings.password.clone().and_then(not_empty);
    if settings.user.is_some() && password.is_none() {
        return Err("user: a user needs a password".to_owned());
    }
    let tls = settings.tls.then(|| tls::client_config(settings.tls_ca.as_deref())).transpose()?;
    Ok(Access { login: Login { user: settings.user.clone(), password, db: settings.db }, tls })
}

/// A password that is empty is none.
fn not_empty(password: Secret) -> Option<Secret> {
    (!password.0.is_empty()).then_some(password)
}

fn addresses(option: &str, texts: &[String], port: u16) -> Result<Vec<Address>, String> {
    let addresses: Result<Vec<_>, _> = texts.iter().map(|text| Address::parse(text, port)).collect();
    let addresses = addresses.map_err(|wrong| format!("{option}: {wrong}"))?;
    if addresses.is_empty() {
        return Err(format!("{option}: no server is named"));
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

fn value(reply: Value) -> Result<Option<Vec<u8>>, Trouble> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(value) => Ok(Some(value)),
        _ => Err(unexpected()),
    }
}

fn number(reply: &Value) -> Result<u64, Trouble> {
    match reply {
        Value::Int(number) => u64::try_from(*number).map_err(|_| unexpected()),
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(server: RedisServer) -> RedisSettings {
        let (user, password, tls_ca) = (None, None, None);
        let (db, prefix, timeout) = (0, String::new(), Duration::from_secs(1));
        RedisSettings { server, user, password, db, prefix, timeout, tls: false, tls_ca }
    }

    fn mistake(settings: RedisSettings) -> String {
        Redis::new("redis", settings).err().expect("a mistake")
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
        assert!(mistake(settings(RedisServer::Tcp("a:b".to_owned()))).contains("`a:...` is not a server"));
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
