//! What happened to the daemon, beside what it has decided: events that an administrator was told.
//!
//! Knows: their table, pseudonyms. Must not know: what kinds there are, who was told.

use super::pseudonym::{self, Key};
use crate::DecisionId;
use rusqlite::{Connection, Error, OptionalExtension};
use serde::{Deserialize, Serialize};

/// Notes that are kept at most.
pub const MAX_INCIDENTS: usize = 10_000;

/// The table, which files of earlier programs do not have.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS event(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL,
                                 subject TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL,
                                 level TEXT NOT NULL, text TEXT NOT NULL, advice TEXT NOT NULL);
";

/// Something that began or ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// Its own, with the time.
    pub id: DecisionId,
    /// What kind of thing it is.
    pub kind: String,
    /// Whether it began or ended.
    pub state: String,
    /// How much it matters.
    pub level: String,
    /// What it is about: a plugin, a list, a connection.
    pub subject: String,
    /// Whom it is about: a login or a client. Empty if nobody.
    pub key: String,
    /// What has happened.
    pub text: String,
    /// What to do.
    pub advice: String,
}

impl Incident {
    /// The same with a pseudonym, where names are replaced.
    pub(super) fn replaced(&self, key: &Key) -> Incident {
        if self.key.is_empty() {
            return self.clone();
        }
        let name = pseudonym::of_address(&self.key, key);
        let replace = |text: &str| text.replace(&self.key, &name);
        let (text, advice) = (replace(&self.text), replace(&self.advice));
        Incident { key: name, text, advice, ..self.clone() }
    }

    /// Whether one of these names, in lower case, occurs in it.
    pub fn names(&self, name: &str) -> bool {
        [&self.key, &self.text].iter().any(|text| text.to_lowercase().contains(name))
    }
}

/// Adds notes, within a transaction, and removes the oldest where there are too many.
pub(super) fn add(connection: &Connection, incidents: &[Incident]) -> Result<(), Error> {
    if incidents.is_empty() {
        return Ok(());
    }
    connection.execute_batch(TABLE)?;
    for incident in incidents {
        let add = "INSERT INTO event(at, kind, subject, key, state, level, text, advice) \
                   VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let Incident { id, kind, state, level, subject, key, text, advice } = incident;
        let values = (id.number().cast_signed(), kind, subject, key, state, level, text, advice);
        connection.prepare_cached(add)?.execute(values)?;
    }
    let most = format!("DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - {MAX_INCIDENTS}");
    connection.prepare_cached(&most)?.execute([]).map(drop)
}

fn has_table(connection: &Connection) -> Result<bool, Error> {
    let find = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'event'";
    Ok(connection.prepare_cached(find)?.query_row([], |_| Ok(())).optional()?.is_some())
}

/// Removes those that are about somebody and older than this.
pub(super) fn remove_personal(connection: &Connection, before: i64) -> Result<(), Error> {
    if !has_table(connection)? {
        return Ok(());
    }
    connection.prepare_cached("DELETE FROM event WHERE key <> '' AND at < ?1")?.execute([before]).map(drop)
}

/// Removes those in which one of these names occurs.
pub(super) fn forget(connection: &Connection, names: &[String]) -> Result<(), Error> {
    if !has_table(connection)? {
        return Ok(());
    }
    for name in names {
        let gone = "DELETE FROM event WHERE instr(lower(key), ?1) > 0 OR instr(lower(text), ?1) > 0";
        connection.prepare_cached(gone)?.execute([name])?;
    }
    Ok(())
}

/// The latest, newest first.
pub(super) fn latest(connection: &Connection, limit: usize) -> Result<Vec<Incident>, Error> {
    if !has_table(connection)? {
        return Ok(Vec::new());
    }
    let all = "SELECT at, kind, subject, key, state, level, text, advice FROM event \
               ORDER BY id DESC LIMIT ?1";
    let mut statement = connection.prepare(all)?;
    let limit = i64::try_from(limit.min(MAX_INCIDENTS)).unwrap_or_default();
    let incidents = statement.query_map([limit], |row| {
        Ok(Incident {
            id: DecisionId::from_number(row.get::<_, i64>(0)?.cast_unsigned()),
            kind: row.get(1)?,
            subject: row.get(2)?,
            key: row.get(3)?,
            state: row.get(4)?,
            level: row.get(5)?,
            text: row.get(6)?,
            advice: row.get(7)?,
        })
    })?;
    incidents.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Journal, JournalFile, Privacy, Settings};
    use std::time::{Duration, SystemTime};

    fn incident(key: &str, number: u64) -> Incident {
        Incident {
            id: DecisionId::from_number(DecisionId::first_at(SystemTime::now()).number() + number),
            kind: "limit-reached".to_owned(),
            state: "begins".to_owned(),
            level: "warning".to_owned(),
            subject: "outgoing".to_owned(),
            key: key.to_owned(),
            text: format!("{key} has used up 100/1h"),
            advice: String::new(),
        }
    }

    fn write(settings: &Settings, incidents: &[Incident]) {
        let journal = Journal::open(settings.clone(), |_| ()).unwrap();
        incidents.iter().for_each(|incident| journal.note(incident.clone()));
        assert_eq!(journal.incidents(9).unwrap().len(), incidents.len(), "also before they are written");
        assert!(journal.close(Duration::from_secs(60)));
    }

    #[test]
    fn what_happened_is_found_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::new(folder.path().join("j"));
        let [first, second] = [incident("alice@x.test", 0), incident("", 1)];
        write(&settings, &[first.clone(), second.clone()]);
        let file = JournalFile::open(&settings.file).unwrap();
        assert_eq!(file.incidents(9).unwrap(), [second.clone(), first]);
        assert_eq!(file.incidents(1).unwrap(), [second]);
    }

    #[test]
    fn a_file_of_an_earlier_program_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings::new(folder.path().join("j"));
        write(&settings, &[]);
        let file = JournalFile::open(&settings.file).unwrap();
        assert!(file.incidents(9).unwrap().is_empty());
        write(&settings, &[incident("a@x.test", 0)]);
        assert_eq!(file.incidents(9).unwrap().len(), 1);
    }

    #[test]
    fn names_are_replaced_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { privacy: Privacy::Addresses, ..Settings::new(folder.path().join("j")) };
        write(&settings, &[incident("alice@x.test", 0)]);
        let bytes = std::fs::read(&settings.file).unwrap();
        assert!(!bytes.windows(5).any(|part| part == b"alice"));
        let settings = Settings::new(folder.path().join("k"));
        let journal = Journal::open(settings.clone(), |_| ()).unwrap();
        journal.note(incident("Alice@x.test", 0));
        journal.note(incident("bob@x.test", 1));
        journal.forget("alice@x.test", "root").unwrap();
        let left: Vec<_> = journal.incidents(9).unwrap().into_iter().map(|incident| incident.key).collect();
        assert_eq!(left, ["bob@x.test"]);
        assert!(journal.close(Duration::from_secs(60)));
    }
}
