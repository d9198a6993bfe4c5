//! Tables whose lines are tried one after the other: networks and patterns, with `if` and `endif`.
//!
//! Knows: tests of a key and what they answer. Must not know: how a line is written.

use crate::network::{Network, NetworkTable, NetworkTableBuilder};
use perl_regex::{Budget, Candidates, CapturingPattern, MatchError, Pattern, PatternList};
use std::collections::HashMap;
use std::net::IpAddr;

/// The lines of a table.
pub(super) struct Rules {
    steps: Vec<Step>,
    /// The patterns of all lines.
    patterns: PatternList,
    /// The values of networks.
    values: Vec<RuleValue>,
}

/// The lines of a table that is being read.
#[derive(Default)]
pub(super) struct Builder {
    steps: Vec<Step>,
    patterns: Vec<Pattern>,
    /// The `if`s that wait for their `endif`.
    open: Vec<usize>,
    /// The networks that were read since the last line of another kind, and the place of each one's value.
    networks: NetworkTableBuilder,
    value_places: Vec<u32>,
    /// The values of networks, each once, and where it stands.
    values: Vec<RuleValue>,
    known_values: HashMap<RuleValue, u32>,
    /// The same of patterns that have to match.
    lines: Vec<PatternLine>,
}

enum Step {
    Rule(Test, RuleValue),
    /// Lines of networks that follow one another, with the places of their values. Of a million lines most
    /// have the same one.
    Networks(NetworkTable, Vec<u32>),
    /// Lines of patterns that follow one another, and the place of the first. Of a hundred thousand, only
    /// those that can match are tried.
    Patterns {
        first: usize,
        lines: Vec<PatternLine>,
    },
    /// What is inside is tried only if the test holds.
    If {
        test: Test,
        /// The step behind the `endif`; without one, none.
        end: usize,
    },
}

/// A line whose pattern has to match; its groups, if the value wants them.
struct PatternLine {
    capturing: Option<Box<CapturingPattern>>,
    answer: RuleValue,
}

/// A line: what the key is like, and the value it then has.
pub(super) struct Rule {
    pub condition: Condition,
    pub answer: RuleValue,
}

/// What a key is like.
pub(super) enum Condition {
    /// An address in that network, or one that is not.
    Network { negated: bool, network: Network },
    /// Matches the pattern, or does not.
    Pattern { negated: bool, pattern: Box<Pattern> },
    /// Matches the pattern, whose groups the value wants.
    Groups(Box<Pattern>, Box<CapturingPattern>),
}

/// The same with the place of the pattern.
enum Test {
    Network { negated: bool, network: Network },
    Pattern { negated: bool, place: usize },
}

impl Builder {
    pub fn add(&mut self, Rule { condition, answer }: Rule) {
        match condition {
            Condition::Network { negated: false, network } => {
                self.flush_patterns();
                self.add_network(network, answer);
            }
            Condition::Pattern { negated: false, pattern } => self.add_line(*pattern, None, answer),
            Condition::Groups(pattern, capturing) => self.add_line(*pattern, Some(capturing), answer),
            other => {
                self.flush();
                let test = self.test(other);
                self.steps.push(Step::Rule(test, answer));
            }
        }
    }

    fn add_network(&mut self, network: Network, answer: RuleValue) {
        // A file has fewer lines.
        let next = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let place = *self.known_values.entry(answer).or_insert_with_key(|answer| {
            self.values.push(answer.clone());
            next(self.values.len() - 1)
        });
        self.networks.add(network, next(self.value_places.len()));
        self.value_places.push(place);
    }

    fn add_line(&mut self, pattern: Pattern, capturing: Option<Box<CapturingPattern>>, answer: RuleValue) {
        self.flush_networks();
        self.patterns.push(pattern);
        self.lines.push(PatternLine { capturing, answer });
    }

    /// An `if`.
    pub fn begin(&mut self, condition: Condition) {
        self.flush();
        self.open.push(self.steps.len());
        let test = self.test(condition);
        self.steps.push(Step::If { test, end: usize::MAX });
    }

    /// An `endif`.
    pub fn end(&mut self) -> Result<(), String> {
        self.flush();
        let here = self.steps.len();
        match self.open.pop().and_then(|begin| self.steps.get_mut(begin)) {
            Some(Step::If { end, .. }) => {
                *end = here;
                Ok(())
            }
            _ => Err("endif without if".to_owned()),
        }
    }

    /// All lines were read.
    pub fn finish(mut self) -> Rules {
        self.flush();
        Rules { steps: self.steps, patterns: PatternList::new(self.patterns), values: self.values }
    }

    fn flush(&mut self) {
        self.flush_networks();
        self.flush_patterns();
    }

    fn flush_patterns(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        if !lines.is_empty() {
            self.steps.push(Step::Patterns { first: self.patterns.len() - lines.len(), lines });
        }
    }

    fn flush_networks(&mut self) {
        let mut places = std::mem::take(&mut self.value_places);
        if !places.is_empty() {
            places.shrink_to_fit();
            self.steps.push(Step::Networks(std::mem::take(&mut self.networks).finish(), places));
        }
    }

    fn test(&mut self, condition: Condition) -> Test {
        let place = self.patterns.len();
        match condition {
            Condition::Network { negated, network } => Test::Network { negated, network },
            Condition::Pattern { negated, pattern } => {
                self.patterns.push(*pattern);
                Test::Pattern { negated, place }
            }
            Condition::Groups(pattern, _) => {
                self.patterns.push(*pattern);
                Test::Pattern { negated: false, place }
            }
        }
    }
}

impl Rules {
    /// The value of the first line that the key is like.
    pub fn get(&self, key: &[u8], budget: &mut Budget) -> Result<Option<Vec<u8>>, MatchError> {
        let address: Option<IpAddr> = std::str::from_utf8(key).ok().and_then(|key| key.parse().ok());
        let candidates = self.patterns.candidates(key, budget);
        let mut at = 0;
        while let Some(step) = self.steps.get(at) {
            at += 1;
            match step {
                Step::Rule(test, answer) => {
                    if test.holds(address, &candidates, budget)? {
                        return Ok(Some(answer.fill(&[])));
                    }
                }
                Step::Networks(table, places) => {
                    let line = address.and_then(|ip| table.get(ip));
                    let place = line.and_then(|line| places.get(line as usize));
                    if let Some(value) = place.and_then(|place| self.values.get(*place as usize)) {
                        return Ok(Some(value.fill(&[])));
                    }
                }
                Step::Patterns { first, lines } => {
                    if let Some(value) = first_of(lines, *first, key, &candidates, budget)? {
                        return Ok(Some(value));
                    }
                }
                Step::If { test, end } => {
                    if !test.holds(address, &candidates, budget)? {
                        at = *end;
                    }
                }
            }
        }
        Ok(None)
    }

    /// The approximate number of steps to look up a key of that length.
    pub fn work(&self, length: usize) -> u64 {
        self.patterns.pass_steps(length).saturating_add(self.steps.len() as u64)
    }
}

/// The value of the first line whose pattern matches; `first` is the place of the first pattern.
fn first_of(
    lines: &[PatternLine],
    first: usize,
    key: &[u8],
    candidates: &Candidates<'_, '_>,
    budget: &mut Budget,
) -> Result<Option<Vec<u8>>, MatchError> {
    for place in candidates.within(first, first + lines.len()) {
        if !candidates.is_match(place, budget)? {
            continue;
        }
        let PatternLine { capturing, answer } = &lines[place - first];
        let groups = match capturing {
            Some(capturing) => capturing.captures(key, budget)?,
            None => Some(Vec::new()),
        };
        if let Some(groups) = groups {
            return Ok(Some(answer.fill(&groups)));
        }
    }
    Ok(None)
}

impl Test {
    /// Whether the key is like that.
    fn holds(
        &self,
        address: Option<IpAddr>,
        candidates: &Candidates<'_, '_>,
        budget: &mut Budget,
    ) -> Result<bool, MatchError> {
        Ok(match self {
            // What is not an address is in no network, and outside of none.
            Test::Network { negated, network } => address.is_some_and(|ip| network.contains(ip) != *negated),
            Test::Pattern { negated, place } => candidates.is_match(*place, budget)? != *negated,
        })
    }
}

/// The value of a line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum RuleValue {
    /// As it stands.
    Text(Box<[u8]>),
    /// With groups filled in.
    Parts(Vec<Part>),
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    /// As it stands.
    Text(String),
    /// What that group has matched, from 1.
    Group(usize),
}

impl RuleValue {
    /// Reads `$1`, `${1}`, `$(1)` and `$$`.
    pub fn parse(text: &str) -> Result<RuleValue, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            literal.push_str(before);
            if let Some(after) = after.strip_prefix('$') {
                literal.push('$');
                rest = after;
                continue;
            }
            let (number, after) = group(after).ok_or("`$` in a value is followed by a number, or by `$`")?;
            parts.extend((!literal.is_empty()).then(|| Part::Text(std::mem::take(&mut literal))));
            parts.push(Part::Group(number));
            rest = after;
        }
        literal.push_str(rest);
        if parts.is_empty() {
            return Ok(RuleValue::Text(literal.into_bytes().into()));
        }
        parts.extend((!literal.is_empty()).then_some(Part::Text(literal)));
        Ok(RuleValue::Parts(parts))
    }

    /// The highest group that is filled in, or 0.
    pub fn highest_group(&self) -> usize {
        let RuleValue::Parts(parts) = self else { return 0 };
        let groups = parts.iter().map(|part| if let Part::Group(number) = part { *number } else { 0 });
        groups.max().unwrap_or(0)
    }

    fn fill(&self, groups: &[Vec<u8>]) -> Vec<u8> {
        let parts = match self {
            RuleValue::Text(text) => return text.to_vec(),
            RuleValue::Parts(parts) => parts,
        };
        let part = |part: &Part| match part {
            Part::Text(text) => text.as_bytes().to_vec(),
            Part::Group(number) => groups.get(number - 1).cloned().unwrap_or_default(),
        };
        parts.iter().flat_map(part).collect()
    }
}

/// The number behind a `$`, and what follows it.
fn group(text: &str) -> Option<(usize, &str)> {
    let (digits, rest) = match text.chars().next()? {
        '{' => text[1..].split_once('}')?,
        '(' => text[1..].split_once(')')?,
        _ => text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len())),
    };
    let number = digits.parse().ok().filter(|number| *number > 0)?;
    Some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_groups() {
        let group = Part::Group;
        let text = |text: &str| Part::Text(text.to_owned());
        for (value, parts) in [
            ("a$1b", vec![text("a"), group(1), text("b")]),
            ("${12}$(3)", vec![group(12), group(3)]),
            ("$$$1$$", vec![text("$"), group(1), text("$")]),
        ] {
            assert_eq!(RuleValue::parse(value), Ok(RuleValue::Parts(parts)));
        }
        assert_eq!(RuleValue::parse("US$$"), Ok(RuleValue::Text(b"US$".as_slice().into())));
        for bad in ["$", "$x", "${1", "$0", "${}", "5$ off"] {
            assert!(RuleValue::parse(bad).is_err(), "{bad}");
        }
    }
}
