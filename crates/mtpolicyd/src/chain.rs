//! Plugins in the order of the file.
//!
//! Knows: what a plugin is. Must not know: any plugin.

use crate::options::{OptionSpec, Options, Report, Section, options};
use crate::plugin::{Cx, Error, Link, OnError, Setup, Surroundings, Verdict};
use crate::value::{Integer, Switch, nearest};
use config_general::Block;
use std::collections::BTreeMap;
use std::sync::Arc;

options! {
    /// Options of every plugin.
    pub struct StepOptions {
        /// Which check it is: one of the modules described in this manual.
        module: String,
        /// What happens when the plugin fails: `close` ends the connection without an answer, so that Postfix
        /// tries again and then runs its `default_action`; `continue` skips the plugin; `defer` defers the
        /// mail; `dunno` answers without an opinion. Without it the setting of the virtual host holds, then
        /// the global one.
        on_error: Option<OnError>,
        /// Whether the lookups of this plugin may start before its turn. Without it the setting of the
        /// virtual host holds, then the global one.
        lookahead: Option<Switch>,
        /// The level at which the plugin notes in the log what it finds, from 0 (err) to 4 (debug): the
        /// global `log_level` must be at least as high for the note to be seen.
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
    name: Arc<str>,
    on_error: OnError,
    lookahead: bool,
    plugin: Box<dyn Link>,
}

/// What the chain as a whole says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The action.
    pub action: String,
    /// The plugin that decided.
    pub plugin: Arc<str>,
}

impl Chain {
    /// The plugins of a block, in file order, or `None` after the mistakes were reported.
    pub fn from_section(section: &mut Section<'_>, surroundings: Surroundings) -> Option<Chain> {
        let report = section.report();
        let blocks = section.take_blocks("Plugin");
        report_repeated_names(&blocks, report);
        if let Some(first) = blocks.first()
            && surroundings.depth >= MAX_DEPTH
        {
            let message = format!("plugins are nested more than {MAX_DEPTH} deep");
            report.error(first.span, message, None);
            return None;
        }
        let inner = Surroundings { depth: surroundings.depth + 1, ..surroundings };
        let steps: Vec<_> = blocks.into_iter().map(|block| Step::from_block(block, report, inner)).collect();
        steps.into_iter().collect::<Option<_>>().map(|steps| Chain { steps })
    }

    /// The plugins nested in the block of another.
    pub fn nested(setup: &mut Setup<'_, '_>) -> Option<Chain> {
        Chain::from_section(setup.section, setup.surroundings)
    }

    /// Whether there is no plugin.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The name of a plugin.
    pub fn name(&self, step: usize) -> Option<&Arc<str>> {
        self.steps.get(step).map(|step| &step.name)
    }

    /// Asks one plugin after the other until one answers.
    pub async fn run(&self, cx: &mut Cx<'_>) -> Result<Option<Outcome>, Error> {
        self.start_lookups(cx);
        cx.turn.enter();
        let outcome = self.run_steps(cx).await;
        cx.turn.leave();
        outcome
    }

    async fn run_steps(&self, cx: &mut Cx<'_>) -> Result<Option<Outcome>, Error> {
        for (n, step) in self.steps.iter().enumerate() {
            cx.turn.take(n, step.on_error);
            match step.plugin.run(cx).await {
                Ok(Verdict::Next) => {}
                Ok(Verdict::Stop(action)) => return Ok(Some(Outcome { action, plugin: step.name.clone() })),
                Err(cause) if step.on_error == OnError::Continue => {
                    let name = &step.name;
                    tracing::error!("plugin {name} failed: {cause}; it is skipped (on_error = continue)");
                }
                Err(cause) => return Err(step.failure(cause)),
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
                cx.ahead.start(&cx.world.dns, question, cx.deadline.backends);
            }
        }
    }
}

impl Step {
    fn from_block(block: &Block, report: &Report, surroundings: Surroundings) -> Option<Step> {
        let mut section = Section::new(block, report);
        if section.name().is_empty() {
            let help =
                "write `<Plugin NAME>`; the name appears in the log and in the score details".to_owned();
            section.refuse("a plugin has no name", Some(help));
        }
        let options = StepOptions::read(&mut section)?;
        let kind = surroundings.kinds.iter().find(|kind| kind.name == options.module);
        let Some(kind) = kind else {
            report_unknown_module(&section, block, &options.module, surroundings);
            return None;
        };
        let on_error = options.on_error.unwrap_or(surroundings.on_error);
        let lookahead = options.lookahead.map_or(surroundings.lookahead, |switch| switch == Switch::On);
        let log_level = options.log_level.0;
        let inside = Surroundings { on_error, lookahead, log_level, ..surroundings };
        let plugin = (kind.make)(&mut section, inside);
        let name = section.name().into();
        section.finish();
        Some(Step { name, on_error, lookahead, plugin: plugin? })
    }

    /// The innermost plugin that failed decides by its `on_error`; those around it only pass it on.
    fn failure(&self, cause: Error) -> Error {
        let on_error = match &cause {
            Error::In { on_error, .. } => *on_error,
            _ => self.on_error,
        };
        Error::In { plugin: self.name.clone(), on_error, cause: Box::new(cause) }
    }
}

fn report_repeated_names(blocks: &[&Block], report: &Report) {
    let mut seen = BTreeMap::new();
    for block in blocks {
        if let Some(name) = &block.name
            && seen.insert(name, block.span).is_some()
        {
            let help = "give one of them another name".to_owned();
            report.error(block.span, format!("plugin `{name}` occurs more than once"), Some(help));
        }
    }
}

/// Modules of the original that are not built yet, so that the message can say so.
const LATER_MODULES: &[&str] = &[
    "Accounting",
    "CtIpRep",
    "Fail2Ban",
    "GeoIPAction",
    "GeoIPLookup",
    "Greylist",
    "Honeypot",
    "LdapUserConfig",
    "PostfixMap",
    "Quota",
    "SMTPVerify",
    "SPF",
    "SaAwlAction",
    "SaAwlLookup",
    "SqlList",
    "SqlUserConfig",
];

fn report_unknown_module(section: &Section<'_>, block: &Block, module: &str, surroundings: Surroundings) {
    let span = block.entries().find(|entry| entry.key == "module").map_or(block.span, |e| e.value_span);
    let name = section.name();
    if LATER_MODULES.contains(&module) {
        let message = format!("plugin `{name}`: the module {module} is not part of this version yet");
        let help = "remove the block, or keep the Perl daemon until a version has it".to_owned();
        section.report().error(span, message, Some(help));
        return;
    }
    let known = surroundings.kinds.iter().map(|kind| kind.name).chain(LATER_MODULES.iter().copied());
    let help = nearest(module, known).map(|name| format!("did you mean `{name}`?"));
    section.report().error(span, format!("plugin `{name}`: there is no module `{module}`"), help);
}

/// The options that every plugin has besides its own, for the manual.
pub fn step_specs() -> Vec<OptionSpec> {
    StepOptions::specs()
}
