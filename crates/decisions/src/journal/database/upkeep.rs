//! How long and how much is kept in a database: by every daemon that writes to it, none of which is in the
//! way of another.
//!
//! Knows: blocks' times and sizes. Must not know: what is in them.

use super::writer::{Writer, now};
use super::{Statement, count, number, statement};
use crate::DecisionId;
use crate::journal::block::Class;
use crate::journal::file::Trouble;
use crate::journal::pseudonym;
use crate::journal::retention::{MAX_AUDITS, OpenRows, before, budget};
use crate::journal::{MAX_INCIDENTS, Settings};
use std::time::{Duration, Instant};

/// How often it is looked what is to be removed, while nothing is.
const EVERY: Duration = Duration::from_secs(30);
/// Blocks that are removed at once, or written again, at most.
const AT_ONCE: usize = 64;
/// A table of steps that nobody has used for so long is removed with its blocks, in numbers: a day.
const UNUSED: i64 = 8_640_000 << 14;

/// When something was done, and how much there was then.
#[derive(Default)]
pub(super) struct Upkeep {
    /// Decisions and their bytes.
    pub sums: (u64, u64),
    looked: Option<Instant>,
    looked_for_names: Option<Instant>,
}

/// A block that may be removed.
struct Old {
    id: i64,
    last: i64,
    count: u64,
    size: u64,
}

fn is_due(last: Option<Instant>) -> bool {
    last.is_none_or(|last| last.elapsed() >= EVERY)
}

impl Writer {
    /// Decisions and their bytes.
    pub(super) fn sums(&self) -> Result<(u64, u64), Trouble> {
        let rows = self.client.query("SELECT SUM(count), SUM(size) FROM mtpolicyd_journal_block", &[])?;
        Ok(rows.first().map_or((0, 0), |row| (count(row, 0), count(row, 1))))
    }

    /// Removes what is too old or too much: how many decisions.
    pub(super) fn remove_old(&mut self, settings: &Settings, open: OpenRows) -> Result<u64, Trouble> {
        if !is_due(self.upkeep.looked) {
            return Ok(0);
        }
        if let Some(age) = settings.anonymise_after {
            let personal = "DELETE FROM mtpolicyd_journal_event WHERE about <> '' AND at < ?";
            self.client.run(vec![statement(personal, &[before(age)])], false)?;
        }
        let (mut removed, mut is_more) = (0, false);
        let keeps = [settings.keep, settings.keep_acted, settings.keep_acted];
        for (class, keep) in Class::ALL.into_iter().zip(keeps) {
            let old = self.oldest(class, before(keep), open)?;
            is_more |= old.len() == AT_ONCE;
            removed += self.remove(class, &old)?;
        }
        self.upkeep.sums = self.sums()?;
        let mut too_much = self.upkeep.sums.1.saturating_sub(budget(settings));
        for class in [Class::Passed, Class::ShadowDiffers, Class::Acted] {
            let mut old = self.oldest(class, i64::MAX, open)?;
            let needed = old.iter().scan(too_much, |left, block| {
                let is_needed = *left > 0;
                *left = left.saturating_sub(block.size);
                Some(is_needed)
            });
            let needed = needed.take_while(|is_needed| *is_needed).count();
            old.truncate(needed);
            too_much = too_much.saturating_sub(old.iter().map(|block| block.size).sum());
            removed += self.remove(class, &old)?;
            is_more |= old.len() == AT_ONCE;
        }
        if removed > 0 {
            self.tidy()?;
            self.upkeep.sums = self.sums()?;
        }
        self.upkeep.looked = (!is_more).then(Instant::now);
        Ok(removed)
    }

    fn oldest(&self, class: Class, before: i64, open: OpenRows) -> Result<Vec<Old>, Trouble> {
        let find = format!(
            "SELECT id, last, count, size FROM mtpolicyd_journal_block \
             WHERE class = ? AND last < ? AND id NOT IN (?, ?, ?) ORDER BY last LIMIT {AT_ONCE}"
        );
        let rows = self.client.query(&find, &[class as i64, before, open[0], open[1], open[2]])?;
        let old = rows.iter().map(|row| Old {
            id: number(row, 0),
            last: number(row, 1),
            count: count(row, 2),
            size: count(row, 3),
        });
        Ok(old.collect())
    }

    /// Removes blocks of a class. Where another daemon has removed some of them, that is as good.
    fn remove(&self, class: Class, old: &[Old]) -> Result<u64, Trouble> {
        let Some(last) = old.iter().map(|block| block.last).max() else { return Ok(0) };
        let mut work: Vec<Statement> = old
            .iter()
            .map(|block| statement("DELETE FROM mtpolicyd_journal_block WHERE id = ?", &[block.id]))
            .collect();
        let since = "UPDATE mtpolicyd_journal_coverage SET since = ? WHERE class = ? AND since < ?";
        work.push(statement(since, &[last + 1, class as i64, last + 1]));
        let outputs = self.client.run(work, false)?;
        let removed = old.iter().zip(&outputs).filter(|(_, output)| output.affected > 0);
        Ok(removed.map(|(block, _)| block.count).sum())
    }

    /// Removes what belonged to blocks that are gone: tables of steps, losses, keys of pseudonyms.
    fn tidy(&self) -> Result<(), Trouble> {
        let config = "DELETE FROM mtpolicyd_journal_config WHERE seen < ? \
                      AND id NOT IN (SELECT config FROM mtpolicyd_journal_block)";
        let loss = "DELETE FROM mtpolicyd_journal_loss \
                    WHERE at < (SELECT MIN(since) FROM mtpolicyd_journal_coverage WHERE class >= 0)";
        self.client.run(vec![statement(config, &[now() - UNUSED]), statement(loss, &[])], false)?;
        let audits = usize::try_from(MAX_AUDITS).unwrap_or(usize::MAX);
        let notes = [("mtpolicyd_journal_audit", audits), ("mtpolicyd_journal_event", MAX_INCIDENTS)];
        for (table, most) in notes {
            let oldest = format!("SELECT id FROM {table} ORDER BY id DESC LIMIT 1 OFFSET {most}");
            if let Some(row) = self.client.query(&oldest, &[])?.first() {
                let remove = format!("DELETE FROM {table} WHERE id <= ?");
                self.client.run(vec![statement(&remove, &[number(row, 0)])], false)?;
            }
        }
        let first = self.client.query("SELECT MIN(first) FROM mtpolicyd_journal_block", &[])?;
        if let Some(first) = first.first().filter(|row| row.first().is_some_and(Option::is_some)) {
            let month = |number: i64| pseudonym::month(DecisionId::from_number(number.cast_unsigned()));
            // Decisions of the month before may still wait in another daemon.
            let month = month(number(first, 0)).min(month(now()) - 1);
            let secret = "DELETE FROM mtpolicyd_journal_secret WHERE month < ?";
            self.client.run(vec![statement(secret, &[month])], true)?;
        }
        Ok(())
    }

    /// Some blocks that end before a number and in which not all names were replaced.
    pub(super) fn find_named(&mut self, before: i64, open: OpenRows) -> Result<Vec<i64>, Trouble> {
        if !is_due(self.upkeep.looked_for_names) {
            return Ok(Vec::new());
        }
        let find = format!(
            "SELECT id FROM mtpolicyd_journal_block WHERE privacy < 2 AND last < ? AND id NOT IN (?, ?, ?) \
             ORDER BY last LIMIT {AT_ONCE}"
        );
        let rows = self.client.query(&find, &[before, open[0], open[1], open[2]])?;
        self.upkeep.looked_for_names = rows.is_empty().then(Instant::now);
        Ok(rows.iter().map(|row| number(row, 0)).collect())
    }
}
