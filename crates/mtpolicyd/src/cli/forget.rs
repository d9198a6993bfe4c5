//! `mtpolicyd decisions forget`: everything about somebody is removed.
//!
//! Knows: the options, when it is asked whether it is meant. Must not know: where decisions are kept.

use super::control::{Daemon, FAILED, FOUND, NOTHING, Outcome, with_format};
use super::source::{Source, json};
use super::terminal::{Style, counted, own, print, safe};
use crate::server::control::{ForgottenView, Whom};
use clap::{Arg, ArgAction, ArgMatches, Command};
use decisions::{DecisionId, Filter};
use std::io::{BufRead, IsTerminal};
use std::time::Duration;

/// A large journal takes minutes; the daemon gives up before.
const PATIENCE: Duration = Duration::from_secs(620);

/// Decisions of one page while they are counted.
const PAGE: u64 = 1000;

/// Its options.
pub fn command() -> Command {
    let about = "Remove every decision in which an address or a login occurs, from the journal and from \
                 memory; it can't be undone";
    let flag = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    with_format(Command::new("forget").about(about)).args([
        Arg::new("address")
            .long("address")
            .value_name("ADDRESS")
            .required(true)
            .help("The whole address of a mailbox, or a login"),
        flag("dry-run", "Only count the decisions; `decisions --about` shows them"),
        flag("yes", "Do not ask first, which is done on a terminal only"),
    ])
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let address = matches.get_one::<String>("address").cloned().unwrap_or_default();
    let (daemon, style) = (Daemon::of(matches)?, Style::of(matches));
    let is_dry = matches.get_flag("dry-run");
    let asks = !matches.get_flag("yes") && std::io::stdin().is_terminal() && style.is_terminal;
    let source = Source::Daemon(daemon);
    if is_dry || asks {
        let (found, problems) = count(&source, &address)?;
        for problem in &problems {
            super::say(&format!("warning: {}\n", own(problem)));
        }
        let name = if found == 1 { "names" } else { "name" };
        let count = format!("{} {name} {}", counted(found, "decision"), safe(&address));
        if is_dry {
            let line = serde_json::json!({ "found": found });
            print(&if style.is_json { format!("{line}\n") } else { count + "\n" });
            return Ok(if found > 0 { FOUND } else { NOTHING });
        }
        super::say(&format!("{count}; remove them? This can't be undone [y/N] "));
        let mut answer = String::new();
        // Where nothing can be read, nobody has agreed.
        let _ = std::io::stdin().lock().read_line(&mut answer);
        if !answer.trim().eq_ignore_ascii_case("y") {
            super::say("nothing was removed\n");
            return Ok(FAILED);
        }
    }
    let Source::Daemon(daemon) = &source else { return Ok(FAILED) };
    let body = serde_json::json!(Whom { address });
    let (status, answer) = daemon.post("/v1/forget", &body, PATIENCE)?;
    let view: ForgottenView = daemon.understand(status, &answer)?;
    let removed = format!(
        "removed: {} of the journal, {} of the last ones in memory\n",
        counted(view.journal, "decision"),
        view.memory
    );
    print(&if style.is_json { format!("{}\n", json(&view)?) } else { removed });
    Ok(if view.journal + view.memory > 0 { FOUND } else { NOTHING })
}

/// How many decisions name somebody, and what could not be searched.
fn count(source: &Source, address: &str) -> Result<(u64, Vec<String>), super::control::Failure> {
    let filter = Filter { about: Some(address.to_owned()), ..Filter::default() };
    let (mut found, mut problems, mut before) = (0, Vec::new(), None::<DecisionId>);
    loop {
        let page = source.search(&filter, before, PAGE)?;
        found += page.decisions.len() as u64;
        page.problems.into_iter().for_each(|problem| super::decisions::add(&mut problems, problem));
        before = page.next;
        if before.is_none() {
            return Ok((found, problems));
        }
    }
}
