//! `mtpolicyd console`: a link that signs in to the console, and the tokens of others.
//!
//! Knows: the options of these commands. Must not know: pages, where tokens are kept.

use super::control::{Daemon, FOUND, Failure, NOTHING, Outcome, with_format};
use super::terminal::{Style, print, safe, table};
use crate::server::control::{ConsoleLinkView, TokenAddedView, TokensView, path_segment};
use clap::{Arg, ArgMatches, Command};
use hyper::Method;
use serde::Serialize;
use serde_json::json;
use std::time::Duration;

/// How long the daemon may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What somebody may do, in the words of the daemon.
const LEVELS: [&str; 3] = ["read", "change", "admin"];

/// Its options.
pub fn command() -> Command {
    let level = || Arg::new("level").long("level").value_name("LEVEL").value_parser(LEVELS);
    let name = || Arg::new("name").value_name("NAME").required(true);
    let open = Command::new("open").about("Print a link that signs in to the console once, within a minute");
    let add = Command::new("add").about("Make a token and print it, which is the only time it is shown");
    let list = Command::new("list").about("List whose tokens there are");
    let remove = Command::new("remove").about("Remove a token, and sign out whoever has used it");
    let token = Command::new("token")
        .about("Tokens for people who sign in to the console without a link")
        .subcommand_required(true)
        .subcommand(with_format(add).args([
            name().help("Whose token it is; the name stands in the audit"),
            level().required(true).help("What the token allows"),
        ]))
        .subcommand(with_format(list))
        .subcommand(with_format(remove).arg(name().help("Whose token it is")));
    Command::new("console")
        .about("Sign in to the console, or make tokens for others")
        .subcommand_required(true)
        .subcommand(
            with_format(open).arg(level().help("What the link allows; without it, what you may do yourself")),
        )
        .subcommand(token)
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    match matches.subcommand() {
        Some(("open", matches)) => open(matches),
        Some(("token", matches)) => match matches.subcommand() {
            Some(("add", matches)) => add(matches),
            Some(("remove", matches)) => remove(matches),
            Some((_, matches)) => list(matches),
            None => Err(Failure("which command?".to_owned())),
        },
        _ => Err(Failure("which command?".to_owned())),
    }
}

fn open(matches: &ArgMatches) -> Outcome {
    let daemon = Daemon::of(matches)?;
    let body = matches.get_one::<String>("level").map_or(json!({}), |level| json!({ "level": level }));
    let (status, answer) = daemon.post("/v1/console/links", &body, PATIENCE)?;
    let link: ConsoleLinkView = daemon.understand(status, &answer)?;
    if Style::of(matches).is_json {
        return print_json(&link);
    }
    let shown = link.url.unwrap_or_else(|| format!("THE ADDRESS OF THE CONSOLE/{}", link.path));
    print(&format!("{}\n", safe(&shown)));
    super::say(&format!("works once within {} s; level {}\n", link.seconds, safe(&link.level)));
    Ok(FOUND)
}

fn add(matches: &ArgMatches) -> Outcome {
    let daemon = Daemon::of(matches)?;
    let text = |name: &str| matches.get_one::<String>(name);
    let body = json!({ "name": text("name"), "level": text("level") });
    let (status, answer) = daemon.post("/v1/console/tokens", &body, PATIENCE)?;
    let added: TokenAddedView = daemon.understand(status, &answer)?;
    if Style::of(matches).is_json {
        return print_json(&added);
    }
    print(&format!("{}\n", safe(&added.token)));
    super::say("it is not shown again; only its hash is kept\n");
    Ok(FOUND)
}

fn list(matches: &ArgMatches) -> Outcome {
    let (daemon, style) = (Daemon::of(matches)?, Style::of(matches));
    let tokens = daemon.get::<TokensView>("/v1/console/tokens")?.tokens;
    if style.is_json {
        for token in &tokens {
            print_json(token)?;
        }
    } else {
        let rows = tokens.iter().map(|token| {
            let created = style.time(&token.created, "%Y-%m-%d %H:%M");
            vec![safe(&token.name), safe(&token.level), format!("since {created}")]
        });
        print(&table(&rows.collect::<Vec<_>>()));
    }
    Ok(if tokens.is_empty() { NOTHING } else { FOUND })
}

fn remove(matches: &ArgMatches) -> Outcome {
    let daemon = Daemon::of(matches)?;
    let name = matches.get_one::<String>("name").map_or("", String::as_str);
    let path = format!("/v1/console/tokens/{}", path_segment(name));
    let (status, answer) = daemon.change(Method::DELETE, &path, PATIENCE)?;
    let removed: serde_json::Value = daemon.understand(status, &answer)?;
    if Style::of(matches).is_json {
        return print_json(&removed);
    }
    print(&format!("token {} removed\n", safe(name)));
    Ok(FOUND)
}

fn print_json(value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string(value).map_err(|error| Failure(error.to_string()))?;
    print(&format!("{text}\n"));
    Ok(FOUND)
}
