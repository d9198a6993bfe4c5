//! What a plugin is.
//!
//! Knows: options, sessions, the world. Must not know: any plugin, the chain, the server.

mod error;
mod notes;

pub use crate::table_tasks::{Made, TASK_LIMIT};
pub use error::{BadRequest, Error, OnBadRequest, OnError, Outage, Undecided};
pub use notes::Notes;

use crate::carry_over::CarryOver;
use crate::connections::{Connections, Module};
use crate::counters::Reservations;
use crate::facts::World;
use crate::facts::dnslist::DnsList;
use crate::matching::{Matching, SearchError};
use crate::options::{OptionSpec, OptionalUserConfig, Options, Section};
use crate::session::Session;
use crate::table_tasks;
use crate::tasks::{TaskResult, Tasks, When};
use backends::Breaker;
use backends::dns::{Ahead, Answer, Question};
use backends::http::{HttpService, HttpSettings};
use backends::keyvalue::Store;
use backends::ldap::Ldap;
use backends::sql::{Needs, Sql};
use perl_regex::PatternList;
use postfix_policy::Request;
use std::pin::Pin;
use std::sync::Arc;
use tokio::time::Instant;

/// One kind of check or action.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// The name written after `module =`.
    const NAME: &'static str;
    /// Its options, declared with `options!`.
    type Options: Options;

    /// The blocks that may stand inside its own, other than plugins: for the manual, a heading and the
    /// options of each.
    fn blocks() -> Vec<(&'static str, Vec<OptionSpec>)> {
        Vec::new()
    }

    /// Everything that can be refused is refused here, not in `run`: `None` after the mistake was reported.
    fn new(options: Self::Options, setup: &mut Setup<'_, '_>) -> Option<Self>;

    /// The lookups that `run` will want, as far as the request and the session tell before the chain runs.
    /// They are started at once, so that ten lists cost one round trip.
    fn foresee(&self, _request: &Request, _session: &Session) -> Vec<Question> {
        Vec::new()
    }

    /// Looks at one request.
    fn run(&self, cx: &mut Cx<'_>) -> impl Future<Output = Result<Verdict, Error>> + Send;
}

/// What a plugin gets when it is made.
pub struct Setup<'a, 'b> {
    /// The name in its opening tag.
    pub name: &'a str,
    /// Its block.
    pub section: &'a mut Section<'b>,
    /// What the blocks around it say.
    pub env: PluginEnv<'a>,
}

impl Setup<'_, '_> {
    /// Where the plugin writes what it finds.
    pub fn notes(&self) -> Notes {
        Notes { plugin: self.name.into(), level: self.env.log_level }
    }

    /// The database that an option names, or `None` after the mistake was reported.
    pub fn sql(&self, option: &str, name: &str) -> Option<Arc<Sql>> {
        self.env.connections.sql(name, option, self.section)
    }

    /// The directory that an option names, or `None` after the mistake was reported.
    pub fn ldap(&self, option: &str, name: &str) -> Option<Arc<Ldap>> {
        self.env.connections.ldap(name, option, self.section)
    }

    /// The store that an option names, or `None` after the mistake was reported; where there is none, the
    /// message suggests one of that module.
    pub fn store(&self, option: &str, name: &str, suggested: Module) -> Option<Store> {
        self.env.connections.store(name, option, suggested, self.section)
    }

    /// The service that the options describe, or `None` after the mistake was reported at the option that its
    /// text begins with.
    pub fn http(&self, settings: HttpSettings) -> Option<HttpService> {
        let url = &settings.url;
        if settings.tls_ca.is_some() && !url.is_encrypted() {
            self.warn("tls_ca", "tls_ca: has no effect without `https://`".to_owned());
        }
        let stays_here = url.is_encrypted() || url.is_local() || settings.socket_path.is_some();
        for (option, is_given) in [("token", settings.token.is_some()), ("url", url.has_user())] {
            if is_given && !stays_here {
                let message = format!("{option}: the secret goes over the network without encryption");
                self.warn(option, message);
            }
        }
        // Certificates are read again, so the client is new; what is known of the service is not forgotten.
        let place = (settings.url.origin(), settings.socket_path.clone());
        let breaker = self.carried_over(place, |(origin, _)| Breaker::new(origin));
        match HttpService::with_breaker(settings, breaker) {
            Ok(service) => Some(service),
            Err(why) => {
                let option = why.split([':', ' ']).next().unwrap_or_default();
                self.section.report().error(self.section.span_of(option), why.clone(), None);
                None
            }
        }
    }

    /// What the plugin has found out before a reload under the same settings, or else what is made for it.
    pub fn carried_over<S, F>(&self, settings: S, make: impl FnOnce(&S) -> F) -> F
    where
        S: PartialEq + Send + Sync + 'static,
        F: Clone + Send + Sync + 'static,
    {
        self.env.carried_over.carry(self.name, settings, make)
    }

    /// Leaves work that no request asks for.
    pub fn task<F>(&self, when: When, run: impl Fn(World) -> F + Send + Sync + 'static)
    where
        F: Future<Output = TaskResult> + Send + 'static,
    {
        self.env.tasks.add(self.name, when, run);
    }

    /// Has the start and `check` look whether the user of the database has the rights that a table needs.
    pub fn look_at_rights(&self, sql: &Arc<Sql>, needs: Needs, made: Made) {
        table_tasks::look_at_rights(self.env.tasks, self.name, sql, needs, made);
    }

    /// Has what has expired removed every hour from a store that does not do it by itself.
    pub fn expire_hourly(&self, store: &Store) {
        table_tasks::expire_hourly(self.env.tasks, self.name, store);
    }

    /// Warns of an action that Postfix would read otherwise than it looks.
    pub fn check_action(&self, option: &str, action: &str) {
        if let Some(warning) = postfix_policy::check_action(action) {
            self.section.report().warning(self.section.span_of(option), warning.to_string(), None);
        }
    }

    /// The same for the two actions of a plugin that looks something up.
    pub fn check_match_actions(&self, matched: Option<&String>, not_matched: Option<&String>) {
        for (option, action) in [("match_action", matched), ("not_match_action", not_matched)] {
            if let Some(action) = action {
                self.check_action(option, action);
            }
        }
    }

    /// The same for an action that users may override.
    pub fn check_actions(&self, option: &str, action: &OptionalUserConfig<String>) {
        if let Some(action) = action.configured() {
            self.check_action(option, action);
        }
    }

    /// Warns of a list that nobody can be on, since its zone is not a valid name.
    pub fn check_zone(&self, list: &DnsList) {
        if !list.is_askable() {
            self.warn("domain", "domain: this is not the name of a zone, so it lists nobody".to_owned());
        }
    }

    /// Warns of a list that lets clients in by any answer, also by the one that says that it is asked too
    /// often.
    pub fn check_allow_list(&self, list: &DnsList) {
        let (codes, source) = match list.allow_list() {
            Some(known) => (known.listings, format!(" ({}, {})", known.source, known.as_of)),
            None => ("127.0.0.2", String::new()),
        };
        let zone = list.label();
        let message = format!(
            "mode: without return_codes any answer of {zone} lets the client in; name those that may, such \
             as `return_codes = \"{codes}\"`{source}"
        );
        self.warn("mode", message);
    }

    /// Warns of a surprise in the value of an option.
    pub fn warn(&self, option: &str, message: String) {
        self.section.report().warning(self.section.span_of(option), message, None);
    }

    /// Warns of a plugin that can never do anything for want of an option.
    pub fn has_no_effect(&self, wanted: &str) {
        let message = format!("Plugin {} has no effect: it has no {wanted}", self.name);
        self.section.report().warning(self.section.span(), message, None);
    }
}

/// What a plugin takes from the blocks around it where its own block does not say.
#[derive(Clone, Copy)]
pub struct PluginEnv<'a> {
    /// The plugins there are.
    pub kinds: &'static [Kind],
    /// What an outage does to the request; `None` inside a plugin that says it for all in its block.
    pub on_error: Option<OnError>,
    /// What becomes of a request whose own content makes a plugin fail.
    pub on_bad_request: OnBadRequest,
    /// Whether lookups start before their plugin's turn.
    pub lookahead: bool,
    /// The level at which the plugin notes what it finds.
    pub log_level: i64,
    /// How deeply the block is nested.
    pub depth: usize,
    /// The connections of the file.
    pub connections: &'a Connections,
    /// Where plugins leave work that no request asks for.
    pub tasks: &'a Tasks,
    /// Where plugins leave what a reload shall not lose.
    pub carried_over: &'a CarryOver,
}

/// What a plugin gets for each request.
pub struct Cx<'a> {
    /// What Postfix asks.
    pub request: &'a Request,
    /// What is remembered of this message.
    pub session: &'a mut Session,
    /// The outside.
    pub world: &'a World,
    /// The lookups that were started early.
    pub ahead: &'a mut Ahead,
    /// Places in counters that this request has until it is counted.
    pub reservations: &'a mut Reservations,
    /// When the request must have been answered.
    pub deadline: Deadline,
    /// Which step of which chain is running.
    pub progress: Progress,
    /// What the patterns may still take.
    pub matching: Matching,
    /// A header that the message gets if the chain ends without another decision.
    pub header: Option<Header>,
    /// The first check that could not find out, for a reason within the request: the message does not pass
    /// unless `on_bad_request` says so.
    pub undecided: Option<Undecided>,
}

/// A header for the message. An answer is one action, so there is one of them, and only where the chain has
/// nothing else to say: to Postfix an added header is not an opinion, as `dunno` is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The plugin that adds it.
    pub plugin: Arc<str>,
    /// What the session remembers so that the message gets it once.
    pub mark: String,
    /// The header, as `Name: value`.
    pub text: String,
}

/// How far the chain has come, for when it is cut off at the deadline.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    depth: usize,
    step: usize,
    on_error: Option<OnError>,
}

impl Progress {
    /// A chain begins, perhaps inside a plugin of another: how it stands outside.
    pub fn enter(&mut self) -> Progress {
        let outside = *self;
        self.depth += 1;
        outside
    }

    /// It is the turn of a step of the innermost chain; what it does not say of failing holds as outside.
    pub fn take(&mut self, step: usize, on_error: Option<OnError>, outside: Progress) {
        if self.depth == 1 {
            self.step = step;
        }
        self.on_error = on_error.or(outside.on_error);
    }

    /// Whether the innermost chain is inside a plugin.
    pub fn is_nested(&self) -> bool {
        self.depth > 1
    }

    /// The step of the outermost chain.
    pub fn step(&self) -> usize {
        self.step
    }

    /// How deep inside other plugins it is: 1 for the outermost chain.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// What failing does to the request, as the innermost plugin says; `None` before the first.
    pub fn on_error(&self) -> Option<OnError> {
        self.on_error
    }
}

/// The time a request has.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// When the answer must be out.
    pub request: Instant,
    /// When every call to a backend must have ended, so that the chain can still go on without it.
    pub backends: Instant,
}

impl Deadline {
    /// When whatever waits for servers that strangers choose must have ended: half of what is left. A name
    /// server or mail server that is slow on purpose must not keep the plugins behind it from answering.
    pub fn for_strangers(&self, now: Instant) -> Instant {
        now + self.backends.saturating_duration_since(now) / 2
    }
}

impl Cx<'_> {
    /// An attribute that the plugin can't do without.
    pub fn attribute(&self, name: &'static str) -> Result<&[u8], Error> {
        self.session.depend_on(name);
        self.request.get(name).ok_or(Error::no_attribute(name))
    }

    /// Has a header added at the end of the chain, unless the message has it or another plugin was first.
    pub fn add_header(&mut self, header: Header) {
        if self.header.is_none() && self.session.result(&header.mark).is_none() {
            self.header = Some(header);
        }
    }

    /// The place of the first pattern that matches an attribute or a field; `None` if none does.
    pub async fn find(
        &mut self,
        list: &Arc<PatternList>,
        value: &[u8],
    ) -> Result<Option<usize>, SearchError> {
        self.matching.find(list, value, self.deadline.backends).await
    }

    /// The answer to a DNS question, which may have been asked ahead. A failure is an answer too.
    pub async fn dns(&mut self, question: &Question) -> Answer {
        self.ahead.answer(&self.world.dns, question, self.deadline.backends).await
    }
}

/// What a plugin says about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: ask the next plugin.
    Next,
    /// Answer this and stop.
    Stop(String),
}

impl Verdict {
    /// Stop without an opinion: Postfix goes on with its next restriction.
    pub fn dunno() -> Verdict {
        Verdict::Stop("dunno".to_owned())
    }
}

/// A plugin as the chain holds it. Written once, so that plugins can use plain `async fn`.
pub trait DynPlugin: Send + Sync {
    /// See [`Plugin::foresee`].
    fn foresee(&self, request: &Request, session: &Session) -> Vec<Question>;
    /// See [`Plugin::run`].
    fn run<'a>(
        &'a self,
        cx: &'a mut Cx<'_>,
    ) -> Pin<Box<dyn Future<Output = Result<Verdict, Error>> + Send + 'a>>;
}

impl<P: Plugin> DynPlugin for P {
    fn foresee(&self, request: &Request, session: &Session) -> Vec<Question> {
        Plugin::foresee(self, request, session)
    }
    fn run<'a>(
        &'a self,
        cx: &'a mut Cx<'_>,
    ) -> Pin<Box<dyn Future<Output = Result<Verdict, Error>> + Send + 'a>> {
        Box::pin(Plugin::run(self, cx))
    }
}

/// A registered plugin: its name, its manual, and how to make one.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The name written after `module =`.
    pub name: &'static str,
    /// What it is for, in Markdown, with an example.
    pub about: &'static str,
    /// Its options.
    pub options: fn() -> Vec<OptionSpec>,
    /// The blocks inside its own, each with a heading and its options.
    pub blocks: fn() -> Vec<(&'static str, Vec<OptionSpec>)>,
    /// Makes one from its block.
    pub make: fn(&mut Section<'_>, PluginEnv<'_>) -> Option<Box<dyn DynPlugin>>,
}

impl Kind {
    /// The entry of a plugin.
    pub const fn of<P: Plugin>() -> Kind {
        Kind {
            name: P::NAME,
            about: P::Options::ABOUT,
            options: P::Options::specs,
            blocks: P::blocks,
            make: make::<P>,
        }
    }
}

fn make<P: Plugin>(section: &mut Section<'_>, env: PluginEnv<'_>) -> Option<Box<dyn DynPlugin>> {
    let options = P::Options::read(section)?;
    let name = section.name();
    let mut setup = Setup { name, section, env };
    Some(Box::new(P::new(options, &mut setup)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_says_nothing_of_failing_has_it_from_outside() {
        let mut progress = Progress::default();
        let outermost = progress.enter();
        progress.take(3, Some(OnError::Continue), outermost);
        let around = progress.enter();
        progress.take(0, Some(OnError::Defer), around);
        assert_eq!((progress.step(), progress.on_error()), (3, Some(OnError::Defer)));
        progress.take(1, None, around);
        assert_eq!((progress.step(), progress.on_error()), (3, Some(OnError::Continue)));
    }
}
