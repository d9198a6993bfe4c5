//! `Accounting`: counts messages and bytes.

use crate::counters::{
    Amounts, Counter, CounterStore, DEFAULT_LIFETIME, Engine, Ledger, Metric, Table, TimePattern,
    counted_mark, unknown_yet,
};
use crate::log::messages::{plugins, tasks};
use crate::options::options;
use crate::plugin::{Cx, Error, Made, Plugin, Setup, TASK_LIMIT, Verdict};
use crate::session::Attempt;
use crate::tasks::{Period, When};
use crate::value::{NonZeroSeconds, Value};
use backends::sql::Right;
use backends::{BackendError, Call};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

options! {
    /// Counts messages, recipients and bytes in a database, once per message: who has sent how much in which
    /// period. Quota sets a limit to these counters.
    ///
    /// There is a table for each field, `acct_client_address` for example, with a row for each value of the
    /// field and each period. The columns are `key` (the value), `time` (the period), `count` (messages),
    /// `count_rcpt` (messages times recipients), `size` (bytes) and `size_rcpt` (bytes times recipients).
    /// Missing tables are created, and tables of the original get a unique key. A field that the request
    /// does not have, or has empty, is not counted.
    ///
    /// Keys are in lower case, so that `Bob` and `bob` are one login on every database, and a sender or
    /// recipient is the address that Postfix will understand: `bob@Example.org.` and `example.org!bob` count
    /// as `bob@example.org`. The original and earlier versions stored the value as it was written. In SQLite
    /// and PostgreSQL the daemon adds such rows to those of their key when it starts; in MySQL and MariaDB
    /// keys that differ only in case are one key anyway; in Redis such counters count only for requests with
    /// the same spelling. An earlier version that runs beside this one reserves its places in a quota under
    /// the value as written, where requests with another spelling do not see them.
    ///
    /// Have Postfix ask at the end of the message (`smtpd_end_of_data_restrictions`): before that it does
    /// not know the recipients and the size.
    ///
    /// ```conf
    /// <Connection db>
    ///   module = "Sql"
    ///   dsn = "dbi:SQLite:dbname=/var/lib/mtpolicyd/mtpolicyd.sqlite"
    /// </Connection>
    /// <Plugin acct-clients>
    ///   module = "Accounting"
    ///   fields = "client_address,sasl_username"
    ///   time_pattern = "%Y-%m-%d"
    /// </Plugin>
    /// ```
    pub struct AccountingOptions {
        + enabled,
        /// The attributes of the request to count by, separated by commas.
        fields: FieldNames,
        /// The period in which messages are counted together, as strftime(3) writes the local time: `%Y-%m`
        /// counts by months.
        time_pattern: TimePattern = "%Y-%m",
        /// What the name of each table begins with. The field is the rest of the name.
        table_prefix: String = "acct_",
        /// The database: the name of a `<Connection>` of module Sql.
        db: String = "db",
        /// The storage engine for tables created in MySQL or MariaDB.
        ///
        /// Tables created there distinguish `josé` from `jose`, as other databases do. In tables of the
        /// original such keys are one, by the collation of the column `key`.
        mysql_engine: Engine = "MyISAM",
        /// The name of a `<Connection>` to count in instead of `db`. With module Redis no database is
        /// needed.
        store: Option<String>,
        /// How long a counter is kept after its period is over, such as `400d`; a daily task removes older
        /// ones. It can't be used with a `time_pattern` of periods shorter than an hour. Without it, rows in
        /// a database are kept forever, and counters in Redis for 400 days after their last change.
        keep: Option<NonZeroSeconds>,
    }
}

/// Names of attributes.
#[derive(Clone, Debug)]
pub struct FieldNames(Vec<String>);

impl std::fmt::Display for FieldNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(","))
    }
}
impl Value for FieldNames {
    const FORM: &'static str = "names of attributes, separated by commas";
    fn parse(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let names: Vec<_> = names.map(str::to_owned).collect();
        if names.is_empty() { Err(format!("`{text}` names no attribute")) } else { Ok(FieldNames(names)) }
    }
}

pub struct Accounting {
    name: String,
    ledger: Ledger,
    tables: Vec<(String, Table)>,
    /// Marks a message that was counted.
    counted: String,
    warned: AtomicBool,
}

impl Plugin for Accounting {
    const NAME: &'static str = "Accounting";
    type Options = AccountingOptions;

    fn new(options: AccountingOptions, setup: &mut Setup<'_, '_>) -> Option<Accounting> {
        let connections = setup.env.connections;
        let store = CounterStore::find(connections, setup.section, &options.db, options.store.as_deref())?;
        let keep = options.keep.map(|keep| keep.0.duration());
        if keep.is_some() && !options.time_pattern.tells_age() {
            let message = "keep: the time_pattern changes within an hour, so it can't be told what is old";
            setup.section.report().error(setup.section.span_of("keep"), message, None);
            return None;
        }
        let ledger = Ledger::new(store, &options.table_prefix, &options.mysql_engine, &options.time_pattern);
        let ledger = ledger.forgetting_after(keep.unwrap_or(DEFAULT_LIFETIME));
        let tables: Vec<_> =
            options.fields.0.iter().map(|field| (field.clone(), ledger.table(field))).collect();
        for (field, table) in &tables {
            setup.env.tasks.keep_counter(table.id());
            if let Some(keep) = keep {
                forget_daily(setup, &ledger, table, keep);
            }
            let (needed, field, table) = (table, field.clone(), table.clone());
            setup.task(When::Start, move |_| {
                let (field, table) = (field.clone(), table.clone());
                async move {
                    let done = prepare(&table, &field, Call::within(TASK_LIMIT)).await;
                    done.map(|done| done.join("; ")).map_err(|error| error.to_string())
                }
            });
            let rights = [Right::Select, Right::Insert, Right::Update, Right::Delete];
            let rights = if keep.is_some() { &rights[..] } else { &rights[..3] };
            if let Some((sql, schema)) = needed.schema(rights) {
                setup.look_at_rights(&sql, schema, Made::AtStart);
            }
        }
        let name = setup.name.to_owned();
        let counted = format!("{name}-acct");
        Some(Accounting { name, ledger, tables, counted, warned: AtomicBool::new(false) })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let counted_before = cx.session.result(&self.counted).is_some();
        if counted_before {
            return Ok(Verdict::Next);
        }
        self.warn_once(cx);
        let counter =
            |(field, table): &(String, Table)| self.ledger.counter(table, cx.request, field, &cx.world.clock);
        let counters: Vec<Counter> = self.tables.iter().filter_map(counter).collect();
        if !counters.is_empty() {
            let amounts = Amounts::of(cx.request);
            let attempt = Attempt::of(cx.session, format!("{}-attempt", self.name));
            let (name, reservations) = (attempt.name(), &mut *cx.reservations);
            let counted = self.ledger.count(&counters, &amounts, name, reservations, cx.call).await;
            attempt.settle(cx.session, counted)?;
        }
        for counter in &counters {
            cx.session.set_for_message(&counted_mark(&counter.table), &counter.key);
        }
        // Only now: what could not be counted is counted when Postfix tries again.
        cx.session.set_for_message(&self.counted, "1");
        Ok(Verdict::Next)
    }
}

/// Makes the table as it should be, and its rows too: what was done.
async fn prepare(table: &Table, field: &str, call: Call<'_>) -> Result<Vec<String>, BackendError> {
    let mut done = table.prepare(call).await?;
    done.extend(table.merge_spellings(field, call).await?);
    Ok(done)
}

fn forget_daily(setup: &Setup<'_, '_>, ledger: &Ledger, table: &Table, keep: Duration) {
    let (ledger, table) = (ledger.clone(), table.clone());
    setup.task(When::Every(Period::Daily), move |world| {
        let (ledger, table) = (ledger.clone(), table.clone());
        async move {
            let removed = ledger.forget(&table, keep, &world.clock, Call::within(TASK_LIMIT)).await;
            let say = |count| if count > 0 { tasks::rows_expired(count) } else { String::new() };
            removed.map(say).map_err(|error| error.to_string())
        }
    });
}

impl Accounting {
    fn warn_once(&self, cx: &Cx<'_>) {
        let unknown = Metric::ALL.iter().find_map(|metric| unknown_yet(*metric, cx.request));
        if let Some(why) = unknown
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            plugins::amount_unknown(&self.name, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tasks::When;
    use crate::testing::Bench;
    use rusqlite::Connection;
    use std::path::Path;

    /// A bench on a database in this folder.
    fn bench(folder: &Path, options: &str) -> Bench {
        let db = folder.join("db.sqlite");
        Bench::new(&format!(
            "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname={}\"\n</Connection>\n\
             <Plugin a>\n module = Accounting\n {options}\n</Plugin>",
            db.display()
        ))
        .attribute("sender", "alice@example.org")
        .attribute("size", "100")
        .attribute("recipient_count", "3")
    }

    /// The rows of a table, each as its key, its time and its numbers.
    fn rows(folder: &Path, table: &str) -> Vec<String> {
        let db = Connection::open(folder.join("db.sqlite")).unwrap();
        let table = table.replace('"', "\"\"");
        let sql = format!(
            "SELECT concat_ws(' ', key, time, count, count_rcpt, size, size_rcpt) \
             FROM \"{table}\" ORDER BY key, time"
        );
        let mut rows = db.prepare(&sql).unwrap();
        let rows = rows.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    }

    #[test]
    fn a_mail_is_counted_once_in_all_its_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = bench(folder.path(), "fields = \"sender, nothere\"");
        bench.run_tasks(When::Start);
        assert_eq!(bench.run(), None);
        assert_eq!(bench.run(), None);
        assert_eq!(rows(folder.path(), "acct_sender"), ["alice@example.org 2025-11 1 3 100 300"]);
        assert_eq!(bench.run_fresh(), None);
        bench.attribute_again("sender", " \t");
        assert_eq!(bench.run_fresh(), None);
        assert_eq!(rows(folder.path(), "acct_sender"), ["alice@example.org 2025-11 2 6 200 600"]);
        assert!(rows(folder.path(), "acct_nothere").is_empty());
    }

    #[test]
    fn tables_are_made_at_the_start_whatever_their_name() {
        let folder = tempfile::tempdir().unwrap();
        let fields = ["o'brien", "back`tick", "semi;colon", "odd-name", "select", "quo\\\"te"];
        let mut bench =
            bench(folder.path(), &format!("fields = \"{}\"\n table_prefix = \"x \"", fields.join(",")));
        let results = bench.run_tasks(When::Start);
        // Each is made, and its rights are looked at.
        assert!(
            results.len() == 2 * fields.len() && results.iter().all(|result| result.is_ok()),
            "{results:?}"
        );
        for field in fields {
            assert!(rows(folder.path(), &format!("x {}", field.replace('\\', ""))).is_empty());
        }
    }

    #[test]
    fn a_table_of_the_original_gets_its_unique_key_and_keeps_its_sums() {
        let folder = tempfile::tempdir().unwrap();
        let db = Connection::open(folder.path().join("db.sqlite")).unwrap();
        db.execute_batch(
            "CREATE TABLE acct_sender (`id` INTEGER PRIMARY KEY AUTOINCREMENT, `key` VARCHAR(255) NOT NULL,
               `time` VARCHAR(255) NOT NULL, `count` INT UNSIGNED NOT NULL,
               `count_rcpt` INT UNSIGNED NOT NULL, `size` INT UNSIGNED NOT NULL,
               `size_rcpt` INT UNSIGNED NOT NULL);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
             INSERT INTO acct_sender SELECT NULL, 'alice@example.org', '2025-11', i, 2, 3, 4 FROM n;
             INSERT INTO acct_sender VALUES (NULL, 'alice@example.org', '2025-10', 7, 7, 7, 7);",
        )
        .unwrap();
        drop(db);
        let mut bench = bench(folder.path(), "fields = sender");
        let done = bench.run_tasks(When::Start);
        assert_eq!(
            done,
            [
                Ok("table acct_sender: 299 rows that repeated key and time were merged".to_owned()),
                Ok(String::new())
            ]
        );
        assert_eq!(bench.run_tasks(When::Start), [Ok(String::new()), Ok(String::new())]);
        bench.run();
        let expected = ["alice@example.org 2025-10 7 7 7 7", "alice@example.org 2025-11 45151 603 1000 1500"];
        assert_eq!(rows(folder.path(), "acct_sender"), expected);
    }

    #[test]
    fn a_file_that_was_deleted_gets_its_tables_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = bench(folder.path(), "fields = sender");
        bench.run();
        for file in std::fs::read_dir(folder.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        assert_eq!(bench.run_fresh(), None);
        assert_eq!(rows(folder.path(), "acct_sender"), ["alice@example.org 2025-11 1 3 100 300"]);
    }

    #[test]
    fn what_can_not_work_is_refused() {
        let mistakes = |options: &str| {
            Bench::mistakes(&format!(
                "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname=/x\"\n</Connection>\n\
                 <Plugin a>\n module = Accounting\n {options}\n</Plugin>"
            ))
        };
        assert!(mistakes("fields = \",\"")[0].contains("names no attribute"));
        assert!(
            mistakes("fields = a\n time_pattern = \"%!\"")[0].contains("time_pattern: `%!` can't be used")
        );
        assert!(mistakes("fields = a\n mysql_engine = \"x y\"")[0].contains("mysql_engine"));
        assert!(mistakes("fields = a\n db = other")[0].contains("other"));
    }
}
