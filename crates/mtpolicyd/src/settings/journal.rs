//! The `<Journal>` block: whether, where and how long decisions are kept.
//!
//! Knows: its options. Must not know: the file, the database, who sends decisions.

use crate::connections::Connections;
use crate::journal::SqlJournal;
use crate::options::{Options, Section, options};
use crate::table_tasks;
use crate::tasks::Tasks;
use crate::value::{NonZeroSeconds, Seconds, Size, words};
use decisions::journal::{Privacy, Record, Settings};
use std::sync::Arc;

/// What is kept of decisions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum JournalSettings {
    /// The last ones, in memory: there is no block.
    #[default]
    Memory,
    /// Nothing.
    Off,
    /// All of them in a file, and the last ones in memory.
    File(Settings),
    /// The same in a database.
    Database(Settings, Arc<SqlJournal>),
}

impl JournalSettings {
    /// How decisions are kept by the daemon of this number, if they are. To be called in the runtime by which
    /// a database is asked.
    pub fn kept(&self, node: u8) -> Option<Settings> {
        match self {
            JournalSettings::File(settings) => Some(settings.clone()),
            JournalSettings::Database(settings, database) => {
                Some(Settings { database: Some(database.shared(node)), ..settings.clone() })
            }
            JournalSettings::Memory | JournalSettings::Off => None,
        }
    }

    /// How much is kept for how long, if more than what memory holds.
    pub fn bounds(&self) -> Option<&Settings> {
        match self {
            JournalSettings::File(settings) | JournalSettings::Database(settings, _) => Some(settings),
            JournalSettings::Memory | JournalSettings::Off => None,
        }
    }

    /// Has the rights on its tables looked at, if it is in a database.
    pub(super) fn check_rights(&self, tasks: &Tasks) {
        let Some((sql, schemas)) = self.database().map(|database| database.tables()) else { return };
        schemas.into_iter().for_each(|schema| table_tasks::check_rights(tasks, "Journal", sql, schema));
    }

    /// The database, if there is one.
    pub fn database(&self) -> Option<&Arc<SqlJournal>> {
        match self {
            JournalSettings::Database(_, database) => Some(database),
            _ => None,
        }
    }
}

options! {
    /// Options of the `<Journal>` block.
    ///
    /// With this block the daemon keeps every decision in a file, or in a database that the daemons of
    /// several machines share, with what each plugin found and which lookups it made; `mtpolicyd decisions`
    /// searches it, and `mtpolicyd explain` shows one. Without it, the last 1,000 decisions are kept in
    /// memory. `<Journal off>` ends that too. No request waits for the journal: what can't be written in time
    /// is lost, counted and logged.
    ///
    /// The journal holds addresses of senders, recipients and clients, which are personal data in many
    /// countries. It also holds what databases, directories and web services said about them as far as a
    /// plugin looks into it, such as the settings of a user, so that `mtpolicyd replay` can try another
    /// configuration on it.
    pub struct JournalOptions {
        /// The file, a SQLite database that only the user of the daemon may read. A message takes about 300
        /// bytes per recipient with ten lookups.
        file: String = DEFAULT_FILE,
        /// The name of a `<Connection>` of module Sql with a PostgreSQL or MariaDB database, to keep
        /// decisions there instead of in a file. Daemons that name the same database share the journal: what
        /// any of them has decided is found, explained, removed and replayed from each. Give each of them its
        /// own `node`, so that no two decisions have the same identifier; the log says if two daemons have
        /// the same. The daemon opens up to three connections for it, beside those of `max_connections`.
        ///
        /// The tables are called `mtpolicyd_journal_...` and are made if they are missing. The options below
        /// belong in all daemons alike: each removes what is too old or too much by its own.
        connection: Option<String>,
        /// How long to keep decisions that let a message pass.
        keep: NonZeroSeconds = NonZeroSeconds(Seconds::of(7 * 86_400)),
        /// How long to keep decisions that did something about a message (reject, defer, discard, hold,
        /// redirect and others), closed the connection, or in which something failed.
        keep_acted: NonZeroSeconds = NonZeroSeconds(Seconds::of(30 * 86_400)),
        /// Maximum size of the file, or of all decisions in the database (without what the database needs
        /// beside them), at least 1M. Beyond it the oldest decisions are removed, those that let a message
        /// pass first.
        max_size: Size = Size::mebibytes(512),
        /// Which decisions to keep.
        record: Recorded = Recorded::All,
        /// What to replace with pseudonyms before it is written. The daemon makes a new key for them every
        /// month. A search for the full address still finds what was recorded under its pseudonym. What is
        /// kept in memory, and what was decided within the last second, is shown as it is.
        privacy: Kept = Kept::None,
        /// The age from which on names are replaced as by `privacy = all`. Without it, they stay as they were
        /// written until they are removed.
        anonymise_after: Option<NonZeroSeconds>,
    }
    rules {
        AtMostOne(file, connection),
    }
}

words! {
    /// Which decisions are kept.
    pub enum Recorded {
        /// All.
        All = "all",
        /// Those that did something about a message or closed the connection, and those in which something
        /// failed.
        Acted = "acted",
    }
}

words! {
    /// What is replaced with pseudonyms.
    pub enum Kept {
        /// Nothing.
        None = "none",
        /// Logins, and what stands before the `@` in addresses. Domains and clients stay.
        Addresses = "addresses",
        /// The same, and the names of clients; of their addresses the network stays (/24, or /48 with IPv6).
        All = "all",
    }
}

/// The file where none is named.
pub(super) const DEFAULT_FILE: &str = "/var/lib/mtpolicyd/journal.db";

/// The smallest file: it has room for some thousand decisions.
const SMALLEST: Size = Size::mebibytes(1);

/// The database of this name, or `None` after the mistake was reported. What was there before the file was
/// read again stays if it is the same.
fn database(
    name: &str,
    connections: &Connections,
    earlier: Option<&JournalSettings>,
    section: &Section<'_>,
) -> Option<Arc<SqlJournal>> {
    let settings = connections.sql_settings(name, "connection", section)?.clone();
    let new = match SqlJournal::new(name, settings) {
        Ok(new) => Arc::new(new),
        // The mistake was reported at the connection's own block.
        Err(_) => return None,
    };
    if !new.is_server() {
        let message = format!("connection {name} is a SQLite file, which daemons do not share");
        let help =
            Some("name the file of the journal with `file` instead, and leave out `connection`".into());
        section.report().error(section.span_of("connection"), message, help);
        return None;
    }
    let same = earlier.and_then(JournalSettings::database).filter(|old| ***old == *new);
    Some(same.map_or(new, Arc::clone))
}

/// Reads the block, or returns `None` after the mistakes were reported.
pub(super) fn read(
    mut section: Section<'_>,
    connections: &Connections,
    earlier: Option<&JournalSettings>,
) -> Option<JournalSettings> {
    let name = section.name();
    let is_off = name.eq_ignore_ascii_case("off");
    if !is_off && !name.is_empty() {
        let help = "write `<Journal>`, or `<Journal off>`".to_owned();
        section.refuse(format!("`{name}` is not a kind of journal"), Some(help));
    }
    let options = JournalOptions::read(&mut section);
    let is_too_small = options.as_ref().is_some_and(|options| options.max_size.0 < SMALLEST.0);
    if is_too_small {
        let message = format!("`max_size` is at least {SMALLEST}");
        section.report().error(section.span_of("max_size"), message, None);
    }
    let is_named = is_off || name.is_empty();
    let connection = options.as_ref().and_then(|options| options.connection.as_deref());
    let database = connection.map(|name| database(name, connections, earlier, &section));
    section.finish();
    let options = options.filter(|_| is_named && !is_too_small)?;
    if is_off {
        return Some(JournalSettings::Off);
    }
    let settings = Settings {
        database: None,
        file: options.file.into(),
        keep: options.keep.0.duration(),
        keep_acted: options.keep_acted.0.duration(),
        max_size: options.max_size.0 as u64,
        record: match options.record {
            Recorded::All => Record::All,
            Recorded::Acted => Record::Acted,
        },
        privacy: match options.privacy {
            Kept::None => Privacy::None,
            Kept::Addresses => Privacy::Addresses,
            Kept::All => Privacy::All,
        },
        anonymise_after: options.anonymise_after.map(|age| age.0.duration()),
    };
    match database {
        Some(database) => Some(JournalSettings::Database(settings, database?)),
        None => Some(JournalSettings::File(settings)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connections::Outside;
    use crate::options::Report;
    use config_general::Limits;
    use std::path::Path;
    use std::time::Duration;

    fn read_text(text: &str) -> Result<JournalSettings, String> {
        let document = config_general::parse(Path::new("c"), text.as_bytes(), &Limits::default()).unwrap();
        let report = Report::default();
        let block = document.root.blocks().find(|block| block.kind == "Journal").unwrap();
        let mut root = Section::new(&document.root, &report);
        let connections = Connections::read(&mut root, None, Outside::Real);
        let settings = read(Section::new(block, &report), &connections, None);
        let said: Vec<_> = report.into_diagnostics().into_iter().map(|it| it.message).collect();
        if said.is_empty() { Ok(settings.unwrap()) } else { Err(said.join("; ")) }
    }

    #[test]
    fn the_block_says_how_decisions_are_kept() {
        let usual = Settings::new("/var/lib/mtpolicyd/journal.db");
        assert_eq!(read_text("<Journal>\n</Journal>"), Ok(JournalSettings::File(usual.clone())));
        let text = "<Journal>\nfile = /j\nkeep = 1d\nkeep_acted = 2h\nmax_size = 2M\nrecord = acted\n\
                    privacy = addresses\nanonymise_after = 3d\n</Journal>";
        let settings = Settings {
            keep: Duration::from_secs(86_400),
            keep_acted: Duration::from_secs(7_200),
            max_size: 2 << 20,
            record: Record::Acted,
            privacy: Privacy::Addresses,
            anonymise_after: Some(Duration::from_secs(3 * 86_400)),
            ..Settings::new("/j")
        };
        assert_eq!(read_text(text), Ok(JournalSettings::File(settings)));
        assert_eq!(read_text("<Journal off>\n</Journal>"), Ok(JournalSettings::Off));
    }

    #[test]
    fn mistakes_are_reported() {
        for (text, said) in [
            ("<Journal on>\n</Journal>", "`on` is not a kind of journal"),
            ("<Journal>\nmax_size = 1000\n</Journal>", "`max_size` is at least 1M"),
            ("<Journal>\nprivacy = some\n</Journal>", "`some`"),
            ("<Journal>\nkept = 1d\n</Journal>", "kept"),
            ("<Journal>\nconnection = db\n</Journal>", "there is no <Connection db>"),
            ("<Journal>\nfile = /j\nconnection = memory\n</Journal>", "connection: there is `file` already"),
            ("<Journal>\nconnection = memory\n</Journal>", "connection memory is not a database"),
            (
                "<Connection db>\nmodule = Sql\ndsn = dbi:SQLite:dbname=/d\n</Connection>\n\
                 <Journal>\nconnection = db\n</Journal>",
                "connection db is a SQLite file, which daemons do not share",
            ),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
