//! `mtpolicyd status`: how the daemon is, for people, scripts and health checks.
//!
//! Knows: how a status is printed. Must not know: where it comes from.

use super::control::{Daemon, FOUND, NOTHING, Outcome, with_format};
use super::terminal::{Paint, Style, grouped, own, print, safe};
use crate::log::escape_json;
use crate::server::control::StatusView;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::fmt::Write;

/// Its options.
pub fn command() -> Command {
    let ready = Arg::new("ready").long("ready").action(ArgAction::SetTrue);
    with_format(Command::new("status").about("Show how the running daemon is")).arg(ready.help(
        "Only say whether the daemon can do its work, by the exit status: 0 if it can, 1 if not, 2 if it \
         can't be reached. It can't if a server does not answer and a virtual host has `on_error = close`",
    ))
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let (daemon, style) = (Daemon::of(matches)?, Style::of(matches));
    let (status, body) = daemon.get_bytes("/v1/status")?;
    let view: StatusView = daemon.understand(status, &body)?;
    let is_asked_for_ready = matches.get_flag("ready");
    if style.is_json {
        print(&format!("{}\n", escape_json(&String::from_utf8_lossy(&body))));
    } else if is_asked_for_ready {
        print(&ready(&view));
    } else {
        print(&text(&view, &style));
    }
    Ok(if is_asked_for_ready && !view.ready { NOTHING } else { FOUND })
}

fn ready(view: &StatusView) -> String {
    if view.ready {
        return "ready\n".to_owned();
    }
    let problems: String = view.problems.iter().map(|problem| format!("{}\n", own(problem))).collect();
    format!("not ready\n{problems}")
}

/// `12 d 4 h`, with the two largest units.
pub fn span(seconds: u64) -> String {
    let units = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "min"),
        (seconds % 60, "s"),
    ];
    let shown: Vec<_> = units.iter().skip_while(|(count, _)| *count == 0).take(2).collect();
    if shown.is_empty() {
        return "0 s".to_owned();
    }
    shown.iter().map(|(count, unit)| format!("{count} {unit}")).collect::<Vec<_>>().join(" ")
}

/// The first line, which `top` shows too.
pub fn head(view: &StatusView, style: &Style) -> String {
    let configuration = &view.configuration;
    let doubts = match configuration.warnings {
        0 => String::new(),
        1 => " (1 warning)".to_owned(),
        more => format!(" ({more} warnings)"),
    };
    format!(
        "mtpolicyd {}  up {}  configuration {} of {}{doubts}  {} of {} connections",
        safe(&view.version),
        span(view.uptime_seconds),
        safe(&configuration.hash),
        style.time(&configuration.read, "%d %b %H:%M"),
        grouped(view.connections.open as u64),
        grouped(view.connections.most as u64),
    )
}

fn text(view: &StatusView, style: &Style) -> String {
    let mut text = head(view, style) + "\n";
    let mut line = |name: &str, value: &str| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name:15}{value}");
    };
    let is_ready = if view.ready { (Paint::Good, "yes") } else { (Paint::Bad, "no") };
    line("ready", &style.paint(is_ready.0, is_ready.1));
    for problem in &view.problems {
        line("", &style.paint(Paint::Mild, &own(problem)));
    }
    line(
        "process",
        &format!("{}, since {}", view.process, style.time(&view.started, "%Y-%m-%d %H:%M:%S %:z")),
    );
    line("configuration", &safe(&view.configuration.file));
    line("ports", &safe(&view.ports.join(", ")));
    let hosts = view.hosts.iter().map(|host| format!("{} ({})", safe(&host.name), safe(&host.port)));
    line("hosts", &hosts.collect::<Vec<_>>().join(", "));
    let until =
        view.log_level.until.as_ref().map(|until| format!(" until {}", style.time(until, "%H:%M:%S")));
    line("log level", &format!("{}{}", view.log_level.level, until.unwrap_or_default()));
    for backend in &view.backends {
        let paint = if backend.state == "down" { Paint::Bad } else { Paint::Good };
        let state = style.paint(paint, &safe(&backend.state));
        let cause = backend.cause.as_ref().map(|cause| format!(": {}", own(cause))).unwrap_or_default();
        line("backend", &format!("{} ({}) {state}{cause}", safe(&backend.name), safe(&backend.module)));
    }
    for list in &view.silent_lists {
        line("list", &format!("{} {}", safe(list), style.paint(Paint::Bad, "does not answer")));
    }
    let begins = view.decisions.begins.as_ref();
    let begins = begins.map_or_else(
        || "none yet".to_owned(),
        |it| format!("from {} on", style.time(it, "%Y-%m-%d %H:%M:%S %:z")),
    );
    let lost = match view.decisions.lost {
        0 => "nothing lost".to_owned(),
        lost => style.paint(Paint::Bad, &format!("{} lost", grouped(lost))),
    };
    line("decisions", &format!("{begins}, {}, {lost}", safe(&view.decisions.place)));
    text
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn a_span_has_its_two_largest_units() {
        let spans = [0, 59, 61, 3_600, 90_061].map(span);
        assert_eq!(spans, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
    }
}
