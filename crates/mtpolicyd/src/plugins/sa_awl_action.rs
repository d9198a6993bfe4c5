//! `SaAwlAction`: acts on what SpamAssassin's auto-whitelist knows of the sender.

use crate::awl;
use crate::fields::{Mode, SCORE_FIELD, Template, printable};
use crate::log::messages::findings;
use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Notes, Plugin, Setup, Verdict};
use crate::value::{Integer, Score, Switch, perl_number, words};

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
        /// Whether to make the check.
        enabled: UserConfig<Switch> = Switch::On,
        /// What to do if the mean score matches: `reject` the message, `accept` it (end the chain with
        /// `dunno`; `dunno` means the same), or only add the score (`passive`).
        mode: UserConfig<Mode> = Mode::Reject,
        /// The text of the rejection. `%IP%` is the address of the client, `%SENDER%` that of the sender and
        /// `%SCORE%` the mean score. Only the first occurrence of each placeholder is replaced.
        reject_message: Template = "sender address/ip has bad reputation",
        /// Added to the score if the mean score matches.
        score: Option<Score>,
        /// Instead of `score`: adds the mean score times this.
        score_factor: Option<Score>,
        /// The name of the score, for configurations that keep several.
        score_field: String = SCORE_FIELD.to_owned(),
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

/// See the options.
pub struct SaAwlAction {
    name: String,
    notes: Notes,
    result: String,
    scored: String,
    options: SaAwlActionOptions,
}

impl Plugin for SaAwlAction {
    const NAME: &'static str = "SaAwlAction";
    type Options = SaAwlActionOptions;

    fn new(options: SaAwlActionOptions, setup: &mut Setup<'_, '_>) -> Option<SaAwlAction> {
        if options.score.as_ref().is_some_and(counts) && options.score_factor.is_some() {
            setup.warn("score_factor", "score_factor: has no effect beside `score`".to_owned());
        }
        let name = setup.name.to_owned();
        let (result, scored) = (awl::result_field(&options.result_from), format!("sa-awl-{name}-score"));
        Some(SaAwlAction { notes: setup.notes(), result, scored, options, name })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let options = &self.options;
        if options.enabled.get(cx.session) == Switch::Off {
            return Ok(Verdict::Next);
        }
        let Some(result) = awl::recall(cx.session, &self.result) else {
            self.notes.note(findings::history_not_looked_up(&options.result_from));
            return Ok(Verdict::Next);
        };
        let Some(entry) = result else { return Ok(Verdict::Next) };
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        if entry.count < options.min_count.0 as f64 {
            self.notes.note(findings::history_short(entry.count));
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
        self.notes.note(findings::history_matched(entry.score));
        if cx.session.first_time(&self.scored) {
            let score = options.score.clone().filter(counts);
            let factor = options.score_factor.as_ref().filter(|factor| counts(factor));
            let score = score.or(factor.map(|factor| Score::from(entry.score * factor.points())));
            if let Some(score) = score {
                cx.session.add_score(&options.score_field, &self.name, &score);
            }
        }
        Ok(match options.mode.get(cx.session) {
            Mode::Reject => {
                let ip = printable(cx.request, "client_address").unwrap_or_default();
                let sender = printable(cx.request, "sender").unwrap_or_default();
                let score = perl_number(entry.score);
                let values = [("%IP%", &*ip), ("%SENDER%", &*sender), ("%SCORE%", &*score)];
                Verdict::Stop(format!("reject {}", options.reject_message.fill(&values)))
            }
            Mode::Accept | Mode::Dunno => Verdict::dunno(),
            Mode::Passive => Verdict::Next,
        })
    }
}

/// Whether a score does anything: 0 counts as not given, as in the original.
fn counts(score: &Score) -> bool {
    score.points() != 0.0
}

#[cfg(test)]
mod tests;
