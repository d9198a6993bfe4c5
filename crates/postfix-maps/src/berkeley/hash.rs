//! The hash format: linear hashing. A key's hash names a bucket, which is a page or a chain of them.

use super::page::{ByteOrder, Page, Pages, field, kind};
use crate::limits::CHAIN_MAX_PAGES;
use crate::{Error, ReadAt};
use std::borrow::Cow;

/// Buckets are set aside in doublings: where the pages of each doubling begin.
const DOUBLINGS: usize = 32;

/// What the first byte of an item says it is.
mod item {
    pub const PLAIN: u8 = 1;
    pub const DUPLICATES: u8 = 2;
    pub const OFF_PAGE: u8 = 3;
}

/// What page 0 says.
pub(super) struct Hash {
    max_bucket: u32,
    high_mask: u32,
    low_mask: u32,
    spares: [u32; DOUBLINGS],
    function: fn(&[u8]) -> u32,
}

impl Hash {
    pub fn new(meta: &[u8; super::META_BYTES], order: ByteOrder) -> Result<Hash, Error> {
        let check = field(meta, 92, order);
        let function = FUNCTIONS.iter().find(|function| function(CHECKED) == check);
        Ok(Hash {
            max_bucket: field(meta, 72, order),
            high_mask: field(meta, 76, order),
            low_mask: field(meta, 80, order),
            spares: std::array::from_fn(|doubling| field(meta, 96 + 4 * doubling, order)),
            function: *function.ok_or(Error::Unsupported("the file has a hash function of its own"))?,
        })
    }

    pub fn get<S: ReadAt + ?Sized>(
        &self,
        pages: &Pages<'_, S>,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        let hash = (self.function)(key);
        let bucket = hash & self.high_mask;
        let bucket = if bucket > self.max_bucket { bucket & self.low_mask } else { bucket };
        let mut number = self.page_of(bucket)?;
        for _ in 0..CHAIN_MAX_PAGES {
            let page = pages.read(number)?;
            for pair in 0..pairs(&page)? {
                if item_equals(pages, &page, 2 * pair, key)? {
                    return item_bytes(pages, &page, 2 * pair + 1).map(|value| Some(value.into_owned()));
                }
            }
            number = page.next()?;
            if number == 0 {
                return Ok(None);
            }
        }
        Err(Error::Corrupt("a bucket has too many pages"))
    }

    pub fn for_each<S: ReadAt + ?Sized>(
        &self,
        pages: &Pages<'_, S>,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Error> {
        let mut left = pages.count();
        for bucket in 0..=self.max_bucket {
            let mut number = self.page_of(bucket)?;
            loop {
                left = left.checked_sub(1).ok_or(Error::Corrupt("buckets share pages"))?;
                let page = pages.read(number)?;
                for pair in 0..pairs(&page)? {
                    let key = item_bytes(pages, &page, 2 * pair)?;
                    visit(&key, &item_bytes(pages, &page, 2 * pair + 1)?);
                }
                number = page.next()?;
                if number == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The first page of a bucket.
    fn page_of(&self, bucket: u32) -> Result<u32, Error> {
        // The doubling that set it aside: 0, 1, 2-3, 4-7, ...
        let doubling = (u32::BITS - bucket.leading_zeros()) as usize;
        let spare = self.spares.get(doubling).and_then(|spare| spare.checked_add(bucket));
        spare.filter(|page| *page != 0).ok_or(Error::Corrupt("a bucket has no page"))
    }
}

/// The number of keys of a page.
fn pairs(page: &Page) -> Result<usize, Error> {
    match page.kind() {
        kind::UNUSED => Ok(0),
        kind::HASH | kind::HASH_UNSORTED if page.entries().is_multiple_of(2) => Ok(page.entries() / 2),
        _ => Err(Error::Corrupt("a page of a bucket is none of a hash file")),
    }
}

/// Compares without fetching what can't be equal.
fn item_equals<S: ReadAt + ?Sized>(
    pages: &Pages<'_, S>,
    page: &Page,
    number: usize,
    key: &[u8],
) -> Result<bool, Error> {
    let bytes = page.hash_item(number)?;
    match bytes.first_chunk::<12>() {
        Some([item::OFF_PAGE, _, _, _, _, _, _, _, length @ ..])
            if page.number(*length) as usize != key.len() =>
        {
            Ok(false)
        }
        _ => Ok(*item_bytes(pages, page, number)? == *key),
    }
}

fn item_bytes<'p, S: ReadAt + ?Sized>(
    pages: &Pages<'_, S>,
    page: &'p Page,
    number: usize,
) -> Result<Cow<'p, [u8]>, Error> {
    let bytes = page.hash_item(number)?;
    match bytes {
        [item::PLAIN, bytes @ ..] => Ok(Cow::Borrowed(bytes)),
        [item::OFF_PAGE, _, _, _, a, b, c, d, e, f, g, h] => {
            let (first, length) = (page.number([*a, *b, *c, *d]), page.number([*e, *f, *g, *h]));
            pages.overflow(first, length).map(Cow::Owned)
        }
        [item::DUPLICATES, ..] => {
            // Each value has its length before and behind it.
            let start = page.place(number)? + 3;
            let length = page.u16_at(start - 2)?;
            let inside = bytes.len() >= 3 + length;
            let first = inside.then(|| page.slice(start..start + length)).transpose()?;
            first.map(Cow::Borrowed).ok_or(Error::Corrupt("the values of a key are not what they should be"))
        }
        _ => Err(Error::Corrupt("an item is of a kind that tables have not")),
    }
}

/// What the first page keeps the hash of, so that readers notice which function made the file.
const CHECKED: &[u8] = b"%$sniglet^&\0";

/// The functions that libdb has had: that of its versions since 3 first, then those of old files.
const FUNCTIONS: &[fn(&[u8]) -> u32] = &[fowler_noll_vo, torek, sdbm, phong_vo];

fn fowler_noll_vo(key: &[u8]) -> u32 {
    key.iter().fold(0, |hash: u32, byte| hash.wrapping_mul(16_777_619) ^ u32::from(*byte))
}

fn torek(key: &[u8]) -> u32 {
    key.iter().fold(0, |hash: u32, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)))
}

fn sdbm(key: &[u8]) -> u32 {
    key.iter().fold(0, |hash: u32, byte| hash.wrapping_mul(65_599).wrapping_add(u32::from(*byte)))
}

fn phong_vo(key: &[u8]) -> u32 {
    key.iter().fold(0, |hash: u32, byte| {
        let step = u32::from(*byte).wrapping_add(0x9c39_c33d);
        hash.wrapping_mul(0x63c6_3cd9).wrapping_add(step)
    })
}
