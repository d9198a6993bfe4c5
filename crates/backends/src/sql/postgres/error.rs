//! What errors of PostgreSQL mean.
//!
//! Knows: its codes. Must not know: statements.

use crate::Failure;
use crate::sql::server::WorkError;
use crate::sql::{Param, blame};
use std::error::Error as StdError;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// What PgBouncer says beyond its `max_client_conn`.
const POOLER_FULL: &str = "no more connections allowed";

/// What the server says when it ends a connection, which it does only between works or by undoing the one in
/// progress: an administrator wants it, or the connection was idle for too long.
const ENDED: [&SqlState; 2] = [&SqlState::ADMIN_SHUTDOWN, &SqlState::IDLE_SESSION_TIMEOUT];

/// Why a work failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub error: WorkError,
    /// The table has changed since it was found out how to ask.
    pub is_stale: bool,
}

impl Failed {
    /// Of a statement that had these parameters.
    pub fn with(error: &Error, params: &[Param]) -> Failed {
        let Some(said) = error.as_db_error() else {
            return Failed { error: WorkError::Lost(describe(error)), is_stale: false };
        };
        let text = said.message().to_owned();
        let code = said.code();
        // A connection that ends, or a server that does (classes 08 and 57P).
        let is_lost = code.code().starts_with("08") || code.code().starts_with("57P");
        let is_undone = [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code);
        let is_elsewhere = *code == SqlState::READ_ONLY_SQL_TRANSACTION;
        let error = match () {
            () if ENDED.contains(&code) => WorkError::NotStarted(text),
            () if is_lost => WorkError::Lost(text),
            () if is_undone => WorkError::RolledBack(text),
            () if is_elsewhere => WorkError::WrongServer(text),
            () if *code == SqlState::UNDEFINED_TABLE || text.contains("ON CONFLICT specification") => {
                WorkError::Refused(Failure::NoTable(text))
            }
            () if *code == SqlState::INSUFFICIENT_PRIVILEGE => WorkError::Refused(Failure::Denied(text)),
            () if is_bad_value(code, &text, params) => WorkError::Refused(Failure::BadValue(text)),
            () => WorkError::Refused(Failure::Refused(text)),
        };
        Failed { error, is_stale: false }
    }

    /// Of a statement that wants another number of parameters than are given.
    pub fn parameters(wanted: usize, given: usize) -> Failed {
        let why = format!("the statement has {wanted} parameters, and {given} are given");
        Failed { error: WorkError::Refused(Failure::Refused(why)), is_stale: false }
    }

    /// Of a query whose table has changed.
    pub fn stale() -> Failed {
        let why = "the columns have other types now".to_owned();
        Failed { error: WorkError::Refused(Failure::Refused(why)), is_stale: true }
    }
}

/// Why there is no connection.
pub(super) fn not_connected(error: &Error) -> WorkError {
    let text = describe(error);
    // PgBouncer has no code for it.
    let is_full = error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS) || text.contains(POOLER_FULL);
    if is_full { WorkError::TooManyConnections(text) } else { WorkError::Lost(text) }
}

/// A value may be too long for its column or for an index, or (class 22) of a form that is not right there.
fn is_bad_value(code: &SqlState, text: &str, params: &[Param]) -> bool {
    let too_long = [SqlState::STRING_DATA_RIGHT_TRUNCATION, SqlState::PROGRAM_LIMIT_EXCEEDED];
    let is_about_data = code.code().starts_with("22");
    too_long.contains(code) || (is_about_data && blame::is_about_a_value(text, params))
}

/// An error with its causes, in one line.
pub(super) fn describe(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return said.message().to_owned();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
