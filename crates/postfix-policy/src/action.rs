//! What kind of action a text is, as far as that decides how long it may be and whether mail passes.

/// Bytes of an action that Postfix answers an SMTP client with, its first word included.
///
/// RFC 5321, 4.5.3.1.5: a reply line has 512 octets. Postfix sends whatever it is given as one line, so a
/// text of 8 MB that a DNS record or another policy server supplied would reach the client whole.
pub const MAX_REPLY_ACTION_BYTES: usize = 512;

/// Bytes of a header that an action adds (RFC 5322, 2.1.1), without the action's own word.
pub const MAX_HEADER_BYTES: usize = 998;

/// Bytes of any other action. These hold addresses, transports and names of restrictions, which mean
/// something else when they are cut, so a longer one is not an action at all.
pub const MAX_OTHER_ACTION_BYTES: usize = 4096;

/// The actions of access(5) with a text for the client or the log.
const WITH_TEXT: [&str; 11] = [
    "REJECT",
    "DEFER",
    "DEFER_IF_PERMIT",
    "DEFER_IF_REJECT",
    "DISCARD",
    "HOLD",
    "WARN",
    "INFO",
    "DUNNO",
    "OK",
    "PERMIT",
];

/// The actions of access(5) after which a message is not delivered, for now or at all.
const REFUSALS: [&str; 5] = ["REJECT", "DEFER", "DEFER_IF_PERMIT", "DISCARD", "HOLD"];

/// Whether a message does not pass with this action: it is rejected, deferred, discarded or held.
///
/// `defer_if_reject` is not one of them, since it changes nothing about a message that nobody else rejects;
/// nor is the name of a restriction, which may come to any end.
pub fn refuses(action: &str) -> bool {
    let first = first_word(action);
    is_one_of(&REFUSALS, first) || is_error_code(first)
}

/// What Postfix tells the client of a message that is rejected or deferred where the action has no text of
/// its own (`check_table_result` in its smtpd); `None` for actions of which a client sees no text.
pub(crate) fn without_text(action: &str) -> Option<&'static str> {
    let first = first_word(action);
    if is_one_of(&["DEFER_IF_PERMIT", "DEFER_IF_REJECT"], first) {
        Some("Service unavailable")
    } else {
        (is_one_of(&["REJECT", "DEFER"], first) || is_error_code(first)).then_some("Access denied")
    }
}

/// Maximum length of an action in bytes, or `None` if a longer one must not be sent at all.
pub(crate) fn limit_of(action: &str) -> Option<usize> {
    let first = first_word(action);
    if first.eq_ignore_ascii_case("PREPEND") {
        let before = action.len() - action.trim_ascii_start().len();
        Some(before + "PREPEND ".len() + MAX_HEADER_BYTES)
    } else if is_one_of(&WITH_TEXT, first) || is_error_code(first) {
        Some(MAX_REPLY_ACTION_BYTES)
    } else {
        None
    }
}

fn first_word(action: &str) -> &str {
    let is_separator = |c: char| c.is_ascii_whitespace() || c == ',';
    action.trim_start_matches(is_separator).split(is_separator).next().unwrap_or_default()
}

fn is_one_of(words: &[&str], word: &str) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// Whether a word is an error code of SMTP, with three digits.
pub(crate) fn is_error_code(word: &str) -> bool {
    word.len() == 3 && word.starts_with(['4', '5']) && word.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_pass_is_refused() {
        for action in [
            "reject",
            "REJECT no",
            "defer 4.3.0 later",
            "defer_if_permit x",
            " 550 5.7.1 no",
            "450 later",
            "discard",
            "HOLD for the postmaster",
            "reject, permit",
        ] {
            assert!(refuses(action), "{action}");
        }
        for action in [
            "",
            "dunno",
            "ok",
            "PREPEND X: reject",
            "defer_if_reject x",
            "reject_unverified_sender",
            "greylisting_class",
            "250 ok",
            "5500",
            "5xx",
            "warn reject",
            "REDIRECT a@example.org",
        ] {
            assert!(!refuses(action), "{action}");
        }
    }
}
