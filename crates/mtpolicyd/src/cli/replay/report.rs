//! What has come of a replay, printed: as a table and what made the differences, or as JSON.
//!
//! Knows: what was counted. Must not know: how decisions are made again.

use super::tally::{Difference, Group, MAX_DISTINCT, Tally, name_of};
use crate::cli::terminal::{Style, counted, grouped, or_dash, own, print, safe, short};
use crate::server::replay::PSEUDONYMS;
use backends::replay::Degree;
use decisions::{DecisionId, Outcome};
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Kinds of differences, and things that are not known, that are shown in a text.
const MAX_LINES: usize = 20;
/// Characters of an answer in a list.
const MAX_ANSWER: usize = 60;
/// Columns of an outcome in the table.
const COLUMN: usize = 10;

/// A replay that has ended.
pub(super) struct Report<'a> {
    pub tally: &'a Tally,
    pub style: &'a Style,
    /// The name service was asked.
    pub asks_dns: bool,
    /// Blocks of the journal that could not be read.
    pub damaged: u64,
}

impl Report<'_> {
    /// Prints it. Nothing in it depends on how long it took.
    pub(super) fn print(&self) {
        let text = if self.style.is_json { self.json() } else { self.text() };
        print(&text);
    }

    fn json(&self) -> String {
        let Tally { degrees, unknown, left_out, other_answers, matrix, .. } = self.tally;
        let mut text = String::new();
        for difference in &self.tally.listed {
            text += &serde_json::to_string(difference).unwrap_or_default();
            text.push('\n');
        }
        let outcomes: Vec<_> = matrix
            .iter()
            .map(|((was, now), count)| json!({"was": name(*was), "now": name(*now), "count": count}))
            .collect();
        let time = |id: DecisionId| decisions::rfc3339(id.time());
        let range = self.tally.range;
        let summary = json!({"summary": {
            "decisions": self.tally.total(),
            "from": range.map(|(first, _)| time(first)),
            "to": range.map(|(_, last)| time(last)),
            "exact": degrees[0],
            "simulated": degrees[1],
            "unknown": degrees[2],
            "differ": self.tally.differ(),
            "other_answers": other_answers,
            "outcomes": outcomes,
            "unknown_questions": unknown,
            "left_out": left_out,
            "damaged_blocks": self.damaged,
        }});
        text += &summary.to_string();
        text.push('\n');
        text
    }

    fn text(&self) -> String {
        let mut text = self.head();
        text += &self.matrix();
        text += &self.differences();
        text += &self.unknown();
        for difference in &self.tally.listed {
            text += &self.line(difference);
        }
        text
    }

    fn head(&self) -> String {
        let Tally { degrees, range, left_out, .. } = self.tally;
        let time = |id: DecisionId| self.style.time(&decisions::rfc3339(id.time()), "%Y-%m-%d %H:%M:%S");
        let range = range.map(|(first, last)| format!(" from {} to {}", time(first), time(last)));
        let of = |degree: Degree| format!("{} {}", grouped(degrees[degree as usize]), name_of(degree));
        let degrees = [Degree::Exact, Degree::Simulated, Degree::Unknown].map(of).join(", ");
        let count = counted(self.tally.total(), "decision");
        let mut text = format!("{count}{}: {degrees}\n", range.unwrap_or_default());
        for (why, count) in left_out {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{} left out: {why}", counted(*count, "decision"));
        }
        if self.damaged > 0 {
            let _ = writeln!(text, "{} of the journal can't be read", counted(self.damaged, "block"));
        }
        text
    }

    fn matrix(&self) -> String {
        let tally = self.tally;
        let had = |outcome: &Outcome| tally.with_outcome(*outcome) != (0, 0);
        let outcomes: Vec<_> = Outcome::ALL.into_iter().filter(had).collect();
        let mut text = format!("{:<12}", "would be:");
        for outcome in &outcomes {
            // Writing to a string does not fail.
            let _ = write!(text, "{:>COLUMN$}", outcome.name());
        }
        text.push('\n');
        for was in outcomes.iter().filter(|was| tally.with_outcome(**was).0 > 0) {
            let _ = write!(text, "was {:<8}", was.name());
            for now in &outcomes {
                let count = tally.matrix.get(&(*was as u8, *now as u8)).copied();
                let count = count.map_or_else(|| "-".to_owned(), grouped);
                let _ = write!(text, "{count:>COLUMN$}");
            }
            text.push('\n');
        }
        text
    }

    #[allow(clippy::cast_precision_loss, reason = "a share is shown to a hundredth")]
    fn differences(&self) -> String {
        let (differ, total) = (self.tally.differ(), self.tally.total());
        let share = differ as f64 * 100.0 / total.max(1) as f64;
        let verb = if differ == 1 { "differs" } else { "differ" };
        let mut text = format!("{} {verb} ({share:.2} %)\n", grouped(differ));
        let mut groups: Vec<_> = self.tally.groups.iter().collect();
        groups.sort_by_key(|(key, group)| (std::cmp::Reverse(group.count), (*key).clone()));
        for ((was, now, by), group) in groups.iter().take(MAX_LINES) {
            let change = format!("{} -> {}", name(*was), name(*now));
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:>6} {change:<18} {}", grouped(group.count), own(&described(by, group)));
        }
        if groups.len() > MAX_LINES {
            let _ = writeln!(text, "       and {} more kinds", groups.len() - MAX_LINES);
        }
        if self.tally.other_answers > 0 {
            let count = counted(self.tally.other_answers, "decision");
            let _ = writeln!(text, "{count} with the same outcome and another answer");
        }
        text
    }

    fn unknown(&self) -> String {
        let mut unknown: Vec<_> = self.tally.unknown.iter().collect();
        unknown.sort_by_key(|(what, count)| (std::cmp::Reverse(**count), (*what).clone()));
        let hint = if self.asks_dns { "" } else { " (--ask-dns asks the name service now)" };
        let mut text = String::new();
        for (number, (what, count)) in unknown.iter().take(MAX_LINES).enumerate() {
            let hint = if number == 0 { hint } else { "" };
            let (count, what) = (grouped(**count), safe(what));
            // Writing to a string does not fail.
            let _ = match &*what {
                PSEUDONYMS => writeln!(text, "unknown: {count} have {what}"),
                _ => writeln!(text, "unknown: {count} asked {what}, which nobody asked then{hint}"),
            };
        }
        if unknown.len() > MAX_LINES {
            let _ = writeln!(text, "unknown: and {} more", unknown.len() - MAX_LINES);
        }
        text
    }

    fn line(&self, difference: &Difference) -> String {
        let Difference { id, time, client, sender, recipient, was, now, trust, .. } = difference;
        let time = self.style.time(time, "%d %b %H:%M:%S");
        let (client, sender, recipient) = (safe(client), safe(sender), safe(recipient));
        let by = now.by.as_ref().or(was.by.as_ref()).map(|by| safe(by)).unwrap_or_default();
        format!(
            "{time}  {id}  {} -> {}  {trust}  by {}  {} {} -> {}  {}\n",
            was.outcome,
            now.outcome,
            or_dash(&by),
            or_dash(&client),
            or_dash(&sender),
            or_dash(&recipient),
            short(&now.answer, MAX_ANSWER),
        )
    }
}

fn described(by: &str, group: &Group) -> String {
    let number = |all: &BTreeSet<String>, what: &str| {
        let more = if all.len() >= MAX_DISTINCT { "more than " } else { "" };
        format!("{more}{}", counted(all.len() as u64, what))
    };
    let example = group.example.as_ref().map(|(id, sender)| {
        let sender = safe(sender);
        let from = if sender.is_empty() { String::new() } else { format!(" from {sender}") };
        format!(", e.g. {id}{from}")
    });
    format!(
        "{by}  {}, {}{}",
        number(&group.clients, "client"),
        number(&group.domains, "sender domain"),
        example.unwrap_or_default()
    )
}

fn name(outcome: u8) -> &'static str {
    Outcome::from_number(outcome).map_or("", Outcome::name)
}
