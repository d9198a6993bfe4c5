//! `RBLAction`: acts on which answer a DNS list gave to an earlier RBL plugin.

use crate::dnsbl::{Mode, rbl_field, recall};
use crate::fields::Template;
use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};
use crate::scoring::{Mark, Scoring};
use perl_regex::{Pattern, PatternList};
use std::sync::Arc;

options! {
    /// Acts on the codes that a list returned to an earlier RBL plugin, for lists that combine several lists.
    /// Such a list may answer with several addresses at once, in any order: one match is enough. Only
    /// addresses that count for the RBL plugin, also by its `return_codes`, are considered.
    ///
    /// The score counts once per message.
    ///
    /// ```conf
    /// <Plugin spamhaus>
    ///   module = "RBL"
    ///   mode = "passive"
    ///   domain = "zen.spamhaus.org"
    /// </Plugin>
    /// <Plugin spamhaus-sbl>
    ///   module = "RBLAction"
    ///   result_from = "spamhaus"
    ///   re_match = "^127\.0\.0\.[23]$"
    ///   mode = "reject"
    /// </Plugin>
    /// <Plugin spamhaus-pbl>
    ///   module = "RBLAction"
    ///   result_from = "spamhaus"
    ///   re_match = "^127\.0\.0\.1[01]$"
    ///   mode = "passive"
    ///   score = 3
    /// </Plugin>
    /// ```
    pub struct RblActionOptions {
        /// The name of the RBL plugin whose answer to use; if it did not run, nothing happens.
        result_from: String,
        + enabled,
        /// What to do if the answer matches: `reject` the message, `accept` it (end the chain with `dunno`),
        /// or only add the score (`passive`).
        mode: UserConfig<Mode> = Mode::Reject,
        /// A Perl regular expression for an address that the list returned.
        re_match: Pattern,
        /// The text of the rejection. `%IP%` is the address of the client, `%INFO%` the text that the list
        /// publishes about it, in brackets. Only the first occurrence of each placeholder is replaced.
        reject_message: Template = "delivery from %IP% rejected %INFO%",
        /// Added to the score if the answer matches.
        score: Scoring = Mark("rbl-{}-score"),
    }
}

pub struct RblAction {
    options: RblActionOptions,
    patterns: Arc<PatternList>,
    result: String,
}

impl Plugin for RblAction {
    const NAME: &'static str = "RBLAction";
    type Options = RblActionOptions;

    fn new(options: RblActionOptions, setup: &mut Setup<'_, '_>) -> Option<RblAction> {
        let patterns = Arc::new(PatternList::new(vec![options.re_match.clone()]));
        setup.uses_result("RBL", &options.result_from);
        Some(RblAction { result: rbl_field(&options.result_from), options, patterns })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        let Some(listed) = recall(cx.session, &self.result).flatten() else { return Ok(Verdict::Next) };
        let mut matches = false;
        for address in &listed.addresses {
            matches = matches || cx.find(&self.patterns, address.to_string().as_bytes()).await?.is_some();
        }
        if !matches {
            return Ok(Verdict::Next);
        }
        self.options.score.add_once(cx.session);
        let ip = cx.shown("client_address");
        let mode = self.options.mode.get(cx.session);
        Ok(listed.verdict(mode, &self.options.reject_message, &ip, cx).await)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;
    use backends::dns::{Answer, Question, RecordType};

    fn bench(action: &str) -> Bench {
        Bench::new(&format!(
            "<Plugin bl>\n module = RBL\n domain = zen.example\n mode = passive\n</Plugin>\n\
             <Plugin sbl>\n module = RBLAction\n result_from = bl\n score = 3\n {action}\n</Plugin>"
        ))
        .listed("4.2.0.192.zen.example", "127.0.0.3", "see")
        .attribute("client_address", "192.0.2.4")
    }

    #[test]
    fn a_matching_answer_is_acted_on() {
        let mut bench = bench("re_match = \"^127\\.0\\.0\\.[23]$\"\n reject_message = \"SBL %IP% %INFO%\"");
        assert_eq!(bench.run().as_deref(), Some("reject SBL 192.0.2.4 (see)"));
        assert_eq!(bench.questions(), ["4.2.0.192.zen.example A", "4.2.0.192.zen.example TXT"]);
        assert_eq!(bench.session.text("score_detail"), Some("sbl=3"));
    }

    #[test]
    fn each_answer_of_a_list_is_looked_at() {
        let codes: [[u8; 4]; 3] = [[127, 0, 0, 10], [127, 0, 0, 2], [127, 0, 0, 11]];
        for turn in 0..codes.len() {
            let mut codes = codes;
            codes.rotate_left(turn);
            let answer = Answer::Addresses(codes.iter().map(|octets| (*octets).into()).collect());
            let question = Question::new("4.2.0.192.zen.example", RecordType::A);
            let mut bench = bench("re_match = \"^127\\.0\\.0\\.2$\"").answers(question, answer, false);
            assert_eq!(bench.run().as_deref(), Some("reject delivery from 192.0.2.4 rejected (see)"));
            assert_eq!(bench.session.text("score_detail"), Some("sbl=3"), "{codes:?}");
        }
    }

    #[test]
    fn another_answer_is_not() {
        let mut bench = bench("re_match = \"^127\\.0\\.0\\.4$\"");
        assert_eq!(bench.run(), None);
        assert_eq!(bench.session.text("score"), None);
    }

    #[test]
    fn without_an_earlier_answer_nothing_happens() {
        let text = "<Plugin a>\n module = RBLAction\n result_from = none\n re_match = .\n</Plugin>";
        assert_eq!(Bench::new(text).run(), None);
    }
}
