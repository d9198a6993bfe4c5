//! What is wrong with a setting.
//!
//! Knows: the name of an option. Must not know: where it stands, how it is read.

/// What is wrong with one option, for who reads the file to show at its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option}: {why}")]
pub struct OptionError {
    /// Its name.
    pub option: &'static str,
    /// What is wrong.
    pub why: String,
    /// What to write instead, if that can be said.
    pub help: Option<String>,
}

impl OptionError {
    /// A mistake without advice.
    pub fn new(option: &'static str, why: impl ToString) -> OptionError {
        OptionError { option, why: why.to_string(), help: None }
    }

    /// That the part of the daemon which an option asks for was left out of this build.
    pub fn not_built(option: &'static str, feature: &str) -> OptionError {
        OptionError::new(option, format!("this daemon was built without {feature} (feature `{feature}`)"))
    }

    /// The same with what to write instead.
    pub fn with_help(self, help: impl Into<String>) -> OptionError {
        OptionError { help: Some(help.into()), ..self }
    }
}

impl From<OptionError> for String {
    fn from(error: OptionError) -> String {
        error.to_string()
    }
}
