//! `mtpolicyd explain`: one decision, with the way that led to it; or what would be decided about a request.
//!
//! Knows: how a decision is printed. Must not know: where it comes from.

use super::control::{Daemon, FOUND, Failure, Outcome, with_format};
use super::source::{Source, journal_option};
use super::terminal::{Paint, Style, milliseconds, or_dash, own, points, print, safe, table};
use crate::log::escape_json;
use crate::server::control::{ChosenView, ConfigView, ExplainedView, Question};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use decisions::{DecisionId, DecisionView, LookupKind, LookupView, RowView, Shadow, StepView, UNREACHED};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The score of a message, unless a plugin says otherwise.
const SCORE: &str = "score";

/// Characters of the options of the plugin that decided, behind its place in the file.
const MAX_OPTIONS: usize = 120;

/// Its options.
pub fn command() -> Command {
    let about = "Explain a decision: what each plugin did about the request, and which one decided; or say \
                 what would be decided about a request, without any effect";
    let what = Arg::new("what").value_name("ID|NAME=VALUE").num_args(0..);
    let command = with_format(Command::new("explain").about(about));
    let command = command.mut_arg("config", |config| {
        config.help(
            "The configuration file of the daemon, which may name its control socket; or another one, to say \
             what would be decided with it",
        )
    });
    command.args([
        what.help(
            "The identifier of a decision, such as 9F3KQ-2M7TX; or the attributes of a request, such as \
             client_address=192.0.2.1",
        ),
        Arg::new("at")
            .long("at")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .conflicts_with("what")
            .help(
                "Read the request from a file, one attribute a line, as Postfix sends it; `-` is the input",
            ),
        Arg::new("again")
            .long("again")
            .action(ArgAction::SetTrue)
            .help("Show beside the decision what would be decided about its request now"),
        Arg::new("without")
            .long("without")
            .value_name("PLUGIN")
            .action(ArgAction::Append)
            .help("Leave out this plugin, by its name or path; may be given several times"),
        Arg::new("host").long("host").value_name("NAME").help("The virtual host that the request goes to"),
        Arg::new("options")
            .long("options")
            .action(ArgAction::SetTrue)
            .help("Show the options of each plugin too, with their places in the file"),
        journal_option().conflicts_with_all(["config", "socket", "at", "again", "without", "host"]),
    ])
}

/// Does it.
pub fn run(matches: &ArgMatches) -> Outcome {
    let what: Vec<&str> =
        matches.get_many::<String>("what").unwrap_or_default().map(String::as_str).collect();
    let (source, style) = (Source::of(matches)?, Style::of(matches));
    let request = match matches.get_one::<PathBuf>("at") {
        Some(path) => attributes(read(path)?.lines().take_while(|line| !line.is_empty()))?,
        None if what.iter().any(|word| word.contains('=')) => attributes(what.iter().copied())?,
        None => {
            let [id] = what[..] else {
                return Err(Failure("name one decision, or the attributes of a request".to_owned()));
            };
            return explain_id(id, &source, &style, matches);
        }
    };
    if request.is_empty() {
        return Err(Failure("the request has no attribute".to_owned()));
    }
    let daemon = source.daemon().ok_or_else(|| {
        Failure("a journal has decisions only; what would be decided is asked of the daemon".to_owned())
    })?;
    would(request, daemon, &style, matches)
}

/// A decision that was made, and what would be decided now if that is asked for too.
fn explain_id(id: &str, source: &Source, style: &Style, matches: &ArgMatches) -> Outcome {
    let id: DecisionId = id.parse().map_err(|error: decisions::IdError| Failure(own(&error.to_string())))?;
    let (view, json) = source.one(id)?;
    let daemon = source.daemon();
    let other = daemon.map(|daemon| other_file(daemon, matches)).transpose()?.flatten();
    let is_tried = matches.get_flag("again") || matches.contains_id("without") || other.is_some();
    if style.is_json {
        print(&format!("{}\n", escape_json(&json)));
    } else {
        print(&explanation(&view, style, matches.get_flag("options")));
    }
    let Some(daemon) = daemon.filter(|_| is_tried) else { return Ok(FOUND) };
    if !style.is_json {
        print("\nnow\n\n");
    }
    would(view.row.request, daemon, style, matches)
}

/// What would be decided about a request.
fn would(request: BTreeMap<String, String>, daemon: &Daemon, style: &Style, matches: &ArgMatches) -> Outcome {
    /// The daemon itself gives up before.
    const LONGEST: Duration = Duration::from_secs(130);
    let question = Question {
        request,
        host: matches.get_one::<String>("host").cloned(),
        without: matches.get_many::<String>("without").unwrap_or_default().cloned().collect(),
        configuration: other_file(daemon, matches)?,
    };
    let question = serde_json::to_value(&question).map_err(|error| Failure(error.to_string()))?;
    let (status, body) = daemon.post("/v1/explain", &question, LONGEST)?;
    let view: ExplainedView = daemon.understand(status, &body)?;
    if style.is_json {
        print(&format!("{}\n", escape_json(&String::from_utf8_lossy(&body))));
        return Ok(FOUND);
    }
    let with_options = matches.get_flag("options");
    print(&explanation(&view.decision, style, with_options));
    print(&chosen(&view.chosen));
    for what in &view.would {
        print(&format!("  would {}\n", safe(what)));
    }
    Ok(FOUND)
}

/// The configuration file that was named, if it is another one than the daemon uses.
fn other_file(daemon: &Daemon, matches: &ArgMatches) -> Result<Option<PathBuf>, Failure> {
    let is_given = matches.value_source("config") == Some(ValueSource::CommandLine);
    let Some(file) = matches.get_one::<PathBuf>("config").filter(|_| is_given) else { return Ok(None) };
    let full = std::path::absolute(file);
    let full = full.map_err(|error| Failure(format!("{}: {error}", own(&file.to_string_lossy()))))?;
    let in_use: ConfigView = daemon.get("/v1/config")?;
    let in_use = PathBuf::from(in_use.configuration.file);
    let is_same = full == in_use
        || full.canonicalize().is_ok_and(|full| in_use.canonicalize().is_ok_and(|it| it == full));
    Ok((!is_same).then_some(full))
}

/// Options of which the user had his own value.
fn chosen(chosen: &[ChosenView]) -> String {
    let rows = chosen.iter().map(|chosen| {
        let by = match chosen.by.as_str() {
            "" => "a field of the session".to_owned(),
            by => format!("setting found by plugin {} {}", safe(by), safe(&chosen.place)),
        };
        vec![
            format!("      {}", safe(&chosen.step)),
            safe(&chosen.option),
            safe(&chosen.value),
            format!("{}: {by}", safe(&chosen.field)),
        ]
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() { String::new() } else { format!("\n  not as in the file\n{}", table(&rows)) }
}

fn read(path: &Path) -> Result<String, Failure> {
    let bytes = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    bytes.map_err(|error| Failure(format!("{}: {error}", own(&path.to_string_lossy()))))
}

fn attributes<'a>(words: impl Iterator<Item = &'a str>) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |word: &'a str| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Failure(format!(
            "`{}` is not an attribute, which looks like sender=a@example.org",
            own(word)
        ))),
    };
    words.map(pair).collect()
}

/// A decision as people read it: the request, the answer and who decided, each step, each lookup.
pub fn explanation(view: &DecisionView, style: &Style, with_options: bool) -> String {
    let mut text = head(view, style);
    text.push('\n');
    text += &steps(view, style);
    if view.is_cut {
        text += "  more steps, findings or lookups than are kept\n";
    }
    if !view.session.is_empty() {
        let fields = view.session.iter().map(|(name, value)| format!("{}={}", safe(name), safe(value)));
        text += &format!("\n  session before  {}\n", fields.collect::<Vec<_>>().join("  "));
    }
    text += &lookups(&view.lookups);
    text += &view.row.shadow.as_ref().map(|shadow| in_shadow(shadow, style)).unwrap_or_default();
    if with_options {
        text += &options(&view.steps);
    }
    text
}

/// The request and the answer.
pub fn head(view: &DecisionView, style: &Style) -> String {
    let row = &view.row;
    let attribute = |name: &str| safe(or_dash(row.attribute(name)));
    let client = match row.attribute("client_name") {
        "" | "unknown" => attribute("client_address"),
        name => format!("{} ({})", attribute("client_address"), safe(name)),
    };
    let login = match row.attribute("sasl_username") {
        "" => String::new(),
        login => format!("  login {}", safe(login)),
    };
    let sender = if row.attribute("sender").is_empty() { "<>".to_owned() } else { attribute("sender") };
    let answer = match &row.answer {
        Some(answer) => style.paint(paint(row), &safe(answer)),
        None => style.paint(Paint::Bad, "none, the connection was closed"),
    };
    let mut text = format!(
        "{}  {}  host {}  {}  queue {}  instance {}\n  \
         client {client}  helo {}  from {sender}  to {}{login}\n  \
         answer after {} ms: {answer}\n",
        if row.id.is_none() { "an explanation".to_owned() } else { row.id.to_string() },
        style.time(&row.time, "%Y-%m-%d %H:%M:%S%.2f %:z"),
        safe(&row.host),
        attribute("protocol_state"),
        attribute("queue_id"),
        attribute("instance"),
        attribute("helo_name"),
        attribute("recipient"),
        milliseconds(row.micros.into()),
    );
    text += &decider(view);
    if let Some(failure) = &row.failure {
        text += &format!("  {}\n", style.paint(Paint::Bad, &format!("failed: {}", safe(failure))));
    }
    let marks = [
        (row.late, "the time of the request was over"),
        (row.undecided, "a check could not find out, for a reason within the request"),
        (row.not_sent, "the client did not take the answer"),
    ];
    let marks = marks.iter().filter(|(is_set, _)| *is_set).map(|(_, what)| *what).collect::<Vec<_>>();
    if !marks.is_empty() {
        text += &format!("  {}\n", style.paint(Paint::Mild, &marks.join("; ")));
    }
    text
}

/// What the shadow of the host would have decided.
fn in_shadow(shadow: &Shadow, style: &Style) -> String {
    let by = match (&shadow.by, &shadow.place) {
        (Some(by), Some(place)) => format!("by {}, {}", safe(by), safe(place)),
        _ => "by no plugin".to_owned(),
    };
    let answer = match &*shadow.answer {
        "" => "none, the connection would be closed".to_owned(),
        answer => safe(answer),
    };
    let outcome = style.paint(Paint::Mild, shadow.outcome.name());
    let mut text = format!(
        "\n  shadow {}: {outcome} {by} ({})\n  answer of the shadow: {answer}\n",
        safe(&shadow.file),
        safe(&shadow.trust),
    );
    if !shadow.failure.is_empty() {
        text += &format!("  failed: {}\n", safe(&shadow.failure));
    }
    let rows = shadow.steps.iter().map(|step| {
        let outcome = step.outcome.name();
        vec![format!("      {}", safe(&step.path)), outcome.to_owned()]
    });
    text + &table(&rows.collect::<Vec<_>>())
}

/// The plugin that decided, its place in the file, and what it was told there.
fn decider(view: &DecisionView) -> String {
    let (Some(by), Some(place)) = (&view.row.by, &view.row.place) else {
        return "  decided by no plugin\n".to_owned();
    };
    let step = view.steps.iter().find(|step| step.path == *by);
    let options = step.into_iter().flat_map(|step| &step.options).filter(|option| option.name != "module");
    let mut shown = String::new();
    for option in options {
        let option = format!("  {} = {}", safe(&option.name), safe(&option.value));
        if shown.chars().count() + option.chars().count() > MAX_OPTIONS {
            shown += "  ...";
            break;
        }
        shown += &option;
    }
    format!("  decided by {}, {}{shown}\n", safe(by), safe(place))
}

/// The color of what became of a request.
pub fn paint(row: &RowView) -> Paint {
    use decisions::Outcome::{Closed, Defer, Discard, Header, Pass, Reject};
    match row.outcome {
        Pass | Header => Paint::Good,
        Reject | Discard | Closed => Paint::Bad,
        Defer => Paint::Mild,
        _ => Paint::Dim,
    }
}

/// The table of the steps. Those that had no turn stand in one line, if they stand beside one another.
pub fn steps(view: &DecisionView, style: &Style) -> String {
    let heads = ["    ms", "step", "outcome", "points", "score", ""];
    let mut rows = vec![heads.map(str::to_owned).to_vec()];
    let mut steps = view.steps.iter().peekable();
    while let Some(step) = steps.next() {
        let mut row = row(step);
        if step.outcome == UNREACHED {
            while let Some(next) = steps.next_if(|next| next.outcome == UNREACHED && next.depth == step.depth)
            {
                row[1] += &format!(", {}", safe(&next.name));
            }
        }
        rows.push(row);
    }
    // Colored when the widths are known: the codes have none.
    let text = table(&rows);
    let lines = text.lines().map(|line| {
        let is_stop = line.contains(" STOPPED ") || line.ends_with(" STOPPED");
        let line = if is_stop { style.paint(Paint::Mild, line) } else { line.to_owned() };
        line + "\n"
    });
    lines.collect()
}

fn row(step: &StepView) -> Vec<String> {
    let began = step.began.map_or_else(|| "-".to_owned(), |micros| milliseconds(micros.into()));
    let outcome = match step.outcome.as_str() {
        "stopped" => "STOPPED".to_owned(),
        "failed" => "FAILED".to_owned(),
        other => safe(other),
    };
    let own = step.points.iter().filter(|points| points.field == SCORE).map(|points| points.points);
    let own: Vec<f64> = own.collect();
    let added = if own.is_empty() { String::new() } else { signed(own.iter().sum()) };
    let others = step.points.iter().filter(|points| points.field != SCORE);
    let others = others.map(|other| format!("{} {}", safe(&other.field), signed(other.points)));
    let findings = step.findings.iter().map(|finding| safe(finding)).chain(others).collect::<Vec<_>>();
    let indent = "  ".repeat(step.depth.into());
    vec![
        format!("{began:>6}"),
        format!("{indent}{}", safe(&step.name)),
        outcome,
        added,
        step.score.map(points).unwrap_or_default(),
        findings.join("; "),
    ]
}

fn signed(number: f64) -> String {
    let text = points(number);
    if text.starts_with('-') { text } else { format!("+{text}") }
}

fn lookups(lookups: &[LookupView]) -> String {
    if lookups.is_empty() {
        return String::new();
    }
    let rows = lookups.iter().enumerate().map(|(number, lookup)| {
        vec![
            if number == 0 { "  lookups" } else { "" }.to_owned(),
            format!("{}{}", server(lookup), safe(&lookup.question)),
            safe(or_dash(&lookup.answer)),
            format!("{:>7} ms", milliseconds(lookup.micros.into())),
            lookup.origin.name().to_owned(),
        ]
    });
    format!("\n{}", table(&rows.collect::<Vec<_>>()))
}

/// Who was asked, in front of the question: nothing for the name service, whose questions say it.
fn server(lookup: &LookupView) -> String {
    let kind = lookup.kind.name();
    if lookup.kind == LookupKind::Dns {
        return String::new();
    }
    match lookup.server.as_str() {
        "" => format!("{kind}: "),
        server => format!("{kind} {}: ", safe(server)),
    }
}

fn options(steps: &[StepView]) -> String {
    let mut rows = Vec::new();
    for step in steps {
        for (number, option) in step.options.iter().enumerate() {
            rows.push(vec![
                if number == 0 { format!("      {}", safe(&step.name)) } else { String::new() },
                safe(&option.name),
                safe(&option.value),
                format!("{}:{}", safe(&option.file), option.line),
            ]);
        }
    }
    if rows.is_empty() { String::new() } else { format!("\n  options\n{}", table(&rows)) }
}
