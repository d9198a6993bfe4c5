//! Perl regular expressions over bytes, with a bound on their work.
//!
//! A pattern is first rewritten (`translate`): what Perl and the crates spell differently is resolved there,
//! and what comes out is a small common language of bytes. `regex` runs it in linear time; only patterns that
//! need look-around, back-references or possessive matching go to `fancy-regex`, which backtracks and is
//! bounded.
//!
//! Differs from Perl: an empty pattern matches everything (Perl repeats the last successful pattern).
//! Recursion, code blocks and the control verbs but `(*FAIL)` are refused with an error that says so.
//!
//! Knows: text. Must not know: where patterns and values come from.

mod class;
mod scan;
mod translate;

#[cfg(test)]
mod perl_rows;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fancy_regex::BytesMode;
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use translate::Translation;

/// The longest pattern in bytes: far above what people write, and it bounds the time a bad file costs.
const PATTERN_MAX_BYTES: usize = 64 * 1024;

/// The largest compiled form of one pattern in bytes: room for a thousand repeated classes, not for
/// `((\w{1000}){1000}){1000}`.
const COMPILED_MAX_BYTES: usize = 1024 * 1024;

/// The largest compiled form of one set in bytes. A list that needs more is split: each further set costs
/// another pass over the value.
const SET_MAX_BYTES: usize = 16 * 1024 * 1024;

/// What the lazily built automaton of one pattern may keep a thread, in bytes.
const AUTOMATON_MAX_BYTES: usize = 256 * 1024;

/// What the lazily built automaton of a set may keep a thread, in bytes: enough that the states which host
/// names and addresses reach stay, for a thousand patterns.
const SET_AUTOMATON_MAX_BYTES: usize = 2 * 1024 * 1024;

/// Translations below this size compile below [`COMPILED_MAX_BYTES`] for certain, so compiling them can wait.
/// A unit is a literal or a range, of which none takes more than 128 bytes.
const SURELY_SMALL: usize = COMPILED_MAX_BYTES / 128;

/// The largest translation that may backtrack, in the same units: repeating nothing (`((a?){1000}){1000}`)
/// takes no bytes of the value and no turns, so only the size of the pattern bounds it.
const BACKTRACKING_MAX_SIZE: usize = 4 * 1024;

/// The largest program of a pattern that backtracks, in steps: above what the size allows, in case it grows.
const PROGRAM_MAX_STEPS: usize = 8 * BACKTRACKING_MAX_SIZE;

/// Values up to this length in bytes get [`BACKTRACKS_SHORT`]; addresses and host names stay below.
const SHORT_VALUE_BYTES: usize = 2 * 1024;

/// How often matching may turn back in a short value: several times at each byte. Each turn may read the
/// value once, so the worst case is 16,000 times 2 KiB, some tens of milliseconds.
const BACKTRACKS_SHORT: usize = 16_000;

/// How often matching may turn back in a long value, whose bytes make each turn dearer: some tens of
/// milliseconds at 256 KiB. Patterns that are anchored with `^` need few turns.
const BACKTRACKS_LONG: usize = 64;

/// How long the patterns of a list that are asked one by one may take together: they run on a thread that
/// other requests need.
const LIST_LONGEST: Duration = Duration::from_millis(50);

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
#[error(
    "the pattern {pattern:?} was given up on a value of {value_bytes} bytes: it takes too much backtracking"
)]
pub struct MatchError {
    pattern: String,
    value_bytes: usize,
}

/// One Perl regular expression.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    engine: Engine,
}

#[derive(Clone)]
enum Engine {
    /// Compiled when it is first asked: most patterns stand in a list, which has its own compiled form.
    Linear {
        source: String,
        compiled: OnceLock<Option<Regex>>,
    },
    Backtracking(Box<Backtracking>),
}

#[derive(Clone)]
struct Backtracking {
    short: fancy_regex::Regex,
    long: fancy_regex::Regex,
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
        let engine = match translation.backtracks {
            true => Engine::Backtracking(Box::new(backtracking(&translation)?)),
            false => linear(translation)?,
        };
        Ok(Pattern { text: text.to_owned(), engine })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn gave_up(&self, value: &[u8]) -> MatchError {
        MatchError { pattern: self.text.clone(), value_bytes: value.len() }
    }

    /// Whether the pattern matches anywhere in the value.
    ///
    /// # Errors
    /// Only patterns that backtrack can fail, after some tens of milliseconds.
    pub fn is_match(&self, value: &[u8]) -> Result<bool, MatchError> {
        let gave_up = || self.gave_up(value);
        match &self.engine {
            Engine::Linear { source, compiled } => compiled
                .get_or_init(|| compile(source).ok())
                .as_ref()
                .map(|regex| regex.is_match(value))
                .ok_or_else(gave_up),
            Engine::Backtracking(engine) => engine.for_value(value).is_match(value).map_err(|_| gave_up()),
        }
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Pattern").field(&self.text).finish()
    }
}

impl Backtracking {
    fn for_value(&self, value: &[u8]) -> &fancy_regex::Regex {
        if value.len() <= SHORT_VALUE_BYTES { &self.short } else { &self.long }
    }
}

/// A Perl regular expression that also says what its groups have matched. That is dearer.
#[derive(Clone)]
pub struct CapturingPattern {
    text: String,
    engine: Box<Backtracking>,
    /// The number in Perl of each group of the translation.
    numbers: Vec<usize>,
}

impl CapturingPattern {
    /// Reads a pattern, as [`Pattern::new`] does.
    ///
    /// # Errors
    /// The same.
    pub fn new(text: &str) -> Result<CapturingPattern, PatternError> {
        Pattern::new(text)?;
        let (translation, numbers) = translate::translate_capturing(text)?;
        let engine = Box::new(backtracking(&translation)?);
        Ok(CapturingPattern { text: text.to_owned(), engine, numbers })
    }

    /// How many groups there are.
    pub fn groups(&self) -> usize {
        self.numbers.iter().copied().max().unwrap_or(0)
    }

    /// What the groups of the first match have, from group 1 on; `None` if there is no match.
    ///
    /// # Errors
    /// When matching takes more turns than it may.
    pub fn captures(&self, value: &[u8]) -> Result<Option<Vec<Vec<u8>>>, MatchError> {
        let gave_up = |_| MatchError { pattern: self.text.clone(), value_bytes: value.len() };
        let found = self.engine.for_value(value).captures(value).map_err(gave_up)?;
        Ok(found.map(|found| {
            let mut groups = vec![Vec::new(); self.groups()];
            for (place, number) in self.numbers.iter().enumerate() {
                if let Some(part) = found.get(place + 1) {
                    groups[number - 1] = value[part.start()..part.end()].to_vec();
                }
            }
            groups
        }))
    }
}

impl std::fmt::Debug for CapturingPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CapturingPattern").field(&self.text).finish()
    }
}

fn linear(translation: Translation) -> Result<Engine, PatternError> {
    let compiled = OnceLock::new();
    if translation.size > SURELY_SMALL {
        let regex = compile(&translation.source).map_err(|error| match error {
            regex::Error::CompiledTooBig(limit) => {
                PatternError::whole(format!("the compiled pattern is larger than {limit} bytes"))
            }
            other => PatternError::whole(last_line(&other.to_string())),
        })?;
        compiled.get_or_init(|| Some(regex));
    }
    Ok(Engine::Linear { source: translation.source, compiled })
}

fn compile(source: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source)
        .unicode(false)
        .size_limit(COMPILED_MAX_BYTES)
        .dfa_size_limit(AUTOMATON_MAX_BYTES)
        .build()
}

fn backtracking(translation: &Translation) -> Result<Backtracking, PatternError> {
    if translation.size > BACKTRACKING_MAX_SIZE {
        let what = format!(
            "the pattern has {} steps, of which a pattern that backtracks may have ",
            translation.size
        );
        return Err(PatternError::whole(what + &BACKTRACKING_MAX_SIZE.to_string()));
    }
    let build = |backtracks| {
        fancy_regex::RegexBuilder::new(&translation.source)
            .unicode_mode(false)
            .bytes_mode(BytesMode::Ascii)
            .backtrack_limit(backtracks)
            .delegate_size_limit(COMPILED_MAX_BYTES)
            .delegate_dfa_size_limit(AUTOMATON_MAX_BYTES)
            .max_prog_size(PROGRAM_MAX_STEPS)
            .build()
            // Its positions are those of the translation, which nobody has seen.
            .map_err(|error| match error {
                fancy_regex::Error::ParseError(_, what) => PatternError::whole(last_line(&what.to_string())),
                other => PatternError::whole(last_line(&other.to_string())),
            })
    };
    Ok(Backtracking { short: build(BACKTRACKS_SHORT)?, long: build(BACKTRACKS_LONG)? })
}

/// Several lines of a crate's message end in the one that names the cause.
fn last_line(message: &str) -> String {
    message.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// Many patterns asked at once: a thousand cost about as much as ten.
#[derive(Debug)]
pub struct PatternList {
    patterns: Vec<Pattern>,
    /// The linear patterns, in order; more than one set only for lists beyond [`SET_MAX_BYTES`].
    sets: Vec<Set>,
    /// The places of the patterns that are asked one by one.
    singles: Vec<usize>,
}

#[derive(Debug)]
struct Set {
    regex: RegexSet,
    /// The place in the list of each pattern of the set.
    places: Vec<usize>,
}

impl PatternList {
    /// Compiles the patterns together.
    pub fn new(patterns: Vec<Pattern>) -> PatternList {
        let (mut together, mut singles): (Vec<usize>, Vec<usize>) =
            (0..patterns.len()).partition(|&place| matches!(patterns[place].engine, Engine::Linear { .. }));
        // One pattern alone is faster without a set.
        if together.len() == 1 {
            singles.append(&mut together);
        }
        let mut sets = Vec::new();
        let mut waiting = vec![together];
        while let Some(places) = waiting.pop().filter(|places| !places.is_empty()) {
            match build_set(&patterns, &places) {
                Ok(regex) => sets.push(Set { regex, places }),
                Err(_) if places.len() == 1 => singles.extend(places),
                Err(_) => {
                    let (front, back) = places.split_at(places.len() / 2);
                    waiting.extend([back.to_vec(), front.to_vec()]);
                }
            }
        }
        singles.sort_unstable();
        PatternList { patterns, sets, singles }
    }

    /// The place of the first pattern that matches the value.
    ///
    /// # Errors If no pattern matches for certain and one was given up. A pattern given up counts as no match
    /// as long as another one matches.
    pub fn find(&self, value: &[u8]) -> Result<Option<usize>, MatchError> {
        let in_sets = self.sets.iter().find_map(|set| {
            // Whether is a cheaper question than which, and the answer is mostly no.
            let found = set.regex.is_match(value).then(|| set.regex.matches(value).iter().next());
            found.flatten().map(|member| set.places[member])
        });
        let mut given_up = None;
        let start = Instant::now();
        for &place in self.singles.iter().take_while(|&&place| in_sets.is_none_or(|found| place < found)) {
            let pattern = &self.patterns[place];
            // Each has a bound of its own, but there may be thousands of them.
            if start.elapsed() > LIST_LONGEST {
                given_up = given_up.or_else(|| Some(pattern.gave_up(value)));
                break;
            }
            match pattern.is_match(value) {
                Ok(true) => return Ok(Some(place)),
                Ok(false) => {}
                Err(error) => given_up = given_up.or(Some(error)),
            }
        }
        match (in_sets, given_up) {
            (None, Some(error)) => Err(error),
            (found, _) => Ok(found),
        }
    }

    /// The pattern at a place that [`PatternList::find`] answered.
    pub fn get(&self, place: usize) -> Option<&Pattern> {
        self.patterns.get(place)
    }

    /// Whether there are none; such a list matches nothing.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

fn build_set(patterns: &[Pattern], places: &[usize]) -> Result<RegexSet, regex::Error> {
    let sources = places.iter().filter_map(|&place| match &patterns[place].engine {
        Engine::Linear { source, .. } => Some(source),
        Engine::Backtracking(_) => None,
    });
    RegexSetBuilder::new(sources)
        .unicode(false)
        .size_limit(SET_MAX_BYTES)
        .dfa_size_limit(SET_AUTOMATON_MAX_BYTES)
        .build()
}
