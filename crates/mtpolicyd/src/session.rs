//! What is remembered of one message between its requests.
//!
//! Knows: text fields, values. Must not know: plugins, where sessions are stored.

mod attempt;
pub mod cache;
mod dependence;
mod layer;
mod stored;

pub use attempt::Attempt;
pub use dependence::Depends;

use crate::value::{Score, numeric_prefix, perl_number};
use dependence::Dependence;
use layer::{Field, Layer, Setting};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use std::collections::BTreeSet;
use std::fmt::{Display, Write};

/// The attribute that differs between the requests of one message.
pub const RECIPIENT: &str = "recipient";

/// The fields of one `instance=`: what SetField set, scores, cached results and once-per-message marks.
///
/// They share one flat name space with the names of the original, so that ClearFields, Condition and the
/// `uc_` options of an existing configuration find what they name. What a user has chosen is a map of its
/// own: it is found like a field, but no setting can take the place of a score, a result or a mark (D-21 in
/// `docs/differences.md`).
///
/// A session has two layers. What depends on client or sender only is found once and holds for the message;
/// what was found by looking at the recipient holds for that recipient, and is dropped when the next request
/// names another one. Which layer a plugin writes to follows from what it has read in its turn: the attribute
/// `recipient` ([`Session::depend_on`]), or a field or setting that may be different for another recipient.
/// The layer of the recipient goes before that of the message, and what is written for the message reaches
/// both; so sums and their details are what they would be if the other recipients had never been asked about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    message: Layer,
    recipient: Layer,
    /// Whose layer it is, as Postfix spells the address: a spelling that differs is somebody else.
    addressee: Box<[u8]>,
    dependence: Dependence,
    /// What was added to scores since somebody has asked: each field with the points. It is not stored.
    added: Vec<(Box<str>, f64)>,
}

impl Session {
    /// A request begins. What was found for another recipient is dropped; so it is for a request without
    /// one, which is how Postfix asks at DATA and later about a message with several.
    pub fn begin(&mut self, recipient: &[u8]) {
        self.dependence.set(Depends::OnMessage);
        self.added.clear();
        if *self.addressee != *recipient {
            self.addressee = recipient.into();
            self.recipient = Layer::default();
        }
    }

    /// Notes that an attribute of the request was looked at: what is found from here on depends on it.
    pub fn depend_on(&self, attribute: &str) {
        if attribute == RECIPIENT {
            self.dependence.note_recipient();
        }
    }

    /// What the plugin whose turn it is has looked at so far.
    pub fn depends(&self) -> Depends {
        self.dependence.now()
    }

    /// The turn of a plugin begins or ends; what it writes depends on so much at least.
    pub fn set_depends(&self, depends: Depends) {
        self.dependence.set(depends);
    }

    /// A field or a setting of the user, or `None` where nothing set it.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.depend_on_fields();
        let field = self.field(name);
        // A setting stands where no field does; set after SetField it goes before what that has set.
        let is_open = field.is_none_or(|field| field.is_configured);
        let setting = self.setting(name).filter(|_| is_open).map(|setting| setting.text.as_str());
        setting.or(field.map(|field| field.text.as_str()))
    }

    /// What a plugin found; no setting of the user can change it.
    pub fn result(&self, field: &str) -> Option<&str> {
        if self.recipient.fields.contains_key(field) {
            self.dependence.note_recipient();
        }
        self.field(field).map(|field| field.text.as_str())
    }

    /// Notes what a plugin found.
    pub fn set(&mut self, field: &str, text: &str) {
        self.change(field, |_| Some(Field::of(text)));
    }

    /// Notes what holds for the message whoever was asked about: that it was counted, banned, marked.
    pub fn set_for_message(&mut self, field: &str, text: &str) {
        self.recipient.fields.remove(field);
        self.message.fields.insert(field.into(), Some(Field::of(text)));
    }

    /// Sets a field as the configuration wants it, whatever the user has chosen before.
    pub fn configure(&mut self, field: &str, text: &str) {
        self.change(field, |_| Some(Field { is_configured: true, ..Field::of(text) }));
        self.change_setting(field, None);
    }

    /// Takes the settings that a plugin has found for a user in place of those that it found before, which
    /// may have been another user's. None is an answer too.
    pub fn load_settings<'a>(
        &mut self,
        plugin: &str,
        settings: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) {
        let names = self.message.settings_of(plugin).chain(self.recipient.settings_of(plugin));
        for name in names.map(Box::from).collect::<BTreeSet<Box<str>>>() {
            if self.setting(&name).is_some_and(|setting| *setting.plugin == *plugin) {
                self.change_setting(&name, None);
            }
        }
        for (name, text) in settings {
            self.change_setting(name, Some(Setting { text: text.to_owned(), plugin: plugin.into() }));
        }
    }

    /// Notes a setting of the user.
    #[cfg(test)]
    pub fn set_user(&mut self, name: &str, text: &str) {
        self.change_setting(name, Some(Setting { text: text.to_owned(), plugin: "".into() }));
    }

    /// Removes a field.
    pub fn clear(&mut self, field: &str) {
        self.change(field, |_| None);
        self.change_setting(field, None);
    }

    /// Removes every field whose name begins with the prefix.
    pub fn clear_prefix(&mut self, prefix: &str) {
        let names = self.message.names().chain(self.recipient.names());
        let names: BTreeSet<Box<str>> =
            names.filter(|name| name.starts_with(prefix)).map(Box::from).collect();
        for name in names {
            self.clear(&name);
        }
    }

    /// True the first time it is asked about a mark, false ever after in this message; for what depends on
    /// the recipient, ever after for this recipient.
    pub fn first_time(&mut self, mark: &str) -> bool {
        let is_first = self.field(mark).is_none();
        if is_first || self.field(mark).is_some_and(|field| field.is_configured) {
            self.set(mark, "1");
        }
        is_first
    }

    /// True once per message, whatever it depends on: for what a message can have only once.
    pub fn first_in_message(&mut self, mark: &str) -> bool {
        let is_first = self.field(mark).is_none();
        self.set_for_message(mark, "1");
        is_first
    }

    /// A score; what is not a number counts as Perl counts it.
    pub fn number(&self, field: &str) -> f64 {
        self.depend_on_fields();
        self.field(field).map_or(0.0, Field::number)
    }

    /// A field or a setting of the user as a number; a score is exact.
    pub fn shown_number(&self, name: &str) -> f64 {
        self.depend_on_fields();
        let as_text = || self.text(name).map_or(0.0, |text| numeric_prefix(text.as_bytes()));
        self.field(name).and_then(|field| field.sum).unwrap_or_else(as_text)
    }

    /// Who added what to a score field: `rbl=5, spf=-2`.
    pub fn score_detail(&self, field: &str) -> Option<&str> {
        self.depend_on_fields();
        self.field(&detail_field(field)).map(|field| field.text.as_str())
    }

    /// Adds to a score field and notes who added it.
    pub fn add_score(&mut self, field: &str, who: &str, score: &Score) {
        self.added.push((field.into(), score.points()));
        self.change(field, |before| {
            let sum = before.as_ref().map_or(0.0, Field::number) + score.points();
            Some(Field { text: perl_number(sum), sum: Some(sum), is_configured: false })
        });
        self.change(&detail_field(field), |before| {
            let mut detail = before.unwrap_or_default();
            detail.text.reserve(who.len() + 16);
            let comma = if detail.text.is_empty() { "" } else { ", " };
            [comma, who, "="].iter().for_each(|part| detail.text.push_str(part));
            let _ = write!(detail.text, "{score}");
            Some(detail)
        });
    }

    /// A setting of the user, and the plugin that has found it; `None` where a field stands in its place.
    pub fn chosen(&self, name: &str) -> Option<(&str, &str)> {
        let is_open = self.field(name).is_none_or(|field| field.is_configured);
        self.setting(name).filter(|_| is_open).map(|setting| (&*setting.text, &*setting.plugin))
    }

    /// What was added to scores since this was last asked.
    pub fn take_added(&mut self) -> impl Iterator<Item = (Box<str>, f64)> {
        self.added.drain(..)
    }

    /// The fields and what each holds, as the next request would find them.
    pub fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        let names: BTreeSet<&str> = self.message.names().chain(self.recipient.names()).collect();
        names.into_iter().filter_map(|name| Some((name, self.field(name)?.text.as_str())))
    }

    /// Whether nothing is remembered.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.message == Layer::default() && self.recipient == Layer::default()
    }

    /// How much memory it holds, about.
    pub fn size(&self) -> usize {
        size_of::<Session>() + self.addressee.len() + self.message.size() + self.recipient.size()
    }

    /// Once a plugin has looked at the recipient, a field may be another one for the next recipient, or
    /// there, or missing.
    fn depend_on_fields(&self) {
        if self.dependence.ever() {
            self.dependence.note_recipient();
        }
    }

    fn field(&self, name: &str) -> Option<&Field> {
        let own = self.recipient.fields.get(name);
        own.or_else(|| self.message.fields.get(name)).and_then(Option::as_ref)
    }

    fn setting(&self, name: &str) -> Option<&Setting> {
        let own = self.recipient.settings.get(name);
        own.or_else(|| self.message.settings.get(name)).and_then(Option::as_ref)
    }

    /// Changes a field for this recipient, or else for all of the message: what this recipient has in its
    /// place changes too.
    fn change(&mut self, name: &str, change: impl Fn(Option<Field>) -> Option<Field>) {
        let (message, recipient) = (&mut self.message.fields, &mut self.recipient.fields);
        if self.dependence.now() == Depends::OnRecipient {
            let before = match recipient.remove(name) {
                Some(own) => own,
                None => message.get(name).cloned().flatten(),
            };
            let own = change(before);
            if own.is_some() || message.contains_key(name) {
                recipient.insert(name.into(), own);
            }
            return;
        }
        let own = recipient.get_mut(name).map(|own| {
            *own = change(own.take());
            &*own
        });
        let is_same = match message.get_mut(name) {
            Some(field) => {
                *field = change(field.take());
                let is_same = own.is_some_and(|own| own == field);
                if field.is_none() {
                    message.remove(name);
                }
                is_same
            }
            None => {
                let field = change(None);
                let is_same = own.is_some_and(|own| *own == field);
                if field.is_some() {
                    message.insert(name.into(), field);
                }
                is_same
            }
        };
        if is_same {
            recipient.remove(name);
        }
    }

    fn change_setting(&mut self, name: &str, setting: Option<Setting>) {
        let (message, recipient) = (&mut self.message.settings, &mut self.recipient.settings);
        recipient.remove(name);
        if self.dependence.now() == Depends::OnMessage {
            message.remove(name);
            if setting.is_some() {
                message.insert(name.into(), setting);
            }
        } else if setting.is_some() || message.contains_key(name) {
            recipient.insert(name.into(), setting);
        }
    }
}

/// What divides the details of a score for those that read them, in a header or a reply too; and `%`, which
/// stands for it where others wrote it.
const DIVIDERS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'%')
    .add(b'"')
    .add(b'\\')
    .add(b',')
    .add(b';')
    .add(b':')
    .add(b'=')
    .add(b'(')
    .add(b')')
    .add(b'[')
    .add(b']')
    .add(b'<')
    .add(b'>');

/// A text of strangers as part of a name in the details of a score: `%3D` for `=`, so that it can't be taken
/// for more than one name.
pub fn part_of_name(text: &str) -> impl Display {
    utf8_percent_encode(text, DIVIDERS)
}

fn detail_field(field: &str) -> String {
    [field, "_detail"].concat()
}

#[cfg(test)]
mod tests;
