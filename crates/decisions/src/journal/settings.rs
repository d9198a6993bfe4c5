//! How a journal is kept: where, for how long, of whom.
//!
//! Knows: units. Must not know: the file, who sets it.

use super::database::Shared;
use std::path::PathBuf;
use std::time::Duration;

/// How a journal is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file.
    pub file: PathBuf,
    /// A database that is used in place of the file.
    pub database: Option<Shared>,
    /// How long decisions are kept that let a message pass.
    pub keep: Duration,
    /// How long decisions are kept in which something was done about a message, or something failed.
    pub keep_acted: Duration,
    /// The largest size of the file, or of all blocks in the database, in bytes.
    pub max_size: u64,
    /// Which decisions are kept.
    pub record: Record,
    /// Whose addresses are kept.
    pub privacy: Privacy,
    /// The age from which on everything personal is replaced, as by [`Privacy::All`].
    pub anonymise_after: Option<Duration>,
}

/// Which decisions are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Record {
    /// Every decision.
    #[default]
    All,
    /// Those in which something was done about a message, or something failed.
    Acted,
}

/// What is replaced by pseudonyms before it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Privacy {
    /// Nothing.
    #[default]
    None,
    /// What stands before the `@` in addresses of mailboxes, and logins.
    Addresses,
    /// The same, and the names that clients have or give; of the client's address only the network is kept
    /// (/24, or /48 with IPv6).
    All,
}

impl Privacy {
    /// As the file has it; what it does not know is the most.
    pub(super) fn from_number(number: u8) -> Privacy {
        match number {
            0 => Privacy::None,
            1 => Privacy::Addresses,
            _ => Privacy::All,
        }
    }
}

impl Settings {
    /// What the place is called.
    pub(super) fn place(&self) -> String {
        match &self.database {
            Some(shared) => shared.database.name(),
            None => self.file.display().to_string(),
        }
    }

    /// A journal in this file, with the usual times and sizes: a week, 30 days, 512 MiB.
    pub fn new(file: impl Into<PathBuf>) -> Settings {
        const DAY: Duration = Duration::from_secs(86_400);
        Settings {
            file: file.into(),
            database: None,
            keep: 7 * DAY,
            keep_acted: 30 * DAY,
            max_size: 512 << 20,
            record: Record::All,
            privacy: Privacy::None,
            anonymise_after: None,
        }
    }
}
