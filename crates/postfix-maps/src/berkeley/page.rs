//! Pages: their header, the items on them, and items that have pages of their own.

use crate::limits::ITEM_MAX_BYTES;
use crate::{Error, ReadAt};
use std::ops::Range;

/// How numbers are stored: as the machine that made the file has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

/// The number of four bytes at a place of page 0, which is long enough.
pub(super) fn field(meta: &[u8; super::META_BYTES], at: usize, order: ByteOrder) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&meta[at..at + 4]);
    match order {
        ByteOrder::Little => u32::from_le_bytes(bytes),
        ByteOrder::Big => u32::from_be_bytes(bytes),
    }
}

/// Bytes of a page before the places of its items.
const HEADER_BYTES: usize = 26;

/// The same where pages have checksums.
const HEADER_WITH_CHECKSUM_BYTES: usize = 32;

/// What a page is for.
pub(super) mod kind {
    pub const UNUSED: u8 = 0;
    pub const HASH_UNSORTED: u8 = 2;
    pub const INTERNAL: u8 = 3;
    pub const LEAF: u8 = 5;
    pub const OVERFLOW: u8 = 7;
    pub const HASH: u8 = 13;
}

/// The pages of a file.
pub(super) struct Pages<'a, S: ReadAt + ?Sized> {
    source: &'a S,
    size: usize,
    count: u32,
    header: usize,
    order: ByteOrder,
}

impl<'a, S: ReadAt + ?Sized> Pages<'a, S> {
    pub fn new(source: &'a S, meta: &[u8; super::META_BYTES], order: ByteOrder) -> Result<Self, Error> {
        let (algorithm, flags) = (meta[24], meta[26]);
        if algorithm != 0 {
            return Err(Error::Unsupported("the database is encrypted"));
        }
        if field(meta, 36, order) != 0 {
            return Err(Error::Unsupported("the database consists of several files"));
        }
        let size = field(meta, 20, order);
        if !size.is_power_of_two() || !(512..=65_536).contains(&size) {
            return Err(Error::Corrupt("the first page names an impossible page size"));
        }
        let header = if flags & 1 == 0 { HEADER_BYTES } else { HEADER_WITH_CHECKSUM_BYTES };
        let in_file = u32::try_from(source.size()? / u64::from(size)).unwrap_or(u32::MAX);
        let count = field(meta, 32, order).saturating_add(1).min(in_file);
        Ok(Pages { source, size: size as usize, count, header, order })
    }

    /// The number of pages.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Reads a page.
    pub fn read(&self, number: u32) -> Result<Page, Error> {
        if number >= self.count {
            return Err(Error::Corrupt("a page is missing at the end of the file"));
        }
        let mut bytes = vec![0; self.size];
        self.source.fill_at(&mut bytes, u64::from(number) * self.size as u64)?;
        let page = Page { bytes, header: self.header, order: self.order };
        // Pages that were set aside and never used are empty, their number included.
        if page.u32_at(8)? != number && page.kind() != kind::UNUSED {
            return Err(Error::Corrupt("a page has the number of another one"));
        }
        let places = self.header + 2 * page.entries();
        if page.kind() != kind::OVERFLOW && places > self.size {
            return Err(Error::Corrupt("a page has more items than fit"));
        }
        Ok(page)
    }

    /// An item that has pages of its own.
    pub fn overflow(&self, first: u32, length: u32) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(length).ok().filter(|length| *length <= ITEM_MAX_BYTES);
        let length = length.ok_or(Error::Corrupt("an item is longer than a mebibyte"))?;
        // All pages but the last are full.
        let full = length / (self.size - self.header);
        if full >= self.count as usize {
            return Err(Error::Corrupt("an item is longer than the file"));
        }
        let (mut item, mut next) = (Vec::new(), first);
        for _ in 0..=full {
            if item.len() == length {
                break;
            }
            let page = self.read(next)?;
            let used = page.u16_at(22)?;
            let part = page.bytes.get(self.header..).and_then(|bytes| bytes.get(..used));
            match part.filter(|part| page.kind() == kind::OVERFLOW && item.len() + part.len() <= length) {
                Some(part) => item.extend_from_slice(part),
                None => return Err(Error::Corrupt("the pages of a long item are not what they should be")),
            }
            next = page.next()?;
        }
        if item.len() == length { Ok(item) } else { Err(Error::Corrupt("a long item is incomplete")) }
    }
}

/// One page.
pub(super) struct Page {
    bytes: Vec<u8>,
    header: usize,
    order: ByteOrder,
}

const BEYOND: Error = Error::Corrupt("an item lies outside of its page");

impl Page {
    /// What it is for.
    pub fn kind(&self) -> u8 {
        self.bytes[25]
    }

    /// The number of items; something else on an overflow page.
    pub fn entries(&self) -> usize {
        self.u16_at(20).unwrap_or_default()
    }

    /// The next page of its chain; 0 is none.
    pub fn next(&self) -> Result<u32, Error> {
        self.u32_at(16)
    }

    /// Where an item begins.
    pub fn place(&self, item: usize) -> Result<usize, Error> {
        self.u16_at(self.header + 2 * item)
    }

    /// The bytes of an item of a hash page: items lie one before the other, from the end of the page.
    pub fn hash_item(&self, item: usize) -> Result<&[u8], Error> {
        let end = if item == 0 { self.bytes.len() } else { self.place(item - 1)? };
        self.slice(self.place(item)?..end)
    }

    pub fn slice(&self, range: Range<usize>) -> Result<&[u8], Error> {
        let begin = self.header + 2 * self.entries();
        self.bytes.get(range.clone()).filter(|_| range.start >= begin).ok_or(BEYOND)
    }

    pub fn u16_at(&self, at: usize) -> Result<usize, Error> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(BEYOND)?;
        Ok(usize::from(match self.order {
            ByteOrder::Little => u16::from_le_bytes(*bytes),
            ByteOrder::Big => u16::from_be_bytes(*bytes),
        }))
    }

    pub fn u32_at(&self, at: usize) -> Result<u32, Error> {
        let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(BEYOND)?;
        Ok(self.number(*bytes))
    }

    /// Four bytes as a number.
    pub fn number(&self, bytes: [u8; 4]) -> u32 {
        match self.order {
            ByteOrder::Little => u32::from_le_bytes(bytes),
            ByteOrder::Big => u32::from_be_bytes(bytes),
        }
    }
}
