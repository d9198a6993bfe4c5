//! The whole configuration file as values: listeners, virtual hosts, limits; all its mistakes at once.
//!
//! Knows: every option outside the plugins, and the list of plugins. Must not know: sockets, conversations.

mod globals;
mod hosts;
mod paths;
mod relative;
mod render;
mod secrets;
mod sessions;

pub use globals::{DnsOptions, Globals, LogFormat};
pub use hosts::{HostOptions, VirtualHost};
pub use paths::{Access, NamedPath};
pub use render::{Messages, Severity};
pub use sessions::option_specs as session_option_specs;

use crate::address::ListenAddress;
use crate::carry_over::{CarriedOver, CarryOver};
use crate::connections::Connections;
use crate::options::{Options, Report, Section};
use crate::plugin::{OnBadRequest, OnError, PluginEnv};
use crate::plugins::KINDS;
use crate::session::cache::{MemoryOptions, SharedOptions};
use crate::table_tasks;
use crate::tasks::{Task, Tasks};
use backends::dns::DnsSettings;
use backends::keyvalue::Store;
use config_general::{Block, Item, Limits};
use secrets::Secrecy;
use std::path::Path;

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
    /// What plugins and caches find by name.
    pub connections: Connections,
    /// What plugins want done without a request.
    pub tasks: Vec<Task>,
    /// What plugins have found out.
    pub carried_over: Vec<CarriedOver>,
    /// Files that are opened later.
    pub paths: Vec<NamedPath>,
}

/// Where sessions are kept.
#[derive(Clone)]
pub enum SessionSettings {
    /// Nowhere.
    None,
    /// In this process.
    Memory(MemoryOptions),
    /// In a store.
    Shared {
        /// The store.
        store: Store,
        /// How they are kept and locked there.
        options: SharedOptions,
        /// What becomes of a request while the store is unreachable.
        on_error: OnError,
    },
}

impl SessionSettings {
    /// Whether both keep sessions in memory, and alike.
    pub fn same_memory(&self, other: &SessionSettings) -> bool {
        match (self, other) {
            (SessionSettings::Memory(options), SessionSettings::Memory(theirs)) => options == theirs,
            _ => false,
        }
    }
}

impl Settings {
    /// Reads a configuration file: the settings with what was noticed about them, or what is wrong with the
    /// file.
    ///
    /// Connections of earlier settings stay open where nothing about them has changed, and plugins remember
    /// what they have found out.
    pub fn load(path: &Path, earlier: Option<&Settings>) -> Result<(Settings, Messages), Messages> {
        Settings::load_with(path, earlier, |_, _| ()).map(|(settings, messages, ())| (settings, messages))
    }

    /// The virtual hosts of a configuration file, with everything included and no surprise left: in the
    /// dialect itself, but without secrets.
    pub fn dump(path: &Path) -> Result<(String, Messages), Messages> {
        let hosts = |root: &Block, secrecy: &Secrecy<'_>| {
            let hosts = root.blocks().filter(|block| block.kind == "VirtualHost");
            let items = hosts.map(|host| Item::Block(secrecy.masked(host))).collect();
            config_general::to_text(&Block { items, ..Block::default() })
        };
        Settings::load_with(path, None, hosts).map(|(_, messages, text)| (text, messages))
    }

    fn load_with<T>(
        path: &Path,
        earlier: Option<&Settings>,
        also: impl FnOnce(&Block, &Secrecy<'_>) -> T,
    ) -> Result<(Settings, Messages, T), Messages> {
        let mut document = config_general::load(path, &Limits::default())
            .map_err(|failure| Messages::new(failure.sources, failure.diagnostics, &Secrecy::default()))?;
        let report = Report::default();
        relative::resolve(&mut document.root, &document.sources, &report);
        let mut settings = Settings::from_root(&document.root, earlier, &report);
        if let Some(settings) = &mut settings {
            settings.paths = paths::named(&document.root, &settings.addresses, &document.sources);
        }
        let hidden = secrets::check(&document.root, &document.sources, &report);
        let secrecy = Secrecy { root: Some(&document.root), hidden, plain: report.plain() };
        let also = also(&document.root, &secrecy);
        let mut diagnostics = document.diagnostics;
        diagnostics.extend(report.into_diagnostics());
        let messages = Messages::new(document.sources, diagnostics, &secrecy);
        match settings.filter(|_| !messages.has_errors()) {
            Some(settings) => Ok((settings, messages, also)),
            None => Err(messages),
        }
    }

    fn from_root(root: &Block, earlier: Option<&Settings>, report: &Report) -> Option<Settings> {
        let mut section = Section::new(root, report);
        globals::refuse_removed_options(&mut section);
        let globals = Globals::read(&mut section);
        globals::notice_prefork_options(&mut section);
        globals.iter().for_each(|globals| globals.warn_of_root(&section));
        let addresses = globals.as_ref().and_then(|globals| globals.addresses(&section));
        let dns = one_block(&mut section, "Dns").map_or(Some(DnsSettings::default()), globals::read_dns);
        let connections = Connections::read(&mut section, earlier.map(|earlier| &earlier.connections));
        let (known, tasks) = (&connections, Tasks::default());
        let carried_over = earlier.map(|earlier| CarryOver::after(&earlier.carried_over)).unwrap_or_default();
        let sessions = match one_block(&mut section, "SessionCache") {
            Some(block) => {
                let limit = globals.as_ref().map(|globals| globals.request_timeout.duration());
                sessions::read(block, known, limit.unwrap_or_default())
            }
            None => Some(SessionSettings::None),
        };
        if let Some(SessionSettings::Shared { store, .. }) = &sessions {
            table_tasks::expire_hourly(&tasks, "SessionCache", store);
        }
        let around = default_env(known, &tasks, &carried_over);
        let env = globals.as_ref().map_or(around, |globals| globals.env(around));
        let blocks = section.take_blocks("VirtualHost");
        if let (Some(globals), Some(addresses)) = (&globals, &addresses) {
            hosts::check(&blocks, globals, addresses, &section);
        }
        let hosts = hosts::read(&blocks, env, &section);
        section.finish();
        Some(Settings {
            globals: globals?,
            addresses: addresses?,
            hosts: hosts?,
            sessions: sessions?,
            dns: dns?,
            connections: connections.whole()?,
            tasks: tasks.into_list(),
            carried_over: carried_over.into_list(),
            paths: Vec::new(),
        })
    }

    /// The host that answers on an address, unless the policy context selects another.
    pub fn host(&self, key: &str, policy_context: Option<&[u8]>) -> Option<&VirtualHost> {
        let by_name = policy_context.filter(|_| self.globals.vhost_by_policy_context.0);
        let selected = by_name.and_then(|name| self.hosts.iter().find(|host| host.name.as_bytes() == name));
        selected.or_else(|| self.hosts.iter().find(|host| host.key == key))
    }
}

fn default_env<'a>(
    connections: &'a Connections,
    tasks: &'a Tasks,
    carried_over: &'a CarryOver,
) -> PluginEnv<'a> {
    PluginEnv {
        kinds: KINDS,
        on_error: Some(OnError::Close),
        on_bad_request: OnBadRequest::Defer,
        lookahead: true,
        log_level: 4,
        depth: 0,
        connections,
        tasks,
        carried_over,
    }
}

/// The only block of a kind; a second one is a mistake.
fn one_block<'a>(section: &mut Section<'a>, kind: &str) -> Option<Section<'a>> {
    let report = section.report();
    let blocks = section.take_blocks(kind);
    for again in blocks.iter().skip(1) {
        report.error(again.span, format!("block <{kind}> occurs more than once"), None);
    }
    blocks.first().map(|block| Section::new(block, report))
}
