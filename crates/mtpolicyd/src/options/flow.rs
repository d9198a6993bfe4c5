//! What plugins leave for one another: fields of the session, scores, results.
//!
//! Knows: names, places in the file. Must not know: any plugin, what is made of it.

use config_general::Span;

/// What a plugin leaves for others, or takes from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flow {
    /// A virtual host begins; what comes after it is in this host.
    Host,
    /// There is a plugin of this module.
    Plugin(&'static str),
    /// It sets this field.
    Sets(String),
    /// It sets fields whose names somebody else knows, such as a database.
    SetsAny,
    /// It looks at this field.
    Reads(String),
    /// It uses what a plugin of this module and name has found.
    UsesResult {
        /// The module.
        module: &'static str,
        /// The name.
        plugin: String,
    },
    /// It adds to this score, by an option that the file gives.
    AddsTo(String),
    /// It looks at this score.
    ReadsScore(String),
}

/// One of them, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowNote {
    /// The opening tag of the plugin.
    pub block: Span,
    /// The value of the option that says it, or the tag.
    pub span: Span,
    /// The name of the plugin.
    pub plugin: String,
    /// What it is.
    pub flow: Flow,
}
