//! `AddScoreHeader`: writes the score into a header of the message.

use crate::options::{UserConfig, options};
use crate::plugin::{Cx, Error, Passes, Plugin, Setup, Verdict};
use crate::scoring::ScoreField;
use crate::value::{Score, perl_number};

options! {
    /// Adds a header with the score and its details to the message, once per message.
    ///
    /// The header looks like `X-MtScore: YES score=7.5 [sorbs=2.5, spamhaus=5]`. It ends the chain, also for
    /// later requests of the same message, which are answered with `dunno`; so it belongs at the end. A
    /// message has one header for all its recipients, with the score that the first of them has, including
    /// what depends on that recipient.
    ///
    /// ```conf
    /// <Plugin tag>
    ///   module = "AddScoreHeader"
    ///   spam_score = 5
    /// </Plugin>
    /// ```
    pub struct AddScoreHeaderOptions {
        /// From this score on the header says `YES`, below it `NO`.
        spam_score: UserConfig<Score> = Score::from(5.0),
        score_field: ScoreField,
        /// The name of the header.
        header_name: HeaderName = HeaderName("X-MtScore".to_owned()),
    }
}

/// The name of a header field: printable ASCII without a colon (RFC 5322, 2.2). Postfix drops the action
/// otherwise.
#[derive(Clone, Debug)]
pub struct HeaderName(String);

impl std::fmt::Display for HeaderName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl crate::value::Value for HeaderName {
    const FORM: &'static str = "name of a header";
    fn parse(text: &str) -> Result<Self, String> {
        let legal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
        if legal { Ok(HeaderName(text.to_owned())) } else { Err(format!("`{text}` can't name a header")) }
    }
}

pub struct AddScoreHeader {
    options: AddScoreHeaderOptions,
    done: String,
}

impl Plugin for AddScoreHeader {
    const NAME: &'static str = "AddScoreHeader";
    type Options = AddScoreHeaderOptions;

    fn new(options: AddScoreHeaderOptions, setup: &mut Setup<'_, '_>) -> Option<AddScoreHeader> {
        setup.reads_score(&options.score_field);
        let done = format!("score-{}-tag", options.score_field.name());
        Some(AddScoreHeader { options, done })
    }

    fn passes(&self) -> Passes {
        Passes::Never
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        if !cx.session.first_in_message(&self.done) {
            return Ok(Verdict::dunno());
        }
        let AddScoreHeaderOptions { spam_score, score_field, header_name } = &self.options;
        let score = score_field.total(cx.session);
        let spam = if score >= spam_score.get(cx.session).points() { "YES" } else { "NO" };
        let detail = score_field.detail(cx.session);
        let detail = detail.map(|detail| format!(" [{detail}]")).unwrap_or_default();
        Ok(Verdict::Stop(format!("PREPEND {header_name}: {spam} score={}{detail}", perl_number(score))))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    #[test]
    fn the_header_says_the_score_once_a_mail() {
        let mut bench = Bench::new("<Plugin h>\n module = AddScoreHeader\n</Plugin>");
        bench.session.set("score", "5");
        bench.session.set("score_detail", "c=5");
        assert_eq!(bench.run(), Some("PREPEND X-MtScore: YES score=5 [c=5]".into()));
        assert_eq!(bench.run(), Some("dunno".into()));
    }

    #[test]
    fn without_a_score_it_is_zero() {
        let mut bench = Bench::new("<Plugin h>\n module = AddScoreHeader\n header_name = X-Spam\n</Plugin>");
        assert_eq!(bench.run(), Some("PREPEND X-Spam: NO score=0".into()));
    }

    #[test]
    fn a_header_has_a_legal_name() {
        let text = "<Plugin h>\n module = AddScoreHeader\n header_name = \"X Spam\"\n</Plugin>";
        assert_eq!(Bench::mistakes(text), ["3:16 header_name: `X Spam` can't name a header"]);
    }
}
