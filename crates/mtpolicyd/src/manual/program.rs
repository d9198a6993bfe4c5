//! The page of the program for man(1), from its command line.
//!
//! Knows: how clap describes a command. Must not know: what the options do.

use super::roff::{inline, quoted};
use clap::{Arg, Command};

/// The section of the manual for daemons.
const SECTION: u8 = 8;

/// What the command line does not say of itself.
const REST: &str = "\
.SH SIGNALS
.TP
SIGHUP
Reads the configuration again. If it is good, requests from now on use it, and no connection is
closed; if not, the old one stays in use and the log says what is wrong. A log file is opened again.
.TP
SIGUSR1
Opens a log file again, and nothing else.
.TP
SIGTERM, SIGINT
Stops accepting connections, answers the requests in flight, and ends.
.SH EXIT STATUS
0 when all went well, 1 when the configuration or something that it names can't be used, 2 when the
command line can't.
.SH SEE ALSO
.BR mtpolicyd.conf (5),
.BR postconf (5),
.BR access (5)
";

/// The page of a command.
pub fn page(command: &Command) -> String {
    let name = command.get_name();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let summary = about.split(':').next().unwrap_or_default().replacen("A policy", "a policy", 1);
    let mut text = format!(".TH {} {SECTION} \"\" {name}\n", quoted(&name.to_uppercase()));
    text += &format!(".SH NAME\n{name} \\- {}\n", inline(&summary));
    text += &format!(".SH SYNOPSIS\n.B {name}\n[OPTIONS]\n");
    for subcommand in command.get_subcommands() {
        text += &format!(".br\n.B {name} {}\n[OPTIONS]\n", subcommand.get_name());
    }
    text += &format!(
        ".SH DESCRIPTION\n{}\nWithout a command it is the daemon, in the background.\n",
        inline(&about)
    );
    text += ".SH OPTIONS\n";
    text += &options(command);
    text += ".SH COMMANDS\n";
    for subcommand in command.get_subcommands() {
        let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
        text += &format!(".SS {}\n{}\n", quoted(subcommand.get_name()), inline(&format!("{about}.")));
        text += &options(subcommand);
    }
    text + REST
}

fn options(command: &Command) -> String {
    command.get_arguments().map(option).collect()
}

/// An option with its spellings, and what it is for.
fn option(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("-{short}"));
    let long = arg.get_long().map(|long| format!("--{long}"));
    let value = arg.get_action().takes_values().then(|| arg.get_value_names()).flatten();
    let value = value.and_then(|names| names.first()).map(ToString::to_string);
    let spellings: Vec<_> = [short, long].into_iter().flatten().collect();
    let name = match (spellings.is_empty(), value) {
        (true, value) => value.unwrap_or_else(|| arg.get_id().to_string()),
        (false, Some(value)) => format!("{} {value}", spellings.join(", ")),
        (false, None) => spellings.join(", "),
    };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let is_flag = !arg.get_action().takes_values();
    let default = match defaults.as_slice() {
        [default] if !is_flag => format!(" (default: `{default}`)"),
        _ => String::new(),
    };
    format!(".TP\n.B {}\n{}\n", quoted(&name), inline(&format!("{help}{default}.")))
}
