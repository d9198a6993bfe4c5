//! The configurations of other policy daemons, written as one of ours.
//!
//! Knows: what the files of postgrey, policyd-spf and policyd-rate-limit say. Must not know: the command
//! line, the daemon at work.

pub mod policyd_rate_limit;
pub mod policyd_spf;
pub mod postgrey;
mod shell_words;

use config_general::{Block, Entry, Item, Span, to_text};
use std::fmt::{Display, Write};
use std::path::Path;

/// The longest file that is read, in bytes: those of these programs have some kilobytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The column at which comments are wrapped.
const COMMENT_COLUMNS: usize = 100;

/// What became of another daemon's configuration.
#[derive(Debug, Default)]
pub struct Imported {
    /// Comments for the head of the file.
    head: Vec<String>,
    /// The file.
    root: Block,
    /// What behaves differently from now on, or remains to be done.
    pub notes: Vec<String>,
    /// What could not be taken over.
    pub left_out: Vec<String>,
}

impl Imported {
    /// The configuration file.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for comment in &self.head {
            wrap(&mut text, comment);
        }
        text + "\n" + &to_text(&self.root)
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Tells what a socket needs that others have made until now.
    fn note_socket(&mut self, port: &str) {
        if let Some((folder, _)) = port.strip_suffix("|unix").and_then(|path| path.rsplit_once('/')) {
            self.note(format!(
                "the user of mtpolicyd has to be able to make the socket: \
                 install -d -o mtpolicyd -g postfix -m 0750 {folder}"
            ));
        }
    }

    fn leave_out(&mut self, what: impl Display, why: impl Display) {
        self.left_out.push(format!("{what}: {why}"));
    }
}

/// Adds a comment, broken into lines.
fn wrap(text: &mut String, comment: &str) {
    let mut column = 0;
    for word in comment.split_whitespace() {
        if column > 0 && column + 1 + word.chars().count() > COMMENT_COLUMNS {
            text.push('\n');
            column = 0;
        }
        let before = if column == 0 { "# " } else { " " };
        text.extend([before, word]);
        column += before.len() + word.chars().count();
    }
    text.push('\n');
}

/// Why nothing could be imported.
#[derive(Debug)]
pub struct ImportError(pub String);

impl Display for ImportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ImportError {}

/// Reads a file; bytes that are not UTF-8 are replaced.
fn read(path: &Path) -> Result<String, ImportError> {
    let failed = |why: &dyn Display| ImportError(format!("can't read {}: {why}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| failed(&error))?;
    if !metadata.is_file() {
        return Err(failed(&"it is not a file"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(failed(&"it is longer than 4 MiB"));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An option with its value, on one line.
fn entry(key: &str, value: impl Display) -> Item {
    let mut text = String::new();
    let _ = write!(text, "{value}");
    let value = Some(text.replace(['\r', '\n'], " "));
    Item::Entry(Entry { key: key.to_owned(), key_span: Span::default(), value, value_span: Span::default() })
}

/// A block.
fn block(kind: &str, name: &str, items: Vec<Item>) -> Item {
    let name = Some(name.to_owned()).filter(|name| !name.is_empty());
    Item::Block(Block { kind: kind.to_owned(), name, items, ..Block::default() })
}

/// A block of a plugin: its module, then its options and the plugins inside.
fn plugin(name: &str, module: &str, items: Vec<Item>) -> Item {
    let module = entry("module", module);
    block("Plugin", name, std::iter::once(module).chain(items).collect())
}

/// A text as a part of a regular expression that matches it.
fn literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut pattern, c| {
        if !c.is_alphanumeric() && c.is_ascii() && !matches!(c, '@' | '-' | '_' | '=' | ':') {
            pattern.push('\\');
        }
        pattern.push(c);
        pattern
    })
}

/// Words that are separated by commas or blanks.
fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split([',', ' ', '\t']).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_its_comments_in_front_and_reads_back() {
        let mut imported = Imported { head: vec!["word ".repeat(40)], ..Imported::default() };
        imported.root.items.push(plugin("a", "Action", vec![entry("action", "defer \"so\"\n$x # y")]));
        let text = imported.text();
        assert!(
            text.lines().take(2).all(|line| line.starts_with("# word") && line.len() <= COMMENT_COLUMNS + 2)
        );
        let limits = config_general::Limits::default();
        let document = config_general::parse(Path::new("x"), text.as_bytes(), &limits).unwrap();
        let action = document.root.blocks().next().and_then(|block| block.entries().nth(1)).unwrap();
        assert_eq!(action.value.as_deref(), Some("defer \"so\" $x # y"));
    }

    #[test]
    fn a_literal_matches_itself_only() {
        assert_eq!(literal("a.b+c@d-e"), r"a\.b\+c@d-e");
    }
}
