//! Hands what another program knew to a plugin of a configuration.
//!
//! Knows: settings, users. Must not know: where a plugin keeps it.

use super::privileges::Identity;
use super::service::Service;
use super::{StartError, identity};
use crate::intake::KnownClient;
use crate::log::{self, Destination, LogSettings};
use crate::settings::Settings;
use std::path::Path;

/// Which plugin gets it, and how clients are told apart in what it gets.
pub struct IntakeOptions<'a> {
    /// The configuration file.
    pub config: &'a Path,
    /// The name of the plugin, where there are several.
    pub plugin: Option<&'a str>,
    /// The user who writes, where it is not the one of the file.
    pub user: Option<&'a str>,
    /// Bits of an IPv4 and of an IPv6 address.
    pub prefixes: [u8; 2],
}

/// Why nothing was taken.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The daemon would not start either.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no plugin, or not one.
    #[error("{0}")]
    Plugin(String),
    /// The store of the plugin failed.
    #[error("Plugin {0}: {1}")]
    Store(String, String),
}

/// Adds clients to the list of a plugin, as the user that the daemon would run as. Returns the name of
/// the plugin and how many clients were added.
pub fn take_in(options: &IntakeOptions<'_>, clients: Vec<KnownClient>) -> Result<(String, u64), IntakeError> {
    let (mut settings, _) = Settings::load(options.config, None).map_err(StartError::Configuration)?;
    let fits = |name: &str| options.plugin.is_none_or(|plugin| plugin == name);
    let mut intakes = std::mem::take(&mut settings.intakes);
    let names: Vec<_> = intakes.iter().map(|intake| intake.plugin.clone()).collect();
    intakes.retain(|intake| fits(&intake.plugin));
    let intake = match intakes.pop() {
        Some(intake) if intakes.is_empty() => intake,
        _ => return Err(IntakeError::Plugin(not_one(options, &names))),
    };
    if intake.prefixes != Some(options.prefixes) {
        let [ipv4, ipv6] = options.prefixes;
        return Err(IntakeError::Plugin(format!(
            "Plugin {} does not tell clients apart as they are here, by /{ipv4} and /{ipv6}: set client_key, \
             ipv4_prefix and ipv6_prefix as they are printed",
            intake.plugin
        )));
    }
    let format = log::Format::Text;
    /// Errors and warnings.
    const QUIET: u8 = 1;
    let settings_of_log =
        LogSettings { level: QUIET, internals: false, destination: Destination::Stderr, format };
    let log = log::open(&settings_of_log).map_err(StartError::Log)?;
    super::process::restrict_new_files();
    let who = match options.user {
        Some(user) => Identity::resolve(Some(user), None, None),
        None => identity(&settings.globals),
    };
    who.and_then(|identity| identity.assume()).map_err(StartError::Process)?;
    let _log = log.start().map_err(StartError::Log)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StartError::Io)?;
    let taken = runtime.block_on(async {
        let service = Service::new(settings, None);
        intake.take(clients, service.world().clone()).await
    });
    match taken {
        Ok(taken) => Ok((intake.plugin, taken)),
        Err(why) => Err(IntakeError::Store(intake.plugin, why)),
    }
}

/// Why no plugin is meant.
fn not_one(options: &IntakeOptions<'_>, names: &[String]) -> String {
    let (file, names) = (options.config.display(), names.join(", "));
    match options.plugin {
        _ if names.is_empty() => format!("{file} has no Greylist plugin with an auto-whitelist"),
        Some(plugin) => format!("{file} has not one Greylist plugin `{plugin}`, but {names}"),
        None => format!("{file} has several Greylist plugins: {names}; say which with --plugin"),
    }
}
