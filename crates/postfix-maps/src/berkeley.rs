//! Files of Berkeley DB, hash and btree, as libdb 4.2 to 6 writes them in either byte order.
//!
//! A file is an array of pages; page 0 describes the rest. Items that are too long for a page have pages of
//! their own, chained. A file that is written while it is read may show as corrupt: take Postfix's lock
//! (flock) around the reads.

mod btree;
mod hash;
mod page;

use crate::{Error, ReadAt};
use btree::Btree;
use hash::Hash;
use page::{ByteOrder, Pages, field};

/// Bytes of page 0 that matter.
const META_BYTES: usize = 512;

/// Where the magic number stands on page 0.
const MAGIC_AT: usize = 12;

const HASH_MAGIC: u32 = 0x0006_1561;
const BTREE_MAGIC: u32 = 0x0005_3162;

/// Versions of either format: since libdb 4.2, up to 6.
const VERSIONS: std::ops::RangeInclusive<u32> = 8..=10;

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `hash:`
    Hash,
    /// `btree:`
    Btree,
}

/// A database, as its first page described it when it was opened. That takes one read, so that a file which
/// others rewrite is opened anew for each lookup.
pub struct Database<'a, S: ReadAt + ?Sized> {
    pages: Pages<'a, S>,
    index: Index,
}

enum Index {
    Hash(Hash),
    Btree(Btree),
}

impl<'a, S: ReadAt + ?Sized> Database<'a, S> {
    /// Reads the first page.
    ///
    /// # Errors When it is not a file of Berkeley DB, or of a kind that nobody uses for tables: encrypted, in
    /// several files, compressed, with several databases inside.
    pub fn open(source: &'a S) -> Result<Self, Error> {
        let mut meta = [0; META_BYTES];
        source.fill_at(&mut meta, 0)?;
        let magic = |order| field(&meta, MAGIC_AT, order);
        let (order, format) = match (magic(ByteOrder::Little), magic(ByteOrder::Big)) {
            (HASH_MAGIC, _) => (ByteOrder::Little, Format::Hash),
            (BTREE_MAGIC, _) => (ByteOrder::Little, Format::Btree),
            (_, HASH_MAGIC) => (ByteOrder::Big, Format::Hash),
            (_, BTREE_MAGIC) => (ByteOrder::Big, Format::Btree),
            _ => return Err(Error::Corrupt("this is not a Berkeley DB file, hash or btree")),
        };
        if !VERSIONS.contains(&field(&meta, 16, order)) {
            return Err(Error::Unsupported("the file is of a version of Berkeley DB before 4.2 or after 6"));
        }
        let pages = Pages::new(source, &meta, order)?;
        let index = match format {
            Format::Hash => Index::Hash(Hash::new(&meta, order)?),
            Format::Btree => Index::Btree(Btree::new(&meta, order)?),
        };
        Ok(Self { pages, index })
    }

    /// Which format it is.
    pub fn format(&self) -> Format {
        match self.index {
            Index::Hash(_) => Format::Hash,
            Index::Btree(_) => Format::Btree,
        }
    }

    /// The value of a key, the first if there are several.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match &self.index {
            Index::Hash(hash) => hash.get(&self.pages, key),
            Index::Btree(btree) => btree.get(&self.pages, key),
        }
    }

    /// Shows every key with its value, in the order of the file.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        match &self.index {
            Index::Hash(hash) => hash.for_each(&self.pages, &mut visit),
            Index::Btree(btree) => btree.for_each(&self.pages, &mut visit),
        }
    }
}
