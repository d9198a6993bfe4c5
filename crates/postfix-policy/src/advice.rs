//! What Postfix will make of an action that a configuration has.
//!
//! Knows: the words of access(5), and those that people write for them. Must not know: configurations.

use crate::action::is_error_code;
use crate::reply::{ReplyWarning, is_digits, is_unprintable, permission_by_mistake};

/// Actions that mean nothing without the right text behind them, by access(5): a character that it must have,
/// and its form.
const NEEDS_ARGUMENT: [(&str, char, &str); 4] = [
    ("PREPEND", ':', "HEADER: TEXT"),
    ("FILTER", ':', "TRANSPORT:DESTINATION"),
    ("REDIRECT", '@', "USER@DOMAIN"),
    ("BCC", '@', "USER@DOMAIN"),
];

/// How Postfix would misread this action, if it would: for warnings about a configuration.
///
/// Unknown words are not a mistake: they may be the names of restrictions and restriction classes. Those that
/// are used for an action of Postfix elsewhere, or nearly spelt like one, are probably mistakes.
pub fn check_action(text: &str) -> Option<ReplyWarning> {
    if let Some(warning) = permission_by_mistake(text) {
        return Some(warning);
    }
    let first = text.split_ascii_whitespace().next().unwrap_or_default();
    let is_number = first.len() == 3 && is_digits(first);
    if let Some(warning) = bad_argument(first, text) {
        Some(warning)
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

/// What is wrong with the text behind an action that Postfix ignores without the right one. A placeholder
/// may stand for anything.
fn bad_argument(first: &str, text: &str) -> Option<ReplyWarning> {
    let (_, character, form) =
        NEEDS_ARGUMENT.iter().find(|(action, ..)| first.eq_ignore_ascii_case(action))?;
    let argument = text.trim_ascii_start()[first.len()..].trim_ascii();
    if argument.is_empty() {
        Some(ReplyWarning::NoArgument)
    } else {
        (!argument.contains([*character, '%'])).then_some(ReplyWarning::BadArgument(form))
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
    ("okay", "ok"),
    ("false", "dunno"),
    ("nothing", "dunno"),
    ("soft_reject", "defer"),
    ("softreject", "defer"),
    ("temporary", "defer"),
    ("fail", "reject"),
    ("error", "reject"),
    ("trash", "discard"),
    ("warning", "warn"),
    ("log", "warn"),
    ("forward", "redirect"),
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
    // As it goes over the wire, or with other characters between its parts than `_`.
    let bare = word.strip_prefix("action=").unwrap_or(&word);
    let letters = |word: &str| word.replace(['_', '-'], "");
    if let Some(known) = KNOWN.iter().copied().find(|known| letters(known) == letters(bare)) {
        return Some(known);
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

#[cfg(test)]
mod tests {
    use super::*;

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
            ("prepend X-Spam", Some(ReplyWarning::BadArgument("HEADER: TEXT"))),
            ("FILTER scan", Some(ReplyWarning::BadArgument("TRANSPORT:DESTINATION"))),
            ("redirect postmaster", Some(ReplyWarning::BadArgument("USER@DOMAIN"))),
            ("bcc archive", Some(ReplyWarning::BadArgument("USER@DOMAIN"))),
            ("redirect %TO%", None),
            ("action=reject no", Some(ReplyWarning::NearMiss("reject"))),
            ("action=dunno", Some(ReplyWarning::NearMiss("dunno"))),
            ("deferifpermit", Some(ReplyWarning::NearMiss("defer_if_permit"))),
            ("Defer-If-Permit x", Some(ReplyWarning::NearMiss("defer_if_permit"))),
            ("okay", Some(ReplyWarning::NearMiss("ok"))),
            ("warning look at this", Some(ReplyWarning::NearMiss("warn"))),
        ] {
            assert_eq!(check_action(text), warning, "{text:?}");
        }
    }
}
