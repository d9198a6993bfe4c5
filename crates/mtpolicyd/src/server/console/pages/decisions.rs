//! What was decided: a form to search with, and a table that is read page by page.
//!
//! Knows: HTML, the names of filters. Must not know: how decisions are found.

use super::export::MAX_ROWS;
use crate::server::console::answer::page;
use crate::server::console::form::Form;
use crate::server::console::gate::Visit;
use crate::server::console::layout::{self, Frame, outcome, shown, time};
use crate::server::control::{ConfigView, DecisionsView, KeptView, Problem, Response};
use decisions::{Outcome, RowView};
use hyper::StatusCode;
use maud::{Markup, html};

/// Rows of a page.
const PAGE: &str = "50";

/// What the fields of the form are called at the API, too.
const FIELDS: [&str; 14] = [
    "from",
    "to",
    "client",
    "client_name",
    "login",
    "helo",
    "queue",
    "instance",
    "plugin",
    "outcome",
    "host",
    "since",
    "failed",
    "text",
];

/// Fields of text: the name, the label, what may be typed.
const TEXTS: [(&str, &str, &str); 6] = [
    ("from", "Sender", "news@example.net"),
    ("to", "Recipient", "bob@example.org"),
    ("client", "Client", "192.0.2.0/24"),
    ("login", "Login", ""),
    ("plugin", "Decided by", "greylist"),
    ("text", "Any text", ""),
];

/// How far to look back.
const SPANS: [(&str, &str); 6] = [
    ("1h", "last hour"),
    ("1d", "last day"),
    ("2d", "last 2 days"),
    ("7d", "last week"),
    ("30d", "last 30 days"),
    ("", "everything kept"),
];

/// What a query asks for, of which only filters are left.
pub fn filter(query: &Form) -> Form {
    let names = FIELDS.into_iter().chain(["about", "until", "slower"]);
    names.fold(Form::default(), |form, name| form.with(name, query.get(name)))
}

/// The page.
pub async fn answer(visit: &Visit<'_>) -> Result<Response, Problem> {
    let filter = filter(&visit.query);
    let query = filter.with("limit", PAGE).with("before", visit.query.get("before")).query();
    // What was typed wrong is shown above the form, not instead of it.
    let (found, mistake) = match visit.get::<DecisionsView>("/v1/decisions", &query).await {
        Ok(found) => (Some(found), None),
        Err(problem) if problem.status == StatusCode::BAD_REQUEST => (None, Some(problem.text)),
        Err(problem) => return Err(problem),
    };
    let config: ConfigView = visit.get("/v1/config", "").await?;
    let hosts: Vec<_> = config.hosts.into_iter().map(|host| host.name).collect();
    let main = html! {
        h1 { "Decisions" }
        (search_form(&filter, &hosts))
        @if let Some(mistake) = &mistake { p class="notice bad" role="alert" { (shown(mistake)) } }
        @if let Some(found) = &found { (results(visit, &filter, found)) }
    };
    let status = if mistake.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(page(status, layout::page(&Frame::of(visit, "Decisions"), &main)))
}

fn search_form(filter: &Form, hosts: &[String]) -> Markup {
    // Filters that have no field stay as they are.
    let without_field = ["client_name", "helo", "queue", "instance", "about", "until", "slower"];
    html! {
        form class="filters" method="get" action="decisions" {
            @for (name, label, example) in TEXTS {
                div {
                    label for=(name) { (label) }
                    input id=(name) name=(name) value=(filter.get(name)) placeholder=(example)
                        maxlength="320";
                }
            }
            (select("outcome", "Outcome", filter, std::iter::once(("", "any")).chain(
                Outcome::ALL.iter().map(|outcome| (outcome.name(), outcome.name())))))
            @if hosts.len() > 1 {
                (select("host", "Host", filter, std::iter::once(("", "all")).chain(
                    hosts.iter().map(|host| (host.as_str(), host.as_str())))))
            }
            (select("since", "Time", filter, SPANS.into_iter().rev()))
            div class="check" {
                input id="failed" type="checkbox" name="failed" value="1" checked[filter.has("failed")];
                label for="failed" { "something failed" }
            }
            @for name in without_field {
                @if filter.has(name) {
                    div {
                        label for=(name) { (name.replace('_', " ")) }
                        input id=(name) name=(name) value=(filter.get(name)) maxlength="320";
                    }
                }
            }
            div class="actions" {
                button type="submit" class="primary" { "Search" }
                a class="button" href="decisions" { "Clear" }
            }
        }
    }
}

fn select<'a>(
    name: &str,
    label: &str,
    filter: &Form,
    choices: impl Iterator<Item = (&'a str, &'a str)>,
) -> Markup {
    let choices: Vec<_> = choices.collect();
    let chosen = filter.get(name);
    let is_known = choices.iter().any(|(value, _)| *value == chosen);
    html! {
        div {
            label for=(name) { (label) }
            select id=(name) name=(name) {
                @if !is_known { option value=(chosen) selected { (shown(chosen)) } }
                @for (value, text) in choices {
                    option value=(value) selected[value == chosen] { (text) }
                }
            }
        }
    }
}

fn results(visit: &Visit<'_>, filter: &Form, found: &DecisionsView) -> Markup {
    let is_first = !visit.query.has("before");
    let query = filter.query();
    let more = found.next.as_ref().map(|next| filter.with("before", &next.to_string()).query());
    html! {
        div class="bar" {
            p class="quiet" { (kept(&found.kept)) }
            @if is_first {
                p id="live" aria-live="polite" data-live={ "live?" (query) }
                    data-page={ "decisions?" (query) } {}
            }
            p class="files" {
                a href={ "decisions.json?" (query) } { "JSON" } " "
                a href={ "decisions.csv?" (query) } { "CSV" }
                span class="quiet" { " of the newest " (MAX_ROWS) }
            }
        }
        @for problem in &found.problems { p class="notice warn" { (shown(problem)) } }
        @if found.decisions.is_empty() {
            p class="empty" {
                @if found.unfinished { "Nothing found so far." } @else { "No decision matches." }
            }
        } @else {
            (table(filter, &found.decisions))
        }
        @if let Some(more) = more {
            p class="more" {
                a class="button" href={ "decisions?" (more) } {
                    @if found.unfinished { "Search further back" } @else { "Older" }
                }
            }
        }
    }
}

fn kept(kept: &KeptView) -> Markup {
    html! {
        "From " (shown(&kept.place))
        @if let Some(begins) = &kept.begins { ", since " (time(begins)) }
        @if kept.lost > 0 { ", " strong { (kept.lost) " lost" } }
        @if let Some(problem) = &kept.problem { ". " strong { (shown(problem)) } }
    }
}

fn table(filter: &Form, rows: &[RowView]) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Decisions" {
            table class="rows" {
                thead {
                    tr {
                        @for name in ["Time", "Outcome", "By", "Client", "From", "To"] {
                            th scope="col" { (name) }
                        }
                        th scope="col" class="number" { "ms" }
                    }
                }
                tbody { @for row in rows { (table_row(filter, row)) } }
            }
        }
    }
}

fn table_row(filter: &Form, row: &RowView) -> Markup {
    let client = row.attribute("client_address");
    let by = row.by.as_deref().unwrap_or_default();
    html! {
        tr {
            th scope="row" { a href={ "decisions/" (row.id) } { (time(&row.time)) } }
            td { (outcome(row.outcome.name())) @if row.late { " " span class="tag" { "late" } } }
            td { (narrowed(filter, "plugin", by)) }
            td {
                (narrowed(filter, "client", client)) " "
                span class="quiet" { (shown(row.attribute("client_name"))) }
            }
            td { (narrowed(filter, "from", row.attribute("sender"))) }
            td { (narrowed(filter, "to", row.attribute("recipient"))) }
            td class="number" { (milliseconds(row.micros)) }
        }
    }
}

/// A value that leads to the same search with this as another condition.
fn narrowed(filter: &Form, name: &str, value: &str) -> Markup {
    html! {
        @if value.is_empty() {
            span class="quiet" { "-" }
        } @else {
            a class="narrow-by" href={ "decisions?" (filter.with(name, value).query()) } { (shown(value)) }
        }
    }
}

/// Microseconds as milliseconds: `21.4`, or `0.04` of less than one.
pub fn milliseconds(micros: u32) -> String {
    let milliseconds = f64::from(micros) / 1000.0;
    if micros < 1000 { format!("{milliseconds:.2}") } else { format!("{milliseconds:.1}") }
}
