//! Counts in a database: the table `mtpolicyd_limits`, one row an entry (`state.rs` says what that is).
//!
//! One transaction, which those for the same key wait for, does without asking back what `State::take` does:
//! it forgets what no longer counts, then inserts into every limit or, where one has no room, into none.
//!
//! Knows: SQL. Must not know: what the limit is for.

mod by_hand;

use super::state::{Demand, Entry, Fill, LARGEST, Rule, State, Taken};
use backends::sql::{Dialect, Output, Param, Row, Schema, Sql, Statement, Work};
use backends::{BackendError, Call, Failure};
use std::sync::Arc;

/// The table.
#[derive(Clone)]
pub struct Table {
    sql: Arc<Sql>,
}

const TABLE: &str = "mtpolicyd_limits";

impl Table {
    /// The table in a database; it is made when it is missed.
    pub fn new(sql: Arc<Sql>) -> Table {
        Table { sql }
    }

    /// Makes the table if it is not there.
    pub async fn create(&self, call: Call<'_>) -> Result<(), BackendError> {
        // PostgreSQL fails where two make it at the same time.
        self.sql.make_table(&self.schema(), call).await
    }

    /// What the table is.
    pub fn schema(&self) -> Schema {
        let text = match self.sql.dialect() {
            // Keys are ASCII, and an index has no room for wider characters.
            Dialect::MySql => "VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin",
            Dialect::Sqlite | Dialect::Postgres => "VARCHAR(255)",
        };
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {TABLE} (limited {text} NOT NULL, rule {text} NOT NULL, \
             slot BIGINT NOT NULL, seen BIGINT NOT NULL, units BIGINT NOT NULL, expires BIGINT NOT NULL, \
             PRIMARY KEY (limited, rule, slot))"
        );
        Schema::new(TABLE, "units", [sql])
    }

    /// Removes expired counts. Returns the number of rows.
    pub async fn expire(&self, now: i64, call: Call<'_>) -> Result<u64, BackendError> {
        let delete = statement(format!("DELETE FROM {TABLE} WHERE expires <= ?"), vec![Param::Integer(now)]);
        match self.sql.run(not_durable(vec![delete], None), call).await {
            // Nothing has been counted yet.
            Err(BackendError { failure: Failure::NoTable(_), .. }) => Ok(0),
            outputs => Ok(outputs?.iter().map(|output| output.affected).sum()),
        }
    }

    /// See `Counts::take`.
    pub async fn take(
        &self,
        key: &str,
        demand: Demand<'_>,
        now: i64,
        call: Call<'_>,
    ) -> Result<Taken, BackendError> {
        let texts = Texts { dialect: self.sql.dialect(), key, now };
        // A power cut may lose the last counts, a crash of the server may not: then more would pass than the
        // limit says, in each of many crashes.
        let work = Work { durable: self.sql.crash_loses(), ..texts.work(demand) };
        let outputs = self.sql.run_or_make(work, || self.create(call), call).await?;
        let Some([room, Output { affected, .. }, Output { rows, .. }]) = outputs.last_chunk() else {
            let failure = Failure::Refused("statements without output".to_owned());
            return Err(BackendError { connection: self.sql.name().into(), failure });
        };
        let passed = if demand.passes_anyway { !room.rows.is_empty() } else { *affected > 0 };
        let mut taken = read(rows).judge(demand, now, passed);
        let mut said = Vec::new();
        for (n, fill) in taken.notices {
            // What can't be noted now is said next time.
            let claim = self.sql.run(texts.claim(&demand.rules[n], fill), call).await;
            if claim.is_ok_and(|outputs| outputs.iter().any(|output| output.affected > 0)) {
                said.push((n, fill));
            }
        }
        taken.notices = said;
        Ok(taken)
    }
}

fn statement(sql: String, params: Vec<Param>) -> Statement {
    Statement { sql: sql.into(), params }
}

/// A power cut may lose the last counts: then a little more passes than the limit says.
fn not_durable(statements: Vec<Statement>, lock: Option<String>) -> Work {
    Work { statements, lock, durable: false }
}

fn read(rows: &[Row]) -> State {
    let mut state = State::default();
    for row in rows {
        let [Some(rule), slot, seen, units] = &row[..] else { continue };
        let number = |text: &Option<String>| text.as_ref().and_then(|text| text.parse().ok());
        if let (Some(slot), Some(seen), Some(units)) = (number(slot), number(seen), number(units)) {
            state.insert(rule, Entry { slot, seen, units });
        }
    }
    state
}

/// What the statements of one request have in common.
struct Texts<'a> {
    dialect: Dialect,
    key: &'a str,
    now: i64,
}

impl Texts<'_> {
    /// Counts a request if there is room, or anyway. The last three statements tell whether there is room, if
    /// it counts anyway; whether it was counted; and how things stand.
    fn work(&self, demand: Demand<'_>) -> Work {
        let mut statements = vec![self.out_of_the_future(), self.expired()];
        let buckets = demand.rules.iter().filter(|rule| rule.leak > 0);
        statements.extend(buckets.map(|rule| self.run_out(rule)));
        if demand.passes_anyway {
            let (rooms, params) = self.rooms(demand);
            statements.push(statement(format!("SELECT 1 WHERE {rooms}"), params));
        }
        statements.push(self.insert(demand));
        let places = vec!["?"; demand.rules.len()].join(", ");
        let rows =
            format!("SELECT rule, slot, seen, units FROM {TABLE} WHERE limited = ? AND rule IN ({places})");
        let names = demand.rules.iter().map(|rule| Param::Text(rule.name.clone()));
        statements.push(statement(rows, std::iter::once(self.key()).chain(names).collect()));
        not_durable(statements, Some(format!("{TABLE}:{}", self.key)))
    }

    fn key(&self) -> Param {
        Param::Text(self.key.to_owned())
    }

    fn now(&self) -> Param {
        Param::Integer(self.now)
    }

    /// What seems to be from the future was noted by a clock that was wrong. (MySQL assigns in this order.)
    fn out_of_the_future(&self) -> Statement {
        let set = "expires = expires - seen + ?, seen = ?";
        statement(
            format!("UPDATE {TABLE} SET {set} WHERE limited = ? AND seen > ?"),
            vec![self.now(), self.now(), self.key(), self.now()],
        )
    }

    fn expired(&self) -> Statement {
        let sql = format!("DELETE FROM {TABLE} WHERE limited = ? AND expires <= ?");
        statement(sql, vec![self.key(), self.now()])
    }

    fn run_out(&self, rule: &Rule) -> Statement {
        let int = self.dialect.integer();
        let run_out = format!("({int} - seen) * {int}");
        let set =
            format!("units = CASE WHEN units > {run_out} THEN units - {run_out} ELSE 0 END, seen = {int}");
        let product = [self.now(), Param::Integer(rule.leak)];
        let mut params: Vec<_> = product.iter().chain(&product).cloned().collect();
        params.extend([self.now(), self.key(), Param::Text(rule.name.clone())]);
        statement(format!("UPDATE {TABLE} SET {set} WHERE limited = ? AND rule = ? AND slot = 0"), params)
    }

    fn insert(&self, demand: Demand<'_>) -> Statement {
        let (int, text) = (self.dialect.integer(), self.dialect.text());
        let mut params = vec![self.key()];
        let mut entries = Vec::new();
        for (n, rule) in demand.rules.iter().enumerate() {
            let names = if n == 0 { [" AS a", " AS b", " AS c", " AS d", " AS e"] } else { [""; 5] };
            let [a, b, c, d, e] = names;
            entries.push(format!("SELECT {text}{a}, {int}{b}, {int}{c}, {int}{d}, {int}{e}"));
            let units = rule.cost(demand.amount).min(LARGEST);
            let numbers = [rule.slot(self.now), self.now, units, self.now.saturating_add(rule.life)];
            params.push(Param::Text(rule.name.clone()));
            params.extend(numbers.map(Param::Integer));
        }
        let (rooms, more) =
            if demand.passes_anyway { ("0 = 0".to_owned(), Vec::new()) } else { self.rooms(demand) };
        params.extend(more);
        let entries = entries.join(" UNION ALL ");
        let [units, seen, expires] = ["units", "seen", "expires"].map(|name| self.dialect.inserted(name));
        let or_update = self.dialect.or_update("limited, rule, slot");
        let sum = format!("{TABLE}.units + {units}");
        let update = format!(
            "{or_update} units = CASE WHEN {sum} > {LARGEST} THEN {LARGEST} ELSE {sum} END, seen = {seen}, \
             expires = {expires}"
        );
        let sql = format!(
            "INSERT INTO {TABLE} (limited, rule, slot, seen, units, expires) \
             SELECT {text}, a, b, c, d, e FROM ({entries}) entries WHERE {rooms} {update}"
        );
        statement(sql, params)
    }

    /// The condition that there is room on every limit.
    fn rooms(&self, demand: Demand<'_>) -> (String, Vec<Param>) {
        let (mut rooms, mut params) = (Vec::new(), Vec::new());
        for rule in demand.rules {
            rooms.push(format!(
                "(SELECT COALESCE(SUM(units), 0) FROM {TABLE} WHERE limited = ? AND rule = ?) <= {}",
                self.dialect.integer()
            ));
            let room = rule.capacity.saturating_sub(rule.cost(demand.amount));
            params.extend([self.key(), Param::Text(rule.name.clone()), Param::Integer(room)]);
        }
        (rooms.join(" AND "), params)
    }

    /// Remembers that something was said, unless another request has said it just now.
    fn claim(&self, rule: &Rule, fill: Fill) -> Work {
        let [insert, or_leave] = self.dialect.or_leave();
        let sql = format!(
            "{insert} INTO {TABLE} (limited, rule, slot, seen, units, expires) \
             VALUES (?, ?, ?, ?, 0, ?){or_leave}"
        );
        let numbers = [fill.slot(), self.now, self.now.saturating_add(rule.life)];
        let mut params = vec![self.key(), Param::Text(rule.name.clone())];
        params.extend(numbers.map(Param::Integer));
        not_durable(vec![statement(sql, params)], None)
    }
}
