//! Bounds on what a file or a service may make a reader do.

/// The longest key or value, in bytes. Those of Postfix are lines.
pub const ITEM_MAX_BYTES: usize = 1024 * 1024;

/// The most pages that one bucket of a hash file may have: a good file has one or two.
pub const CHAIN_MAX_PAGES: usize = 4096;

/// How deep a tree may be: with two keys a page, that are more pages than fit on a disk.
pub const TREE_MAX_DEPTH: usize = 40;

/// The most slots that a constant database is searched for one key: a good file has two or three in use side
/// by side.
pub const PROBE_MAX_SLOTS: u32 = 100_000;

/// The longest reply of a socketmap server in bytes, as Postfix has it.
pub const SOCKETMAP_REPLY_MAX_BYTES: usize = 100_000;

/// The longest reply of a proxymap server in bytes.
pub const PROXYMAP_REPLY_MAX_BYTES: usize = 256 * 1024;
