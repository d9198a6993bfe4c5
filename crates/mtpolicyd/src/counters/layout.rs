//! What the table of counters that is there can hold: those of the original end at 4 GiB.
//!
//! Knows: the catalogues of three databases, sizes of columns. Must not know: requests.

use super::tables::{MAX_KEY_CHARS, NUMBERS};
use backends::sql::{Dialect, Param, Row, Sql, Statement};

/// A table as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The largest number that each of the columns holds, in the order of `Metric::ALL`.
    pub largest: [i64; 4],
    /// The longest key in characters.
    pub key_chars: usize,
    /// Which characters a key may have.
    pub key_set: KeySet,
    /// Whether keys that differ in accents only are the same for the database, as in the tables that the
    /// original makes in MariaDB.
    pub ignores_accents: bool,
    /// Whether a key and a time occur once only.
    pub has_unique_key: bool,
}

/// The characters that a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySet {
    /// ASCII for sure.
    Ascii,
    /// Those of windows-1252 too, as in the tables of the original.
    Latin1,
    /// All of them.
    Unicode,
}

/// A column that is not wider than it has to be may end before what is counted.
const WIDE: i64 = i64::MAX;

impl Layout {
    /// What a new table is like.
    pub fn of_new(dialect: Dialect) -> Layout {
        let key_set = if dialect == Dialect::MySql { KeySet::Latin1 } else { KeySet::Unicode };
        let key_chars = if dialect == Dialect::Sqlite { usize::MAX } else { MAX_KEY_CHARS };
        Layout { largest: [WIDE; 4], key_chars, key_set, ignores_accents: false, has_unique_key: true }
    }

    /// The columns of numbers that could overflow.
    pub fn narrow(&self) -> impl Iterator<Item = &'static str> {
        NUMBERS.into_iter().zip(self.largest).filter(|(_, largest)| *largest < WIDE).map(|(name, _)| name)
    }

    /// Reads the rows that [`columns`] gives: `None` if there is no such table.
    pub fn read(dialect: Dialect, rows: &[Row], has_unique_key: bool) -> Option<Layout> {
        if rows.is_empty() {
            return None;
        }
        let mut layout = Layout { has_unique_key, ..Layout::of_new(dialect) };
        for row in rows {
            let text = |at: usize| row.get(at).and_then(Option::as_deref).unwrap_or_default();
            let (name, kind) = (text(0).to_ascii_lowercase(), text(1).to_ascii_lowercase());
            if let Some(at) = NUMBERS.iter().position(|number| *number == name) {
                layout.largest[at] = largest(dialect, &kind);
            }
            if name == "key" && dialect != Dialect::Sqlite {
                layout.key_set = key_set(dialect, text(2));
                let chars: Option<usize> = text(3).parse().ok();
                layout.key_chars = chars.map_or(MAX_KEY_CHARS, |chars| chars.min(MAX_KEY_CHARS));
                // A longer column would be cut by a change.
                layout.ignores_accents = chars == Some(layout.key_chars) && ignores_accents(text(2), text(4));
            }
        }
        Some(layout)
    }
}

/// The columns of a table: name, type, character set, length in characters, collation.
pub fn columns(sql: &Sql, table: &str) -> Statement {
    let (text, name) = match sql.dialect() {
        Dialect::Sqlite => {
            ("SELECT name, type, NULL, NULL, NULL FROM pragma_table_info(?)", table.to_owned())
        }
        Dialect::MySql => (
            "SELECT column_name, column_type, character_set_name, character_maximum_length, \
             collation_name FROM information_schema.columns \
             WHERE table_schema = DATABASE() AND table_name = ?",
            table.to_owned(),
        ),
        Dialect::Postgres => (
            "SELECT a.attname, format_type(a.atttypid, NULL), pg_encoding_to_char(d.encoding), \
             CASE WHEN a.atttypmod > 4 THEN a.atttypmod - 4 END, NULL \
             FROM pg_attribute AS a, pg_database AS d WHERE a.attrelid = to_regclass(?) AND a.attnum > 0 \
             AND NOT a.attisdropped AND d.datname = current_database()",
            sql.quote(table),
        ),
    };
    Statement { sql: text.into(), params: vec![Param::Text(name)] }
}

/// The largest number of a column of that type.
fn largest(dialect: Dialect, kind: &str) -> i64 {
    if dialect == Dialect::Sqlite {
        // The type is only a word there.
        return WIDE;
    }
    let bits = match kind.split(['(', ' ']).next().unwrap_or_default() {
        "tinyint" => 8,
        "smallint" => 16,
        "mediumint" => 24,
        "int" | "integer" => 32,
        _ => return WIDE,
    };
    let is_unsigned = kind.contains("unsigned");
    (1_i64 << (bits - i32::from(!is_unsigned))) - 1
}

/// Whether a column of MariaDB or MySQL takes letters with and without accents for the same. Those of other
/// character sets are not the original's.
fn ignores_accents(set: &str, collation: &str) -> bool {
    let keeps_them = matches!(collation, "latin1_general_ci" | "latin1_general_cs" | "latin1_bin");
    set == "latin1" && !collation.is_empty() && !keeps_them
}

fn key_set(dialect: Dialect, name: &str) -> KeySet {
    match (dialect, name) {
        (Dialect::Postgres, "UTF8") => KeySet::Unicode,
        // Only what the daemon has always written there; keys of other tables are found again.
        (Dialect::MySql, "latin1" | "utf8" | "utf8mb3" | "utf8mb4" | "") => KeySet::Latin1,
        _ => KeySet::Ascii,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, kind: &str, set: &str, chars: &str) -> Row {
        [name, kind, set, chars].map(|text| (!text.is_empty()).then(|| text.to_owned())).to_vec()
    }

    #[test]
    fn the_columns_of_the_original_end_at_four_gib() {
        let mut rows = vec![row("key", "varchar(255)", "latin1", "255")];
        rows[0].push(Some("latin1_swedish_ci".to_owned()));
        rows.extend(NUMBERS.map(|name| row(name, "int(10) unsigned", "", "")));
        let layout = Layout::read(Dialect::MySql, &rows, true).unwrap();
        assert_eq!(layout.largest, [4_294_967_295; 4]);
        assert_eq!(layout.narrow().collect::<Vec<_>>(), NUMBERS);
        assert_eq!((layout.key_chars, layout.key_set), (255, KeySet::Latin1));
        assert!(layout.ignores_accents);
        assert_eq!(Layout::read(Dialect::MySql, &[], true), None);
    }

    #[test]
    fn types_have_an_end() {
        for (dialect, kind, end) in [
            (Dialect::MySql, "bigint(20) unsigned", WIDE),
            (Dialect::MySql, "mediumint", 8_388_607),
            (Dialect::MySql, "int", 2_147_483_647),
            (Dialect::MySql, "tinyint(3) unsigned", 255),
            (Dialect::Postgres, "integer", 2_147_483_647),
            (Dialect::Postgres, "smallint", 32_767),
            (Dialect::Postgres, "bigint", WIDE),
            (Dialect::Postgres, "numeric", WIDE),
            (Dialect::Sqlite, "int unsigned", WIDE),
        ] {
            assert_eq!(largest(dialect, kind), end, "{kind}");
        }
    }

    #[test]
    fn a_key_is_written_in_characters_that_the_column_has() {
        for (dialect, name, set) in [
            (Dialect::MySql, "ascii", KeySet::Ascii),
            (Dialect::MySql, "latin2", KeySet::Ascii),
            (Dialect::MySql, "utf8mb3", KeySet::Latin1),
            (Dialect::Postgres, "UTF8", KeySet::Unicode),
            (Dialect::Postgres, "LATIN1", KeySet::Ascii),
        ] {
            assert_eq!(key_set(dialect, name), set, "{name}");
        }
    }
}
