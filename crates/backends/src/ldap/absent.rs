//! Stands in for the client of directories where that is not compiled in: nobody can make one.
//!
//! Knows: what the client offers. Must not know: anything else.

use super::{Entry, LdapSettings};
use crate::{BackendError, Call, OptionError};
use std::convert::Infallible;

/// A directory that is not there.
pub struct Ldap(Infallible);

impl Ldap {
    /// # Errors
    /// Always: this build has no client for it.
    pub fn new(_name: &str, _settings: LdapSettings) -> Result<Ldap, OptionError> {
        Err(OptionError::not_built("module", "ldap"))
    }

    /// Never called.
    pub fn name(&self) -> &str {
        match self.0 {}
    }

    never! {
        search(&str, &str, &[String], usize, Call<'_>) -> Result<Vec<Entry>, BackendError>;
        ping(Call<'_>) -> Result<(), BackendError>;
    }
}

/// Whether a text is a filter: only the client could tell that it is not.
pub fn is_filter(_text: &str) -> bool {
    true
}

/// What the client would ignore of a list of servers.
pub fn ignored_path(_list: &str) -> Option<&str> {
    None
}
