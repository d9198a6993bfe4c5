//! One decision: what was asked and answered, and the way from the one to the other.
//!
//! Knows: HTML and SVG. Must not know: how a decision comes about.

use super::decisions::milliseconds;
use crate::server::console::answer::page;
use crate::server::console::form::Form;
use crate::server::console::gate::Visit;
use crate::server::console::layout::{self, Frame, outcome, shown, time};
use crate::server::control::{Problem, Response, path_segment};
use decisions::{DecisionView, LookupView, StepView, UNREACHED};
use hyper::StatusCode;
use maud::{Markup, html};

/// The width of the bars, in units of the drawing.
const WIDTH: f64 = 240.0;

/// The narrowest bar that can be seen.
const NARROWEST: f64 = 2.0;

/// What is shown of a request before the rest.
const FIRST: [(&str, &str); 8] = [
    ("sender", "From"),
    ("recipient", "To"),
    ("client_address", "Client"),
    ("client_name", "Name"),
    ("helo_name", "HELO"),
    ("sasl_username", "Login"),
    ("queue_id", "Queue ID"),
    ("protocol_state", "State"),
];

/// The page.
pub async fn answer(visit: &Visit<'_>, id: &str) -> Result<Response, Problem> {
    let decision: DecisionView = visit.get(&format!("/v1/decisions/{}", path_segment(id)), "").await?;
    let title = decision.row.id.to_string();
    let main = html! {
        p class="crumbs" { a href="../decisions" { "Decisions" } }
        h1 { (title) " " (outcome(decision.row.outcome.name())) }
        (summary(&decision))
        (request(&decision))
        (walk(&decision))
        (lookups(&decision.lookups))
        (options(&decision.steps))
    };
    Ok(page(StatusCode::OK, layout::page(&Frame::of(visit, &title), &main)))
}

fn summary(decision: &DecisionView) -> Markup {
    let row = &decision.row;
    let flags = [
        (row.late, "late"),
        (row.undecided, "a check was undecided"),
        (row.not_sent, "not taken by the client"),
    ];
    html! {
        p class="lead" {
            (time(&row.time)) ", " (milliseconds(row.micros)) " ms, host " strong { (shown(&row.host)) }
            ", configuration " code { (decision.configuration) }
            @for (is_so, text) in flags { @if is_so { " " span class="tag" { (text) } } }
        }
        blockquote class="answer" {
            @match (&row.answer, &row.failure) {
                (Some(answer), _) => code { (shown(answer)) },
                (None, Some(failure)) => (shown(failure)),
                (None, None) => "The connection was closed without an answer.",
            }
        }
        @if let (Some(_), Some(failure)) = (&row.answer, &row.failure) {
            p class="notice warn" { (shown(failure)) }
        }
        @if let Some(by) = &row.by {
            p {
                "Decided by " strong { (shown(by)) }
                @if let Some(place) = &row.place { " at " code { (shown(place)) } }
            }
        }
    }
}

fn request(decision: &DecisionView) -> Markup {
    let row = &decision.row;
    let instance = row.attribute("instance");
    let others = Form::default().with("instance", instance).query();
    html! {
        section aria-labelledby="request" {
            h2 id="request" { "Request" }
            dl class="facts" {
                @for (name, label) in FIRST {
                    @if !row.attribute(name).is_empty() {
                        div { dt { (label) } dd { (shown(row.attribute(name))) } }
                    }
                }
            }
            @if !instance.is_empty() {
                p { a href={ "../decisions?" (others) } { "All decisions about this message" } }
            }
            details {
                summary { "All " (row.request.len()) " attributes" }
                (pairs(row.request.iter()))
            }
            @if !decision.session.is_empty() {
                details {
                    summary { "Fields of the session before the request" }
                    (pairs(decision.session.iter()))
                }
            }
        }
    }
}

fn pairs<'a>(pairs: impl Iterator<Item = (&'a String, &'a String)>) -> Markup {
    html! {
        table class="pairs" {
            tbody {
                @for (name, value) in pairs {
                    tr { th scope="row" { (shown(name)) } td { (shown(value)) } }
                }
            }
        }
    }
}

fn walk(decision: &DecisionView) -> Markup {
    let whole = decision.row.micros.max(1);
    html! {
        section aria-labelledby="walk" {
            h2 id="walk" { "Walk" }
            @if decision.steps.is_empty() {
                p class="empty" { "No plugin had a turn." }
            } @else {
                div class="scroll" tabindex="0" role="region" aria-label="Walk" {
                    table class="walk" {
                        thead {
                            tr {
                                @for name in ["Plugin", "Turn", "Found"] { th scope="col" { (name) } }
                                th scope="col" class="number" { "Points" }
                                th scope="col" class="number" { "Score" }
                                th scope="col" class="number" { "ms" }
                                th scope="col" { "0 ms to " (milliseconds(decision.row.micros)) " ms" }
                            }
                        }
                        tbody { @for step in &decision.steps { (walk_row(step, whole)) } }
                    }
                }
            }
            p class="quiet" {
                "Score before: " (points(decision.score_before))
                @if decision.is_cut { ". More happened than is kept." }
            }
        }
    }
}

fn walk_row(step: &StepView, whole: u32) -> Markup {
    let class = match step.outcome.as_str() {
        "stopped" => "stopped",
        "next" => "next",
        UNREACHED | "off" => "unreached",
        _ => "trouble",
    };
    html! {
        tr class=(class) {
            th scope="row" class={ "depth" (step.depth.min(8)) } {
                (shown(&step.name)) " " span class="quiet" { (shown(&step.module)) }
                span class="place" { (shown(&step.place)) }
            }
            td { (shown(&step.outcome)) }
            td { @for finding in &step.findings { span class="finding" { (shown(finding)) } } }
            td class="number" {
                @for points_of in &step.points {
                    span title=(shown(&points_of.field)) { (signed(points_of.points)) } " "
                }
            }
            td class="number" { @if let Some(score) = step.score { (points(score)) } }
            td class="number" { @if let Some(took) = step.took { (milliseconds(took)) } }
            td { @if let (Some(began), Some(took)) = (step.began, step.took) { (bar(began, took, whole)) } }
        }
    }
}

/// When a step began and how long it took, as a bar; the numbers beside it say the same.
fn bar(began: u32, took: u32, whole: u32) -> Markup {
    let at = |micros: u32| WIDTH * f64::from(micros.min(whole)) / f64::from(whole);
    let width = at(took).max(NARROWEST);
    let x = at(began).min(WIDTH - width);
    html! {
        svg class="time" viewBox={ "0 0 " (WIDTH) " 12" } width=(WIDTH) height="12" aria-hidden="true" {
            rect class="track" x="0" y="5" width=(WIDTH) height="2" {}
            rect class="fill" x=(format!("{x:.1}")) y="1" width=(format!("{width:.1}")) height="10" rx="2" {}
        }
    }
}

fn lookups(lookups: &[LookupView]) -> Markup {
    html! {
        section aria-labelledby="lookups" {
            h2 id="lookups" { "Lookups" }
            @if lookups.is_empty() {
                p class="empty" { "No server was asked." }
            } @else {
                div class="scroll" tabindex="0" role="region" aria-label="Lookups" {
                    table class="rows" {
                        thead {
                            tr {
                                @for name in ["Kind", "Server", "Question", "Answer"] {
                                    th scope="col" { (name) }
                                }
                                th scope="col" class="number" { "ms" }
                                th scope="col" { "Origin" }
                            }
                        }
                        tbody {
                            @for lookup in lookups {
                                tr {
                                    td { (lookup.kind.name()) }
                                    td { (shown(&lookup.server)) }
                                    td { (shown(&lookup.question)) }
                                    td { (shown(&lookup.answer)) }
                                    td class="number" { (milliseconds(lookup.micros)) }
                                    td { (lookup.origin.to_string()) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The options of the plugins that had a turn, with the lines in which they stand.
fn options(steps: &[StepView]) -> Markup {
    let turns: Vec<_> =
        steps.iter().filter(|step| step.began.is_some() && !step.options.is_empty()).collect();
    html! {
        @if !turns.is_empty() {
            section aria-labelledby="options" {
                h2 id="options" { "Options of the plugins" }
                @for step in turns {
                    details {
                        summary { (shown(&step.path)) " " span class="quiet" { (shown(&step.place)) } }
                        table class="pairs" {
                            tbody {
                                @for option in &step.options {
                                    tr {
                                        th scope="row" { (shown(&option.name)) }
                                        td { (shown(&option.value)) }
                                        td class="quiet" { (shown(&option.file)) ":" (option.line) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn points(points: f64) -> String {
    let text = format!("{points:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() || text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn signed(value: f64) -> String {
    let text = points(value);
    if value > 0.0 { format!("+{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_stays_inside_its_drawing() {
        let drawn = |began, took| bar(began, took, 1000).into_string();
        assert!(drawn(500, 250).contains("x=\"120.0\" y=\"1\" width=\"60.0\""), "{}", drawn(500, 250));
        assert!(drawn(1000, 0).contains("x=\"238.0\" y=\"1\" width=\"2.0\""), "{}", drawn(1000, 0));
        assert!(drawn(5000, 9000).contains("x=\"0.0\" y=\"1\" width=\"240.0\""), "{}", drawn(5000, 9000));
        assert_eq!([signed(2.5), signed(-1.0), signed(0.0)], ["+2.5", "-1", "0"]);
    }
}
