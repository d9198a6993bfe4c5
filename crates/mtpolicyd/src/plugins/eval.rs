//! `Eval`: keeps the answer of other plugins instead of giving it.

use crate::chain::Chain;
use crate::options::{Flow, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};

options! {
    /// Runs the plugins in its block and stores their answer in a session field; the chain goes on.
    ///
    /// ```conf
    /// <Plugin ask-first>
    ///   module = "Eval"
    ///   store_in = "opinion"
    ///   <Plugin other-daemon>
    ///     module = "Proxy"
    ///     host = "127.0.0.1:10023"
    ///   </Plugin>
    /// </Plugin>
    /// <Plugin obey-rejects-only>
    ///   module = "Condition"
    ///   key = "session:opinion"
    ///   re_match = "(?i)^reject"
    ///   action = "reject refused by our other policy"
    /// </Plugin>
    /// ```
    pub struct EvalOptions {
        /// The field to store the answer in; it is not changed if no plugin answers.
        store_in: String,
    }
}

pub struct Eval {
    store_in: String,
    nested: Chain,
}

impl Plugin for Eval {
    const NAME: &'static str = "Eval";
    type Options = EvalOptions;

    fn new(options: EvalOptions, setup: &mut Setup<'_, '_>) -> Option<Eval> {
        let nested = Chain::nested(setup)?;
        setup.section.note_flow("store_in", Flow::Sets(options.store_in.clone()));
        if nested.is_empty() {
            setup.has_no_effect("plugin in its block");
        }
        Some(Eval { store_in: options.store_in, nested })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        if let Some(outcome) = self.nested.run(cx).await? {
            cx.session.configure(&self.store_in, &outcome.action);
        }
        Ok(Verdict::Next)
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    const TEXT: &str = "<Plugin e>\n module = Eval\n store_in = res\n <Plugin c>\n  module = Condition\n  \
                        key = sender\n  match = x\n  action = inner\n </Plugin>\n</Plugin>";

    #[test]
    fn the_answer_is_kept_and_the_chain_goes_on() {
        let mut bench = Bench::new(TEXT).attribute("sender", "x");
        assert_eq!(bench.run(), None);
        assert_eq!(bench.session.text("res"), Some("inner"));
    }

    #[test]
    fn no_answer_sets_nothing() {
        let mut bench = Bench::new(TEXT).attribute("sender", "y");
        assert_eq!(bench.run(), None);
        assert_eq!(bench.session.text("res"), None);
    }

    #[test]
    fn without_a_plugin_to_run_it_is_noticed() {
        let warnings = Bench::warnings("<Plugin e>\n module = Eval\n store_in = res\n</Plugin>");
        assert_eq!(warnings, ["1:1 Plugin e has no effect: it has no plugin in its block"]);
    }
}
