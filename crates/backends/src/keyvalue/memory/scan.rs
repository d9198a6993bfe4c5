//! Pages of what is in memory, in the order in which it expires within each part.
//!
//! Knows: the parts of the store. Must not know: what the values are for.

use super::Memory;
use crate::keyvalue::scan::{BAD_CURSOR, Held, MAX_SHOWN, Page, Scan, from_hex, to_hex};
use crate::{BackendError, Call};
use std::ops::Bound;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Maximum number of entries that are looked at while others wait: some hundredths of a millisecond.
const STEP: usize = 256;

/// Maximum number of entries that are looked at for a page.
const MAX_STEPS: usize = 100;

/// Behind which entry of which part a page begins.
#[derive(Clone, Debug, Default)]
struct Cursor {
    part: usize,
    behind: Option<(Instant, Arc<[u8]>)>,
}

impl Memory {
    /// What is under a key, with how long it still lives.
    pub async fn held(&self, key: &[u8], _call: Call<'_>) -> Result<Option<Held>, BackendError> {
        let now = Instant::now();
        let entries = self.entries_of(key);
        let entry = entries.by_key.get(key).filter(|entry| entry.expires > now);
        Ok(entry.map(|entry| Held {
            key: key.to_vec(),
            value: Some(entry.value.to_vec()),
            left: Some(entry.expires - now),
        }))
    }

    /// A page of what is under keys that begin alike.
    pub async fn scan(&self, scan: Scan<'_>, call: Call<'_>) -> Result<Page, BackendError> {
        let cursor = scan.cursor.map_or(Some(Cursor::default()), |text| self.read_cursor(text));
        let mut cursor = cursor.ok_or_else(|| self.refused(BAD_CURSOR.to_owned()))?;
        let mut entries = Vec::new();
        for _ in 0..MAX_STEPS {
            if cursor.part >= self.parts.len() {
                return Ok(Page { entries, next: None });
            }
            if entries.len() >= scan.size() || Instant::now() >= call.deadline() {
                break;
            }
            self.step(&mut cursor, scan, &mut entries);
            tokio::task::yield_now().await;
        }
        Ok(Page { entries, next: Some(self.write_cursor(&cursor)) })
    }

    /// Looks at some entries of a part.
    fn step(&self, cursor: &mut Cursor, scan: Scan<'_>, found: &mut Vec<Held>) {
        let now = Instant::now();
        let part = self.parts[cursor.part].lock().unwrap_or_else(PoisonError::into_inner);
        let start = cursor.behind.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = part.by_expiry.range((start, Bound::Unbounded));
        for _ in 0..STEP {
            let Some((expires, key)) = rest.next() else {
                *cursor = Cursor { part: cursor.part + 1, behind: None };
                return;
            };
            cursor.behind = Some((*expires, key.clone()));
            let entry = part.by_key.get(key).filter(|_| *expires > now && key.starts_with(scan.prefix));
            if let Some(entry) = entry {
                let value = &entry.value[..entry.value.len().min(MAX_SHOWN)];
                let left = Some(*expires - now);
                found.push(Held { key: key.to_vec(), value: Some(value.to_vec()), left });
            }
            if found.len() >= scan.size() {
                return;
            }
        }
    }

    fn write_cursor(&self, cursor: &Cursor) -> String {
        match &cursor.behind {
            None => cursor.part.to_string(),
            Some((expires, key)) => {
                let nanoseconds = expires.saturating_duration_since(self.begun).as_nanos();
                format!("{}.{nanoseconds}.{}", cursor.part, to_hex(key))
            }
        }
    }

    fn read_cursor(&self, text: &str) -> Option<Cursor> {
        let mut parts = text.split('.');
        let part = parts.next()?.parse().ok()?;
        let Some(nanoseconds) = parts.next() else { return Some(Cursor { part, behind: None }) };
        let expires = self.begun.checked_add(Duration::from_nanos(nanoseconds.parse().ok()?))?;
        let key: Arc<[u8]> = from_hex(parts.next()?)?.into();
        Some(Cursor { part, behind: Some((expires, key)) })
    }
}
