//! Every code that a configuration can be blamed for: what it means, and when it is right to ignore it.
//!
//! Knows: texts. Must not know: where a mistake is found.
//!
//! `docs/check.md` and `mtpolicyd check --explain` are written from here. A code is never given to anything
//! else; new ones go behind those that are there.

mod doubts;
mod mistakes;
mod notices;

pub use config_general::{Code, codes_of_text as text};
pub use doubts::*;
pub use mistakes::*;
pub use notices::*;

use config_general::Severity;

/// All of them, by their numbers: mistakes, doubts, notices.
pub fn all() -> Vec<&'static Code> {
    let lists = [text::ALL, MISTAKES, DOUBTS, NOTICES];
    let mut all: Vec<_> = lists.concat();
    all.sort_by_key(|code| (rank(code.severity()), code.id));
    all
}

/// The code with this name, whatever its case.
pub fn find(id: &str) -> Option<&'static Code> {
    all().into_iter().find(|code| code.id.eq_ignore_ascii_case(id))
}

fn rank(severity: Severity) -> u8 {
    match severity {
        Severity::Error => 0,
        Severity::Warning => 1,
        Severity::Notice => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_given_once_and_says_when_to_ignore_it() {
        let all = all();
        for pair in all.windows(2) {
            assert_ne!(pair[0].id, pair[1].id);
        }
        for code in &all {
            let (letter, number) = code.id.split_at(1);
            assert!(number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit()), "{}", code.id);
            assert!(["E", "W", "N"].contains(&letter), "{}", code.id);
            assert_eq!(code.ignore.is_none(), code.severity() == Severity::Error, "{}", code.id);
            assert!(!code.title.ends_with('.') && code.doc.trim_end().ends_with('.'), "{}", code.id);
        }
        assert_eq!(find("w031").map(|code| code.id), Some("W031"));
        assert!(find("W999").is_none());
    }
}
