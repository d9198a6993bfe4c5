//! The tables of the counters and of the reservations, as each database wants them written.
//!
//! Knows: the columns of the original, three kinds of SQL. Must not know: requests.

use backends::sql::{Dialect, Sql, Statement};

/// The columns of the numbers, in the order of `Metric::ALL`.
pub const NUMBERS: [&str; 4] = ["count", "count_rcpt", "size", "size_rcpt"];

/// The table of the reservations, one for all counters of a database.
pub const RESERVATIONS: &str = "mtpolicyd_reservations";

/// The longest key or time that MySQL and PostgreSQL have room for, in characters.
pub const MAX_KEY_CHARS: usize = 255;

/// Writes the statements about one table.
pub struct Writer<'a> {
    pub sql: &'a Sql,
    /// The name of the table, not quoted.
    pub table: &'a str,
}

/// In how many ways a key may be spelled in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spellings {
    /// As everybody counts it.
    One,
    /// Also as it is written in the request.
    Two,
}

/// A statement without values.
pub fn plain(sql: String) -> Statement {
    Statement { sql: sql.into(), params: Vec::new() }
}

impl Writer<'_> {
    pub fn quoted(&self) -> String {
        self.sql.quote(self.table)
    }

    pub fn column(&self, name: &str) -> String {
        self.sql.quote(name)
    }

    /// Makes the table as the original does, but with numbers of 64 bits where the database knows sizes. On
    /// SQLite the unique key, which the original has there only by chance, comes separately.
    pub fn create(&self, engine: &str) -> String {
        let (table, dialect) = (self.quoted(), self.sql.dialect());
        let [id, key, time] = ["id", "key", "time"].map(|name| self.column(name));
        let (number, more) = match dialect {
            Dialect::Sqlite => ("INT UNSIGNED", ")".to_owned()),
            // Two keys of 255 characters fit into the 1000 bytes of MyISAM in latin1 only. By its default
            // collation keys that differ in accents only would be one, as in the tables of the original
            // before `separate_accents`.
            Dialect::MySql => (
                "BIGINT UNSIGNED",
                format!(
                    ", UNIQUE KEY `time_key` ({key}, {time}), KEY `key` ({key}), KEY `time` ({time})) \
                     ENGINE={engine} DEFAULT CHARSET=latin1 COLLATE=latin1_bin"
                ),
            ),
            Dialect::Postgres => ("BIGINT", format!(", UNIQUE ({key}, {time}))")),
        };
        let texts = [key, time].map(|name| format!("{name} VARCHAR(255) NOT NULL"));
        let numbers = NUMBERS.map(|name| format!("{} {number} NOT NULL", self.column(name)));
        let columns = [&texts[..], &numbers].concat().join(", ");
        format!("CREATE TABLE IF NOT EXISTS {table} ({id} {}, {columns}{more}", dialect.row_number())
    }

    /// Gives columns of numbers 64 bits.
    pub fn widen(&self, columns: impl Iterator<Item = &'static str>) -> Statement {
        let change = |name| match self.sql.dialect() {
            Dialect::MySql => format!("MODIFY {} BIGINT UNSIGNED NOT NULL", self.column(name)),
            Dialect::Sqlite | Dialect::Postgres => {
                format!("ALTER COLUMN {} TYPE BIGINT", self.column(name))
            }
        };
        let changes = columns.map(change).collect::<Vec<_>>().join(", ");
        plain(format!("ALTER TABLE {} {changes}", self.quoted()))
    }

    /// Has MariaDB and MySQL take keys for different ones that differ in accents, but still not in case, so
    /// that the rows of the original are found.
    pub fn separate_accents(&self, key_chars: usize) -> Statement {
        let (table, key) = (self.quoted(), self.column("key"));
        plain(format!(
            "ALTER TABLE {table} MODIFY {key} VARCHAR({key_chars}) CHARACTER SET latin1 \
             COLLATE latin1_general_ci NOT NULL"
        ))
    }

    /// Counts: a key and a time, then the numbers, then the largest of each that the table holds. A number
    /// that has reached it stays there. Except in MySQL it gives the new numbers.
    pub fn upsert(&self) -> String {
        let table = self.quoted();
        let all = ["key", "time"].iter().chain(&NUMBERS).map(|name| self.column(name)).collect::<Vec<_>>();
        let (key, numbers) = (all[..2].join(", "), &all[2..]);
        let all = all.join(", ");
        let dialect = self.sql.dialect();
        let [least, _] = dialect.least_and_greatest();
        let add = numbers.iter().map(|n| {
            let old = format!("COALESCE({table}.{n}, 0)");
            format!("{n} = {old} + {least}({}, ? - {old})", dialect.inserted(n))
        });
        let (add, or_update) = (add.collect::<Vec<_>>().join(", "), dialect.or_update(&key));
        let upsert = format!("INSERT INTO {table} ({all}) VALUES (?, ?, ?, ?, ?, ?) {or_update} {add}");
        if dialect == Dialect::MySql { upsert } else { format!("{upsert} RETURNING {}", numbers.join(", ")) }
    }

    /// Reads a number: of the spellings of a key and a time.
    pub fn read(&self, number: &str, spellings: Spellings) -> String {
        let (table, number, is_it) = (self.quoted(), self.column(number), self.is_counter("", spellings));
        format!("SELECT COALESCE(SUM({number}), 0) FROM {table} WHERE {is_it}")
    }

    /// Reserves unless a threshold has been reached: token, table, key, time, the numbers and the end; the
    /// spellings of the key and time; table, key and time; now; the threshold.
    pub fn reserve(&self, number: &str, spellings: Spellings) -> String {
        let reservations = self.sql.quote(RESERVATIONS);
        let names = ["key", "time"].iter().chain(&NUMBERS).map(|name| self.column(name));
        let names = names.collect::<Vec<_>>().join(", ");
        let (whole, from) = match self.sql.dialect() {
            Dialect::Sqlite => ("?", ""),
            Dialect::MySql => ("?", " FROM DUAL"),
            // Else it takes what is selected for text.
            Dialect::Postgres => ("CAST(? AS BIGINT)", ""),
        };
        let numbers = [whole; NUMBERS.len() + 1].join(", ");
        let used = self.used(number, spellings, "");
        format!(
            "INSERT INTO {reservations} (token, counted_in, {names}, expires) \
             SELECT ?, ?, ?, ?, {numbers}{from} WHERE {used} < ?"
        )
    }

    /// What is counted, and reserved before one reservation: the spellings of the key and time; table, key
    /// and time; now; the token.
    pub fn used_before(&self, number: &str, spellings: Spellings) -> String {
        let reservations = self.sql.quote(RESERVATIONS);
        let before = format!(" AND r.seq < (SELECT m.seq FROM {reservations} AS m WHERE m.token = ?)");
        format!("SELECT {}", self.used(number, spellings, &before))
    }

    fn used(&self, number: &str, spellings: Spellings, which: &str) -> String {
        let is_it = self.is_counter("c.", spellings);
        let (table, reservations) = (self.quoted(), self.sql.quote(RESERVATIONS));
        let (number, key, time) = (self.column(number), self.column("key"), self.column("time"));
        format!(
            "(SELECT COALESCE(SUM(c.{number}), 0) FROM {table} AS c \
             WHERE {is_it}) + \
             (SELECT COALESCE(SUM(r.{number}), 0) FROM {reservations} AS r \
             WHERE r.counted_in = ? AND r.{key} = ? AND r.{time} = ? AND r.expires > ?{which})"
        )
    }

    /// Whether a row is that of a counter. With two spellings SQLite makes a table of them first, so that is
    /// asked only where it has to be.
    fn is_counter(&self, alias: &str, spellings: Spellings) -> String {
        let (key, time) = (self.column("key"), self.column("time"));
        let is_key = match spellings {
            Spellings::One => "= ?",
            Spellings::Two => "IN (?, ?)",
        };
        format!("{alias}{key} {is_key} AND {alias}{time} = ?")
    }

    /// The spans of time in the table.
    pub fn times(&self) -> String {
        let (table, time) = (self.quoted(), self.column("time"));
        format!("SELECT DISTINCT {time} FROM {table} ORDER BY {time}")
    }

    /// Removes what was counted in one span of time.
    pub fn remove_time(&self) -> String {
        format!("DELETE FROM {} WHERE {} = ?", self.quoted(), self.column("time"))
    }
}

/// Makes the table of the reservations unless there is one. They are in the order of `seq`.
pub fn create_reservations(sql: &Sql) -> Vec<String> {
    let table = sql.quote(RESERVATIONS);
    let (key, time) = (sql.quote("key"), sql.quote("time"));
    let numbers = NUMBERS.map(|name| format!("{} BIGINT NOT NULL", sql.quote(name))).join(", ");
    let columns = format!(
        "token VARCHAR(64) NOT NULL, counted_in VARCHAR(255) NOT NULL, {key} VARCHAR(255) NOT NULL, \
         {time} VARCHAR(255) NOT NULL, {numbers}, expires BIGINT NOT NULL, UNIQUE (token)"
    );
    let index = sql.quote("mtpolicyd_reservations_place");
    let index = format!("CREATE INDEX IF NOT EXISTS {index} ON {table} ({key}, {time})");
    let create = format!("CREATE TABLE IF NOT EXISTS {table} (seq {}, {columns}", sql.dialect().row_number());
    match sql.dialect() {
        Dialect::Sqlite | Dialect::Postgres => vec![format!("{create})"), index],
        // As the tables of the counters that are made here. What is in it need not outlive the server, and
        // writing it to the disk twice for each message takes longer than all the rest.
        Dialect::MySql => vec![format!(
            "{create}, KEY place ({key}, {time})) ENGINE=MEMORY DEFAULT CHARSET=latin1 COLLATE=latin1_bin"
        )],
    }
}

/// Removes all reservations that have ended at a time.
pub fn remove_all_expired(sql: &Sql) -> String {
    format!("DELETE FROM {} WHERE expires <= ?", sql.quote(RESERVATIONS))
}

/// Removes a reservation by its token.
pub fn remove_reservation(sql: &Sql) -> String {
    format!("DELETE FROM {} WHERE token = ?", sql.quote(RESERVATIONS))
}
