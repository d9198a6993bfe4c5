//! Who searched decisions, and who changed something by hand.
//!
//! Knows: the notes of the journal. Must not know: when something is noted.

use super::call::{Answer, Call, Problem, ok};
use super::decisions::off_the_runtime;
use decisions::journal::Audit;
use decisions::rfc3339;
use serde::{Deserialize, Serialize};

/// Notes of one answer, where the request does not say how many.
const USUAL_PAGE: usize = 100;
/// Maximum number of them.
const MAX_PAGE: usize = 10_000;

/// What was noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditsView {
    /// The newest first.
    pub audits: Vec<AuditView>,
}

/// One of the notes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditView {
    /// When, in RFC 3339.
    pub time: String,
    /// The user.
    pub who: String,
    /// What was done.
    pub what: String,
}

impl From<Audit> for AuditView {
    fn from(audit: Audit) -> AuditView {
        AuditView { time: rfc3339(audit.at.time()), who: audit.who, what: audit.what }
    }
}

pub(super) async fn audits(mut call: Call) -> Answer {
    let limit = call.query.take_parsed::<usize>("limit")?.unwrap_or(USUAL_PAGE);
    std::mem::take(&mut call.query).finish()?;
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::bad(format!("limit: an answer has from 1 to {MAX_PAGE} notes")));
    }
    let journal = call.shared.service.load().recorder().journal().get();
    let journal = journal.ok_or_else(|| {
        Problem::not_found("nothing is noted, since there is no journal (block `<Journal>`); see the log")
    })?;
    let audits = off_the_runtime(move || journal.audits(limit)).await?;
    let audits = audits.map_err(|why| Problem::unavailable(format!("the journal can't be read: {why}")))?;
    ok(&AuditsView { audits: audits.into_iter().map(AuditView::from).collect() })
}
