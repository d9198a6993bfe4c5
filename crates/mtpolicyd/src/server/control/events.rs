//! The last events, those that are told of them, and a test of whether they are.
//!
//! Knows: how events are shown. Must not know: how anybody is told.

use super::call::{Answer, Call, Problem, ok};
use super::decisions::off_the_runtime;
use crate::events::EventKind;
use crate::log::messages::events as messages;
use crate::server::events::{EventView, ReceiverView, TestView};
use crate::value::Value;
use decisions::journal::MAX_INCIDENTS;
use serde::{Deserialize, Serialize};

/// Events of one answer, where the request does not say how many.
const USUAL_PAGE: usize = 100;

/// What has happened, and who is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsView {
    /// The newest first.
    pub events: Vec<EventView>,
    /// Those that are told.
    pub receivers: Vec<ReceiverView>,
    /// Why the journal could not be asked, if so; then the events are those in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What came of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestsView {
    /// For each receiver.
    pub tests: Vec<TestView>,
}

/// Which receiver is to be tested.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default)]
    name: Option<String>,
}

pub(super) async fn events(mut call: Call) -> Answer {
    let limit = call.query.take_parsed::<usize>("limit")?.unwrap_or(USUAL_PAGE);
    let kind = call.query.take("kind");
    std::mem::take(&mut call.query).finish()?;
    if !(1..=MAX_INCIDENTS).contains(&limit) {
        return Err(Problem::bad(format!("limit: an answer has from 1 to {MAX_INCIDENTS} events")));
    }
    if let Some(Err(why)) = kind.as_deref().map(EventKind::parse) {
        return Err(Problem::bad(format!("kind: {why}")));
    }
    let most = if kind.is_some() { MAX_INCIDENTS } else { limit };
    let journal = call.shared.service.load().recorder().journal().get();
    let (incidents, problem) = match journal {
        None => (call.shared.events.kept(), None),
        Some(journal) => match off_the_runtime(move || journal.incidents(most)).await? {
            Ok(incidents) => (incidents, None),
            Err(why) => (call.shared.events.kept(), Some(format!("the journal can't be read: {why}"))),
        },
    };
    let wanted = incidents.iter().filter(|incident| kind.as_ref().is_none_or(|kind| *kind == incident.kind));
    let events = wanted.take(limit).map(EventView::from).collect();
    ok(&EventsView { events, receivers: call.shared.events.views(), problem })
}

pub(super) async fn test(mut call: Call) -> Answer {
    std::mem::take(&mut call.query).finish()?;
    let Which { name } = if call.body.is_empty() { Which::default() } else { call.json()? };
    messages::test_requested(call.peer.name().await);
    let service = call.shared.service.load_full();
    match call.shared.events.test(name.as_deref(), &service).await {
        Some(tests) => ok(&TestsView { tests }),
        None => {
            let name = name.unwrap_or_default();
            Err(Problem::not_found(format!("the configuration has no `<Notify {name}>`")))
        }
    }
}
