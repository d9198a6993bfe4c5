//! Logical lines to a tree. Iterative throughout: neither deep nesting nor include chains use the stack.

use std::ops::{ControlFlow, Range};
use std::path::Path;

use crate::Failure;
use crate::code::{Code, text as codes};
use crate::diagnostic::Diagnostics;
use crate::files::{Files, Refusal, identity};
use crate::kinds::check_kinds;
use crate::limits::Limits;
use crate::lines::{Body, Line, Lines};
use crate::source::{Sources, Span, is_blank};
use crate::tree::{Block, Document, Entry, Item};

/// Reads a configuration file and the files that it includes.
///
/// # Errors
/// All mistakes of all files, as far as they can be told from each other.
pub fn load(path: &Path, limits: &Limits) -> Result<Document, Failure> {
    let mut parser = Parser::new(path, limits);
    let text = parser.files.read(path);
    parser.run(path, text)
}

/// Reads a configuration from memory. `path` names it in messages and is where includes are looked for.
///
/// # Errors
/// As [`load`].
pub fn parse(path: &Path, text: &[u8], limits: &Limits) -> Result<Document, Failure> {
    let mut parser = Parser::new(path, limits);
    let text = parser.files.accept(path, text);
    parser.run(path, text)
}

/// `Break`: a limit is exceeded, the rest is not worth reading.
type Flow = ControlFlow<()>;

struct Parser<'a> {
    limits: &'a Limits,
    files: Files<'a>,
    sources: Sources,
    notes: Diagnostics,
    /// The root and the blocks that are open, outermost first. Never empty.
    open: Vec<Block>,
    /// The files that are being read, the main file first.
    reading: Vec<Lines>,
    /// The `#` comments of the files that were read.
    comments: Vec<Span>,
    items: usize,
}

impl<'a> Parser<'a> {
    fn new(path: &Path, limits: &'a Limits) -> Parser<'a> {
        Parser {
            limits,
            files: Files::new(path, limits),
            sources: Sources::default(),
            notes: Diagnostics::new(limits),
            open: vec![Block::default()],
            reading: Vec::new(),
            comments: Vec::new(),
            items: 0,
        }
    }

    fn run(mut self, path: &Path, text: Result<String, Refusal>) -> Result<Document, Failure> {
        match text {
            Ok(text) => {
                self.files.claim(path);
                self.enter(path, text);
                if self.read().is_continue() {
                    self.report_unclosed();
                }
            }
            Err((message, help)) => self.notes.error(&codes::UNREADABLE, None, message, help),
        }
        while let Some(lines) = self.reading.pop() {
            self.leave(lines);
        }
        // After a limit some are still open; their contents are checked all the same.
        while self.open.len() > 1 {
            self.close();
        }
        let root = self.open.pop().unwrap_or_default();
        check_kinds(&root, &mut self.notes);
        let (failed, sources, comments) = (self.notes.has_errors(), self.sources, self.comments);
        let diagnostics = self.notes.finish();
        if failed {
            Err(Failure { sources, diagnostics, comments })
        } else {
            Ok(Document { root, sources, diagnostics, comments })
        }
    }

    fn enter(&mut self, path: &Path, text: String) {
        let id = self.sources.open(path.to_owned());
        self.reading.push(Lines::new(id, text));
    }

    fn leave(&mut self, lines: Lines) {
        let source = lines.source();
        let (text, comments) = lines.finish();
        self.sources.fill(source, text);
        self.comments.extend(comments);
    }

    fn read(&mut self) -> Flow {
        let mut line = Line::default();
        while let Some(lines) = self.reading.last_mut() {
            if lines.next(&mut line, &mut self.notes) {
                self.line(&mut line)?;
            } else if let Some(lines) = self.reading.pop() {
                self.leave(lines);
            }
        }
        Flow::Continue(())
    }

    fn line(&mut self, line: &mut Line) -> Flow {
        let body = line.body.take();
        let range = trim(&line.text, 0..line.text.len());
        let text = &line.text[range.clone()];
        if let Some(body) = body {
            return self.here_document(line, range, body);
        }
        if text.is_empty() {
            return Flow::Continue(());
        }
        if is_include(text) {
            return self.include(line, range);
        }
        match text.strip_prefix('<').and_then(|text| text.strip_suffix('>')) {
            Some("" | "/") | None => self.entry(line, range),
            Some(inner) if inner.starts_with('/') => {
                let word = inner[1..].to_owned();
                self.end_tag(&word, line.span(range));
                Flow::Continue(())
            }
            Some(_) => self.start_tag(line, range),
        }
    }

    fn start_tag(&mut self, line: &Line, range: Range<usize>) -> Flow {
        let span = line.span(range.clone());
        let mut inner = range.start + 1..range.end - 1;
        let empty = line.text[inner.clone()].ends_with('/');
        inner.end -= usize::from(empty);
        let Tag { kind, kind_range, name } = split_tag(&line.text, inner);
        let kind_span = line.span(kind_range.clone());
        if kind.starts_with(is_blank) {
            self.notes.warning(
                &codes::STRANGE_TAG,
                kind_span,
                "the blank after `<` counts: with it, the whole tag is the kind of the block".to_owned(),
                format!("write `<{}>`", kind.trim_matches(is_blank)),
            );
        }
        let name_span = name
            .as_ref()
            .map_or_else(|| Span { start: kind_span.end, ..kind_span }, |name| line.span(name.clone()));
        let name = name.map(|name| unquote_name(&line.text[name]).to_owned());
        let block = Block { kind, kind_span, name, name_span, span, items: Vec::new() };
        self.count(span)?;
        if self.open.len() > self.limits.nesting {
            let message =
                format!("{} is nested too deep: {} levels are allowed", block.tag(), self.limits.nesting);
            let help = "close the blocks that should not contain it".to_owned();
            self.notes.error(&codes::TOO_MUCH, span, message, Some(help));
            return Flow::Break(());
        }
        self.open.push(block);
        if empty {
            self.close();
        }
        Flow::Continue(())
    }

    fn end_tag(&mut self, word: &str, span: Span) {
        let Some(block) = self.open.last().filter(|_| self.open.len() > 1) else {
            let message = format!("`</{word}>` closes nothing: no block is open here");
            let help = "remove it, or look above for a block that was closed too early".to_owned();
            self.notes.error(&codes::BAD_NESTING, span, message, Some(help));
            return;
        };
        let said = word.trim_matches(is_blank).trim_end_matches('/');
        let said = said.split(is_blank).next().unwrap_or_default().trim_matches('"');
        // `eq_ignore_ascii_case`: that the case may differ surprises nobody.
        let expected = block.kind.trim_start_matches(is_blank).split(is_blank).next().unwrap_or_default();
        if !said.eq_ignore_ascii_case(expected) && self.notes.wants_warning() {
            let line = self.sources_line(block.span);
            let message =
                format!("`</{word}>` closes {} of line {line}: its word is not compared", block.tag());
            let help = format!("write `</{}>`", block.kind);
            self.notes.warning(&codes::STRANGE_TAG, span, message, help);
        }
        self.close();
    }

    /// The innermost block is complete.
    fn close(&mut self) {
        let Some(block) = self.open.pop() else { return };
        check_kinds(&block, &mut self.notes);
        match self.open.last_mut() {
            Some(parent) => parent.items.push(Item::Block(block)),
            None => self.open.push(block),
        }
    }

    fn report_unclosed(&mut self) {
        for block in &self.open[1..] {
            let kind = &block.kind;
            let line = self.sources.position(block.span).line;
            let message = format!("{} opened in line {line} is never closed", block.tag());
            let help = format!("write `</{kind}>` where it ends");
            self.notes.error(&codes::BAD_NESTING, block.span, message, Some(help));
        }
    }

    fn entry(&mut self, line: &Line, range: Range<usize>) -> Flow {
        let text = &line.text;
        let (key, value) = split_entry(text, range);
        let key_span = line.span(key.clone());
        if text[key.clone()].starts_with('<') {
            self.notes.warning(
                &codes::STRANGE_TAG,
                key_span,
                format!("`{}` begins like a tag, but is taken for an option", &text[key.clone()]),
                "a tag stands alone on its line and ends with `>`",
            );
        }
        let value_span = value.clone().map_or(Span { start: key_span.end, ..key_span }, |v| line.span(v));
        if let Some(value) = &value {
            self.warn_of_value(line, &text[key.clone()], &text[value.clone()], value_span);
        }
        let value = value.map(|value| unescape(unquote(&text[value])));
        self.add(Entry { key: text[key].to_owned(), key_span, value, value_span })
    }

    fn here_document(&mut self, line: &Line, key: Range<usize>, body: Body) -> Flow {
        let value = unescape(unquote(body.text.trim_matches(is_blank)));
        let key_span = line.span(key.clone());
        let key = line.text[key].to_owned();
        self.add(Entry { key, key_span, value: Some(value), value_span: body.span })
    }

    fn add(&mut self, entry: Entry) -> Flow {
        self.count(entry.key_span)?;
        if let Some(block) = self.open.last_mut() {
            block.items.push(Item::Entry(entry));
        }
        Flow::Continue(())
    }

    fn count(&mut self, span: Span) -> Flow {
        self.items += 1;
        if self.items <= self.limits.items {
            return Flow::Continue(());
        }
        let message = format!("too many settings: {} options and blocks are allowed", self.limits.items);
        self.notes.error(&codes::TOO_MUCH, span, message, None);
        Flow::Break(())
    }

    /// Says where a value is not what it looks like.
    fn warn_of_value(&mut self, line: &Line, key: &str, value: &str, span: Span) {
        let opened = value.starts_with('"') && (value.len() == 1 || !value.ends_with('"'));
        match line.cut {
            Some(cut) if opened && cut.has_quote => self.notes.warning(
                &codes::CUT_VALUE,
                cut.span,
                format!("this `#` cuts the value of `{key}`: quotes do not protect it"),
                "write `\\#`",
            ),
            Some(cut) if cut.glued && !value.is_empty() && !value.ends_with('"') => self.notes.warning(
                &codes::CUT_VALUE,
                cut.span,
                format!("this `#` cuts the value of `{key}`: it needs no blank before it to begin a comment"),
                "write `\\#` if it belongs to the value, or a blank before it if not",
            ),
            _ if opened && value.len() > 1 => self.notes.warning(
                &codes::STRAY_QUOTE,
                span,
                format!("the value of `{key}` begins with a quote that does not end it, so the quote stays"),
                "end the value with `\"` on the same or a continued line, or remove the quote",
            ),
            _ if opened => self.notes.warning(
                &codes::STRAY_QUOTE,
                span,
                format!("the value of `{key}` is a single quote mark, which counts as empty"),
                "write `\"\"` for an empty value and `\\\"` for a quote mark",
            ),
            _ if value.len() > 1 && value.starts_with('\'') && value.ends_with('\'') => self.notes.warning(
                &codes::STRAY_QUOTE,
                span,
                format!("single quotes mean nothing: they are a part of the value of `{key}`"),
                "use double quotes, or none",
            ),
            _ => {}
        }
    }

    fn include(&mut self, line: &Line, range: Range<usize>) -> Flow {
        let span = line.span(range.clone());
        let refuse = |notes: &mut Diagnostics, code: &'static Code, (message, help): Refusal| {
            notes.error(code, span, message, help);
        };
        let Some(name) = included_name(&line.text[range]).filter(|_| !line.joined) else {
            let help =
                Some("write `<<include FILE>>` on one line, with one blank before the name".to_owned());
            refuse(
                &mut self.notes,
                &codes::BAD_INCLUDE,
                ("this include line names no file".to_owned(), help),
            );
            return Flow::Continue(());
        };
        let includer = self.sources.get(span.source).path.clone();
        let path = match self.files.find(name, &includer) {
            Ok((path, false)) => path,
            Ok((path, true)) => {
                let shown = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
                let message = format!(
                    "`{name}` is {} only for a program that is started in the same folder as this one",
                    shown.display()
                );
                let help = "write the full path, or put the file next to this one";
                self.notes.warning(&codes::RELATIVE_PATH, span, message, help);
                path
            }
            Err(refusal) => {
                refuse(&mut self.notes, &codes::UNREADABLE, refusal);
                return Flow::Continue(());
            }
        };
        if self.reading.len() > self.limits.include_depth || self.sources.len() >= self.limits.files {
            let Limits { include_depth, files, .. } = self.limits;
            let message = format!("`{name}` is one include too many");
            let help = format!("includes may be {include_depth} deep, and {files} files may be read");
            refuse(&mut self.notes, &codes::BAD_INCLUDE, (message, Some(help)));
            return Flow::Break(());
        }
        if !self.files.claim(&path) {
            let wanted = identity(&path);
            let open = |lines: &Lines| identity(&self.sources.get(lines.source()).path) == wanted;
            if self.reading.iter().any(open) {
                let message = format!("`{name}` includes itself, directly or through another file");
                let help = Some("remove the line that closes the loop".to_owned());
                refuse(&mut self.notes, &codes::BAD_INCLUDE, (message, help));
                return Flow::Continue(());
            }
            let message = format!("`{name}` was read before, so this line includes nothing");
            let help = "a file is read once; remove the line, or copy the file";
            self.notes.warning(&codes::INCLUDED_AGAIN, span, message, help);
            return Flow::Continue(());
        }
        match self.files.read(&path) {
            Ok(text) => self.enter(&path, text),
            Err(refusal) => refuse(&mut self.notes, &codes::UNREADABLE, refusal),
        }
        Flow::Continue(())
    }

    /// The line of a place in a file that is still being read, so that `sources` has no text of it yet.
    fn sources_line(&self, span: Span) -> u32 {
        match self.reading.iter().find(|lines| lines.source() == span.source) {
            Some(lines) => lines.line_of(span.start as usize),
            None => self.sources.position(span).line,
        }
    }
}

struct Tag {
    kind: String,
    /// With its quotes.
    kind_range: Range<usize>,
    /// With its quotes.
    name: Option<Range<usize>>,
}

/// Splits the inside of an opening tag. Blanks before the kind and after the name belong to them.
fn split_tag(text: &str, inner: Range<usize>) -> Tag {
    let tag = &text[inner.clone()];
    let quoted = tag
        .strip_prefix('"')
        .and_then(|rest| rest.find('"'))
        .map(|length| length + 2)
        .filter(|&end| end > 2 && tag[end..].chars().next().is_none_or(is_blank));
    let plain = tag.find(is_blank).filter(|&at| at > 0);
    let end = quoted.or(plain).unwrap_or(tag.len());
    let kind_range = inner.start..inner.start + end;
    let kind = if quoted.is_some() { &tag[1..end - 1] } else { &tag[..end] };
    let name =
        (end < tag.len()).then(|| inner.end - tag[end..].trim_start_matches(is_blank).len()..inner.end);
    Tag { kind: kind.to_owned(), kind_range, name }
}

/// A name loses its quotes only if there are no others inside.
fn unquote_name(name: &str) -> &str {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(inner) if !inner.is_empty() && !inner.contains('"') => inner,
        _ => name,
    }
}

/// Splits at the first `=`, or at the first run of blanks if that comes first and no `=` follows it.
fn split_entry(text: &str, range: Range<usize>) -> (Range<usize>, Option<Range<usize>>) {
    let line = &text[range.clone()];
    let Some(at) = line.find(|c| c == '=' || is_blank(c)) else { return (range, None) };
    let behind = line[at..].trim_start_matches(is_blank);
    let behind = behind.strip_prefix('=').unwrap_or(behind).trim_start_matches(is_blank);
    (range.start..range.start + at, Some(range.end - behind.len()..range.end))
}

/// Takes one double quote from each end, if there is one at each end. A lone one is both.
fn unquote(value: &str) -> &str {
    match value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
        Some(inner) => inner,
        None if value == "\"" => "",
        None => value,
    }
}

/// Removes the backslash before `$`, `\`, `"` and `#`; every other one stays.
fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('\\') {
        let escaped = rest[at + 1..].starts_with(['$', '\\', '"', '#']);
        text.push_str(&rest[..at + usize::from(!escaped)]);
        // An escaped character is copied here, so that a second backslash begins nothing.
        let next = at + 1 + usize::from(escaped);
        text.push_str(&rest[at + 1..next]);
        rest = &rest[next..];
    }
    text.push_str(rest);
    text
}

fn is_include(text: &str) -> bool {
    const START: &str = "<<include";
    let behind = text.get(..START.len()).filter(|start| start.eq_ignore_ascii_case(START));
    behind.is_some() && text[START.len()..].starts_with(|c| is_blank(c) || c == '>') && text.ends_with(">>")
}

/// The file that a line includes, as written.
fn included_name(text: &str) -> Option<&str> {
    let name = text.get("<<include".len()..text.len().checked_sub(2)?)?;
    let name = name.trim_matches(is_blank);
    (!name.is_empty()).then_some(name)
}

/// Narrows a range to what is not blank.
fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let start = range.end - text[range.clone()].trim_start_matches(is_blank).len();
    start..start + text[start..range.end].trim_end_matches(is_blank).len()
}
