//! Stands in for the client of a store where that is not compiled in: nobody can make one.
//!
//! Knows: what the clients offer. Must not know: anything else.

use super::{HashPage, Held, Lock, Locked, MemcachedSettings, Page, Protected, RedisSettings, Scan};
use crate::{BackendError, Call, OptionError};
use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;

/// A store with such settings that is not there.
pub struct Absent<Settings>(Infallible, PhantomData<Settings>);

/// A script of Redis, which nobody runs.
pub struct Script;

impl Script {
    /// A script that must not be run twice.
    pub fn once(_body: &str) -> Script {
        Script
    }

    /// A script that does no harm if it is run again.
    pub fn repeatable(_body: &str) -> Script {
        Script
    }
}

/// The settings of a store whose client may be left out.
pub trait Optional {
    /// The feature that has it compiled.
    const FEATURE: &'static str;
}

impl Optional for RedisSettings {
    const FEATURE: &'static str = "redis";
}

impl Optional for MemcachedSettings {
    const FEATURE: &'static str = "memcached";
}

impl<Settings: Optional> Absent<Settings> {
    /// # Errors
    /// Always: this build has no client for it.
    pub fn new(_name: &str, _settings: Settings) -> Result<Absent<Settings>, OptionError> {
        Err(OptionError::not_built("module", Settings::FEATURE))
    }
}

impl<Settings> Absent<Settings> {
    /// Never called.
    pub fn name(&self) -> &str {
        match self.0 {}
    }

    never! {
        ping(Call<'_>) -> Result<(), BackendError>;
        eval(&Script, &[Vec<u8>], &[Vec<u8>], Call<'_>) -> Result<Vec<Vec<u8>>, BackendError>;
        get(&[u8], Call<'_>) -> Result<Option<Vec<u8>>, BackendError>;
        get_protected(&[u8], Call<'_>) -> Result<Protected, BackendError>;
        set(&[u8], &[u8], Duration, Call<'_>) -> Result<(), BackendError>;
        add(&[u8], &[u8], Duration, Call<'_>) -> Result<bool, BackendError>;
        delete(&[u8], Call<'_>) -> Result<bool, BackendError>;
        delete_unchanged(&[u8], u64, Call<'_>) -> Result<bool, BackendError>;
        increment(&[u8], Duration, Call<'_>) -> Result<u64, BackendError>;
        lock(&[u8], &[u8], Duration, Call<'_>) -> Result<Locked, BackendError>;
        renew(&[u8], &[u8], Duration, Call<'_>) -> Result<bool, BackendError>;
        unlock(&[u8], &[u8], Call<'_>) -> Result<bool, BackendError>;
        set_and_unlock(&[u8], &[u8], Duration, Lock<'_>, Call<'_>) -> Result<bool, BackendError>;
        held(&[u8], Call<'_>) -> Result<Option<Held>, BackendError>;
        scan(Scan<'_>, Call<'_>) -> Result<Page, BackendError>;
        scan_hashes(Scan<'_>, &[&str], Call<'_>) -> Result<HashPage, BackendError>;
    }

    /// Never called.
    pub fn beside(&self, _: &[u8], _: &str) -> Option<Vec<u8>> {
        match self.0 {}
    }

    /// Never called.
    pub fn connection(&self) -> &str {
        match self.0 {}
    }

    /// Never called.
    pub(super) fn cannot(&self, _: &str) -> BackendError {
        match self.0 {}
    }
}
