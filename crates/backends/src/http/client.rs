//! The client of a service: connections that are kept, behind a breaker.
//!
//! Knows: requests, deadlines, the breaker. Must not know: what an answer means.

use super::connector::Connector;
use super::{HttpAnswer, HttpSettings, Post, Url, freshness, noted};
use crate::{BackendError, Breaker, Call, CallError, Failure, Guarded, OptionError, Secret, Server};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use lookups::LookupKind;
use percent_encoding::percent_decode_str;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Maximum number of calls at the same time, each with a connection; others wait.
const MAX_CONNECTIONS: usize = 64;

/// How long a connection may have been unused. Many servers close theirs after five seconds; what is sent at
/// that moment would be lost.
const MAX_IDLE: Duration = Duration::from_secs(4);

/// The head of an answer, in bytes: the buffer that the library reads into.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// What the daemon calls itself.
const AGENT: &str = concat!("mtpolicyd/", env!("CARGO_PKG_VERSION"));

/// A service of the configuration. Nothing is sent twice: the service may count.
///
/// Redirections are answers, not followed: what is asked shall not go elsewhere. Proxies in the environment
/// of the daemon are skipped.
pub struct HttpService {
    peer: Guarded<Peer>,
}

struct Peer {
    client: Client<Connector, Full<Bytes>>,
    settings: HttpSettings,
    authorization: Option<HeaderValue>,
    permits: Semaphore,
}

impl HttpService {
    /// A service; nothing is opened yet. The error says what is wrong with a setting.
    pub fn new(settings: HttpSettings) -> Result<HttpService, OptionError> {
        let breaker = Breaker::new(&settings.url.origin());
        HttpService::with_breaker(settings, breaker)
    }

    /// The same with the breaker of an earlier one under the same URL.
    pub fn with_breaker(settings: HttpSettings, breaker: Arc<Breaker>) -> Result<HttpService, OptionError> {
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
        Ok(HttpService { peer: Guarded::new(breaker, peer.settings.timeout, peer) })
    }

    /// Sends this and waits for the answer, whatever its status is.
    ///
    /// [`Failure::Refused`] is an answer that is none, or too long; the service is not taken for dead.
    pub async fn post(&self, post: Post, call: Call<'_>) -> Result<HttpAnswer, BackendError> {
        if let Some(replay) = call.replay() {
            return noted::replayed(replay, self.peer.connection(), &post.body);
        }
        call.refuse_to_pretend(self.peer.connection(), || format!("ask {}", self.peer.connection()))?;
        let begun = call.begin();
        let question = begun.is_noted().then(|| noted::question(&post.body));
        let answered = self.peer.call(self.peer.post(post), call).await;
        let (name, question) = (self.peer.connection(), || question.unwrap_or_default());
        begun.note_texts(LookupKind::Http, name, question, &answered, noted::answer);
        answered
    }

    /// An answer of this service that refuses what the request holds.
    pub fn refuse_value(&self, why: String) -> BackendError {
        self.peer.error(Failure::BadValue(why))
    }

    /// An answer of this service that can't be used.
    pub fn refuse(&self, why: String) -> BackendError {
        self.peer.error(Failure::Refused(why))
    }

    /// Called when a caller has stopped waiting for an answer: the service is tried, and is down if it does
    /// not answer again.
    pub fn timed_out(&self) -> BackendError {
        self.peer.suspect()
    }
}

impl Server for Peer {
    /// One that does not answer a try is found alive by a question that is let through.
    const TRIES_CALLS: bool = true;

    /// Whether the service says anything at all, if only that it does not know such a request.
    async fn answers(&self) -> bool {
        let request = self.request(Method::HEAD, Full::default());
        !matches!(self.send(request).await, Err(CallError::Down(_)))
    }
}

impl Peer {
    async fn post(&self, post: Post) -> Result<HttpAnswer, CallError> {
        let _permit = self.permits.acquire().await;
        let mut request = self.request(Method::POST, Full::from(post.body));
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(post.content_type));
        headers.insert(ACCEPT, HeaderValue::from_static(post.accept));
        for (name, value) in post.headers {
            let unfit = |error| CallError::Failed(Failure::BadValue(format!("header {name}: {error}")));
            headers.insert(name, HeaderValue::from_str(&value).map_err(unfit)?);
        }
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
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, CallError> {
        self.client.request(request).await.map_err(|error| {
            let cause = causes(&error);
            if error.is_connect() { CallError::Down(cause) } else { useless(cause) }
        })
    }
}

async fn read(mut body: Incoming, max_bytes: usize) -> Result<Vec<u8>, CallError> {
    let too_long = || useless(format!("the answer is longer than {max_bytes} bytes"));
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_long());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| useless(causes(&error)))?;
        // Trailers say nothing here.
        let Some(data) = frame.data_ref() else { continue };
        if bytes.len() + data.len() > max_bytes {
            return Err(too_long());
        }
        bytes.extend_from_slice(data);
    }
    Ok(bytes)
}

/// The service can be reached, but what it says is not an answer.
fn useless(why: String) -> CallError {
    CallError::Failed(Failure::Refused(why))
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
fn authorization(settings: &HttpSettings) -> Result<Option<HeaderValue>, OptionError> {
    let text = match (&settings.token, basic_authorization(&settings.url)) {
        (Some(_), Some(_)) => return Err(OptionError::new("token", "there is a user in the URL already")),
        (Some(token), None) => format!("Bearer {}", token.0),
        (None, Some(basic)) => basic.0,
        (None, None) => return Ok(None),
    };
    let unfit = || OptionError::new("token", "it has characters that no header can carry");
    let mut value = HeaderValue::from_str(&text).map_err(|_| unfit())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// What the header Authorization says of the user in a URL (RFC 7617).
fn basic_authorization(url: &Url) -> Option<Secret> {
    let Secret(user) = url.user.as_ref()?;
    let (name, password) = user.split_once(':').unwrap_or((user, ""));
    let mut bytes: Vec<u8> = percent_decode_str(name).collect();
    bytes.push(b':');
    bytes.extend(percent_decode_str(password));
    Some(Secret(format!("Basic {}", BASE64_STANDARD.encode(bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_the_url_is_decoded_and_encoded_anew() {
        let login = |text: &str| basic_authorization(&text.parse().unwrap()).map(|Secret(login)| login);
        let expected = format!("Basic {}", BASE64_STANDARD.encode("alice:s:cret"));
        assert_eq!(login("https://al%69ce:s%3Acret@lookup.example/"), Some(expected));
        assert_eq!(login("http://lookup.example/"), None);
    }
}
