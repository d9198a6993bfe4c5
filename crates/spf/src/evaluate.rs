//! The check itself: records in the order of their terms (RFC 7208, 4).
//!
//! Knows: records, limits. Must not know: which lookups were started early.

use crate::ahead::{in_network, look_ahead};
use crate::client::{Names, true_name, true_names};
use crate::expand::Values;
use crate::lookups::{Lookups, Policy, Question};
use crate::macros::MacroText;
use crate::name::{is_below, is_domain, is_name};
use crate::outcome::{Outcome, Step, Verdict, excerpt};
use crate::record::{Directive, Hosts, Mechanism, Record, Unusable};
use crate::request::{Request, Settings};
use crate::resolve::{Failure, Resolve};
use futures_util::future::{BoxFuture, Either, join_all, select};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;

/// How deep records may include one another, whatever the limits: each level takes memory.
const MAX_NESTING: usize = 50;

/// May the client send for the domain? Dropping the future stops the check.
pub async fn check<R: Resolve>(resolver: &R, request: &Request, settings: &Settings) -> Outcome {
    let lookups = Lookups::new(resolver);
    let mut evaluation =
        Evaluation { lookups: &lookups, request, settings, terms: 0, void_terms: 0, nesting: 0 };
    let evaluation = pin!(evaluation.check_host(request.domain.clone()));
    if !settings.look_ahead {
        return evaluation.await;
    }
    match select(pin!(look_ahead(&lookups, request, settings)), evaluation).await {
        Either::Left(((), evaluation)) => evaluation.await,
        Either::Right((outcome, _)) => outcome,
    }
}

/// Why a record can't be evaluated; the verdict is one of the two errors.
struct Problem {
    verdict: Verdict,
    text: String,
}

impl Problem {
    fn permanent(text: impl Into<String>) -> Problem {
        Problem { verdict: Verdict::PermError, text: text.into() }
    }

    fn temporary(text: String) -> Problem {
        Problem { verdict: Verdict::TempError, text }
    }
}

impl From<&Unusable> for Problem {
    fn from(unusable: &Unusable) -> Problem {
        match unusable {
            Unusable::Several => Problem::permanent("there is more than one SPF record"),
            Unusable::Syntax(error) => Problem::permanent(error.to_string()),
        }
    }
}

/// What a mechanism says.
enum Match {
    /// It does not match.
    No,
    /// It matches, through these terms of an included record.
    Yes(Vec<Step>),
    /// It, or a record that it includes, can't be evaluated.
    Broken(Problem, Vec<Step>),
}

impl From<bool> for Match {
    fn from(matches: bool) -> Match {
        if matches { Match::Yes(Vec::new()) } else { Match::No }
    }
}

impl From<Problem> for Match {
    fn from(problem: Problem) -> Match {
        Match::Broken(problem, Vec::new())
    }
}

/// One check on its way.
struct Evaluation<'a, 'r, R> {
    lookups: &'a Lookups<'r, R>,
    request: &'a Request,
    settings: &'a Settings,
    /// Terms that have asked the name service.
    terms: usize,
    /// Those that have found nothing.
    void_terms: usize,
    /// The depth: the number of records around this one.
    nesting: usize,
}

impl<R: Resolve> Evaluation<'_, '_, R> {
    /// The function `check_host()` of the RFC.
    fn check_host<'s>(&'s mut self, domain: String) -> BoxFuture<'s, Outcome> {
        Box::pin(async move {
            let policy = match self.policy_of(&domain).await {
                Ok(policy) => policy,
                Err(problem) => return broken(&domain, None, problem, Vec::new()),
            };
            policy.give_way().await;
            match &policy.record {
                Ok(None) => Outcome::plain(Verdict::None, &domain),
                Ok(Some(record)) => self.evaluate(domain, record).await,
                Err(unusable) => broken(&domain, None, unusable.into(), Vec::new()),
            }
        })
    }

    async fn policy_of(&self, domain: &str) -> Result<Arc<Policy>, Problem> {
        if !is_domain(domain) {
            return Ok(Arc::new(Policy::none()));
        }
        if self.nesting > MAX_NESTING {
            return Err(Problem::permanent("records include one another too often"));
        }
        let policy = self.lookups.policy(domain).await;
        policy.map_err(|failure| Problem::temporary(format!("the TXT records can't be looked up: {failure}")))
    }

    async fn evaluate(&mut self, domain: String, record: &Record) -> Outcome {
        for directive in &record.directives {
            match self.matches(&domain, directive).await {
                Match::No => {}
                Match::Yes(inner) => {
                    let step = Step { domain: domain.clone(), term: Some(directive.text.to_string()) };
                    let trace = [vec![step], inner].concat();
                    let exp = record.exp.clone().filter(|_| directive.verdict == Verdict::Fail);
                    let verdict = directive.verdict;
                    return Outcome { verdict, trace, problem: None, decided_by: domain, exp };
                }
                Match::Broken(problem, inner) => {
                    return broken(&domain, Some(&directive.text), problem, inner);
                }
            }
        }
        match &record.redirect {
            Some(spec) => self.redirect(&domain, spec).await,
            None => Outcome::plain(Verdict::Neutral, &domain),
        }
    }

    async fn redirect(&mut self, domain: &str, spec: &MacroText) -> Outcome {
        let term = format!("redirect={spec}");
        if let Err(problem) = self.count_term() {
            return broken(domain, Some(&term), problem, Vec::new());
        }
        let target = self.name(domain, Some(spec)).await;
        self.nesting += 1;
        let mut outcome = self.check_host(target.clone()).await;
        self.nesting -= 1;
        if outcome.verdict == Verdict::None {
            let problem = Problem::permanent(format!("{} has no SPF record", excerpt(&target)));
            return broken(domain, Some(&term), problem, Vec::new());
        }
        outcome.trace.insert(0, Step { domain: domain.to_owned(), term: Some(term) });
        outcome
    }

    async fn matches(&mut self, domain: &str, directive: &Directive) -> Match {
        let client = self.request.client;
        match &directive.mechanism {
            Mechanism::All => true.into(),
            Mechanism::Ip(first, prefix) => in_network(client, *first, *prefix).into(),
            asking => {
                if let Err(problem) = self.count_term() {
                    return problem.into();
                }
                if asking.domain().is_some_and(|spec| self.wants_ascii_user(spec)) {
                    return Match::No;
                }
                match asking {
                    Mechanism::Include(spec) => self.include(domain, spec).await,
                    Mechanism::A(hosts) => self.a(domain, hosts).await,
                    Mechanism::Mx(hosts) => self.mx(domain, hosts).await,
                    Mechanism::Ptr(spec) => self.ptr(domain, spec.as_ref()).await,
                    Mechanism::Exists(spec) => self.exists(domain, spec).await,
                    Mechanism::All | Mechanism::Ip(..) => Match::No,
                }
            }
        }
    }

    async fn include(&mut self, domain: &str, spec: &MacroText) -> Match {
        let target = self.name(domain, Some(spec)).await;
        self.nesting += 1;
        let outcome = self.check_host(target.clone()).await;
        self.nesting -= 1;
        match outcome.verdict {
            Verdict::Pass => Match::Yes(outcome.trace),
            Verdict::Fail | Verdict::SoftFail | Verdict::Neutral => Match::No,
            Verdict::None => Problem::permanent(format!("{} has no SPF record", excerpt(&target))).into(),
            verdict @ (Verdict::TempError | Verdict::PermError) => {
                let text = outcome.problem.unwrap_or_default();
                Match::Broken(Problem { verdict, text }, outcome.trace)
            }
        }
    }

    async fn a(&mut self, domain: &str, hosts: &Hosts) -> Match {
        let name = self.name(domain, hosts.domain.as_ref()).await;
        if !is_name(&name) {
            return Match::No;
        }
        match self.addresses(&name).await {
            Ok(addresses) => {
                self.count_void(addresses.is_empty(), hosts.hold(self.request.client, &addresses))
            }
            Err(problem) => problem.into(),
        }
    }

    async fn mx(&mut self, domain: &str, hosts: &Hosts) -> Match {
        let name = self.name(domain, hosts.domain.as_ref()).await;
        if !is_name(&name) {
            return Match::No;
        }
        let exchanges = match self.lookups.names(Question::Exchanges(name.clone())).await {
            Ok(exchanges) => exchanges,
            Err(failure) => return failed("the MX records", &name, &failure).into(),
        };
        let limit = self.settings.limits.names;
        if exchanges.len() > limit {
            return Problem::permanent(format!("{} has more than {limit} MX records", excerpt(&name))).into();
        }
        let client = self.request.client;
        // All at once: which of them has the client does not depend on their order.
        let hosts_to_ask = exchanges.iter().filter(|host| is_name(host));
        let answers = join_all(hosts_to_ask.map(|host| self.addresses(host))).await;
        // Of a domain that takes no mail (RFC 7505) there is an answer, and nothing to ask.
        let mut found = answers.is_empty() && !exchanges.is_empty();
        let mut problem = None;
        for answer in answers {
            match answer {
                Ok(addresses) if hosts.hold(client, &addresses) => return true.into(),
                Ok(addresses) => found |= !addresses.is_empty(),
                Err(failed) => problem = problem.or(Some(failed)),
            }
        }
        match problem {
            Some(problem) => problem.into(),
            None => self.count_void(!found, false),
        }
    }

    async fn exists(&mut self, domain: &str, spec: &MacroText) -> Match {
        let name = self.name(domain, Some(spec)).await;
        if !is_name(&name) {
            return Match::No;
        }
        // Of IPv4, whatever the client has.
        match self.lookups.addresses(&name, IpAddr::from([0, 0, 0, 0])).await {
            Ok(addresses) => self.count_void(addresses.is_empty(), !addresses.is_empty()),
            Err(failure) => failed("the addresses", &name, &failure).into(),
        }
    }

    async fn ptr(&mut self, domain: &str, spec: Option<&MacroText>) -> Match {
        let target = self.name(domain, spec).await;
        match true_names(self.lookups, self.request, self.settings).await {
            Names::Failed => Match::No,
            Names::Nothing => self.count_void(true, false),
            Names::True(names) => names.iter().any(|name| is_below(name, &target)).into(),
        }
    }

    /// The name that a term means: the domain of the record, or what the term says.
    async fn name(&self, domain: &str, spec: Option<&MacroText>) -> String {
        let Some(spec) = spec else { return domain.to_owned() };
        let (request, settings) = (self.request, self.settings);
        let true_name = match spec.has('p') {
            true => true_name(self.lookups, request, settings, domain).await,
            false => None,
        };
        Values { request, settings, domain, true_name: true_name.as_deref() }.name(spec)
    }

    /// The addresses of a host that are of the client's kind.
    async fn addresses(&self, name: &str) -> Result<Arc<[IpAddr]>, Problem> {
        let found = self.lookups.addresses(name, self.request.client).await;
        found.map_err(|failure| failed("the addresses", name, &failure))
    }

    /// Whether a term has the user in its name, which is not ASCII: it matches nothing (RFC 8616, 4).
    fn wants_ascii_user(&self, spec: &MacroText) -> bool {
        !self.request.user.is_ascii() && (spec.has('l') || spec.has('s'))
    }

    fn count_term(&mut self) -> Result<(), Problem> {
        self.terms += 1;
        let limit = self.settings.limits.terms;
        if self.terms <= limit {
            return Ok(());
        }
        Err(Problem::permanent(format!("the records have more than {limit} terms that ask the name service")))
    }

    /// Counts a term that found nothing. One that could not ask, for want of a name, is none of them.
    fn count_void(&mut self, void: bool, matches: bool) -> Match {
        self.void_terms += usize::from(void);
        let limit = self.settings.limits.void_terms;
        if self.void_terms <= limit {
            return matches.into();
        }
        Problem::permanent(format!("more than {limit} terms found nothing in the name service")).into()
    }
}

impl Hosts {
    /// Whether a client is in a network around one of these addresses.
    fn hold(&self, client: IpAddr, addresses: &[IpAddr]) -> bool {
        let prefix = if client.is_ipv4() { self.ipv4_prefix } else { self.ipv6_prefix };
        addresses.iter().any(|address| in_network(client, *address, prefix))
    }
}

fn failed(what: &str, name: &str, failure: &Failure) -> Problem {
    Problem::temporary(format!("{what} of {} can't be looked up: {failure}", excerpt(name)))
}

fn broken(domain: &str, term: Option<&str>, problem: Problem, inner: Vec<Step>) -> Outcome {
    let step = Step { domain: domain.to_owned(), term: term.map(str::to_owned) };
    Outcome {
        verdict: problem.verdict,
        trace: [vec![step], inner].concat(),
        problem: Some(problem.text),
        decided_by: domain.to_owned(),
        exp: None,
    }
}
