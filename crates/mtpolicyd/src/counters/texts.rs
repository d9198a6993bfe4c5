//! The statements about one table of counters, written out once.
//!
//! Knows: which statements there are. Must not know: connections, requests.

use super::amounts::Metric;
use super::tables::{Spellings, Writer, remove_reservation};
use std::sync::Arc;

/// The statements, written out once.
pub struct Texts {
    pub upsert: Arc<str>,
    pub remove_reservation: Arc<str>,
    pub one_spelling: Questions,
    pub two_spellings: Questions,
}

/// Those that look for counters, for each metric.
pub struct Questions {
    pub read: [Arc<str>; 4],
    pub reserve: [Arc<str>; 4],
    pub used_before: [Arc<str>; 4],
}

impl Questions {
    fn new(writer: &Writer<'_>, spellings: Spellings) -> Questions {
        Questions {
            read: Metric::ALL.map(|metric| writer.read(&metric.to_string(), spellings).into()),
            reserve: Metric::ALL.map(|metric| writer.reserve(&metric.to_string(), spellings).into()),
            used_before: Metric::ALL.map(|metric| writer.used_before(&metric.to_string(), spellings).into()),
        }
    }
}

impl Texts {
    /// Those about the table of this writer.
    pub fn new(writer: &Writer<'_>) -> Texts {
        Texts {
            upsert: writer.upsert().into(),
            remove_reservation: remove_reservation(writer.sql).into(),
            one_spelling: Questions::new(writer, Spellings::One),
            two_spellings: Questions::new(writer, Spellings::Two),
        }
    }
}
