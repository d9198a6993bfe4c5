//! What plugins share that look something up in a database or a directory: the administrator's query, and
//! complaints about one that does not work.
//!
//! Knows: queries with one parameter, the log. Must not know: what is looked up.

use crate::log::messages::{lookups, plugins};
use crate::network::plain_address;
use crate::plugin::Setup;
use crate::table_tasks;
use crate::value::Value;
use backends::sql::{self, Param, Row, Sql, Statement};
use backends::{BackendError, Call, Failure, Throttle};
use postfix_policy::{Request, folded};
use std::borrow::Cow;
use std::sync::Arc;

/// A query of the administrator's, with `?` for the value that is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query(Arc<str>);

impl std::fmt::Display for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Value for Query {
    const FORM: &'static str = "SQL query with one `?`";
    fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() { Err("the query is empty".to_owned()) } else { Ok(Query(text.into())) }
    }
}

impl From<&str> for Query {
    fn from(text: &str) -> Query {
        Query(text.into())
    }
}

impl Query {
    /// Warns of a query that can't work, since it has not the one `?`. Whether its tables are there is looked
    /// at at the start and by `check`.
    pub fn check(&self, option: &str, sql: &Arc<Sql>, setup: &Setup<'_, '_>) {
        table_tasks::look_at_query(setup.env.tasks, setup.name, sql, &self.0);
        let parameters = sql::count_parameters(&self.0);
        if parameters != 1 {
            let count = if parameters == 0 { "no".to_owned() } else { parameters.to_string() };
            setup.warn(
                option,
                format!("{option}: there is {count} `?` in the query; it fails without the one"),
            );
        }
    }

    /// The rows for a value. It is a value for the database, whatever is in it. Of the rows only their number
    /// is noted.
    pub async fn ask(&self, sql: &Sql, value: &[u8], call: Call<'_>) -> Result<Vec<Row>, BackendError> {
        ask(sql, &self.0, vec![Param::text(value)], false, call).await
    }

    /// The same where the rows are noted.
    pub async fn ask_shown(&self, sql: &Sql, value: &[u8], call: Call<'_>) -> Result<Vec<Row>, BackendError> {
        ask(sql, &self.0, vec![Param::text(value)], true, call).await
    }
}

/// The rows of a query for values that strangers choose. One that the database can't compare with what it
/// holds, since its character set or its type has no such value, is in none of its rows. That is found out by
/// asking, not by a look at the value: a query may look for a part of it only, such as the domain. Whether
/// the rows are noted, or only their number, is for the caller to say.
pub async fn ask(
    sql: &Sql,
    query: &Arc<str>,
    params: Vec<Param>,
    is_shown: bool,
    call: Call<'_>,
) -> Result<Vec<Row>, BackendError> {
    let query = async |params| {
        let statement = Statement { sql: query.clone(), params };
        if is_shown { sql.query_shown(statement, call).await } else { sql.query(statement, call).await }
    };
    let in_ascii: Vec<Param> = params.iter().map(Param::in_ascii).collect();
    let is_ascii = in_ascii == params;
    let mut outcome = query(params).await;
    if !is_ascii && matches!(&outcome, Err(error) if matches!(error.failure, Failure::BadValue(_))) {
        outcome = query(in_ascii).await;
    }
    match outcome {
        Err(error @ BackendError { failure: Failure::BadValue(_), .. }) => {
            lookups::value_not_found(error);
            Ok(Vec::new())
        }
        outcome => outcome,
    }
}

/// The names under which the settings of a user are looked for, one after the other until there are some. A
/// sender or recipient is found as Postfix finds an entry of a table: the address that Postfix will
/// understand, the same in lower case, as written, without its extension. Any other value is looked
/// for as written, in lower case and, if it is an IPv4-mapped address, as the IPv4 address. Mostly they are
/// all the same, and then it is one name.
pub fn user_names(request: &Request, field: &str, delimiters: &str) -> Vec<Vec<u8>> {
    let Some(written) = request.get(field).filter(|user| !user.trim_ascii().is_empty()) else {
        return Vec::new();
    };
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut add = |name: Cow<'_, [u8]>| {
        if !name.is_empty() && !names.iter().any(|known| **known == *name) {
            names.push(name.into_owned());
        }
    };
    match request.mailbox(field) {
        Some(mailbox) => {
            add(mailbox.address().into());
            add(mailbox.key());
            add(written.into());
            if let Some(bare) = mailbox.without_extension(delimiters) {
                add(bare.as_slice().into());
                add(folded(&bare));
            }
        }
        None => {
            add(written.into());
            add(folded(written));
            add(plain_address(written));
        }
    }
    names
}

/// Complains in the log, once a minute.
#[derive(Debug)]
pub struct Complaints {
    plugin: Box<str>,
    throttle: Throttle,
}

impl Complaints {
    /// Complaints of that plugin.
    pub fn of(plugin: &str) -> Complaints {
        Complaints { plugin: plugin.into(), throttle: Throttle::default() }
    }

    /// What was found, or nothing after the backend refused to look, as it does when a query is wrong. It is
    /// an error when the backend can't be asked.
    pub fn answered<T>(&self, result: Result<T, BackendError>) -> Result<Option<T>, BackendError> {
        match result {
            Ok(found) => Ok(Some(found)),
            Err(error) => match error.failure {
                Failure::Refused(_) | Failure::NoTable(_) | Failure::Denied(_) => {
                    self.complain(&error);
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }

    /// Logs what is wrong, unless it did so a moment ago.
    pub fn complain(&self, what: impl std::fmt::Display) {
        if self.throttle.is_due() {
            plugins::lookup_failed(&self.plugin, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_one_name_unless_it_can_be_written_otherwise() {
        let names = |field: &str, value: &str| {
            let request = Request::from_pairs([(field, value)]).unwrap();
            let names = user_names(&request, field, "+").into_iter();
            names.map(|name| String::from_utf8(name).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names("recipient", "bob@example.org"), ["bob@example.org"]);
        assert_eq!(names("recipient", "bob@Example.org."), ["bob@example.org", "bob@Example.org."]);
        assert_eq!(
            names("recipient", "ours!Bob+x@ours"),
            ["Bob+x@ours", "bob+x@ours", "ours!Bob+x@ours", "Bob@ours", "bob@ours"]
        );
        assert_eq!(names("sasl_username", "Bob+x"), ["Bob+x", "bob+x"]);
        assert!(names("recipient", " ").is_empty() && names("recipient", "").is_empty());
    }
}
