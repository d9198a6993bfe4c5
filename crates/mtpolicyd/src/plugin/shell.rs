//! What stands around every plugin: its name, and whether it is in use.
//!
//! Knows: what a plugin is. Must not know: any plugin, the chain.

use super::{Cx, Error, Notes, Passes, Plugin, PluginEnv, Setup, Verdict};
use crate::options::{Field, OptionSpec, Options, Rule, Section, UserConfig};
use crate::session::Session;
use crate::value::Switch;
use backends::dns::Question;
use postfix_policy::Request;
use std::pin::Pin;
use std::sync::Arc;

/// A plugin as a chain holds it.
pub struct Shell {
    notes: Notes,
    /// `None` where the plugin is always in use.
    enabled: Option<UserConfig<Switch>>,
    plugin: Box<dyn DynPlugin>,
}

impl Shell {
    /// The name in its opening tag.
    pub fn name(&self) -> &Arc<str> {
        &self.notes.plugin
    }

    /// Its number, by which a decision names it.
    pub fn number(&self) -> u16 {
        self.notes.number
    }

    /// See [`Plugin::foresee`].
    pub fn foresee(&self, request: &Request, session: &Session) -> Vec<Question> {
        if self.is_off(session) { Vec::new() } else { self.plugin.foresee(request, session) }
    }

    /// See [`Plugin::run`].
    pub async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let mut cx = cx.turn_of(&self.notes);
        if self.is_off(cx.session) {
            if let Some(walk) = cx.walk {
                walk.is_off();
            }
            self.plugin.skip(&mut cx);
            return Ok(Verdict::Next);
        }
        self.plugin.run(&mut cx).await
    }

    /// Whether those behind it ever have a turn.
    pub fn passes(&self) -> Passes {
        if self.enabled.is_some() { Passes::Sometimes } else { self.plugin.passes() }
    }

    fn is_off(&self, session: &Session) -> bool {
        self.enabled.as_ref().is_some_and(|enabled| enabled.get(session) == Switch::Off)
    }
}

impl Cx<'_> {
    /// The same for the plugin with these notes.
    fn turn_of<'b>(&'b mut self, notes: &'b Notes) -> Cx<'b> {
        Cx {
            notes,
            request: self.request,
            session: self.session,
            world: self.world,
            ahead: self.ahead,
            reservations: self.reservations,
            call: self.call,
            matching: self.matching,
            course: self.course,
            after: self.after,
            walk: self.walk,
        }
    }
}

/// A plugin of any type. Written once, so that plugins can use plain `async fn`.
trait DynPlugin: Send + Sync {
    fn foresee(&self, request: &Request, session: &Session) -> Vec<Question>;
    fn skip(&self, cx: &mut Cx<'_>);
    fn passes(&self) -> Passes;
    fn run<'a>(
        &'a self,
        cx: &'a mut Cx<'_>,
    ) -> Pin<Box<dyn Future<Output = Result<Verdict, Error>> + Send + 'a>>;
}

impl<P: Plugin> DynPlugin for P {
    fn foresee(&self, request: &Request, session: &Session) -> Vec<Question> {
        Plugin::foresee(self, request, session)
    }
    fn skip(&self, cx: &mut Cx<'_>) {
        Plugin::skip(self, cx);
    }
    fn passes(&self) -> Passes {
        Plugin::passes(self)
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
    /// What they have to do with one another.
    pub rules: &'static [Rule],
    /// The blocks inside its own, each with a heading and its options.
    pub blocks: fn() -> Vec<(&'static str, Vec<OptionSpec>)>,
    /// Makes one from its block.
    pub make: fn(&mut Section<'_>, PluginEnv<'_>) -> Option<Shell>,
}

impl Kind {
    /// The entry of a plugin.
    pub const fn of<P: Plugin>() -> Kind {
        Kind {
            name: P::NAME,
            about: P::Options::ABOUT,
            options: P::Options::specs,
            rules: P::Options::RULES,
            blocks: P::blocks,
            make: make::<P>,
        }
    }
}

fn make<P: Plugin>(section: &mut Section<'_>, env: PluginEnv<'_>) -> Option<Shell> {
    let enabled = if P::Options::OF_SHELL.contains(&"enabled") {
        UserConfig::take(section, "enabled", Some(Switch::On.into())).map(Some)
    } else {
        Some(None)
    };
    let (options, name) = (P::Options::read(section), section.name());
    let (enabled, options) = (enabled?, options?);
    let notes = Notes { plugin: name.into(), number: env.number, level: env.log_level };
    let plugin = P::new(options, &mut Setup { name, section, env })?;
    Some(Shell { notes, enabled, plugin: Box::new(plugin) })
}
