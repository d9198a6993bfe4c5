//! The journal of this daemon: opened, changed by a reload, closed at the end, and what is logged of it.
//!
//! Knows: its messages. Must not know: options, requests, who searches.

mod database;

pub use database::SqlJournal;

use crate::log::messages::journal as messages;
use arc_swap::ArcSwapOption;
use decisions::Decision;
use decisions::journal::{Event, Journal, Settings};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How long the end of the daemon waits until everything is written.
const PATIENCE: Duration = Duration::from_secs(5);

/// The journal, where there is one.
#[derive(Default)]
pub struct JournalSlot(ArcSwapOption<Journal>);

impl JournalSlot {
    /// Keeps decisions as these settings say from now on, or not at all: at the start, once the process has
    /// the user that it keeps, and at each reload.
    pub fn apply(&self, settings: Option<&Settings>) {
        let Some(settings) = settings else {
            if let Some(old) = self.0.swap(None) {
                // Others may be reading it, and nobody has to wait for it.
                thread::spawn(move || close(&old));
            }
            return;
        };
        match &*self.0.load() {
            Some(journal) => journal.change(settings.clone()),
            None => match Journal::open(settings.clone(), log) {
                Ok(journal) => self.0.store(Some(Arc::new(journal))),
                Err(error) => messages::no_thread(error),
            },
        }
    }

    /// The journal.
    pub fn get(&self) -> Option<Arc<Journal>> {
        self.0.load_full()
    }

    /// Whether there is one.
    pub fn is_open(&self) -> bool {
        self.0.load().is_some()
    }

    /// Hands a decision over, without waiting for anything.
    pub fn record(&self, decision: &Arc<Decision>) {
        if let Some(journal) = &*self.0.load() {
            // What gets lost is counted, and logged once per minute.
            let _ = journal.send(Arc::clone(decision));
        }
    }

    /// Notes in the journal, if there is one, who searched or changed what.
    pub fn audit(&self, who: &str, what: &str) {
        if let Some(journal) = &*self.0.load() {
            journal.audit(who, what);
        }
    }

    /// Writes what waits. Blocks for some seconds at most.
    pub fn end(&self) {
        if let Some(journal) = self.0.swap(None) {
            close(&journal);
        }
    }
}

fn close(journal: &Journal) {
    if !journal.close(PATIENCE) {
        messages::not_finished(journal.status().file);
    }
}

fn log(event: Event) {
    match event {
        Event::Unwritable { why, lost } => messages::unwritable(why, lost),
        Event::Writable { file, lost } => messages::writable(file, lost),
        Event::SameNode { node, host } => messages::same_node(host, node),
        Event::Lost { lost } => messages::lost(lost),
        Event::Replaced { why, renamed: Some(renamed), held } => messages::put_aside(why, renamed, held),
        Event::Replaced { why, renamed: None, .. } => messages::removed(why),
    }
}
