//! Stands in for the client of services where that is not compiled in: nobody can make one.
//!
//! Knows: what the client offers. Must not know: anything else.

use super::{HttpAnswer, HttpSettings, Post};
use crate::{BackendError, Breaker, Call, OptionError};
use std::convert::Infallible;
use std::sync::Arc;

/// A service that can't be asked.
pub struct HttpService(Infallible);

impl HttpService {
    /// # Errors
    /// Always: this build has no client for it.
    pub fn with_breaker(_settings: HttpSettings, _breaker: Arc<Breaker>) -> Result<HttpService, OptionError> {
        Err(OptionError::not_built("module", "http"))
    }

    never! {
        post(Post, Call<'_>) -> Result<HttpAnswer, BackendError>;
    }

    /// Never called.
    pub fn refuse_value(&self, _why: String) -> BackendError {
        match self.0 {}
    }

    /// Never called.
    pub fn refuse(&self, _why: String) -> BackendError {
        match self.0 {}
    }

    /// Never called.
    pub fn timed_out(&self) -> BackendError {
        match self.0 {}
    }
}
