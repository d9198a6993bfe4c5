//! `Condition`: acts on the value of an attribute or a session field.

use crate::chain::Chain;
use crate::fields::FieldRef;
use crate::log::messages::findings;
use crate::options::{OptionalUserConfig, codes, options};
use crate::plugin::{Cx, Error, Plugin, STAGES, Setup, Verdict};
use crate::scoring::Scoring;
use crate::value::{Flag, Score, nearest};
use perl_regex::{Pattern, PatternList};
use std::fmt::Write;
use std::sync::Arc;

options! {
    /// Adds to the score, answers, or runs the plugins in its block when a value fulfils one of its criteria.
    ///
    /// Of several criteria one is enough. An attribute or field that does not exist fulfils no criterion,
    /// not even with `invert = 1`. The score is added for each request, not once per message. If there is an
    /// `action`, plugins in the block are not run. With `key = "recipient"` the score, and the results of
    /// plugins in the block, apply to that recipient only.
    ///
    /// ```conf
    /// <Plugin no-bounces-to-newsletters>
    ///   module = "Condition"
    ///   key = "recipient"
    ///   re_match = "^newsletter@"
    ///   <Plugin if-null-sender>
    ///     module = "Condition"
    ///     key = "sender"
    ///     match = ""
    ///     action = "reject this address accepts no bounces"
    ///   </Plugin>
    /// </Plugin>
    /// ```
    pub struct ConditionOptions {
        /// The value to look at. A sender or recipient that Postfix will understand otherwise than it is
        /// written (`victim.example!ceo`, `ceo@victim.example.`) is compared in both forms; one match is
        /// enough.
        key: FieldRef,
        /// Fulfilled if the value is exactly this.
        r#match: Option<String>,
        /// Fulfilled if this Perl regular expression matches somewhere in the value.
        re_match: Option<Pattern>,
        /// Fulfilled if the value, as a number, is less than this. Text counts as the number that it begins
        /// with, and as 0 if it begins with none.
        lt_match: Option<Score>,
        /// Fulfilled if the value, as a number, is greater than this.
        gt_match: Option<Score>,
        /// `1` reverses the result: the condition is fulfilled if no criterion is.
        invert: Flag = Flag(false),
        /// Added to the score.
        score: Scoring,
        /// The answer to Postfix.
        action: OptionalUserConfig<String>,
    }
}

pub struct Condition {
    options: ConditionOptions,
    patterns: Arc<PatternList>,
    nested: Chain,
}

impl Plugin for Condition {
    const NAME: &'static str = "Condition";
    type Options = ConditionOptions;

    fn new(mut options: ConditionOptions, setup: &mut Setup<'_, '_>) -> Option<Condition> {
        setup.check_actions("action", &options.action);
        if let Some(stage) = options.stage(setup) {
            setup.env.stage = Some(stage);
        }
        let nested = Chain::nested(setup)?;
        if !options.has_criterion() && !options.invert.0 {
            setup.has_no_effect("criterion such as `match` or `re_match`");
        }
        let patterns = Arc::new(PatternList::new(options.re_match.take().into_iter().collect()));
        Some(Condition { options, patterns, nested })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let key = &self.options.key;
        let (request, session) = (cx.request, &*cx.session);
        let Some(value) = key.get(request, session) else { return Ok(Verdict::Next) };
        let mut is_fulfilled = self.fits_a_number(|| key.number(request, session))
            || key.forms(request, session).any(|form| self.is_the_text(form));
        if !is_fulfilled && !self.patterns.is_empty() {
            for form in key.forms(request, session) {
                let found = cx.matching.find(&self.patterns, form, cx.call.deadline()).await?;
                is_fulfilled = is_fulfilled || found.is_some();
            }
        }
        if is_fulfilled == self.options.invert.0 {
            return Ok(Verdict::Next);
        }
        let value = Text(value).to_string();
        cx.note(findings::criterion_matched(&self.options.key, value));
        self.options.score.add(cx.session);
        let action = self.options.action.get(cx.session);
        self.nested.act(action.as_deref(), cx).await
    }
}

impl Condition {
    fn is_the_text(&self, value: &[u8]) -> bool {
        self.options.r#match.as_ref().is_some_and(|text| text.as_bytes() == value)
    }

    /// Whether the number fulfils one of the criteria for numbers; without one it is not asked for.
    fn fits_a_number(&self, number: impl Fn() -> f64) -> bool {
        let ConditionOptions { lt_match, gt_match, .. } = &self.options;
        lt_match.as_ref().is_some_and(|limit| number() < limit.points())
            || gt_match.as_ref().is_some_and(|limit| number() > limit.points())
    }
}

impl ConditionOptions {
    /// The stage outside which the plugins in the block are not asked, if it is one. Warns of a stage that
    /// Postfix does not have.
    fn stage(&self, setup: &Setup<'_, '_>) -> Option<&'static str> {
        let key = FieldRef::Request("protocol_state".to_owned());
        let wanted = self.r#match.as_deref().filter(|_| self.key == key)?;
        let known = STAGES.into_iter().find(|stage| *stage == wanted);
        if known.is_none() {
            let hint = nearest(wanted, STAGES).map(|stage| format!("; did you mean `{stage}`?"));
            let message = format!("match: Postfix has no stage `{wanted}`{}", hint.unwrap_or_default());
            setup.warn_as(&codes::NO_SUCH_STAGE, "match", message);
        }
        let is_alone = self.re_match.is_none() && self.lt_match.is_none() && self.gt_match.is_none();
        known.filter(|_| is_alone && !self.invert.0)
    }

    fn has_criterion(&self) -> bool {
        let numbers = self.lt_match.is_some() || self.gt_match.is_some();
        self.r#match.is_some() || self.re_match.is_some() || numbers
    }
}

/// A finding for the log.
struct Text<'a>(&'a [u8]);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| {
            f.write_str(chunk.valid())?;
            chunk.invalid().iter().try_for_each(|_| f.write_char(char::REPLACEMENT_CHARACTER))
        })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_address_is_looked_at_in_both_forms() {
        let answer = |criterion: &str, recipient: &str| {
            let text = format!(
                "<Plugin c>\n module = Condition\n key = recipient\n {criterion}\n action = yes\n</Plugin>"
            );
            Bench::new(&text).attribute("recipient", recipient).run()
        };
        for recipient in ["bob@ours.test", "ours.test!bob", "bob@OURS.test.", "bob@ours.test@ours.test"] {
            assert!(answer("match = \"bob@ours.test\"", recipient).is_some(), "{recipient}");
            assert!(answer("match = \"bob@ours.test\"\n invert = 1", recipient).is_none(), "{recipient}");
        }
        assert!(answer("re_match = \"^ours\"", "ours.test!bob").is_some());
        assert!(answer("match = \"bob@ours.test\"", "eve@ours.test").is_none());
    }

    use crate::testing::Bench;

    fn sender(criteria: &str, value: &str) -> Option<String> {
        let text =
            format!("<Plugin c>\n module = Condition\n key = sender\n {criteria}\n action = hit\n</Plugin>");
        Bench::new(&text).attribute("sender", value).run()
    }

    #[test]
    fn criteria() {
        let hit = Some("hit".to_owned());
        assert_eq!(sender("match = a@b", "a@b"), hit);
        assert_eq!(sender("match = a@b", "A@b"), None);
        assert_eq!(sender("match = \"\"", ""), hit);
        assert_eq!(sender("re_match = ^x.*y$", "xay"), hit);
        assert_eq!(sender("re_match = ^x.*y$", "axy"), None);
        assert_eq!(sender("lt_match = 10", "9abc"), hit);
        assert_eq!(sender("lt_match = 10", "10"), None);
        assert_eq!(sender("gt_match = 10", "1e4"), hit);
        assert_eq!(sender("match = one\n re_match = ^two", "two!"), hit);
        assert_eq!(sender("match = keep\n invert = 1", "keep"), None);
        assert_eq!(sender("match = keep\n invert = 1", "x"), hit);
        assert_eq!(sender("invert = 1", "x"), hit);
    }

    #[test]
    fn a_missing_value_fulfils_nothing() {
        let text = "<Plugin c>\n module = Condition\n key = s:none\n match = x\n invert = 1\n action = hit\n\
                    </Plugin>";
        assert_eq!(Bench::new(text).run(), None);
    }

    #[test]
    fn the_score_is_added_each_time() {
        let text = "<Plugin c>\n module = Condition\n key = sender\n re_match = .\n score = 2\n</Plugin>";
        let mut bench = Bench::new(text).attribute("sender", "x");
        bench.run();
        bench.run();
        assert_eq!(bench.session.text("score_detail"), Some("c=2, c=2"));
    }

    #[test]
    fn mistakes_have_their_place() {
        let text = "<Plugin c>\n module = Condition\n key = bogus:x\n re_match = \"(open\"\n \
                    lt_match = many\n</Plugin>";
        let mistakes = Bench::mistakes(text);
        assert!(mistakes[0].starts_with("3:8 key: `bogus` is not a scope"), "{mistakes:?}");
        assert!(mistakes[1].starts_with("4:13 re_match: unmatched ("), "{mistakes:?}");
        assert!(mistakes[2].starts_with("5:13 lt_match: `many` is not a number"), "{mistakes:?}");
    }
}
