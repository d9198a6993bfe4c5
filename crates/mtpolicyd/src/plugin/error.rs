//! Why a plugin could not say anything, and what the chain makes of it.
//!
//! Knows: how backends and patterns fail. Must not know: any plugin, the chain.

use crate::matching::SearchError;
use backends::{BackendError, Failure};
use std::sync::Arc;

crate::value::words! {
    /// What an outage does to the request.
    pub enum OnError {
        /// The connection is closed without an answer; Postfix tries again, then runs its default action.
        Close = "close",
        /// The plugin is skipped.
        Continue = "continue",
        /// The message is deferred.
        Defer = "defer",
        /// Postfix is told that there is no opinion.
        Dunno = "dunno",
    }
}

crate::value::words! {
    /// What becomes of a request whose own content makes a plugin fail, once the chain has ended.
    pub enum OnBadRequest {
        /// The message is deferred unless another plugin refuses it.
        Defer = "defer",
        /// The plugin is skipped.
        Continue = "continue",
    }
}

/// Why a plugin could not say anything. Who can cause it makes the difference.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No sender can cause this: `on_error` decides.
    #[error(transparent)]
    Outage(Outage),
    /// A sender can cause this by what the request holds. It never ends the chain, and the message does not
    /// pass for it: the other plugins still run, and `on_bad_request` decides about a message that none of
    /// them refuses.
    #[error(transparent)]
    Request(BadRequest),
    /// A nested plugin failed by an outage.
    #[error("plugin {plugin} failed: {cause}")]
    In {
        /// The plugin.
        plugin: Arc<str>,
        /// What the outage does to the request, unless that is for the plugin around it to say.
        on_error: Option<OnError>,
        /// Why it failed.
        cause: Box<Error>,
    },
}

/// Something that a check needs does not work, whatever the request says.
#[derive(Debug, thiserror::Error)]
pub enum Outage {
    /// A connection of the configuration failed.
    #[error(transparent)]
    Backend(BackendError),
    /// Another service failed.
    #[error("{service}: {cause}")]
    Service {
        /// Which one.
        service: String,
        /// What happened.
        cause: String,
    },
    /// The client did not send what the check is about. Postfix sends every attribute at every stage, if
    /// only an empty one, so this is about the client and not about the sender.
    #[error("the request has no attribute `{0}`")]
    NoAttribute(&'static str),
}

/// What the request holds kept a check from finding out.
#[derive(Debug, thiserror::Error)]
pub enum BadRequest {
    /// A pattern took more work on a value than it may.
    #[error(transparent)]
    Pattern(SearchError),
    /// A backend refuses a value of the request.
    #[error(transparent)]
    Value(BackendError),
    /// An attribute has a form that the check can't read.
    #[error("the attribute `{attribute}` can't be read: {why}")]
    Unreadable {
        /// Which one.
        attribute: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// Another service failed.
    pub fn service(service: impl Into<String>, cause: impl Into<String>) -> Error {
        Error::Outage(Outage::Service { service: service.into(), cause: cause.into() })
    }

    /// The client did not send an attribute.
    pub fn no_attribute(name: &'static str) -> Error {
        Error::Outage(Outage::NoAttribute(name))
    }
}

impl Error {
    /// What would have been done, if it was not done since only an explanation is wanted.
    pub fn not_done(&self) -> Option<&str> {
        match self {
            Error::Outage(Outage::Backend(BackendError { failure: Failure::NotDone(what), .. })) => {
                Some(what)
            }
            _ => None,
        }
    }
}

impl From<BackendError> for Error {
    fn from(error: BackendError) -> Error {
        match error.failure {
            Failure::BadValue(_) => Error::Request(BadRequest::Value(error)),
            Failure::Down(_)
            | Failure::TimedOut
            | Failure::Refused(_)
            | Failure::NoTable(_)
            | Failure::Denied(_)
            | Failure::NotDone(_) => Error::Outage(Outage::Backend(error)),
        }
    }
}

impl From<SearchError> for Error {
    fn from(error: SearchError) -> Error {
        Error::Request(BadRequest::Pattern(error))
    }
}

/// A check of this request that could not find out, for a reason within the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// The plugin.
    pub plugin: Arc<str>,
    /// Its number.
    pub number: u16,
    /// Why it could not find out.
    pub cause: String,
}
