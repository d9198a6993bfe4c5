//! The kinds of connections and their options.
//!
//! Knows: names and defaults of the original, what opens each kind. Must not know: plugins.

use crate::options::{OptionSpec, Options, Section, codes, options};
use crate::value::{Count, Limit, NonZeroSeconds, Seconds, Size, Truth, words};
use backends::keyvalue::{
    Memcached, MemcachedSettings, Memory, MemorySettings, Redis, RedisServer, RedisSettings,
};
use backends::ldap::{Deref, Ldap, LdapSettings};
use backends::sql::{Dialect, Durability, Sql, SqlSettings};
use backends::tls::Identity;
use backends::{BackendError, Call, OptionError, Secret};
use std::sync::Arc;

words! {
    /// The kinds of connections.
    pub enum Module {
        /// A relational database.
        Sql = "Sql",
        /// Redis.
        Redis = "Redis",
        /// memcached.
        Memcached = "Memcached",
        /// A directory.
        Ldap = "Ldap",
        /// This process.
        Memory = "Memory",
    }
}

/// A connection, shared by all who name it.
#[derive(Clone)]
pub enum Connection {
    /// A relational database.
    Sql(Arc<Sql>),
    /// Redis.
    Redis(Arc<Redis>),
    /// memcached.
    Memcached(Arc<Memcached>),
    /// A directory.
    Ldap(Arc<Ldap>),
    /// This process.
    Memory(Arc<Memory>),
}

impl Connection {
    /// Whether it answers.
    pub(super) async fn ping(&self, call: Call<'_>) -> Result<(), BackendError> {
        match self {
            Connection::Sql(sql) => sql.ping(call).await,
            Connection::Redis(redis) => redis.ping(call).await,
            Connection::Memcached(memcached) => memcached.ping(call).await,
            Connection::Ldap(ldap) => ldap.ping(call).await,
            Connection::Memory(_) => Ok(()),
        }
    }

    /// Whether it leads to a server, and not to a file or to memory.
    pub(super) fn is_server(&self) -> bool {
        match self {
            Connection::Sql(sql) => sql.dialect() != Dialect::Sqlite,
            Connection::Memory(_) => false,
            _ => true,
        }
    }

    /// Its kind.
    pub fn module(&self) -> Module {
        match self {
            Connection::Sql(_) => Module::Sql,
            Connection::Redis(_) => Module::Redis,
            Connection::Memcached(_) => Module::Memcached,
            Connection::Ldap(_) => Module::Ldap,
            Connection::Memory(_) => Module::Memory,
        }
    }
}

options! {
    /// The option of every `<Connection NAME>` block.
    pub struct ConnectionOptions {
        /// The kind of backend.
        module: Module,
    }
}

options! {
    /// Options of module Sql.
    struct SqlOptions {
        /// The data source, in the form of Perl's DBI or as a URL: `dbi:SQLite:dbname=/var/lib/mtpolicyd/db`,
        /// `dbi:mysql:database=mail;host=127.0.0.1;port=3306`, `dbi:Pg:dbname=mail;host=127.0.0.1`,
        /// `postgres://user@host/mail?sslmode=verify-full`.
        ///
        /// Without a host, the UNIX socket of the server is used: `/run/mysqld/mysqld.sock` (or
        /// `mysql_socket`) or `/var/run/postgresql` (or `host=/FOLDER`). For MariaDB and MySQL `localhost`
        /// means the socket too; write `127.0.0.1` for TCP. PostgreSQL may have several hosts
        /// (`host=a,b;target_session_attrs=read-write`); one that accepts no connection within
        /// `connect_timeout` seconds, or within one second without that, is skipped. `application_name`
        /// is the name that the server shows for the connections, `mtpolicyd` by default.
        ///
        /// `mysql_ssl=1` turns encryption on; `mysql_ssl_ca_file` or `tls_ca` also has the server's
        /// certificate and name verified. `sslmode` and `sslrootcert` of PostgreSQL have the meaning that
        /// they have in libpq; client certificates and revocation lists are not supported. A certificate can
        /// only be verified if it is of version 3 and has the server's name in `subjectAltName`; a name in
        /// CN alone does not count. `mysql_ssl_ca_file` and `sslrootcert` may name the server's own
        /// certificate; for MariaDB and MySQL only one that is not an authority's (`CA:FALSE`).
        ///
        /// `mysql_init_command` is run on each connection. `mysql_read_default_file=FILE` reads user,
        /// password, host, port, socket and TLS options from the `[client]` groups of an option file, from
        /// `mysql_read_default_group`, and from the files that it includes.
        ///
        /// The user needs the rights SELECT, INSERT, UPDATE and DELETE on the tables that plugins change, and
        /// CREATE only where a table is missing; the log and `mtpolicyd check` show the statement to run. A
        /// Quota whose counters another daemon keeps needs SELECT only. A read-only SQLite file can be read.
        /// PgBouncer works in transaction mode.
        ///
        /// MariaDB 10.11 and PostgreSQL 15 are tested. MySQL 8 is not: the daemon uses the same protocol and
        /// no statement that MySQL lacks, but the tests have not been run with it. With
        /// `enforce_gtid_consistency` set `mysql_engine = "InnoDB"` and give the table
        /// `mtpolicyd_reservations` that engine too.
        dsn: String,
        /// The user, if the data source names none. Without either, the user that the daemon runs as,
        /// so that logins by `unix_socket` (MariaDB) and `peer` (PostgreSQL) work.
        user: String = "",
        /// The password.
        password: Secret = Secret::default(),
        /// Maximum duration of one call; the deadline of the request ends it too. Within that time, a call
        /// waits for a server that has just gone, for up to ten seconds from the beginning of the outage.
        timeout: NonZeroSeconds = NonZeroSeconds(Seconds::of(5)),
        /// Maximum number of connections to a server.
        max_connections: Limit = Limit(10),
        /// When a change in SQLite counts as written: `full`, when it is on the disk, so that it survives a
        /// power failure; `process`, when the operating system has it, so that it survives a crash of the
        /// daemon. In PostgreSQL, changes that a crash of the server may undo without harm (reservations of
        /// Quota, locks, the auto-whitelist) do not wait for the disk.
        durability: DurabilityWord = DurabilityWord::Full,
        /// A PEM file of certificate authorities to trust in addition to those of the system.
        tls_ca: Option<String>,
        /// A PEM file with the certificate of the client, for a server that requires one, followed by those
        /// of the authorities between it and the one that the server trusts. `sslcert` (PostgreSQL) or
        /// `mysql_ssl_client_cert` in the data source is the same. With an encrypted connection only.
        tls_certificate: Option<String>,
        /// A PEM file with the key of `tls_certificate`, without a password; `sslkey` or
        /// `mysql_ssl_client_key` in the data source.
        tls_key: Option<String>,
    }
}

words! {
    /// When a change counts as made.
    enum DurabilityWord {
        Full = "full",
        Process = "process",
    }
}

options! {
    /// Options of module Redis.
    struct RedisOptions {
        /// The server, `HOST:PORT`.
        server: String = "127.0.0.1:6379",
        /// The path of a UNIX socket, instead of a server.
        sock: Option<String>,
        /// Sentinels, `HOST:PORT` separated by commas, which know the master of `service`.
        sentinels: Option<String>,
        /// The service to ask the sentinels for.
        service: Option<String>,
        /// The user for the sentinels, if they have access control lists. `user` is for the server only.
        sentinel_user: Option<String>,
        /// The password for the sentinels, if they require one. `password` is for the server only.
        sentinel_password: Option<Secret>,
        /// Nodes of a cluster, `HOST:PORT` separated by commas, instead of a server; one reachable node is
        /// enough to find the others.
        cluster: Option<String>,
        /// The user, for a server with access control lists. The user needs the commands `GET`, `SET`,
        /// `DEL`, `EVAL`, `EVALSHA`, `TIME`, `INCR`, `PEXPIRE`, `EXPIRE`, `HGET`, `HGETALL`, `HSET`,
        /// `HINCRBY` and `HDEL`; with `db` also `SELECT`, with sentinels `ROLE`, with a cluster
        /// `CLUSTER|SLOTS` and `ASKING`. `PING` may be forbidden. With `prefix = "mx1:"` the keys `~mx1:*`
        /// are enough. The commands that show state by hand also need `SCAN`, `GETRANGE`, `PTTL`, `HMGET` and
        /// `EXISTS`. The user of the sentinels needs `SENTINEL|GET-MASTER-ADDR-BY-NAME`.
        user: Option<String>,
        /// The password, if the server requires one.
        password: Option<Secret>,
        /// The number of the database.
        db: Count = Count(0),
        /// Prefix of every key, so that several installations can share a server: `mx1:`. The original uses
        /// no prefix for tickets, sessions and locks.
        prefix: String = "",
        /// How long the server may take for a reply. After that the server is tried by other means, and is
        /// down if it does not answer those either. The deadline of the request ends a call too.
        timeout: NonZeroSeconds = NonZeroSeconds(Seconds::of(1)),
        /// How long requests wait for a server that has just failed: sentinels and clusters need some seconds
        /// to put a replica in the place of a master. The time counts from the beginning of the outage, so a
        /// server that stays away delays no request later on; then `on_error` decides at once. A request
        /// waits no longer than its own time allows. `0` waits for nothing.
        ///
        /// A command that the server has certainly not executed is sent again as soon as a server can execute
        /// it. One that it may have executed, such as adding to a counter when the connection broke, is not.
        failover_wait: Seconds = Seconds::of(5),
        /// Whether to encrypt the connection and verify the server's certificate; with sentinels, for the
        /// connections to them as well. Certificates must name servers as sentinels and clusters do, often by
        /// address.
        tls: Truth = Truth(false),
        /// A PEM file of certificate authorities to trust in addition to those of the system.
        tls_ca: Option<String>,
        /// A PEM file with the certificate of the client, for a server that requires one
        /// (`tls-auth-clients`), followed by those of the authorities between it and the one that the server
        /// trusts. It is read at the start and at a reload that changes the block.
        tls_certificate: Option<String>,
        /// A PEM file with the key of `tls_certificate`, without a password.
        tls_key: Option<String>,
        /// Has no effect. It made the client library of the original print what it does; use `log_level = 4`
        /// instead.
        debug: Truth = Truth(false),
    }
    rules {
        Requires(sentinels, service),
        OnlyWith(service, sentinels),
        OnlyWith(sentinel_user, sentinels),
        OnlyWith(sentinel_password, sentinels),
        Overrides(cluster, sentinels, sock, server),
        Overrides(sentinels, sock, server),
        Overrides(sock, server),
    }
}

options! {
    /// Options of module Memcached.
    struct MemcachedOptions {
        /// The servers, `HOST:PORT` or paths of UNIX sockets, separated by commas; `=WEIGHT` after a server
        /// gives it that many times the keys. Each key is on one server, or on another while that one is
        /// down. Values that Perl's client has serialized or compressed can't be read and count as missing.
        servers: String = "127.0.0.1:11211",
        /// Prefix of every key.
        namespace: String = "",
        /// Maximum duration of one call; the deadline of the request ends it too.
        timeout: NonZeroSeconds = NonZeroSeconds(Seconds::of(1)),
        /// Has no effect. It made the client library of the original print what it does; use `log_level = 4`
        /// instead.
        debug: Truth = Truth(false),
    }
}

words! {
    /// Which aliases a search follows.
    enum DerefWord {
        Never = "never",
        Search = "search",
        Find = "find",
        Always = "always",
    }
}

options! {
    /// Options of module Ldap.
    struct LdapOptions {
        /// The server: a name or an address, with or without `:PORT`, or a URL: `ldap://HOST:PORT`,
        /// `ldaps://HOST:PORT`, which is encrypted from the beginning instead of by `starttls`, or
        /// `ldapi://%2Frun%2Fslapd%2Fldapi`, the path of a UNIX socket, which is never encrypted. Several are
        /// separated by commas or spaces; the next one is tried when one is unreachable, and beside it when
        /// it has not answered for a quarter of a second. A base or filter in a URL is ignored.
        host: String = "localhost",
        /// The port of servers that are written without one. Without it, 389, or 636 with `ldaps://`.
        port: Option<Limit>,
        /// Whether to keep the connection open for the next request.
        keepalive: Truth = Truth(true),
        /// Maximum duration of one call; the deadline of the request ends it too.
        timeout: NonZeroSeconds = NonZeroSeconds(Seconds::of(5)),
        /// The DN to bind as; without it the bind is anonymous.
        binddn: Option<String>,
        /// The password for `binddn`.
        password: Option<Secret>,
        /// Whether to encrypt the connection with StartTLS and verify the server's certificate before
        /// anything else is sent.
        starttls: Truth = Truth(true),
        /// A PEM file of certificate authorities to trust in addition to those of the system.
        tls_ca: Option<String>,
        /// Which aliases a search follows: none (`never`), those below the base (`search`), the base itself
        /// (`find`), or all (`always`).
        deref: DerefWord = DerefWord::Find,
    }
}

options! {
    /// Options of module Memory. A connection `memory` is there without a block.
    struct MemoryOptions {
        /// Maximum number of values; beyond it those that expire first are evicted.
        max_entries: Limit = Limit(super::DEFAULT_MAX_ENTRIES),
        /// Maximum amount of memory for the values, including what the store itself needs for them; beyond it
        /// those that expire first are evicted, which is logged at most once per minute. A greylisting ticket
        /// takes about 350 bytes.
        max_size: Size = super::DEFAULT_MAX_SIZE,
    }
}

/// The options of one kind, for the manual.
pub struct ModuleOptions {
    /// The heading.
    pub heading: &'static str,
    /// The options.
    pub options: Vec<OptionSpec>,
}

/// The options of all kinds, for the manual.
pub fn option_specs() -> Vec<ModuleOptions> {
    let all = [
        ("Options of every Connection block", ConnectionOptions::specs()),
        ("Connection, module Sql", SqlOptions::specs()),
        ("Connection, module Redis", RedisOptions::specs()),
        ("Connection, module Memcached", MemcachedOptions::specs()),
        ("Connection, module Ldap", LdapOptions::specs()),
        ("Connection, module Memory", MemoryOptions::specs()),
    ];
    all.into_iter().map(|(heading, options)| ModuleOptions { heading, options }).collect()
}

/// What a block says.
#[derive(Clone, PartialEq)]
pub(super) enum Settings {
    Sql(SqlSettings),
    Redis(RedisSettings),
    Memcached(MemcachedSettings),
    Ldap(LdapSettings),
    Memory(MemorySettings),
}

impl Settings {
    /// The settings of a block, or `None` after the mistakes were reported.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Settings> {
        match ConnectionOptions::read(section)?.module {
            Module::Sql => sql(SqlOptions::read(section)?, section),
            Module::Redis => redis(RedisOptions::read(section)?, section),
            Module::Memcached => {
                let options = MemcachedOptions::read(section)?;
                notice_debug(options.debug, section);
                Some(memcached(&options))
            }
            Module::Ldap => ldap(LdapOptions::read(section)?, section),
            Module::Memory => {
                let options = MemoryOptions::read(section)?;
                let MemoryOptions { max_entries, max_size } = options;
                Some(Settings::Memory(MemorySettings { max_entries: max_entries.0, max_bytes: max_size.0 }))
            }
        }
    }

    /// The connection; nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with which option.
    pub(super) fn open(&self, name: &str) -> Result<Connection, OptionError> {
        Ok(match self.clone() {
            Settings::Sql(settings) => Connection::Sql(Arc::new(Sql::new(name, settings)?)),
            Settings::Redis(settings) => Connection::Redis(Arc::new(Redis::new(name, settings)?)),
            Settings::Memcached(settings) => Connection::Memcached(Arc::new(Memcached::new(name, settings)?)),
            Settings::Ldap(settings) => Connection::Ldap(Arc::new(Ldap::new(name, settings)?)),
            Settings::Memory(settings) => Connection::Memory(Arc::new(Memory::new(name, settings))),
        })
    }
}

fn sql(options: SqlOptions, section: &Section<'_>) -> Option<Settings> {
    let durability = match options.durability {
        DurabilityWord::Full => Durability::Full,
        DurabilityWord::Process => Durability::Process,
    };
    Some(Settings::Sql(SqlSettings {
        dsn: options.dsn,
        user: options.user,
        password: options.password,
        timeout: options.timeout.0.duration(),
        max_connections: usize::try_from(options.max_connections.0).unwrap_or(usize::MAX),
        durability,
        tls_ca: options.tls_ca,
        identity: identity(options.tls_certificate, options.tls_key, section)?,
    }))
}

/// The certificate of the client, if it has one; `None` after the mistake was reported.
fn identity(
    certificate: Option<String>,
    key: Option<String>,
    section: &Section<'_>,
) -> Option<Option<Identity>> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(Some(Identity { certificate, key })),
        (None, None) => Some(None),
        (Some(_), None) => {
            section.missing("tls_key");
            None
        }
        (None, Some(_)) => {
            section.missing("tls_certificate");
            None
        }
    }
}

fn redis(options: RedisOptions, section: &Section<'_>) -> Option<Settings> {
    notice_debug(options.debug, section);
    let server = match (options.cluster, options.sentinels, options.service, options.sock) {
        (Some(nodes), ..) => RedisServer::Cluster(list(&nodes)),
        (None, Some(sentinels), Some(service), _) => {
            let (user, password) = (options.sentinel_user, options.sentinel_password);
            RedisServer::Sentinel { sentinels: list(&sentinels), service, user, password }
        }
        (.., Some(path)) => RedisServer::Unix(path),
        (.., None) => RedisServer::Tcp(options.server),
    };
    Some(Settings::Redis(RedisSettings {
        server,
        user: options.user,
        password: options.password,
        db: i64::try_from(options.db.0).unwrap_or(i64::MAX),
        prefix: options.prefix,
        timeout: options.timeout.0.duration(),
        failover_wait: options.failover_wait.duration(),
        tls: options.tls.0,
        tls_ca: options.tls_ca,
        identity: identity(options.tls_certificate, options.tls_key, section)?,
    }))
}

fn memcached(options: &MemcachedOptions) -> Settings {
    Settings::Memcached(MemcachedSettings {
        servers: list(&options.servers),
        namespace: options.namespace.clone(),
        timeout: options.timeout.0.duration(),
    })
}

fn ldap(options: LdapOptions, section: &Section<'_>) -> Option<Settings> {
    let port = options.port.map(|port| u16::try_from(port.0).map_err(|_| port)).transpose();
    let port = match port {
        Ok(port) => port,
        Err(wrong) => {
            section.refuse_option(OptionError::new("port", format!("{wrong} is not a port")));
            return None;
        }
    };
    let deref = match options.deref {
        DerefWord::Never => Deref::Never,
        DerefWord::Search => Deref::Search,
        DerefWord::Find => Deref::Find,
        DerefWord::Always => Deref::Always,
    };
    if let Some(path) = backends::ldap::ignored_path(&options.host) {
        let what = "the plugin's basedn and filter say what to look for";
        section.warn_as(&codes::NO_EFFECT, "host", format!("`{path}` is ignored; {what}"));
    }
    if options.binddn.is_some() && options.password.is_none() {
        let message = "binddn without password: the server takes it for nobody";
        section.report().say(&codes::NO_EFFECT, section.span_of("binddn"), message, None);
    }
    Some(Settings::Ldap(LdapSettings {
        host: options.host,
        port,
        keepalive: options.keepalive.0,
        timeout: options.timeout.0.duration(),
        binddn: options.binddn,
        password: options.password.unwrap_or_default(),
        starttls: options.starttls.0,
        tls_ca: options.tls_ca,
        deref,
    }))
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn notice_debug(debug: Truth, section: &Section<'_>) {
    if debug.0 {
        let help = "`log_level = 4` shows what is looked up".to_owned();
        let place = section.span_of("debug");
        section.report().say(&codes::NO_EFFECT, place, "debug: no effect here", Some(help));
    }
}

/// A block that would be the connection of that name.
pub(super) fn example(name: &str, module: Module) -> String {
    let option = match module {
        Module::Sql => "  dsn = \"dbi:SQLite:dbname=/var/lib/mtpolicyd/mtpolicyd.sqlite\"\n",
        Module::Redis => "  server = \"127.0.0.1:6379\"\n",
        Module::Memcached => "  servers = \"127.0.0.1:11211\"\n",
        Module::Ldap => "  host = \"localhost\"\n",
        Module::Memory => "",
    };
    format!("<Connection {name}>\n  module = \"{module}\"\n{option}</Connection>")
}
