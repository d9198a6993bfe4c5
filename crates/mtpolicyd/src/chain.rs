//! Plugins in the order of the file.
//!
//! Knows: what a plugin is. Must not know: any plugin.

use crate::log::Stopwatch;
use crate::log::messages::daemon;
use crate::options::{Flow, Options, Report, Section, codes, options};
use crate::plugin::{
    BadRequest, Cx, Error, Kind, OnBadRequest, OnError, Passes, PluginEnv, Progress, Setup, Shell, Undecided,
    Verdict,
};
use crate::session::RECIPIENT;
use crate::value::{Integer, Switch, nearest};
use config_general::Block;
use decisions::{Begun, StepOutcome};
use std::collections::BTreeMap;
use std::sync::Arc;

options! {
    /// Options of every plugin.
    pub struct StepOptions {
        /// The kind of plugin: one of the modules described in this manual.
        module: String,
        /// What to do when a backend of the plugin fails, such as a database that is down:
        /// `close` ends the connection without an answer, so that Postfix retries and then uses its
        /// `default_action`; `continue` skips the plugin; `defer` defers the message; `dunno` ends the chain
        /// without an opinion. If it is not set, the setting of the virtual host applies, then the global
        /// one.
        on_error: Option<OnError>,
        /// What to do when the request itself keeps the plugin from deciding, for example with a value that
        /// takes too long to match or that a database refuses. The other plugins always run. `defer` then
        /// defers the message unless one of them refuses it; `continue` ignores the failure. If it is not
        /// set, the setting of the virtual host applies, then the global one.
        on_bad_request: Option<OnBadRequest>,
        /// Whether to start the lookups of this plugin before its turn. If it is not set, the setting of the
        /// virtual host applies, then the global one.
        lookahead: Option<Switch>,
        /// The level at which the plugin logs what it finds, from 0 (error) to 4 (debug). The global
        /// `log_level` must be at least as high for it to appear.
        log_level: Integer = Integer(4),
    }
}

/// The deepest nesting of plugin blocks; each level costs stack at run time, and nobody reads more.
const MAX_DEPTH: usize = 32;

/// An ordered list of plugins.
#[derive(Default)]
pub struct Chain {
    steps: Vec<Step>,
}

struct Step {
    /// `None` where the plugin around it says it.
    on_error: Option<OnError>,
    on_bad_request: OnBadRequest,
    lookahead: bool,
    plugin: Shell,
}

/// The action that defers a message because a check failed.
pub const DEFERRED: &str = "defer 4.3.0 the policy check failed, please try again later";

/// What the chain as a whole says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The action.
    pub action: String,
    /// The plugin that decided.
    pub plugin: Arc<str>,
    /// Its number, if it is not the one that has ended the chain.
    pub by: Option<u16>,
}

impl Chain {
    /// The plugins of a block, in file order, or `None` after the mistakes were reported.
    pub fn from_section(section: &mut Section<'_>, env: PluginEnv<'_>) -> Option<Chain> {
        let report = section.report();
        let blocks = section.take_blocks("Plugin");
        report_repeated_names(&blocks, report);
        if let Some(first) = blocks.first()
            && env.depth >= MAX_DEPTH
        {
            let message = format!("plugins are nested more than {MAX_DEPTH} deep");
            report.say(&codes::BAD_BLOCK, first.span, message, None);
            return None;
        }
        let inner = PluginEnv { depth: env.depth + 1, ..env };
        let steps: Vec<_> = blocks.iter().map(|block| Step::from_block(block, report, inner)).collect();
        warn_of_unreached(&blocks, &steps, report);
        steps.into_iter().collect::<Option<_>>().map(|steps| Chain { steps })
    }

    /// The plugins nested in the block of another.
    pub fn nested(setup: &mut Setup<'_, '_>) -> Option<Chain> {
        Chain::from_section(setup.section, setup.env)
    }

    /// Whether there is no plugin.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The name of a plugin.
    pub fn name(&self, step: usize) -> Option<&Arc<str>> {
        self.steps.get(step).map(|step| step.plugin.name())
    }

    /// The answer to a request: that of a plugin, a deferral if a check could not find out and no plugin
    /// refuses the message, or a header if no plugin has an opinion.
    pub async fn answer(&self, cx: &mut Cx<'_>) -> Result<Option<Outcome>, Error> {
        cx.session.begin(cx.request.get(RECIPIENT).unwrap_or_default());
        let outcome = self.run(cx).await?;
        let is_refused = outcome.as_ref().is_some_and(|outcome| postfix_policy::refuses(&outcome.action));
        if let Some(Undecided { plugin, number, .. }) = cx.course.undecided.as_ref().filter(|_| !is_refused) {
            let (action, plugin, by) = (DEFERRED.to_owned(), plugin.clone(), Some(*number));
            return Ok(Some(Outcome { action, plugin, by }));
        }
        let is_open = outcome.as_ref().is_none_or(|outcome| outcome.action.eq_ignore_ascii_case("dunno"));
        let Some(header) = cx.course.header.take().filter(|_| is_open) else { return Ok(outcome) };
        if !cx.session.first_in_message(&header.mark) {
            return Ok(outcome);
        }
        let action = format!("PREPEND {}", header.text);
        Ok(Some(Outcome { action, plugin: header.plugin, by: Some(header.number) }))
    }

    /// Asks one plugin after the other until one answers.
    pub async fn run(&self, cx: &mut Cx<'_>) -> Result<Option<Outcome>, Error> {
        let depends = cx.session.depends();
        self.start_lookups(cx);
        cx.session.set_depends(depends);
        let outside = cx.course.progress.enter();
        let outcome = self.run_steps(cx, outside).await;
        cx.course.progress = outside;
        outcome
    }

    async fn run_steps(&self, cx: &mut Cx<'_>, outside: Progress) -> Result<Option<Outcome>, Error> {
        let (around, is_nested) = (cx.session.depends(), cx.course.progress.is_nested());
        let mut seen = around;
        for (n, step) in self.steps.iter().enumerate() {
            let name = step.plugin.name();
            cx.course.progress.take(n, step.on_error, outside);
            // A plugin of the file has its turn at every recipient for which the chain gets that far. One in
            // a block may have it only for what those before it have seen, and what the block comes to
            // depends on all of them.
            cx.session.set_depends(if is_nested { seen } else { around });
            let depth = cx.course.progress.depth().saturating_sub(1);
            let stopwatch = Stopwatch::start(name, depth);
            let begun = cx.begin_step(step.plugin.number(), depth);
            if let Some(replay) = cx.call.replay() {
                replay.turn_of(step.plugin.number());
            }
            if cx.course.without.contains(&step.plugin.number()) {
                cx.end_step(begun, StepOutcome::Off);
                continue;
            }
            let verdict = step.plugin.run(cx).await;
            cx.end_step(begun, step.outcome_of(&verdict));
            stopwatch.stop();
            seen = seen.max(cx.session.depends());
            cx.session.set_depends(seen);
            match verdict {
                Ok(Verdict::Next) => {}
                Ok(Verdict::Stop(action)) => {
                    return Ok(Some(Outcome { action, plugin: name.clone(), by: None }));
                }
                Err(Error::Request(cause)) => step.note_undecided(&cause, cx),
                Err(cause) => match step.on_error_of(&cause) {
                    Some(OnError::Continue) => match (cause.not_done(), &mut *cx.walk) {
                        (Some(what), Some(walk)) => walk.note_of_last(format_args!("would {what}")),
                        _ => daemon::plugin_skipped(name, cause),
                    },
                    on_error => {
                        let (plugin, cause) = (name.clone(), Box::new(cause));
                        return Err(Error::In { plugin, on_error, cause });
                    }
                },
            }
        }
        Ok(None)
    }

    /// Runs the chain as the nested part of a plugin, or answers with the plugin's own action.
    pub async fn act(&self, action: Option<&str>, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        match action {
            Some(action) => Ok(Verdict::Stop(action.to_owned())),
            None if self.is_empty() => Ok(Verdict::Next),
            None => Ok(match self.run(cx).await? {
                Some(outcome) => Verdict::Stop(outcome.action),
                None => Verdict::Next,
            }),
        }
    }

    fn start_lookups(&self, cx: &mut Cx<'_>) {
        for step in self.steps.iter().filter(|step| step.lookahead) {
            for question in step.plugin.foresee(cx.request, cx.session) {
                if question.list.as_deref().is_some_and(|zone| cx.world.lists.is_known_silent(zone)) {
                    continue;
                }
                cx.ahead.start(&cx.world.dns, question, cx.call);
            }
        }
        cx.ahead.send(&cx.world.dns);
    }
}

impl Step {
    fn from_block(block: &Block, report: &Report, env: PluginEnv<'_>) -> Option<Step> {
        let mut section = Section::new(block, report);
        // Before those inside it.
        let number = env.numbers.next(block.span);
        if section.name().is_empty() {
            let help =
                "write `<Plugin NAME>`; the name appears in the log and in the score details".to_owned();
            section.refuse("a plugin has no name", Some(help));
        }
        let Some((options, kind)) = read_kind(&mut section, env) else {
            // What is inside may hold mistakes as well.
            Chain::from_section(&mut section, env);
            return None;
        };
        section.note_flow("module", Flow::Plugin(kind.name));
        let on_error = options.on_error.or(env.on_error);
        let on_bad_request = options.on_bad_request.unwrap_or(env.on_bad_request);
        let lookahead = options.lookahead.map_or(env.lookahead, |switch| switch == Switch::On);
        let log_level = options.log_level.0;
        // A plugin that says it says it for those inside; otherwise they have it from where it has it.
        let for_inside = if options.on_error.is_some() { None } else { env.on_error };
        let inside = PluginEnv { on_error: for_inside, on_bad_request, lookahead, log_level, number, ..env };
        let plugin = (kind.make)(&mut section, inside);
        if plugin.is_none() && section.has_more("Plugin") {
            Chain::from_section(&mut section, inside);
        }
        if plugin.is_some() {
            section.finish();
        } else {
            section.finish_after_mistake();
        }
        Some(Step { on_error, on_bad_request, lookahead, plugin: plugin? })
    }

    /// Whether no plugin behind it ever has a turn.
    fn is_last(&self) -> bool {
        match self.plugin.passes() {
            Passes::Sometimes => false,
            // What it does not say is up to the plugin around it.
            Passes::IfItFails => self.on_error.is_some_and(|on_error| on_error != OnError::Continue),
            Passes::Never => true,
        }
    }

    /// The request itself kept the plugin from finding out: the chain goes on, and its end remembers it.
    fn note_undecided(&self, cause: &BadRequest, cx: &mut Cx<'_>) {
        let plugin = self.plugin.name();
        if self.on_bad_request == OnBadRequest::Continue {
            daemon::undecided_ignored(plugin, cause);
            return;
        }
        daemon::undecided(plugin, cause);
        if cx.course.undecided.is_none() {
            let (plugin, number) = (plugin.clone(), self.plugin.number());
            cx.course.undecided = Some(Undecided { plugin, number, cause: cause.to_string() });
        }
    }

    /// How a turn with this verdict is written down.
    fn outcome_of(&self, verdict: &Result<Verdict, Error>) -> StepOutcome {
        match verdict {
            Ok(Verdict::Next) => StepOutcome::Next,
            Ok(Verdict::Stop(_)) => StepOutcome::Stopped,
            Err(Error::Request(_)) => StepOutcome::Undecided,
            Err(cause) if self.on_error_of(cause) == Some(OnError::Continue) => StepOutcome::Skipped,
            Err(_) => StepOutcome::Failed,
        }
    }

    /// What becomes of the request: the innermost plugin that says it decides.
    fn on_error_of(&self, cause: &Error) -> Option<OnError> {
        match cause {
            Error::In { on_error: Some(decided), .. } => Some(*decided),
            // There is no outage: nothing was asked.
            _ if cause.not_done().is_some() => Some(OnError::Continue),
            _ => self.on_error,
        }
    }
}

impl Cx<'_> {
    /// It is the turn of the step with that number.
    fn begin_step(&mut self, number: u16, depth: usize) -> Option<Begun> {
        self.note_points();
        self.walk.as_mut().map(|walk| walk.begin(number, depth))
    }

    /// The turn is over.
    fn end_step(&mut self, begun: Option<Begun>, outcome: StepOutcome) {
        self.note_points();
        if let Some((walk, begun)) = self.walk.as_mut().zip(begun) {
            walk.end(begun, outcome);
        }
    }

    /// Writes down what the plugin whose turn it is has added to scores.
    fn note_points(&mut self) {
        for (field, points) in self.session.take_added() {
            if let Some(walk) = self.walk {
                walk.add_points(field, points);
            }
        }
    }
}

fn report_repeated_names(blocks: &[&Block], report: &Report) {
    let mut seen = BTreeMap::new();
    for block in blocks {
        if let Some(name) = &block.name
            && seen.insert(name, block.span).is_some()
        {
            let help = "give one of them another name".to_owned();
            let message = format!("plugin `{name}` occurs more than once");
            report.say(&codes::REPEATED_BLOCK, block.span, message, Some(help));
        }
    }
}

/// Warns of the first plugin behind one that answers every request.
fn warn_of_unreached(blocks: &[&Block], steps: &[Option<Step>], report: &Report) {
    for (pair, step) in blocks.windows(2).zip(steps) {
        let name = pair[1].name.as_deref().unwrap_or_default();
        if let Some(step) = step.as_ref().filter(|step| step.is_last() && **step.plugin.name() != *name) {
            let message = format!(
                "Plugin {name} is never reached: Plugin {} answers every request",
                step.plugin.name()
            );
            let help = "remove it, or put it before that one".to_owned();
            return report.say(&codes::NEVER_REACHED, pair[1].span, message, Some(help));
        }
    }
}

/// The options of every plugin and the kind that `module` names, or `None` after the mistake was reported.
fn read_kind(section: &mut Section<'_>, env: PluginEnv<'_>) -> Option<(StepOptions, &'static Kind)> {
    let options = StepOptions::read(section)?;
    let kind = env.kinds.iter().find(|kind| kind.name == options.module);
    if kind.is_none() {
        report_unknown_module(section, &options.module, env);
    }
    Some((options, kind?))
}

fn report_unknown_module(section: &Section<'_>, module: &str, env: PluginEnv<'_>) {
    let span = section.span_of("module");
    let name = section.name();
    let known = env.kinds.iter().map(|kind| kind.name);
    let help = nearest(module, known).map(|name| format!("did you mean `{name}`?"));
    let message = format!("plugin `{name}`: there is no module `{module}`");
    section.report().say(&codes::NO_MODULE, span, message, help);
}

#[cfg(test)]
mod tests;

#[cfg(test)]
#[path = "chain/recipients/tests.rs"]
mod recipient_tests;
