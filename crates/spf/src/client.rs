//! The true names of a client: those that its address has, and that have its address (RFC 7208, 5.5).
//!
//! Knows: lookups. Must not know: records.

use crate::lookups::{Lookups, Question};
use crate::name::{is_below, is_name};
use crate::request::{Request, Settings};
use crate::resolve::Resolve;
use futures_util::future::join_all;

/// What the name service says about the names of a client.
pub(crate) enum Names {
    /// Nothing can be found out now.
    Failed,
    /// It has none at all.
    Nothing,
    /// These are true, perhaps none of those that it has.
    True(Vec<String>),
}

pub(crate) async fn true_names<R: Resolve>(
    lookups: &Lookups<'_, R>,
    request: &Request,
    settings: &Settings,
) -> Names {
    let client = request.client;
    let Ok(names) = lookups.names(Question::Names(client)).await else { return Names::Failed };
    if names.is_empty() {
        return Names::Nothing;
    }
    let names = names.iter().take(settings.limits.names).filter(|name| is_name(name));
    let answers = names.map(async |name| (name, lookups.addresses(name, client).await));
    // A name whose addresses can't be looked up is not known to be true.
    let is_true =
        |answer: &Result<std::sync::Arc<[_]>, _>| answer.as_ref().is_ok_and(|all| all.contains(&client));
    let answers = join_all(answers).await.into_iter().filter(|(_, answer)| is_true(answer));
    Names::True(answers.map(|(name, _)| name.clone()).collect())
}

/// Of the client's true names that of the domain, else one below it, else any (RFC 7208, 7.3).
pub(crate) async fn true_name<R: Resolve>(
    lookups: &Lookups<'_, R>,
    request: &Request,
    settings: &Settings,
    domain: &str,
) -> Option<String> {
    let Names::True(names) = true_names(lookups, request, settings).await else { return None };
    let rank = |name: &String| match name {
        name if name.eq_ignore_ascii_case(domain) => 0,
        name if is_below(name, domain) => 1,
        _ => 2,
    };
    names.into_iter().min_by_key(rank)
}
