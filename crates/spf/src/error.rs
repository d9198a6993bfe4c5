//! What can be wrong with the text of a record.

use std::fmt;

/// The bytes of foreign text that an error shows.
pub(crate) const MAX_EXCERPT_BYTES: usize = 60;

/// Why a text is not a record of RFC 7208, or no text with its macros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    what: &'static str,
    text: String,
}

impl SyntaxError {
    /// The rule that is broken, and the part of the text that breaks it.
    pub(crate) fn new(what: &'static str, text: &str) -> SyntaxError {
        let bytes = text.as_bytes();
        let text = match bytes.get(..MAX_EXCERPT_BYTES) {
            Some(start) if bytes.len() > MAX_EXCERPT_BYTES => format!("{}...", start.escape_ascii()),
            _ => bytes.escape_ascii().to_string(),
        };
        SyntaxError { what, text }
    }
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}`", self.what, self.text)
    }
}

impl std::error::Error for SyntaxError {}
