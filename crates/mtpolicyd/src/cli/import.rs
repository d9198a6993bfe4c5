//! `mtpolicyd import`: writes the configuration of another policy daemon as one of ours.
//!
//! Knows: the arguments, what is told on which output. Must not know: the files of those daemons.

use super::{print, say};
use crate::import::policyd_rate_limit;
use crate::import::policyd_spf;
use crate::import::postgrey::{self, Found, Postgrey, Sources};
use crate::import::{ImportError, Imported};
use crate::server::{IntakeOptions, take_in};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Something could not be taken over.
const INCOMPLETE: u8 = 1;

/// There was nothing to take over, or no way to write it.
const FAILED: u8 = 2;

/// Where the packages keep our databases.
const STATE_FOLDER: &str = "/var/lib/mtpolicyd";

/// The command with one more for each daemon.
pub fn command() -> Command {
    Command::new("import")
        .about(
            "Write the configuration of another policy daemon as one of mtpolicyd, on the standard \
             output; what \
             could not be taken over is listed on the standard error",
        )
        .subcommand_required(true)
        .subcommand(postgrey_command())
        .subcommand(
            Command::new("policyd-spf")
                .about("Read policyd-spf.conf")
                .arg(path("file").index(1).default_value(policyd_spf::DEFAULT_FILE).help("The file")),
        )
        .subcommand(
            Command::new("policyd-rate-limit")
                .about("Read policyd-rate-limit.yaml")
                .arg(path("file").index(1).default_value(policyd_rate_limit::DEFAULT_FILE).help("The file"))
                .arg(state()),
        )
}

fn postgrey_command() -> Command {
    let into = Arg::new("into-store").long("into-store").action(ArgAction::SetTrue);
    Command::new("postgrey").about("Read postgrey's command line, whitelists and databases").args([
        option("defaults").default_value("/etc/default/postgrey").help("The file with POSTGREY_OPTS"),
        option("whitelists").default_value("/etc/postgrey").help("The folder of postgrey's whitelists"),
        option("dbdir")
            .default_value("/var/lib/postgrey")
            .help("The folder of postgrey's databases, if its command line names none"),
        option("lists")
            .value_name("DIR")
            .help("Copy the whitelists into this folder, without lines that can't be read"),
        state(),
        into.requires("config").help(
            "Add the clients that postgrey knows to the auto-whitelist of the Greylist plugin in the \
                 configuration file, and print no configuration",
        ),
        option("config").short('c').requires("into-store").help("That configuration file"),
        Arg::new("plugin")
            .long("plugin")
            .value_name("NAME")
            .requires("into-store")
            .help("The name of that plugin, if there are several"),
        Arg::new("as").long("as").value_name("USER").requires("into-store").help(
            "Write the auto-whitelist as this user; without it, as the `user` of the file. Only root can be \
                 another user",
        ),
        Arg::new("options")
            .value_name("OPTIONS")
            .num_args(0..)
            .last(true)
            .help("The options of postgrey, in place of the file with POSTGREY_OPTS"),
    ])
}

fn path(name: &'static str) -> Arg {
    Arg::new(name).value_name("FILE").value_parser(value_parser!(PathBuf))
}

fn option(name: &'static str) -> Arg {
    path(name).long(name).value_name("PATH")
}

fn state() -> Arg {
    option("state").default_value(STATE_FOLDER).help("The folder in which mtpolicyd keeps its databases")
}

/// Does what the command line asks for.
pub fn run(matches: &ArgMatches) -> ExitCode {
    match matches.subcommand() {
        Some(("policyd-spf", matches)) => {
            let name = nix::unistd::gethostname().unwrap_or_default();
            tell(policyd_spf::import(path_of(matches, "file"), &name.to_string_lossy()))
        }
        Some(("policyd-rate-limit", matches)) => {
            tell(policyd_rate_limit::import(path_of(matches, "file"), path_of(matches, "state")))
        }
        Some((_, matches)) => import_postgrey(matches),
        None => ExitCode::from(FAILED),
    }
}

fn path_of<'a>(matches: &'a ArgMatches, name: &str) -> &'a Path {
    matches.get_one::<PathBuf>(name).map_or(Path::new(""), PathBuf::as_path)
}

fn import_postgrey(matches: &ArgMatches) -> ExitCode {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let arguments = matches.get_many::<String>("options").unwrap_or_default();
    let sources = Sources {
        defaults: path_of(matches, "defaults").to_owned(),
        arguments: arguments.cloned().collect(),
        lists: path_of(matches, "whitelists").to_owned(),
        databases: path_of(matches, "dbdir").to_owned(),
        state: path_of(matches, "state").to_owned(),
        copies: matches.get_one::<PathBuf>("lists").cloned(),
        now: i64::try_from(now).unwrap_or(i64::MAX),
    };
    let Postgrey { mut imported, found, prefixes } = match postgrey::import(&sources) {
        Ok(imported) => imported,
        Err(error) => return failed(&error),
    };
    if matches.get_flag("into-store") {
        return into_store(matches, found.unwrap_or_default(), prefixes);
    }
    let known = found.map_or(0, |found| found.known.len());
    if known > 0 {
        imported.notes.push(format!(
            "{known} pairs of a network and a sender's domain were not written anywhere: with \
             --into-store -c FILE \
             the Greylist plugin of that file knows them"
        ));
    }
    tell(Ok(imported))
}

/// Adds what postgrey knows to the store of a plugin. The configuration has been written before, so it is not
/// printed again.
fn into_store(matches: &ArgMatches, found: Found, prefixes: [u8; 2]) -> ExitCode {
    let options = IntakeOptions {
        config: path_of(matches, "config"),
        plugin: matches.get_one::<String>("plugin").map(String::as_str),
        user: matches.get_one::<String>("as").map(String::as_str),
        prefixes,
    };
    let mut imported = Imported::default();
    found.report(&mut imported);
    match take_in(&options, found.known) {
        Ok((plugin, taken)) => {
            imported
                .notes
                .push(format!("Plugin {plugin} knows {taken} pairs of a network and a sender's domain"));
            list(&imported)
        }
        Err(error) => failed(&ImportError(error.to_string())),
    }
}

/// Prints the configuration, and lists what is not in it.
fn tell(imported: Result<Imported, ImportError>) -> ExitCode {
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => return failed(&error),
    };
    print(&imported.text());
    list(&imported)
}

/// Lists what there is to know.
fn list(imported: &Imported) -> ExitCode {
    for note in &imported.notes {
        say(&format!("note: {note}\n"));
    }
    for what in &imported.left_out {
        say(&format!("not taken over: {what}\n"));
    }
    if imported.left_out.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(INCOMPLETE) }
}

fn failed(error: &ImportError) -> ExitCode {
    say(&format!("mtpolicyd: {error}\n"));
    ExitCode::from(FAILED)
}
