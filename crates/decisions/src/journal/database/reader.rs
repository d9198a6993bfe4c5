//! Reading a journal in a database.
//!
//! Knows: tables. Must not know: what is looked for.

use super::{Client, Row, bytes, count, number, text};
use crate::journal::file::Trouble;
use crate::journal::pseudonym::Keys;
use crate::journal::search::MAX_AUDITS;
use crate::journal::store::{Begin, Head, Range, Read};
use crate::journal::{Audit, Coverage, Incident, MAX_INCIDENTS, Privacy};
use crate::{DecisionId, StepTable};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Heads of blocks that are read at once: with their filters less than a megabyte.
const PAGE: i64 = 80;
/// Rows without bytes that are read at once.
const ROWS: usize = 500;
/// The bytes of a block that are read at once; few have more.
pub(super) const PIECE: i64 = 512 << 10;
/// How often a block is read anew that was changed between two pieces.
const TRIES: usize = 5;

pub(super) struct Reader {
    client: Client,
}

impl Reader {
    pub fn new(client: Client) -> Reader {
        Reader { client }
    }
}

impl Read for Reader {
    fn is_of_one_moment(&self) -> bool {
        false
    }

    fn keys(&mut self) -> Result<Keys, Trouble> {
        self.client.keys()
    }

    fn coverage(&mut self) -> Result<Coverage, Trouble> {
        let rows =
            self.client.query("SELECT class, since FROM mtpolicyd_journal_coverage WHERE class >= 0", &[])?;
        let classes: BTreeMap<i64, i64> = rows.iter().map(|row| (number(row, 0), number(row, 1))).collect();
        Coverage::of(&classes, |since| {
            let lost = "SELECT SUM(lost) FROM mtpolicyd_journal_loss WHERE at >= ?";
            self.client.query(lost, &[since]).map(|rows| rows.first().map_or(0, |row| count(row, 0)))
        })
    }

    fn count(&mut self, range: Range) -> Result<u64, Trouble> {
        let sum = "SELECT SUM(count) FROM mtpolicyd_journal_block \
                   WHERE last >= ? AND first < ? AND class BETWEEN ? AND ?";
        let (first, last) = range.classes;
        let rows = self.client.query(sum, &[range.since, range.until, first, last])?;
        Ok(rows.first().map_or(0, |row| count(row, 0)))
    }

    fn heads(
        &mut self,
        range: Range,
        after: Option<(u64, i64)>,
        has_filter: bool,
    ) -> Result<Vec<Head>, Trouble> {
        let (summary, filter) = (self.client.as_text("summary"), self.client.as_text("filter"));
        let filter = if has_filter { &filter } else { "''" };
        let heads = format!(
            "SELECT id, last, config, count, privacy, {summary}, {filter} FROM mtpolicyd_journal_block \
             WHERE last >= ? AND first < ? AND class BETWEEN ? AND ? AND last <= ? AND (last < ? OR id < ?) \
             ORDER BY last DESC, id DESC LIMIT {PAGE}"
        );
        let (last, id) = after.map_or((i64::MAX, i64::MAX), |(last, id)| (last.cast_signed(), id));
        let rows = self
            .client
            .query(&heads, &[range.since, range.until, range.classes.0, range.classes.1, last, last, id])?;
        let head = |row: &Row| Head {
            id: number(row, 0),
            last: number(row, 1).cast_unsigned(),
            config: number(row, 2),
            count: count(row, 3),
            privacy: privacy(row, 4),
            summary: bytes(row, 5),
            filter: bytes(row, 6),
        };
        Ok(rows.iter().map(head).collect())
    }

    fn begins(&mut self, range: Range) -> Result<Vec<Begin>, Trouble> {
        let find = format!(
            "SELECT id, first, config, count FROM mtpolicyd_journal_block \
             WHERE last >= ? AND first < ? AND class BETWEEN ? AND ? AND id > ? ORDER BY id LIMIT {ROWS}"
        );
        let mut begins = Vec::new();
        let mut after = -1;
        loop {
            let rows = self
                .client
                .query(&find, &[range.since, range.until, range.classes.0, range.classes.1, after])?;
            begins.extend(rows.iter().map(|row| Begin {
                id: number(row, 0),
                first: number(row, 1).cast_unsigned(),
                config: number(row, 2),
                count: count(row, 3),
            }));
            match rows.last() {
                Some(last) if rows.len() == ROWS => after = number(last, 0),
                _ => return Ok(begins),
            }
        }
    }

    fn data(&mut self, id: i64) -> Result<Option<Vec<u8>>, Trouble> {
        Ok(self.client.block(id)?.map(|(_, data)| data))
    }

    fn table(&mut self, config: i64) -> Result<Option<Arc<StepTable>>, Trouble> {
        self.client.table(config)
    }

    fn audits(&mut self, limit: usize) -> Result<Vec<Audit>, Trouble> {
        let find = format!(
            "SELECT at, who, what, id FROM mtpolicyd_journal_audit WHERE id < ? ORDER BY id DESC LIMIT {ROWS}"
        );
        let limit = limit.min(MAX_AUDITS);
        let (mut audits, mut before) = (Vec::new(), i64::MAX);
        while audits.len() < limit {
            let rows = self.client.query(&find, &[before])?;
            let Some(last) = rows.last() else { break };
            before = number(last, 3);
            audits.extend(rows.iter().map(|row| Audit {
                at: DecisionId::from_number(number(row, 0).cast_unsigned()),
                who: text(row, 1).to_owned(),
                what: text(row, 2).to_owned(),
            }));
        }
        audits.truncate(limit);
        Ok(audits)
    }

    fn incidents(&mut self, limit: usize) -> Result<Vec<Incident>, Trouble> {
        let find = format!(
            "SELECT at, kind, state, level, subject, about, said, advice, id FROM mtpolicyd_journal_event \
             WHERE id < ? ORDER BY id DESC LIMIT {ROWS}"
        );
        let limit = limit.min(MAX_INCIDENTS);
        let (mut incidents, mut before) = (Vec::new(), i64::MAX);
        while incidents.len() < limit {
            let rows = self.client.query(&find, &[before])?;
            let Some(last) = rows.last() else { break };
            before = number(last, 8);
            incidents.extend(rows.iter().map(|row| Incident {
                id: DecisionId::from_number(number(row, 0).cast_unsigned()),
                kind: text(row, 1).to_owned(),
                state: text(row, 2).to_owned(),
                level: text(row, 3).to_owned(),
                subject: text(row, 4).to_owned(),
                key: text(row, 5).to_owned(),
                text: text(row, 6).to_owned(),
                advice: text(row, 7).to_owned(),
            }));
        }
        incidents.truncate(limit);
        Ok(incidents)
    }
}

pub(super) fn privacy(row: &Row, column: usize) -> Privacy {
    Privacy::from_number(u8::try_from(number(row, column)).unwrap_or(u8::MAX))
}

impl Client {
    /// The keys of pseudonyms.
    pub(super) fn keys(&self) -> Result<Keys, Trouble> {
        let all = format!("SELECT month, {} FROM mtpolicyd_journal_secret", self.as_text("secret"));
        let rows = self.query(&all, &[])?;
        let keys = rows.iter().filter_map(|row| Some((number(row, 0), bytes(row, 1).try_into().ok()?)));
        Ok(Keys(keys.collect()))
    }

    /// The table of steps with this number.
    pub(super) fn table(&self, config: i64) -> Result<Option<Arc<StepTable>>, Trouble> {
        let from = "FROM mtpolicyd_journal_config WHERE id = ?";
        let found = self.in_pieces("steps", "id", from, config)?;
        Ok(found.and_then(|(_, steps)| crate::journal::file::steps(&steps)))
    }

    /// What stands beside a block's data, and that: `None` if it is gone.
    pub(super) fn block(&self, id: i64) -> Result<Option<(Row, Vec<u8>)>, Trouble> {
        let beside = "class, config, count, privacy, changes";
        self.in_pieces("data", beside, "FROM mtpolicyd_journal_block WHERE id = ?", id)
    }

    /// The bytes of a column, which may be more than a result may have, and others.
    fn in_pieces(
        &self,
        column: &str,
        beside: &str,
        from: &str,
        id: i64,
    ) -> Result<Option<(Row, Vec<u8>)>, Trouble> {
        let piece = |at: i64| {
            let part = self.as_text(&format!("substr({column}, {}, {PIECE})", at + 1));
            let select = format!("SELECT {part}, length({column}), {beside} {from}");
            self.query(&select, &[id]).map(|rows| rows.into_iter().next())
        };
        for _ in 0..TRIES {
            let Some(first) = piece(0)? else { return Ok(None) };
            let mut data = bytes(&first, 0);
            let length = count(&first, 1);
            let mut is_same = true;
            while is_same && (data.len() as u64) < length {
                let at = i64::try_from(data.len()).unwrap_or(i64::MAX);
                let Some(next) = piece(at)? else { return Ok(None) };
                let part = bytes(&next, 0);
                is_same = next[1..] == first[1..] && !part.is_empty();
                data.extend(part);
            }
            if is_same {
                return Ok(Some((first.into_iter().skip(2).collect(), data)));
            }
        }
        Err(Trouble::Busy)
    }
}
