//! The whole configuration file as values: listeners, virtual hosts, limits; all its mistakes at once.
//!
//! Knows: every option outside the plugins, and the list of plugins. Must not know: sockets, conversations.

mod allow;
mod console;
mod control;
mod doubts;
mod fingerprint;
mod globals;
mod hosts;
mod journal;
mod labels;
mod metrics;
mod notify;
mod paths;
mod relative;
mod render;
mod secrets;
mod sessions;
mod shadows;
mod shared;
mod steps;

pub use console::ConsoleOptions;
pub use control::{ControlOptions, Level, default_socket, socket_of_file};
pub use globals::{DnsOptions, Globals, LogFormat, Threads};
pub use hosts::{HostOptions, VirtualHost};
pub use journal::{JournalOptions, JournalSettings};
pub use labels::Labels;
pub use metrics::MetricsOptions;
pub use notify::{MailAddress, NotifyOptions, NotifySettings, Way};
pub use paths::{Access, NamedPath};
pub use render::{Finding, Messages, Severity};
pub use sessions::option_specs as session_option_specs;
pub use shadows::ShadowFile;
pub use shared::Secrets;

use crate::address::ListenAddress;
use crate::carry_over::{CarriedOver, CarryOver};
use crate::connections::{Connections, Outside};
use crate::intake::Intake;
use crate::options::{Options, Report, Section, codes};
use crate::plugin::{OnBadRequest, OnError, PluginEnv, StepNumbers};
use crate::plugins::KINDS;
use crate::session::cache::{MemoryOptions, SharedOptions};
use crate::state::Remembered;
use crate::table_tasks;
use crate::tasks::{Task, Tasks};
use backends::dns::DnsSettings;
use backends::keyvalue::Store;
use config_general::{Block, Item, Limits};
use decisions::StepTable;
use secrets::Secrecy;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A configuration that may be used.
pub struct Settings {
    /// The options outside all blocks.
    pub globals: Globals,
    /// Where to listen, in file order.
    pub addresses: Vec<ListenAddress>,
    /// Who answers, in file order.
    pub hosts: Vec<VirtualHost>,
    /// Their plugins, with the places in the file.
    pub steps: Arc<StepTable>,
    /// Where sessions are kept.
    pub sessions: SessionSettings,
    /// How names are looked up.
    pub dns: DnsSettings,
    /// Where the daemon is asked how it is, and by whom.
    pub control: ControlOptions,
    /// What is kept of decisions.
    pub journal: JournalSettings,
    /// Where monitoring reads the numbers of the daemon.
    pub metrics: Option<SocketAddr>,
    /// Who is told of events.
    pub notify: Vec<NotifySettings>,
    /// The pages for browsers, if there are any.
    pub console: Option<ConsoleOptions>,
    /// What plugins and caches find by name.
    pub connections: Connections,
    /// What plugins want done without a request.
    pub tasks: Vec<Task>,
    /// Lists of plugins that take what another program knew.
    pub intakes: Vec<Intake>,
    /// What plugins remember, for the administrator.
    pub remembered: Remembered,
    /// What plugins have found out.
    pub carried_over: Vec<CarriedOver>,
    /// Files that are opened later.
    pub paths: Vec<NamedPath>,
    /// Files with keys and passwords, which are read whenever the configuration is.
    pub key_files: Vec<PathBuf>,
    /// The same for all configurations that say the same.
    pub fingerprint: String,
    /// What runs in the shadow of the hosts.
    pub shadows: Vec<ShadowFile>,
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
    /// Whether both keep sessions in the same place, and alike.
    pub fn same_sessions(&self, other: &SessionSettings) -> bool {
        match (self, other) {
            (SessionSettings::Memory(options), SessionSettings::Memory(theirs)) => options == theirs,
            (
                SessionSettings::Shared { store, options, .. },
                SessionSettings::Shared { store: their_store, options: theirs, .. },
            ) => store.is_same(their_store) && options == theirs,
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
        let loaded = Settings::load_with(path, earlier, Outside::Real, |_, _| ());
        loaded.map(|(settings, messages, ())| (settings, messages))
    }

    /// The same for a replay: databases and stores are in memory, and nothing outside is ever asked.
    pub fn load_to_replay(path: &Path) -> Result<(Settings, Messages), Messages> {
        let loaded = Settings::load_with(path, None, Outside::Memory, |_, _| ());
        loaded.map(|(settings, messages, ())| (settings, messages))
    }

    /// The same for a file that runs in the shadow of another one.
    fn load_shadow(path: &Path) -> Result<(Settings, Messages), Messages> {
        let loaded = Settings::load_with(path, None, Outside::Shadow, |_, _| ());
        loaded.map(|(settings, messages, ())| (settings, messages))
    }

    /// The virtual hosts of a configuration file, with everything included and no surprise left: in the
    /// dialect itself, but without secrets.
    pub fn dump(path: &Path) -> Result<(String, Messages), Messages> {
        let hosts = |root: &Block, secrecy: &Secrecy<'_>| {
            let hosts = root.blocks().filter(|block| block.kind == "VirtualHost");
            let items = hosts.map(|host| Item::Block(secrecy.masked(host))).collect();
            config_general::to_text(&Block { items, ..Block::default() })
        };
        Settings::load_with(path, None, Outside::Real, hosts).map(|(_, messages, text)| (text, messages))
    }

    fn load_with<T>(
        path: &Path,
        earlier: Option<&Settings>,
        outside: Outside,
        also: impl FnOnce(&Block, &Secrecy<'_>) -> T,
    ) -> Result<(Settings, Messages, T), Messages> {
        let mut document = config_general::load(path, &Limits::default()).map_err(|failure| {
            let config_general::Failure { sources, diagnostics, comments } = failure;
            Messages::new(sources, diagnostics, &comments, &Secrecy::default(), 0)
        })?;
        let report = Report::default();
        relative::resolve(&mut document.root, &document.sources, &report);
        let numbers = StepNumbers::default();
        let mut settings = Settings::from_root(&document.root, (earlier, outside), &report, &numbers);
        if let Some(settings) = &mut settings {
            doubts::warn_of_flow(&report.take_flow(), &report);
            doubts::warn_of_timeouts(&document.root, settings.globals.longest_request(), &report);
            settings.paths = paths::named(&document.root, &settings.addresses, &document.sources);
            let keys = secrets::keys_elsewhere(&document.root).into_iter().map(|(_, path)| path);
            settings.key_files = keys.collect();
            match outside {
                Outside::Real => settings.shadows = shadows::read(&settings.hosts, &report),
                Outside::Shadow => shadows::refuse(&settings.hosts, &report),
                Outside::Memory => {}
            }
        }
        let hidden = secrets::check(&document.root, &document.sources, &report);
        let tags = numbers.into_tags();
        let secrecy = Secrecy { root: Some(&document.root), hidden, plain: report.plain() };
        if let Some(settings) = &mut settings {
            let shown = secrecy.masked(&document.root);
            settings.fingerprint = fingerprint::of(&shown);
            let steps = steps::table(&shown, &tags, &document.sources);
            let (fingerprint, file) = (settings.fingerprint.clone(), path.display().to_string());
            settings.steps = Arc::new(StepTable { fingerprint, file, steps });
        }
        let also = also(&document.root, &secrecy);
        let mut diagnostics = document.diagnostics;
        diagnostics.extend(report.into_diagnostics());
        let (sources, comments) = (document.sources, &document.comments);
        let messages = Messages::new(sources, diagnostics, comments, &secrecy, tags.len());
        match settings.filter(|_| !messages.has_errors()) {
            Some(settings) => Ok((settings, messages, also)),
            None => Err(messages),
        }
    }

    fn from_root(
        root: &Block,
        (earlier, outside): (Option<&Settings>, Outside),
        report: &Report,
        numbers: &StepNumbers,
    ) -> Option<Settings> {
        let mut section = Section::new(root, report);
        globals::refuse_removed_options(&mut section);
        let globals = Globals::read(&mut section);
        globals::notice_prefork_options(&mut section);
        globals.iter().for_each(|globals| globals.warn_of_root(&section));
        let addresses = globals.as_ref().and_then(|globals| globals.addresses(&section));
        let dns = one_block(&mut section, "Dns").map_or(Some(DnsSettings::default()), globals::read_dns);
        let control = one_block(&mut section, "Control");
        let control = control.map_or_else(|| Some(ControlOptions::default()), control::read);
        let journal = one_block(&mut section, "Journal");
        let metrics = one_block(&mut section, "Metrics").map_or(Some(None), metrics::read);
        let notify = notify::read(&mut section);
        let console = one_block(&mut section, "Console").map_or(Some(None), console::read);
        let open = earlier.map(|earlier| &earlier.connections);
        let connections = Connections::read(&mut section, open, outside);
        let (known, tasks) = (&connections, Tasks::default());
        let earlier_journal = earlier.map(|earlier| &earlier.journal);
        let journal = journal
            .map_or(Some(JournalSettings::default()), |block| journal::read(block, known, earlier_journal));
        if let Some(journal) = &journal {
            journal.check_rights(&tasks);
        }
        let carried_over = earlier.map(|earlier| CarryOver::after(&earlier.carried_over)).unwrap_or_default();
        let sessions = match one_block(&mut section, "SessionCache") {
            Some(block) => {
                let longest = globals.as_ref().map(Globals::longest_request);
                sessions::read(block, known, longest.unwrap_or_default())
            }
            None => Some(SessionSettings::None),
        };
        if let Some(SessionSettings::Shared { store, .. }) = &sessions {
            table_tasks::expire_hourly(&tasks, "SessionCache", store);
        }
        let around = default_env(known, &tasks, &carried_over, numbers);
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
            control: control?,
            journal: journal?,
            metrics: metrics?,
            notify: notify?,
            console: console?,
            connections: connections.whole()?,
            intakes: tasks.intakes.take_all(),
            remembered: tasks.states.take_all(),
            tasks: tasks.into_list(),
            carried_over: carried_over.into_list(),
            steps: Arc::default(),
            paths: Vec::new(),
            key_files: Vec::new(),
            fingerprint: String::new(),
            shadows: Vec::new(),
        })
    }

    /// The host that answers on an address, or on a socket of systemd with the host's name, unless the policy
    /// context selects another.
    pub fn host(&self, key: &str, policy_context: Option<&[u8]>) -> Option<&VirtualHost> {
        let by_name = policy_context.filter(|_| self.globals.vhost_by_policy_context.0);
        let selected = by_name.and_then(|name| self.hosts.iter().find(|host| host.name.as_bytes() == name));
        let by_key = || self.hosts.iter().find(|host| host.key == key);
        selected.or_else(by_key).or_else(|| self.hosts.iter().find(|host| *host.name == *key))
    }
}

fn default_env<'a>(
    connections: &'a Connections,
    tasks: &'a Tasks,
    carried_over: &'a CarryOver,
    numbers: &'a StepNumbers,
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
        numbers,
        number: 0,
        stage: None,
    }
}

/// The only block of a kind; a second one is a mistake.
fn one_block<'a>(section: &mut Section<'a>, kind: &str) -> Option<Section<'a>> {
    let report = section.report();
    let blocks = section.take_blocks(kind);
    for again in blocks.iter().skip(1) {
        let message = format!("block <{kind}> occurs more than once");
        report.say(&codes::REPEATED_BLOCK, again.span, message, None);
    }
    blocks.first().map(|block| Section::new(block, report))
}
