//! `mtpolicyd shadow`: how the configurations fare that run in the shadow of virtual hosts.
//!
//! Knows: how it is printed. Must not know: where it comes from.

use super::control::{Daemon, FOUND, NOTHING, Outcome, with_format};
use super::terminal::{Paint, Style, counted, grouped, own, print, safe};
use crate::log::escape_json;
use crate::server::control::{ShadowView, ShadowsView};
use clap::{ArgMatches, Command};

/// Its options.
pub fn command() -> Command {
    let about = "Show how the configurations fare that run in the shadow of virtual hosts: since when, how \
                 many requests they would have decided otherwise, and how many they could not look at";
    let status = with_format(Command::new("status").about(about));
    let about = "Compare the decisions of the daemon with those of a configuration that is to be tried";
    Command::new("shadow").about(about).subcommand_required(true).subcommand(status)
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let (_, matches) = matches.subcommand().unwrap_or(("status", matches));
    let (daemon, style) = (Daemon::of(matches)?, Style::of(matches));
    let (status, body) = daemon.get_bytes("/v1/shadow")?;
    let view: ShadowsView = daemon.understand(status, &body)?;
    if style.is_json {
        print(&format!("{}\n", escape_json(&String::from_utf8_lossy(&body))));
    } else {
        print(&view.shadows.iter().map(|shadow| line(shadow, &style)).collect::<String>());
    }
    if view.shadows.is_empty() {
        super::say("no virtual host has a shadow\n");
        return Ok(NOTHING);
    }
    Ok(FOUND)
}

#[allow(clippy::cast_precision_loss, reason = "a hundredth of a per cent is shown")]
fn line(shadow: &ShadowView, style: &Style) -> String {
    let ShadowView { host, file, since, compared, differ, dropped, left_out, problem } = shadow;
    let (host, file) = (safe(host), safe(file));
    let Some(since) = since else {
        let why = own(problem.as_deref().unwrap_or("it can't be used"));
        return format!("{host}: {}\n", style.paint(Paint::Bad, &format!("no shadow: {file}: {why}")));
    };
    let percent = if *compared == 0 { 0.0 } else { *differ as f64 * 100.0 / *compared as f64 };
    let s = if *differ == 1 { "s" } else { "" };
    let differs = format!("{} differ{s} ({percent:.2} %)", grouped(*differ));
    let paint = if *differ == 0 { Paint::Good } else { Paint::Mild };
    let left_out = if *left_out == 0 { String::new() } else { format!("   {} left out", grouped(*left_out)) };
    let hint = if *differ == 0 { "" } else { "   mtpolicyd decisions --shadow-differs" };
    format!(
        "{host}: {file} since {}   {}   {}   {} dropped{left_out}{hint}\n",
        style.time(since, "%d %b %H:%M"),
        counted(*compared, "decision"),
        style.paint(paint, &differs),
        grouped(*dropped),
    )
}
