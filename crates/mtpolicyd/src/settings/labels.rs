//! The names of a configuration that may label numbers: hosts, plugins, lists, connections.
//!
//! Knows: what has a name. Must not know: any number.

use super::Settings;
use crate::metrics::Configured;
use std::sync::Arc;

/// The labels of a configuration.
#[derive(Debug)]
pub struct Labels {
    /// The virtual hosts, in the order of the settings.
    pub hosts: Vec<Configured>,
    /// The plugins by their numbers: the host of each, and its path within it (`greylist/late`).
    pub plugins: Vec<(Configured, Configured)>,
    /// The zones of the DNS lists, each with its label, which has no key of a customer.
    pub lists: Vec<(Arc<str>, Configured)>,
    /// The names of the connections.
    pub connections: Vec<Configured>,
    /// The names of those that are told of events.
    pub receivers: Vec<Configured>,
    /// The hash of the configuration.
    pub hash: Configured,
}

impl Labels {
    /// Those of a configuration.
    pub fn of(settings: &Settings) -> Labels {
        let name = Configured::from_settings;
        let plugins = settings.steps.steps.iter().map(|step| {
            let path = step.path.strip_prefix(&*step.host).and_then(|path| path.strip_prefix('/'));
            (name(&step.host), name(path.unwrap_or(&step.name)))
        });
        let lists = settings.remembered.lists.iter();
        Labels {
            hosts: settings.hosts.iter().map(|host| name(&host.name)).collect(),
            plugins: plugins.collect(),
            lists: lists.map(|used| (used.list.zone().clone(), name(&used.list.label()))).collect(),
            connections: settings.connections.iter().map(|(connection, _)| name(connection)).collect(),
            receivers: settings.notify.iter().map(|settings| name(&settings.name)).collect(),
            hash: name(&settings.fingerprint),
        }
    }
}
