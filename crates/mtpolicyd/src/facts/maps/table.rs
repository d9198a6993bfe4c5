//! Tables that people write: `texthash:`, `cidr:`, `regexp:`, `pcre:`. They are read whole.
//!
//! What Postfix skips with a warning (a line without a value, a network with host bits) is skipped
//! here too. What Postfix can read and we can't, such as a pattern with recursion, fails the table: without
//! that line it would answer otherwise.
//!
//! Knows: the syntax of each type. Must not know: what is looked up.

use super::rules::{Builder, Condition, Rule, RuleValue, Rules};
use crate::log::messages::foreign_files;
use crate::network::Network;
use perl_regex::{Budget, CapturingPattern, MatchError, Pattern};
use postfix_maps::text::{Line, is_blank, key_and_value, logical_lines};
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

/// The largest table that is read: some million lines. Larger ones are what indexed files are for.
const TABLE_MAX_BYTES: u64 = 64 << 20;

/// Maximum number of skipped lines to log.
const WARNINGS_MAX: usize = 10;

/// The types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TextKind {
    /// Keys and values.
    Hash,
    /// Networks.
    Cidr,
    /// POSIX regular expressions.
    Regexp,
    /// Perl's.
    Pcre,
}

/// What a file holds.
pub(super) enum Table {
    /// Keys and values.
    Hash(HashMap<Box<str>, Box<str>>),
    /// Networks or patterns, in their order.
    Rules(Rules),
}

impl Table {
    /// Reads a file.
    pub fn read(path: &Path, kind: TextKind) -> Result<Table, String> {
        let bytes = read(path)?;
        let (path, mut skipped) = (path.display(), 0_usize);
        let lines = Lines::parse(&bytes, kind, &mut |line, what| {
            skipped += 1;
            if skipped <= WARNINGS_MAX {
                foreign_files::line_skipped(&path, line, what);
            }
        });
        if skipped > WARNINGS_MAX {
            foreign_files::lines_skipped(&path, skipped);
        }
        // What is made of a long text takes as much again.
        drop(bytes);
        lines.map(Lines::finish)
    }

    /// Says what keeps a file from being read as a table, if anything does.
    pub fn check(path: &Path, kind: TextKind) -> Result<(), String> {
        Lines::parse(&read(path)?, kind, &mut |_, _| {}).map(drop)
    }

    /// Reads a text; `warn` gets the lines that are skipped. A comment may be in any encoding.
    #[cfg(test)]
    pub fn parse(bytes: &[u8], kind: TextKind, warn: Warn<'_>) -> Result<Table, String> {
        Lines::parse(bytes, kind, warn).map(Lines::finish)
    }

    /// The approximate number of steps to look up a key of that length.
    pub fn work(&self, length: usize) -> u64 {
        match self {
            Table::Hash(_) => 1,
            Table::Rules(rules) => rules.work(length),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8], budget: &mut Budget) -> Result<Option<Vec<u8>>, MatchError> {
        match self {
            Table::Hash(entries) => {
                let key = std::str::from_utf8(key).ok();
                let value = key.and_then(|key| entries.get(key));
                Ok(value.map(|value| value.as_bytes().to_vec()))
            }
            Table::Rules(rules) => rules.get(key, budget),
        }
    }
}

/// The lines of a table, each checked. Compiling them together takes longer, and is done only where keys are
/// looked up.
enum Lines {
    Hash(HashMap<Box<str>, Box<str>>),
    Rules(Builder),
}

impl Lines {
    fn parse(bytes: &[u8], kind: TextKind, warn: Warn<'_>) -> Result<Lines, String> {
        let text = String::from_utf8_lossy(bytes);
        let is_whole = matches!(text, Cow::Borrowed(_));
        let (mut entries, mut rules) = (HashMap::new(), Builder::default());
        for Line { number, text } in logical_lines(&text) {
            let outcome = match kind {
                _ if !is_whole && text.contains(char::REPLACEMENT_CHARACTER) => Err(not_in_utf8(kind)),
                TextKind::Hash => add_entry(&mut entries, &text),
                _ => add_rule(&mut rules, &text, kind),
            };
            match outcome {
                Ok(()) => {}
                Err(Flaw::PassedOver(what)) => warn(number, &what),
                Err(Flaw::Fatal(what)) => return Err(format!("line {number}: {what}")),
            }
        }
        Ok(if kind == TextKind::Hash { Lines::Hash(entries) } else { Lines::Rules(rules) })
    }

    fn finish(self) -> Table {
        match self {
            Lines::Hash(entries) => Table::Hash(entries),
            Lines::Rules(rules) => Table::Rules(rules.finish()),
        }
    }
}

/// The bytes of a file that nobody is writing.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let plain = |error| crate::facts::file::plain(&error);
    let file = safe_files::open_regular(path).map_err(plain)?;
    let before = file.metadata().map_err(plain)?;
    let bytes = safe_files::read_open(&file, TABLE_MAX_BYTES).map_err(plain)?;
    let after = file.metadata().map_err(plain)?;
    if after.len() != before.len() || after.modified().ok() != before.modified().ok() {
        return Err("it is being written".to_owned());
    }
    Ok(bytes)
}

/// Gets the number of a line and what is wrong with it.
type Warn<'a> = &'a mut dyn FnMut(usize, &str);

/// What is wrong with a line.
enum Flaw {
    /// Postfix goes on without it.
    PassedOver(String),
    /// Postfix reads it, we can't.
    Fatal(String),
}

/// What is wrong with a line that is not in UTF-8. Postfix skips it too where it is a key or a network, and
/// reads a pattern as bytes.
fn not_in_utf8(kind: TextKind) -> Flaw {
    let what = "this is not UTF-8".to_owned();
    match kind {
        TextKind::Regexp | TextKind::Pcre => Flaw::Fatal(what),
        TextKind::Hash | TextKind::Cidr => Flaw::PassedOver(what),
    }
}

fn skipped(what: impl Into<String>) -> Flaw {
    Flaw::PassedOver(what.into())
}

fn add_entry(entries: &mut HashMap<Box<str>, Box<str>>, line: &str) -> Result<(), Flaw> {
    let (key, value) = key_and_value(line).ok_or_else(|| skipped("a line is a key, a blank and a value"))?;
    // Keys are folded, as those that are looked up.
    match entries.entry(key.to_lowercase().into_boxed_str()) {
        Entry::Vacant(place) => drop(place.insert(value.into())),
        Entry::Occupied(_) => return Err(skipped("the key is there already")),
    }
    Ok(())
}

fn add_rule(rules: &mut Builder, line: &str, kind: TextKind) -> Result<(), Flaw> {
    match control(line) {
        Some(("endif", _)) => rules.end().map_err(Flaw::PassedOver),
        Some((_, test)) => parse_test(test, kind).map(|(test, _)| rules.begin(test)),
        None => parse_rule(line, kind).map(|rule| rules.add(rule)),
    }
}

/// `if PATTERN` and `endif`, in capital letters too.
fn control(line: &str) -> Option<(&'static str, &str)> {
    ["endif", "if"].into_iter().find_map(|word| {
        let (begin, rest) = line.split_at_checked(word.len())?;
        let ends = !rest.starts_with(|c: char| c.is_ascii_alphanumeric());
        (begin.eq_ignore_ascii_case(word) && ends).then(|| (word, rest.trim_matches(is_blank)))
    })
}

/// A test at the beginning of a line, and what stands behind it.
fn parse_test(text: &str, kind: TextKind) -> Result<(Condition, &str), Flaw> {
    let (pattern, rest) = parse_pattern(text, kind)?;
    Ok((pattern.condition()?, rest))
}

fn parse_rule(text: &str, kind: TextKind) -> Result<Rule, Flaw> {
    let (pattern, value) = parse_pattern(text, kind)?;
    if kind == TextKind::Cidr {
        if value.is_empty() {
            return Err(skipped("the network has no value"));
        }
        return Ok(Rule {
            condition: pattern.condition()?,
            answer: RuleValue::Text(value.as_bytes().into()),
        });
    }
    let answer = RuleValue::parse(value).map_err(Flaw::PassedOver)?;
    let highest = answer.highest_group();
    if highest == 0 {
        return Ok(Rule { condition: pattern.condition()?, answer });
    }
    let Parsed::Pattern { negated: false, pattern } = pattern else {
        return Err(skipped("a pattern that must not match has no groups to fill in"));
    };
    let capturing = CapturingPattern::new(&pattern).map_err(|error| Flaw::Fatal(error.to_string()))?;
    if highest > capturing.groups() {
        return Err(skipped(format!("the pattern has no group {highest}")));
    }
    let condition = Condition::Groups(Box::new(compile(&pattern)?), Box::new(capturing));
    Ok(Rule { condition, answer })
}

fn compile(pattern: &str) -> Result<Pattern, Flaw> {
    Pattern::new(pattern).map_err(|error| Flaw::Fatal(error.to_string()))
}

/// A pattern as it is written, not compiled yet.
enum Parsed {
    Network { negated: bool, network: Network },
    Pattern { negated: bool, pattern: String },
}

impl Parsed {
    fn condition(self) -> Result<Condition, Flaw> {
        Ok(match self {
            Parsed::Network { negated, network } => Condition::Network { negated, network },
            Parsed::Pattern { negated, pattern } => {
                Condition::Pattern { negated, pattern: Box::new(compile(&pattern)?) }
            }
        })
    }
}

fn parse_pattern(text: &str, kind: TextKind) -> Result<(Parsed, &str), Flaw> {
    let positive = text.trim_start_matches(|c| c == '!' || is_blank(c));
    // Two of them mean what none does.
    let negated = text[..text.len() - positive.len()].matches('!').count() % 2 == 1;
    if kind != TextKind::Cidr {
        let (pattern, rest) = expression(positive, kind)?;
        return Ok((Parsed::Pattern { negated, pattern }, rest));
    }
    let end = positive.find(is_blank).unwrap_or(positive.len());
    let (pattern, rest) = positive.split_at(end);
    let network = network(pattern)?;
    Ok((Parsed::Network { negated, network }, rest.trim_matches(is_blank)))
}

/// `192.0.2.0/24`, `2001:db8::/32`, `[2001:db8::]/32`, `[2001:db8::/32]`, or an address.
fn network(text: &str) -> Result<Network, Flaw> {
    let bare: String = match text.strip_prefix('[') {
        Some(rest) if rest.matches(']').count() == 1 => rest.replace(']', ""),
        Some(_) => return Err(skipped(format!("`{text}` is not a network"))),
        None => text.to_owned(),
    };
    let (address, prefix) = match bare.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (&*bare, None),
    };
    let none = || skipped(format!("`{text}` is not a network"));
    let address: std::net::IpAddr = address.parse().map_err(|_| none())?;
    let network = Network::parse(&bare).ok_or_else(none)?;
    let alone = Network::around(address, 128);
    let prefix = prefix.and_then(|prefix| prefix.parse().ok()).unwrap_or(128);
    if Network::around(address, prefix).first() != alone.first() {
        return Err(skipped(format!("`{text}` has host bits; {network} has none")));
    }
    Ok(network)
}

/// `/pattern/flags` with any character for the slash: the pattern as Perl reads it, and what follows.
fn expression(text: &str, kind: TextKind) -> Result<(String, &str), Flaw> {
    let delimiter = text.chars().next().filter(|c| !c.is_alphanumeric() && !is_blank(*c) && *c != '\\');
    let delimiter = delimiter.ok_or_else(|| skipped("a line begins with a pattern, such as /x/"))?;
    let body = &text[delimiter.len_utf8()..];
    let mut escaped = false;
    let end = body.find(|c| {
        let ends = c == delimiter && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    let end = end.ok_or_else(|| skipped(format!("the pattern has no `{delimiter}` at its end")))?;
    let (pattern, rest) = (&body[..end], &body[end + delimiter.len_utf8()..]);
    let flags_end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
    let (flags, rest) = rest.split_at(flags_end);
    let rest = rest.trim_matches(is_blank);
    let pattern = match kind {
        TextKind::Regexp => posix(pattern, flags)?,
        _ => perl(pattern, flags)?,
    };
    Ok((pattern, rest))
}

/// Flags of pcre_table(5), each of which turns something around: `i` and `s` are on without them.
fn perl(pattern: &str, flags: &str) -> Result<String, Flaw> {
    let is = |flag| flags.matches(flag).count() % 2 == 1;
    for flag in flags.chars() {
        match flag {
            'i' | 'm' | 's' | 'x' | 'A' | 'X' => {}
            // There are no line breaks in what is looked up, of which `$` could make something.
            'E' => {}
            'U' => return Err(Flaw::Fatal("the flag U is not supported: write *? for *".to_owned())),
            other => return Err(skipped(format!("there is no flag `{other}`"))),
        }
    }
    let on = [('i', !is('i')), ('s', !is('s')), ('m', is('m')), ('x', is('x'))];
    let on: String = on.iter().filter(|(_, on)| *on).map(|(flag, _)| *flag).collect();
    // A comment under the flag x ends with its line.
    let line_end = if is('x') { "\n" } else { "" };
    let anchor = if is('A') { r"\A" } else { "" };
    Ok(format!("{anchor}(?{on}:{pattern}{line_end})"))
}

/// Flags of regexp_table(5): `i` is on without it, `m` has `^` and `$` at every line.
fn posix(pattern: &str, flags: &str) -> Result<String, Flaw> {
    let is = |flag| flags.matches(flag).count() % 2 == 1;
    if let Some(other) = flags.chars().find(|flag| !matches!(flag, 'i' | 'm' | 'x')) {
        return Err(skipped(format!("there is no flag `{other}`")));
    }
    if is('x') {
        let what = "the flag x, which asks for basic regular expressions, is not supported";
        return Err(Flaw::Fatal(what.to_owned()));
    }
    let (fold, lines) = (if is('i') { "" } else { "i" }, if is('m') { "m" } else { "s" });
    Ok(format!("(?{fold}{lines}:{})", posix_to_perl(pattern)))
}

/// What the two spell differently: between brackets a backslash is one, and `\<` is the beginning of a word.
fn posix_to_perl(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '[' => bracket(rest, &mut out),
            '\\' if rest[1..].starts_with(['<', '>']) => {
                out.push_str(if rest[1..].starts_with('<') { r"\b(?=\w)" } else { r"\b(?<=\w)" });
                2
            }
            '\\' => {
                let length = 1 + rest[1..].chars().next().map_or(0, char::len_utf8);
                out.push_str(&rest[..length]);
                length
            }
            other => {
                out.push(other);
                other.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

/// Copies an expression in brackets, with which the text begins; how long it was.
fn bracket(text: &str, out: &mut String) -> usize {
    let mut at = 1;
    out.push('[');
    if text[at..].starts_with('^') {
        out.push('^');
        at += 1;
    }
    let first = at;
    while let Some(c) = text[at..].chars().next() {
        let class = text[at..].strip_prefix("[:").and_then(|rest| rest.find(":]"));
        match (c, class) {
            (_, Some(length)) => {
                out.push_str(&text[at..at + length + 4]);
                at += length + 4;
                continue;
            }
            (']', _) if at > first => {
                out.push(']');
                return at + 1;
            }
            (']' | '[' | '\\', _) => {
                out.push('\\');
                out.push(c);
            }
            _ => out.push(c),
        }
        at += c.len_utf8();
    }
    at
}

#[cfg(test)]
mod tests;
