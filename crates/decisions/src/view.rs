//! Decisions for readers: names in place of numbers, as JSON has them.
//!
//! Knows: records, tables, JSON. Must not know: who reads it, how it is printed.

use crate::{Decision, DecisionId, Flags, LookupKind, OptionInfo, Origin, Outcome, Shadow, StepInfo};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::SystemTime;

/// The outcome of a step that the chain did not come to.
pub const UNREACHED: &str = "not reached";

/// The score of a message, unless a plugin says otherwise.
const SCORE: &str = "score";

/// A decision in one row, for lists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowView {
    /// Its identifier. An explanation has none, since it is not kept.
    #[serde(default, skip_serializing_if = "DecisionId::is_none")]
    pub id: DecisionId,
    /// When the request came, in RFC 3339, in UTC, to the hundredth of a second.
    pub time: String,
    /// The virtual host.
    pub host: String,
    /// What became of the request.
    pub outcome: Outcome,
    /// The plugin that decided or failed, as a path: `inbound/greylist`.
    pub by: Option<String>,
    /// Its place in the configuration, as `FILE:LINE`.
    pub place: Option<String>,
    /// The action as sent; `None` if the connection was closed.
    pub answer: Option<String>,
    /// Why there is no other answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Microseconds from the request to the answer.
    pub micros: u32,
    /// The attributes of the request that have a value; what is not UTF-8 is replaced.
    pub request: BTreeMap<String, String>,
    /// The time of the request was over.
    #[serde(default, skip_serializing_if = "is_false")]
    pub late: bool,
    /// A check could not find out, for a reason within the request.
    #[serde(default, skip_serializing_if = "is_false")]
    pub undecided: bool,
    /// The client did not take the answer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub not_sent: bool,
    /// What the shadow of the virtual host would have decided, if that is another outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
}

/// A decision with the way to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionView {
    /// What a list shows of it.
    #[serde(flatten)]
    pub row: RowView,
    /// The configuration that was in use, by its hash.
    pub configuration: String,
    /// The score of the message before the request.
    pub score_before: f64,
    /// The fields of the session before the request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub session: BTreeMap<String, String>,
    /// The plugins of the host in the order of the file, with what each did; those inside one that had no
    /// turn are left out.
    pub steps: Vec<StepView>,
    /// What was asked of servers.
    pub lookups: Vec<LookupView>,
    /// More steps, findings or lookups than are kept.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_cut: bool,
}

/// What a plugin did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    /// Its path.
    pub path: String,
    /// The name in its tag.
    pub name: String,
    /// Its module.
    pub module: String,
    /// Its place in the configuration, as `FILE:LINE`.
    pub place: String,
    /// How deep inside other plugins it stands.
    pub depth: u8,
    /// How its turn ended, in words.
    pub outcome: String,
    /// Microseconds from the begin of the chain; `None` if it had no turn.
    pub began: Option<u32>,
    /// Microseconds that it took.
    pub took: Option<u32>,
    /// What it added to scores.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<PointsView>,
    /// The score of the message after it.
    pub score: Option<f64>,
    /// What it found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// Its options as they are written, without secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<OptionInfo>,
}

/// A change of a score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointsView {
    /// The field of the session.
    pub field: String,
    /// What was added.
    pub points: f64,
}

/// A question to a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LookupView {
    /// What kind of server it was.
    pub kind: LookupKind,
    /// The connection or the server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub server: String,
    /// What was asked.
    pub question: String,
    /// The answer, or why there is none.
    pub answer: String,
    /// Microseconds that the request waited for it.
    pub micros: u32,
    /// Where the answer came from.
    pub origin: Origin,
}

/// A time as RFC 3339 has it, in UTC, to the hundredth of a second.
pub fn rfc3339(time: SystemTime) -> String {
    let shown = jiff::Timestamp::try_from(time).map(|time| format!("{time:.2}"));
    shown.unwrap_or_default()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl RowView {
    /// The row of a decision.
    pub fn of(decision: &Decision) -> RowView {
        let known = decision.attributes().filter(|(_, value)| !value.is_empty());
        RowView {
            id: decision.id,
            time: rfc3339(decision.id.time()),
            host: decision.host.to_string(),
            outcome: decision.outcome,
            by: decision.decider().map(|step| step.path.clone()),
            place: decision.decider().map(StepInfo::place),
            answer: (decision.outcome != Outcome::Closed).then(|| decision.answer.to_string()),
            failure: (!decision.failure.is_empty()).then(|| decision.failure.to_string()),
            micros: decision.took,
            request: known.map(|(name, value)| (text(name), text(value))).collect(),
            late: decision.flags.has(Flags::LATE),
            undecided: decision.flags.has(Flags::UNDECIDED),
            not_sent: decision.flags.has(Flags::NOT_SENT),
            shadow: decision.shadow.as_deref().cloned(),
        }
    }

    /// The value of an attribute of the request; empty if it has none.
    pub fn attribute(&self, name: &str) -> &str {
        self.request.get(name).map_or("", String::as_str)
    }
}

impl DecisionView {
    /// The whole of a decision.
    pub fn of(decision: &Decision) -> DecisionView {
        let session = decision.session.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        let lookups = decision.walk.lookups.iter().map(|lookup| LookupView {
            kind: lookup.kind,
            server: lookup.server.to_string(),
            question: lookup.question.to_string(),
            answer: lookup.answer.to_string(),
            micros: lookup.waited,
            origin: lookup.origin,
        });
        DecisionView {
            row: RowView::of(decision),
            configuration: decision.table.fingerprint.clone(),
            score_before: decision.score,
            session: session.collect(),
            steps: steps(decision),
            lookups: lookups.collect(),
            is_cut: decision.walk.is_cut,
        }
    }
}

/// The steps that were made, each followed by those of its chain that were not reached.
fn steps(decision: &Decision) -> Vec<StepView> {
    let walk = &decision.walk;
    let mut score = decision.score;
    let mut steps: Vec<(u16, StepView)> = Vec::with_capacity(walk.steps.len());
    for (place, step) in walk.steps.iter().enumerate() {
        let Some(info) = decision.table.get(step.number) else { continue };
        let is_own = |other: u16| usize::from(other) == place;
        let points = walk.points.iter().filter(|points| is_own(points.step));
        let points: Vec<_> = points
            .map(|points| PointsView { field: points.field.to_string(), points: points.points })
            .collect();
        score +=
            points.iter().filter(|points| points.field == SCORE).map(|points| points.points).sum::<f64>();
        let findings = walk.notes().filter(|(step, _)| is_own(*step)).map(|(_, text)| text.to_owned());
        let view = StepView {
            outcome: step.outcome.name().to_owned(),
            began: Some(step.began),
            took: Some(step.took),
            points,
            score: Some(score),
            findings: findings.collect(),
            ..unreached(info)
        };
        steps.push((step.number, view));
    }
    add_unreached(decision, &mut steps);
    steps.into_iter().map(|(_, step)| step).collect()
}

/// Adds the plugins of the host that had no turn, where they stand in the file. Those inside one that had
/// none are left out: nobody knows whether they would have had one.
fn add_unreached(decision: &Decision, steps: &mut Vec<(u16, StepView)>) {
    let had_turn = |path: &str, steps: &[(u16, StepView)]| {
        steps.iter().any(|(_, step)| step.path == path && step.outcome != UNREACHED)
    };
    for (number, info) in decision.table.steps.iter().enumerate() {
        let Ok(number) = u16::try_from(number) else { break };
        let is_here = *info.host == *decision.host && !had_turn(&info.path, steps);
        let around = info.path.rsplit_once('/').map_or("", |(around, _)| around);
        if is_here && (info.depth == 0 || had_turn(around, steps)) {
            let place = steps.iter().position(|(other, _)| *other > number).unwrap_or(steps.len());
            steps.insert(place, (number, unreached(info)));
        }
    }
}

fn unreached(info: &StepInfo) -> StepView {
    StepView {
        path: info.path.clone(),
        name: info.name.clone(),
        module: info.module.clone(),
        place: info.place(),
        depth: info.depth,
        outcome: UNREACHED.to_owned(),
        began: None,
        took: None,
        points: Vec::new(),
        score: None,
        findings: Vec::new(),
        options: info.options.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::decision;
    use crate::{StepOutcome, StepTable};
    use std::sync::Arc;

    fn info(path: &str, depth: u8) -> StepInfo {
        let (host, name) = (path.split('/').next(), path.split('/').next_back());
        let [host, name, path, module, file] =
            [host.unwrap(), name.unwrap(), path, "Action", "f"].map(str::to_owned);
        StepInfo { host, name, path, module, depth, file, line: 1, options: Vec::new() }
    }

    #[test]
    fn what_was_not_reached_stands_where_the_file_has_it() {
        let mut decision = decision("sender=a@example.org\n\n", Outcome::Reject);
        let paths = [
            ("inbound/a", 0),
            ("inbound/b", 0),
            ("inbound/b/c", 1),
            ("inbound/b/d", 1),
            ("inbound/e", 0),
            ("inbound/e/f", 1),
            ("outbound/a", 0),
        ];
        let steps = paths.map(|(path, depth)| info(path, depth)).into();
        decision.table = Arc::new(StepTable { steps, ..StepTable::default() });
        decision.score = 1.0;
        decision.by = Some(1);
        let a = decision.walk.begin(0, 0);
        decision.walk.add_points("score", 2.5);
        decision.walk.add_points("other", 7.0);
        decision.walk.note("found");
        decision.walk.end(a, StepOutcome::Next);
        let b = decision.walk.begin(1, 0);
        let c = decision.walk.begin(2, 1);
        decision.walk.end(c, StepOutcome::Stopped);
        decision.walk.end(b, StepOutcome::Stopped);
        let view = DecisionView::of(&decision);
        let shown: Vec<_> = view.steps.iter().map(|step| (&*step.path, &*step.outcome, step.score)).collect();
        let expected = [
            ("inbound/a", "next", Some(3.5)),
            ("inbound/b", "stopped", Some(3.5)),
            ("inbound/b/c", "stopped", Some(3.5)),
            ("inbound/b/d", "not reached", None),
            ("inbound/e", "not reached", None),
        ];
        assert_eq!(shown, expected);
        assert_eq!((view.steps[0].points.len(), &view.steps[0].findings[..]), (2, &["found".to_owned()][..]));
        assert_eq!(view.row.by.as_deref(), Some("inbound/b"));
    }

    #[test]
    fn it_is_the_same_after_json() {
        let view = DecisionView::of(&decision("sender=a@example.org\nhelo_name=\n\n", Outcome::Closed));
        let text = serde_json::to_string(&view).unwrap();
        assert_eq!(serde_json::from_str::<DecisionView>(&text).unwrap(), view);
        assert!(text.contains(r#""outcome":"closed""#) && text.contains(r#""answer":null"#), "{text}");
        assert!(!text.contains("helo_name"), "what has no value is left out: {text}");
        assert_eq!(view.row.time, "2026-01-08T18:24:48.64Z");
    }
}
