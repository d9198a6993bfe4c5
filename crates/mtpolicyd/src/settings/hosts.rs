//! The virtual hosts: who answers on which port, or in which policy context.
//!
//! Knows: blocks, chains, listen addresses. Must not know: sockets, a plugin's name.

use super::Globals;
use crate::address::ListenAddress;
use crate::chain::Chain;
use crate::options::{Flow, Options, Report, Section, codes, options};
use crate::plugin::{OnBadRequest, OnError, PluginEnv};
use crate::value::Switch;
use config_general::{Block, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

/// The chain of plugins behind a port, or behind a policy context.
pub struct VirtualHost {
    /// The port, or the path of the socket, as its tag says.
    pub key: String,
    /// Its name in the log, and the policy context that selects it.
    pub name: Arc<str>,
    /// What an outage does to the request where the plugin does not say.
    pub on_error: OnError,
    /// Its plugins.
    pub chain: Chain,
    /// The file that runs in its shadow, and where that is said.
    pub(super) shadow: Option<(PathBuf, Span)>,
}

options! {
    /// Options of a `<VirtualHost PORT>` block.
    pub struct HostOptions {
        /// The name in the log; with `vhost_by_policy_context` also the policy context that selects this
        /// host.
        name: String,
        /// What to do with a request when a backend fails. If it is not set, the global setting applies.
        on_error: Option<OnError>,
        /// What to do with a message that a plugin can't judge because of the request itself. If it is not
        /// set, the global setting applies.
        on_bad_request: Option<OnBadRequest>,
        /// Whether to start lookups before it is their plugin's turn. If it is not set, the global setting
        /// applies.
        lookahead: Option<Switch>,
        /// The path of another configuration file that is to be tried: what it would decide about each
        /// request of this host is found out after the answer was sent, and only differences are reported
        /// (`mtpolicyd shadow status`). Its virtual host of the same name decides, or else the one with the
        /// same port or socket. Nothing is sent, stored or counted by it, and of servers only the name
        /// service is asked, for what the request did not ask. What it counts and remembers is in memory. It
        /// is read at the start and at each reload; with mistakes in it the host has no shadow, and answers
        /// as ever. Virtual hosts that share sessions should have the same shadow.
        shadow: Option<String>,
    }
}

/// The hosts of a file, or `None` after the mistakes were reported.
pub(super) fn read(blocks: &[&Block], env: PluginEnv<'_>, section: &Section<'_>) -> Option<Vec<VirtualHost>> {
    if blocks.is_empty() {
        let help = "add a block `<VirtualHost 12345>` with a name and its plugins".to_owned();
        let message = "no VirtualHost is configured";
        section.report().say(&codes::BAD_HOST, section.span(), message, Some(help));
        return None;
    }
    let hosts: Vec<_> = blocks.iter().map(|block| read_host(block, section.report(), env)).collect();
    hosts.into_iter().collect()
}

fn read_host(block: &Block, report: &Report, env: PluginEnv<'_>) -> Option<VirtualHost> {
    let mut section = Section::new(block, report);
    let key = section.name().to_owned();
    if key.is_empty() {
        let help = "write `<VirtualHost 12345>`, or the path of the UNIX socket".to_owned();
        report.say(&codes::BAD_HOST, block.span, "a VirtualHost has no port", Some(help));
    }
    section.note_flow("name", Flow::Host);
    let options = HostOptions::read(&mut section);
    let on_error = options.as_ref().and_then(|o| o.on_error).or(env.on_error);
    let on_bad_request = options.as_ref().and_then(|o| o.on_bad_request);
    let on_bad_request = on_bad_request.unwrap_or(env.on_bad_request);
    let lookahead = options.as_ref().and_then(|o| o.lookahead);
    let lookahead = lookahead.map_or(env.lookahead, |switch| switch == Switch::On);
    env.tasks.next_chain();
    let inside = PluginEnv { on_error, on_bad_request, lookahead, ..env };
    let chain = Chain::from_section(&mut section, inside);
    if chain.as_ref().is_some_and(Chain::is_empty) {
        let help = "add at least one <Plugin NAME> block".to_owned();
        let message = format!("VirtualHost {key} has no plugin");
        report.say(&codes::BAD_HOST, block.span, message, Some(help));
    }
    let span = section.span_of("shadow");
    section.finish();
    let on_error = on_error.unwrap_or(OnError::Close);
    let options = options?;
    let shadow = options.shadow.map(|path| (path.into(), span));
    Some(VirtualHost { key, name: options.name.into(), on_error, chain: chain?, shadow })
}

/// Every port needs a host; hosts of one port need different names, and a context to tell them apart. Looks
/// at the blocks, so that it finds these mistakes beside all others.
pub(super) fn check(
    blocks: &[&Block],
    globals: &Globals,
    addresses: &[ListenAddress],
    section: &Section<'_>,
) {
    let by_context = globals.vhost_by_policy_context.0;
    let heard: BTreeSet<String> = addresses.iter().map(ListenAddress::vhost_key).collect();
    let mut names_by_key: BTreeMap<&str, BTreeSet<Option<&str>>> = BTreeMap::new();
    for block in blocks {
        let key = block.name.as_deref().unwrap_or_default();
        let name = block.entries().find(|entry| entry.key == "name").and_then(|entry| entry.value.as_deref());
        let names = names_by_key.entry(key).or_default();
        let may_be_told_apart = names.is_empty() || by_context && !names.contains(&name);
        names.insert(name);
        if !may_be_told_apart {
            let help = "hosts of one port need `vhost_by_policy_context = 1` and different names".to_owned();
            let message = format!("VirtualHost {key} occurs more than once");
            section.report().say(&codes::REPEATED_BLOCK, block.span, message, Some(help));
        }
        if !heard.contains(key) && !by_context {
            let message = format!("VirtualHost {key} is never asked: no `port` leads to it");
            section.report().say(&codes::NEVER_ACTS, block.span, message, None);
        }
    }
    for address in addresses {
        let key = address.vhost_key();
        if !names_by_key.contains_key(key.as_str()) && !blocks.is_empty() {
            let help = format!("add a block `<VirtualHost {key}>`");
            let message = format!("no VirtualHost answers on port {key} ({address})");
            section.report().say(&codes::BAD_HOST, section.span_of("port"), message, Some(help));
        }
    }
}
