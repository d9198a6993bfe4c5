//! The command line of `policyd-client`, which its page and the completions are made of too.
//!
//! Knows: options. Must not know: what they do.

use clap::{Arg, ArgAction, Command, value_parser};
use std::ffi::OsString;
use std::path::PathBuf;

/// The name of the program.
pub const PROGRAM: &str = "policyd-client";

/// Where mtpolicyd listens if nobody says otherwise.
pub const DEFAULT_HOST: &str = "localhost:12345";

/// The options of `policyd-client`.
pub fn command() -> Command {
    let switch = |name: &'static str, short: char, negative: [&'static str; 2]| {
        let on = Arg::new(name).long(name).short(short).action(ArgAction::SetTrue);
        let off = Arg::new(negative[0]).long(negative[0]).alias(negative[1]).action(ArgAction::SetTrue);
        (on, off.overrides_with(name).hide(true))
    };
    let (keepalive, no_keepalive) = switch("keepalive", 'k', ["no-keepalive", "nokeepalive"]);
    let (verbose, no_verbose) = switch("verbose", 'v', ["no-verbose", "noverbose"]);
    Command::new(PROGRAM)
        .about("Asks a policy server the questions on standard input: name=value lines, then an empty line")
        .disable_help_flag(true)
        .infer_long_args(true)
        .args_override_self(true)
        .arg(
            Arg::new("host")
                .long("host")
                .short('h')
                .value_name("HOST:PORT")
                .default_value(DEFAULT_HOST)
                .help("The server's address"),
        )
        .arg(
            Arg::new("socket_path")
                .long("socket_path")
                .short('s')
                .value_name("PATH")
                .value_parser(value_parser!(PathBuf))
                .help("The server's UNIX socket, in place of an address"),
        )
        .arg(keepalive.help("Ask all questions over one connection"))
        .arg(no_keepalive)
        .arg(verbose.help("Show questions and answers on standard error"))
        .arg(no_verbose)
        .arg(
            Arg::new("help")
                .long("help")
                .short('?')
                .visible_alias("usage")
                .action(ArgAction::Help)
                .help("Print this"),
        )
        // The original skips words that are not options.
        .arg(Arg::new("ignored").num_args(0..).value_parser(value_parser!(OsString)).hide(true))
}
