//! The tables of the counters and of the reservations, as each database wants them written.
//!
//! Knows: the columns of the original, three kinds of SQL. Must not know: requests, who asks.

use crate::world::sql::{Dialect, Param, Sql, Statement};

/// The columns of the numbers, in the order of `Metric::ALL`.
pub const NUMBERS: [&str; 4] = ["count", "count_rcpt", "size", "size_rcpt"];

/// The table of the reservations, one for all counters of a database.
const RESERVATIONS: &str = "mtpolicyd_reservations";

/// The longest key or time that MySQL and PostgreSQL have room for, in characters.
pub const MAX_KEY_CHARS: usize = 255;

/// Writes the statements about one table.
pub struct Writer<'a> {
    pub sql: &'a Sql,
    /// The name of the table, not quoted.
    pub table: &'a str,
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

    /// Makes the table as the original does, unless there is one. On SQLite the unique key, which the
    /// original has there only by chance, comes separately; on PostgreSQL, which the original does not know,
    /// and on MySQL, sums of bytes have 64 bits.
    pub fn create(&self, engine: &str) -> Statement {
        let table = self.quoted();
        plain(match self.sql.dialect() {
            Dialect::Sqlite => format!(
                "CREATE TABLE IF NOT EXISTS {table} (`id` INTEGER PRIMARY KEY AUTOINCREMENT, \
                 `key` VARCHAR(255) NOT NULL, `time` VARCHAR(255) NOT NULL, \
                 `count` INT UNSIGNED NOT NULL, `count_rcpt` INT UNSIGNED NOT NULL, \
                 `size` INT UNSIGNED NOT NULL, `size_rcpt` INT UNSIGNED NOT NULL)"
            ),
            // Two keys of 255 characters fit into the 1000 bytes of MyISAM in latin1 only.
            Dialect::MySql => format!(
                "CREATE TABLE IF NOT EXISTS {table} (`id` BIGINT NOT NULL AUTO_INCREMENT, \
                 `key` VARCHAR(255) NOT NULL, `time` VARCHAR(255) NOT NULL, \
                 `count` INT UNSIGNED NOT NULL, `count_rcpt` INT UNSIGNED NOT NULL, \
                 `size` BIGINT UNSIGNED NOT NULL, `size_rcpt` BIGINT UNSIGNED NOT NULL, \
                 PRIMARY KEY (`id`), UNIQUE KEY `time_key` (`key`, `time`), KEY `key` (`key`), \
                 KEY `time` (`time`)) ENGINE={engine} DEFAULT CHARSET=latin1"
            ),
            Dialect::Postgres => format!(
                "CREATE TABLE IF NOT EXISTS {table} (\"id\" BIGSERIAL PRIMARY KEY, \
                 \"key\" VARCHAR(255) NOT NULL, \"time\" VARCHAR(255) NOT NULL, \
                 \"count\" BIGINT NOT NULL, \"count_rcpt\" BIGINT NOT NULL, \
                 \"size\" BIGINT NOT NULL, \"size_rcpt\" BIGINT NOT NULL, UNIQUE (\"key\", \"time\"))"
            ),
        })
    }

    /// How many unique indexes there are on exactly key and time.
    pub fn count_unique_indexes(&self) -> Statement {
        let (sql, name) = match self.sql.dialect() {
            Dialect::Sqlite => (
                "SELECT COUNT(*) FROM pragma_index_list(?) AS l WHERE l.\"unique\" = 1 AND l.partial = 0 \
                 AND (SELECT group_concat(name) FROM pragma_index_info(l.name)) IN ('key,time', 'time,key')",
                self.table.to_owned(),
            ),
            Dialect::MySql => (
                "SELECT COUNT(*) FROM (SELECT index_name FROM information_schema.statistics \
                 WHERE table_schema = DATABASE() AND table_name = ? AND non_unique = 0 GROUP BY index_name \
                 HAVING COUNT(*) = 2 AND SUM(column_name IN ('key', 'time')) = 2 \
                 AND COUNT(sub_part) = 0) AS i",
                self.table.to_owned(),
            ),
            Dialect::Postgres => (
                "SELECT COUNT(*) FROM pg_index AS i WHERE i.indrelid = to_regclass(?) AND i.indisunique \
                 AND i.indisvalid AND i.indpred IS NULL AND (SELECT string_agg(a.attname, ',' ORDER BY \
                 a.attname) FROM pg_attribute AS a WHERE a.attrelid = i.indrelid AND a.attnum = \
                 ANY (i.indkey)) = 'key,time'",
                self.quoted(),
            ),
        };
        Statement { sql: sql.into(), params: vec![Param::Text(name)] }
    }

    /// Makes one row of those of the same key and time, with the sums, then allows only one. The second
    /// statement tells how many rows that were too many.
    pub fn merge(&self) -> [Statement; 3] {
        let table = self.quoted();
        let column = |name: &str| self.column(name);
        let (id, key, time) = (column("id"), column("key"), column("time"));
        let sums = NUMBERS.map(|name| format!("SUM({0}) AS {0}", column(name))).join(", ");
        let sums = format!(
            "(SELECT MIN({id}) AS {id}, {sums} FROM {table} GROUP BY {key}, {time} HAVING COUNT(*) > 1) AS g"
        );
        let first = format!("(SELECT MIN({id}) AS {id} FROM {table} GROUP BY {key}, {time}) AS g");
        let index = column(&format!("{}_key_time", self.table));
        let [update, delete] = match self.sql.dialect() {
            Dialect::MySql => {
                let set = NUMBERS.map(|name| format!("{table}.{0} = g.{0}", column(name))).join(", ");
                [
                    format!("UPDATE {table} JOIN {sums} ON {table}.{id} = g.{id} SET {set}"),
                    format!(
                        "DELETE {table} FROM {table} LEFT JOIN {first} ON {table}.{id} = g.{id} \
                         WHERE g.{id} IS NULL"
                    ),
                ]
            }
            Dialect::Sqlite | Dialect::Postgres => {
                let set = NUMBERS.map(|name| format!("{0} = g.{0}", column(name))).join(", ");
                [
                    format!("UPDATE {table} SET {set} FROM {sums} WHERE {table}.{id} = g.{id}"),
                    format!("DELETE FROM {table} WHERE {id} NOT IN (SELECT {id} FROM {first})"),
                ]
            }
        };
        let index = match self.sql.dialect() {
            Dialect::MySql => format!("ALTER TABLE {table} ADD UNIQUE KEY {index} ({key}, {time})"),
            Dialect::Sqlite | Dialect::Postgres => {
                format!("CREATE UNIQUE INDEX IF NOT EXISTS {index} ON {table} ({key}, {time})")
            }
        };
        [plain(update), plain(delete), plain(index)]
    }

    /// Counts: a key and a time, then the numbers.
    pub fn upsert(&self) -> String {
        let table = self.quoted();
        let all = ["key", "time"].iter().chain(&NUMBERS).map(|name| self.column(name)).collect::<Vec<_>>();
        let (key, numbers) = (all[..2].join(", "), &all[2..]);
        let all = all.join(", ");
        let insert = format!("INSERT INTO {table} ({all}) VALUES (?, ?, ?, ?, ?, ?)");
        match self.sql.dialect() {
            Dialect::MySql => {
                let add = |n: &String| format!("{n} = {n} + VALUES({n})");
                let add = numbers.iter().map(add).collect::<Vec<_>>().join(", ");
                format!("{insert} ON DUPLICATE KEY UPDATE {add}")
            }
            Dialect::Sqlite | Dialect::Postgres => {
                let add = |n: &String| format!("{n} = COALESCE({table}.{n}, 0) + excluded.{n}");
                let add = numbers.iter().map(add).collect::<Vec<_>>().join(", ");
                format!("{insert} ON CONFLICT ({key}) DO UPDATE SET {add}")
            }
        }
    }

    /// Reads a number: of a key and a time.
    pub fn read(&self, number: &str) -> String {
        let (table, number) = (self.quoted(), self.column(number));
        let (key, time) = (self.column("key"), self.column("time"));
        format!("SELECT COALESCE(SUM({number}), 0) FROM {table} WHERE {key} = ? AND {time} = ?")
    }

    /// Reserves unless a threshold has been reached: token, table, key, time, the numbers and the end; key
    /// and time; table, key and time; the threshold.
    pub fn reserve(&self, number: &str) -> String {
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
        let used = self.used(number, "");
        format!(
            "INSERT INTO {reservations} (token, counted_in, {names}, expires) \
             SELECT ?, ?, ?, ?, {numbers}{from} WHERE {used} < ?"
        )
    }

    /// What is counted, and reserved before one reservation: key and time; table, key and time; the token.
    pub fn used_before(&self, number: &str) -> String {
        let reservations = self.sql.quote(RESERVATIONS);
        let before = format!(" AND r.seq < (SELECT m.seq FROM {reservations} AS m WHERE m.token = ?)");
        format!("SELECT {}", self.used(number, &before))
    }

    fn used(&self, number: &str, which: &str) -> String {
        let (table, reservations) = (self.quoted(), self.sql.quote(RESERVATIONS));
        let (number, key, time) = (self.column(number), self.column("key"), self.column("time"));
        format!(
            "(SELECT COALESCE(SUM(c.{number}), 0) FROM {table} AS c WHERE c.{key} = ? AND c.{time} = ?) + \
             (SELECT COALESCE(SUM(r.{number}), 0) FROM {reservations} AS r \
             WHERE r.counted_in = ? AND r.{key} = ? AND r.{time} = ?{which})"
        )
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
pub fn create_reservations(sql: &Sql) -> Vec<Statement> {
    let table = sql.quote(RESERVATIONS);
    let (key, time) = (sql.quote("key"), sql.quote("time"));
    let numbers = NUMBERS.map(|name| format!("{} BIGINT NOT NULL", sql.quote(name))).join(", ");
    let columns = format!(
        "token VARCHAR(64) NOT NULL, counted_in VARCHAR(255) NOT NULL, {key} VARCHAR(255) NOT NULL, \
         {time} VARCHAR(255) NOT NULL, {numbers}, expires BIGINT NOT NULL, UNIQUE (token)"
    );
    let index = sql.quote("mtpolicyd_reservations_place");
    let index = format!("CREATE INDEX IF NOT EXISTS {index} ON {table} ({key}, {time})");
    match sql.dialect() {
        Dialect::Sqlite => vec![
            plain(format!(
                "CREATE TABLE IF NOT EXISTS {table} (seq INTEGER PRIMARY KEY AUTOINCREMENT, {columns})"
            )),
            plain(index),
        ],
        Dialect::Postgres => vec![
            plain(format!("CREATE TABLE IF NOT EXISTS {table} (seq BIGSERIAL PRIMARY KEY, {columns})")),
            plain(index),
        ],
        // As the tables of the counters, so that keys are the same here that are the same there.
        Dialect::MySql => vec![plain(format!(
            "CREATE TABLE IF NOT EXISTS {table} (seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, \
             {columns}, KEY place ({key}, {time})) ENGINE=InnoDB DEFAULT CHARSET=latin1"
        ))],
    }
}

/// Removes the reservations of a table, key and time that have ended at a time.
pub fn remove_expired(sql: &Sql) -> String {
    let (table, key, time) = (sql.quote(RESERVATIONS), sql.quote("key"), sql.quote("time"));
    format!("DELETE FROM {table} WHERE counted_in = ? AND {key} = ? AND {time} = ? AND expires <= ?")
}

/// Removes a reservation by its token.
pub fn remove_reservation(sql: &Sql) -> String {
    format!("DELETE FROM {} WHERE token = ?", sql.quote(RESERVATIONS))
}
