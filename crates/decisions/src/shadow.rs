//! What another configuration would have decided, which runs in the shadow of the one in use.
//!
//! Knows: records of decisions. Must not know: plugins, how it came about.

use crate::{Decision, Outcome, StepInfo, StepOutcome};
use serde::{Deserialize, Serialize};

/// The decision of a shadow. Its plugins are named: they are not those of the table of the decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// The configuration file.
    pub file: Box<str>,
    /// What would have become of the request.
    pub outcome: Outcome,
    /// The plugin that would have decided or failed, as a path.
    pub by: Option<Box<str>>,
    /// Its place in the configuration, as `FILE:LINE`.
    pub place: Option<Box<str>>,
    /// The action; empty if the connection would have been closed.
    pub answer: Box<str>,
    /// Why there is no other answer.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub failure: Box<str>,
    /// How far it can be trusted: `exact`, `simulated` or `unknown`.
    pub trust: Box<str>,
    /// Its way through the chain.
    pub steps: Vec<ShadowStep>,
}

/// The turn of a plugin of the shadow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowStep {
    /// Its path.
    pub path: Box<str>,
    /// How it ended.
    pub outcome: StepOutcome,
}

impl Shadow {
    /// That of a decision that was made again.
    pub fn of(again: &Decision, trust: &str) -> Shadow {
        let steps = again.walk.steps.iter().filter_map(|step| {
            let path = again.table.get(step.number)?.path.as_str().into();
            Some(ShadowStep { path, outcome: step.outcome })
        });
        Shadow {
            file: again.table.file.as_str().into(),
            outcome: again.outcome,
            by: again.decider().map(|step| step.path.as_str().into()),
            place: again.decider().map(StepInfo::place).map(Into::into),
            answer: again.answer.clone(),
            failure: again.failure.clone(),
            trust: trust.into(),
            steps: steps.collect(),
        }
    }

    /// How much memory it holds, about.
    pub(crate) fn size(&self) -> usize {
        let steps: usize = self.steps.iter().map(|step| size_of::<ShadowStep>() + step.path.len()).sum();
        let names = [&self.by, &self.place].into_iter().flatten().map(|text| text.len()).sum::<usize>();
        size_of::<Shadow>() + self.file.len() + self.answer.len() + self.failure.len() + names + steps
    }
}
