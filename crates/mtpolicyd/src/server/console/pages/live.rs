//! Decisions as they are made, for the script of the page: the same events that `mtpolicyd tail` reads.
//!
//! Knows: the bound on those that watch. Must not know: what an event says.

use super::decisions::filter;
use crate::server::console::gate::Visit;
use crate::server::control::{Problem, Response};
use http_body_util::BodyExt;

/// A stream of events, as long as the page is open.
pub async fn answer(visit: &Visit<'_>) -> Result<Response, Problem> {
    let place = visit.shared.console.watchers.clone().try_acquire_owned();
    let place = place.map_err(|_| Problem::unavailable("too many pages follow the decisions already"))?;
    let answer = visit.ask("/v1/tail", &filter(&visit.query).query()).await?;
    // The place is free again when the stream ends.
    Ok(answer.map(|body| {
        body.map_frame(move |frame| {
            let _ = &place;
            frame
        })
        .boxed_unsync()
    }))
}
