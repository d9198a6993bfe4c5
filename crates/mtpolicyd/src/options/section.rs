//! One block of the file while it is read: what is taken is understood, what is left over is not.
//!
//! Knows: the tree of the configuration, values. Must not know: plugins.

use super::codes::{self, Code, text};
use super::flow::{Flow, FlowNote};
use crate::value::{Value, nearest};
use backends::OptionError;
use config_general::{Block, Diagnostic, Entry, Item, Severity, Span};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;

/// Mistakes, and warnings, that are kept of one reading: nobody reads more, and a file may have a million.
const MAX_KEPT: usize = 100;

/// The mistakes and warnings of one reading, in the order found.
#[derive(Debug, Default)]
pub struct Report(RefCell<Findings>);

#[derive(Debug, Default)]
struct Findings {
    /// Where secrets stand, each from its key to the end of its value.
    secrets: Vec<Span>,
    /// Where secrets may stand: what nobody has understood, for instance.
    hidden: Vec<Span>,
    /// Options whose values are known to be no secrets.
    plain: Vec<Span>,
    /// What plugins leave for one another.
    flow: Vec<FlowNote>,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
    notices: usize,
}

impl Report {
    /// Notes what is meant by a code: a mistake, with which the configuration is refused, a doubt, or
    /// something worth knowing.
    pub fn say(&self, code: &'static Code, span: Span, message: impl Into<String>, help: Option<String>) {
        self.note(code, span, || (message.into(), help));
    }

    /// Notes a mistake that has no code of its own: the configuration will be refused.
    pub fn error(&self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.say(&codes::UNUSABLE_VALUE, span, message, help);
    }

    /// Notes a surprise that has no code of its own: the configuration works, but perhaps not as meant.
    pub fn warning(&self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.say(&codes::STRANGE_VALUE, span, message, help);
    }

    /// Notes something worth knowing that is not a surprise: `check --strict` passes it.
    pub fn notice(&self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.say(&codes::WORTH_KNOWING, span, message, help);
    }

    /// Notes what a plugin leaves for others or takes from them.
    pub fn note_flow(&self, flow: FlowNote) {
        self.0.borrow_mut().flow.push(flow);
    }

    /// What the plugins of the file leave for one another, in the order of the file.
    pub fn take_flow(&self) -> Vec<FlowNote> {
        std::mem::take(&mut self.0.borrow_mut().flow)
    }

    /// The places of the secrets of the file, each from its key to the end of its value.
    pub fn secrets(&self) -> Vec<Span> {
        self.0.borrow().secrets.clone()
    }

    /// The places where secrets may stand.
    pub fn hidden(&self) -> Vec<Span> {
        self.0.borrow().hidden.clone()
    }

    /// The places of options that were understood, and are not secrets.
    pub fn plain(&self) -> Vec<Span> {
        self.0.borrow().plain.clone()
    }

    /// Notes that nobody has understood a block, so that any of its values may be a secret.
    fn hide_all(&self, block: &Block) {
        let entries = block.entries().map(whole);
        self.0
            .borrow_mut()
            .hidden
            .extend(entries.chain([Span { end: block.name_span.end, ..block.kind_span }]));
        block.blocks().for_each(|inner| self.hide_all(inner));
    }

    /// Notes what the function says, which is only asked if it will be kept.
    fn note(&self, code: &'static Code, span: Span, say: impl FnOnce() -> (String, Option<String>)) {
        let mut kept = self.0.borrow_mut();
        let severity = code.severity();
        let count = match severity {
            Severity::Error => &mut kept.errors,
            Severity::Warning => &mut kept.warnings,
            Severity::Notice => &mut kept.notices,
        };
        *count += 1;
        if *count <= MAX_KEPT {
            let (message, help) = say();
            kept.diagnostics.push(Diagnostic { code, severity, span: Some(span), message, help });
        }
    }

    /// What was noted, and how much more there is.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let Findings { mut diagnostics, errors, warnings, .. } = self.0.into_inner();
        for (code, count) in [(&text::MORE_ERRORS, errors), (&text::MORE_WARNINGS, warnings)] {
            let severity = code.severity();
            if let Some(more) = count.checked_sub(MAX_KEPT).filter(|more| *more > 0) {
                let message = format!("and {more} more {severity}s");
                diagnostics.push(Diagnostic { code, severity, span: None, message, help: None });
            }
        }
        diagnostics
    }
}

/// A block of the file, from which options are taken.
pub struct Section<'a> {
    block: &'a Block,
    report: &'a Report,
    taken: Vec<bool>,
    asked: Vec<String>,
}

impl<'a> Section<'a> {
    /// The whole block, nothing taken yet.
    pub fn new(block: &'a Block, report: &'a Report) -> Section<'a> {
        Section { block, report, taken: vec![false; block.items.len()], asked: Vec::new() }
    }

    /// The name in the opening tag, or nothing.
    pub fn name(&self) -> &'a str {
        self.block.name.as_deref().unwrap_or_default()
    }

    /// Where the block opens.
    pub fn span(&self) -> Span {
        self.block.span
    }

    /// Where the value of an option stands, or the block where the option is not given.
    pub fn span_of(&self, option: &str) -> Span {
        let entry = self.block.entries().find(|entry| entry.key == option);
        entry.map_or(self.block.span, |entry| entry.value_span)
    }

    /// Where mistakes are noted.
    pub fn report(&self) -> &'a Report {
        self.report
    }

    /// Takes an option that may be given once; a second one is a mistake.
    pub fn take(&mut self, name: &str) -> Option<&'a Entry> {
        let entries = self.take_all(name);
        if let [_, again, ..] = entries[..] {
            let message = format!("option `{name}` occurs more than once");
            self.report.say(
                &codes::REPEATED_OPTION,
                again.key_span,
                message,
                Some("keep one of them".to_owned()),
            );
        }
        entries.first().copied().filter(|entry| self.has_value(entry))
    }

    /// A word alone on its line sets nothing, as in the original; it is rarely meant so.
    fn has_value(&self, entry: &Entry) -> bool {
        if entry.value.is_none() {
            let help = format!("write `{} = VALUE`, or remove the line", entry.key);
            let message = format!("option `{}` has no value; it counts as not given", entry.key);
            self.report.say(&codes::NO_VALUE, entry.key_span, message, Some(help));
        }
        entry.value.is_some()
    }

    /// Takes every occurrence of an option.
    pub fn take_all(&mut self, name: &str) -> Vec<&'a Entry> {
        self.asked.push(name.to_owned());
        self.take_where(|key| key == name)
    }

    /// Notes where an option of this type has a secret, so that it is never shown.
    pub fn hide<T: Value>(&self, name: &str) {
        self.hide_where(name, T::is_secret, T::is_hidden);
    }

    /// Notes where an option has a secret, or a text that may hold one.
    pub fn hide_where(&self, name: &str, is_secret: fn(&str) -> bool, is_hidden: fn(&str) -> bool) {
        let mut kept = self.report.0.borrow_mut();
        for entry in self.block.entries().filter(|entry| entry.key == name) {
            let value = entry.value.as_deref().unwrap_or_default();
            if is_secret(value) {
                kept.secrets.push(whole(entry));
            } else if is_hidden(value) {
                kept.hidden.push(whole(entry));
            } else {
                kept.plain.push(whole(entry));
            }
        }
    }

    /// Takes the options with certain names.
    pub fn take_where(&mut self, wanted: impl Fn(&str) -> bool) -> Vec<&'a Entry> {
        let mut found = Vec::new();
        for (item, taken) in self.block.items.iter().zip(&mut self.taken) {
            if let Item::Entry(entry) = item
                && wanted(&entry.key)
            {
                *taken = true;
                found.push(entry);
            }
        }
        found
    }

    /// Takes the blocks of a kind, in file order.
    pub fn take_blocks(&mut self, kind: &str) -> Vec<&'a Block> {
        self.asked.push(format!("<{kind}>"));
        let mut found = Vec::new();
        for (item, taken) in self.block.items.iter().zip(&mut self.taken) {
            if let Item::Block(block) = item
                && block.kind == kind
            {
                *taken = true;
                found.push(block);
            }
        }
        found
    }

    /// Whether there are blocks of a kind that nobody has taken.
    pub fn has_more(&self, kind: &str) -> bool {
        let blocks = self.block.items.iter().zip(&self.taken);
        blocks
            .into_iter()
            .any(|(item, taken)| !taken && matches!(item, Item::Block(block) if block.kind == kind))
    }

    /// The value of an entry, or `None` after the mistake was noted.
    pub fn parse<T: Value>(&self, entry: &Entry) -> Option<T> {
        match T::parse(entry.value.as_deref().unwrap_or_default()) {
            Ok(value) => {
                for field in value.session_fields() {
                    self.note_flow_at(entry.value_span, Flow::Reads(field));
                }
                Some(value)
            }
            Err(why) => {
                self.refuse_value(entry, &why, T::FORM);
                None
            }
        }
    }

    /// Notes what is wrong with the value of an entry, and what a right one is.
    pub fn refuse_value(&self, entry: &Entry, why: &str, form: &str) {
        let help = format!("a value of `{}` is {form}", entry.key);
        let message = format!("{}: {why}", entry.key);
        self.report.say(&codes::BAD_VALUE, entry.value_span, message, Some(help));
    }

    /// Notes that a required option is not there, or that something like it is.
    pub fn missing(&self, name: &str) {
        let given = self.block.entries().map(|entry| entry.key.as_str());
        let help = match nearest(name, given.filter(|key| !self.asked.iter().any(|asked| asked == key))) {
            Some(like) => format!("did you mean `{name}` where it says `{like}`?"),
            None => format!("add `{name} = ...` to this block"),
        };
        let message = format!("{} needs the option `{name}`", self.describe());
        self.report.say(&codes::MISSING_OPTION, self.block.span, message, Some(help));
    }

    /// Notes a mistake of the block as a whole.
    pub fn refuse(&self, message: impl Into<String>, help: Option<String>) {
        self.report.say(&codes::BAD_BLOCK, self.block.span, message, help);
    }

    /// Notes a mistake of an option, at its value.
    pub fn refuse_option(&self, OptionError { option, why, help }: OptionError) {
        self.report.error(self.span_of(option), format!("{option}: {why}"), help);
    }

    /// Notes a surprise in an option, at its value.
    pub fn warn(&self, option: &str, why: impl Display) {
        self.warn_as(&codes::STRANGE_VALUE, option, why);
    }

    /// The same for a surprise that has a code of its own.
    pub fn warn_as(&self, code: &'static Code, option: &str, why: impl Display) {
        self.report.say(code, self.span_of(option), format!("{option}: {why}"), None);
    }

    /// Notes what the plugin of this block leaves for others or takes from them, as an option says.
    pub fn note_flow(&self, option: &str, flow: Flow) {
        self.note_flow_at(self.span_of(option), flow);
    }

    fn note_flow_at(&self, span: Span, flow: Flow) {
        let (block, plugin) = (self.block.span, self.name().to_owned());
        self.report.note_flow(FlowNote { block, span, plugin, flow });
    }

    /// How messages name the block: `Plugin spamhaus`.
    pub fn describe(&self) -> String {
        match (self.block.kind.as_str(), self.name()) {
            ("", _) => "the file".to_owned(),
            (kind, "") => kind.to_owned(),
            (kind, name) => format!("{kind} {name}"),
        }
    }

    /// Whether an option is given, or a name for those of the users.
    pub fn is_given(&self, option: &str) -> bool {
        self.given(option).is_some() || self.given(&format!("uc_{option}")).is_some()
    }

    /// The value of an option that is given, and where it stands.
    pub fn given(&self, option: &str) -> Option<(&'a str, Span)> {
        let entry = self.block.entries().find(|entry| entry.key == option)?;
        Some((entry.value.as_deref()?, entry.key_span))
    }

    /// The first option of the block that adds points to a score, by its name.
    pub fn given_points(&self) -> Option<&'a str> {
        let is_score = |key: &str| {
            key == "score" || key == "uc_score" || key == "score_factor" || key.ends_with("_score")
        };
        let adds = |value: &str| value.parse::<f64>() != Ok(0.0);
        let entries = self.block.entries().filter(|entry| is_score(&entry.key));
        let mut given = entries.filter(|entry| entry.value.as_deref().is_some_and(adds));
        given.next().map(|entry| entry.key.as_str())
    }

    /// The value of an option that a block inside gives.
    pub fn given_inside(&self, kind: &str, option: &str) -> Option<&'a str> {
        let blocks = self.block.blocks().filter(|block| block.kind == kind);
        blocks.flat_map(Block::entries).find(|entry| entry.key == option)?.value.as_deref()
    }

    /// The same as `finish` after a mistake that kept the blocks inside from being looked at: nothing is said
    /// of them.
    pub fn finish_after_mistake(mut self) {
        for (item, taken) in self.block.items.iter().zip(&mut self.taken) {
            if let Item::Block(block) = item
                && !*taken
            {
                self.report.hide_all(block);
                *taken = true;
            }
        }
        self.finish();
    }

    /// Warns of everything that nobody took: the original ignores it silently.
    pub fn finish(self) {
        let mut unknown = BTreeSet::new();
        for (item, taken) in self.block.items.iter().zip(&self.taken) {
            match item {
                _ if *taken => {}
                Item::Entry(entry) => {
                    self.report.0.borrow_mut().hidden.push(whole(entry));
                    if !unknown.insert(&entry.key) {
                        let message = format!("option `{}` occurs more than once", entry.key);
                        self.report.say(&codes::REPEATED_OPTION, entry.key_span, message, None);
                    } else if entry.value.is_some() {
                        self.warn_unknown(entry.key_span, "option", &entry.key);
                    } else {
                        self.warn_of_word(entry);
                    }
                }
                Item::Block(block) => {
                    self.report.hide_all(block);
                    self.warn_unknown(block.kind_span, "block", &format!("<{}>", block.kind));
                }
            }
        }
    }

    /// A line of one word, which is not repeated unless it is like an option: it may be a password.
    fn warn_of_word(&self, entry: &Entry) {
        let known = self.asked.iter().map(String::as_str).filter(|asked| !asked.starts_with('<'));
        if nearest(&entry.key, known).is_some() {
            return self.warn_unknown(entry.key_span, "option", &entry.key);
        }
        let message =
            format!("{}: this line of one word is not an option; it has no effect", self.describe());
        self.report.say(&codes::STRAY_WORD, entry.key_span, message, None);
    }

    fn warn_unknown(&self, span: Span, what: &str, name: &str) {
        self.report.note(&codes::UNKNOWN_OPTION, span, || {
            let alike = self.asked.iter().filter(|asked| asked.starts_with('<') == name.starts_with('<'));
            let help = nearest(name, alike.map(String::as_str)).map(|name| format!("did you mean `{name}`?"));
            (format!("{} has no {what} `{name}`; it has no effect", self.describe()), help)
        });
    }
}

/// From the key to the end of the value.
fn whole(entry: &Entry) -> Span {
    Span { end: entry.value_span.end.max(entry.key_span.end), ..entry.key_span }
}
