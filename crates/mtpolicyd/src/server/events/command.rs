//! An event for a program.
//!
//! Knows: processes. Must not know: what the program does.

use super::receiver::Delivery;
use super::{EventView, incident};
use crate::events::{Event, host_name};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The exit status of a program that wants to be run again later (`EX_TEMPFAIL` of sysexits.h).
const LATER: i32 = 75;
/// Bytes of a variable: of one of 128 KiB the system starts no program.
const MAX_VARIABLE: usize = 8 << 10;

/// Where a program finds others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How often it is looked whether the program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// Runs it once.
pub async fn deliver(program: &Path, arguments: &[String], event: &Event, limit: Duration) -> Delivery {
    let view = EventView { host: host_name(), ..EventView::from(&incident(event)) };
    let (program, arguments) = (program.to_owned(), arguments.to_owned());
    let ran = tokio::task::spawn_blocking(move || run(&program, &arguments, &view, limit)).await;
    ran.unwrap_or_else(|panic| Delivery::GivenUp(panic.to_string()))
}

fn run(program: &Path, arguments: &[String], view: &EventView, limit: Duration) -> Delivery {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).envs(variables(view)).current_dir("/");
    // A group of its own, so that all of it can be ended.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Delivery::Later(format!("{}: {error}", program.display())),
    };
    if let Some(mut input) = child.stdin.take() {
        let json = serde_json::to_string(view).unwrap_or_default();
        // A pipe may be full, and the program has its time to read it. Its end closes the pipe, whether it
        // has read it or not.
        std::thread::spawn(move || drop(writeln!(input, "{json}")));
    }
    match wait(&mut child, limit) {
        Ok(Some(status)) => came_of(status),
        Ok(None) => Delivery::GivenUp(format!("killed, since it took longer than {} s", limit.as_secs())),
        Err(error) => Delivery::GivenUp(error.to_string()),
    }
}

/// What the program is told besides its input, whole if it is not very long. A variable holds no NUL.
fn variables(view: &EventView) -> Vec<(String, String)> {
    let all = [
        ("ID", &view.id),
        ("TIME", &view.time),
        ("KIND", &view.kind),
        ("STATE", &view.state),
        ("LEVEL", &view.level),
        ("SOURCE", &view.source),
        ("KEY", &view.key),
        ("TEXT", &view.text),
        ("ADVICE", &view.advice),
    ];
    let fitting = |value: &str| value[..value.floor_char_boundary(MAX_VARIABLE)].replace('\0', "");
    all.map(|(name, value)| (format!("MTPOLICYD_EVENT_{name}"), fitting(value))).into()
}

/// How the program has ended; `None` if it was killed, with all processes of its group.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            if let Ok(group) = i32::try_from(child.id()) {
                // It may have ended just now.
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn came_of(status: ExitStatus) -> Delivery {
    match status.code() {
        Some(0) => Delivery::Taken,
        Some(LATER) => Delivery::Later(status.to_string()),
        _ => Delivery::GivenUp(status.to_string()),
    }
}
