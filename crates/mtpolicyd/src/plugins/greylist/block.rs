//! The blocks `<Ticket>` and `<AWL>` inside the plugin's.
//!
//! Knows: sections. Must not know: what the blocks say.

use crate::options::{Section, codes};
use config_general::Block;

/// Reads a block inside the plugin's, or nothing in its place where there is none.
pub fn read_block<T>(
    plugin: &mut Section<'_>,
    kind: &str,
    read: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Option<T> {
    let report = plugin.report();
    let blocks = plugin.take_blocks(kind);
    if let [_, again, ..] = blocks[..] {
        let help = "keep one of them".to_owned();
        let message = format!("block <{kind}> occurs more than once");
        report.say(&codes::REPEATED_BLOCK, again.span, message, Some(help));
    }
    let empty = Block {
        kind: "Plugin".to_owned(),
        name: Some(plugin.name().to_owned()),
        span: plugin.span(),
        ..Block::default()
    };
    let mut section = Section::new(blocks.first().copied().unwrap_or(&empty), report);
    let read = read(&mut section);
    // Unknown options of a block that is refused would only hide what is wrong.
    if read.is_some() {
        section.finish();
    }
    read
}
