//! Decisions as files: JSON as the API has it, and CSV for spreadsheets.
//!
//! Knows: CSV (RFC 4180), what spreadsheets take for a formula. Must not know: how decisions are found.

use super::decisions::filter;
use crate::server::console::answer::{as_file, text};
use crate::server::console::gate::Visit;
use crate::server::control::{DecisionsView, Problem, Response};
use decisions::RowView;
use hyper::StatusCode;

/// Decisions in a file, the newest.
pub const MAX_ROWS: usize = 1000;

/// The name of a column, and what a decision has there.
type Column = (&'static str, fn(&RowView) -> String);

/// The columns.
const COLUMNS: [Column; 14] = [
    ("id", |row| row.id.to_string()),
    ("time", |row| row.time.clone()),
    ("host", |row| row.host.clone()),
    ("outcome", |row| row.outcome.to_string()),
    ("by", |row| row.by.clone().unwrap_or_default()),
    ("answer", |row| row.answer.clone().unwrap_or_default()),
    ("client_address", |row| row.attribute("client_address").to_owned()),
    ("client_name", |row| row.attribute("client_name").to_owned()),
    ("helo_name", |row| row.attribute("helo_name").to_owned()),
    ("sender", |row| row.attribute("sender").to_owned()),
    ("recipient", |row| row.attribute("recipient").to_owned()),
    ("sasl_username", |row| row.attribute("sasl_username").to_owned()),
    ("queue_id", |row| row.attribute("queue_id").to_owned()),
    ("microseconds", |row| row.micros.to_string()),
];

fn query(visit: &Visit<'_>) -> String {
    filter(&visit.query)
        .with("limit", &MAX_ROWS.to_string())
        .with("before", visit.query.get("before"))
        .query()
}

/// As the API answers.
pub async fn json(visit: &Visit<'_>) -> Result<Response, Problem> {
    let answer = visit.ask("/v1/decisions", &query(visit)).await?;
    Ok(as_file(answer, "attachment; filename=\"decisions.json\""))
}

/// A table.
pub async fn csv(visit: &Visit<'_>) -> Result<Response, Problem> {
    let found: DecisionsView = visit.get("/v1/decisions", &query(visit)).await?;
    let mut table = COLUMNS.map(|(name, _)| name.to_owned()).join(",") + "\r\n";
    for row in &found.decisions {
        table += &COLUMNS.map(|(_, value)| cell(&value(row))).join(",");
        table += "\r\n";
    }
    if found.unfinished {
        table += "# not everything was searched within the time: search for less\r\n";
    }
    let answer = text(StatusCode::OK, "text/csv; charset=utf-8", table);
    Ok(as_file(answer, "attachment; filename=\"decisions.csv\""))
}

/// A cell: a spreadsheet must not take what a stranger has sent for a formula.
fn cell(value: &str) -> String {
    let is_formula = value.trim_start().starts_with(['=', '+', '-', '@']) || value.starts_with(['\t', '\r']);
    let value = format!("{}{}", if is_formula { "'" } else { "" }, super::super::layout::shown(value));
    if value.contains(['"', ',', ';', '\'']) || value.contains(char::is_whitespace) {
        return format!("\"{}\"", value.replace('"', "\"\""));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_text() {
        for (value, written) in [
            ("a@b.test", "a@b.test"),
            ("=cmd|' /C calc'!A0", "\"'=cmd|' /C calc'!A0\""),
            ("+1", "\"'+1\""),
            (" -1", "\"' -1\""),
            ("@x", "\"'@x\""),
            ("\t=1", "\"'\\x09=1\""),
            ("say \"a\", b", "\"say \"\"a\"\", b\""),
            ("a\r\nb", "a\\x0d\\x0ab"),
        ] {
            assert_eq!(cell(value), written, "{value}");
        }
    }
}
