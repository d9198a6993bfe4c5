//! Stands in for the client of a database where that is not compiled in: nobody can make one.
//!
//! Knows: what the clients offer. Must not know: anything else.

use super::dsn::{MySqlSource, PostgresSource, SqliteSource};
use super::server::{Driver, Kind, WorkError};
use super::{Durability, Output, Work};
use crate::{Failure, OptionError};
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;
use tokio::time::Instant;

/// A database with such a source that is not there.
pub(super) struct Absent<Source>(Infallible, PhantomData<Source>);

impl Absent<SqliteSource> {
    /// # Errors
    /// Always: this build has no client for it.
    pub fn new(_source: SqliteSource, _name: Arc<str>, _durability: Durability) -> Result<Self, OptionError> {
        Err(OptionError::not_built("dsn", "sqlite"))
    }

    pub async fn run_as(
        &self,
        _kind: Kind,
        _work: Arc<Work>,
        _deadline: Instant,
    ) -> Result<Vec<Output>, Failure> {
        match self.0 {}
    }
}

impl Absent<MySqlSource> {
    /// # Errors
    /// Always: this build has no client for it.
    pub fn new(_source: MySqlSource) -> Result<Self, OptionError> {
        Err(OptionError::not_built("dsn", "mysql"))
    }
}

impl Absent<PostgresSource> {
    /// # Errors
    /// Always: this build has no client for it.
    pub fn new(_source: PostgresSource) -> Result<Self, OptionError> {
        Err(OptionError::not_built("dsn", "postgres"))
    }
}

impl<Source: Send + Sync + 'static> Driver for Absent<Source> {
    type Connection = Infallible;

    async fn connect(&self) -> Result<Infallible, WorkError> {
        match self.0 {}
    }

    fn is_open(connection: &mut Infallible) -> bool {
        match *connection {}
    }

    async fn ping(connection: &mut Infallible) -> bool {
        match *connection {}
    }

    async fn run(
        &self,
        _connection: &mut Infallible,
        _work: &Work,
        _kind: Kind,
        _deadline: Instant,
    ) -> Result<Vec<Output>, WorkError> {
        match self.0 {}
    }
}
