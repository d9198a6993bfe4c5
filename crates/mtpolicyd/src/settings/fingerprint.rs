//! A short name for what a configuration says, so that one can see whether two daemons have the same.
//!
//! Knows: blocks, hashing. Must not know: what an option means, secrets.

use config_general::{Block, Item};
use sha2::{Digest, Sha256};

/// The daemons of a cluster differ in where they listen, and shall have the same name otherwise.
const OF_THE_MACHINE: [&str; 2] = ["port", "host"];

/// So is how each of them is asked about itself.
const BLOCKS_OF_THE_MACHINE: [&str; 3] = ["Control", "Metrics", "Console"];

/// The bytes of the hash that are shown.
const SHOWN: usize = 6;

/// A hash of a configuration without secrets. Comments, blanks and the division into files do not count.
pub(super) fn of(root: &Block) -> String {
    let is_own = |item: &Item| match item {
        Item::Entry(entry) => OF_THE_MACHINE.contains(&entry.key.as_str()),
        Item::Block(block) => BLOCKS_OF_THE_MACHINE.contains(&block.kind.as_str()),
    };
    let mut root = root.clone();
    root.items.retain(|item| !is_own(item));
    let hash = Sha256::digest(config_general::to_text(&root));
    hash.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use config_general::Limits;
    use std::path::Path;

    fn hash(text: &str) -> String {
        let document = config_general::parse(Path::new("test"), text.as_bytes(), &Limits::default());
        of(&document.expect("it can be parsed").root)
    }

    #[test]
    fn what_is_said_counts_and_not_how() {
        let one = hash("port = 1\nlog_level = 2\n<Plugin a>\n module = \"Action\"\n</Plugin>\n");
        assert_eq!(one.len(), 2 * SHOWN);
        let same = "# node 2\nport=2\n\nlog_level 2\n<Plugin a>\nmodule = Action # a comment\n</Plugin>\n\
                    <Control>\n</Control>\n<Metrics>\n</Metrics>\n<Console>\n</Console>";
        assert_eq!(hash(same), one);
        assert_ne!(hash("log_level = 3\n<Plugin a>\n module = \"Action\"\n</Plugin>\n"), one);
        assert_ne!(hash("log_level = 2\n<Plugin b>\n module = \"Action\"\n</Plugin>\n"), one);
    }
}
