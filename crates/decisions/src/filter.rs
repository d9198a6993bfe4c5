//! What decisions are searched for.
//!
//! Knows: records. Must not know: where they are kept.

use crate::about::is_about;
use crate::{Decision, DecisionId, Outcome};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::SystemTime;

/// Which decisions are wanted: those to which everything applies that is given. Texts of addresses and names
/// match without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// The sender: an address, or `@example.org` for all of a domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The recipient, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The address of the client, or a network such as `192.0.2.0/24`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The name of the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// The login (`sasl_username`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The name that the client gave in HELO or EHLO.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helo: Option<String>,
    /// The queue id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The instance: all requests of one message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The plugin that decided or failed: its name, or its path from the virtual host on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// What became of the request: one of these. Empty is any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outcome: Vec<Outcome>,
    /// The virtual host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Not earlier than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<DecisionId>,
    /// Earlier than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<DecisionId>,
    /// Longer than this many microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slower: Option<u32>,
    /// Only requests in which something failed.
    #[serde(skip_serializing_if = "is_false")]
    pub failed: bool,
    /// Only requests that the shadow of their virtual host would have decided otherwise.
    #[serde(skip_serializing_if = "is_false")]
    pub shadow_differs: bool,
    /// A text that occurs in the request, the answer, a finding or a lookup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The address of a mailbox, or a login, that occurs anywhere: not as a part of another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}

/// What is wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The client is neither an address nor a network.
    #[error("`{0}` is neither an IP address nor a network such as 192.0.2.0/24")]
    Client(String),
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Filter {
    /// Refuses what can't be searched for.
    pub fn check(&self) -> Result<(), FilterError> {
        match &self.client {
            Some(client) if network(client).is_none() => Err(FilterError::Client(client.clone())),
            _ => Ok(()),
        }
    }

    /// Restricts it to what was decided at this time or later.
    pub fn since_time(&mut self, time: SystemTime) {
        self.since = Some(DecisionId::first_at(time));
    }

    /// Restricts it to what was decided before this time.
    pub fn until_time(&mut self, time: SystemTime) {
        self.until = Some(DecisionId::first_at(time));
    }

    /// Whether it wants a decision.
    pub fn matches(&self, decision: &Decision) -> bool {
        let is_in_time = self.since.is_none_or(|since| decision.id >= since)
            && self.until.is_none_or(|until| decision.id < until);
        let is_outcome = self.outcome.is_empty() || self.outcome.contains(&decision.outcome);
        let is_host = self.host.as_deref().is_none_or(|host| host == &*decision.host);
        let is_slow = self.slower.is_none_or(|micros| decision.took > micros);
        let is_failed = !self.failed || decision.has_failure();
        let is_shadowed = !self.shadow_differs || decision.shadow.is_some();
        is_in_time
            && is_outcome
            && is_host
            && is_slow
            && is_failed
            && is_shadowed
            && self.matches_request(decision)
            && self.plugin.as_deref().is_none_or(|plugin| is_by(decision, plugin))
            && self.text.as_deref().is_none_or(|text| has_text(decision, text))
            && self.about.as_deref().is_none_or(|name| is_about(decision, &[name.trim().to_lowercase()]))
    }

    fn matches_request(&self, decision: &Decision) -> bool {
        let value = |name| decision.attribute(name).unwrap_or_default();
        let addresses = [(&self.from, "sender"), (&self.to, "recipient")];
        let names = [
            (&self.client_name, "client_name"),
            (&self.login, "sasl_username"),
            (&self.helo, "helo_name"),
            (&self.queue, "queue_id"),
            (&self.instance, "instance"),
        ];
        let is_client = |wanted: &str| {
            let client = str::from_utf8(value("client_address")).ok().and_then(|text| text.parse().ok());
            let network = network(wanted);
            client.zip(network).is_some_and(|(client, network)| is_within(client, network))
        };
        addresses
            .iter()
            .all(|(wanted, name)| wanted.as_deref().is_none_or(|wanted| is_address(value(name), wanted)))
            && names.iter().all(|(wanted, name)| {
                wanted.as_ref().is_none_or(|it| value(name).eq_ignore_ascii_case(it.as_bytes()))
            })
            && self.client.as_deref().is_none_or(is_client)
    }
}

/// Whether an address is the one wanted, or of the domain wanted.
fn is_address(address: &[u8], wanted: &str) -> bool {
    let wanted = wanted.as_bytes();
    if wanted.first() != Some(&b'@') {
        return address.eq_ignore_ascii_case(wanted);
    }
    let at = address.iter().rposition(|byte| *byte == b'@');
    at.is_some_and(|at| address[at..].eq_ignore_ascii_case(wanted))
}

/// An address and the number of its bits that count.
pub(crate) fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some((address, bits))
}

fn is_within(client: IpAddr, (network, bits): (IpAddr, u32)) -> bool {
    match (client.to_canonical(), network) {
        (IpAddr::V4(client), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or_default();
            client.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(client), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or_default();
            client.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

fn is_by(decision: &Decision, plugin: &str) -> bool {
    decision.decider().is_some_and(|step| step.path == plugin || step.name == plugin)
}

fn has_text(decision: &Decision, text: &str) -> bool {
    let wanted = text.to_lowercase();
    let has = |found: &str| found.to_lowercase().contains(&wanted);
    let lookups = &decision.walk.lookups;
    has(&String::from_utf8_lossy(&decision.request))
        || has(&decision.answer)
        || has(&decision.failure)
        || decision.walk.notes().any(|(_, note)| has(note))
        || lookups.iter().any(|lookup| has(lookup.question) || has(lookup.answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Flags;
    use crate::record::tests::decision;

    #[test]
    fn everything_that_is_given_has_to_apply() {
        let request = "sender=Bob@Example.org\nrecipient=a@b.test\nclient_address=192.0.2.77\n\
                       client_name=mail.example.org\nhelo_name=x\ninstance=1.2\n\n";
        let mut found = decision(request, Outcome::Defer);
        let step = found.walk.begin(0, 0);
        found.walk.note("known since Monday");
        found.walk.end(step, crate::StepOutcome::Stopped);
        let text = |text: &str| Some(text.to_owned());
        let all = Filter::default();
        for (filter, matches) in [
            (all.clone(), true),
            (Filter { from: text("bob@example.ORG"), ..all.clone() }, true),
            (Filter { from: text("@example.org"), ..all.clone() }, true),
            (Filter { from: text("@ample.org"), ..all.clone() }, false),
            (Filter { to: text("a@b.test"), from: text("b@b.test"), ..all.clone() }, false),
            (Filter { client: text("192.0.2.77"), ..all.clone() }, true),
            (Filter { client: text("192.0.2.0/24"), ..all.clone() }, true),
            (Filter { client: text("0.0.0.0/0"), ..all.clone() }, true),
            (Filter { client: text("192.0.2.0/26"), ..all.clone() }, false),
            (Filter { client: text("2001:db8::/32"), ..all.clone() }, false),
            (Filter { plugin: text("greylist"), ..all.clone() }, true),
            (Filter { plugin: text("inbound/greylist"), ..all.clone() }, true),
            (Filter { plugin: text("inbound"), ..all.clone() }, false),
            (Filter { outcome: vec![Outcome::Reject, Outcome::Defer], ..all.clone() }, true),
            (Filter { outcome: vec![Outcome::Pass], ..all.clone() }, false),
            (Filter { host: text("outbound"), ..all.clone() }, false),
            (Filter { slower: Some(1_499), ..all.clone() }, true),
            (Filter { slower: Some(1_500), ..all.clone() }, false),
            (Filter { failed: true, ..all.clone() }, false),
            (Filter { text: text("MONDAY"), ..all.clone() }, true),
            (Filter { text: text("Tuesday"), ..all.clone() }, false),
            (Filter { about: text(" bob@example.org"), ..all.clone() }, true),
            (Filter { about: text("ob@example.org"), ..all.clone() }, false),
            (Filter { since: Some(found.id), ..all.clone() }, true),
            (Filter { until: Some(found.id), ..all.clone() }, false),
        ] {
            assert_eq!(filter.matches(&found), matches, "{filter:?}");
            let json = serde_json::to_string(&filter).unwrap();
            assert_eq!(serde_json::from_str::<Filter>(&json).unwrap(), filter, "{json}");
        }
        found.flags = Flags::LATE;
        assert!(Filter { failed: true, ..all }.matches(&found));
    }

    #[test]
    fn a_client_is_an_address_or_a_network() {
        for (client, is_one) in
            [("192.0.2.1", true), ("2001:db8::/32", true), ("192.0.2.0/33", false), ("x", false)]
        {
            let filter = Filter { client: Some(client.to_owned()), ..Filter::default() };
            assert_eq!(filter.check().is_ok(), is_one, "{client}");
        }
        assert!(
            serde_json::from_str::<Filter>(r#"{"form":"a"}"#).is_err(),
            "a misspelt name does not match all"
        );
    }
}
