//! What can't stand together in one block.

use std::collections::HashMap;

use crate::code::text as codes;
use crate::diagnostic::Diagnostics;
use crate::tree::{Block, Entry, Item};

/// Finds what can't stand together in one block: an option and a block of one name, named and unnamed blocks.
///
/// Repetitions are not handled here: see [`repetitions`](crate::repetitions).
pub(crate) fn check_kinds(block: &Block, notes: &mut Diagnostics) {
    #[derive(Default)]
    struct Seen {
        entry: bool,
        named: bool,
        unnamed: bool,
    }
    let mut kinds: HashMap<&str, Seen> = block.blocks().map(|b| (b.kind.as_str(), Seen::default())).collect();
    if kinds.is_empty() {
        return;
    }
    for item in &block.items {
        match item {
            Item::Entry(Entry { key, key_span, .. }) => {
                let Some(seen) = kinds.get_mut(key.as_str()) else { continue };
                if seen.named || seen.unnamed {
                    let help = Some("rename or remove one of them".to_owned());
                    notes.error(
                        &codes::MIXED_KINDS,
                        *key_span,
                        format!("the option `{key}` has the name of a block <{key}>"),
                        help,
                    );
                }
                seen.entry = true;
            }
            Item::Block(inner) => {
                let (kind, tag) = (&inner.kind, inner.tag());
                let Some(seen) = kinds.get_mut(kind.as_str()) else { continue };
                if seen.entry {
                    let help = Some("rename or remove one of them".to_owned());
                    notes.error(
                        &codes::MIXED_KINDS,
                        inner.span,
                        format!("the block {tag} has the name of an option `{kind}`"),
                        help,
                    );
                } else if inner.name.is_none() && seen.named {
                    let help = Some(format!("give it a name: `<{kind} NAME>`"));
                    let message = format!("<{kind}> without a name after one with a name");
                    notes.error(&codes::MIXED_KINDS, inner.span, message, help);
                } else if inner.name.is_some() && seen.unnamed && !seen.named {
                    notes.warning(
                        &codes::MERGED_BLOCK,
                        inner.span,
                        format!("{tag} counts as a part of the <{kind}> without a name above"),
                        format!("give that one a name as well: `<{kind} NAME>`"),
                    );
                }
                *(if inner.name.is_some() { &mut seen.named } else { &mut seen.unnamed }) = true;
            }
        }
    }
}
