//! `mtpolicyd doctor`: what keeps the daemon from doing its work although nothing says so.
//!
//! Knows: how findings are printed. Must not know: what is looked for.

use super::control::{Daemon, FOUND, Failure, NOTHING, Outcome, with_format};
use super::terminal::{Paint, Style, own, print, safe};
use crate::doctor::{self, Finding, Gathered, Last, Live, Sources};
use crate::server::control::DecisionsView;
use crate::state::Lists;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Its options.
pub fn command() -> Command {
    let path = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf)).help(help)
    };
    let about = "Look for what is wrong between Postfix, the daemon and the machine";
    with_format(Command::new("doctor").about(about)).args([
        path("postconf", "What `postconf -n` printed, instead of asking the Postfix of this machine"),
        path("mastercf", "What `postconf -M` printed, likewise"),
        Arg::new("fix")
            .long("fix")
            .action(ArgAction::SetTrue)
            .help("Print the commands that would repair what was found; nothing is changed"),
    ])
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let path = |name: &str| matches.get_one::<PathBuf>(name).map(PathBuf::as_path);
    let daemon = Daemon::of(matches).and_then(|daemon| Ok((daemon.get("/v1/status")?, live(&daemon))));
    let gathered = doctor::gather(Sources {
        config: path("config").unwrap_or(Path::new(super::DEFAULT_CONFIGURATION)),
        postconf: path("postconf"),
        mastercf: path("mastercf"),
        daemon: daemon.map_err(|Failure(why)| why),
    });
    let gathered = gathered.map_err(Failure)?;
    let findings = doctor::look(&gathered.facts);
    let style = Style::of(matches);
    if matches.get_flag("fix") {
        print(&commands(&findings));
    } else if style.is_json {
        print(&objects(&findings));
    } else {
        print(&text(&gathered, &findings, &style));
    }
    Ok(if findings.is_empty() { FOUND } else { NOTHING })
}

/// What the daemon says beside its status, as far as it says it.
fn live(daemon: &Daemon) -> Live {
    let lists = daemon.get("/v1/state/lists?test=1").map(|Lists { lists }| lists);
    let newest = daemon.get("/v1/decisions?limit=1").ok().and_then(|view: DecisionsView| {
        // What was not searched is not known.
        let is_known = view.problems.is_empty() && !view.unfinished;
        let newest = view.decisions.first().map(|decision| Last::At(decision.id.time()));
        newest.or(is_known.then_some(Last::Never))
    });
    Live {
        lists: lists.unwrap_or_default(),
        metrics: daemon.get("/v1/metrics.json").unwrap_or_default(),
        last_decision: newest,
    }
}

/// What to type. Several findings about one list have the same command.
fn commands(findings: &[Finding]) -> String {
    let mut text = String::new();
    let mut known = BTreeSet::new();
    for finding in findings {
        // Writing to a string does not fail.
        let _ = writeln!(text, "# {} {}", finding.code, safe(&finding.text));
        for command in finding.fix.iter().filter(|command| known.insert(command.as_str())) {
            let _ = writeln!(text, "{}", safe(command));
        }
    }
    if findings.iter().any(|finding| !finding.fix.is_empty()) {
        text.push_str("# then: postfix reload\n");
    }
    text
}

fn objects(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let severity = if finding.is_wrong { "error" } else { "warning" };
        let Finding { code, text, place, fix, .. } = finding;
        json!({"code": code, "severity": severity, "message": text, "place": place, "fix": fix}).to_string()
            + "\n"
    };
    findings.iter().map(line).collect()
}

fn text(gathered: &Gathered, findings: &[Finding], style: &Style) -> String {
    let mut text = String::new();
    for seen in &gathered.seen {
        let _ = writeln!(text, "{}    {}", style.paint(Paint::Good, "ok"), own(seen));
    }
    for unseen in &gathered.unseen {
        let _ = writeln!(text, "-     not looked at: {}", own(unseen));
    }
    for finding in findings {
        let (paint, word) = if finding.is_wrong { (Paint::Bad, "FAIL") } else { (Paint::Mild, "warn") };
        let place = if finding.place.is_empty() { String::new() } else { format!("  ({})", finding.place) };
        let said = format!("{}{place}", finding.text);
        let _ = writeln!(text, "{}  {} {}", style.paint(paint, word), finding.code, own(&said));
        for command in &finding.fix {
            let _ = writeln!(text, "      = {}", own(command));
        }
    }
    let wrong = findings.iter().filter(|finding| finding.is_wrong).count();
    let _ = writeln!(text, "{wrong} wrong, {} doubtful", findings.len() - wrong);
    text
}
