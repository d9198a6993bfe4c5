//! Log messages that are declared: text, level, and what to do about them.
//!
//! A message is declared once with [`messages!`] and logged by the function that the declaration makes, so a
//! reference can be written from the same lines. The texts are an interface: people search for them.
//!
//! ```
//! log_messages::messages! {
//!     "Connections", "What happens to connections.";
//!
//!     /// The server is unreachable. Check that it runs.
//!     error down(server, cause) = "{server} is down: {cause}";
//! }
//!
//! down("db", "refused");
//! assert_eq!(GROUP.messages[0].text, "{server} is down: {cause}");
//! ```
//!
//! Knows: levels, tracing. Must not know: any message, where lines go.

use std::fmt::{self, Display};

#[doc(hidden)]
pub use tracing;

/// The target of every declared message, by which a subscriber tells it from what libraries log.
pub const TARGET: &str = "mtpolicyd";

/// A message as it is declared.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// How it gets its level.
    pub kind: Kind,
    /// Its text, with the names of its values in braces.
    pub text: &'static str,
    /// When it is logged and what to do.
    pub doc: &'static str,
}

/// How a message gets its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ERROR`
    Error,
    /// `WARN`
    Warning,
    /// `INFO`
    Notice,
    /// `DEBUG`
    Info,
    /// `TRACE`
    Debug,
    /// Configured by the administrator.
    Finding,
}

/// Messages that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The heading of the group.
    pub title: &'static str,
    /// What its messages have in common.
    pub about: &'static str,
    /// The messages.
    pub messages: &'static [Message],
}

/// A declared text with its values. It is formatted only if it is logged.
pub struct Finding<F>(F);

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> Finding<F> {
    #[doc(hidden)]
    pub fn new(write: F) -> Finding<F> {
        Finding(write)
    }
}

impl<F: Fn(&mut fmt::Formatter<'_>) -> fmt::Result> Display for Finding<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)(f)
    }
}

/// Declares a group of messages: a title, what they have in common, and for each message a doc comment, a
/// level, the name of a function with its values, and a text.
///
/// The function of an `error`, `warning`, `notice`, `info` or `debug` logs the message. That of a `finding`
/// returns a [`Finding`] whose level is known elsewhere. Those of a `task`, an `error_text` and a
/// `warning_text` return the text as a `String`, for a place that logs it by itself.
#[macro_export]
macro_rules! messages {
    (@kind error) => { $crate::Kind::Error };
    (@kind error_text) => { $crate::Kind::Error };
    (@kind warning) => { $crate::Kind::Warning };
    (@kind warning_text) => { $crate::Kind::Warning };
    (@kind notice) => { $crate::Kind::Notice };
    (@kind task) => { $crate::Kind::Notice };
    (@kind info) => { $crate::Kind::Info };
    (@kind debug) => { $crate::Kind::Debug };
    (@kind finding) => { $crate::Kind::Finding };

    (@function error $($rest:tt)+) => { $crate::messages!(@logs error $($rest)+); };
    (@function warning $($rest:tt)+) => { $crate::messages!(@logs warn $($rest)+); };
    (@function notice $($rest:tt)+) => { $crate::messages!(@logs info $($rest)+); };
    (@function info $($rest:tt)+) => { $crate::messages!(@logs debug $($rest)+); };
    (@function debug $($rest:tt)+) => { $crate::messages!(@logs trace $($rest)+); };
    (@function finding $name:ident($($arg:ident),*) = $text:literal, $($doc:literal)+) => {
        $(#[doc = $doc])+
        pub fn $name(
            $($arg: impl std::fmt::Display),*
        ) -> $crate::Finding<impl Fn(&mut std::fmt::Formatter<'_>) -> std::fmt::Result> {
            $crate::Finding::new(move |f: &mut std::fmt::Formatter<'_>| write!(f, $text))
        }
    };
    (@function $returned:ident $name:ident($($arg:ident),*) = $text:literal, $($doc:literal)+) => {
        $(#[doc = $doc])+
        pub fn $name($($arg: impl std::fmt::Display),*) -> String {
            format!($text)
        }
    };
    (@logs $macro:ident $name:ident($($arg:ident),*) = $text:literal, $($doc:literal)+) => {
        $(#[doc = $doc])+
        pub fn $name($($arg: impl std::fmt::Display),*) {
            $crate::tracing::$macro!(target: $crate::TARGET, $text);
        }
    };

    (
        $title:literal, $about:literal;
        $($(#[doc = $doc:literal])+ $kind:ident $name:ident($($arg:ident),*) = $text:literal;)+
    ) => {
        /// The messages of this group, in the order of their declaration.
        pub const GROUP: $crate::Group = $crate::Group {
            title: $title,
            about: $about,
            messages: &[$($crate::Message {
                kind: $crate::messages!(@kind $kind),
                text: $text,
                doc: concat!($($doc, "\n"),+),
            }),+],
        };
        $($crate::messages!(@function $kind $name($($arg),*) = $text, $($doc)+);)+
    };
}

#[cfg(test)]
mod tests {
    use super::Kind;

    messages! {
        "Title", "About.";

        /// First.
        /// Second.
        warning full(store) = "{store} is full";
        /// A finding.
        finding listed(client, list) = "{client} is on {list}";
        /// A text.
        task removed(count) = "{count} rows \
                               removed";
    }

    #[test]
    fn a_declaration_makes_a_function_and_a_row() {
        full("db");
        assert_eq!(listed("192.0.2.1", "zen").to_string(), "192.0.2.1 is on zen");
        assert_eq!(removed(2), "2 rows removed");
        let rows: Vec<_> = GROUP.messages.iter().map(|message| (message.kind, message.text)).collect();
        let expected = [
            (Kind::Warning, "{store} is full"),
            (Kind::Finding, "{client} is on {list}"),
            (Kind::Notice, "{count} rows removed"),
        ];
        assert_eq!(rows, expected);
        assert_eq!(GROUP.messages[0].doc, " First.\n Second.\n");
        assert_eq!((GROUP.title, GROUP.about), ("Title", "About."));
    }
}
