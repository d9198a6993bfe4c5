//! An event for a web service: JSON by POST, signed.
//!
//! Knows: what is sent, what a status means. Must not know: connections.

use super::receiver::Delivery;
use super::signature::sign;
use super::{EventView, incident};
use crate::events::{Event, host_name};
use backends::http::{HttpService, Post};
use backends::{Call, Secret};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const JSON: &str = "application/json";

/// Sends it once.
pub async fn deliver(
    service: &HttpService,
    secret: Option<&Secret>,
    event: &Event,
    limit: Duration,
) -> Delivery {
    let view = EventView { host: host_name(), ..EventView::from(&incident(event)) };
    let body = match serde_json::to_vec(&view) {
        Ok(body) => body,
        Err(error) => return Delivery::GivenUp(error.to_string()),
    };
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
    let mut headers = vec![("x-mtpolicyd-event", event.kind.to_string()), ("x-mtpolicyd-time", time.clone())];
    if let Some(secret) = secret {
        let code = sign(secret, &[time.as_bytes(), b".", &body]);
        headers.push(("x-mtpolicyd-signature", format!("sha256={code}")));
    }
    let post = Post { content_type: JSON, accept: "*/*", headers, body };
    match service.post(post, Call::within(limit)).await {
        Ok(answer) => match answer.status {
            200..=299 => Delivery::Taken,
            status @ (400 | 413 | 415 | 422) => Delivery::GivenUp(format!("status {status}")),
            status => Delivery::Later(format!("status {status}")),
        },
        Err(error) => Delivery::Later(error.to_string()),
    }
}
