//! Postfix's lookup tables (DATABASE_README): files and services, named `TYPE:NAME` as in main.cf.
//!
//! Knows: the types, deadlines. Must not know: what is looked up, or in which order.

pub mod indexed;
mod rules;
mod service;
mod table;
mod threads;

use super::file::{CachedFile, FileError};
use crate::matching::{Matching, SearchError};
use backends::{BackendError, Call};
use indexed::{Format, Indexed};
use perl_regex::Budget;
use service::{Protocol, Service};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use table::{Table, TextKind};

/// A lookup table. Nothing is opened before it is asked.
pub struct Map {
    /// As it was named.
    name: Arc<str>,
    kind: Kind,
    /// Whether parts of an address are looked up too, and in lower case.
    fixed: bool,
}

enum Kind {
    Indexed(Indexed),
    Text(Arc<CachedFile<Table>>, PathBuf, TextKind),
    Service(Service),
}

/// What a table has for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Why a table does not answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MapError {
    /// A file can't be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A service can't be asked, or can't say.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The patterns of the table take too much work for this key.
    #[error("{map}: {cause}")]
    Search {
        /// Which table.
        map: Arc<str>,
        /// What is wrong.
        cause: SearchError,
    },
}

/// How services are asked.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    /// The socket of Postfix's proxymap.
    pub proxymap: PathBuf,
    /// How long one answer may take.
    pub timeout: Duration,
}

/// The types, for messages.
const TYPES: &str = "hash, btree, lmdb, cdb, texthash, cidr, regexp, pcre, socketmap, proxy";

/// Types that take a whole key only, in both cases.
const PATTERN_TYPES: &[&str] = &["cidr", "pcre", "regexp", "socketmap", "tcp"];

/// Whether a name begins with a type: the path of a file does not.
pub fn has_type(name: &str) -> bool {
    let word = name.split_once(':').map(|(word, _)| word);
    word.is_some_and(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric()))
}

impl Map {
    /// A table by its name.
    ///
    /// # Errors
    /// Says what is wrong with the name.
    pub fn new(name: &str, settings: &ServiceSettings) -> Result<Map, String> {
        let (kind, rest) = name.split_once(':').unwrap_or(("", name));
        if rest.is_empty() {
            return Err(format!("`{name}` names no table; write `TYPE:NAME`"));
        }
        let text = |kind| {
            let file = CachedFile::new(rest, move |path| Table::read(path, kind));
            Kind::Text(file, PathBuf::from(rest), kind)
        };
        let indexed = |format, suffix| Kind::Indexed(Indexed::new(with_suffix(rest, suffix), format));
        let service = |protocol, endpoint| {
            let service = Service::new(name, endpoint, protocol, settings.timeout)?;
            Ok::<_, String>(Kind::Service(service))
        };
        let mut pattern_kind = kind;
        let kind = match kind {
            "hash" | "btree" => indexed(Format::Berkeley, "db"),
            "lmdb" => indexed(Format::Lmdb, "lmdb"),
            "cdb" => indexed(Format::Cdb, "cdb"),
            "texthash" => text(TextKind::Hash),
            "cidr" => text(TextKind::Cidr),
            "regexp" => text(TextKind::Regexp),
            "pcre" => text(TextKind::Pcre),
            "socketmap" => {
                let (endpoint, map) = rest.rsplit_once(':').filter(|(_, map)| !map.is_empty()).ok_or(
                    "a socketmap is written `socketmap:inet:HOST:PORT:NAME` or `socketmap:unix:PATH:NAME`",
                )?;
                service(Protocol::Socketmap(map.to_owned()), endpoint)?
            }
            "proxy" => {
                pattern_kind = rest.split(':').next().unwrap_or_default();
                if !has_type(rest) {
                    return Err(format!("`{name}`: behind `proxy:` a table has a type too"));
                }
                let socket = format!("unix:{}", settings.proxymap.display());
                service(Protocol::Proxymap(rest.to_owned()), &socket)?
            }
            other => {
                let help = "Postfix looks into others for you: `proxy:TYPE:NAME`";
                return Err(format!("`{other}` is not one of the types {TYPES}; {help}"));
            }
        };
        Ok(Map { name: name.into(), kind, fixed: !PATTERN_TYPES.contains(&pattern_kind) })
    }

    /// A file of Berkeley DB by its path.
    pub fn berkeley(path: &str) -> Map {
        Map { name: path.into(), kind: Kind::Indexed(Indexed::new(path, Format::Berkeley)), fixed: true }
    }

    /// As it was named.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether another program looks into the table.
    pub fn is_service(&self) -> bool {
        matches!(self.kind, Kind::Service(_))
    }

    /// Whether a part of an address is a key too. Tables of patterns take the whole, as it is written.
    pub fn has_fixed_keys(&self) -> bool {
        self.fixed
    }

    /// The first of the keys that has a value which is accepted. In a file all keys are looked up in the same
    /// version of it.
    pub async fn find(
        &self,
        keys: Vec<Vec<u8>>,
        accept: fn(&[u8]) -> bool,
        matching: &mut Matching,
        call: Call<'_>,
    ) -> Result<Option<Found>, MapError> {
        match &self.kind {
            Kind::Indexed(indexed) => {
                indexed.find(keys, accept, call.deadline()).await.map_err(MapError::File)
            }
            Kind::Text(file, ..) => {
                let table = file.get(call.deadline()).await?;
                for key in keys {
                    let (work, table) = (table.work(key.len()), table.clone());
                    let get = move |key: &[u8], budget: &mut Budget| table.get(key, budget);
                    let value = matching.search(&key, work, call.deadline(), get).await;
                    let value = value.map_err(|cause| MapError::Search { map: self.name.clone(), cause })?;
                    if let Some(value) = value.filter(|value| accept(value)) {
                        return Ok(Some(Found { key, value }));
                    }
                }
                Ok(None)
            }
            Kind::Service(service) => {
                for key in keys {
                    if let Some(value) = service.get(&key, call).await?.filter(|value| accept(value)) {
                        return Ok(Some(Found { key, value }));
                    }
                }
                Ok(None)
            }
        }
    }

    /// What keeps the file of this table from being read now, or the socket of its service from being
    /// asked, if it has one and anything does.
    pub fn trouble(&self) -> Option<String> {
        let (path, result) = match &self.kind {
            Kind::Service(service) => return service.trouble(),
            Kind::Indexed(indexed) => {
                (indexed.path(), regular(indexed.path()).and_then(|()| indexed.check()))
            }
            Kind::Text(_, path, kind) => (&**path, regular(path).and_then(|()| Table::check(path, *kind))),
        };
        let why = result.err()?;
        let others = if path.exists() { self.made_of(path) } else { other_types(path) };
        Some(format!("{}: {why}{}", path.display(), others.unwrap_or_default()))
    }

    /// The database that postmap has made of a text which was named in its place.
    fn made_of(&self, path: &Path) -> Option<String> {
        let made = with_suffix_of(path, "db");
        let is_index = matches!(self.kind, Kind::Indexed(_)) && made != path && made.is_file();
        is_index.then(|| format!("; write {}, which postmap has made of it", made.display()))
    }
}

/// Whether it is a file that can be read to its end.
fn regular(path: &Path) -> Result<(), String> {
    let metadata = std::fs::metadata(path).map_err(|error| super::file::plain(&error))?;
    if metadata.is_file() { Ok(()) } else { Err("this is not a regular file".to_owned()) }
}

/// The files beside one that is not there which hold the same table in another form, as after an upgrade of
/// Postfix.
fn other_types(path: &Path) -> Option<String> {
    let beside = |(suffix, kind): &(&str, &str)| {
        // `table.db` and `table` both have `table.lmdb` beside them.
        let is_index = path.extension().is_some_and(|own| INDEXES.iter().any(|(suffix, _)| own == *suffix));
        let other = if is_index { path.with_extension(suffix) } else { with_suffix_of(path, suffix) };
        other.is_file().then(|| format!("; there is {}, which is `{kind}:`", other.display()))
    };
    INDEXES.iter().find_map(beside)
}

/// What postmap adds to a name, and the type.
const INDEXES: [(&str, &str); 3] = [("db", "hash"), ("lmdb", "lmdb"), ("cdb", "cdb")];

fn with_suffix_of(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(with_suffix(&path.to_string_lossy(), suffix))
}

/// The file behind a name: Postfix adds the suffix. Whoever has written it means the same.
fn with_suffix(path: &str, suffix: &str) -> String {
    let has_it = path.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    if has_it { path.to_owned() } else { format!("{path}.{suffix}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ServiceSettings {
        ServiceSettings { proxymap: "/nowhere".into(), timeout: Duration::from_secs(1) }
    }

    #[test]
    fn a_table_is_named_as_in_postfix() {
        for (name, fixed) in [
            ("hash:/etc/a", true),
            ("cidr:/etc/a", false),
            ("socketmap:inet:[::1]:99:map", false),
            ("socketmap:unix:/run/a:map", false),
            ("proxy:mysql:/etc/a", true),
            ("proxy:pcre:/etc/a", false),
        ] {
            assert_eq!(Map::new(name, &settings()).map(|map| map.has_fixed_keys()), Ok(fixed), "{name}");
        }
        for bad in ["/etc/a", "hash:", "mysql:/etc/a", "socketmap:inet:host:map", "proxy:/etc/a", ""] {
            assert!(Map::new(bad, &settings()).is_err(), "{bad}");
        }
        assert!(has_type("hash:a") && !has_type("/etc/a:b") && !has_type("a.db"));
    }

    #[test]
    fn a_suffix_is_added_once() {
        assert_eq!(with_suffix("/etc/a", "db"), "/etc/a.db");
        assert_eq!(with_suffix("/etc/a.db", "db"), "/etc/a.db");
        assert_eq!(with_suffix("/etc/adb", "db"), "/etc/adb.db");
    }
}
