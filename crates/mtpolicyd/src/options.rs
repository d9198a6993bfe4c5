//! Typed options: read, checked and documented from one declaration.
//!
//! Knows: sections, sessions, values. Must not know: plugins.

pub mod codes;
mod flow;
mod rules;
mod section;

pub use flow::{Flow, FlowNote};
pub use rules::{Rule, check, explain};
pub use section::{Report, Section};

use crate::session::Session;
use crate::value::{Switch, Value};

/// What one option means, for the manual.
#[derive(Clone, Debug, PartialEq)]
pub struct OptionSpec {
    /// As written in the file.
    pub name: String,
    /// Whether `uc_` and the name is an option too, naming the session field that overrides this one.
    pub user_config: bool,
    /// What a value looks like.
    pub form: &'static str,
    /// Whether a value may be secret.
    pub may_be_secret: bool,
    /// Whether, and with which default, it may be left out.
    pub presence: Presence,
    /// What other options have to do with it.
    pub rules: Vec<String>,
    /// Its explanation.
    pub doc: &'static str,
}

/// Whether an option may be left out.
#[derive(Clone, Debug, PartialEq)]
pub enum Presence {
    /// The file has to give it.
    Required,
    /// Without it nothing is set.
    Optional,
    /// Without it this value holds.
    Default(String),
}

impl<T: ToString> From<Option<T>> for Presence {
    fn from(default: Option<T>) -> Presence {
        default.map_or(Presence::Required, |value| Presence::Default(value.to_string()))
    }
}

/// All options of one block. Implemented by `options!` only.
pub trait Options: Sized {
    /// What the block is for, in Markdown.
    const ABOUT: &'static str;
    /// The options that are read and obeyed outside the plugin, such as `enabled`.
    const OF_SHELL: &'static [&'static str];
    /// What they have to do with one another.
    const RULES: &'static [Rule];
    /// The options, or `None` after the mistakes were reported.
    fn read(section: &mut Section<'_>) -> Option<Self>;
    /// Each option, in the order of the declaration.
    fn specs() -> Vec<OptionSpec>;
}

/// A field type of an options struct: a `Value`, or something made of them.
pub trait Field: Sized {
    /// The field, or `None` after a mistake was reported.
    fn take(section: &mut Section<'_>, name: &str, default: Option<Self>) -> Option<Self>;
    /// What the manual says of it.
    fn specs(name: &str, doc: &'static str, default: Option<Self>) -> Vec<OptionSpec>;
    /// What the field holds when it is neither given nor has a default.
    fn absent() -> Option<Self> {
        None
    }
}

/// The one entry of an option with a plain value.
pub fn spec<T: Value>(name: &str, presence: Presence, doc: &'static str) -> OptionSpec {
    let (name, form, may_be_secret) = (name.to_owned(), T::FORM, T::MAY_BE_SECRET);
    OptionSpec { name, user_config: false, form, may_be_secret, presence, rules: Vec::new(), doc }
}

impl<T: Value> Field for T {
    fn take(section: &mut Section<'_>, name: &str, default: Option<T>) -> Option<T> {
        section.hide::<T>(name);
        match section.take(name) {
            Some(entry) => section.parse(entry),
            None if default.is_some() => default,
            None => {
                section.missing(name);
                None
            }
        }
    }
    fn specs(name: &str, doc: &'static str, default: Option<T>) -> Vec<OptionSpec> {
        vec![spec::<T>(name, default.into(), doc)]
    }
}

impl<T: Value> Field for Option<T> {
    fn take(section: &mut Section<'_>, name: &str, _: Option<Self>) -> Option<Self> {
        section.hide::<T>(name);
        match section.take(name) {
            Some(entry) => section.parse(entry).map(Some),
            None => Some(None),
        }
    }
    fn specs(name: &str, doc: &'static str, _: Option<Self>) -> Vec<OptionSpec> {
        vec![spec::<T>(name, Presence::Optional, doc)]
    }
    fn absent() -> Option<Self> {
        Some(None)
    }
}

/// An option that may be given several times, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Repeated<T>(pub Vec<T>);

impl<T: Value> Field for Repeated<T> {
    fn take(section: &mut Section<'_>, name: &str, _: Option<Self>) -> Option<Self> {
        section.hide::<T>(name);
        let entries = section.take_all(name);
        entries.into_iter().map(|entry| section.parse(entry)).collect::<Option<_>>().map(Repeated)
    }
    fn specs(name: &str, doc: &'static str, _: Option<Self>) -> Vec<OptionSpec> {
        vec![spec::<T>(name, Presence::Optional, doc)]
    }
    fn absent() -> Option<Self> {
        Some(Repeated(Vec::new()))
    }
}

/// The session field that `uc_` and the name of an option name.
fn take_field_name(section: &mut Section<'_>, name: &str) -> Option<Option<String>> {
    let option = format!("uc_{name}");
    let field = <Option<String> as Field>::take(section, &option, None)?;
    if let Some(field) = &field {
        section.note_flow(&option, Flow::Reads(field.clone()));
    }
    Some(field)
}

/// A setting that a user may override: `uc_x = "field"` names the session field to look in.
#[derive(Clone, Debug)]
pub struct UserConfig<T> {
    configured: T,
    session_field: Option<String>,
}

impl<T: Value> UserConfig<T> {
    /// The user's value if the session has a readable one, else the configured value.
    pub fn get(&self, session: &Session) -> T {
        let users = self.session_field.as_deref().and_then(|field| session.text(field));
        users.and_then(T::of_user).unwrap_or_else(|| self.configured.clone())
    }

    /// What the file says.
    pub fn configured(&self) -> &T {
        &self.configured
    }

    /// Whether users may have a value of their own.
    pub fn is_for_users(&self) -> bool {
        self.session_field.is_some()
    }
}

impl<T> From<T> for UserConfig<T> {
    fn from(configured: T) -> Self {
        UserConfig { configured, session_field: None }
    }
}

impl<T: Value> Field for UserConfig<T> {
    fn take(section: &mut Section<'_>, name: &str, default: Option<Self>) -> Option<Self> {
        let configured = T::take(section, name, default.map(|d| d.configured));
        let session_field = take_field_name(section, name);
        Some(UserConfig { configured: configured?, session_field: session_field? })
    }
    fn specs(name: &str, doc: &'static str, default: Option<Self>) -> Vec<OptionSpec> {
        let presence = default.map(|d| d.configured).into();
        vec![OptionSpec { user_config: true, ..spec::<T>(name, presence, doc) }]
    }
}

/// A setting that may be left out, and that a user may set or override.
#[derive(Clone, Debug)]
pub struct OptionalUserConfig<T> {
    configured: Option<T>,
    session_field: Option<String>,
}

impl<T: Value> OptionalUserConfig<T> {
    /// What holds where neither the file nor a user says anything.
    pub fn nothing() -> Self {
        OptionalUserConfig { configured: None, session_field: None }
    }

    /// The user's value if the session has a readable one, else the configured value, if any.
    pub fn get(&self, session: &Session) -> Option<T> {
        let users = self.session_field.as_deref().and_then(|field| session.text(field));
        users.and_then(T::of_user).or_else(|| self.configured.clone())
    }

    /// What the file says.
    pub fn configured(&self) -> Option<&T> {
        self.configured.as_ref()
    }

    /// Whether the file gives a value or a place to find one.
    pub fn is_given(&self) -> bool {
        self.configured.is_some() || self.session_field.is_some()
    }
}

impl<T: Value> Field for OptionalUserConfig<T> {
    fn take(section: &mut Section<'_>, name: &str, _: Option<Self>) -> Option<Self> {
        let configured = <Option<T> as Field>::take(section, name, None);
        let session_field = take_field_name(section, name);
        Some(OptionalUserConfig { configured: configured?, session_field: session_field? })
    }
    fn specs(name: &str, doc: &'static str, _: Option<Self>) -> Vec<OptionSpec> {
        vec![OptionSpec { user_config: true, ..spec::<T>(name, Presence::Optional, doc) }]
    }
    fn absent() -> Option<Self> {
        Some(OptionalUserConfig::nothing())
    }
}

/// The option `enabled`, for the manual. The plugin's shell reads and obeys it.
pub fn enabled() -> OptionSpec {
    let doc = " Whether the plugin is in use. With `off` it is skipped.\n";
    UserConfig::<Switch>::specs("enabled", doc, Some(Switch::On.into())).remove(0)
}

/// Declares an options struct: the fields, their defaults and their manual in one place.
///
/// `+ enabled,` between two fields gives the plugin the option `enabled`, which its shell reads and obeys.
/// Behind the fields, `rules` says what they have to do with one another:
/// `rules { AnyOf(host, socket_path), }`.
macro_rules! options {
    ($(#[doc = $about:literal])* $vis:vis struct $Name:ident {
        $($(+ $shell:ident,)? $(#[doc = $doc:literal])* $field:ident: $Type:ty $(= $default:expr)?,)*
    } $(rules { $($rule:ident($($option:ident),*),)* })?) => {
        $(#[doc = $about])*
        #[derive(Clone)]
        $vis struct $Name { $($(#[doc = $doc])* pub $field: $Type,)* }

        impl $crate::options::Options for $Name {
            const ABOUT: &'static str = concat!($($about, "\n"),*);
            const OF_SHELL: &'static [&'static str] = &[$($(stringify!($shell),)?)*];
            const RULES: &'static [$crate::options::Rule] =
                &[$($($crate::options::Rule::$rule(&[$(stringify!($option)),*]),)*)?];
            fn read(section: &mut $crate::options::Section<'_>) -> Option<Self> {
                // Read all before giving up on one, so that every mistake of the block is reported at once.
                $(let $field = <$Type as $crate::options::Field>::take(
                    section, $crate::options::options!(@name $field),
                    $crate::options::options!(@default $Type $(, $default)?));)*
                let keeps_rules = $crate::options::check(Self::RULES, section);
                Some($Name { $($field: $field?,)* }).filter(|_| keeps_rules)
            }
            fn specs() -> Vec<$crate::options::OptionSpec> {
                let mut all = Vec::new();
                $($(all.push($crate::options::$shell());)?
                all.extend(<$Type as $crate::options::Field>::specs(
                    $crate::options::options!(@name $field), concat!($($doc, "\n"),*),
                    $crate::options::options!(@default $Type $(, $default)?)));)*
                $crate::options::explain(Self::RULES, all)
            }
        }
    };
    // A field named after a keyword, `r#match`, is written `match` in the file.
    (@name $field:ident) => { stringify!($field).trim_start_matches("r#") };
    (@default $Type:ty) => { <$Type as $crate::options::Field>::absent() };
    (@default $Type:ty, $default:expr) => { Some(<$Type>::from($default)) };
}
pub(crate) use options;

#[cfg(test)]
mod tests;
