//! `mtpolicyd replay`: what another configuration would have decided about the messages of the journal.
//!
//! It runs in this process, reads files, and opens no connection but to the database of the journal, if that
//! is in one, and to the name service, if that may be asked.
//!
//! Knows: the options, where the decisions are. Must not know: how a decision is made again.

mod report;
mod tally;

use super::control::{FAILED, FOUND, Failure, NOTHING, Outcome};
use super::decisions::moment;
use super::terminal::{Style, counted, grouped, own};
use crate::server::replay::Replayer;
use crate::settings::{JournalSettings, Settings};
use crate::value::{Seconds, Value};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use decisions::DecisionId;
use decisions::journal::OldestFirst;
use jiff::tz::TimeZone;
use report::Report;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use tally::{Growth, Shown, Tally};
use tokio::runtime::Handle;

/// How far back it goes where nothing else is said.
const USUAL_RANGE: Duration = Duration::from_secs(86_400);
/// Differences that are shown one by one in a text, where nothing else is said.
const USUAL_LIMIT: u64 = 20;
/// Decisions between two looks at the clock and at signals.
const ROUND: u64 = 256;
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_millis(200);

/// Its options.
pub fn command() -> Command {
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    let file = Arg::new("journal").long("journal").value_name("FILE").value_parser(value_parser!(PathBuf));
    let limit = Arg::new("limit").long("limit").value_name("NUMBER").value_parser(value_parser!(u64));
    let about = "Try a configuration on the decisions of the journal: what would be decided otherwise";
    super::control::with_style(Command::new("replay").about(about)).args([
        Arg::new("config")
            .short('c')
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .default_value(super::DEFAULT_CONFIGURATION)
            .help("The configuration file to try"),
        file.help("The journal; without it, the one that the configuration file names"),
        text("since", "TIME", "Not before this: a span such as 2d or 30m, a date, or a time; by default 1d"),
        text("until", "TIME", "Before this, likewise"),
        text("host", "NAME", "Only decisions of this virtual host"),
        text("show", "FROM->TO", "List the decisions that would change in this way, such as pass->reject"),
        limit.help("Maximum number of decisions to list"),
        text(
            "warm-up",
            "TIME",
            "Also run this much of the time before, without reporting it, to fill counters",
        ),
        switch("ask-dns", "Ask the name service now what nobody asked it then"),
        text(
            "fail-on",
            "OUTCOME:+N%",
            "Exit with 1 only if this outcome grows by more than this, such as reject:+0.5% or defer:+10",
        )
        .action(ArgAction::Append),
    ])
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let given = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let shown = given("show").map(str::parse::<Shown>).transpose();
    let shown = shown.map_err(|why| Failure(format!("--show: {}", own(&why))))?;
    let growths = matches.get_many::<String>("fail-on").unwrap_or_default();
    let growths: Result<Vec<Growth>, String> = growths.map(|text| text.parse()).collect();
    let growths = growths.map_err(|why| Failure(format!("--fail-on: {}", own(&why))))?;
    let range = Range::of(matches)?;
    let path = matches.get_one::<PathBuf>("config").cloned().unwrap_or_default();
    let settings = match Settings::load_to_replay(&path) {
        Ok((settings, _)) => settings,
        Err(messages) => {
            super::say(&messages.to_string());
            let s = if messages.errors() == 1 { "" } else { "s" };
            let (path, errors) = (path.display(), messages.errors());
            return Err(Failure(format!("{path}: the configuration can't be used: {errors} error{s}")));
        }
    };
    // The database is asked by threads of its own while decisions are replayed here.
    let asking = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let asking = asking.map_err(|error| Failure(format!("cannot start: {error}")))?;
    let named = matches.get_one::<PathBuf>("journal").map(PathBuf::as_path);
    let journal = open(named, &settings.journal, &path, &range, asking.handle())?;
    let style = Style::of(matches);
    range.say_what_is_missing(&journal, &style);
    let limit = matches.get_one::<u64>("limit").copied();
    let limit = limit.unwrap_or(if style.is_json { u64::MAX } else { USUAL_LIMIT });
    let replayer = Replayer::new(settings, matches.get_flag("ask-dns"));
    let tally = Tally::new(shown, if style.is_json || shown.is_some() { limit } else { 0 });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure(format!("cannot start: {error}")))?;
    let host = given("host").map(str::to_owned);
    let work = Work { journal, replayer, tally, since: range.since, host };
    let (tally, damaged, is_whole) = runtime.block_on(work.run())?;
    if tally.total() == 0 && is_whole {
        return Err(Failure("there is no decision in this time that could be replayed".to_owned()));
    }
    let report = Report { tally: &tally, style: &style, asks_dns: matches.get_flag("ask-dns"), damaged };
    report.print();
    if !is_whole {
        super::say("mtpolicyd: ended early: what is shown is about the decisions until then\n");
        return Ok(FAILED);
    }
    let is_alarm = match &growths[..] {
        [] => tally.differ() > 0,
        growths => growths.iter().any(|growth| tally.has_grown(growth)),
    };
    Ok(if is_alarm { NOTHING } else { FOUND })
}

/// Opens the file that is named, or else the journal of the configuration file.
fn open(
    given: Option<&Path>,
    settings: &JournalSettings,
    configuration: &Path,
    range: &Range,
    asking: &Handle,
) -> Result<OldestFirst, Failure> {
    let (begin, until) = (range.begin(), range.until);
    let opened = match (given, settings) {
        (Some(file), _) => OldestFirst::open(file, begin, until),
        (None, JournalSettings::File(journal)) => OldestFirst::open(&journal.file, begin, until),
        (None, JournalSettings::Database(_, database)) => {
            OldestFirst::of_database(database.asked_by(asking.clone()), begin, until)
        }
        (None, JournalSettings::Memory | JournalSettings::Off) => {
            let path = configuration.display();
            let why = "has no <Journal>: name the journal of the daemon with --journal FILE. A daemon that \
                       has none keeps its last decisions in memory only: give it a block <Journal>, or try \
                       the file on what comes, with `shadow = FILE` in its virtual host";
            return Err(Failure(format!("{path} {why}")));
        }
    };
    opened.map_err(|error| Failure(own(&error.to_string())))
}

/// The time that is replayed.
struct Range {
    since: DecisionId,
    /// As it was given.
    given: Option<String>,
    until: Option<DecisionId>,
    warm_up: Duration,
}

impl Range {
    fn of(matches: &ArgMatches) -> Result<Range, Failure> {
        let now = SystemTime::now();
        let given = |name: &str| matches.get_one::<String>(name);
        let read = |name: &str| {
            let read = given(name).map(|text| moment(text, now, &TimeZone::system())).transpose();
            read.map_err(|why| Failure(format!("--{name}: {}", own(&why))))
        };
        let warm_up = given("warm-up").map(|text| Seconds::parse(text)).transpose();
        let warm_up = warm_up.map_err(|why| Failure(format!("--warm-up: {}", own(&why))))?;
        let usual = now.checked_sub(USUAL_RANGE).map_or(DecisionId::from_number(0), DecisionId::first_at);
        Ok(Range {
            since: read("since")?.unwrap_or(usual),
            given: given("since").cloned(),
            until: read("until")?,
            warm_up: warm_up.map_or(Duration::ZERO, |span| span.duration()),
        })
    }

    /// Where reading begins.
    fn begin(&self) -> DecisionId {
        let begin = self.since.time().checked_sub(self.warm_up);
        begin.map_or(DecisionId::from_number(0), DecisionId::first_at)
    }

    fn say_what_is_missing(&self, journal: &OldestFirst, style: &Style) {
        let covered = journal.covered();
        if let (Some(given), Some(from)) = (&self.given, covered.from.filter(|from| *from > self.since)) {
            let begins = style.time(&decisions::rfc3339(from.time()), "%Y-%m-%d %H:%M:%S");
            let given = own(given);
            super::say(&format!("mtpolicyd: --since {given}: the journal begins {begins}\n"));
        }
        if covered.lost > 0 {
            let lost = counted(covered.lost, "decision");
            super::say(&format!("mtpolicyd: the journal has lost {lost}, which are not replayed\n"));
        }
    }
}

/// What is to be replayed, and what has come of it.
struct Work {
    journal: OldestFirst,
    replayer: Replayer,
    tally: Tally,
    /// What is before only fills counters.
    since: DecisionId,
    host: Option<String>,
}

impl Work {
    /// Replays all; whether it came to the end.
    async fn run(mut self) -> Result<(Tally, u64, bool), Failure> {
        let mut progress = Progress::new(self.journal.total());
        let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
        let mut read = 0;
        while let Some(decision) = self.journal.next() {
            let decision = decision.map_err(|error| Failure(own(&error.to_string())))?;
            read += 1;
            if read % ROUND == 0 {
                progress.show(read);
                // Zero time: it only looks whether there was a signal.
                if tokio::time::timeout(Duration::ZERO, &mut interrupted).await.is_ok() {
                    progress.clear();
                    return Ok((self.tally, self.journal.damaged(), false));
                }
            }
            if self.host.as_deref().is_some_and(|host| *host != *decision.host) {
                continue;
            }
            let is_counted = decision.id >= self.since;
            let then = is_counted.then(|| tally::Then::of(&decision));
            let again = self.replayer.again(*decision).await;
            if let Some(then) = then {
                self.tally.add(then, again);
            }
        }
        progress.clear();
        Ok((self.tally, self.journal.damaged(), true))
    }
}

/// How far it has come, on a terminal.
struct Progress {
    total: u64,
    is_shown: bool,
    last: Instant,
}

impl Progress {
    fn new(total: u64) -> Progress {
        Progress { total, is_shown: std::io::stderr().is_terminal(), last: Instant::now() }
    }

    fn show(&mut self, read: u64) {
        if self.is_shown && self.last.elapsed() >= PROGRESS {
            self.last = Instant::now();
            let (read, total) = (grouped(read), grouped(self.total));
            super::say(&format!("\r{read} of {total} decisions"));
        }
    }

    fn clear(&self) {
        if self.is_shown {
            // A terminal that has gone away shows nothing.
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
