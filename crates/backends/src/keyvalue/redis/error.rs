//! What goes wrong with Redis, told apart by what may be done about it.
//!
//! Knows: the errors of the protocol and of its library. Must not know: connections.

use crate::{BackendError, Breaker, Failure, Secret};
use redis::{RedisError, ServerError};

/// Why a call failed.
#[derive(Clone, Debug)]
pub(super) enum RequestError {
    /// There is no server, or none that would serve just now, so that nothing was executed.
    Down(String),
    /// The connection broke before the reply came, so that the command may have been executed.
    Lost(String),
    /// The server answered with an error.
    Refused(String),
    /// Its server is known to be down, so that nothing was executed.
    Known(BackendError),
    /// The call was given up, so that the command may have been executed.
    Late(BackendError),
}

impl RequestError {
    /// What the caller is told.
    pub(super) fn into_backend_error(self, breaker: &Breaker) -> BackendError {
        match self {
            RequestError::Down(cause) => breaker.error(Failure::Down(cause.into())),
            RequestError::Lost(cause) => {
                breaker.error(Failure::Down(format!("the connection broke before the reply: {cause}").into()))
            }
            RequestError::Refused(answer) => breaker.error(Failure::Refused(answer)),
            RequestError::Known(error) | RequestError::Late(error) => error,
        }
    }
}

/// What an error of the library means while a connection is opened. `place` is the server, `secret` the
/// password, which a server that does not know the command would repeat.
pub(super) fn on_opening(error: &RedisError, place: &str, secret: Option<&Secret>) -> RequestError {
    let text = format!("{place}: {}", text_of(error));
    let text = match secret {
        Some(Secret(password)) => text.replace(password.as_str(), "(not shown)"),
        None => text,
    };
    match error.code() {
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => RequestError::Refused(text),
        _ => RequestError::Down(text),
    }
}

/// Whether an answer of a server says that a command is not for us, which proves that it answers.
pub(super) fn is_forbidden(answer: &str) -> bool {
    answer.starts_with("NOPERM") || answer.starts_with("ERR unknown command")
}

/// An error of the library in words, without its type names.
pub(super) fn text_of(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, Some(detail)) => format!("{}: {detail}", error.category()),
        (None, None) => error.to_string(),
    }
}

/// An error of the server in words.
pub(super) fn answer_of(error: &ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}
