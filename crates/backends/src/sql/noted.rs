//! How a query of the administrator's and its rows are noted, and read back for a replay.
//!
//! Knows: statements, rows. Must not know: what they are for.

use super::{Param, Row, Statement};
use crate::BackendError;
use crate::replay::{self, MAX_SHOWN_BYTES, Part, Replay, parts, push_part};
use lookups::LookupKind;
use std::fmt::Write;

/// What stands before the rows.
const ROWS: &str = "rows: ";

/// A query with the values of its parameters.
pub(super) fn question(query: &Statement) -> String {
    let mut text = query.sql.to_string();
    for (number, param) in query.params.iter().enumerate() {
        text.push_str(if number == 0 { " (" } else { ", " });
        match param {
            Param::Null => text.push_str("NULL"),
            // Writing to a string does not fail.
            Param::Integer(value) => drop(write!(text, "{value}")),
            Param::Text(value) => text.push_str(value),
        }
    }
    if !query.params.is_empty() {
        text.push(')');
    }
    text
}

/// How many rows there are.
pub(super) fn count(rows: &[Row]) -> String {
    format!("{ROWS}{}", rows.len())
}

/// The rows, if they are few.
pub(super) fn rows(rows: &[Row]) -> String {
    let mut text = count(rows);
    let values: usize = rows.iter().flatten().map(|value| value.as_ref().map_or(4, String::len)).sum();
    if rows.is_empty() || values > MAX_SHOWN_BYTES {
        return text;
    }
    text.push(':');
    for (number, row) in rows.iter().enumerate() {
        if number > 0 {
            push_part(&mut text, &Part::Divider(b'|'));
        }
        for value in row {
            let value = value.as_ref().map(|value| value.clone().into_bytes());
            push_part(&mut text, &value.map_or(Part::Null, Part::Value));
        }
    }
    text
}

/// What was recorded of a query: the rows, or rows without values for those who look at their number only.
pub(super) fn replayed(
    replay: &Replay,
    name: &str,
    query: &Statement,
    is_shown: bool,
) -> Result<Vec<Row>, BackendError> {
    let question = question(query);
    let Some(answer) = replay.answer(LookupKind::Sql, name, &question) else {
        replay.miss(format!("database {name}: {}", query.sql));
        return Ok(Vec::new());
    };
    if let Some(error) = replay::failure(name, &answer) {
        return Err(error);
    }
    let rows = read(&answer).filter(|rows| !is_shown || !rows.iter().any(Vec::is_empty));
    rows.ok_or_else(|| {
        replay.miss(format!("database {name}: the rows of {}", query.sql));
        replay::not_asked(name)
    })
}

fn read(answer: &str) -> Option<Vec<Row>> {
    let text = answer.strip_prefix(ROWS)?;
    let Some((_, text)) = text.split_once(':') else {
        return Some(vec![Row::new(); text.parse().ok()?]);
    };
    let mut rows = vec![Row::new()];
    for part in parts(text)? {
        match part {
            Part::Divider(_) => rows.push(Row::new()),
            Part::Null => rows.last_mut()?.push(None),
            Part::Value(value) => rows.last_mut()?.push(Some(String::from_utf8(value).ok()?)),
        }
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_back() {
        let all = vec![vec![Some("{\"a\": \"ä\"}".to_owned()), None], vec![Some(String::new())]];
        assert_eq!(rows(&all), "rows: 2: \"{\\\"a\\\": \\\"\\195\\164\\\"}\" NULL | \"\"");
        assert_eq!(read(&rows(&all)), Some(all.clone()));
        assert_eq!(read(&count(&all)).map(|rows| rows.len()), Some(2));
        assert_eq!(rows(&[vec![Some("x".repeat(500))]]), "rows: 1");
        assert_eq!(read(&rows(&[])), Some(Vec::new()));
    }

    #[test]
    fn a_question_has_its_parameters() {
        let params = vec![Param::Text("a@b.test".into()), Param::Integer(3), Param::Null];
        let query = Statement { sql: "SELECT ?, ?, ?".into(), params };
        assert_eq!(question(&query), "SELECT ?, ?, ? (a@b.test, 3, NULL)");
    }
}
