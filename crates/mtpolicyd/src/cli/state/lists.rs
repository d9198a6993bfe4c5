//! `mtpolicyd lists`: how the DNS lists fare.
//!
//! Knows: how a list is shown. Must not know: how one is tested.

use super::output::json_lines;
use crate::cli::control::{Daemon, FOUND, NOTHING, Outcome, with_format};
use crate::cli::status::span;
use crate::cli::terminal::{Paint, Style, print, safe, table};
use crate::server::control::path_segment;
use crate::state::{ListReport, Lists};
use clap::{Arg, ArgAction, ArgMatches, Command};
use jiff::Timestamp;

/// Its options.
pub fn command() -> Command {
    let test = Arg::new("test").long("test").action(ArgAction::SetTrue);
    with_format(Command::new("lists").about("Show how the DNS lists fare"))
        .arg(Arg::new("name").value_name("NAME").help("The zone of a list, or the name of a plugin"))
        .arg(test.help(
            "Ask each list now about the names that every list has and must not have (RFC 5782). The exit \
             status is 1 if one does not answer as it should",
        ))
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let (daemon, style) = (Daemon::of(matches)?, Style::of(matches));
    let test = u8::from(matches.get_flag("test"));
    let mut path = format!("/v1/state/lists?test={test}");
    if let Some(name) = matches.get_one::<String>("name") {
        path += &format!("&name={}", path_segment(name));
    }
    let Lists { lists } = daemon.get(&path)?;
    print(&if style.is_json { json_lines(&lists) } else { text(&lists, &style) });
    let is_good = |list: &ListReport| !list.quarantined && !list.state.is_bad();
    let is_well = !lists.is_empty() && lists.iter().all(is_good);
    Ok(if is_well { FOUND } else { NOTHING })
}

fn text(lists: &[ListReport], style: &Style) -> String {
    if lists.is_empty() {
        return "the configuration asks no DNS list\n".to_owned();
    }
    let mut rows = vec![["list", "plugins", "state", ""].map(str::to_owned).to_vec()];
    for list in lists {
        let is_good = !list.quarantined && !list.state.is_bad();
        let paint = if is_good { Paint::Good } else { Paint::Bad };
        let silent = list.silent_for.map(|seconds| format!("no answer for {}", span(seconds)));
        let failures = (list.failures > 0).then(|| format!("{} failures", list.failures));
        let since = list.since.filter(|_| !is_good).map(|since| format!("since {}", moment(since, style)));
        let quarantined = list.quarantined.then(|| "quarantined".to_owned());
        let tested = list.tested.map(|tested| format!("tested {}", moment(tested, style)));
        let notes = [quarantined, since, silent, failures, tested].into_iter().flatten();
        let notes = notes.collect::<Vec<_>>().join(", ");
        let state = style.paint(paint, &list.state.to_string());
        rows.push(vec![safe(&list.zone), safe(&list.plugins.join(", ")), state, notes]);
        for test in &list.tests {
            let wanted = if test.expected { "has to be listed" } else { "must not be listed" };
            let verdict = if test.right { (Paint::Good, "right") } else { (Paint::Bad, "WRONG") };
            let what = format!("{} {wanted}: {} ({} ms)", safe(&test.asked), safe(&test.answer), test.took);
            rows.push(vec![String::new(), String::new(), style.paint(verdict.0, verdict.1), what]);
        }
    }
    table(&rows)
}

fn moment(seconds: i64, style: &Style) -> String {
    Timestamp::from_second(seconds).map(|time| style.time(&time.to_string(), "%F %H:%M")).unwrap_or_default()
}
