//! Indexed files: Berkeley DB, LMDB, CDB.
//!
//! postmap writes the first two in place, with a lock of the whole file: flock for Berkeley DB, fcntl for
//! LMDB. A lookup takes that lock for reading, and opens the file anew, so that it reads whatever is
//! current, at a few reads a key. SpamAssassin takes no lock that others can see; there a file that has
//! changed meanwhile, or that makes no sense, is read again.
//!
//! Knows: files, locks, formats. Must not know: what is looked up.

use super::Found;
use super::threads::{Lost, Threads};
use crate::facts::file::FileError;
use postfix_maps::berkeley::Database;
use postfix_maps::cdb::Cdb;
use postfix_maps::lmdb::Lmdb;
use postfix_maps::{Error, ReadAt};
use std::fs::{File, Metadata, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep};

/// How long to leave a file alone that another program writes.
const WAIT: Duration = Duration::from_millis(20);

/// How often a file without a lock is read that makes no sense: who writes without one takes milliseconds.
const TRIES: usize = 10;

/// How long ago the last write was by a process that may still write.
const RECENT: Duration = Duration::from_secs(1);

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Berkeley DB, hash or btree: the file says which.
    Berkeley,
    /// LMDB.
    Lmdb,
    /// A constant database.
    Cdb,
}

/// A file by its path.
pub struct Indexed {
    path: Arc<Path>,
    format: Format,
    threads: Threads,
}

/// Why a lookup ends without an answer.
enum ReadError {
    /// Another program writes the file.
    Busy,
    /// It makes no sense, perhaps because it is being written.
    Broken(String),
    /// Waiting does not help.
    Unusable(String),
}

impl Indexed {
    /// A file of that format. Nothing is opened yet.
    pub fn new(path: impl AsRef<Path>, format: Format) -> Indexed {
        Indexed { path: path.as_ref().into(), format, threads: Threads::new() }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says what keeps the file from being read, if anything but another program that writes it does.
    pub fn check(&self) -> Result<(), String> {
        match look_once(&self.path, self.format, &|_| Ok(())) {
            Ok(_) | Err(ReadError::Busy | ReadError::Broken(_)) => Ok(()),
            Err(ReadError::Unusable(cause)) => Err(cause),
        }
    }

    /// The first key with a value that is accepted.
    pub async fn find(
        &self,
        keys: Vec<Vec<u8>>,
        accept: fn(&[u8]) -> bool,
        deadline: Instant,
    ) -> Result<Option<Found>, FileError> {
        let keys: Arc<[Vec<u8>]> = keys.into();
        let look = move |get: &Get<'_>| {
            for key in &*keys {
                if let Some(value) = get(key)?.filter(|value| accept(value)) {
                    return Ok(Some(Found { key: key.clone(), value }));
                }
            }
            Ok(None)
        };
        self.look(look, deadline).await.map(|(found, _)| found)
    }

    /// The value of each key. That there is none is looked at twice if the file was written to a moment ago,
    /// perhaps by a process that takes no lock and is just moving the key from one page to another.
    pub async fn values(
        &self,
        keys: Vec<Vec<u8>>,
        deadline: Instant,
    ) -> Result<Vec<Option<Vec<u8>>>, FileError> {
        let keys: Arc<[Vec<u8>]> = keys.into();
        let look = move |get: &Get<'_>| keys.iter().map(|key| get(key)).collect::<Result<Vec<_>, _>>();
        let (values, is_recent): (Vec<_>, bool) = self.look(look.clone(), deadline).await?;
        if is_recent && values.iter().any(Option::is_none) && Instant::now() + WAIT < deadline {
            sleep(WAIT).await;
            return Ok(self.look(look, deadline).await?.0);
        }
        Ok(values)
    }

    /// Looks until the file was whole and did not change, off the runtime. Says too whether it was written to
    /// a moment ago.
    async fn look<T: Send + 'static>(
        &self,
        look: impl Fn(&Get<'_>) -> Result<T, Error> + Send + Sync + 'static,
        deadline: Instant,
    ) -> Result<(T, bool), FileError> {
        let look = Arc::new(look);
        let unusable = |cause: String| FileError::Unusable { path: self.path.clone(), cause: cause.into() };
        let mut broken = 0;
        loop {
            let (path, format, look) = (self.path.clone(), self.format, look.clone());
            let once = self.threads.run(move || look_once(&path, format, &*look), deadline).await;
            let once = match once {
                Ok(once) => once,
                Err(Lost::TimedOut) => return Err(FileError::TimedOut(self.path.clone())),
                Err(Lost::Failed) => Err(ReadError::Unusable("the reader failed".to_owned())),
            };
            match once {
                Ok(found) => return Ok(found),
                Err(ReadError::Unusable(cause)) => return Err(unusable(cause)),
                Err(ReadError::Broken(cause)) => {
                    broken += 1;
                    if broken == TRIES {
                        return Err(unusable(cause));
                    }
                }
                Err(ReadError::Busy) => {}
            }
            if Instant::now() + WAIT >= deadline {
                return Err(FileError::TimedOut(self.path.clone()));
            }
            sleep(WAIT).await;
        }
    }
}

/// Gets the value of a key.
type Get<'a> = dyn Fn(&[u8]) -> Result<Option<Vec<u8>>, Error> + 'a;

fn look_once<T>(
    path: &Path,
    format: Format,
    look: &dyn Fn(&Get<'_>) -> Result<T, Error>,
) -> Result<(T, bool), ReadError> {
    let unusable = |error: io::Error| ReadError::Unusable(crate::facts::file::plain(&error));
    let file = safe_files::open_regular(path).map_err(unusable)?;
    lock(&file, format)?;
    let before = Version::of(&file.metadata().map_err(unusable)?);
    let found = match format {
        Format::Berkeley => {
            Database::open(&file).and_then(|data| look(&|key| with_or_without_nul(&data, key)))
        }
        Format::Lmdb => Lmdb::open(&file).and_then(|data| look(&|key| with_or_without_nul(&data, key))),
        Format::Cdb => Cdb::open(&file).and_then(|data| look(&|key| with_or_without_nul(&data, key))),
    };
    // With the file the lock goes.
    let after = Version::of(&file.metadata().map_err(unusable)?);
    match found {
        Ok(found) if after == before => Ok((found, after.is_recent())),
        Ok(_) => Err(ReadError::Broken("it changes all the time".to_owned())),
        // Nobody is writing what has been so for a while.
        Err(error) if error.may_pass() && (after != before || after.is_recent()) => {
            Err(ReadError::Broken(error.to_string()))
        }
        Err(error) => Err(ReadError::Unusable(error.to_string())),
    }
}

/// What shows that a file was written to.
#[derive(PartialEq, Eq)]
struct Version {
    length: u64,
    modified: Option<SystemTime>,
}

impl Version {
    fn of(metadata: &Metadata) -> Version {
        Version { length: metadata.len(), modified: metadata.modified().ok() }
    }

    fn is_recent(&self) -> bool {
        // A time ahead of the clock counts as now.
        self.modified.is_none_or(|modified| modified.elapsed().unwrap_or_default() < RECENT)
    }
}

/// Takes the lock for reading, as Postfix does for that type. A file system without locks is read without.
fn lock(file: &File, format: Format) -> Result<(), ReadError> {
    let busy = match format {
        Format::Berkeley => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Format::Lmdb => record_lock_is_held(file),
        // Its maker puts a new file in its place.
        Format::Cdb => false,
    };
    if busy { Err(ReadError::Busy) } else { Ok(()) }
}

/// Locks all bytes for reading. Such a lock belongs to the open file: one of the process would end when any
/// thread closes the file.
#[cfg(target_os = "linux")]
fn record_lock_is_held(file: &File) -> bool {
    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::libc;
    let lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    matches!(fcntl(file, FcntlArg::F_OFD_SETLK(&lock)), Err(Errno::EAGAIN | Errno::EACCES))
}

/// Other systems have no such lock; there a file that changes is read again.
#[cfg(not(target_os = "linux"))]
fn record_lock_is_held(_: &File) -> bool {
    false
}

/// The formats behind one question.
trait Lookup {
    fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;
}

impl<S: ReadAt> Lookup for Database<'_, S> {
    fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.get(key)
    }
}

impl<S: ReadAt> Lookup for Lmdb<'_, S> {
    fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.get(key)
    }
}

impl<S: ReadAt> Lookup for Cdb<'_, S> {
    fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.get(key)
    }
}

/// postmap and others write keys and values with a NUL behind them or without.
fn with_or_without_nul(data: &impl Lookup, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let with_nul = [key, b"\0"].concat();
    let value = match data.lookup(&with_nul)? {
        Some(value) => Some(value),
        None => data.lookup(key)?,
    };
    Ok(value.map(|mut value| {
        if value.last() == Some(&0) {
            value.pop();
        }
        value
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_broken_file_is_read_again_only_while_it_may_be_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(10_000).unwrap();
        let indexed = Indexed::new(file.path(), Format::Berkeley);
        let mut waited = Vec::new();
        for age in [Duration::ZERO, Duration::from_secs(60)] {
            file.as_file().set_modified(SystemTime::now() - age).unwrap();
            let begun = Instant::now();
            let found = indexed.find(vec![b"x".to_vec()], |_| true, begun + Duration::from_secs(60)).await;
            assert!(matches!(found, Err(FileError::Unusable { .. })), "{found:?}");
            waited.push(begun.elapsed() >= WAIT);
        }
        assert_eq!(waited, [true, false]);
    }
}
