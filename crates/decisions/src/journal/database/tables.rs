//! The tables in a database.
//!
//! Knows: their columns. Must not know: what is written when.

use super::Dialect;

/// The version of the tables.
pub(super) const VERSION: i64 = 1;
/// In the table of what is covered, where the version is.
pub(super) const VERSION_ROW: i64 = -1;
/// How it is asked for.
pub(super) const VERSION_OF: &str = "SELECT since FROM mtpolicyd_journal_coverage WHERE class = -1";

/// How blocks are found by time.
const INDEXES: [&str; 2] = [
    "CREATE INDEX IF NOT EXISTS mtpolicyd_journal_last ON mtpolicyd_journal_block (last)",
    "CREATE INDEX IF NOT EXISTS mtpolicyd_journal_class ON mtpolicyd_journal_block (class, last)",
];

/// A table of the journal.
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// One of its columns.
    pub column: &'static str,
    /// The statements that make it.
    pub create: Vec<String>,
}

/// The tables, as a database wants them.
pub fn tables(dialect: Dialect) -> Vec<Table> {
    let (bytes, end) = match dialect {
        Dialect::Postgres => ("BYTEA", ""),
        Dialect::MySql => ("MEDIUMBLOB", " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"),
    };
    let make = |name: &'static str, column, columns: &str| {
        let columns = columns.replace("BYTES", bytes);
        Table { name, column, create: vec![format!("CREATE TABLE IF NOT EXISTS {name} ({columns}){end}")] }
    };
    // MySQL makes an index only together with its table, if it may be there already.
    let (keys, indexes) = match dialect {
        Dialect::Postgres => ("", &INDEXES[..]),
        Dialect::MySql => (", KEY by_last (last), KEY by_class (class, last)", &[][..]),
    };
    let columns = format!(
        "id BIGINT NOT NULL PRIMARY KEY, node SMALLINT NOT NULL, \
         first BIGINT NOT NULL, last BIGINT NOT NULL, class SMALLINT NOT NULL, config BIGINT NOT NULL, \
         count INTEGER NOT NULL, privacy SMALLINT NOT NULL, changes INTEGER NOT NULL, \
         version INTEGER NOT NULL, size INTEGER NOT NULL, \
         summary BYTES NOT NULL, filter BYTES NOT NULL, data BYTES NOT NULL{keys}"
    );
    let mut block = make("mtpolicyd_journal_block", "last", &columns);
    block.create.extend(indexes.iter().map(|index| (*index).to_owned()));
    let begun = "class SMALLINT NOT NULL PRIMARY KEY, since BIGINT NOT NULL";
    vec![
        block,
        make(
            "mtpolicyd_journal_config",
            "steps",
            "id BIGINT NOT NULL PRIMARY KEY, seen BIGINT NOT NULL, file TEXT NOT NULL, steps BYTES NOT NULL",
        ),
        make(
            "mtpolicyd_journal_loss",
            "lost",
            "at BIGINT NOT NULL, node SMALLINT NOT NULL, lost BIGINT NOT NULL, PRIMARY KEY (at, node)",
        ),
        make(
            "mtpolicyd_journal_audit",
            "what",
            "id BIGINT NOT NULL PRIMARY KEY, at BIGINT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL",
        ),
        make(
            "mtpolicyd_journal_event",
            "advice",
            "id BIGINT NOT NULL PRIMARY KEY, at BIGINT NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL, \
             level TEXT NOT NULL, subject TEXT NOT NULL, about TEXT NOT NULL, said TEXT NOT NULL, \
             advice TEXT NOT NULL",
        ),
        make(
            "mtpolicyd_journal_secret",
            "secret",
            "month INTEGER NOT NULL PRIMARY KEY, secret BYTES NOT NULL",
        ),
        make(
            "mtpolicyd_journal_node",
            "seen",
            "instance BIGINT NOT NULL PRIMARY KEY, node SMALLINT NOT NULL, host VARCHAR(255) NOT NULL, \
             seen BIGINT NOT NULL",
        ),
        // The last one, since its rows say that all are there.
        make("mtpolicyd_journal_coverage", "since", begun),
    ]
}
