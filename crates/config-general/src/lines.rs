//! Physical lines to logical lines: comments cut, continuations joined, here-documents collected.
//!
//! The order of the steps is the dialect's, and most of its surprises come from it: comments are cut before
//! anybody looks at quotes, and a here-document is only seen on a line that continues no other.

use std::ops::Range;

use crate::code::text;
use crate::diagnostic::Diagnostics;
use crate::source::{SourceId, Span, is_blank};

/// The text of a line, put together from pieces of one file.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) text: String,
    /// Where each piece begins: in `text`, and in the file.
    pieces: Vec<(usize, usize)>,
    source: SourceId,
    /// Whether it was continued over several physical lines.
    pub(crate) joined: bool,
    /// The last `#` comment that was cut off.
    pub(crate) cut: Option<Cut>,
    /// The here-document that follows; `text` is then the key.
    pub(crate) body: Option<Body>,
}

/// A `#` comment.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    /// From the `#` to the end of the line.
    pub(crate) span: Span,
    /// Whether it holds a double quote.
    pub(crate) has_quote: bool,
    /// Whether it follows the text without a blank.
    pub(crate) glued: bool,
}

/// The lines of a here-document, without the indentation of its end mark.
pub(crate) struct Body {
    pub(crate) text: String,
    pub(crate) span: Span,
}

impl Line {
    fn clear(&mut self, source: SourceId) {
        // The buffers stay: a file may have a hundred thousand lines.
        self.text.clear();
        self.pieces.clear();
        self.source = source;
        self.joined = false;
        self.cut = None;
        self.body = None;
    }

    fn push(&mut self, text: &str, at: usize) {
        if !text.is_empty() {
            self.pieces.push((self.text.len(), at));
            self.text.push_str(text);
        }
    }

    /// Adds a range of another line of the same file.
    fn append(&mut self, other: &Line, range: Range<usize>) {
        for (i, &(from, at)) in other.pieces.iter().enumerate() {
            let end = other.pieces.get(i + 1).map_or(other.text.len(), |next| next.0).min(range.end);
            let start = from.max(range.start);
            if start < end {
                self.push(&other.text[start..end], at + start - from);
            }
        }
        self.cut = other.cut.or(self.cut);
    }

    fn offset(&self, at: usize) -> usize {
        let i = self.pieces.partition_point(|piece| piece.0 <= at);
        i.checked_sub(1).map_or(0, |i| self.pieces[i].1 + at - self.pieces[i].0)
    }

    /// Where a range of the text stands in the file; comments inside are included.
    pub(crate) fn span(&self, range: Range<usize>) -> Span {
        let Some(last) = range.end.checked_sub(1).filter(|&last| last >= range.start) else {
            // Behind the last piece there is no byte to point at, only the end of the one before.
            let at =
                range.start.checked_sub(1).map_or_else(|| self.offset(0), |before| self.offset(before) + 1);
            return Span::new(self.source, at, at);
        };
        Span::new(self.source, self.offset(range.start), self.offset(last) + 1)
    }
}

/// A cursor over the logical lines of one file. It owns the text until [`Lines::finish`].
pub(crate) struct Lines {
    source: SourceId,
    text: String,
    at: usize,
    /// Scratch: the physical line without comments.
    physical: Line,
    /// A continued line that a here-document interrupted; it goes on behind it.
    pending: Option<Line>,
    /// Where the C comment began that is still open.
    comment: Option<Span>,
    /// The `#` comments so far.
    comments: Vec<Span>,
}

impl Lines {
    pub(crate) fn new(source: SourceId, text: String) -> Lines {
        let (physical, comments) = (Line::default(), Vec::new());
        Lines { source, text, at: 0, physical, pending: None, comment: None, comments }
    }

    pub(crate) fn source(&self) -> SourceId {
        self.source
    }

    /// The text and its `#` comments.
    pub(crate) fn finish(self) -> (String, Vec<Span>) {
        (self.text, self.comments)
    }

    /// The number of the line that holds the byte, from 1.
    pub(crate) fn line_of(&self, at: usize) -> u32 {
        self.text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() as u32 + 1
    }

    /// Reads the next logical line, which may be empty, into `line`; `false` at the end of the file.
    pub(crate) fn next(&mut self, line: &mut Line, notes: &mut Diagnostics) -> bool {
        match self.pending.take() {
            Some(pending) => *line = pending,
            None => line.clear(self.source),
        }
        while let Some(range) = self.next_physical() {
            if !self.cut_comments(range, notes) {
                continue;
            }
            let text = self.physical.text.as_str();
            if let Some((key, mark)) = here_document(text).filter(|_| !ends_with_single_backslash(text)) {
                let (mark, span) = (text[mark].to_owned(), self.physical.span(0..text.len()));
                self.set_aside(line, span, notes);
                line.append(&self.physical, 0..key);
                return self.collect(&mark, span, line, notes);
            }
            let blanks = if line.joined { text.len() - text.trim_start_matches(is_blank).len() } else { 0 };
            if ends_with_single_backslash(text) {
                line.append(&self.physical, blanks..text.len() - 1);
                line.joined = true;
                continue;
            }
            line.append(&self.physical, blanks..text.len());
            self.warn_of_hidden_continuation(notes);
            return true;
        }
        self.warn_of_lost_end(line, notes);
        false
    }

    /// The next physical line, without its line feed.
    fn next_physical(&mut self) -> Option<Range<usize>> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let length = rest.find('\n').unwrap_or(rest.len());
        let range = self.at..self.at + length;
        self.at = range.end + 1;
        Some(range)
    }

    /// Puts the line without its comments into `physical`; `false` if it belongs to a C comment altogether.
    ///
    /// A comment inside a line goes from the first `/*` to the last `*/`, with the blanks around it. One over
    /// several lines has to begin its line.
    fn cut_comments(&mut self, range: Range<usize>, notes: &mut Diagnostics) -> bool {
        let text = &self.text[range.clone()];
        self.physical.clear(self.source);
        let open = text.find("/*");
        let close = text.rfind("*/");
        match (open, close) {
            (Some(open), Some(close)) if close >= open + 2 => {
                if self.comment.is_some() {
                    return false;
                }
                let behind = text[close + 2..].trim_start_matches(is_blank);
                self.physical.push(text[..open].trim_end_matches(is_blank), range.start);
                self.physical.push(behind, range.end - behind.len());
            }
            (Some(open), _) if text[..open].chars().all(is_blank) => {
                let start = range.start + open;
                self.comment.get_or_insert(Span::new(self.source, start, start + 2));
                return false;
            }
            (_, Some(close)) => {
                if self.comment.take().is_none() {
                    let span = Span::new(self.source, range.start, range.start + close + 2);
                    notes.warning(
                        &text::BAD_COMMENT,
                        span,
                        "`*/` ends no comment here, but removes its line up to it",
                        "there is no way to write `*/` on such a line; put the value into a here-document",
                    );
                }
                self.physical.push(&text[close + 2..], range.start + close + 2);
            }
            _ if self.comment.is_some() => return false,
            _ => self.physical.push(text, range.start),
        }
        self.cut_hash();
        true
    }

    /// Cuts from the first `#` that has no backslash before it. Quotes do not count.
    fn cut_hash(&mut self) {
        let text = &self.physical.text;
        let bytes = text.as_bytes();
        let Some((at, _)) = text.match_indices('#').find(|&(at, _)| at == 0 || bytes[at - 1] != b'\\') else {
            return;
        };
        let span = self.physical.span(at..text.len());
        self.comments.push(span);
        self.physical.cut = Some(Cut {
            span,
            has_quote: text[at..].contains('"'),
            glued: text[..at].chars().next_back().is_some_and(|c| !is_blank(c)),
        });
        self.physical.text.truncate(at);
        self.physical.pieces.retain(|piece| piece.0 < at);
    }

    /// Makes room for a here-document that begins where a continued line should have gone on.
    fn set_aside(&mut self, line: &mut Line, span: Span, notes: &mut Diagnostics) {
        if line.joined {
            notes.warning(
                &text::BAD_HERE_DOCUMENT,
                span,
                "this here-document is not part of the continued line above, which goes on after it",
                "remove the backslash above",
            );
            self.pending = Some(std::mem::take(line));
            line.clear(self.source);
        }
    }

    /// Reads the lines up to the mark; without one the rest of the file is gone, and so is the line itself.
    fn collect(&mut self, mark: &str, span: Span, line: &mut Line, notes: &mut Diagnostics) -> bool {
        let start = self.at;
        let mut lines = Vec::new();
        while let Some(range) = self.next_physical() {
            let text = &self.text[range.clone()];
            if text.trim_matches(is_blank) != mark {
                lines.push(range);
                continue;
            }
            // Only the very same blanks are taken away: a tab does not equal eight spaces.
            let indent = &text[..text.len() - text.trim_start_matches(is_blank).len()];
            let strip = |range: &Range<usize>| {
                let text = &self.text[range.clone()];
                text.strip_prefix(indent).unwrap_or(text)
            };
            let body = lines.iter().map(strip).collect::<Vec<_>>().join("\n");
            let end = lines.last().map_or(start, |last| last.end);
            line.body = Some(Body { text: body, span: Span::new(self.source, start, end) });
            return true;
        }
        notes.warning(
            &text::BAD_HERE_DOCUMENT,
            span,
            format!(
                "the here-document that begins here never ends: `{mark}` is missing, all of it is ignored"
            ),
            format!("write `{mark}` on a line of its own after the last line of the value"),
        );
        false
    }

    fn warn_of_hidden_continuation(&self, notes: &mut Diagnostics) {
        let text = self.physical.text.as_str();
        let shown = text.trim_end_matches(is_blank);
        if self.physical.cut.is_none() && shown.len() < text.len() && ends_with_single_backslash(shown) {
            notes.warning(
                &text::BAD_CONTINUATION,
                self.physical.span(shown.len() - 1..shown.len()),
                "this backslash does not continue the line: a blank or a carriage return follows it",
                "remove what follows it (lines that end in CR LF can't be continued)",
            );
        }
    }

    fn warn_of_lost_end(&self, line: &Line, notes: &mut Diagnostics) {
        if line.joined {
            notes.warning(
                &text::BAD_CONTINUATION,
                line.span(0..line.text.len()),
                "the file ends in a continued line, which is ignored",
                "remove the backslash at its end",
            );
        }
        if let Some(span) = self.comment {
            notes.warning(
                &text::BAD_COMMENT,
                span,
                "the comment that begins here never ends: the rest of the file is ignored",
                "write `*/` where it ends",
            );
        }
    }
}

fn ends_with_single_backslash(text: &str) -> bool {
    text.ends_with('\\') && !text.ends_with("\\\\")
}

/// Whether a here-document begins: the end of its key and the place of its mark.
///
/// Two spellings: `any words = <<MARK` and `word <<MARK`.
fn here_document(text: &str) -> Option<(usize, Range<usize>)> {
    // Most lines have none; the search below is for those that have one or several.
    text.find("<<")?;
    let equals = text.find('=').filter(|&at| at > 0).map(|at| (at, at + 1));
    let word = || {
        let start = text.find(|c| !is_blank(c))?;
        let end = start + text[start..].find(is_blank)?;
        Some((end, end))
    };
    [equals, word()].into_iter().flatten().find_map(|(key, behind)| {
        let behind = text[behind..].trim_start_matches(is_blank).strip_prefix("<<")?;
        let start = text.len() - behind.trim_start_matches(is_blank).len();
        let end = start + text[start..].trim_end_matches(is_blank).len();
        (start < end).then_some((key, start..end))
    })
}
