//! `mtpolicyd events`: what has happened, who is told, and whether they are.
//!
//! Knows: how events are printed. Must not know: where they are kept, how anybody is told.

use super::control::{Daemon, FOUND, NOTHING, Outcome, with_format};
use super::source::json;
use super::terminal::{Paint, Style, print, safe, table};
use crate::events::EventKind;
use crate::log::escape_json;
use crate::server::control::{EventsView, TestsView};
use crate::server::events::{EventView, ReceiverView, TestView};
use clap::{Arg, ArgMatches, Command, value_parser};
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

/// Events that are shown where nobody says how many.
const USUAL: &str = "20";

/// Maximum number of events.
const MOST: u64 = 10_000;

/// How long a test may take.
const PATIENCE: Duration = Duration::from_secs(200);

/// Its options.
pub fn command() -> Command {
    let about = "Show what an administrator was told: limits that are used up, servers that are down and \
                 others, the newest first, and the receivers of `<Notify>`";
    let limit = Arg::new("limit").long("limit").value_name("NUMBER").default_value(USUAL);
    let limit = limit.value_parser(value_parser!(u64).range(1..=MOST)).help("Maximum number of events");
    let kinds: Vec<_> = EventKind::ALL.map(EventKind::word).into();
    let kind = Arg::new("kind").long("kind").value_name("KIND").value_parser(kinds);
    let test = "Send an event that says nothing to the receivers of `<Notify>`, and say whether they took \
                it. The exit status is 1 if one did not";
    let name = Arg::new("name").value_name("NAME");
    let name = name.help("The receiver, by the name of its block; all without it");
    with_format(Command::new("events").about(about))
        .args([limit, kind.help("Only events of this kind")])
        .args_conflicts_with_subcommands(true)
        .subcommand(with_format(Command::new("test").about(test)).arg(name))
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    match matches.subcommand() {
        Some((_, matches)) => test(matches),
        None => list(matches),
    }
}

fn list(matches: &ArgMatches) -> Outcome {
    let (daemon, style) = (Daemon::of(matches)?, Style::of(matches));
    let limit = matches.get_one::<u64>("limit").copied().unwrap_or(MOST);
    let mut path = format!("/v1/events?limit={limit}");
    if let Some(kind) = matches.get_one::<String>("kind") {
        path += &format!("&kind={kind}");
    }
    let EventsView { events, receivers, problem } = daemon.get(&path)?;
    if let Some(problem) = problem {
        super::say(&format!("mtpolicyd: {}\n", safe(&problem)));
    }
    if style.is_json {
        lines(&events)?;
    } else {
        events.iter().take_while(|event| print(&text(event, &style))).for_each(drop);
        print(&of_receivers(&receivers, &style));
    }
    Ok(if events.is_empty() { NOTHING } else { FOUND })
}

fn text(event: &EventView, style: &Style) -> String {
    let paint = match (event.state.as_str(), event.level.as_str()) {
        ("ends", _) => Paint::Good,
        (_, "error") => Paint::Bad,
        _ => Paint::Mild,
    };
    let time = style.time(&event.time, "%Y-%m-%d %H:%M:%S");
    let what = style.paint(paint, &safe(&format!("{} {}", event.kind, event.state)));
    let mut text = format!("{time}  {what}  {}\n", safe(&event.text));
    if !event.advice.is_empty() {
        text += &format!("                     {}\n", safe(&event.advice));
    }
    text
}

fn of_receivers(receivers: &[ReceiverView], style: &Style) -> String {
    if receivers.is_empty() {
        return "nobody is told: the configuration has no `<Notify>`\n".to_owned();
    }
    let head = ["receiver", "by", "taken", "waiting", "given up", "dropped", ""].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    for receiver in receivers {
        let problem = receiver.problem.as_deref().map(|why| style.paint(Paint::Bad, &safe(why)));
        let numbers = [receiver.delivered, receiver.waiting as u64, receiver.failed, receiver.dropped];
        let mut row = vec![safe(&receiver.name), receiver.way.clone()];
        row.extend(numbers.map(|number| number.to_string()));
        row.push(problem.unwrap_or_default());
        rows.push(row);
    }
    table(&rows)
}

fn test(matches: &ArgMatches) -> Outcome {
    let (daemon, style) = (Daemon::of(matches)?, Style::of(matches));
    let name = matches.get_one::<String>("name");
    let (status, answer) = daemon.post("/v1/events/test", &json!({ "name": name }), PATIENCE)?;
    let TestsView { tests } = daemon.understand(status, &answer)?;
    if style.is_json {
        lines(&tests)?;
    } else if tests.is_empty() {
        print("nobody is told: the configuration has no `<Notify>`\n");
    }
    for TestView { name, error, .. } in tests.iter().filter(|_| !style.is_json) {
        let verdict = match error {
            None => style.paint(Paint::Good, "taken"),
            Some(why) => format!("{}: {}", style.paint(Paint::Bad, "NOT taken"), safe(why)),
        };
        print(&format!("{}: {verdict}\n", safe(name)));
    }
    let is_well = !tests.is_empty() && tests.iter().all(|test| test.delivered);
    Ok(if is_well { FOUND } else { NOTHING })
}

fn lines(values: &[impl Serialize]) -> Result<(), super::control::Failure> {
    for value in values {
        if !print(&format!("{}\n", escape_json(&json(value)?))) {
            break;
        }
    }
    Ok(())
}
