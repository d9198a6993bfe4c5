//! `mtpolicyd reload`: the daemon reads its configuration again, and this waits for what comes of it.
//!
//! With `--exec` a new process does so and takes over the ports.
//!
//! Knows: what a reload says, the variable of systemd's units. Must not know: how it is done.

use super::control::{Daemon, FOUND, Failure, NOTHING, Outcome, with_socket};
use super::terminal::{own, print};
use crate::server;
use crate::server::control::{HandoverView, ReloadView};
use crate::settings::Settings;
use clap::{Arg, ArgAction, ArgMatches, Command};
use hyper::StatusCode;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Reading may wait for disks and for names of hosts.
const PATIENCE: Duration = Duration::from_secs(310);

/// The process of the service, which systemd names to the commands of a unit (systemd.exec(5)).
const MAIN_PROCESS: &str = "MAINPID";

/// Its options.
pub fn command() -> Command {
    with_socket(Command::new("reload").about(
        "Have the daemon read its configuration again, and print what is wrong with it: then the exit \
         status is 1, and the old configuration stays in use",
    ))
    .arg(Arg::new("exec").long("exec").action(ArgAction::SetTrue).help(
        "Have a new process of the program, which may be a new version, take over the ports; the old one \
         answers on the connections that it has, and ends",
    ))
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let daemon = Daemon::of(matches)?;
    if matches.get_flag("exec") {
        return hand_over(&daemon);
    }
    let main = std::env::var(MAIN_PROCESS).ok().and_then(|process| process.parse().ok());
    if let Some(main) = main.filter(|_| !daemon.has_socket()) {
        let config = matches.get_one::<PathBuf>("config").cloned().unwrap_or_default();
        return without_socket(&config, main);
    }
    let (status, body) = daemon.post("/v1/reload", &json!({}), PATIENCE)?;
    let view: ReloadView = match status {
        StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY => serde_json::from_slice(&body)
            .map_err(|error| Failure(format!("the answer of the daemon can't be read: {error}")))?,
        other => return Err(daemon.refused(other, &body)),
    };
    let mut text: String = view.text.lines().map(|line| format!("{}\n", own(line))).collect();
    if let Some(error) = &view.error {
        text += &format!("error: {}\n", own(error));
    }
    let hash = &view.hash;
    if view.reloaded {
        print(&format!("{text}reloaded: configuration {hash} is in use\n"));
        return Ok(FOUND);
    }
    let s = if view.mistakes == 1 { "" } else { "s" };
    let mistakes =
        if view.error.is_some() { String::new() } else { format!("{} mistake{s}; ", view.mistakes) };
    print(&format!("{text}not reloaded: {mistakes}configuration {hash} stays in use\n"));
    Ok(NOTHING)
}

/// Has a new process take over.
fn hand_over(daemon: &Daemon) -> Outcome {
    let (status, body) = daemon.post("/v1/handover", &json!({}), PATIENCE)?;
    let view: HandoverView = match status {
        StatusCode::OK | StatusCode::UNPROCESSABLE_ENTITY => serde_json::from_slice(&body)
            .map_err(|error| Failure(format!("the answer of the daemon can't be read: {error}")))?,
        other => return Err(daemon.refused(other, &body)),
    };
    if let Some(process) = view.process {
        print(&format!("process {process} has taken over the ports\n"));
        return Ok(FOUND);
    }
    let error: Vec<_> = view.error.iter().flat_map(|error| error.lines()).map(own).collect();
    print(&format!("not handed over: {}\n", error.join("\n")));
    Ok(NOTHING)
}

/// What a unit did before there was a control socket, and does where that is switched off: the file is read,
/// and only without a mistake the daemon hears of it. Its log says what comes of it.
fn without_socket(config: &Path, main: i32) -> Outcome {
    let (settings, messages) = match Settings::load(config, None) {
        Ok(loaded) => loaded,
        Err(messages) => {
            super::say(&messages.to_string());
            return Ok(NOTHING);
        }
    };
    super::say(&messages.to_string());
    server::check_names(&settings).map_err(|error| Failure(error.to_string()))?;
    let told = kill(Pid::from_raw(main), Signal::SIGHUP);
    told.map_err(|error| Failure(format!("cannot tell process {main}: {}", error.desc())))?;
    print(
        "the daemon has no control socket; it has been told to reload, and its log says what comes of it\n",
    );
    Ok(FOUND)
}
