//! One layer of a session: fields and settings, each with what is known of it.
//!
//! Knows: text, sums. Must not know: which layer goes before which, plugins.

use crate::value::numeric_prefix;
use std::collections::BTreeMap;

/// Fields and settings. `None` hides what a layer below has under that name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Layer {
    pub(super) fields: BTreeMap<Box<str>, Option<Field>>,
    pub(super) settings: BTreeMap<Box<str>, Option<Setting>>,
}

/// The value of a field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Field {
    pub(super) text: String,
    /// The exact sum behind a score: the text has fifteen digits, and thresholds look at all of them.
    pub(super) sum: Option<f64>,
    /// Whether the configuration set it. A setting that the user's entry brings later goes before it.
    pub(super) is_configured: bool,
}

/// A setting of the user.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Setting {
    pub(super) text: String,
    /// The plugin that loaded it, and removes it when it loads those of another user.
    pub(super) plugin: Box<str>,
}

/// What the maps themselves need for an entry, about.
const ENTRY_BYTES: usize = 96;

impl Field {
    pub(super) fn of(text: &str) -> Field {
        Field { text: text.to_owned(), ..Field::default() }
    }

    /// A score is exact; text counts as Perl counts it.
    pub(super) fn number(&self) -> f64 {
        self.sum.unwrap_or_else(|| numeric_prefix(self.text.as_bytes()))
    }
}

impl Layer {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().chain(self.settings.keys()).map(|name| &**name)
    }

    /// The names of the settings that a plugin has loaded.
    pub(super) fn settings_of<'a>(&'a self, plugin: &'a str) -> impl Iterator<Item = &'a str> {
        let is_its = move |setting: &Option<Setting>| {
            setting.as_ref().is_some_and(|setting| *setting.plugin == *plugin)
        };
        self.settings.iter().filter(move |(_, setting)| is_its(setting)).map(|(name, _)| &**name)
    }

    /// How much memory it holds, about.
    pub(super) fn size(&self) -> usize {
        let fields = self
            .fields
            .iter()
            .map(|(name, field)| name.len() + field.as_ref().map_or(0, |field| field.text.capacity()));
        let settings = self.settings.iter().map(|(name, setting)| {
            let held = |setting: &Setting| setting.text.capacity() + setting.plugin.len();
            name.len() + setting.as_ref().map_or(0, held)
        });
        fields.chain(settings).map(|bytes| bytes + ENTRY_BYTES).sum()
    }
}
