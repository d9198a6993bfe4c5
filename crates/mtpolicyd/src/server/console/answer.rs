//! What the console sends back: pages, files, redirections, and the headers that all of them have.
//!
//! Knows: HTTP. Must not know: who asks, what a page shows.

use crate::server::control::{Problem, Response, typed};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::StatusCode;
use hyper::header::{self, HeaderName, HeaderValue};
use maud::Markup;

/// What a page may load, and where it may be shown: only what the console itself has, and nowhere else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The headers of every answer.
const ALWAYS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // With `no-referrer` browsers send forms with the origin `null`, which is refused.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds the headers that every answer has.
pub fn guarded(mut response: Response) -> Response {
    for (name, value) in ALWAYS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A page.
pub fn page(status: StatusCode, markup: Markup) -> Response {
    text(status, "text/html; charset=utf-8", markup.into_string())
}

/// Text of another kind.
pub fn text(status: StatusCode, kind: &'static str, text: String) -> Response {
    typed(status, kind, Full::new(Bytes::from(text)).boxed_unsync())
}

/// Sends the browser to another page, by a path that is relative to this one.
pub fn see_other(location: &str) -> Response {
    let mut response = text(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", String::new());
    // It is made of names of pages and of what was encoded for a query.
    let location = HeaderValue::from_str(location).unwrap_or(HeaderValue::from_static("."));
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// Adds a cookie that scripts can't read and other sites don't send.
pub fn set_cookie(response: &mut Response, name: &str, value: &str, seconds: u64, is_https: bool) {
    let secure = if is_https { "; Secure" } else { "" };
    let cookie = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

/// Has the browser save what it gets as a file of this name.
pub fn as_file(mut response: Response, name: &'static str) -> Response {
    response.headers_mut().insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(name));
    response
}

/// One that says that only other methods are possible.
pub fn wrong_method(allowed: &'static str) -> Problem {
    let text = format!("only {allowed} is possible here");
    Problem { status: StatusCode::METHOD_NOT_ALLOWED, text }
}
