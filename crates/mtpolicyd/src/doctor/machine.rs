//! The machine around the daemon: sockets, name servers, servers, files, the unit of systemd.
//!
//! Knows: what was found out about them. Must not know: how it was found out, Postfix's lists.

use super::{Facts, Finding, Machine};
use crate::upkeep::CRONTAB;
use crate::value::Switch;
use std::net::IpAddr;
use std::path::Path;

/// Name servers for everybody, which lists refuse: they can't tell who asks too often.
const PUBLIC_RESOLVERS: [(&str, &str); 14] = [
    ("8.8.8.8", "Google"),
    ("8.8.4.4", "Google"),
    ("2001:4860:4860::8888", "Google"),
    ("2001:4860:4860::8844", "Google"),
    ("1.1.1.1", "Cloudflare"),
    ("1.0.0.1", "Cloudflare"),
    ("2606:4700:4700::1111", "Cloudflare"),
    ("2606:4700:4700::1001", "Cloudflare"),
    ("9.9.9.9", "Quad9"),
    ("149.112.112.112", "Quad9"),
    ("2620:fe::fe", "Quad9"),
    ("208.67.222.222", "OpenDNS"),
    ("208.67.220.220", "OpenDNS"),
    ("2620:119:35::35", "OpenDNS"),
];

/// With less free than this, in MiB, a database or a journal soon can't be written.
const NEARLY_FULL: u64 = 100;

/// Descriptors that the daemon needs beside those of its clients, about.
const OWN_FILES: u64 = 64;

/// Protections of the unit that are switched on or off.
const PROTECTIONS: [&str; 15] = [
    "LockPersonality",
    "NoNewPrivileges",
    "PrivateDevices",
    "PrivateMounts",
    "PrivateTmp",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectSystem",
    "RestrictRealtime",
    "RestrictSUIDSGID",
];

/// A service is exposed beyond this, by `systemd-analyze security`; the unit of the package is below 2.
const MOST_EXPOSED: f64 = 4.0;

/// D05.
pub fn sockets(facts: &Facts) -> Vec<Finding> {
    let closed = facts.machine.closed_sockets.iter().map(|(path, why)| {
        let text = format!("Postfix can't connect to {}: {why}", path.display());
        Finding::wrong("D05", text)
            .at("mtpolicyd.conf")
            .fixed_by("# in mtpolicyd.conf: socket_mode = 0666, in a folder that the user postfix may enter")
    });
    closed.collect()
}

/// D20.
pub fn cron(facts: &Facts) -> Vec<Finding> {
    let is_on = |settings: &crate::settings::Settings| settings.globals.cron == Some(Switch::On);
    let runs = |text: &String| {
        let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        lines.any(|line| line.contains("mtpolicyd") && (line.contains(" -t") || line.contains("--cron")))
    };
    if !facts.settings.as_ref().is_some_and(is_on) || !facts.machine.cron.as_ref().is_some_and(runs) {
        return Vec::new();
    }
    let text = format!("{CRONTAB} runs the tasks that the daemon runs itself (cron = on)");
    vec![Finding::doubt("D20", text).at(CRONTAB).fixed_by(format!("rm {CRONTAB}"))]
}

/// D21.
pub fn resolver(facts: &Facts) -> Vec<Finding> {
    let Some(settings) = &facts.settings else { return Vec::new() };
    let own: Vec<IpAddr> = settings.dns.servers.iter().map(std::net::SocketAddr::ip).collect();
    let (asked, place) = match own.is_empty() {
        true => (&facts.machine.resolvers, "/etc/resolv.conf"),
        false => (&own, "<Dns>"),
    };
    let public = asked.iter().find_map(|server| {
        let known = PUBLIC_RESOLVERS.iter().find(|(address, _)| address.parse() == Ok(*server));
        known.map(|(_, owner)| (server, owner))
    });
    let Some((server, owner)) = public.filter(|_| facts.has(&["RBL", "DBL"])) else { return Vec::new() };
    let text = format!(
        "{place} names {server} ({owner}); DNS lists refuse public resolvers, and a refusal lists nobody"
    );
    let finding = Finding::doubt("D21", text).at(place);
    vec![finding.fixed_by("# run a resolver on this machine (apt install unbound) and name 127.0.0.1")]
}

/// D25.
pub fn rights(facts: &Facts) -> Vec<Finding> {
    let Machine { no_access, readable, open_data, writable, .. } = &facts.machine;
    let file = facts.settings.as_ref().map(|settings| settings.steps.file.clone()).unwrap_or_default();
    let mut findings = Vec::new();
    if facts.codes.contains(&"W020") && readable.is_empty() {
        let text = "a password or key in the configuration is readable by every user";
        let finding = Finding::wrong("D25", text).at(file.clone());
        findings.push(finding.fixed_by(format!("chgrp mtpolicyd '{file}' && chmod 640 '{file}'")));
    }
    let remove = |path: &Path| format!("chmod o-r '{}'", path.display());
    for path in readable {
        let text = format!("every user can read {}, which holds secrets", path.display());
        findings.push(Finding::wrong("D25", text).at(file.clone()).fixed_by(remove(path)));
    }
    for path in open_data {
        let text = format!("every user can read {}, which holds addresses of people", path.display());
        findings.push(Finding::doubt("D25", text).at(file.clone()).fixed_by(remove(path)));
    }
    for path in writable {
        let shown = path.display();
        let text = format!("every user can write to {shown}, and so decide about all messages");
        findings.push(Finding::wrong("D25", text).fixed_by(format!("chmod o-w '{shown}'")));
    }
    findings.extend(no_access.iter().map(|why| Finding::wrong("D25", why.clone()).at(file.clone())));
    findings
}

/// D26.
pub fn unit(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let lines: Vec<_> = facts.machine.unit.iter().flat_map(|unit| unit.lines().map(str::trim)).collect();
    let mut families = lines.iter().filter_map(|line| line.strip_prefix("RestrictAddressFamilies="));
    let allows: Vec<_> = families.by_ref().collect();
    if !allows.is_empty()
        && !allows.iter().any(|families| families.contains("AF_NETLINK"))
        && facts.has(&["SMTPVerify"])
    {
        let text = "RestrictAddressFamilies has no AF_NETLINK, so SMTPVerify can't tell the addresses of \
                    this machine and defers";
        let advice = "# systemctl edit mtpolicyd: RestrictAddressFamilies=AF_NETLINK";
        findings.push(Finding::wrong("D26", text).at("mtpolicyd.service").fixed_by(advice));
    }
    for line in lines.iter().filter(|line| weakens(line)) {
        let text = format!("a drop-in says `{line}`, which takes back what the unit protects");
        let advice = format!("# systemctl edit mtpolicyd: remove `{line}`");
        findings.push(Finding::doubt("D26", text).at("mtpolicyd.service").fixed_by(advice));
    }
    if let Some(exposure) = facts.machine.exposure.filter(|exposure| *exposure > MOST_EXPOSED) {
        let text = format!("systemd-analyze security takes the service to be exposed: {exposure:.1} of 10");
        let advice = "# take the unit of the package, which is below 2: systemctl revert mtpolicyd";
        findings.push(Finding::doubt("D26", text).at("mtpolicyd.service").fixed_by(advice));
    }
    findings
}

/// Whether a line of a unit takes back a protection, or runs the daemon as root.
fn weakens(line: &str) -> bool {
    let Some((name, value)) = line.split_once('=') else { return false };
    let is_off = matches!(value.trim().to_ascii_lowercase().as_str(), "no" | "false" | "off" | "0");
    match name.trim() {
        "User" => matches!(value.trim(), "root" | "0"),
        "SystemCallFilter" => value.trim().is_empty(),
        name => is_off && PROTECTIONS.contains(&name),
    }
}

/// D28.
pub fn disk(facts: &Facts) -> Vec<Finding> {
    let full = facts.machine.free.iter().filter(|(_, free)| *free < NEARLY_FULL);
    full.map(|(folder, free)| {
        Finding::doubt(
            "D28",
            format!("{} has {free} MiB left, and the daemon writes there", folder.display()),
        )
    })
    .collect()
}

/// D29.
pub fn open_files(facts: &Facts) -> Vec<Finding> {
    let most = facts.settings.as_ref().and_then(|settings| settings.globals.max_connections);
    let (Some(most), Some(files)) = (most, facts.machine.open_files) else { return Vec::new() };
    let wanted = most.0 + OWN_FILES;
    if files >= wanted {
        return Vec::new();
    }
    let text = format!(
        "the running daemon may open {files} files, which is too few for max_connections = {}",
        most.0
    );
    let advice = format!("# systemctl edit mtpolicyd: LimitNOFILE={wanted}");
    vec![Finding::doubt("D29", text).at("mtpolicyd.service").fixed_by(advice)]
}

/// D30.
pub fn changed(facts: &Facts) -> Vec<Finding> {
    let Some(status) = facts.status.as_ref().filter(|status| status.configuration.changed) else {
        return Vec::new();
    };
    let text = format!("{} has changed since the daemon read it", status.configuration.file);
    vec![Finding::doubt("D30", text).at(status.configuration.file.clone()).fixed_by("mtpolicyd reload")]
}
