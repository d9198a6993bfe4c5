//! The command line: what was asked for, and the text that answers it.
//!
//! Knows: options, settings, the manual, the server. Must not know: how any of them works.

mod audit;
mod check;
pub mod client;
mod console;
mod control;
mod decisions;
mod doctor;
mod events;
mod explain;
mod forget;
mod import;
mod log_level;
mod metrics;
mod reload;
mod replay;
mod shadow;
mod source;
mod state;
mod status;
mod support;
mod tail;
mod terminal;
mod top;

use crate::manual::{self, Format};
use crate::server::{self, Mode, ServeOptions, process};
use crate::settings::Settings;
use crate::upkeep;
use crate::value::nearest;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The configuration file where none is named.
pub const DEFAULT_CONFIGURATION: &str = "/etc/mtpolicyd/mtpolicyd.conf";

const PROGRAM: &str = "mtpolicyd";

/// Ended well.
const DONE: ExitCode = ExitCode::SUCCESS;

/// The configuration, or something that it names, can't be used. The original has several numbers for it.
const REFUSED: u8 = 1;

/// The options of the daemon.
pub fn command() -> Command {
    let config = Arg::new("config").short('c').long("config").value_name("FILE");
    let config = config.value_parser(value_parser!(PathBuf)).default_value(DEFAULT_CONFIGURATION);
    let level = Arg::new("loglevel").short('l').long("loglevel").value_name("LEVEL");
    let dump = Arg::new("dump_vhosts").short('d').long("dump_vhosts").aliases(["dump-vhosts", "dump_config"]);
    Command::new(PROGRAM)
        .version(env!("CARGO_PKG_VERSION"))
        .about("A policy daemon for Postfix: asks an ordered chain of plugins about every message.")
        .args_conflicts_with_subcommands(true)
        // As in the original: long options may be cut short, and the last of several holds.
        .infer_long_args(true)
        .args_override_self(true)
        .args([
            config.clone().help("The configuration file"),
            Arg::new("foreground")
                .short('f')
                .long("foreground")
                .action(ArgAction::SetTrue)
                .help("Stay in the foreground and log to the standard output"),
            level
                .value_parser(value_parser!(u8))
                .help("Log as much as this level (1 to 4) instead of log_level"),
            dump.action(ArgAction::SetTrue).help("Read the configuration, print its virtual hosts and exit"),
            Arg::new("cron")
                .short('t')
                .long("cron")
                .value_name("TASKS")
                .help("Run the tasks of these periods (hourly,daily,weekly,monthly) and exit"),
        ])
        .subcommand(check::command())
        .subcommand(
            Command::new("manual")
                .about("Print a page of the manual, or the list of pages")
                .arg(Arg::new("page").value_name("PAGE").help(
                    "mtpolicyd.conf, mtpolicyd, policyd-client, concepts, control, or the name of a module",
                ))
                .arg(
                    Arg::new("format")
                        .long("format")
                        .value_parser(["markdown", "man"])
                        .default_value("markdown")
                        .help("How to write it"),
                ),
        )
        .subcommand(import::command())
        .subcommand(completions())
        .subcommands(asking().map(|(command, _)| command()))
}

/// The commands that ask the running daemon or read what it has written.
const ASKING: [Asking; 15] = [
    (status::command, status::run),
    (reload::command, reload::run),
    (decisions::command, decisions::run),
    (explain::command, explain::run),
    (replay::command, replay::run),
    (shadow::command, shadow::run),
    (doctor::command, doctor::run),
    (tail::command, tail::run),
    (top::command, top::run),
    (log_level::command, log_level::run),
    (audit::command, audit::run),
    (events::command, events::run),
    (metrics::command, metrics::run),
    (support::command, support::run),
    (console::command, console::run),
];

/// All of them.
fn asking() -> impl Iterator<Item = &'static Asking> {
    ASKING.iter().chain(&state::COMMANDS)
}

/// The options of a command, and what does it.
type Asking = (fn() -> Command, fn(&ArgMatches) -> control::Outcome);

/// The options of `mtpolicyd completions`.
fn completions() -> Command {
    let shell = Arg::new("shell").value_name("SHELL").required(true).value_parser(["bash", "zsh", "fish"]);
    let program = Arg::new("program").value_name("PROGRAM").value_parser([PROGRAM, client::PROGRAM]);
    Command::new("completions")
        .about("Print a script that completes the options of a program in a shell")
        .arg(shell.help("The shell"))
        .arg(program.default_value(PROGRAM).help("The program"))
}

/// The pages of the programs for man(1): the name, the section of the manual and the text of each.
pub fn man_pages() -> [(&'static str, u8, String); 2] {
    [
        (PROGRAM, manual::DAEMONS, manual::program(&command(), manual::DAEMONS)),
        (client::PROGRAM, manual::COMMANDS, manual::program(&client::command(), manual::COMMANDS)),
    ]
}

/// Does what the command line asks for.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("check", matches)) => check::run(matches),
        Some(("manual", matches)) => print_manual(matches),
        Some(("import", matches)) => import::run(matches),
        Some(("completions", matches)) => print_completions(matches),
        Some((name, matches)) => ask(name, matches),
        _ if matches.get_flag("dump_vhosts") => dump(config(&matches)),
        _ => match matches.get_one::<String>("cron") {
            Some(tasks) => cron(&matches, tasks),
            None => serve(&matches),
        },
    }
}

/// Does what only the running daemon can.
fn ask(name: &str, matches: &ArgMatches) -> ExitCode {
    let asked = asking().find(|(command, _)| command().get_name() == name);
    asked.map_or(ExitCode::from(control::FAILED), |(_, run)| control::exit(run(matches)))
}

fn config(matches: &ArgMatches) -> &Path {
    matches.get_one::<PathBuf>("config").map_or(Path::new(DEFAULT_CONFIGURATION), PathBuf::as_path)
}

fn serve(matches: &ArgMatches) -> ExitCode {
    let mode = if matches.get_flag("foreground") { Mode::Foreground } else { Mode::Background };
    let log_level = log_level(matches);
    if mode == Mode::Background && !process::is_in_background() {
        return match process::start_in_background() {
            Ok(code) => ExitCode::from(code),
            Err(error) => {
                say(&format!("mtpolicyd: {error}\n"));
                ExitCode::from(REFUSED)
            }
        };
    }
    match server::serve(&ServeOptions { config: config(matches).to_owned(), mode, log_level }) {
        Ok(()) => DONE,
        Err(error) => {
            say(&format!("mtpolicyd: {error}\n"));
            ExitCode::from(REFUSED)
        }
    }
}

/// The level of the command line; 0 does not override that of the file, as in the original.
fn log_level(matches: &ArgMatches) -> Option<u8> {
    matches.get_one::<u8>("loglevel").copied().filter(|level| *level > 0)
}

fn dump(path: &Path) -> ExitCode {
    match Settings::dump(path) {
        Ok((hosts, messages)) => {
            say(&messages.to_string());
            print(&hosts)
        }
        Err(messages) => {
            say(&messages.to_string());
            ExitCode::from(REFUSED)
        }
    }
}

/// Does the tasks of some periods. What goes wrong is written to the standard error, which cron mails.
fn cron(matches: &ArgMatches, tasks: &str) -> ExitCode {
    /// Errors and warnings.
    const QUIET: u8 = 1;
    let (periods, unknown) = upkeep::parse_periods(tasks);
    for task in &unknown {
        let known = upkeep::PERIODS.map(|period| period.to_string());
        let hint = nearest(task, known.iter().map(String::as_str));
        let hint = hint.map(|period| format!("; did you mean `{period}`?")).unwrap_or_default();
        say(&format!("mtpolicyd: there are no tasks `{task}`, only {}{hint}\n", known.join(", ")));
    }
    let level = log_level(matches).unwrap_or(QUIET);
    match server::run_tasks(config(matches), &periods, level) {
        // What is not known does not keep the others from being done, as in the original.
        Ok(0) if !periods.is_empty() => DONE,
        Ok(_) => ExitCode::from(REFUSED),
        Err(error) => {
            say(&format!("mtpolicyd: {error}\n"));
            ExitCode::from(REFUSED)
        }
    }
}

fn print_manual(matches: &ArgMatches) -> ExitCode {
    let pages: Vec<_> = manual::pages().into_iter().chain([manual::concepts(), manual::control()]).collect();
    let format = match matches.get_one::<String>("format").map(String::as_str) {
        Some("man") => Format::Man,
        _ => Format::Markdown,
    };
    let Some(wanted) = matches.get_one::<String>("page") else {
        let longest = pages.iter().map(|page| page.name.len()).max().unwrap_or_default();
        let line = |page: &manual::Page| format!("{:longest$}  {}\n", page.name, page.line());
        return print(&pages.iter().map(line).collect::<String>());
    };
    if let Some((_, _, page)) = man_pages().into_iter().find(|(name, _, _)| name == wanted) {
        return print(&page);
    }
    match pages.iter().find(|page| page.name.eq_ignore_ascii_case(wanted)) {
        Some(page) => print(&page.render(format)),
        None => {
            let hint = nearest(wanted, pages.iter().map(|page| page.name));
            let hint = hint.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            say(&format!("mtpolicyd: the manual has no page `{wanted}`{hint}\n"));
            ExitCode::from(REFUSED)
        }
    }
}

fn print_completions(matches: &ArgMatches) -> ExitCode {
    let asked = |name: &str| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let shell = match asked("shell") {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    let program = asked("program");
    let mut command = if program == client::PROGRAM { client::command() } else { command() };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// Writes what was asked for. A reader that has enough, such as head(1), is not a failure.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    DONE
}

/// Writes to whoever started the program. If nobody listens there is nobody to tell.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
