//! How much of a configuration is read before it counts as a mistake.

/// Bounds of one reading. Each that is exceeded is an error of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together.
    pub bytes: usize,
    /// Entries and blocks of all files together.
    pub items: usize,
    /// Blocks inside blocks.
    pub nesting: usize,
    /// Files that include files; the main file is at depth 0.
    pub include_depth: usize,
    /// Files that are read, the main file included.
    pub files: usize,
    /// Errors, and likewise warnings, that are kept; of the rest only the number is told.
    pub diagnostics: usize,
}

impl Limits {
    /// 16 MiB: even a list of 100,000 addresses takes only about 3 MB.
    pub const BYTES: usize = 16 * 1024 * 1024;
    /// A 16 MiB file of one-letter lines would hold eight million entries and 1 GB of tree.
    pub const ITEMS: usize = 500_000;
    /// The deepest sensible file has about five; what walks the tree recursively is safe on any stack.
    pub const NESTING: usize = 64;
    /// A file a folder a level is already unusual.
    pub const INCLUDE_DEPTH: usize = 16;
    /// One file a virtual host or customer, with room.
    pub const FILES: usize = 1_000;
    /// Nobody reads further before the next attempt.
    pub const DIAGNOSTICS: usize = 100;

    /// The byte bound, capped so that every offset fits a span even if each byte becomes two (Latin-1).
    pub(crate) fn capped_bytes(&self) -> usize {
        self.bytes.min(u32::MAX as usize / 2)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bytes: Limits::BYTES,
            items: Limits::ITEMS,
            nesting: Limits::NESTING,
            include_depth: Limits::INCLUDE_DEPTH,
            files: Limits::FILES,
            diagnostics: Limits::DIAGNOSTICS,
        }
    }
}
