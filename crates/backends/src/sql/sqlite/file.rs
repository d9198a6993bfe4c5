//! The file of a SQLite database: opening it, and noticing that it is no longer the one at its path.
//!
//! Knows: SQLite's files. Must not know: jobs, threads.
//!
//! SQLite goes on with a file that somebody has removed or replaced: commits succeed and nobody finds them.
//! So whoever uses a connection asks for its [`Standing`] before, and again before it acknowledges a commit.

use crate::Failure;
use crate::messages;
use crate::sql::dsn::SqliteSource;
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use rusqlite::{Connection, ErrorCode, FileControl, MAIN_DB, OpenFlags, ffi};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long SQLite itself waits for a lock of another process before we look whose time is up.
pub(super) const LOCK_STEP: Duration = Duration::from_millis(20);

/// Statements that a connection keeps prepared; the daemon has some dozens.
const PREPARED: usize = 128;

/// The pages of the write-ahead log after which it is moved into the file. With the usual 1,000 the log of a
/// small database is many times its size, and fills a small disk for good.
const CHECKPOINT_PAGES: u32 = 100;

/// What is left of the log after a large transaction, in bytes: more than it needs between two checkpoints.
const MAX_LOG_BYTES: u32 = 1 << 19;

/// The rights of a new file: what is in it is about people.
const NEW_FILE: u32 = 0o640;

/// How messages begin that say that a table, or its unique key, is missing.
const NO_TABLE: [&str; 2] = ["no such table", "ON CONFLICT clause does not match"];

/// Where the database is.
pub(super) struct Place {
    source: SqliteSource,
    name: Arc<str>,
    told_of_no_log: AtomicBool,
    told_of_reading: AtomicBool,
    last: Mutex<Option<Last>>,
}

/// What was opened last.
struct Last {
    file: Option<Identity>,
    log: Identity,
    /// Keeps the log's inode from being given to another file.
    _held: fs::File,
}

/// A connection, and what it was opened on.
pub(super) struct Opened {
    /// The connection.
    pub connection: Connection,
    file: Option<Identity>,
    log: Option<Identity>,
    access: Access,
    stamp: Option<Stamp>,
}

/// What a connection may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    /// Read and write.
    Change,
    /// Read, beside those who write.
    Read,
    /// Read while nobody writes: the files by which readers and writers agree are not there, and can't be
    /// made.
    ReadAlone,
}

/// What changes when a file is written to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Stamp {
    seconds: i64,
    nanoseconds: i64,
    size: u64,
}

/// A file, as its device and inode. While it is open, no other file gets the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Identity(u64, u64);

/// Whether a connection is still that of the file at its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It is that of the file.
    Same,
    /// The file is, but its write-ahead log was removed.
    LogGone,
    /// The file is, but it has another write-ahead log.
    OtherLog,
    /// The file was removed, or another one is in its place.
    Gone,
}

/// Why SQLite failed, by what is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SqliteError {
    /// Another process has locked the database: try again.
    Locked,
    /// The connection or the file is unusable: open it again.
    Broken(String),
    /// The statement is wrong, or was interrupted.
    Statement(Failure),
}

impl Place {
    /// A database, not opened yet. The name is that of the connection, for the log.
    pub fn new(source: SqliteSource, name: Arc<str>) -> Place {
        let (told_of_no_log, told_of_reading) = (AtomicBool::new(false), AtomicBool::new(false));
        Place { source, name, told_of_no_log, told_of_reading, last: Mutex::new(None) }
    }

    /// The name of the connection.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is no file.
    pub fn in_memory(&self) -> bool {
        self.source.path.is_none()
    }

    /// Opens the file, or makes it. One that may only be read is opened to be read.
    pub fn open(&self) -> Result<Opened, SqliteError> {
        let Some(path) = &self.source.path else {
            let connection = Connection::open_in_memory().map_err(|error| SqliteError::of(&error))?;
            connection.set_prepared_statement_cache_capacity(PREPARED);
            return Ok(Opened { connection, file: None, log: None, access: Access::Change, stamp: None });
        };
        self.remove_left_log(path);
        self.make(path);
        let stamp = Stamp::of(path);
        let mut opened = self.open_for(path, Access::Change);
        for access in [Access::Read, Access::ReadAlone] {
            if opened.as_ref().is_err_and(is_about_rights) && path.is_file() {
                opened = self.open_for(path, access).or(opened);
            }
        }
        let (connection, has_log, access) = opened.map_err(|error| cannot_open(path, &error))?;
        if access != Access::Change && !self.told_of_reading.swap(true, Ordering::Relaxed) {
            messages::read_only(&self.name, path.display());
        }
        let log = if has_log { identity(&beside(path, "-wal")) } else { None };
        let file = identity(path);
        if has_moved(&connection) {
            // It was replaced while we opened it.
            return Err(SqliteError::Locked);
        }
        if access == Access::Change {
            let held = log.zip(fs::File::open(beside(path, "-wal")).ok());
            *self.last() = held.map(|(log, held)| Last { file, log, _held: held });
        }
        let stamp = stamp.filter(|_| access == Access::ReadAlone);
        Ok(Opened { connection, file, log, access, stamp })
    }

    /// Makes an empty file that others may not read. SQLite would give it to everybody who may enter the
    /// folder, and it gives its other files the rights of this one.
    fn make(&self, path: &Path) {
        if self.source.makes_file() {
            // What is wrong with the folder SQLite says.
            let _ = fs::OpenOptions::new().write(true).create_new(true).mode(NEW_FILE).open(path);
        }
    }

    /// A connection that may do so much, and whether there is a write-ahead log.
    fn open_for(&self, path: &Path, access: Access) -> Result<(Connection, bool, Access), rusqlite::Error> {
        let connection = match access {
            Access::Change => Connection::open(&self.source.open)?,
            Access::Read => Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?,
            Access::ReadAlone => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
                Connection::open_with_flags(as_immutable(path), flags)?
            }
        };
        connection.busy_timeout(LOCK_STEP)?;
        connection.set_prepared_statement_cache_capacity(PREPARED);
        if access == Access::Change && connection.is_readonly(MAIN_DB)? {
            return Err(read_only());
        }
        let has_log = match access {
            Access::Change => self.set_log(&connection)?,
            Access::Read => has_log(&connection)?,
            Access::ReadAlone => {
                connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
                false
            }
        };
        Ok((connection, has_log, access))
    }

    /// Whether it got a write-ahead log, which not every file system allows.
    fn set_log(&self, connection: &Connection) -> Result<bool, rusqlite::Error> {
        let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", MAX_LOG_BYTES)?;
        // The log itself appears with the first look at the file.
        connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
        let has_log = mode.eq_ignore_ascii_case("wal");
        if !has_log && !self.told_of_no_log.swap(true, Ordering::Relaxed) {
            messages::no_write_ahead_log(&self.name, mode);
        }
        Ok(has_log)
    }

    /// Whether the file at the path is the one that was opened.
    pub fn standing(&self, opened: &Opened) -> Standing {
        let Some(path) = &self.source.path else { return Standing::Same };
        if opened.file.is_none() || identity(path) != opened.file {
            return Standing::Gone;
        }
        let log = identity(&beside(path, "-wal"));
        match (opened.log, log) {
            // Nothing may have changed, since it is read without locks.
            (None, _) if opened.access == Access::ReadAlone => {
                let is_same = log.is_none() && Stamp::of(path) == opened.stamp;
                if is_same { Standing::Same } else { Standing::OtherLog }
            }
            (None, _) => Standing::Same,
            (mine, there) if mine == there => Standing::Same,
            (_, None) => Standing::LogGone,
            (_, Some(_)) => Standing::OtherLog,
        }
    }

    /// Removes the write-ahead log of a file that is gone: SQLite would play it into the file that is now in
    /// its place. That it is the one which we wrote says that it does not belong to the new file.
    fn remove_left_log(&self, path: &Path) {
        let mut last = self.last();
        let log = beside(path, "-wal");
        let is_left = |last: &Last| identity(&log) == Some(last.log) && identity(path) != last.file;
        if last.take_if(|last| is_left(last)).is_none() {
            return;
        }
        for file in [log, beside(path, "-shm")] {
            if let Err(error) = fs::remove_file(&file) {
                messages::left_behind(&self.name, file.display(), error);
            }
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<Last>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// Whether nothing can be changed.
    pub fn is_read_only(&self) -> bool {
        self.access != Access::Change
    }

    /// Writes what is only in a removed write-ahead log into the file: whether all of it is there now.
    pub fn rescue_log(&self) -> bool {
        let counts = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let done: Result<(i64, i64, i64), _> =
            self.connection.query_row("PRAGMA wal_checkpoint(FULL)", [], counts);
        done.is_ok_and(|(busy, written, copied)| busy == 0 && written == copied)
    }
}

impl SqliteError {
    /// What is to be done about an error of SQLite.
    pub fn of(error: &rusqlite::Error) -> SqliteError {
        let text = message(error);
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy) => SqliteError::Locked,
            Some(
                ErrorCode::ReadOnly
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::DiskFull
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed,
            ) => SqliteError::Broken(text),
            Some(ErrorCode::TooBig) => SqliteError::Statement(Failure::BadValue(text)),
            Some(ErrorCode::OperationInterrupted) => SqliteError::Statement(Failure::TimedOut),
            _ if NO_TABLE.iter().any(|begin| text.starts_with(begin)) => {
                SqliteError::Statement(Failure::NoTable(text))
            }
            _ => SqliteError::Statement(Failure::Refused(text)),
        }
    }
}

/// The message without the statement that it is about.
fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

fn cannot_open(path: &Path, error: &rusqlite::Error) -> SqliteError {
    match SqliteError::of(error) {
        SqliteError::Locked => SqliteError::Locked,
        _ => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            match folder.filter(|folder| !folder.is_dir()) {
                Some(folder) => {
                    let (path, folder) = (path.display(), folder.display());
                    SqliteError::Broken(format!("can't open {path}: there is no folder {folder}"))
                }
                None => {
                    let why = forbidden(path).unwrap_or_else(|| message(error));
                    SqliteError::Broken(format!("can't open {}: {why}", path.display()))
                }
            }
        }
    }
}

/// Why the system lets nobody write a file, or make it: SQLite says the same of each reason. In the sandbox
/// of a systemd unit most folders are read-only, which an administrator does not see from outside.
fn forbidden(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = if path.exists() { path } else { folder };
    let error = access(place, AccessFlags::W_OK).err()?;
    let hint = match error {
        Errno::EROFS => "; a systemd unit names the folder with ReadWritePaths=",
        _ => "",
    };
    Some(format!("{}: {}{hint}", place.display(), error.desc()))
}

/// The error of a write to a file that may only be read.
fn read_only() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY), None)
}

/// Whether a connection that may do less could be had.
fn is_about_rights(error: &rusqlite::Error) -> bool {
    let codes = [ErrorCode::ReadOnly, ErrorCode::CannotOpen, ErrorCode::PermissionDenied];
    error.sqlite_error_code().is_some_and(|code| codes.contains(&code))
}

/// Whether a database that is only read has a write-ahead log.
fn has_log(connection: &Connection) -> Result<bool, rusqlite::Error> {
    connection.query_row("PRAGMA schema_version", [], |_| Ok(()))?;
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    Ok(mode.eq_ignore_ascii_case("wal"))
}

/// The file as a URI that says that nobody changes it.
fn as_immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            other => uri.push_str(&format!("%{other:02x}")),
        }
    }
    uri + "?immutable=1"
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let file = fs::metadata(path).ok()?;
        Some(Stamp { seconds: file.mtime(), nanoseconds: file.mtime_nsec(), size: file.size() })
    }
}

fn has_moved(connection: &Connection) -> bool {
    let mut moved = 0;
    let asked = connection.file_control(Some("main"), FileControl::HasMoved(&mut moved));
    asked.is_err() || moved != 0
}

fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().map(|file| Identity(file.dev(), file.ino()))
}

/// A file whose name is that of the database and a suffix.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
