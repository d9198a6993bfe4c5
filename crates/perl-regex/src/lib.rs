//! Perl regular expressions over bytes, with a bound on their work.
//!
//! A pattern is first rewritten (`translate`): what Perl and the crates spell differently is resolved there,
//! and what comes out is a small common language of bytes. `regex` runs it in linear time. Only patterns that
//! need look-around, back-references or possessive matching are run by the matcher here (`search`), which
//! goes back, but never twice the same way; its steps are counted, and end with the [`Budget`].
//!
//! Differs from Perl: an empty pattern matches everything (Perl repeats the last successful pattern).
//! Recursion, code blocks and the control verbs but `(*FAIL)` are refused with an error that says so.
//!
//! ```
//! use perl_regex::{Budget, Pattern};
//! let mut budget = Budget::new(1_000_000, 1_000_000);
//! let pattern = Pattern::new(r"^(?!noreply)\w+@example\.org$").unwrap();
//! assert_eq!(pattern.is_match(b"bob@example.org", &mut budget), Ok(true));
//! assert_eq!(pattern.is_match(b"noreply@example.org", &mut budget), Ok(false));
//! ```
//!
//! Knows: text. Must not know: where patterns and values come from.

mod budget;
mod class;
mod list;
mod literals;
mod program;
mod scan;
mod search;
mod translate;
mod tree;

#[cfg(test)]
mod perl_rows;
#[cfg(test)]
mod tests;

pub use budget::Budget;
pub use list::{Candidates, PatternList};

use program::{Keep, Program};
use regex::bytes::{Regex, RegexBuilder};
use search::Search;
use std::sync::{Arc, OnceLock};
use translate::Translation;

/// The longest pattern in bytes: far above what people write, and it bounds the time a bad file costs.
const PATTERN_MAX_BYTES: usize = 64 * 1024;

/// The largest compiled form of one pattern in bytes: room for a thousand repeated classes, not for
/// `((\w{1000}){1000}){1000}`.
const COMPILED_MAX_BYTES: usize = 1024 * 1024;

/// What the lazily built automaton of one pattern may keep a thread, in bytes.
const AUTOMATON_MAX_BYTES: usize = 256 * 1024;

/// Translations below this size compile below [`COMPILED_MAX_BYTES`] for certain, so compiling them can wait.
/// A unit is a literal or a range, of which none takes more than 128 bytes.
const SURELY_SMALL: usize = COMPILED_MAX_BYTES / 128;

/// The largest translation that may backtrack, in the same units: repeating nothing (`((a?){1000}){1000}`)
/// takes no bytes of the value and no turns, so only the size of the pattern bounds it.
const BACKTRACKING_MAX_SIZE: usize = 4 * 1024;

/// What is wrong with a pattern, in one line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}{}", .offset.map(|offset| format!(" at offset {offset}")).unwrap_or_default())]
pub struct PatternError {
    what: String,
    offset: Option<usize>,
}

impl PatternError {
    fn at(offset: usize, what: impl Into<String>) -> PatternError {
        PatternError { what: what.into(), offset: Some(offset) }
    }

    fn unsupported(offset: usize, what: impl AsRef<str>) -> PatternError {
        PatternError::at(offset, format!("{} is not supported", what.as_ref()))
    }

    fn whole(what: impl Into<String>) -> PatternError {
        PatternError { what: what.into(), offset: None }
    }
}

/// Matching was given up after the bound on its work: whether the pattern matches is not known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the pattern {pattern:?} was given up on a value of {value_bytes} bytes: it takes too much work")]
pub struct MatchError {
    pattern: Arc<str>,
    value_bytes: usize,
}

/// One Perl regular expression.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    engine: Engine,
    /// Compiled when it is first asked: most patterns stand in a list, which has its own compiled form. What
    /// does not compile is `None`.
    regex: OnceLock<Option<Regex>>,
    program: OnceLock<Option<Program>>,
}

#[derive(Clone)]
enum Engine {
    /// The source for `regex`.
    Linear(Arc<str>),
    /// The source of the pattern, and that of one for `regex` which matches all values that this one does.
    Backtracking { source: Arc<str>, relaxed: Arc<str> },
}

impl Pattern {
    /// Reads a pattern as Perl 5.36 would read it from a variable.
    ///
    /// # Errors
    /// Says what Perl would refuse, what is not supported here, and what is too large.
    pub fn new(text: &str) -> Result<Pattern, PatternError> {
        if text.len() > PATTERN_MAX_BYTES {
            return Err(PatternError::whole(format!("the pattern is longer than {PATTERN_MAX_BYTES} bytes")));
        }
        let translation = translate::translate(text)?;
        let (regex, program) = (OnceLock::new(), OnceLock::new());
        let engine = if translation.backtracks {
            let compiled = compile_program(&translation, Keep::Referred)?;
            let relaxed = tree::parse(&translation.source)?.relaxed();
            program.get_or_init(|| Some(compiled));
            Engine::Backtracking { source: translation.source.into(), relaxed: relaxed.into() }
        } else {
            if translation.size > SURELY_SMALL {
                let compiled = compile(&translation.source).map_err(|error| match error {
                    regex::Error::CompiledTooBig(limit) => {
                        PatternError::whole(format!("the compiled pattern is larger than {limit} bytes"))
                    }
                    other => PatternError::whole(last_line(&other.to_string())),
                })?;
                regex.get_or_init(|| Some(compiled));
            }
            Engine::Linear(translation.source.into())
        };
        Ok(Pattern { text: text.into(), engine, regex, program })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern matches anywhere in the value.
    ///
    /// # Errors
    /// When it takes more steps than the budget has.
    pub fn is_match(&self, value: &[u8], budget: &mut Budget) -> Result<bool, MatchError> {
        match (&self.engine, self.regex()) {
            (Engine::Linear(_), Some(regex)) => Ok(regex.is_match(value)),
            (Engine::Linear(_), None) => self.is_match_here(value, 0, budget),
            (Engine::Backtracking { .. }, None) => self.is_match_here(value, 0, budget),
            (Engine::Backtracking { .. }, Some(regex)) => match regex.find(value) {
                Some(found) => self.is_match_here(value, found.start(), budget),
                None => Ok(false),
            },
        }
    }

    /// The same by the matcher here, from a place on.
    fn is_match_here(&self, value: &[u8], from: usize, budget: &mut Budget) -> Result<bool, MatchError> {
        let gave_up = || MatchError { pattern: self.text.clone(), value_bytes: value.len() };
        let program = self.program.get_or_init(|| Program::new(&self.tree()?, Keep::Referred).ok());
        let Some(program) = program else {
            // It is too large for the matcher, which only those are that have been compiled by `regex`.
            let regex = self.regex().filter(|_| self.is_linear()).ok_or_else(gave_up)?;
            return Ok(regex.is_match(value));
        };
        let limit = budget.for_one();
        let mut search = Search::new(program, value, limit);
        let found = search.find(from);
        budget.spend(limit - search.left());
        found.map_err(|_| gave_up())
    }

    fn is_linear(&self) -> bool {
        matches!(self.engine, Engine::Linear(_))
    }

    /// The pattern for `regex`, or one that matches all that this one does.
    fn regex(&self) -> Option<&Regex> {
        self.regex.get_or_init(|| compile(self.linear_source()).ok()).as_ref()
    }

    fn linear_source(&self) -> &str {
        match &self.engine {
            Engine::Linear(source) | Engine::Backtracking { relaxed: source, .. } => source,
        }
    }

    fn tree(&self) -> Option<tree::Node> {
        let (Engine::Linear(source) | Engine::Backtracking { source, .. }) = &self.engine;
        tree::parse(source).ok()
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// A Perl regular expression that also says what its groups have matched. That is dearer.
#[derive(Clone)]
pub struct CapturingPattern {
    text: Arc<str>,
    translation: Translation,
    /// The number in Perl of each group of the translation.
    numbers: Vec<usize>,
    /// Compiled when it is first asked.
    program: OnceLock<Option<Program>>,
}

impl CapturingPattern {
    /// Reads a pattern, as [`Pattern::new`] does.
    ///
    /// # Errors
    /// The same.
    pub fn new(text: &str) -> Result<CapturingPattern, PatternError> {
        Pattern::new(text)?;
        let (translation, numbers) = translate::translate_capturing(text)?;
        check_size(&translation)?;
        Ok(CapturingPattern { text: text.into(), translation, numbers, program: OnceLock::new() })
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.numbers.iter().copied().max().unwrap_or(0)
    }

    /// What the groups of the first match have, from group 1 on; `None` if there is no match.
    ///
    /// # Errors
    /// When it takes more steps than the budget has.
    pub fn captures(&self, value: &[u8], budget: &mut Budget) -> Result<Option<Vec<Vec<u8>>>, MatchError> {
        let gave_up = || MatchError { pattern: self.text.clone(), value_bytes: value.len() };
        let keep = Keep::All(self.numbers.len());
        let program = self.program.get_or_init(|| compile_program(&self.translation, keep).ok());
        let limit = budget.for_one();
        let mut search = Search::new(program.as_ref().ok_or_else(gave_up)?, value, limit);
        let found = search.find(0);
        budget.spend(limit - search.left());
        if !found.map_err(|_| gave_up())? {
            return Ok(None);
        }
        let mut groups = vec![Vec::new(); self.groups()];
        for (place, number) in self.numbers.iter().enumerate() {
            if let Some(text) = search.group(place) {
                groups[number - 1] = text.to_vec();
            }
        }
        Ok(Some(groups))
    }
}

impl std::fmt::Debug for CapturingPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CapturingPattern").field(&self.text).finish()
    }
}

fn compile(source: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source)
        .unicode(false)
        .size_limit(COMPILED_MAX_BYTES)
        .dfa_size_limit(AUTOMATON_MAX_BYTES)
        .build()
}

fn check_size(translation: &Translation) -> Result<(), PatternError> {
    if translation.size <= BACKTRACKING_MAX_SIZE {
        return Ok(());
    }
    let what =
        format!("the pattern has {} steps, of which a pattern that backtracks may have ", translation.size);
    Err(PatternError::whole(what + &BACKTRACKING_MAX_SIZE.to_string()))
}

fn compile_program(translation: &Translation, keep: Keep) -> Result<Program, PatternError> {
    check_size(translation)?;
    Program::new(&tree::parse(&translation.source)?, keep)
}

/// Several lines of a crate's message end in the one that names the cause.
fn last_line(message: &str) -> String {
    message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}
