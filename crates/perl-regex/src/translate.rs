//! Rewrites a Perl pattern into the language that `regex` and `fancy-regex` share.
//!
//! Everything that depends on context is resolved here: flags, names, relative numbers, comments, blanks, the
//! many spellings of one character. What comes out are bytes (`\xC3`), classes of ranges, plain groups,
//! quantifiers and a few assertions, so that the two crates cannot read it differently from Perl or from each
//! other.
//!
//! One pass with an explicit stack of groups: no nesting of the pattern can exhaust the program's stack.
//! Patterns with back-references take a second pass, when all groups are known.
//!
//! Knows: Perl's syntax. Must not know: how patterns are run.

mod groups;

use super::PatternError;
use super::class::{ByteSet, NEVER, push_byte};
use super::scan::{self, Cursor, Single};
use groups::{Flags, Group, Reference};

/// The largest number in a quantifier, as in Perl 5.36.
const REPEAT_MAX: usize = 65_534;

/// How deep groups may be nested: both crates give up at some depth, `fancy-regex` at 64, and quantifiers may
/// add a group around each.
const NESTING_MAX: usize = 30;

/// A rewritten pattern.
#[derive(Clone)]
pub(super) struct Translation {
    pub(super) source: String,
    /// Whether it needs the engine that backtracks.
    pub(super) backtracks: bool,
    /// The approximate number of steps of the compiled pattern, repetitions written out.
    pub(super) size: usize,
}

/// A group that captures, as the first pass found it.
#[derive(Clone)]
struct Capture {
    /// Its number in Perl, which `(?|...)` may give out twice.
    number: usize,
    name: Option<String>,
}

/// Rewrites the pattern.
pub(super) fn translate(text: &str) -> Result<Translation, PatternError> {
    let first = Translator::new(text, None).run()?;
    let done = if first.backtracks || first.newline_matters {
        let (refers, newline_matters) = (first.refers, first.newline_matters);
        Translator { refers, newline_matters, ..Translator::new(text, Some(first.captures)) }.run()?
    } else {
        first
    };
    Ok(Translation { source: done.out, backtracks: done.backtracks, size: done.groups[0].size })
}

/// Rewrites the pattern for those who want to know what its groups have matched, and says which number each
/// group that captures has in Perl, where `(?|...)` gives one out twice.
pub(super) fn translate_capturing(text: &str) -> Result<(Translation, Vec<usize>), PatternError> {
    let Translator { captures, newline_matters, .. } = Translator::new(text, None).run()?;
    let numbers = captures.iter().map(|capture| capture.number).collect();
    let second = Translator { refers: true, newline_matters, ..Translator::new(text, Some(captures)) };
    let done = second.run()?;
    let translation = Translation { source: done.out, backtracks: true, size: done.groups[0].size };
    Ok((translation, numbers))
}

struct Translator<'p> {
    cursor: Cursor<'p>,
    out: String,
    flags: Flags,
    /// The groups that are open; the first is the pattern itself.
    groups: Vec<Group>,
    /// The captures so far; the place in this list, plus one, is the number in `out`.
    captures: Vec<Capture>,
    /// The captures of the whole pattern in the second pass, which writes for the engine that backtracks.
    known: Option<Vec<Capture>>,
    /// The last number given to a capture.
    last_number: usize,
    backtracks: bool,
    /// Whether anything refers to a capture; in the second pass, what the first found.
    refers: bool,
    /// Whether a `$` must leave the newline before the end; in the second pass, what the first found.
    newline_matters: bool,
}

/// What was just written and may get a quantifier.
struct Atom {
    /// Where it starts in the output.
    start: usize,
    /// Whether it never takes a byte: repeating it means nothing, and the crates refuse it.
    zero_width: bool,
    size: usize,
    /// Whether a `$` that stands last is in it.
    ends_in_dollar: bool,
}

impl<'p> Translator<'p> {
    fn new(text: &'p str, known: Option<Vec<Capture>>) -> Translator<'p> {
        Translator {
            cursor: Cursor::new(text),
            out: String::with_capacity(text.len() * 2),
            flags: Flags::default(),
            groups: vec![Group::default()],
            captures: Vec::new(),
            // The first pass need not write for the engine that backtracks: the second will.
            backtracks: known.is_some(),
            known,
            last_number: 0,
            refers: false,
            newline_matters: false,
        }
    }

    fn run(mut self) -> Result<Self, PatternError> {
        loop {
            self.skip_ignored()?;
            let start = self.out.len();
            let at = self.cursor.at;
            let Some(byte) = self.cursor.next() else { break };
            let atom = match byte {
                b'(' => self.open_group(at)?,
                b')' => self.close_group(at)?,
                b'|' => {
                    self.alternative(at)?;
                    None
                }
                b'*' | b'+' | b'?' => return Err(PatternError::at(at, "quantifier follows nothing")),
                b'[' => {
                    let set = scan::bracketed(&mut self.cursor, self.flags.ignore_more, self.flags.fold)?;
                    Some(self.set(set))
                }
                b'.' if self.flags.dot_all => Some(self.set(ByteSet::of(|_| true))),
                b'.' => Some(self.set(not_newline())),
                b'^' if self.flags.multi_line => Some(self.assertion("(?m:^)")),
                b'^' => Some(self.assertion(r"\A")),
                b'$' if self.flags.multi_line => Some(self.assertion("(?m:$)")),
                b'$' => Some(self.end()),
                b'\\' => Some(self.escape(at)?),
                literal => Some(self.literal(literal)),
            };
            if let Some(atom) = atom {
                debug_assert!(atom.start <= start);
                self.quantified(atom)?;
            }
        }
        match self.groups.last() {
            Some(group) if self.groups.len() > 1 => Err(PatternError::at(group.at, "unmatched (")),
            _ => Ok(self),
        }
    }

    /// Steps over comments and, under the flag `x`, blanks.
    fn skip_ignored(&mut self) -> Result<(), PatternError> {
        loop {
            let at = self.cursor.at;
            if self.cursor.eat("(?#") {
                if self.cursor.take_until(b')').is_none() {
                    return Err(PatternError::at(at, "unmatched (?#"));
                }
            } else if self.flags.ignore {
                self.cursor.take_while(usize::MAX, |byte| matches!(byte, b'\t'..=b'\r' | b' '));
                if self.cursor.eat("#") {
                    self.cursor.take_while(usize::MAX, |byte| byte != b'\n');
                }
            }
            if self.cursor.at == at {
                return Ok(());
            }
        }
    }

    fn literal(&mut self, byte: u8) -> Atom {
        if self.flags.fold && byte.is_ascii_alphabetic() {
            let mut both = ByteSet::default();
            both.insert(byte);
            return self.set(both.folded());
        }
        let start = self.out.len();
        push_byte(&mut self.out, byte);
        Atom { start, zero_width: false, size: 1, ends_in_dollar: false }
    }

    fn set(&mut self, set: ByteSet) -> Atom {
        let start = self.out.len();
        let size = set.write(&mut self.out);
        Atom { start, zero_width: false, size, ends_in_dollar: false }
    }

    fn assertion(&mut self, text: &str) -> Atom {
        let start = self.out.len();
        self.out.push_str(text);
        Atom { start, zero_width: true, size: 1, ends_in_dollar: false }
    }

    /// Something only the backtracking engine has.
    fn backtracking(&mut self, text: &str) -> Atom {
        self.backtracks = true;
        Atom { zero_width: false, ..self.assertion(text) }
    }

    /// `$`: the end, or before the newline at the end. Where nothing comes after it, it may as well take that
    /// newline, which keeps nearly all patterns linear.
    fn end(&mut self) -> Atom {
        if self.known.is_some() && self.newline_matters {
            return self.assertion(r"(?=\n?\z)");
        }
        Atom { ends_in_dollar: true, ..self.assertion(r"(?:\n?\z)") }
    }

    fn escape(&mut self, at: usize) -> Result<Atom, PatternError> {
        match scan::single(&mut self.cursor)? {
            Some(Single::Byte(byte)) => return Ok(self.literal(byte)),
            Some(Single::Set(set)) => {
                let set = if self.flags.fold { set.folded() } else { set };
                return Ok(self.set(set));
            }
            None => {}
        }
        let letter = self.cursor.next().unwrap_or(b'\\');
        Ok(match letter {
            b'A' | b'G' => self.assertion(r"\A"),
            b'z' => self.assertion(r"\z"),
            b'Z' => self.end(),
            b'b' | b'B' if self.cursor.peek() == Some(b'{') => {
                return Err(PatternError::unsupported(at, format!(r"\{}{{...}}", char::from(letter))));
            }
            b'b' => self.assertion(r"\b"),
            b'B' => self.assertion(r"\B"),
            b'N' => {
                let mut ahead = self.cursor;
                if ahead.peek() == Some(b'{') && quantifier(&mut ahead)?.is_none() {
                    return Err(PatternError::unsupported(at, r"a character by its name"));
                }
                self.set(not_newline())
            }
            b'R' => self.backtracking(r"(?>\x0D\x0A|[\x0A-\x0D\x85])"),
            // It changes where a match starts, not whether there is one.
            b'K' => self.assertion("(?:)"),
            b'X' => return Err(PatternError::unsupported(at, r"\X")),
            b'C' => return Err(PatternError::at(at, r"\C is not known to Perl any more")),
            b'1'..=b'9' => self.number_or_octal(at)?,
            b'g' => {
                let reference = self.reference_g(at)?;
                self.back_reference(reference, at)?
            }
            b'k' => {
                let end = match self.cursor.next() {
                    Some(b'<') => b'>',
                    Some(b'\'') => b'\'',
                    Some(b'{') => b'}',
                    _ => return Err(PatternError::at(at, r"\k needs <name>")),
                };
                let name = self.cursor.name(end)?;
                self.back_reference(Reference::Name(name), at)?
            }
            // Letters that mean nothing stand for themselves, so do `\Q` and `\E`: Perl reads them in a
            // program's text, not in a variable.
            other => self.literal(other),
        })
    }

    /// `\1` is always a reference, `\10` only if there are ten groups.
    fn number_or_octal(&mut self, at: usize) -> Result<Atom, PatternError> {
        self.cursor.at -= 1;
        let mut ahead = self.cursor;
        let number = ahead.number().unwrap_or(usize::MAX);
        let total = self.known.iter().flatten().map(|capture| capture.number).max().unwrap_or(0);
        let octal = number > 9 && self.known.is_some() && number > total;
        if octal && matches!(self.cursor.peek(), Some(b'1'..=b'7')) {
            let byte = scan::octal(&mut self.cursor, at)?;
            return Ok(self.literal(byte));
        }
        self.cursor = ahead;
        self.back_reference(Reference::Number(number), at)
    }

    /// Reads the quantifier after an atom, if there is one, and enters the atom into its group.
    fn quantified(&mut self, mut atom: Atom) -> Result<(), PatternError> {
        self.skip_ignored()?;
        let at = self.cursor.at;
        if let Some((min, max)) = quantifier(&mut self.cursor)? {
            self.skip_ignored()?;
            let lazy = self.cursor.eat("?");
            let possessive = !lazy && self.cursor.eat("+");
            self.skip_ignored()?;
            let nested = self.cursor.at;
            if quantifier(&mut self.cursor)?.is_some() {
                return Err(PatternError::at(nested, "nested quantifiers"));
            }
            if max.is_some_and(|max| max > REPEAT_MAX) || min > REPEAT_MAX {
                return Err(PatternError::at(at, format!("a quantifier above {REPEAT_MAX}")));
            }
            self.repeat(&mut atom, min, max, lazy);
            if possessive && !atom.zero_width {
                self.backtracks = true;
                self.out.insert_str(atom.start, "(?>");
                self.out.push(')');
            }
        }
        self.enter(&atom);
        Ok(())
    }

    fn repeat(&mut self, atom: &mut Atom, min: usize, max: Option<usize>, lazy: bool) {
        // Any text after a `$` may meet the newline that the `$` took.
        self.newline_matters |= atom.ends_in_dollar && max != Some(1);
        if max.is_some_and(|max| max < min) {
            self.out.insert_str(atom.start, &format!("(?:{NEVER}"));
            self.out.push(')');
        } else if atom.zero_width {
            if max == Some(0) {
                // Its groups have never captured anything.
                self.out.push_str(NEVER);
            }
            if min == 0 {
                self.out.insert_str(atom.start, "(?:");
                self.out.push_str("|)");
            }
        } else {
            self.out.push_str(&match (min, max) {
                (0, None) => "*".to_owned(),
                (1, None) => "+".to_owned(),
                (0, Some(1)) => "?".to_owned(),
                (min, None) => format!("{{{min},}}"),
                (min, Some(max)) if min == max => format!("{{{min}}}"),
                (min, Some(max)) => format!("{{{min},{max}}}"),
            });
            if lazy {
                self.out.push('?');
            }
            atom.size = atom.size.saturating_mul(max.unwrap_or(min + 1).max(1)).saturating_add(1);
        }
    }

    /// Adds a finished atom to the group that is open.
    fn enter(&mut self, atom: &Atom) {
        let group = self.group();
        let followed = group.dollar;
        group.consumes |= !atom.zero_width;
        group.size = group.size.saturating_add(atom.size);
        group.dollar |= atom.ends_in_dollar;
        self.newline_matters |= followed;
    }
}

fn not_newline() -> ByteSet {
    ByteSet::of(|byte| byte != b'\n')
}

/// Reads `*`, `+`, `?` or `{1,3}`; a brace that opens no quantifier is left, it is a literal.
fn quantifier(cursor: &mut Cursor<'_>) -> Result<Option<(usize, Option<usize>)>, PatternError> {
    let simple = match cursor.peek() {
        Some(b'*') => (0, None),
        Some(b'+') => (1, None),
        Some(b'?') => (0, Some(1)),
        Some(b'{') => return braces(cursor),
        _ => return Ok(None),
    };
    cursor.at += 1;
    Ok(Some(simple))
}

/// `{3}`, `{3,}`, `{3,5}`, and since Perl 5.34 `{,5}` and blanks inside the braces.
fn braces(cursor: &mut Cursor<'_>) -> Result<Option<(usize, Option<usize>)>, PatternError> {
    let start = cursor.at;
    let mut ahead = *cursor;
    ahead.at += 1;
    let (min, min_padded) = bound(&mut ahead);
    let (max, max_padded) = if ahead.eat(",") { bound(&mut ahead) } else { (min, false) };
    if (min.is_none() && max.is_none()) || !ahead.eat("}") {
        return Ok(None);
    }
    if min_padded || max_padded {
        return Err(PatternError::at(start, "a number in a quantifier must not start with 0"));
    }
    *cursor = ahead;
    Ok(Some((min.unwrap_or(0), max)))
}

/// A number with blanks around it, and whether it starts with a needless zero.
fn bound(cursor: &mut Cursor<'_>) -> (Option<usize>, bool) {
    let blank = |byte| matches!(byte, b' ' | b'\t');
    cursor.take_while(usize::MAX, blank);
    let padded = matches!(cursor.rest(), [b'0', b'0'..=b'9', ..]);
    let number = cursor.number();
    cursor.take_while(usize::MAX, blank);
    (number, padded)
}
