//! What plugins remember, over the control socket.
//!
//! Knows: names of parameters, statuses of HTTP. Must not know: how a plugin remembers something.

use super::call::{Answer, Call, Problem, ok};
use crate::server::service::Service;
use crate::state::{Desk, Kind, Order, Select, StateError};
use crate::value::Value;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long stores may take, so that there is an answer before the request ends.
const STORE_LIMIT: Duration = Duration::from_secs(8);

/// Entries on a page where nobody says how many.
const USUAL_PAGE: usize = 100;

/// What was changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangesView {
    /// Each entry.
    pub changed: Vec<crate::state::Changed>,
}

pub(super) async fn list(mut call: Call) -> Answer {
    let kind = kind(&call)?;
    let mut text = |name: &str| call.query.take(name);
    let select = Select {
        plugin: text("plugin"),
        key: text("key"),
        client: text("client"),
        sender: text("from"),
        recipient: text("to"),
        domain: text("domain"),
        period: text("period"),
        over: call.query.take_parsed("over")?,
    };
    let cursor = call.query.take("cursor");
    let limit = call.query.take_parsed("limit")?.unwrap_or(USUAL_PAGE);
    std::mem::take(&mut call.query).finish()?;
    let service = call.shared.service.load_full();
    let stores = backends::Call::within(STORE_LIMIT);
    ok(&desk(&service).list(kind, &select, cursor.as_deref(), limit, stores).await.map_err(problem)?)
}

pub(super) async fn change(call: Call) -> Answer {
    let (kind, order) = (kind(&call)?, call.json::<Order>()?);
    let who = call.peer.name().await;
    let service = call.shared.service.load_full();
    let stores = backends::Call::within(STORE_LIMIT);
    let changed = desk(&service).change(kind, &order, &who, stores).await.map_err(problem)?;
    ok(&ChangesView { changed })
}

pub(super) async fn lists(mut call: Call) -> Answer {
    let (name, test) = (call.query.take("name"), call.query.take_switch("test")?);
    std::mem::take(&mut call.query).finish()?;
    let service = call.shared.service.load_full();
    let lists = desk(&service).lists(name.as_deref(), test, backends::Call::within(STORE_LIMIT)).await;
    ok(&lists.map_err(problem)?)
}

fn desk(service: &Service) -> Desk<'_> {
    let journal = service.recorder().journal();
    Desk { remembered: &service.settings.remembered, world: service.world(), journal }
}

fn kind(call: &Call) -> Result<Kind, Problem> {
    Kind::parse(call.segment()).map_err(Problem::not_found)
}

fn problem(error: StateError) -> Problem {
    let status = match &error {
        StateError::Request(_) => StatusCode::BAD_REQUEST,
        StateError::NotAll { .. } => StatusCode::CONFLICT,
        StateError::CantList(_) => StatusCode::UNPROCESSABLE_ENTITY,
        StateError::Backend(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem { status, text: error.to_string() }
}
