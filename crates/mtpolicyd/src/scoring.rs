//! What plugins add to a score: the options for it, the name that stands in the details, and the mark by
//! which a message counts once.
//!
//! Knows: sections, sessions. Must not know: plugins.

use crate::options::{Field, Flow, OptionSpec, OptionalUserConfig, Presence, Section, spec};
use crate::session::Session;
use crate::value::Score;

/// The score that is meant where none is named.
const SCORE_FIELD: &str = "score";

/// What the session remembers of a message whose points were added; `{}` stands for the name of the plugin.
/// Daemons of other versions share these marks.
#[derive(Clone, Copy, Debug)]
pub struct Mark(pub &'static str);

/// Most plugins have this one.
const MARK: Mark = Mark("{}-score");

/// The score that a plugin adds to or looks at: the option `score_field`.
#[derive(Clone, Debug)]
pub struct ScoreField {
    field: String,
    plugin: String,
    mark: String,
}

impl ScoreField {
    /// The name of the score.
    pub fn name(&self) -> &str {
        &self.field
    }

    /// The score so far.
    pub fn total(&self, session: &Session) -> f64 {
        session.number(&self.field)
    }

    /// Which plugins have added to it.
    pub fn detail<'a>(&self, session: &'a Session) -> Option<&'a str> {
        session.score_detail(&self.field)
    }

    /// Adds points, each time.
    pub fn add(&self, session: &mut Session, points: &Score) {
        session.add_score(&self.field, &self.plugin, points);
    }

    /// Adds points unless this message has the mark already, or this recipient, if they depend on it.
    pub fn add_once(&self, session: &mut Session, points: &Score) {
        if session.first_time(&self.mark) {
            self.add(session, points);
        }
    }

    /// The same for one of several things that the plugin judges, with a mark of its own.
    pub fn add_once_for(&self, session: &mut Session, what: &str, points: &Score) {
        let who = format!("{}-{what}", self.plugin);
        if session.first_time(&format!("{who}-score")) {
            session.add_score(&self.field, &who, points);
        }
    }
}

impl From<Mark> for ScoreField {
    fn from(mark: Mark) -> ScoreField {
        ScoreField { field: SCORE_FIELD.to_owned(), plugin: String::new(), mark: mark.0.to_owned() }
    }
}

impl Field for ScoreField {
    fn take(section: &mut Section<'_>, name: &str, default: Option<Self>) -> Option<Self> {
        let ScoreField { field, mark, .. } = default?;
        let field = String::take(section, name, Some(field))?;
        let plugin = section.name().to_owned();
        section.note_flow(name, Flow::Sets(field.clone()));
        if let Some(option) = section.given_points() {
            section.note_flow(option, Flow::AddsTo(field.clone()));
        }
        Some(ScoreField { field, mark: mark.replace("{}", &plugin), plugin })
    }
    fn specs(name: &str, _: &'static str, _: Option<Self>) -> Vec<OptionSpec> {
        let doc = " The name of the score, for configurations that keep several.\n";
        vec![spec::<String>(name, Presence::Default(SCORE_FIELD.to_owned()), doc)]
    }
    fn absent() -> Option<Self> {
        Some(MARK.into())
    }
}

/// What is added to which score when a check matches: the options `score`, `uc_score` and `score_field`.
#[derive(Clone, Debug)]
pub struct Scoring {
    points: OptionalUserConfig<Score>,
    field: ScoreField,
}

impl Scoring {
    /// Whether the configuration has points, or a name for those of the user.
    pub fn is_given(&self) -> bool {
        self.points.is_given()
    }

    /// Adds the points, each time.
    pub fn add(&self, session: &mut Session) {
        if let Some(points) = self.points.get(session) {
            self.field.add(session, &points);
        }
    }

    /// Adds the points unless this message has the mark already, or this recipient, if they depend on it.
    pub fn add_once(&self, session: &mut Session) {
        // First of all, since it is what may make the mark depend on the recipient.
        let points = self.points.get(session);
        if self.is_given()
            && session.first_time(&self.field.mark)
            && let Some(points) = points
        {
            self.field.add(session, &points);
        }
    }
}

impl From<Mark> for Scoring {
    fn from(mark: Mark) -> Scoring {
        Scoring { points: OptionalUserConfig::nothing(), field: mark.into() }
    }
}

impl Field for Scoring {
    fn take(section: &mut Section<'_>, name: &str, default: Option<Self>) -> Option<Self> {
        let points = <OptionalUserConfig<Score> as Field>::take(section, name, None);
        let field = ScoreField::take(section, "score_field", default.map(|scoring| scoring.field));
        Some(Scoring { points: points?, field: field? })
    }
    fn specs(name: &str, doc: &'static str, _: Option<Self>) -> Vec<OptionSpec> {
        let mut specs = <OptionalUserConfig<Score> as Field>::specs(name, doc, None);
        specs.extend(ScoreField::specs("score_field", "", None));
        specs
    }
    fn absent() -> Option<Self> {
        Some(MARK.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Options, Report, options};
    use config_general::Limits;
    use std::path::Path;

    options! {
        /// Both kinds of options, with marks as plugins have them.
        struct Scores {
            /// What a plugin adds.
            score: Scoring = Mark("rbl-{}-score"),
        }
    }
    options! {
        /// The score alone.
        struct OneField {
            score_field: ScoreField,
        }
    }

    fn read<O: Options>(options: &str) -> O {
        let text = format!("<Plugin p>\n{options}\n</Plugin>");
        let document = config_general::parse(Path::new("test"), text.as_bytes(), &Limits::default()).unwrap();
        let report = Report::default();
        let block = document.root.blocks().next().expect("a block");
        O::read(&mut Section::new(block, &report)).expect("options")
    }

    #[test]
    fn points_count_once_by_the_mark_that_other_daemons_know() {
        let mut session = Session::default();
        let scores: Scores = read("score = 2.5\nscore_field = other");
        scores.score.add_once(&mut session);
        scores.score.add_once(&mut session);
        assert_eq!(session.result("rbl-p-score"), Some("1"));
        assert_eq!((session.number("other"), session.score_detail("other")), (2.5, Some("p=2.5")));
        scores.score.add(&mut session);
        assert_eq!(session.number("other"), 5.0);
        let nothing: Scores = read("");
        let mut session = Session::default();
        nothing.score.add_once(&mut session);
        assert!(session.is_empty());
    }

    #[test]
    fn each_thing_that_is_judged_has_a_mark_of_its_own() {
        let mut session = Session::default();
        let OneField { score_field } = read("");
        for _ in 0..2 {
            score_field.add_once(&mut session, &Score::from(1.0));
            score_field.add_once_for(&mut session, "sender", &Score::from(4.0));
        }
        assert_eq!((session.result("p-score"), session.result("p-sender-score")), (Some("1"), Some("1")));
        assert_eq!(score_field.total(&session), 5.0);
        assert_eq!(score_field.detail(&session), Some("p=1, p-sender=4"));
    }
}
