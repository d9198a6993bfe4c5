//! What is written down of a request while it is answered, and the record that it becomes.
//!
//! Knows: records of decisions, notes of lookups. Must not know: how a request is answered.

use crate::facts::World;
use crate::recorder::Recorder;
use crate::session::Session;
use crate::settings::VirtualHost;
use backends::{Pretence, Replay};
use decisions::{
    Decision, DecisionId, Flags, Lookups, MAX_SESSION_BYTES, Outcome, Step, StepOutcome, StepTable, Walk,
};
use postfix_policy::{Reply, Request};
use std::sync::Arc;
use std::time::Duration;

/// What the identifier of the decision stands for in an action.
const ID: &str = "%ID%";

/// The score of a message where no plugin names another.
const SCORE: &str = "score";

/// Bytes of the text of a failure that are kept.
const MAX_FAILURE_BYTES: usize = 512;

/// What is known of a request so far.
pub(super) struct Draft {
    /// The identifier of the decision.
    pub(super) id: DecisionId,
    /// The way through the chain; `None` if nobody wants to know.
    pub(super) walk: Option<Walk>,
    flags: Flags,
    /// The plugin that decided, if it is not the one that ended the chain.
    by: Option<u16>,
    failure: String,
    score: f64,
    session: Vec<(Box<str>, Box<str>)>,
    /// Where changes are noted, if nothing is to be changed.
    pub(super) pretence: Option<Pretence>,
    /// Who answers in place of servers, if the decision is made again.
    pub(super) replayed: Option<Replayed>,
    /// The numbers of plugins that are left out.
    pub(super) without: Vec<u16>,
    /// What the user has chosen, of the options that he may choose: for an explanation only.
    pub(super) chosen: Vec<Chosen>,
}

/// Who answers in place of servers, and the world at the time of a decision that is made again.
pub(super) struct Replayed {
    pub(super) replay: Arc<Replay>,
    pub(super) world: World,
}

/// An option whose value was not that of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    /// The number of the plugin with the option.
    pub(super) step: u16,
    /// The option: `mode`.
    pub(super) option: String,
    /// The field or setting of the session that its `uc_` option names.
    pub(super) field: String,
    /// The value that held.
    pub(super) value: String,
    /// The plugin that has found it; empty if it is a field.
    pub(super) by: String,
}

impl Draft {
    /// The same where a shadow wants to know how it is decided, whoever else does.
    pub(super) fn of_shadowed(recorder: &Recorder, steps: &StepTable) -> Draft {
        Draft {
            walk: Some(Walk::with_room(steps.steps.len())),
            ..Draft::new(recorder, &StepTable::default())
        }
    }

    /// A request is about to be answered.
    pub(super) fn new(recorder: &Recorder, steps: &StepTable) -> Draft {
        let (id, moment) = recorder.begin();
        Draft {
            id,
            walk: recorder.is_wanted().then(|| Walk::with_room(steps.steps.len())),
            flags: Flags::default().begun_at(moment),
            by: None,
            failure: String::new(),
            score: 0.0,
            session: Vec::new(),
            pretence: None,
            replayed: None,
            without: Vec::new(),
            chosen: Vec::new(),
        }
    }

    /// A request is about to be explained: nothing is changed, and these plugins are left out.
    pub(super) fn of_explanation(recorder: &Recorder, without: Vec<u16>) -> Draft {
        let walk = Some(Walk::default());
        Draft {
            walk,
            without,
            pretence: Some(Pretence::default()),
            ..Draft::new(recorder, &StepTable::default())
        }
    }

    /// A decision is about to be made again, under its identifier.
    pub(super) fn of_replay(
        recorder: &Recorder,
        steps: &StepTable,
        id: DecisionId,
        replayed: Replayed,
    ) -> Draft {
        let walk = Some(Walk::with_room(steps.steps.len()));
        Draft { id, walk, replayed: Some(replayed), ..Draft::new(recorder, &StepTable::default()) }
    }

    /// What the user has chosen, when the chain has run.
    pub(super) fn note_chosen(&mut self, session: &Session, table: &StepTable) {
        let (Some(walk), Some(_)) = (&self.walk, &self.pretence) else { return };
        for step in &walk.steps {
            let options = table.get(step.number).map(|step| &step.options[..]).unwrap_or_default();
            for (option, field) in
                options.iter().filter_map(|o| Some((o.name.strip_prefix("uc_")?, &o.value)))
            {
                let setting = session.chosen(field);
                let found = setting.or_else(|| session.result(field).map(|value| (value, "")));
                let Some((value, by)) = found else { continue };
                self.chosen.push(Chosen {
                    step: step.number,
                    option: option.to_owned(),
                    field: field.clone(),
                    value: value.to_owned(),
                    by: by.to_owned(),
                });
            }
        }
    }

    /// What is remembered of the message before its chain runs.
    pub(super) fn note_session(&mut self, session: &Session) {
        if self.walk.is_none() {
            return;
        }
        let mut bytes = 0;
        for (name, value) in session.shown() {
            self.flags = self.flags.with(Flags::NOT_FIRST);
            if name == SCORE {
                self.score = value.parse().unwrap_or_default();
            }
            bytes += name.len() + value.len();
            if bytes <= MAX_SESSION_BYTES {
                self.session.push((name.into(), value.into()));
            }
        }
    }

    /// A plugin decided that is not the one that ended the chain.
    pub(super) fn decided_by(&mut self, number: Option<u16>) {
        self.by = number;
    }

    /// A check could not find out, for a reason within the request.
    pub(super) fn undecided(&mut self) {
        self.flags = self.flags.with(Flags::UNDECIDED);
    }

    /// The request has no other answer, since something failed.
    pub(super) fn failed(&mut self, is_late: bool, failure: &str) {
        self.flags = self.flags.with(if is_late { Flags::LATE } else { Flags::FAILED });
        self.failure = failure[..failure.floor_char_boundary(MAX_FAILURE_BYTES)].to_owned();
    }

    /// What was asked of servers.
    pub(super) fn note_lookups(&mut self, lookups: Lookups) {
        if let Some(walk) = &mut self.walk {
            walk.is_cut |= lookups.left_out() > 0;
            walk.lookups = lookups;
        }
    }

    /// The reply with the identifier where it belongs.
    pub(super) fn finish_reply(&self, reply: Reply, suffix: Option<&str>) -> Reply {
        // An explanation is not kept, so its identifier would lead nowhere.
        let id = if self.pretence.is_some() { ID.to_owned() } else { self.id.to_string() };
        let fill = |text: &str| text.replace(ID, &id);
        let reply = match reply.as_str() {
            text if text.contains(ID) && reply.warning().is_none() => Reply::new(fill(text)),
            _ => reply,
        };
        match suffix {
            Some(suffix) => reply.with_suffix(&fill(suffix)),
            None => reply,
        }
    }

    /// The whole record, if anybody wants it.
    pub(super) fn into_decision(
        self,
        host: Result<&VirtualHost, &str>,
        table: &Arc<StepTable>,
        request: &Request,
        reply: Option<&Reply>,
        took: Duration,
    ) -> Option<Decision> {
        let walk = self.walk?;
        let by = self.by.or_else(|| decider(&walk, self.flags));
        let answer = reply.map_or("", Reply::as_str);
        Some(Decision {
            id: self.id,
            table: Arc::clone(table),
            host: host.map_or_else(Arc::from, |host| Arc::clone(&host.name)),
            request: request.frame().into(),
            took: u32::try_from(took.as_micros()).unwrap_or(u32::MAX),
            outcome: reply.map_or(Outcome::Closed, |reply| Outcome::of_action(reply.as_str())),
            by,
            answer: answer.into(),
            failure: self.failure.into(),
            flags: self.flags,
            score: self.score,
            session: self.session,
            walk,
            shadow: None,
        })
    }
}

/// The step that ended the chain: the innermost one, since those around it say what it says.
fn decider(walk: &Walk, flags: Flags) -> Option<u16> {
    let ended = |step: &&Step| match step.outcome {
        StepOutcome::NotFinished => flags.has(Flags::LATE),
        StepOutcome::Failed => flags.has(Flags::FAILED),
        StepOutcome::Stopped => true,
        _ => false,
    };
    walk.steps.iter().rev().find(ended).map(|step| step.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft::new(&Recorder::new(0), &StepTable::default())
    }

    #[test]
    fn the_identifier_stands_where_it_is_wanted() {
        let draft = draft();
        let id = draft.id;
        let finished = |action: &str, suffix| draft.finish_reply(Reply::new(action), suffix);
        assert_eq!(finished("PREPEND X-Policy: %ID%", None).as_str(), format!("PREPEND X-Policy: {id}"));
        assert_eq!(finished("reject no", Some(" (ref %ID%)")).as_str(), format!("reject no (ref {id})"));
        assert_eq!(finished("dunno", Some(" (ref %ID%)")).as_str(), "dunno");
        assert!(finished("", Some(" (ref %ID%)")).warning().is_some());
    }

    #[test]
    fn the_innermost_step_decides() {
        let mut walk = Walk::default();
        let before = walk.begin(0, 0);
        walk.end(before, StepOutcome::Next);
        let outer = walk.begin(1, 0);
        let inner = walk.begin(2, 1);
        walk.end(inner, StepOutcome::Stopped);
        walk.end(outer, StepOutcome::Stopped);
        assert_eq!(decider(&walk, Flags::default()), Some(2));
        let _cut_off = walk.begin(3, 0);
        assert_eq!(decider(&walk, Flags::LATE), Some(3));
        assert_eq!(decider(&walk, Flags::default()), Some(2));
        assert_eq!(decider(&Walk::default(), Flags::FAILED), None);
    }

    #[test]
    fn what_was_there_before_is_bounded() {
        let mut session = Session::default();
        session.set("a", &"x".repeat(MAX_SESSION_BYTES));
        session.set("b", "1");
        session.set("score", "2.5");
        let mut draft = draft();
        draft.note_session(&session);
        assert_eq!((draft.score, draft.session.len()), (2.5, 0));
        assert!(draft.flags.has(Flags::NOT_FIRST));
    }
}
