//! The options outside the virtual hosts: process, listeners, limits, session cache, name service.
//!
//! Knows: the names and defaults of the original. Must not know: plugins.

use crate::address::{AddressError, ListenAddress};
use crate::log::{LogAddresses, MAX_LEVEL};
use crate::options::{Options, Section, codes, options};
use crate::plugin::{OnBadRequest, OnError, PluginEnv};
use crate::value::{Count, Limit, NonZeroSeconds, Seconds, Switch, Truth, Value, ZeroIsNone, words};
use backends::OptionError;
use backends::dns::{DEFAULT_CACHE_SIZE, DnsSettings};
use config_general::Entry;
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

options! {
    /// Options outside all blocks.
    pub struct Globals {
        /// Where to listen: ports, separated by commas. A port is `12345` or `127.0.0.1:12345` or
        /// `[::1]:12345` for TCP, or `/path/to/socket|unix` for a UNIX socket.
        port: String = "127.0.0.1:12345",
        /// Address to listen on for ports that are written without one.
        host: Option<String>,
        /// The user to run as, once the sockets are open. Without it the daemon keeps the user that started
        /// it.
        user: Option<String>,
        /// The group to run as; further groups, separated by spaces, are supplementary groups.
        group: Option<String>,
        /// The directory to confine the daemon to with chroot(2).
        chroot: Option<String>,
        /// Where to write the process id. The file is removed at the end; if `user` may not remove files from
        /// its folder, it stays there, empty.
        pid_file: Option<String>,
        /// How much to log: 0 for errors, 1 for warnings and a line for each request, 2 for notices, 3 for
        /// information, 4 for what the plugins find and how long each of them took. `docs/log.md` has every
        /// message.
        log_level: LogLevel = LogLevel(2),
        /// The log file. Without it the daemon logs to the system log (facility `mail`) in the background
        /// and to the standard output in the foreground. SIGHUP reopens the file.
        log_file: Option<String>,
        /// How much the line of each request shows of sender, recipient and login: `full`, `domain` (what is
        /// behind the `@`), or `off`. It does not affect what plugins log at higher levels.
        log_addresses: LogAddresses = LogAddresses::Full,
        /// Whether to log the libraries for DNS, TLS and others too, at level 4. They log a great deal, and
        /// may show what they were given, such as full names with customer keys in them.
        log_internals: Switch = Switch::Off,
        /// The format of log lines.
        log_format: LogFormat = LogFormat::Text,
        /// How long a request may take, from its first byte to the answer. Keep it below the `timeout` in
        /// main.cf, so that Postfix gets an answer. 0 means 100 seconds, after which Postfix gives up by
        /// default.
        request_timeout: ZeroIsNone<Seconds> = Seconds::of(20),
        /// How long an idle connection is kept open; 0 means forever. A request whose first bytes have
        /// arrived must be complete within this time, too.
        keepalive_timeout: ZeroIsNone<Seconds> = Seconds::of(60),
        /// Maximum number of requests per connection; 0 means no limit.
        max_keepalive: ZeroIsNone<Count> = Count(0),
        /// Maximum number of open client connections. Without it, as many as the limit of open files allows.
        max_connections: Option<Limit>,
        /// Number of threads that serve requests, from 1 to 1024. Without it, one for each CPU that the
        /// daemon may use. More threads make nothing faster; fewer leave CPUs to other programs.
        worker_threads: Option<Threads>,
        /// Whether the attribute `policy_context` of a request selects the virtual host by its name.
        vhost_by_policy_context: Truth = Truth(false),
        /// The user that owns the UNIX sockets. Without it, the user that starts the daemon.
        socket_owner: Option<String>,
        /// The group that owns the UNIX sockets. Without it, the group that starts the daemon.
        socket_group: Option<String>,
        /// The access mode of the UNIX sockets. Postfix runs as another user, so by default everybody may
        /// connect; restrict the directory of the socket instead.
        socket_mode: Mode = Mode(0o666),
        /// What happens to a request when something that a plugin needs does not work; described under the
        /// options of every plugin.
        on_error: OnError = OnError::Close,
        /// What to do with a message that a plugin can't judge because of the request itself: see the
        /// options of every plugin.
        on_bad_request: OnBadRequest = OnBadRequest::Defer,
        /// Whether the daemon itself runs the hourly, daily, weekly and monthly tasks of the plugins, which
        /// `mtpolicyd --cron` runs otherwise. By default it does, unless the file /etc/cron.d/mtpolicyd has
        /// a line that runs this program.
        cron: Option<Switch>,
        /// Whether to start lookups before it is their plugin's turn, so that many lists cost one round trip.
        lookahead: Switch = Switch::On,
        /// A text behind every rejection and deferral, such as `" (ref %ID%)"`: the sender can quote the
        /// identifier, and `mtpolicyd explain` shows what it stands for. `%ID%` in any other action is
        /// replaced as well.
        reply_suffix: Option<String>,
        /// Whether the line of each request ends with the identifier of its decision.
        log_id: Switch = Switch::On,
        /// The number of this daemon, 0 to 15: daemons that share stores need different ones, so that each
        /// decision has an identifier of its own. Without it, the number follows from the name of the host.
        node: Option<Node>,
    }
}

options! {
    /// Options of the `<Dns>` block.
    pub struct DnsOptions {
        /// Addresses of name servers, separated by commas, with a port if it is not 53: `127.0.0.1,
        /// [::1]:5353`. Without it, those of /etc/resolv.conf.
        servers: Option<Servers>,
        /// How long to wait for one server before asking the next. Without it, as /etc/resolv.conf says, or
        /// 5 s. A server that did not answer is asked last until it answers again, so this time is lost once.
        timeout: Option<NonZeroSeconds>,
        /// How often to ask each server that does not answer. Without it, as /etc/resolv.conf says, or 2.
        attempts: Option<Limit>,
        /// Maximum memory for cached answers, in KiB. Most answers need less than half a KiB.
        cache_size: Count = Count(DEFAULT_CACHE_SIZE),
        /// Whether to trust the servers when they say (by the AD flag) that they have validated an answer
        /// with DNSSEC; TLSA and OPENPGPKEY records depend on it. Without it, they are trusted if all have
        /// loopback addresses, since on the way from other servers anybody can set the flag, or if
        /// /etc/resolv.conf says `options trust-ad`.
        trust_ad: Option<Switch>,
        /// Whether each query is sent from a UDP port of its own. Without it the queries of one request share
        /// a random port; above 128 requests per second ports are reused, for at most 10 s or 64 queries.
        /// Either way an attacker who forges answers without seeing the queries has to guess the port, the
        /// identifier and the case of the letters. With `on`, knowing a port that is open does not help the
        /// attacker, and each query takes about five times as much processor time.
        fresh_ports: Switch = Switch::Off,
    }
}

words! {
    /// The format of log lines.
    pub enum LogFormat {
        /// As the original writes it.
        Text = "text",
        /// As a JSON object.
        Json = "json",
    }
}

/// A level of the log, 0 to 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLevel(pub u8);

impl std::fmt::Display for LogLevel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl Value for LogLevel {
    const FORM: &'static str = "`0` to `4`";
    fn parse(text: &str) -> Result<Self, String> {
        // There is no more to say than at 4, so a higher level says it, as in the original.
        let level = text.parse().map(|level: u8| LogLevel(level.min(MAX_LEVEL)));
        level.map_err(|_| format!("`{text}` is not a level from 0 to 4"))
    }
}

/// A number of threads, 1 to 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads(pub u16);

impl std::fmt::Display for Threads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl Value for Threads {
    const FORM: &'static str = "whole number, 1 to 1024";
    fn parse(text: &str) -> Result<Self, String> {
        const MOST: u16 = 1024;
        let threads = text.parse().ok().filter(|threads| (1..=MOST).contains(threads));
        threads.map(Threads).ok_or_else(|| format!("`{text}` is not a whole number from 1 to {MOST}"))
    }
}

/// The number of a daemon among several, 0 to 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node(pub u8);

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
impl Value for Node {
    const FORM: &'static str = "whole number, 0 to 15";
    fn parse(text: &str) -> Result<Self, String> {
        let node = text.parse().ok().filter(|node| *node <= decisions::MAX_NODE);
        node.map(Node)
            .ok_or_else(|| format!("`{text}` is not a whole number from 0 to {}", decisions::MAX_NODE))
    }
}

/// An access mode in octal digits, as chmod(1) takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}
impl Value for Mode {
    const FORM: &'static str = "octal access mode";
    fn parse(text: &str) -> Result<Self, String> {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
        mode.map(Mode).ok_or_else(|| format!("`{text}` is not an access mode such as 0660"))
    }
}

/// Name servers: addresses with an optional port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers(Vec<SocketAddr>);

impl std::fmt::Display for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<_> = self.0.iter().map(SocketAddr::to_string).collect();
        f.write_str(&all.join(", "))
    }
}
impl Value for Servers {
    const FORM: &'static str = "addresses, with or without port, separated by commas";
    fn parse(text: &str) -> Result<Self, String> {
        const DNS_PORT: u16 = 53;
        let server = |text: &str| {
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            let with_port = || bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, DNS_PORT)).ok();
            text.parse()
                .ok()
                .or_else(with_port)
                .ok_or_else(|| format!("`{text}` is not the address of a name server"))
        };
        text.split(',').map(|text| server(text.trim())).collect::<Result<_, _>>().map(Servers)
    }
}

/// What a request may take where `request_timeout = 0` sets no limit: Postfix itself gives up then
/// (`smtpd_policy_service_timeout`).
const LONGEST_REQUEST: Duration = Duration::from_secs(100);

impl Globals {
    /// How long a request may take.
    pub fn longest_request(&self) -> Duration {
        self.request_timeout.0.map_or(LONGEST_REQUEST, Seconds::duration)
    }

    /// The listeners, or `None` after the mistake was reported.
    pub(super) fn addresses(&self, section: &Section<'_>) -> Option<Vec<ListenAddress>> {
        let refused = |why: AddressError| {
            section.refuse_option(OptionError::new(why.option, why));
        };
        let addresses = ListenAddress::parse_list(&self.port, self.host.as_deref()).map_err(refused).ok()?;
        for path in addresses.iter().filter_map(ListenAddress::relative_path) {
            let message = format!(
                "port: `{}` depends on the folder in which the daemon is started, as in mtpolicyd 2",
                path.display()
            );
            let help = "write the full path here, in `<VirtualHost>` and in main.cf".to_owned();
            let place = section.span_of("port");
            section.report().say(&codes::text::RELATIVE_PATH, place, message, Some(help));
        }
        Some(addresses)
    }

    /// Warns where root stays root although the file looks as if it did not.
    pub(super) fn warn_of_root(&self, section: &Section<'_>) {
        if self.user.is_some() {
            return;
        }
        let help = || Some("set `user` too".to_owned());
        if self.chroot.is_some() {
            let message = "chroot without `user`: the daemon stays root, and a chroot does not hold root";
            section.report().say(&codes::STILL_ROOT, section.span_of("chroot"), message, help());
        }
        if self.group.is_some() {
            let message = "group without `user`: a daemon that root starts stays root";
            section.report().say(&codes::STILL_ROOT, section.span_of("group"), message, help());
        }
    }

    /// The number of this daemon.
    pub fn node(&self) -> u8 {
        self.node.map_or_else(node_of_host, |node| node.0)
    }

    /// What is worth knowing for who starts the daemon as root, if this process is root.
    pub fn as_root(&self) -> Option<&'static str> {
        let stays_root = self.user.is_none() && nix::unistd::Uid::effective().is_root();
        stays_root.then_some(
            "no `user` is set: a daemon that root starts stays root; set `user` and `group`, or have it \
             started as another user (`User=` of systemd)",
        )
    }

    /// What the plugins take from here, beside what is there without this file.
    pub(super) fn env<'a>(&self, around: PluginEnv<'a>) -> PluginEnv<'a> {
        let lookahead = self.lookahead == Switch::On;
        let on_bad_request = self.on_bad_request;
        PluginEnv { on_error: Some(self.on_error), on_bad_request, lookahead, ..around }
    }
}

/// A number that follows from the name of the host, so that most daemons of a cluster differ unasked.
fn node_of_host() -> u8 {
    let name = nix::unistd::gethostname().unwrap_or_default();
    Sha256::digest(name.as_encoded_bytes())[0] % (decisions::MAX_NODE + 1)
}

/// Options of the prefork model of the original: there are no child processes to tune here.
const PREFORK_OPTIONS: &[&str] =
    &["min_servers", "min_spare_servers", "max_spare_servers", "max_servers", "max_requests"];

/// Other options of the libraries that the original is made of, Net::Server and its prefork model.
const NET_SERVER_OPTIONS: &[&str] = &[
    "background",
    "setsid",
    "check_for_dead",
    "check_for_waiting",
    "check_for_dequeue",
    "max_dequeue",
    "child_communication",
    "min_child_ttl",
    "serialize",
    "semaphore",
    "lock_file",
    "listen",
    "proto",
    "ipv",
    "reverse_lookups",
    "double_reverse_lookups",
    "allow",
    "deny",
    "cidr_allow",
    "cidr_deny",
    "no_close_by_child",
    "no_client_stdout",
    "tie_client_stdout",
    "leave_children_open_on_hup",
    "sig_passthrough",
    "syslog_logsock",
    "syslog_ident",
    "syslog_logopt",
    "syslog_facility",
];

pub(super) fn notice_prefork_options(section: &mut Section<'_>) {
    let why = "one process serves all connections";
    let help = "they may be removed; `max_connections` limits connections";
    notice_without_effect(PREFORK_OPTIONS, why, help, section);
    let help = "they may be removed; who may connect depends on `host` and the firewall";
    notice_without_effect(NET_SERVER_OPTIONS, "there is no Net::Server here", help, section);
}

fn notice_without_effect(options: &[&str], why: &str, help: &str, section: &mut Section<'_>) {
    let given: Vec<_> = options.iter().filter_map(|name| section.take(name)).collect();
    if let Some(first) = given.first() {
        let names: Vec<_> = given.iter().map(|entry| entry.key.as_str()).collect();
        let message = format!("{}: no effect, {why}", names.join(", "));
        let help = Some(help.to_owned());
        section.report().say(&codes::NO_EFFECT_ANY_MORE, first.key_span, message, help);
    }
}

/// Options of 1.x by their beginning, and the block of 2.x that took their place: its tag, its module, and
/// what it needs.
const REMOVED_OPTIONS: &[Removed] = &[
    Removed { start: "db_", block: "Connection db", module: "Sql", needs: &["dsn", "user", "password"] },
    Removed { start: "memcached_", block: "Connection memcached", module: "Memcached", needs: &["servers"] },
    Removed { start: "session_", block: "SessionCache", module: "Memcached", needs: &[] },
    Removed {
        start: "ldap_",
        block: "Connection ldap",
        module: "Ldap",
        needs: &["host", "binddn", "password"],
    },
];

struct Removed {
    start: &'static str,
    block: &'static str,
    module: &'static str,
    needs: &'static [&'static str],
}

impl Removed {
    /// The block with the values that were given, but without secrets.
    fn replacement(&self, given: &[&Entry]) -> String {
        let mut lines = vec![format!("<{}>", self.block), format!("  module = \"{}\"", self.module)];
        let mut missing = self.needs.to_vec();
        for entry in given {
            let name = entry.key.strip_prefix(self.start).unwrap_or(SESSION_EXPIRE.1);
            missing.retain(|needed| *needed != name);
            let value = match entry.value.as_deref() {
                Some(value) if !super::secrets::may_have_password(name, value) => value.to_owned(),
                _ => name.to_uppercase(),
            };
            lines.push(format!("  {name} = \"{value}\""));
        }
        lines.extend(missing.iter().map(|name| format!("  {name} = \"{}\"", name.to_uppercase())));
        let kind = self.block.split(' ').next().unwrap_or_default();
        lines.push(format!("</{kind}>"));
        lines.join("\n")
    }
}

/// The option of 1.x for the lifetime of sessions, and its name in `<SessionCache>`, where it is now.
const SESSION_EXPIRE: (&str, &str) = ("memcached_expire", "expire");

/// Each option is a mistake; the first of each kind shows the block to write instead.
pub(super) fn refuse_removed_options(section: &mut Section<'_>) {
    for removed in REMOVED_OPTIONS {
        let given = section.take_where(|key| match key == SESSION_EXPIRE.0 {
            true => removed.block == "SessionCache",
            false => key.starts_with(removed.start),
        });
        for (n, entry) in given.iter().enumerate() {
            let message = format!("the option `{}` of mtpolicyd 1.x is gone since 2.00", entry.key);
            let help = match n {
                0 => format!("write instead:\n{}", removed.replacement(&given)),
                _ => format!("it belongs into the block that `{}` shows", given[0].key),
            };
            section.report().say(&codes::REMOVED_OPTION, entry.key_span, message, Some(help));
        }
    }
}

pub(super) fn read_dns(mut section: Section<'_>) -> Option<DnsSettings> {
    let options = DnsOptions::read(&mut section);
    section.finish();
    let DnsOptions { servers, timeout, attempts, cache_size, trust_ad, fresh_ports } = options?;
    Some(DnsSettings {
        servers: servers.map(|servers| servers.0).unwrap_or_default(),
        timeout: timeout.map(|timeout| timeout.0.duration()),
        attempts: attempts.map(|attempts| attempts.0 as usize),
        cache_size: cache_size.0,
        trust_ad: trust_ad.map(|switch| switch == Switch::On),
        fresh_ports: fresh_ports == Switch::On,
    })
}
