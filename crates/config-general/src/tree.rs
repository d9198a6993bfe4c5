//! What a file says: entries and blocks in file order, each with its place.

use std::collections::HashMap;

use crate::diagnostic::Diagnostic;
use crate::source::{Sources, Span};

/// A block, or the whole file (the root, whose kind is empty).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The first word of the tag: `Plugin` of `<Plugin greylist>`; empty for the root.
    pub kind: String,
    /// Where the kind stands, quotes included.
    pub kind_span: Span,
    /// The rest of the tag: `greylist`. May hold blanks.
    pub name: Option<String>,
    /// Where the name stands, quotes included; for a block without one, the end of the kind.
    pub name_span: Span,
    /// The opening tag.
    pub span: Span,
    /// What is inside, in file order. Repetitions are kept; see [`repetitions`].
    pub items: Vec<Item>,
}

/// One thing inside a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// `key = value`
    Entry(Entry),
    /// `<Kind name> ... </Kind>`
    Block(Block),
}

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key as written; case counts.
    pub key: String,
    /// Where the key stands.
    pub key_span: Span,
    /// The value without quotes and escapes; `None` if the line is a bare word.
    pub value: Option<String>,
    /// Where the value stands, quotes included; without a value, the end of the line's text.
    pub value_span: Span,
}

impl Block {
    /// The options directly inside, in file order.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.items.iter().filter_map(|item| match item {
            Item::Entry(entry) => Some(entry),
            Item::Block(_) => None,
        })
    }

    /// The blocks directly inside, in file order.
    pub fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.items.iter().filter_map(|item| match item {
            Item::Block(block) => Some(block),
            Item::Entry(_) => None,
        })
    }

    /// The tag as people know it: `<Plugin greylist>`.
    pub fn tag(&self) -> String {
        match &self.name {
            Some(name) => format!("<{} {name}>", self.kind),
            None => format!("<{}>", self.kind),
        }
    }
}

/// A file that could be read.
#[derive(Clone, Debug)]
pub struct Document {
    /// The whole configuration.
    pub root: Block,
    /// The files it was read from.
    pub sources: Sources,
    /// Warnings only.
    pub diagnostics: Vec<Diagnostic>,
    /// The `#` comments, in the order of each file.
    pub comments: Vec<Span>,
}

/// Something that stands twice directly inside one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition<'a> {
    /// Two options with the same key.
    Entry {
        /// The one that came first in the file.
        first: &'a Entry,
        /// The later one.
        again: &'a Entry,
    },
    /// Two blocks with the same kind and the same name, or both without one.
    Block {
        /// The one that came first in the file.
        first: &'a Block,
        /// The later one.
        again: &'a Block,
    },
}

/// What stands more than once directly inside the block, in the order of the later ones.
///
/// The original takes each for an error. Which keys may be repeated is for the reader of the tree to decide.
pub fn repetitions(block: &Block) -> Vec<Repetition<'_>> {
    let mut entries: HashMap<&str, &Entry> = HashMap::new();
    let mut blocks: HashMap<(&str, Option<&str>), &Block> = HashMap::new();
    let mut found = Vec::new();
    for item in &block.items {
        match item {
            Item::Entry(again) => match entries.get(again.key.as_str()) {
                Some(first) => found.push(Repetition::Entry { first, again }),
                None => drop(entries.insert(&again.key, again)),
            },
            Item::Block(again) => match blocks.get(&(again.kind.as_str(), again.name.as_deref())) {
                Some(first) => found.push(Repetition::Block { first, again }),
                None => drop(blocks.insert((&again.kind, again.name.as_deref()), again)),
            },
        }
    }
    found
}
