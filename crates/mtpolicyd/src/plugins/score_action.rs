//! `ScoreAction`: acts on the score.

use crate::chain::Chain;
use crate::fields::Template;
use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::ScoreField;
use crate::value::{Score, perl_number, words};

options! {
    /// Answers with an action, or runs the plugins in its block, depending on the score.
    ///
    /// ```conf
    /// <Plugin too-much>
    ///   module = "ScoreAction"
    ///   threshold = 15
    ///   action = "reject sender ip %IP% is blocked (score=%SCORE%%SCORE_DETAIL%)"
    /// </Plugin>
    /// ```
    pub struct ScoreActionOptions {
        /// The score at which to act.
        threshold: UserConfig<Score>,
        /// `gt` acts at and above the threshold, `lt` at and below it.
        r#match: Match = Match::Gt,
        score_field: ScoreField,
        /// The answer; without one, the plugins in this block run. `%IP%` is the address of the client,
        /// `%SCORE%` the score and `%SCORE_DETAIL%` the list of plugins that added to it, preceded by a
        /// comma and a blank. Only the first occurrence of each placeholder is replaced.
        action: Option<Template>,
    }
}

words! {
    /// On which side of the threshold to act.
    pub enum Match {
        /// At or above.
        Gt = "gt",
        /// At or below.
        Lt = "lt",
    }
}

pub struct ScoreAction {
    options: ScoreActionOptions,
    nested: Chain,
}

impl Plugin for ScoreAction {
    const NAME: &'static str = "ScoreAction";
    type Options = ScoreActionOptions;

    fn new(options: ScoreActionOptions, setup: &mut Setup<'_, '_>) -> Option<ScoreAction> {
        if let Some(action) = &options.action {
            setup.check_action("action", &action.to_string());
        }
        setup.reads_score(&options.score_field);
        let nested = Chain::nested(setup)?;
        if options.action.is_none() && nested.is_empty() {
            setup.has_no_effect("`action` and no plugin in its block");
        }
        Some(ScoreAction { options, nested })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let score = self.options.score_field.total(cx.session);
        let threshold = self.options.threshold.get(cx.session).points();
        let reached = match self.options.r#match {
            Match::Gt => score >= threshold,
            Match::Lt => score <= threshold,
        };
        if !reached {
            return Ok(Verdict::Next);
        }
        let action = self.options.action.as_ref().map(|action| self.fill(action, score, cx));
        self.nested.act(action.as_deref(), cx).await
    }
}

impl ScoreAction {
    fn fill(&self, action: &Template, score: f64, cx: &Cx<'_>) -> String {
        let ip = cx.request.get("client_address").map_or("unknown".into(), String::from_utf8_lossy);
        let detail = self.options.score_field.detail(cx.session);
        let detail = detail.map(|detail| format!(", {detail}")).unwrap_or_default();
        action.fill(&[("%IP%", &*ip), ("%SCORE%", &perl_number(score)), ("%SCORE_DETAIL%", &detail)])
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn it_acts_from_the_threshold_on() {
        let text = "<Plugin s>\n module = ScoreAction\n threshold = 5\n \
                    action = reject %IP% %SCORE%%SCORE_DETAIL%\n</Plugin>";
        let mut bench = Bench::new(text).attribute("client_address", "192.0.2.1");
        bench.session.set("score", "4.5");
        assert_eq!(bench.run(), None);
        bench.session.set("score", "5");
        bench.session.set("score_detail", "rbl=5");
        assert_eq!(bench.run(), Some("reject 192.0.2.1 5, rbl=5".into()));
    }

    #[test]
    fn lt_acts_up_to_the_threshold() {
        let text =
            "<Plugin s>\n module = ScoreAction\n match = lt\n threshold = -5\n action = good\n</Plugin>";
        let mut bench = Bench::new(text);
        assert_eq!(bench.run(), None);
        bench.session.set("score", "-6");
        assert_eq!(bench.run(), Some("good".into()));
    }

    #[test]
    fn a_user_may_have_another_threshold() {
        let text =
            "<Plugin s>\n module = ScoreAction\n threshold = 5\n uc_threshold = t\n action = x\n</Plugin>";
        let mut bench = Bench::new(text);
        bench.session.set("score", "4");
        bench.session.set("t", "many");
        assert_eq!(bench.run(), None);
        bench.session.set("t", "4");
        assert_eq!(bench.run(), Some("x".into()));
    }

    #[test]
    fn a_mistyped_match_is_refused() {
        let text = "<Plugin s>\n module = ScoreAction\n threshold = 5\n match = eq\n</Plugin>";
        assert_eq!(Bench::mistakes(text), ["4:10 match: `eq` is not one of gt, lt"]);
    }
}
