//! How the daemon fares: numbers of the last hour, what needs somebody, who decided, servers and lists.
//!
//! Knows: HTML and SVG. Must not know: where a number comes from.

use super::decisions::milliseconds;
use crate::server::console::answer::page;
use crate::server::console::form::Form;
use crate::server::console::gate::Visit;
use crate::server::console::layout::{self, Frame, shown, time};
use crate::server::control::{
    ActivityView, BackendView, PluginView, Problem, Response, SliceView, StatusView,
};
use crate::state::{ListReport, Lists};
use hyper::StatusCode;
use maud::{Markup, html};
use std::collections::BTreeMap;

/// The bars of the drawing.
const SLICES: usize = 60;

/// The drawing, in its own units: a bar with its gap, all of them, and the height of the highest.
const STEP: f64 = 12.0;
const WIDTH: u32 = 720;
const HEIGHT: f64 = 120.0;

/// Plugins that are shown.
const MAX_PLUGINS: usize = 8;

/// What the parts of a bar stand for, from the bottom to the top: the class, the word, the outcomes.
const PARTS: [(&str, &str, &[&str]); 4] = [
    ("pass", "pass", &["pass", "header"]),
    ("defer", "defer", &["defer"]),
    ("reject", "reject", &["reject"]),
    ("other", "other", &["discard", "hold", "redirect", "other", "closed"]),
];

/// The page.
pub async fn answer(visit: &Visit<'_>) -> Result<Response, Problem> {
    let status: StatusView = visit.get("/v1/status", "").await?;
    let hour: ActivityView = visit.get("/v1/activity", &format!("seconds=3600&slices={SLICES}")).await?;
    let minute: ActivityView = visit.get("/v1/activity", "seconds=60").await?;
    let lists: Lists = visit.get("/v1/state/lists", "").await?;
    let main = html! {
        h1 { "Overview" }
        div id="fresh" data-refresh="live" {
            (numbers(&status, &minute))
            (chart(&hour))
            div class="cards" {
                (needs_you(&status, &lists.lists))
                (decided(&hour))
                (servers(&status.backends))
                (dns_lists(&lists.lists))
            }
        }
    };
    Ok(page(StatusCode::OK, layout::page(&Frame::of(visit, "Overview"), &main)))
}

fn numbers(status: &StatusView, minute: &ActivityView) -> Markup {
    #[allow(clippy::cast_precision_loss, reason = "a tenth of a request is shown")]
    let rate = minute.requests as f64 / minute.seconds.max(1.0);
    let failed = minute.outcomes.get("closed").copied().unwrap_or_default();
    let numbers = [
        ("requests/s", format!("{rate:.1}")),
        ("ms, half of them", milliseconds(minute.p50_micros)),
        ("ms, 99 of 100", milliseconds(minute.p99_micros)),
        ("late", minute.late.to_string()),
        ("closed", failed.to_string()),
        ("connections", format!("{} of {}", status.connections.open, status.connections.most)),
        ("up", uptime(status.uptime_seconds)),
    ];
    html! {
        dl class="numbers" aria-label="The last minute" {
            @for (label, value) in numbers { div { dt { (label) } dd { (value) } } }
        }
    }
}

/// The largest two units: `12 d 3 h`.
fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min"),
        (0, hours) => format!("{hours} h {minutes} min"),
        (days, hours) => format!("{days} d {hours} h"),
    }
}

/// How many of the outcomes belong to a part of a bar.
fn part_of(outcomes: &BTreeMap<String, u64>, names: &[&str]) -> u64 {
    names.iter().filter_map(|name| outcomes.get(*name)).sum()
}

fn chart(hour: &ActivityView) -> Markup {
    let highest =
        hour.slices.iter().map(|slice| slice.outcomes.values().sum::<u64>()).max().unwrap_or_default();
    let span = uptime(hour.seconds as u64 + 59);
    html! {
        section class="sheet" aria-labelledby="chart" {
            h2 id="chart" { "Outcomes of the last " (span) }
            @if highest == 0 {
                p class="quiet" { "No request in this time." }
            } @else {
                (drawing(&hour.slices, highest))
                p class="legend" {
                    @for (class, word, names) in PARTS {
                        span { span class={ "swatch " (class) } aria-hidden="true" {} (word) " "
                            strong { (part_of(&hour.outcomes, names)) } }
                    }
                }
                details { summary { "As a table" } (chart_table(&hour.slices)) }
            }
        }
    }
}

fn drawing(slices: &[SliceView], highest: u64) -> Markup {
    #[allow(clippy::cast_precision_loss, reason = "a drawing has fewer points")]
    let scale = |number: u64| HEIGHT * number as f64 / highest as f64;
    let bars = slices.iter().zip(0_u16..).flat_map(|(slice, number)| {
        let mut top = HEIGHT;
        PARTS.iter().filter_map(move |(class, _, names)| {
            let height = scale(part_of(&slice.outcomes, names));
            top -= height;
            (height > 0.0).then(|| (*class, f64::from(number) * STEP, top, height.max(0.5)))
        })
    });
    html! {
        svg class="bars" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none"
            role="img" aria-labelledby="bars-title" {
            title id="bars-title" {
                "Outcomes in " (slices.len()) " parts of the time, at most " (highest) " in one"
            }
            @for (class, x, y, height) in bars {
                rect class=(class) x=(format!("{x:.1}")) y=(format!("{y:.2}")) width=(STEP - 2.0)
                    height=(format!("{height:.2}")) {}
            }
        }
    }
}

fn chart_table(slices: &[SliceView]) -> Markup {
    html! {
        div class="scroll" tabindex="0" role="region" aria-label="Outcomes" {
            table {
                thead { tr {
                    th scope="col" { "From" }
                    @for (_, word, _) in PARTS { th scope="col" class="number" { (word) } }
                } }
                tbody {
                    @for slice in slices.iter().filter(|slice| !slice.outcomes.is_empty()) {
                        tr {
                            th scope="row" { (time(&slice.begins)) }
                            @for (_, _, names) in PARTS {
                                td class="number" { (part_of(&slice.outcomes, names)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What somebody has to look at, in words.
fn needs_you(status: &StatusView, lists: &[ListReport]) -> Markup {
    let mut needs: Vec<String> = status.problems.clone();
    if status.configuration.warnings > 0 {
        needs.push(format!(
            "the configuration has {} warnings: mtpolicyd check",
            status.configuration.warnings
        ));
    }
    if status.decisions.lost > 0 {
        needs.push(format!("{} decisions could not be kept", status.decisions.lost));
    }
    let quarantined = lists.iter().filter(|list| list.quarantined);
    needs.extend(quarantined.map(|list| format!("the list {} is quarantined", list.zone)));
    needs.extend(status.silent_lists.iter().map(|zone| format!("the list {zone} does not answer")));
    html! {
        section class="sheet" aria-labelledby="needs" {
            h2 id="needs" { "Needs you" }
            @if needs.is_empty() {
                p class="well" { span aria-hidden="true" { "\u{2713} " } "Nothing." }
            } @else {
                ul class="needs" { @for need in needs { li { (shown(&need)) } } }
            }
        }
    }
}

/// The plugins that decided most; a decision of a nested one is not one of those around it.
fn deciders(plugins: &[PluginView]) -> Vec<(&str, u64)> {
    let parent = |path: &str| path.rsplit_once('/').map_or(String::new(), |(parent, _)| parent.to_owned());
    let nested = |path: &str| -> u64 {
        plugins.iter().filter(|inner| parent(&inner.path) == path).map(|inner| inner.stopped).sum()
    };
    let own = |plugin: &PluginView| plugin.stopped.saturating_sub(nested(&plugin.path));
    let mut found: Vec<_> = plugins.iter().map(|plugin| (plugin.path.as_str(), own(plugin))).collect();
    found.retain(|(_, decisions)| *decisions > 0);
    found.sort_by_key(|(_, decisions)| std::cmp::Reverse(*decisions));
    found.truncate(MAX_PLUGINS);
    found
}

fn decided(hour: &ActivityView) -> Markup {
    let plugins = deciders(&hour.plugins);
    let most = plugins.first().map_or(1, |(_, decisions)| *decisions);
    html! {
        section class="sheet" aria-labelledby="decided" {
            h2 id="decided" { "What decided" }
            @if plugins.is_empty() {
                p class="quiet" { "No plugin ended a chain." }
            } @else {
                table {
                    thead { tr {
                        th scope="col" { "Plugin" } th scope="col" class="number" { "decisions" }
                        th scope="col" { span class="hidden" { "Share" } }
                    } }
                    tbody { @for (plugin, decisions) in plugins { tr {
                        th scope="row" {
                            a href={ "decisions?" (Form::default().with("plugin", plugin).query()) } {
                                (shown(plugin))
                            }
                        }
                        td class="number" { (decisions) }
                        td { (share(decisions, most)) }
                    } } }
                }
            }
        }
    }
}

fn share(number: u64, most: u64) -> Markup {
    #[allow(clippy::cast_precision_loss, reason = "a drawing has fewer points")]
    let width = 120.0 * number as f64 / most.max(1) as f64;
    html! {
        svg class="time" viewBox="0 0 120 12" width="120" height="12" aria-hidden="true" {
            rect class="fill" x="0" y="1" width=(format!("{:.1}", width.max(2.0))) height="10" rx="2" {}
        }
    }
}

fn servers(backends: &[BackendView]) -> Markup {
    html! {
        section class="sheet" aria-labelledby="servers" {
            h2 id="servers" { "Servers" }
            @if backends.is_empty() {
                p class="quiet" { "The configuration has no connections." }
            } @else {
                table { tbody { @for backend in backends { tr {
                    th scope="row" {
                        (shown(&backend.name)) " " span class="quiet" { (shown(&backend.module)) }
                    }
                    td {
                        @if backend.state == "down" {
                            span class="outcome reject" { span aria-hidden="true" { "! " } "down" } " "
                            @if let Some(cause) = &backend.cause { (shown(cause)) }
                        } @else {
                            span class="outcome pass" {
                                span aria-hidden="true" { "\u{2713} " } (shown(&backend.state))
                            }
                        }
                    }
                } } } }
            }
        }
    }
}

fn dns_lists(lists: &[ListReport]) -> Markup {
    html! {
        section class="sheet" aria-labelledby="lists" {
            h2 id="lists" { "DNS lists" }
            @if lists.is_empty() {
                p class="quiet" { "The configuration asks no list." }
            } @else {
                table { tbody { @for list in lists { tr {
                    th scope="row" { (shown(&list.zone)) }
                    td {
                        @if list.quarantined {
                            span class="outcome reject" { span aria-hidden="true" { "! " } "quarantined" } " "
                        }
                        (list.state.to_string())
                    }
                } } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(outcomes: &[(&str, u64)]) -> SliceView {
        let outcomes = outcomes.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        SliceView { begins: "2026-12-01T09:00:00.00Z".to_owned(), outcomes }
    }

    #[test]
    fn bars_are_stacked_and_as_high_as_their_number() {
        let slices =
            [slice(&[("pass", 6), ("header", 2), ("reject", 2)]), slice(&[]), slice(&[("closed", 5)])];
        let drawn = drawing(&slices, 10).into_string();
        for bar in [
            "class=\"pass\" x=\"0.0\" y=\"24.00\" width=\"10\" height=\"96.00\"",
            "class=\"reject\" x=\"0.0\" y=\"0.00\" width=\"10\" height=\"24.00\"",
            "class=\"other\" x=\"24.0\" y=\"60.00\" width=\"10\" height=\"60.00\"",
        ] {
            assert!(drawn.contains(bar), "{bar}: {drawn}");
        }
        assert_eq!(drawn.matches("<rect").count(), 3);
    }

    #[test]
    fn a_nested_plugin_decides_alone() {
        let plugin =
            |path: &str, stopped| PluginView { path: path.to_owned(), stopped, ..PluginView::default() };
        let plugins = [plugin("in/a", 7), plugin("in/a/b", 4), plugin("in/a/b/c", 4), plugin("in/d", 0)];
        assert_eq!(deciders(&plugins), [("in/a/b/c", 4), ("in/a", 3)]);
    }

    #[test]
    fn a_time_has_two_units() {
        let shown = [59, 3_660, 90_000, 1_040_000].map(uptime);
        assert_eq!(shown, ["0 min", "1 h 1 min", "1 d 1 h", "12 d 0 h"]);
    }
}
