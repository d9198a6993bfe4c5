//! What can be wrong with the bytes of a peer, in words for a log.

use std::fmt;

/// Bytes of a line that an error shows: enough to recognise HTTP, TLS or a typing mistake.
const EXCERPT_BYTES: usize = 60;

/// Why the bytes of a peer are not a request. There is no way to find the next one: close the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// A line is longer than allowed.
    LineTooLong {
        /// Bytes that a line may have.
        limit: usize,
    },
    /// There are more attributes than allowed.
    TooManyAttributes {
        /// Attributes that may come before the empty line.
        limit: usize,
    },
    /// The empty line did not come within the allowed length.
    RequestTooLong {
        /// Bytes that may come up to the empty line, that line included.
        limit: usize,
    },
    /// A line is not an attribute.
    NoEqualSign {
        /// The line's beginning, escaped.
        line: String,
    },
    /// A NUL byte, which Postfix never sends and which databases and C libraries stumble over.
    Nul,
    /// An attribute that the protocol has no way to write: a line break or NUL in it, or `=` in its name.
    Unwritable {
        /// The attribute's beginning, escaped.
        attribute: String,
    },
}

impl ProtocolError {
    pub(crate) fn no_equal_sign(line: &[u8]) -> ProtocolError {
        ProtocolError::NoEqualSign { line: excerpt(line) }
    }

    pub(crate) fn unwritable(name: &[u8], value: &[u8]) -> ProtocolError {
        let shown = EXCERPT_BYTES + 1;
        let attribute = [&name[..name.len().min(shown)], b"=", &value[..value.len().min(shown)]].concat();
        ProtocolError::Unwritable { attribute: excerpt(&attribute) }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::LineTooLong { limit } => write!(f, "a line is longer than {limit} bytes"),
            ProtocolError::TooManyAttributes { limit } => write!(f, "more than {limit} attributes"),
            ProtocolError::RequestTooLong { limit } => write!(f, "no empty line within {limit} bytes"),
            ProtocolError::NoEqualSign { line } => write!(f, "a line without an equal sign: \"{line}\""),
            ProtocolError::Nul => write!(f, "a NUL byte"),
            ProtocolError::Unwritable { attribute } => {
                write!(f, "an attribute that can't be written as one line: \"{attribute}\"")
            }
        }
    }
}

impl std::error::Error for ProtocolError {}

/// The beginning of foreign bytes as printable ASCII on one line.
fn excerpt(bytes: &[u8]) -> String {
    match bytes.get(..EXCERPT_BYTES) {
        Some(start) if bytes.len() > EXCERPT_BYTES => format!("{}...", start.escape_ascii()),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_short_printable_line() {
        let hostile = b"GET /\r\n\x1b[2J\xff".repeat(1000);
        for error in [ProtocolError::no_equal_sign(&hostile), ProtocolError::unwritable(&hostile, &hostile)] {
            let line = error.to_string();
            assert!(line.len() < 400 && line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
            assert!(line.contains(r"GET /\r\n") && line.contains("..."), "{line}");
        }
    }
}
