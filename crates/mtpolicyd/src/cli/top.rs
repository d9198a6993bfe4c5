//! `mtpolicyd top`: what the daemon is doing, again and again.
//!
//! Knows: how numbers are printed. Must not know: where they come from.

use super::control::{Daemon, FOUND, Outcome, with_format};
use super::status::head;
use super::terminal::{Paint, Style, milliseconds, own, print, safe, table};
use crate::server::control::{ActivityView, StatusView};
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;
use std::time::Duration;

/// The time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// The time that the numbers are about, in seconds.
const SPAN: u64 = 10;

/// Plugins that are shown; those with fewer turns are left out.
const MAX_PLUGINS: usize = 25;

/// The cursor to the first place, and what is behind it erased (ECMA-48).
const HOME: &str = "\u{1b}[H\u{1b}[J";

/// Its options.
pub fn command() -> Command {
    let once = Arg::new("once").long("once").action(ArgAction::SetTrue);
    let about = "Show what the daemon is doing: requests per second, outcomes, plugins, servers";
    with_format(Command::new("top").about(about)).arg(once.help("Print it once and end"))
}

/// Does it, until it is interrupted.
pub fn run(matches: &ArgMatches) -> Outcome {
    let (daemon, style) = (Daemon::of(matches)?, Style::of(matches));
    let is_once = matches.get_flag("once") || !style.is_terminal || style.is_json;
    loop {
        let status: StatusView = daemon.get("/v1/status")?;
        let activity: ActivityView = daemon.get(&format!("/v1/activity?seconds={SPAN}"))?;
        let shown = if style.is_json {
            let both = json!({ "status": status, "activity": activity });
            crate::log::escape_json(&both.to_string()).into_owned() + "\n"
        } else {
            text(&status, &activity, &style)
        };
        let is_read = print(&if is_once { shown } else { format!("{HOME}{shown}") });
        if is_once || !is_read {
            return Ok(FOUND);
        }
        std::thread::sleep(INTERVAL);
    }
}

/// A number of things in each second.
#[allow(clippy::cast_precision_loss, reason = "a tenth is shown")]
fn rate(count: u64, activity: &ActivityView) -> String {
    let seconds = activity.seconds.max(f64::MIN_POSITIVE);
    if count == 0 { "0".to_owned() } else { format!("{:.1}", count as f64 / seconds) }
}

fn text(status: &StatusView, activity: &ActivityView, style: &Style) -> String {
    let mut text = format!("{}  {} req/s\n", head(status, style), rate(activity.requests, activity));
    let outcomes = activity.outcomes.iter().map(|(name, count)| {
        let paint = match name.as_str() {
            "pass" | "header" => Paint::Good,
            "reject" | "discard" | "closed" => Paint::Bad,
            _ => Paint::Mild,
        };
        style.paint(paint, &format!("{} {}/s", safe(name), rate(*count, activity)))
    });
    let outcomes: Vec<_> = outcomes.collect();
    let outcomes = if outcomes.is_empty() { "no requests".to_owned() } else { outcomes.join("  ") };
    text += &format!(
        "{outcomes}    p50 {} ms  p99 {} ms  too late {}  (the last {:.0} s)\n\n",
        milliseconds(activity.p50_micros.into()),
        milliseconds(activity.p99_micros.into()),
        activity.late,
        activity.seconds,
    );
    let mut rows = vec![["plugin", "req/s", "stop/s", "fail/s", "ms/req"].map(str::to_owned).to_vec()];
    for plugin in activity.plugins.iter().take(MAX_PLUGINS) {
        let each = plugin.micros.checked_div(plugin.turns).unwrap_or_default();
        rows.push(vec![
            safe(&plugin.path),
            rate(plugin.turns, activity),
            rate(plugin.stopped, activity),
            rate(plugin.failed, activity),
            milliseconds(each),
        ]);
    }
    text += &table(&rows);
    let mut rows = vec![["backend", "state"].map(str::to_owned).to_vec()];
    for backend in status.backends.iter().filter(|backend| backend.state != "local") {
        let cause = backend.cause.as_ref().map(|cause| format!(": {}", own(cause))).unwrap_or_default();
        rows.push(vec![safe(&backend.name), format!("{}{cause}", safe(&backend.state))]);
    }
    if rows.len() > 1 {
        text += &format!("\n{}", table(&rows));
    }
    text
}
