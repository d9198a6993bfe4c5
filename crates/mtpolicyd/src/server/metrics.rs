//! The port at which monitoring reads the numbers of the daemon: HTTP, three paths, nothing to change.
//!
//! Knows: the port, its connections, their bounds. Must not know: where a number comes from.

mod gather;
mod process;

pub(super) use gather::{Backends, gather};

use super::Shared;
use super::passed::{self, PassedSocket};
use super::side_port::SidePort;
use super::sockets::{self, BoundSocket, Listener, UnixSocketOptions};
use super::stream::Stream;
use crate::address::ListenAddress;
use crate::log::messages::daemon as messages;
use crate::metrics::{open_metrics, plain};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 16;

/// How long the head of a request may take.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

/// How long a connection may last, which has one request.
const CONNECTION_LIMIT: Duration = Duration::from_secs(15);

/// The head of a request, in bytes: the smallest buffer that the library has is half of that.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// How long to wait after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a reader of OpenMetrics asks for.
const OPEN_METRICS: &str = "application/openmetrics-text";

/// A port that is bound, or why there is none although there was to be one.
pub(super) type Bound = Option<io::Result<BoundSocket>>;

/// Binds the port that the configuration names, or takes the one that another process has passed.
pub(super) fn bind(address: Option<SocketAddr>, passed: &mut Vec<PassedSocket>) -> Bound {
    let address = ListenAddress::Tcp(address?);
    let options = UnixSocketOptions { owner: None, group: None, mode: 0 };
    Some(passed::take(passed, &address).map_or_else(|| sockets::bind(&address, &options), Ok))
}

/// Starts to accept. A port that can't be opened is logged: requests of Postfix matter more.
pub(super) fn start(bound: Bound, shared: &Arc<Shared>) -> Option<SidePort> {
    let started = bound?
        .and_then(|socket| SidePort::start(socket, |listener, stop| listen(listener, shared.clone(), stop)));
    started.map_err(messages::no_metrics).ok()
}

async fn listen(listener: Arc<Listener>, shared: Arc<Shared>, stop: CancellationToken) {
    let (places, mut connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), JoinSet::new());
    let accept = async {
        loop {
            // It is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = listener.accept().await;
            while connections.try_join_next().is_some() {}
            let Ok(Stream::Tcp(stream)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let shared = shared.clone();
            connections.spawn(async move {
                let _place = place;
                serve(stream, shared).await;
            });
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = accept => {}
    }
    // What a reader does not get from this process it asks for again.
    connections.abort_all();
}

/// Answers the request of one connection.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let answer = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&request, &shared).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT).max_buf_size(MAX_HEAD_BYTES);
    server.keep_alive(false);
    let connection = server.serve_connection(TokioIo::new(stream), answer);
    // How a connection ends is its client's matter.
    let _ = tokio::time::timeout(CONNECTION_LIMIT, connection).await;
}

async fn answer(request: &Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" if wants_open_metrics(request) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            respond(StatusCode::OK, kind, open_metrics(&gather(shared).await))
        }
        "/metrics" => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            respond(StatusCode::OK, kind, plain(&gather(shared).await))
        }
        "/healthz" => respond(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => {
            let (is_ready, text) = gather::readiness(shared).await;
            let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            respond(status, TEXT, text)
        }
        _ => respond(StatusCode::NOT_FOUND, TEXT, "only /metrics, /healthz and /readyz\n".to_owned()),
    }
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether the reader names OpenMetrics among what it takes, unless with a weight of 0 (RFC 9110, 12.5.1).
fn wants_open_metrics<T>(request: &Request<T>) -> bool {
    let is_wanted = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let is_it = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(OPEN_METRICS));
        let weight = parts.filter_map(|part| part.strip_prefix("q=")).next();
        is_it && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    };
    let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(is_wanted)
}

impl super::listeners::Listeners {
    /// Has the port for monitoring where the settings want it, after a reload.
    pub(super) async fn move_metrics(&mut self, address: Option<SocketAddr>, shared: &Arc<Shared>) {
        let wanted = address.map(ListenAddress::Tcp);
        if self.metrics.as_ref().map(SidePort::address) == wanted.as_ref() {
            return;
        }
        if let Some(old) = self.metrics.take() {
            old.close().await;
        }
        self.metrics = start(bind(address, &mut Vec::new()), shared);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_says_which_format_it_takes() {
        let wants =
            |accept: &str| wants_open_metrics(&Request::builder().header(ACCEPT, accept).body(()).unwrap());
        assert!(wants(
            "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.7,*/*;q=0.1"
        ));
        assert!(wants("text/plain, Application/OpenMetrics-Text"));
        assert!(
            !wants("*/*") && !wants("text/plain;version=0.0.4") && !wants("application/openmetrics-text;q=0")
        );
        assert!(!wants_open_metrics(&Request::new(())));
    }
}
