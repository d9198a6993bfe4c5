//! Tables whose lines are tried one after the other: networks and patterns, with `if` and `endif`.
//!
//! Knows: tests of a key and what they answer. Must not know: how a line is written.

use crate::network::Network;
use crate::pattern::{CapturingPattern, Pattern};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long the lines of a table may take for one key: far above what any table of people's needs, and a
/// thread, of which there are few, is not held for longer.
const LONGEST: Duration = Duration::from_secs(1);

/// The lines of a table.
#[derive(Default)]
pub(super) struct Rules {
    steps: Vec<Step>,
    /// The `if`s that wait for their `endif`.
    open: Vec<usize>,
}

enum Step {
    Rule(Rule),
    /// What is inside is tried only if the test holds.
    If {
        test: Test,
        /// The step behind the `endif`; without one, none.
        end: usize,
    },
}

/// A line: what the key is like, and the value it then has.
pub(super) struct Rule {
    pub test: Test,
    pub answer: Answer,
}

/// What a key is like.
pub(super) enum Test {
    /// An address in that network, or one that is not.
    Network { negated: bool, network: Network },
    /// Matches the pattern, or does not.
    Pattern { negated: bool, pattern: Box<Pattern> },
    /// Matches the pattern, whose groups the value wants.
    Groups(Box<CapturingPattern>),
}

/// The value of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// As it stands.
    Text(Box<[u8]>),
    /// With groups filled in.
    Parts(Vec<Part>),
}

/// A part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// As it stands.
    Text(String),
    /// What that group has matched, from 1.
    Group(usize),
}

impl Rules {
    pub fn add(&mut self, rule: Rule) {
        self.steps.push(Step::Rule(rule));
    }

    /// An `if`.
    pub fn begin(&mut self, test: Test) {
        self.open.push(self.steps.len());
        self.steps.push(Step::If { test, end: usize::MAX });
    }

    /// An `endif`.
    pub fn end(&mut self) -> Result<(), String> {
        let here = self.steps.len();
        match self.open.pop().and_then(|begin| self.steps.get_mut(begin)) {
            Some(Step::If { end, .. }) => {
                *end = here;
                Ok(())
            }
            _ => Err("endif without if".to_owned()),
        }
    }

    /// The value of the first line that the key is like. Nobody wants to know after the deadline.
    pub fn get(&self, key: &[u8], deadline: Instant) -> Result<Option<Vec<u8>>, String> {
        let address = std::str::from_utf8(key).ok().and_then(|key| key.parse().ok());
        let end = deadline.min(Instant::now() + LONGEST);
        let mut at = 0;
        while let Some(step) = self.steps.get(at) {
            if Instant::now() > end {
                return Err("the lines take too long for this key".to_owned());
            }
            at += 1;
            match step {
                Step::Rule(rule) => {
                    if let Some(groups) = rule.test.groups(key, address)? {
                        return Ok(Some(rule.answer.fill(&groups)));
                    }
                }
                Step::If { test, end } => {
                    if test.groups(key, address)?.is_none() {
                        at = *end;
                    }
                }
            }
        }
        Ok(None)
    }
}

impl Test {
    /// Whether the key is like that, with what the groups have matched where the value wants them.
    fn groups(&self, key: &[u8], address: Option<IpAddr>) -> Result<Option<Vec<Vec<u8>>>, String> {
        let holds = match self {
            // What is no address is in no network, and outside of none.
            Test::Network { negated, network } => address.is_some_and(|ip| network.contains(ip) != *negated),
            Test::Pattern { negated, pattern } => {
                pattern.is_match(key).map_err(|error| error.to_string())? != *negated
            }
            Test::Groups(pattern) => return pattern.captures(key).map_err(|error| error.to_string()),
        };
        Ok(holds.then(Vec::new))
    }
}

impl Answer {
    /// Reads `$1`, `${1}`, `$(1)` and `$$`.
    pub fn parse(text: &str) -> Result<Answer, String> {
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
            return Ok(Answer::Text(literal.into_bytes().into()));
        }
        parts.extend((!literal.is_empty()).then_some(Part::Text(literal)));
        Ok(Answer::Parts(parts))
    }

    /// The highest group that is filled in, or 0.
    pub fn highest_group(&self) -> usize {
        let Answer::Parts(parts) = self else { return 0 };
        let groups = parts.iter().map(|part| if let Part::Group(number) = part { *number } else { 0 });
        groups.max().unwrap_or(0)
    }

    fn fill(&self, groups: &[Vec<u8>]) -> Vec<u8> {
        let parts = match self {
            Answer::Text(text) => return text.to_vec(),
            Answer::Parts(parts) => parts,
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
            assert_eq!(Answer::parse(value), Ok(Answer::Parts(parts)));
        }
        assert_eq!(Answer::parse("US$$"), Ok(Answer::Text(b"US$".as_slice().into())));
        for bad in ["$", "$x", "${1", "$0", "${}", "5$ off"] {
            assert!(Answer::parse(bad).is_err(), "{bad}");
        }
    }
}
