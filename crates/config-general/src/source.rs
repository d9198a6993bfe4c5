//! Where text came from: the files that were read, places in them, and how bytes become text.

use std::path::PathBuf;

/// Which of the files that were read, in the order in which they were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct SourceId(pub u32);

impl SourceId {
    /// The place of the file in [`Sources::iter`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A stretch of one of the files that were read: bytes `start..end` of [`Source::text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// The file.
    pub source: SourceId,
    /// Its first byte.
    pub start: u32,
    /// The byte after its last one.
    pub end: u32,
}

impl Span {
    /// The text is bounded by [`Limits::bytes`](crate::Limits::bytes), which is capped so that offsets fit.
    pub(crate) fn new(source: SourceId, start: usize, end: usize) -> Span {
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { source, start: offset(start), end: offset(end) }
    }
}

/// A place as people count: the first line is 1, the first character of a line is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The character in the line (not the byte), from 1.
    pub column: u32,
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The path as it was opened: what the user or the include line named.
    pub path: PathBuf,
    /// The whole text, without a byte order mark.
    pub text: String,
}

/// All files that were read, the main file first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(Vec<Source>);

impl Sources {
    /// The file of a span of the same document.
    ///
    /// # Panics
    /// If the id belongs to another document that read more files.
    pub fn get(&self, id: SourceId) -> &Source {
        &self.0[id.index()]
    }

    /// Where a span begins, as line and column.
    pub fn position(&self, span: Span) -> Position {
        let text = self.0.get(span.source.index()).map_or("", |source| source.text.as_str());
        let before = &text.as_bytes()[..text.len().min(span.start as usize)];
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        // Bytes 0b10xxxxxx continue a character; all others begin one.
        let characters = before[line_start..].iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
        let lines = before.iter().filter(|&&byte| byte == b'\n').count();
        Position { line: lines as u32 + 1, column: characters as u32 + 1 }
    }

    /// The files in the order in which they were opened.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.0.iter()
    }

    /// The number of files read.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether not even the main file could be read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Announces a file; its text is handed in by [`Sources::fill`] once nobody edits its cursor any more.
    pub(crate) fn open(&mut self, path: PathBuf) -> SourceId {
        self.0.push(Source { path, text: String::new() });
        SourceId(self.0.len() as u32 - 1)
    }

    pub(crate) fn fill(&mut self, id: SourceId, text: String) {
        if let Some(source) = self.0.get_mut(id.index()) {
            source.text = text;
        }
    }
}

/// Bytes as text: UTF-8 where it is valid, Latin-1 byte by byte where it is not, no byte order mark.
pub fn decode(bytes: &[u8]) -> String {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|&byte| char::from(byte)));
    }
    text
}

/// Whether the dialect takes the character for a blank: the six of ASCII, and none of Latin-1 or Unicode.
pub(crate) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_text() {
        assert_eq!(decode(b"zur\xFCck"), "zurück");
        assert_eq!(decode("zurück €".as_bytes()), "zurück €");
        assert_eq!(decode(b"\xEF\xBB\xBFa\xE2\x82"), "aâ\u{82}");
    }

    #[test]
    fn columns_count_characters() {
        let mut sources = Sources::default();
        let id = sources.open("a.conf".into());
        sources.fill(id, "a\nüb = 1\n".into());
        let at = |start| sources.position(Span { source: id, start, end: start });
        assert_eq!(at(0), Position { line: 1, column: 1 });
        assert_eq!(at(4), Position { line: 2, column: 2 });
        assert_eq!(at(9999), Position { line: 3, column: 1 });
    }
}
