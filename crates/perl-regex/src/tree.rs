//! The translation of a pattern as a tree.
//!
//! Reads only what `translate` writes, so that there is no error but one: nesting that would exhaust the
//! stack.
//!
//! Knows: the common language of bytes. Must not know: Perl's syntax, how patterns are run.

use crate::PatternError;
use crate::class::ByteSet;
use std::fmt::Write;

/// How deep groups may be nested in a translation: what people write, and the groups that translating adds.
const DEPTH_MAX: usize = 128;

/// A part of a pattern.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Empty,
    Set(ByteSet),
    Assert(Assert),
    Concat(Vec<Node>),
    Alternatives(Vec<Node>),
    Repeat {
        node: Box<Node>,
        min: usize,
        max: Option<usize>,
        lazy: bool,
    },
    /// The group of that number, from 1.
    Capture(usize, Box<Node>),
    Atomic(Box<Node>),
    Look {
        ahead: bool,
        negative: bool,
        node: Box<Node>,
    },
    Reference {
        group: usize,
        fold: bool,
    },
    /// Depends on whether the group has captured something.
    Conditional {
        group: usize,
        yes: Box<Node>,
        no: Box<Node>,
    },
}

/// What holds at a place between two bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Assert {
    Start,
    End,
    LineStart,
    LineEnd,
    WordBoundary,
    NoWordBoundary,
}

impl Assert {
    pub(crate) fn holds(self, value: &[u8], at: usize) -> bool {
        let is_word = |byte: Option<&u8>| byte.is_some_and(|b| *b == b'_' || b.is_ascii_alphanumeric());
        let before = at.checked_sub(1).and_then(|at| value.get(at));
        let after = value.get(at);
        match self {
            Assert::Start => at == 0,
            Assert::End => after.is_none(),
            Assert::LineStart => before.is_none_or(|byte| *byte == b'\n'),
            Assert::LineEnd => after.is_none_or(|byte| *byte == b'\n'),
            Assert::WordBoundary => is_word(before) != is_word(after),
            Assert::NoWordBoundary => is_word(before) == is_word(after),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Assert::Start => r"\A",
            Assert::End => r"\z",
            Assert::LineStart => "(?m:^)",
            Assert::LineEnd => "(?m:$)",
            Assert::WordBoundary => r"\b",
            Assert::NoWordBoundary => r"\B",
        }
    }
}

/// Reads a translation.
///
/// # Errors
/// When it is nested too deeply.
pub(crate) fn parse(source: &str) -> Result<Node, PatternError> {
    Parser { bytes: source.as_bytes(), at: 0, groups: 0, depth: 0, fold: false }.alternatives()
}

struct Parser<'s> {
    bytes: &'s [u8],
    at: usize,
    groups: usize,
    depth: usize,
    /// Whether back-references disregard case.
    fold: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, text: &str) -> bool {
        let found = self.bytes[self.at..].starts_with(text.as_bytes());
        if found {
            self.at += text.len();
        }
        found
    }

    fn number(&mut self) -> usize {
        let mut number = 0_usize;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
            self.at += 1;
        }
        number
    }

    fn alternatives(&mut self) -> Result<Node, PatternError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(PatternError::whole("groups and references are nested too deeply"));
        }
        let mut branches = Vec::new();
        let mut items = Vec::new();
        loop {
            match self.peek() {
                None | Some(b')') => break,
                Some(b'|') => {
                    self.at += 1;
                    branches.push(concat(std::mem::take(&mut items)));
                }
                Some(_) => {
                    let atom = self.atom()?;
                    items.push(self.quantified(atom));
                }
            }
        }
        self.depth -= 1;
        if branches.is_empty() {
            return Ok(concat(items));
        }
        branches.push(concat(items));
        Ok(Node::Alternatives(branches))
    }

    /// The inside of a group, and the parenthesis that closes it.
    fn inside(&mut self) -> Result<Node, PatternError> {
        let node = self.alternatives()?;
        self.at += 1;
        Ok(node)
    }

    fn atom(&mut self) -> Result<Node, PatternError> {
        for assert in [Assert::LineStart, Assert::LineEnd] {
            if self.eat(assert.text()) {
                return Ok(Node::Assert(assert));
            }
        }
        match self.peek() {
            Some(b'(') => self.group(),
            Some(b'[') => Ok(Node::Set(self.class())),
            Some(b'\\') => Ok(self.escape()),
            Some(byte) => {
                self.at += 1;
                Ok(single(byte))
            }
            None => Ok(Node::Empty),
        }
    }

    fn group(&mut self) -> Result<Node, PatternError> {
        for (text, ahead, negative) in
            [("(?=", true, false), ("(?!", true, true), ("(?<=", false, false), ("(?<!", false, true)]
        {
            if self.eat(text) {
                let node = Box::new(self.inside()?);
                return Ok(Node::Look { ahead, negative, node });
            }
        }
        if self.eat("(?(") {
            let group = self.number();
            self.at += 1;
            return Ok(match self.inside()? {
                Node::Alternatives(mut branches) if branches.len() == 2 => {
                    let no = Box::new(branches.pop().unwrap_or(Node::Empty));
                    let yes = Box::new(branches.pop().unwrap_or(Node::Empty));
                    Node::Conditional { group, yes, no }
                }
                other => Node::Conditional { group, yes: Box::new(other), no: Box::new(Node::Empty) },
            });
        }
        if self.eat("(?>") {
            return Ok(Node::Atomic(Box::new(self.inside()?)));
        }
        if self.eat("(?i:") {
            let outside = std::mem::replace(&mut self.fold, true);
            let node = self.inside();
            self.fold = outside;
            return node;
        }
        if self.eat("(?:") {
            return self.inside();
        }
        self.at += 1;
        self.groups += 1;
        let group = self.groups;
        Ok(Node::Capture(group, Box::new(self.inside()?)))
    }

    fn escape(&mut self) -> Node {
        for assert in [Assert::Start, Assert::End, Assert::WordBoundary, Assert::NoWordBoundary] {
            if self.eat(assert.text()) {
                return Node::Assert(assert);
            }
        }
        if self.eat(r"\n") {
            return single(b'\n');
        }
        if self.bytes[self.at..].starts_with(br"\x") {
            return single(self.byte());
        }
        self.at += 1;
        Node::Reference { group: self.number(), fold: self.fold }
    }

    /// `\x2E`, or a letter or digit.
    fn byte(&mut self) -> u8 {
        if let Some(byte) = self.peek().filter(|byte| *byte != b'\\') {
            self.at += 1;
            return byte;
        }
        let digits = self.bytes.get(self.at + 2..self.at + 4).unwrap_or_default();
        self.at += 4;
        let text = std::str::from_utf8(digits).unwrap_or_default();
        u8::from_str_radix(text, 16).unwrap_or_default()
    }

    /// `[0-9\x2D]`, perhaps with a `^`.
    fn class(&mut self) -> ByteSet {
        self.at += 1;
        let inverted = self.eat("^");
        let mut set = ByteSet::default();
        while !self.eat("]") && self.at < self.bytes.len() {
            let low = self.byte();
            let high = if self.eat("-") { self.byte() } else { low };
            (low..=high).for_each(|byte| set.insert(byte));
        }
        if inverted { set.negated() } else { set }
    }

    fn quantified(&mut self, node: Node) -> Node {
        let (min, max) = match self.peek() {
            Some(b'*') => (0, None),
            Some(b'+') => (1, None),
            Some(b'?') => (0, Some(1)),
            Some(b'{') => {
                self.at += 1;
                let min = self.number();
                let max = match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        if self.peek() == Some(b'}') { None } else { Some(self.number()) }
                    }
                    _ => Some(min),
                };
                (min, max)
            }
            _ => return node,
        };
        self.at += 1;
        let lazy = self.eat("?");
        Node::Repeat { node: Box::new(node), min, max, lazy }
    }
}

fn single(byte: u8) -> Node {
    let mut set = ByteSet::default();
    set.insert(byte);
    Node::Set(set)
}

fn concat(mut items: Vec<Node>) -> Node {
    match items.len() {
        0 => Node::Empty,
        1 => items.pop().unwrap_or(Node::Empty),
        _ => Node::Concat(items),
    }
}

impl Node {
    /// A pattern without look-around and references that matches wherever this one does, and in other places:
    /// a value that it does not match needs no closer look.
    pub(crate) fn relaxed(&self) -> String {
        let mut out = String::new();
        self.relax(&mut out);
        out
    }

    fn relax(&self, out: &mut String) {
        match self {
            Node::Empty | Node::Look { .. } => out.push_str("(?:)"),
            Node::Set(set) => drop(set.write(out)),
            Node::Assert(assert) => out.push_str(assert.text()),
            Node::Reference { .. } => out.push_str(r"[\x00-\xFF]*"),
            Node::Concat(items) => items.iter().for_each(|item| item.relax(out)),
            Node::Alternatives(branches) => relax_branches(branches.iter(), out),
            Node::Capture(_, node) | Node::Atomic(node) => relax_branches([&**node].into_iter(), out),
            Node::Conditional { yes, no, .. } => relax_branches([&**yes, &**no].into_iter(), out),
            Node::Repeat { node, min, max, lazy } => {
                relax_branches([&**node].into_iter(), out);
                // Writing into a string does not fail.
                let _ = match max {
                    Some(max) => write!(out, "{{{min},{max}}}"),
                    None => write!(out, "{{{min},}}"),
                };
                out.push_str(if *lazy { "?" } else { "" });
            }
        }
    }

    /// Whether it needs more than the plain language of bytes.
    pub(crate) fn any(&self, is_meant: &impl Fn(&Node) -> bool) -> bool {
        is_meant(self)
            || match self {
                Node::Empty | Node::Set(_) | Node::Assert(_) | Node::Reference { .. } => false,
                Node::Concat(nodes) | Node::Alternatives(nodes) => {
                    nodes.iter().any(|node| node.any(is_meant))
                }
                Node::Repeat { node, .. } | Node::Look { node, .. } => node.any(is_meant),
                Node::Capture(_, node) | Node::Atomic(node) => node.any(is_meant),
                Node::Conditional { yes, no, .. } => yes.any(is_meant) || no.any(is_meant),
            }
    }

    /// The numbers of the groups that something refers to.
    pub(crate) fn referred(&self, to: &mut Vec<usize>) {
        match self {
            Node::Reference { group, .. } => to.push(*group),
            Node::Conditional { group, yes, no } => {
                to.push(*group);
                yes.referred(to);
                no.referred(to);
            }
            Node::Concat(nodes) | Node::Alternatives(nodes) => {
                nodes.iter().for_each(|node| node.referred(to))
            }
            Node::Repeat { node, .. } | Node::Look { node, .. } => node.referred(to),
            Node::Capture(_, node) | Node::Atomic(node) => node.referred(to),
            Node::Empty | Node::Set(_) | Node::Assert(_) => {}
        }
    }
}

fn relax_branches<'n>(branches: impl Iterator<Item = &'n Node>, out: &mut String) {
    out.push_str("(?:");
    for (n, branch) in branches.enumerate() {
        out.push_str(if n == 0 { "" } else { "|" });
        branch.relax(out);
    }
    out.push(')');
}
