//! Decisions: searched, shown one by one, and watched as they are made.
//!
//! Knows: records of decisions, streams of events. Must not know: how a decision came about.

use super::call::{Answer, Busy, Call, Problem, ok, typed};
use super::query::filter_text;
use super::status::KeptView;
use crate::recorder::{MAX_WATCHERS, Watch};
use bytes::Bytes;
use decisions::journal::Progress;
use decisions::{Decision, DecisionId, DecisionView, Filter, RowView};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::StatusCode;
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// Decisions of one answer, where the request does not say how many.
const USUAL_PAGE: usize = 100;
/// Maximum number of them.
const MAX_PAGE: usize = 1000;

/// How long one search takes at most; the next request goes on with it.
pub(super) const SEARCH_LIMIT: Duration = Duration::from_secs(3);

/// How often a stream says something: so a watcher notices that the daemon has gone, and the other way round.
const ALIVE: Duration = Duration::from_secs(15);

/// Some of the decisions that a filter wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionsView {
    /// The newest first.
    pub decisions: Vec<RowView>,
    /// There are more: they are had with `before` and this identifier.
    pub next: Option<DecisionId>,
    /// The time was over before everything was searched; `next` goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unfinished: bool,
    /// What was not searched, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What was searched.
    pub kept: KeptView,
}

pub(super) async fn search(mut call: Call) -> Answer {
    let limit = call.query.take_parsed::<usize>("limit")?.unwrap_or(USUAL_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(Problem::bad(format!("limit: an answer has from 1 to {MAX_PAGE} decisions")));
    }
    let before = call.query.take_parsed::<DecisionId>("before")?;
    let filter = std::mem::take(&mut call.query).into_filter()?;
    note(&call, &filter, before.is_some()).await;
    let recorder = call.shared.service.load().recorder().clone();
    let progress = Arc::new(Progress::until(Instant::now() + SEARCH_LIMIT));
    let wanted = Wanted(progress.clone());
    let view = off_the_runtime(move || {
        let found = recorder.search(&filter, before, limit, &progress);
        DecisionsView {
            decisions: found.decisions.iter().map(|decision| RowView::of(decision)).collect(),
            next: found.next,
            unfinished: found.is_unfinished,
            problems: found.problems,
            kept: KeptView::with(&recorder, found.kept),
        }
    });
    let view = view.await?;
    drop(wanted);
    ok(&view)
}

/// A search that somebody waits for. It ends when they do not any more.
struct Wanted(Arc<Progress>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Notes who searches for what. The pages of one search are one.
async fn note(call: &Call, filter: &Filter, is_further: bool) {
    let what = match filter_text(filter) {
        all if all.is_empty() => "searched decisions".to_owned(),
        wanted => format!("searched decisions: {wanted}"),
    };
    let search = format!("{}: {what}", call.peer.name().await);
    let before = {
        let mut noted = call.shared.desk.noted.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *noted, search.clone())
    };
    if !is_further || before != search {
        call.audit(&what).await;
    }
}

pub(super) async fn one(mut call: Call) -> Answer {
    let id: DecisionId =
        call.segment().parse().map_err(|why: decisions::IdError| Problem::bad(why.to_string()))?;
    let is_row = call.query.take("walk").as_deref() == Some("0");
    std::mem::take(&mut call.query).finish()?;
    call.audit(&format!("looked at decision {id}")).await;
    let recorder = call.shared.service.load().recorder().clone();
    let found = off_the_runtime(move || match recorder.get(id) {
        Ok(Some(decision)) => Ok(decision),
        Ok(None) => Err(Problem::not_found(unknown(id, &KeptView::of(&recorder)))),
        Err(error) => Err(Problem::unavailable(format!("the journal can't be read: {error}"))),
    });
    match found.await?? {
        decision if is_row => ok(&RowView::of(&decision)),
        decision => ok(&DecisionView::of(&decision)),
    }
}

fn unknown(id: DecisionId, kept: &KeptView) -> String {
    match &kept.begins {
        Some(begins) => format!("no decision {id}: those that are kept ({}) begin at {begins}", kept.place),
        None => format!("no decision {id}: none is kept yet"),
    }
}

pub(super) async fn tail(mut call: Call) -> Answer {
    let has_walk = call.query.take_switch("walk")?;
    let filter = std::mem::take(&mut call.query).into_filter()?;
    let what = filter_text(&filter);
    call.audit(&format!("watched decisions{}{what}", if what.is_empty() { "" } else { ": " })).await;
    let watch = call.shared.service.load().recorder().watch(filter);
    let watch = watch.ok_or_else(|| Problem::unavailable(format!("{MAX_WATCHERS} watch already")))?;
    let state = Watcher { watch, has_walk, is_first: true, _busy: call.busy };
    let events = stream::unfold(state, |mut watcher| async move {
        let text = watcher.next().await?;
        Some((Ok::<_, Infallible>(Frame::data(Bytes::from(text))), watcher))
    });
    Ok(typed(StatusCode::OK, "text/event-stream", StreamBody::new(events).boxed_unsync()))
}

/// One that watches. What it does not take in time it is told the number of, and nobody waits for it.
struct Watcher {
    watch: Watch,
    has_walk: bool,
    is_first: bool,
    /// Its connection is not idle.
    _busy: Option<Arc<Busy>>,
}

impl Watcher {
    /// The next piece of the stream; `None` at the end of the daemon.
    async fn next(&mut self) -> Option<String> {
        if std::mem::take(&mut self.is_first) {
            return Some(": watching\n\n".to_owned());
        }
        let next = tokio::time::timeout(ALIVE, self.watch.next()).await;
        let mut text = String::new();
        let missed = self.watch.take_missed();
        if missed > 0 {
            // Writing to a string does not fail.
            let _ = write!(text, "event: lagged\ndata: {missed}\n\n");
        }
        match next {
            Ok(next) => {
                let decision = next?;
                text += &self.event(&decision);
            }
            Err(_) => text += ": alive\n\n",
        }
        Some(text)
    }

    fn event(&self, decision: &Decision) -> String {
        let json = if self.has_walk {
            serde_json::to_string(&DecisionView::of(decision))
        } else {
            serde_json::to_string(&RowView::of(decision))
        };
        format!("data: {}\n\n", json.unwrap_or_default())
    }
}

/// Does what may take longer on a thread that answers no requests.
pub(super) async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| Problem::unavailable("a bug in the daemon, see its log"))
}
