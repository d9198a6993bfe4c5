//! Work that no request asks for: what plugins want done at the start and from time to time.
//!
//! A plugin leaves it here when it is made, wherever its block stands; so nested plugins are not forgotten.
//!
//! Knows: periods. Must not know: plugins, who runs the work and when.

use crate::facts::World;
use crate::intake::Intakes;
use crate::state::States;
use crate::value::words;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

words! {
    /// How often a task is done, as a crontab of the original names it.
    pub enum Period {
        /// Every hour.
        Hourly = "hourly",
        /// Every day.
        Daily = "daily",
        /// Every week.
        Weekly = "weekly",
        /// Every month.
        Monthly = "monthly",
    }
}

/// When a task is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before the first request, such as making a table; it may fail, so that a plugin does it again when it
    /// has to.
    Start,
    /// When somebody asks what is wrong: it changes nothing, and fails if a request would.
    Check,
    /// Once in a while. Two daemons may do it at the same time.
    Every(Period),
}

/// What a task has done, for the log, or why it could not.
pub type TaskResult = Result<String, String>;

type Run = Box<dyn Fn(World) -> Pin<Box<dyn Future<Output = TaskResult> + Send>> + Send + Sync>;

/// One task.
pub struct Task {
    /// The plugin that wants it.
    pub plugin: String,
    /// When it is done.
    pub when: When,
    run: Run,
}

impl Task {
    /// Does it.
    pub async fn run(&self, world: World) -> TaskResult {
        (self.run)(world).await
    }
}

/// The tasks of a configuration while it is read.
#[derive(Default)]
pub struct Tasks {
    tasks: RefCell<Vec<Task>>,
    /// Who would like to know whether a counter is kept further down the chain.
    awaited: RefCell<BTreeMap<String, Vec<Arc<AtomicBool>>>>,
    /// Lists that take what another program knew.
    pub intakes: Intakes,
    /// What plugins remember, for the administrator.
    pub states: States,
}

impl Tasks {
    /// Leaves a task.
    pub fn add<F>(&self, plugin: &str, when: When, run: impl Fn(World) -> F + Send + Sync + 'static)
    where
        F: Future<Output = TaskResult> + Send + 'static,
    {
        let run: Run = Box::new(move |world| Box::pin(run(world)));
        self.tasks.borrow_mut().push(Task { plugin: plugin.to_owned(), when, run });
    }

    /// What becomes true if a plugin further down the chain says that it keeps this counter.
    pub fn await_counter(&self, counter: &str) -> Arc<AtomicBool> {
        let kept = Arc::new(AtomicBool::new(false));
        self.awaited.borrow_mut().entry(counter.to_owned()).or_default().push(kept.clone());
        kept
    }

    /// Says that the plugin keeps this counter.
    pub fn keep_counter(&self, counter: &str) {
        for kept in self.awaited.borrow().get(counter).into_iter().flatten() {
            kept.store(true, Ordering::Relaxed);
        }
    }

    /// Another chain begins, with which those before have nothing to do.
    pub fn next_chain(&self) {
        self.awaited.borrow_mut().clear();
    }

    /// All that was left here.
    pub fn into_list(self) -> Vec<Task> {
        self.tasks.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_counts_for_those_before_it_in_the_chain() {
        let tasks = Tasks::default();
        let elsewhere = tasks.await_counter("acct");
        tasks.next_chain();
        let before = tasks.await_counter("acct");
        tasks.keep_counter("acct");
        let after = tasks.await_counter("acct");
        let all = [elsewhere, before, after].map(|kept| kept.load(Ordering::Relaxed));
        assert_eq!(all, [false, true, false]);
    }
}
