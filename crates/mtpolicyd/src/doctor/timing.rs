//! How long each side waits, and how many requests and connections it allows.
//!
//! Knows: the limits of Postfix's policy client and of the daemon. Must not know: lists of restrictions.

use super::postfix::seconds;
use super::wiring::once_per_place;
use super::{Facts, Finding, PolicyServer};
use crate::value::Seconds;
use std::time::Duration;

/// What Postfix waits for an answer where nothing says otherwise (`smtpd_policy_service_timeout`).
const POLICY_TIMEOUT: u64 = 100;

/// After this time an idle connection is closed (`smtpd_policy_service_max_idle`).
const MAX_IDLE: u64 = 300;

/// The processes of a service (`default_process_limit`).
const PROCESS_LIMIT: u64 = 100;

/// A pause between two questions about one message; a connection that is closed in it costs a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How much longer Postfix waits than a request may take, in seconds.
const MARGIN: u64 = 5;

/// D09.
pub fn default_action(facts: &Facts) -> Vec<Finding> {
    let Some(postfix) = &facts.postfix else { return Vec::new() };
    if postfix.value(None, "smtpd_policy_service_default_action").is_some() {
        return Vec::new();
    }
    let ours = facts.ours();
    let without = ours.iter().filter(|question| question.server.option("default_action").is_none());
    once_per_place(without.map(|question| {
        let text = "no default_action: while the daemon is down Postfix answers 451 to everybody";
        Finding::doubt("D09", text).at(question.place()).fixed_by(facts.repair(question))
    }))
}

/// How long Postfix waits for a server, in seconds.
fn waits(server: &PolicyServer, facts: &Facts) -> u64 {
    let own = server.option("timeout").and_then(seconds);
    let all = || facts.postfix.as_ref().and_then(|postfix| postfix.seconds("smtpd_policy_service_timeout"));
    own.or_else(all).unwrap_or(POLICY_TIMEOUT)
}

/// How long a request may take, in seconds.
fn longest(facts: &Facts) -> Option<u64> {
    facts.settings.as_ref().map(|settings| settings.globals.longest_request().as_secs())
}

/// D11.
pub fn timeouts(facts: &Facts) -> Vec<Finding> {
    let Some(longest) = longest(facts) else { return Vec::new() };
    let ours = facts.ours();
    let short = ours.iter().filter(|question| waits(&question.server, facts) <= longest);
    once_per_place(short.map(|question| {
        let text = format!(
            "Postfix waits {} s for an answer, which is not longer than request_timeout = {longest}",
            waits(&question.server, facts)
        );
        Finding::doubt("D11", text).at(question.place()).fixed_by(facts.repair(question))
    }))
}

/// A server with what it lacks: a default action, and a time-out that is longer than a request may take.
pub(super) fn repaired(mut server: PolicyServer, facts: &Facts) -> PolicyServer {
    let postfix = facts.postfix.as_ref();
    let has_default =
        postfix.is_some_and(|postfix| postfix.value(None, "smtpd_policy_service_default_action").is_some());
    if server.option("default_action").is_none() && !has_default {
        server = server.with("default_action", "DUNNO");
    }
    match longest(facts) {
        Some(longest) if waits(&server, facts) <= longest => {
            server.with("timeout", &format!("{}s", longest + MARGIN))
        }
        _ => server,
    }
}

/// A server as it is written where there was none.
pub(super) fn wanted(server: PolicyServer, facts: &Facts) -> PolicyServer {
    let longest = longest(facts).unwrap_or_default();
    let server = server.with("default_action", "DUNNO");
    server.with("timeout", &format!("{}s", longest + MARGIN))
}

/// D12.
pub fn requests(facts: &Facts) -> Vec<Finding> {
    let (Some(postfix), Some(settings)) = (&facts.postfix, &facts.settings) else { return Vec::new() };
    let Some(most) = settings.globals.max_keepalive.0.map(|count| count.0).filter(|count| *count > 0) else {
        return Vec::new();
    };
    let asked = postfix.number("smtpd_policy_service_request_limit").unwrap_or_default();
    if facts.ours().is_empty() || asked > 0 && asked <= most {
        return Vec::new();
    }
    let text = format!(
        "the daemon closes a connection after max_keepalive = {most} requests, and Postfix asks more \
         (smtpd_policy_service_request_limit = {asked}); it then waits a second before it asks again"
    );
    let command = format!("postconf -e 'smtpd_policy_service_request_limit = {most}'");
    vec![Finding::doubt("D12", text).at("main.cf").fixed_by(command)]
}

/// D13.
pub fn idle(facts: &Facts) -> Vec<Finding> {
    let (Some(postfix), Some(settings)) = (&facts.postfix, &facts.settings) else { return Vec::new() };
    let Some(kept) = settings.globals.keepalive_timeout.0.map(Seconds::duration) else { return Vec::new() };
    let idle = postfix.seconds("smtpd_policy_service_max_idle").unwrap_or(MAX_IDLE);
    if facts.ours().is_empty() || kept >= LONGEST_PAUSE || kept > Duration::from_secs(idle) {
        return Vec::new();
    }
    let text = format!(
        "the daemon closes idle connections after keepalive_timeout = {} s, Postfix keeps them for {idle} s \
         (smtpd_policy_service_max_idle) and waits a second where one is closed",
        kept.as_secs()
    );
    let command = format!("postconf -e 'smtpd_policy_service_max_idle = {}s'", kept.as_secs().max(2) - 1);
    vec![Finding::doubt("D13", text).at("main.cf").fixed_by(command)]
}

/// D14.
pub fn processes(facts: &Facts) -> Vec<Finding> {
    let (Some(postfix), Some(settings)) = (&facts.postfix, &facts.settings) else { return Vec::new() };
    let Some(most) = settings.globals.max_connections else { return Vec::new() };
    let default = postfix.number("default_process_limit").unwrap_or(PROCESS_LIMIT);
    let ours = facts.ours();
    // A process has a connection for each server that it asks.
    let asked = |name: &str| {
        let of_service = ours.iter().filter(|question| question.service.name == name);
        let mut servers: Vec<_> = of_service.map(|question| question.server.item().to_string()).collect();
        servers.sort();
        servers.dedup();
        servers.len() as u64
    };
    let connections = postfix.smtpds().map(|service| {
        asked(&service.name) * service.processes.filter(|count| *count > 0).map_or(default, u64::from)
    });
    let connections: u64 = connections.sum();
    let most = most.0;
    if connections <= most {
        return Vec::new();
    }
    let text = format!(
        "Postfix may have {connections} connections at once, the daemon takes max_connections = {most}; \
         further ones are closed"
    );
    let advice = format!("# in mtpolicyd.conf: max_connections = {connections}");
    vec![Finding::doubt("D14", text).at("mtpolicyd.conf").fixed_by(advice)]
}
