//! Which country, continent and network an address belongs to, as the databases of MaxMind and others say:
//! the legacy format (`GeoIP.dat`) and the present one (`.mmdb`).
//!
//! Knows: files and their formats. Must not know: what is done with an answer.

mod codes;
mod legacy;
mod mmdb;

pub use codes::{Code, continents, is_country, suggestion};

use self::legacy::Legacy;
use self::mmdb::Mmdb;
use super::file::CachedFile;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The largest file that is read. It is kept in memory; the largest on sale has half of it.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A database as it was read from its file.
#[derive(Debug)]
pub enum Database {
    /// Of the legacy format.
    Legacy(Legacy),
    /// Of the present one.
    Mmdb(Mmdb),
}

/// What a database says of an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The country.
    pub country: Option<Code>,
    /// The continent.
    pub continent: Option<Code>,
    /// The number of the autonomous system, which is the network of one operator.
    pub asn: Option<u32>,
}

/// What a database can say at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Countries and continents.
    pub countries: bool,
    /// Numbers of autonomous systems.
    pub asns: bool,
}

impl Database {
    /// Reads a file, or says what is wrong with it. It blocks.
    pub fn read(path: &Path) -> Result<Database, String> {
        let file = File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "no such file".to_owned(),
            std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
            _ => error.to_string(),
        })?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err("the file is larger than 1 GiB".to_owned());
        }
        Database::from_bytes(bytes)
    }

    /// A database from what its file holds, or what is wrong with it.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Database, String> {
        match mmdb::is_mmdb(&bytes) {
            true => Mmdb::new(bytes).map(Database::Mmdb),
            false => Legacy::new(bytes).map(Database::Legacy),
        }
    }

    /// What it can say.
    pub fn contents(&self) -> Contents {
        match self {
            Database::Legacy(legacy) => legacy.contents(),
            Database::Mmdb(mmdb) => mmdb.contents(),
        }
    }

    /// What it says of an address; nothing of an IPv6 one where it knows only IPv4. An IPv4 address that is
    /// written as an IPv6 one (`::ffff:192.0.2.1`) is that IPv4 address. The error says what is corrupt.
    pub fn lookup(&self, ip: IpAddr) -> Result<Found, String> {
        match self {
            Database::Legacy(legacy) => legacy.lookup(ip.to_canonical()),
            Database::Mmdb(mmdb) => mmdb.lookup(ip.to_canonical()),
        }
    }
}

/// A database whose file may be replaced at any time.
pub type DatabaseFile = CachedFile<Database>;

/// The database in a file, which is read at the first use. All who name the file share what was read: it may
/// have a hundred megabytes, and a reload makes plugins anew.
pub fn open(path: &str) -> Arc<DatabaseFile> {
    static OPEN: Mutex<BTreeMap<PathBuf, Weak<DatabaseFile>>> = Mutex::new(BTreeMap::new());
    let path = PathBuf::from(path);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = open.get(&path).and_then(Weak::upgrade) {
        return file;
    }
    open.retain(|_, file| file.strong_count() > 0);
    let file = CachedFile::new(path.clone(), Database::read);
    open.insert(path, Arc::downgrade(&file));
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_a_file_shares_it() {
        let (one, again, other) = (open("/nosuch/a.mmdb"), open("/nosuch/a.mmdb"), open("/nosuch/b.mmdb"));
        assert!(Arc::ptr_eq(&one, &again) && !Arc::ptr_eq(&one, &other));
    }

    #[test]
    fn what_is_no_database_is_refused() {
        for bytes in [&b""[..], b"hello", &[0xff; 100], &[0; 5000], b"\xab\xcd\xefMaxMind.com"] {
            assert!(Database::from_bytes(bytes.to_vec()).is_err(), "{bytes:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(Database::read(folder.path()).is_err(), "a folder is no database");
        let missing = Database::read(&folder.path().join("x")).unwrap_err();
        assert_eq!(missing, "no such file");
    }
}
