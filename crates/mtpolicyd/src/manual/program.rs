//! The page of the program for man(1), from its command line.
//!
//! Knows: how clap describes a command. Must not know: what the options do.

use super::roff::{inline, quoted};
use clap::{Arg, Command};

/// The section of the manual for daemons.
pub const DAEMONS: u8 = 8;

/// The section of the manual for what users type.
pub const COMMANDS: u8 = 1;

/// What the command line of the daemon does not say of itself.
const REST_OF_DAEMON: &str = "\
.SH SIGNALS
.TP
SIGHUP
Reads the configuration again. If it is good, requests from now on use it, and no connection is
closed; if not, the old one stays in use and the log says what is wrong. A log file is opened again.
.TP
SIGUSR1
Opens a log file again, and nothing else.
.TP
SIGUSR2
Starts the program again, which may be a new version, and leaves the ports to the new process once that
answers; connections go on until their clients close them. If the new process does not start, the old one
stays in service and its log says why. With `chroot` the program is out of reach, so nothing changes.
.TP
SIGTERM, SIGINT
Stops accepting connections, answers the requests in flight, and ends.
.SH ENVIRONMENT
.TP
NOTIFY_SOCKET, WATCHDOG_USEC
Of systemd: where to say that the ports are open, and how often to give signs of life.
.TP
LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES
Of systemd: sockets that are open already. Each belongs to the virtual host that has its name, or else its
address.
.SH FILES
.TP
/etc/mtpolicyd/mtpolicyd.conf
The configuration.
.TP
/run/mtpolicyd/control.sock
Where status, reload, decisions and the other commands ask the running daemon; see
.BR mtpolicyd-control (5).
.SH EXIT STATUS
0 when all went well, 1 when the configuration or something that it names can't be used, 2 when the
command line can't. For the commands that ask the running daemon: 0 when all is well or something was found, 1
for mistakes, for nothing found and for a daemon that is not ready, 2 when the command could not do its work.
For import: 0 when everything was taken over, 1 when something was not (the standard
error lists it), 2 when nothing could be read or written.
.SH SEE ALSO
.BR mtpolicyd.conf (5),
.BR policyd-client (1),
.BR postconf (5),
.BR access (5)
.PP
Each module has a page of its own, such as
.BR mtpolicyd-RBL (5).
";

/// What that of the client does not.
const REST_OF_CLIENT: &str = "\
.SH EXAMPLES
.nf
printf 'client_address=192.0.2.1\\enrecipient=bob@example.org\\en\\en' | policyd-client
.fi
.PP
The answer is the action for Postfix, as in
.BR access (5).
\\fBrequest\\fR and \\fBinstance\\fR are made up where a question lacks them.
.SH EXIT STATUS
0 when all questions were answered; else the number of the system's error, such as 111 for a connection that
was refused, or 255.
.SH SEE ALSO
.BR mtpolicyd (8),
.BR mtpolicyd.conf (5)
";

/// The page of a command, in this section.
pub fn page(command: &Command, section: u8) -> String {
    let name = command.get_name();
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let summary = about.split(':').next().unwrap_or_default().replacen("A policy", "a policy", 1);
    let mut text = format!(".TH {} {section} \"\" mtpolicyd\n", quoted(&name.to_uppercase()));
    text += &format!(".SH NAME\n{name} \\- {}\n", inline(&summary));
    text += &format!(".SH SYNOPSIS\n.B {name}\n[OPTIONS]\n");
    for (subcommand, _) in commands(command) {
        text += &format!(".br\n.B {name} {subcommand}\n[OPTIONS]\n");
    }
    text += &format!(".SH DESCRIPTION\n{}.\n", inline(about.trim_end_matches('.')));
    if section == DAEMONS {
        text += "Without a command it is the daemon, in the background.\n";
    }
    text += ".SH OPTIONS\n";
    text += &options(command);
    if command.has_subcommands() {
        text += ".SH COMMANDS\n";
    }
    for (name, subcommand) in commands(command) {
        let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
        text += &format!(".SS {}\n{}\n", quoted(&name), inline(&format!("{about}.")));
        text += &options(subcommand);
    }
    text + if section == DAEMONS { REST_OF_DAEMON } else { REST_OF_CLIENT }
}

/// The commands below one, and those below them, each with its words.
fn commands(command: &Command) -> Vec<(String, &Command)> {
    let mut commands = Vec::new();
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_name();
        commands.push((name.to_owned(), subcommand));
        let below = self::commands(subcommand).into_iter();
        commands.extend(below.map(|(words, below)| (format!("{name} {words}"), below)));
    }
    commands
}

fn options(command: &Command) -> String {
    command.get_arguments().filter(|arg| !arg.is_hide_set()).map(option).collect()
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
