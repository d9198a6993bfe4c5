//! Clients whose failures have no consequences.
//!
//! Knows: networks, names, SPF checks. Must not know: what comes of a failure.

use crate::facts::spf::ascii_domain;
use crate::network::Network;
use crate::plugin::Cx;
use crate::sender_policy::{Checks, client_of, helo_request};
use crate::value::Value;
use backends::Call;
use backends::dns::{Answer, Question, RecordType};
use spf::Verdict;
use std::fmt::Display;
use std::net::IpAddr;

/// The most forwarders: each is a check of its own, and they are made at the same time.
const MAX_FORWARDERS: usize = 20;

/// The entries of a list, which commas or blanks separate.
fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|entry| !entry.is_empty())
}

fn show<T: Display>(entries: &[T], f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    let entries: Vec<_> = entries.iter().map(T::to_string).collect();
    f.write_str(&entries.join(", "))
}

/// Networks of clients.
#[derive(Clone, Debug, Default)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether an address is in one of them.
    pub fn contain(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }
}

impl Display for Networks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        show(&self.0, f)
    }
}

impl Value for Networks {
    const FORM: &'static str = "addresses and networks, separated by commas or blanks";
    fn parse(text: &str) -> Result<Self, String> {
        let network = |entry| {
            Network::parse(entry).ok_or_else(|| format!("`{entry}` is neither an address nor a network"))
        };
        entries(text).map(network).collect::<Result<_, _>>().map(Networks)
    }
}

/// Domains, in lower case and ASCII.
#[derive(Clone, Debug, Default)]
pub struct Domains(Vec<String>);

impl Display for Domains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        show(&self.0, f)
    }
}

impl Value for Domains {
    const FORM: &'static str = "domains, separated by commas or blanks";
    fn parse(text: &str) -> Result<Self, String> {
        let domains: Vec<_> = entries(text).map(domain).collect::<Result<_, _>>()?;
        if domains.len() > MAX_FORWARDERS {
            return Err(format!("these are more than {MAX_FORWARDERS} domains"));
        }
        Ok(Domains(domains))
    }
}

fn domain(entry: &str) -> Result<String, String> {
    let domain = ascii_domain(entry.strip_suffix('.').unwrap_or(entry)).to_ascii_lowercase();
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let is_domain = domain.contains('.') && domain.split('.').all(is_label);
    if is_domain { Ok(domain) } else { Err(format!("`{entry}` is not a domain")) }
}

/// Names that hosts use in HELO; with a dot in front, all below.
#[derive(Clone, Debug, Default)]
pub struct HeloNames(Vec<String>);

impl HeloNames {
    /// Whether a name is among them.
    pub fn contain(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        self.0.iter().any(|entry| match entry.strip_prefix('.') {
            Some(domain) => name == domain || name.ends_with(entry),
            None => name == *entry,
        })
    }
}

impl Display for HeloNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        show(&self.0, f)
    }
}

impl Value for HeloNames {
    const FORM: &'static str = "names, with a dot in front for all below, separated by commas or blanks";
    fn parse(text: &str) -> Result<Self, String> {
        let name = |entry: &str| match entry.strip_prefix('.') {
            Some(below) => domain(below).map(|domain| format!(".{domain}")),
            None => domain(entry),
        };
        entries(text).map(name).collect::<Result<_, _>>().map(HeloNames)
    }
}

/// Whether a client is one of those whose failures have no consequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// Its failures have no consequences.
    Yes,
    /// Its failures count.
    No,
    /// The name service does not say.
    Unknown,
}

impl Exemption {
    fn of(verdict: Verdict) -> Exemption {
        match verdict {
            Verdict::Pass => Exemption::Yes,
            Verdict::TempError => Exemption::Unknown,
            _ => Exemption::No,
        }
    }

    /// That of two lists: one is enough.
    pub fn or(self, other: Exemption) -> Exemption {
        match (self, other) {
            (Exemption::Yes, _) | (_, Exemption::Yes) => Exemption::Yes,
            (Exemption::Unknown, _) | (_, Exemption::Unknown) => Exemption::Unknown,
            (Exemption::No, Exemption::No) => Exemption::No,
        }
    }
}

/// Whether the client may call itself by this name: its SPF record says so or, where it has none, its
/// address. The verdict is that of the check, if it was made.
pub async fn may_use_name(
    helo: &str,
    verdict: Option<Verdict>,
    checks: &Checks,
    cx: &mut Cx<'_>,
    call: Call<'_>,
) -> Exemption {
    let verdict = match (verdict, helo_request(cx.request)) {
        (Some(verdict), _) => verdict,
        (None, Some(request)) => {
            let outcomes = checks.run(cx, &[request], call).await;
            outcomes.first().map_or(Verdict::TempError, |outcome| outcome.verdict)
        }
        (None, None) => return Exemption::No,
    };
    match verdict {
        Verdict::None => has_address_of_client(helo, cx, call).await,
        verdict => Exemption::of(verdict),
    }
}

async fn has_address_of_client(name: &str, cx: &mut Cx<'_>, call: Call<'_>) -> Exemption {
    let Some(client) = client_of(cx.request) else { return Exemption::No };
    let record_type = if client.is_ipv4() { RecordType::A } else { RecordType::Aaaa };
    let answer = cx.ahead.answer(&cx.world.dns, &Question::new(name, record_type), call).await;
    let has = match (answer, client) {
        (Answer::Failed(_), _) => return Exemption::Unknown,
        (Answer::Addresses(addresses), IpAddr::V4(client)) => addresses.contains(&client),
        (Answer::Ipv6Addresses(addresses), IpAddr::V6(client)) => addresses.contains(&client),
        _ => false,
    };
    if has { Exemption::Yes } else { Exemption::No }
}

/// Whether the client is a host of one of these domains, by their SPF records.
pub async fn sends_for_any(domains: &Domains, checks: &Checks, cx: &mut Cx<'_>, call: Call<'_>) -> Exemption {
    let Some(client) = client_of(cx.request) else { return Exemption::No };
    let request = |domain: &String| spf::Request::mail_from(client, domain, domain);
    let requests: Vec<_> = domains.0.iter().map(request).collect();
    let outcomes = checks.run(cx, &requests, call).await;
    outcomes.iter().fold(Exemption::No, |exemption, outcome| exemption.or(Exemption::of(outcome.verdict)))
}
