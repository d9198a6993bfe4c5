//! Which daemons write to a database, so that two with the same number are noticed: they may give two
//! decisions the same identifier.
//!
//! Knows: the table of daemons. Must not know: blocks.

use super::{Client, Dialect, Shared, Statement, Value, count, number, statement, text};
use crate::journal::file::Trouble;
use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a daemon says that it is there.
const EVERY: Duration = Duration::from_secs(5);
/// How often another one has to say that it is there before it counts: one that this daemon is started in
/// place of ends soon.
const ALIVE: u32 = 3;
/// Those that were not there for this many milliseconds are removed: a day.
const GONE: i64 = 86_400_000;

pub(super) struct Nodes {
    instance: i64,
    node: u8,
    host: String,
    looked: Option<Instant>,
    /// When others with the same number were last there, and how often they have said so since.
    others: HashMap<i64, (u64, u32)>,
    same: Option<(u8, String)>,
}

impl Nodes {
    pub fn new(shared: &Shared) -> Nodes {
        Nodes {
            instance: shared.instance,
            node: shared.node,
            host: shared.host.chars().take(255).collect(),
            looked: None,
            others: HashMap::new(),
            same: None,
        }
    }

    pub fn instance(&self) -> i64 {
        self.instance
    }

    /// Says that this daemon is there, and looks for another one with its number.
    pub fn look(&mut self, client: &Client) -> Result<(), Trouble> {
        if self.looked.is_some_and(|looked| looked.elapsed() < EVERY) {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        let set = match client.database.dialect() {
            Dialect::Postgres => " ON CONFLICT (instance) DO UPDATE SET seen = excluded.seen",
            Dialect::MySql => " ON DUPLICATE KEY UPDATE seen = VALUES(seen)",
        };
        let here = "INSERT INTO mtpolicyd_journal_node(instance, node, host, seen) VALUES(?, ?, ?, ?)";
        let values = vec![
            Value::Number(self.instance),
            Value::Number(i64::from(self.node)),
            Value::Text(self.host.clone()),
            Value::Number(now),
        ];
        let gone = statement("DELETE FROM mtpolicyd_journal_node WHERE seen < ?", &[now - GONE]);
        client.run(vec![Statement { sql: format!("{here}{set}"), values }, gone], false)?;
        let others =
            "SELECT instance, seen, host FROM mtpolicyd_journal_node WHERE node = ? AND instance <> ?";
        for row in client.query(others, &[i64::from(self.node), self.instance])? {
            let seen = count(&row, 1);
            let (last, times) = self.others.entry(number(&row, 0)).or_insert((seen, 0));
            if *last != seen {
                (*last, *times) = (seen, *times + 1);
            }
            if *times >= ALIVE {
                self.same = Some((self.node, text(&row, 2).to_owned()));
            }
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// Another one with the same number, if the last look has found one.
    pub fn take_same(&mut self) -> Option<(u8, String)> {
        self.same.take()
    }

    /// This daemon is there no more.
    pub fn leave(&self, client: &Client) {
        let leave = statement("DELETE FROM mtpolicyd_journal_node WHERE instance = ?", &[self.instance]);
        // Others remove it in time.
        let _ = client.run(vec![leave], false);
    }
}
