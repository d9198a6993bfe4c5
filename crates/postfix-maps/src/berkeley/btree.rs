//! The btree format: keys in order, in leaves below pages that say where each range is.

use super::page::{ByteOrder, Page, Pages, field, kind};
use crate::limits::TREE_MAX_DEPTH;
use crate::{Error, ReadAt};
use std::borrow::Cow;

/// Flags of databases that are not tables.
mod flag {
    pub const RECORD_NUMBERS: u32 = 0x02;
    pub const SEVERAL_DATABASES: u32 = 0x20;
    pub const COMPRESSED: u32 = 0x80;
}

/// What the third byte of an item says it is, without the bit of a deleted one.
mod item {
    pub const PLAIN: u8 = 1;
    pub const OVERFLOW: u8 = 3;
    pub const DELETED: u8 = 0x80;
}

/// Bytes of an internal item before its key.
const INTERNAL_HEADER_BYTES: usize = 12;

/// What page 0 says.
pub(super) struct Btree {
    root: u32,
}

impl Btree {
    pub fn new(meta: &[u8; super::META_BYTES], order: ByteOrder) -> Result<Btree, Error> {
        let flags = field(meta, 48, order);
        let is = |flag| flags & flag != 0;
        match () {
            () if is(flag::SEVERAL_DATABASES) => {
                Err(Error::Unsupported("the file has several databases inside"))
            }
            () if is(flag::RECORD_NUMBERS) => Err(Error::Unsupported("the keys of the file are numbers")),
            () if is(flag::COMPRESSED) => Err(Error::Unsupported("the database is compressed")),
            () => Ok(Btree { root: field(meta, 88, order) }),
        }
    }

    pub fn get<S: ReadAt + ?Sized>(
        &self,
        pages: &Pages<'_, S>,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        let leaf = self.leaf(pages, |page| child_for(pages, page, key))?;
        let (mut low, mut high) = (0, leaf.entries() / 2);
        while low < high {
            let middle = usize::midpoint(low, high);
            match (*leaf_item(pages, &leaf, 2 * middle)?).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                _ => high = middle,
            }
        }
        // Of several values of a key the first that was not deleted.
        for pair in low..leaf.entries() / 2 {
            if *leaf_item(pages, &leaf, 2 * pair)? != *key {
                break;
            }
            if !is_deleted(&leaf, 2 * pair + 1)? {
                return leaf_item(pages, &leaf, 2 * pair + 1).map(|value| Some(value.into_owned()));
            }
        }
        Ok(None)
    }

    pub fn for_each<S: ReadAt + ?Sized>(
        &self,
        pages: &Pages<'_, S>,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Error> {
        let mut leaf = self.leaf(pages, |page| child(page, 0))?;
        for _ in 0..=pages.count() {
            for pair in 0..leaf.entries() / 2 {
                if !is_deleted(&leaf, 2 * pair + 1)? {
                    let key = leaf_item(pages, &leaf, 2 * pair)?;
                    visit(&key, &leaf_item(pages, &leaf, 2 * pair + 1)?);
                }
            }
            match leaf.next()? {
                0 => return Ok(()),
                next => leaf = pages.read(next)?,
            }
            if leaf.kind() != kind::LEAF {
                break;
            }
        }
        Err(Error::Corrupt("the leaves of the tree are not a chain"))
    }

    /// The leaf that one gets to by choosing a page at each step.
    fn leaf<S: ReadAt + ?Sized>(
        &self,
        pages: &Pages<'_, S>,
        choose: impl Fn(&Page) -> Result<u32, Error>,
    ) -> Result<Page, Error> {
        let mut number = self.root;
        for _ in 0..TREE_MAX_DEPTH {
            let page = pages.read(number)?;
            match page.kind() {
                kind::LEAF if page.entries().is_multiple_of(2) => return Ok(page),
                kind::INTERNAL if page.entries() > 0 => number = choose(&page)?,
                _ => return Err(Error::Corrupt("a page of the tree is none of a btree file")),
            }
        }
        Err(Error::Corrupt("the tree has no leaf"))
    }
}

/// The page below an internal page that has the key, if any has.
fn child_for<S: ReadAt + ?Sized>(pages: &Pages<'_, S>, page: &Page, key: &[u8]) -> Result<u32, Error> {
    // The last item whose key is not behind the wanted one; the first item stands for all keys before.
    let (mut low, mut high) = (1, page.entries());
    while low < high {
        let middle = usize::midpoint(low, high);
        if *internal_key(pages, page, middle)? <= *key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    child(page, low - 1)
}

fn child(page: &Page, number: usize) -> Result<u32, Error> {
    page.u32_at(page.place(number)? + 4)
}

fn internal_key<'p, S: ReadAt + ?Sized>(
    pages: &Pages<'_, S>,
    page: &'p Page,
    number: usize,
) -> Result<Cow<'p, [u8]>, Error> {
    let place = page.place(number)?;
    let start = place + INTERNAL_HEADER_BYTES;
    match kind_at(page, place)? & !item::DELETED {
        item::PLAIN => page.slice(start..start + page.u16_at(place)?).map(Cow::Borrowed),
        item::OVERFLOW => long_item(pages, page, start),
        _ => Err(Error::Corrupt("a key of the tree is of a kind that tables have not")),
    }
}

fn leaf_item<'p, S: ReadAt + ?Sized>(
    pages: &Pages<'_, S>,
    page: &'p Page,
    number: usize,
) -> Result<Cow<'p, [u8]>, Error> {
    let place = page.place(number)?;
    match kind_at(page, place)? & !item::DELETED {
        item::PLAIN => page.slice(place + 3..place + 3 + page.u16_at(place)?).map(Cow::Borrowed),
        item::OVERFLOW => long_item(pages, page, place),
        _ => Err(Error::Corrupt("an item is of a kind that tables have not")),
    }
}

fn is_deleted(page: &Page, number: usize) -> Result<bool, Error> {
    Ok(kind_at(page, page.place(number)?)? & item::DELETED != 0)
}

fn kind_at(page: &Page, place: usize) -> Result<u8, Error> {
    page.slice(place + 2..place + 3).map(|bytes| bytes[0])
}

/// An item whose page and length stand at that place, behind four bytes.
fn long_item<'p, S: ReadAt + ?Sized>(
    pages: &Pages<'_, S>,
    page: &Page,
    place: usize,
) -> Result<Cow<'p, [u8]>, Error> {
    pages.overflow(page.u32_at(place + 4)?, page.u32_at(place + 8)?).map(Cow::Owned)
}
