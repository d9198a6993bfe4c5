//! Doubts that come up only where several parts of the file are looked at together: scores, fields and
//! results that plugins leave for one another, and time-outs that have to fit into one another.
//!
//! Knows: what plugins say they leave and take, the tree. Must not know: what a plugin does.

use crate::options::{Flow, FlowNote, Report, codes};
use crate::value::{NonZeroSeconds, Value, nearest};
use config_general::{Block, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// After this time Postfix gives up (`smtpd_policy_service_timeout`).
const POSTFIX_WAITS: Duration = Duration::from_secs(100);

/// One note and where it stands in its virtual host.
struct Placed<'a> {
    host: usize,
    note: &'a FlowNote,
}

/// What the plugins of the whole file leave for one another, in the order of the file.
struct Flows<'a> {
    placed: Vec<Placed<'a>>,
    /// The names of all plugins.
    plugins: BTreeSet<&'a str>,
}

/// Warns of what plugins take from others that nobody leaves, and the other way round.
pub(super) fn warn_of_flow(notes: &[FlowNote], report: &Report) {
    let mut host = 0;
    let placed = notes.iter().map(|note| {
        host += usize::from(note.flow == Flow::Host);
        Placed { host, note }
    });
    let placed: Vec<_> = placed.collect();
    let is_plugin = |placed: &&Placed<'_>| matches!(placed.note.flow, Flow::Plugin(_));
    let plugins = placed.iter().filter(is_plugin).map(|placed| placed.note.plugin.as_str()).collect();
    let flows = Flows { placed, plugins };
    flows.warn_of_scores(report);
    for (at, placed) in flows.placed.iter().enumerate() {
        match &placed.note.flow {
            Flow::UsesResult { module, plugin } => flows.warn_of_result(at, module, plugin, report),
            Flow::Reads(field) => flows.warn_of_field(at, field, report),
            _ => {}
        }
    }
}

impl Flows<'_> {
    /// Warns of each score to which plugins add and at which none looks, at the first plugin that adds.
    fn warn_of_scores(&self, report: &Report) {
        let mut added: BTreeMap<&str, Vec<&FlowNote>> = BTreeMap::new();
        for Placed { note, .. } in &self.placed {
            if let Flow::AddsTo(score) = &note.flow {
                added.entry(score).or_default().push(note);
            }
        }
        for (score, notes) in added {
            let detail = format!("{score}_detail");
            let is_read = self.placed.iter().any(|placed| match &placed.note.flow {
                Flow::ReadsScore(read) => read == score,
                Flow::Reads(field) => field == score || *field == detail,
                _ => false,
            });
            if is_read {
                continue;
            }
            let [first, others @ ..] = &notes[..] else { continue };
            let and = match others.len() {
                0 => "adds to".to_owned(),
                1 => "and 1 other add to".to_owned(),
                count => format!("and {count} others add to"),
            };
            let message = format!("no plugin reads the score `{score}` that Plugin {} {and}", first.plugin);
            report.say(&codes::UNREAD_SCORE, first.span, message, None);
        }
    }

    /// Whether something stands before a place, in the same host or anywhere in another one: hosts share
    /// the sessions.
    fn is_before(&self, at: usize, mut is_wanted: impl FnMut(&FlowNote) -> bool) -> bool {
        let host = self.placed[at].host;
        let mut others = self.placed.iter().enumerate();
        others.any(|(n, other)| (other.host != host || n < at) && is_wanted(other.note))
    }

    fn warn_of_result(&self, at: usize, module: &'static str, plugin: &str, report: &Report) {
        let finds = |note: &FlowNote| note.plugin == plugin && note.flow == Flow::Plugin(module);
        if self.is_before(at, finds) {
            return;
        }
        let named = self.placed.iter().find_map(|placed| match placed.note.flow {
            Flow::Plugin(kind) if placed.note.plugin == plugin => Some(kind),
            _ => None,
        });
        let (why, help) = match named {
            Some(kind) if kind == module => {
                (format!("Plugin {plugin} comes after this one"), "put it before this one".to_owned())
            }
            Some(kind) => (
                format!("Plugin {plugin} is of module {kind}, not {module}"),
                format!("name a plugin of module {module}"),
            ),
            None => {
                let finders = self.placed.iter().filter(|placed| placed.note.flow == Flow::Plugin(module));
                let like = nearest(plugin, finders.map(|placed| placed.note.plugin.as_str()));
                let like = like.map(|name| format!("did you mean `{name}`?"));
                let help = like.unwrap_or_else(|| format!("add a plugin of module {module} before this one"));
                (format!("there is no plugin `{plugin}`"), help)
            }
        };
        let message = format!("result_from: {why}, so Plugin {} never acts", self.placed[at].note.plugin);
        report.say(&codes::NO_RESULT, self.placed[at].note.span, message, Some(help));
    }

    fn warn_of_field(&self, at: usize, field: &str, report: &Report) {
        let sets = |note: &FlowNote| match &note.flow {
            Flow::Sets(name) => name == field || field.strip_suffix("_detail") == Some(name),
            Flow::SetsAny => true,
            _ => false,
        };
        // Results and marks have names of their own, with that of the plugin or of what it is about in it.
        let is_result = field.contains('-') || self.plugins.iter().any(|plugin| field.contains(plugin));
        if is_result || self.is_before(at, sets) {
            return;
        }
        let note = self.placed[at].note;
        let later = self.placed[at..].iter().find(|placed| sets(placed.note));
        let (why, help) = match later {
            Some(later) => {
                let setter = &later.note.plugin;
                let help = format!("put Plugin {setter} before this one");
                (format!("only Plugin {setter}, which comes after Plugin {}, sets", note.plugin), Some(help))
            }
            None => {
                let known = self.placed.iter().filter_map(|placed| match &placed.note.flow {
                    Flow::Sets(name) => Some(name.as_str()),
                    _ => None,
                });
                let like = nearest(field, known).map(|name| format!("did you mean `{name}`?"));
                ("no plugin sets".to_owned(), like)
            }
        };
        let message = format!("{why} the field `{field}` that Plugin {} looks at", note.plugin);
        report.say(&codes::UNSET_FIELD, note.span, message, help);
    }
}

/// Warns of time-outs that never apply, since what is around them ends first.
pub(super) fn warn_of_timeouts(root: &Block, longest: Duration, report: &Report) {
    if let Some((seconds, span)) = timeout(root, "request_timeout")
        && seconds >= POSTFIX_WAITS
    {
        let message = format!(
            "request_timeout: Postfix waits no longer than {} s for an answer \
             (smtpd_policy_service_timeout), so a request that takes longer has none",
            POSTFIX_WAITS.as_secs()
        );
        let help = "write less than that, such as `request_timeout = 20`".to_owned();
        report.say(&codes::TIMEOUT_ORDER, span, message, Some(help));
    }
    warn_of_inner(root, longest, report);
}

fn warn_of_inner(block: &Block, longest: Duration, report: &Report) {
    for option in ["timeout", "time_limit"] {
        let is_inside = matches!(block.kind.as_str(), "Plugin" | "Connection");
        if let Some((seconds, span)) = timeout(block, option).filter(|_| is_inside)
            && seconds >= longest
        {
            let message = format!(
                "{option}: {} s is not less than a request may take, {} s (request_timeout), so it never \
                 applies",
                seconds.as_secs(),
                longest.as_secs()
            );
            let help = "write less than `request_timeout`, so that the other plugins still run".to_owned();
            report.say(&codes::TIMEOUT_ORDER, span, message, Some(help));
        }
    }
    block.blocks().for_each(|inner| warn_of_inner(inner, longest, report));
}

/// The time that an option of a block gives, if it can be read, and its place.
fn timeout(block: &Block, option: &str) -> Option<(Duration, Span)> {
    let entry = block.entries().find(|entry| entry.key == option)?;
    let seconds = NonZeroSeconds::parse(entry.value.as_deref()?).ok()?;
    Some((seconds.0.duration(), entry.value_span))
}
