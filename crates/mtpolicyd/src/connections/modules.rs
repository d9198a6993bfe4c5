//! The kinds of connections and their options.
//!
//! Knows: names and defaults of the original, what opens each kind. Must not know: plugins.

use crate::options::{OptionSpec, Options, Section, options};
use crate::value::{Count, Limit, Seconds, Size, Span, Truth, words};
use backends::keyvalue::{
    Memcached, MemcachedSettings, Memory, MemorySettings, Redis, RedisServer, RedisSettings,
};
use backends::ldap::{Deref, Ldap, LdapSettings};
use backends::sql::{Durability, Sql, SqlSettings};
use backends::{BackendError, Secret};
use std::sync::Arc;
use tokio::time::Instant;

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
    pub(super) async fn ping(&self, deadline: Instant) -> Result<(), BackendError> {
        match self {
            Connection::Sql(sql) => sql.ping(deadline).await,
            Connection::Redis(redis) => redis.ping(deadline).await,
            Connection::Memcached(memcached) => memcached.ping(deadline).await,
            Connection::Ldap(ldap) => ldap.ping(deadline).await,
            Connection::Memory(_) => Ok(()),
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
        /// (`host=a,b;target_session_attrs=read-write`).
        ///
        /// `mysql_ssl=1` turns encryption on; `mysql_ssl_ca_file` or `tls_ca` also has the server's
        /// certificate and name verified. `sslmode` and `sslrootcert` of PostgreSQL have the meaning that
        /// they have in libpq; client certificates and revocation lists are not supported. A certificate
        /// that is verified must be of version 3 and have the server's name in `subjectAltName`: a name in
        /// CN alone does not count. One that the server has signed itself may be named, for PostgreSQL.
        ///
        /// `mysql_init_command` is run on each connection. `mysql_read_default_file=FILE` reads user,
        /// password, host, port, socket and TLS options from the `[client]` groups of an option file and
        /// from `mysql_read_default_group`.
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
        /// Maximum duration of one call; the deadline of the request ends it too.
        timeout: Span = Span(Seconds(5)),
        /// Maximum number of connections to a server.
        max_connections: Limit = Limit(10),
        /// When a change in SQLite counts as written: `full`, when it is on the disk, so that it survives a
        /// power failure; `process`, when the operating system has it, so that it survives a crash of the
        /// daemon.
        durability: DurabilityWord = DurabilityWord::Full,
        /// A PEM file of certificate authorities to trust in addition to those of the system.
        tls_ca: Option<String>,
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
        /// are enough. The user of the sentinels needs `SENTINEL|GET-MASTER-ADDR-BY-NAME`.
        user: Option<String>,
        /// The password, if the server requires one.
        password: Option<Secret>,
        /// The number of the database.
        db: Count = Count(0),
        /// Prefix of every key, so that several installations can share a server: `mx1:`. The original uses
        /// no prefix for tickets, sessions and locks.
        prefix: String = "",
        /// Maximum duration of one call; the deadline of the request ends it too.
        timeout: Span = Span(Seconds(1)),
        /// Whether to encrypt the connection and verify the server's certificate; with sentinels, for the
        /// connections to them as well. Certificates must name servers as sentinels and clusters do, often by
        /// address.
        tls: Truth = Truth(false),
        /// A PEM file of certificate authorities to trust in addition to those of the system.
        tls_ca: Option<String>,
        /// Has no effect. It made the client library of the original print what it does; use `log_level = 4`
        /// instead.
        debug: Truth = Truth(false),
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
        timeout: Span = Span(Seconds(1)),
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
        timeout: Span = Span(Seconds(5)),
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
            Module::Sql => SqlOptions::read(section).map(sql),
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

    /// The connection; nothing is sent yet. The error says what is wrong with a setting.
    pub(super) fn open(&self, name: &str) -> Result<Connection, String> {
        Ok(match self.clone() {
            Settings::Sql(settings) => Connection::Sql(Arc::new(Sql::new(name, settings)?)),
            Settings::Redis(settings) => Connection::Redis(Arc::new(Redis::new(name, settings)?)),
            Settings::Memcached(settings) => Connection::Memcached(Arc::new(Memcached::new(name, settings)?)),
            Settings::Ldap(settings) => Connection::Ldap(Arc::new(Ldap::new(name, settings)?)),
            Settings::Memory(settings) => Connection::Memory(Arc::new(Memory::new(name, settings))),
        })
    }
}

fn sql(options: SqlOptions) -> Settings {
    let durability = match options.durability {
        DurabilityWord::Full => Durability::Full,
        DurabilityWord::Process => Durability::Process,
    };
    Settings::Sql(SqlSettings {
        dsn: options.dsn,
        user: options.user,
        password: options.password,
        timeout: options.timeout.0.duration(),
        max_connections: usize::try_from(options.max_connections.0).unwrap_or(usize::MAX),
        durability,
        tls_ca: options.tls_ca,
    })
}

fn redis(options: RedisOptions, section: &Section<'_>) -> Option<Settings> {
    notice_debug(options.debug, section);
    let server = match (options.cluster, options.sentinels, options.service, options.sock) {
        (Some(nodes), ..) => RedisServer::Cluster(list(&nodes)),
        (None, Some(sentinels), Some(service), _) => {
            let (user, password) = (options.sentinel_user, options.sentinel_password);
            RedisServer::Sentinel { sentinels: list(&sentinels), service, user, password }
        }
        (None, Some(_), None, _) => {
            section.missing("service");
            return None;
        }
        (None, None, _, Some(path)) => RedisServer::Unix(path),
        (None, None, _, None) => RedisServer::Tcp(options.server),
    };
    Some(Settings::Redis(RedisSettings {
        server,
        user: options.user,
        password: options.password,
        db: i64::try_from(options.db.0).unwrap_or(i64::MAX),
        prefix: options.prefix,
        timeout: options.timeout.0.duration(),
        tls: options.tls.0,
        tls_ca: options.tls_ca,
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
            section.report().error(section.span_of("port"), format!("port: {wrong} is not a port"), None);
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
        let message =
            format!("host: `{path}` is ignored; the plugin's basedn and filter say what to look for");
        section.report().warning(section.span_of("host"), message, None);
    }
    if options.binddn.is_some() && options.password.is_none() {
        let message = "binddn without password: the server takes it for nobody";
        section.report().warning(section.span_of("binddn"), message, None);
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
        section.report().warning(section.span_of("debug"), "debug: no effect here", Some(help));
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
