//! What takes long and is done in parts, between two looks at the queue: names replaced in old blocks,
//! decisions about somebody removed.
//!
//! Knows: how blocks are read and written again. Must not know: when it is begun.

use super::block::{OpenBlock, unpack};
use super::codec::Decoder;
use super::file::Trouble;
use super::marks::unmarked;
use super::pseudonym::{self, Key, Keys};
use super::store::{Stored, Write};
use super::{Audit, JournalError, Privacy, privacy};
use crate::about::{is_about, is_named_in};
use crate::{Decision, DecisionId};
use memchr::memmem;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::SystemTime;

/// Blocks in one part.
const PART: usize = 16;
/// How often a block is tried that somebody else changes at the same time.
const TRIES: usize = 100;
/// What stands in place of a note that named somebody.
const FORGOTTEN: &str = "(about an address that was forgotten)";

/// What takes long.
pub(super) struct Job {
    kind: Kind,
    /// The rows that were not looked at yet.
    rows: Vec<i64>,
    removed: u64,
}

enum Kind {
    /// Replace names as [`Privacy::All`] does.
    Anonymise,
    /// Remove decisions.
    Forget { names: Names, who: String, done: mpsc::SyncSender<Result<u64, JournalError>> },
}

/// What somebody is called.
struct Names {
    /// The domain, for the note about it.
    domain: String,
    /// The address and its pseudonyms, in lower case.
    names: Vec<String>,
}

/// What a part has done.
pub(super) struct Part {
    /// Decisions that were removed.
    pub removed: u64,
    /// Nothing is left to be done.
    pub is_over: bool,
}

impl Job {
    /// Replaces names in these blocks, if there are any.
    pub fn anonymise(rows: Vec<i64>) -> Option<Job> {
        let job = Job { kind: Kind::Anonymise, rows, removed: 0 };
        Some(job).filter(|job| !job.rows.is_empty())
    }

    /// Removes what names an address from these blocks.
    pub fn forget(
        rows: Vec<i64>,
        address: &str,
        who: String,
        keys: &Keys,
        done: mpsc::SyncSender<Result<u64, JournalError>>,
    ) -> Job {
        let kind = Kind::Forget { names: Names::new(address, keys), who, done };
        Job { kind, rows, removed: 0 }
    }

    /// Whether somebody waits for it.
    pub fn is_for_somebody(&self) -> bool {
        matches!(self.kind, Kind::Forget { .. })
    }

    /// Does a part of it.
    pub fn go_on(&mut self, store: &mut dyn Write) -> Result<Part, Trouble> {
        let rest = self.rows.len().saturating_sub(PART);
        store.begin_again()?;
        let done = self.rewrite_all(rest, store);
        let ended = store.end_again(done.is_ok());
        let removed = done?;
        ended?;
        self.rows.truncate(rest);
        self.removed += removed;
        if rest == 0 {
            store.finish_again(self.is_for_somebody())?;
        }
        Ok(Part { removed, is_over: rest == 0 })
    }

    fn rewrite_all(&self, rest: usize, store: &mut dyn Write) -> Result<u64, Trouble> {
        let mut removed = 0;
        for row in &self.rows[rest..] {
            // Who else has changed it meanwhile may have added to it.
            let mut tries = (0..TRIES).map(|_| rewrite(store, *row, &self.kind));
            removed += tries.find_map(Result::transpose).unwrap_or(Err(Trouble::Busy))?;
        }
        if let Kind::Forget { names, .. } = &self.kind
            && rest == 0
        {
            store.replace_audits(&|what| is_named_in(what.as_bytes(), &names.names), FORGOTTEN)?;
            store.forget_incidents(&names.names)?;
        }
        Ok(removed)
    }

    /// What is to be noted of it.
    pub fn note(&self) -> Option<Audit> {
        let Kind::Forget { names, who, .. } = &self.kind else { return None };
        let what = format!("forget an address{}: {} decisions removed", names.domain, self.removed);
        let at = DecisionId::first_at(SystemTime::now());
        Some(Audit { at, who: who.clone(), what })
    }

    /// Tells whoever waits for it.
    pub fn answer(self, saved: &Result<(), Trouble>, file: &Path) {
        if let Kind::Forget { done, .. } = self.kind {
            let result = saved.clone().map(|()| self.removed).map_err(|trouble| trouble.error(file));
            // Nobody waits any more if it can't be sent.
            let _ = done.send(result);
        }
    }
}

/// Reads a block and writes it again, if something in it changes: how many decisions were removed. `None` if
/// it was changed by somebody else meanwhile.
fn rewrite(store: &mut dyn Write, id: i64, kind: &Kind) -> Result<Option<u64>, Trouble> {
    // It may have been too old meanwhile.
    let Some(stored) = store.stored(id)? else { return Ok(Some(0)) };
    let bytes = unpack(&stored.data);
    match (&bytes, kind) {
        (Ok(bytes), Kind::Forget { names, .. }) if !names.may_be_in(&bytes.to_ascii_lowercase()) => {
            return Ok(Some(0));
        }
        (Ok(_), Kind::Anonymise) if stored.privacy == Privacy::All => return Ok(Some(0)),
        _ => {}
    }
    let table = store.table(stored.config)?;
    let decisions: Option<Vec<Decision>> = bytes
        .ok()
        .zip(table.as_ref())
        .and_then(|(bytes, table)| Decoder::new(&bytes, table).collect::<Result<_, _>>().ok());
    let (Some(decisions), Some(table)) = (decisions, table) else {
        // Nobody can read it, so nobody can say that nothing is in it.
        return put(store, &stored, None);
    };
    let mut block = match kind {
        Kind::Anonymise => OpenBlock::new(Arc::clone(&table), Privacy::All),
        Kind::Forget { .. } => OpenBlock::new(Arc::clone(&table), stored.privacy),
    };
    let mut keys = BTreeMap::<i64, Key>::new();
    for decision in decisions {
        match kind {
            Kind::Anonymise => {
                let month = pseudonym::month(decision.id);
                let key = match keys.get(&month) {
                    Some(key) => *key,
                    None => *keys.entry(month).or_insert(store.key(month)?),
                };
                block.add(&privacy::replace(&decision, &key, Privacy::All));
            }
            Kind::Forget { names, .. } if is_about(&decision, &names.names) => {}
            Kind::Forget { .. } => block.add(&decision),
        }
    }
    put(store, &stored, Some(block).filter(|block| !block.is_empty()))
}

/// Writes a block in place of another one, if there is one.
fn put(store: &mut dyn Write, stored: &Stored, block: Option<OpenBlock>) -> Result<Option<u64>, Trouble> {
    let row = block.map(|mut block| {
        block.row = Some(stored.id);
        block.row(stored.class)
    });
    let left = row.as_ref().map_or(0, |row| u64::from(row.count));
    let is_done = store.replace(stored, row.as_ref())?;
    Ok(is_done.then_some(stored.count.saturating_sub(left)))
}

impl Names {
    fn new(address: &str, keys: &Keys) -> Names {
        let address = address.trim().to_lowercase();
        let pseudonyms = keys.0.values().map(|key| pseudonym::of_address(&address, key));
        let domain = address.rsplit_once('@').map(|(_, domain)| format!(" of {domain}")).unwrap_or_default();
        Names { domain, names: std::iter::once(address.clone()).chain(pseudonyms).collect() }
    }

    /// Whether one of them may be in the bytes of a block, in lower case.
    fn may_be_in(&self, text: &[u8]) -> bool {
        let has = |part: Vec<u8>| memmem::find(text, &part).is_some();
        self.names.iter().any(|name| unmarked(name).into_iter().all(has))
    }
}
