//! `Stress`: acts when Postfix says that it is overloaded.

use crate::chain::Chain;
use crate::options::{OptionalUserConfig, options};
use crate::plugin::{Cx, Error, Plugin, Setup, Verdict};

options! {
    /// Answers with an action, or runs the plugins in its block, while Postfix is under stress (see its
    /// STRESS_README).
    ///
    /// ```conf
    /// <Plugin stress>
    ///   module = "Stress"
    ///   action = "defer we are busy, please try again later"
    /// </Plugin>
    /// ```
    pub struct StressOptions {
        /// The answer; without one, the plugins in this block run.
        action: OptionalUserConfig<String>,
    }
}

pub struct Stress {
    options: StressOptions,
    nested: Chain,
}

impl Plugin for Stress {
    const NAME: &'static str = "Stress";
    type Options = StressOptions;

    fn new(options: StressOptions, setup: &mut Setup<'_, '_>) -> Option<Stress> {
        setup.check_actions("action", &options.action);
        let nested = Chain::nested(setup)?;
        if !options.action.is_given() && nested.is_empty() {
            setup.has_no_effect("`action` and no plugin in its block");
        }
        Some(Stress { options, nested })
    }

    async fn run(&self, cx: &mut Cx<'_>) -> Result<Verdict, Error> {
        if cx.request.get("stress") != Some(b"yes") {
            return Ok(Verdict::Next);
        }
        let action = self.options.action.get(cx.session);
        self.nested.act(action.as_deref(), cx).await
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Bench;

    const TEXT: &str = "<Plugin s>\n module = Stress\n action = defer busy\n uc_action = mine\n</Plugin>";

    #[test]
    fn it_acts_under_stress_only() {
        assert_eq!(Bench::new(TEXT).attribute("stress", "yes").run(), Some("defer busy".into()));
        for calm in ["", "no", "YES"] {
            assert_eq!(Bench::new(TEXT).attribute("stress", calm).run(), None);
        }
    }

    #[test]
    fn a_user_may_have_another_action() {
        let mut bench = Bench::new(TEXT).attribute("stress", "yes");
        bench.session.set("mine", "dunno");
        assert_eq!(bench.run(), Some("dunno".into()));
    }
}
