//! `SaAwlAction`: acts on what SpamAssassin's auto-whitelist knows of the sender.

use crate::awl;
use crate::fields::Template;
use crate::log::messages::findings;
use crate::mode::Mode;
use crate::options::{UserConfig, codes, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::{Mark, ScoreField};
use crate::value::{Integer, Score, ZeroIsNone, perl_number, words};

options! {
    /// Rejects, accepts or adds to the score (once per message) depending on the mean score that an earlier
    /// SaAwlLookup plugin has found. Without an entry, nothing happens.
    ///
    /// ```conf
    /// <Plugin amavis-reputation>
    ///   module = "SaAwlLookup"
    ///   db_file = "/var/lib/amavis/.spamassassin/auto-whitelist"
    /// </Plugin>
    /// <Plugin awl-whitelist>
    ///   module = "SaAwlAction"
    ///   result_from = "amavis-reputation"
    ///   mode = "accept"
    ///   match = "lt"
    ///   threshold = 0
    /// </Plugin>
    /// <Plugin awl-score-bad>
    ///   module = "SaAwlAction"
    ///   result_from = "amavis-reputation"
    ///   mode = "passive"
    ///   threshold = 5
    ///   score_factor = 0.5
    /// </Plugin>
    /// ```
    pub struct SaAwlActionOptions {
        /// The name of the SaAwlLookup plugin; it must come before this one.
        result_from: String,
        + enabled,
        /// What to do if the mean score matches: `reject` the message, `accept` it (end the chain with
        /// `dunno`; `dunno` means the same), or only add the score (`passive`).
        mode: UserConfig<Mode> = Mode::Reject,
        /// The text of the rejection. `%IP%` is the address of the client, `%SENDER%` that of the sender and
        /// `%SCORE%` the mean score. Only the first occurrence of each placeholder is replaced.
        reject_message: Template = "sender address/ip has bad reputation",
        /// Added to the score if the mean score matches.
        score: Option<ZeroIsNone<Score>>,
        /// Instead of `score`: adds the mean score times this.
        score_factor: Option<ZeroIsNone<Score>>,
        score_field: ScoreField = Mark("sa-awl-{}-score"),
        /// Minimum number of messages that SpamAssassin must have seen; with fewer, nothing happens.
        min_count: Integer = Integer(10),
        /// The value to compare the mean score with.
        threshold: Score = Score::from(5.0),
        /// Whether the mean score has to be at least (`gt`) or at most (`lt`) the threshold.
        r#match: Comparison = Comparison::AtLeast,
    }
}

words! {
    /// How the mean score is compared.
    pub enum Comparison {
        /// At least the threshold.
        AtLeast = "gt",
        /// At most the threshold.
        AtMost = "lt",
    }
}

pub struct SaAwlAction {
    result: String,
    options: SaAwlActionOptions,
}

impl Plugin for SaAwlAction {
    const NAME: &'static str = "SaAwlAction";
    type Options = SaAwlActionOptions;

    fn new(options: SaAwlActionOptions, setup: &mut Setup<'_, '_>) -> Option<SaAwlAction> {
        if matches!(options.score, Some(ZeroIsNone(Some(_)))) && options.score_factor.is_some() {
            let message = "score_factor: has no effect beside `score`".to_owned();
            setup.warn_as(&codes::NO_EFFECT, "score_factor", message);
        }
        setup.uses_result("SaAwlLookup", &options.result_from);
        Some(SaAwlAction { result: awl::result_field(&options.result_from), options })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let options = &self.options;
        let Some(result) = awl::recall(cx.session, &self.result) else {
            cx.note(findings::history_not_looked_up(&options.result_from));
            return Ok(Verdict::Next);
        };
        let Some(entry) = result else { return Ok(Verdict::Next) };
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        if entry.count < options.min_count.0 as f64 {
            cx.note(findings::history_short(entry.count));
            return Ok(Verdict::Next);
        }
        let threshold = options.threshold.points();
        let matches = match options.r#match {
            Comparison::AtLeast => entry.score >= threshold,
            Comparison::AtMost => entry.score <= threshold,
        };
        if !matches {
            return Ok(Verdict::Next);
        }
        cx.note(findings::history_matched(entry.score));
        match (&options.score, &options.score_factor) {
            (Some(ZeroIsNone(Some(score))), _) => options.score_field.add_once(cx.session, score),
            (_, Some(ZeroIsNone(Some(factor)))) => {
                options.score_field.add_once(cx.session, &Score::from(entry.score * factor.points()));
            }
            _ => {}
        }
        Ok(options.mode.get(cx.session).verdict(|| {
            let (ip, sender) = (cx.shown("client_address"), cx.shown("sender"));
            let values = [("%IP%", &*ip), ("%SENDER%", &*sender), ("%SCORE%", &*perl_number(entry.score))];
            options.reject_message.fill(&values)
        }))
    }
}

#[cfg(test)]
mod tests;
