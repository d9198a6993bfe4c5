//! `mtpolicyd support`: what somebody who helps needs to know, in one file, without secrets.
//!
//! Knows: what is asked for, where it stands. Must not know: how any of it is found out.

mod shown;
mod tar;

use super::control::{FAILED, FOUND, Failure, Outcome, with_socket};
use super::terminal::{own, print};
use crate::settings::{Secrets, Settings};
use crate::value::Switch;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

/// The folder in the archive.
const FOLDER: &str = "mtpolicyd-support";

/// How much of the end of the log is taken.
const LOG_BYTES: u64 = 256 << 10;

/// Only whoever makes the archive may read it.
const MODE: u32 = 0o600;

/// The file of what the doctor says.
const DOCTOR: &str = "doctor.txt";

/// The commands of this program whose output is taken, with the names of the files for it.
const COMMANDS: [(&str, &[&str]); 7] = [
    ("version.txt", &["--version"]),
    ("check.txt", &["check"]),
    (DOCTOR, &["doctor", "--color", "never"]),
    ("status.txt", &["status", "--color", "never"]),
    ("status.json", &["status", "--format", "json"]),
    ("metrics.txt", &["metrics", "--color", "never"]),
    ("lists.txt", &["lists", "--color", "never"]),
];

/// Its options.
pub fn command() -> Command {
    let output = Arg::new("output").short('o').long("output").value_name("FILE");
    let about = "Write what somebody who helps needs to know into one file, without passwords and keys";
    with_socket(Command::new("support").about(about)).args([
        output.value_parser(value_parser!(PathBuf)).help(
            "The archive to write, which must not be there yet; by default one with the time in its name, in \
             the current folder",
        ),
        Arg::new("without-log")
            .long("without-log")
            .action(ArgAction::SetTrue)
            .help("Leave out the last lines of the log, which name clients, senders and recipients"),
    ])
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let config = super::config(matches);
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let usual = || PathBuf::from(format!("{FOLDER}-{}.tar", moment(seconds)));
    let path = matches.get_one::<PathBuf>("output").cloned().unwrap_or_else(usual);
    // Before anything that takes long, and never over another file.
    let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path);
    let failed =
        |error: std::io::Error| Failure(format!("can't write {}: {error}", own(&path.display().to_string())));
    let mut file = file.map_err(failed)?;
    let bundle = Bundle::gather(config, matches);
    let bytes = tar::archive(&bundle.files, seconds);
    if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_all()) {
        // Half an archive helps nobody.
        let _ = fs::remove_file(&path);
        return Err(failed(error));
    }
    print(&format!("{}\nwritten: {}\n", bundle.contents, own(&path.display().to_string())));
    Ok(FOUND)
}

/// `20261201-034512`, in UTC.
fn moment(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map(|time| time.strftime("%Y%m%d-%H%M%S").to_string()).unwrap_or_default()
}

/// The files of the archive.
struct Bundle {
    files: Vec<(String, String)>,
    /// What each is, for people.
    contents: String,
    secrets: Secrets,
}

impl Bundle {
    fn gather(config: &Path, matches: &ArgMatches) -> Bundle {
        let (text, secrets) = Settings::without_secrets(config);
        let mut bundle = Bundle { files: Vec::new(), contents: String::new(), secrets };
        let text = text.unwrap_or_else(|| "it can't be read: see check.txt\n".to_owned());
        let shown = config.display();
        bundle.add("configuration.conf", &format!("{shown} and what it includes, without secrets"), &text);
        for (name, words) in COMMANDS {
            let text = own_output(words, config, matches);
            // It repeats what stands in main.cf.
            let text = if name == DOCTOR { shown::lines(&text) } else { text };
            bundle.add(name, &format!("mtpolicyd {}", words.join(" ")), &text);
        }
        for (name, what, text) in surroundings() {
            bundle.add(name, what, &text);
        }
        match log_file(config, matches) {
            Ok(Some(path)) => match last_lines(&path) {
                Ok(text) => bundle.add(
                    "log.txt",
                    "the end of the log, which NAMES CLIENTS, SENDERS AND RECIPIENTS (--without-log)",
                    &text,
                ),
                Err(error) => bundle.leave_out("log.txt", &format!("{}: {error}", path.display())),
            },
            Ok(None) => {
                bundle.leave_out("log.txt", "no log_file is set; journalctl -u mtpolicyd has the log")
            }
            Err(why) => bundle.leave_out("log.txt", why),
        }
        let contents = format!(
            "Passwords, keys and tokens are replaced with {}. Look through the files before you send \
             them.\n\n{}",
            shown::HIDDEN,
            bundle.contents
        );
        bundle.files.insert(0, (format!("{FOLDER}/README.txt"), contents));
        bundle
    }

    /// Adds a file. What is known to be a secret does not get in, wherever it comes from.
    fn add(&mut self, name: &str, what: &str, text: &str) {
        self.files.push((format!("{FOLDER}/{name}"), self.secrets.removed_from(text)));
        self.tell(name, what);
    }

    fn leave_out(&mut self, name: &str, why: &str) {
        self.tell(name, &format!("left out: {why}"));
    }

    fn tell(&mut self, name: &str, what: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.contents, "{name:22} {}", own(what));
    }
}

/// What a command of this program prints about the same daemon, and how it ends.
fn own_output(words: &[&str], config: &Path, matches: &ArgMatches) -> String {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return format!("this program can't be found: {error}\n"),
    };
    let mut command = std::process::Command::new(program);
    command.args(words);
    match words.first() {
        Some(&"check") => {
            command.arg(config);
        }
        Some(&"--version") => {}
        _ => {
            command.arg("-c").arg(config);
            if let Some(socket) = matches.get_one::<PathBuf>("socket") {
                command.arg("--socket").arg(socket);
            }
        }
    }
    printed(command)
}

fn printed(mut command: std::process::Command) -> String {
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => return format!("{} can't be run: {error}\n", command.get_program().display()),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or(i32::from(FAILED));
    format!("{}{}(exit status {code})\n", text(&output.stdout), text(&output.stderr))
}

/// The machine around the daemon: the name of each file, what it is, and its text.
fn surroundings() -> Vec<(&'static str, &'static str, String)> {
    let run = |program: &str, words: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(words);
        printed(command)
    };
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| format!("{path}: {error}\n"));
    vec![
        ("postconf-n.txt", "postconf -n, without passwords", shown::postfix(&run("postconf", &["-n"]))),
        ("postconf-M.txt", "postconf -M, without passwords", shown::postfix(&run("postconf", &["-M"]))),
        ("resolv.conf", "/etc/resolv.conf", read("/etc/resolv.conf")),
        ("os-release", "/etc/os-release", read("/etc/os-release")),
        ("uname.txt", "uname -srm", run("uname", &["-srm"])),
        (
            "unit.txt",
            "systemctl cat mtpolicyd.service, without variables",
            shown::unit(&run("systemctl", &["cat", "mtpolicyd.service"])),
        ),
    ]
}

/// The file of the log, if there is one that may be shown; or why it is left out.
fn log_file(config: &Path, matches: &ArgMatches) -> Result<Option<PathBuf>, &'static str> {
    if matches.get_flag("without-log") {
        return Err("--without-log");
    }
    let Ok((settings, _)) = Settings::load(config, None) else {
        return Err("the configuration can't be used");
    };
    if settings.globals.log_internals == Switch::On {
        return Err("log_internals = on may log keys and passwords");
    }
    Ok(settings.globals.log_file.clone().map(PathBuf::from))
}

/// The last whole lines of a file.
fn last_lines(path: &Path) -> std::io::Result<String> {
    let mut file = safe_files::open_regular(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(LOG_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Ok(match text.split_once('\n') {
        Some((_, whole)) if start > 0 => whole.to_owned(),
        _ => text,
    })
}
