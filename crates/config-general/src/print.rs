//! A tree as text again.

use std::fmt::Write;

use crate::source::is_blank;
use crate::tree::{Block, Entry, Item};

/// Blanks for each level.
const INDENT: usize = 2;

/// Prints a block so that reading the text gives the same tree, apart from the places.
///
/// Of the root, the contents are printed; of another block, its tags as well. Values may hold anything but
/// NUL. Keys, kinds and names have no escapes in this dialect; they come back as they are if they are what
/// people write: no line breaks, no `#`, `/*` or `*/`; a key without blanks, `=` or `<`; a kind without a
/// blank at its start; a name that is not quoted twice.
pub fn to_text(block: &Block) -> String {
    let mut text = String::new();
    if block.kind.is_empty() {
        contents(&mut text, block, 0);
    } else {
        whole(&mut text, block, 0);
    }
    text
}

/// Recursive: a block that was read is no deeper than [`Limits::nesting`](crate::Limits::nesting).
fn whole(text: &mut String, block: &Block, indent: usize) {
    let _ = write!(text, "{:indent$}<{}", "", Kind(&block.kind));
    match block.name.as_deref() {
        None => {}
        Some(name) if name.is_empty() || name.contains('"') => text.extend([" ", name]),
        Some(name) => text.extend([" \"", name, "\""]),
    }
    text.push_str(">\n");
    contents(text, block, indent + INDENT);
    let _ = writeln!(text, "{:indent$}</{}>", "", block.kind);
}

fn contents(text: &mut String, block: &Block, indent: usize) {
    for item in &block.items {
        match item {
            Item::Block(block) => whole(text, block, indent),
            Item::Entry(entry) => line(text, entry, indent),
        }
    }
}

fn line(text: &mut String, entry: &Entry, indent: usize) {
    let _ = write!(text, "{:indent$}{}", "", entry.key);
    let Some(value) = &entry.value else {
        // An empty comment keeps a backslash from continuing the line.
        text.push_str(if entry.key.ends_with('\\') { " #\n" } else { "\n" });
        return;
    };
    // A here-document is the only place where comments of either kind mean nothing.
    if value.contains('\n') || value.contains("/*") || value.contains("*/") {
        let mark = mark(value);
        let _ = writeln!(text, " = <<{mark}\n{}\n{mark}", Quoted(value));
    } else {
        let _ = writeln!(text, " = {}", Quoted(value));
    }
}

/// A word that stands on no line of the value.
fn mark(value: &str) -> String {
    let mut mark = String::from("END");
    while value.lines().any(|line| line.trim_matches(is_blank) == mark) {
        mark.push('_');
    }
    mark
}

struct Kind<'a>(&'a str);

impl std::fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.contains(is_blank) { write!(f, "\"{}\"", self.0) } else { f.write_str(self.0) }
    }
}

struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            if matches!(c, '\\' | '"' | '#' | '$') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}
