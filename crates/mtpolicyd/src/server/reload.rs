//! SIGHUP: the new file, if it is good, for the requests from now on; else the old one stays.
//!
//! Knows: settings, listeners, the process. Must not know: conversations.

use super::listeners::Listeners;
use super::service::Service;
use super::sockets::{self, BoundSocket};
use super::{Daemon, StartError, identity, log_messages, socket_options};
use crate::settings::Settings;
use std::sync::Arc;

/// Reads the file again and uses it; no connection is dropped either way.
pub(super) fn reload(daemon: &Daemon<'_>, listeners: &mut Listeners) {
    // Whatever becomes of the file: logrotate has moved the log away.
    daemon.log.reopen();
    match try_reload(daemon, listeners) {
        Ok(()) => tracing::info!("reloaded {}", daemon.options.config.display()),
        Err(StartError::Configuration(messages)) => {
            log_messages(&messages);
            tracing::error!("not reloaded: the old configuration stays in use");
        }
        Err(error) => tracing::error!("not reloaded: {error}; the old configuration stays in use"),
    }
}

fn try_reload(daemon: &Daemon<'_>, listeners: &mut Listeners) -> Result<(), StartError> {
    let (settings, messages) = Settings::load(&daemon.options.config).map_err(StartError::Configuration)?;
    if identity(&settings.globals)? != daemon.identity {
        let change = "a changed user, group or chroot needs a restart";
        return Err(StartError::Io(std::io::Error::other(change)));
    }
    let sockets = bind_new(&settings, listeners)?;
    let earlier = daemon.shared.service.load_full();
    warn_of_what_stays(&earlier.settings, &settings);
    let service = Service::new(settings, Some(&earlier))?;
    let globals = &service.settings.globals;
    daemon.log.set_level(daemon.options.log_level.unwrap_or(globals.log_level.0));
    let addresses = service.settings.addresses.clone();
    // First the hosts, then the ports that lead to them.
    daemon.shared.service.store(Arc::new(service));
    listeners.start(sockets, &daemon.shared)?;
    listeners.keep_only(&addresses);
    log_messages(&messages);
    Ok(())
}

/// Opens the ports that are not open yet; if one can't be opened, none is.
fn bind_new(settings: &Settings, listeners: &Listeners) -> Result<Vec<BoundSocket>, StartError> {
    let options = socket_options(&settings.globals)?;
    let new = settings.addresses.iter().filter(|address| !listeners.has(address));
    Ok(new.map(|address| sockets::bind(address, &options)).collect::<Result<_, _>>()?)
}

/// Changes that are read, but can only be followed by a restart.
fn warn_of_what_stays(old: &Settings, new: &Settings) {
    let (old, new) = (&old.globals, &new.globals);
    let changes = [
        ("log_file", old.log_file != new.log_file),
        ("log_format", old.log_format != new.log_format),
        ("pid_file", old.pid_file != new.pid_file),
        ("max_connections", old.max_connections != new.max_connections),
    ];
    for (option, _) in changes.into_iter().filter(|(_, changed)| *changed) {
        tracing::warn!("the changed {option} takes effect at the next restart");
    }
}
