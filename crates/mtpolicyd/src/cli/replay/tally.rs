//! What has come of a replay: how many decisions would be others, and which.
//!
//! Knows: decisions and how far they can be trusted. Must not know: how it is printed.

use crate::server::replay::Again;
use backends::replay::{Degree, Trust};
use decisions::{Decision, DecisionId, Outcome};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::sync::Arc;

/// Clients, domains or names that are told apart; of more only that there are more.
pub(super) const MAX_DISTINCT: usize = 10_000;

/// What is needed of a decision as it was.
pub(super) struct Then {
    id: DecisionId,
    host: Arc<str>,
    outcome: Outcome,
    by: Option<String>,
    place: Option<String>,
    answer: Box<str>,
    client: String,
    sender: String,
    recipient: String,
}

/// What has come of all.
#[derive(Default)]
pub(super) struct Tally {
    /// How many were one outcome and would be another, or the same.
    pub matrix: BTreeMap<(u8, u8), u64>,
    /// How many of each degree.
    pub degrees: [u64; 3],
    /// Those that differ, by what made the difference.
    pub groups: BTreeMap<(u8, u8, String), Group>,
    /// Same outcome, other answer.
    pub other_answers: u64,
    /// What nobody asked then, and how many decisions want to know it.
    pub unknown: BTreeMap<String, u64>,
    /// Decisions that could not be made again, by the reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// The first and the last one.
    pub range: Option<(DecisionId, DecisionId)>,
    /// Those that are listed.
    pub listed: Vec<Difference>,
    shown: Option<Shown>,
    limit: u64,
}

/// Decisions that would change alike.
#[derive(Default)]
pub(super) struct Group {
    pub count: u64,
    pub clients: BTreeSet<String>,
    pub domains: BTreeSet<String>,
    /// The first of them, and its sender.
    pub example: Option<(DecisionId, String)>,
}

/// A decision that would be another.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Difference {
    /// Its identifier.
    pub id: DecisionId,
    /// When it was, in RFC 3339.
    pub time: String,
    /// The virtual host.
    pub host: String,
    /// The address of the client.
    pub client: String,
    /// The sender.
    pub sender: String,
    /// The recipient.
    pub recipient: String,
    /// What it was.
    pub was: Side,
    /// What it would be.
    pub now: Side,
    /// `exact`, `simulated` or `unknown`.
    pub trust: &'static str,
    /// What nobody asked then.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unknown: BTreeSet<String>,
}

/// A decision by one of the two configurations.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Side {
    /// What became of the request.
    pub outcome: Outcome,
    /// The plugin that decided, as a path.
    pub by: Option<String>,
    /// Its place in the configuration.
    pub place: Option<String>,
    /// The action; empty if the connection is closed.
    pub answer: String,
}

/// Which decisions are listed: from this outcome to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown(Outcome, Outcome);

/// How many more decisions may have an outcome.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Growth {
    outcome: Outcome,
    by: Most,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Most {
    Number(u64),
    Percent(f64),
}

impl FromStr for Shown {
    type Err = String;
    fn from_str(text: &str) -> Result<Shown, String> {
        let parts = text.split_once("->").ok_or("write two outcomes, such as pass->reject")?;
        Ok(Shown(parts.0.trim().parse()?, parts.1.trim().parse()?))
    }
}

impl FromStr for Growth {
    type Err = String;
    fn from_str(text: &str) -> Result<Growth, String> {
        let form = || format!("`{text}` is not an outcome and a number, such as reject:+0.5% or defer:+10");
        let (outcome, by) = text.split_once(":+").ok_or_else(form)?;
        let by = match by.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.parse().map_err(|_| form())?;
                if !percent.is_finite() || percent < 0.0 {
                    return Err(form());
                }
                Most::Percent(percent)
            }
            None => Most::Number(by.parse().map_err(|_| form())?),
        };
        Ok(Growth { outcome: outcome.parse()?, by })
    }
}

impl Then {
    pub(super) fn of(decision: &Decision) -> Then {
        let text = |name| String::from_utf8_lossy(decision.attribute(name).unwrap_or_default()).into_owned();
        Then {
            id: decision.id,
            host: decision.host.clone(),
            outcome: decision.outcome,
            by: decision.decider().map(|step| step.path.clone()),
            place: decision.decider().map(decisions::StepInfo::place),
            answer: decision.answer.clone(),
            client: text("client_address"),
            sender: text("sender"),
            recipient: text("recipient"),
        }
    }
}

impl Tally {
    pub(super) fn new(shown: Option<Shown>, limit: u64) -> Tally {
        Tally { shown, limit, ..Tally::default() }
    }

    /// A decision was made again.
    pub(super) fn add(&mut self, then: Then, again: Again) {
        let (now, trust) = match again {
            Again::Decided(now, trust) => (now, trust),
            Again::LeftOut(why) => {
                *self.left_out.entry(why).or_default() += 1;
                return;
            }
        };
        let first = self.range.map_or(then.id, |(first, _)| first);
        self.range = Some((first, then.id));
        self.degrees[trust.degree as usize] += 1;
        for what in &trust.unknown {
            if self.unknown.len() < MAX_DISTINCT || self.unknown.contains_key(what) {
                *self.unknown.entry(what.clone()).or_default() += 1;
            }
        }
        let pair = (then.outcome as u8, now.outcome as u8);
        *self.matrix.entry(pair).or_default() += 1;
        if then.outcome == now.outcome {
            self.other_answers += u64::from(then.answer != now.answer);
        } else {
            self.group(&then, &now);
        }
        let is_shown = match self.shown {
            Some(Shown(from, to)) => then.outcome == from && now.outcome == to,
            None => then.outcome != now.outcome,
        };
        // The same outcome is only listed where the answer is another one.
        if is_shown && (then.outcome != now.outcome || then.answer != now.answer) {
            self.list(then, &now, trust);
        }
    }

    fn group(&mut self, then: &Then, now: &Decision) {
        let step = now.decider().map(|step| format!("by {} ({})", step.name, step.place()));
        let before = || {
            let (by, place) = (then.by.as_deref()?, then.place.as_deref()?);
            Some(format!("was by {} ({place})", by.rsplit('/').next().unwrap_or(by)))
        };
        let by = step.filter(|_| now.is_acted()).or_else(before).unwrap_or_default();
        let group = self.groups.entry((then.outcome as u8, now.outcome as u8, by)).or_default();
        group.count += 1;
        group.example.get_or_insert_with(|| (then.id, then.sender.clone()));
        let domain = then.sender.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        for (all, one) in [(&mut group.clients, then.client.clone()), (&mut group.domains, domain)] {
            if all.len() < MAX_DISTINCT {
                all.insert(one);
            }
        }
    }

    fn list(&mut self, then: Then, now: &Decision, trust: Trust) {
        if self.listed.len() as u64 >= self.limit {
            return;
        }
        let Then { id, host, outcome, by, place, answer, client, sender, recipient } = then;
        self.listed.push(Difference {
            id,
            time: decisions::rfc3339(id.time()),
            host: host.to_string(),
            client,
            sender,
            recipient,
            was: Side { outcome, by, place, answer: answer.into() },
            now: Side {
                outcome: now.outcome,
                by: now.decider().map(|step| step.path.clone()),
                place: now.decider().map(decisions::StepInfo::place),
                answer: now.answer.to_string(),
            },
            trust: name_of(trust.degree),
            unknown: trust.unknown,
        });
    }

    /// How many were made again.
    pub(super) fn total(&self) -> u64 {
        self.matrix.values().sum()
    }

    /// How many would have another outcome.
    pub(super) fn differ(&self) -> u64 {
        self.matrix.iter().filter(|((was, now), _)| was != now).map(|(_, count)| count).sum()
    }

    /// How many had an outcome, and how many would.
    pub(super) fn with_outcome(&self, outcome: Outcome) -> (u64, u64) {
        let sum = |of: fn(&(u8, u8)) -> u8| {
            let all = self.matrix.iter().filter(|(pair, _)| of(pair) == outcome as u8);
            all.map(|(_, count)| count).sum()
        };
        (sum(|pair| pair.0), sum(|pair| pair.1))
    }

    /// Whether an outcome would be more frequent than it may.
    #[allow(clippy::cast_precision_loss, reason = "a share is shown to a hundredth")]
    pub(super) fn has_grown(&self, growth: &Growth) -> bool {
        let (was, now) = self.with_outcome(growth.outcome);
        let more = now.saturating_sub(was);
        match growth.by {
            Most::Number(most) => more > most,
            Most::Percent(most) => more as f64 * 100.0 > most * self.total() as f64,
        }
    }
}

/// A degree in one word.
pub(super) fn name_of(degree: Degree) -> &'static str {
    match degree {
        Degree::Exact => "exact",
        Degree::Simulated => "simulated",
        Degree::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_grow_and_what_is_shown_is_read() {
        let growth = |text: &str| text.parse::<Growth>();
        assert_eq!(growth("reject:+0.5%"), Ok(Growth { outcome: Outcome::Reject, by: Most::Percent(0.5) }));
        assert_eq!(growth("defer:+10"), Ok(Growth { outcome: Outcome::Defer, by: Most::Number(10) }));
        for wrong in ["reject", "reject:1", "reject:+x%", "reject:+-1%", "rejected:+1%", "reject:+1.5"] {
            assert!(growth(wrong).is_err(), "{wrong}");
        }
        assert_eq!("pass -> reject".parse(), Ok(Shown(Outcome::Pass, Outcome::Reject)));
        assert!("pass".parse::<Shown>().is_err() && "pass->no".parse::<Shown>().is_err());
    }

    #[test]
    fn growth_is_what_there_is_more() {
        let mut tally = Tally::default();
        tally.matrix.insert((Outcome::Pass as u8, Outcome::Pass as u8), 195);
        tally.matrix.insert((Outcome::Pass as u8, Outcome::Reject as u8), 3);
        tally.matrix.insert((Outcome::Reject as u8, Outcome::Pass as u8), 2);
        assert_eq!((tally.total(), tally.differ()), (200, 5));
        for (text, has_grown) in
            [("reject:+0", true), ("reject:+1", false), ("reject:+0.4%", true), ("pass:+0", false)]
        {
            assert_eq!(tally.has_grown(&text.parse().unwrap()), has_grown, "{text}");
        }
    }
}
