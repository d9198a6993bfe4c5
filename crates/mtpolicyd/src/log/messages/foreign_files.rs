//! Messages about files that others write: lookup tables, GeoIP databases, lists.
//!
//! Knows: texts and levels. Must not know: where a message is logged and why.

log_messages::messages! {
    "Files that others write",
    "Postfix lookup tables, GeoIP databases and other files that are read again when they change.";

    /// The file is on a slow or broken disk, or on a network file system that does not answer. Check it.
    error slow(path) = "{path}: reading takes too long; the previous file stays in use";
    /// The new file can't be read or has a mistake. Correct it; it is read again when it changes.
    error unusable(path, cause) = "{path}: {cause}; the previous file stays in use";
    /// The new version of the file is in use. Nothing to do.
    notice changed(path) = "{path} has changed and was read again";
    /// A line of a lookup table has a mistake. Correct the line. The first ten of a file are logged.
    warning line_skipped(path, line, what) = "{path}, line {line}: {what}; skipping the line";
    /// The lookup table has more lines with mistakes than were logged one by one.
    warning lines_skipped(path, count) = "{path}: {count} lines in all were skipped";
}
