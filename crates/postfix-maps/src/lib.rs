//! Readers of the files and replies that Postfix's lookup tables consist of.
//!
//! - [`berkeley`]: the files of Berkeley DB, `hash:` and `btree:`, which SpamAssassin and other Perl programs
//!   write too.
//! - [`lmdb`]: the files of LMDB.
//! - [`cdb`]: constant databases.
//! - [`text`]: the logical lines of a table that people write.
//! - [`socketmap`] and [`proxymap`]: what table services are asked and answer.
//!
//! Files are only read, and of an indexed one only the pages that a key needs: a million entries cost no
//! more memory than ten. Whatever is in a file or a reply, the end is an answer or an [`Error`], within
//! bounds that [`limits`] names. Locks, deadlines and the order in which parts of an address are tried are
//! for the caller.
//!
//! ```no_run
//! use postfix_maps::berkeley::Database;
//!
//! let file = std::fs::File::open("/etc/postfix/access.db")?;
//! // postmap writes keys and values with a NUL at their end.
//! let found = Database::open(&file)?.get(b"192.0.2.1\0")?;
//! # Ok::<(), postfix_maps::Error>(())
//! ```

pub mod berkeley;
pub mod cdb;
mod error;
pub mod limits;
pub mod lmdb;
pub mod proxymap;
mod read_at;
pub mod socketmap;
pub mod text;

pub use error::{Error, ReplyError};
pub use read_at::ReadAt;
