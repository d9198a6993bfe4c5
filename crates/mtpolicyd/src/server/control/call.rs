//! One request to the control socket while it is answered: what was asked, by whom, and the answer.
//!
//! Knows: HTTP, JSON. Must not know: which routes there are.

use super::peer::Peer;
use super::query::Query;
use crate::server::Shared;
use crate::server::slots::Slot;
use crate::settings::Level;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

/// What is sent back.
pub type Response = hyper::Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What a route comes to.
pub type Answer = Result<Response, Problem>;

/// A request of which the head and the body were read, by somebody who may.
pub struct Call {
    /// The daemon.
    pub shared: Arc<Shared>,
    /// Who asks.
    pub peer: Peer,
    /// What is behind the question mark.
    pub query: Query,
    /// The body.
    pub body: Bytes,
    /// What stands for the `{name}`s of the path, in their order.
    pub segments: Vec<String>,
    /// The connection is not idle while this is kept; a page of the console sees to that itself.
    pub busy: Option<Arc<Busy>>,
}

impl Call {
    /// What stands for the first `{name}` of the path.
    pub fn segment(&self) -> &str {
        self.segments.first().map_or("", String::as_str)
    }

    /// The body as a value; the error says what is wrong with it.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let read = serde_json::from_slice(&self.body);
        read.map_err(|error| Problem::bad(format!("the body is not what is expected here: {error}")))
    }

    /// Notes in the journal, if there is one, what the caller asks for.
    pub async fn audit(&self, what: &str) {
        let service = self.shared.service.load_full();
        let journal = service.recorder().journal();
        if journal.is_open() {
            journal.audit(&self.peer.name().await, what);
        }
    }

    /// What the caller may do.
    pub fn level(&self) -> Option<Level> {
        self.peer.level(self.shared.service.load().settings.control.group_level)
    }
}

/// Why there is no other answer. It goes to the caller as `{"error": TEXT}`.
#[derive(Debug)]
pub struct Problem {
    /// The status of HTTP.
    pub status: StatusCode,
    /// What is wrong, in a sentence.
    pub text: String,
}

impl Problem {
    /// The request makes no sense.
    pub fn bad(text: impl Into<String>) -> Problem {
        Problem { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    /// There is no such thing.
    pub fn not_found(text: impl Into<String>) -> Problem {
        Problem { status: StatusCode::NOT_FOUND, text: text.into() }
    }

    /// The caller must not do this.
    pub fn forbidden(text: impl Into<String>) -> Problem {
        Problem { status: StatusCode::FORBIDDEN, text: text.into() }
    }

    /// It can't be done now.
    pub fn unavailable(text: impl Into<String>) -> Problem {
        Problem { status: StatusCode::SERVICE_UNAVAILABLE, text: text.into() }
    }

    /// As it is sent.
    pub fn into_response(self) -> Response {
        respond(self.status, &json!({ "error": self.text }))
    }
}

/// A value as JSON.
pub fn ok(value: &impl Serialize) -> Answer {
    Ok(respond(StatusCode::OK, value))
}

/// A value as JSON, with another status.
pub fn respond(status: StatusCode, value: &impl Serialize) -> Response {
    // What is sent consists of texts and numbers, which can always be written.
    let text = serde_json::to_vec(value).unwrap_or_default();
    let body = Full::new(Bytes::from(text)).boxed_unsync();
    typed(status, "application/json", body)
}

/// A body of another kind.
pub fn typed(status: StatusCode, kind: &'static str, body: UnsyncBoxBody<Bytes, Infallible>) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A connection whose request is being answered; idle again when this is dropped.
pub struct Busy(Arc<Mutex<Slot>>);

impl Busy {
    /// The slot of a connection that waits for its first request.
    pub fn idle(mut slot: Slot) -> Arc<Mutex<Slot>> {
        slot.begin_to_wait();
        Arc::new(Mutex::new(slot))
    }

    /// A request is there.
    pub fn begin(slot: &Arc<Mutex<Slot>>) -> Arc<Busy> {
        slot.lock().unwrap_or_else(PoisonError::into_inner).end_waiting();
        Arc::new(Busy(slot.clone()))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).begin_to_wait();
    }
}
