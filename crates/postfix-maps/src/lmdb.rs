//! Files of LMDB: a tree of pages that are never changed but replaced, and two pages that say which tree is
//! current.
//!
//! A page may be used again once nobody needs the tree it was in, so that a reader has to keep writers out:
//! Postfix locks the file itself (fcntl). Numbers are those of the machine, of 64 bits.

use crate::limits::{ITEM_MAX_BYTES, TREE_MAX_DEPTH};
use crate::{Error, ReadAt};
use std::cmp::Ordering;

/// Bytes of a page's header.
const HEADER_BYTES: usize = 16;

/// Bytes of a meta page that matter.
const META_BYTES: usize = 152;

const MAGIC: u32 = 0xBEEF_C0DE;
const VERSION: u32 = 1;

/// What the number of the root is when there is no tree.
const NO_PAGE: u64 = u64::MAX;

/// What a page is for.
mod page_flag {
    pub const BRANCH: u16 = 0x01;
    pub const LEAF: u16 = 0x02;
    pub const OVERFLOW: u16 = 0x04;
    pub const FIXED_KEYS: u16 = 0x20;
}

/// What a node has beside its key.
mod node_flag {
    pub const BIG_VALUE: u16 = 0x01;
    pub const DATABASE: u16 = 0x02;
    pub const SEVERAL_VALUES: u16 = 0x04;
}

/// Flags of databases whose keys are ordered otherwise: reversed, as integers.
const OTHER_ORDER: u16 = 0x02 | 0x08;

/// A database, as it was when it was opened.
pub struct Lmdb<'a, S: ReadAt + ?Sized> {
    source: &'a S,
    page_size: usize,
    root: u64,
}

struct Meta {
    page_size: usize,
    flags: u16,
    root: u64,
    transaction: u64,
}

impl<'a, S: ReadAt + ?Sized> Lmdb<'a, S> {
    /// Reads the two pages that say which tree is current.
    ///
    /// # Errors When it is not a file of LMDB, or of a machine with other numbers.
    pub fn open(source: &'a S) -> Result<Self, Error> {
        let first = meta(source, 0)?;
        let second = meta(source, first.page_size as u64)?;
        let meta = if second.transaction > first.transaction { second } else { first };
        if meta.flags & OTHER_ORDER != 0 {
            return Err(Error::Unsupported("the keys of the database are ordered otherwise"));
        }
        Ok(Self { source, page_size: meta.page_size, root: meta.root })
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if self.root == NO_PAGE {
            return Ok(None);
        }
        let mut number = self.root;
        for _ in 0..TREE_MAX_DEPTH {
            let page = self.page(number)?;
            if page.is(page_flag::LEAF) {
                let (place, found) = page.search(key, 0)?;
                return found.then(|| self.value(&page.node(place)?)).transpose();
            }
            // The first node of a branch stands for all keys before the second.
            let (place, found) = page.search(key, 1)?;
            number = page.node(if found { place } else { place - 1 })?.page();
        }
        Err(Error::Corrupt("the tree has no leaf"))
    }

    /// Shows every key with its value, in order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        let mut waiting = if self.root == NO_PAGE { Vec::new() } else { vec![self.root] };
        let mut left = self.source.size()? / self.page_size as u64;
        while let Some(number) = waiting.pop() {
            left = left.checked_sub(1).ok_or(Error::Corrupt("the tree has a page twice"))?;
            let page = self.page(number)?;
            for place in 0..page.nodes() {
                if page.is(page_flag::LEAF) {
                    let node = page.node(place)?;
                    visit(node.key, &self.value(&node)?);
                } else {
                    waiting.push(page.node(page.nodes() - 1 - place)?.page());
                }
            }
        }
        Ok(())
    }

    fn page(&self, number: u64) -> Result<Page, Error> {
        let mut bytes = vec![0; self.page_size];
        let place = number.checked_mul(self.page_size as u64).ok_or(WRONG_PAGE)?;
        self.source.fill_at(&mut bytes, place)?;
        let page = Page { bytes };
        let of_tree = page.is(page_flag::LEAF) != page.is(page_flag::BRANCH);
        if u64::from_ne_bytes(page.array(0)?) != number || !of_tree || page.is(page_flag::FIXED_KEYS) {
            return Err(WRONG_PAGE);
        }
        // A branch leads to two pages at least.
        if page.is(page_flag::BRANCH) && page.nodes() < 2 {
            return Err(WRONG_PAGE);
        }
        Ok(page)
    }

    fn value(&self, node: &Node<'_>) -> Result<Vec<u8>, Error> {
        if node.flags & (node_flag::DATABASE | node_flag::SEVERAL_VALUES) != 0 {
            return Err(Error::Unsupported("a key has several values, or is a database"));
        }
        if node.length > ITEM_MAX_BYTES {
            return Err(Error::Corrupt("an item is longer than a mebibyte"));
        }
        if node.flags & node_flag::BIG_VALUE == 0 {
            return node.rest.get(..node.length).map(<[u8]>::to_vec).ok_or(WRONG_PAGE);
        }
        let number = node.rest.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)).ok_or(WRONG_PAGE)?;
        let place = number.checked_mul(self.page_size as u64).ok_or(WRONG_PAGE)?;
        let mut bytes = vec![0; HEADER_BYTES + node.length];
        self.source.fill_at(&mut bytes, place)?;
        let page = Page { bytes };
        if u64::from_ne_bytes(page.array(0)?) != number || !page.is(page_flag::OVERFLOW) {
            return Err(WRONG_PAGE);
        }
        let mut bytes = page.bytes;
        Ok(bytes.split_off(HEADER_BYTES))
    }
}

const WRONG_PAGE: Error = Error::Corrupt("a page of the tree is not what it should be");

fn meta<S: ReadAt + ?Sized>(source: &S, place: u64) -> Result<Meta, Error> {
    let mut bytes = vec![0; META_BYTES];
    source.fill_at(&mut bytes, place)?;
    let page = Page { bytes };
    let number = |at| page.array(at).map(u32::from_ne_bytes);
    if number(16)? != MAGIC {
        return Err(Error::Corrupt("this is not an LMDB file, or of another kind of machine"));
    }
    if number(20)? != VERSION {
        return Err(Error::Unsupported("the file is of another version of LMDB"));
    }
    let page_size = number(40)?;
    if !page_size.is_power_of_two() || !(512..=65_536).contains(&page_size) {
        return Err(Error::Corrupt("the file names an impossible page size"));
    }
    Ok(Meta {
        page_size: page_size as usize,
        flags: page.u16_at(92)?,
        root: u64::from_ne_bytes(page.array(128)?),
        transaction: u64::from_ne_bytes(page.array(144)?),
    })
}

struct Page {
    bytes: Vec<u8>,
}

impl Page {
    fn is(&self, flag: u16) -> bool {
        self.u16_at(10).is_ok_and(|flags| flags & flag != 0)
    }

    /// The number of nodes of a page of the tree.
    fn nodes(&self) -> usize {
        let lower = self.u16_at(12).map_or(0, usize::from);
        lower.min(self.bytes.len()).saturating_sub(HEADER_BYTES) / 2
    }

    /// The first node from that one on whose key is not before the wanted one, and whether it has that key.
    fn search(&self, key: &[u8], first: usize) -> Result<(usize, bool), Error> {
        let (mut low, mut high) = (first, self.nodes());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.node(middle)?.key.cmp(key) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok((middle, true)),
                Ordering::Greater => high = middle,
            }
        }
        Ok((low, false))
    }

    fn node(&self, place: usize) -> Result<Node<'_>, Error> {
        let start = usize::from(self.u16_at(HEADER_BYTES + 2 * place)?);
        let halves = [self.u16_at(start)?, self.u16_at(start + 2)?];
        let [low, high] = if cfg!(target_endian = "big") { [halves[1], halves[0]] } else { halves };
        let key_length = usize::from(self.u16_at(start + 6)?);
        let rest = self.bytes.get(start + 8..).filter(|rest| rest.len() >= key_length).ok_or(WRONG_PAGE)?;
        let (key, rest) = rest.split_at(key_length);
        let length = usize::from(low) | usize::from(high) << 16;
        Ok(Node { length, flags: self.u16_at(start + 4)?, key, rest })
    }

    fn u16_at(&self, at: usize) -> Result<u16, Error> {
        self.array(at).map(u16::from_ne_bytes)
    }

    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], Error> {
        self.bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(WRONG_PAGE)
    }
}

struct Node<'a> {
    /// Of the value; in a branch a part of the page's number.
    length: usize,
    flags: u16,
    key: &'a [u8],
    rest: &'a [u8],
}

impl Node<'_> {
    /// The page below, of a node of a branch.
    fn page(&self) -> u64 {
        self.length as u64 | u64::from(self.flags) << 32
    }
}
