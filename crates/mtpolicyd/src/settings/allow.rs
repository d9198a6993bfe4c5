//! Comments by which the writer of a file says that a doubt is known: `# mtpolicyd: allow W031`.
//!
//! Knows: comments, places, codes. Must not know: how a doubt comes up.

use super::secrets::entry_at;
use crate::options::codes::{self, Code};
use config_general::{Block, Diagnostic, Severity, Sources, Span};
use std::cell::Cell;

/// What such a comment begins with.
const MARK: &str = "mtpolicyd:";

/// Doubts about the machine, not about a line. They come up after the file was read, so it can't be told here
/// whether an `allow` of one silences anything; it does so wherever it stands.
const WITHOUT_PLACE: [&Code; 3] = [&codes::NO_ACCESS, &codes::NO_RIGHT, &codes::NO_ANSWER];

/// All of them in the files of a configuration.
#[derive(Default)]
pub(super) struct Allows {
    known: Vec<Allow>,
    /// Comments that allow nothing, and why.
    bad: Vec<(Span, String)>,
}

struct Allow {
    code: &'static Code,
    /// The comment.
    span: Span,
    /// The line that it is about, from 1.
    line: u32,
    is_used: Cell<bool>,
}

impl Allows {
    /// Those of the comments of a configuration.
    pub(super) fn read(comments: &[Span], sources: &Sources) -> Allows {
        let mut allows = Allows::default();
        for span in comments {
            let text = &sources.get(span.source).text[span.start as usize..span.end as usize];
            let Some(words) = allowed(text) else { continue };
            let line = line_about(*span, sources);
            let mut is_empty = true;
            for word in words.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
                match codes::find(word) {
                    Some(code) if code.severity() == Severity::Error => {
                        let why = format!("{} is a mistake, which can't be allowed", code.id);
                        allows.bad.push((*span, why));
                    }
                    Some(code) => {
                        allows.known.push(Allow { code, span: *span, line, is_used: Cell::new(false) });
                    }
                    None if looks_like_code(word) => {
                        allows.bad.push((*span, format!("there is no doubt with the code `{word}`")));
                    }
                    // What follows is a reason.
                    None if !is_empty => break,
                    None => allows.bad.push((*span, "this `allow` names no code, such as W031".to_owned())),
                }
                is_empty = false;
                if allows.bad.last().is_some_and(|(bad, _)| bad == span) {
                    break;
                }
            }
            if is_empty {
                allows.bad.push((*span, "this `allow` names no code, such as W031".to_owned()));
            }
        }
        allows
    }

    /// Whether a doubt is allowed.
    pub(super) fn silence(&self, doubt: &Diagnostic, root: Option<&Block>, sources: &Sources) -> bool {
        let Some(span) = doubt.span else { return false };
        let of_code = self.known.iter().filter(|allow| allow.code == doubt.code);
        let here: Vec<_> = of_code.filter(|allow| allow.span.source == span.source).collect();
        if here.is_empty() {
            return false;
        }
        // A value may stand on several lines; the comment is about the option.
        let whole = root.and_then(|root| entry_at(root, span));
        let whole = whole.map_or(span, |entry| Span { end: entry.value_span.end, ..entry.key_span });
        let first = sources.position(whole).line;
        let last = sources.position(Span { start: whole.end.max(whole.start), ..whole }).line;
        let mut is_silenced = false;
        for allow in here.into_iter().filter(|allow| (first..=last).contains(&allow.line)) {
            allow.is_used.set(true);
            is_silenced = true;
        }
        is_silenced
    }

    /// What is said of the comments themselves: of those that allow no doubt, and of those that silence none
    /// if that can be told, since everything was looked at.
    pub(super) fn complaints(&self, is_whole: bool) -> Vec<Diagnostic> {
        let say = |code: &'static Code, span, message| {
            let (severity, span) = (code.severity(), Some(span));
            Diagnostic { code, severity, span, message, help: None }
        };
        let bad = self.bad.iter().map(|(span, why)| say(&codes::BAD_ALLOW, *span, why.clone()));
        let is_unused = |allow: &&Allow| !allow.is_used.get() && !WITHOUT_PLACE.contains(&allow.code);
        let unused = self.known.iter().filter(|_| is_whole).filter(is_unused).map(|allow| {
            let message = format!("this `allow {}` silences nothing", allow.code.id);
            say(&codes::UNUSED_ALLOW, allow.span, message)
        });
        bad.chain(unused).collect()
    }

    /// The doubts without a place that are allowed.
    pub(super) fn without_place(&self) -> Vec<&'static Code> {
        let codes = self.known.iter().map(|allow| allow.code);
        codes.filter(|code| WITHOUT_PLACE.contains(code)).collect()
    }
}

/// What a comment allows; `None` if it is another comment.
fn allowed(comment: &str) -> Option<&str> {
    let text = comment.trim_start_matches('#').trim().strip_prefix(MARK)?;
    let words = text.trim_start().strip_prefix("allow")?;
    (words.is_empty() || words.starts_with(char::is_whitespace)).then_some(words)
}

fn looks_like_code(word: &str) -> bool {
    let (letter, number) = word.split_at(word.chars().next().map_or(0, char::len_utf8));
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    letter.bytes().all(|byte| byte.is_ascii_alphabetic()) && is_number
}

/// The line that a comment is about: its own, or the next one with something on it if it stands alone.
fn line_about(span: Span, sources: &Sources) -> u32 {
    let text = &sources.get(span.source).text;
    let line = sources.position(span).line;
    let from = text[..span.start as usize].rfind('\n').map_or(0, |before| before + 1);
    if !text[from..span.start as usize].trim().is_empty() {
        return line;
    }
    let mut behind = text[span.end as usize..].split('\n').skip(1).zip(line + 1..);
    let next = behind.find(|(text, _)| {
        let text = text.trim_start();
        !text.is_empty() && !text.starts_with('#')
    });
    next.map_or(line, |(_, line)| line)
}
