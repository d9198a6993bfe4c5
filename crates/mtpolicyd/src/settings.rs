//! The whole configuration file as values: listeners, virtual hosts, limits; all its mistakes at once.
//!
//! Knows: every option outside the plugins, and the list of plugins. Must not know: sockets, conversations.

mod globals;
mod render;

pub use globals::{DnsOptions, Globals, LogFormat, SessionOptions};
pub use render::{Messages, Severity};

use crate::address::ListenAddress;
use crate::chain::Chain;
use crate::options::{Options, Report, Section, options};
use crate::plugin::{OnError, Surroundings};
use crate::plugins::KINDS;
use crate::value::{Switch, words};
use crate::world::dns::DnsSettings;
use config_general::{Block, Item, Limits};
use std::path::Path;
use std::time::Duration;

/// A configuration that may be used.
pub struct Settings {
    /// The options outside all blocks.
    pub globals: Globals,
    /// Where to listen, in file order.
    pub addresses: Vec<ListenAddress>,
    /// Who answers, in file order.
    pub hosts: Vec<VirtualHost>,
    /// Where sessions are kept.
    pub sessions: SessionSettings,
    /// How names are looked up.
    pub dns: DnsSettings,
}

/// Where sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionSettings {
    /// Nowhere.
    None,
    /// In this process.
    Memory {
        /// How long after their last use.
        expire: Duration,
        /// How many at most.
        max_sessions: u64,
    },
}

/// The chain of plugins behind a port, or behind a policy context.
pub struct VirtualHost {
    /// The port, or the path of the socket, as its tag says.
    pub key: String,
    /// Its name in the log, and the policy context that selects it.
    pub name: String,
    /// What a failing plugin does to the request where the plugin does not say.
    pub on_error: OnError,
    /// Its plugins.
    pub chain: Chain,
}

options! {
    /// Options of a `<VirtualHost PORT>` block.
    pub struct HostOptions {
        /// The name in the log; with `vhost_by_policy_context` also the policy context that selects this
        /// host.
        name: String,
        /// What a failing plugin does to the request; without it the global setting holds.
        on_error: Option<OnError>,
        /// Whether lookups may start before their plugin's turn; without it the global setting holds.
        lookahead: Option<Switch>,
    }
}

words! {
    /// The kinds of connection that the original has.
    enum ConnectionKind {
        Sql = "Sql",
        Redis = "Redis",
        Memcached = "Memcached",
        Ldap = "Ldap",
    }
}

options! {
    /// The one option that every `<Connection NAME>` block has.
    struct ConnectionOptions {
        /// What kind of backend it is.
        module: ConnectionKind,
    }
}

impl Settings {
    /// Reads a configuration file: the settings with what was noticed about them, or what is wrong with the
    /// file.
    pub fn load(path: &Path) -> Result<(Settings, Messages), Messages> {
        Settings::load_with(path, |_| ()).map(|(settings, messages, ())| (settings, messages))
    }

    /// The virtual hosts of a configuration file, with everything included and no surprise left: in the
    /// dialect itself.
    pub fn dump(path: &Path) -> Result<(String, Messages), Messages> {
        let hosts = |root: &Block| {
            let hosts = root.blocks().filter(|block| block.kind == "VirtualHost").cloned();
            config_general::to_text(&Block { items: hosts.map(Item::Block).collect(), ..Block::default() })
        };
        Settings::load_with(path, hosts).map(|(_, messages, text)| (text, messages))
    }

    fn load_with<T>(
        path: &Path,
        also: impl FnOnce(&Block) -> T,
    ) -> Result<(Settings, Messages, T), Messages> {
        let document = config_general::load(path, &Limits::default())
            .map_err(|failure| Messages::new(failure.sources, failure.diagnostics))?;
        let report = Report::default();
        let settings = Settings::from_root(&document.root, &report);
        let also = also(&document.root);
        let mut diagnostics = document.diagnostics;
        diagnostics.extend(report.into_diagnostics());
        let messages = Messages::new(document.sources, diagnostics);
        match settings.filter(|_| !messages.has_errors()) {
            Some(settings) => Ok((settings, messages, also)),
            None => Err(messages),
        }
    }

    fn from_root(root: &Block, report: &Report) -> Option<Settings> {
        let mut section = Section::new(root, report);
        globals::refuse_removed_options(root, report);
        let globals = Globals::read(&mut section);
        globals::notice_prefork_options(&mut section);
        let addresses = globals.as_ref().and_then(|globals| globals.addresses(&section));
        let dns = one_block(&mut section, "Dns").map_or(Some(DnsSettings::default()), globals::read_dns);
        let sessions = one_block(&mut section, "SessionCache")
            .map_or(Some(SessionSettings::None), globals::read_sessions);
        read_connections(&mut section);
        let surroundings = globals.as_ref().map(Globals::surroundings);
        let hosts = read_hosts(&mut section, surroundings.unwrap_or(DEFAULT_SURROUNDINGS));
        section.finish();
        let settings = Settings {
            globals: globals?,
            addresses: addresses?,
            hosts: hosts?,
            sessions: sessions?,
            dns: dns?,
        };
        settings.check_hosts(root, report);
        Some(settings)
    }

    /// The host that answers on an address, unless the policy context selects another.
    pub fn host(&self, key: &str, policy_context: Option<&[u8]>) -> Option<&VirtualHost> {
        let by_name = policy_context.filter(|_| self.globals.vhost_by_policy_context.0);
        let selected = by_name.and_then(|name| self.hosts.iter().find(|host| host.name.as_bytes() == name));
        selected.or_else(|| self.hosts.iter().find(|host| host.key == key))
    }

    /// Every port needs a host; hosts of one port need different names, and a context to tell them apart.
    fn check_hosts(&self, root: &Block, report: &Report) {
        let blocks: Vec<_> = root.blocks().filter(|block| block.kind == "VirtualHost").collect();
        for (n, (host, block)) in self.hosts.iter().zip(&blocks).enumerate() {
            let mut earlier = self.hosts[..n].iter().filter(|other| other.key == host.key).peekable();
            let by_context = self.globals.vhost_by_policy_context.0;
            if earlier.peek().is_some() && (!by_context || earlier.any(|other| other.name == host.name)) {
                let help =
                    "hosts of one port need `vhost_by_policy_context = 1` and different names".to_owned();
                report.error(
                    block.span,
                    format!("VirtualHost {} occurs more than once", host.key),
                    Some(help),
                );
            }
            let heard = self.addresses.iter().any(|address| address.vhost_key() == host.key);
            if !heard && !by_context {
                let message = format!("VirtualHost {} is never asked: no `port` leads to it", host.key);
                report.warning(block.span, message, None);
            }
        }
        for address in &self.addresses {
            let key = address.vhost_key();
            if !self.hosts.iter().any(|host| host.key == key) {
                let entry = root.entries().find(|entry| entry.key == "port");
                let span = entry.map_or(root.span, |entry| entry.value_span);
                let help = format!("add a block `<VirtualHost {key}>`");
                report.error(span, format!("no VirtualHost answers on port {key} ({address})"), Some(help));
            }
        }
    }
}

const DEFAULT_SURROUNDINGS: Surroundings =
    Surroundings { kinds: KINDS, on_error: OnError::Close, lookahead: true, log_level: 4, depth: 0 };

/// The only block of a kind; a second one is a mistake.
fn one_block<'a>(section: &mut Section<'a>, kind: &str) -> Option<Section<'a>> {
    let report = section.report();
    let blocks = section.take_blocks(kind);
    for again in blocks.iter().skip(1) {
        report.error(again.span, format!("block <{kind}> occurs more than once"), None);
    }
    blocks.first().map(|block| Section::new(block, report))
}

/// Connections are checked as far as this version knows them, and named, since nothing uses them yet.
fn read_connections(section: &mut Section<'_>) {
    let report = section.report();
    let mut names = std::collections::BTreeSet::new();
    for block in section.take_blocks("Connection") {
        let mut connection = Section::new(block, report);
        let name = connection.name();
        if name.is_empty() {
            let help = "write `<Connection NAME>`; plugins and caches find it by that name".to_owned();
            connection.refuse("a connection has no name", Some(help));
        }
        if !names.insert(name) {
            connection.refuse(format!("connection `{name}` occurs more than once"), None);
        }
        if let Some(ConnectionOptions { module }) = ConnectionOptions::read(&mut connection) {
            let message = format!("connection `{name}` is not used: no module of this version asks {module}");
            report.warning(block.span, message, None);
        }
    }
}

fn read_hosts(section: &mut Section<'_>, surroundings: Surroundings) -> Option<Vec<VirtualHost>> {
    let blocks = section.take_blocks("VirtualHost");
    if blocks.is_empty() {
        let help = "add a block `<VirtualHost 12345>` with a name and its plugins".to_owned();
        section.refuse("no VirtualHost is configured", Some(help));
        return None;
    }
    let report = section.report();
    let hosts: Vec<_> = blocks.into_iter().map(|block| read_host(block, report, surroundings)).collect();
    hosts.into_iter().collect()
}

fn read_host(block: &Block, report: &Report, surroundings: Surroundings) -> Option<VirtualHost> {
    let mut section = Section::new(block, report);
    let key = section.name().to_owned();
    if key.is_empty() {
        let help = "write `<VirtualHost 12345>`, or the path of the UNIX socket".to_owned();
        section.refuse("a VirtualHost has no port", Some(help));
    }
    let options = HostOptions::read(&mut section);
    let on_error = options.as_ref().and_then(|o| o.on_error).unwrap_or(surroundings.on_error);
    let lookahead = options.as_ref().and_then(|o| o.lookahead);
    let lookahead = lookahead.map_or(surroundings.lookahead, |switch| switch == Switch::On);
    let chain = Chain::from_section(&mut section, Surroundings { on_error, lookahead, ..surroundings });
    if chain.as_ref().is_some_and(Chain::is_empty) {
        let help = "add at least one <Plugin NAME> block".to_owned();
        section.refuse(format!("VirtualHost {key} has no plugin"), Some(help));
    }
    section.finish();
    Some(VirtualHost { key, name: options?.name, on_error, chain: chain? })
}
