//! What Postfix is told: one action, in a form that it can't take for another.

use std::borrow::Cow;
use std::fmt;

use bytes::BufMut;

use crate::action::{MAX_OTHER_ACTION_BYTES, MAX_REPLY_ACTION_BYTES, is_error_code, limit_of};

/// The action that has no opinion: Postfix goes on with its next restriction.
const DUNNO: &str = "dunno";

/// The action in place of one that is too long and can't be cut: it may have been a refusal.
const TOO_LONG: &str = "defer 4.3.0 the policy check failed, please try again later";

/// Actions that mean nothing without the text behind them, by access(5).
const NEEDS_ARGUMENT: [&str; 4] = ["PREPEND", "FILTER", "REDIRECT", "BCC"];

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

/// How Postfix would misread this action, if it would: for warnings about a configuration.
///
/// Unknown words are not a mistake: they may be the names of restrictions and restriction classes. Those that
/// are used for an action of Postfix elsewhere, or nearly spelt like one, are probably mistakes.
pub fn check_action(text: &str) -> Option<ReplyWarning> {
    if let Some(warning) = permission_by_mistake(text) {
        return Some(warning);
    }
    let mut words = text.split_ascii_whitespace();
    let first = words.next().unwrap_or_default();
    let has_argument = words.next().is_some();
    let is_number = first.len() == 3 && is_digits(first);
    if NEEDS_ARGUMENT.iter().any(|action| first.eq_ignore_ascii_case(action)) && !has_argument {
        Some(ReplyWarning::NoArgument)
    } else if is_number && !first.starts_with(['4', '5']) {
        Some(ReplyWarning::NoErrorCode)
    } else if first.contains(':') {
        Some(ReplyWarning::LooksLikeTable)
    } else if text.contains(is_unprintable) {
        Some(ReplyWarning::Unprintable)
    } else if let Some(action) = before_comma(first) {
        Some(ReplyWarning::Comma(action))
    } else if let Some(meant) = meant(first.trim_end_matches(',')) {
        Some(ReplyWarning::NearMiss(meant))
    } else {
        is_sentence(text).then_some(ReplyWarning::NoAction)
    }
}

/// The action that ends with a comma, unless it may be the first of several restrictions too.
fn before_comma(first: &str) -> Option<&'static str> {
    let (word, _) = first.split_once(',')?;
    let is_meant = |known: &&&str| known.eq_ignore_ascii_case(word) && !GOES_ON.contains(known);
    KNOWN.iter().find(is_meant).copied()
}

/// Restrictions after which Postfix looks at those that follow.
const GOES_ON: &[&str] = &["defer_if_permit", "defer_if_reject", "warn_if_reject"];

/// Restrictions without an underscore in their name.
const SHORT_RESTRICTIONS: &[&str] = &["permit", "reject", "defer", "sleep"];

/// Whether there are several words that are not a list of restrictions. What begins with one of Postfix's may
/// go on with any argument; after the name of a class another restriction or class follows, whose name has
/// an underscore in general. A placeholder may be anything.
fn is_sentence(text: &str) -> bool {
    let mut words = text.split([' ', ',']).filter(|word| !word.is_empty());
    let (Some(first), Some(second)) = (words.next(), words.next()) else { return false };
    let (first, second) = (first.to_ascii_lowercase(), second.to_ascii_lowercase());
    let is_restriction = |word: &str| word.contains('_') || SHORT_RESTRICTIONS.contains(&word);
    let takes_arguments = ["check_", "reject_", "permit_"].iter().any(|start| first.starts_with(start));
    let is_action =
        KNOWN.contains(&&*first) || is_error_code(&first) || SHORT_RESTRICTIONS.contains(&&*first);
    let is_variable = first.contains(['%', '$']);
    !(takes_arguments || is_action || is_variable || is_restriction(&second))
}

/// What people write for an action, and Postfix's word for it.
const SYNONYMS: &[(&str, &str)] = &[
    ("accept", "ok"),
    ("accepted", "ok"),
    ("allow", "ok"),
    ("allowed", "ok"),
    ("pass", "ok"),
    ("whitelist", "ok"),
    ("deny", "reject"),
    ("block", "reject"),
    ("refuse", "reject"),
    ("bounce", "reject"),
    ("rejected", "reject"),
    ("blacklist", "reject"),
    ("drop", "discard"),
    ("ignore", "dunno"),
    ("continue", "dunno"),
    ("next", "dunno"),
    ("none", "dunno"),
    ("tempfail", "defer"),
    ("temp_fail", "defer"),
    ("deferred", "defer"),
    ("retry", "defer"),
    ("quarantine", "hold"),
    ("held", "hold"),
    ("header", "prepend"),
    ("add_header", "prepend"),
    ("approve", "ok"),
    ("approved", "ok"),
    ("whitelisted", "ok"),
    ("yes", "ok"),
    ("true", "ok"),
    ("no", "reject"),
    ("blacklisted", "reject"),
    ("blocked", "reject"),
    ("denied", "reject"),
    ("refused", "reject"),
    ("delete", "discard"),
    ("dropped", "discard"),
    ("discarded", "discard"),
    ("skip", "dunno"),
    ("noop", "dunno"),
    ("tempreject", "defer"),
    ("temp_reject", "defer"),
    ("greylisted", "defer"),
    ("defer_if_permitted", "defer_if_permit"),
    ("defer_if_rejected", "defer_if_reject"),
    ("tarpit", "sleep"),
];

/// The words of access(5), and two restrictions that are used as actions.
const KNOWN: &[&str] = &[
    "ok",
    "dunno",
    "reject",
    "defer",
    "defer_if_permit",
    "defer_if_reject",
    "discard",
    "hold",
    "warn",
    "info",
    "bcc",
    "filter",
    "prepend",
    "redirect",
    "permit",
    "warn_if_reject",
];

/// Which word of Postfix's is meant by one that is none.
fn meant(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    if KNOWN.contains(&&*word) {
        return None;
    }
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == word).map(|(_, known)| *known);
    synonym
        .or_else(|| code_meant(&word))
        .or_else(|| KNOWN.iter().copied().find(|known| known.len() > 3 && is_misspelt(&word, known)))
}

/// What is meant by a word that begins like a code of SMTP but is none.
fn code_meant(word: &str) -> Option<&'static str> {
    let is_temporary = match word.as_bytes() {
        [b'4', _, ..] => true,
        [b'5', _, ..] => false,
        _ => return None,
    };
    let rest = &word[1..];
    if is_error_code(word) {
        None
    } else if rest.starts_with('.') {
        Some(if is_temporary { "defer" } else { "reject" })
    } else if rest.starts_with(|c: char| c.is_ascii_digit() || "xol".contains(c)) {
        Some(if is_temporary { "450" } else { "550" })
    } else {
        None
    }
}

/// Whether the words differ by one character that is too many, missing or another one, or by two in wrong
/// order.
fn is_misspelt(word: &str, known: &str) -> bool {
    let (word, known) = (word.as_bytes(), known.as_bytes());
    let begin = word.iter().zip(known).take_while(|(one, other)| one == other).count();
    let (word, known) = (&word[begin..], &known[begin..]);
    match (word, known) {
        ([a, b, word @ ..], [c, d, known @ ..]) if a == d && b == c && word == known => true,
        ([_, rest @ ..], _) if rest == known => true,
        (_, [_, rest @ ..]) if rest == word => true,
        ([_, word @ ..], [_, known @ ..]) => word == known,
        _ => false,
    }
}

/// Whether Postfix would accept mail for this text although nobody said so.
///
/// Digits between blanks are the same mistake, though Postfix would defer the message for them.
fn permission_by_mistake(text: &str) -> Option<ReplyWarning> {
    let is_separator = |c: char| c == ' ' || c == ',' || is_unprintable(c);
    if text.chars().all(is_separator) {
        Some(ReplyWarning::Empty)
    } else if is_digits(text.trim_matches(is_separator)) {
        Some(ReplyWarning::OnlyDigits)
    } else {
        None
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What would break a line or steer a terminal: C0, DEL, C1, and Unicode's line and paragraph separators.
fn is_unprintable(c: char) -> bool {
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

    #[test]
    fn mistakes_of_a_configuration_are_named() {
        for (text, warning) in [
            ("", Some(ReplyWarning::Empty)),
            ("550", Some(ReplyWarning::OnlyDigits)),
            ("250 ok", Some(ReplyWarning::NoErrorCode)),
            ("prepend ", Some(ReplyWarning::NoArgument)),
            ("X-Spam: yes", Some(ReplyWarning::LooksLikeTable)),
            ("reject a\nb", Some(ReplyWarning::Unprintable)),
            ("PREPEND X-Spam: yes", None),
            ("FILTER smtp:[127.0.0.1]:10025", None),
            ("550 5.7.1 no", None),
            ("my_class permit", None),
            ("accept", Some(ReplyWarning::NearMiss("ok"))),
            ("Deny you", Some(ReplyWarning::NearMiss("reject"))),
            ("tempfail", Some(ReplyWarning::NearMiss("defer"))),
            ("rejct no", Some(ReplyWarning::NearMiss("reject"))),
            ("deffer", Some(ReplyWarning::NearMiss("defer"))),
            ("defer_if_permitt", Some(ReplyWarning::NearMiss("defer_if_permit"))),
            ("dunnno", Some(ReplyWarning::NearMiss("dunno"))),
            ("rejetc", Some(ReplyWarning::NearMiss("reject"))),
            ("warn_if_reject reject", None),
            ("reject_unverified_recipient", None),
            ("permit_mynetworks", None),
            ("OK", None),
            ("Dunno", None),
            ("bcc a@b", None),
            ("held", Some(ReplyWarning::NearMiss("hold"))),
            ("gold", Some(ReplyWarning::NearMiss("hold"))),
            ("greylisting", None),
            ("greylist", None),
            ("REJECT,foo", Some(ReplyWarning::Comma("reject"))),
            ("dunno, my_class", Some(ReplyWarning::Comma("dunno"))),
            ("warn_if_reject, reject_unknown_client_hostname", None),
            ("DEFER_IF_PERMITTED x", Some(ReplyWarning::NearMiss("defer_if_permit"))),
            ("approve", Some(ReplyWarning::NearMiss("ok"))),
            ("whitelisted", Some(ReplyWarning::NearMiss("ok"))),
            ("yes", Some(ReplyWarning::NearMiss("ok"))),
            ("skip", Some(ReplyWarning::NearMiss("dunno"))),
            ("delete", Some(ReplyWarning::NearMiss("discard"))),
            ("tempreject", Some(ReplyWarning::NearMiss("defer"))),
            ("greylisted", Some(ReplyWarning::NearMiss("defer"))),
            ("tarpit", Some(ReplyWarning::NearMiss("sleep"))),
            ("sleep 5", None),
            ("4xx", Some(ReplyWarning::NearMiss("450"))),
            ("45O 4.7.1 x", Some(ReplyWarning::NearMiss("450"))),
            ("550-5.7.1 x", Some(ReplyWarning::NearMiss("550"))),
            ("5.7.1 rejected", Some(ReplyWarning::NearMiss("reject"))),
            ("4.7.1 too much mail", Some(ReplyWarning::NearMiss("defer"))),
            ("You are greylisted, come back later", Some(ReplyWarning::NoAction)),
            ("greylisting is active", Some(ReplyWarning::NoAction)),
            ("my_class, permit", None),
            ("strict my_class", None),
            ("check_client_access cidr:/etc/postfix/x", None),
            ("%ACTION% for you", None),
        ] {
            assert_eq!(check_action(text), warning, "{text:?}");
        }
    }
}
