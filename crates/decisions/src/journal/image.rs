//! A journal as it is at one moment, read into memory: nothing is locked, made or written, not even the files
//! by which SQLite's readers and writers agree.
//!
//! The file alone is not enough, since what was written last is in the log beside it (the write-ahead log of
//! SQLite, <https://www.sqlite.org/fileformat2.html#walformat>).
//!
//! Knows: pages, the log. Must not know: tables, who reads.

use super::JournalError;
use super::file::{Trouble, is_empty, look_at_head};
use rusqlite::Connection;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How often it is read anew, when pages are moved from the log into the file meanwhile.
const TRIES: usize = 20;
/// Bytes of the head of the file that matter.
const HEAD: usize = 100;
/// Where the head says that there is a log: 2 in both bytes. A copy in memory has none.
const FORMAT: std::ops::Range<usize> = 18..20;
/// Bytes of the head of the log, and of that of a page in it.
const LOG_HEAD: usize = 32;
const FRAME_HEAD: usize = 24;
/// How the log begins; the last bit says that its checksums are of numbers with the highest byte first.
const LOG_MAGIC: u32 = 0x377f_0682;

/// The pages that the log has.
struct Log {
    file: File,
    /// Where each page is.
    pages: HashMap<u64, u64>,
    /// Pages of the whole.
    size: u64,
}

/// The file with what the log adds, page by page.
struct Image {
    file: File,
    log: Option<Log>,
    page_size: usize,
    pages: u64,
    /// The page that is read next, from 1, and the rest of the one before.
    next: u64,
    page: Vec<u8>,
    read: usize,
}

/// Opens the journal as it is now.
pub(super) fn open(path: &Path) -> Result<Connection, JournalError> {
    let shown = || path.display().to_string();
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => JournalError::Missing(shown()),
        _ => JournalError::File { file: shown(), why: error.to_string() },
    };
    let of = |error: rusqlite::Error| Trouble::of(path, &error).error(path);
    let file = File::open(path).map_err(failed)?;
    look_at_head(path, &file).map_err(|trouble| trouble.error(path))?;
    for _ in 0..TRIES {
        let before = state(path).map_err(failed)?;
        let file = file.try_clone().map_err(failed)?;
        let Some(image) = Image::new(file, path).map_err(failed)? else {
            return Err(JournalError::Missing(shown()));
        };
        let mut connection = Connection::open_in_memory().map_err(of)?;
        let size = usize::try_from(image.pages).unwrap_or(usize::MAX).saturating_mul(image.page_size);
        let read = connection.deserialize_read_exact("main", image, size, true);
        if state(path).map_err(failed)? != before {
            continue;
        }
        read.map_err(of)?;
        if is_empty(&connection, path).map_err(|trouble| trouble.error(path))? {
            return Err(JournalError::Missing(shown()));
        }
        return Ok(connection);
    }
    Err(JournalError::Busy)
}

/// What is different after pages were moved into the file.
fn state(path: &Path) -> io::Result<(i64, i64, u64, Vec<u8>)> {
    let metadata = std::fs::metadata(path)?;
    let mut head = vec![0; LOG_HEAD];
    let log = File::open(log_of(path)).and_then(|log| log.read_exact_at(&mut head, 0));
    let head = log.map(|()| head).unwrap_or_default();
    Ok((metadata.mtime(), metadata.mtime_nsec(), metadata.ino(), head))
}

fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

impl Image {
    /// `None` if the file is empty.
    fn new(file: File, path: &Path) -> io::Result<Option<Image>> {
        let mut head = [0; HEAD];
        let length = file.metadata()?.len();
        let page_size = match file.read_exact_at(&mut head, 0) {
            Ok(()) => match u16::from_be_bytes([head[16], head[17]]) {
                1 => 1 << 16,
                size => usize::from(size),
            },
            // Nothing of a new one is in the file yet.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error),
        };
        let log = match File::open(log_of(path)) {
            Ok(log) => Log::read(log)?,
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let page_size = if page_size == 0 { log.as_ref().map_or(0, |log| log.1) } else { page_size };
        if page_size == 0 {
            return Ok(None);
        }
        let log = log.map(|(log, _)| log);
        let pages = log.as_ref().map_or(length / page_size as u64, |log| log.size);
        let (page, read) = (vec![0; page_size], page_size);
        Ok(Some(Image { file, log, page_size, pages, next: 1, page, read }))
    }

    fn next_page(&mut self) -> io::Result<()> {
        let in_log = self.log.as_ref().and_then(|log| Some((&log.file, *log.pages.get(&self.next)?)));
        let (file, at) = in_log.unwrap_or((&self.file, (self.next - 1) * self.page_size as u64));
        match file.read_exact_at(&mut self.page, at) {
            // Pages that nothing uses may be missing at the end.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => self.page.fill(0),
            read => read?,
        }
        if self.next == 1 && self.page_size >= HEAD {
            self.page[FORMAT].fill(1);
        }
        (self.next, self.read) = (self.next + 1, 0);
        Ok(())
    }
}

impl Read for Image {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.read == self.page_size {
            if self.next > self.pages {
                return Ok(0);
            }
            self.next_page()?;
        }
        let length = buffer.len().min(self.page_size - self.read);
        buffer[..length].copy_from_slice(&self.page[self.read..self.read + length]);
        self.read += length;
        Ok(length)
    }
}

impl Log {
    /// The pages of all transactions that have ended, and the size of a page; `None` if there are none.
    fn read(file: File) -> io::Result<Option<(Log, usize)>> {
        let mut head = [0; LOG_HEAD];
        match file.read_exact_at(&mut head, 0) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let magic = number(&head, 0);
        let page_size = number(&head, 8) as usize;
        if magic & !1 != LOG_MAGIC || !(512..=1 << 16).contains(&page_size) {
            return Ok(None);
        }
        let is_big = magic & 1 == 1;
        let mut sums = checksum((0, 0), &head[..24], is_big);
        if sums != (number(&head, 24), number(&head, 28)) {
            return Ok(None);
        }
        let (mut pages, mut open, mut size) = (HashMap::new(), Vec::new(), 0);
        let mut frame = vec![0; FRAME_HEAD + page_size];
        let mut at = LOG_HEAD as u64;
        while file.read_exact_at(&mut frame, at).is_ok() {
            let is_ours = frame[8..16] == head[16..24];
            sums = checksum(sums, &frame[..8], is_big);
            sums = checksum(sums, &frame[FRAME_HEAD..], is_big);
            if !is_ours || sums != (number(&frame, 16), number(&frame, 20)) {
                break;
            }
            open.push((u64::from(number(&frame, 0)), at + FRAME_HEAD as u64));
            let pages_after = number(&frame, 4);
            if pages_after > 0 {
                size = u64::from(pages_after);
                pages.extend(open.drain(..));
            }
            at += frame.len() as u64;
        }
        Ok((size > 0).then_some((Log { file, pages, size }, page_size)))
    }
}

/// The checksum of the log, from that of what is before.
fn checksum((mut first, mut second): (u32, u32), bytes: &[u8], is_big: bool) -> (u32, u32) {
    let word = |four: &[u8]| {
        let four = four.try_into().unwrap_or_default();
        if is_big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
    };
    for eight in bytes.chunks_exact(8) {
        first = first.wrapping_add(word(&eight[..4])).wrapping_add(second);
        second = second.wrapping_add(word(&eight[4..])).wrapping_add(first);
    }
    (first, second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn count(connection: &Connection) -> i64 {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn what_is_in_the_log_only_is_read_and_no_file_is_made_or_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch(
                "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x);
                 PRAGMA application_id=0x4d54504a; PRAGMA user_version=1; INSERT INTO t VALUES(1)",
            )
            .unwrap();
        let listing = || {
            let mut files: Vec<_> = fs::read_dir(folder.path())
                .unwrap()
                .map(|entry| {
                    let entry = entry.unwrap();
                    (entry.file_name(), fs::read(entry.path()).unwrap())
                })
                .collect();
            files.sort();
            files
        };
        let before = listing();
        assert_eq!(count(&open(&path).unwrap()), 1);
        assert_eq!(listing(), before);
        // Some of it is in the file by now, and the log begins anew.
        writer.execute_batch("PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(2)").unwrap();
        writer.execute_batch("BEGIN; INSERT INTO t VALUES(3)").unwrap();
        assert_eq!(count(&open(&path).unwrap()), 2);
        writer.execute_batch("COMMIT; INSERT INTO t VALUES(zeroblob(100000))").unwrap();
        assert_eq!(count(&open(&path).unwrap()), 4);
        drop(writer);
        let before = listing();
        assert_eq!(before.len(), 1);
        assert_eq!(count(&open(&path).unwrap()), 4);
        assert_eq!(listing(), before);
    }

    #[test]
    fn what_is_no_journal_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.db");
        assert!(matches!(open(&path), Err(JournalError::Missing(_))));
        fs::write(&path, "").unwrap();
        assert!(matches!(open(&path), Err(JournalError::Missing(_))));
        fs::write(&path, "a text\n".repeat(100)).unwrap();
        assert!(matches!(open(&path), Err(JournalError::Foreign(_))));
        fs::write(&path, [b"SQLite format 3\0".as_slice(), &[7; 5000]].concat()).unwrap();
        assert!(open(&path).is_err());
    }
}
