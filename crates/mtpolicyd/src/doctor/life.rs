//! How the daemon fares: lists, servers, the journal, the clock, and whether anybody asks it.
//!
//! Knows: what a running daemon says, times. Must not know: how it was asked.

use super::{Facts, Finding, Last};
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: f64 = 86_400.0;

/// With less in the journal nothing can be said about how soon it is full.
const ENOUGH: f64 = 1_048_576.0;

/// The part of `max_size` that blocks may use, so that the file stays below it.
const USABLE: f64 = 15.0 / 16.0;

/// Plugins for which the time of day counts.
const TIMED: [&str; 5] = ["Accounting", "Greylist", "Honeypot", "Quota", "RateLimit"];

/// D22.
pub fn lists(facts: &Facts) -> Vec<Finding> {
    let lists = facts.live.lists.iter().filter(|list| list.quarantined || list.state.is_bad());
    let bad = lists.map(|list| {
        let begin = if list.quarantined { "is quarantined: " } else { "" };
        let wrong = list.tests.iter().filter(|test| !test.right);
        let answers: Vec<_> = wrong.map(|test| format!("{}: {}", test.asked, test.answer)).collect();
        let answers = if answers.is_empty() { String::new() } else { format!(" ({})", answers.join(", ")) };
        Finding::doubt("D22", format!("{} {begin}{}{answers}", list.zone, list.state))
            .fixed_by(format!("mtpolicyd lists --test '{}'", list.zone))
    });
    let known: Vec<_> = facts.live.lists.iter().map(|list| &list.zone).collect();
    let silent = facts.status.iter().flat_map(|status| &status.silent_lists);
    let silent = silent.filter(|list| !known.contains(list));
    bad.chain(silent.map(|list| Finding::doubt("D22", format!("{list} does not answer")))).collect()
}

/// D23.
pub fn backends(facts: &Facts) -> Vec<Finding> {
    let backends = facts.status.iter().flat_map(|status| &status.backends);
    let down = backends.filter(|backend| backend.state == "down").map(|backend| {
        let cause = backend.cause.as_deref().unwrap_or("it does not answer");
        Finding::wrong("D23", format!("connection {} ({}): {cause}", backend.name, backend.module))
    });
    let machine = &facts.machine;
    let others = machine.unanswered.iter().chain(&machine.denied);
    down.chain(others.map(|why| Finding::wrong("D23", why.clone()))).collect()
}

/// D24.
pub fn journal(facts: &Facts) -> Vec<Finding> {
    let Some(status) = &facts.status else { return Vec::new() };
    let (lost, place) = (status.decisions.lost, &status.decisions.place);
    let mut findings = Vec::new();
    if facts.number("mtpolicyd_journal_up").is_some_and(|up| up < 1.0) {
        findings.push(Finding::wrong("D24", format!("decisions are not kept: {place}")));
    } else if lost > 0 {
        findings.push(Finding::doubt("D24", format!("{lost} decisions could not be kept ({place})")));
    }
    findings.extend(full_too_soon(facts));
    findings
}

/// That the journal is full before its time is over, at the rate at which it has grown so far.
fn full_too_soon(facts: &Facts) -> Option<Finding> {
    let settings = facts.settings.as_ref()?.journal.bounds()?;
    let used = facts.number("mtpolicyd_journal_bytes").filter(|used| *used >= ENOUGH)?;
    let age = facts.number("mtpolicyd_journal_oldest_seconds").filter(|age| *age >= HOUR.as_secs_f64())?;
    #[allow(clippy::cast_precision_loss, reason = "a part of a day")]
    let room = settings.max_size as f64 * USABLE;
    let (reach, keep) = (room / (used / age), settings.keep.as_secs_f64());
    if reach >= keep {
        return None;
    }
    let text =
        format!("the journal reaches max_size after {:.1} days, keep says {:.1}", reach / DAY, keep / DAY);
    Some(
        Finding::doubt("D24", text)
            .at("<Journal>")
            .fixed_by("# in <Journal>: a larger max_size, or record = acted"),
    )
}

/// D27.
pub fn clock(facts: &Facts) -> Vec<Finding> {
    if !facts.has(&TIMED) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    if facts.machine.is_clock_set == Some(false) {
        let text = "the clock of this machine is not set by another one; greylisting and limits go by it";
        findings.push(Finding::doubt("D27", text).fixed_by("timedatectl set-ntp true"));
    }
    for path in &facts.machine.from_the_future {
        let text = format!("{} was written in the future: the clock is or was wrong", path.display());
        findings.push(Finding::doubt("D27", text));
    }
    findings
}

/// D31.
pub fn no_requests(facts: &Facts) -> Vec<Finding> {
    let (Some(status), Some(mail)) = (&facts.status, facts.machine.last_mail) else { return Vec::new() };
    let is_recent = |time: SystemTime| time.elapsed().is_ok_and(|elapsed| elapsed < HOUR);
    let has_run = Duration::from_secs(status.uptime_seconds) >= HOUR;
    // Where nobody asks the daemon, that is the finding.
    if !has_run || !is_recent(mail) || facts.ours().is_empty() {
        return Vec::new();
    }
    let since = match facts.live.last_decision {
        Some(Last::Never) if facts.sum("mtpolicyd_requests_total") == Some(0.0) => "since it was started",
        Some(Last::At(time)) if !is_recent(time) => "for more than an hour",
        _ => return Vec::new(),
    };
    let text = format!(
        "nobody has asked the daemon {since}, although Postfix has taken a message within the last hour"
    );
    vec![
        Finding::doubt("D31", text)
            .fixed_by("# does the message come in by a service that asks? postconf -Mf; mtpolicyd tail"),
    ]
}

impl Facts {
    /// The sum of a number of the daemon over all its labels.
    fn sum(&self, name: &str) -> Option<f64> {
        let family = self.live.metrics.families.iter().find(|family| family.name == name)?;
        Some(family.series.iter().map(|series| series.value).sum())
    }

    /// The value of a number of the daemon that has no labels.
    fn number(&self, name: &str) -> Option<f64> {
        let family = self.live.metrics.families.iter().find(|family| family.name == name)?;
        family.series.first().map(|series| series.value)
    }
}
