//! What a plugin is.
//!
//! Knows: options, sessions, the world. Must not know: any plugin, the chain, the server.

mod afterwards;
mod error;
mod notes;
mod numbers;
mod shell;

pub use crate::table_tasks::{Made, TASK_LIMIT};
pub use afterwards::Afterwards;
pub use error::{BadRequest, Error, OnBadRequest, OnError, Outage, Undecided};
pub use notes::Notes;
pub use numbers::StepNumbers;
pub use shell::{Kind, Shell};

use crate::carry_over::CarryOver;
use crate::connections::{Connections, StoreRef};
use crate::counters::Reservations;
use crate::facts::World;
use crate::matching::{Matching, SearchError};
use crate::options::codes::{self, Code};
use crate::options::{Flow, OptionSpec, OptionalUserConfig, Options, Section};
use crate::scoring::ScoreField;
use crate::session::Session;
use crate::state::{self, State};
use crate::table_tasks;
use crate::tasks::{TaskResult, Tasks, When};
use backends::dns::{Ahead, Question};
use backends::http::{HttpService, HttpSettings};
use backends::keyvalue::Store;
use backends::ldap::Ldap;
use backends::sql::{Schema, Sql};
use backends::{Breaker, Call, OptionError};
use decisions::Walk;
use log_messages::Finding;
use perl_regex::PatternList;
use postfix_policy::Request;
use std::borrow::Cow;
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

    /// What it leaves of earlier answers where it is switched off.
    fn skip(&self, _cx: &mut Cx<'_>) {}

    /// Whether those behind it ever have a turn.
    fn passes(&self) -> Passes {
        Passes::Sometimes
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
    /// The database that an option names, or `None` after the mistake was reported.
    pub fn sql(&self, option: &str, name: &str) -> Option<Arc<Sql>> {
        self.env.connections.sql(name, option, self.section)
    }

    /// The directory that an option names, or `None` after the mistake was reported.
    pub fn ldap(&self, option: &str, name: &str) -> Option<Arc<Ldap>> {
        self.env.connections.ldap(name, option, self.section)
    }

    /// The store that options name, or `None` after the mistake was reported.
    pub fn store(&self, store: StoreRef<'_>) -> Option<Store> {
        self.env.connections.store(store, self.section)
    }

    /// The service that the options describe, or `None` after the mistake was reported.
    pub fn http(&self, settings: HttpSettings) -> Option<HttpService> {
        let url = &settings.url;
        if settings.tls_ca.is_some() && !url.is_encrypted() {
            self.section.warn_as(&codes::NO_EFFECT, "tls_ca", "has no effect without `https://`");
        }
        let stays_here = url.is_encrypted() || url.is_local() || settings.socket_path.is_some();
        for (option, is_given) in [("token", settings.token.is_some()), ("url", url.has_user())] {
            if is_given && !stays_here {
                let why = "the secret goes over the network without encryption";
                self.section.warn_as(&codes::PLAIN_SECRET, option, why);
            }
        }
        // Certificates are read again, so the client is new; what is known of the service is not forgotten.
        let place = (settings.url.origin(), settings.socket_path.clone());
        let breaker = self.carried_over(place, |(origin, _)| Breaker::new(origin));
        match HttpService::with_breaker(settings, breaker) {
            Ok(service) => Some(service),
            Err(error) => self.refuse(error),
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

    /// Lets the administrator see and change what the plugin remembers. What has the same identity as that of
    /// another plugin is the same.
    pub fn state(&self, kind: state::Kind, identity: String, state: impl State) {
        self.env.tasks.states.add(self.name, kind, identity, state);
    }

    /// Has the start and `check` look whether the user of the database has the rights that a table needs.
    pub fn look_at_rights(&self, sql: &Arc<Sql>, schema: Schema, made: Made) {
        table_tasks::look_at_rights(self.env.tasks, self.name, sql, schema, made);
    }

    /// Has what has expired removed every hour from a store that does not do it by itself.
    pub fn expire_hourly(&self, store: &Store) {
        table_tasks::expire_hourly(self.env.tasks, self.name, store);
    }

    /// Warns of an action that Postfix would read otherwise than it looks.
    pub fn check_action(&self, option: &str, action: &str) {
        if let Some(warning) = postfix_policy::check_action(action) {
            let place = self.section.span_of(option);
            self.section.report().say(&codes::STRANGE_ACTION, place, warning.to_string(), None);
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

    /// Reports what is wrong with an option. Always `None`, so that `new` can return it.
    pub fn refuse<T>(&self, error: OptionError) -> Option<T> {
        self.section.refuse_option(error);
        None
    }

    /// Warns of a surprise in the value of an option.
    pub fn warn(&self, option: &str, message: String) {
        self.warn_as(&codes::STRANGE_VALUE, option, message);
    }

    /// The same for a surprise that has a code of its own.
    pub fn warn_as(&self, code: &'static Code, option: &str, message: String) {
        self.section.report().say(code, self.section.span_of(option), message, None);
    }

    /// Notes that it uses what a plugin of this module finds, which `result_from` names.
    pub fn uses_result(&self, module: &'static str, plugin: &str) {
        let flow = Flow::UsesResult { module, plugin: plugin.to_owned() };
        self.section.note_flow("result_from", flow);
    }

    /// Warns of something that Postfix does not know yet at the stage at which the plugin is asked.
    pub fn check_stage(&self, option: &str, unknown_at: impl Fn(&[u8]) -> Option<&'static str>) {
        let Some(stage) = self.env.stage else { return };
        if let Some(why) = unknown_at(stage.as_bytes()) {
            let message = format!("{option}: this plugin is asked at {stage} only; {why}");
            self.warn_as(&codes::UNKNOWN_AT_STAGE, option, message);
        }
    }

    /// Notes that it looks at a score.
    pub fn reads_score(&self, score: &ScoreField) {
        self.section.note_flow("score_field", Flow::ReadsScore(score.name().to_owned()));
    }

    /// Warns of a plugin that can never do anything for want of an option.
    pub fn has_no_effect(&self, wanted: &str) {
        let message = format!("Plugin {} has no effect: it has no {wanted}", self.name);
        self.section.report().say(&codes::NEVER_ACTS, self.section.span(), message, None);
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
    /// Gives the plugins their numbers.
    pub numbers: &'a StepNumbers,
    /// The number of the plugin that is read.
    pub number: u16,
    /// The stage of the SMTP dialogue at which the plugin is asked, if the blocks around it say so.
    pub stage: Option<&'static str>,
}

/// The stages of the SMTP dialogue, as Postfix names them in `protocol_state` (`SMTPD_POLICY_README`).
pub const STAGES: [&str; 9] =
    ["CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN"];

/// What a plugin gets for each request.
pub struct Cx<'a> {
    /// Whose turn it is.
    pub notes: &'a Notes,
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
    /// What every call to a backend is: it ends before the request does, so that the chain can still go on
    /// without the answer.
    pub call: Call<'a>,
    /// What the patterns may still take.
    pub matching: &'a mut Matching,
    /// How the chain has gone so far.
    pub course: &'a mut Course,
    /// What is done once Postfix has its answer.
    pub after: &'a mut Afterwards,
    /// Where the way of the request is written down, if anybody wants to know.
    pub walk: &'a mut Option<Walk>,
}

/// How a chain has gone so far.
#[derive(Debug, Default)]
pub struct Course {
    /// Which step of which chain is running.
    pub progress: Progress,
    /// A header that the message gets if the chain ends without another decision.
    pub header: Option<Header>,
    /// The first check that could not find out, for a reason within the request: the message does not pass
    /// unless `on_bad_request` says so.
    pub undecided: Option<Undecided>,
    /// The numbers of plugins that are left out, for an explanation.
    pub without: Vec<u16>,
    /// The numbers of plugins whose limits the request is beyond.
    pub beyond_limits: Vec<u16>,
}

/// A header for the message. An answer is one action, so there is one of them, and only where the chain has
/// nothing else to say: to Postfix an added header is not an opinion, as `dunno` is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The plugin that adds it.
    pub plugin: Arc<str>,
    /// The number of that plugin.
    pub number: u16,
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

impl<'a> Cx<'a> {
    /// The name of the plugin.
    pub fn name(&self) -> &'a Arc<str> {
        &self.notes.plugin
    }

    /// Notes what the plugin has found: in the log, and on the way of the request.
    pub fn note<F>(&mut self, finding: Finding<F>)
    where
        F: Fn(&mut std::fmt::Formatter<'_>) -> std::fmt::Result,
    {
        if let Some(walk) = self.walk {
            walk.note(&finding);
        }
        self.notes.note(finding);
    }

    /// Counts that the request is beyond the limit of the plugin.
    pub fn beyond_limit(&mut self) {
        self.course.beyond_limits.push(self.notes.number);
    }

    /// The address of the client as Postfix has sent it. Clients without one must not stand for one another.
    pub fn client_address(&self) -> Result<Cow<'a, str>, Error> {
        let address = self.request.get("client_address").filter(|address| !address.is_empty());
        address.map(String::from_utf8_lossy).ok_or(Error::no_attribute("client_address"))
    }

    /// An attribute as text for a message; empty where Postfix did not send it.
    pub fn shown(&self, attribute: &str) -> Cow<'a, str> {
        String::from_utf8_lossy(self.request.get(attribute).unwrap_or_default())
    }

    /// A call to servers that strangers choose: it has half of the time that is left. A name server or mail
    /// server that is slow on purpose must not keep the plugins behind it from answering.
    pub fn call_to_strangers(&self) -> Call<'a> {
        let left = self.call.deadline().saturating_duration_since(Instant::now());
        self.call.at_most(left / 2)
    }

    /// An attribute that the plugin can't do without.
    pub fn attribute(&self, name: &'static str) -> Result<&[u8], Error> {
        self.session.depend_on(name);
        self.request.get(name).ok_or(Error::no_attribute(name))
    }

    /// Has a header added at the end of the chain, unless the message has it or another plugin was first.
    pub fn add_header(&mut self, header: Header) {
        if self.course.header.is_none() && self.session.result(&header.mark).is_none() {
            self.course.header = Some(header);
        }
    }

    /// The place of the first pattern that matches an attribute or a field; `None` if none does.
    pub async fn find(
        &mut self,
        list: &Arc<PatternList>,
        value: &[u8],
    ) -> Result<Option<usize>, SearchError> {
        self.matching.find(list, value, self.call.deadline()).await
    }
}

/// Whether the plugins behind one that is in use ever have a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passes {
    /// For some requests, or for all.
    Sometimes,
    /// Only where it fails and the chain goes on without it.
    IfItFails,
    /// It answers every request.
    Never,
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
