//! Whether the plugins are asked at a stage at which Postfix knows what they look at.
//!
//! Knows: stages of the SMTP dialogue, what plugins count. Must not know: time-outs, the machine.

use super::lists::KNOWN_USERS;
use super::wiring::once_per_place;
use super::{Facts, Finding, Question, option};
use decisions::StepInfo;
use std::collections::BTreeSet;

/// The stage at which everything is known.
const END: &str = "END-OF-MESSAGE";

/// The list of that stage.
const END_LIST: &str = "smtpd_end_of_data_restrictions";

impl Facts {
    /// The plugins of the virtual host that a question asks.
    pub(super) fn plugins_asked(&self, question: &Question<'_>) -> impl Iterator<Item = &StepInfo> {
        let context = question.server.option("policy_context").map(str::as_bytes);
        let host = self.settings.as_ref().and_then(|settings| {
            let key = self.address_of(question)?.vhost_key();
            settings.host(&key, context)
        });
        let name = host.map(|host| host.name.clone());
        self.plugins().iter().filter(move |plugin| name.as_deref() == Some(plugin.host.as_str()))
    }

    /// The questions to the daemon by the virtual host that answers: its plugins, and the stages.
    fn asked(&self) -> Vec<(Vec<&StepInfo>, Vec<Question<'_>>)> {
        let mut hosts: Vec<(Vec<&StepInfo>, Vec<Question<'_>>)> = Vec::new();
        for question in self.ours() {
            let plugins: Vec<_> = self.plugins_asked(&question).collect();
            match hosts.iter_mut().find(|(known, _)| *known == plugins) {
                Some((_, questions)) => questions.push(question),
                None => hosts.push((plugins, vec![question])),
            }
        }
        hosts
    }

    /// A finding for the first plugin of each host that counts something which no stage delivers at which the
    /// host is asked. What repairs it is a question at the end of the message.
    fn unknown_at(
        &self,
        code: &'static str,
        counts: fn(&StepInfo) -> bool,
        at: &[&str],
        why: &str,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (plugins, questions) in self.asked() {
            let Some(plugin) = plugins.iter().find(|plugin| counts(plugin)) else { continue };
            let stages: BTreeSet<_> = questions.iter().map(|question| question.stage).collect();
            if stages.iter().any(|stage| at.contains(stage)) {
                continue;
            }
            let stages = stages.into_iter().collect::<Vec<_>>().join(" and ");
            let text = format!("Plugin {} ({}) {why}; it is asked at {stages}", plugin.name, plugin.module);
            let finding = Finding::doubt(code, text).at(questions[0].place());
            let command = self.ask(questions[0].service, END_LIST, &questions[0].server);
            findings.push(finding.fixed_by(command));
        }
        findings
    }
}

/// D10.
pub fn too_early(facts: &Facts) -> Vec<Finding> {
    let ours = facts.ours();
    let early = ours.iter().filter(|question| matches!(question.stage, "CONNECT" | "EHLO" | "MAIL"));
    once_per_place(early.map(|question| {
        let missing = match question.stage {
            "MAIL" => "the recipient",
            _ => "sender and recipient",
        };
        let text = format!(
            "smtpd_delay_reject = no: the daemon is asked at {}, where {missing} is not known yet",
            question.stage
        );
        let command = if question.service.overrides("smtpd_delay_reject") {
            format!(
                "postconf -P '{}/{}/smtpd_delay_reject=yes'",
                question.service.name, question.service.kind
            )
        } else {
            "postconf -e 'smtpd_delay_reject = yes'".to_owned()
        };
        Finding::doubt("D10", text).at(question.place()).fixed_by(command)
    }))
}

/// D15.
pub fn recipients(facts: &Facts) -> Vec<Finding> {
    let counts = |plugin: &StepInfo| match plugin.module.as_str() {
        "Accounting" => true,
        "Quota" => option(plugin, "metric") == Some("count_rcpt"),
        _ => false,
    };
    let why = "counts recipient_count, which is 0 before DATA";
    facts.unknown_at("D15", counts, &["DATA", END], why)
}

/// D16.
pub fn sizes(facts: &Facts) -> Vec<Finding> {
    let counts = |plugin: &StepInfo| match plugin.module.as_str() {
        "Quota" => option(plugin, "metric").is_some_and(|metric| metric.starts_with("size")),
        "RateLimit" => option(plugin, "count") == Some("bytes"),
        _ => false,
    };
    let why = "counts the size, which is only what the client announces before END-OF-MESSAGE";
    facts.unknown_at("D16", counts, &[END], why)
}

/// D17.
pub fn logins(facts: &Facts) -> Vec<Finding> {
    const LOGIN: &str = "sasl_username";
    let counts = |plugin: &&StepInfo| {
        let key = match plugin.module.as_str() {
            "Accounting" => option(plugin, "fields"),
            "Quota" => option(plugin, "field"),
            "RateLimit" => option(plugin, "key"),
            _ => None,
        };
        key.is_some_and(|key| key.contains(LOGIN))
    };
    let mut findings = Vec::new();
    for (plugins, questions) in facts.asked() {
        let Some(plugin) = plugins.into_iter().find(counts) else { continue };
        if questions.iter().any(|question| !question.is_behind(&KNOWN_USERS[1..])) {
            continue;
        }
        let text = format!(
            "Plugin {} ({}) looks at {LOGIN}, but the daemon is asked behind permit_sasl_authenticated only",
            plugin.name, plugin.module
        );
        let finding = Finding::doubt("D17", text).at(questions[0].place());
        let command = facts.ask(questions[0].service, END_LIST, &questions[0].server);
        findings.push(finding.fixed_by(command));
    }
    findings
}
