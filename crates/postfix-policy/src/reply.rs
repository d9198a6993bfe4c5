//! What Postfix is told: one action, in a form that it can't take for another.

use std::borrow::Cow;
use std::fmt;

use bytes::BufMut;

use crate::action::{MAX_OTHER_ACTION_BYTES, MAX_REPLY_ACTION_BYTES, limit_of, without_text};

/// The action that has no opinion: Postfix goes on with its next restriction.
const DUNNO: &str = "dunno";

/// The action in place of one that is too long and can't be cut: it may have been a refusal.
const TOO_LONG: &str = "defer 4.3.0 the policy check failed, please try again later";

/// An answer for Postfix: exactly one line of printable UTF-8.
///
/// Postfix reads only the first action of an answer, treats malformed UTF-8 as a failed query, and takes an
/// empty action and bare digits for permission. So whatever an action was made of, a DNS text or an entry of
/// a directory, becomes a line that says no more than was meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    action: Cow<'static, str>,
    warning: Option<ReplyWarning>,
}

impl Reply {
    /// Makes an action safe to send.
    ///
    /// Line breaks and control characters become blanks, bytes that are not UTF-8 become U+FFFD. An empty
    /// action and bare digits become `dunno`, with a [`warning`](Reply::warning). A text for an SMTP client
    /// is cut after [`MAX_REPLY_ACTION_BYTES`], a header after [`MAX_HEADER_BYTES`](crate::MAX_HEADER_BYTES),
    /// at a character's end; any other action over [`MAX_OTHER_ACTION_BYTES`] becomes a deferral, with a
    /// warning. Everything else passes unchanged, blanks at both ends included: it may name a restriction
    /// class.
    pub fn new(action: impl AsRef<[u8]>) -> Reply {
        let text = String::from_utf8_lossy(action.as_ref());
        let text =
            if text.contains(is_unprintable) { text.replace(is_unprintable, " ") } else { text.into_owned() };
        match permission_by_mistake(&text) {
            Some(warning) => Reply { action: Cow::Borrowed(DUNNO), warning: Some(warning) },
            None if text.len() <= MAX_REPLY_ACTION_BYTES => Reply { action: Cow::Owned(text), warning: None },
            None => Reply::shortened(text),
        }
    }

    fn shortened(mut text: String) -> Reply {
        match limit_of(&text) {
            Some(limit) => {
                let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
                text.truncate(end.unwrap_or_default());
                Reply { action: Cow::Owned(text), warning: None }
            }
            None if text.len() <= MAX_OTHER_ACTION_BYTES => Reply { action: Cow::Owned(text), warning: None },
            None => Reply { action: Cow::Borrowed(TOO_LONG), warning: Some(ReplyWarning::TooLong) },
        }
    }

    /// No opinion.
    pub const fn dunno() -> Reply {
        Reply { action: Cow::Borrowed(DUNNO), warning: None }
    }

    /// The same with a text behind that of a rejection or deferral, which an SMTP client sees; other actions
    /// stay as they are. A text that gets too long is cut before it.
    #[must_use]
    pub fn with_suffix(self, suffix: &str) -> Reply {
        // What Postfix says where the action has no text of its own.
        let usual = match without_text(&self.action) {
            Some(usual) if self.warning.is_none() => usual,
            _ => return self,
        };
        let mut text = self.action.trim_end().to_owned();
        if !text.trim_start().contains([' ', ',']) {
            text.push(' ');
            text.push_str(usual);
        }
        let room = MAX_REPLY_ACTION_BYTES.saturating_sub(suffix.len());
        text.truncate(text.floor_char_boundary(room));
        Reply::new(text + suffix)
    }

    /// The action's text, without `action=`.
    pub fn as_str(&self) -> &str {
        &self.action
    }

    /// Why this is `dunno` in place of the action that was given, if it is.
    pub fn warning(&self) -> Option<ReplyWarning> {
        self.warning
    }

    /// Appends the answer as it goes over the wire; `output` must be able to grow.
    pub fn write_to(&self, output: &mut impl BufMut) {
        output.put_slice(b"action=");
        output.put_slice(self.action.as_bytes());
        output.put_slice(b"\n\n");
    }
}

/// How an action's text will differ from what its author meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyWarning {
    /// Nothing, or only blanks and commas: Postfix would permit the message. Answered as `dunno`.
    Empty,
    /// Digits alone: Postfix would permit the message, with `550` too. Answered as `dunno`.
    OnlyDigits,
    /// Line breaks or control characters, which are sent as blanks.
    Unprintable,
    /// A number of three digits that is not an error of SMTP, followed by text: no action for Postfix.
    NoErrorCode,
    /// An action that Postfix ignores unless text follows it.
    NoArgument,
    /// An action that Postfix ignores unless the text behind it has a certain form: this one.
    BadArgument(&'static str),
    /// A first word with a colon: Postfix looks for a table of that name.
    LooksLikeTable,
    /// A first word that is none of Postfix's but means what one of them says, or is spelt nearly like it:
    /// this one. Postfix takes it for the name of a restriction class, and defers all messages if there is
    /// none.
    NearMiss(&'static str),
    /// One of Postfix's actions with a comma at its end: Postfix takes it for the first of several
    /// restrictions, and the text for the others.
    Comma(&'static str),
    /// Several words of which the first is neither an action nor, with the second, a list of restrictions.
    /// Postfix takes it for the name of a restriction class, which has no text, and defers all messages if
    /// there is none.
    NoAction,
    /// Longer than any action needs, and of a kind that can't be cut. Answered as a deferral.
    TooLong,
}

impl fmt::Display for ReplyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplyWarning::NearMiss(meant) => {
                let why = "this is not an action of Postfix, which defers every message for an unknown word";
                return write!(f, "{why}; `{meant}` is");
            }
            ReplyWarning::Comma(action) => {
                return write!(
                    f,
                    "Postfix takes a comma for the end of a restriction; write `{action}` and a blank"
                );
            }
            ReplyWarning::BadArgument(form) => {
                return write!(f, "Postfix ignores this action unless its text has the form `{form}`");
            }
            ReplyWarning::NoAction => {
                "the first word is not an action of Postfix, which defers every message for an unknown word; \
                 begin with one that is, such as `reject` or `defer`"
            }
            ReplyWarning::Empty => "an empty action would permit the message, `dunno` is answered instead",
            ReplyWarning::OnlyDigits => {
                "a number without a text would permit the message, `dunno` is answered instead"
            }
            ReplyWarning::Unprintable => "line breaks and control characters are answered as blanks",
            ReplyWarning::NoErrorCode => "Postfix knows only numbers from 400 to 599 as actions",
            ReplyWarning::NoArgument => "Postfix ignores this action without a text behind it",
            ReplyWarning::LooksLikeTable => "Postfix takes a first word with a colon for a lookup table",
            ReplyWarning::TooLong => "the action is too long, the message is deferred instead",
        })
    }
}

/// Whether Postfix would accept mail for this text although nobody said so.
///
/// Digits between blanks are the same mistake, though Postfix would defer the message for them.
pub(crate) fn permission_by_mistake(text: &str) -> Option<ReplyWarning> {
    let is_separator = |c: char| c == ' ' || c == ',' || is_unprintable(c);
    if text.chars().all(is_separator) {
        Some(ReplyWarning::Empty)
    } else if is_digits(text.trim_matches(is_separator)) {
        Some(ReplyWarning::OnlyDigits)
    } else {
        None
    }
}

/// Whether it is a number without a sign.
pub(crate) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What would break a line or steer a terminal: C0, DEL, C1, and Unicode's line and paragraph separators.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(text: impl AsRef<[u8]>) -> String {
        Reply::new(text).as_str().to_owned()
    }

    #[test]
    fn ordinary_actions_pass_unchanged() {
        for text in [
            "reject",
            " blanks at both ends ",
            "450 4.7.1 later",
            "greylisting_class, permit",
            "reject déjà vu \u{fffd}",
            "550 no",
            "0x5",
        ] {
            assert_eq!(action(text), text);
        }
    }

    #[test]
    fn a_value_can_not_smuggle_in_a_second_action() {
        assert_eq!(action("reject listed\n\naction=ok\r\n"), "reject listed  action=ok  ");
        assert_eq!(action("a\tb\x1b[2J\x7f\u{85}\u{9b}\u{2028}\u{2029}\0c"), "a b [2J      c");
    }

    #[test]
    fn a_suffix_is_for_texts_that_a_client_sees() {
        for (action, expected) in [
            ("reject no", "reject no (ref 1)"),
            ("REJECT", "REJECT Access denied (ref 1)"),
            ("defer ", "defer Access denied (ref 1)"),
            ("defer_if_permit", "defer_if_permit Service unavailable (ref 1)"),
            ("550 5.7.1 no", "550 5.7.1 no (ref 1)"),
            ("450 later", "450 later (ref 1)"),
            ("dunno", "dunno"),
            ("discard x", "discard x"),
            ("PREPEND X-A: b", "PREPEND X-A: b"),
            ("a_class", "a_class"),
            ("550", "dunno"),
        ] {
            assert_eq!(Reply::new(action).with_suffix(" (ref 1)").as_str(), expected);
        }
        let long = Reply::new(format!("reject {}", "\u{e9}".repeat(5_000))).with_suffix(" (ref 1)");
        assert!(long.as_str().ends_with("\u{e9} (ref 1)") && long.as_str().len() <= 512, "{long:?}");
    }

    #[test]
    fn malformed_utf8_is_replaced() {
        assert_eq!(action(b"reject \xe9t\xe9"), "reject \u{fffd}t\u{fffd}");
    }

    #[test]
    fn nothing_permits_mail_by_mistake() {
        for text in ["", " ", " \n\t", ",", " , ,", "\u{2028}"] {
            let reply = Reply::new(text);
            assert_eq!((reply.as_str(), reply.warning()), ("dunno", Some(ReplyWarning::Empty)), "{text:?}");
        }
        for text in ["1", "550", "0000000000000000000000", "550\n", " 550 "] {
            let reply = Reply::new(text);
            assert_eq!(
                (reply.as_str(), reply.warning()),
                ("dunno", Some(ReplyWarning::OnlyDigits)),
                "{text:?}"
            );
        }
        assert_eq!(Reply::new("reject").warning(), None);
        assert_eq!(Reply::dunno(), Reply::new("dunno"));
    }

    #[test]
    fn an_answer_has_a_length() {
        let long = "\u{e9}".repeat(5_000);
        for (before, limit) in
            [("reject ", 512), ("550 5.7.1 ", 512), ("defer_if_permit ", 512), ("PREPEND X-A: ", 8 + 998)]
        {
            let reply = Reply::new(format!("{before}{long}"));
            assert!(reply.as_str().starts_with(&format!("{before}\u{e9}")), "{before}");
            assert!((limit - 1..=limit).contains(&reply.as_str().len()), "{before}");
            assert_eq!(reply.warning(), None);
        }
        let class = format!("class{}", ", class".repeat(500));
        assert_eq!(action(&class), class);
        let reply = Reply::new(format!("REDIRECT {long}"));
        assert_eq!((reply.as_str(), reply.warning()), (TOO_LONG, Some(ReplyWarning::TooLong)));
        assert!(crate::refuses(TOO_LONG));
    }

    #[test]
    fn an_answer_ends_with_an_empty_line() {
        let mut output = bytes::BytesMut::from("before");
        Reply::new("reject no").write_to(&mut output);
        assert_eq!(output, "beforeaction=reject no\n\n");
    }
}
