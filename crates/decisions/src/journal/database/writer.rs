//! Writing a journal to a database.
//!
//! Knows: tables. Must not know: when it is done, what is done after a failure.

use super::nodes::Nodes;
use super::reader::privacy;
use super::upkeep::Upkeep;
use super::{Client, Dialect, Shared, Statement, Value, count, encoded, number, statement, tables, text};
use crate::journal::block::{Class, Row};
use crate::journal::file::{Trouble, packed_steps};
use crate::journal::pseudonym::{Key, Keys};
use crate::journal::retention::OpenRows;
use crate::journal::store::{More, Saved, Stored, Write};
use crate::journal::{Incident, Settings};
use crate::{DecisionId, StepTable};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Tables of steps whose numbers are remembered.
const MAX_CONFIGS: usize = 16;
/// How often a table of steps that is in use is noted as such, so that nobody removes it.
const CONFIG_EVERY: Duration = Duration::from_secs(3_600);
/// Bytes of a text that are written.
const MAX_TEXT: usize = 16 << 10;
/// Rows without bytes that are read at once.
const ROWS: usize = 500;
/// The columns of a block that its daemon writes.
const COLUMNS: [&str; 8] = ["first", "last", "config", "count", "privacy", "size", "summary", "filter"];

pub(super) struct Writer {
    pub(super) client: Client,
    pub(super) node: i64,
    configs: Vec<(Arc<StepTable>, i64, Instant)>,
    pub(super) upkeep: Upkeep,
    nodes: Nodes,
}

impl Writer {
    pub fn open(shared: &Shared, since: DecisionId) -> Result<Writer, Trouble> {
        let client = Client { database: Arc::clone(&shared.database) };
        let mut writer = Writer {
            client,
            node: i64::from(shared.node),
            configs: Vec::new(),
            upkeep: Upkeep::default(),
            nodes: Nodes::new(shared),
        };
        writer.client.version()?;
        writer.make(since)?;
        writer.upkeep.sums = writer.sums()?;
        Ok(writer)
    }

    /// Makes what is missing. Somebody may have removed a table while it was in use.
    fn make(&self, since: DecisionId) -> Result<(), Trouble> {
        self.client.database.make().map_err(Client::trouble)?;
        let since = since.number().cast_signed();
        let rows = [(0, since), (1, since), (tables::VERSION_ROW, tables::VERSION)];
        let insert = "INSERT INTO mtpolicyd_journal_coverage(class, since) VALUES(?, ?)";
        let insert = format!("{insert}{}", self.or_leave("class"));
        let rows = rows.iter().map(|(class, since)| statement(&insert, &[*class, *since]));
        self.client.run(rows.collect(), true).map(drop)
    }

    /// The end of an INSERT that leaves a row with the same key.
    fn or_leave(&self, key: &str) -> String {
        match self.client.database.dialect() {
            Dialect::Postgres => " ON CONFLICT DO NOTHING".to_owned(),
            Dialect::MySql => format!(" ON DUPLICATE KEY UPDATE {key} = {key}"),
        }
    }

    /// The end of one that changes such a row.
    fn or_set(&self, key: &str, set: &str) -> String {
        match self.client.database.dialect() {
            Dialect::Postgres => format!(" ON CONFLICT ({key}) DO UPDATE SET {set}"),
            Dialect::MySql => format!(" ON DUPLICATE KEY UPDATE {set}"),
        }
    }

    /// In such a change, the value that was to be inserted.
    fn inserted(&self, column: &str) -> String {
        match self.client.database.dialect() {
            Dialect::Postgres => format!("excluded.{column}"),
            Dialect::MySql => format!("VALUES({column})"),
        }
    }

    /// The number of a table of steps, and the statement that adds it or says that it is in use.
    fn config(&mut self, table: &Arc<StepTable>, work: &mut Vec<Statement>) -> i64 {
        let known = self.configs.iter().find(|(known, ..)| Arc::ptr_eq(known, table));
        if let Some((_, id, noted)) = known
            && noted.elapsed() < CONFIG_EVERY
        {
            return *id;
        }
        let (json, steps) = packed_steps(table);
        let hash: [u8; 32] = Sha256::digest(&json).into();
        let id = hash.iter().take(8).fold(0_u64, |id, byte| id << 8 | u64::from(*byte));
        let id = (id >> 1).cast_signed();
        let add = format!(
            "INSERT INTO mtpolicyd_journal_config(id, seen, file, steps) VALUES(?, ?, ?, {}){}",
            self.client.of_text(),
            self.or_set("id", &format!("seen = {}", self.inserted("seen")))
        );
        let values =
            vec![Value::Number(id), Value::Number(now()), Value::Text(table.file.clone()), encoded(&steps)];
        work.push(Statement { sql: add, values });
        self.configs.retain(|(known, ..)| !Arc::ptr_eq(known, table));
        if self.configs.len() >= MAX_CONFIGS {
            self.configs.clear();
        }
        self.configs.push((Arc::clone(table), id, Instant::now()));
        id
    }

    /// The statement that writes a block of this daemon, unless somebody else has changed it.
    fn put(&self, row: &Row, config: i64) -> Statement {
        let bytes = self.client.of_text();
        let (first, last) = (row.first.cast_signed(), row.last.cast_signed());
        let privacy = row.privacy as i64;
        let numbers = [first, last, config, i64::from(row.count), privacy, size(row)];
        let mut values: Vec<Value> = numbers.into_iter().map(Value::Number).collect();
        values.extend([&row.summary, &row.filter, &row.data].map(|bytes| encoded(bytes)));
        let Some(id) = row.row else {
            let more = [row.token, self.node, row.class as i64];
            values.extend(more.map(Value::Number));
            let names = COLUMNS.join(", ");
            // It may be there already, if nobody knew whether that was done. No other block has its number.
            let sql = format!(
                "INSERT INTO mtpolicyd_journal_block({names}, data, id, node, class, changes, version) \
                 VALUES(?, ?, ?, ?, ?, ?, {bytes}, {bytes}, {bytes}, ?, ?, ?, 0, 0){}",
                self.or_update_unchanged()
            );
            return Statement { sql, values };
        };
        values.push(Value::Number(id));
        let sql = format!(
            "UPDATE mtpolicyd_journal_block SET version = version + 1, first = ?, last = ?, config = ?, \
             count = ?, privacy = ?, size = ?, summary = {bytes}, filter = {bytes}, data = {bytes} \
             WHERE id = ? AND changes = 0"
        );
        Statement { sql, values }
    }

    fn or_update_unchanged(&self) -> String {
        let columns = COLUMNS.into_iter().chain(["data"]);
        match self.client.database.dialect() {
            Dialect::Postgres => {
                let set: Vec<_> = columns.map(|column| format!("{column} = excluded.{column}")).collect();
                format!(
                    " ON CONFLICT (id) DO UPDATE SET {}, version = excluded.version + 1 \
                     WHERE mtpolicyd_journal_block.changes = 0",
                    set.join(", ")
                )
            }
            Dialect::MySql => {
                let set: Vec<_> = columns
                    .map(|column| format!("{column} = IF(changes = 0, VALUES({column}), {column})"))
                    .collect();
                // MySQL counts only rows that differ afterwards.
                let version = "version = version + IF(changes = 0, 1, 0)";
                format!(" ON DUPLICATE KEY UPDATE {version}, {}", set.join(", "))
            }
        }
    }

    /// The statements that note who did what, and what was lost.
    fn notes(&self, more: &More<'_>, work: &mut Vec<Statement>) {
        let add = "INSERT INTO mtpolicyd_journal_audit(id, at, who, what) VALUES(?, ?, ?, ?)";
        let add = format!("{add}{}", self.or_leave("id"));
        for audit in more.audits {
            let number = self.number_of(audit.at, [&audit.who, &audit.what, ""]);
            let numbers = [number, audit.at.number().cast_signed()];
            let mut values: Vec<_> = numbers.into_iter().map(Value::Number).collect();
            values.extend([&audit.who, &audit.what].map(|text| fitting(text)));
            work.push(Statement { sql: add.clone(), values });
        }
        let add = "INSERT INTO mtpolicyd_journal_event(id, at, kind, state, level, subject, about, said, \
                   advice) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let add = format!("{add}{}", self.or_leave("id"));
        for incident in more.incidents {
            let Incident { id, kind, state, level, subject, key, text, advice } = incident;
            let number = self.number_of(*id, [kind, subject, key]);
            let mut values = vec![Value::Number(number), Value::Number(id.number().cast_signed())];
            values.extend([kind, state, level, subject, key, text, advice].map(|it| fitting(it)));
            work.push(Statement { sql: add.clone(), values });
        }
        if more.lost > 0 {
            let lost = format!("lost = mtpolicyd_journal_loss.lost + {}", self.inserted("lost"));
            let add = "INSERT INTO mtpolicyd_journal_loss(at, node, lost) VALUES(?, ?, ?)";
            let add = format!("{add}{}", self.or_set("at, node", &lost));
            work.push(statement(&add, &[now(), self.node, more.lost.cast_signed()]));
        }
    }

    /// The same number each time, so that a note is there once, however often it is written.
    fn number_of(&self, at: DecisionId, texts: [&str; 3]) -> i64 {
        let hash = texts.into_iter().fold(Sha256::new(), |hash, text| hash.chain_update(text));
        let hash: [u8; 32] = hash.chain_update(self.nodes.instance().to_le_bytes()).finalize().into();
        let tail = i64::from(u16::from_le_bytes([hash[0], hash[1]]) >> 3);
        at.number().cast_signed() << 13 | tail
    }
}

/// The number of this moment.
pub(super) fn now() -> i64 {
    DecisionId::first_at(SystemTime::now()).number().cast_signed()
}

/// A text as far as a column of every database has room for it: MariaDB refuses more than 64 KiB, and with it
/// everything that is written together.
fn fitting(text: &str) -> Value {
    Value::Text(text[..text.floor_char_boundary(MAX_TEXT)].to_owned())
}

/// What makes a character of a pattern of LIKE stand for itself, if it does not.
fn wild(c: char) -> impl Iterator<Item = char> {
    "%_!".contains(c).then_some('!').into_iter()
}

/// The bytes of a block.
fn size(row: &Row) -> i64 {
    i64::try_from(row.summary.len() + row.filter.len() + row.data.len()).unwrap_or(i64::MAX)
}

impl Write for Writer {
    fn held(&mut self) -> Result<u64, Trouble> {
        Ok(self.upkeep.sums.0)
    }

    fn held_by_all(&self) -> Option<u64> {
        Some(self.upkeep.sums.0)
    }

    fn used(&self) -> Option<u64> {
        Some(self.upkeep.sums.1)
    }

    fn keys(&mut self, known: &Keys) -> Result<Keys, Trouble> {
        for (month, key) in &known.0 {
            self.add_key(*month, key)?;
        }
        self.client.keys()
    }

    fn key(&mut self, month: i64) -> Result<Key, Trouble> {
        // Of several daemons one is the first, and all use the key of that one.
        self.add_key(month, &rand::random())?;
        self.client.keys()?.0.get(&month).copied().ok_or(Trouble::Busy)
    }

    fn save(
        &mut self,
        _settings: &Settings,
        _open: OpenRows,
        rows: &[&Row],
        more: &More<'_>,
    ) -> Result<Saved, Trouble> {
        let (mut work, mut places) = (Vec::new(), Vec::new());
        for row in rows {
            let config = self.config(&row.table, &mut work);
            places.push(work.len());
            work.push(self.put(row, config));
        }
        self.notes(more, &mut work);
        let outputs = match self.client.run(work, true) {
            Ok(outputs) => outputs,
            Err(trouble) => {
                self.configs.clear();
                return Err(trouble);
            }
        };
        let mut saved = Saved::default();
        let sums = &mut self.upkeep.sums;
        for (row, place) in rows.iter().zip(places) {
            let is_done = outputs.get(place).is_some_and(|output| output.affected > 0);
            saved.ids.push(is_done.then(|| row.row.unwrap_or(row.token)));
            saved.added += if is_done { row.unsaved.len() as u64 } else { 0 };
        }
        let new = rows.iter().filter(|row| row.row.is_none());
        *sums = (sums.0 + saved.added, sums.1 + new.map(|row| row.size() as u64).sum::<u64>());
        Ok(saved)
    }

    fn look_after(&mut self, settings: &Settings, open: OpenRows) -> Result<u64, Trouble> {
        self.nodes.look(&self.client)?;
        self.remove_old(settings, open)
    }

    fn named_blocks(&mut self, before: i64, open: OpenRows) -> Result<Vec<i64>, Trouble> {
        self.find_named(before, open)
    }

    fn all_blocks(&mut self) -> Result<Vec<i64>, Trouble> {
        let find = format!("SELECT id FROM mtpolicyd_journal_block WHERE id > ? ORDER BY id LIMIT {ROWS}");
        let (mut ids, mut after) = (Vec::new(), -1);
        loop {
            let rows = self.client.query(&find, &[after])?;
            ids.extend(rows.iter().map(|row| number(row, 0)));
            match ids.last() {
                Some(last) if rows.len() == ROWS => after = *last,
                _ => return Ok(ids),
            }
        }
    }

    fn begin_again(&mut self) -> Result<(), Trouble> {
        Ok(())
    }

    fn end_again(&mut self, _is_good: bool) -> Result<(), Trouble> {
        // Each block is changed by itself.
        Ok(())
    }

    fn stored(&mut self, id: i64) -> Result<Option<Stored>, Trouble> {
        let stored = self.client.block(id)?.map(|(row, data)| Stored {
            id,
            class: Class::from_number(number(&row, 0)),
            config: number(&row, 1),
            count: count(&row, 2),
            privacy: privacy(&row, 3),
            changes: number(&row, 4),
            data,
        });
        Ok(stored)
    }

    fn table(&mut self, config: i64) -> Result<Option<Arc<StepTable>>, Trouble> {
        self.client.table(config)
    }

    fn replace(&mut self, stored: &Stored, row: Option<&Row>) -> Result<bool, Trouble> {
        // Its own daemon adds to it, others count their changes.
        let same = [stored.id, stored.count.cast_signed(), stored.changes].map(Value::Number);
        let condition = "WHERE id = ? AND count = ? AND changes = ?";
        let (mut values, sql) = match row {
            None => (Vec::new(), format!("DELETE FROM mtpolicyd_journal_block {condition}")),
            Some(row) => {
                let bytes = self.client.of_text();
                let numbers = [row.first.cast_signed(), row.last.cast_signed(), i64::from(row.count)];
                let numbers = numbers.into_iter().chain([row.privacy as i64, size(row)]);
                let mut values: Vec<_> = numbers.map(Value::Number).collect();
                values.extend([&row.summary, &row.filter, &row.data].map(|bytes| encoded(bytes)));
                let sql = format!(
                    "UPDATE mtpolicyd_journal_block SET changes = changes + 1, first = ?, last = ?, \
                     count = ?, privacy = ?, size = ?, summary = {bytes}, filter = {bytes}, data = {bytes} \
                     {condition}"
                );
                (values, sql)
            }
        };
        values.extend(same);
        let outputs = self.client.run(vec![Statement { sql, values }], true)?;
        Ok(outputs.first().is_some_and(|output| output.affected > 0))
    }

    fn replace_audits(&mut self, is_meant: &dyn Fn(&str) -> bool, instead: &str) -> Result<(), Trouble> {
        let find =
            format!("SELECT id, what FROM mtpolicyd_journal_audit WHERE id > ? ORDER BY id LIMIT {ROWS}");
        let mut after = -1;
        loop {
            let rows = self.client.query(&find, &[after])?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = number(last, 0);
            for row in rows.iter().filter(|row| is_meant(text(row, 1))) {
                let sql = "UPDATE mtpolicyd_journal_audit SET what = ? WHERE id = ?".to_owned();
                let values = vec![Value::Text(instead.to_owned()), Value::Number(number(row, 0))];
                self.client.run(vec![Statement { sql, values }], true)?;
            }
        }
    }

    fn forget_incidents(&mut self, names: &[String]) -> Result<(), Trouble> {
        let sql = "DELETE FROM mtpolicyd_journal_event WHERE LOWER(about) = ? OR LOWER(said) LIKE ?";
        let gone = names.iter().map(|name| {
            let part: String = name.chars().flat_map(|c| wild(c).chain([c])).collect();
            let values = [name.clone(), format!("%{part}%")].map(Value::Text);
            Statement { sql: format!("{sql} ESCAPE '!'"), values: values.into() }
        });
        self.client.run(gone.collect(), true).map(drop)
    }

    fn finish_again(&mut self, _is_all: bool) -> Result<(), Trouble> {
        Ok(())
    }

    fn take_same_node(&mut self) -> Option<(u8, String)> {
        self.nodes.take_same()
    }

    fn end(&mut self) {
        self.nodes.leave(&self.client);
    }
}

impl Writer {
    fn add_key(&self, month: i64, key: &Key) -> Result<(), Trouble> {
        let add = "INSERT INTO mtpolicyd_journal_secret(month, secret)";
        let sql = format!("{add} VALUES(?, {}){}", self.client.of_text(), self.or_leave("month"));
        let values = vec![Value::Number(month), encoded(key)];
        self.client.run(vec![Statement { sql, values }], true).map(drop)
    }
}
