//! `mtpolicyd audit`: who searched decisions, and who changed something by hand.
//!
//! Knows: how notes are printed. Must not know: where they are kept.

use super::control::{FOUND, NOTHING, Outcome, with_format};
use super::source::{Source, journal_option, json};
use super::terminal::{Style, print, safe};
use crate::log::escape_json;
use clap::{Arg, ArgMatches, Command, value_parser};

/// Notes that are shown where nobody says how many.
const USUAL: &str = "100";

/// Maximum number of notes.
const MOST: u64 = 10_000;

/// Its options.
pub fn command() -> Command {
    let about = "Show who searched decisions and who changed something by hand, the newest first; the daemon \
                 keeps it in the journal";
    let limit = Arg::new("limit").long("limit").value_name("NUMBER").default_value(USUAL);
    with_format(Command::new("audit").about(about)).args([
        limit.value_parser(value_parser!(u64).range(1..=MOST)).help("Maximum number of notes"),
        journal_option(),
    ])
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let (source, style) = (Source::of(matches)?, Style::of(matches));
    let limit = matches.get_one::<u64>("limit").copied().unwrap_or(MOST);
    let audits = source.audits(usize::try_from(limit).unwrap_or(usize::MAX))?;
    for audit in &audits {
        let line = if style.is_json {
            escape_json(&json(audit)?).into_owned()
        } else {
            let time = style.time(&audit.time, "%Y-%m-%d %H:%M:%S");
            format!("{time}  {}  {}", safe(&audit.who), safe(&audit.what))
        };
        if !print(&format!("{line}\n")) {
            break;
        }
    }
    Ok(if audits.is_empty() { NOTHING } else { FOUND })
}
