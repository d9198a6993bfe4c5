//! Lookups before their turn: those of a record at once, and those of the records that it includes as soon as
//! they are there. So a record costs as many round trips as its includes are nested deep.
//!
//! Knows: what an evaluation will ask. Must not know: what it makes of the answers. No verdict depends on it.

use crate::expand::Values;
use crate::lookups::{Answer, Found, Lookup, Lookups, Question};
use crate::macros::MacroText;
use crate::name::{is_domain, is_name};
use crate::record::{Mechanism, Record};
use crate::request::{Request, Settings};
use crate::resolve::Resolve;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::net::IpAddr;

/// Starts what the evaluation will ask, until there is no more to start. No more terms are looked up than an
/// evaluation may have.
pub(crate) async fn look_ahead<R: Resolve>(lookups: &Lookups<'_, R>, request: &Request, settings: &Settings) {
    let mut running = FuturesUnordered::new();
    if let Some(domain) = request.record_name() {
        running.push(arrival(Some(domain.to_owned()), lookups.lookup(record_of(domain))));
    }
    let mut terms_left = settings.limits.terms;
    while let Some((policy_of, answer)) = running.next().await {
        let Some(domain) = policy_of else { continue };
        let Ok(Found::Policy(policy)) = answer else { continue };
        policy.give_way().await;
        let Ok(Some(record)) = &policy.record else { continue };
        let values = Values { request, settings, domain: &domain, true_name: None };
        for next in upcoming(record, &values, terms_left) {
            if next.is_term() {
                if terms_left == 0 {
                    break;
                }
                terms_left -= 1;
            }
            match next {
                Upcoming::Policy(domain) => {
                    let lookup = lookups.lookup(record_of(&domain));
                    running.push(arrival(Some(domain), lookup));
                }
                Upcoming::Term(question) | Upcoming::Name(question) => {
                    running.push(arrival(None, lookups.lookup(question)));
                }
            }
        }
    }
}

/// An answer with the domain whose policy it is, if it is one.
async fn arrival(policy_of: Option<String>, lookup: Lookup<'_>) -> (Option<String>, Answer) {
    (policy_of, lookup.await)
}

fn record_of(domain: &str) -> Question {
    Question::Policy(domain.to_owned())
}

/// A lookup that a record will want.
enum Upcoming {
    /// The record of another domain.
    Policy(String),
    /// What another term asks.
    Term(Question),
    /// What a macro asks.
    Name(Question),
}

impl Upcoming {
    fn is_term(&self) -> bool {
        !matches!(self, Upcoming::Name(_))
    }
}

/// The lookups of a record up to the term that needs none to match, as far as their names are known, and no
/// more terms than may still ask.
fn upcoming(record: &Record, values: &Values<'_>, terms_left: usize) -> Vec<Upcoming> {
    let client = values.request.client;
    let mut all = Vec::new();
    let mut asking = 0;
    for directive in &record.directives {
        asking += usize::from(!matches!(directive.mechanism, Mechanism::All | Mechanism::Ip(..)));
        if asking > terms_left {
            return all;
        }
        let upcoming = match &directive.mechanism {
            Mechanism::All => return all,
            Mechanism::Ip(first, prefix) if in_network(client, *first, *prefix) => return all,
            Mechanism::Ip(..) => continue,
            Mechanism::Include(spec) => name_of(Some(spec), values, policy),
            Mechanism::A(hosts) => name_of(hosts.domain.as_ref(), values, |name| {
                Some(Upcoming::Term(Question::addresses(&name, client)))
            }),
            Mechanism::Mx(hosts) => {
                name_of(hosts.domain.as_ref(), values, |name| Some(Upcoming::Term(Question::Exchanges(name))))
            }
            Mechanism::Exists(spec) => {
                name_of(Some(spec), values, |name| Some(Upcoming::Term(Question::Ipv4(name))))
            }
            Mechanism::Ptr(_) => Some(Upcoming::Term(Question::Names(client))),
        };
        all.extend(upcoming);
    }
    if let Some(spec) = &record.redirect {
        all.extend(name_of(Some(spec), values, policy));
    }
    all
}

fn policy(name: String) -> Option<Upcoming> {
    is_domain(&name).then_some(Upcoming::Policy(name))
}

/// The lookup about the name that a term means. What depends on the client's true name waits for it.
fn name_of(
    spec: Option<&MacroText>,
    values: &Values<'_>,
    lookup: impl FnOnce(String) -> Option<Upcoming>,
) -> Option<Upcoming> {
    if spec.is_some_and(|spec| spec.has('p')) {
        return Some(Upcoming::Name(Question::Names(values.request.client)));
    }
    let name = spec.map_or_else(|| values.domain.to_owned(), |spec| values.name(spec));
    if is_name(&name) { lookup(name) } else { None }
}

/// Whether two addresses of one kind begin with the same bits.
pub(crate) fn in_network(ip: IpAddr, first: IpAddr, prefix: u8) -> bool {
    match (ip, first) {
        (IpAddr::V4(ip), IpAddr::V4(first)) => {
            let differing = ip.to_bits() ^ first.to_bits();
            differing.leading_zeros() >= u32::from(prefix)
        }
        (IpAddr::V6(ip), IpAddr::V6(first)) => {
            let differing = ip.to_bits() ^ first.to_bits();
            differing.leading_zeros() >= u32::from(prefix)
        }
        _ => false,
    }
}
