//! State by hand: `mtpolicyd greylist`, `awl`, `quota`, `limits`, `honeypot` and `lists`.
//!
//! Knows: the options of these commands. Must not know: how a plugin remembers something.

mod lists;
mod output;

use super::Asking;
use super::control::{Daemon, FOUND, Failure, NOTHING, Outcome, with_format};
use super::terminal::{Style, print};
use crate::server::control::{ChangesView, path_segment};
use crate::state::{Change, Entry, Kind, Listing, Order, Select};
use crate::value::{Seconds, Value};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use hyper::StatusCode;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Entries on one page of an answer.
const PAGE: usize = 200;

/// How many entries are shown where nobody says how many.
const USUAL_LIMIT: usize = 1_000;

/// What one of the commands has.
struct Shape {
    kind: Kind,
    name: &'static str,
    about: &'static str,
    /// What is named by its place, and with which option an entry is looked for.
    placed: &'static [&'static str],
    options: &'static [&'static str],
    changes: &'static [&'static str],
}

/// The commands.
const SHAPES: &[Shape] = &[
    Shape {
        kind: Kind::Greylist,
        name: "greylist",
        about: "Show greylisted clients, let one pass or have it wait again",
        placed: &[],
        options: &["plugin", "key", "client", "from", "to"],
        changes: &["allow", "reset", "set"],
    },
    Shape {
        kind: Kind::Awl,
        name: "awl",
        about: "Show the clients that a greylist knows, and forget one",
        placed: &["domain"],
        options: &["plugin", "key", "client", "domain"],
        changes: &["allow", "reset", "set"],
    },
    Shape {
        kind: Kind::Quota,
        name: "quota",
        about: "Show what a quota compares, and set or reset it",
        placed: &["plugin", "key"],
        options: &["period", "over"],
        changes: &["reset", "set"],
    },
    Shape {
        kind: Kind::Limits,
        name: "limits",
        about: "Show who is at a rate limit, and set or reset what is counted",
        placed: &["plugin", "key"],
        options: &["over"],
        changes: &["reset", "set"],
    },
    Shape {
        kind: Kind::Honeypot,
        name: "honeypot",
        about: "Show trapped clients, and let one go or trap one",
        placed: &["client"],
        options: &["plugin"],
        changes: &["reset", "set"],
    },
];

/// The commands: the options of each, and what does it.
pub const COMMANDS: [Asking; 6] = [
    (|| command(Kind::Greylist), |matches| run(Kind::Greylist, matches)),
    (|| command(Kind::Awl), |matches| run(Kind::Awl, matches)),
    (|| command(Kind::Quota), |matches| run(Kind::Quota, matches)),
    (|| command(Kind::Limits), |matches| run(Kind::Limits, matches)),
    (|| command(Kind::Honeypot), |matches| run(Kind::Honeypot, matches)),
    (lists::command, lists::run),
];

fn shape_of(kind: Kind) -> &'static Shape {
    SHAPES.iter().find(|shape| shape.kind == kind).unwrap_or(&SHAPES[0])
}

fn command(kind: Kind) -> Command {
    let shape = shape_of(kind);
    let command = Command::new(shape.name).about(shape.about).subcommand_required(true);
    let search = |name: &'static str, about: &'static str| {
        let limit = Arg::new("limit").long("limit").value_name("NUMBER").value_parser(value_parser!(usize));
        let limit = limit.help("How many entries to show at most; 1000 unless it is given, 0 shows all");
        with_format(Command::new(name).about(about)).args(arguments(shape, None)).arg(limit)
    };
    let command = command
        .subcommand(search("list", "List what matches"))
        .subcommand(search("show", "Show one entry, or what matches"));
    shape.changes.iter().fold(command, |command, change| command.subcommand(changing(shape, change)))
}

/// A command that changes something.
fn changing(shape: &Shape, change: &'static str) -> Command {
    let about = match (change, shape.kind) {
        ("allow", Kind::Awl) => "Let a client pass without waiting from now on",
        ("allow", _) => "Let the next attempt of a client pass",
        ("reset", _) => "Forget an entry, or some of its numbers",
        _ => "Set the numbers of an entry, as the undo of another change does",
    };
    let mut command = with_format(Command::new(change).about(about)).args(arguments(shape, Some(change)));
    let part = match shape.kind {
        Kind::Limits => Some(("window", "WINDOW", "Only the limit over this time, such as `hour` or `1h`")),
        Kind::Quota => Some(("metric", "NUMBER", "Only this number, such as `count` or `size`")),
        Kind::Greylist | Kind::Awl | Kind::Honeypot => None,
    };
    if let Some((name, value, help)) = part {
        let part = Arg::new("part").long(name).value_name(value).action(ArgAction::Append);
        command = command.arg(part.help(help));
    }
    if change == "set" && shape.kind != Kind::Honeypot {
        let values = Arg::new("values").value_name("NAME=NUMBER").num_args(1..).required(true);
        command = command.arg(values.help("What it is to be; a number alone is that of the option before"));
    }
    if matches!((change, shape.kind), (_, Kind::Greylist) | ("set", Kind::Honeypot)) && change != "reset" {
        let time = Arg::new("for").long("for").value_name("TIME");
        command = command.arg(time.help("For how long, such as `1h`; otherwise as the configuration says"));
    }
    let all = Arg::new("all").long("all").visible_alias("yes").action(ArgAction::SetTrue);
    command.arg(all.help("Change all entries that match, if there are several"))
}

/// What says which entries are meant.
fn arguments(shape: &Shape, change: Option<&str>) -> Vec<Arg> {
    let of = |name: &'static str| {
        let (value, help) = match name {
            "plugin" => ("PLUGIN", "The name of the plugin"),
            "key" => ("KEY", "The key of an entry, as a list shows it"),
            "client" => ("CLIENT", "The client: its address, or a network to find all clients in it"),
            "from" => ("SENDER", "The sender; `@example.org` is any of that domain"),
            "to" => ("RECIPIENT", "The recipient; `@example.org` is any of that domain"),
            "domain" => ("DOMAIN", "The domain of the sender"),
            "period" => ("PERIOD", "The period, as `time_pattern` writes it; otherwise the one that is now"),
            _ => ("PERCENT", "Only what is used to more than this, such as `80%`"),
        };
        Arg::new(name).value_name(value).help(help)
    };
    let placed = |name: &&'static str| match shape.kind {
        // It may also be written as an option, as an undo does.
        Kind::Awl => Arg::new("placed").value_name("DOMAIN").help("The domain of the sender"),
        Kind::Quota | Kind::Limits => of(name).required(change.is_some()),
        Kind::Greylist | Kind::Honeypot => of(name),
    };
    // What is set there stands at the place of the domain.
    let is_placed = !(shape.kind == Kind::Awl && change == Some("set"));
    let mut arguments: Vec<_> = shape.placed.iter().filter(|_| is_placed).map(placed).collect();
    let options = shape.options.iter().filter(|name| change.is_none() || **name != "over");
    arguments.extend(options.map(|name| of(name).long(*name)));
    arguments
}

/// Does what one of the commands asks for.
fn run(kind: Kind, matches: &ArgMatches) -> Outcome {
    let shape = shape_of(kind);
    match matches.subcommand() {
        Some(("list", matches)) => search(shape, matches, false),
        Some(("show", matches)) => search(shape, matches, true),
        Some((verb, matches)) => change(shape, verb, matches),
        None => Ok(super::control::FAILED),
    }
}

fn select(shape: &Shape, matches: &ArgMatches) -> Result<Select, Failure> {
    let known = |name: &str| shape.placed.contains(&name) || shape.options.contains(&name);
    let text = |name: &str| {
        let given = || matches.try_get_one::<String>(name).ok().flatten().cloned();
        if known(name) { given() } else { None }
    };
    let placed = || matches.try_get_one::<String>("placed").ok().flatten().cloned();
    let over = text("over").map(|over| {
        let number = over.trim_end_matches('%').parse();
        number.map_err(|_| Failure(format!("--over: `{over}` is not a percentage such as 80%")))
    });
    Ok(Select {
        plugin: text("plugin"),
        key: text("key"),
        client: text("client"),
        sender: text("from"),
        recipient: text("to"),
        domain: text("domain").or_else(placed),
        period: text("period"),
        over: over.transpose()?,
    })
}

/// The path of a question.
fn question(kind: Kind, select: &Select, cursor: Option<&str>, limit: usize) -> String {
    let over = select.over.map(|over| over.to_string());
    let pairs = [
        ("plugin", &select.plugin),
        ("key", &select.key),
        ("client", &select.client),
        ("from", &select.sender),
        ("to", &select.recipient),
        ("domain", &select.domain),
        ("period", &select.period),
        ("over", &over),
    ];
    let given = pairs.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
    let mut path = format!("/v1/state/{kind}?limit={limit}");
    for (name, value) in given.chain(cursor.map(|cursor| ("cursor", cursor))) {
        path += &format!("&{name}={}", path_segment(value));
    }
    path
}

fn search(shape: &Shape, matches: &ArgMatches, is_show: bool) -> Outcome {
    let (daemon, style, select) = (Daemon::of(matches)?, Style::of(matches), select(shape, matches)?);
    let most = match matches.get_one::<usize>("limit") {
        None => USUAL_LIMIT,
        Some(0) => usize::MAX,
        Some(most) => *most,
    };
    let (mut entries, mut cursor) = (Vec::<Entry>::new(), None::<String>);
    let mut notes = Vec::new();
    loop {
        let page = PAGE.min(most.saturating_sub(entries.len()).max(1));
        let found: Listing = daemon.get(&question(shape.kind, &select, cursor.as_deref(), page))?;
        entries.extend(found.entries);
        notes.extend(found.notes);
        cursor = found.next;
        if cursor.is_none() || entries.len() >= most {
            break;
        }
    }
    let is_cut = cursor.is_some() || entries.len() > most;
    entries.truncate(most);
    print(&output::entries(shape.kind, &entries, &style, is_show));
    for note in &notes {
        super::say(&format!("mtpolicyd: {}\n", super::terminal::safe(note)));
    }
    if is_cut {
        super::say(&format!("mtpolicyd: there are more than {most}; `--limit` shows them\n"));
    }
    match (entries.is_empty(), notes.is_empty()) {
        (false, _) => Ok(FOUND),
        (true, true) => {
            if !style.is_json {
                super::say("mtpolicyd: nothing matches\n");
            }
            Ok(NOTHING)
        }
        // What was asked for can't be found out so.
        (true, false) => Ok(super::control::FAILED),
    }
}

fn change(shape: &Shape, verb: &str, matches: &ArgMatches) -> Outcome {
    let (daemon, style, select) = (Daemon::of(matches)?, Style::of(matches), select(shape, matches)?);
    let order = Order { select, change: wanted(verb, matches)?, all: matches.get_flag("all") };
    if order.select == Select::default() && !order.all {
        return Err(Failure("say which entries are meant, or `--all`".to_owned()));
    }
    let body = serde_json::to_value(&order).map_err(|error| Failure(error.to_string()))?;
    let (status, answer) = daemon.post(&format!("/v1/state/{}", shape.kind), &body, PATIENCE)?;
    if status == StatusCode::CONFLICT {
        return Err(Failure(format!("{}: add --all", daemon.refused(status, &answer))));
    }
    let ChangesView { changed } = daemon.understand(status, &answer)?;
    print(&output::changes(shape.kind, &changed, &style));
    if changed.is_empty() {
        super::say("mtpolicyd: nothing matches\n");
        return Ok(NOTHING);
    }
    Ok(FOUND)
}

/// The change that the command line asks for.
fn wanted(verb: &str, matches: &ArgMatches) -> Result<Change, Failure> {
    let texts = |name: &str| -> Vec<String> {
        let given = matches.try_get_many::<String>(name).ok().flatten();
        given.map(|texts| texts.cloned().collect()).unwrap_or_default()
    };
    let time = matches.try_get_one::<String>("for").ok().flatten();
    let lifetime = time.map(|time| match Seconds::parse(time) {
        Ok(seconds) if seconds.whole() > 0 => Ok(seconds.whole()),
        _ => Err(Failure(format!("--for: `{time}` is not a time such as 1h"))),
    });
    let (lifetime, parts) = (lifetime.transpose()?, texts("part"));
    match verb {
        "reset" => Ok(Change::Reset { parts }),
        "allow" => Ok(Change::Allow { lifetime }),
        _ => Ok(Change::Set { values: values(&parts, &texts("values"))?, lifetime }),
    }
}

/// `NAME=NUMBER`, or numbers alone for the parts that options name.
fn values(parts: &[String], texts: &[String]) -> Result<BTreeMap<String, i64>, Failure> {
    let mut values = BTreeMap::new();
    let mut parts = parts.iter();
    for text in texts {
        let (name, number) = match text.rsplit_once('=') {
            Some((name, number)) => (Some(name.to_owned()), number),
            None => (parts.next().cloned(), text.as_str()),
        };
        let pair = name.zip(number.parse().ok());
        let (name, number) = pair.ok_or_else(|| Failure(format!("`{text}` is not NAME=NUMBER")))?;
        values.insert(name, number);
    }
    match parts.next() {
        Some(part) => Err(Failure(format!("`{part}` has no number"))),
        None => Ok(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_undo_is_understood() {
        let values = |pairs: &[(&str, i64)]| Change::Set {
            values: pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect(),
            lifetime: None,
        };
        let text = |text: &str| Some(text.to_owned());
        let by_key = Select { plugin: text("a b"), key: text("-x'y"), ..Select::default() };
        let client = Select { plugin: text("p"), client: text("192.0.2.0/24"), ..Select::default() };
        let triplet = Select { sender: text(""), recipient: text("b@x"), ..client.clone() };
        for (kind, select, change) in [
            (Kind::Limits, by_key.clone(), values(&[("1h", 200)])),
            (Kind::Limits, by_key.clone(), values(&[("1h", 200), ("1m", 3)])),
            (Kind::Limits, by_key.clone(), Change::Reset { parts: vec!["1h".to_owned()] }),
            (Kind::Quota, Select { period: text("2026 11"), ..by_key.clone() }, values(&[("count", 1)])),
            (Kind::Greylist, by_key, Change::Reset { parts: Vec::new() }),
            (
                Kind::Greylist,
                triplet,
                Change::Set {
                    values: BTreeMap::from([("passes_at".to_owned(), 1_764_000_000)]),
                    lifetime: Some(60),
                },
            ),
            (Kind::Awl, Select { domain: text("x"), ..client.clone() }, values(&[("count", 3)])),
            (Kind::Honeypot, client, Change::Set { values: BTreeMap::new(), lifetime: Some(7200) }),
        ] {
            let order = Order { select, change, all: false };
            let line = order.command(kind);
            let words = words(&line);
            let matches = crate::cli::command().try_get_matches_from(&words);
            let matches = matches.unwrap_or_else(|error| panic!("{line}: {error}"));
            let (name, matches) = matches.subcommand().unwrap();
            let shape = SHAPES.iter().find(|shape| shape.name == name).unwrap();
            let (verb, matches) = matches.subcommand().unwrap();
            let read = Order {
                select: select_of(shape, matches),
                change: wanted(verb, matches).unwrap(),
                all: false,
            };
            assert_eq!(read, order, "{line}");
        }
    }

    fn select_of(shape: &Shape, matches: &ArgMatches) -> Select {
        select(shape, matches).unwrap()
    }

    /// The words of a line as a shell takes them, as far as an undo needs it.
    fn words(line: &str) -> Vec<String> {
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("for word in {line}; do printf '%s\\0' \"$word\"; done")])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn numbers_have_names() {
        let of = |parts: &[&str], texts: &[&str]| {
            let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            values(&owned(parts), &owned(texts)).map_err(|failure| failure.0)
        };
        assert_eq!(of(&["1h"], &["5"]), Ok(BTreeMap::from([("1h".to_owned(), 5)])));
        assert_eq!(of(&[], &["1h=5", "1m=2"]).map(|values| values.len()), Ok(2));
        assert_eq!(of(&[], &["5"]), Err("`5` is not NAME=NUMBER".to_owned()));
        assert_eq!(of(&["1h"], &["1m=5"]), Err("`1h` has no number".to_owned()));
        assert_eq!(of(&[], &["1m=x"]), Err("`1m=x` is not NAME=NUMBER".to_owned()));
    }
}
