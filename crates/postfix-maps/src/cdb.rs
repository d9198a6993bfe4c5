//! Constant databases (cdb): 256 hash tables behind the records. Whoever makes one puts it in place at once.

use crate::limits::{ITEM_MAX_BYTES, PROBE_MAX_SLOTS};
use crate::{Error, ReadAt};

/// Bytes of the table of tables, with which a file begins.
const HEADER_BYTES: u64 = 2048;

/// A database.
pub struct Cdb<'a, S: ReadAt + ?Sized> {
    source: &'a S,
}

impl<'a, S: ReadAt + ?Sized> Cdb<'a, S> {
    /// The file has no mark to know it by; one that is too short is none.
    pub fn open(source: &'a S) -> Result<Self, Error> {
        if source.size()? < HEADER_BYTES {
            return Err(Error::Corrupt("this is not a constant database"));
        }
        Ok(Self { source })
    }

    /// The value of a key, the first if there are several.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let hash = hash(key);
        let (table, slots) = self.pair(u64::from(hash % 256) * 8)?;
        if slots == 0 {
            return Ok(None);
        }
        let first = (hash >> 8) % slots;
        for step in 0..slots.min(PROBE_MAX_SLOTS) {
            let slot = (u64::from(first) + u64::from(step)) % u64::from(slots);
            let (found, record) = self.pair(u64::from(table) + slot * 8)?;
            if record == 0 {
                return Ok(None);
            }
            if found == hash
                && let Some(value) = self.value(u64::from(record), key)?
            {
                return Ok(Some(value));
            }
        }
        if slots > PROBE_MAX_SLOTS { Err(Error::Corrupt("a hash table has no end")) } else { Ok(None) }
    }

    /// Shows every key with its value, in the order of the file.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), Error> {
        // The first hash table begins where the records end.
        let (end, _) = self.pair(0)?;
        let mut place = HEADER_BYTES;
        while place < u64::from(end) {
            let (key, value) = self.pair(place)?;
            let (key, value) = (self.bytes(place + 8, key)?, self.bytes(place + 8 + u64::from(key), value)?);
            visit(&key, &value);
            place += 8 + (key.len() + value.len()) as u64;
        }
        Ok(())
    }

    /// The value of the record at that place if it has the key.
    fn value(&self, place: u64, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let (key_length, value_length) = self.pair(place)?;
        if key_length as usize != key.len() || self.bytes(place + 8, key_length)? != key {
            return Ok(None);
        }
        self.bytes(place + 8 + u64::from(key_length), value_length).map(Some)
    }

    fn bytes(&self, place: u64, length: u32) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(length).ok().filter(|length| *length <= ITEM_MAX_BYTES);
        let mut bytes = vec![0; length.ok_or(Error::Corrupt("an item is longer than a mebibyte"))?];
        self.source.fill_at(&mut bytes, place)?;
        Ok(bytes)
    }

    fn pair(&self, place: u64) -> Result<(u32, u32), Error> {
        let mut bytes = [0; 8];
        self.source.fill_at(&mut bytes, place)?;
        let [a, b, c, d, e, f, g, h] = bytes;
        Ok((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
    }
}

fn hash(key: &[u8]) -> u32 {
    key.iter().fold(5381, |hash: u32, byte| hash.wrapping_mul(33) ^ u32::from(*byte))
}
