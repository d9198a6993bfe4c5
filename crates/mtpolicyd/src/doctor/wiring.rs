//! Whether Postfix asks the daemon, from where, and at the right place of its lists.
//!
//! Knows: lists of restrictions, addresses. Must not know: time-outs, stages.

use super::lists::KNOWN_USERS;
use super::{Facts, Finding, Postfix, Question, Reached, endpoint_of};
use crate::address::ListenAddress;
use std::collections::BTreeSet;

/// Plugins that judge strangers, and would judge a user of the server wrongly.
const FOR_STRANGERS: [&str; 5] = ["Greylist", "RBL", "SPF", "GeoIPAction", "DBL"];

/// The list in which a policy service is usually asked.
const USUAL_LIST: &str = "smtpd_recipient_restrictions";

/// The first version of Postfix that knows `{ }` and `default_action`.
const OLDEST: (u32, u32) = (3, 0);

/// D01.
pub fn version(facts: &Facts) -> Vec<Finding> {
    let Some(version) = facts.postfix.as_ref().and_then(|postfix| postfix.value(None, "mail_version")) else {
        return Vec::new();
    };
    let mut numbers = version.split(['.', '-']).map(|number| number.parse().unwrap_or_default());
    let numbers = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if numbers >= OLDEST {
        return Vec::new();
    }
    let text =
        format!("Postfix {version} does not know default_action of a policy service, which came with 3.0");
    vec![Finding::doubt("D01", text)]
}

/// D02.
pub fn asks_nobody(facts: &Facts) -> Vec<Finding> {
    let Some(postfix) = facts.postfix.as_ref().filter(|postfix| postfix.questions().is_empty()) else {
        return Vec::new();
    };
    let finding =
        Finding::wrong("D02", "no list of restrictions asks a policy service (check_policy_service)");
    let command = strangers(postfix).next().and_then(|service| facts.add(service, USUAL_LIST));
    vec![command.into_iter().fold(finding.at("main.cf"), Finding::fixed_by)]
}

/// D03.
pub fn asks_elsewhere(facts: &Facts) -> Vec<Finding> {
    let (Some(postfix), Some(settings)) = (&facts.postfix, &facts.settings) else { return Vec::new() };
    let questions = postfix.questions();
    let is_known = |question: &Question<'_>| {
        facts.address_of(question).is_some() || unconfined(facts, question).is_some()
    };
    if questions.iter().any(is_known) {
        return Vec::new();
    }
    let Some(question) = questions.first() else { return Vec::new() };
    let queue = facts.queue_folder();
    let known: Vec<_> = settings.addresses.iter().map(|address| endpoint_of(address, &queue)).collect();
    let text = format!(
        "{} asks {}, where mtpolicyd does not listen; it listens on {}",
        question.list,
        question.server.endpoint,
        known.join(", ")
    );
    vec![Finding::wrong("D03", text).at(question.place()).fixed_by(facts.repair(question))]
}

/// The socket that a question would reach if its service were not confined.
fn unconfined<'a>(facts: &'a Facts, question: &Question<'_>) -> Option<&'a ListenAddress> {
    let path = question.server.endpoint.strip_prefix("unix:/").filter(|_| question.service.is_chrooted)?;
    let path = format!("/{path}");
    let addresses = &facts.settings.as_ref()?.addresses;
    addresses
        .iter()
        .find(|address| matches!(address, ListenAddress::Unix(socket) if socket.as_os_str() == path.as_str()))
}

/// D04.
pub fn chroot(facts: &Facts) -> Vec<Finding> {
    let Some(postfix) = &facts.postfix else { return Vec::new() };
    let mut findings = Vec::new();
    let mut told = BTreeSet::new();
    for question in postfix.questions() {
        if unconfined(facts, &question).is_none() || facts.address_of(&question).is_some() {
            continue;
        }
        let Reached::Unix(inside) = facts.reached(&question.server.endpoint, question.service) else {
            continue;
        };
        let service = &question.service.name;
        if told.insert(service.clone()) {
            let text = format!(
                "smtpd of {service} is confined to the queue's folder, so {} is {} for it",
                question.server.endpoint,
                inside.display()
            );
            let command = format!("postconf -F '{service}/{}/chroot=n'", question.service.kind);
            findings.push(Finding::wrong("D04", text).at("master.cf").fixed_by(command));
        }
    }
    findings
}

/// D06.
pub fn never_asked(facts: &Facts) -> Vec<Finding> {
    let ours = facts.ours();
    let misplaced = ours.iter().filter(|question| question.before().iter().any(|item| item.is_last()));
    let findings = misplaced.map(|question| {
        let last = question.before().iter().find(|item| item.is_last()).map_or("permit", |item| &item.name);
        let text = format!("check_policy_service stands behind `{last}`, so it is never asked");
        Finding::wrong("D06", text).at(question.place()).fixed_by(facts.repair(question))
    });
    once_per_place(findings)
}

/// Whether an OK of the policy service would let strangers send to others through this server.
pub(super) fn may_relay(facts: &Facts, question: &Question<'_>) -> bool {
    let Some(postfix) = &facts.postfix else { return false };
    let is_guarded = question.before().iter().any(|item| item.guards_relay() || item.name == "permit");
    match question.list {
        "smtpd_relay_restrictions" => !is_guarded,
        "smtpd_recipient_restrictions" => {
            // Since 2.10 there is a list of its own for it, which has a guard unless it is changed.
            let own = postfix.value(Some(question.service), "smtpd_relay_restrictions");
            let has_list = own.is_none_or(|list| !list.trim().is_empty());
            let relay = postfix.list(question.service, "smtpd_relay_restrictions");
            let keeps =
                relay.is_empty() || relay.iter().any(|item| item.guards_relay() || item.name == "permit");
            !(is_guarded || has_list && keeps)
        }
        _ => false,
    }
}

/// D07.
pub fn relays(facts: &Facts) -> Vec<Finding> {
    let ours = facts.ours();
    let dangerous = ours.iter().filter(|question| may_relay(facts, question));
    let findings = dangerous.map(|question| {
        let text = format!(
            "check_policy_service stands before reject_unauth_destination in {}; an OK would relay",
            question.service.name
        );
        Finding::wrong("D07", text).at(question.place()).fixed_by(facts.repair(question))
    });
    once_per_place(findings)
}

/// D08.
pub fn submission(facts: &Facts) -> Vec<Finding> {
    let Some(postfix) = &facts.postfix else { return Vec::new() };
    let ours = facts.ours();
    let mut findings = Vec::new();
    let asked = |question: &&Question<'_>| question.service.is_submission();
    let of_strangers: Vec<_> = strangers(postfix).collect();
    if !ours.is_empty() && ours.iter().all(|question| asked(&question)) && !of_strangers.is_empty() {
        let text = "only submission asks mtpolicyd; messages from elsewhere pass without it".to_owned();
        let finding = Finding::doubt("D08", text).at("master.cf");
        let command = of_strangers.first().and_then(|service| facts.add(service, USUAL_LIST));
        findings.push(command.into_iter().fold(finding, Finding::fixed_by));
    }
    let judged = ours.iter().filter(asked).filter(|question| !question.is_behind(&KNOWN_USERS));
    let judged = judged.filter(|question| {
        facts.plugins_asked(question).any(|plugin| FOR_STRANGERS.contains(&plugin.module.as_str()))
    });
    findings.extend(once_per_place(judged.map(|question| {
        let text = format!(
            "{} asks before permit_sasl_authenticated, so lists and greylisting judge your own users",
            question.service.name
        );
        let command = facts.repair_behind(question, "permit_sasl_authenticated");
        Finding::doubt("D08", text).at(question.place()).fixed_by(command)
    })));
    findings
}

/// The services to which other servers deliver.
fn strangers(postfix: &Postfix) -> impl Iterator<Item = &super::Service> {
    postfix.smtpds().filter(|service| !service.is_submission() && !service.is_local())
}

/// D18.
pub fn hidden_clients(facts: &Facts) -> Vec<Finding> {
    let Some(postfix) = &facts.postfix else { return Vec::new() };
    let ours = facts.ours();
    let hidden = ours.iter().filter(|question| {
        let knows = postfix.value(Some(question.service), "smtpd_authorized_xclient_hosts");
        let has_proxy = postfix.value(Some(question.service), "smtpd_upstream_proxy_protocol");
        let is_told = [knows, has_proxy].into_iter().flatten().any(|value| !value.is_empty());
        question.service.is_local() && !is_told && !question.is_behind(&["permit_mynetworks"])
    });
    once_per_place(hidden.map(|question| {
        let text = format!(
            "{} takes messages from this machine only, so every client is 127.0.0.1 there; the policy was \
             asked before",
            question.service.name
        );
        let command = facts.repair_behind(question, "permit_mynetworks");
        Finding::doubt("D18", text).at(question.place()).fixed_by(command)
    }))
}

/// D19.
pub fn rivals(facts: &Facts) -> Vec<Finding> {
    const RIVALS: [(&str, &str, &[&str]); 4] = [
        ("postgrey", "postgrey", &["Greylist"]),
        (":10023", "postgrey", &["Greylist"]),
        ("policyd-spf", "policyd-spf", &["SPF"]),
        ("rate-limit", "policyd-rate-limit", &["RateLimit", "Quota"]),
    ];
    let Some(postfix) = &facts.postfix else { return Vec::new() };
    let mut findings = Vec::new();
    for question in postfix.questions().iter().filter(|question| facts.address_of(question).is_none()) {
        let rival = RIVALS.iter().find(|(word, _, _)| question.server.endpoint.contains(word));
        if let Some((_, name, modules)) = rival.filter(|(_, _, modules)| facts.has(modules)) {
            let text = format!(
                "{} asks {name} ({}) as well, which does what {} of mtpolicyd does",
                question.list, question.server.endpoint, modules[0]
            );
            let command = facts.remove(question);
            findings.push(Finding::doubt("D19", text).at(question.place()).fixed_by(command));
        }
    }
    once_per_place(findings.into_iter())
}

/// Services share the lists of main.cf, so one place is told once.
pub(super) fn once_per_place(findings: impl Iterator<Item = Finding>) -> Vec<Finding> {
    let mut told = BTreeSet::new();
    findings.filter(|finding| told.insert((finding.place.clone(), finding.fix.clone()))).collect()
}
