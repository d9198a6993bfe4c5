//! `mtpolicyd tail`: decisions as they are made.
//!
//! Knows: events, how decisions are printed. Must not know: where they come from.

use super::control::{Daemon, FAILED, FOUND, Failure, Outcome, with_format};
use super::decisions::{Rows, filter, with_filters};
use super::explain::explanation;
use super::terminal::{Style, print};
use crate::log::escape_json;
use crate::server::control::filter_query;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use decisions::{DecisionView, RowView};
use serde::de::DeserializeOwned;
use std::ops::ControlFlow;

/// The kind of the event that tells how many decisions were missed.
const LAGGED: &str = "lagged";

/// Its options.
pub fn command() -> Command {
    let command = Command::new("tail").about("Show decisions as they are made; the daemon filters them");
    with_filters(with_format(command)).args([
        Arg::new("walk")
            .long("walk")
            .action(ArgAction::SetTrue)
            .help("Show each as `explain` does, with what every plugin did"),
        Arg::new("limit")
            .long("limit")
            .value_name("NUMBER")
            .value_parser(value_parser!(u64).range(1..))
            .help("End after this many"),
    ])
}

/// Does it, until it is interrupted.
pub fn run(matches: &ArgMatches) -> Outcome {
    let (filter, style) = (filter(matches)?, Style::of(matches));
    let (has_walk, daemon) = (matches.get_flag("walk"), Daemon::of(matches)?);
    let most = matches.get_one::<u64>("limit").copied().unwrap_or(u64::MAX);
    let path = format!("/v1/tail?walk={}&{}", u8::from(has_walk), filter_query(&filter));
    let mut rows = Rows::new(&style);
    let (mut printed, mut broken) = (0, None);
    let ended = daemon.follow(&path, |event| {
        if event.kind == LAGGED {
            super::say(&format!(
                "{} decisions were missed: they came faster than they were read\n",
                event.data
            ));
            return ControlFlow::Continue(());
        }
        let is_read = if style.is_json {
            Ok(print(&format!("{}\n", escape_json(&event.data))))
        } else if has_walk {
            read(&event.data)
                .map(|view: DecisionView| print(&format!("{}\n", explanation(&view, &style, false))))
        } else {
            read(&event.data).and_then(|row: RowView| rows.print(&row))
        };
        printed += 1;
        match is_read {
            Ok(true) if printed < most => ControlFlow::Continue(()),
            Ok(_) => ControlFlow::Break(()),
            Err(failure) => {
                broken = Some(failure);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(failure) = broken {
        return Err(failure);
    }
    if ended.is_continue() {
        super::say("mtpolicyd: the daemon has ended, or another process has taken over\n");
        return Ok(FAILED);
    }
    Ok(FOUND)
}

fn read<T: DeserializeOwned>(json: &str) -> Result<T, Failure> {
    serde_json::from_str(json).map_err(|error| Failure(format!("an event can't be read: {error}")))
}
