//! The command line: what was asked for, and the text that answers it.
//!
//! Knows: options, settings, the manual, the server. Must not know: how any of them works.

use crate::manual::{self, Format};
use crate::server::{self, Mode, ServeOptions, process};
use crate::settings::Settings;
use crate::upkeep;
use crate::value::nearest;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
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
        .subcommand(
            Command::new("check")
                .about("Say what is wrong with a configuration file")
                .arg(config.index(1).short(None).long(None).help("The file"))
                .arg(Arg::new("strict").long("strict").action(ArgAction::SetTrue).help(
                    "Take warnings for mistakes, so that an unknown option is one; a server that does not \
                             answer now is none",
                ))
                .arg(Arg::new("as").long("as").value_name("USER").help(
                    "Look whether this user can read and write the files; without it, the `user` of the \
                     file. Only root can look for another user",
                )),
        )
        .subcommand(
            Command::new("manual")
                .about("Print a page of the manual, or the list of pages")
                .arg(Arg::new("page").value_name("PAGE").help("mtpolicyd.conf, or the name of a module"))
                .arg(
                    Arg::new("format")
                        .long("format")
                        .value_parser(["markdown", "man"])
                        .default_value("markdown")
                        .help("How to write it"),
                ),
        )
}

/// The page of the program for man(1).
pub fn man_page() -> String {
    manual::program(&command())
}

/// Does what the command line asks for.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("check", matches)) => {
            let user = matches.get_one::<String>("as").map(String::as_str);
            check(config(matches), matches.get_flag("strict"), user)
        }
        Some(("manual", matches)) => print_manual(matches),
        _ if matches.get_flag("dump_vhosts") => dump(config(&matches)),
        _ => match matches.get_one::<String>("cron") {
            Some(tasks) => cron(&matches, tasks),
            None => serve(&matches),
        },
    }
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

fn check(path: &Path, strict: bool, user: Option<&str>) -> ExitCode {
    let (settings, messages) = match Settings::load(path, None) {
        Ok(loaded) => loaded,
        Err(messages) => {
            say(&messages.to_string());
            let (path, errors) = (path.display(), messages.errors());
            let s = if errors == 1 { "" } else { "s" };
            say(&format!("{path}: the configuration can't be used: {errors} error{s}\n"));
            return ExitCode::from(REFUSED);
        }
    };
    let unknown = server::check_names(&settings).err();
    if let Some(error) = &unknown {
        say(&format!("{}: {error}\n", path.display()));
    }
    say(&messages.to_string());
    let troubles = match server::access(path, &settings, &messages, user) {
        Ok(troubles) => troubles,
        Err(error) => {
            say(&format!("{}: {error}\n", path.display()));
            return ExitCode::from(REFUSED);
        }
    };
    let note = settings.globals.as_root().filter(|_| user.is_none());
    let look = match server::look(settings, user) {
        Ok(look) => look,
        Err(error) => {
            say(&format!("{}: {error}\n", path.display()));
            return ExitCode::from(REFUSED);
        }
    };
    let found = troubles.iter().chain(&look.denied).chain(&look.unanswered);
    found.for_each(|trouble| say(&format!("warning: {trouble}\n\n")));
    // That a server is down now is not a mistake of the file.
    let has_warnings = messages.has_warnings() || !troubles.is_empty() || !look.denied.is_empty();
    if unknown.is_some() {
        return ExitCode::from(REFUSED);
    }
    if strict && has_warnings {
        say(&format!("{}: refused, since --strict takes warnings for errors\n", path.display()));
        return ExitCode::from(REFUSED);
    }
    let mut note = note.map(|note| format!("notice: {note}\n")).unwrap_or_default();
    // After the warnings, which matter more; a file without any says nothing on the standard error.
    if has_warnings {
        say(&std::mem::take(&mut note));
    }
    print(&format!("{note}{}: the configuration can be used\n", path.display()))
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
    let pages = manual::pages();
    let format = match matches.get_one::<String>("format").map(String::as_str) {
        Some("man") => Format::Man,
        _ => Format::Markdown,
    };
    let Some(wanted) = matches.get_one::<String>("page") else {
        let longest = pages.iter().map(|page| page.name.len()).max().unwrap_or_default();
        let line = |page: &manual::Page| format!("{:longest$}  {}\n", page.name, page.line());
        return print(&pages.iter().map(line).collect::<String>());
    };
    if wanted == PROGRAM {
        return print(&man_page());
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

/// Writes what was asked for. A reader that has enough, such as head(1), is not a failure.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    DONE
}

/// Writes to whoever started the program. If nobody listens there is nobody to tell.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
