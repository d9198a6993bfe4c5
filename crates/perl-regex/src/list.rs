//! Many patterns asked at once: a hundred thousand cost about as much as a hundred.
//!
//! A long list is looked up by the texts that its patterns require: those that a value contains are found in
//! one pass, whatever their number, and only their patterns are tried. The others, and those of short lists,
//! are in sets of
//! `regex`. Sets are small: the automaton of a large one does not fit into what it may keep, and is then
//! built again and again.
//!
//! Patterns that backtrack are in the sets as well, in a form that matches more; only those of which that
//! form matches are tried themselves.
//!
//! Knows: patterns. Must not know: where they come from.

use crate::literals::{self, Requirement};
use crate::{Budget, MatchError, Pattern};
use aho_corasick::AhoCorasick;
use regex::bytes::{RegexSet, RegexSetBuilder};
use std::collections::{BTreeMap, HashMap};
use std::panic::resume_unwind;

/// The most patterns of a set.
const SET_MAX_PATTERNS: usize = 500;

/// The largest compiled form of one set in bytes. A list that needs more is split: each further set costs
/// another pass over the value.
const SET_MAX_BYTES: usize = 16 * 1024 * 1024;

/// What the lazily built automaton of a set may keep a thread, in bytes: enough that the states which host
/// names and addresses reach stay.
const SET_AUTOMATON_MAX_BYTES: usize = 2 * 1024 * 1024;

/// This many patterns in sets cost one step for each byte of the value: mostly they cost none, but a value
/// can be made for which an automaton does not pay.
const SET_PATTERNS_A_STEP: usize = 32;

/// Lists up to this length are sets only, in which nothing is tried twice.
const SHORT_LIST: usize = 300;

/// A text that more patterns than this require does not tell them apart.
const TEXT_MAX_PATTERNS: usize = 16;

/// The patterns of a list, in their order.
#[derive(Debug)]
pub struct PatternList {
    patterns: Vec<Pattern>,
    pub(crate) sets: Vec<Set>,
    pub(crate) texts: Option<Texts>,
    /// The places of the patterns that are always tried.
    singles: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct Set {
    regex: RegexSet,
    /// The place in the list of each pattern of the set.
    places: Vec<usize>,
}

/// Texts in lower case. The value must contain one of them.
#[derive(Debug)]
pub(crate) struct Texts {
    searcher: AhoCorasick,
    /// The places of the patterns of each text.
    places: Vec<Vec<usize>>,
}

/// The patterns of a list that can match a value; see [`PatternList::candidates`].
#[derive(Debug)]
pub struct Candidates<'l, 'v> {
    list: &'l PatternList,
    value: &'v [u8],
    /// Their places in order, and whether they match for certain.
    places: Vec<(usize, bool)>,
}

impl PatternList {
    /// Compiles the patterns together.
    pub fn new(patterns: Vec<Pattern>) -> PatternList {
        let mut list = PatternList { patterns, sets: Vec::new(), texts: None, singles: Vec::new() };
        let rest = if list.patterns.len() > SHORT_LIST {
            list.look_up_by_texts()
        } else {
            (0..list.patterns.len()).collect()
        };
        list.build_sets(&rest);
        list.singles.sort_unstable();
        list
    }

    /// Takes the patterns that can be looked up by a text; answers the places of the others.
    fn look_up_by_texts(&mut self) -> Vec<usize> {
        let required = |pattern: &Pattern| pattern.tree().map(|tree| literals::required(&tree));
        let mut requirements: Vec<Vec<Requirement>> =
            self.patterns.iter().map(|pattern| required(pattern).unwrap_or_default()).collect();
        let mut counts: HashMap<&[u8], usize> = HashMap::new();
        for text in requirements.iter().flatten().flatten() {
            *counts.entry(text).or_default() += 1;
        }
        // Of what a pattern requires, that counts which the fewest share.
        let shared = |requirement: &Requirement| {
            requirement.iter().map(|text| counts.get(&**text).copied().unwrap_or(0)).max().unwrap_or(0)
        };
        let rarest = |of_one: &Vec<Requirement>| {
            let place = (0..of_one.len()).min_by_key(|place| shared(&of_one[*place]))?;
            (shared(&of_one[place]) <= TEXT_MAX_PATTERNS).then_some(place)
        };
        let chosen: Vec<Option<usize>> = requirements.iter().map(rarest).collect();
        let (mut by_text, mut rest) = (BTreeMap::<Vec<u8>, Vec<usize>>::new(), Vec::new());
        for (place, chosen) in chosen.into_iter().enumerate() {
            let Some(chosen) = chosen else {
                rest.push(place);
                continue;
            };
            for text in requirements[place].swap_remove(chosen) {
                by_text.entry(text).or_default().push(place);
            }
        }
        let searcher = AhoCorasick::builder().ascii_case_insensitive(true).build(by_text.keys());
        let Ok(searcher) = searcher else { return (0..self.patterns.len()).collect() };
        self.texts = Some(Texts { searcher, places: by_text.into_values().collect() });
        rest
    }

    fn build_sets(&mut self, places: &[usize]) {
        // One pattern alone is faster without a set.
        if places.len() == 1 {
            self.singles.extend(places);
            return;
        }
        let chunks: Vec<&[usize]> = places.chunks(SET_MAX_PATTERNS).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let patterns = &self.patterns;
        // Few sets are not worth a thread each.
        let built: Vec<_> = match chunks.len().div_ceil(threads) {
            0 | 1 => chunks.iter().map(|chunk| sets_of(patterns, chunk)).collect(),
            share => std::thread::scope(|scope| {
                let part = |part: &'_ [&[usize]]| -> Vec<_> {
                    part.iter().map(|chunk| sets_of(patterns, chunk)).collect()
                };
                let parts: Vec<_> =
                    chunks.chunks(share).map(|chunks| scope.spawn(move || part(chunks))).collect();
                let joined = parts.into_iter().map(|part| part.join());
                joined.flat_map(|part| part.unwrap_or_else(|panic| resume_unwind(panic))).collect()
            }),
        };
        for (sets, singles) in built {
            self.sets.extend(sets);
            self.singles.extend(singles);
        }
    }

    /// The place of the first pattern that matches the value.
    ///
    /// # Errors
    /// If no pattern matches for certain and one was given up. A pattern given up counts as no match as long
    /// as another one matches.
    pub fn find(&self, value: &[u8], budget: &mut Budget) -> Result<Option<usize>, MatchError> {
        if let [only] = &*self.patterns {
            return only.is_match(value, budget).map(|is_match| is_match.then_some(0));
        }
        let candidates = self.candidates(value, budget);
        let mut given_up = None;
        for &(place, is_certain) in &candidates.places {
            match candidates.try_one(place, is_certain, budget) {
                Ok(true) => return Ok(Some(place)),
                Ok(false) => {}
                Err(error) => given_up = given_up.or(Some(error)),
            }
        }
        given_up.map_or(Ok(None), Err)
    }

    /// The patterns that can match the value: all others do not.
    pub fn candidates<'l, 'v>(&'l self, value: &'v [u8], budget: &mut Budget) -> Candidates<'l, 'v> {
        budget.spend(self.pass_steps(value.len()));
        let mut places: Vec<(usize, bool)> = self.singles.iter().map(|place| (*place, false)).collect();
        for set in &self.sets {
            // Whether is a cheaper question than which, and the answer is mostly no.
            if set.regex.is_match(value) {
                let found = set.regex.matches(value);
                let found = found.iter().map(|member| set.places[member]);
                places.extend(found.map(|place| (place, self.patterns[place].is_linear())));
            }
        }
        if let Some(texts) = &self.texts {
            for found in texts.searcher.find_overlapping_iter(value) {
                places.extend(texts.places[found.pattern().as_usize()].iter().map(|place| (*place, false)));
            }
        }
        places.sort_unstable();
        places.dedup_by_key(|(place, _)| *place);
        Candidates { list: self, value, places }
    }

    /// The approximate number of steps to find the candidates for a value of that length.
    pub fn pass_steps(&self, length: usize) -> u64 {
        let in_sets: usize = self.sets.iter().map(|set| set.places.len()).sum();
        let passes = self.sets.len() + usize::from(self.texts.is_some()) + in_sets / SET_PATTERNS_A_STEP;
        (passes as u64).saturating_mul(length as u64)
    }

    /// The pattern at a place that [`PatternList::find`] answered.
    pub fn get(&self, place: usize) -> Option<&Pattern> {
        self.patterns.get(place)
    }

    /// The number.
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// Whether there are none; such a list matches nothing.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }
}

impl Candidates<'_, '_> {
    /// Whether the pattern at that place matches.
    ///
    /// # Errors
    /// When it takes more steps than the budget has.
    pub fn is_match(&self, place: usize, budget: &mut Budget) -> Result<bool, MatchError> {
        match self.places.binary_search_by_key(&place, |(place, _)| *place) {
            Ok(found) => self.try_one(place, self.places[found].1, budget),
            Err(_) => Ok(false),
        }
    }

    /// The places from `first` on, in order, of the patterns that can match, up to `end`.
    pub fn within(&self, first: usize, end: usize) -> impl Iterator<Item = usize> {
        let from = self.places.partition_point(|(place, _)| *place < first);
        self.places[from..].iter().map(|(place, _)| *place).take_while(move |place| *place < end)
    }

    fn try_one(&self, place: usize, is_certain: bool, budget: &mut Budget) -> Result<bool, MatchError> {
        if is_certain {
            return Ok(true);
        }
        let pattern = &self.list.patterns[place];
        // The others are not compiled each by itself, which takes some 50 KB.
        match self.list.singles.binary_search(&place) {
            Ok(_) => pattern.is_match(self.value, budget),
            Err(_) => pattern.is_match_here(self.value, 0, budget),
        }
    }
}

/// The sets of these patterns, which are several where one would be too large, and those that fit into none.
fn sets_of(patterns: &[Pattern], places: &[usize]) -> (Vec<Set>, Vec<usize>) {
    let (mut sets, mut singles) = (Vec::new(), Vec::new());
    let mut waiting = vec![places];
    while let Some(places) = waiting.pop() {
        match build_set(patterns, places) {
            Ok(regex) => sets.push(Set { regex, places: places.to_vec() }),
            Err(_) if places.len() == 1 => singles.extend(places),
            Err(_) => {
                let (front, back) = places.split_at(places.len() / 2);
                waiting.extend([back, front]);
            }
        }
    }
    (sets, singles)
}

fn build_set(patterns: &[Pattern], places: &[usize]) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(places.iter().map(|&place| patterns[place].linear_source()))
        .unicode(false)
        .size_limit(SET_MAX_BYTES)
        .dfa_size_limit(SET_AUTOMATON_MAX_BYTES)
        .build()
}
