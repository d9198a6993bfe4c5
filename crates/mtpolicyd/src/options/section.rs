//! One block of the file while it is read: what is taken is understood, what is left over is not.
//!
//! Knows: the tree of the configuration, values. Must not know: plugins.

use crate::value::{Value, nearest};
use config_general::{Block, Diagnostic, Entry, Item, Severity, Span};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Mistakes, and warnings, that are kept of one reading: nobody reads more, and a file may have a million.
const MAX_KEPT: usize = 100;

/// The mistakes and warnings of one reading, in the order found.
#[derive(Debug, Default)]
pub struct Report(RefCell<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Where secrets stand, each from its key to the end of its value.
    secrets: Vec<Span>,
    /// Where secrets may stand: what nobody has understood, for instance.
    hidden: Vec<Span>,
    /// Options whose values are known to be no secrets.
    plain: Vec<Span>,
    diagnostics: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
    notices: usize,
}

impl Report {
    /// Notes a mistake: the configuration will be refused.
    pub fn error(&self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.note(Severity::Error, span, || (message.into(), help));
    }

    /// Notes a surprise: the configuration works, but perhaps not as meant.
    pub fn warning(&self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.note(Severity::Warning, span, || (message.into(), help));
    }

    /// Notes something worth knowing that is not a surprise: `check --strict` passes it.
    pub fn notice(&self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.note(Severity::Notice, span, || (message.into(), help));
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
    fn note(&self, severity: Severity, span: Span, say: impl FnOnce() -> (String, Option<String>)) {
        let mut kept = self.0.borrow_mut();
        let count = match severity {
            Severity::Error => &mut kept.errors,
            Severity::Warning => &mut kept.warnings,
            Severity::Notice => &mut kept.notices,
        };
        *count += 1;
        if *count <= MAX_KEPT {
            let (message, help) = say();
            kept.diagnostics.push(Diagnostic { severity, span: Some(span), message, help });
        }
    }

    /// What was noted, and how much more there is.
    pub fn into_diagnostics(self) -> Vec<Diagnostic> {
        let Kept { mut diagnostics, errors, warnings, .. } = self.0.into_inner();
        for (severity, count) in [(Severity::Error, errors), (Severity::Warning, warnings)] {
            if let Some(more) = count.checked_sub(MAX_KEPT).filter(|more| *more > 0) {
                let message = format!("and {more} more {severity}s");
                diagnostics.push(Diagnostic { severity, span: None, message, help: None });
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
            self.report.error(again.key_span, message, Some("keep one of them".to_owned()));
        }
        entries.first().copied().filter(|entry| self.has_value(entry))
    }

    /// A word alone on its line sets nothing, as in the original; it is rarely meant so.
    fn has_value(&self, entry: &Entry) -> bool {
        if entry.value.is_none() {
            let help = format!("write `{} = VALUE`, or remove the line", entry.key);
            let message = format!("option `{}` has no value; it counts as not given", entry.key);
            self.report.warning(entry.key_span, message, Some(help));
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
            Ok(value) => Some(value),
            Err(why) => {
                let help = format!("a value of `{}` is {}", entry.key, T::FORM);
                self.report.error(entry.value_span, format!("{}: {why}", entry.key), Some(help));
                None
            }
        }
    }

    /// Notes that a required option is not there, or that something like it is.
    pub fn missing(&self, name: &str) {
        let given = self.block.entries().map(|entry| entry.key.as_str());
        let help = match nearest(name, given.filter(|key| !self.asked.iter().any(|asked| asked == key))) {
            Some(like) => format!("did you mean `{name}` where it says `{like}`?"),
            None => format!("add `{name} = ...` to this block"),
        };
        self.refuse(format!("{} needs the option `{name}`", self.describe()), Some(help));
    }

    /// Notes a mistake of the block as a whole.
    pub fn refuse(&self, message: impl Into<String>, help: Option<String>) {
        self.report.error(self.block.span, message, help);
    }

    /// How messages name the block: `Plugin spamhaus`.
    pub fn describe(&self) -> String {
        match (self.block.kind.as_str(), self.name()) {
            ("", _) => "the file".to_owned(),
            (kind, "") => kind.to_owned(),
            (kind, name) => format!("{kind} {name}"),
        }
    }

    /// The value of an option that is given, and where it stands.
    pub fn given(&self, option: &str) -> Option<(&'a str, Span)> {
        let entry = self.block.entries().find(|entry| entry.key == option)?;
        Some((entry.value.as_deref()?, entry.key_span))
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
                        self.report.error(entry.key_span, message, None);
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
        self.report.warning(entry.key_span, message, None);
    }

    fn warn_unknown(&self, span: Span, what: &str, name: &str) {
        self.report.note(Severity::Warning, span, || {
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
