//! Reads the configuration dialect of Perl's `Config::General` into a tree that knows file, line and column.
//!
//! ```
//! use std::path::Path;
//! use config_general::{Limits, parse};
//!
//! let text = br#"
//!     port = "127.0.0.1:12345"
//!     <Plugin greylist>       # a block has a kind and often a name
//!       module = Greylist
//!       defer_message = please \
//!         come back
//!     </Plugin>
//!     password = 'abc'
//! "#;
//! let document = parse(Path::new("example.conf"), text, &Limits::default()).expect("it is valid");
//!
//! let plugin = document.root.blocks().next().expect("there is a block");
//! assert_eq!((plugin.kind.as_str(), plugin.name.as_deref()), ("Plugin", Some("greylist")));
//!
//! let message = plugin.entries().last().expect("there is an option");
//! assert_eq!(message.value.as_deref(), Some("please come back"));
//! let position = document.sources.position(message.key_span);
//! assert_eq!((position.line, position.column), (5, 7));
//!
//! let warning = document.diagnostics[0].display(&document.sources).to_string();
//! assert!(warning.starts_with("example.conf:8:16: warning: single quotes mean nothing"));
//! ```
//!
//! # The dialect
//! * A line is `key = value`, `key value`, a bare `key`, `<Kind name>`, `</Kind>`, `<Kind name/>` or
//!   `<<include FILE>>`. A value may be `"quoted"`; `\$`, `\\`, `\"` and `\#` lose their backslash.
//! * `#` begins a comment wherever it stands, in quotes too, unless a backslash precedes it. `/* ... */` is
//!   a comment inside a line, or over several lines if it begins one.
//! * A single backslash at the very end joins the next line. `key = <<MARK` takes the lines up to `MARK`.
//! * Included files are looked for next to the file that includes them, then next to the main file and, with
//!   a warning, in the working folder; each is read once.
//! * A byte that is not part of valid UTF-8 is read as Latin-1. A byte order mark is ignored.
//!
//! Where this surprises people, a warning says so. All mistakes of a file come out of one reading, and all
//! sizes are bounded by [`Limits`]. What a key means, and whether it may be repeated, is for the reader of
//! the tree to decide; [`repetitions`] helps.
//!
//! # Where it differs from the original Only where the original can't be meant: `<Kind/>` is an empty block
//! also before a comment, a blank or a carriage return, and another line may end in `/>`. `<<` without a mark
//! begins no here-document. The blank in `<<include FILE >>` is not part of the name, and a file next to the
//! one that includes it is found first, so that the same files are read wherever the program is started.
//! Files with NUL bytes are refused.

mod code;
mod diagnostic;
mod files;
mod kinds;
mod limits;
mod lines;
mod parser;
mod print;
mod source;
mod tree;

use std::fmt;

pub use code::{Code, text as codes_of_text};
pub use diagnostic::{Diagnostic, Severity};
pub use limits::Limits;
pub use parser::{load, parse};
pub use print::to_text;
pub use source::{Position, Source, SourceId, Sources, Span, decode};
pub use tree::{Block, Document, Entry, Item, Repetition, repetitions};

/// Why a configuration can't be used.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The files that were read; none if the main file could not be.
    pub sources: Sources,
    /// At least one error, and the warnings.
    pub diagnostics: Vec<Diagnostic>,
    /// The `#` comments, in the order of each file.
    pub comments: Vec<Span>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.diagnostics.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { "\n" } else { "" }, diagnostic.display(&self.sources))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
