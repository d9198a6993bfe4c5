//! What a parenthesis opens and closes, and the references to what groups captured.
//!
//! Knows: groups, flags, names, numbers. Must not know: single characters and quantifiers.

use super::{Atom, Capture, NESTING_MAX, NEVER, Translator};
use crate::PatternError;

/// The flags that are in force at a place of the pattern.
#[derive(Clone, Copy, Default)]
pub(super) struct Flags {
    /// `i`
    pub(super) fold: bool,
    /// `m`
    pub(super) multi_line: bool,
    /// `s`
    pub(super) dot_all: bool,
    /// `x`
    pub(super) ignore: bool,
    /// `xx`: blanks in bracketed classes too.
    pub(super) ignore_more: bool,
    /// `n`
    pub(super) no_capture: bool,
}

/// A group that is open.
#[derive(Default)]
pub(super) struct Group {
    /// Where it was opened, in the pattern and in the output.
    pub(super) at: usize,
    start: usize,
    kind: GroupKind,
    /// The flags to go back to after it.
    outside: Flags,
    pub(super) consumes: bool,
    pub(super) size: usize,
    /// Whether a `$` that stands last is in the branch read now, and in one before.
    pub(super) dollar: bool,
    dollar_before: bool,
}

#[derive(Default)]
enum GroupKind {
    #[default]
    Plain,
    Look,
    /// `(?|...)`: each branch counts its captures from `first`.
    BranchReset {
        first: usize,
        highest: usize,
    },
    /// `(?(1)yes|no)` or `(?(?=...)yes|no)`.
    Conditional {
        /// What opens the second branch, if the crates have no conditional of this kind.
        otherwise: Option<String>,
        second: bool,
    },
    /// The look-around of such a conditional, and the number of captures before it.
    Condition {
        captures: usize,
        opposite: &'static str,
    },
}

/// What a back-reference refers to.
pub(super) enum Reference {
    Number(usize),
    Name(String),
}

/// The look-arounds: how they start in both languages, their long name, and their opposite.
const LOOKS: [(&str, &str, &str, &str); 4] = [
    ("?=", "pla", "positive_lookahead", "?!"),
    ("?!", "nla", "negative_lookahead", "?="),
    ("?<=", "plb", "positive_lookbehind", "?<!"),
    ("?<!", "nlb", "negative_lookbehind", "?<="),
];

impl Translator<'_> {
    /// The innermost group that is open; the pattern itself never closes.
    pub(super) fn group(&mut self) -> &mut Group {
        let last = self.groups.len() - 1;
        &mut self.groups[last]
    }

    fn push(&mut self, at: usize, kind: GroupKind, text: &str) -> Result<(), PatternError> {
        if self.groups.len() > NESTING_MAX {
            return Err(PatternError::at(at, format!("groups nested deeper than {NESTING_MAX}")));
        }
        let (start, outside) = (self.out.len(), self.flags);
        self.groups.push(Group { at, start, kind, outside, ..Group::default() });
        self.out.push_str(text);
        Ok(())
    }

    fn capture(&mut self, at: usize, name: Option<String>) -> Result<(), PatternError> {
        self.last_number += 1;
        self.captures.push(Capture { number: self.last_number, name });
        // Capturing makes matching dearer, so it is done only for those who read it.
        let text = if self.known.is_some() && self.refers { "(" } else { "(?:" };
        self.push(at, GroupKind::Plain, text)
    }

    /// Reads what follows a `(`. An atom comes out if the whole group was read already.
    pub(super) fn open_group(&mut self, at: usize) -> Result<Option<Atom>, PatternError> {
        if self.cursor.eat("*") {
            return self.verb(at);
        }
        if !self.cursor.eat("?") {
            if self.flags.no_capture {
                self.push(at, GroupKind::Plain, "(?:")?;
            } else {
                self.capture(at, None)?;
            }
            return Ok(None);
        }
        self.cursor.at -= 1;
        if self.look(at)? {
            return Ok(None);
        }
        self.cursor.at += 1;
        let letter = self.cursor.next().ok_or_else(|| PatternError::at(at, "(? is incomplete"))?;
        match letter {
            b'<' => self.named(at, b'>')?,
            b'\'' => self.named(at, b'\'')?,
            b'P' => match self.cursor.next() {
                Some(b'<') => self.named(at, b'>')?,
                Some(b'=') => {
                    let name = self.cursor.name(b')')?;
                    return self.back_reference(super::Reference::Name(name), at).map(Some);
                }
                Some(b'>') => return Err(PatternError::unsupported(at, "recursion")),
                _ => return Err(PatternError::at(at, "(?P must be followed by <, = or >")),
            },
            b'>' => {
                self.backtracks = true;
                self.push(at, GroupKind::Plain, "(?>")?;
            }
            b'|' => {
                let first = self.last_number;
                self.push(at, GroupKind::BranchReset { first, highest: first }, "(?:")?;
            }
            b'(' => self.conditional(at)?,
            b'R' | b'0'..=b'9' | b'&' | b'+' => return Err(PatternError::unsupported(at, "recursion")),
            b'-' if matches!(self.cursor.peek(), Some(b'0'..=b'9')) => {
                return Err(PatternError::unsupported(at, "recursion"));
            }
            b'{' | b'?' => return Err(PatternError::unsupported(at, "code in a pattern")),
            b'[' => return Err(PatternError::unsupported(at, "the extended class (?[...])")),
            _ => {
                self.cursor.at -= 1;
                self.inline_flags(at)?;
            }
        }
        Ok(None)
    }

    fn named(&mut self, at: usize, end: u8) -> Result<(), PatternError> {
        let name = self.cursor.name(end)?;
        self.capture(at, Some(name))
    }

    /// Opens a look-around, if one stands here in its short form.
    fn look(&mut self, at: usize) -> Result<bool, PatternError> {
        for (text, ..) in LOOKS {
            if self.cursor.eat(text) {
                self.backtracks = true;
                self.push(at, GroupKind::Look, &format!("({text}"))?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// `(*pla:...)` and its like, and the control verb that is only a way to say no.
    fn verb(&mut self, at: usize) -> Result<Option<Atom>, PatternError> {
        let name = self.cursor.take_while(usize::MAX, |byte| byte == b'_' || byte.is_ascii_alphanumeric());
        let name = String::from_utf8_lossy(name).into_owned();
        match self.cursor.next() {
            Some(b':') => {
                let look = LOOKS.iter().find(|(_, short, long, _)| name == *short || name == *long);
                if let Some((text, ..)) = look {
                    self.backtracks = true;
                    self.push(at, GroupKind::Look, &format!("({text}"))?;
                    return Ok(None);
                }
                if name == "atomic" {
                    self.backtracks = true;
                    self.push(at, GroupKind::Plain, "(?>")?;
                    return Ok(None);
                }
            }
            Some(b')') if matches!(&*name, "F" | "FAIL") => {
                return Ok(Some(Atom { zero_width: false, ..self.assertion(NEVER) }));
            }
            Some(b')') => {}
            _ => return Err(PatternError::at(at, "unmatched (*")),
        }
        Err(PatternError::unsupported(at, format!("(*{name})")))
    }

    fn conditional(&mut self, at: usize) -> Result<(), PatternError> {
        self.backtracks = true;
        let plain = GroupKind::Conditional { otherwise: None, second: false };
        let condition = self.cursor.at;
        if let Some(look) = LOOKS.iter().find(|(text, ..)| self.cursor.eat(text)) {
            self.push(at, plain, "(?:")?;
            let kind = GroupKind::Condition { captures: self.captures.len(), opposite: look.3 };
            return self.push(condition, kind, &format!("({}", look.0));
        }
        let reference = match self.cursor.peek() {
            Some(b'1'..=b'9') => {
                let number = self.cursor.number().unwrap_or(usize::MAX);
                Some(Reference::Number(number))
            }
            Some(quote @ (b'<' | b'\'')) => {
                self.cursor.at += 1;
                Some(Reference::Name(self.cursor.name(if quote == b'<' { b'>' } else { b'\'' })?))
            }
            _ => None,
        };
        let Some(reference) = reference.filter(|_| self.cursor.eat(")")) else {
            return Err(PatternError::unsupported(at, "this condition"));
        };
        self.refers = true;
        let text = match (&reference, &*self.places(&reference)) {
            (_, [place]) => format!("(?({place})"),
            // A group that is nowhere never captured anything.
            (Reference::Number(_), []) => format!("(?:{NEVER}"),
            (Reference::Name(_), []) if self.known.is_none() => "(?:".to_owned(),
            (Reference::Name(name), []) => return Err(no_such_name(at, name)),
            _ => return Err(PatternError::unsupported(at, "a condition on several groups")),
        };
        self.push(at, plain, &text)
    }

    /// `(?i)`, `(?i:...)`, `(?^i-s)`; the cursor stands on the first flag.
    fn inline_flags(&mut self, at: usize) -> Result<(), PatternError> {
        let outside = self.flags;
        let mut flags = outside;
        let reset = self.cursor.eat("^");
        if reset {
            flags = Flags::default();
        }
        let mut on = true;
        loop {
            match self.cursor.next() {
                Some(b'i') => flags.fold = on,
                Some(b'm') => flags.multi_line = on,
                Some(b's') => flags.dot_all = on,
                Some(b'n') => flags.no_capture = on,
                Some(b'x') => {
                    flags.ignore = on;
                    flags.ignore_more = on && self.cursor.eat("x");
                }
                // They say where bytes are letters as they are here already, or nothing inside a pattern.
                Some(b'a' | b'd') if on => {}
                Some(b'p' | b'g' | b'c' | b'o') => {}
                Some(b'u' | b'l') if on => {
                    return Err(PatternError::unsupported(at, "a flag that changes the character set"));
                }
                Some(b'-') if on && !reset => on = false,
                Some(b')') => {
                    self.flags = flags;
                    // Perl refuses to repeat a change of flags.
                    self.skip_ignored()?;
                    return match self.cursor.peek() {
                        Some(b'*' | b'+' | b'?') => {
                            Err(PatternError::at(self.cursor.at, "quantifier follows nothing"))
                        }
                        _ => Ok(()),
                    };
                }
                Some(b':') => {
                    self.push(at, GroupKind::Plain, "(?:")?;
                    self.flags = flags;
                    return Ok(());
                }
                Some(other) => {
                    let what = format!("unknown flag {:?} after (?", char::from(other));
                    return Err(PatternError::at(self.cursor.at - 1, what));
                }
                None => return Err(PatternError::at(at, "unmatched (?")),
            }
        }
    }

    pub(super) fn alternative(&mut self, at: usize) -> Result<(), PatternError> {
        let last_number = self.last_number;
        let group = self.group();
        group.dollar_before |= group.dollar;
        group.dollar = false;
        let mut text = "|".to_owned();
        let mut number = last_number;
        match &mut group.kind {
            GroupKind::BranchReset { first, highest } => {
                *highest = last_number.max(*highest);
                number = *first;
            }
            GroupKind::Conditional { second: true, .. } => {
                return Err(PatternError::at(at, "a condition has only two branches"));
            }
            GroupKind::Conditional { otherwise, second } => {
                *second = true;
                text.push_str(otherwise.as_deref().unwrap_or_default());
            }
            GroupKind::Plain | GroupKind::Look | GroupKind::Condition { .. } => {}
        }
        self.last_number = number;
        self.out.push_str(&text);
        Ok(())
    }

    /// Closes the innermost group. Nothing comes out of the condition of a conditional, which is not
    /// repeated.
    pub(super) fn close_group(&mut self, at: usize) -> Result<Option<Atom>, PatternError> {
        let Some(group) = (self.groups.len() > 1).then(|| self.groups.pop()).flatten() else {
            return Err(PatternError::at(at, "unmatched )"));
        };
        self.flags = group.outside;
        let mut zero_width = !group.consumes;
        let mut ends_in_dollar = group.dollar || group.dollar_before;
        match group.kind {
            GroupKind::Plain => {}
            GroupKind::Look => {
                zero_width = true;
                // What a look-ahead takes, it gives back; a look-behind must end where it stands.
                self.newline_matters |= ends_in_dollar && self.out[group.start..].starts_with("(?<");
                ends_in_dollar = false;
            }
            GroupKind::BranchReset { highest, .. } => self.last_number = self.last_number.max(highest),
            GroupKind::Conditional { otherwise: Some(otherwise), second: false } => {
                self.out.push('|');
                self.out.push_str(&otherwise);
            }
            GroupKind::Conditional { second: false, .. } => self.out.push('|'),
            GroupKind::Conditional { .. } => {}
            GroupKind::Condition { captures, opposite } => {
                if captures < self.captures.len() {
                    return Err(PatternError::unsupported(group.at, "a group inside a condition"));
                }
                self.newline_matters |= ends_in_dollar;
                self.out.push(')');
                let positive = &self.out[group.start..];
                let inner = positive.trim_start_matches(['(', '?', '<']);
                let negative = format!("({opposite}{}", &inner[1..]);
                if let GroupKind::Conditional { otherwise, .. } = &mut self.group().kind {
                    *otherwise = Some(negative);
                }
                return Ok(None);
            }
        }
        self.out.push(')');
        Ok(Some(Atom { start: group.start, zero_width, size: group.size.saturating_add(1), ends_in_dollar }))
    }

    /// The rest of `\g1`, `\g{-1}`, `\g{name}`.
    pub(super) fn reference_g(&mut self, at: usize) -> Result<Reference, PatternError> {
        let braces = self.cursor.eat("{");
        let relative = self.cursor.eat("-");
        let reference = match self.cursor.number() {
            Some(0) => return Err(no_such_group(at)),
            Some(number) if relative => match (self.last_number + 1).checked_sub(number) {
                Some(number) if number > 0 => Reference::Number(number),
                _ => return Err(no_such_group(at)),
            },
            Some(number) => Reference::Number(number),
            None if braces && !relative => return self.cursor.name(b'}').map(Reference::Name),
            None => return Err(PatternError::at(at, r"\g needs a number or {name}")),
        };
        if braces && !self.cursor.eat("}") {
            return Err(PatternError::at(at, r"missing } after \g{"));
        }
        Ok(reference)
    }

    pub(super) fn back_reference(&mut self, to: Reference, at: usize) -> Result<Atom, PatternError> {
        self.refers = true;
        let places = self.places(&to);
        if self.known.is_some() && places.is_empty() {
            return Err(match to {
                Reference::Number(_) => no_such_group(at),
                Reference::Name(name) => no_such_name(at, &name),
            });
        }
        // Of several groups, the first that captured something counts, whether it then matches or not.
        let mut text = String::new();
        for (index, place) in places.iter().enumerate() {
            if index + 1 < places.len() {
                text.push_str(&format!("(?({place})\\{place}|"));
            } else {
                text.push_str(&format!("\\{place}"));
            }
        }
        text.push_str(&")".repeat(places.len().saturating_sub(1)));
        let flags = if self.flags.fold { "(?i:" } else { "(?:" };
        Ok(self.backtracking(&format!("{flags}{text})")))
    }

    /// The numbers that the referred groups have in the output.
    fn places(&self, reference: &Reference) -> Vec<usize> {
        let is_meant = |capture: &Capture| match reference {
            Reference::Number(number) => capture.number == *number,
            Reference::Name(name) => capture.name.as_ref() == Some(name),
        };
        let captures = self.known.iter().flatten();
        captures.enumerate().filter(|(_, capture)| is_meant(capture)).map(|(index, _)| index + 1).collect()
    }
}

fn no_such_group(at: usize) -> PatternError {
    PatternError::at(at, "reference to a group that does not exist")
}

fn no_such_name(at: usize, name: &str) -> PatternError {
    PatternError::at(at, format!("reference to a group {name:?} that does not exist"))
}
