//! Stands in for the client of mail servers where that is not compiled in: it asks nobody.
//!
//! Knows: what the client offers. Must not know: anything else.

use super::findings::{Findings, Judgement, Probe};
use crate::OptionError;

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

impl Probe<'_> {
    /// Never called.
    pub async fn run(&self) -> Findings {
        let judgement = Judgement::NotAsked("this daemon was built without smtp".to_owned());
        Findings { judgement, by_size: false, starttls: None, tlsa: None }
    }
}
