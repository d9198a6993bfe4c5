//! `mtpolicyd log-level`: how much the daemon logs, shown or changed for a while.
//!
//! Knows: levels, times. Must not know: how the log works.

use super::control::{Daemon, FOUND, Failure, Outcome, with_format};
use super::terminal::{Style, print};
use crate::server::control::{LogLevelView, StatusView};
use crate::value::{NonZeroSeconds, Value};
use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::json;
use std::time::Duration;

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Its options.
pub fn command() -> Command {
    let level = Arg::new("level").value_name("LEVEL").value_parser(value_parser!(u8).range(0..=4));
    with_format(Command::new("log-level").about("Show how much the daemon logs, or change it for a while"))
        .args([
        level.help("The level from now on, 0 to 4; without it the level is printed"),
        Arg::new("for").long("for").value_name("TIME").requires("level").help(
            "For how long, such as 10m; then the level of the configuration returns. Without it, until the \
             next reload",
        ),
    ])
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let (daemon, style) = (Daemon::of(matches)?, Style::of(matches));
    let view: LogLevelView = match matches.get_one::<u8>("level") {
        None => daemon.get::<StatusView>("/v1/status")?.log_level,
        Some(level) => {
            let time = matches.get_one::<String>("for").map(|text| NonZeroSeconds::parse(text)).transpose();
            let seconds = time.map_err(|why| Failure(format!("--for: {why}")))?.map(|time| time.0.whole());
            let body = match seconds {
                Some(seconds) => json!({ "level": level, "seconds": seconds }),
                None => json!({ "level": level }),
            };
            let (status, answer) = daemon.post("/v1/log-level", &body, PATIENCE)?;
            daemon.understand(status, &answer)?
        }
    };
    if style.is_json {
        let text = serde_json::to_string(&view).map_err(|error| Failure(error.to_string()))?;
        print(&format!("{text}\n"));
    } else {
        let until = view.until.as_ref().map(|until| format!(" until {}", style.time(until, "%H:%M:%S %:z")));
        print(&format!("log level {}{}\n", view.level, until.unwrap_or_default()));
    }
    Ok(FOUND)
}
