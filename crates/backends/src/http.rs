//! A service that is asked over HTTP/1.1 (RFC 9112), encrypted or not, by TCP or a UNIX socket.
//!
//! Knows: requests, connections that are kept, deadlines. Must not know: what an answer means.

mod connector;
mod freshness;
mod url;

pub use url::Url;

use crate::{BackendError, Breaker, Failure, Probe, Secret, call_deadline};
use bytes::Bytes;
use connector::Connector;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use std::error::Error;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Which service, and how it is asked.
#[derive(Clone, PartialEq)]
pub struct HttpSettings {
    /// Where it is, with a user and a password for it perhaps.
    pub url: Url,
    /// The path of a UNIX socket to connect to instead of the host in the URL.
    pub socket_path: Option<PathBuf>,
    /// What a bearer of it may ask (RFC 6750).
    pub token: Option<Secret>,
    /// Certificates of authorities to trust, in PEM, beside those of the system.
    pub tls_ca: Option<String>,
    /// How long one call may take.
    pub timeout: Duration,
    /// The longest answer that is read, in bytes.
    pub max_answer_bytes: usize,
}

/// Maximum number of calls at the same time, each with a connection; others wait.
const MAX_CONNECTIONS: usize = 64;

/// How long a connection may have been unused. Many servers close theirs after five seconds; what is sent at
/// that moment would be lost.
const MAX_IDLE: Duration = Duration::from_secs(4);

/// The head of an answer, in bytes: the buffer that the library reads into.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// What the daemon calls itself.
const AGENT: &str = concat!("mtpolicyd/", env!("CARGO_PKG_VERSION"));

/// What is sent.
pub struct Post {
    /// What the body is.
    pub content_type: &'static str,
    /// What the answer should be.
    pub accept: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The number that says how it went: 200.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// How long the service wants the answer to be used, if it says so.
    pub max_age: Option<Duration>,
}

/// A service of the configuration. Nothing is sent twice: the service may count.
///
/// Redirections are answers, not followed: what is asked shall not go elsewhere. Proxies in the environment
/// of the daemon are skipped.
pub struct HttpService {
    timeout: Duration,
    breaker: Arc<Breaker>,
    peer: Arc<Peer>,
}

struct Peer {
    client: Client<Connector, Full<Bytes>>,
    settings: HttpSettings,
    authorization: Option<HeaderValue>,
    permits: Semaphore,
}

/// Why there is no answer.
enum Trouble {
    /// The service can't be reached.
    Unreachable(String),
    /// It can, but what it says is not an answer.
    Useless(String),
}

impl HttpService {
    /// A service; nothing is opened yet. The error says what is wrong with a setting.
    pub fn new(settings: HttpSettings) -> Result<HttpService, String> {
        let breaker = Breaker::new(&settings.url.origin());
        HttpService::with_breaker(settings, breaker)
    }

    /// The same with the breaker of an earlier one under the same URL.
    pub fn with_breaker(settings: HttpSettings, breaker: Arc<Breaker>) -> Result<HttpService, String> {
        let connector = Connector::new(&settings)?;
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(MAX_IDLE);
        builder.pool_max_idle_per_host(MAX_CONNECTIONS).http1_max_buf_size(MAX_HEAD_BYTES);
        let peer = Peer {
            client: builder.build(connector),
            authorization: authorization(&settings)?,
            permits: Semaphore::new(MAX_CONNECTIONS),
            settings,
        };
        Ok(HttpService { timeout: peer.settings.timeout, breaker, peer: Arc::new(peer) })
    }

    /// Sends this and waits for the answer, whatever its status is.
    ///
    /// [`Failure::Refused`] is an answer that is none, or too long; the service is not taken for dead.
    pub async fn post(&self, post: Post, deadline: Instant) -> Result<HttpAnswer, BackendError> {
        self.breaker.admit()?;
        let answered = timeout_at(call_deadline(deadline, self.timeout), self.peer.post(post)).await;
        if matches!(answered, Ok(Ok(_) | Err(Trouble::Useless(_)))) {
            self.breaker.answered();
        }
        match answered {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Trouble::Useless(why))) => Err(self.refuse(why)),
            Ok(Err(Trouble::Unreachable(cause))) => Err(self.breaker.failed(&cause, self.probe())),
            Err(_) => Err(self.timed_out()),
        }
    }

    /// An answer of this service that refuses what the request holds.
    pub fn refuse_value(&self, why: String) -> BackendError {
        self.breaker.error(Failure::BadValue(why))
    }

    /// An answer of this service that can't be used.
    pub fn refuse(&self, why: String) -> BackendError {
        self.breaker.error(Failure::Refused(why))
    }

    /// Called when a caller has stopped waiting for an answer: the service is tried, and is down if it does
    /// not answer again.
    pub fn timed_out(&self) -> BackendError {
        self.breaker.suspect(self.probe())
    }

    /// Tries whether the service says anything at all, if only that it does not know such a request. One that
    /// does not answer about it is found alive by a question that is let through (`Breaker::admit`).
    fn probe(&self) -> impl FnMut() -> Pin<Box<dyn Future<Output = Probe> + Send>> + Send + 'static {
        let peer = Arc::downgrade(&self.peer);
        move || {
            let peer = peer.clone();
            Box::pin(async move {
                let Some(peer) = peer.upgrade() else { return Probe::Dropped };
                let request = peer.request(Method::HEAD, Full::default());
                match peer.send(request).await {
                    Err(Trouble::Unreachable(_)) => Probe::Dead,
                    Ok(_) | Err(Trouble::Useless(_)) => Probe::Alive,
                }
            })
        }
    }
}

impl Peer {
    async fn post(&self, post: Post) -> Result<HttpAnswer, Trouble> {
        let _permit = self.permits.acquire().await;
        let mut request = self.request(Method::POST, Full::from(post.body));
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(post.content_type));
        headers.insert(ACCEPT, HeaderValue::from_static(post.accept));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let response = self.send(request).await?;
        let (status, max_age) = (response.status(), freshness::max_age(response.headers()));
        let body = read(response.into_body(), self.settings.max_answer_bytes).await;
        // The page that goes with an error is of no interest.
        let body = if status.is_success() { body? } else { Vec::new() };
        Ok(HttpAnswer { status: status.as_u16(), body, max_age })
    }

    fn request(&self, method: Method, body: Full<Bytes>) -> Request<Full<Bytes>> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = self.settings.url.uri().clone();
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        request
    }

    /// The head of the answer. A connection that the server has closed before anything was sent is replaced.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Trouble> {
        self.client.request(request).await.map_err(|error| {
            let cause = causes(&error);
            if error.is_connect() { Trouble::Unreachable(cause) } else { Trouble::Useless(cause) }
        })
    }
}

async fn read(mut body: Incoming, max_bytes: usize) -> Result<Vec<u8>, Trouble> {
    let too_long = || Trouble::Useless(format!("the answer is longer than {max_bytes} bytes"));
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Trouble::Useless(causes(&error)))?;
        // Trailers say nothing here.
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > max_bytes {
            return Err(too_long());
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}

/// What the library says below its own "client error".
fn causes(error: &dyn Error) -> String {
    let (mut causes, mut below) = (Vec::new(), error.source());
    while let Some(cause) = below {
        causes.push(cause.to_string());
        below = cause.source();
    }
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

/// The value of the `Authorization` header. The error does not show it.
fn authorization(settings: &HttpSettings) -> Result<Option<HeaderValue>, String> {
    let text = match (&settings.token, settings.url.basic_authorization()) {
        (Some(_), Some(_)) => return Err("token: there is a user in the URL already".to_owned()),
        (Some(token), None) => format!("Bearer {}", token.0),
        (None, Some(basic)) => basic.0,
        (None, None) => return Ok(None),
    };
    let unfit = || "token: it has characters that no header can carry".to_owned();
    let mut value = HeaderValue::from_str(&text).map_err(|_| unfit())?;
    value.set_sensitive(true);
    Ok(Some(value))
}
