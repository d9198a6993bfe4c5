//! `Quota`: limits what Accounting counts.

mod by_hand;

use crate::chain::Chain;
use crate::counters::{
    Amounts, CounterStore, Engine, Ledger, Metric, Standing, Table, TimePattern, counted_mark,
    expire_reservations, reservations_schema, unknown_at, unknown_yet,
};
use crate::log::messages::{plugins, tasks};
use crate::options::{UserConfig, codes, options};
use crate::plugin::{Cx, Error, Made, Plugin, Setup, TASK_LIMIT, Verdict};
use crate::state::Kind;
use crate::tasks::{Period, When};
use crate::value::Integer;
use backends::Call;
use backends::sql::{Right, Schema, Sql};
use by_hand::HeldCounters;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

options! {
    /// Answers when the count that Accounting keeps for a value has reached a threshold.
    ///
    /// It counts nothing itself: an Accounting plugin with the same database, `table_prefix` and
    /// `time_pattern` counts the same field. Put Quota before Accounting in the chain. Quota then reserves
    /// room in the counter for each message that it lets through, until Accounting has counted the message,
    /// so that messages which arrive at the same moment can't exceed the threshold together, however many
    /// daemons share the database. The reservation of a message that is not accepted in the end is released.
    ///
    /// Once Accounting has counted a message for one of its recipients, its other recipients pass if the same
    /// threshold and metric hold for them; under another threshold, what was counted before the message is
    /// compared with it.
    ///
    /// When 80 % of the threshold is counted for a value and when all of it is, an event is raised, once per
    /// period, which `<Notify>` sends; so is one when the period is over, or less than 70 % is counted again.
    /// That 80 % is reached can't be told where the database does not say what it has counted: in Redis, and
    /// for messages with a reservation in MariaDB and MySQL.
    ///
    /// ```conf
    /// <Connection db>
    ///   module = "Sql"
    ///   dsn = "dbi:SQLite:dbname=/var/lib/mtpolicyd/mtpolicyd.sqlite"
    /// </Connection>
    /// <Plugin quota-clients>
    ///   module = "Quota"
    ///   field = "client_address"
    ///   metric = "count"
    ///   threshold = 1000
    ///   action = "defer you have sent 1000 messages this month"
    /// </Plugin>
    /// <Plugin acct-clients>
    ///   module = "Accounting"
    ///   fields = "client_address"
    /// </Plugin>
    /// ```
    pub struct QuotaOptions {
        + enabled,
        /// The attribute of the request by which Accounting counts. If the request does not have it, nothing
        /// happens. A field that a user has set (`uc_field`) is compared with the threshold, but no room is
        /// reserved in its counter: messages which arrive at the same moment may exceed the threshold.
        field: UserConfig<String>,
        /// The number to compare: `count` (messages), `count_rcpt` (messages times recipients), `size`
        /// (bytes), `size_rcpt` (bytes times recipients).
        metric: UserConfig<Metric>,
        /// Messages are no longer accepted once the counter has reached this number.
        threshold: UserConfig<Integer>,
        /// The answer to Postfix once the threshold is reached.
        action: UserConfig<String> = "defer smtp traffic quota has been exceeded".to_owned(),
        /// The period of the counter; it has to be the `time_pattern` of Accounting.
        time_pattern: TimePattern = "%Y-%m",
        /// What the name of each table begins with; it has to be the `table_prefix` of Accounting. The field
        /// is the rest of the name.
        table_prefix: String = "acct_",
        /// The database: the name of a `<Connection>` of module Sql.
        db: String = "db",
        /// The `store` of Accounting, if it counts there instead of in `db`.
        store: Option<String>,
        /// The storage engine for tables created in MySQL or MariaDB.
        ///
        /// Tables created there distinguish `josé` from `jose`, as other databases do. In tables of the
        /// original such keys are one, by the collation of the column `key`.
        mysql_engine: Engine = "MyISAM",
    }
}

pub struct Quota {
    name: String,
    options: QuotaOptions,
    ledger: Ledger,
    /// The counters of the configured field.
    table: Table,
    /// Whether an Accounting later in the chain counts there.
    counted_later: Arc<AtomicBool>,
    warned: AtomicBool,
}

impl Plugin for Quota {
    const NAME: &'static str = "Quota";
    type Options = QuotaOptions;

    fn new(options: QuotaOptions, setup: &mut Setup<'_, '_>) -> Option<Quota> {
        let connections = setup.env.connections;
        let store = CounterStore::find(connections, setup.section, &options.db, options.store.as_deref());
        if !Chain::nested(setup)?.is_empty() {
            // As in the original: an action always has a value.
            let message = format!("Plugin {}: the plugins in it never run", setup.name);
            setup.warn_as(&codes::NEVER_REACHED, "action", message);
        }
        setup.check_action("action", options.action.configured());
        let metric = *options.metric.configured();
        setup.check_stage("metric", |stage| unknown_at(metric, stage));
        let ledger = Ledger::new(store?, &options.table_prefix, &options.mysql_engine, &options.time_pattern);
        let table = ledger.table(options.field.configured());
        let counted_later = setup.env.tasks.await_counter(table.id());
        if let Some((sql, schema)) = table.schema(&[Right::Select]) {
            setup.look_at_rights(&sql, schema, Made::WhenUsed);
            let reserved = Schema { only_if: Some(counted_later.clone()), ..reservations_schema(&sql) };
            setup.look_at_rights(&sql, reserved, Made::WhenUsed);
            remove_expired_hourly(&sql, setup);
        }
        leave_state(setup, &options, &ledger, &table);
        let name = setup.name.to_owned();
        Some(Quota { name, options, ledger, table, counted_later, warned: AtomicBool::new(false) })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let field = self.options.field.get(cx.session);
        cx.session.depend_on(&field);
        let is_configured = field == *self.options.field.configured();
        let table =
            if is_configured { Cow::Borrowed(&self.table) } else { Cow::Owned(self.ledger.table(&field)) };
        let counter = self.ledger.counter(&table, cx.request, &field, &cx.world.clock);
        let Some(counter) = counter else { return Ok(Verdict::Next) };
        let metric = self.options.metric.get(cx.session);
        self.warn_once(metric, cx);
        let threshold = self.options.threshold.get(cx.session).0;
        let call = cx.call;
        let passes = if is_configured && self.counted_later.load(Ordering::Relaxed) {
            let has_been_counted = cx.session.result(&counted_mark(&table)) == Some(counter.key.as_str());
            let (amounts, clock) = (Amounts::of(cx.request), &cx.world.clock);
            let (mark, judged) = (format!("{}-passed", self.name), format!("{metric} below {threshold}"));
            let passes = if !has_been_counted {
                let standing = self.standing(metric, threshold, cx);
                let passes =
                    counter.reserve(metric, threshold, &amounts, cx.reservations, clock, call).await?;
                match standing {
                    Some(standing) if passes => cx.reservations.tell_when_counted(&counter, standing),
                    Some(standing) => standing.tell_reached(&counter),
                    None => {}
                }
                passes
            } else if cx.session.result(&mark) == Some(&judged) {
                true
            } else {
                let with_it = counter.read(metric, call).await?;
                with_it - (amounts.of_metric(metric) as f64) < threshold as f64
            };
            if passes {
                cx.session.set_for_message(&mark, &judged);
            }
            passes
        } else {
            let number = counter.read_after(cx.reservations, metric, call).await?;
            if let Some(standing) = self.standing(metric, threshold, cx) {
                standing.tell(&counter, whole(number));
            }
            number < threshold as f64
        };
        if passes {
            return Ok(Verdict::Next);
        }
        cx.beyond_limit();
        Ok(Verdict::Stop(self.options.action.get(cx.session)))
    }
}

/// A number of a database, without what is behind the point.
#[allow(clippy::cast_possible_truncation, reason = "the conversion ends at the largest number")]
fn whole(number: f64) -> i64 {
    number as i64
}

/// Lets the administrator see what is counted, beside the threshold of the file.
fn leave_state(setup: &Setup<'_, '_>, options: &QuotaOptions, ledger: &Ledger, table: &Table) {
    let (metric, threshold) = (*options.metric.configured(), options.threshold.configured().0);
    let identity = format!("{}\0{metric}\0{threshold}", table.id());
    let (ledger, table, field) = (ledger.clone(), table.clone(), options.field.configured().clone());
    let held = HeldCounters { ledger, table, field, metric, threshold };
    setup.state(Kind::Quota, identity, held);
}

/// Places of daemons that died would stay where nobody asks for their keys again.
fn remove_expired_hourly(sql: &Arc<Sql>, setup: &Setup<'_, '_>) {
    let sql = sql.clone();
    setup.task(When::Every(Period::Hourly), move |world| {
        let sql = sql.clone();
        async move {
            let removed = expire_reservations(&sql, &world.clock, Call::within(TASK_LIMIT)).await;
            let say = |count| if count > 0 { tasks::reservations_expired(count) } else { String::new() };
            removed.map(say).map_err(|error| error.to_string())
        }
    });
}

impl Quota {
    /// Whom to tell how full a counter is: nobody, if nothing is really counted.
    fn standing(&self, metric: Metric, threshold: i64, cx: &Cx<'_>) -> Option<Standing> {
        let standing = || Standing {
            events: cx.world.events.clone(),
            plugin: cx.name().clone(),
            metric,
            threshold,
            pattern: self.options.time_pattern.clone(),
        };
        cx.call.pretence().is_none().then(standing)
    }

    fn warn_once(&self, metric: Metric, cx: &Cx<'_>) {
        if let Some(why) = unknown_yet(metric, cx.request)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            plugins::metric_unknown(&self.name, metric, why);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::tasks::When;
    use crate::testing::Bench;
    use rusqlite::Connection;
    use std::path::Path;
    use std::time::Duration;

    fn quota(name: &str, options: &str) -> String {
        format!("<Plugin {name}>\n module = Quota\n field = sender\n {options}\n</Plugin>\n")
    }

    const ACCOUNTING: &str = "<Plugin acct>\n module = Accounting\n fields = sender\n</Plugin>\n";

    const REJECTION: &str = "<Plugin no>\n module = Condition\n key = recipient\n match = bad\n \
                             action = reject\n</Plugin>\n";

    fn bench(folder: &Path, chain: &str) -> Bench {
        let db = folder.join("db.sqlite");
        let mut bench = Bench::new(&format!(
            "<Connection db>\n module = Sql\n dsn = \"dbi:SQLite:dbname={}\"\n</Connection>\n{chain}",
            db.display()
        ))
        .attribute("sender", "alice@example.org")
        .attribute("size", "100");
        bench.run_tasks(When::Start);
        bench
    }

    /// What becomes of messages, one after the other.
    fn mails(bench: &mut Bench, count: usize) -> Vec<bool> {
        (0..count).map(|_| bench.run_fresh().is_none()).collect()
    }

    /// The number of reservations, once those released in the background are gone.
    fn reservations(folder: &Path, expected: i64) -> i64 {
        let db = Connection::open(folder.join("db.sqlite")).unwrap();
        let count =
            || db.query_row("SELECT COUNT(*) FROM mtpolicyd_reservations", [], |row| row.get(0)).unwrap();
        for _ in 0..100 {
            if count() == expected {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        count()
    }

    #[test]
    fn as_many_pass_as_the_threshold_says() {
        let folder = tempfile::tempdir().unwrap();
        let chain = quota("q", "metric = count\n threshold = 3") + ACCOUNTING;
        let mut bench = bench(folder.path(), &chain);
        assert_eq!(mails(&mut bench, 5), [true, true, true, false, false]);
        assert_eq!(bench.run().as_deref(), Some("defer smtp traffic quota has been exceeded"));
        assert_eq!(reservations(folder.path(), 0), 0);
        bench.pass(Duration::from_secs(31 * 24 * 3600));
        assert_eq!(mails(&mut bench, 1), [true], "the next month");
    }

    #[test]
    fn an_event_is_raised_once_when_a_threshold_is_reached_and_once_when_the_period_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = bench(folder.path(), &(quota("q", "metric = count\n threshold = 5") + ACCOUNTING));
        let alice = "q: alice@example.org";
        assert_eq!(mails(&mut bench, 3), [true; 3]);
        assert!(bench.events().is_empty());
        assert_eq!(mails(&mut bench, 1), [true]);
        let near = format!("limit-near begins: {alice} is at 80 % of 5 messages in 2025-11: 4");
        assert_eq!(bench.events(), [near]);
        assert_eq!(mails(&mut bench, 3), [true, false, false]);
        let reached = format!("limit-reached begins: {alice} has used up 5 messages in 2025-11: 5");
        assert_eq!(bench.events(), [reached]);
        bench.pass(Duration::from_secs(31 * 24 * 3600));
        let over = format!("limit-reached ends: {alice} is below 5 messages in 2025-11 again");
        assert_eq!(bench.events(), [over]);
    }

    #[test]
    fn a_mail_that_is_not_accepted_gives_its_place_back() {
        let folder = tempfile::tempdir().unwrap();
        let chain = quota("q", "metric = count\n threshold = 2") + REJECTION + ACCOUNTING;
        let mut bench = bench(folder.path(), &chain);
        bench.attribute_again("recipient", "bad");
        for _ in 0..4 {
            assert_eq!(bench.run_fresh().as_deref(), Some("reject"));
            assert_eq!(reservations(folder.path(), 0), 0);
        }
        bench.attribute_again("recipient", "good");
        assert_eq!(mails(&mut bench, 3), [true, true, false]);
    }

    #[test]
    fn a_mail_that_was_counted_passes_for_its_other_recipients() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = bench(folder.path(), &(quota("q", "metric = count\n threshold = 1") + ACCOUNTING));
        assert_eq!(bench.run(), None);
        assert_eq!(bench.run(), None, "the same message");
        assert_eq!(mails(&mut bench, 1), [false], "another one");
    }

    #[test]
    fn several_quotas_share_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let chain = quota("q", "metric = count\n threshold = 9")
            + &quota("r", "metric = size\n threshold = 201")
            + ACCOUNTING;
        let mut bench = bench(folder.path(), &chain);
        assert_eq!(mails(&mut bench, 4), [true, true, true, false], "0, 100 and 200 are below, 300 is not");
        assert_eq!(reservations(folder.path(), 0), 0);
    }

    #[test]
    fn a_sender_has_one_counter_however_it_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let chain = quota("q", "metric = count\n threshold = 3") + ACCOUNTING;
        let mut bench = bench(folder.path(), &chain);
        for (sender, passes) in [
            ("Alice@Example.ORG", true),
            ("alice@example.org.", true),
            ("example.org!alice", true),
            ("ALICE%example.org", false),
            ("alice@example.org", false),
        ] {
            bench.attribute_again("sender", sender);
            assert_eq!(mails(&mut bench, 1), [passes], "{sender}");
        }
        let db = Connection::open(folder.path().join("db.sqlite")).unwrap();
        let keys = "SELECT group_concat(key || ' ' || count) FROM acct_sender";
        let keys: String = db.query_row(keys, [], |row| row.get(0)).unwrap();
        assert_eq!(keys, "alice@example.org 3");
    }

    #[test]
    fn a_client_has_one_counter_however_its_address_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let chain =
            (quota("q", "metric = count\n threshold = 2") + ACCOUNTING).replace("sender", "client_address");
        let mut bench = bench(folder.path(), &chain);
        for (client, passes) in [
            ("::ffff:192.0.2.1", true),
            ("192.0.2.1", true),
            ("::ffff:c000:201", false),
            ("192.0.2.1", false),
        ] {
            bench.attribute_again("client_address", client);
            assert_eq!(mails(&mut bench, 1), [passes], "{client}");
        }
    }

    #[test]
    fn what_was_counted_under_the_value_as_it_is_written_still_counts() {
        let folder = tempfile::tempdir().unwrap();
        let chain = quota("q", "metric = count\n threshold = 4") + ACCOUNTING;
        let mut bench = bench(folder.path(), &chain);
        let db = Connection::open(folder.path().join("db.sqlite")).unwrap();
        let row = "INSERT INTO acct_sender (key, time, count, count_rcpt, size, size_rcpt) \
                   VALUES ('Alice@Example.org', '2025-11', 2, 2, 2, 2)";
        db.execute(row, []).unwrap();
        bench.attribute_again("sender", "Alice@Example.org");
        assert_eq!(mails(&mut bench, 3), [true, true, false]);
        let chain = quota("q", "metric = count\n threshold = 4");
        let mut only_reads = self::bench(folder.path(), &chain);
        only_reads.attribute_again("sender", "Alice@Example.org");
        assert_eq!(mails(&mut only_reads, 1), [false], "2 and 2 were counted");
    }

    #[test]
    fn rows_of_the_original_count_for_every_spelling() {
        let folder = tempfile::tempdir().unwrap();
        let chain = quota("q", "metric = count\n threshold = 7") + ACCOUNTING;
        bench(folder.path(), &chain);
        let db = Connection::open(folder.path().join("db.sqlite")).unwrap();
        for (key, time, count) in [
            ("ALICE@Example.org", "2025-11", 2),
            ("example.org!Alice", "2025-11", 3),
            ("alice@example.org.", "2025-10", 4),
            ("alice@example.org", "2025-10", 5),
            ("carol@example.org", "2025-11", 6),
        ] {
            let row = "INSERT INTO acct_sender (key, time, count, count_rcpt, size, size_rcpt) \
                       VALUES (?, ?, ?, 1, 1, 1)";
            db.execute(row, (key, time, count)).unwrap();
        }
        let mut bench = self::bench(folder.path(), &chain);
        assert!(bench.run_tasks(When::Start).iter().all(|done| done == &Ok(String::new())), "only once");
        assert_eq!(mails(&mut bench, 3), [true, true, false]);
        let rows = "SELECT group_concat(row, ', ') FROM (SELECT concat_ws(' ', key, time, count) AS row \
                    FROM acct_sender ORDER BY key, time)";
        let rows: String = db.query_row(rows, [], |row| row.get(0)).unwrap();
        assert_eq!(
            rows,
            "alice@example.org 2025-10 9, alice@example.org 2025-11 7, carol@example.org 2025-11 6"
        );
    }

    #[test]
    fn a_place_of_a_daemon_that_died_expires() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = bench(folder.path(), &(quota("q", "metric = count\n threshold = 2") + ACCOUNTING));
        assert_eq!(mails(&mut bench, 1), [true]);
        let db = Connection::open(folder.path().join("db.sqlite")).unwrap();
        let dead = "INSERT INTO mtpolicyd_reservations \
                    VALUES (NULL, 'x', 'acct_sender', 'alice@example.org', '2025-11', 1, 1, 1, 1, ?)";
        db.execute(dead, [bench.now() + 130]).unwrap();
        assert_eq!(mails(&mut bench, 1), [false]);
        bench.pass(Duration::from_secs(131));
        assert_eq!(mails(&mut bench, 2), [true, false]);
    }

    #[test]
    fn after_accounting_it_compares_what_the_counter_stood_at() {
        let folder = tempfile::tempdir().unwrap();
        let chain = ACCOUNTING.to_owned() + &quota("q", "metric = size\n threshold = 250");
        let mut bench = bench(folder.path(), &chain);
        assert_eq!(mails(&mut bench, 1), [true]);
        // Others are counted right after each message, before Quota can ask.
        let db = Connection::open(folder.path().join("db.sqlite")).unwrap();
        db.execute_batch(
            "CREATE TRIGGER later AFTER UPDATE ON acct_sender BEGIN \
             UPDATE acct_sender SET size = size + 1000 WHERE id = new.id AND new.size < 1000; END",
        )
        .unwrap();
        assert_eq!(mails(&mut bench, 1), [true], "its own count is 200");
        assert_eq!(mails(&mut bench, 1), [false], "the next one sees 1300");
    }

    #[test]
    fn a_counter_is_shown_set_and_reset() {
        use crate::state::{Change, Condition, Kind, Order, Select};
        let folder = tempfile::tempdir().unwrap();
        let chain = quota("q", "metric = count\n threshold = 4") + ACCOUNTING;
        let mut bench = bench(folder.path(), &chain);
        assert!(bench.list(Kind::Quota, &Select::default()).unwrap().is_empty());
        assert_eq!(mails(&mut bench, 5), [true, true, true, true, false]);
        let over = Select { over: Some(80), ..Select::default() };
        let [entry] = &bench.list(Kind::Quota, &over).unwrap()[..] else { panic!("one") };
        assert_eq!((entry.key.as_str(), entry.period.as_deref()), ("alice@example.org", Some("2025-11")));
        assert_eq!((entry.state, entry.counts[0].count), (Condition::Full, 4));
        let alice = |period: Option<&str>| Select {
            key: Some("Alice@Example.org".to_owned()),
            period: period.map(str::to_owned),
            ..Select::default()
        };
        assert!(bench.list(Kind::Quota, &alice(Some("2025-10"))).unwrap().is_empty());
        let order = |change| Order { select: alice(None), change, all: false };
        let changed = bench.change(Kind::Quota, &order(Change::Reset { parts: Vec::new() })).unwrap();
        assert_eq!(changed[0].done, "reset; was count 4, count_rcpt 4, size 400, size_rcpt 400");
        assert_eq!(mails(&mut bench, 1), [true]);
        let undo = changed[0].undo.clone().unwrap();
        assert_eq!(
            undo.command(Kind::Quota),
            "mtpolicyd quota set q alice@example.org --period 2025-11 count=4 count_rcpt=4 size=400 \
             size_rcpt=400"
        );
        bench.change(Kind::Quota, &undo).unwrap();
        assert_eq!(mails(&mut bench, 1), [false]);
        let parts = vec!["count".to_owned()];
        let changed = bench.change(Kind::Quota, &order(Change::Reset { parts })).unwrap();
        assert_eq!(changed[0].done, "reset; was count 4");
        assert_eq!(bench.list(Kind::Quota, &alice(None)).unwrap()[0].counts[2].count, 400, "the size stays");
        assert_eq!(mails(&mut bench, 1), [true]);
    }

    #[test]
    fn after_accounting_it_compares_what_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let chain = ACCOUNTING.to_owned() + &quota("q", "metric = count\n threshold = 3");
        let mut bench = bench(folder.path(), &chain);
        assert_eq!(mails(&mut bench, 4), [true, true, false, false]);
    }
}
