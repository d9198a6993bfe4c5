//! The file of the journal: a SQLite database, opened, made, told from others, and looked after.
//!
//! Knows: tables, SQLite's failures. Must not know: what a block holds, when it is written.

use super::JournalError;
use super::pseudonym::Keys;
use crate::{DecisionId, StepTable};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row};
use sha2::{Digest, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Marks the file as ours: `MTPJ`.
const APPLICATION: i64 = 0x4d54_504a;
/// The version of the tables.
const VERSION: i64 = 1;
/// What every SQLite file begins with.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// The rights of a new file: what is in it is about people.
const NEW_FILE: u32 = 0o640;
/// How long the writer waits for another process; then it does something else and tries again.
const WRITE_PATIENCE: Duration = Duration::from_millis(100);
/// How long a search waits.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// The bytes of a table of steps, at most; no real one comes near.
const MAX_TABLE_BYTES: usize = 16 << 20;

/// Tables of steps whose numbers are remembered.
const MAX_CONFIGS: usize = 16;

/// The tables of version 1. Identifiers of decisions are their numbers.
const TABLES: &str = "
CREATE TABLE config(id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, since INTEGER NOT NULL,
                    file TEXT NOT NULL, steps BLOB NOT NULL);
CREATE TABLE block(id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL,
                   class INTEGER NOT NULL, config INTEGER NOT NULL REFERENCES config(id),
                   count INTEGER NOT NULL, privacy INTEGER NOT NULL,
                   summary BLOB NOT NULL, filter BLOB NOT NULL, data BLOB NOT NULL);
CREATE INDEX block_last ON block(last);
CREATE INDEX block_class ON block(class, last);
CREATE INDEX block_personal ON block(last) WHERE privacy < 2;
CREATE TABLE coverage(class INTEGER PRIMARY KEY, since INTEGER NOT NULL);
CREATE TABLE loss(at INTEGER PRIMARY KEY, count INTEGER NOT NULL);
CREATE TABLE audit(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL);
CREATE TABLE secret(month INTEGER PRIMARY KEY, key BLOB NOT NULL);
";

/// Why the file can't be used, by what is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Another process has locked it: try again.
    Busy,
    /// The file is damaged: begin a new one.
    Damaged(String),
    /// Anything else: open it again.
    Other(JournalError),
}

fn is_about_contents(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    matches!(error, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..))
}

/// The file, open for writing.
pub(super) struct Db {
    pub connection: Connection,
    path: PathBuf,
    watch: Arc<Watch>,
    /// Tables of steps that it has.
    configs: Vec<(Arc<StepTable>, i64)>,
}

/// A look at the file beside SQLite. It stays open as long as the file is used by this process: closing any
/// descriptor of a file ends the locks that the process has on it.
pub(super) struct Watch {
    file: File,
    identity: (u64, u64),
}

/// Whether the file at the path is still the one that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is.
    Same,
    /// It was removed, or there is another one.
    Gone,
    /// It is not a SQLite file any more.
    Damaged,
}

impl Trouble {
    /// A failure of SQLite.
    pub fn of(path: &Path, error: &rusqlite::Error) -> Trouble {
        let why = match error {
            rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
            other => other.to_string(),
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Trouble::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Trouble::Damaged(why),
            // A column has something else in it, or a table is missing.
            None if is_about_contents(error) => Trouble::Damaged(why),
            Some(ErrorCode::Unknown) if why.contains("no such ") => Trouble::Damaged(why),
            _ => Trouble::Other(JournalError::File { file: path.display().to_string(), why }),
        }
    }

    /// The same for those who only read.
    pub fn error(self, path: &Path) -> JournalError {
        match self {
            Trouble::Busy => JournalError::Busy,
            Trouble::Damaged(why) => JournalError::Damaged { file: path.display().to_string(), why },
            Trouble::Other(error) => error,
        }
    }
}

impl Db {
    /// Opens a file to write to it, and makes it where there is none; then it has every decision since
    /// `since`. `watch` is that of the last file.
    pub fn open(path: &Path, since: DecisionId, watch: &mut Option<Arc<Watch>>) -> Result<Db, Trouble> {
        let failed = |error: &std::io::Error| {
            Trouble::Other(JournalError::File { file: path.display().to_string(), why: error.to_string() })
        };
        match OpenOptions::new().write(true).create_new(true).mode(NEW_FILE).open(path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(&error)),
            _ => {}
        }
        let is_other = fs::metadata(path).is_ok_and(|it| !it.is_file());
        if is_other {
            return Err(Trouble::Other(JournalError::Foreign(path.display().to_string())));
        }
        let metadata = fs::metadata(path).map_err(|error| failed(&error))?;
        let identity = (metadata.dev(), metadata.ino());
        let watch = match watch {
            Some(watch) if watch.identity == identity => Arc::clone(watch),
            _ => {
                let file = File::open(path).map_err(|error| failed(&error))?;
                Arc::clone(watch.insert(Arc::new(Watch { file, identity })))
            }
        };
        look_at_head(path, &watch.file)?;
        let of = |error: rusqlite::Error| Trouble::of(path, &error);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(of)?;
        connection.busy_timeout(WRITE_PATIENCE).map_err(of)?;
        connection.set_prepared_statement_cache_capacity(64);
        if is_empty(&connection, path)? {
            make(&connection, since).map_err(of)?;
        }
        connection
            .execute_batch("PRAGMA synchronous=NORMAL; PRAGMA journal_size_limit=4194304")
            .map_err(of)?;
        Ok(Db { connection, path: path.to_owned(), watch, configs: Vec::new() })
    }

    /// A failure of SQLite with this file.
    pub fn trouble(&self, error: &rusqlite::Error) -> Trouble {
        Trouble::of(&self.path, error)
    }

    /// Whether it is still the file at its path, and a database.
    pub fn standing(&self) -> Standing {
        let mut head = [0; MAGIC.len()];
        let is_here = fs::metadata(&self.path).is_ok_and(|it| (it.dev(), it.ino()) == self.watch.identity);
        match self.watch.file.read_exact_at(&mut head, 0) {
            _ if !is_here => Standing::Gone,
            // Nothing of a new file may have been moved from the log into it.
            Ok(()) if head != *MAGIC => Standing::Damaged,
            _ => Standing::Same,
        }
    }

    /// The number of a table of steps, which is added if it is new.
    pub fn config(&mut self, table: &Arc<StepTable>, since: u64) -> Result<i64, rusqlite::Error> {
        if let Some((_, id)) = self.configs.iter().find(|(known, _)| Arc::ptr_eq(known, table)) {
            return Ok(*id);
        }
        let (json, steps) = packed_steps(table);
        let hash: [u8; 32] = Sha256::digest(&json).into();
        let add = "INSERT OR IGNORE INTO config(hash, since, file, steps) VALUES(?1, ?2, ?3, ?4)";
        self.connection.execute(add, (hash, since.cast_signed(), &table.file, &steps))?;
        let get = "SELECT id FROM config WHERE hash = ?1";
        let id = self.connection.query_row(get, [hash], |row| row.get(0))?;
        if self.configs.len() >= MAX_CONFIGS {
            self.configs.clear();
        }
        self.configs.push((Arc::clone(table), id));
        Ok(id)
    }

    /// Forgets which tables of steps are there, since some were removed, or not added after all.
    pub fn forget_configs(&mut self) {
        self.configs.clear();
    }
}

/// Opens a file to read it, beside those who write.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, JournalError> {
    let shown = || path.display().to_string();
    let failed = |error: &std::io::Error| match error.kind() {
        ErrorKind::NotFound => JournalError::Missing(shown()),
        _ => JournalError::File { file: shown(), why: error.to_string() },
    };
    fs::metadata(path).map_err(|error| failed(&error))?;
    let opened = open_with(path, path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let opened = match opened {
        // The files by which readers and writers agree are not there, and can't be made.
        Err(Trouble::Other(JournalError::File { .. })) => {
            let text = path.to_string_lossy();
            let text = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            open_with(path, Path::new(&format!("file:{text}?immutable=1")), flags).or(opened)
        }
        _ => opened,
    };
    opened.map_err(|trouble| trouble.error(path))
}

fn open_with(path: &Path, name: &Path, flags: OpenFlags) -> Result<Connection, Trouble> {
    let of = |error: rusqlite::Error| Trouble::of(path, &error);
    let connection =
        Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(of)?;
    connection.busy_timeout(READ_PATIENCE).map_err(of)?;
    if is_empty(&connection, path)? {
        return Err(Trouble::Other(JournalError::Missing(path.display().to_string())));
    }
    Ok(connection)
}

/// Tells a file of noise, which was a journal, from a text, which never was one.
pub(super) fn look_at_head(path: &Path, file: &File) -> Result<(), Trouble> {
    let mut head = [0; 512];
    // What can't be read SQLite can't read either.
    let length = file.read_at(&mut head, 0).unwrap_or_default();
    let head = &head[..length];
    let is_text = || {
        let read = match str::from_utf8(head) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() => {
                str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return false,
        };
        !read.chars().any(|c| c.is_control() && !c.is_whitespace())
    };
    if head.is_empty() || head.starts_with(MAGIC) {
        Ok(())
    } else if is_text() {
        Err(Trouble::Other(JournalError::Foreign(path.display().to_string())))
    } else {
        Err(Trouble::Damaged("file is not a database".to_owned()))
    }
}

/// Whether a database has nothing in it yet. One of another program, or of a later version, is an error.
pub(super) fn is_empty(connection: &Connection, path: &Path) -> Result<bool, Trouble> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    // All of one moment, also while somebody makes it.
    let read = connection.execute_batch("SAVEPOINT look").and_then(|()| {
        let application = number("PRAGMA application_id")?;
        let version = number("PRAGMA user_version")?;
        Ok((application, version, number("SELECT count(*) FROM sqlite_master")?))
    });
    // Where it was not begun, this is not the failure to be told.
    let _ = connection.execute_batch("RELEASE look");
    let file = || path.display().to_string();
    match read.map_err(|error| Trouble::of(path, &error))? {
        (APPLICATION, VERSION, _) => Ok(false),
        (APPLICATION, found, _) if found > VERSION => {
            Err(Trouble::Other(JournalError::Newer { file: file(), found, known: VERSION }))
        }
        (0, 0, 0) => Ok(true),
        _ => Err(Trouble::Other(JournalError::Foreign(file()))),
    }
}

fn make(connection: &Connection, since: DecisionId) -> Result<(), rusqlite::Error> {
    connection.execute_batch("PRAGMA auto_vacuum=INCREMENTAL")?;
    let _: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let made = connection.execute_batch(TABLES).and_then(|()| {
        let begin = "INSERT INTO coverage(class, since) VALUES(0, ?1), (1, ?1)";
        connection.execute(begin, [since.number().cast_signed()])?;
        connection.execute_batch(&format!(
            "PRAGMA application_id={APPLICATION}; PRAGMA user_version={VERSION}; COMMIT"
        ))
    });
    if made.is_err() {
        // The failure is told; that the transaction ends with it can fail only if it has.
        let _ = connection.execute_batch("ROLLBACK");
    }
    made
}

/// The table of steps with this number.
pub(super) fn table(connection: &Connection, id: i64) -> Result<Option<Arc<StepTable>>, rusqlite::Error> {
    let get = "SELECT steps FROM config WHERE id = ?1";
    let steps: Option<Vec<u8>> =
        connection.prepare_cached(get)?.query_row([id], |row| row.get(0)).optional()?;
    Ok(steps.and_then(|steps| self::steps(&steps)))
}

/// A table of steps as JSON, and that compressed.
pub(super) fn packed_steps(table: &StepTable) -> (Vec<u8>, Vec<u8>) {
    let json = serde_json::to_vec(table).unwrap_or_default();
    let steps = lz4_flex::block::compress_prepend_size(&json);
    (json, steps)
}

/// The table of steps that was compressed.
pub(super) fn steps(steps: &[u8]) -> Option<Arc<StepTable>> {
    let length = steps.first_chunk().map(|length| u32::from_le_bytes(*length) as usize)?;
    if length > MAX_TABLE_BYTES {
        return None;
    }
    let json = lz4_flex::block::decompress_size_prepended(steps).ok()?;
    serde_json::from_slice(&json).ok().map(Arc::new)
}

/// A column that counts.
pub(super) fn count(row: &Row<'_>, column: usize) -> Result<u64, rusqlite::Error> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or_default())
}

/// The keys of pseudonyms.
pub(super) fn keys(connection: &Connection) -> Result<Keys, rusqlite::Error> {
    let mut statement = connection.prepare("SELECT month, key FROM secret")?;
    let keys = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Keys(keys.collect::<Result<_, _>>()?))
}

/// Gives a damaged file another name, and its other files with it: the new name.
pub(super) fn put_aside(path: &Path) -> std::io::Result<PathBuf> {
    let now = jiff::Timestamp::now().to_string();
    let date: String = now.chars().take(19).filter(|c| *c != ':' && *c != '-').collect();
    let with = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let free = (0..100).map(|n| if n == 0 { String::new() } else { format!("-{n}") });
    let renamed = free.map(|n| with(&format!(".broken-{date}{n}"))).find(|name| !name.exists());
    let renamed = renamed.unwrap_or_else(|| with(".broken"));
    fs::rename(path, &renamed)?;
    for ending in ["-wal", "-shm"] {
        let mut to = renamed.as_os_str().to_owned();
        to.push(ending);
        // Often there is none.
        let _ = fs::rename(with(ending), to);
    }
    Ok(renamed)
}
