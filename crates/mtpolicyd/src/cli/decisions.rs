//! `mtpolicyd decisions`: what was decided, searched by everything that a decision consists of.
//!
//! Knows: the options of a search, how rows are printed. Must not know: where decisions are kept.

use super::control::{FAILED, FOUND, Failure, NOTHING, Outcome, with_format};
use super::explain::paint;
use super::forget;
use super::source::{Source, journal_option};
use super::terminal::{Style, counted, or_dash, own, print, safe, short};
use crate::log::escape_json;
use crate::server::control::{KeptView, filter_text};
use crate::value::{Seconds, Value};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use decisions::{DecisionId, Filter, RowView};
use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use std::io::IsTerminal;
use std::time::SystemTime;

/// Decisions of one answer of the daemon.
const PAGE: u64 = 1000;

/// Characters of the columns of the table that strangers fill.
const MAX_CELL: usize = 30;
/// Characters of the answer in the table.
const MAX_ANSWER: usize = 60;

/// The help of `--outcome`.
const OUTCOMES: &str = "Those that came to this: pass, header, reject, defer, discard, hold, redirect, other \
                        or closed; several are separated by commas";

/// What is done to a message that does not pass.
const REFUSED: [decisions::Outcome; 4] = [
    decisions::Outcome::Reject,
    decisions::Outcome::Defer,
    decisions::Outcome::Discard,
    decisions::Outcome::Closed,
];

/// Adds the options that say which decisions are wanted.
pub fn with_filters(command: Command) -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    command.args([
        text("from", "ADDRESS", "Those of this sender; @example.org is any of a domain"),
        text("to", "ADDRESS", "Those to this recipient, likewise"),
        text("client", "ADDRESS", "Those of this client: an IP address or a network such as 192.0.2.0/24"),
        text("client-name", "NAME", "Those of clients of this name"),
        text("login", "NAME", "Those of this login (sasl_username)"),
        text("helo", "NAME", "Those of clients that call themselves this"),
        text("queue", "ID", "Those with this queue id"),
        text("instance", "ID", "All requests of one message"),
        text("plugin", "NAME", "Those that this plugin decided, or in which it failed"),
        text("outcome", "OUTCOME", OUTCOMES).action(ArgAction::Append).value_delimiter(','),
        Arg::new("refused")
            .long("refused")
            .action(ArgAction::SetTrue)
            .conflicts_with("outcome")
            .help("Those whose message did not pass: reject, defer, discard and closed"),
        text("host", "NAME", "Those of this virtual host"),
        text("slower", "TIME", "Those that took longer than this, such as 500ms"),
        Arg::new("failed").long("failed").action(ArgAction::SetTrue).help("Those in which something failed"),
        Arg::new("shadow-differs")
            .long("shadow-differs")
            .action(ArgAction::SetTrue)
            .help("Those that the shadow of their virtual host would have decided otherwise"),
        text("text", "TEXT", "Those in which this occurs: in the request, the answer, a finding or a lookup"),
        text("about", "ADDRESS", "Those in which this address, or this login, occurs anywhere"),
    ])
}

/// Its options.
pub fn command() -> Command {
    let time =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).value_name("TIME").help(help);
    let command = with_format(Command::new("decisions").about("Search what was decided, the newest first"));
    let command = command.args_conflicts_with_subcommands(true).subcommand(forget::command());
    with_filters(command).args([
        time("since", "Not before this: a span such as 2d or 30m, a date, or a time as in 2026-11-30T09:00"),
        time("until", "Before this, likewise"),
        Arg::new("id").long("id").value_name("ID").help("The one with this identifier"),
        Arg::new("limit")
            .long("limit")
            .value_name("NUMBER")
            .value_parser(value_parser!(u64).range(1..))
            .help("Maximum number of decisions to print"),
        journal_option(),
    ])
}

/// The filter that the options say.
pub fn filter(matches: &ArgMatches) -> Result<Filter, Failure> {
    let text = |name: &str| matches.try_get_one::<String>(name).ok().flatten().cloned();
    let outcomes = matches.get_many::<String>("outcome").unwrap_or_default();
    let outcome =
        outcomes.map(|name| name.parse().map_err(|why: String| Failure(format!("--outcome: {}", own(&why)))));
    let slower = text("slower").map(|text| Seconds::parse(&text)).transpose();
    let slower = slower.map_err(|why| Failure(format!("--slower: {}", own(&why))))?;
    let now = SystemTime::now();
    let moment = |name: &str| {
        let read = text(name).map(|text| moment(&text, now, &TimeZone::system())).transpose();
        read.map_err(|why| Failure(format!("--{name}: {}", own(&why))))
    };
    let filter = Filter {
        from: text("from"),
        to: text("to"),
        client: text("client"),
        client_name: text("client-name"),
        login: text("login"),
        helo: text("helo"),
        queue: text("queue"),
        instance: text("instance"),
        plugin: text("plugin"),
        outcome: if matches.get_flag("refused") {
            REFUSED.to_vec()
        } else {
            outcome.collect::<Result<_, _>>()?
        },
        host: text("host"),
        since: moment("since")?,
        until: moment("until")?,
        slower: slower.map(|time| u32::try_from(time.duration().as_micros()).unwrap_or(u32::MAX)),
        failed: matches.get_flag("failed"),
        shadow_differs: matches.get_flag("shadow-differs"),
        text: text("text"),
        about: text("about"),
    };
    filter.check().map_err(|why| Failure(format!("--client: {}", own(&why.to_string()))))?;
    Ok(filter)
}

/// A moment as people write it: how long ago, a date, a time of theirs, or one of RFC 3339.
pub fn moment(text: &str, now: SystemTime, zone: &TimeZone) -> Result<DecisionId, String> {
    let local = |time: DateTime| zone.to_zoned_datetime(time).ok().map(|time| time.timestamp());
    let written = text.replace(' ', "T");
    let time = written
        .parse::<Timestamp>()
        .ok()
        .or_else(|| local(written.parse::<DateTime>().ok()?))
        .or_else(|| local(text.parse::<Date>().ok()?.to_datetime(jiff::civil::Time::midnight())));
    if let Some(time) = time.and_then(|time| time.try_into().ok()) {
        return Ok(DecisionId::first_at(time));
    }
    let ago = Seconds::parse(text).ok().and_then(|ago| now.checked_sub(ago.duration()));
    let why = || format!("`{text}` is neither a span such as 2d nor a time such as 2026-11-30T09:00");
    ago.map(DecisionId::first_at).ok_or_else(why)
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    if let Some(("forget", matches)) = matches.subcommand() {
        return forget::run(matches);
    }
    let (filter, style) = (filter(matches)?, Style::of(matches));
    let source = Source::of(matches)?;
    let mut rows = Rows::new(&style);
    if let Some(id) = matches.get_one::<String>("id") {
        let id: DecisionId = id.parse().map_err(|why: decisions::IdError| Failure(own(&why.to_string())))?;
        rows.print(&source.row(id)?)?;
        return Ok(FOUND);
    }
    let most = matches.get_one::<u64>("limit").copied().unwrap_or(u64::MAX);
    let (mut before, mut problems) = (None::<DecisionId>, Vec::new());
    let mut progress = SearchProgress::default();
    let kept = loop {
        let page = source.search(&filter, before, PAGE.min(most - rows.printed))?;
        progress.clear();
        for row in &page.decisions {
            if !rows.print(row)? {
                return Ok(FOUND);
            }
        }
        page.problems.into_iter().for_each(|problem| add(&mut problems, problem));
        before = page.next;
        match before {
            Some(next) if rows.printed < most => {
                if page.unfinished {
                    progress.show(next, rows.printed, &style);
                }
            }
            _ => break page.kept,
        }
    };
    for problem in &problems {
        super::say(&format!("warning: {}\n", own(problem)));
    }
    let is_all = before.is_none();
    super::say(&format!("{}\n", summary(rows.printed, is_all, &kept, &filter, &style)));
    Ok(match (rows.printed, problems.is_empty()) {
        (0, true) => NOTHING,
        // What was asked for can't be found out so.
        (0, false) => FAILED,
        _ => FOUND,
    })
}

/// Adds what is not there yet.
pub fn add(problems: &mut Vec<String>, problem: String) {
    if !problems.contains(&problem) {
        problems.push(problem);
    }
}

/// A line on the terminal that says how far a long search has come.
#[derive(Default)]
struct SearchProgress {
    is_shown: bool,
}

impl SearchProgress {
    fn show(&mut self, to: DecisionId, found: u64, style: &Style) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        let time = style.time(&decisions::rfc3339(to.time()), "%Y-%m-%d %H:%M:%S");
        super::say(&format!(
            "\rsearched back to {time}, {} so far; Ctrl-C ends it",
            counted(found, "decision")
        ));
        self.is_shown = true;
    }

    /// Removes it, since other lines follow.
    fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            // Back to the first column, and the rest of the line erased (ECMA-48).
            super::say("\r\u{1b}[K");
        }
    }
}

/// How many there are, and of what.
fn summary(found: u64, is_all: bool, kept: &KeptView, filter: &Filter, style: &Style) -> String {
    let wanted = filter_text(&Filter { since: None, until: None, ..filter.clone() });
    let wanted = if wanted.is_empty() { String::new() } else { format!(" with {}", own(&wanted)) };
    let time = |word: &str, moment: Option<DecisionId>| {
        let shown = moment.map(|id| style.time(&decisions::rfc3339(id.time()), "%Y-%m-%d %H:%M:%S"));
        shown.map(|shown| format!(" {word} {shown}")).unwrap_or_default()
    };
    let times = time("since", filter.since) + &time("until", filter.until);
    let begins = kept.begins.as_ref().map(|time| style.time(time, "%Y-%m-%d %H:%M:%S"));
    let begins = begins.map_or_else(|| "nothing yet".to_owned(), |begins| format!("{begins} to now"));
    let lost = match kept.lost {
        0 => "nothing lost".to_owned(),
        lost => format!("{} lost", counted(lost, "decision")),
    };
    let more = if is_all { "" } else { ", and there are more" };
    let count = if found == 0 { "no decisions".to_owned() } else { counted(found, "decision") };
    format!("{count}{wanted}{times}{more} ({}: {begins}, {lost})", own(&kept.place))
}

/// Rows as they are printed: a table on a terminal, lines elsewhere, or JSON.
pub struct Rows<'a> {
    style: &'a Style,
    /// How many were printed.
    pub printed: u64,
}

impl<'a> Rows<'a> {
    /// No rows yet.
    pub fn new(style: &'a Style) -> Rows<'a> {
        Rows { style, printed: 0 }
    }

    /// Prints one more; `false` once nobody reads them.
    pub fn print(&mut self, row: &RowView) -> Result<bool, Failure> {
        let text = if self.style.is_json {
            let json = serde_json::to_string(row).map_err(|error| Failure(error.to_string()))?;
            format!("{}\n", escape_json(&json))
        } else if self.style.is_terminal {
            let head = if self.printed == 0 { head() } else { String::new() };
            head + &cells(row, self.style)
        } else {
            line(row, self.style)
        };
        self.printed += 1;
        Ok(print(&text))
    }
}

fn head() -> String {
    columns(["time", "id", "outcome", "by", "client", "from", "answer"].map(str::to_owned), |cell| cell)
}

/// One row of the table. The widths are fixed: the rows are printed as they come.
fn columns(cells: [String; 7], color: impl Fn(String) -> String) -> String {
    let [time, id, outcome, by, client, from, answer] = cells;
    let outcome = color(format!("{outcome:8}"));
    format!("{time:15}  {id:11}  {outcome}  {by:16}  {client:15}  {from:30}  {answer}\n")
}

fn cells(row: &RowView, style: &Style) -> String {
    let by = row.by.as_deref().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    let sender = if row.attribute("sender").is_empty() { "<>" } else { row.attribute("sender") };
    let cells = [
        style.time(&row.time, "%d %b %H:%M:%S"),
        row.id.to_string(),
        row.outcome.to_string(),
        short(or_dash(by), MAX_CELL),
        short(or_dash(row.attribute("client_address")), MAX_CELL),
        short(sender, MAX_CELL),
        short(&answer_and_shadow(row), MAX_ANSWER),
    ];
    columns(cells, |cell| style.paint(paint(row), &cell))
}

/// The answer, and before it what the shadow would have decided, if that is another outcome.
fn answer_and_shadow(row: &RowView) -> String {
    let answer = row.answer.as_deref().unwrap_or("(connection closed)");
    let Some(shadow) = &row.shadow else { return answer.to_owned() };
    let by = shadow.by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
    format!("[shadow: {}{by}] {answer}", shadow.outcome)
}

/// One line for grep(1): time, identifier, then `name=value` with what strangers have sent escaped.
fn line(row: &RowView, style: &Style) -> String {
    let mut text = format!("{} {}", style.time(&row.time, "%Y-%m-%dT%H:%M:%S%.2f%:z"), row.id);
    let mut add = |name: &str, value: &str| text += &format!(" {name}={}", safe(value));
    add("host", &row.host);
    add("outcome", row.outcome.name());
    add("by", or_dash(row.by.as_deref().unwrap_or_default()));
    add("place", or_dash(row.place.as_deref().unwrap_or_default()));
    let names = [
        ("client", "client_address"),
        ("helo", "helo_name"),
        ("from", "sender"),
        ("to", "recipient"),
        ("login", "sasl_username"),
        ("queue", "queue_id"),
        ("instance", "instance"),
    ];
    for (name, attribute) in names {
        match row.attribute(attribute) {
            "" if name == "from" => add(name, "<>"),
            "" => {}
            value => add(name, value),
        }
    }
    if let Some(shadow) = &row.shadow {
        add("live", row.outcome.name());
        add("shadow", shadow.outcome.name());
        add("shadow_by", or_dash(shadow.by.as_deref().unwrap_or_default()));
        add("shadow_place", or_dash(shadow.place.as_deref().unwrap_or_default()));
    }
    // The answer has blanks, so it comes last.
    add("answer", row.answer.as_deref().unwrap_or("(connection closed)"));
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_understood_as_people_write_them() {
        let now: SystemTime = "2026-11-30T12:00:00Z".parse::<Timestamp>().unwrap().try_into().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let shown = |text: &str| moment(text, now, &zone).map(|id| decisions::rfc3339(id.time()));
        for (text, time) in [
            ("2d", "2026-11-28T12:00:00.00Z"),
            ("90", "2026-11-30T11:58:30.00Z"),
            ("2026-11-30", "2026-11-29T23:00:00.00Z"),
            ("2026-11-30T09:00", "2026-11-30T08:00:00.00Z"),
            ("2026-11-30 09:00:30", "2026-11-30T08:00:30.00Z"),
            ("2026-11-30T09:00:00Z", "2026-11-30T09:00:00.00Z"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(time), "{text}");
        }
        assert!(shown("yesterday").unwrap_err().contains("neither a span such as 2d"));
    }

    #[test]
    fn options_become_a_filter() {
        let matches = |arguments: &[&str]| {
            command()
                .try_get_matches_from([&["decisions"], arguments].concat())
                .map_err(|error| error.to_string())
        };
        let read = filter(&matches(&["--to", "bob@example.org", "--refused", "--slower", "500ms"]).unwrap())
            .unwrap();
        assert_eq!((read.to.as_deref(), read.slower), (Some("bob@example.org"), Some(500_000)));
        assert_eq!(read.outcome, REFUSED);
        let read = filter(&matches(&["--outcome", "pass,hold", "--failed"]).unwrap()).unwrap();
        assert_eq!((read.outcome.len(), read.failed), (2, true));
        for (arguments, why) in [
            (["--outcome", "refuse"], "not an outcome"),
            (["--client", "192.0.2.0/33"], "neither an IP address"),
            (["--since", "soon"], "neither a span"),
        ] {
            let said = filter(&matches(&arguments).unwrap()).unwrap_err().0;
            assert!(said.contains(why), "{said}");
        }
        assert!(matches(&["--outcome", "pass", "--refused"]).is_err());
    }
}
