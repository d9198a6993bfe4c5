//! The lookups of one check: each question is asked once, by whoever comes first.
//!
//! Knows: questions and answers. Must not know: why they are asked.

use crate::record::{Record, Unusable};
use crate::resolve::{Failure, Resolve};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

/// A question about a name or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Question {
    /// The record of a domain, parsed.
    Policy(String),
    /// The TXT records.
    Texts(String),
    /// The IPv4 addresses.
    Ipv4(String),
    /// The IPv6 addresses.
    Ipv6(String),
    /// The hosts that take mail.
    Exchanges(String),
    /// The names of an address.
    Names(IpAddr),
}

/// What was found, perhaps nothing. The kind is that of the question.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Policy(Arc<Policy>),
    Texts(Arc<[Vec<u8>]>),
    Addresses(Arc<[IpAddr]>),
    Names(Arc<[String]>),
}

pub(crate) type Answer = Result<Found, Failure>;

/// What a domain publishes.
#[derive(Debug)]
pub(crate) struct Policy {
    /// Its record, if it has one, or what is wrong with it.
    pub record: Result<Option<Record>, Unusable>,
    /// The length of all its TXT records.
    bytes: usize,
}

/// After records of this length others get their turn.
const MAX_BYTES_AT_ONCE: usize = 2_048;

impl Policy {
    fn new(texts: &[Vec<u8>]) -> Policy {
        Policy { record: Record::find(texts), bytes: texts.iter().map(Vec::len).sum() }
    }

    /// What a name publishes that has no records.
    pub(crate) fn none() -> Policy {
        Policy { record: Ok(None), bytes: 0 }
    }

    /// After a long text, lets those run first that wait for the same thread.
    pub(crate) async fn give_way(&self) {
        let mut is_due = self.bytes > MAX_BYTES_AT_ONCE;
        std::future::poll_fn(|cx| {
            if std::mem::take(&mut is_due) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

/// A lookup that was started; it goes on while one of its clones is polled.
pub(crate) type Lookup<'r> = Shared<BoxFuture<'r, Answer>>;

/// All lookups of a check.
pub(crate) struct Lookups<'r, R> {
    resolver: &'r R,
    started: Mutex<HashMap<Question, Lookup<'r>>>,
}

impl<'r, R: Resolve> Lookups<'r, R> {
    pub(crate) fn new(resolver: &'r R) -> Lookups<'r, R> {
        Lookups { resolver, started: Mutex::default() }
    }

    /// The lookup of a question, the same for all who ask it.
    pub(crate) fn lookup(&self, question: Question) -> Lookup<'r> {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lookup) = started.get(&question) {
            return lookup.clone();
        }
        let resolver = self.resolver;
        let lookup = ask(resolver, question.clone()).boxed().shared();
        started.insert(question, lookup.clone());
        lookup
    }

    pub(crate) async fn policy(&self, domain: &str) -> Result<Arc<Policy>, Failure> {
        match self.lookup(Question::Policy(domain.to_owned())).await? {
            Found::Policy(policy) => Ok(policy),
            _ => Ok(Arc::new(Policy::none())),
        }
    }

    pub(crate) async fn texts(&self, name: &str) -> Result<Arc<[Vec<u8>]>, Failure> {
        match self.lookup(Question::Texts(name.to_owned())).await? {
            Found::Texts(texts) => Ok(texts),
            _ => Ok(Arc::default()),
        }
    }

    /// The addresses of a name that are of the client's kind.
    pub(crate) async fn addresses(&self, name: &str, client: IpAddr) -> Result<Arc<[IpAddr]>, Failure> {
        match self.lookup(Question::addresses(name, client)).await? {
            Found::Addresses(addresses) => Ok(addresses),
            _ => Ok(Arc::default()),
        }
    }

    pub(crate) async fn names(&self, question: Question) -> Result<Arc<[String]>, Failure> {
        match self.lookup(question).await? {
            Found::Names(names) => Ok(names),
            _ => Ok(Arc::default()),
        }
    }
}

impl Question {
    pub(crate) fn addresses(name: &str, client: IpAddr) -> Question {
        if client.is_ipv4() { Question::Ipv4(name.to_owned()) } else { Question::Ipv6(name.to_owned()) }
    }
}

async fn ask<R: Resolve>(resolver: &R, question: Question) -> Answer {
    Ok(match question {
        Question::Policy(name) => Found::Policy(Arc::new(Policy::new(&resolver.texts(&name).await?))),
        Question::Texts(name) => Found::Texts(resolver.texts(&name).await?.into()),
        Question::Ipv4(name) => {
            Found::Addresses(resolver.ipv4_addresses(&name).await?.into_iter().map(IpAddr::from).collect())
        }
        Question::Ipv6(name) => {
            Found::Addresses(resolver.ipv6_addresses(&name).await?.into_iter().map(IpAddr::from).collect())
        }
        Question::Exchanges(name) => Found::Names(resolver.exchanges(&name).await?.into()),
        Question::Names(ip) => Found::Names(resolver.names(ip).await?.into()),
    })
}
