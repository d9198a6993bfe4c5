//! Stands in for the client of mail servers where that is not compiled in: it asks nobody.
//!
//! Knows: what the client offers. Must not know: anything else.

use super::findings::{Findings, Judgement, Probe};
use super::message::{Letter, NotSubmitted};
use crate::{Endpoint, OptionError};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

/// No servers.
#[derive(Default)]
pub struct Destinations;

impl Destinations {
    /// # Errors
    /// Always: this build has no client for them.
    pub fn check_built() -> Result<(), OptionError> {
        Err(OptionError::not_built("module", "smtp"))
    }
}

/// A server that no message can be handed to.
#[derive(Clone, Debug)]
pub struct Submission(Infallible);

impl Submission {
    /// # Errors
    /// Always: this build has no client for it.
    pub fn new(_server: Endpoint, _helo: String, _limit: Duration) -> Result<Submission, OptionError> {
        Err(OptionError::not_built("mail", "smtp"))
    }

    /// Never called.
    ///
    /// # Errors
    /// Never.
    pub async fn submit<T>(
        &self,
        _letter: &Letter,
        _opened: impl FnOnce(SocketAddr) -> T,
    ) -> Result<(), NotSubmitted> {
        match self.0 {}
    }
}

impl Probe<'_> {
    /// Never called.
    pub async fn run(&self) -> Findings {
        let judgement = Judgement::NotAsked("this daemon was built without smtp".to_owned());
        Findings { judgement, by_size: false, starttls: None, tlsa: None }
    }
}
