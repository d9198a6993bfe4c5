//! Counters as an administrator sees and changes them.
//!
//! Knows: what a counter is. Must not know: plugins, thresholds.

use super::{Backend, Counter, Metric, Table};
use backends::{BackendError, Call};

/// What is counted of one key in a span of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The key.
    pub key: String,
    /// The numbers in the order of `Metric::ALL`; `None` if they can't be read.
    pub numbers: Option<[i64; 4]>,
}

/// Some of the counters of a span of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountedPage {
    /// The counters.
    pub rows: Vec<Counted>,
    /// Where the next page begins; `None` after the last one.
    pub next: Option<String>,
}

impl Table {
    /// Some of the counters of a span of time, from a cursor on.
    pub async fn page(
        &self,
        time: &str,
        cursor: Option<&str>,
        limit: usize,
        call: Call<'_>,
    ) -> Result<CountedPage, BackendError> {
        match &self.backend {
            Backend::Sql(table) => table.page(time, cursor, limit, call).await,
            Backend::Redis(table) => table.page(time, cursor, limit, call).await,
        }
    }

    /// One counter; `None` if nothing is counted.
    pub async fn row(&self, key: &str, time: &str, call: Call<'_>) -> Result<Option<Counted>, BackendError> {
        let counter = self.named(key, time);
        match &self.backend {
            Backend::Sql(table) => table.row(&counter, call).await,
            Backend::Redis(table) => table.row(&counter, call).await,
        }
    }

    /// Gives numbers of a counter other values; the others stay as they are.
    pub async fn put(
        &self,
        key: &str,
        time: &str,
        values: &[(Metric, i64)],
        call: Call<'_>,
    ) -> Result<(), BackendError> {
        let counter = self.named(key, time);
        match &self.backend {
            Backend::Sql(table) => table.put(&counter, values, call).await,
            Backend::Redis(table) => table.put(&counter, values, call).await,
        }
    }

    /// Forgets a counter.
    pub async fn remove(&self, key: &str, time: &str, call: Call<'_>) -> Result<(), BackendError> {
        let counter = self.named(key, time);
        match &self.backend {
            Backend::Sql(table) => table.remove(&counter, call).await,
            Backend::Redis(table) => table.remove(&counter, call).await,
        }
    }

    fn named(&self, key: &str, time: &str) -> Counter {
        Counter { table: self.clone(), key: key.to_owned(), written: None, time: time.to_owned() }
    }
}
